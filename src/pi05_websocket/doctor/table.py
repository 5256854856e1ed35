# SPDX-License-Identifier: Apache-2.0
"""Findings as a table that a beginner reads. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from pi05_websocket.doctor.findings import Finding

__all__ = ["report"]

_SHOWN = {
    "passed": "ok",
    "refused": "WRONG",
    "look": "LOOK",
    "needs dataset": "NEEDS DATA",
    "skipped": "skipped",
}
_GROUP, _OUTCOME, _WIDTH = 9, 10, 108


def report(findings: Sequence[Finding]) -> str:
    """Return the table, and what it comes to in a sentence."""
    lines = [f"{'what':{_GROUP}}  {'verdict':{_OUTCOME}}  what was seen, and what to do"]
    for finding in findings:
        head = f"{finding.group:{_GROUP}}  {_SHOWN[finding.outcome]:{_OUTCOME}}  "
        lines += _wrapped(head, finding.said)
        if finding.fix:
            lines += _wrapped(" " * len(head) + "-> ", finding.fix)
    return "\n".join([*lines, "", _sum(findings)])


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _sum(findings: Sequence[Finding]) -> str:
    count = {outcome: sum(finding.outcome == outcome for finding in findings) for outcome in _SHOWN}
    parts = [
        f"{count['passed']} passed",
        f"{count['refused']} wrong",
        f"{count['look']} for your eye",
        f"{count['needs dataset']} that nothing here can tell",
        f"{count['skipped']} skipped",
    ]
    end = (
        "Do not let the arm move yet."
        if count["refused"]
        else "Nothing speaks against a careful first motion."
    )
    if not count["refused"] and count["look"]:
        end = "Nothing is refused. Look at what is marked LOOK before the arm moves."
    return f"{', '.join(parts)}.\n{end}"
