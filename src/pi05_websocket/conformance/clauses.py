# SPDX-License-Identifier: Apache-2.0
"""The clauses of the protocol, by id: what a server or a client must do, and whether the kit looks at it. Pure.

The tables in docs/reference/protocol.md are made from this one. The words are in `clause_text`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from pi05_websocket.conformance.clause_text import TEXT

__all__ = ["CLAUSES", "GROUPS", "PROTOCOL_VERSION", "Clause", "Level", "Role", "markdown_clauses"]

PROTOCOL_VERSION: Final = "1.0"
"""Of the text. The first number changes where a peer that conformed may no longer, the second otherwise."""

Level = Literal["must", "should"]
Role = Literal["both", "server", "client"]

GROUPS: Final = {
    "W": "encoding",
    "S": "server",
    "C": "client",
    "RT": "realtime",
    "IM": "images",
    "D": "dialects",
}
"""What an id begins with -> the section."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One rule."""

    id: str
    level: Level
    binds: Role
    text: str
    unchecked: str = ""
    """Why the kit does not look at it; empty: it does."""

    how: str = ""
    """How far the kit looks; empty: at all of it."""

    stock: str = ""
    """What OpenPI's own does instead; empty: as the clause says."""

    @property
    def group(self) -> str:
        """The section it stands in."""
        return GROUPS[self.id.partition("-")[0]]


def _read(paragraph: str) -> Clause:
    """Return the clause that a paragraph of `TEXT` is."""
    head, *lines = paragraph.strip().splitlines()
    name, level, binds = head.split()
    parts = {"text": "", "unchecked": "", "how": "", "stock": ""}
    part = "text"
    for line in lines:
        word, colon, rest = line.partition(": ")
        if colon and word in parts:
            part, line = word, rest
        parts[part] = f"{parts[part]} {line}".strip()
    return Clause(id=name, level=_LEVELS[level], binds=_ROLES[binds], **parts)


_LEVELS: Final[dict[str, Level]] = {level: level for level in get_args(Level)}
_ROLES: Final[dict[str, Role]] = {role: role for role in get_args(Role)}

CLAUSES: Final[dict[str, Clause]] = {clause.id: clause for clause in map(_read, TEXT.split("\n\n"))}
"""Every clause, by its id, in the order of the text."""


def markdown_clauses(group: str) -> str:
    """Return the table of a section."""
    rows = ["| id | binds | | kit |", "|---|---|---|---|"]
    for clause in CLAUSES.values():
        if clause.group != group:
            continue
        text = clause.text + (
            f" *OpenPI's {_whose(clause)}: {clause.stock}.*" if clause.stock else ""
        )
        checked = f"no: {clause.unchecked}" if clause.unchecked else "yes"
        if clause.how:
            checked = f"yes, {clause.how}"
        said = text.replace("|", r"\|")
        rows.append(f"| `{clause.id}` | {clause.binds} | {said} | {checked} |")
    return "\n".join(rows)


def _whose(clause: Clause) -> str:
    return "own" if clause.binds == "both" else clause.binds
