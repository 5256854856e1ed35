# SPDX-License-Identifier: Apache-2.0
"""What a robot saw and what the policy plans, small enough for a page. Pure.

In: an observation and a chunk, a robot's and a policy's own objects of any form. Out: names of images, JPEGs of
at most 320 columns, rows of numbers; None where a thing is not what it should be.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["Plan", "image_names", "plan_of", "prompt_of", "thumbnail"]

_WIDTH = 320
_QUALITY = 75
_DEPTH = 3
_MOST_IMAGES = 8
_LARGEST = 64_000_000
"""Values in an image that is looked at."""

_MOST_ROWS = 100
_MOST_COLUMNS = 32
_LONGEST_NAME = 100
_LONGEST_PROMPT = 300

Plan = list[list[float | None]]
"""One list for each value of an action, over the chunk's rows; None: no number."""


def image_names(observation: Mapping[str, Any] | None) -> list[str]:
    """Return the names of the images in an observation: keys, with `/` where maps are nested."""
    if observation is None:
        return []
    return [name for name, _ in _images(observation)][:_MOST_IMAGES]


def prompt_of(observation: Mapping[str, Any] | None) -> str | None:
    """Return what the robot is to do, in its own words."""
    prompt = None if observation is None else observation.get("prompt", observation.get("task"))
    return prompt[:_LONGEST_PROMPT] if isinstance(prompt, str) else None


def thumbnail(observation: Mapping[str, Any], name: str) -> bytes | None:
    """Return one image of an observation as a JPEG of at most 320 columns; None: there is none of this name."""
    found = next((pixels for known, pixels in _images(observation) if known == name), None)
    if found is None:
        return None
    image = Image.fromarray(_as_rgb(found))
    image.thumbnail((_WIDTH, _WIDTH), Image.Resampling.BILINEAR, reducing_gap=2.0)
    written = io.BytesIO()
    image.save(written, "JPEG", quality=_QUALITY)
    return written.getvalue()


def plan_of(actions: Any) -> Plan | None:
    """Return a chunk's values, each over the rows; None where it is no table of numbers."""
    try:
        rows = np.asarray(actions, np.float64)
    except (TypeError, ValueError, RuntimeError):  # a tensor on a GPU, for instance
        return None
    if rows.ndim != 2 or not rows.size:
        return None
    shown = np.round(rows[:_MOST_ROWS, :_MOST_COLUMNS].T, 4)
    return [[float(value) if np.isfinite(value) else None for value in column] for column in shown]


def _images(
    observation: Mapping[str, Any], before: str = "", depth: int = 1
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    for key, value in list(observation.items()):
        if not isinstance(key, str) or len(before) + len(key) > _LONGEST_NAME:
            continue
        if isinstance(value, Mapping) and depth < _DEPTH:
            yield from _images(value, f"{before}{key}/", depth + 1)
        elif isinstance(value, np.ndarray) and _is_image(value):
            yield f"{before}{key}", value


def _is_image(value: npt.NDArray[Any]) -> bool:
    if value.ndim != 3 or not 0 < value.size <= _LARGEST:
        return False
    if value.dtype != np.uint8 and value.dtype.kind != "f":
        return False
    return _channels_last(value) or _channels_first(value)


def _channels_last(value: npt.NDArray[Any]) -> bool:
    return value.shape[2] in (1, 3) and min(value.shape[:2]) >= 8


def _channels_first(value: npt.NDArray[Any]) -> bool:
    return value.shape[0] in (1, 3) and min(value.shape[1:]) >= 8


def _as_rgb(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if not _channels_last(pixels):
        pixels = np.moveaxis(pixels, 0, 2)
    step = max(1, pixels.shape[1] // (2 * _WIDTH))
    pixels = pixels[::step, ::step]
    if pixels.dtype != np.uint8:
        pixels = np.nan_to_num(pixels, nan=0.0, posinf=1.0, neginf=0.0)
        # From 0 to 1 as most have it, or from -1 to 1 as OpenPI's models see it.
        low = -1.0 if pixels.min() < 0.0 else 0.0
        pixels = ((np.clip(pixels, low, 1.0) - low) * (255.0 / (1.0 - low))).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
