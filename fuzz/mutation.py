# SPDX-License-Identifier: Apache-2.0
"""Change an input so that it still looks like one: msgpack as a tree, text by its words, anything by its bytes.

In: bytes and a source of chance. Out: other bytes; the same chance gives the same bytes. Pure.
Flipped bytes alone mostly break the first length they touch; a tree whose leaves change gets past it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

__all__ = ["Mutate", "of_bytes", "of_json", "of_msgpack", "of_words"]

Mutate = Callable[[bytes, random.Random], bytes]
"""Returns a changed input."""

_LONGEST: Final = 4096
"""Bytes; what is found with longer ones is found with these, later."""

_BYTES: Final = tuple(
    bytes.fromhex(text)
    for text in (
        "", "00", "7f", "80", "81", "8f", "90", "9f", "a0", "bf", "c0", "c1", "c2", "c3", "c400", "c4ff",
        "c5ffff", "c6ffffffff", "c700", "c9ffffffff00", "ca7fc00000", "ca7f800000", "cb7ff8000000000000",
        "cbfff0000000000000", "cfffffffffffffffff", "d38000000000000000", "d400", "d9ff", "dbffffffff",
        "dcffff", "ddffffffff", "deffff", "dfffffffff", "e0", "ff", "ffd8", "ffd9", "ffc0", "ffc2", "ffda",
        "f09f9880", "eda080", "c3a9", "0d0a", "0d0a0d0a", "504b0304", "934e554d5059",
    )
)  # fmt: skip

_LEAVES: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 3, 7, 127, 128, 255, 256, 65_500, 65_536, 2**31 - 1, 2**31, 2**53,
    2**53 + 1, 2**63 - 1, 2**64 - 1, -(2**63), 0.0, -0.0, 0.5, 1e308, 1e39, 6e4, float("inf"),
    float("-inf"), float("nan"), "", "a", "é", "😀" * 20, "\u0000", "x" * 300, b"", b"\0", b"\xff" * 40,
    b"\1" * 24, b"\0" * 4096, [], {}, [[]], [0], [1, 2, 3], [2, 3], [0, 2**40], [2**32, 2**32],
    [16, 16, 3], [-1], [True], {"a": 1}, "<f4", "<f8", ">f8", "|u1", "float32", "<U3", ">U1", "|S4", "|O",
    "|V8", "<c8", "<M8[s]", "<U9999999", b"<f4", "hwc", "chw", "jpeg", "png", "guided", "trained", "none",
    {b"__ndarray__": True, b"data": b"\0" * 24, b"dtype": "<f4", b"shape": [2, 3]},
    {b"__ndarray__": True, b"data": b"", b"dtype": "<f4", b"shape": [0, 6]},
    {b"__npgeneric__": True, b"data": 7, b"dtype": "<i8"},
    {"nd": True, "type": "<f4", "data": b"\0" * 8, "shape": [2], "kind": ""},
    {"nd": False, "type": "<U2", "data": b"a\0\0\0\0\xd8\0\0", "kind": b""},
    {"__image__": "jpeg", "data": b"\xff\xd8", "shape": [16, 16, 3], "layout": "hwc"},
)  # fmt: skip

_KEYS: Final = (
    "__ndarray__", b"__ndarray__", b"data", "data", b"dtype", "dtype", b"shape", "shape", "nd", "type",
    "kind", b"__npgeneric__", "__npgeneric__", "__image__", "layout", "actions", "action", "server_timing",
    "infer_ms", "_rt", "_images", "version", "encodings", "seq", "leftover", "delay", "execution_horizon",
    "control_hz", "deadline_ms", "leftover_ms", "age_ms", "refusals", "prefix", "max_delay", "queue_ms",
    "prompt", "observation/state", "", "é", b"\xff",
)  # fmt: skip


def of_msgpack(data: bytes, chance: random.Random) -> bytes:
    """Change a message's tree, its bytes, or both. What is no msgpack is changed by its bytes."""
    kind = chance.random()
    if kind < 0.75:
        try:
            tree = msgspec.msgpack.decode(data)
            for _ in range(chance.randint(1, 3)):
                tree = _changed(tree, chance)
            data = msgspec.msgpack.encode(tree)
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError, OverflowError):
            kind = 1.0
    return of_bytes(data, chance) if kind > 0.6 else data[:_LONGEST]


def of_json(data: bytes, chance: random.Random) -> bytes:
    """Change a JSON text's tree, or its bytes."""
    if chance.random() < 0.75:
        try:
            tree = _changed(msgspec.json.decode(data), chance)
            return msgspec.json.encode(tree)[:_LONGEST]
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError, OverflowError):
            pass
    return of_bytes(data, chance)


def of_words(words: Sequence[bytes]) -> Mutate:
    """Return a mutation of text: bytes change, and these words come in."""

    def mutate(data: bytes, chance: random.Random) -> bytes:
        for _ in range(chance.randint(1, 4)):
            at = chance.randint(0, len(data))
            if chance.random() < 0.6:
                until = chance.choice((at, at, min(len(data), at + chance.randint(0, 12))))
                data = data[:at] + chance.choice(words) + data[until:]
            else:
                data = of_bytes(data, chance)
        return data[:_LONGEST]

    return mutate


def of_bytes(data: bytes, chance: random.Random) -> bytes:
    """Change a few bytes: other values, more, fewer, the same twice, an end that is missing."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(changed))
        until = min(len(changed), at + chance.choice((1, 1, 2, 4, 8, 64)))
        match chance.randrange(7):
            case 0 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(changed):
                changed[at] = (changed[at] + chance.choice((-1, 1))) & 0xFF
            case 2:
                changed[at:until] = chance.choice(_BYTES)
            case 3:
                changed[at:at] = chance.choice(_BYTES)
            case 4:
                del changed[at:until]
            case 5:
                changed[at:at] = changed[at:until] * chance.choice((1, 2, 40))
            case _:
                del changed[at + 1 :]
    return bytes(changed[:_LONGEST])


def _changed(tree: Any, chance: random.Random) -> Any:
    """Change one place of a tree; the way down to it is by chance."""
    if isinstance(tree, dict) and tree and chance.random() < 0.8:
        return _changed_map(tree, chance)
    if isinstance(tree, list) and tree and chance.random() < 0.8:
        return _changed_list(tree, chance)
    return _changed_leaf(tree, chance)


def _changed_map(tree: dict[Any, Any], chance: random.Random) -> dict[Any, Any]:
    items = list(tree.items())
    at = chance.randrange(len(items))
    key, value = items[at]
    match chance.randrange(9):
        case 0:
            del items[at]
        case 1:
            items[at] = (chance.choice(_KEYS), value)
        case 2:
            items.insert(at, (chance.choice(_KEYS), chance.choice(_LEAVES)))
        case 3:
            other = chance.randrange(len(items))
            items[at], items[other] = (key, items[other][1]), (items[other][0], value)
        case 4:  # text keys as binary, and back
            said = key.encode() if isinstance(key, str) else bytes(key).decode("utf-8", "replace")
            items[at] = (said, value)
        case _:
            items[at] = (key, _changed(value, chance))
    return dict(items)


def _changed_list(tree: list[Any], chance: random.Random) -> list[Any]:
    changed = list(tree)
    at = chance.randrange(len(changed))
    match chance.randrange(8):
        case 0:
            del changed[at]
        case 1:
            changed.insert(at, chance.choice(_LEAVES))
        case 2:
            changed[at:at] = changed[at : at + 1] * chance.choice((1, 3, 70))
        case 3:
            changed.append(changed.pop(at))
        case _:
            changed[at] = _changed(changed[at], chance)
    return changed


def _changed_leaf(leaf: Any, chance: random.Random) -> Any:
    if chance.random() < 0.1:
        return _nested(leaf, chance.choice((1, 2, 40)))
    if isinstance(leaf, bytes) and chance.random() < 0.7:
        return of_bytes(leaf, chance)
    if isinstance(leaf, int) and not isinstance(leaf, bool) and chance.random() < 0.6:
        return leaf + chance.choice((-1, 1, 2, 255, 2**16, 2**32))
    if isinstance(leaf, str) and leaf and chance.random() < 0.5:
        at = chance.randrange(len(leaf))
        return leaf[:at] + chance.choice(("", "<", "0", "é", "\0", leaf)) + leaf[at + 1 :]
    return chance.choice(_LEAVES)


def _nested(leaf: Any, levels: int) -> Any:
    for level in range(levels):
        leaf = [leaf] if level % 2 else {"n": leaf}
    return leaf
