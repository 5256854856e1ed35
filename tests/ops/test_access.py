# SPDX-License-Identifier: Apache-2.0
"""Who may look, scrape and act."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pi05_websocket.ops.access import Denied, decide_access, is_own_name
from pi05_websocket.server.keys import KeySet, RobotKey, decide, hashed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SALT = bytes(16)


def key(name: str, *paths: str) -> RobotKey:
    """A key whose secret is its name."""
    digest = hashed(SALT, f"secret-{name}")
    return RobotKey(name=name, salt=SALT, sha256=digest, created=NOW, paths=paths)


KEYS = KeySet((key("admin"), key("viewer", "/"), key("prometheus", "/metrics")))


def ask(purpose: Any, who: str = "", **changes: Any) -> str | Denied:
    """Ask at a port beyond loopback that has keys, with a key and from our own page."""
    facts: dict[str, Any] = {
        "host": "gpu.example:9090",
        "authorization": [f"Bearer secret-{who}"] if who else [],
        "own_page": True,
        "admit": lambda authorization, path: decide(KEYS, authorization, path, NOW),
        "has_keys": True,
        "free_to_look": False,
        "loopback": False,
    }
    return decide_access(purpose, **(facts | changes))


@pytest.mark.parametrize(
    ("who", "look", "scrape", "act"),
    [
        ("admin", "admin", "admin", "admin"),
        ("viewer", "viewer", 403, 403),
        ("prometheus", 403, "prometheus", 403),
        ("stranger", 401, 401, 401),
        ("", 401, 401, 401),
    ],
)
def test_keys(who: str, look: str | int, scrape: str | int, act: str | int) -> None:
    """A key without paths opens everything, one with a path only that."""
    for purpose, expected in (("look", look), ("scrape", scrape), ("act", act)):
        found = ask(purpose, who)
        assert (found.status if isinstance(found, Denied) else found) == expected


def test_actions_need_our_header() -> None:
    """Another site's page cannot send it, even with a key that somebody has typed into it."""
    found = ask("act", "admin", own_page=False)
    assert isinstance(found, Denied)
    assert "X-Pi05-Ops" in found.text


def test_without_keys_nobody_acts() -> None:
    """The answer says what to set up."""
    found = ask("act", has_keys=False, free_to_look=True)
    assert isinstance(found, Denied)
    assert "--ops-admin-key-file" in found.text


@pytest.mark.parametrize(
    ("host", "loopback", "expected"),
    [
        ("localhost:9090", True, "anybody"),
        ("evil.example", True, 403),
        ("evil.example", False, "anybody"),
    ],
)
def test_free_to_look(host: str, loopback: bool, expected: str | int) -> None:
    """On this machine a name that is not this machine's leads here from somebody else's page."""
    found = ask("look", host=host, loopback=loopback, free_to_look=True)
    assert (found.status if isinstance(found, Denied) else found) == expected


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1:9090", True),
        ("LOCALHOST", True),
        ("[::1]:9090", True),
        ("[::1]", True),
        ("127.0.0.1.evil.example", False),
        ("[::2]:9090", False),
        ("", False),
    ],
)
def test_own_names(host: str, own: bool) -> None:
    """With or without a port, in either family."""
    assert is_own_name(host) == own
