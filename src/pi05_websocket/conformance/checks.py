# SPDX-License-Identifier: Apache-2.0
"""What a check is: the clauses it looks at, what is expected, and a function that looks. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

from pi05_websocket.conformance.clauses import CLAUSES, Level
from pi05_websocket.conformance.verdicts import Found, Lacks, Verdict
from pi05_websocket.errors import ConfigError
from pi05_websocket.wire.foreign_words import in_a_line

__all__ = ["Check", "Needs", "selected", "skipped", "verdict"]

T = TypeVar("T")

_LONGEST_GOT: Final = 1000
"""Characters; a table of verdicts is for people."""

Needs = Literal["connection", "request", "rough"]
"""`connection`: sends no request, so no policy computes. `rough`: bytes that a weak server may die of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Generic[T]):
    """One look at a server or a client."""

    name: str
    clauses: tuple[str, ...]
    expected: str
    look: Callable[[T], Found]
    needs: Needs = "request"

    @property
    def level(self) -> Level:
        """Of its clauses; they have the same."""
        return CLAUSES[self.clauses[0]].level


def verdict(check: Check[T], found: Found) -> Verdict:
    """Return what a check came to; the peer's words in it are printable and not long."""
    clauses = found.broken if found.outcome == "failed" and found.broken else check.clauses
    return Verdict(
        check=check.name,
        clauses=clauses,
        level=check.level,
        outcome=found.outcome,
        expected=check.expected,
        got=in_a_line(found.got, _LONGEST_GOT),
        lacks=found.lacks,
    )


def skipped(check: Check[T], why: str, lacks: Lacks = "") -> Verdict:
    """Return that a check could not be made."""
    return verdict(check, Found(outcome="skipped", got=why, lacks=lacks))


def selected(
    checks: Iterable[Check[T]],
    *,
    only: Iterable[str] = (),
    skip: Iterable[str] = (),
    needs: Iterable[Needs] = ("connection", "request"),
) -> list[Check[T]]:
    """Return the checks to make.

    Args:
        checks: All there are.
        only: Clauses or names of checks; none: all.
        skip: The same, to leave out.
        needs: What may be done to the other side.

    Raises:
        ConfigError: A word is neither a clause that is checked nor a check.
    """
    checks = list(checks)
    wanted, unwanted, allowed = set(only), set(skip), set(needs)
    words = {word for each in checks for word in (each.name, *each.clauses)}
    unknown = sorted((wanted | unwanted) - words)
    if unknown:
        known = ", ".join(sorted(each.name for each in checks))
        reasons = [CLAUSES[word].unchecked for word in unknown if word in CLAUSES]
        why = f" ({reasons[0]})" if reasons and reasons[0] else ""
        raise ConfigError(
            f"{', '.join(unknown)}: no check on this side has that name or clause{why}. Checks: {known}"
        )
    return [
        each
        for each in checks
        if each.needs in allowed
        and (not wanted or wanted & {each.name, *each.clauses})
        and not unwanted & {each.name, *each.clauses}
    ]
