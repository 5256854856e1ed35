# SPDX-License-Identifier: Apache-2.0
"""Settings of the operations port. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pi05_websocket.errors import ConfigError
from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.exposure import is_loopback, is_private

__all__ = ["OpsConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpsConfig:
    """Where to see how the server is, and who may."""

    ops_port: int | None = None
    """Port of the live page, /healthz, /readyz and /metrics. None: there is none. Needs the extra `ops`."""

    ops_host: str = "127.0.0.1"
    """Its address. Beyond this machine it asks for --ops-admin-key-file and for TLS, like --host."""

    ops_admin_key_file: str | None = None
    """Keys of those who may pause, drain and disconnect (pi05-websocket keys add NAME --file FILE). One added
    with --path / only looks, with --path /metrics only scrapes. Without the file nobody may, and beyond this
    machine nobody looks without a key of it."""

    ops_images: bool = True
    """Show what the robots' cameras see and what the policy plans. Off: figures only."""

    def __post_init__(self) -> None:
        if self.ops_port is not None and not 0 <= self.ops_port <= 65535:
            raise ConfigError(f"ops_port must be from 0 to 65535, got {self.ops_port}")
        beside = [name for name in ("ops_host", "ops_admin_key_file") if self._changed(name)]
        if self.ops_port is None and beside:
            raise ConfigError(
                f"{' and '.join(beside)} without ops_port: there is no operations port; give it one"
            )

    def _changed(self, name: str) -> bool:
        return bool(getattr(self, name) != type(self).__dataclass_fields__[name].default)

    @property
    def free_to_look(self) -> bool:
        """Whether one may look without a key: on this machine, and where there are no keys at all."""
        return self.ops_admin_key_file is None or is_loopback(self.ops_host)

    def why_not_safe(self, server: ServerConfig) -> str | None:
        """Say what is missing at an address that others can reach; None: nothing. The server's own rule."""
        if server.insecure or is_loopback(self.ops_host):
            return None
        missing = []
        if self.ops_admin_key_file is None:
            missing.append(
                "keys (--ops-admin-key-file FILE, made with pi05-websocket keys add NAME --file FILE)"
            )
        behind_proxy = server.behind_proxy and is_private(self.ops_host)
        if not server.encrypted and not behind_proxy:
            missing.append("TLS (--tls auto, or --tls-cert FILE --tls-key FILE)")
        if not missing:
            return None
        return (
            f"other computers can reach the operations port at {self.ops_host or 'every interface'}, "
            f"and it has no {' and no '.join(missing)}. On a network you trust, say --insecure."
        )
