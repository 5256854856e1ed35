# SPDX-License-Identifier: Apache-2.0
"""The check that answers come in the order of their requests, which takes telling two answers apart.

By `_rt.seq` where the server reads `_rt`, by `request_id` where the dialect has one, else by the actions for
two observations that differ. Where none of them tells, the verdict says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pi05_websocket.conformance.checks import Check
from pi05_websocket.conformance.judging import (
    actions_in,
    announces_realtime,
    decoded,
    is_error,
)
from pi05_websocket.conformance.link import Heard
from pi05_websocket.conformance.server_additions import NO_ROWS, continuing
from pi05_websocket.conformance.server_exchange import UNREADABLE, told
from pi05_websocket.conformance.target import Session, Target, Unmet
from pi05_websocket.conformance.verdicts import Found, ok, wrong
from pi05_websocket.data import Float32Array
from pi05_websocket.wire import codec
from pi05_websocket.wire.realtime import read_realtime_reply
from pi05_websocket.wire.refusals import REFUSED

__all__ = ["CHECKS"]

_FURTHER_THAN_NOISE: Final = 4.0
"""Two answers are told apart by their actions where these differ by so many times more than those of two
answers to the same observation."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two requests whose answers can be told apart, or not."""

    requests: tuple[dict[str, Any], dict[str, Any]]

    whose: Callable[[bytes], int | None]
    """Of an answer: 1 or 2, the request it belongs to; None where that cannot be seen."""

    by: str
    """What tells, or why nothing does."""


def _order(target: Target) -> Found:
    session = target.begin()
    session.answer()
    pair = _pair(target, session)
    for message in (*map(codec.encode, pair.requests), UNREADABLE):
        session.link.send_message(message)
    whose: list[int | None] = []
    for place in (1, 2):
        heard = session.hear()
        if _replaced(heard, session):
            whose.append(None)
        elif isinstance(heard.said, bytes) and not is_error(target.dialect, heard.said):
            whose.append(pair.whose(heard.said))
        else:
            return wrong(f"{told(heard)} in the place of answer {place} of 3 sent ahead")
    heard = session.hear()
    if heard.said is None or not is_error(target.dialect, heard.said):
        return wrong(f"{told(heard)} for the third request, which cannot be read")
    if whose[0] == 2 or whose[1] == 1:
        places = " and ".join(
            "one" if each is None else f"that of request {each}" for each in whose
        )
        return wrong(f"for two requests sent ahead these answers: {places}, by {pair.by}")
    if whose == [None, None]:
        return ok(
            f"two answers, then the error of the third; whose they are nothing tells: {pair.by}"
        )
    return ok(f"two answers in their order, by {pair.by}, then the error of the third")


def _replaced(heard: Heard, session: Session) -> bool:
    """Say whether a request was refused: a server that reads `_rt` may refuse one that a newer one replaces."""
    said = heard.said
    refused = isinstance(said, str) and said.startswith(REFUSED)
    return refused and announces_realtime(session.metadata)


def _pair(target: Target, session: Session) -> _Pair:
    first, second = session.request(), session.request()
    if announces_realtime(session.metadata):
        numbered = (continuing(first, NO_ROWS, seq=1), continuing(second, NO_ROWS, seq=2))
        return _Pair(numbered, _seq, "_rt.seq")
    if target.dialect.request_ids:
        ids = {first["request_id"]: 1, second["request_id"]: 2}
        return _Pair((first, second), lambda answer: ids.get(_request_id(answer)), "request_id")
    return _pair_by_actions(target, first, _other(second))


def _seq(answer: bytes) -> int | None:
    reply = read_realtime_reply(decoded(answer))
    return None if reply is None else reply.seq


def _request_id(answer: bytes) -> str:
    value = decoded(answer)
    return str(value.get("request_id")) if isinstance(value, dict) else ""


def _pair_by_actions(target: Target, first: dict[str, Any], second: dict[str, Any]) -> _Pair:
    """Ask with two observations, twice with each, and see whether the actions tell them apart."""
    pair = (first, second)
    # On a connection of its own: the server may end it if the second one is not to its liking.
    session = target.begin()
    try:
        chunks = [actions_in(target.dialect, session.answer(each)) for each in pair * 2]
    except Unmet:
        return _Pair((first, first), _unseen, "it takes no other observation")
    known = [each for each in chunks if each is not None]
    if len(known) < len(chunks) or len({each.shape for each in known}) > 1:
        return _Pair(pair, _unseen, "its chunks differ in shape, or cannot be read")
    ones, twos = known[::2], known[1::2]
    noise = max(_apart(*ones), _apart(*twos))
    if _apart(ones[0], twos[0]) <= _FURTHER_THAN_NOISE * noise:
        return _Pair(pair, _unseen, "its actions do not follow from the observation alone")

    def nearer(answer: bytes) -> int | None:
        chunk = actions_in(target.dialect, answer)
        if chunk is None or chunk.shape != ones[0].shape:
            return None
        return 1 if _apart(chunk, ones[0]) < _apart(chunk, twos[0]) else 2

    return _Pair(pair, nearer, "their actions")


def _unseen(answer: bytes) -> int | None:
    return None


def _apart(one: Float32Array, other: Float32Array) -> float:
    return float(np.abs(one - other).max())


def _other(value: Any) -> Any:
    """Return an observation with images of inverted colours, and its other numbers half a unit further."""
    if isinstance(value, dict):
        return {key: _other(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_other(each) for each in value]
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        return 255 - value
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return value + value.dtype.type(0.5)
    return value


CHECKS: Final[tuple[Check[Target], ...]] = (
    Check(
        name="order",
        clauses=("S-9",),
        expected="answers in the order of the requests",
        look=_order,
    ),
)
"""In the order in which they are made."""
