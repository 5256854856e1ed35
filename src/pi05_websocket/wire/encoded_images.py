# SPDX-License-Identifier: Apache-2.0
"""Images as JPEG instead of arrays: `_images` in the metadata, and what stands in an array's place.

In: observations with uint8 images, or with what a peer sent in their place. Out: the other of the two. Pure.
It is sent only to a server whose metadata announces it; every other server sees stock bytes.

    {"__image__": "jpeg", "data": the file, "shape": [rows, columns, 3], "layout": "hwc" or "chw"}

4:4:4 and the exact transforms on both sides: what differs from the camera's image is the quantisation alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import simplejpeg

from pi05_websocket.data import Observation, UInt8Array
from pi05_websocket.errors import DecodeError
from pi05_websocket.wire.arrays import Malformed, shortened
from pi05_websocket.wire.decoding import path_text
from pi05_websocket.wire.jpeg_header import read_jpeg_header
from pi05_websocket.wire.limits import DEFAULT_LIMITS, DecodeLimits

__all__ = [
    "IMAGES_KEY",
    "IMAGES_VERSION",
    "decode_images",
    "encode_images",
    "holds_encoded_images",
    "image_announcement",
    "image_layout",
    "reads_jpeg",
]

IMAGES_KEY: Final = "_images"
"""Reserved in the metadata."""

IMAGES_VERSION: Final = 1

_MARKER: Final = "__image__"
_JPEG: Final = "jpeg"
_ENTRIES: Final = frozenset({_MARKER, "data", "shape", "layout"})
_CHANNELS: Final = 3
_LEAST_SIDE: Final = 16
"""Pixels; below this the tables of a JPEG weigh as much as the image."""
_MOST_SIDE: Final = 65_500
"""Pixels; libjpeg's own bound."""


def image_announcement() -> dict[str, Any]:
    """Return the metadata entry of a server that reads encoded images."""
    return {IMAGES_KEY: {"version": IMAGES_VERSION, "encodings": [_JPEG]}}


def reads_jpeg(metadata: Any) -> bool:
    """Say whether a server announces that it reads JPEG; what cannot be relied on counts as no."""
    said = metadata.get(IMAGES_KEY) if isinstance(metadata, Mapping) else None
    if not isinstance(said, Mapping) or type(said.get("version")) is not int:
        return False
    encodings = said.get("encodings")
    if said["version"] != IMAGES_VERSION or not isinstance(encodings, list):
        return False
    return any(_is_text(encoding, _JPEG) for encoding in encodings)


def image_layout(value: object) -> str | None:
    """Return `hwc` or `chw` for an array that is one RGB image; None for anything else.

    An image that could be read as either is none: it travels as an array.
    """
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim != 3:
        return None
    if isinstance(
        value, np.ma.MaskedArray
    ):  # which the codec refuses, because its mask would be lost
        return None
    first, _, last = value.shape
    if (first == _CHANNELS) == (last == _CHANNELS):
        return None
    sides = value.shape[:2] if last == _CHANNELS else value.shape[1:]
    if not all(_LEAST_SIDE <= side <= _MOST_SIDE for side in sides):
        return None
    return "hwc" if last == _CHANNELS else "chw"


def encode_images(observation: Observation, quality: int) -> tuple[Observation, int]:
    """Return a copy with its images as JPEG, those in nested maps too, and how many were encoded.

    An image that JPEG would not make smaller stays what it is. The arrays are not changed.

    Args:
        observation: Policy keys to values.
        quality: libjpeg's, 1 to 100.
    """
    count = 0

    def encode(value: Any) -> Any:
        nonlocal count
        layout = image_layout(value)
        if layout is None:
            return None
        said = _encoded(value, layout, quality)
        count += said is not None
        return said

    return _replaced(observation, encode, []), count


def holds_encoded_images(observation: Observation) -> bool:
    """Whether `decode_images` has anything to do, if only to say what is wrong."""
    return _holds(observation, 1)


def _holds(values: dict[str, Any], depth: int) -> bool:
    return any(
        isinstance(value, dict)
        and (_MARKER in value or (depth < DEFAULT_LIMITS.max_depth and _holds(value, depth + 1)))
        for value in values.values()
    )


def decode_images(observation: Observation, limits: DecodeLimits = DEFAULT_LIMITS) -> Observation:
    """Return a copy with arrays in the place of encoded images; their shape, dtype and layout as they were.

    All images of one observation may have `max_message_bytes` bytes of pixels, as if they had come as arrays.

    Raises:
        DecodeError: An encoded image is not what it says, or of a kind nobody announced.
    """
    left = limits.max_message_bytes
    path: list[str | int] = []

    def decode(value: Any) -> Any:
        nonlocal left
        if not isinstance(value, dict) or _MARKER not in value:
            return None
        image = _checked(value, left)
        left -= image.nbytes
        return image.decode()

    try:
        return _replaced(observation, decode, path)
    except Malformed as exc:
        raise DecodeError(f"{path_text(path)}: {exc}") from None


def _replaced(
    values: dict[str, Any], replacement: Callable[[Any], Any], path: list[str | int]
) -> dict[str, Any]:
    """Return a copy with each value that has a replacement replaced; `path` leads to the present one."""
    copy = dict(values)
    for key, value in values.items():
        path.append(key)
        new = replacement(value)
        if new is not None:
            copy[key] = new
        elif (
            isinstance(value, dict) and len(path) < DEFAULT_LIMITS.max_depth
        ):  # else the codec refuses it
            copy[key] = _replaced(value, replacement, path)
        path.pop()
    return copy


def _encoded(image: UInt8Array, layout: str, quality: int) -> dict[str, Any] | None:
    pixels = np.ascontiguousarray(image if layout == "hwc" else image.transpose(1, 2, 0))
    data = simplejpeg.encode_jpeg(
        pixels, quality=quality, colorspace="RGB", colorsubsampling="444", fastdct=False
    )
    if len(data) >= image.nbytes:  # noise, or a picture of it
        return None
    return {_MARKER: _JPEG, "data": data, "shape": list(pixels.shape), "layout": layout}


@dataclass(frozen=True, slots=True)
class _Image:
    """An encoded image whose words agree with its header."""

    data: bytes
    shape: tuple[int, ...]
    layout: str

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape)

    def decode(self) -> UInt8Array:
        """Return the pixels.

        Raises:
            Malformed: The decoder finds them damaged.
        """
        pixels = np.empty(self.shape, np.uint8)
        try:
            simplejpeg.decode_jpeg(
                self.data, "RGB", fastdct=False, fastupsample=False, buffer=pixels, strict=True
            )
        except ValueError as exc:
            raise Malformed(f"expected a whole JPEG, got a damaged one: {exc}") from None
        return pixels if self.layout == "hwc" else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _checked(said: dict[str, Any], bytes_left: int) -> _Image:
    """Hold an encoded image's words against each other, its header and the bounds; decode nothing.

    Raises:
        Malformed: They do not agree.
    """
    if said.keys() != _ENTRIES:
        raise Malformed(
            f"expected an encoded image's entries {sorted(_ENTRIES)}, got {shortened(sorted(said))}"
        )
    if not _is_text(said[_MARKER], _JPEG):
        raise Malformed(f"expected the encoding 'jpeg', got {shortened(said[_MARKER])}")
    if not _is_text(said["layout"], "hwc", "chw"):
        raise Malformed(f"expected the layout 'hwc' or 'chw', got {shortened(said['layout'])}")
    rows, columns = _declared(said["shape"])
    image = _Image(said["data"], (rows, columns, _CHANNELS), said["layout"])
    if image.nbytes > bytes_left:
        raise Malformed(
            f"expected images of at most {bytes_left} more bytes, got {rows}x{columns} pixels"
        )
    if not isinstance(image.data, bytes) or len(image.data) >= image.nbytes:
        raise Malformed(
            f"expected fewer bytes than the {image.nbytes} of the image itself, "
            f"got {shortened(image.data) if not isinstance(image.data, bytes) else len(image.data)}"
        )
    header = read_jpeg_header(image.data)
    if header.components != _CHANNELS:
        raise Malformed(f"expected a JPEG of 3 components (RGB), got {header.components}")
    if (header.rows, header.columns) != (rows, columns):
        raise Malformed(
            f"expected {rows}x{columns} pixels as declared, "
            f"got a JPEG of {header.rows}x{header.columns}"
        )
    return image


def _is_text(value: object, *expected: str) -> bool:
    """Whether it is one of these words. An array, compared with a word, would be an array."""
    return isinstance(value, str) and value in expected


def _declared(shape: Any) -> tuple[int, int]:
    """Return the declared rows and columns."""
    if isinstance(shape, list) and len(shape) == 3 and all(type(side) is int for side in shape):
        rows, columns, channels = shape
        if channels == _CHANNELS and 1 <= rows <= _MOST_SIDE and 1 <= columns <= _MOST_SIDE:
            return rows, columns
    raise Malformed(f"expected a shape [rows, columns, 3], got {shortened(shape)}")
