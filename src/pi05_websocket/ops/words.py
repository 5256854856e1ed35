# SPDX-License-Identifier: Apache-2.0
"""What went wrong, in plain words for a person and in one word for a counter. Pure.

In: what records say, partly a client's own text: whoever shows it must not take it for markup.
"""

from __future__ import annotations

import re

from pi05_websocket.server.records import DISCONNECTED

__all__ = ["closing_reason", "error_type", "in_plain_words", "percent"]

_REFUSALS = {
    "busy": "refused: the policy was too busy to answer in time",
    "late": "refused: it came too late to be answered in time",
    "superseded": "replaced by a newer observation of the same robot",
    "rate": "refused: its key may not ask so often",
}

_UNREADABLE = {"DecodeError", "EncodeError", "WireError", "ObservationError"}

_BY_CODE = {
    "1000": "goodbye",
    "1001": "goodbye",
    "1002": "protocol",
    "1008": "key",
    "1009": "too_big",
    "1011": "failed",
}


def error_type(why: str) -> str:
    """Return the name of the exception that a failure's line begins with."""
    found = re.match(r"(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w{0,63})(?=:|\Z)", why, re.ASCII)
    return found[1] if found else "other"


def in_plain_words(outcome: str, why: str) -> str:
    """Say what became of a request that was not answered.

    Args:
        outcome: `refused` or `failed`.
        why: Kind of the refusal, or the failure in one line.
    """
    if outcome == "refused":
        return _REFUSALS.get(why, f"refused: {why}")
    kind, text = error_type(why), why.partition(": ")[2]
    if kind == "KeyError":
        return f"the policy looks for {text} and the observation has no such key"
    if kind in _UNREADABLE:
        return f"what it sent does not fit: {text}"
    if "memory" in why.lower() and kind in ("OutOfMemoryError", "MemoryError", "RuntimeError"):
        return f"no memory is left for the policy: {text}"
    if kind == "TimeoutError":
        return f"it waited too long: {text}"
    return f"the policy failed: {why}"


def closing_reason(why: str) -> str:
    """Return in a word why a connection ended."""
    code, _, text = why.partition(" ")
    if text == DISCONNECTED:
        return "operator"
    if text == "the server is stopping":
        return "stopping"
    if code == "lost:":
        return "lost"
    if code == "1008" and not text.startswith("the key "):
        return "bounds"
    return _BY_CODE.get(code, "other")


def percent(part: float, whole: float) -> str:
    """Return a share as people read it; never 0 % of something."""
    share = 100.0 * part / whole
    return "less than 1 %" if 0 < share < 1 else f"{share:.0f} %"
