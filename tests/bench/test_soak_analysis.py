# SPDX-License-Identifier: Apache-2.0
"""The soak's judgement: a leak of known size is found, a sawtooth, noise and warm-up are none."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from soak_analysis import (
    Bounds,
    ProcessFigures,
    Sample,
    as_dict,
    drift,
    figures_of,
    first_and_last_tenth,
    motion_verdict,
    slope_of,
    verdict,
)

EVERY_S = 5.0
MINUTES_20 = [EVERY_S * number for number in range(240)]


def samples(memory_mb: Callable[[float], float], **others: Any) -> list[Sample]:
    """Return 20 minutes of samples with this memory."""
    return [
        Sample(
            at_s=at_s, rss_mb=memory_mb(at_s), **{"blocks": None, "fds": 20, "threads": 5, **others}
        )
        for at_s in MINUTES_20
    ]


def figures(memory_mb: Callable[[float], float], **others: Any) -> ProcessFigures:
    """Return what became of it, of all samples."""
    found = figures_of(samples(memory_mb, **others), warm_up_s=0.0)
    assert found is not None
    return found


def noise(sigma_mb: float) -> Callable[[float], float]:
    """Return noise by a chance that is the same every time."""
    chance = random.Random(7)
    return lambda _: chance.gauss(0.0, sigma_mb)


SMALL, LARGE = noise(0.5), noise(5.0)


@pytest.mark.parametrize(
    ("memory_mb", "per_hour", "tolerance"),
    [
        (lambda at_s: 100 + 60 * at_s / 3600, 60.0, 0.01),
        (lambda at_s: 100 + 60 * at_s / 3600 + SMALL(at_s), 60.0, 3.0),
        (lambda at_s: 100 + 60 * at_s / 3600 + 90 * (at_s == 600), 60.0, 0.5),  # one peak
        (lambda at_s: 100 + 10 * (at_s // 600), 30.0, 2.0),  # in steps
        (lambda at_s: 100 - 60 * at_s / 3600, -60.0, 0.01),
        (lambda _: 100.0, 0.0, 0.0),
    ],
)
def test_the_slope_is_that_of_the_leak(
    memory_mb: Callable[[float], float], per_hour: float, tolerance: float
) -> None:
    """Through noise, a peak and steps; its interval holds it, and what it makes is a third of an hour's."""
    slope = figures(memory_mb).memory
    assert slope is not None
    assert slope.per_hour == pytest.approx(per_hour, abs=tolerance)
    assert slope.low <= slope.per_hour <= slope.high
    assert slope.grown == pytest.approx(slope.per_hour * MINUTES_20[-1] / 3600)


@pytest.mark.parametrize(
    ("name", "memory_mb", "leaks"),
    [
        ("60 MB an hour", lambda at_s: 100 + 60 * at_s / 3600, True),
        ("the same in noise", lambda at_s: 100 + 60 * at_s / 3600 + SMALL(at_s), True),
        ("a sawtooth of 20 MB", lambda at_s: 100 + 20 * (at_s % 130) / 130, False),
        ("a slow sawtooth", lambda at_s: 100 + 20 * (at_s % 400) / 400, False),
        ("waves", lambda at_s: 100 + 10 * math.sin(at_s / 90), False),
        ("noise", lambda at_s: 100 + LARGE(at_s), False),
        ("one step up", lambda at_s: 100 + 4 * (at_s > 300), False),
        ("a cache that fills", lambda at_s: 100 + 30 * (1 - math.exp(-at_s / 60)), False),
        ("less and less", lambda at_s: 200 - at_s / 60, False),
        ("10 MB an hour", lambda at_s: 100 + 10 * at_s / 3600, False),
    ],
)
def test_a_leak_is_told_from_what_is_none(
    name: str, memory_mb: Callable[[float], float], leaks: bool
) -> None:
    """With the bounds that count unless others are given."""
    wrong = verdict({name: figures(memory_mb)}, None, {}, Bounds())
    assert [text.partition(" by ")[0] for text in wrong] == [f"{name}: memory grows"] * leaks


def test_a_leak_of_so_many_bytes_a_request_is_found_in_two_minutes() -> None:
    """With the wide bounds of a short run: an observation of 300 kB kept, 16 times a second."""
    wide = Bounds(memory_mb_per_hour=600.0, memory_mb=60.0)
    short = [replace(sample, at_s=sample.at_s / 10) for sample in samples(lambda at_s: 0.48 * at_s)]
    found = figures_of(short, warm_up_s=30.0)
    assert found is not None
    assert len(verdict({"server": found}, None, {}, wide)) == 1
    assert verdict({"server": figures(lambda at_s: 100 + 20 * at_s / 1200)}, None, {}, wide) == []


def test_the_warm_up_does_not_count() -> None:
    """Imports and buffers come then; what was there before is in no figure."""
    rising = samples(lambda at_s: min(at_s, 300.0))
    found = figures_of(rising, warm_up_s=300.0)
    assert found is not None
    assert found.samples == 180
    assert found.rss_mb == (300.0, 300.0)
    assert found.memory is not None
    assert found.memory.per_hour == 0.0


def test_several_lives_have_no_slope() -> None:
    """A process that is started again begins anew."""
    found = figures_of(samples(lambda at_s: at_s, blocks=7), warm_up_s=0.0, restarted=True)
    assert found is not None
    assert (found.memory, found.blocks, found.restarted) == (None, None, True)


def test_pythons_own_allocations_have_a_slope_too() -> None:
    """Where they are known."""
    found = figures(lambda _: 1.0, blocks=5)
    assert found.blocks is not None
    assert found.blocks.per_hour == 0.0
    assert figures(lambda _: 1.0).blocks is None


def test_too_few_samples_say_nothing() -> None:
    """Rather than something by chance."""
    assert figures_of(samples(lambda _: 1.0), warm_up_s=1190.0) is None
    assert slope_of([(float(at_s), 1.0) for at_s in range(7)]) is None
    assert slope_of([(1.0, float(value)) for value in range(9)]) is None  # all at one moment
    assert drift([1.0] * 7) is None


def test_a_long_run_is_summed_up() -> None:
    """Eight hours have 5760 samples and 16 million pairs: the slope is the same with fewer."""
    slope = slope_of([(5.0 * number, 100 + number / 720) for number in range(5760)])
    assert slope is not None
    assert slope.per_hour == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("first", "last", "bounds", "wrong"),
    [
        (20, 20, Bounds(), 0),
        (20, 21, Bounds(), 2),
        (21, 20, Bounds(), 0),
        (20, 22, Bounds(more_fds=2, more_threads=2), 0),
        (20, 99, Bounds(more_fds=None, more_threads=None), 0),
    ],
)
def test_files_and_threads_come_back(first: int, last: int, bounds: Bounds, wrong: int) -> None:
    """By the medians of the first and the last tenth: a fault in between is none of it."""
    counts = [first] * 60 + [90] * 120 + [last] * 60
    series = [
        replace(sample, fds=count, threads=count)
        for sample, count in zip(samples(lambda _: 1.0), counts, strict=True)
    ]
    found = figures_of(series, warm_up_s=0.0)
    assert found is not None
    said = verdict({"server": found}, None, {}, bounds)
    assert len(said) == wrong
    assert all(
        f"{last} {what} at last" in text
        for what, text in zip(("open files", "threads"), said, strict=False)
    )


def test_medians_of_the_ends() -> None:
    """Of three values at least."""
    assert first_and_last_tenth([1, 9, 1, 5, 5, 2, 2, 8]) == (1, 2)
    assert first_and_last_tenth(list(range(100))) == (4.5, 94.5)


@pytest.mark.parametrize(
    ("factor", "most", "wrong"), [(1.2, 1.5, 0), (1.6, 1.5, 1), (9.0, None, 0)]
)
def test_slow_answers_must_not_become_slower(factor: float, most: float | None, wrong: int) -> None:
    """The last tenth's 99th percentile over the first's."""
    p99 = [10.0] * 50 + [500.0] + [10.0 * factor] * 50
    assert drift(p99) == pytest.approx(factor)
    assert len(verdict({}, drift(p99), {}, Bounds(p99_drift=most))) == wrong
    assert drift([0.0] * 9) is None


def test_what_must_not_happen_must_not_happen_once() -> None:
    """Each with its name and number."""
    assert verdict({}, None, {"stale": 0, "foreign": 3}, Bounds()) == ["foreign: 3, expected none"]
    assert (
        verdict({"x": figures(lambda at_s: at_s)}, None, {}, Bounds(memory_mb_per_hour=None)) == []
    )


def test_figures_fit_into_a_file() -> None:
    """Rounded, slopes as maps."""
    found = as_dict(figures(lambda at_s: 100 + at_s / 3600))
    assert found["memory"]["per_hour"] == 1.0
    assert found["fds"] == [20.0, 20.0]
    assert found["blocks"] is None
    assert found["restarted"] is False


@pytest.mark.parametrize(
    ("ticks", "held", "answers", "bounds", "wrong"),
    [
        (288_006, 272, (80.0, 79.0), Bounds(), 0),
        (288_000, 283_000, (80.0, 0.0), Bounds(), 2),
        (1000, 20, (10.0, 8.0), Bounds(), 0),
        (1000, 21, (10.0, 7.9), Bounds(), 2),
        (1000, 1000, None, Bounds(held_share=None), 0),
        (1000, 1000, (1.0, 0.0), Bounds(held_share=None, answers_share=None), 0),
    ],
)
def test_arms_that_stand_still_are_not_sound(
    ticks: int, held: int, answers: tuple[float, float] | None, bounds: Bounds, wrong: int
) -> None:
    """Held ticks and answers that stay away are judged, whatever the answers that came took."""
    assert len(motion_verdict(ticks, held, answers, bounds)) == wrong
