# SPDX-License-Identifier: Apache-2.0
"""What to command when no valid action exists: hold, zero, or an error. Pure.

For absolute joint positions zeros are a motion: an SO-101 told 0 degrees sweeps to its mid pose. So `hold` is
the default and `zero` happens only where a user chose it by name.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from pi05_websocket.data import ActionKind, Float32Array
from pi05_websocket.errors import NoValidAction

__all__ = ["FALLBACKS", "Fallback", "fallback_action"]

Fallback = Literal["hold", "zero", "raise"]
FALLBACKS: tuple[Fallback, ...] = ("hold", "zero", "raise")


def fallback_action(
    fallback: Fallback,
    *,
    action_kind: ActionKind,
    last_commanded: Float32Array | None,
    measured: Float32Array | None,
    action_dim: int | None,
    cause: str,
) -> Float32Array:
    """Return the action for a starved tick, `(action_dim,)` float32.

    `hold` repeats the last commanded target of an absolute action; before the first one it is the measured
    pose. For `delta` and `velocity` actions repeating would move on, so they become zero; their last value,
    the gripper in every known key set (droid, libero), is an absolute target and stays what it was, before
    the first action what was measured.

    Args:
        last_commanded: The action commanded last in this episode, None before the first.
        measured: The state of the present observation, None when it is not comparable with an action.
        action_dim: Width of an action where it is known.
        cause: Why there is no valid action, for the error text.

    Raises:
        NoValidAction: With "raise", or when there is nothing to hold.
    """
    if fallback == "raise":
        raise NoValidAction(f"no valid action: {cause}")
    known = last_commanded if last_commanded is not None else measured
    width = action_dim if action_dim is not None else (None if known is None else len(known))
    if width is None:
        raise NoValidAction(f"no valid action and no pose to hold: {cause}")
    if fallback == "zero":
        return np.zeros(width, np.float32)
    if action_kind == "absolute":
        return _hold_position(last_commanded, measured, width, cause)
    still = np.zeros(width, np.float32)
    if known is not None:  # else nothing is known of the gripper, and zero is all there is
        still[-1] = known[-1]
    return still


def _hold_position(
    last_commanded: Float32Array | None, measured: Float32Array | None, width: int, cause: str
) -> Float32Array:
    if last_commanded is not None:
        return last_commanded.copy()
    if measured is None or len(measured) != width or not np.isfinite(measured).all():
        got = "no measured pose" if measured is None else f"a measured state {measured!r}"
        raise NoValidAction(
            f"no valid action, and nothing to hold before the first one: an action has {width} values, "
            f"got {got}. Cause: {cause}"
        )
    return measured.astype(np.float32)
