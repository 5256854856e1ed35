# SPDX-License-Identifier: Apache-2.0
"""The upstreams together: who is there, who serves the policy, who is asked next.

Runs on the server's event loop. It knows connections, not requests: what answers a request, and what is lost
with a connection, is handed to the owner.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, Protocol

from pi05_websocket.client.config import ConnectionConfig
from pi05_websocket.errors import Pi05WebsocketError, ServerError
from pi05_websocket.gateway.agreement import Agreement, identity_of
from pi05_websocket.gateway.balancing import Balancer, BalanceSettings
from pi05_websocket.gateway.config import GatewayConfig
from pi05_websocket.gateway.link import Link
from pi05_websocket.gateway.ticket import Ticket
from pi05_websocket.gateway.upstream import Upstream
from pi05_websocket.server.records import UpstreamStanding

__all__ = ["Pool", "PoolOwner"]

logger = logging.getLogger(__name__)

_REVIEW_S = 0.5


class PoolOwner(Protocol):
    """Who is told what happens. Called on the event loop."""

    def upstream_answered(self, link: Link, reply: bytes | ServerError, /) -> None:
        """Take what came back on a link."""

    def upstream_lost(self, link: Link, error: Pi05WebsocketError, /) -> None:
        """Note that a link is gone, and with it what was under way on it."""

    def upstreams_changed(self) -> None:
        """Note that somebody may be asked who could not be before."""


class Pool:
    """All upstreams of a gateway."""

    def __init__(
        self, upstreams: Sequence[ConnectionConfig], settings: GatewayConfig, owner: PoolOwner
    ) -> None:
        self.balancer = Balancer(
            len(upstreams),
            BalanceSettings(
                timeout_s=settings.upstream_timeout_s,
                first_timeout_s=settings.upstream_first_timeout_s,
            ),
        )
        self._owner = owner
        self._upstreams = [
            Upstream(number, config, self, settings.upstream_connections)
            for number, config in enumerate(upstreams)
        ]
        self._agreement = Agreement(mismatch_allowed=settings.upstream_mismatch == "allow")
        self._review: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Pool usable={len(self.usable())} of {len(self._upstreams)}>"

    def start(self) -> None:
        """Dial all of them."""
        for upstream in self._upstreams:
            upstream.start()

    def close(self) -> None:
        """Say goodbye to all of them."""
        if self._review is not None:
            self._review.cancel()
        for upstream in self._upstreams:
            upstream.close()

    async def wait_closed(self, patience_s: float) -> None:
        """Wait until all connections are gone after `close`, so long at most."""
        await asyncio.gather(*(upstream.wait_closed(patience_s) for upstream in self._upstreams))

    # ------------------------------------------------------------------------------------ who is there

    @property
    def unready(self) -> str | None:
        """Why nobody can be answered, as the end of a sentence."""
        if self.usable():
            return None
        count = len(self._upstreams)
        return (
            f"none of the {count} servers behind it can be reached"
            if count > 1
            else ("the server behind it cannot be reached")
        )

    @property
    def needs_arrays(self) -> bool:
        """Whether somebody who may be asked reads no encoded images."""
        return not all(self._upstreams[number].reads_jpeg for number in self.usable())

    def metadata(self) -> dict[str, Any]:
        """Return what robots are told of the policy."""
        return self._agreement.metadata()

    def serves(self, identity: str) -> bool:
        """Whether a robot that was told of this policy may be answered."""
        return self._agreement.serves(identity)

    def states(self) -> list[UpstreamStanding]:
        """Return how each stands."""
        now = time.perf_counter()
        return [self._state(upstream, now) for upstream in self._upstreams]

    def usable(self) -> list[int]:
        """Return the numbers of those that are there and serve the policy."""
        return [
            upstream.number
            for upstream in self._upstreams
            if self._agreement.usable(upstream.number)
        ]

    def vacancies(self) -> int:
        """Return how many requests could be sent now; those who cannot be relied on count too."""
        return sum(self._upstreams[number].vacancies for number in self.usable())

    # ------------------------------------------------------------------------------------- who is asked

    def expected_s(self, now: float) -> float:
        """Return the seconds until a reply to a request that is sent now."""
        return self.balancer.expected_s(self.usable(), now)

    def choose(self, ticket: Ticket, now: float) -> Link | None:
        """Return where to send a request; None: wait."""
        usable = self.usable()
        number = self.balancer.choose(usable, self._free(usable), now, ticket.failed_by)
        if number is None:
            return None
        return self._upstreams[number].free_link(ticket.request.connection)

    def trial(self, now: float) -> Link | None:
        """Return where to send a copy of a request, to find out whether it is answered; None: nowhere."""
        usable = self.usable()
        number = self.balancer.trial(usable, self._free(usable), now)
        return None if number is None else self._upstreams[number].free_link()

    def has_alternative(self, link: Link) -> bool:
        """Whether somebody else can be relied on."""
        return self.balancer.has_alternative(self.usable(), link.number)

    def message(self, ticket: Ticket, link: Link, now: float) -> bytes | bytearray | None:
        """Return what to send on a link; None: the request's images have to be decoded first."""
        upstream = self._upstreams[link.number]
        return ticket.message_for(
            reads_jpeg=upstream.reads_jpeg,
            reads_realtime=upstream.reads_realtime,
            waited_s=now - ticket.request.arrived,
            way_s=link.connect_s / 2,
        )

    def answered(self, link: Link, now: float, reply: bytes | ServerError) -> None:
        """Note a reply in time, or an error."""
        if isinstance(reply, ServerError):
            if self.balancer.erred(link.number, now):
                self._warn(link, f"only errors, the last: {reply}")
            return
        if self.balancer.standings[link.number].strikes:
            logger.info("%s answers again", self._upstreams[link.number].url)
        self.balancer.answered(link.number, now, now - link.sent_at)

    def failed(self, link: Link, now: float, why: str) -> None:
        """Note that it did not answer in time, or hung up."""
        if self.balancer.failed(link.number, now):
            self._warn(link, why)

    def _warn(self, link: Link, why: str) -> None:
        logger.warning(
            "%s: %s; robots are given to others while there are any",
            self._upstreams[link.number].url,
            why,
        )

    # -------------------------------------------------------------------------------- links tell this

    def link_up(self, link: Link, metadata: dict[str, Any]) -> None:
        """Take a new connection, and perhaps a new server."""
        upstream, number, now = self._upstreams[link.number], link.number, time.perf_counter()
        known = self._agreement.knows(number)
        new = known is None or known != identity_of(metadata)
        # Before other links are renewed: what they had under way is asked again at once, and must not be asked
        # of another policy that has come on this one.
        agrees = self._agreement.came(number, metadata, now) if new else True
        upstream.introduced(metadata)
        if new:
            upstream.renew_others(link)
            self.balancer.came(number)
            if agrees:
                logger.info("connected to %s", upstream.url)
            else:
                logger.error(
                    "%s serves another policy than robots were told of: its fingerprint or metadata differs. "
                    "It is not used while that one may come back; --upstream-mismatch allow uses both.",
                    upstream.url,
                )
                self._review_soon()
        self._owner.upstreams_changed()

    def link_answered(self, link: Link, reply: bytes | ServerError) -> None:
        """Hand on what came back."""
        self._owner.upstream_answered(link, reply)

    def link_lost(self, link: Link, error: Pi05WebsocketError, *, after_error: bool) -> None:
        """Note that a connection is gone."""
        if not after_error:
            self.failed(link, time.perf_counter(), str(error))
            self._note_absence(link, error)
        self._owner.upstream_lost(link, error)

    def link_failed(self, link: Link, error: Pi05WebsocketError) -> None:
        """Note that a connection could not be opened."""
        upstream = self._upstreams[link.number]
        if upstream.connected:
            logger.debug("one more connection to %s: %s", upstream.url, error)
            return
        first = upstream.trouble is None or type(upstream.trouble) is not type(error)
        level = logging.WARNING if error.retryable else logging.ERROR
        logger.log(
            level if first else logging.DEBUG, "%s (trying again)", _located(upstream, error)
        )
        self._note_absence(link, error)

    # -----------------------------------------------------------------------------------------------------

    def _note_absence(self, link: Link, error: Pi05WebsocketError) -> None:
        if self._upstreams[link.number].lost(error):
            self._agreement.left(link.number, time.perf_counter())
            self._review_soon()

    def _review_soon(self) -> None:
        if self._review is None:
            self._review = asyncio.get_running_loop().call_later(_REVIEW_S, self._review_now)

    def _review_now(self) -> None:
        self._review = None
        if self._agreement.review(time.perf_counter()):
            logger.warning(
                "nobody serves the policy any more that robots were told of: another one takes its place, and "
                "connected robots are told to connect again"
            )
            self._owner.upstreams_changed()
        elif not self.usable():
            self._review_soon()

    def _free(self, usable: Sequence[int]) -> list[int]:
        return [number for number in usable if self._upstreams[number].vacancies]

    def _state(self, upstream: Upstream, now: float) -> UpstreamStanding:
        standing = self.balancer.standings[upstream.number]
        usable = self._agreement.usable(upstream.number)
        trouble = "" if upstream.trouble is None else str(upstream.trouble)
        if upstream.connected and not usable:
            trouble = "serves another policy"
        return UpstreamStanding(
            url=upstream.url,
            usable=usable,
            sound=usable and standing.sound,
            trouble=trouble,
            connections=upstream.connections,
            under_way=standing.under_way,
            turnaround_s=standing.turnaround.expected_s(now),
        )


def _located(upstream: Upstream, error: Pi05WebsocketError) -> str:
    text = str(error)
    return text if upstream.url in text else f"{upstream.url}: {text}"
