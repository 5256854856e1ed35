# SPDX-License-Identifier: Apache-2.0
"""Other policy servers in the place of a policy: requests go to them and come back, on the event loop.

In: requests of robots. Out: outcomes, each connection's in order. Nothing here waits. A message goes on as it
came where the upstream reads it, and so does the reply; what is decoded is decoded on threads beside.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from pi05_websocket.client.config import ConnectionConfig
from pi05_websocket.errors import Pi05WebsocketError, ServerError
from pi05_websocket.gateway import outcomes
from pi05_websocket.gateway.agreement import identity_of
from pi05_websocket.gateway.config import GatewayConfig
from pi05_websocket.gateway.link import Link
from pi05_websocket.gateway.pool import Pool
from pi05_websocket.gateway.reading import Reader
from pi05_websocket.gateway.ticket import Ticket
from pi05_websocket.server.backend import Deliver
from pi05_websocket.server.batching import BatchSettings, plan_batch
from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.one_line import in_one_line
from pi05_websocket.server.records import UpstreamStanding
from pi05_websocket.server.requests import Answered, Outcome, Refused, Request
from pi05_websocket.server.sessions import Sessions, Waiting
from pi05_websocket.wire import codec
from pi05_websocket.wire.refusals import Refusal

__all__ = ["GatewayBackend"]

logger = logging.getLogger(__name__)

_LOOK_AGAIN_S = 0.25
"""How often is looked whether a request that takes too long can be moved: another upstream may have come."""

_GOODBYE_S = 1.0
"""How long stopping waits for the upstreams' goodbyes before it cuts their connections."""

_Waiting = Waiting[Ticket, Outcome]


@dataclass(slots=True, eq=False)
class _Errand:
    """What is under way on a link: a robot's request; or a copy of one, which nobody waits for."""

    waiting: _Waiting | None
    timer: asyncio.TimerHandle
    told: bool = False
    """Whether its upstream has been noted as one that does not answer."""


class GatewayBackend:
    """Answers requests by asking upstreams. Called on the event loop."""

    def __init__(
        self,
        upstreams: Sequence[ConnectionConfig],
        settings: GatewayConfig,
        config: ServerConfig,
        deliver: Deliver,
        stopped: Callable[[], None],
    ) -> None:
        """Prepare it.

        Args:
            upstreams: Where they are and how to reach them.
            settings: How they are asked.
            config: How robots are served.
            deliver: Told outcomes.
            stopped: Told once that nothing more will come.
        """
        self._settings = settings
        self._config = config
        self._deliver = deliver
        self._stopped = stopped
        self._loop = asyncio.get_running_loop()
        self._pool = Pool(upstreams, settings, self)
        self._reader = Reader(
            config.limits, self._was_read, skimmed=self._was_skimmed, wanted=self._is_wanted
        )
        self._sessions: Sessions[Ticket, Outcome] = Sessions()
        self._unread: dict[Ticket, _Waiting] = {}
        self._errands: dict[Link, _Errand] = {}
        self._told: dict[Hashable, str] = {}
        """Connection to the identity of the policy it was told of."""
        self._stopping = False
        self._over = False
        self._closing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<GatewayBackend waiting={self.waiting} under_way={len(self._errands)}>"

    @property
    def waiting(self) -> int:
        """How many requests wait for an upstream."""
        return len(self._sessions)

    @property
    def unready(self) -> str | None:
        """Why nobody should come in now."""
        return self._pool.unready

    def metadata(self) -> dict[str, Any]:
        """Return what robots that come now are told of the policy."""
        return self._pool.metadata()

    def states(self) -> list[UpstreamStanding]:
        """Return how the upstreams stand."""
        return self._pool.states()

    def start(self) -> None:
        """Dial the upstreams."""
        self._pool.start()

    def submit(self, request: Request) -> None:
        """Let a request wait for its turn."""
        ticket = Ticket(request=request)
        waiting: _Waiting = Waiting(
            item=ticket,
            session=request.connection,
            arrived=request.arrived,
            priority=request.priority,
            answer=request.refusal,
        )
        self._sessions.push(waiting)
        if waiting.answer is None and not self._is_up_to_date(request):
            waiting.answer = outcomes.outdated(request)
        if waiting.answer is not None:
            self._settle([waiting.session])
            return
        self._unread[ticket] = waiting
        self._reader.read(ticket, arrays=self._pool.needs_arrays)

    def forget(self, connection: Hashable) -> None:
        """Drop what waits for a connection that is gone."""
        for ticket in [each for each in self._unread if each.request.connection is connection]:
            del self._unread[ticket]
        self._sessions.drop(connection)
        self._reader.forget(connection)
        self._told.pop(connection, None)

    def waits(self) -> list[float]:
        """Return how long each connection with something waiting has asked in vain, in seconds."""
        return self._sessions.waits(time.perf_counter())

    def refuse_overdue(self) -> None:
        """End the waiting of whoever has waited longer than the settings, or its own deadline, allow."""
        now = time.perf_counter()
        for waiting in self._sessions.overdue(now, self._config.max_wait_s):
            waiting.answer = self._overdue(waiting, now)
            self._settle([waiting.session])
        late = [w for w in self._sessions.heads() if w.deadline is not None and w.deadline < now]
        self._refuse(late, now)

    def stop(self) -> None:
        """Send nothing more; what is under way is still delivered. The second time not even that."""
        if self._over:
            return
        hurry, self._stopping = self._stopping, True
        if hurry or not self._under_way():
            self._shut()

    # ------------------------------------------------------------------------------------ the pool tells this

    def upstreams_changed(self) -> None:
        """Ask whoever has come; who waits for a policy that is gone is told so."""
        for session in [waiting.session for waiting in self._sessions.heads()]:
            for waiting in self._sessions.line(session):
                if not self._is_up_to_date(waiting.item.request):
                    waiting.answer = outcomes.outdated(waiting.item.request)
            self._settle([session])
        self._dispatch()

    def upstream_answered(self, link: Link, reply: bytes | ServerError) -> None:
        """Pass a reply on to whose it is."""
        now = time.perf_counter()
        errand = self._take(link)
        if errand is None:  # whose it was has been answered otherwise
            if isinstance(reply, bytes):
                self._pool.balancer.late(link.number, now, now - link.sent_at)
            self._dispatch()
            return
        self._pool.answered(link, now, reply)
        if errand.waiting is None:
            self._dispatch()
            return
        request = errand.waiting.item.request
        if isinstance(reply, ServerError):
            outcome = outcomes.passed_on(request, reply)
        else:
            outcome = Answered(
                message=reply,
                queue_ms=1000 * (link.sent_at - request.arrived),
                infer_ms=1000 * (now - link.sent_at),
                batch=0,
            )
        self._finish(errand.waiting, outcome)

    def upstream_lost(self, link: Link, error: Pi05WebsocketError) -> None:
        """Ask somebody else for what was under way."""
        errand = self._take(link)
        if errand is not None and errand.waiting is not None:
            waiting = errand.waiting
            if self._may_ask_again(waiting):
                self._ask_again(waiting, link)
            else:
                self._finish(waiting, outcomes.lost(waiting.item.request, error))

    def _under_way(self) -> bool:
        return any(errand.waiting is not None for errand in self._errands.values())

    # -------------------------------------------------------------------------------------------- reading

    def _is_up_to_date(self, request: Request) -> bool:
        """Whether the policy is served that the request's robot was told of."""
        told = self._told.get(request.connection)
        if told is None:
            told = identity_of(codec.decode(request.protocol.metadata_message))
            self._told[request.connection] = told
        return self._pool.serves(told)

    def _was_skimmed(self, ticket: Ticket) -> None:
        """Note what is known of a request whose images have to be decoded: an older one is not needed."""
        waiting = self._unread[ticket]
        self._note_said(waiting)
        waiting.packed = True
        self._sessions.supersede(waiting.session)
        self._settle([waiting.session])

    def _is_wanted(self, ticket: Ticket) -> bool:
        """Whether a request is to be decoded now; from then on it is not superseded until it is read."""
        waiting = self._unread[ticket]
        if waiting.answer is not None:
            del self._unread[ticket]
            return False
        waiting.packed = False
        return True

    def _was_read(self, ticket: Ticket, error: Exception | None) -> None:
        waiting = self._unread.pop(ticket, None)
        if waiting is None:
            return  # its connection is gone
        waiting.ready, waiting.packed = True, False
        if error is not None:
            logger.warning("request refused: %s", in_one_line(error))
            waiting.answer = waiting.answer or outcomes.failed(ticket.request, error)
        if waiting.answer is None and not self._is_up_to_date(ticket.request):
            waiting.answer = outcomes.outdated(ticket.request)  # another policy has come meanwhile
        self._note_said(waiting)
        self._sessions.supersede(waiting.session)
        self._settle([waiting.session])
        self._dispatch()

    def _note_said(self, waiting: _Waiting) -> None:
        request = waiting.item.request
        waiting.due, waiting.deadline = request.due, request.deadline
        if request.realtime is not None:
            waiting.reads_refusals = True
            waiting.robot = request.realtime.robot

    # -------------------------------------------------------------------------------------------- asking

    def _dispatch(self) -> None:
        """Send what can be sent."""
        while not self._stopping and len(self._sessions):
            vacancies, heads = self._pool.vacancies(), self._sessions.heads()
            if not vacancies or not heads:
                return
            now = time.perf_counter()
            # As many servers as there are vacancies, side by side, are one that takes so many at once.
            plan = plan_batch(
                heads, now, _always(self._pool.expected_s(now)), BatchSettings(max_batch=vacancies)
            )
            self._refuse(plan.late, now)
            # All of them are tried: one that has to avoid an upstream keeps nobody else from it.
            sent = [self._send(waiting, now) for waiting in plan.batch]
            if not all(sent) or not plan.late:
                return

    def _send(self, waiting: _Waiting, now: float) -> bool:
        """Send a request to whoever will answer first; return False if nobody can take it."""
        ticket = waiting.item
        link = self._pool.choose(ticket, now)
        if link is None:
            return False
        message = self._pool.message(ticket, link, now)
        if message is None:
            waiting.ready, waiting.packed = False, True
            self._unread[ticket] = waiting
            self._reader.need_arrays(ticket)
            return True
        self._sessions.take(waiting)
        self._pool.balancer.asked(link.number)
        self._post(link, message, waiting, now)
        link.last_session = waiting.session
        trial = self._pool.trial(now)
        message = None if trial is None else self._pool.message(ticket, trial, now)
        if trial is not None and message is not None:
            self._pool.balancer.tried(trial.number)
            self._post(trial, message, None, now)
        return True

    def _post(
        self, link: Link, message: bytes | bytearray, waiting: _Waiting | None, now: float
    ) -> None:
        balancer = self._pool.balancer
        if waiting is None:
            patience_s = balancer.longest_s(link.number)
        else:
            patience_s = balancer.patience_s(link.number, now, waiting.deadline)
        link.send(message)
        timer = self._loop.call_later(patience_s, self._look_at, link)
        self._errands[link] = _Errand(waiting, timer)

    def _take(self, link: Link) -> _Errand | None:
        """Return what was under way on a link, which is over."""
        errand = self._errands.pop(link, None)
        if errand is not None:
            errand.timer.cancel()
            if errand.waiting is not None:
                self._pool.balancer.ended(link.number)
        return errand

    def _look_at(self, link: Link) -> None:
        """Decide what to do about an errand that takes longer than it should."""
        errand, now = self._errands[link], time.perf_counter()
        if errand.waiting is None:
            self._give_up(link, now)
        elif self._pool.has_alternative(link) and self._may_ask_again(errand.waiting):
            self._give_up(link, now)
            self._ask_again(errand.waiting, link)
        elif self._is_over(errand.waiting, link, now):
            self._give_up(link, now)
            self._finish(errand.waiting, self._overdue(errand.waiting, now))
        else:
            errand.timer = self._loop.call_later(_LOOK_AGAIN_S, self._look_at, link)
            waits_s = now - link.sent_at
            if not errand.told and waits_s > self._pool.balancer.longest_s(link.number):
                # Nobody else is known to answer; from now on it is not, either, and whoever comes is asked.
                errand.told = True
                self._pool.failed(link, now, f"no reply within {waits_s:.2f} s")
                self._dispatch()

    def _give_up(self, link: Link, now: float) -> None:
        self._take(link)
        link.abandon(self._pool.balancer.longest_s(link.number))
        self._pool.failed(link, now, f"no reply within {now - link.sent_at:.2f} s")

    def _is_over(self, waiting: _Waiting, link: Link, now: float) -> bool:
        """Whether a request that nobody else could answer is not to wait for its upstream any longer."""
        if waiting.deadline is not None and now > waiting.deadline:
            return True
        longest_s = self._pool.balancer.longest_s(link.number)
        return now - link.sent_at > longest_s and now - waiting.arrived > self._config.max_wait_s

    def _may_ask_again(self, waiting: _Waiting) -> bool:
        """Whether a request may be asked for once more; counts it."""
        if self._stopping or waiting.item.attempts >= self._settings.upstream_retries:
            return False
        return self._pool.balancer.budget.spend()

    def _ask_again(self, waiting: _Waiting, link: Link) -> None:
        """Let a request wait for another upstream, before all others of its robot."""
        ticket = waiting.item
        ticket.attempts += 1
        ticket.failed_by.add(link.number)
        if self._sessions.put_back(waiting):
            self._sessions.supersede(waiting.session)
            self._settle([waiting.session])
            self._dispatch()

    # ------------------------------------------------------------------------------------------- answering

    def _finish(self, waiting: _Waiting, outcome: Outcome) -> None:
        self._deliver([(waiting.item.request, outcome)])
        self._sessions.done(waiting.session)
        self._settle([waiting.session])
        if self._stopping and not self._under_way():
            self._shut()
        else:
            self._dispatch()

    def _settle(self, sessions: Sequence[Hashable]) -> None:
        settled = self._sessions.settle(sessions)
        if settled:
            self._deliver([(waiting.item.request, _outcome(waiting.answer)) for waiting in settled])

    def _refuse(self, late: Sequence[_Waiting], now: float) -> None:
        for waiting in late:
            expected_s = self._pool.expected_s(now)
            waiting.answer = outcomes.too_late(waiting.item.request, now, expected_s, self.waiting)
        self._settle([waiting.session for waiting in late])

    def _overdue(self, waiting: _Waiting, now: float) -> Outcome:
        return outcomes.overdue(waiting.item.request, now, self._config.max_wait_s, self.waiting)

    def _shut(self) -> None:
        self._over = True
        for errand in self._errands.values():
            errand.timer.cancel()
        self._errands.clear()
        self._reader.close()
        self._pool.close()
        self._closing = self._loop.create_task(self._close())

    async def _close(self) -> None:
        await self._pool.wait_closed(_GOODBYE_S)
        self._stopped()


def _always(seconds: float) -> Callable[[Hashable, int], float]:
    return lambda _group, _size: seconds


def _outcome(answer: Outcome | Refusal | None) -> Outcome:
    assert answer is not None
    return Refused(refusal=answer) if isinstance(answer, Refusal) else answer
