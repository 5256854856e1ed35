# SPDX-License-Identifier: Apache-2.0
"""What LeRobot's rtc engine does to a leftover, undone."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.lerobot

from lerobot_policy_pi05_websocket.rtc_engine import rows_in_front, true_leftover  # noqa: E402

LAST = np.arange(1, 13, dtype=np.float32).reshape(6, 2)


def padded(rows: np.ndarray, length: int) -> np.ndarray:
    """Do what the engine does: cut or zero-pad to a fixed length."""
    out = np.zeros((length, 2), np.float32)
    out[: min(length, len(rows))] = rows[:length]
    return out


@pytest.mark.parametrize("length", [1, 3, 6, 10])
@pytest.mark.parametrize("left", range(7))
def test_padding_and_cutting_are_undone(length: int, left: int):
    """Whatever the prefix's fixed length, the true leftover is found in the last chunk."""
    leftover = LAST[len(LAST) - left :]

    found = true_leftover(padded(leftover, length), LAST)

    assert found.tolist() == leftover.tolist()


def test_nothing_before_the_first_chunk():
    """No chunk, no leftover, whatever the engine hands over."""
    assert len(true_leftover(np.ones((3, 2), np.float32), None)) == 0
    assert len(true_leftover(None, LAST)) == 0


def test_a_prefix_we_never_sent_is_none():
    """Rows that are not ours cannot be the queue's."""
    assert len(true_leftover(np.full((3, 2), 99, np.float32), LAST)) == 0


@pytest.mark.parametrize(
    ("latency_s", "leftover", "expected"),
    [
        (0.2, 0, 7),  # six ticks dropped though the arm stood still, and one more
        (0.2, 2, 5),
        (0.2, 6, 0),  # all six were executed
        (0.2, 30, 0),
        (0.0, 0, 0),
    ],
)
def test_rows_in_front_make_up_for_the_drop(latency_s: float, leftover: int, expected: int):
    """Only ticks the arm really moved may cost rows of the new chunk."""
    assert rows_in_front(latency_s=latency_s, control_hz=30, leftover=leftover) == expected
