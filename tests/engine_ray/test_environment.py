# SPDX-License-Identifier: Apache-2.0
"""What Ray has to find in its environment."""

from __future__ import annotations

import sys
import types

import pytest

from pi05_websocket.engine_ray.environment import (
    NEEDED,
    USEFUL,
    check,
    exports,
    prepare,
    wrong,
)
from pi05_websocket.errors import ConfigError


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if Ray were not imported yet, whatever other tests do."""
    monkeypatch.delitem(sys.modules, "ray.serve", raising=False)


def test_what_is_not_set_is_set() -> None:
    """And what is set stays, where it is enough."""
    environment = {
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "7200",
        "RAY_SERVE_PORT_QUARANTINE_S": "9",
    }
    prepare(environment)
    assert environment == {
        **NEEDED,
        **USEFUL,
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "7200",
        "RAY_SERVE_PORT_QUARANTINE_S": "9",
    }
    assert wrong(environment) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RAY_SERVE_ENABLE_HA_PROXY", "0"),
        ("RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH", "4194304"),
        ("RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S", "soon"),
    ],
)
def test_what_is_set_otherwise_is_said(name: str, value: str) -> None:
    """With the lines that put it right."""
    with pytest.raises(ConfigError) as caught:
        prepare({name: value})
    assert f"{name} is {value}" in str(caught.value)
    assert exports() in str(caught.value)


def test_a_machine_that_was_started_without() -> None:
    """Each missing name, and where."""
    with pytest.raises(ConfigError, match=r"on 10\.0\.0\.7 .*RAY_SERVE_ENABLE_HA_PROXY is not set"):
        check({}, "10.0.0.7")


def test_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray reads it once, when it is imported."""
    monkeypatch.setitem(sys.modules, "ray.serve", types.ModuleType("ray.serve"))
    with pytest.raises(ConfigError, match="Ray is imported already"):
        prepare({})
    prepare({**NEEDED, **USEFUL})
