# SPDX-License-Identifier: Apache-2.0
"""Examine a server: make the checks one after the other, each on connections of its own.

In: settings, which checks. Out: verdicts. Blocks as long as the server takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pi05_websocket.conformance import (
    server_additions,
    server_exchange,
    server_handshake,
    server_order,
    server_rough,
)
from pi05_websocket.conformance.checks import Check, skipped, verdict
from pi05_websocket.conformance.target import ServerSettings, Target, Unmet
from pi05_websocket.conformance.verdicts import Verdict

__all__ = ["SERVER_CHECKS", "examine_server", "look"]

SERVER_CHECKS: Final[tuple[Check[Target], ...]] = (
    *server_handshake.CHECKS,
    *server_exchange.CHECKS,
    *server_order.CHECKS,
    *server_additions.CHECKS,
    *server_rough.CHECKS,
)
"""All of them, in the order in which they are made."""


def examine_server(settings: ServerSettings, checks: Sequence[Check[Target]]) -> Iterator[Verdict]:
    """Yield a verdict for each check; where nobody is at the address, the first one is dialled for alone."""
    target = Target(settings)
    missing = ""
    for number, check in enumerate(checks):
        verdict = skipped(check, missing, "server") if missing else look(check, target)
        if number == 0 and verdict.lacks == "server":
            missing = verdict.got
        yield verdict


def look(check: Check[Target], target: Target) -> Verdict:
    """Make one check and hang up."""
    try:
        return verdict(check, check.look(target))
    except (Unmet, OSError) as exc:  # nothing came, or the connection broke: the other checks go on
        return skipped(check, str(exc), exc.lacks if isinstance(exc, Unmet) else "")
    finally:
        target.hang_up()
