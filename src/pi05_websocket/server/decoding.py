# SPDX-License-Identifier: Apache-2.0
"""A request, from bytes to an observation: read first, which is quick; then its images, which may not be.

In: a request as it came. Out: the same, and its answer if it needs no policy. Any thread; one at a time for all
requests of a connection, in their order.
"""

from __future__ import annotations

from pi05_websocket.server.failures import failed
from pi05_websocket.server.requests import Done, Outcome, Request
from pi05_websocket.wire.protocol import Told

__all__ = ["read", "unpack"]


def read(request: Request) -> Outcome | None:
    """Note what a message says; its encoded images stay packed."""
    # Arrays are views of it, and policies may write into theirs.
    if isinstance(request.payload, bytes):
        request.payload = bytearray(request.payload)
    try:
        asked = request.protocol.read(request.payload)
    except BaseException as exc:  # whatever it is belongs to this request alone
        return failed(request, exc)
    if isinstance(asked, Told):
        return Done(message=asked.message, begins_episode=asked.begins_episode)
    request.realtime, request.tag, request.episode = asked.realtime, asked.tag, asked.session
    if asked.packed:
        request.packed = asked.observation
    else:
        request.observation = asked.observation
    return None


def unpack(request: Request) -> Outcome | None:
    """Put arrays in the place of encoded images."""
    assert request.packed is not None
    packed, request.packed = request.packed, None
    try:
        request.observation = request.protocol.unpacked(packed)
    except BaseException as exc:
        return failed(request, exc)
    return None
