# SPDX-License-Identifier: Apache-2.0
"""Read one msgpack message from a peer nobody has to trust.

In: any bytes. Out: Python values with numpy arrays, or a `DecodeError` that says where and what was
wrong. Pure. Written out instead of left to a library, so that nothing is allocated before it is
known to be there: every length is held against the bytes that follow, every level and value against
`DecodeLimits`.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Callable
from typing import Any, Final

from pi05_websocket.errors import DecodeError
from pi05_websocket.wire.arrays import Malformed, array_from, numpy_value_from, shortened
from pi05_websocket.wire.limits import DEFAULT_LIMITS, DecodeLimits

__all__ = ["decode", "path_text"]


def decode(data: bytes | bytearray | memoryview, limits: DecodeLimits = DEFAULT_LIMITS) -> Any:
    """Decode one whole message: OpenPI's msgpack flavour and its dialects.

    Map keys always come back as str. Arrays of one-byte kinds from 4 KiB on are read-only views of
    `data`, which must not change while they live; all other arrays are aligned, writable copies.
    NaN and inf pass.

    Raises:
        DecodeError: If the bytes are not such a message, whole and nothing else.
    """
    reader = _Reader(memoryview(data).cast("B").toreadonly(), limits)
    try:
        return reader.message()
    except Malformed as exc:
        path = path_text(reader.path)
        raise DecodeError(f"{path}: {exc}" if path else str(exc)) from None


def path_text(path: list[str | int]) -> str:
    """Write a path for people: `observation/state`, `examples[0]/image[1]`; empty for the root."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            name = step if step.isprintable() and len(step) <= 60 else shortened(step)
            text += f"/{name}" if text else name
    return text


class _Reader:
    """One pass over one message. Binary values stay memoryviews until their container is whole."""

    __slots__ = ("_end", "_items_left", "_limits", "_pos", "_view", "path")

    def __init__(self, view: memoryview, limits: DecodeLimits) -> None:
        self._view = view
        self._pos = 0
        self._end = len(view)
        self._items_left = limits.max_items
        self._limits = limits
        self.path: list[str | int] = []
        """Keys and indexes on the way to the value being read; after a failure, to the bad one."""

    def message(self) -> Any:
        if self._end > self._limits.max_message_bytes:
            raise Malformed(
                f"the message has {self._end} bytes; "
                f"at most {self._limits.max_message_bytes} are allowed"
            )
        value = self._value(self._limits.max_depth)
        if self._pos != self._end:
            raise Malformed(f"{self._end - self._pos} bytes follow the end of the message")
        return bytes(value) if type(value) is memoryview else value

    def _value(self, depth: int) -> Any:
        tag = self._next_tag()
        return _READERS[tag](self, tag, depth)

    def _next_tag(self) -> int:
        pos = self._pos
        if pos >= self._end:
            raise Malformed(
                f"the message ends after {self._end} bytes, where a value should follow"
            )
        self._items_left -= 1
        if self._items_left < 0:
            raise Malformed(
                f"more than {self._limits.max_items} values; send numbers as arrays, not lists"
            )
        self._pos = pos + 1
        return self._view[pos]

    def take(self, size: int) -> memoryview:
        start = self._pos
        if size > self._end - start:
            raise Malformed(f"{size} bytes announced, only {self._end - start} follow")
        self._pos = start + size
        return self._view[start : start + size]

    def text(self, size: int) -> str:
        try:
            return str(self.take(size), "utf-8")
        except UnicodeDecodeError as exc:
            raise Malformed(f"text is not UTF-8: {exc.reason}") from None

    def list(self, count: int, depth: int) -> list[Any]:
        self._enter(count, depth, bytes_each=1)
        values: list[Any] = []
        for index in range(count):
            self.path.append(index)
            value = self._value(depth - 1)
            values.append(bytes(value) if type(value) is memoryview else value)
            self.path.pop()
        return values

    def map(self, count: int, depth: int) -> Any:
        self._enter(count, depth, bytes_each=2)
        if count == 4 and (array := self._array_as_openpi_writes_it()) is not None:
            return array
        values: dict[str, Any] = {}
        for _ in range(count):
            key = self._key()
            self.path.append(key)
            if key in values:
                raise Malformed("this key occurs twice")
            values[key] = self._value(depth - 1)
            self.path.pop()
        numpy_value = numpy_value_from(values, self._limits)
        if numpy_value is not None:
            return numpy_value
        for key, value in values.items():
            if type(value) is memoryview:
                values[key] = bytes(value)
        return values

    def _array_as_openpi_writes_it(self) -> Any:
        """Read an array map in exactly OpenPI's layout; of any other read nothing, return None.

        Same outcome as entry by entry, at a third of the time.
        """
        view, start = self._view, self._pos
        head = _OPENPI_HEAD.match(view, start)
        if head is None:
            return None
        size = int.from_bytes(head[head.lastindex or 0], "big")
        self._pos = head.end()
        data = self.take(size)
        tail = _OPENPI_TAIL.match(view, self._pos)
        if tail is None:
            self._pos = start
            return None
        self._pos = tail.end()
        return array_from(data, *_dtype_and_shape(tail[0]), self._limits)

    def _enter(self, count: int, depth: int, bytes_each: int) -> None:
        if depth == 0:
            raise Malformed(f"nested deeper than {self._limits.max_depth} levels")
        if count * bytes_each > self._end - self._pos:
            raise Malformed(f"{count} entries announced, only {self._end - self._pos} bytes follow")

    def _key(self) -> str:
        tag = self._next_tag()
        if tag not in _KEY_TAGS:
            raise Malformed(f"map keys must be text, got {_kind_name(tag)}")
        key = _READERS[tag](self, tag, 0)
        if type(key) is memoryview:  # peers that write every string as binary
            try:
                return str(key, "utf-8")
            except UnicodeDecodeError as exc:
                raise Malformed(f"a binary map key is not UTF-8: {exc.reason}") from None
        return str(key)


_OPENPI_HEAD: Final = re.compile(
    rb"\xc4\x0b__ndarray__\xc3\xc4\x04data(?:\xc4(.)|\xc5(..)|\xc6(....))", re.DOTALL
)
_OPENPI_TAIL: Final = re.compile(
    rb"\xc4\x05dtype\xa3...\xc4\x05shape"
    rb"(?:\x90|\x91D|\x92DD|\x93DDD|\x94DDDD)".replace(
        b"D", rb"(?:[\x00-\x7f]|\xcc.|\xcd..|\xce....)"
    ),
    re.DOTALL,
)


@functools.lru_cache(maxsize=256)
def _dtype_and_shape(tail: bytes) -> tuple[str, list[int]]:
    """Read `dtype` and `shape` of the few kinds of arrays one peer sends again and again."""
    entries = _Reader(memoryview(b"\x82" + tail), DEFAULT_LIMITS).message()
    return entries["dtype"], entries["shape"]


# ---------------------------------------------------------------- the tags of msgpack, one by one

_Read = Callable[[_Reader, int, int], Any]


def _number(code: str) -> _Read:
    unpack, size = struct.Struct(code).unpack, struct.calcsize(code)
    return lambda reader, _tag, _depth: unpack(reader.take(size))[0]


def _constant(value: object) -> _Read:
    return lambda _reader, _tag, _depth: value


def _sized(code: str, read: Callable[[_Reader, int, int], Any]) -> _Read:
    """Read a length of this struct code, then what has that length."""
    unpack, size = struct.Struct(code).unpack, struct.calcsize(code)
    return lambda reader, _tag, depth: read(reader, unpack(reader.take(size))[0], depth)


def _text(reader: _Reader, size: int, _depth: int) -> str:
    return reader.text(size)


def _binary(reader: _Reader, size: int, _depth: int) -> memoryview:
    return reader.take(size)


def _refused(_reader: _Reader, tag: int, _depth: int) -> Any:
    raise Malformed(f"{_kind_name(tag)} (0x{tag:02x}) is not part of this protocol")


def _kind_name(tag: int) -> str:
    return _KIND_NAMES.get(tag, "a number" if tag < 0x80 or tag >= 0xE0 else "a list or map")


_KIND_NAMES: Final[dict[int, str]] = {
    0xC0: "nil",
    0xC1: "an unused tag",
    0xC2: "a bool",
    0xC3: "a bool",
    **dict.fromkeys(range(0xC7, 0xCA), "an extension type"),
    **dict.fromkeys(range(0xCA, 0xD4), "a number"),
    **dict.fromkeys(range(0xD4, 0xD9), "an extension type"),
}

_READERS: Final[list[_Read]] = (
    [lambda _r, tag, _d: tag] * 0x80  # positive fixint
    + [lambda r, tag, depth: r.map(tag & 0x0F, depth)] * 0x10
    + [lambda r, tag, depth: r.list(tag & 0x0F, depth)] * 0x10
    + [lambda r, tag, _d: r.text(tag & 0x1F)] * 0x20
    + [_constant(None), _refused, _constant(False), _constant(True)]  # c0 nil, c1 unused
    + [_sized(">B", _binary), _sized(">H", _binary), _sized(">I", _binary)]  # c4
    + [_refused] * 3  # c7 ext 8/16/32
    + [_number(code) for code in (">f", ">d", ">B", ">H", ">I", ">Q", ">b", ">h", ">i", ">q")]  # ca
    + [_refused] * 5  # d4 fixext 1/2/4/8/16
    + [_sized(">B", _text), _sized(">H", _text), _sized(">I", _text)]  # d9
    + [_sized(">H", _Reader.list), _sized(">I", _Reader.list)]  # dc
    + [_sized(">H", _Reader.map), _sized(">I", _Reader.map)]  # de
    + [lambda _r, tag, _d: tag - 0x100] * 0x20  # negative fixint
)

_KEY_TAGS: Final = frozenset((*range(0xA0, 0xC0), 0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB))
