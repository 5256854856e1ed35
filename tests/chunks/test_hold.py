# SPDX-License-Identifier: Apache-2.0
"""What is commanded when there is no valid action."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pi05_websocket.chunks.hold import fallback_action
from pi05_websocket.errors import NoValidAction

LAST = np.array([1, 2, 3], np.float32)
MEASURED = np.array([7, 8, 9], np.float32)


def fall_back(fallback: str, **changed: Any) -> np.ndarray:
    """Call it with an absolute three-joint arm unless changed."""
    arguments = {
        "action_kind": "absolute",
        "last_commanded": LAST,
        "measured": MEASURED,
        "action_dim": 3,
        "cause": "the link is down",
    }
    return fallback_action(fallback, **{**arguments, **changed})


@pytest.mark.parametrize(
    ("fallback", "changed", "expected"),
    [
        ("hold", {}, [1, 2, 3]),
        ("hold", {"last_commanded": None}, [7, 8, 9]),
        ("zero", {}, [0, 0, 0]),
        ("zero", {"last_commanded": None, "measured": None}, [0, 0, 0]),
        ("hold", {"action_kind": "delta"}, [0, 0, 3]),  # repeating a delta would move on
        # zero would open a gripper that holds something
        ("hold", {"action_kind": "velocity", "last_commanded": None}, [0, 0, 9]),
        # libero's state is no action: a server that compiles for minutes must not end the run
        ("hold", {"action_kind": "delta", "last_commanded": None, "measured": None}, [0, 0, 0]),
        ("zero", {"action_dim": None}, [0, 0, 0]),
        ("zero", {"action_dim": None, "last_commanded": None}, [0, 0, 0]),
    ],
)
def test_fallback_by_kind(fallback: str, changed: dict[str, Any], expected: list[float]):
    """Hold keeps a pose, zero is zero only where chosen, speeds and differences become zero."""
    assert fall_back(fallback, **changed).tolist() == expected


@pytest.mark.parametrize(
    ("fallback", "changed"),
    [
        ("raise", {}),
        ("hold", {"last_commanded": None, "measured": None}),
        ("hold", {"last_commanded": None, "measured": MEASURED[:2]}),
        ("hold", {"last_commanded": None, "measured": np.array([1, np.nan, 3])}),
        ("zero", {"action_dim": None, "last_commanded": None, "measured": None}),
    ],
)
def test_refuses_to_invent_a_pose(fallback: str, changed: dict[str, Any]):
    """Where there is nothing to hold, or the user wants an error, there is one that names the cause."""
    with pytest.raises(NoValidAction, match="the link is down"):
        fall_back(fallback, **changed)


def test_held_target_is_a_copy():
    """Nobody can change the remembered target through what was returned."""
    fall_back("hold")[0] = 99

    assert LAST.tolist() == [1, 2, 3]
