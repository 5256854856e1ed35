# SPDX-License-Identifier: Apache-2.0
"""Recorded observations made ready to be asked again: with raw images, as another JPEG, smaller. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pi05_websocket.data import Observation, UInt8Array
from pi05_websocket.images import resize_with_pad
from pi05_websocket.wire import codec
from pi05_websocket.wire.encoded_images import decode_images, encode_images, image_layout
from pi05_websocket.wire.realtime import REALTIME_KEY

__all__ = ["as_jpeg", "fewer_pixels", "has_jpeg", "message_bytes", "stock"]


def stock(observation: Observation) -> Observation:
    """Return what the policy sees: images as arrays, nothing of `_rt`.

    Raises:
        DecodeError: A JPEG in it is damaged.
    """
    plain = {key: value for key, value in observation.items() if key != REALTIME_KEY}
    return decode_images(plain)


def has_jpeg(observation: Observation) -> bool:
    """Say whether any image in it was sent as a JPEG: then nobody knows any more what the camera saw."""
    return any(
        isinstance(value, dict) and ("__image__" in value or has_jpeg(value))
        for value in observation.values()
    )


def message_bytes(observation: Observation) -> int:
    """Return how large a request with it is."""
    return len(codec.encode(observation))


def as_jpeg(observation: Observation, quality: int) -> tuple[Observation, int]:
    """Return what a policy sees when images are sent at this quality, and how large the request is."""
    sent, _ = encode_images(observation, quality)
    return decode_images(sent), message_bytes(sent)


def fewer_pixels(observation: Observation, side: int) -> Observation:
    """Return it with every larger image fitted into `side` times `side` pixels, padded as OpenPI does."""
    return _each(observation, lambda image, layout: _fitted(image, layout, side))


def _fitted(image: UInt8Array, layout: str, side: int) -> UInt8Array:
    pixels = image if layout == "hwc" else image.transpose(1, 2, 0)
    if max(pixels.shape[:2]) <= side:
        return image
    fitted = resize_with_pad(np.ascontiguousarray(pixels), side, side)
    return fitted if layout == "hwc" else np.ascontiguousarray(fitted.transpose(2, 0, 1))


def _each(
    observation: Observation, change: Callable[[UInt8Array, str], UInt8Array]
) -> dict[str, Any]:
    """Return a copy with each image changed, those in nested maps too."""
    copy: dict[str, Any] = {}
    for key, value in observation.items():
        layout = image_layout(value)
        if layout is not None:
            copy[key] = change(value, layout)
        else:
            copy[key] = _each(value, change) if isinstance(value, dict) else value
    return copy
