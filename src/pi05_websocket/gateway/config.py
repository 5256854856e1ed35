# SPDX-License-Identifier: Apache-2.0
"""Settings of a gateway: how it reaches its upstreams and how patient it is with them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pi05_websocket.errors import ConfigError

__all__ = ["GatewayConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """How a gateway asks the servers behind it."""

    upstream_key_file: str | None = None
    """File that holds the key for the upstreams, sent as OpenPI's client does; the robots' keys are others."""

    upstream_key_env: str | None = None
    """Environment variable that holds it, instead."""

    upstream_ca_file: str | None = None
    """PEM file of authorities to trust for `wss://` upstreams; None: the system's."""

    upstream_tls_fingerprint: tuple[str, ...] = ()
    """`sha256:…` of the upstreams' public keys, as `serve --tls auto` prints them, instead of authorities: one
    for all, or one for each upstream in their order."""

    upstream_connections: int | None = None
    """Requests that each upstream works on at once, each on a connection of its own. None: 1 for a stock
    server, which serves one at a time; twice its largest batch for one of ours, so that the next batch is
    there when it has finished one."""

    upstream_timeout_s: float = 1.0
    """Longest wait in seconds for an upstream's reply before another upstream is asked, while there is one;
    three times what it usually takes where that is longer, and less where the robot's deadline would pass."""

    upstream_first_timeout_s: float = 600.0
    """The same until it has answered once since it came: its model may be compiling."""

    upstream_retries: int = 1
    """How often a request is asked for again, elsewhere, after a reply that did not come. 0: never."""

    upstream_mismatch: Literal["refuse", "allow"] = "refuse"
    """What to do with an upstream that serves another policy than the others: leave it out, or use it."""

    def __post_init__(self) -> None:
        if self.upstream_key_file and self.upstream_key_env:
            raise ConfigError(
                "upstream_key_file and upstream_key_env: give the key in one place only"
            )
        if self.upstream_connections is not None and self.upstream_connections < 1:
            raise ConfigError(
                f"upstream_connections must be at least 1, got {self.upstream_connections}"
            )
        for name in ("upstream_timeout_s", "upstream_first_timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be more than 0, got {getattr(self, name)}")
        if self.upstream_retries < 0:
            raise ConfigError(f"upstream_retries must be at least 0, got {self.upstream_retries}")
