# SPDX-License-Identifier: Apache-2.0
"""What JPEG changes is told apart from what a policy differs from itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pi05_websocket.errors import PolicyError
from pi05_websocket.recording.quality import audit, floor_of

RNG = np.random.default_rng(1)


def scene(shift: int) -> np.ndarray:
    """Return an image with edges."""
    rows, columns = np.mgrid[:64, :64]
    squares = ((rows // 5 + (columns + shift) // 7) % 2) * 200
    return np.repeat(squares[..., None], 3, axis=2).astype(np.uint8)


OBSERVATIONS = [{"image": scene(i), "state": np.full(2, i, np.float32)} for i in range(12)]


def looking(weight: float, noise: float = 0.0) -> Callable:
    """Return a policy whose second joint follows one pixel's neighbourhood, with noise of its own."""

    def ask(observation: dict, number: int) -> np.ndarray:
        if observation["image"].shape != (64, 64, 3):
            raise PolicyError("64 x 64 was asked for")
        detail = float(np.abs(np.diff(observation["image"].astype(float), axis=1)).mean())
        rows = np.zeros((4, 2)) + observation["state"]
        rows[:, 1] += weight * detail + noise * RNG.normal(size=4)
        return rows.astype(np.float32)

    return ask


def test_a_blind_policy_takes_any_quality():
    """Nothing differs, so the floor is the worst that was tried."""
    found = audit(OBSERVATIONS, looking(0), (90, 30), None)

    assert floor_of(found, 0.02) == 30
    assert found.noise == [0, 0]
    assert [way.name for way in found.ways] == ["raw again", "JPEG 90", "JPEG 30"]
    assert found.ways[2].nbytes[0] < found.ways[1].nbytes[0] < found.ways[0].nbytes[0]


def test_a_policy_that_looks_closely_takes_the_better_ones_only():
    """The floor lies above the first quality that it notices, whatever comes below."""
    found = audit(OBSERVATIONS, looking(1), (98, 60, 10), None)
    p95 = [way.differences.joints()[1].p95 for way in found.ways[1:]]
    share = (p95[0] + p95[1]) / 2 / found.range_of[1]

    assert p95[0] < p95[1]
    assert floor_of(found, share) == 98
    assert floor_of(found, 1e-9) is None


def test_its_own_noise_is_allowed():
    """A policy that draws at random differs from itself by more than a JPEG changes."""
    found = audit(OBSERVATIONS, looking(0.001, noise=5), (90,), None)

    assert found.noise[1] > 1
    assert found.allowed(1e-9)[1] >= found.noise[1]


def test_a_policy_that_wants_one_size_refuses_the_others():
    """That is no error: it is what was asked."""
    found = audit(OBSERVATIONS, looking(0), (90,), 32)

    small = [way for way in found.ways if way.side is not None]
    assert [way.refused for way in small] == ["64 x 64 was asked for"] * 2
    assert all(not way.nbytes for way in small)


def test_smaller_images_are_tried_where_they_are_taken():
    """Raw and at each quality."""
    found = audit(OBSERVATIONS, lambda seen, _: np.zeros((1, 1), np.float32), (90,), 32)

    assert [way.name for way in found.ways if way.side] == ["32 px raw", "32 px JPEG 90"]
    assert all(len(way.nbytes) == len(OBSERVATIONS) for way in found.ways)


def test_a_policy_that_fails_on_its_own_images_ends_the_audit():
    """There is nothing to compare with."""
    asked = []

    def fails_later(observation: dict, number: int) -> np.ndarray:
        asked.append(number)
        if len(asked) > 1:
            raise PolicyError("out of memory")
        return np.zeros((1, 1), np.float32)

    with pytest.raises(PolicyError, match="out of memory"):
        audit(OBSERVATIONS, fails_later, (90,), None)


def test_nothing_recorded_is_nothing_found():
    """No observation, no range."""
    assert audit([], looking(0), (90,), None).range_of == []
