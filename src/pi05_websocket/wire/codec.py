# SPDX-License-Identifier: Apache-2.0
"""OpenPI's msgpack flavour: Python values with numpy arrays to bytes and back.

In: dicts, lists, numbers, text and arrays. Out: the bytes OpenPI's own packer would have written,
and back. Decoding (`decoding`) trusts nothing: any bytes end in a value or a `DecodeError`. Pure.

An array travels as a map of four entries with *bytes* keys, in this order (openpi
`packages/openpi-client/src/openpi_client/msgpack_numpy.py` @ 15a9616)::

    {b"__ndarray__": True, b"data": C-order bytes, b"dtype": "<f4", b"shape": (50, 32)}

and a numpy scalar as ``{b"__npgeneric__": True, b"data": 7, b"dtype": "<i8"}``. Decoding also takes
the same maps with str keys, and those of PyPI's msgpack-numpy (`nd`, `type`, `kind`), which are
never unpickled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np

from pi05_websocket.errors import EncodeError
from pi05_websocket.wire.arrays import Array, Dtype, travels
from pi05_websocket.wire.decoding import decode, path_text
from pi05_websocket.wire.limits import DEFAULT_LIMITS, DecodeLimits

__all__ = ["DEFAULT_LIMITS", "DecodeLimits", "decode", "encode", "encode_into"]


def encode(obj: Any) -> bytes:
    """Encode a value as OpenPI's `msgpack_numpy.packb` does, byte for byte.

    Tuples become lists, `np.float64` a plain float, other numpy scalars and arrays OpenPI's maps.

    Raises:
        EncodeError: If something in it cannot travel; names its place, as in `observation/state`.
    """
    return _ENCODER.encode(_sendable(obj))


def encode_into(obj: Any, buffer: bytearray, offset: int = 0) -> None:
    """Encode into `buffer` from `offset` on and set the buffer's length to the message's end.

    The bytes before `offset` are head-room, for a frame header; what was in them is lost. After an
    `EncodeError` the buffer is as it was.

    Args:
        offset: 0, or from 3 to 258.

    Raises:
        EncodeError: As `encode`.
        BufferError: If somebody still holds a view of `buffer`.
    """
    if offset == 0:
        _ENCODER.encode_into(_sendable(obj), buffer)
        return
    if not 3 <= offset <= 258:
        raise ValueError(f"offset must be 0 or from 3 to 258, got {offset}")
    # msgspec's own `offset` gives the buffer's memory back and takes it anew: 262 page faults and 0.6 ms for
    # each observation. So the head-room is written too: as binary, the first item of a list of two.
    _ENCODER.encode_into((_ZEROS[3:offset], _sendable(obj)), buffer)


_ZEROS: Final = bytes(258)
_ENCODER: Final = msgspec.msgpack.Encoder()


class _Unsendable(Exception):
    """Something cannot travel; collects the keys that lead to it on its way up."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path: list[str | int] = []


def _sendable(obj: Any) -> Any:
    try:
        return _plain(obj, DEFAULT_LIMITS.max_depth)
    except _Unsendable as exc:
        path = path_text(exc.path[::-1]) or "this value"
        raise EncodeError(f"cannot send {path}: {exc.reason}") from None


def _plain(value: Any, depth: int) -> Any:
    """Return `value` in terms msgspec writes as OpenPI does; arrays as maps over their memory."""
    plainer = _PLAINERS.get(type(value))
    if plainer is None:
        plainer = _plainer_of_subclass(value)
    return plainer(value, depth)


def _plainer_of_subclass(value: Any) -> Callable[[Any, int], Any]:
    # In the order in which OpenPI's packer looks: np.float64 is a float first, np.str_ a str,
    # an IntEnum an int.
    for base in (int, float, bytes, bytearray, str, dict, list, tuple, np.ndarray, np.generic):
        if isinstance(value, base):
            return _PLAINERS[base]
    return _plain_unknown


def _plain_as_is(value: Any, _depth: int) -> Any:
    return value


def _plain_int(value: int, _depth: int) -> int:
    if not -(2**63) <= value < 2**64:
        raise _Unsendable(f"an integer of {value.bit_length()} bits; at most 64 travel")
    return int(value)


def _plain_float(value: float, _depth: int) -> float:
    return float(value)


def _plain_bytes(value: Any, _depth: int) -> bytes:
    return bytes(value)


def _plain_str(value: str, _depth: int) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Unsendable(f"the text {value!r} is not valid Unicode") from None
    return str.__str__(value)  # a plain str of its characters, also of a str Enum


def _plain_map(value: dict[Any, Any], depth: int) -> dict[Any, Any]:
    if depth == 0:
        raise _Unsendable(f"it is nested deeper than {DEFAULT_LIMITS.max_depth} levels")
    plain: dict[Any, Any] = {}
    for key, item in value.items():
        if not isinstance(key, (str, bytes)):
            raise _Unsendable(
                f"its key {key!r} is of type {type(key).__name__}; OpenPI reads str keys only"
            )
        try:
            name = _plain_str(key, 0) if isinstance(key, str) else bytes(key)
            plain[name] = _plain(item, depth - 1)
        except _Unsendable as exc:
            exc.path.append(key if isinstance(key, str) else repr(key))
            raise
    return plain


def _plain_list(value: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
    if depth == 0:
        raise _Unsendable(f"it is nested deeper than {DEFAULT_LIMITS.max_depth} levels")
    plain: list[Any] = []
    for item in value:
        try:
            plain.append(_plain(item, depth - 1))
        except _Unsendable as exc:
            exc.path.append(len(plain))
            raise
    return plain


def _plain_array(value: Array, _depth: int) -> dict[bytes, Any]:
    _check_sendable_dtype(value.dtype)
    if isinstance(value, np.ma.MaskedArray):
        raise _Unsendable("it is a masked array and its mask would be lost; fill it first")
    # The array's memory goes straight into the message; only what is not in C order is copied.
    in_order = value.flags.c_contiguous
    return {
        b"__ndarray__": True,
        b"data": value.data if in_order else value.tobytes(),
        b"dtype": value.dtype.str,
        b"shape": value.shape,
    }


def _plain_scalar(value: np.generic, _depth: int) -> dict[bytes, Any]:
    _check_sendable_dtype(value.dtype)
    return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}


def _check_sendable_dtype(dtype: Dtype) -> None:
    if not travels(dtype):
        raise _Unsendable(
            f"numpy dtype {dtype} cannot travel; convert it, for example with .astype(np.float32)"
        )


def _plain_unknown(value: Any, _depth: int) -> Any:
    name = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    array_like = hasattr(value, "__array__")
    remedy = "convert it with numpy.asarray(...)" if array_like else "send numbers, text or arrays"
    raise _Unsendable(f"a value of type {name} cannot travel; {remedy}")


_PLAINERS: Final[dict[type, Callable[[Any, int], Any]]] = {
    type(None): _plain_as_is,
    bool: _plain_as_is,
    float: _plain_as_is,
    bytes: _plain_as_is,
    int: _plain_int,
    str: _plain_str,
    dict: _plain_map,
    list: _plain_list,
    tuple: _plain_list,
    np.ndarray: _plain_array,
    np.generic: _plain_scalar,
    np.float64: _plain_float,
    np.str_: _plain_str,
    np.bytes_: _plain_bytes,
    bytearray: _plain_bytes,
    memoryview: _plain_bytes,
}
