# SPDX-License-Identifier: Apache-2.0
"""The policy thread: takes what waits, together where that is quicker, infers, encodes.

In: requests, from the event loop. Out: outcomes, handed to `deliver` in the order of each connection's
requests. The policy is touched by the policy thread alone. While it has nothing to ask it reads requests too;
otherwise threads beside it do, which alone unpack images, for one connection after the other
(`decoding_order`). The event loop waits for none of them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from weakref import WeakKeyDictionary

from pi05_websocket.policy import Policy, PolicyRequest, batch_key, session_seed
from pi05_websocket.server.backend import Deliver
from pi05_websocket.server.batching import BatchSettings, batches_ahead, plan_batch
from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.decoding import read, unpack
from pi05_websocket.server.decoding_order import DecodingOrder
from pi05_websocket.server.failures import failed
from pi05_websocket.server.inference import Answer, infer_all, takes_batches
from pi05_websocket.server.model_time import ModelTimes
from pi05_websocket.server.requests import Answered, Asker, Done, Outcome, Refused, Request
from pi05_websocket.server.sessions import Sessions, Waiting
from pi05_websocket.wire.realtime import (
    NO_PREFIX,
    REALTIME_KEY,
    RealtimeReply,
    with_realtime_reply,
)
from pi05_websocket.wire.refusals import Refusal

__all__ = ["PolicyWorker"]

logger = logging.getLogger(__name__)

_DECODERS = 2
"""Threads beside the policy's: one is free while the other unpacks somebody's large images."""

_NO_GROUP: Hashable = object()
"""Of a request whose group the policy has not been asked for."""

_Waiting = Waiting[Request, Outcome]


class PolicyWorker:
    """Owns the policy's thread and the requests that wait for it. All methods are thread-safe."""

    def __init__(
        self,
        policy: Policy,
        config: ServerConfig,
        deliver: Deliver,
        stopped: Callable[[], None],
        *,
        seed: int = 0,
    ) -> None:
        """Create the worker.

        Args:
            policy: What answers.
            config: How it is asked.
            deliver: Told outcomes, on any thread; hands them to the event loop without waiting.
            stopped: Told once that nothing more will come, on the policy thread.
            seed: The server's, for what the policy draws at random.
        """
        self._policy = policy
        self._config = config
        self._deliver = deliver
        self._stopped = stopped
        self._seed = seed
        self._settings = BatchSettings(
            max_batch=config.max_batch if takes_batches(policy) else 1,
            window_s=config.batch_window_ms / 1000,
        )
        self._groups_itself = callable(getattr(policy, "batch_key", None))
        """Whether the policy is to be asked which requests may share a batch; else they show it."""
        self._lock = threading.Lock()
        self._to_do = threading.Condition(self._lock)
        """Rung for the policy thread."""
        self._to_decode = threading.Condition(self._lock)
        """Rung for the threads beside it."""
        # Below: guarded by the lock.
        self._sessions: Sessions[Request, Outcome] = Sessions()
        self._undecoded: DecodingOrder[_Waiting] = DecodingOrder()
        self._episodes: WeakKeyDictionary[Asker, str] = WeakKeyDictionary()
        """Which episode a connection is in, in dialects that say so."""
        self._reading = _DECODERS
        """Threads beside that are awake and unpack nothing."""
        self._resting = 0
        """Threads beside that wait until they are rung for."""
        self._times = ModelTimes()
        self._inferred_at = time.perf_counter()
        """When the last inference ended."""
        self._idle = False
        """Whether the policy thread waits, and nobody has rung for it."""
        self._paused = False
        self._asked_at: float | None = None
        self._stopping = False
        # Daemons: an inference that never returns must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="pi05-policy", daemon=True)
        self._decoders = [
            threading.Thread(target=self._decode_beside, name=f"pi05-decode-{number}", daemon=True)
            for number in range(_DECODERS)
        ]

    def __repr__(self) -> str:
        state = "stopping" if self._stopping else "running" if self._thread.is_alive() else "idle"
        return f"<PolicyWorker {state} waiting={len(self._sessions)}>"

    @property
    def waiting(self) -> int:
        """How many requests wait for the policy."""
        return len(self._sessions)

    @property
    def unready(self) -> str | None:
        """Nothing: the policy is there."""
        return None

    @property
    def asked_at(self) -> float | None:
        """Since when the policy is at work on a batch, by `time.perf_counter()`; None: it is not."""
        return self._asked_at

    def start(self) -> None:
        """Start the threads."""
        self._thread.start()
        for decoder in self._decoders:
            decoder.start()

    def submit(self, request: Request) -> None:
        """Let a request wait for its turn."""
        waiting: _Waiting = Waiting(
            item=request,
            session=request.connection,
            arrived=request.arrived,
            priority=request.priority,
            group=_NO_GROUP,
            answer=request.refusal,
        )
        with self._lock:
            self._sessions.push(waiting)
            if request.refusal is not None:
                self._settle([waiting.session])
                return
            self._undecoded.to_read(waiting.session, waiting)
            if self._idle:
                self._ring()
            else:
                self._ring_decoder()

    def forget(self, connection: Hashable) -> None:
        """Drop what waits for a connection that is gone."""
        with self._lock:
            self._sessions.drop(connection)
            self._undecoded.drop(connection)

    def waits(self) -> list[float]:
        """Return how long each connection with something waiting has asked in vain, in seconds."""
        with self._lock:
            return self._sessions.waits(time.perf_counter())

    def refuse_overdue(self) -> None:
        """End the waiting of whoever has waited longer than the settings allow."""
        now, bound_s = time.perf_counter(), self._config.max_wait_s
        with self._lock:
            overdue = self._sessions.overdue(now, bound_s)
            for waiting in overdue:
                waiting.answer = self._overdue(waiting, now)
            self._settle([waiting.session for waiting in overdue])
            if self._paused:
                self._ring()  # nothing else wakes the policy thread to refuse who is too late by now

    def pause(self) -> None:
        """Begin no batch until `go_on`; the one under way ends as ever."""
        with self._lock:
            self._paused = True

    def go_on(self) -> None:
        """Begin batches again."""
        with self._lock:
            self._paused = False
            self._ring()

    def stop(self) -> None:
        """End the threads after the inference under way, whose outcome is still delivered."""
        with self._lock:
            self._stopping = True
            self._ring()
            self._to_decode.notify_all()

    # ---------------------------------------------------------------------------------------- decoding

    def _ring_decoder(self) -> None:
        """Have somebody decode, with the lock held, unless a thread reads: it looks for more by itself."""
        if self._resting and not self._reading:
            self._resting -= 1
            self._reading += 1
            self._to_decode.notify()

    def _decode_beside(self) -> None:
        while True:
            with self._lock:
                while not self._stopping and (waiting := self._take_undecoded()) is None:
                    self._reading -= 1
                    self._resting += 1
                    self._to_decode.wait()  # who rings counts
                if self._stopping:
                    return
                assert waiting is not None
                unpacks = waiting.item.packed is not None
                if unpacks:  # which may take long: another thread reads meanwhile
                    self._reading -= 1
                    if self._undecoded:
                        self._ring_decoder()
            self._decode(waiting)
            waiting = None  # while waiting, keep no received message alive
            if unpacks:
                with self._lock:
                    self._reading += 1

    def _take_undecoded(self, *, to_read: bool = False) -> _Waiting | None:
        """Return whose turn it is, with the lock held; who is answered already is passed over."""
        while (waiting := self._undecoded.take(to_read=to_read)) is not None:
            if waiting.answer is None:
                waiting.packed = False  # now it is not superseded until it is ready
                return waiting
            self._undecoded.done(waiting.session)
        return None

    def _decode(self, waiting: _Waiting) -> None:
        """Read a request, or unpack the images of one that has been read."""
        request = waiting.item
        answer = read(request) if request.packed is None else unpack(request)
        with self._lock:
            if not self._groups_itself:
                waiting.group = batch_key(self._policy, _to_group(request))
            waiting.read = True
            waiting.packed = request.packed is not None
            waiting.ready = not waiting.packed
            waiting.answer = waiting.answer or answer
            if request.realtime is not None:
                waiting.reads_refusals = True
                waiting.robot = request.realtime.robot
                waiting.due, waiting.deadline = request.due, request.deadline
            if waiting.packed:
                self._undecoded.to_unpack(waiting.session, waiting)
            self._undecoded.done(waiting.session)
            if self._undecoded:
                self._ring_decoder()
            self._sessions.supersede(waiting.session)
            self._settle([waiting.session])
            # What could be taken before it has waited for this.
            if waiting.ready or self._sessions.line(waiting.session)[:1] != [waiting]:
                self._ring()

    # ------------------------------------------------------------------------------------ policy thread

    def _ring(self) -> None:
        """Have the policy thread look, with the lock held."""
        self._idle = False
        self._to_do.notify()

    def _run(self) -> None:
        while True:
            batch = self._next_batch()
            if batch is None:
                break
            self._deliver(self._outcomes(batch))
            with self._lock:
                for waiting in batch:
                    self._sessions.done(waiting.session)
                self._settle([waiting.session for waiting in batch])
            del batch  # while waiting, keep no received message alive
        self._stopped()

    def _next_batch(self) -> list[_Waiting] | None:
        """Wait for requests and return whom to ask the policy for; None at the end."""
        while True:
            first, batch = self._look()
            if first is None:
                return batch
            first()
            del first

    def _look(self) -> tuple[Callable[[], None] | None, list[_Waiting] | None]:
        """Wait for something to do: before another look, or for a batch; neither at the end."""
        with self._lock:
            while not self._stopping:
                heads = [head for head in self._sessions.heads() if not self._may_be_replaced(head)]
                new = [waiting for waiting in heads if waiting.group is _NO_GROUP]
                if new:
                    return partial(self._group, new), None
                now = time.perf_counter()
                plan = plan_batch(
                    heads,
                    now,
                    self._times.expect,
                    self._settings,
                    # A pause is no sign that what was measured is wrong.
                    idle_s=0.0 if self._paused else now - self._inferred_at,
                )
                if plan.late:
                    self._refuse(plan.late, now)
                if plan.batch and not self._paused:
                    for waiting in plan.batch:
                        self._sessions.take(waiting)
                    if self._undecoded:
                        self._ring_decoder()  # it was this thread that was rung for
                    return None, plan.batch
                unread = self._take_undecoded(to_read=True)
                if unread is not None:
                    if self._undecoded:
                        self._ring_decoder()
                    return partial(self._decode, unread), None
                if not plan.late:
                    self._idle = True
                    self._to_do.wait(_seconds_until(plan.wait_until, now))
                    self._idle = False
        return None, None

    def _may_be_replaced(self, head: _Waiting) -> bool:
        """Say whether a newer request has come and will have been read in a moment, with the lock held.

        Of robots that read refusals. After a cut of the link the old request and the fresh one come together:
        an inference for the old one would only have the arm hold longer.
        """
        if not head.reads_refusals or self._undecoded.unpacking(head.session):
            return False
        behind = self._sessions.line(head.session)[1:]
        return any(each.answer is None and not each.read for each in behind)

    def _group(self, new: list[_Waiting]) -> None:
        """Ask the policy with whom requests may share a batch."""
        found: list[tuple[_Waiting, Hashable, Outcome | None]] = []
        for waiting in new:
            try:
                group = batch_key(self._policy, _to_group(waiting.item))
                hash(group)
                found.append((waiting, group, None))
            except BaseException as exc:  # whatever it is belongs to this request alone
                found.append((waiting, None, failed(waiting.item, exc)))
        with self._lock:
            for waiting, group, answer in found:
                waiting.group = group
                waiting.answer = waiting.answer or answer
            self._settle([waiting.session for waiting, _, answer in found if answer])

    def _outcomes(self, batch: list[_Waiting]) -> list[tuple[Request, Outcome]]:
        started = self._asked_at = time.perf_counter()
        requests = [waiting.item for waiting in batch]
        for request in requests:
            self._note_episode(request)
        inferred = infer_all(
            self._policy,
            [
                _for_policy(request, 1000 * (started - request.arrived), self._seed)
                for request in requests
            ],
        )
        self._inferred_at = time.perf_counter()
        infer_s = self._inferred_at - started
        self._asked_at = None
        with self._lock:
            if inferred.measured:
                self._times.add(batch[0].group, inferred.measured, infer_s)
        return [
            (request, self._outcome(request, answer, started, infer_s, len(batch)))
            for request, answer in zip(requests, inferred.answers, strict=True)
        ]

    def _note_episode(self, request: Request) -> None:
        """Forget what the policy remembers of a connection whose next episode begins."""
        if request.episode is None:
            return
        if self._episodes.get(request.connection, request.episode) != request.episode:
            request.connection.state.clear()
        self._episodes[request.connection] = request.episode

    def _outcome(
        self, request: Request, answer: Answer, started: float, infer_s: float, batch: int
    ) -> Outcome:
        if isinstance(answer, BaseException):
            return failed(request, answer)
        queue_ms, infer_ms = 1000 * (started - request.arrived), 1000 * infer_s
        realtime = request.realtime
        if realtime is not None and REALTIME_KEY not in answer:
            answer = with_realtime_reply(
                answer,
                RealtimeReply(
                    seq=realtime.seq,
                    delay=0,
                    prefix=NO_PREFIX,
                    queue_ms=queue_ms,
                    infer_ms=infer_ms,
                ),
            )
        try:
            message = request.protocol.reply(answer, infer_ms=infer_ms, tag=request.tag)
        except BaseException as exc:  # what a policy returned belongs to this request alone
            return failed(request, exc)
        return Answered(
            message=message,
            queue_ms=queue_ms,
            infer_ms=infer_ms,
            batch=batch,
            actions=answer.get("actions"),
        )

    # ---------------------------------------------------------------- answers without the policy, lock held

    def _settle(self, sessions: Sequence[Hashable]) -> None:
        """Hand over what is certain. With the lock held, so that the order stays: it only queues a callback."""
        settled = self._sessions.settle(sessions)
        for waiting in settled:
            if isinstance(waiting.answer, Done) and waiting.answer.begins_episode:
                waiting.item.connection.state.clear()
        if settled:
            self._deliver([(waiting.item, _as_outcome(waiting.answer)) for waiting in settled])

    def _refuse(self, late: Sequence[_Waiting], now: float) -> None:
        for waiting in late:
            waiting.answer = self._too_late(waiting, now)
        self._settle([waiting.session for waiting in late])

    def _too_late(self, waiting: _Waiting, now: float) -> Refusal:
        assert waiting.deadline is not None
        had_s = waiting.deadline - waiting.arrived
        alone_s = self._times.expect(waiting.group, 1)
        if had_s < alone_s:
            return Refusal(
                kind="late",
                text=f"its answer had to leave {had_s:.3f} s after it came, "
                f"and an inference takes {alone_s:.3f} s",
            )
        return self._busy(waiting, f"its turn did not come within {now - waiting.arrived:.3f} s")

    def _overdue(self, waiting: _Waiting, now: float) -> Outcome | Refusal:
        waited_s = now - waiting.arrived
        if waiting.reads_refusals:
            return self._busy(waiting, f"its turn did not come within {waited_s:.1f} s")
        error = TimeoutError(
            f"the request waited {waited_s:.1f} s for the policy, and the server allows "
            f"{self._config.max_wait_s:g} s (--max-wait-s). Its policy is busy or stuck: ask less often, or "
            "have fewer robots share it."
        )
        return failed(waiting.item, error)

    def _busy(self, waiting: _Waiting, why: str) -> Refusal:
        why = "an operator has paused the server" if self._paused else why
        ahead = len(self._sessions)
        seconds = batches_ahead(ahead, self._times.expect, waiting.group, self._settings)
        return Refusal(
            kind="busy",
            text=f"{why}; {ahead} requests wait for the policy",
            retry_after_s=seconds,
        )


def _for_policy(request: Request, queue_ms: float, seed: int) -> PolicyRequest:
    connection = request.connection
    return PolicyRequest(
        observation=request.observation,
        realtime=request.realtime,
        queue_ms=queue_ms,
        seed=session_seed(seed, connection.number, request.number),
        state=connection.state,
    )


def _to_group(request: Request) -> PolicyRequest:
    return PolicyRequest(
        observation=request.observation, realtime=request.realtime, state=request.connection.state
    )


def _seconds_until(moment: float | None, now: float) -> float | None:
    return None if moment is None else max(moment - now, 0.0)


def _as_outcome(answer: Outcome | Refusal | None) -> Outcome:
    assert answer is not None
    return Refused(refusal=answer) if isinstance(answer, Refusal) else answer
