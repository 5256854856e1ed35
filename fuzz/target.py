# SPDX-License-Identifier: Apache-2.0
"""What one fuzz target is, and what it may cost to answer an input.

In: a parser and an input. Out: a word for what it made of it; a property that does not hold is raised.
"""

from __future__ import annotations

import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from fuzz.mutation import Mutate

__all__ = ["Broken", "Target", "check_scalars", "try_input"]

_ONE_IN = 8
"""Tracing memory halves the speed: by the input's own checksum every eighth is measured."""


class Broken(AssertionError):
    """A property does not hold for an input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A parser that reads what strangers send."""

    name: str

    check: Callable[[bytes], str]
    """Read an input and hold the result against what is promised; return a word for what came out. An error
    that is documented is one of the words, any other is a finding."""

    seeds: Callable[[], Iterable[bytes]]
    """Inputs to begin with, good and bad ones, by hand."""

    mutate: Mutate

    most_memory: Callable[[int], int] | None
    """Bytes that reading an input of so many bytes may take at its peak; None: nobody promises."""


def try_input(target: Target, data: bytes, *, measured: bool | None = None) -> str:
    """Give one input to a target; return its word.

    Args:
        measured: Whether to hold the memory against its bound; None: for some inputs.

    Raises:
        Broken: It took more memory than it may.
        Exception: Whatever else the target found.
    """
    if measured is None:
        measured = zlib.crc32(data) % _ONE_IN == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        word = target.check(data)
        if not measured or target.most_memory is None:
            return word
        tracemalloc.start()  # the second time: what is imported or cached once is not the input's doing
        try:
            target.check(data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    allowed = target.most_memory(len(data))
    if peak > allowed:
        raise Broken(
            f"reading {len(data)} bytes took {peak} bytes of memory, at most {allowed} are promised"
        )
    return word


def check_scalars(value: object) -> None:
    """Hold what was decoded against what may travel: no other type, and no dtype that could run code.

    Raises:
        Broken: Something else is in it.
    """
    if isinstance(value, dict):
        if not all(type(key) is str for key in value):
            raise Broken(f"keys other than text: {list(value)[:5]}")
        for item in value.values():
            check_scalars(item)
    elif isinstance(value, list):
        for item in value:
            check_scalars(item)
    elif isinstance(value, np.ndarray | np.generic):
        empty_text = isinstance(value, np.str_ | np.bytes_)  # numpy takes trailing zeros off
        if value.dtype.kind not in "biufUS" or (value.dtype.itemsize == 0 and not empty_text):
            raise Broken(f"an array of dtype {value.dtype}")
        value.tolist()
    elif type(value) not in (type(None), bool, int, float, str, bytes):
        raise Broken(f"a value of type {type(value)}")
