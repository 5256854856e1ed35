# SPDX-License-Identifier: Apache-2.0
"""The player: one valid action for every tick from a policy that answers late, wrongly or not at all.

In: tick numbers, observations on demand, a policy's exchanges. Out: one `Step` per tick.
Runs on the caller's thread and never waits, except in `wait`. One player for each arm.

In each tick, in this order: `collect` what has arrived, `ask` when it is time, `act`.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from pi05_websocket.chunks.hold import Fallback, HoldConfig, HoldState
from pi05_websocket.chunks.resume import ResumeConfig
from pi05_websocket.chunks.scheduler import (
    ChunkScheduler,
    MergeOutcome,
    Request,
    SchedulerConfig,
)
from pi05_websocket.chunks.stretch import check_speed, stretched
from pi05_websocket.chunks.travel import TravelEstimator
from pi05_websocket.clock import SYSTEM_CLOCK, Clock
from pi05_websocket.data import ActionChunk, ActionKind, ExchangeRecord, Float32Array, Observation
from pi05_websocket.errors import InvalidReply, Pi05WebsocketError, PolicyChanged, RequestRefused
from pi05_websocket.policy import reset_policy
from pi05_websocket.robot.causes import Cause, CauseName, Situation, find_cause
from pi05_websocket.robot.commands import Commands, Step
from pi05_websocket.robot.interface import (
    PendingExchange,
    PendingReply,
    Preflight,
    RequestPolicy,
    SeveralServers,
    WatchedExchange,
)
from pi05_websocket.robot.limits import LimitsConfig
from pi05_websocket.robot.outage import PROGRESS_AFTER_S, Outage
from pi05_websocket.robot.records import exchange_record, tell_exchange
from pi05_websocket.robot.rehearsal import Rehearsal
from pi05_websocket.robot.trace import Trace
from pi05_websocket.wire.messages import read_actions
from pi05_websocket.wire.realtime import (
    RealtimeRequest,
    read_realtime_reply,
    realtime_support,
    with_realtime,
)

__all__ = [
    "ActionPlayer",
    "PendingExchange",
    "PendingReply",
    "PlayerConfig",
    "RequestPolicy",
    "Step",
]

logger = logging.getLogger(__name__)

RETRY_FIRST_S = 0.1
RETRY_MAX_S = 1.0
"""Waits between requests that keep failing; they double from the first to the last."""

REFUSED_MAX_S = 5.0
"""The longest that a busy server can have a robot wait before it asks again."""

_ABSENCE_TICKS = 30
"""Ticks after which nobody knows where the arm is, where no `coast_ticks` say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayerConfig:
    """What a player does with chunks, and without them."""

    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    """When to ask and when to change over."""

    fallback: Fallback = "hold"
    """What `act` returns when there is no valid action."""

    action_kind: ActionKind = "absolute"
    """What an action's numbers mean; decides what holding is."""

    hold: HoldConfig = field(default_factory=HoldConfig)
    """What holding is, how long a gap may be, and when a person has to end it."""

    resume: ResumeConfig = field(default_factory=ResumeConfig)
    """How motion begins: at the first chunk, and after every gap."""

    limits: LimitsConfig = field(default_factory=LimitsConfig)
    """What no command may exceed."""

    action_dim: int | None = None
    """Width every action must have; None: the first chunk's."""

    use_rtc: bool = False
    """Whether a server that offers RTC is sent the rows still to be executed."""

    control_hz: float = 30.0
    """Ticks per second; told to such a server."""

    speed_scale: float = 1.0
    """How fast to execute what the policy plans, more than 0 and at most 1; RTC is off below 1."""

    dry_run: bool = False
    """Whether to show what the policy would do, and command the pose the arm has."""

    confirm: bool = False
    """The same until a person lets the arm move: `resume`."""

    joint_names: tuple[str, ...] = ()
    """What to call the joints, in action order."""

    def __post_init__(self) -> None:
        check_speed(self.speed_scale)


@dataclass(slots=True)
class _Pending:
    request: Request
    exchange: PendingExchange
    encode_ms: float
    observed: Float32Array | None
    """The pose in the observation."""
    late: bool = False
    """Whether its being late has been reported."""


class ActionPlayer:
    """Keeps the chunk scheduler fed and has an action, or the fallback, for every tick.

    Args:
        policy: Where to ask.
        config: What to do with chunks, and without them.
        trace: Where to write what happened.
        clock: Where times come from; ticks are the caller's.
        name: Put before every log line.
        number: Which of the players that share the policy's connection it is.
        how_to_resume: What a person does to let a stopped arm move again, for the log.
        preflight: Looks at the first exchange before anything moves.
    """

    def __init__(
        self,
        policy: RequestPolicy,
        config: PlayerConfig,
        *,
        trace: Trace | None = None,
        clock: Clock = SYSTEM_CLOCK,
        name: str = "",
        number: int = 0,
        how_to_resume: str = "call resume(), or begin a new episode",
        preflight: Preflight | None = None,
    ) -> None:
        self.config = config
        self._preflight = preflight
        self.scheduler = ChunkScheduler(config.scheduler)
        self.last_exchange: ExchangeRecord | None = None
        self.started = False
        """Whether any chunk was ever accepted."""
        self._policy = policy
        self._clock = clock
        self._trace = Trace(None) if trace is None else trace
        self._name = f"{name}: " if name else ""
        self._number = number
        self._action_dim = config.action_dim
        self._pending: _Pending | None = None
        self._commands = Commands(
            fallback=config.fallback,
            hold=config.hold,
            resume=config.resume,
            limits=config.limits,
            action_kind=config.action_kind,
            control_hz=config.control_hz,
            stall_ticks=config.scheduler.max_skip_ticks + 1,
        )
        self._stall_ticks = config.scheduler.max_skip_ticks + 1
        self._tick = 0
        self.ticks = 0
        """Commanded ticks of this episode."""
        self.held_by_cause: Counter[CauseName] = Counter()
        """Ticks of this episode without a row."""
        self._failure: Pi05WebsocketError | None = None
        """Why the last request came to nothing; None once a chunk was accepted."""
        self._down_since: float | None = None
        self._queue_s = 0.0
        """How long the last request waited in the server's queue, as far as it says."""
        self._chunk_rows = 0
        self._failures = 0
        self._retry_at = 0.0
        self._travel = TravelEstimator()
        self.rehearsal = Rehearsal(
            dry_run=config.dry_run,
            confirm=config.confirm,
            action_kind=config.action_kind,
            joint_names=config.joint_names,
            clock=clock,
            trace=self._trace,
            name=self._name,
            how_to_confirm=how_to_resume,
        )
        self._outage = Outage(
            config.fallback,
            clock=clock,
            trace=self._trace,
            name=self._name,
            how_to_resume=how_to_resume,
        )
        if config.action_dim is not None:
            config.limits.check(config.action_dim)

    def __repr__(self) -> str:
        return f"<ActionPlayer {self.scheduler!r} outages={self.outages}>"

    @property
    def cause(self) -> str:
        """Why there is no valid action, in words, while there is none."""
        return self._outage.cause

    @property
    def outages(self) -> int:
        """How often the player had to report that no valid chunk came."""
        return self._outage.count

    @property
    def state(self) -> HoldState:
        """Whether rows are executed, and if not, how far the pause has gone."""
        return self._commands.machine.state

    @property
    def latched(self) -> bool:
        """Whether the arm holds until a person lets it move again: `resume`, or a new episode."""
        return self._commands.machine.latched

    def stop(self) -> None:
        """Stop the arm, as a person does: it holds until `resume`, or a new episode."""
        if not self.latched:
            self._commands.machine.stop(self._tick)
            self._changed(Cause("stopped", "a person has stopped it"), 0)

    def resume(self) -> bool:
        """Let a stopped arm move again, as a person does; say whether it was stopped.

        It goes on with a chunk planned from a fresh observation, from the pose it has. Where a person has to
        confirm the first motion, this is it; where one has to accept another policy, too. One that nobody has
        been told of yet is only told: the next `resume` accepts it.
        """
        if self.rehearsal.confirm():
            self.start_episode()
            return True
        error, accepted = self._policy.unavailable(), False
        if isinstance(error, PolicyChanged):
            if not self._outage.other_policy(error):
                return False
            accepted = isinstance(self._policy, SeveralServers) and self._policy.accept(error)
            if not accepted:
                return False  # yet another one has come since
            self._drop_plans()  # another policy's
        if not self._commands.machine.resume() and not accepted:
            return False
        self._commands.forget_pose()
        self._retry_at = 0.0
        self._outage.resumed()
        return True

    def end_episode(self) -> None:
        """Say how many ticks were held, and why. Safe to call twice."""
        self._outage.summary(self.ticks, self.held_by_cause)
        self.ticks = 0
        self.held_by_cause.clear()

    def start_episode(self) -> None:
        """Forget every chunk, request and commanded target of the episode before."""
        self.end_episode()
        reset_policy(self._policy)
        episode = self.scheduler.start_episode()
        self._pending = None
        self._failure = None
        self._commands.start_episode()
        self.rehearsal.start_episode()
        self._outage.begin_waiting("the first chunk of the episode is under way")
        self._retry_at = 0.0
        self._trace.write("episode", episode=episode)

    @property
    def waiting(self) -> bool:
        """Whether a request is under way."""
        return self._pending is not None

    def covered(self, tick: int) -> bool:
        """Say whether `act` has a row for `tick` and no newer chunk is due before it."""
        return self.scheduler.remaining(tick) > 0 and not self.scheduler.request_due(tick)

    def change_task(self) -> None:
        """Ask anew at once; the running chunk goes on only until the answer is here."""
        self._pending = None
        self.scheduler.preempt()

    def show_progress(self) -> None:
        """Say what is waited for, now and then; for a caller that waits by itself."""
        self._outage.show_progress()

    def collect(self, tick: int) -> None:
        """Take what has arrived since the last tick."""
        self._notice_absence(tick)
        pending = self._pending
        if pending is None:
            return
        if isinstance(pending.exchange, WatchedExchange):
            pending.exchange.rows_last(self.scheduler.remaining(tick) / self.config.control_hz)
        if pending.exchange.done():
            self._pending = None
            self._take(pending, tick)
        elif not pending.late and pending.exchange.age() > pending.exchange.limit:
            pending.late = True
            self._report(pending.exchange.late())

    def _notice_absence(self, tick: int) -> None:
        """Forget what was planned and commanded before nobody asked for a while: a person may have driven."""
        coast_ticks = self.config.hold.coast_ticks
        longest = max(self._stall_ticks, _ABSENCE_TICKS if coast_ticks is None else coast_ticks)
        if self.ticks == 0 or tick - self._tick <= longest + 1:
            return
        logger.warning(
            "%snobody asked for %.1f s: what was planned is dropped, a fresh observation is sent",
            self._name,
            (tick - self._tick) / self.config.control_hz,
        )
        self._drop_plans()
        self._commands.forget_pose()
        self.rehearsal.start_episode()

    def _drop_plans(self) -> None:
        """Let only a plan from here and now move the arm again."""
        self.scheduler.start_episode()
        self.scheduler.delay.expect_cold()
        self._pending = None

    def ask(
        self,
        tick: int,
        observe: Callable[[], Observation],
        measured: Float32Array | None = None,
        seen_s: float | None = None,
    ) -> bool:
        """Send an observation if it is time to; say whether one was sent.

        Args:
            tick: Now.
            observe: Makes the observation; not called when none is due.
            measured: The measured joints in it, as for `act`: where a slowed motion begins, and what a dry run
                compares with. None: not known.
            seen_s: When the cameras were read, on the player's clock; None: now. For spans.

        Raises:
            ObservationError: The observation does not fit the key map. Not retried: settings are wrong.
        """
        now = self._clock.now()
        if self._pending is not None or now < self._retry_at or self.latched:
            return False
        if not self.scheduler.request_due(tick):
            return False
        error = self._policy.unavailable()
        if error is not None:
            self._unavailable(error)
            return False
        if self._preflight is not None:
            self._preflight.asked(self._policy.metadata)
        observation = observe()
        if self._preflight is not None:
            self._preflight.observed(observation)
        request = self.scheduler.request(tick)
        traceparent = None
        if self._trace.spans is not None:
            seen_s = now if seen_s is None else seen_s
            traceparent = self._trace.spans.begin(
                request.seq, seen_s=seen_s, observed_s=self._clock.now()
            )
        support = realtime_support(self._policy.metadata)
        if support is not None and (support.refusals or self._conditions):
            said = self._realtime(request, self.scheduler.leftover(tick))
            said = replace(said, traceparent=traceparent)
            observation = with_realtime(observation, said)
        before = time.perf_counter()
        try:
            exchange = self._policy.submit(observation)
        except Pi05WebsocketError:
            self.scheduler.request_ended(request.seq)
            raise
        encode_ms = 1000 * (time.perf_counter() - before)
        self._trace.show(
            "request",
            seq=request.seq,
            tick=tick,
            episode=request.episode,
            observation=observation,
            quality=exchange.quality,
            metadata=self._policy.metadata,
        )
        self._pending = _Pending(request, exchange, encode_ms, self._comparable(measured))
        if self._failures == 0:
            self._outage.note("the policy has not answered yet")
        return True

    @property
    def _conditions(self) -> bool:
        """Whether the server takes the rows still to be executed; a stock one must see stock bytes."""
        config = self.config
        support = realtime_support(self._policy.metadata)
        wanted = config.use_rtc and config.speed_scale == 1.0 and not self.rehearsal.dry
        return wanted and support is not None and support.conditions

    @property
    def _joined(self) -> str:
        """How chunks are joined, in words for a person."""
        kind = self.config.scheduler.seam.kind
        if self._conditions or kind != "rtc":
            return "rtc" if self._conditions else kind
        support = realtime_support(self._policy.metadata)
        able = support is not None and support.conditions
        why = "not in this run" if able else "the server does not condition"
        return f"blend, as rtc was asked for and {why}"

    def _realtime(self, request: Request, leftover: Float32Array) -> RealtimeRequest:
        """Return what a server needs to go on where the running chunk will be, and to know what is urgent."""
        scheduler, tick_ms = self.config.scheduler, 1000.0 / self.config.control_hz
        delay, oldest = self.scheduler.delay.ticks(), scheduler.max_age_ticks
        return RealtimeRequest(
            seq=request.seq,
            leftover=leftover if self._conditions else leftover[:0],
            delay=delay,
            execution_horizon=max(
                delay, scheduler.action_horizon or scheduler.min_execution_ticks, 1
            ),
            control_hz=self.config.control_hz,
            # Held ticks do not advance a chunk: a late one is of use until it is too old, not until its rows
            # would have been over.
            deadline_ms=None if oldest is None else oldest * tick_ms,
            leftover_ms=len(leftover) * tick_ms,
            robot=self._number,
            age_ms=self._travel.one_way_ms(),
        )

    def wait(self, timeout: float) -> None:
        """Wait for the request under way, with progress lines. `collect` it afterwards."""
        # Real time: the reply comes over a real network, whatever clock the ticks follow.
        deadline = time.monotonic() + timeout
        while self._pending is not None and not self._pending.exchange.done():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                self._pending.exchange.result(min(left, PROGRESS_AFTER_S))
            except Pi05WebsocketError:
                self._outage.show_progress()

    def act(self, tick: int, measured: Float32Array | None) -> Step:
        """Return what to command at `tick`.

        Args:
            measured: The measured joint positions in action order and units, `(action_dim,)`; what is
                held before the first chunk. None when the state is no such thing.

        Raises:
            NoValidAction: With the fallback "raise", or when there is nothing to hold.
        """
        measured = self._comparable(measured)
        action = self.scheduler.action_at(tick)
        self.ticks += 1
        self._tick = tick
        if action is not None:
            begins = self.state is not HoldState.RUN
            step = self._commands.execute(action, self.scheduler.running_plan, tick, measured)
            if step.limited:
                self.scheduler.commanded(step.values)
            if begins:
                self._outage.motion(self._commands.jump, self._commands.approach_ticks)
            if not self.rehearsal.dry:
                self._outage.limited(step.limited)
        else:
            step = self._fall_back(tick, measured)
        if self.rehearsal.dry:
            step = self.rehearsal.step(step, measured, self._action_dim)
        facts = {"cause": step.cause} if step.cause is not None else {}
        if step.limited:
            facts["limited"] = ", ".join(step.limited)  # type: ignore[assignment]
        if step.predicted is not None:
            facts["predicted"] = [round(float(v), 4) for v in step.predicted]  # type: ignore[assignment]
        self._trace.write(
            "tick",
            tick=tick,
            episode=self.scheduler.episode,
            source=step.source,
            seq=step.seq,
            row=step.row,
            values=[round(float(v), 4) for v in step.values],
            **facts,
        )
        return step

    def _comparable(self, measured: Float32Array | None) -> Float32Array | None:
        """Return the measured pose if it can be compared with an action: finite, and as wide."""
        if measured is None or not np.isfinite(measured).all():
            return None
        if self._action_dim not in (None, len(measured)):
            return None
        return measured.copy()  # the driver's buffer, perhaps

    def _prepared(self, actions: Float32Array, observed: Float32Array | None) -> Float32Array:
        """Return the rows as they are to be executed; in a dry run, show them."""
        if observed is not None and len(observed) != actions.shape[1]:
            observed = None
        if self.rehearsal.dry:
            self.rehearsal.show(actions, observed)
        config = self.config
        return stretched(
            actions, config.speed_scale, action_kind=config.action_kind, start=observed
        )

    def _fall_back(self, tick: int, measured: Float32Array | None) -> Step:
        situation = self._situation()
        cause = find_cause(situation)
        changed = situation.link if isinstance(situation.link, PolicyChanged) else None
        self._outage.other_policy(changed)
        machine = self._commands.machine
        self.held_by_cause[cause.name] += 1
        if cause.name != self._outage.cause_name:
            self._trace.show("held", tick=tick, cause=cause.name, text=cause.text)
        self._outage.held_tick(cause)
        # Before anything can go wrong: what the pause has come to holds even for a caller that catches errors.
        if machine.starved(tick):
            self._changed(cause, machine.held_ticks(tick))
        return self._commands.fall_back(
            tick, measured, self._action_dim, cause, hold=self.rehearsal.dry
        )

    def _changed(self, cause: Cause, held_ticks: int) -> None:
        """React to a new state without rows."""
        state, latched = self.state, self.latched
        self._trace.write("state", state=state.value, latched=latched, cause=cause.name)
        if state is HoldState.STOP:
            self._drop_plans()
            self._outage.stopped(cause, held_ticks / self.config.control_hz, latched=latched)

    def _situation(self) -> Situation:
        now, pending = self._clock.now(), self._pending
        link = self._policy.unavailable()
        if link is None:
            self._down_since = None
        elif self._down_since is None:
            self._down_since = now
        tick_s = 1.0 / self.config.control_hz
        return Situation(
            latched=self.latched,
            link=link,
            link_down_s=0.0 if self._down_since is None else now - self._down_since,
            failure=self._failure,
            moved=self.state is not HoldState.WAIT,
            waited_s=self._outage.waited_s,
            age_s=None if pending is None else pending.exchange.age(),
            expected_s=self.scheduler.delay.ticks() * tick_s,
            queue_s=self._queue_s,
            chunk_s=self._chunk_rows * tick_s,
            before=self._outage.cause_name,
        )

    def _take(self, pending: _Pending, tick: int) -> None:
        request, exchange = pending.request, pending.exchange
        try:
            reply = exchange.result(0)
            self._trace.show("reply", seq=request.seq, value=reply.value, nbytes=reply.nbytes)
            actions = read_actions(reply.value, action_dim=self._action_dim)
            if self._preflight is not None:
                self._preflight.answered(actions, pending.observed)
            actions = self._prepared(actions, pending.observed)
        except Pi05WebsocketError as exc:
            self.scheduler.request_ended(request.seq)
            self._trace.write(
                "failed",
                seq=request.seq,
                tick=request.tick,
                episode=request.episode,
                cause=str(exc),
                error=type(exc).__name__,
            )
            if self._preflight is not None:
                self._preflight.failed(exc)
            self._fail(exc, tick)
            return
        zeroed_at = self._commands.zeroed_at
        if zeroed_at is not None and request.tick <= zeroed_at:
            # Zeros moved the arm since: a plan from where it was would begin with a jump.
            self.scheduler.request_ended(request.seq)
            self._trace.write(
                "dropped", seq=request.seq, cause="observed before zeros were commanded"
            )
            return
        said = read_realtime_reply(reply.value)
        self._queue_s = 0.0 if said is None else said.queue_ms / 1000.0
        pinned = said is not None and said.seq == request.seq and said.prefix != "none"
        chunk = ActionChunk(
            actions=actions,
            first_tick=request.tick,
            episode=request.episode,
            seq=request.seq,
            pinned_rows=said.delay if pinned and said is not None else 0,
        )
        outcome = self.scheduler.merge(chunk, request, tick)
        self.last_exchange = exchange_record(
            request, exchange, reply, encode_ms=pending.encode_ms, tick=tick
        )
        if self.last_exchange.server_ms is not None:
            self._travel.add(
                round_trip_ms=self.last_exchange.round_trip_ms,
                server_ms=self.last_exchange.server_ms + 1000 * self._queue_s,
            )
        tell_exchange(
            self.last_exchange,
            outcome,
            episode=request.episode,
            name=self._name,
            trace=self._trace,
        )
        if outcome is MergeOutcome.ACCEPTED:
            self._trace.show("chunk", seq=chunk.seq, first_tick=chunk.first_tick, actions=actions)
            self._accept(actions)
        elif outcome in (MergeOutcome.TOO_OLD, MergeOutcome.TOO_LATE):
            self._failure = InvalidReply(
                f"the reply came after {exchange.age():.1f} s: {outcome.value}; a fresh "
                "observation is sent. If that repeats, the policy is too slow for its chunk: raise "
                "`timeout`, or use a longer action horizon"
            )
            self._report(self._failure)

    def _accept(self, actions: Float32Array) -> None:
        if self._action_dim is None:
            self.config.limits.check(actions.shape[1])
        self._action_dim = actions.shape[1]
        self._chunk_rows = len(actions)
        self._failure = None
        self._failures = 0
        self._retry_at = 0.0
        if not self.started:
            logger.info(
                "%sfirst chunk: %d rows of %d values%s, after %.1f s; chunks are joined by: %s",
                self._name,
                *actions.shape,
                f" (slowed down, speed_scale {self.config.speed_scale:g})"
                if self.config.speed_scale < 1.0
                else "",
                self._outage.waited_s,
                self._joined,
            )
        self.started = True
        self._outage.end()

    def _fail(self, error: Pi05WebsocketError, tick: int) -> None:
        if isinstance(error, RequestRefused):
            self._refused(error, tick)
            return
        self.scheduler.delay.expect_cold()
        self._retry_at = self._clock.now() + min(RETRY_MAX_S, RETRY_FIRST_S * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        self._failure = error
        self._report(error)

    def _refused(self, error: RequestRefused, tick: int) -> None:
        """React to a busy server: link and policy are well, and it may say when to ask again."""
        after_s = RETRY_FIRST_S if error.retry_after_s is None else error.retry_after_s
        self._retry_at = self._clock.now() + min(max(after_s, RETRY_FIRST_S), REFUSED_MAX_S)
        self._failure = error
        if self.scheduler.remaining(tick) > 0:
            logger.debug("%s%s; rows are left", self._name, error)
        else:
            self._report(error)

    def _report(self, error: Pi05WebsocketError) -> None:
        self._outage.report(
            error, commanded=self.started and self._commands.last_values is not None
        )

    def _unavailable(self, error: Pi05WebsocketError) -> None:
        """React to a link that is down: stop before the first motion if it can never come up."""
        if not error.retryable and not self.started:
            raise error
        if self._failures:
            return  # it is down because the request failed, as stock servers close then: already told
        if self.started or self.config.fallback == "raise":
            self._report(error)
