# SPDX-License-Identifier: Apache-2.0
"""Counts by size, as Prometheus reads them."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.ops.histogram import Histogram


def test_a_value_on_a_bound_belongs_to_it() -> None:
    """Prometheus's `le` means at most."""
    histogram = Histogram((1, 2))
    histogram.add([1, 1.5, 2])
    histogram.add([7])
    assert histogram.cumulative() == [(1, 1), (2, 3), (math.inf, 4)]
    assert repr(histogram) == "<Histogram count=4 sum=11.5>"


@given(st.lists(st.floats(0, 100)))
def test_each_bound_counts_what_is_at_most_that(values: list[float]) -> None:
    """Whatever comes, every bucket says what counting by hand would."""
    histogram = Histogram((0.5, 1, 50))
    histogram.add(values)
    expected = [(bound, sum(v <= bound for v in values)) for bound in (0.5, 1, 50, math.inf)]
    assert histogram.cumulative() == expected
