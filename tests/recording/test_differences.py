# SPDX-License-Identifier: Apache-2.0
"""How far chunks are apart, joint by joint."""

from __future__ import annotations

import numpy as np
import pytest

from pi05_websocket.errors import ConfigError
from pi05_websocket.recording.differences import Differences, Quantiles, as_dict, table


def chunk(*rows: tuple[float, ...]) -> np.ndarray:
    """Return a chunk of these rows."""
    return np.array(rows, np.float32)


def test_quantiles_over_all_rows_of_all_observations():
    """A longer chunk is compared as far as the shorter one goes."""
    found = Differences()
    found.add(chunk((0, 0), (0, 0), (9, 9)), chunk((1, 0), (-3, 0)))
    found.add(chunk((0, 0)), chunk((2, 0.5)))

    first, second = found.joints()

    assert first == Quantiles(2.0, pytest.approx(2.9), 3.0)
    assert second.largest == 0.5
    assert found.other_lengths == [(3, 2)]
    assert repr(found) == "<Differences of 2 observations>"


def test_nothing_compared_is_nothing_found():
    """No division by nothing."""
    assert Differences().joints() == []


def test_another_robots_policy_is_told():
    """Its actions have another width."""
    with pytest.raises(ConfigError, match="actions of 2 values, got 3"):
        Differences().add(chunk((0, 0)), chunk((0, 0, 0)))


def test_table_and_dict_name_the_joints():
    """A joint without a name is a number."""
    found = [Quantiles(1, 2, 3), Quantiles(0, 0, 0)]

    assert table(found, ["shoulder_pan"]) == [
        "joint           median     95 %  largest",
        "shoulder_pan         1        2        3",
        "1                    0        0        0",
    ]
    assert as_dict(found, ["shoulder_pan"]) == {
        "shoulder_pan": {"median": 1, "p95": 2, "max": 3},
        "1": {"median": 0, "p95": 0, "max": 0},
    }
