# SPDX-License-Identifier: Apache-2.0
"""`PolicyPool`: several servers of one policy, with the interface of `RemotePolicy`.

In: observations in policy names. Out: the first valid reply of whoever answers.
All servers are connected all the time; one is asked. Called from any thread, and by the servers' loop threads;
whom to ask is decided in `failover`, who may go on for whom in `sameness`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pi05_websocket.client.config import ConnectionConfig, split_urls
from pi05_websocket.client.connection import Connection, ConnectionState
from pi05_websocket.client.exchange import Exchange
from pi05_websocket.client.failover import Failover, FailoverSettings
from pi05_websocket.client.policy import PROGRESS_EVERY_S, RemotePolicy
from pi05_websocket.client.pool_exchange import Asked, PoolExchange, kept, said_to
from pi05_websocket.client.sameness import Sameness
from pi05_websocket.data import Observation, ServerMetadata
from pi05_websocket.errors import (
    ConfigError,
    ConnectionLost,
    Pi05WebsocketError,
    PolicyChanged,
    RequestRefused,
    TransportError,
)
from pi05_websocket.wire.fingerprint import fingerprint_of
from pi05_websocket.wire.messages import read_actions
from pi05_websocket.wire.realtime import realtime_support

__all__ = ["PolicyPool", "ServerState", "connect"]

logger = logging.getLogger(__name__)

_POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """How a server stands, for people."""

    url: str
    connected: bool
    same_policy: bool
    """Whether the arm may go on with it."""
    sound: bool
    """Whether it has answered, and in time."""
    turnaround_s: float
    error_rate: float


def connect(
    urls: str, config: ConnectionConfig, *, same_policy: bool = False, wait_for_server: float = 60.0
) -> RemotePolicy | PolicyPool:
    """Return a policy behind one server, or behind several.

    Args:
        urls: An address, or several with commas between them; the first that answers is asked first.
        config: Everything else, the same for all of them; its `url` is not used.
        same_policy: Whether servers that do not say so serve the same policy.
        wait_for_server: As for `RemotePolicy`.

    Raises:
        ConfigError: An address is wrong, or there twice.
        Pi05WebsocketError: No server within `wait_for_server`.
    """
    configs = [replace(config, url=url) for url in split_urls(urls)]
    if len(configs) == 1:
        return RemotePolicy(config=configs[0], wait_for_server=wait_for_server)
    return PolicyPool(configs, same_policy=same_policy, wait_for_server=wait_for_server)


class PolicyPool:
    """Policies behind several servers, as one.

    Args:
        configs: How to reach each.
        same_policy: Whether servers that do not announce a fingerprint serve the same policy.
        wait_for_server: Seconds the constructor waits for the first of them; 0 returns at once.
        settings: How patient to be.

    Raises:
        ConfigError: Fewer than two servers.
        Pi05WebsocketError: No server within `wait_for_server`: the last reason.
    """

    def __init__(
        self,
        configs: Sequence[ConnectionConfig],
        *,
        same_policy: bool = False,
        wait_for_server: float = 60.0,
        settings: FailoverSettings | None = None,
    ) -> None:
        if len(configs) < 2:
            raise ConfigError(f"a pool of {len(configs)} servers: expected two or more")
        self.config = configs[0]
        self.failovers = 0
        """How often another server took over."""
        self.hedges = 0
        """How often a second one was asked before the first had failed."""
        self._urls = [config.url for config in configs]
        # Below: guarded by the lock, which callbacks take too while it is held (`submit` to a dead link).
        self._lock = threading.RLock()
        self._failover = Failover(len(configs), settings)
        self._sameness = Sameness(len(configs), marked=same_policy)
        self._greeted = [0] * len(configs)
        self._closed = False
        self._servers = [
            RemotePolicy(config=config, wait_for_server=0, alone=False) for config in configs
        ]
        if wait_for_server > 0:
            try:
                self._wait(wait_for_server)
            except BaseException:
                self.close()
                raise

    def __repr__(self) -> str:
        return f"<PolicyPool {self._failover!r}>"

    def __enter__(self) -> PolicyPool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- as RemotePolicy ---------------------------------------------------------------------------------

    @property
    def connection(self) -> Connection:
        """The connection to the server that would be asked now, or was last."""
        return self._present().connection

    @property
    def metadata(self) -> ServerMetadata:
        """What that server says about itself; `{}` before the first connection."""
        return self._present().metadata

    @property
    def patience(self) -> float:
        """Seconds after which servers that do not answer at all count as absent."""
        return self._servers[0].patience

    def get_server_metadata(self) -> ServerMetadata:
        """Return what the server says that is asked; waits for the first connection (OpenPI's name)."""
        if self.unavailable() is not None:
            self._wait(self.patience)
        return self.metadata

    def infer(self, obs: Observation) -> dict[str, Any]:
        """Send one observation and wait for its result.

        Raises:
            PolicyChanged: Nobody is left who serves the same policy.
            Pi05WebsocketError: As for `RemotePolicy.infer`, from the last server that was asked.
        """
        if self.unavailable() is not None:
            self._wait(self.patience)
        exchange = self.submit(obs)
        # Each server may take its time.
        value = exchange.result(exchange.limit * len(self._servers)).value
        assert isinstance(value, dict)  # `read_actions` has looked
        return value

    def submit(self, obs: Observation) -> PoolExchange:
        """Send one observation and return at once.

        Raises:
            EncodeError: The observation holds something the wire cannot carry.
            ObservationError: It lacks what each of the servers that are there wants.
        """
        exchange = PoolExchange(self, kept(obs))
        with self._lock:
            there = self._there()
            number = self._failover.choose(there)
            if number is None:
                exchange.future.set_exception(self._nobody())
                return exchange
            self._note_change(number)
            self._failover.asked(number)
            error = self._ask_somebody(exchange, number)
            if error is not None:
                raise error
            number = exchange.asked[-1].number
            others = [other for other in there if other not in exchange.passed_over]
            trial = self._failover.trial(others, number, time.monotonic())
            if trial is not None:
                self._try(exchange, trial)
        return exchange

    def unavailable(self) -> Pi05WebsocketError | None:
        """Return why no request can be sent now, or None. Returns at once."""
        with self._lock:
            return None if self._there() else self._nobody()

    def reset(self) -> None:
        """Begin a new episode at all of them: whoever takes over must know of it."""
        for server in self._servers:
            server.reset()

    def close(self) -> None:
        """Disconnect from all of them. Safe to call twice."""
        with self._lock:
            self._closed = True
        for server in self._servers:
            server.close()

    # --- what only a pool has ----------------------------------------------------------------------------

    @property
    def servers(self) -> list[ServerState]:
        """How each stands."""
        with self._lock:
            there = self._there()
            return [
                ServerState(
                    url=url,
                    connected=self._ready(number),
                    same_policy=self._sameness.agrees(number),
                    sound=number in there and standing.sound,
                    turnaround_s=standing.mean_s,
                    error_rate=standing.error_rate,
                )
                for number, (url, standing) in enumerate(
                    zip(self._urls, self._failover.standings, strict=True)
                )
            ]

    def accept(self, told: PolicyChanged | None = None) -> bool:
        """Go on with the policy that is there, as a person wants; say whether it does.

        Args:
            told: What the person was told, by `unavailable`: a policy that has come since is not accepted.
                None: whichever is there.
        """
        with self._lock:
            connected = self._connected()
            number = self._failover.choose(connected)
            if number is None or any(self._sameness.agrees(each) for each in connected):
                return False
            changed = self._changed(number)
            if told is not None and str(told) != str(changed):
                return False
            self._sameness.follow_as(number, changed.got)
        logger.warning("a person accepts the policy that %s serves", self._urls[number])
        return True

    def look_after(self, exchange: PoolExchange) -> None:
        """Ask another server where it is time to."""
        with self._lock:
            if exchange.future.done() or not exchange.asked:
                return
            last = exchange.asked[-1]
            age_s = last.exchange.age()
            standby = self._standby(exchange)
            if age_s > last.exchange.limit:
                if not last.overdue:
                    last.overdue = True
                    self._note_late(last.number)
                if standby is not None:
                    self._ask_as_well(exchange, standby)
            elif (
                standby is not None
                and exchange.left_s is not None
                and len(exchange.asked) == 1
                and self._failover.hedge(last.number, standby, age_s, exchange.left_s)
            ):
                logger.debug(
                    "no answer from %s after %.3f s, rows for %.3f s are left: %s is asked too",
                    *(self._urls[last.number], age_s, exchange.left_s, self._urls[standby]),
                )
                self.hedges += self._ask_as_well(exchange, standby)

    # --- who is there; the lock is held ----------------------------------------------------------------------

    def _ready(self, number: int) -> bool:
        return self._servers[number].connection.state is ConnectionState.READY

    def _connected(self) -> list[int]:
        found = []
        for number, server in enumerate(self._servers):
            greeting = server.connection.greeting
            if greeting.number != self._greeted[number]:
                self._greeted[number] = greeting.number
                self._failover.came(number)
                self._sameness.came(number, fingerprint_of(greeting.metadata or {}))
            if self._ready(number):
                found.append(number)
        return found

    def _there(self) -> list[int]:
        """Return who is connected and serves the policy."""
        return [number for number in self._connected() if self._sameness.agrees(number)]

    def _present(self) -> RemotePolicy:
        with self._lock:
            number = self._failover.choose(self._there())
            last = self._failover.primary or 0
            return self._servers[last if number is None else number]

    def _nobody(self) -> Pi05WebsocketError:
        connected = self._connected()
        if any(self._sameness.agrees(number) for number in connected):
            return ConnectionLost("all servers were gone until this moment")
        if connected:
            number = self._failover.choose(connected)
            assert number is not None
            return self._changed(number)
        errors = [server.unavailable() for server in self._servers]
        known = [error for error in errors if error is not None]
        lost = ConnectionLost("all servers were gone until this moment")
        return next((error for error in known if error.retryable), (*known, lost)[0])

    def _changed(self, number: int) -> PolicyChanged:
        return PolicyChanged(
            self._sameness.why_not(number, self._urls),
            expected=self._sameness.expected,
            got=self._sameness.said(number),
        )

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        tell_at = time.monotonic() + PROGRESS_EVERY_S
        while (error := self.unavailable()) is not None:
            now = time.monotonic()
            if not error.retryable or isinstance(error, PolicyChanged) or now >= deadline:
                raise error
            if now >= tell_at:
                tell_at = now + PROGRESS_EVERY_S
                logger.warning("waiting for one of %s: %s", ", ".join(self._urls), error)
            time.sleep(_POLL_S)

    # --- asking; the lock is held ----------------------------------------------------------------------------

    def _standby(self, exchange: PoolExchange) -> int | None:
        asked = [asked.number for asked in exchange.asked]
        passed_over = list(exchange.passed_over)
        return None if self._closed else self._failover.standby(self._there(), asked + passed_over)

    def _ask_somebody(self, exchange: PoolExchange, number: int) -> Exception | None:
        """Ask a server, or else whoever can be sent the observation; return why nobody can, if so."""
        before, primary = set(exchange.passed_over), self._failover.primary
        while (error := self._try_to_ask(exchange, number)) is not None:
            standby = self._standby(exchange)
            if standby is None:
                return error
            number = standby
        if self._failover.primary == primary:  # else it has failed already, and another was asked
            self._note_change(number)
            self._failover.primary = number
        # Only now: where nobody can be sent it, it is the observation's fault and not theirs.
        for other in exchange.passed_over.keys() - before:
            self._cannot(other, exchange.passed_over[other])
        return None

    def _ask_as_well(self, exchange: PoolExchange, number: int) -> bool:
        """Ask one more server; say whether it could be."""
        error = self._try_to_ask(exchange, number)
        if error is not None:
            self._cannot(number, error)
        return error is None

    def _try_to_ask(self, exchange: PoolExchange, number: int) -> Exception | None:
        """Ask a server; return why it cannot be sent the observation, if so.

        Whatever is raised: out of a callback of another server's nobody would hear of it.
        """
        try:
            self._ask(exchange, number)
        except Exception as exc:
            exchange.passed_over[number] = exc
            return exc
        return None

    def _ask(self, exchange: PoolExchange, number: int) -> None:
        server = self._servers[number]
        asked = Asked(number, self._submit(exchange, number))
        exchange.asked.append(asked)
        exchange.limit = exchange.age() + asked.exchange.limit
        exchange.nbytes += asked.exchange.nbytes
        exchange.quality = asked.exchange.quality
        logger.debug("asked %s", server.config.url)
        asked.exchange.when_done(lambda: self._ended(exchange, asked))

    def _try(self, exchange: PoolExchange, number: int) -> None:
        """Send a copy, whose answer nobody waits for."""
        self._failover.tried(number)
        try:
            copy = self._submit(exchange, number, stock=True)
        except Exception as exc:  # a failed trial; the exchange itself is another server's
            self._cannot(number, exc)
            return
        copy.when_done(lambda: self._tried(copy, number))

    def _submit(self, exchange: PoolExchange, number: int, *, stock: bool = False) -> Exchange:
        server = self._servers[number]
        announced = realtime_support(server.metadata) is not None and not stock
        waited_s = exchange.age() if exchange.asked else 0.0
        said = said_to(exchange.observation, realtime=announced, waited_s=waited_s)
        return server.submit(said, greeting=self._greeted[number])

    def _note_change(self, number: int) -> None:
        last = self._failover.primary
        if last is not None and last != number:
            self.failovers += 1
            logger.warning("%s takes over from %s", self._urls[number], self._urls[last])

    def _note_late(self, number: int) -> None:
        if self._failover.late(number, time.monotonic()):
            logger.warning("%s did not answer in time twice in a row", self._urls[number])

    # --- what became of it; a server's loop thread -----------------------------------------------------------

    def _ended(self, exchange: PoolExchange, asked: Asked) -> None:
        error = _what_is_wrong(asked.exchange)
        with self._lock:
            if error is None:
                self._answered(exchange, asked)
            else:
                self._failed(exchange, asked, error)

    def _answered(self, exchange: PoolExchange, asked: Asked) -> None:
        reply = asked.exchange.result(0)
        took_s = reply.received_at - asked.exchange.sent_at
        if exchange.future.done():  # somebody else was first
            if not asked.overdue:
                self._failover.answered(asked.number, took_s)
            return
        self._failover.answered(asked.number, took_s)
        self._sameness.follow(asked.number)
        self._note_overdue(exchange, asked)
        exchange.server = self._urls[asked.number]
        exchange.quality = asked.exchange.quality
        exchange.future.set_result(reply)

    def _note_overdue(self, exchange: PoolExchange, winner: Asked) -> None:
        """Note who should have been faster than the winner: those that were asked before it, or are late."""
        before = True
        for other in exchange.asked:
            if other is winner:
                before = False
                continue
            late = before or self._failover.is_late(other.number, other.exchange.age())
            if late and not other.overdue and not other.exchange.done():
                other.overdue = True
                self._note_late(other.number)

    def _failed(self, exchange: PoolExchange, asked: Asked, error: Pi05WebsocketError) -> None:
        if self._closed:
            if not exchange.future.done():
                exchange.future.set_exception(error)
            return
        if not isinstance(error, RequestRefused):  # busy, not broken
            self._lost(asked.number, error)
        waits = any(not other.exchange.done() for other in exchange.asked)
        if exchange.future.done() or waits:
            return
        standby = self._standby(exchange)
        if standby is None or (isinstance(error, RequestRefused) and error.kind == "superseded"):
            exchange.future.set_exception(error)
            return
        failed = self._ask_somebody(exchange, standby)
        if failed is not None:
            exchange.future.set_exception(failed)

    def _tried(self, copy: Exchange, number: int) -> None:
        error = _what_is_wrong(copy)
        with self._lock:
            if error is None:
                if not self._failover.standings[number].sound:
                    logger.info("%s answers: it stands by", self._urls[number])
                self._failover.answered(number, copy.result(0).received_at - copy.sent_at)
            elif not self._closed:
                self._lost(number, error)

    def _cannot(self, number: int, error: Exception) -> None:
        if self._failover.standings[number].ejections == 0:
            logger.warning("%s cannot be sent this observation: %s", self._urls[number], error)
        self._lost(number, error)

    def _lost(self, number: int, error: Exception) -> None:
        hung_up = isinstance(error, TransportError)
        note = self._failover.lost if hung_up else self._failover.late
        if note(number, time.monotonic()):
            logger.warning("%s is not relied on for now: %s", self._urls[number], error)


def _what_is_wrong(exchange: Exchange) -> Pi05WebsocketError | None:
    """Return why a server's answer does not count; None: it does."""
    try:
        read_actions(exchange.result(0).value)
    except Pi05WebsocketError as exc:
        return exc
    return None
