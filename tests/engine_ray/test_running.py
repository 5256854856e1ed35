# SPDX-License-Identifier: Apache-2.0
"""What is refused before Ray is started, and how applications are named."""

from __future__ import annotations

from typing import Any

import pytest

from pi05_websocket.engine_ray.config import RayOptions
from pi05_websocket.engine_ray.running import RayEngine, application_named
from pi05_websocket.errors import ConfigError
from pi05_websocket.server import ServerConfig


def engine(**config: Any) -> RayEngine:
    """Make one; nothing is started."""
    return RayEngine("m:f", "127.0.0.1", 0, ServerConfig(**config), RayOptions(), print)


def test_tls_ends_before_it() -> None:
    """Ray's HAProxy has none, and to say nothing would be to serve without."""
    with pytest.raises(ConfigError, match="HTTP only"):
        engine(tls_cert="cert.pem", tls_key="key.pem")
    with pytest.raises(ConfigError, match="HTTP only"):
        engine(tls="auto", keys="keys.json")


def test_paths_of_one_name_are_refused() -> None:
    """Else the last policy would answer at both."""
    options = RayOptions(also=("/a/b=m:f", "/a-b=m:g"))
    with pytest.raises(ConfigError, match="policy-a-b, policy-a-b"):
        RayEngine("m:f", "127.0.0.1", 0, ServerConfig(), options, print)


def test_nothing_is_chosen_before_it_starts() -> None:
    """Where a Ray Serve runs already, port 0 is its port."""
    assert repr(engine()) == "<RayEngine 127.0.0.1:0 idle>"


def test_each_command_has_a_name_of_its_own() -> None:
    """By which it knows later what is still its own."""
    first, second = engine(), engine()
    assert first.name != second.name
    assert first.ingress_settings.deployed_by == first.name


@pytest.mark.parametrize(
    ("path", "name"), [("/", "policy"), ("/pick", "policy-pick"), ("/a/b_c", "policy-a-b-c")]
)
def test_an_application_for_each_path(path: str, name: str) -> None:
    """Named after it."""
    assert application_named(path) == name
