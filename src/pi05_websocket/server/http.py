# SPDX-License-Identifier: Apache-2.0
"""Plain HTTP on the policy server's port: the health check, a word to those who come with a browser, refusals.

In: a request's path and headers. Out: a response, or None for a WebSocket upgrade. Pure.
"""

from __future__ import annotations

import math

import picows

from pi05_websocket.server.keys import Refusal

__all__ = [
    "HEALTH_PATH",
    "UPGRADE_REQUIRED",
    "authorization_of",
    "plain_response",
    "refusal_headers",
    "refusal_response",
]

HEALTH_PATH = b"/healthz"

UPGRADE_REQUIRED = (
    b"This is a policy server: it speaks OpenPI's protocol over WebSocket.\n"
    b"Connect a robot to it, or ask /healthz whether it is alive.\n"
)
_OTHER_VERSION = b"This policy server speaks version 13 of WebSocket.\n"
_VERSIONS = ("13", "8", "7")
"""Those picows takes: 8 and 7 are drafts of 13 with the same frames."""


def plain_response(request: picows.WSUpgradeRequest) -> picows.WSUpgradeResponse | None:
    """Answer what is no WebSocket; any path but the health check's may be upgraded.

    Source: openpi `src/openpi/serving/websocket_policy_server.py` @ 15a9616, `_health_check`: the exact path,
    200, `OK` and a newline.
    """
    if request.path == HEALTH_PATH:
        return picows.WSUpgradeResponse.create_ok_response(b"OK\n")
    if request.headers.get("Upgrade", "").lower() != "websocket":
        return picows.WSUpgradeResponse.create_error_response(
            426, UPGRADE_REQUIRED, {"Upgrade": "websocket"}
        )
    if request.headers.get("Sec-WebSocket-Version", "13") not in _VERSIONS:
        # RFC 6455, 4.4. picows would quote it, and fails where it is no text.
        return picows.WSUpgradeResponse.create_error_response(
            426, _OTHER_VERSION, {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        )
    return None


def authorization_of(request: picows.WSUpgradeRequest) -> list[str]:
    """Return every `Authorization` header; bytes that are no ASCII are surrogates."""
    return list(request.headers.getall("Authorization", []))


def refusal_response(refusal: Refusal) -> picows.WSUpgradeResponse:
    """Answer a request for a WebSocket that is not let in; the handshake does not happen."""
    return picows.WSUpgradeResponse.create_error_response(
        refusal.status, refusal.text.encode(), refusal_headers(refusal)
    )


def refusal_headers(refusal: Refusal) -> dict[str, str]:
    """Return what goes into the head of such an answer."""
    headers = {"WWW-Authenticate": "Api-Key, Bearer"} if refusal.status == 401 else {}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(refusal.retry_after_s))
    return headers
