# SPDX-License-Identifier: Apache-2.0
"""Numpy arrays and scalars as they travel: which dtypes may, and how bytes become an array again.

In: a dtype's name, a shape, bytes from a peer. Out: an array of just those bytes, or `Malformed`.
Pure. No name from the peer ever reaches `np.dtype`: only those listed here are known.
"""

from __future__ import annotations

import math
import re
import reprlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pi05_websocket.wire.limits import DecodeLimits

__all__ = [
    "Array",
    "Dtype",
    "Malformed",
    "array_from",
    "numpy_value_from",
    "shortened",
    "travels",
]

Array = npt.NDArray[Any]
Dtype = np.dtype[Any]

# Kinds and sizes both ends agree on. Not here: object (pickle), void (structs, bfloat16), complex,
# dates, and the platform's long double, whose bytes mean something else on the next machine.
_NUMERIC: Final = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
_TEXT_NAME: Final = re.compile(r"[<>|=]?[US][1-9][0-9]{0,7}", re.ASCII)

_NAMED: Final[dict[str, Dtype]] = {
    name: np.dtype(name)
    for code in _NUMERIC
    for name in (code, "<" + code, ">" + code, "=" + code, np.dtype(code).str, np.dtype(code).name)
}
_NUMERIC_DTYPES: Final = frozenset(_NAMED.values())

_VIEW_FROM_BYTES: Final = 4096
# Smaller arrays are copied: cheaper than keeping a megabyte message alive for a twelve-byte state.

_LONGEST_WORD: Final = 32
"""Bytes; the longest name of a dtype has ten."""

_LAST_CODE_POINT: Final = 0x10FFFF
_SURROGATES: Final = (0xD800, 0xDFFF)


class Malformed(Exception):
    """Bytes from a peer break a rule; the text says which."""


def travels(dtype: Dtype) -> bool:
    """Say whether arrays of this dtype may be sent and received."""
    return dtype in _NUMERIC_DTYPES or (dtype.kind in "US" and dtype.itemsize > 0)


def array_from(data: object, dtype_name: object, shape: Any, limits: DecodeLimits) -> Array:
    """Return the array these bytes are: a view if large and of a one-byte kind, else a copy.

    A view is read-only and keeps the whole message alive; a copy is aligned and writable.

    Raises:
        Malformed: If data and shape do not agree to the byte, or the dtype has no such content.
    """
    if not isinstance(data, memoryview):
        raise Malformed(f"array data must be binary, got {type(data).__name__}")
    _check_shape(shape, limits.max_array_dims)
    dtype = _dtype_named(dtype_name)
    expected = math.prod(shape, start=dtype.itemsize)
    if expected != len(data):
        raise Malformed(f"shape {shape} of {dtype} needs {expected} data bytes, got {len(data)}")
    if expected == 0:
        # The other dimensions of an empty array are not held in check by its data.
        if math.prod(filter(None, shape), start=dtype.itemsize) > limits.max_message_bytes:
            raise Malformed(f"shape {shape} of {dtype} is too large for a message")
        return np.empty(shape, dtype)
    # frombuffer keeps the buffer exported while the array lives, so that a bytearray cannot be resized
    # under it; np.ndarray(buffer=...) would not.
    array: Array = np.frombuffer(data, dtype).reshape(shape)
    _check_content(array, data)
    if dtype.itemsize == 1 and expected >= _VIEW_FROM_BYTES:
        return array
    return array.copy()


def numpy_value_from(values: dict[str, Any], limits: DecodeLimits) -> Any:
    """Return the array or scalar a map stands for; None when it is a map like any other.

    Raises:
        Malformed: If it says it is one and is not.
    """
    if "__ndarray__" in values:
        _require(values, "__ndarray__", "data", "dtype", "shape")
        return array_from(values["data"], values["dtype"], values["shape"], limits)
    if "__npgeneric__" in values:
        _require(values, "__npgeneric__", "data", "dtype")
        return _scalar_from(values["data"], _dtype_named(values["dtype"]))
    if "nd" in values:
        return _pypi_value_from(values, limits)
    return None


def _require(values: dict[str, Any], *expected: str) -> None:
    # Extra entries are refused too: "order" or "compression" would change what the bytes mean.
    if values.keys() != set(expected):
        raise Malformed(
            f"an array map needs the keys {sorted(expected)}, got {shortened(sorted(values))}"
        )


def _pypi_value_from(values: dict[str, Any], limits: DecodeLimits) -> Any:
    """Read PyPI msgpack-numpy's maps; None for a map that only happens to have an `nd` entry."""
    shaped = values["nd"]
    if type(shaped) is not bool:
        return None
    required = {"nd", "type", "data", "shape"} if shaped else {"nd", "type", "data"}
    if not required <= values.keys() <= required | {"kind"}:
        return None
    kind = _word(values.get("kind", ""))
    # Text first: an array, compared, is an array. "O" would be a pickle, "V" a struct.
    if not isinstance(kind, str) or kind not in ("", _dtype_named(values["type"]).kind):
        raise Malformed(
            f"array kind {shortened(kind)} is not allowed; objects and structs never travel"
        )
    shape = values["shape"] if shaped else []
    array = array_from(values["data"], values["type"], shape, limits)
    return array if shaped else array[()]


def _scalar_from(value: object, dtype: Dtype) -> np.generic:
    """Return the numpy scalar of this dtype with this value, which must be of its kind and fit."""
    kinds: tuple[type, ...] = _PYTHON_KINDS.get(dtype.kind, ())
    if not isinstance(value, kinds) or (isinstance(value, bool) and dtype.kind != "b"):
        raise Malformed(f"a scalar of dtype {dtype} cannot be made from {type(value).__name__}")
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            scalar: np.generic = dtype.type(value)
    except OverflowError:
        raise Malformed(f"{value} does not fit a scalar of dtype {dtype}") from None
    if dtype.kind == "f" and np.isinf(scalar) and not math.isinf(value):  # type: ignore[arg-type]
        raise Malformed(f"{value} does not fit a scalar of dtype {dtype}")
    return scalar


_PYTHON_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "b": (bool,),
    "i": (int,),
    "u": (int,),
    "f": (float, int),
}


def _dtype_named(name: object) -> Dtype:
    """Return the dtype a peer names: `<f4`, `|u1`, `float32`, `<U12`, also given as bytes."""
    name = _word(name)
    if isinstance(name, str):
        dtype = _NAMED.get(name)
        if dtype is not None:
            return dtype
        if _TEXT_NAME.fullmatch(name):
            return np.dtype(name)
    raise Malformed(
        f"dtype {shortened(name)} is not allowed: "
        "only bool, integers, float16/32/64 and fixed-width text or bytes travel"
    )


def _word(said: object) -> object:
    """Return text for a word that came as binary; what is too long for a word stays what it is."""
    if isinstance(said, memoryview) and len(said) <= _LONGEST_WORD:
        return str(said, "ascii", "replace")
    return said


def _check_shape(shape: Any, max_dims: int) -> None:
    if not isinstance(shape, list):
        raise Malformed(f"array shape must be a list, got {type(shape).__name__}")
    if len(shape) > max_dims:
        raise Malformed(f"an array of {len(shape)} dimensions; at most {max_dims} are allowed")
    for dim in shape:
        if type(dim) is not int or dim < 0:
            raise Malformed(f"array shape must hold integers >= 0, got {shortened(dim)}")


def _check_content(array: Array, data: memoryview) -> None:
    """Refuse bytes numpy would take but nobody can read: bools beyond 1, text beyond Unicode."""
    if array.dtype.kind == "b" and np.frombuffer(data, np.uint8).max() > 1:
        raise Malformed("a bool array holds bytes other than 0 and 1")
    if array.dtype.kind == "U":
        code_points = np.frombuffer(data, np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        first, last = _SURROGATES
        halves = (code_points >= first) & (code_points <= last)
        if code_points.max() > _LAST_CODE_POINT or halves.any():
            raise Malformed("a text array holds code points beyond Unicode")


def shortened(value: object) -> str:
    """Return `repr(value)`, cut to 60 characters: a peer's words may be megabytes long.

    They are cut before they are quoted: quoted, a byte may take four.
    """
    text = _SHORT.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class _Short(reprlib.Repr):
    """`repr` of the first part of a value, whatever its length."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxdict = 24

    def repr_str(self, value: str, _level: int) -> str:
        return repr(value[:61])

    def repr_bytes(self, value: bytes, _level: int) -> str:
        return repr(value[:61])

    def repr_memoryview(self, value: memoryview, level: int) -> str:
        return self.repr_bytes(bytes(value[:61]), level)

    def repr_ndarray(self, value: Array, _level: int) -> str:
        return f"an array of {value.dtype} and shape {value.shape}"


_SHORT: Final = _Short()
