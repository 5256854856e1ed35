# SPDX-License-Identifier: Apache-2.0
"""How a server is, for people and Prometheus: on a port and a thread of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pi05_websocket.errors import ConfigError
from pi05_websocket.extras import how_to_install
from pi05_websocket.ops.config import OpsConfig

if TYPE_CHECKING:
    from pi05_websocket.ops.port import OpsPort
    from pi05_websocket.server.config import ServerConfig

__all__ = ["OpsConfig", "make_ops_port"]


def make_ops_port(config: OpsConfig, server_config: ServerConfig, *, policy: str) -> OpsPort:
    """Return an operations port that listens once it is started; imports the extra `ops`.

    Raises:
        ConfigError: The extra is not installed, or the settings are not safe.
    """
    try:
        from pi05_websocket.ops.port import OpsPort
    except ImportError as exc:
        raise ConfigError(f"--ops-port needs {exc.name or exc}: {how_to_install('ops')}") from exc
    return OpsPort(config, server_config, policy=policy)
