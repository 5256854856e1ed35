# SPDX-License-Identifier: Apache-2.0
"""A failed request: what is sent, what the log says, both no longer than a person reads.

In: a request and the exception that is its. Out: the outcome; a line in the log. Any thread.
Exceptions quote what a client has sent, a key or a text of megabytes.
"""

from __future__ import annotations

import logging
import traceback

from pi05_websocket.errors import ObservationError, WireError
from pi05_websocket.server.one_line import in_one_line
from pi05_websocket.server.requests import Failed, Request

__all__ = ["LONGEST_TRACEBACK", "failed"]

logger = logging.getLogger(__name__)

LONGEST_TRACEBACK = 32 * 1024
"""Characters; those of JAX have 10,000."""


def failed(request: Request, exc: BaseException) -> Failed:
    """Return what is sent for a request that failed, and say so in the log."""
    cause = in_one_line(exc)
    if isinstance(exc, WireError | ObservationError):
        logger.warning("request refused: %s", cause)
    else:
        _log(cause, exc)
    said = request.protocol.error_message(exc, request.tag)
    if isinstance(said.message, str):
        return Failed(text=said.message, cause=cause)
    return Failed(text=cause, cause=cause, message=said.message, closes=said.closes)


def _log(cause: str, exc: BaseException) -> None:
    whole = "".join(traceback.format_exception(exc))
    if len(whole) <= LONGEST_TRACEBACK:
        logger.error("policy failed: %s", cause, exc_info=exc)
    else:
        logger.error("policy failed: %s\n%s ...", cause, whole[:LONGEST_TRACEBACK])
