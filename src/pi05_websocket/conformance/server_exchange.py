# SPDX-License-Identifier: Apache-2.0
"""Checks of a server that ask it for actions: answers, their order, errors, what comes in pieces or is big."""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np

from pi05_websocket.conformance.checks import Check
from pi05_websocket.conformance.encoding import (
    encoding_faults,
    faults_text,
    is_openpis_bytes,
)
from pi05_websocket.conformance.frames import PING
from pi05_websocket.conformance.judging import (
    actions_fault,
    cause_named,
    decoded,
    error_fault,
    is_error,
    last_line,
    timing_fault,
)
from pi05_websocket.conformance.link import Heard
from pi05_websocket.conformance.server_handshake import ENCODING
from pi05_websocket.conformance.target import Session, Target, Unmet
from pi05_websocket.conformance.verdicts import Found, not_applicable, ok, wrong
from pi05_websocket.wire import codec

__all__ = ["BIG_BYTES", "CHECKS", "UNREADABLE", "told", "unharmed"]

BIG_BYTES: Final = 8 * 1024 * 1024
UNREADABLE: Final = b"\xc1"
"""The one byte that begins nothing in msgpack."""
_BEGINS_S: Final = 0.05
"""After so long a request has reached the policy, over any link that a robot could use."""
_BUSY_S: Final = 0.15
"""An inference shorter than this is over before a ping could tell."""


def _reply(target: Target) -> Found:
    session = target.begin()
    heard = session.ask()
    if heard.said is None:
        return wrong(f"{heard} instead of an answer")
    if is_error(target.dialect, heard.said):
        fault = error_fault(target.dialect, heard.said, session.after_error()[0])
        return wrong(fault) if fault else ok("an error, in the form of errors")
    more = session.link.receive(target.settings.quiet_s)
    if more.what != "silence":
        return wrong(f"a second thing after the answer: {more}")
    return ok(f"one message of {len(heard.payload)} bytes")


def _answer_encoding(target: Target) -> Found:
    session = target.begin()
    for number in (1, 2):
        faults = encoding_faults(session.answer())
        if faults:
            broken = dict.fromkeys(fault.clause for fault in faults)
            return wrong(f"answer {number}: {faults_text(faults)}", *broken)
    return ok("two answers")


def _answer_bytes(target: Target) -> Found:
    answer = target.begin().answer()
    if not is_openpis_bytes(answer):
        return wrong("other bytes than OpenPI's packer writes for the same")
    return ok("the bytes OpenPI's packer writes")


def _actions(target: Target) -> Found:
    session = target.begin()
    for _ in range(2):
        answer = session.answer()
        fault = actions_fault(target.dialect, answer)
        if fault:
            return wrong(fault)
    return ok(f"{_shape(decoded(answer))}")


def _shape(value: Any) -> str:
    found = value if isinstance(value, np.ndarray) else None
    if isinstance(value, dict):
        found = next((each for each in value.values() if isinstance(each, np.ndarray)), None)
    return "actions" if found is None else f"actions of {found.dtype} {found.shape}"


def _timing(target: Target) -> Found:
    if not target.dialect.timed:
        return not_applicable(f"the dialect {target.dialect.name} has no timing")
    session = target.begin()
    for first in (True, False):
        fault = timing_fault(session.answer(), first=first)
        if fault:
            return wrong(f"{'first' if first else 'second'} answer: {fault}")
    return ok("infer_ms, and prev_total_ms in the second answer")


def _error(target: Target) -> Found:
    return _failed_with(target, UNREADABLE)


def _text(target: Target) -> Found:
    return _failed_with(target, "conformance")


def _no_map(target: Target) -> Found:
    return _failed_with(target, codec.encode([1, 2]))


def _failed_with(target: Target, message: bytes | str) -> Found:
    session = target.begin()
    heard = session.ask(message)
    code = heard.code if heard.what == "closed" else session.after_error()[0]
    fault = error_fault(target.dialect, heard.said, code)
    return wrong(fault) if fault else ok(f"{told(heard)}, {_end(code)}")


def _reason(target: Target) -> Found:
    if target.dialect.errors not in ("text", "traceback"):
        return not_applicable(f"in the dialect {target.dialect.name} the connection stays")
    session = target.begin()
    session.ask(UNREADABLE)
    _, reason = session.after_error()
    expected = "Internal server error. Traceback included in previous frame."
    return ok(reason) if reason == expected else wrong(f"the reason {reason!r}")


def _cause(target: Target) -> Found:
    if target.dialect.errors != "text":
        return not_applicable(f"errors of the dialect {target.dialect.name} are maps")
    said = target.begin().ask(UNREADABLE).said
    if not isinstance(said, str):
        return wrong("no text")
    last = last_line(said)[:100]
    return ok(last) if cause_named(said) else wrong(f"{last!r}")


def _others(target: Target) -> Found:
    other = target.begin()
    other.answer()
    failing = target.begin()
    failing.ask(UNREADABLE)
    failing.after_error()
    return unharmed(target, other, "an error")


def _vanished(target: Target) -> Found:
    other = target.begin()
    other.answer()
    session = target.begin()
    session.link.send_message(codec.encode(session.request()))
    session.link.cut()
    return unharmed(target, other, "a client vanished")


def unharmed(target: Target, other: Session, after: str) -> Found:
    """Say whether a connection that was open, and a new one, are answered."""
    for session, which in ((other, "an open connection"), (None, "a new connection")):
        try:
            (session or target.begin()).answer()
        except Unmet as exc:
            return wrong(f"after {after}, {which}: {exc}")
    return ok(f"after {after}, an open connection and a new one are answered")


def _pieces(target: Target) -> Found:
    session = target.begin()
    session.answer()
    session.link.send_in_pieces(codec.encode(session.request()))
    heard = session.hear()
    if heard.said is None or is_error(target.dialect, heard.said):
        return wrong(f"{told(heard)} for a request in three frames with a ping between them")
    return ok("an answer to a request in three frames")


def _ping_while_busy(target: Target) -> Found:
    session = target.begin()
    session.answer()
    began = time.monotonic()
    session.link.send_message(codec.encode(session.request()))
    # Only then is the inference under way for certain: read together, both would be taken before it begins.
    if session.link.receive(_BEGINS_S).what != "silence":
        return not_applicable("the answer came too soon to tell")
    session.link.send(PING, b"busy")
    first = session.link.receive(target.answer_patience_s)
    if first.what == "pong":
        took = time.monotonic() - began
        target.answer_in(session.hear())
    busy = time.monotonic() - began
    if busy < _BUSY_S:
        return not_applicable(f"the answer came after {1000 * busy:.0f} ms, too soon to tell")
    if first.what == "pong":
        return ok(f"a pong after {1000 * took:.0f} ms, the answer after {1000 * busy:.0f}")
    return wrong(f"no pong in the {1000 * busy:.0f} ms of the inference")


def _big(target: Target) -> Found:
    session = target.begin()
    session.answer()
    small = session.ask(_padded(session, 64))
    if small.said is None:
        return wrong(f"{small} for a request with another key")
    refused = is_error(target.dialect, small.said)
    if refused and session.after_error()[0] is not None:
        session = target.begin()
    room = BIG_BYTES - len(codec.encode(_padded(session, 0))) - 64
    heard = session.ask(_padded(session, room))
    said = f"{told(heard)} to a request of {BIG_BYTES} bytes"
    if heard.said is None:
        return wrong(f"{heard} for a request of {BIG_BYTES} bytes")
    if not is_error(target.dialect, heard.said):
        return ok(said)
    if refused and _kind(heard) == _kind(small):
        return ok(f"{said}, as to a small one with another key")
    return wrong(f"{said}, and {told(small)} to a small one")


def _padded(session: Session, size: int) -> dict[str, Any]:
    return {**session.request(), "conformance": np.zeros(size, np.uint8)}


def _kind(heard: Heard) -> str:
    """Return what an error is called; its text may tell sizes."""
    said = heard.said
    text = said if isinstance(said, str) else str(decoded(said or b""))
    return last_line(text).partition(":")[0]


def _unknown_keys(target: Target) -> Found:
    session = target.begin()
    session.answer()
    heard = session.ask({**session.request(), "conformance": 1})
    if heard.said is None or is_error(target.dialect, heard.said):
        return wrong(f"{told(heard)} for an observation with another key")
    return ok("an answer to an observation with another key")


FORMS: Final[dict[str, Any]] = {
    "entries in another order": {
        b"shape": [2],
        b"dtype": "<f4",
        b"data": bytes(8),
        b"__ndarray__": True,
    },
    "0-d": np.array(1.5),
    "empty": np.zeros((0, 6), np.float32),
    "big-endian": np.arange(3, dtype=">f4"),
    "16 bits": np.arange(3, dtype=np.float16),
    "bool": np.array([True, False]),
    "text": np.array(["pick", "up"]),
    "bytes": np.array([b"pick"]),
    "a scalar": np.float32(1.5),
    "a list": [1, -1, 2**63, 1.5, None, True, b"\x00", "é"],
}
"""Every form a reader must take."""


def _forms(target: Target) -> Found:
    session = target.begin()
    session.answer()
    heard = session.ask({**session.request(), "conformance": 1})
    if heard.said is None or is_error(target.dialect, heard.said):
        return not_applicable("it takes no other keys, in which the forms could be sent")
    for name, value in FORMS.items():
        heard = session.ask({**session.request(), "conformance": value})
        if heard.said is None or is_error(target.dialect, heard.said):
            return wrong(f"{told(heard)} for an observation with {name}")
    return ok(f"answers to {len(FORMS)} observations with {', '.join(FORMS)}")


def told(heard: Heard) -> str:
    """Return in a few words what came back."""
    if heard.what != "binary":
        return str(heard)
    value = decoded(heard.payload)
    return f"a map of {', '.join(map(str, value))}" if isinstance(value, dict) else "an answer"


def _end(code: int | None) -> str:
    return "and the connection stays" if code is None else f"then close code {code}"


CHECKS: Final[tuple[Check[Target], ...]] = (
    Check(
        name="reply",
        clauses=("S-6",),
        expected="exactly one message for a request",
        look=_reply,
    ),
    Check(
        name="answer-encoding",
        clauses=ENCODING,
        expected="OpenPI's encoding",
        look=_answer_encoding,
    ),
    Check(
        name="answer-bytes",
        clauses=("W-5",),
        expected="the bytes OpenPI's packer writes",
        look=_answer_bytes,
    ),
    Check(
        name="actions",
        clauses=("S-7",),
        expected="actions: finite numbers, (action_horizon, action_dim)",
        look=_actions,
    ),
    Check(
        name="timing",
        clauses=("S-8",),
        expected="server_timing.infer_ms, and prev_total_ms from the second answer on",
        look=_timing,
    ),
    Check(
        name="error",
        clauses=("S-10",),
        expected="the dialect's error for a message that cannot be read, and its end",
        look=_error,
    ),
    Check(
        name="error-reason",
        clauses=("S-11",),
        expected="OpenPI's close reason",
        look=_reason,
    ),
    Check(
        name="error-cause",
        clauses=("S-12",),
        expected="a line `Type: text`",
        look=_cause,
    ),
    Check(
        name="text-request",
        clauses=("S-13",),
        expected="the dialect's error for a text message, and its end",
        look=_text,
    ),
    Check(
        name="no-map",
        clauses=("S-30",),
        expected="the dialect's error for the message [1, 2]",
        look=_no_map,
    ),
    Check(
        name="others",
        clauses=("S-14",),
        expected="other connections are answered after an error",
        look=_others,
    ),
    Check(
        name="pieces",
        clauses=("S-15",),
        expected="an answer to a fragmented request",
        look=_pieces,
    ),
    Check(
        name="ping-while-busy",
        clauses=("S-17",),
        expected="a pong before the answer",
        look=_ping_while_busy,
    ),
    Check(
        name="big",
        clauses=("S-24",),
        expected=f"an answer or an error to a request of {BIG_BYTES} bytes",
        look=_big,
    ),
    Check(
        name="unknown-keys",
        clauses=("S-25",),
        expected="an answer, whatever other keys there are",
        look=_unknown_keys,
    ),
    Check(
        name="forms",
        clauses=("W-9",),
        expected="an answer to every form of the encoding",
        look=_forms,
    ),
    Check(
        name="vanished",
        clauses=("S-26",),
        expected="other connections are answered after a client vanished",
        look=_vanished,
    ),
)
"""In the order in which they are made."""
