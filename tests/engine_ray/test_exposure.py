# SPDX-License-Identifier: Apache-2.0
"""Where robots may be served on Ray, and where not: the plain server's rule, for every way to deploy."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pi05_websocket.engine_ray.exposure import listens_everywhere, why_not_on_ray
from pi05_websocket.server import ServerConfig

HERE = {"10.0.0.11": ("127.0.0.1", "10.0.0.11")}
TWO = HERE | {"10.0.0.12": ("127.0.0.1", "10.0.0.12", "169.254.3.4")}
PUBLIC = HERE | {"head": ("127.0.0.1", "8.8.8.8")}
SAFE: dict[str, Any] = {"keys": "keys.json", "behind_proxy": True}


@pytest.mark.parametrize(
    ("host", "settings", "machines"),
    [
        ("127.0.0.1", {}, HERE),
        ("localhost", {}, {}),
        ("127.0.0.1", SAFE, PUBLIC),  # the proxy is on this machine
        ("0.0.0.0", SAFE, TWO),
        (None, SAFE, {}),
        ("", {"insecure": True}, PUBLIC),
        ("0.0.0.0", {"insecure": True}, TWO),
        ("0.0.0.0", SAFE | {"insecure": True}, PUBLIC),
    ],
)
def test_where_robots_may_be_served(
    host: str | None, settings: dict[str, Any], machines: dict[str, tuple[str, ...]]
) -> None:
    """On this machine alone, with keys behind a proxy on private addresses, or where somebody trusts."""
    known = dict(list(machines.items())[-1:]) if host == "127.0.0.1" else machines
    assert why_not_on_ray(host, ServerConfig(**settings), known) is None


@pytest.mark.parametrize(
    ("host", "settings", "machines", "why"),
    [
        ("0.0.0.0", {}, TWO, "no keys .* and no proxy that ends TLS"),
        (None, {}, {}, "every address of its machines"),
        ("0.0.0.0", {"keys": "k"}, TWO, "has no proxy that ends TLS"),
        ("0.0.0.0", {"behind_proxy": True}, TWO, r"has no keys \(--keys FILE"),
        ("127.0.0.1", {"behind_proxy": True}, HERE, "127.0.0.1 through its proxy"),
        ("0.0.0.0", SAFE, PUBLIC, "head has the address 8.8.8.8"),
        ("10.0.0.11", SAFE, HERE, "expected 127.0.0.1 or 0.0.0.0, got 10.0.0.11"),
        ("127.0.0.1", {}, TWO, "and there are 2: the HAProxy of one does not reach"),
        ("0.0.0.0", SAFE | {"tls": "auto"}, TWO, "speaks HTTP only"),
        ("0.0.0.0", SAFE | {"tls_cert": "c", "tls_key": "k"}, TWO, "speaks HTTP only"),
    ],
)
def test_where_not(
    host: str | None, settings: dict[str, Any], machines: dict[str, tuple[str, ...]], why: str
) -> None:
    """And what to do."""
    assert re.search(why, str(why_not_on_ray(host, ServerConfig(**settings), machines)))


@pytest.mark.parametrize("host", [None, "", "0.0.0.0"])
def test_every_address(host: str | None) -> None:
    """Ray's words for it, and nothing else."""
    assert listens_everywhere(host)
    assert not listens_everywhere("127.0.0.1")
