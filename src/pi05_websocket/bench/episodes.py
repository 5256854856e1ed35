# SPDX-License-Identifier: Apache-2.0
"""One episode of one cell: the simulated arm, a rule, a modelled link, and what is to be counted.

A shell around the simulator, on a virtual clock: an episode takes a tenth of its length; `bench.real` lets it
run on the machine's clock and over real sockets. The rule "ours" is the real `ActionPlayer`, driven tick by
tick as the plugin drives it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pi05_websocket.bench.cells import CONTROL_HZ, Cell, Episode
from pi05_websocket.bench.policies import MeasuredPolicy
from pi05_websocket.bench.rules import AskAndWait, Played, QueueEngine, Rule
from pi05_websocket.bench.virtual import Infer, VirtualPolicy
from pi05_websocket.chunks.config import SchedulerConfig
from pi05_websocket.chunks.seam import SeamConfig
from pi05_websocket.client.image_quality import ImageQuality
from pi05_websocket.clock import Clock
from pi05_websocket.data import Float32Array, Observation
from pi05_websocket.robot.interface import PendingExchange, RequestPolicy
from pi05_websocket.robot.player import ActionPlayer, PlayerConfig
from pi05_websocket.sim.arm import GRIPPER, JOINTS
from pi05_websocket.sim.episodes import EpisodeEvent, EpisodeRules
from pi05_websocket.sim.so101 import CAMERA_SHAPES, SimConfig, SimSO101
from pi05_websocket.sim.tasks import make_task
from pi05_websocket.testing import FakeClock
from pi05_websocket.wire.messages import read_actions

__all__ = ["Bench", "Ours", "Peer", "Record", "velocity_jumps"]

_NEVER_MOVED_S = 10.0
"""Virtual seconds after which an arm that has not moved at all has failed."""
_MAX_AGE_TICKS = 150
"""As the plugin's default `timeout` of 5 s."""


class Peer:
    """A rule of somebody else's, asked once per tick.

    Args:
        rule: Decides.
        policy: Where it asks.
    """

    def __init__(self, rule: Rule, policy: RequestPolicy) -> None:
        self._rule, self._policy = rule, policy
        self._under_way: PendingExchange | None = None
        self._seq = -1

    def step(self, tick: int, observe: Callable[[], Observation]) -> Played | None:
        """Return the row for a tick; None while it holds."""
        exchange = self._under_way
        if exchange is not None and exchange.done():
            self._under_way = None
            reply = exchange.result(0)
            rows = read_actions(reply.value, action_dim=len(JOINTS))
            self._rule.arrived(self._seq, rows, tick, reply.received_at - exchange.sent_at)
        if self._under_way is None and self._rule.wants(tick):
            self._seq += 1
            self._rule.asked(self._seq, tick)
            self._under_way = self._policy.submit(observe())
            if self._under_way.done():  # no distance at all: the loop has waited for it
                return self.step(tick, observe)
        return self._rule.play(tick)


class Ours:
    """The real player, as `Session.step_on_the_clock` drives it.

    Args:
        player: What decides.
        measure: Returns the measured joints, `(6,)`.
    """

    def __init__(self, player: ActionPlayer, measure: Callable[[], Float32Array]) -> None:
        self._player, self._measure = player, measure
        player.start_episode()

    def step(self, tick: int, observe: Callable[[], Observation]) -> Played | None:
        """Return the row for a tick; None while it holds."""
        self._player.collect(tick)
        self._player.ask(tick, observe)
        self._player.collect(tick)
        step = self._player.act(tick, self._measure())
        return Played(step.values, step.seq, step.row) if step.source == "chunk" else None


class Bench:
    """One simulated arm of one task, episode after episode. A context manager.

    Args:
        task: `cube`, `belt` or `moved`.
        belt_speed: Metres per second; None: the task's own.
        policy: What drives it; None: the expert.
        clock: What the arm lives on; None: a virtual one.
    """

    def __init__(
        self,
        task: str,
        *,
        belt_speed: float | None = None,
        policy: MeasuredPolicy | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = FakeClock() if clock is None else clock
        self._task = make_task(task, belt_speed=belt_speed)
        self._events: list[EpisodeEvent] = []
        self._sim = SimSO101(
            SimConfig(
                task=self._task,
                rules=EpisodeRules(next_episode="never", settle_s=0.0),
                render="demand",
            ),
            clock=self._clock,
            on_event=self._events.append,
        )
        self._measured = policy or MeasuredPolicy("expert")
        self._key_map = self._measured.key_map()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exc: object) -> None:
        self._sim.close()

    def run(self, cell: Cell, seed: int) -> Episode:
        """Run one seed of a cell to its end, over the modelled link."""
        record = Record()
        self._measured.begin_episode(seed)
        policy = VirtualPolicy(
            record.keeping(self._first_rows(cell)),
            cell.link,
            self._clock,
            seed=seed,
            metadata=self._measured.metadata,
            images=ImageQuality("jpeg") if cell.images == "jpeg" else None,
        )
        episode = self.play(cell, seed, policy, record)
        trips = [1000 * (exchange.arrives_at - exchange.sent_at) for exchange in policy.exchanges]
        return replace(episode, round_trips_ms=[round(trip, 2) for trip in trips])

    def play(self, cell: Cell, seed: int, policy: RequestPolicy, record: Record) -> Episode:
        """Run one seed of a cell to its end with any policy, which tells `record` what it sees and plans."""
        self._sim.reset(seed)
        self._events.clear()
        self._key_map = self._measured.key_map(cell.images)
        driver = self._driver(cell, policy)
        began, tick = self._clock.now(), 0
        while not self._over(began):
            record.begin_tick(tick, began + tick / CONTROL_HZ)
            played = driver.step(tick, self._observe)
            record.take(played)
            if played is not None:
                self._sim.send_action(played.values)
            # From the beginning, so that no error adds up. A real clock may have gone further: skipped.
            tick = max(tick + 1, int((self._clock.now() - began) * CONTROL_HZ))
            self._clock.sleep(max(0.0, began + tick / CONTROL_HZ - self._clock.now()))
            self._sim.get_joints()
        ended = next((event for event in self._events if event.kind == "ended"), None)
        moved = next(
            (event.time_s - began for event in self._events if event.kind == "moved"), None
        )
        return record.episode(
            cell,
            seed,
            success=ended is not None and ended.success,
            time_s=_NEVER_MOVED_S if ended is None else ended.duration_s,
            moved_s=moved,
        )

    def _first_rows(self, cell: Cell) -> Infer:
        """Return the policy, its chunks cut to the cell's rows."""

        def infer(seen: Observation, queue_ms: float) -> Mapping[str, Any]:
            result = self._measured.infer(seen, queue_ms)
            return {**result, "actions": np.asarray(result["actions"][: cell.horizon])}

        return infer

    def _over(self, began: float) -> bool:
        if any(event.kind == "ended" for event in self._events):
            return True
        moved = any(event.kind == "began" for event in self._events)
        return not moved and self._clock.now() - began > _NEVER_MOVED_S

    def _driver(self, cell: Cell, policy: RequestPolicy) -> Peer | Ours:
        if cell.rule == "ours":
            scheduler = SchedulerConfig(
                max_age_ticks=_MAX_AGE_TICKS,
                seam=SeamConfig(kind=cell.seam),  # type: ignore[arg-type]
            )
            config = PlayerConfig(
                scheduler=scheduler,
                action_dim=len(JOINTS),
                use_rtc=cell.seam == "rtc",
                control_hz=CONTROL_HZ,
            )
            return Ours(ActionPlayer(policy, config, clock=self._clock), self._measure)
        rule: Rule
        if cell.rule == "lerobot-rtc":
            rule = QueueEngine(CONTROL_HZ)
        else:
            rule = AskAndWait(cell.execute if cell.rule == "openpi" else cell.horizon)
        return Peer(rule, policy)

    def _measure(self) -> Float32Array:
        joints = self._sim.get_joints()
        return np.array([joints[f"{name}.pos"] for name in JOINTS], np.float32)

    def _observe(self) -> Observation:
        seen: dict[str, Any] = self._sim.get_observation()
        images = {name: seen[name] for name in CAMERA_SHAPES}
        state = np.array([seen[f"{name}.pos"] for name in JOINTS], np.float32)
        return self._key_map.observation(images, state, self._task.prompt)


class Record:
    """Keeps what an episode is judged by."""

    def __init__(self) -> None:
        self.tick = -1
        self.tick_at = 0.0
        """When the tick was due, seconds on the arm's clock."""
        self.late_ticks = 0
        """Ticks that were skipped, because the loop was not ready for them in time."""
        self._commands: list[npt.NDArray[np.float64]] = []
        self._observed_at: list[int] = []
        self._planned_from: list[int | None] = []
        """Tick of the observation each command was planned from; None for a hold after the first chunk."""
        self._seams: list[int] = []
        self._row_jumps: list[float] = []
        self._held = 0
        self._last: Played | None = None

    def keeping(self, policy: Infer) -> Infer:
        """Return the policy, its observations' ticks and its rows noted."""

        def infer(seen: Observation, queue_ms: float) -> Mapping[str, Any]:
            self.asked()
            result = policy(seen, queue_ms)
            self.planned(result["actions"])
            return result

        return infer

    def begin_tick(self, tick: int, due: float) -> None:
        """Note which tick it is."""
        self.late_ticks += tick - self.tick - 1
        self.tick, self.tick_at = tick, due

    def asked(self) -> None:
        """Note that the present tick's observation is sent."""
        self._observed_at.append(self.tick)

    def planned(self, rows: Float32Array) -> None:
        """Note the rows of a chunk as the policy gave them."""
        self._row_jumps.extend(velocity_jumps(rows[:, :GRIPPER]))

    def take(self, played: Played | None) -> None:
        """Note what was commanded at this tick."""
        if played is None and self._last is None:
            return  # before the first chunk the arm has nothing to do
        if played is None:
            self._held += 1
            self._commands.append(self._commands[-1])
            self._planned_from.append(None)
            return
        if self._last is not None and played.seq != self._last.seq:
            self._seams.append(len(self._commands))
        self._commands.append(np.asarray(played.values[:GRIPPER], np.float64))
        self._planned_from.append(self._observed_at[played.seq])
        self._last = played

    @property
    def row_jumps(self) -> float:
        """The 99th percentile of the changes of velocity inside the chunks; 0 without any."""
        return round(float(np.quantile(self._row_jumps, 0.99)), 3) if self._row_jumps else 0.0

    def episode(
        self, cell: Cell, seed: int, *, success: bool, time_s: float, moved_s: float | None = None
    ) -> Episode:
        """Return the episode's figures.

        Args:
            cell: What was measured.
            seed: Which cube.
            success: Whether it was picked up.
            time_s: From the first motion to success, or to the end.
            moved_s: When the cube was moved, seconds after tick 0; None: it was not.
        """
        jumps = velocity_jumps(np.array(self._commands)) if len(self._commands) > 2 else []
        # Jump i lies at command i + 1: the step to command k shows in the jumps at k - 1 and k.
        at_seams = [
            float(max(jumps[max(0, k - 2) : k])) for k in self._seams if 2 <= k <= len(jumps)
        ]
        return Episode(
            cell=cell.key,
            seed=seed,
            success=success,
            time_s=round(time_s, 3),
            ticks=len(self._commands),
            held_ticks=self._held,
            requests=len(self._observed_at),
            seam_jumps=[round(jump, 3) for jump in at_seams],
            row_jumps=self.row_jumps,
            reaction_s=self._usual_reaction() if moved_s is None else self._reaction(moved_s),
        )

    def _reaction(self, moved_s: float) -> float | None:
        """Return how long after a moment the first command is due whose observation is younger."""
        first = self.tick + 1 - len(self._planned_from)
        for tick, seen in enumerate(self._planned_from, first):
            if seen is not None and seen / CONTROL_HZ >= moved_s:
                return round(tick / CONTROL_HZ - moved_s, 4)
        return None

    def _usual_reaction(self) -> float | None:
        """Return the mean over all ticks of the time until a command is planned from an observation since."""
        first = self.tick + 1 - len(self._planned_from)
        waits, answer_at = [], None
        for i in range(len(self._planned_from) - 1, -1, -1):
            tick = first + i
            since = [
                first + k
                for k, seen in enumerate(self._planned_from[i:], i)
                if seen is not None and seen >= tick
            ]
            answer_at = since[0] if since else None
            if answer_at is not None:
                waits.append(answer_at - tick)
        return round(float(np.mean(waits)) / CONTROL_HZ, 4) if waits else None


def velocity_jumps(commands: npt.NDArray[Any]) -> list[float]:
    """Return how much the fastest-changing joint's velocity changes at each command but the first and last.

    Args:
        commands: `(n, joints)`, one a tick.
    """
    change = np.abs(np.diff(commands, n=2, axis=0))
    return [float(value) for value in change.max(axis=1)] if len(change) else []
