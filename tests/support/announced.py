# SPDX-License-Identifier: Apache-2.0
"""What a server of ours adds to its policy's metadata, unless its settings forbid it."""

from __future__ import annotations

from pi05_websocket.wire.encoded_images import image_announcement
from pi05_websocket.wire.realtime import RealtimeSupport, announcement

__all__ = ["ANNOUNCED"]

ANNOUNCED = image_announcement() | announcement(RealtimeSupport(prefix="none", refusals=True))
