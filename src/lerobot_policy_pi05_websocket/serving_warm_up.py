# SPDX-License-Identifier: Apache-2.0
"""Requests as robots send them, for the passes before the first robot comes.

In: batch sizes. Out: what to infer, in which order. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lerobot_policy_pi05_websocket.serving_prefix import Prefix
from pi05_websocket.policy import PolicyRequest
from pi05_websocket.wire.realtime import RealtimeRequest

__all__ = ["rehearsals"]


def rehearsals(
    observation: Mapping[str, Any], sizes: Sequence[int], prefix: Prefix | None
) -> Iterator[list[PolicyRequest]]:
    """Yield a batch of each size, without a prefix and, where the policy can follow one, with.

    Args:
        observation: What one robot sends.
        sizes: Rows in each batch.
        prefix: How the policy follows a running chunk; None: it does not.
    """
    followed = [None] if prefix is None else [None, _running(prefix)]
    for size in sizes:
        for realtime in followed:
            yield [
                PolicyRequest(observation=dict(observation), realtime=realtime, seed=row)
                for row in range(size)
            ]


def _running(prefix: Prefix) -> RealtimeRequest:
    """Return the wish to follow half a chunk, one row of it pinned."""
    rows = max(1, prefix.action_horizon // 2)
    return RealtimeRequest(
        seq=0,
        leftover=np.zeros((rows, prefix.action_dim), np.float32),
        delay=1,
        execution_horizon=rows,
        control_hz=30.0,
    )
