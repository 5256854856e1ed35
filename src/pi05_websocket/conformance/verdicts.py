# SPDX-License-Identifier: Apache-2.0
"""What a check ends in, and what all of them come to: for people, for programs, as an exit code. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pi05_websocket.conformance.clauses import PROTOCOL_VERSION, Level

__all__ = [
    "Found",
    "Lacks",
    "Outcome",
    "Verdict",
    "as_maps",
    "conforms",
    "failures",
    "not_applicable",
    "ok",
    "report",
    "unjudged",
    "wrong",
]

Outcome = Literal["passed", "failed", "not applicable", "skipped"]
"""`not applicable`: nothing is offered that the clause is about. `skipped`: what it needs did not come,
or allows no judgement."""

Lacks = Literal["", "server", "observation"]
"""Why a check was skipped: `server`: nobody answers at the address; `observation`: the server takes another
one than it was sent; empty: anything else."""

_SHOWN = {"passed": "ok", "failed": "FAILED", "not applicable": "n/a", "skipped": "skipped"}
_WIDTH = 108


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a check saw."""

    outcome: Outcome
    got: str
    broken: tuple[str, ...] = ()
    """Clauses that were broken; empty: all of the check's, where it failed."""
    lacks: Lacks = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a check came to."""

    check: str
    clauses: tuple[str, ...]
    """Those it looks at; of a failed one those that were broken."""

    level: Level
    outcome: Outcome
    expected: str
    got: str
    lacks: Lacks = ""


def ok(got: str) -> Found:
    """Return what a check found in order."""
    return Found(outcome="passed", got=got)


def wrong(got: str, *broken: str) -> Found:
    """Return what a check found to be otherwise than expected."""
    return Found(outcome="failed", got=got, broken=broken)


def not_applicable(why: str) -> Found:
    """Return that there is nothing to look at."""
    return Found(outcome="not applicable", got=why)


def unjudged(why: str) -> Found:
    """Return that what a check saw allows no judgement."""
    return Found(outcome="skipped", got=why)


def failures(verdicts: Iterable[Verdict], level: Level = "must") -> list[Verdict]:
    """Return the verdicts of a level that failed."""
    return [each for each in verdicts if each.outcome == "failed" and each.level == level]


def conforms(verdicts: Sequence[Verdict]) -> bool:
    """Say whether every MUST that was looked at was seen to be kept, and anything was seen at all."""
    musts = {each.outcome for each in verdicts if each.level == "must"}
    seen = {each.outcome for each in verdicts} & {"passed", "failed"}
    return bool(seen) and not musts & {"failed", "skipped"}


def as_maps(verdicts: Sequence[Verdict], who: str) -> dict[str, Any]:
    """Return verdicts as plain maps, for programs."""
    return {
        "protocol": PROTOCOL_VERSION,
        "examined": who,
        "conforms": conforms(verdicts),
        "verdicts": [{**asdict(each), "clauses": list(each.clauses)} for each in verdicts],
    }


def report(verdicts: Sequence[Verdict], who: str) -> str:
    """Return the verdicts as a table, and what they come to in a sentence."""
    if verdicts and all(each.lacks == "server" for each in verdicts):
        return (
            f"Nothing could be judged: {verdicts[0].got}. Is the server running, and are host and port right? "
            "On another computer it needs --host 0.0.0.0."
        )
    names = max((len(each.check) for each in verdicts), default=5)
    ids = max((len(_ids(each)) for each in verdicts), default=6)
    lines = [f"{who}, protocol {PROTOCOL_VERSION}", ""]
    for each in verdicts:
        head = (
            f"{each.check:{names}}  {_ids(each):{ids}}  {each.level:6}  {_SHOWN[each.outcome]:7}  "
        )
        lines += _wrapped(head, each.got)
        if each.outcome == "failed":
            lines += _wrapped(" " * len(head) + "expected: ", each.expected)
    return "\n".join([*lines, "", _sum(verdicts)])


def _ids(verdict: Verdict) -> str:
    ids = verdict.clauses
    return " ".join(ids) if len(ids) < 4 else f"{ids[0]}..{ids[-1]}"


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        max(_WIDTH, len(head) + 40),
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    ) or [head.rstrip()]


def _sum(verdicts: Sequence[Verdict]) -> str:
    count = {outcome: sum(each.outcome == outcome for each in verdicts) for outcome in _SHOWN}
    musts, shoulds = len(failures(verdicts)), len(failures(verdicts, "should"))
    parts = (
        f"{count['passed']} passed, {musts} of MUST failed, {shoulds} of SHOULD, "
        f"{count['not applicable']} not applicable, {count['skipped']} skipped."
    )
    if musts:
        return f"{parts}\nIt does not conform."
    if not conforms(verdicts):
        return f"{parts}\nNot everything could be judged.{_what_to_give(verdicts)}"
    kept = any(each.outcome == "passed" and each.level == "must" for each in verdicts)
    return f"{parts}\n{'It conforms.' if kept else 'No MUST was looked at.'}"


def _what_to_give(verdicts: Sequence[Verdict]) -> str:
    if not any(each.lacks == "observation" for each in verdicts):
        return ""
    return (
        " The server refused the observation that it was sent: give one that its policy takes "
        "with --observation FILE, or another key map's names with --keymap NAME."
    )
