# SPDX-License-Identifier: Apache-2.0
"""What a failed request is answered, and what the log says of it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pi05_websocket.errors import ObservationError
from pi05_websocket.server.failures import LONGEST_TRACEBACK, failed
from pi05_websocket.server.requests import Asker, Request
from pi05_websocket.wire.dialects import DIALECTS
from pi05_websocket.wire.protocol import ServerProtocol

LONG = "k" * 1_000_000


def request(**settings: Any) -> Request:
    """One of somebody."""
    return Request(
        connection=cast("Asker", object()),
        number=1,
        protocol=ServerProtocol({}, **settings),
        payload=b"",
        arrived=0.0,
        priority=1,
    )


def raised(exc: Exception) -> Exception:
    """Return it as somebody caught it."""
    try:
        raise exc
    except Exception as caught:
        return caught


def test_a_policy_that_fails_leaves_its_traceback_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A robot's mistake leaves a line."""
    said = failed(request(debug=False), raised(KeyError("image")))
    assert (said.text, said.cause, said.closes) == (
        "KeyError: 'image'\n",
        "KeyError: 'image'",
        True,
    )
    assert caplog.messages == ["policy failed: KeyError: 'image'"]
    assert "Traceback" in caplog.text
    caplog.clear()
    failed(request(), raised(ObservationError("state", "6 numbers", "7")))
    assert caplog.messages == [
        "request refused: ObservationError: observation['state']: expected 6 numbers, got 7"
    ]
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("exc", [KeyError(LONG), ObservationError("state", "a key", LONG)])
def test_what_a_client_sends_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture, exc: Exception, debug: bool
) -> None:
    """Nor its own link: a key of a megabyte comes back as some kilobytes."""
    said = failed(request(debug=debug), raised(exc))
    assert len(said.cause) == 300
    assert len(said.text) < 66_000
    assert len(caplog.text) < LONGEST_TRACEBACK + 1000


def test_a_dialect_with_errors_of_its_own() -> None:
    """Binary, and the cause is a line all the same."""
    said = failed(request(dialect=DIALECTS["starvla"]), raised(KeyError("image")))
    assert isinstance(said.message, bytes)
    assert said.text == said.cause == "KeyError: 'image'"
