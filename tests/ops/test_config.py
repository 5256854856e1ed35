# SPDX-License-Identifier: Apache-2.0
"""Where the operations port may be, and for whom."""

from __future__ import annotations

from typing import Any

import pytest

from pi05_websocket.errors import ConfigError
from pi05_websocket.ops.config import OpsConfig
from pi05_websocket.server.config import ServerConfig

TLS = {"tls_cert": "c", "tls_key": "k"}


@pytest.mark.parametrize(
    ("ops", "server", "missing"),
    [
        ({}, {}, None),
        ({"ops_host": "0.0.0.0"}, {}, "no keys (--ops-admin-key-file"),
        ({"ops_host": "0.0.0.0"}, {}, "TLS (--tls auto, or --tls-cert"),
        ({"ops_host": "0.0.0.0"}, {"insecure": True}, None),
        ({"ops_host": ""}, TLS, "at every interface, and it has no keys"),
        ({"ops_host": "10.0.0.1", "ops_admin_key_file": "f"}, {}, "it has no TLS"),
        ({"ops_host": "10.0.0.1", "ops_admin_key_file": "f"}, TLS, None),
        ({"ops_host": "10.0.0.1", "ops_admin_key_file": "f"}, {"tls": "auto"}, None),
        ({"ops_host": "10.0.0.1", "ops_admin_key_file": "f"}, {"behind_proxy": True}, None),
        ({"ops_host": "0.0.0.0", "ops_admin_key_file": "f"}, {"behind_proxy": True}, "no TLS"),
    ],
)
def test_why_not_safe(ops: dict[str, Any], server: dict[str, Any], missing: str | None) -> None:
    """Beyond this machine it needs keys and TLS, unless somebody says that the network is trusted."""
    said = OpsConfig(ops_port=0, **ops).why_not_safe(ServerConfig(**server))
    assert (said is None) == (missing is None)
    assert (missing or "") in (said or "")


@pytest.mark.parametrize(
    ("ops", "free"),
    [
        ({}, True),
        ({"ops_admin_key_file": "f"}, True),
        ({"ops_host": "0.0.0.0"}, True),
        ({"ops_host": "0.0.0.0", "ops_admin_key_file": "f"}, False),
    ],
)
def test_who_may_look_without_a_key(ops: dict[str, Any], free: bool) -> None:
    """Whoever is on this machine; beyond it, nobody where there are keys."""
    assert OpsConfig(ops_port=0, **ops).free_to_look == free


@pytest.mark.parametrize("port", [-1, 65536])
def test_ports(port: int) -> None:
    """What is no port is refused before anything is loaded."""
    with pytest.raises(ConfigError, match=f"ops_port must be from 0 to 65535, got {port}"):
        OpsConfig(ops_port=port)


@pytest.mark.parametrize("beside", [{"ops_host": "0.0.0.0"}, {"ops_admin_key_file": "f"}])
def test_settings_without_a_port_are_a_mistake(beside: dict[str, str]) -> None:
    """Somebody meant to open one."""
    with pytest.raises(ConfigError, match=f"{next(iter(beside))} without ops_port"):
        OpsConfig(**beside)  # type: ignore[arg-type]
