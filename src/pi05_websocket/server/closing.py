# SPDX-License-Identifier: Apache-2.0
"""Close codes of the server, and how long a goodbye may take: the same on every kind of socket. Pure."""

from __future__ import annotations

__all__ = [
    "CLOSE_GOING_AWAY",
    "CLOSE_KEY_OVER",
    "CLOSE_OUT_OF_BOUNDS",
    "CLOSE_PROTOCOL_ERROR",
    "CLOSE_SERVICE_RESTART",
    "CLOSE_TOO_BIG",
    "CLOSE_TRY_AGAIN_LATER",
    "GOODBYE_TIMEOUT_S",
    "LAST_WORD_TIMEOUT_S",
    "LOOK_AGAIN_S",
    "STOP_GOODBYE_TIMEOUT_S",
    "no_room_for",
]

CLOSE_GOING_AWAY = 1001
CLOSE_PROTOCOL_ERROR = 1002
CLOSE_KEY_OVER = 1008
CLOSE_OUT_OF_BOUNDS = 1008
CLOSE_TOO_BIG = 1009
CLOSE_SERVICE_RESTART = 1012
CLOSE_TRY_AGAIN_LATER = 1013

GOODBYE_TIMEOUT_S = 5.0
# After our close frame the client reads on until it has it; cutting earlier could take the error text away.

LAST_WORD_TIMEOUT_S = 1.0
# The same for clients out of bounds; no goodbye of theirs is waited for.

STOP_GOODBYE_TIMEOUT_S = 1.0
# The same for all together, when the server ends.

LOOK_AGAIN_S = 1.0
# A key that was revoked, or has expired, must be over within 5 s. Without keys and TLS there is nothing to do.


def no_room_for(held_bytes: int) -> str:
    """Return why a connection ends that holds more than there is room for."""
    return f"{held_bytes} bytes waiting, more than there is room for"
