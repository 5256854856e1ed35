# SPDX-License-Identifier: Apache-2.0
"""What a check ends in: passed, refused, a person's eye, a data set, or left out with the reason. Pure.

In: what a check saw. Out: a `Finding`; a whole list of them as an exit code or as plain maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pi05_websocket.doctor.catalogue import MISTAKES

__all__ = ["Finding", "Outcome", "as_maps", "found", "passed", "refused", "skipped"]

Outcome = Literal["passed", "refused", "look", "needs dataset", "skipped"]
"""`look`: a person has to look at a picture or a pose. `skipped`: what the check needs is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check ended in."""

    group: str
    """Which part was looked at: address, server, metadata, robot, cameras, prompt, answer, timing, data set."""

    outcome: Outcome
    said: str
    """What was seen, with its figures."""

    fix: str = ""
    """What to do; empty only where the check passed."""

    mistakes: tuple[str, ...] = ()
    """Names in the catalogue, of what this may be."""

    contract: bool = False
    """Whether what the server states contradicts the settings: no run may begin with that."""


def passed(group: str, said: str) -> Finding:
    """Return the finding of a check that has nothing to say."""
    return Finding(group=group, outcome="passed", said=said)


def skipped(group: str, said: str, fix: str) -> Finding:
    """Return the finding of a check that could not be done."""
    return Finding(group=group, outcome="skipped", said=said, fix=fix)


def found(group: str, mistake: str, said: str, *, fix: str = "", contract: bool = False) -> Finding:
    """Return the finding of a mistake, with the catalogue's verdict.

    Args:
        group: Which part was looked at.
        mistake: Its name in the catalogue.
        said: What was seen.
        fix: What to do, where it can be said better than in the catalogue.
        contract: Whether the server states it.
    """
    known = MISTAKES[mistake]
    return Finding(
        group=group,
        outcome=known.verdict,
        said=said,
        fix=fix or known.fix,
        mistakes=(mistake,),
        contract=contract,
    )


def refused(findings: Iterable[Finding]) -> bool:
    """Say whether anything was refused: then nothing should move."""
    return any(finding.outcome == "refused" for finding in findings)


def as_maps(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return findings as plain maps, for programs."""
    return [{**asdict(finding), "mistakes": list(finding.mistakes)} for finding in findings]
