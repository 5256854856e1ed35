# SPDX-License-Identifier: Apache-2.0
"""Mutations: by chance, and by the same chance the same; still something a parser reads to its end."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest

from fuzz.mutation import of_bytes, of_json, of_msgpack, of_words

MESSAGE = msgspec.msgpack.encode({"a": [1, 2.5, "text", b"\0" * 40], b"b": {"c": None}})
TEXT = b'{"a": [1, "text"], "b": null}'
ALL = pytest.mark.parametrize(
    ("mutate", "data"),
    [
        (of_msgpack, MESSAGE),
        (of_json, TEXT),
        (of_words((b"GET", b"/")), b"x / y"),
        (of_bytes, b"bytes"),
    ],
)


def changed(mutate: Callable[[bytes, random.Random], bytes], data: bytes) -> list[bytes]:
    """Return a few hundred changed inputs."""
    return [mutate(data, random.Random(seed)) for seed in range(300)]


@ALL
def test_the_same_chance_gives_the_same_bytes(
    mutate: Callable[[bytes, random.Random], bytes], data: bytes
) -> None:
    """So a failure can be seen again; and most chances give others."""
    first = changed(mutate, data)
    assert changed(mutate, data) == first
    assert len(set(first)) > 100
    assert max(map(len, first)) <= 4096


@pytest.mark.parametrize(
    ("mutate", "data", "decode"),
    [(of_msgpack, MESSAGE, msgspec.msgpack.decode), (of_json, TEXT, msgspec.json.decode)],
)
def test_many_changed_trees_are_still_trees(
    mutate: Callable[[bytes, random.Random], bytes], data: bytes, decode: Callable[[bytes], object]
) -> None:
    """Flipped bytes alone would break the first length they touch."""
    whole = 0
    for message in changed(mutate, data):
        try:
            decode(message)
            whole += 1
        except (msgspec.MsgspecError, UnicodeDecodeError):
            pass
    assert whole > 150


def test_what_is_no_tree_is_changed_all_the_same() -> None:
    """By its bytes."""
    assert len(set(changed(of_msgpack, b"\xc1"))) > 50
    assert len(set(changed(of_json, b"{"))) > 50
