# SPDX-License-Identifier: Apache-2.0
"""How often something may be asked for a second time: a share of all requests, and a burst. Pure.

In: each request, each wish to ask again. Out: yes or no.
The gateway, the ingress on Ray and the robot's pool have one each.
"""

from __future__ import annotations

__all__ = ["RetryBudget"]


class RetryBudget:
    """Allows a share of all requests to be asked for again, and a burst.

    Args:
        share: Of all requests, 0 to 1.
        burst: What may be asked for again at once.
    """

    def __init__(self, share: float, burst: float) -> None:
        self._share, self._burst = share, burst
        self._left = burst

    def __repr__(self) -> str:
        return f"<RetryBudget {self._left:.1f}>"

    def earn(self) -> None:
        """Note a request."""
        self._left = min(self._left + self._share, self._burst)

    def spend(self) -> bool:
        """Take one retry out; False when there is none left."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
