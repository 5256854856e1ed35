# SPDX-License-Identifier: Apache-2.0
"""What robots are answered where there is no reply to pass on."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from pi05_websocket.errors import ConnectionLost, DecodeError
from pi05_websocket.gateway import outcomes
from pi05_websocket.server.requests import Asker, Failed, Refused, Request
from pi05_websocket.wire.protocol import ServerProtocol, server_error
from pi05_websocket.wire.realtime import RealtimeRequest
from pi05_websocket.wire.refusals import Refusal, refusal_text

TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1, in infer\nKeyError: 1\n'


def request(*, ours: bool = False, debug: bool = False) -> Request:
    """One that came at 10.0; of our client with an answer of use for 200 ms."""
    said = RealtimeRequest(
        seq=1,
        leftover=np.zeros((0, 6), np.float32),
        delay=0,
        execution_horizon=1,
        control_hz=30.0,
        deadline_ms=200.0,
    )
    return Request(
        connection=cast("Asker", object()),
        number=1,
        protocol=ServerProtocol({}, debug=debug, deadlines=True),
        payload="",
        arrived=10.0,
        priority=1,
        realtime=said if ours else None,
    )


@pytest.mark.parametrize(("debug", "text"), [(True, TRACEBACK), (False, "KeyError: 1\n")])
def test_an_upstreams_error_is_passed_on(debug: bool, text: str) -> None:
    """Word for word to whom may see tracebacks, else what was raised."""
    outcome = outcomes.passed_on(request(debug=debug), server_error(TRACEBACK))
    assert outcome == Failed(text=text, cause="server error: KeyError: 1")


def test_an_empty_error_is_an_error() -> None:
    """It needs some text."""
    assert outcomes.passed_on(request(), server_error("")).text == "server error\n"  # type: ignore[union-attr]


def test_an_upstreams_refusal_is_passed_on() -> None:
    """Its kind, its words, its time to wait."""
    refusal = Refusal(kind="busy", text="40 wait", retry_after_s=0.25)
    outcome = outcomes.passed_on(request(ours=True), server_error(refusal_text(refusal)))
    assert outcome == Refused(refusal=refusal)


def test_what_was_lost() -> None:
    """Ours is told to ask again, a stock client gets an error."""
    error = ConnectionLost("connection lost, close code 1006")
    refused = outcomes.lost(request(ours=True), error)
    assert isinstance(refused, Refused)
    assert refused.refusal.kind == "busy"
    failed = outcomes.lost(request(), error)
    assert isinstance(failed, Failed)
    assert (
        "went away while it worked on the request: connection lost, close code 1006" in failed.text
    )


@pytest.mark.parametrize(("expected_s", "kind"), [(0.3, "late"), (0.02, "busy")])
def test_what_comes_too_late(expected_s: float, kind: str) -> None:
    """No server is quick enough, or its turn did not come."""
    refusal = outcomes.too_late(request(ours=True), 10.15, expected_s, 5)
    assert refusal.kind == kind
    assert refusal.retry_after_s == (None if kind == "late" else 0.1)


def test_what_waited_too_long() -> None:
    """Ours is told that all are busy, a stock client gets an error that names the setting."""
    refused = outcomes.overdue(request(ours=True), 130.0, 120.0, 5)
    assert isinstance(refused, Refused)
    assert refused.refusal.text == "no server answered within 120.0 s; 5 requests wait"
    failed = outcomes.overdue(request(), 130.0, 120.0, 5)
    assert isinstance(failed, Failed)
    assert "--max-wait-s" in failed.text


def test_who_was_told_of_another_policy_has_to_connect_again() -> None:
    """Its plan came from the old one."""
    assert "connect again" in outcomes.outdated(request()).text


def test_a_request_that_is_none() -> None:
    """As at a server."""
    outcome = outcomes.failed(request(), DecodeError("not msgpack"))
    assert outcome.cause == "DecodeError: not msgpack"
    assert outcome.text.endswith("DecodeError: not msgpack\n")
