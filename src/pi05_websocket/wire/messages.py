# SPDX-License-Identifier: Apache-2.0
"""What a reply must be before any of it may reach an arm. Pure.

In: the decoded reply of a policy server. Out: a finite float32 action chunk, or a typed refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pi05_websocket.data import Float32Array
from pi05_websocket.errors import InvalidReply
from pi05_websocket.wire.foreign_words import listed

__all__ = ["ACTION_KEYS", "read_actions", "server_infer_ms"]

ACTION_KEYS = ("actions", "action")
"""OpenPI answers with `actions`; servers that follow its text say `action`."""

_MOST_ROWS = 10_000
_MOST_COLUMNS = 1024
_MOST_MS = 3_600_000.0
# As in `wire.realtime`. A chunk has 8 to 100 rows; one of millions would hold up the control loop that looks at
# each of them, and a message of bytes grows fourfold as float32.


def read_actions(reply: Any, *, action_dim: int | None = None) -> Float32Array:
    """Return the reply's action chunk, `(action_horizon, action_dim)` float32, a copy of our own.

    Args:
        action_dim: The width the robot needs; None accepts any.

    Raises:
        InvalidReply: No actions, not numbers, wrong rank, empty, far too many, wrong width, NaN or infinite.
    """
    actions = _find(reply)
    if not isinstance(actions, np.ndarray) or actions.dtype.kind not in "iuf":
        kind = actions.dtype.str if isinstance(actions, np.ndarray) else type(actions).__name__
        raise InvalidReply(f"actions: expected an array of numbers, got {kind}")
    if actions.ndim != 2:
        raise InvalidReply(
            f"actions: expected shape (action_horizon, action_dim), got {actions.shape}. "
            "The server's policy must return one chunk for one observation."
        )
    if 0 in actions.shape:
        raise InvalidReply(
            f"actions: expected at least one row and one column, got {actions.shape}"
        )
    if actions.shape[0] > _MOST_ROWS or actions.shape[1] > _MOST_COLUMNS:
        raise InvalidReply(
            f"actions: expected at most {_MOST_ROWS} rows of {_MOST_COLUMNS} values, got {actions.shape}"
        )
    if action_dim is not None and actions.shape[1] != action_dim:
        raise InvalidReply(
            f"actions: expected {action_dim} values for each tick, got {actions.shape[1]}. The server's policy "
            "is for another robot, its output transform does not cut the padding, or `action_dim` is to be set."
        )
    with np.errstate(over="ignore", invalid="ignore"):  # infinite, or NaN: refused below
        chunk = actions.astype(np.float32)
    if not np.isfinite(chunk).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(chunk))[0])
        raise InvalidReply(
            f"actions: expected finite float32 numbers, got {actions[row, column]} in row {row}, "
            f"column {column}. "
            "Check the server's norm stats and the observation's units."
        )
    return chunk


def server_infer_ms(reply: Any) -> float | None:
    """Return `server_timing.infer_ms` where the server states a plausible one, else None."""
    timing = reply.get("server_timing") if isinstance(reply, Mapping) else None
    value = timing.get("infer_ms") if isinstance(timing, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0.0 <= value <= _MOST_MS else None  # NaN compares false


def _find(reply: Any) -> Any:
    if not isinstance(reply, Mapping):
        raise InvalidReply(f"expected a reply map with 'actions', got {type(reply).__name__}")
    for key in ACTION_KEYS:
        if key in reply:
            return reply[key]
    keys = listed(sorted(map(str, reply))) or "none"
    raise InvalidReply(f"expected 'actions' in the reply, got the keys: {keys}")
