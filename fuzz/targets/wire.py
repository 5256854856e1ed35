# SPDX-License-Identifier: Apache-2.0
"""Messages as bytes: the codec, encoded images, the header of a JPEG."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from fuzz.mutation import of_bytes, of_msgpack
from fuzz.target import Broken, Target, check_scalars
from pi05_websocket.conformance.vectors import read_transcript, read_vectors
from pi05_websocket.errors import DecodeError, EncodeError
from pi05_websocket.wire import codec
from pi05_websocket.wire.arrays import Malformed
from pi05_websocket.wire.encoded_images import decode_images, encode_images
from pi05_websocket.wire.jpeg_header import read_jpeg_header
from pi05_websocket.wire.limits import DecodeLimits

__all__ = ["TARGETS", "TIGHT", "vectors"]

TIGHT: Final = DecodeLimits(max_message_bytes=2048, max_depth=4, max_items=64, max_array_dims=3)
"""So that inputs of a few kilobytes reach every bound."""

_IMAGES: Final = DecodeLimits(max_message_bytes=64 * 1024)
_EACH_VALUE: Final = 384
"""Bytes that a value of a byte or two may become: an empty map, the path to it, an array of one number."""


def vectors() -> Iterator[bytes]:
    """Yield the published vectors: those of OpenPI's packer, of other servers, and hostile ones."""
    for vector in read_vectors():
        yield bytes.fromhex(vector["hex"])
    for frame in read_transcript()["frames"]:
        if frame["opcode"] == "binary":
            yield bytes.fromhex(frame["hex"])


def images() -> Iterator[bytes]:
    """Yield observations with JPEG images, good ones and some that are not what they say."""
    rows, columns = np.mgrid[0:48, 0:32]
    picture = np.stack([rows * 5, columns * 7, rows + columns], axis=2).astype(np.uint8)
    for quality in (30, 95):
        observation = {"image": picture, "nested": {"wrist": picture.transpose(2, 0, 1).copy()}}
        encoded, count = encode_images({**observation, "prompt": "pick"}, quality)
        if count != 2:
            raise AssertionError("the seeds hold no JPEG")
        yield codec.encode(encoded)
        yield codec.encode({"image": {**encoded["image"], "shape": [32, 48, 3]}})
        yield codec.encode({"image": {**encoded["image"], "data": encoded["image"]["data"][:200]}})


def _decode(data: bytes) -> str:
    words = [_decoded(data, limits) for limits in (codec.DEFAULT_LIMITS, TIGHT)]
    if words[1] == "value" and words[0] != "value":
        raise Broken("tight limits let through what wide ones refuse")
    return "/".join(words)


def _decoded(data: bytes, limits: DecodeLimits) -> str:
    try:
        value = codec.decode(data, limits)
    except DecodeError:
        return "DecodeError"
    check_scalars(value)
    try:
        again = codec.encode(value)
    except EncodeError as exc:
        raise Broken(f"what was decoded cannot be sent: {exc}") from exc
    if codec.encode(codec.decode(again)) != again:
        raise Broken("what was decoded means something else when it is sent again")
    return "value"


def _decode_images(data: bytes) -> str:
    try:
        observation = codec.decode(data, _IMAGES)
    except DecodeError:
        return "DecodeError"
    if not isinstance(observation, dict):
        return "no map"
    try:
        decoded = decode_images(observation, _IMAGES)
    except DecodeError:
        return "DecodeError of an image"
    check_scalars(decoded)
    return "images" if _pixels(decoded) > _pixels(observation) else "no image"


def _pixels(value: object) -> int:
    if isinstance(value, dict):
        return sum(map(_pixels, value.values()))
    return value.nbytes if isinstance(value, np.ndarray) and value.dtype == np.uint8 else 0


def _jpeg_header(data: bytes) -> str:
    try:
        header = read_jpeg_header(data)
    except Malformed:
        return "Malformed"
    if not (0 <= header.rows < 2**16 and 0 <= header.columns < 2**16 and header.components < 256):
        raise Broken(f"an impossible header: {header}")
    return "header"


def _jpegs() -> Iterator[bytes]:
    for message in images():
        yield codec.decode(message)["image"]["data"]


TARGETS: Final = (
    Target(
        name="codec",
        check=_decode,
        seeds=vectors,
        mutate=of_msgpack,
        most_memory=lambda size: 64 * 1024 + _EACH_VALUE * size,
    ),
    Target(
        name="encoded_images",
        check=_decode_images,
        seeds=images,
        mutate=of_msgpack,
        # Pixels twice: a chw image is turned.
        most_memory=lambda size: 64 * 1024 + _EACH_VALUE * size + 2 * _IMAGES.max_message_bytes,
    ),
    Target(
        name="jpeg_header",
        check=_jpeg_header,
        seeds=_jpegs,
        mutate=of_bytes,
        most_memory=lambda size: 16 * 1024 + 4 * size,
    ),
)
