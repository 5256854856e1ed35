# SPDX-License-Identifier: Apache-2.0
"""The flags by which every command reaches a policy server: key, certificate, dialect.

In: flags. Out: headers, a `ConnectionConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pi05_websocket.client import ConnectionConfig, load_headers
from pi05_websocket.client.config import AuthScheme
from pi05_websocket.wire.dialects import DialectChoice

__all__ = ["ServerAccess", "ServerKey"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKey:
    """How a policy server lets us in, and whose certificate we trust."""

    api_key_env: str | None = None
    """Name of the environment variable that holds the server's key."""

    api_key_file: str | None = None
    """File that holds the server's key."""

    auth_scheme: AuthScheme = "api-key"
    """How the key is sent: api-key as OpenPI's client does, or bearer."""

    ca_file: str | None = None
    """PEM file of certificates to trust for wss:// instead of the system's."""

    def headers(self) -> dict[str, str]:
        """Return the headers in which the key is sent.

        Raises:
            ConfigError: The key's source is missing.
        """
        return load_headers(
            api_key_env=self.api_key_env,
            api_key_file=self.api_key_file,
            auth_scheme=self.auth_scheme,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAccess(ServerKey):
    """How a policy server lets us in, and how we know that it is the right one."""

    tls_fingerprint: str | None = None
    """`sha256:...` of the server's key, as `serve --tls auto` prints it."""

    dialect: DialectChoice = "auto"
    """How the server talks; auto: by what it says of itself, else as OpenPI's."""

    def connection(self, url: str, **settings: Any) -> ConnectionConfig:
        """Return how to reach a server, or the first of several.

        Raises:
            ConfigError: The address is none, or a key's source is missing.
        """
        return ConnectionConfig(
            url=url,
            headers=self.headers(),
            ca_file=self.ca_file,
            tls_fingerprint=self.tls_fingerprint,
            dialect=self.dialect,
            **settings,
        )
