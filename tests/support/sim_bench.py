# SPDX-License-Identifier: Apache-2.0
"""A simulated arm on a virtual clock, with what it tells."""

from __future__ import annotations

from typing import NamedTuple

from pi05_websocket.sim.episodes import EpisodeEvent, EpisodeRules
from pi05_websocket.sim.so101 import SimConfig, SimSO101
from pi05_websocket.sim.tasks import make_task
from pi05_websocket.testing import FakeClock


class Bench(NamedTuple):
    """A simulated arm, the clock it lives on, and what it told."""

    sim: SimSO101
    clock: FakeClock
    events: list[EpisodeEvent]


def make_bench(task: str = "cube", rules: EpisodeRules | None = None) -> Bench:
    """Return an arm that renders on demand and follows a virtual clock."""
    clock, events = FakeClock(), list[EpisodeEvent]()
    config = SimConfig(
        task=make_task(task),
        rules=rules or EpisodeRules(next_episode="never"),
        render="demand",
    )
    return Bench(SimSO101(config, clock=clock, on_event=events.append), clock, events)
