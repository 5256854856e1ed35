# SPDX-License-Identifier: Apache-2.0
"""What is done to a client, step by step: answers of every form, pings, silence, errors, a close, a cut.

Each step is a check and leaves the next one a client that may be anywhere: asking, gone, or coming back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from pi05_websocket.conformance.checks import Check
from pi05_websocket.conformance.frames import CLOSE, PING, close_payload
from pi05_websocket.conformance.judging import decoded
from pi05_websocket.conformance.link import Heard
from pi05_websocket.conformance.target import Unmet
from pi05_websocket.conformance.verdicts import Found, not_applicable, ok, unjudged, wrong
from pi05_websocket.conformance.visit import Visit
from pi05_websocket.wire import codec
from pi05_websocket.wire.encoded_images import image_announcement
from pi05_websocket.wire.protocol import TRACEBACK_CLOSE_REASON
from pi05_websocket.wire.realtime import REALTIME_KEY, RealtimeSupport, announcement
from pi05_websocket.wire.refusals import Refusal, refusal_text

__all__ = ["ANNOUNCING", "SCRIPT"]

BIG_BYTES: Final = 8 * 1024 * 1024
ANNOUNCING: Final[dict[str, Any]] = {
    "reset_pose": [0, -1.5, 1.5, 0, 0, 0],
    "conformance": {"nested": [1, "two", None], "array": np.zeros(3, np.float32)},
    **image_announcement(),
    **announcement(RealtimeSupport(prefix="none", refusals=True)),
}
"""Metadata that says more than any stock server's."""
_TIMING: Final = {"server_timing": {"infer_ms": 1.5}}
_MARGIN: Final = 1.25
"""Two times that differ by less are not told apart."""
_SENT_AHEAD_S: Final = 0.1
"""A second request that comes sooner was not sent because the first one's answer is late."""
_ERROR: Final = (
    "Traceback (most recent call last):\n"
    '  File "conformance.py", line 1, in infer\n'
    "KeyError: 'conformance: this error is made on purpose'\n"
)


def _nothing_agreed(visit: Visit) -> Found:
    visit.welcome()
    heard = visit.hear()
    head = visit.evidence.upgrades[0]
    offered = [
        f"{name}: {head.get(name)}"
        for name in ("sec-websocket-extensions", "sec-websocket-protocol")
        if head.all(name)
    ]
    if heard.what == "closed":
        return wrong(f"{heard} after an upgrade without any; offered: {offered or 'nothing'}")
    if heard.said is None:
        raise Unmet(f"expected a request, got {heard}")
    visit.keep(heard)
    return ok(f"went on without; offered: {', '.join(offered) or 'nothing'}")


def _answers(visit: Visit) -> Found:
    forms: dict[str, Callable[[Any], dict[str, Any]]] = {
        "float64, with timings": lambda rows: {"actions": rows.astype(np.float64), **_TIMING},
        "float32, without timings": lambda rows: {"actions": rows},
        "other keys": lambda rows: {
            "state": rows[0],
            "actions": rows,
            "policy_timing": {"infer_ms": 1.0},
            "server_timing": {"infer_ms": 1.5, "prev_total_ms": 3.0},
            "conformance": {"text": "é", "scalar": np.float32(1.5), "none": None},
        },
    }
    for name, form in forms.items():
        heard = visit.answer(codec.encode(form(visit.rows(visit.request()))))
        if heard.said is None:
            return wrong(f"{heard} after actions in the form: {name}")
    return ok(f"asked again after each of: {'; '.join(forms)}")


def _plain(visit: Visit) -> bytes:
    return codec.encode({"actions": visit.rows(visit.request()).astype(np.float64), **_TIMING})


def _ping(visit: Visit) -> Found:
    visit.request()
    assert visit.link is not None
    visit.link.send(PING, b"conformance")
    heard = visit.link.receive(visit.settings.patience_s)
    found = (
        ok("a pong with the same payload, while it waited for an answer")
        if heard.what == "pong" and heard.payload == b"conformance"
        else wrong(f"{heard} for a ping while it waited")
    )
    if heard.said is not None:
        visit.keep(heard)
    return found


def _held(visit: Visit) -> Found:
    visit.request()
    assert visit.link is not None
    visit.link.answers_pings = False
    heard = visit.hear(visit.settings.hold_s)
    visit.link.answers_pings = True
    pings = f"{visit.link.pings} pings of its own unanswered"
    if heard.what == "closed":
        return wrong(f"{heard}, with {pings}")
    if heard.said is not None:
        visit.hang_up()
        return not_applicable("it sent another request meanwhile")
    return ok(f"waited {visit.settings.hold_s:g} s, {pings}")


def _pieces(visit: Visit) -> Found:
    heard = visit.answer(_plain(visit), in_pieces=True)
    if heard.said is None:
        return wrong(f"{heard} after an answer in three frames")
    return ok("asked again after an answer in three frames")


def _big(visit: Visit) -> Found:
    answer = decoded(_plain(visit))
    answer["conformance"] = np.zeros(BIG_BYTES - len(codec.encode(answer)) - 64, np.uint8)
    heard = visit.answer(codec.encode(answer))
    if heard.said is None:
        return wrong(f"{heard} after an answer of {BIG_BYTES} bytes")
    return ok(f"asked again after an answer of {BIG_BYTES} bytes")


def _goodbye(visit: Visit) -> Found:
    visit.request()
    assert visit.link is not None
    heard = visit.link.say_goodbye(1001, visit.settings.patience_s, "conformance")
    visit.hang_up()
    if heard.what == "silence" or heard.code == 1006:
        return wrong(f"{heard} for close code 1001 in mid-episode")
    return ok(str(heard))


def _again(after: str) -> Callable[[Visit], Found]:
    def look(visit: Visit) -> Found:
        try:
            visit.welcome()
            visit.request()
        except Unmet as exc:
            return wrong(f"after {after}: {exc}")
        return ok(f"after {after} it connected anew and asked")

    return look


def _metadata(visit: Visit) -> Found:
    visit.hang_up()
    visit.metadata = ANNOUNCING
    visit.welcome()
    heard = visit.hear()
    if heard.what == "closed":
        return wrong(f"{heard} after metadata with the keys {', '.join(ANNOUNCING)}")
    if heard.said is None:
        raise Unmet(f"expected a request, got {heard}")
    visit.keep(heard)
    return ok("asked after metadata with keys of all kinds")


def _sends_realtime(visit: Visit) -> bool:
    value = decoded(visit.request())
    return isinstance(value, dict) and REALTIME_KEY in value


def _without_realtime(visit: Visit) -> Found:
    if not _sends_realtime(visit):
        return not_applicable("it sends no _rt, announced or not")
    for what, more in {
        "no _rt": {},
        "an _rt without its fields": {REALTIME_KEY: {"seq": "x"}},
    }.items():
        heard = visit.answer(codec.encode({**decoded(_plain(visit)), **more}))
        if heard.said is None:
            return wrong(f"{heard} after actions with {what}")
    return ok("asked again after actions with no _rt, and with one without its fields")


def _refusal(visit: Visit) -> Found:
    if not _sends_realtime(visit):
        return not_applicable("it sends no _rt, announced or not")
    refusal = Refusal(kind="busy", text="conformance: made on purpose", retry_after_s=0.05)
    heard = visit.answer(refusal_text(refusal))
    if heard.said is None:
        return wrong(f"{heard} after a refusal")
    return ok("asked again on the same connection")


def _error(visit: Visit) -> Found:
    visit.request()
    assert visit.link is not None
    visit.forget()
    visit.link.send_message(_ERROR)
    visit.link.send(CLOSE, close_payload(1011, TRACEBACK_CLOSE_REASON))
    heard = visit.hear()
    visit.hang_up()
    if heard.said is not None:
        return wrong("another request on the connection of the error")
    return ok(f"no further request; {heard}")


def _late(visit: Visit) -> Found:
    executes_s = max(_executes_s(visit) for _ in range(2))
    answer = _plain(visit)
    assert visit.link is not None
    began = time.monotonic()
    heard = visit.hear(visit.settings.late_s)
    waited = time.monotonic() - began
    if heard.what == "silence":
        visit.answer(answer)
        return ok(f"waited {waited:.1f} s and went on with the answer")
    if heard.what == "closed":
        visit.hang_up()
        return ok(f"gave up after {waited:.1f} s and hung up")
    if waited < _SENT_AHEAD_S:
        visit.keep(heard)
        return not_applicable("it sends requests ahead of answers")
    visit.link.send_message(answer)
    began = time.monotonic()
    third = visit.hear(_MARGIN * max(waited, executes_s))
    came = time.monotonic() - began
    visit.keep(heard if third.said is None else third)
    asked_again = f"asked again after {waited:.1f} s on the same connection"
    if third.said is None:
        return ok(f"{asked_again}, and did not take the first answer for the second's")
    visit.link.send_message(answer)
    if max(waited, executes_s) < _MARGIN * min(waited, executes_s):
        return unjudged(
            f"it {asked_again}, and asks {executes_s:.1f} s after an answer too: too near to tell "
            "why it asked a third time. Give --action-horizon or the client's timeout another length."
        )
    if abs(came - executes_s) < abs(came - waited):
        return wrong(
            f"it {asked_again}, and once more {came:.1f} s after the first answer came, as it does after any "
            f"({executes_s:.1f} s): it took that for the second's"
        )
    return ok(
        f"{asked_again}, and once more after {came:.1f} s: it did not take the first answer for the second's"
    )


def _executes_s(visit: Visit) -> float:
    """Answer at once, and return how long the client then takes until it asks again.

    Raises:
        Unmet: It does not.
    """
    answer = _plain(visit)
    began = time.monotonic()
    heard = visit.answer(answer)
    if heard.said is None:
        raise Unmet(f"expected another request after an answer, got {heard}")
    return time.monotonic() - began


def _unreadable(visit: Visit) -> Found:
    visit.request()
    short = {b"__ndarray__": True, b"data": bytes(4), b"dtype": "<f4", b"shape": [2, 3]}
    heard = visit.answer(codec.encode({"actions": short}))
    if heard.said is not None:
        return ok("asked again")
    visit.hang_up()
    try:
        visit.request()
    except Unmet as exc:
        return wrong(f"after actions whose data is too short: {exc}")
    return ok(f"{_end(heard)}, connected anew and asked")


def _end(heard: Heard) -> str:
    return "said nothing" if heard.what == "silence" else str(heard)


def _cut(visit: Visit) -> Found:
    visit.request()
    assert visit.link is not None
    visit.link.cut()
    return _again("a connection that was cut")(visit)


SCRIPT: Final[tuple[Check[Visit], ...]] = (
    Check(
        name="nothing-agreed",
        clauses=("C-2",),
        expected="it goes on without extension and subprotocol",
        look=_nothing_agreed,
    ),
    Check(
        name="answers",
        clauses=("C-7",),
        expected="it asks again after actions in each form",
        look=_answers,
    ),
    Check(name="ping", clauses=("C-10",), expected="a pong with the ping's payload", look=_ping),
    Check(
        name="held",
        clauses=("C-11",),
        expected="it waits, though its own pings stay unanswered",
        look=_held,
    ),
    Check(
        name="pieces",
        clauses=("C-8",),
        expected="it asks again after an answer in three frames",
        look=_pieces,
    ),
    Check(
        name="big",
        clauses=("C-9",),
        expected=f"it asks again after an answer of {BIG_BYTES} bytes",
        look=_big,
    ),
    Check(
        name="goodbye",
        clauses=("C-16",),
        expected="a close frame for a close frame",
        look=_goodbye,
    ),
    Check(
        name="again-after-close",
        clauses=("C-15",),
        expected="it connects anew",
        look=_again("a close in mid-episode"),
    ),
    Check(
        name="metadata",
        clauses=("C-4",),
        expected="it asks, whatever the metadata holds",
        look=_metadata,
    ),
    Check(
        name="without-rt",
        clauses=("RT-7",),
        expected="it takes actions without _rt",
        look=_without_realtime,
    ),
    Check(
        name="refusal",
        clauses=("RT-9",),
        expected="it asks again on the same connection",
        look=_refusal,
    ),
    Check(
        name="error",
        clauses=("C-14",),
        expected="no request on a connection that ends with an error",
        look=_error,
    ),
    Check(
        name="again-after-error",
        clauses=("C-15",),
        expected="it connects anew",
        look=_again("an error"),
    ),
    Check(
        name="late",
        clauses=("C-12",),
        expected="a late answer is not taken for the next one",
        look=_late,
    ),
    Check(
        name="unreadable",
        clauses=("C-18",),
        expected="it asks again, or connects anew",
        look=_unreadable,
    ),
    Check(
        name="again-after-cut",
        clauses=("C-15",),
        expected="it connects anew",
        look=_cut,
    ),
)
"""In this order."""
