# SPDX-License-Identifier: Apache-2.0
"""A policy as a WebSocket server that OpenPI's clients, and ours, can talk to.

An event loop for the sockets and one thread for the policy: pings, health checks and other robots never
wait for an inference. `WebsocketPolicyServer` is a drop-in for OpenPI's class of that name.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from pi05_websocket.errors import ConfigError
from pi05_websocket.policy import Policy, policy_metadata
from pi05_websocket.server.backend import Backend, BackendFactory, Deliver
from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.exposure import not_behind_a_proxy, why_not_safe
from pi05_websocket.server.failed_handshakes import told_in_a_line
from pi05_websocket.server.operator import Operator
from pi05_websocket.server.own_address import host_for_robots, host_on_this_machine
from pi05_websocket.server.own_certificate import with_its_files
from pi05_websocket.server.records import Listener
from pi05_websocket.server.service import Service
from pi05_websocket.server.worker import PolicyWorker
from pi05_websocket.wire import codec

__all__ = ["PolicyServer", "WebsocketPolicyServer", "why_not"]

logger = logging.getLogger(__name__)

_RENEWAL_EVERY_S = 3600.0
# How often a certificate of our own is looked at; it is renewed a month before its end.


class PolicyServer:
    """Listens, and hands what robots ask to a backend. `WebsocketPolicyServer` is one with a policy behind it.

    From another thread: `start()`, `port`, `close()`, or the same as a context manager.
    """

    def __init__(
        self,
        backend: BackendFactory,
        metadata: Callable[[], Mapping[str, Any]],
        host: str = "127.0.0.1",
        port: int | None = 8000,
        *,
        what: str,
        config: ServerConfig | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        """Prepare the server; nothing is opened yet.

        Args:
            backend: Makes what answers, for each run.
            metadata: What is sent first on a connection that opens now.
            host: Address to listen on; `0.0.0.0` for every interface.
            port: TCP port; 0 or None lets the system choose one, see `port`.
            what: What is served, in a word, for the log.
            config: Bounds and behaviour.
            listeners: Told who comes and goes and what becomes of each request, see `server.records`.

        Raises:
            ConfigError: If no proxy can be alone before `host`, or no certificate can be made for `tls=auto`.
        """
        self._backend = backend
        self._current_metadata = metadata
        self._what = what
        self._listeners = tuple(listeners)
        self._host = host
        self._port = port or 0
        self._config = config or ServerConfig()
        wrong = not_behind_a_proxy(self._host, self._config)
        if wrong is not None:
            raise ConfigError(wrong)
        self._config, self._own = with_its_files(self._config, host)
        self._service: Service | None = None
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        state = "stopped" if self._service is None else "serving"
        return f"<{type(self).__name__} {self.url} {state} {self._what}>"

    @property
    def port(self) -> int:
        """The TCP port; the one the system chose once the server listens."""
        return self._port

    @property
    def url(self) -> str:
        """Where a client on this machine finds the server."""
        return self._url(host_on_this_machine(self._host))

    @property
    def url_for_robots(self) -> str:
        """Where robots find the server: other computers too, if it listens for them."""
        return self._url(host_for_robots(self._host))

    def _url(self, host: str) -> str:
        return f"{'wss' if self._config.tls_cert else 'ws'}://{host}:{self._port}"

    @property
    def tls_fingerprint(self) -> str | None:
        """By what robots know a server with `tls=auto`: their `tls_fingerprint`. None for any other."""
        return None if self._own is None else self._own.fingerprint

    def serve_forever(self, *, listening: Callable[[], None] = lambda: None) -> None:
        """Serve until SIGINT or SIGTERM, then finish the inference under way and return.

        A second signal does not wait for the inference. Call it on the main thread.

        Args:
            listening: Told once that clients can connect.

        Raises:
            OSError: If the address cannot be listened on.
        """
        asyncio.run(self._run_until_signal(listening))

    async def run(self) -> None:
        """Serve on the running event loop until cancelled or asked to stop."""
        await self._run(lambda: None)

    def start(self) -> Self:
        """Serve from a thread of its own; return once the server listens.

        Raises:
            OSError: If the address cannot be listened on.
        """
        if self._thread is not None:
            raise RuntimeError("the server is already started")
        ready: Future[None] = Future()

        def serve() -> None:
            try:
                asyncio.run(self._run(lambda: ready.set_result(None)))
            except BaseException as exc:
                if ready.done():
                    logger.exception("the server failed")
                else:
                    ready.set_exception(exc)

        self._thread = threading.Thread(target=serve, name="pi05-server", daemon=True)
        self._thread.start()
        try:
            ready.result()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Stop a server that was started; wait until it has. Safe to call twice."""
        self.request_stop()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def request_stop(self) -> None:
        """Ask the server to stop, from any thread, without waiting. The second time it hurries."""
        service = self._service
        if service is not None:
            service.request_stop()

    def operate(self, do: Callable[[Operator], None]) -> bool:
        """Have the event loop do something for whoever runs the server, from any thread, without waiting.

        Returns:
            Whether the server is running; else nothing is done.
        """
        service = self._service
        if service is not None:
            service.call(do, service.operator)
        return service is not None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def _run(self, listening: Callable[[], None]) -> None:
        def note(port: int) -> None:
            self._port = port
            url = self.url_for_robots
            logger.info("serving %s at %s", self._what, url)
            if self._config.behind_proxy:
                logger.info("TLS ends at a proxy: what comes to %s is not encrypted", url)
            unsafe = why_not_safe(self._host, self._config)
            if unsafe is not None and not self._config.insecure:
                # OpenPI's call, `host="0.0.0.0"`, must work: here a word, on the command line a refusal.
                logger.warning("NOT SAFE: %s In Python these are fields of ServerConfig.", unsafe)
            listening()

        self._service = Service(
            self._backend, self._current_metadata, self._config, self._listeners
        )
        renewing = asyncio.create_task(self._renew_now_and_then())
        try:
            with told_in_a_line(asyncio.get_running_loop()):
                await self._service.run(self._host, self._port, note)
            logger.info("stopped %s", self.url_for_robots)
        except OSError as exc:
            number = errno.EADDRNOTAVAIL if exc.errno is None else exc.errno
            raise OSError(number, why_not(exc, self._host, self._port)) from None
        finally:
            renewing.cancel()
            self._service = None

    async def _renew_now_and_then(self) -> None:
        """Keep a certificate of our own from ending; the service reads the new one."""
        while self._own is not None:
            await asyncio.sleep(_RENEWAL_EVERY_S)
            try:
                self._own.renew_if_due(datetime.now(UTC))
            except ConfigError as exc:
                logger.error("the certificate could not be renewed: %s", exc)

    async def _run_until_signal(self, listening: Callable[[], None]) -> None:
        """Turn SIGINT and SIGTERM into a stop; put back what they did before."""
        loop = asyncio.get_running_loop()
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            try:
                loop.add_signal_handler(number, self.request_stop)
            except NotImplementedError:  # Windows, where the loop wakes up for signals anyway
                signal.signal(number, lambda *_: self.request_stop())
        try:
            await self._run(listening)
        finally:
            for number, handler in before.items():
                with contextlib.suppress(NotImplementedError):
                    loop.remove_signal_handler(
                        number
                    )  # else the loop does it when it closes, after us
                signal.signal(number, handler)


class WebsocketPolicyServer(PolicyServer):
    """Serves one policy to any number of robots.

    Like OpenPI's class it takes policy, host, port and metadata, and `serve_forever()` runs it. Unlike
    there the default host is the loopback interface: nobody else can reach it unless you say
    `host="0.0.0.0"`, which is warned about unless the server asks for keys over TLS. `policy.reset()` is
    never called, as there: OpenPI's protocol has no episodes, and other robots share the policy.
    """

    def __init__(
        self,
        policy: Policy,
        host: str = "127.0.0.1",
        port: int | None = 8000,
        metadata: Mapping[str, Any] | None = None,
        *,
        config: ServerConfig | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        """Prepare the server; nothing is opened yet.

        Args:
            policy: Anything with `infer(observation) -> {"actions": ...}`. One thread calls it; several
                requests at once if it has `infer_batch` or `infer_requests`, see `pi05_websocket.policy`.
            host: Address to listen on; `0.0.0.0` for every interface.
            port: TCP port; 0 or None lets the system choose one, see `port`.
            metadata: Sent first on every connection. Default: what the policy says about itself.
            config: Bounds and behaviour.
            listeners: Told who comes and goes and what becomes of each request, see `server.records`.

        Raises:
            ConfigError: If the policy has no `infer`, or no proxy can be alone before `host`.
            EncodeError: If the metadata cannot travel.
        """
        if not callable(getattr(policy, "infer", None)):
            raise ConfigError(f"expected a policy with infer(observation), got {policy!r}")
        self.metadata = dict(policy_metadata(policy) if metadata is None else metadata)
        codec.encode(self.metadata)
        self._policy = policy
        super().__init__(
            self._worker,
            lambda: self.metadata,
            host,
            port,
            what=type(policy).__name__,
            config=config,
            listeners=listeners,
        )

    def _worker(
        self, config: ServerConfig, deliver: Deliver, stopped: Callable[[], None]
    ) -> Backend:
        seed = secrets.randbits(63) if config.seed is None else config.seed
        return PolicyWorker(self._policy, config, deliver, stopped, seed=seed)


def why_not(exc: OSError, host: str, port: int) -> str:
    """Say in a sentence why an address cannot be listened on, and what to do."""
    where = f"{host}:{port}"
    if exc.errno == errno.EADDRINUSE:
        return f"{where} is in use. Is another server running? Stop it, or take another port, say {port + 1}."
    # asyncio 3.12 reports an address that is not ours without an errno.
    if exc.errno in (errno.EADDRNOTAVAIL, None) or isinstance(exc, socket.gaierror):
        return f"{host} is no address of this machine. Take 127.0.0.1, or 0.0.0.0 for all."
    if exc.errno == errno.EACCES:
        return f"{where} needs more rights. Ports from 1024 on are free to all."
    return f"{where} cannot be listened on: {exc.strerror or exc}"
