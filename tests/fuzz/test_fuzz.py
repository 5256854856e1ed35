# SPDX-License-Identifier: Apache-2.0
"""Each target over its seeds, its corpus and a few hundred mutations of them; `make fuzz` goes on for hours."""

from __future__ import annotations

import random

import pytest

from fuzz import corpus
from fuzz.target import Target, try_input
from fuzz.targets import TARGETS

MUTATIONS = 4000
TARGET = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


@TARGET
def test_what_was_found_before_is_found_no_more(target: Target) -> None:
    """Seeds and corpus, each with its memory measured."""
    for data in corpus.inputs(target):
        try_input(target, data, measured=True)


@TARGET
def test_mutations_end_as_documented(target: Target) -> None:
    """By a chance that is the same every time."""
    chance = random.Random(target.name)
    inputs = corpus.inputs(target)
    words = set()
    for _ in range(MUTATIONS):
        data = chance.choice(inputs)
        for _ in range(chance.randint(1, 3)):
            data = target.mutate(data, chance)
        words.add(try_input(target, data))
    assert len(words) > 1, "mutations that all end the same reach nothing"
