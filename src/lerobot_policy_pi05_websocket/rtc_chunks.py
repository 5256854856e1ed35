# SPDX-License-Identifier: Apache-2.0
"""Chunks for LeRobot's `rtc` engine: waited for on its thread, shaped so that it cuts them without a jump.

In: one robot observation, the engine's leftover. Out: a chunk, or a retryable error. A server that conditions
is sent the true leftover under `_rt`; another one sees stock bytes.
Runs on the engine's thread; `reset` may come from another. What the engine does is told in `rtc_engine`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lerobot_policy_pi05_websocket.observations import RobotObservation
from lerobot_policy_pi05_websocket.rtc_engine import (
    bounded,
    from_observation,
    rows_in_front,
    true_leftover,
)
from lerobot_policy_pi05_websocket.rtc_requests import RtcRequests
from lerobot_policy_pi05_websocket.stepping import HOW_TO_RESUME, POLL_S, observer
from pi05_websocket.client import ConnectionState, PolicyPool, RemotePolicy
from pi05_websocket.clock import Clock
from pi05_websocket.data import Float32Array
from pi05_websocket.errors import ConnectionLost, DeadlineExceeded, Pi05WebsocketError
from pi05_websocket.keymap import KeyMap
from pi05_websocket.robot.interface import Preflight
from pi05_websocket.robot.limits import Limits
from pi05_websocket.robot.outage import PROGRESS_AFTER_S, next_progress
from pi05_websocket.robot.player import PlayerConfig
from pi05_websocket.robot.trace import Trace
from pi05_websocket.units import UnitMap
from pi05_websocket.wire.messages import read_actions
from pi05_websocket.wire.realtime import (
    RealtimeReply,
    RealtimeRequest,
    read_realtime_reply,
    realtime_support,
    with_realtime,
)

__all__ = ["RtcChunks"]

logger = logging.getLogger(__name__)

BUSY_POLL_S = 0.002
"""The same as `POLL_S` for the first second: the usual reply comes within it."""


class RtcChunks:
    """Remembers the last chunk and the episode, for one robot."""

    def __init__(
        self,
        remote: RemotePolicy | PolicyPool,
        key_map: KeyMap,
        *,
        config: PlayerConfig,
        clock: Clock,
        trace: Trace | None = None,
        units: UnitMap | None = None,
        preflight: Preflight | None = None,
    ) -> None:
        self._preflight = preflight
        control_hz = config.control_hz
        self._remote = remote
        self._key_map = key_map
        self._control_hz = control_hz
        self._action_dim = config.action_dim
        self._fallback = config.fallback
        self._hold = config.hold
        self._resume = config.resume if config.action_kind == "absolute" else None
        self._limits = Limits(config.limits, config.action_kind, control_hz)
        self._latched = False
        """Whether the link was away for longer than it may be: a person has to say that the arm may move."""
        self._clock = clock
        self._trace = Trace(None) if trace is None else trace
        self._use_rtc = config.use_rtc
        self._requests = RtcRequests(
            control_hz=control_hz, deadline_ms=1000 * remote.config.request_timeout
        )
        self._lock = threading.Lock()
        self._episode = 0
        self._units = units
        self._last: Float32Array | None = None
        self._last_rows = 0
        """Rows of the last chunk that are the policy's, without those put in front."""
        self._asked = 0
        self._maybe_stale = False
        """Whether the next observation may still be of the episode before."""
        self._told: set[str] = set()

    def reset(self) -> None:
        """Begin a new episode: a chunk under way is dropped when it comes, and a stopped arm stays stopped."""
        with self._lock:
            self._episode += 1
            self._last = None
            self._maybe_stale = self._asked > 0

    def resume(self) -> bool:
        """Let the arm move again after a pause that was too long; say whether it had stopped."""
        with self._lock:
            latched, self._latched = self._latched, False
        return latched

    def chunk(self, observation: RobotObservation, prefix: Float32Array | None) -> Float32Array:
        """Return `(rows, action_dim)` for the engine to cut.

        Args:
            prefix: The engine's `prev_chunk_left_over`, zero-padded; None before the first chunk.

        Raises:
            ConnectionLost: An episode began meanwhile, or the link was down: ask with a fresh observation.
            DeadlineExceeded: The reply came after `timeout`: the same.
            Pi05WebsocketError: No chunk, and why.
        """
        with self._lock:
            episode, last, last_rows = self._episode, self._last, self._last_rows
            stale, self._maybe_stale = self._maybe_stale, False
            self._asked += 1
        if stale:
            # The engine keeps its observation over a reset and asks with it at once, before it has looked anew.
            raise ConnectionLost("a new episode began: waiting for its first observation")
        began = self._clock.now()
        self._wait_for_link(episode)
        if self._preflight is not None:
            self._preflight.asked(self._remote.metadata)
        left = self._true_leftover(prefix, last)
        leftover = len(left)
        request = self._realtime(left, last, last_rows)
        sent = observer(self._key_map, observation)()
        if self._preflight is not None:
            self._preflight.observed(sent)
        sent = sent if request is None else with_realtime(sent, request)
        exchange = self._remote.submit(sent)
        self._trace.show(
            "request",
            seq=self._asked,
            episode=episode,
            observation=sent,
            quality=exchange.quality,
            metadata=self._remote.metadata,
        )
        self._wait_while(lambda: not exchange.done(), episode, "the policy computes")
        try:
            came = exchange.result(0)
        except Pi05WebsocketError as exc:
            if self._preflight is not None:
                self._preflight.failed(exc)
            raise
        answer = came.value
        self._trace.show("reply", seq=self._asked, value=answer, nbytes=came.nbytes)
        actions = read_actions(answer, action_dim=self._action_dim)
        if self._preflight is not None:
            self._preflight.answered(actions, self._pose(observation, actions))
        reply = _reply_to(request, answer)
        latency = self._clock.now() - began
        if latency > self._remote.config.request_timeout:
            self._requests.expect_cold()
            raise DeadlineExceeded(
                "request",
                self._remote.config.request_timeout,
                "Its observation is too old; a fresh one is sent. Raise `timeout` for a slow model.",
            )
        self._requests.answered(latency, reply)
        if request is not None and len(request.leftover) > leftover and len(actions) > 1:
            actions = actions[1:]  # of the observation's own tick: the engine counts from the next
        actions = bounded(
            actions,
            pose=self._pose(observation, actions) if not leftover else None,
            resume=self._resume,
            limits=self._limits,
        )
        front = rows_in_front(latency_s=latency, control_hz=self._control_hz, leftover=leftover)
        self._tell(front, latency, leftover, running=last is not None)
        self._tell_prefix(request, reply)
        chunk = np.concatenate([np.repeat(actions[:1], front, axis=0), actions])
        with self._lock:
            if self._episode != episode:
                raise _superseded()
            self._last = chunk
            self._last_rows = len(actions)
        self._trace.write(
            "exchange",
            seq=self._asked,
            episode=episode,
            round_trip_ms=round(1000 * latency, 3),
            rows=len(actions),
            rows_in_front=front,
            leftover=leftover,
            pinned_rows=0 if reply is None or reply.prefix == "none" else reply.delay,
        )
        return chunk if self._units is None else self._units.to_robot(chunk)

    def _true_leftover(
        self, prefix: Float32Array | None, last: Float32Array | None
    ) -> Float32Array:
        """Return what is true of the engine's leftover, in the policy's units, bit for bit as it came."""
        if self._units is None or last is None:
            return true_leftover(prefix, last)
        left = len(true_leftover(prefix, self._units.to_robot(last)))
        return last[len(last) - left :]

    def _pose(self, observation: RobotObservation, actions: Float32Array) -> Float32Array | None:
        """Return where the arm stands, where that can be compared with an action."""
        state = observation.state
        return state if len(state) == actions.shape[1] and np.isfinite(state).all() else None

    def _realtime(
        self, left: Float32Array, last: Float32Array | None, last_rows: int
    ) -> RealtimeRequest | None:
        """Return what to send with the observation; None where the server would not know it."""
        support = realtime_support(self._remote.metadata)
        if support is None or not (support.refusals or self._conditions):
            return None
        rows = left if last is None else from_observation(left, last)
        since_last = max(0, last_rows - len(left))
        said = self._requests.request(self._asked, rows, since_last=since_last)
        return said if self._conditions else replace(said, leftover=rows[:0])

    @property
    def _conditions(self) -> bool:
        """Whether the server is sent the rows that its chunk is to follow."""
        support = realtime_support(self._remote.metadata)
        return self._use_rtc and support is not None and support.conditions

    def _wait_for_link(self, episode: int) -> None:
        """Wait while the link is down; then fail the call, so that the engine takes a fresh observation.

        Failing at once would end the run: the engine gives up after ten errors in a row, five seconds.
        """
        if self._latched:
            raise _stopped(self._auto_resume_s)
        error = self._remote.unavailable()
        if error is None:
            return
        self._requests.expect_cold()
        if not error.retryable or self._fallback == "raise":
            raise error
        began = self._clock.now()
        self._wait_while(self._link_is_down, episode, str(error))
        waited = self._clock.now() - began
        if self._hold.auto_resume_ticks is not None and waited > self._auto_resume_s:
            self._latched = self._last is not None  # else nothing has moved yet
            if self._latched:
                raise _stopped(self._auto_resume_s)
        if waited > POLL_S:
            raise ConnectionLost("the server is back; a fresh observation is sent in a moment")

    @property
    def _auto_resume_s(self) -> float:
        return (self._hold.auto_resume_ticks or 0) / self._control_hz

    def _link_is_down(self) -> bool:
        error = self._remote.unavailable()
        if error is not None and not error.retryable:
            raise error
        return error is not None

    def _wait_while(self, condition: Callable[[], bool], episode: int, what: str) -> None:
        began = self._clock.now()
        tell_after = PROGRESS_AFTER_S
        while condition():
            if self._episode != episode:
                raise _superseded()
            if self._remote.connection.state is ConnectionState.CLOSED:
                raise ConnectionLost("the policy was closed while the rtc engine waited", code=1000)
            waited = self._clock.now() - began
            if waited >= tell_after:
                tell_after = next_progress(waited)
                logger.info("holding, %.0f s without a chunk: %s", waited, what)
            self._clock.sleep(BUSY_POLL_S if waited < 1.0 else POLL_S)

    def _tell(self, front: int, latency: float, leftover: int, *, running: bool) -> None:
        if front and running:
            self._tell_once(
                "dry",
                f"the queue ran dry: the chunk came after {latency:.2f} s, {leftover} rows were left. Use "
                "--inference.type=sync, which asks early enough, or a longer action horizon.",
            )

    def _tell_prefix(self, request: RealtimeRequest | None, reply: RealtimeReply | None) -> None:
        """Say once how chunks are joined, and once if the server stops doing so."""
        if request is None or not self._conditions:
            why = "this server does not take a prefix" if self._use_rtc else "the seam is set"
            self._tell_once(
                "prefix",
                f"rtc engine: {why}, so chunks are joined by replacing; "
                "--inference.type=sync is the documented way",
            )
        elif len(request.leftover) and reply is not None and reply.prefix != "none":
            text = (
                f"rtc engine: the server lets each chunk continue the running one ({reply.prefix})"
            )
            self._tell_once("prefix", text, level=logging.INFO)
        elif len(request.leftover) and request.delay:
            self._tell_once(
                "refused",
                "rtc engine: the server announces RTC but answered without it: that chunk is joined by "
                "replacing",
            )

    def _tell_once(self, topic: str, text: str, *, level: int = logging.WARNING) -> None:
        if topic not in self._told:
            self._told.add(topic)
            logger.log(level, "%s", text)


def _reply_to(request: RealtimeRequest | None, answer: object) -> RealtimeReply | None:
    """Return what the server says it did for this request."""
    reply = None if request is None else read_realtime_reply(answer)
    return reply if request is not None and reply and reply.seq == request.seq else None


def _stopped(auto_resume_s: float) -> ConnectionLost:
    return ConnectionLost(
        f"the link was away for longer than auto_resume={auto_resume_s:g} s: the arm holds. {HOW_TO_RESUME}"
    )


def _superseded() -> ConnectionLost:
    return ConnectionLost("a new episode began while this chunk was under way; it is dropped")
