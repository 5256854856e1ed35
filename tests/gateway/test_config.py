# SPDX-License-Identifier: Apache-2.0
"""Settings of a gateway that cannot be meant are refused before anything is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pi05_websocket.errors import ConfigError
from pi05_websocket.gateway import GatewayConfig, PolicyGateway


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"upstream_key_file": "a", "upstream_key_env": "B"}, "give the key in one place only"),
        ({"upstream_connections": 0}, "upstream_connections must be at least 1, got 0"),
        ({"upstream_timeout_s": 0.0}, "upstream_timeout_s must be more than 0, got 0.0"),
        (
            {"upstream_first_timeout_s": float("nan")},
            "upstream_first_timeout_s must be more than 0",
        ),
        ({"upstream_retries": -1}, "upstream_retries must be at least 0, got -1"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], wrong: str) -> None:
    """Each says what it may be."""
    with pytest.raises(ConfigError, match=wrong):
        GatewayConfig(**settings)


@pytest.mark.parametrize(
    ("upstreams", "wrong"),
    [
        ([], "at least one --upstream"),
        (["ws://a:1", "ws://b:1", "ws://a:1"], "--upstream ws://a:1: given twice"),
        (["http://a:1"], "Did you mean ws://a:1"),
        (["a:8000"], "expected ws://HOST:PORT"),
    ],
)
def test_upstreams_are_checked(upstreams: list[str], wrong: str) -> None:
    """An address is one, once."""
    with pytest.raises(ConfigError, match=wrong):
        PolicyGateway(upstreams)


def test_there_is_a_fingerprint_for_each_upstream_or_one_for_all() -> None:
    """Not two for three."""
    gateway = GatewayConfig(upstream_tls_fingerprint=("sha256:" + "0" * 64,) * 2)
    with pytest.raises(ConfigError, match="expected 1 for all or 3, one for each upstream, got 2"):
        PolicyGateway(["wss://a:1", "wss://b:1", "wss://c:1"], gateway=gateway)


def test_a_key_that_cannot_be_read_is_told_at_the_start(tmp_path: Path) -> None:
    """Not when the first robot comes."""
    gateway = GatewayConfig(upstream_key_file=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="cannot be read"):
        PolicyGateway(["ws://a:1"], gateway=gateway)


def test_a_gateway_that_does_not_run_knows_nothing_of_its_upstreams() -> None:
    """They are looked for when it starts."""
    gateway = PolicyGateway(["ws://a:1", "ws://b:1"])
    assert gateway.upstreams == []
    assert repr(gateway) == "<PolicyGateway ws://127.0.0.1:8000 stopped 2 upstreams>"
