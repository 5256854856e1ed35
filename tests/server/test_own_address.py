# SPDX-License-Identifier: Apache-2.0
"""Which address a server names to robots."""

from __future__ import annotations

import ipaddress
import logging
import socket

import numpy as np
import pytest

from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.server.own_address import host_for_robots, routed_address
from pi05_websocket.server.replay import ReplayPolicy


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("10.0.0.5", "10.0.0.5"),
        ("gpu-1", "gpu-1"),
        ("::1", "[::1]"),
        ("fe80::1", "[fe80::1]"),
    ],
)
def test_an_address_stays_as_it_is(host: str, shown: str) -> None:
    """In brackets where a URL wants them."""
    assert host_for_robots(host) == shown


@pytest.mark.parametrize(
    ("host", "family", "loopback"),
    [
        ("", socket.AF_INET, "127.0.0.1"),
        ("0.0.0.0", socket.AF_INET, "127.0.0.1"),
        ("::", socket.AF_INET6, "::1"),
    ],
)
def test_every_interface_is_the_one_on_the_way_to_others(
    host: str, family: socket.AddressFamily, loopback: str
) -> None:
    """Of the family that is listened on; the loopback address where there is no way."""
    shown = ipaddress.ip_address(host_for_robots(host).strip("[]"))
    assert str(shown) == (routed_address(family) or loopback)
    assert not shown.is_unspecified


def test_the_log_names_the_address_that_robots_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server on every interface is at one address, in its log as in the line for the robot."""
    caplog.set_level(logging.INFO)
    server = WebsocketPolicyServer(
        ReplayPolicy(np.zeros((1, 6))), "0.0.0.0", 0, config=ServerConfig(insecure=True)
    )
    with server:
        told = [line for line in caplog.messages if line.startswith("serving ")]
        assert len(told) == 1
        assert told[0].endswith(f" at {server.url_for_robots}")
        assert server.url_for_robots == f"ws://{host_for_robots('0.0.0.0')}:{server.port}"
