# SPDX-License-Identifier: Apache-2.0
"""How many requests may be asked for twice: a share of all, and a handful at once. Pure."""

from __future__ import annotations

__all__ = ["RetryBudget"]

_AT_ONCE = 16.0
"""Enough for the robots of one frozen replica."""


class RetryBudget:
    """Earns `share` with each request, and spends one with each retry."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._saved = _AT_ONCE if share > 0 else 0.0

    def __repr__(self) -> str:
        return f"<RetryBudget saved={self._saved:.1f}>"

    def request(self) -> None:
        """Note a request."""
        self._saved = min(self._saved + self._share, _AT_ONCE)

    def take(self) -> bool:
        """Take a retry; False when there is none left."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
