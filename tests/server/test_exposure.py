# SPDX-License-Identifier: Apache-2.0
"""Who can reach an address, and what a server needs for it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.errors import ConfigError
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.server.exposure import (
    forwarded_for,
    is_loopback,
    is_private,
    not_behind_a_proxy,
    shows_tracebacks,
    why_not_safe,
)

TLS = {"tls_cert": "c", "tls_key": "k"}


@pytest.mark.parametrize(
    ("host", "loopback", "private"),
    [
        ("127.0.0.1", True, True),
        ("127.8.8.8", True, True),
        ("::1", True, True),
        ("::ffff:127.0.0.1", True, True),
        ("localhost", True, False),
        ("LocalHost", True, False),
        ("localhost.example.org", False, False),
        ("", False, False),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("10.0.0.5", False, True),
        ("192.168.1.2", False, True),
        ("fd00::1", False, True),
        ("fe80::1%eth0", False, True),
        ("::ffff:8.8.8.8", False, False),
        ("8.8.8.8", False, False),
        ("100.64.0.7", False, False),
        ("gpu-box", False, False),
    ],
)
def test_who_is_there(host: str, loopback: bool, private: bool) -> None:
    """This machine, a private network, or anybody; names are not looked up."""
    assert (is_loopback(host), is_private(host)) == (loopback, private)


@pytest.mark.parametrize(
    ("host", "settings", "missing"),
    [
        ("127.0.0.1", {}, []),
        ("localhost", {}, []),
        ("0.0.0.0", {}, ["keys", "TLS"]),
        ("", {}, ["keys", "TLS"]),
        ("10.0.0.5", {}, ["keys", "TLS"]),
        ("0.0.0.0", {"keys": "f"}, ["TLS"]),
        ("0.0.0.0", TLS, ["keys"]),
        ("0.0.0.0", {"keys": "f", **TLS}, []),
        ("0.0.0.0", {"tls_client_ca": "a", **TLS}, []),
        ("10.0.0.5", {"behind_proxy": True}, ["keys"]),
        ("127.0.0.1", {"behind_proxy": True}, ["keys"]),
        ("127.0.0.1", {"behind_proxy": True, "keys": "f"}, []),
        ("10.0.0.5", {"behind_proxy": True, "keys": "f"}, []),
    ],
)
def test_what_is_missing(host: str, settings: dict[str, Any], missing: list[str]) -> None:
    """Others must be known, and what travels encrypted; the text names the flags."""
    text = why_not_safe(host, ServerConfig(**settings))
    assert [word for word in ("keys", "TLS") if f"no {word} (" in (text or "")] == missing
    assert (text is None) == (not missing)


@pytest.mark.parametrize(
    ("host", "told"),
    [("127.0.0.1", False), ("10.0.0.5", False), ("0.0.0.0", True), ("8.8.8.8", True), ("", True)],
)
def test_a_proxy_must_be_alone_before_the_server(scripted: Any, host: str, told: bool) -> None:
    """An address that everybody reaches is no place behind a proxy."""
    config = ServerConfig(behind_proxy=True)
    assert (not_behind_a_proxy(host, config) is not None) == told
    assert not_behind_a_proxy(host, ServerConfig()) is None
    if told:
        with pytest.raises(ConfigError, match="can be reached around the proxy"):
            WebsocketPolicyServer(scripted, host, 0, config=config)


@pytest.mark.parametrize(
    ("peer", "settings", "shown"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("10.0.0.5", {}, False),
        ("?", {}, False),
        ("127.0.0.1", {"behind_proxy": True}, False),
        ("10.0.0.5", {"debug": True}, True),
        ("127.0.0.1", {"behind_proxy": True, "debug": True}, True),
    ],
)
def test_who_sees_tracebacks(peer: str, settings: dict[str, Any], shown: bool) -> None:
    """This machine's own clients; others with debug alone."""
    assert shows_tracebacks(peer, ServerConfig(**settings)) is shown


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ([], None),
        (["203.0.113.9"], "203.0.113.9"),
        (["1.2.3.4, 203.0.113.9"], "203.0.113.9"),
        (["1.2.3.4", "2001:db8::1"], "2001:db8::1"),
        (["203.0.113.9, who=admin"], None),
        ([""], None),
        (["fe80::1%eth0"], "fe80::1"),
        (["::1%x opened by admin"], "::1"),
    ],
)
def test_the_address_a_proxy_saw(headers: list[str], address: str | None) -> None:
    """The last one, if it is an address: whoever connects can send the ones before."""
    assert forwarded_for(headers) == address


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_name(host: str) -> None:
    """Nothing is raised, and what is no address is neither loopback nor private."""
    assert isinstance(is_loopback(host), bool)
    assert isinstance(is_private(host), bool)


@pytest.mark.parametrize(
    ("host", "settings", "said"),
    [
        ("0.0.0.0", {}, "NOT SAFE: other computers can reach 0.0.0.0"),
        ("0.0.0.0", {"insecure": True}, None),
        ("127.0.0.1", {}, None),
        (
            "127.0.0.1",
            {"behind_proxy": True},
            "NOT SAFE: other computers can reach 127.0.0.1 through",
        ),
        ("127.0.0.1", {"behind_proxy": True, "insecure": True}, "TLS ends at a proxy"),
    ],
)
def test_from_python_it_is_said_in_the_log(
    scripted: Any,
    host: str,
    settings: dict[str, Any],
    said: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """OpenPI's call starts as ever, with a warning."""
    caplog.set_level(logging.INFO)
    with WebsocketPolicyServer(scripted, host, 0, config=ServerConfig(**settings)):
        pass
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert (said or "serving Scripted") in text
    assert ("NOT SAFE" in text) == bool(said and said.startswith("NOT SAFE"))
