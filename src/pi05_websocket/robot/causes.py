# SPDX-License-Identifier: Apache-2.0
"""Why a tick has no row: one cause from a short list, and a sentence with the figures. Pure.

In: what the player knows of link, request and chunks at that tick. Out: a `Cause`, counted in summaries,
metrics, traces and plots, told in the log.

    first_chunk          the first chunk of the episode has not come yet
    link_down            there is no connection
    policy_changed       the servers that are left serve another policy, or may: a person decides
    server_error         the policy failed on this request
    server_busy          the request waits in the server's queue, or was refused because others wait there
    chunk_rejected       an answer came that no arm may execute, or too late to be of use
    reply_late           the answer takes longer than answers have been taking
    horizon_too_short    it does not: the chunk's rows simply last shorter than an answer takes
    asked_late           the request went out too late: after a retry, or a loop that stalled
    stopped              a person has to let the arm move again
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pi05_websocket.errors import (
    DeadlineExceeded,
    Pi05WebsocketError,
    PolicyChanged,
    RequestRefused,
    ServerError,
    TransportError,
)

__all__ = ["CAUSES", "Cause", "CauseName", "Situation", "find_cause"]

CauseName = Literal[
    "first_chunk",
    "link_down",
    "policy_changed",
    "server_error",
    "server_busy",
    "chunk_rejected",
    "reply_late",
    "horizon_too_short",
    "asked_late",
    "stopped",
]
CAUSES: tuple[CauseName, ...] = get_args(CauseName)


_OPENS_S = 1.0
"""How long a connection may take to open before its absence is a cause of its own."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why there is no row."""

    name: CauseName
    text: str
    """The same with figures, as the end of a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is known at a tick without a row. Times in seconds."""

    latched: bool
    """Whether a person has to let the arm move again."""

    link: Pi05WebsocketError | None
    """Why there is no connection; None: there is one."""

    link_down_s: float
    """Since when."""

    failure: Pi05WebsocketError | None
    """Why the last request came to nothing; None once a chunk was accepted."""

    moved: bool
    """Whether a row was executed in this episode."""

    waited_s: float
    """Since when a chunk is waited for."""

    age_s: float | None
    """Age of the request under way; None: there is none."""

    expected_s: float
    """How long answers have been taking."""

    queue_s: float
    """How much of that the last one spent in the server's queue, as far as it says."""

    chunk_s: float
    """How long the last chunk lasts from its observation on; 0 before the first."""

    before: CauseName | None = None
    """The cause of the tick before, in the same pause."""


def find_cause(now: Situation) -> Cause:
    """Return the cause: what stops everything first, then what went wrong last, then what is slow."""
    if isinstance(now.link, PolicyChanged):  # before STOP: resuming alone is not what it asks for
        return Cause("policy_changed", _clause(now.link))
    if now.latched:
        return Cause("stopped", "stopped; a person has to let the arm move again")
    failure = now.failure
    # A stock server hangs up after an error: then the error is what is wrong, not the link.
    if failure is not None and not isinstance(failure, TransportError):
        return Cause(_kind(failure), _clause(failure))
    if now.link is not None:
        opens = not now.moved and now.link_down_s < _OPENS_S and now.link.retryable
        name: CauseName = "first_chunk" if opens else "link_down"
        return Cause(name, f"link down for {now.link_down_s:.1f} s: {_clause(now.link)}")
    if failure is not None:
        return Cause(_kind(failure), _clause(failure))
    if not now.moved:
        return Cause("first_chunk", f"the first chunk is under way for {now.waited_s:.1f} s")
    if now.age_s is None:
        return Cause("asked_late", "no request is under way")
    return _slow(now, now.age_s)


def _slow(now: Situation, age_s: float) -> Cause:
    usual, chunk_s = now.expected_s, now.chunk_s
    if chunk_s and 2 * usual > chunk_s:
        return Cause(
            "horizon_too_short",
            f"answers take {usual:.2f} s, more than half of a chunk's {chunk_s:.2f} s: it takes a longer "
            "chunk, a faster policy or a nearer server",
        )
    if age_s > usual and now.queue_s > usual / 2:
        return Cause(
            "server_busy",
            f"the server is busy: of {usual:.2f} s the last request waited {now.queue_s:.2f} s in its queue",
        )
    if now.before is not None and age_s <= 2 * usual:
        return Cause(
            now.before,
            f"after {now.before.replace('_', ' ')}: a new chunk is under way for {age_s:.2f} s",
        )
    if age_s > usual:
        return Cause("reply_late", f"reply late by {age_s - usual:.2f} s ({usual:.2f} s are usual)")
    return Cause(
        "asked_late", f"asked too late: the reply is under way for {age_s:.2f} s of {usual:.2f} s"
    )


def _kind(failure: Pi05WebsocketError) -> CauseName:
    if isinstance(failure, RequestRefused):
        return "reply_late" if failure.kind == "late" else "server_busy"
    if isinstance(failure, DeadlineExceeded):
        return "reply_late"
    if isinstance(failure, ServerError):
        return "server_error"
    return "link_down" if isinstance(failure, TransportError) else "chunk_rejected"


def _clause(error: Pi05WebsocketError) -> str:
    return str(error).rstrip(". ")
