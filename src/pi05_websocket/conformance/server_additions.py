# SPDX-License-Identifier: Apache-2.0
"""Checks of a server that reads `_rt` or `_images`, or speaks a dialect with episodes."""

from __future__ import annotations

import textwrap
from typing import Any, Final

import numpy as np

from pi05_websocket.conformance.checks import Check
from pi05_websocket.conformance.judging import (
    actions_fault,
    announces_realtime,
    decoded,
    error_fault,
    is_error,
    realtime_answer_fault,
    refusal_fault,
)
from pi05_websocket.conformance.target import Session, Target, Unmet
from pi05_websocket.conformance.verdicts import Found, not_applicable, ok, wrong
from pi05_websocket.data import Float32Array
from pi05_websocket.wire import codec
from pi05_websocket.wire.encoded_images import encode_images, reads_jpeg
from pi05_websocket.wire.messages import read_actions
from pi05_websocket.wire.realtime import (
    REALTIME_KEY,
    RealtimeRequest,
    realtime_support,
    with_realtime,
)
from pi05_websocket.wire.refusals import REFUSED

__all__ = ["CHECKS", "NO_ROWS", "continuing"]

NO_ROWS: Final[Float32Array] = np.zeros((0, 0), np.float32)
"""The leftover of a robot that has no running chunk."""
_SEQ: Final = 41
_LONGEST_REFUSAL: Final = 80
"""Characters of a refusal that are shown, cut at a word."""
_NO_REALTIME: Final = "no _rt of version 1 in the metadata"


def _realtime(session: Session, deadline_ms: float | None = None) -> tuple[dict[str, Any], int]:
    """Return a request that continues the chunk of an answer, and how many rows it sends."""
    rows = read_actions(decoded(session.answer()))
    support = realtime_support(session.metadata)
    if support is None or not support.conditions:
        rows = rows[:0]
    return continuing(session.request(), rows, seq=_SEQ, deadline_ms=deadline_ms), len(rows)


def continuing(
    request: dict[str, Any], rows: Float32Array, *, seq: int, deadline_ms: float | None = None
) -> dict[str, Any]:
    """Return a request with `_rt` whose leftover these rows are."""
    said = RealtimeRequest(
        seq=seq,
        leftover=np.asarray(rows, np.float32),
        delay=min(1, len(rows)),
        execution_horizon=max(1, len(rows) // 2),
        control_hz=30.0,
        deadline_ms=deadline_ms,
    )
    return with_realtime(request, said)


def _realtime_answer(target: Target) -> Found:
    session = target.begin()
    if not announces_realtime(session.metadata):
        return not_applicable(_NO_REALTIME)
    request, rows = _realtime(session)
    heard = session.ask(request)
    if heard.what != "binary":
        return wrong(f"{heard} for a request with _rt")
    fault = realtime_answer_fault(heard.payload, seq=_SEQ, rows=rows)
    return wrong(fault) if fault else ok(str(decoded(heard.payload)[REALTIME_KEY]))


def _realtime_wrong(target: Target) -> Found:
    session = target.begin()
    if not announces_realtime(session.metadata):
        return not_applicable(_NO_REALTIME)
    session.answer()  # else the error may be about the observation
    heard = session.ask({**session.request(), REALTIME_KEY: {"seq": -1}})
    fault = error_fault(target.dialect, heard.said, session.after_error()[0])
    return wrong(fault) if fault else ok("an error")


def _stock_request(target: Target) -> Found:
    session = target.begin()
    if not announces_realtime(session.metadata):
        return not_applicable(_NO_REALTIME)
    try:
        answer = session.answer()
    except Unmet as exc:
        if not _answered_with_realtime(target):  # then it is not the want of `_rt` that it minds
            raise
        return wrong(str(exc))
    if REALTIME_KEY in decoded(answer):
        return wrong("an answer with _rt to a request without")
    return ok("an answer without _rt")


def _answered_with_realtime(target: Target) -> bool:
    session = target.begin()
    heard = session.ask(continuing(session.request(), NO_ROWS, seq=_SEQ))
    return heard.said is not None and not is_error(target.dialect, heard.said)


def _refusal(target: Target) -> Found:
    session = target.begin()
    support = realtime_support(session.metadata)
    if support is None or not support.refusals:
        return not_applicable("it announces no refusals")
    request, _ = _realtime(session, deadline_ms=0.0)
    heard = session.ask(request)
    said = heard.said
    if isinstance(said, bytes):
        return not_applicable("it answered a request whose time was up")
    if said is None or not said.startswith(REFUSED):
        return wrong(f"{heard} for a request whose time was up")
    fault = refusal_fault(said)
    if fault:
        return wrong(fault)
    try:
        session.answer()
    except Unmet as exc:
        return wrong(f"after a refusal: {exc}")
    return ok(textwrap.shorten(said, _LONGEST_REFUSAL, placeholder=" …"))


def _images(target: Target) -> Found:
    session = target.begin()
    if not reads_jpeg(session.metadata):
        return not_applicable("no _images with jpeg in the metadata")
    session.answer()
    request, count = encode_images(session.request(), 90)
    if not count:
        return not_applicable("the observation has no image of at least 16x16 pixels")
    heard = session.ask(request)
    if heard.said is None or is_error(target.dialect, heard.said):
        return wrong(f"{heard} for an observation with {count} encoded images")
    fault = actions_fault(target.dialect, heard.payload)
    return wrong(fault) if fault else ok(f"an answer to {count} encoded images")


def _images_wrong(target: Target) -> Found:
    session = target.begin()
    if not reads_jpeg(session.metadata):
        return not_applicable("no _images with jpeg in the metadata")
    session.answer()  # else the error may be about the observation
    broken = {"__image__": "jpeg", "data": b"no file", "shape": [32, 32, 3], "layout": "hwc"}
    heard = session.ask({**session.request(), "conformance": broken})
    fault = error_fault(target.dialect, heard.said, session.after_error()[0])
    return wrong(fault) if fault else ok("an error")


def _episode(target: Target) -> Found:
    style = target.dialect.reset
    if style == "none":
        return not_applicable(f"the dialect {target.dialect.name} has no message for it")
    session = target.begin(episode=False)
    session.link.send_message(codec.encode(target.reset()))
    if style != "silent":
        heard = session.hear()
        if heard.what != ("text" if style == "text" else "binary"):
            return wrong(f"{heard} for the message that begins an episode")
        if isinstance(heard.said, bytes) and is_error(target.dialect, heard.said):
            return wrong("an error for the message that begins an episode")
        if style == "text" and heard.said != target.dialect.reset_answer:
            return wrong(f"the text {heard.said!r}")
    elif session.link.message(target.settings.quiet_s).what != "silence":
        return wrong("an answer to a message that has none")
    fault = actions_fault(target.dialect, session.answer())
    return wrong(fault) if fault else ok(f"as the dialect {target.dialect.name} says, then actions")


CHECKS: Final[tuple[Check[Target], ...]] = (
    Check(
        name="rt-answer",
        clauses=("RT-4",),
        expected="_rt in the answer: seq, delay, prefix, queue_ms, infer_ms",
        look=_realtime_answer,
    ),
    Check(
        name="rt-wrong",
        clauses=("RT-5",),
        expected="an error for _rt without its fields",
        look=_realtime_wrong,
    ),
    Check(
        name="rt-stock",
        clauses=("RT-6",),
        expected="an answer without _rt to a request without",
        look=_stock_request,
    ),
    Check(
        name="refusal",
        clauses=("RT-8",),
        expected="`RequestRefused: KIND: text`, and the next request is answered",
        look=_refusal,
    ),
    Check(
        name="images",
        clauses=("IM-4",),
        expected="an answer to encoded images",
        look=_images,
    ),
    Check(
        name="images-wrong",
        clauses=("IM-5",),
        expected="an error for a file that is none",
        look=_images_wrong,
    ),
    Check(
        name="episode",
        clauses=("D-1",),
        expected="the dialect's answer to the message that begins an episode, then actions",
        look=_episode,
    ),
)
"""In the order in which they are made."""
