# SPDX-License-Identifier: Apache-2.0
"""What ingress and replicas say to each other, and that versions may differ."""

from __future__ import annotations

import numpy as np
import pytest

from pi05_websocket.engine_ray.messages import Answer, Ask, Description, reads_refusals
from pi05_websocket.server.requests import Answered, Done, Failed, Outcome, Refused
from pi05_websocket.wire import codec
from pi05_websocket.wire.realtime import RealtimeRequest, with_realtime
from pi05_websocket.wire.refusals import Refusal


@pytest.mark.parametrize(
    "outcome",
    [
        Answered(message=b"reply", queue_ms=1.0, infer_ms=2.0, batch=3),
        Failed(text="KeyError: x", cause="KeyError: x"),
        Failed(text="KeyError: x", cause="KeyError: x", message=b"typed", closes=False),
        Done(message=None, begins_episode=True),
        Done(message="reset successful", begins_episode=True),
        Done(message=b"pong"),
        Refused(refusal=Refusal(kind="late", text="too late", retry_after_s=0.5)),
        Refused(refusal=Refusal(kind="superseded", text="newer")),
    ],
)
def test_outcomes_travel(outcome: Outcome) -> None:
    """There and back they are the same."""
    said = Answer.of(outcome, "g1").to_map()
    assert Answer.from_map(said).outcome() == outcome
    assert said["generation"] == "g1"


def test_other_versions_are_understood() -> None:
    """Names that are not known are passed over, those that miss have a default, a new refusal is `busy`."""
    ask = Ask.from_map({"session": "i:1", "number": 4, "colour": "red"})
    assert ask == Ask(session="i:1", number=4)
    strange = Answer(kind="refused", refusal="tired", text="zzz").outcome()
    assert strange == Refused(refusal=Refusal(kind="busy", text="zzz"))
    described = Description.from_map({"metadata": b"\x80", "generation": "g", "more": 1})
    assert described == Description(metadata=b"\x80", generation="g")


def test_who_reads_refusals() -> None:
    """A robot that says something of itself; not a stock client, and not a text."""
    stock = {"observation/state": np.zeros(6, np.float32)}
    request = RealtimeRequest(
        seq=1, leftover=np.zeros((0, 6), np.float32), delay=0, execution_horizon=10, control_hz=30.0
    )
    assert reads_refusals(codec.encode(with_realtime(stock, request)))
    assert not reads_refusals(codec.encode(stock))
    assert not reads_refusals("_rt")
