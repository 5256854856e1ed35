# SPDX-License-Identifier: Apache-2.0
"""Settings of the chunk scheduler: how long a chunk runs, when to ask, how to join. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from pi05_websocket.chunks.seam import SeamConfig
from pi05_websocket.errors import ConfigError

__all__ = ["SchedulerConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """How far to trust a chunk and how early to ask for the next."""

    action_horizon: int | None = None
    """Execution horizon: rows executed before the next chunk takes over; None: as soon as it is there."""

    margin_ticks: int | None = None
    """Ticks to ask earlier than the estimated inference delay requires; None: 5 % of the chunk, and so many
    more that a quarter of it is in reserve for a late reply, and that one twice as late still comes in time."""

    min_execution_ticks: int = 8
    """Fewest ticks between two observations that are sent, unless the arm would starve; a smaller
    `action_horizon` is not stretched."""

    max_age_ticks: int | None = None
    """Oldest observation, in ticks, whose chunk may still take over; None: any age."""

    max_skip_ticks: int = 3
    """Longest stall of the loop that is made up by skipping rows; after a longer one the arm goes on where it
    stood."""

    seam: SeamConfig = field(default_factory=SeamConfig)
    """How a chunk is joined to the one before it."""

    def __post_init__(self) -> None:
        if self.action_horizon is not None and self.action_horizon < 1:
            raise ConfigError(f"action_horizon={self.action_horizon}: must be 1 or more")
        for name in ("margin_ticks", "min_execution_ticks", "max_age_ticks", "max_skip_ticks"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name}={value}: must be 0 or more")

    def margin(self, rows: int) -> int:
        """Return how many ticks to ask early for the chunk after one of `rows` rows."""
        if self.margin_ticks is not None:
            return self.margin_ticks
        beyond = rows - min(self.action_horizon or rows, rows)
        return max(1, math.ceil(0.05 * rows), math.ceil(0.25 * rows) - beyond)

    def reserve(self, delay: int) -> int:
        """Return how many rows to have left, at least, when asking: enough for a reply twice as late.

        Only where the next chunk takes over at once. With an `action_horizon` it would wait, and its own rows
        would be the fewer for having been asked for so early.
        """
        chosen = self.margin_ticks is not None or self.action_horizon is not None
        return 0 if chosen else 2 * delay + 1
