# SPDX-License-Identifier: Apache-2.0
"""Who may see and do what at the operations port. Pure.

In: a request's headers, as decoded by the web server. Out: a name for the log, or a refusal.

    look      the page's figures and images   a key for `/`, or anybody on this machine
    scrape    /metrics                        a key for `/metrics`, or likewise
    act       pause, drain, disconnect        a key for everything, and a header that no other site can send

There are no cookies: nothing is sent along that the page does not send itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pi05_websocket.server.keys import Refusal, RobotKey

__all__ = ["OPS_HEADER", "Denied", "Purpose", "decide_access", "is_own_name"]

OPS_HEADER = "X-Pi05-Ops"
"""A request with this header cannot come from another site's page: browsers ask first, and are refused."""

Purpose = Literal["look", "scrape", "act"]

_PATHS: dict[Purpose, str] = {"look": "/", "scrape": "/metrics", "act": "/api/actions"}
"""What a key's paths are compared with: one with `--path /metrics` scrapes and does nothing else."""

_OWN_NAMES = ("127.0.0.1", "localhost", "::1")

Admit = Callable[[Sequence[str], str], RobotKey | Refusal | None]
"""`Doorkeeper.admit`."""


@dataclass(frozen=True, slots=True)
class Denied:
    """An HTTP answer instead of what was asked for."""

    status: int
    text: str


def is_own_name(host: str) -> bool:
    """Whether a `Host` header names this machine; somebody else's name may lead here too (DNS rebinding)."""
    bracketed, _, after = host.rpartition("]")
    name = bracketed.removeprefix("[") if bracketed else after.partition(":")[0]
    return name.lower() in _OWN_NAMES


def decide_access(
    purpose: Purpose,
    *,
    host: str,
    authorization: Sequence[str],
    own_page: bool,
    admit: Admit,
    has_keys: bool,
    free_to_look: bool,
    loopback: bool,
) -> str | Denied:
    """Say who asks, for the log, or what to answer instead.

    Args:
        purpose: What for.
        host: The `Host` header.
        authorization: Every `Authorization` header.
        own_page: Whether the request has `OPS_HEADER`.
        admit: Looks up keys.
        has_keys: Whether there are any.
        free_to_look: Whether looking and scraping need no key.
        loopback: Whether only this machine reaches the port.
    """
    if purpose == "act":
        if not has_keys:
            return Denied(403, "No admin key is set up: serve with --ops-admin-key-file FILE.\n")
        if not own_page:
            return Denied(403, f"Actions need the header {OPS_HEADER}.\n")
    elif free_to_look:
        if loopback and not is_own_name(host):
            return Denied(403, "This port is for this machine alone: ask for localhost.\n")
        return "anybody"
    admitted = admit(authorization, _PATHS[purpose])
    if isinstance(admitted, Refusal):
        return Denied(admitted.status, _TEXTS.get(admitted.status, admitted.text))
    assert admitted is not None, "there are keys"
    return admitted.name


_TEXTS = {
    401: "This needs a key of --ops-admin-key-file: Authorization: Bearer KEY.\n",
    403: "This key may not do that: its paths do not cover it (pi05-websocket keys list).\n",
}
