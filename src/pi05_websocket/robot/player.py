# SPDX-License-Identifier: Apache-2.0
"""The player: one valid action for every tick from a policy that answers late, wrongly or not at all.

In: tick numbers, observations on demand, a policy's exchanges. Out: one `Step` per tick.
Runs on the caller's thread and never waits, except in `wait`. One player for each arm.

In each tick, in this order: `collect` what has arrived, `ask` when it is time, `act`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from pi05_websocket.chunks.hold import Fallback, fallback_action
from pi05_websocket.chunks.scheduler import (
    ChunkScheduler,
    MergeOutcome,
    Request,
    SchedulerConfig,
)
from pi05_websocket.clock import SYSTEM_CLOCK, Clock
from pi05_websocket.data import ActionChunk, ActionKind, ExchangeRecord, Float32Array, Observation
from pi05_websocket.errors import DeadlineExceeded, Pi05WebsocketError
from pi05_websocket.robot.trace import Trace
from pi05_websocket.wire.messages import read_actions, server_infer_ms

__all__ = [
    "ActionPlayer",
    "PendingExchange",
    "PendingReply",
    "PlayerConfig",
    "RequestPolicy",
    "Step",
]

logger = logging.getLogger(__name__)

PROGRESS_EVERY_S = 2.0
"""A person who waits longer than this is told what for."""

RETRY_FIRST_S = 0.1
RETRY_MAX_S = 1.0
"""Waits between requests that keep failing; they double from the first to the last."""


class PendingReply(Protocol):
    """What a finished exchange holds."""

    @property
    def value(self) -> Any:
        """The decoded message, untrusted."""

    @property
    def nbytes(self) -> int:
        """Its size on the wire."""

    @property
    def received_at(self) -> float:
        """When it came, in monotonic seconds."""


class PendingExchange(Protocol):
    """A request under way, as `RemotePolicy.submit` returns it."""

    @property
    def limit(self) -> float:
        """Seconds after which the reply counts as late."""

    @property
    def nbytes(self) -> int:
        """The request's size on the wire."""

    @property
    def sent_at(self) -> float:
        """When it was handed over, in monotonic seconds."""

    def done(self) -> bool:
        """Say whether `result` returns or raises at once."""

    def age(self) -> float:
        """Return the seconds since the request was handed over."""

    def result(self, timeout: float | None = None) -> PendingReply:
        """Return the reply or raise why there is none."""


class RequestPolicy(Protocol):
    """A policy that can be asked without waiting."""

    def submit(self, observation: Observation, /) -> PendingExchange:
        """Send an observation and return at once."""

    def unavailable(self) -> Pi05WebsocketError | None:
        """Return why no request can be sent now, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayerConfig:
    """What a player does with chunks, and without them."""

    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    """When to ask and when to change over."""

    fallback: Fallback = "hold"
    """What `act` returns when there is no valid action."""

    action_kind: ActionKind = "absolute"
    """What an action's numbers mean; decides what holding is."""

    action_dim: int | None = None
    """Width every action must have; None: the first chunk's."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to command at one tick."""

    values: Float32Array
    """`(action_dim,)`, policy order and units."""

    source: str
    """"chunk", "hold" or "zero"."""

    seq: int
    """Request of the chunk, -1 for a fallback."""

    row: int
    """Row of the chunk, -1 for a fallback."""


@dataclass(slots=True)
class _Pending:
    request: Request
    exchange: PendingExchange
    encode_ms: float
    late: bool = False
    """Whether its being late has been reported."""


class ActionPlayer:
    """Keeps the chunk scheduler fed and has an action, or the fallback, for every tick."""

    def __init__(
        self,
        policy: RequestPolicy,
        config: PlayerConfig,
        *,
        trace: Trace | None = None,
        clock: Clock = SYSTEM_CLOCK,
        name: str = "",
    ) -> None:
        self.config = config
        self.scheduler = ChunkScheduler(config.scheduler)
        self.last_exchange: ExchangeRecord | None = None
        self.outages = 0
        """How often the player had to report that no valid chunk came."""
        self.started = False
        """Whether any chunk was ever accepted."""
        self._policy = policy
        self._clock = clock
        self._trace = Trace(None) if trace is None else trace
        self._name = f"{name}: " if name else ""
        self._action_dim = config.action_dim
        self._pending: _Pending | None = None
        self._last_values: Float32Array | None = None
        self._cause = "no chunk has been asked for yet"
        self._outage_since: float | None = None
        self._held_in_outage = 0
        self._failures = 0
        self._retry_at = 0.0
        self._waiting_since = self._told_at = clock.now()

    def __repr__(self) -> str:
        return f"<ActionPlayer {self.scheduler!r} outages={self.outages}>"

    @property
    def cause(self) -> str:
        """Why there is no valid action, in words, while there is none."""
        return self._cause

    def start_episode(self) -> None:
        """Forget every chunk, request and commanded target of the episode before."""
        episode = self.scheduler.start_episode()
        self._pending = None
        self._last_values = None
        self._cause = "the first chunk of the episode is under way"
        self._waiting_since = self._told_at = self._clock.now()
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

    def collect(self, tick: int) -> None:
        """Take what has arrived since the last tick."""
        pending = self._pending
        if pending is None:
            return
        if pending.exchange.done():
            self._pending = None
            self._take(pending, tick)
        elif not pending.late and pending.exchange.age() > pending.exchange.limit:
            pending.late = True
            error = DeadlineExceeded(
                "request", pending.exchange.limit, "Raise `timeout` if the model is that slow."
            )
            self._report_outage(error)

    def ask(self, tick: int, observe: Callable[[], Observation]) -> bool:
        """Send an observation if it is time to; say whether one was sent.

        Raises:
            ObservationError: The observation does not fit the key map. Not retried: settings are wrong.
        """
        now = self._clock.now()
        if self._pending is not None or now < self._retry_at:
            return False
        if not self.scheduler.request_due(tick):
            return False
        error = self._policy.unavailable()
        if error is not None:
            self._unavailable(error)
            return False
        observation = observe()
        request = self.scheduler.request(tick)
        before = time.perf_counter()
        exchange = self._policy.submit(observation)
        self._pending = _Pending(request, exchange, 1000 * (time.perf_counter() - before))
        return True

    def wait(self, timeout: float) -> None:
        """Wait for the request under way, with a progress line every 2 s. `collect` it afterwards."""
        # Real time: the reply comes over a real network, whatever clock the ticks follow.
        deadline = time.monotonic() + timeout
        while self._pending is not None and not self._pending.exchange.done():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                self._pending.exchange.result(min(left, PROGRESS_EVERY_S))
            except Pi05WebsocketError:
                self._show_progress()

    def act(self, tick: int, measured: Float32Array | None) -> Step:
        """Return what to command at `tick`.

        Args:
            measured: The measured joint positions in action order and units, `(action_dim,)`; what is
                held before the first chunk. None when the state is no such thing.

        Raises:
            NoValidAction: With the fallback "raise", or when there is nothing to hold.
        """
        action = self.scheduler.action_at(tick)
        if action is not None:
            step = Step(action.values, "chunk", action.seq, action.row)
        else:
            step = self._fall_back(measured)
        self._last_values = step.values
        self._trace.write(
            "tick",
            tick=tick,
            episode=self.scheduler.episode,
            source=step.source,
            seq=step.seq,
            row=step.row,
            values=[round(float(v), 4) for v in step.values],
        )
        return step

    def _fall_back(self, measured: Float32Array | None) -> Step:
        self._show_progress()
        if self._outage_since is not None:
            self._held_in_outage += 1
        values = fallback_action(
            self.config.fallback,
            action_kind=self.config.action_kind,
            last_commanded=self._last_values,
            measured=measured,
            action_dim=self._action_dim,
            cause=self._cause,
        )
        return Step(values, "zero" if self.config.fallback == "zero" else "hold", -1, -1)

    def _take(self, pending: _Pending, tick: int) -> None:
        request, exchange = pending.request, pending.exchange
        try:
            reply = exchange.result(0)
            actions = read_actions(reply.value, action_dim=self._action_dim)
        except Pi05WebsocketError as exc:
            self.scheduler.request_ended(request.seq)
            self._fail(exc)
            return
        chunk = ActionChunk(
            actions=actions, first_tick=request.tick, episode=request.episode, seq=request.seq
        )
        outcome = self.scheduler.merge(chunk, request, tick)
        self._record(pending, reply, tick, outcome)
        if outcome is MergeOutcome.ACCEPTED:
            self._accept(actions)
        elif outcome in (MergeOutcome.TOO_OLD, MergeOutcome.TOO_LATE):
            seconds = self._clock.now() - exchange.sent_at
            self._cause = (
                f"the reply came after {seconds:.1f} s: {outcome.value}; a fresh observation is sent. If that "
                "repeats, the policy is too slow for its chunk: raise `timeout`, or use a longer action horizon"
            )
            logger.warning("%s%s", self._name, self._cause)

    def _accept(self, actions: Float32Array) -> None:
        self._action_dim = actions.shape[1]
        self._failures = 0
        self._retry_at = 0.0
        self._cause = "the running chunk ended before the next one arrived"
        if self._outage_since is not None:
            seconds = self._clock.now() - self._outage_since
            logger.info(
                "%sactions again after %.1f s, %d held ticks",
                self._name,
                seconds,
                self._held_in_outage,
            )
            self._trace.write("recovered", seconds=round(seconds, 3), held=self._held_in_outage)
            self._outage_since = None
        elif not self.started:
            logger.info(
                "%sfirst chunk: %d rows of %d values, after %.1f s",
                self._name,
                *actions.shape,
                self._clock.now() - self._waiting_since,
            )
        self.started = True
        self._waiting_since = self._clock.now()

    def _record(
        self, pending: _Pending, reply: PendingReply, tick: int, outcome: MergeOutcome
    ) -> None:
        exchange = pending.exchange
        record = ExchangeRecord(
            seq=pending.request.seq,
            tick=pending.request.tick,
            round_trip_ms=1000 * (reply.received_at - exchange.sent_at),
            encode_ms=pending.encode_ms,
            bytes_out=exchange.nbytes,
            bytes_in=reply.nbytes,
            server_ms=server_infer_ms(reply.value),
            delay_ticks=tick - pending.request.tick,
        )
        self.last_exchange = record
        logger.debug(
            "%sexchange id=%d tick=%d round_trip_ms=%.1f encode_ms=%.1f infer_ms=%s delay_ticks=%s "
            "bytes_out=%d bytes_in=%d outcome=%s",
            self._name,
            record.seq,
            record.tick,
            record.round_trip_ms,
            record.encode_ms,
            record.server_ms,
            record.delay_ticks,
            record.bytes_out,
            record.bytes_in,
            outcome.name,
        )
        self._trace.write(
            "exchange",
            seq=record.seq,
            tick=record.tick,
            episode=pending.request.episode,
            round_trip_ms=round(record.round_trip_ms, 3),
            encode_ms=round(record.encode_ms, 3),
            server_ms=record.server_ms,
            delay_ticks=record.delay_ticks,
            bytes_out=record.bytes_out,
            bytes_in=record.bytes_in,
            outcome=outcome.name,
        )

    def _fail(self, error: Pi05WebsocketError) -> None:
        self._retry_at = self._clock.now() + min(RETRY_MAX_S, RETRY_FIRST_S * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        self._report_outage(error)

    def _unavailable(self, error: Pi05WebsocketError) -> None:
        """React to a link that is down: stop before the first motion if it can never come up."""
        if not error.retryable and not self.started:
            raise error
        self._cause = str(error)
        if self.started or self.config.fallback == "raise":
            self._report_outage(error)

    def _report_outage(self, error: Pi05WebsocketError) -> None:
        """Say once for each outage what happened and what is done about it."""
        self._cause = str(error)
        if self._outage_since is not None:
            return
        self._outage_since = self._clock.now()
        self._held_in_outage = 0
        self.outages += 1
        logger.warning(
            "%sno valid actions: %s. %s until it recovers.",
            self._name,
            error,
            {
                "hold": "Holding the last commanded target once the chunk has run out",
                "zero": "Commanding zeros (fallback='zero') once the chunk has run out",
                "raise": "Stopping (fallback='raise') once the chunk has run out",
            }[self.config.fallback],
        )
        detail = getattr(error, "detail", "")
        if detail:
            logger.debug("%sserver's text:\n%s", self._name, detail)
        self._trace.write("outage", cause=str(error), error=type(error).__name__)

    def _show_progress(self) -> None:
        now = self._clock.now()
        if now - self._told_at < PROGRESS_EVERY_S:
            return
        self._told_at = now
        logger.info(
            "%sstill without actions after %.0f s: %s",
            self._name,
            now - self._waiting_since,
            self._cause,
        )
