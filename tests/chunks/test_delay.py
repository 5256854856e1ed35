# SPDX-License-Identifier: Apache-2.0
"""The inference delay to plan with."""

from __future__ import annotations

import pytest

from pi05_websocket.chunks.delay import DelayEstimator


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([], 0),
        ([40], 40),  # the only one there is
        ([40, 3], 3),  # a cold start counts only until the second
        ([40, 3, 3, 4], 4),
        ([9] + [2] * 9 + [30], 2),  # one spike among ten is ignored
        ([9] + [2] * 8 + [30, 30], 30),  # two are not
        ([9, 2, 2, 60], 2),  # nor does one among few count
        ([9, 2, 2, 3, 5], 5),  # what is no spike counts at once
        ([9, 2, 60], 60),  # of two samples none can be called the spike
    ],
)
def test_plans_with_a_high_quantile(samples: list[int], expected: int):
    """The estimate forgets the first sample and ignores single spikes."""
    estimator = DelayEstimator()
    for sample in samples:
        estimator.add(sample)

    assert estimator.ticks() == expected


def test_old_samples_are_evicted():
    """What lies before the window does not count any more."""
    estimator = DelayEstimator(window=4)
    for sample in [0, 50, 50, 50, 50, 2, 2, 2, 2]:
        estimator.add(sample)

    assert estimator.ticks() == 2


def test_impossible_settings_are_a_programming_error():
    """A window of nothing cannot be asked for."""
    with pytest.raises(AssertionError):
        DelayEstimator(window=0)


def test_repr_shows_estimate_and_samples():
    """One line for the log."""
    assert repr(DelayEstimator()) == "<DelayEstimator ticks=0 samples=0>"


def test_the_first_sample_after_an_outage_does_not_count():
    """What the server took to come back says nothing about the replies after it."""
    estimator = DelayEstimator()
    for sample in [40, 3, 3]:
        estimator.add(sample)

    estimator.expect_cold()
    estimator.add(200)

    assert estimator.ticks() == 3
