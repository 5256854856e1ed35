# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a message's encoding, clause by clause. Pure.

In: the bytes of one binary message. Out: faults, none for a good one. Looks at the msgpack itself, because the
library's decoder takes other families' flavours for the same arrays.
"""

from __future__ import annotations

import itertools
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from pi05_websocket.errors import DecodeError, EncodeError
from pi05_websocket.wire import codec
from pi05_websocket.wire.arrays import shortened, travels

__all__ = ["Fault", "encoding_faults", "faults_text", "is_openpis_bytes"]

_MOST_VALUES: Final = 1024 * 1024
"""Four times what our own decoder takes: beyond it Python's objects take a hundred times the message."""
_MOST_FAULTS: Final = 100
_MOST_DIMENSIONS: Final = 64
"""numpy's own limit; the product of a million of them would take hours."""
_LONGEST_KEY: Final = 60
"""Of a key in a path; longer ones are cut."""
_DTYPE: Final = re.compile(r"[<>|=][biufUS][0-9]{1,8}", re.ASCII)
_ARRAY: Final = {b"__ndarray__", b"data", b"dtype", b"shape"}
_SCALAR: Final = {b"__npgeneric__", b"data", b"dtype"}
_OTHERS: Final = ("__ndarray__", "__npgeneric__")
_PYPI: Final = {"nd", "type", "data"}
_PYPI_BESIDE: Final = {"shape", "kind"}


@dataclass(frozen=True, slots=True)
class Fault:
    """A clause that a message breaks, and where."""

    clause: str
    text: str


def encoding_faults(message: bytes) -> list[Fault]:
    """Return what is wrong with a message, by W-1 to W-8: the first hundred faults."""
    if _has_too_many_values(message):
        return [Fault("W-1", f"more than {_MOST_VALUES} values")]
    try:
        value = msgspec.msgpack.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        return [Fault("W-1", f"not one msgpack value: {exc}")]
    except (TypeError, RecursionError) as exc:  # a map or a list as a key; nested without end
        return [Fault("W-3" if isinstance(exc, TypeError) else "W-1", str(exc))]
    try:
        faults = list(itertools.islice(_faults(value, "the message"), _MOST_FAULTS))
    except RecursionError:
        return [Fault("W-1", "nested too deep")]
    if not faults:
        faults += _unreadable(message)
    return faults


def is_openpis_bytes(message: bytes) -> bool:
    """Say whether these are the bytes that OpenPI's packer writes for what they mean."""
    try:
        return codec.encode(codec.decode(message)) == message
    except (DecodeError, EncodeError):
        return False


def faults_text(faults: list[Fault]) -> str:
    """Return faults as one line: the first three."""
    shown = "; ".join(f"{fault.clause}: {fault.text}" for fault in faults[:3])
    return shown + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")


def _has_too_many_values(message: bytes, most: int = _MOST_VALUES) -> bool:
    """Count the values from one to the next, whatever holds them; stop where the message does."""
    at = 0
    for _ in range(most):
        if at >= len(message):
            return False
        at += _length(message, at)
    return at < len(message)


def _length(message: bytes, at: int) -> int:
    """Return how many bytes a value has, without those that it holds."""
    tag = message[at]
    if 0xA0 <= tag < 0xC0:  # a short text
        return 1 + (tag & 0x1F)
    if tag < 0xC4 or tag >= 0xE0:
        return 1
    head, before, code = _HEADS[tag]
    if not code or len(message) < at + head:
        return head
    (size,) = struct.unpack_from(code, message, at + before)
    return head + int(size)


def _heads() -> dict[int, tuple[int, int, str]]:
    """Return for each tag with a fixed head: its bytes, where the length is, how that is written."""
    lengths = ((1, ">B"), (2, ">H"), (4, ">I"))
    heads: dict[int, tuple[int, int, str]] = {}
    for step, (width, code) in enumerate(lengths):
        heads[0xC4 + step] = heads[0xD9 + step] = (1 + width, 1, code)  # bytes, text
        heads[0xC7 + step] = (2 + width, 1, code)  # an extension, with its type
    for tag, width in zip(range(0xCA, 0xD4), (4, 8, 1, 2, 4, 8, 1, 2, 4, 8), strict=True):
        heads[tag] = (1 + width, 0, "")
    for step in range(5):  # an extension of a fixed length
        heads[0xD4 + step] = (2 + (1 << step), 0, "")
    for tag, width in zip(range(0xDC, 0xE0), (2, 4, 2, 4), strict=True):  # lists and maps
        heads[tag] = (1 + width, 0, "")
    return heads


_HEADS: Final = _heads()


def _unreadable(message: bytes) -> list[Fault]:
    """Return what the tree does not show: keys that occur twice, text that is none."""
    try:
        codec.decode(message)
    except DecodeError as exc:
        return [Fault("W-3" if "twice" in str(exc) else "W-1", str(exc))]
    return []


def _faults(value: Any, where: str) -> Iterator[Fault]:
    if isinstance(value, dict):
        yield from _map_faults(value, where)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _faults(item, f"{where}[{index}]")
    elif value is not None and not isinstance(value, bool | int | float | str | bytes):
        yield Fault("W-2", f"{where} is an extension type")


def _map_faults(value: dict[Any, Any], where: str) -> Iterator[Fault]:
    if b"__ndarray__" in value:
        yield from _array_faults(value, where)
    elif b"__npgeneric__" in value:
        yield from _scalar_faults(value, where)
    elif any(marker in value for marker in _OTHERS) or _is_pypis(value):
        keys = shortened(list(value))
        yield Fault("W-4", f"{where} is an array of another flavour, with the keys {keys}")
    else:
        for key, item in value.items():
            if isinstance(key, str):
                name = key if len(key) <= _LONGEST_KEY else shortened(key)
                yield from _faults(item, f"{where}/{name}" if where != "the message" else name)
            else:
                yield Fault("W-3", f"{where} has the key {shortened(key)}, which is no text")


def _is_pypis(value: dict[Any, Any]) -> bool:
    """Say whether a map is an array of PyPI's msgpack-numpy, and does not only have an entry `nd`."""
    names = {key.decode("latin-1") if isinstance(key, bytes) else key for key in value}
    shaped = value.get(b"nd", value.get("nd"))
    return isinstance(shaped, bool) and _PYPI <= names <= _PYPI | _PYPI_BESIDE


def _array_faults(value: dict[Any, Any], where: str) -> Iterator[Fault]:
    if value.keys() != _ARRAY or value[b"__ndarray__"] is not True:
        yield Fault("W-4", f"{where}: an array map with {shortened(value)}")
        return
    data, shape, dtype = value[b"data"], value[b"shape"], _dtype(value[b"dtype"])
    if dtype is None:
        yield Fault("W-6", f"{where}: dtype {shortened(value[b'dtype'])}")
    if not isinstance(data, bytes) or not _is_shape(shape):
        yield Fault("W-7", f"{where}: {type(data).__name__} of shape {shortened(shape)}")
    elif dtype is not None and len(data) != math.prod(shape, start=dtype.itemsize):
        yield Fault("W-7", f"{where}: {len(data)} bytes for {dtype} of shape {shortened(shape)}")


def _scalar_faults(value: dict[Any, Any], where: str) -> Iterator[Fault]:
    if value.keys() != _SCALAR or value[b"__npgeneric__"] is not True:
        yield Fault("W-8", f"{where}: a scalar map with {shortened(value)}")
        return
    dtype = _dtype(value[b"dtype"])
    if dtype is None or dtype == np.float64 or dtype.kind in "US":
        yield Fault("W-8", f"{where}: a scalar of dtype {shortened(value[b'dtype'])}")
    elif not isinstance(value[b"data"], bool | int | float):
        yield Fault("W-8", f"{where}: a scalar whose data is {type(value[b'data']).__name__}")


def _dtype(name: Any) -> np.dtype[Any] | None:
    """Return a dtype that may travel; None for any other word."""
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        return None
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError):
        return None
    return dtype if travels(dtype) else None


def _is_shape(shape: Any) -> bool:
    if not isinstance(shape, list) or len(shape) > _MOST_DIMENSIONS:
        return False
    return all(type(size) is int and size >= 0 for size in shape)
