# SPDX-License-Identifier: Apache-2.0
"""Plain HTTP on the policy server's port: the health check, and a word to those who come with a browser.

In: a request's path and headers. Out: a response, or None for a WebSocket upgrade. Pure.
"""

from __future__ import annotations

import picows

__all__ = ["plain_response"]

HEALTH_PATH = b"/healthz"

_UPGRADE_REQUIRED = (
    b"This is a policy server: it speaks OpenPI's protocol over WebSocket.\n"
    b"Connect a robot to it, or ask /healthz whether it is alive.\n"
)


def plain_response(request: picows.WSUpgradeRequest) -> picows.WSUpgradeResponse | None:
    """Answer what is no WebSocket; any path but the health check's may be upgraded.

    Source: openpi `src/openpi/serving/websocket_policy_server.py` @ 15a9616, `_health_check`: the exact path,
    200, `OK` and a newline.
    """
    if request.path == HEALTH_PATH:
        return picows.WSUpgradeResponse.create_ok_response(b"OK\n")
    if request.headers.get("Upgrade", "").lower() != "websocket":
        return picows.WSUpgradeResponse.create_error_response(
            426, _UPGRADE_REQUIRED, {"Upgrade": "websocket"}
        )
    return None
