# SPDX-License-Identifier: Apache-2.0
"""Errors travel: out of a worker process, into a copy."""

from __future__ import annotations

import copy
import pickle

import pytest

from pi05_websocket import errors
from pi05_websocket.errors import (
    ConnectionLost,
    DeadlineExceeded,
    ObservationError,
    Pi05WebsocketError,
    PolicyError,
)

PLAIN = [
    getattr(errors, name)("something")
    for name in errors.__all__
    if name not in ("ObservationError", "DeadlineExceeded")
]
MADE = [
    *PLAIN,
    ObservationError("state", "six joints", "seven", "Count them"),
    DeadlineExceeded("request", 5.0, "Raise `timeout`"),
    ConnectionLost("gone", code=1012, reason="restart"),
    PolicyError("KeyError: 'x'", detail="Traceback"),
]


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy])
def test_errors_come_back_as_they_were(error: Pi05WebsocketError, way):
    """Class, text and facts; a pool that cannot unpickle one hangs."""
    back = way(error)

    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.__dict__ == error.__dict__
