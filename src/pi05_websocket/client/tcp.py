# SPDX-License-Identifier: Apache-2.0
"""From a name to a TCP connection: look it up, dial its addresses side by side, keep the first that answers.

In: a host, a port. Out: a connected socket, and its round trip. Runs on the connection's loop thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

from pi05_websocket.client.config import ConnectionConfig
from pi05_websocket.client.image_quality import NEAR_S
from pi05_websocket.errors import ConfigError, DeadlineExceeded
from pi05_websocket.keepalive import notice_vanished_peers
from pi05_websocket.tcp_facts import round_trip_s

__all__ = ["congestion_control", "tcp_connect"]

logger = logging.getLogger(__name__)

_NEXT_AFTER_S = 0.25
"""How long an address is waited for before the next one is dialled as well, as RFC 8305 recommends, and after
the last one the first again: the kernel by itself repeats a SYN after 1, 3 and 7 s, and an arm that holds would
wait for that once the path is whole."""
_MOST_DIALS = 8
"""At a time. The oldest but one gives way: the oldest has the whole of `connect_timeout`, for a path whose
round trip takes seconds."""


async def tcp_connect(
    config: ConnectionConfig, host: str, port: int
) -> tuple[socket.socket, float]:
    """Resolve and connect to the first address that answers; say how long a round trip to it takes, in seconds.

    All of it within `connect_timeout`, of which an address that never answers costs the others 250 ms.

    Raises:
        ConfigError: No name can be written so.
        DeadlineExceeded: No address has answered in time.
        OSError: No such name, or no address lets us in: the last reason.
    """
    try:
        async with asyncio.timeout(config.connect_timeout):
            sock, took_s = await _first(await _resolve(host, port), host)
    except TimeoutError as exc:
        raise DeadlineExceeded(
            "connect",
            config.connect_timeout,
            f"Is {host}:{port} reachable from here (firewall, VPN)?",
        ) from exc
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    notice_vanished_peers(sock)
    if took_s > NEAR_S:
        _use_congestion_control(sock, config.congestion_control)
    return sock, took_s


def congestion_control(sock: socket.socket) -> str:
    """Return which one the kernel uses; "" where it does not say."""
    option = getattr(socket, "TCP_CONGESTION", None)
    if option is None:
        return ""
    with contextlib.suppress(OSError):
        return sock.getsockopt(socket.IPPROTO_TCP, option, 16).rstrip(b"\0").decode()
    return ""


async def _first(addresses: list[Any], host: str) -> tuple[socket.socket, float]:
    """Dial one address after the other, without waiting for those before; hang up on all but the first."""
    left, again = list(addresses), itertools.cycle(addresses)
    under_way: list[asyncio.Task[tuple[socket.socket, float]]] = []
    given_up: list[asyncio.Task[tuple[socket.socket, float]]] = []
    last = OSError(f"no address for {host}")
    try:
        while left or under_way:
            if left:
                under_way.append(asyncio.create_task(_dial(*left.pop(0))))
            done, _ = await asyncio.wait(
                under_way,
                timeout=_NEXT_AFTER_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not done and not left:
                left.append(next(again))
                if len(under_way) >= _MOST_DIALS:
                    given_up.append(under_way.pop(1))
                    given_up[-1].cancel()
            for task in done:
                under_way.remove(task)
                try:
                    return task.result()
                except OSError as exc:
                    last = exc
    finally:
        for task in under_way:
            task.cancel()
        for outcome in await asyncio.gather(*given_up, *under_way, return_exceptions=True):
            if not isinstance(outcome, BaseException):  # it answered as well
                outcome[0].close()
    raise last


async def _dial(
    family: int, kind: int, proto: int, _: str, address: Any
) -> tuple[socket.socket, float]:
    loop = asyncio.get_running_loop()
    sock = socket.socket(family, kind, proto)
    sock.setblocking(False)
    began = loop.time()
    try:
        await loop.sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock, min(loop.time() - began, round_trip_s(sock))


async def _resolve(host: str, port: int) -> list[Any]:
    """Look a name up on a daemon thread.

    The loop's own `getaddrinfo` uses threads that Python waits for at exit: a resolver that hangs would keep a
    program from ending.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[Any]] = loop.create_future()

    def tell(setter: Callable[[Any], None], value: Any) -> None:
        if not found.done():
            setter(value)

    def look_up() -> None:
        outcome: tuple[Callable[[Any], None], Any]
        try:
            outcome = (found.set_result, socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as exc:
            outcome = (found.set_exception, exc)
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(tell, *outcome)

    threading.Thread(target=look_up, name="pi05-resolver", daemon=True).start()
    try:
        return await found
    except UnicodeError as exc:  # an empty label, or one of more than 63 characters
        raise ConfigError(f"{host!r} is no valid host name: {exc}") from exc


def _use_congestion_control(sock: socket.socket, name: str) -> None:
    """Ask the kernel for a congestion control; it stays with its own where it has no such, or must not say so.

    BBR is a module on many systems, and `net.ipv4.tcp_allowed_congestion_control` decides who may choose it.
    """
    option = getattr(socket, "TCP_CONGESTION", None)  # Linux and FreeBSD
    if not name or option is None:
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, option, name.encode())
    except OSError as exc:
        logger.debug("congestion control %s is not to be had here: %s", name, exc)
