# SPDX-License-Identifier: Apache-2.0
"""How many requests may be asked for twice: a share of all, and a handful at once. Pure."""

from __future__ import annotations

from pi05_websocket.retry_budget import RetryBudget

__all__ = ["replica_retries"]

_AT_ONCE = 16.0
"""Enough for the robots of one frozen replica."""


def replica_retries(share: float) -> RetryBudget:
    """Return an ingress's budget; a share of 0 allows none at all."""
    return RetryBudget(share, _AT_ONCE if share > 0 else 0.0)
