# SPDX-License-Identifier: Apache-2.0
"""A gateway as a policy server: what it serves is what the servers behind it serve.

In: addresses. Out: a server that OpenPI's clients, and ours, can talk to; see `server.app.PolicyServer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

from pi05_websocket.client.config import ConnectionConfig, load_headers
from pi05_websocket.errors import ConfigError
from pi05_websocket.gateway.backend import GatewayBackend
from pi05_websocket.gateway.config import GatewayConfig
from pi05_websocket.server.app import PolicyServer
from pi05_websocket.server.backend import Backend, Deliver
from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.records import Listener, UpstreamStanding

__all__ = ["PolicyGateway"]


class PolicyGateway(PolicyServer):
    """Serves robots by asking other policy servers, stock ones or ours.

    It keeps the robots' connections while servers behind it die, freeze or are replaced. All of them serve the
    same policy. What it adds to them is what `ServerConfig` says: keys, TLS, deadlines, images.
    """

    def __init__(
        self,
        upstreams: Sequence[str],
        host: str = "127.0.0.1",
        port: int | None = 8000,
        *,
        config: ServerConfig | None = None,
        gateway: GatewayConfig | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        """Prepare the gateway; nothing is opened yet.

        Args:
            upstreams: Addresses, `ws://` or `wss://`.
            host: Address to listen on; `0.0.0.0` for every interface.
            port: TCP port; 0 or None lets the system choose one, see `port`.
            config: How robots are served.
            gateway: How upstreams are asked.
            listeners: Told who comes and goes and what becomes of each request, see `server.records`.

        Raises:
            ConfigError: No upstream, one twice, one that is no address, or a key that cannot be read.
        """
        settings = gateway or GatewayConfig()
        serving = config or ServerConfig()
        if serving.dialect not in ("openpi", "none"):
            raise ConfigError(
                f"dialect={serving.dialect}: a gateway passes OpenPI's own messages on and translates none. "
                "Serve that dialect where the policy is."
            )
        serving = replace(serving, dialect="none")
        self._upstreams = _connections(upstreams, settings, serving)
        self._gateway = settings
        self._backend_now: GatewayBackend | None = None
        super().__init__(
            self._ask_upstreams,
            self._told,
            host,
            port,
            what=f"{len(upstreams)} upstream{'s' * (len(upstreams) > 1)}",
            config=serving,
            listeners=listeners,
        )

    @property
    def upstreams(self) -> list[UpstreamStanding]:
        """How each upstream stands; none before the server runs."""
        return [] if self._backend_now is None else self._backend_now.states()

    def _ask_upstreams(
        self, config: ServerConfig, deliver: Deliver, stopped: Callable[[], None]
    ) -> Backend:
        self._backend_now = GatewayBackend(self._upstreams, self._gateway, config, deliver, stopped)
        return self._backend_now

    def _told(self) -> Mapping[str, Any]:
        return {} if self._backend_now is None else self._backend_now.metadata()


def _connections(
    urls: Sequence[str], settings: GatewayConfig, serving: ServerConfig
) -> list[ConnectionConfig]:
    if not urls:
        raise ConfigError("a gateway needs at least one --upstream, got none")
    twice = {url for url in urls if urls.count(url) > 1}
    if twice:
        raise ConfigError(f"--upstream {', '.join(sorted(twice))}: given twice")
    headers = load_headers(
        api_key_file=settings.upstream_key_file, api_key_env=settings.upstream_key_env
    )
    pins: Sequence[str | None] = settings.upstream_tls_fingerprint or [None]
    if len(pins) not in (1, len(urls)):
        raise ConfigError(
            f"upstream_tls_fingerprint: expected 1 for all or {len(urls)}, one for each upstream, "
            f"got {len(pins)}"
        )
    return [
        ConnectionConfig(
            url=url,
            headers=headers,
            ca_file=settings.upstream_ca_file,
            tls_fingerprint=pin,
            max_message_bytes=serving.max_message_bytes,
        )
        for url, pin in zip(urls, cycle(pins), strict=False)
    ]
