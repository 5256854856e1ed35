# SPDX-License-Identifier: Apache-2.0
"""Images on their way to the policy: uint8 height-width-channel pixels, at the size it wants.

In: RGB images as cameras and LeRobot hand them over. Out: uint8 HWC arrays.
Pure. OpenCV converts float images where it is installed, numpy elsewhere, ten times slower.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from pi05_websocket.data import UInt8Array
from pi05_websocket.errors import ObservationError

__all__ = ["Layout", "opencv", "resize_crop", "resize_stretch", "resize_with_pad", "to_uint8_hwc"]

Layout = Literal["hwc", "chw"]
"""Order of an image's axes: height-width-channel, or channel first as torch likes it."""

FLOAT_TOLERANCE = 1e-6
"""How far outside [0, 1] a float may lie and still count as rounding: 8 steps of float32 at 1.0."""

CHANNELS = 3


@functools.cache
def opencv() -> Any | None:
    """Return the `cv2` module, or None where it is missing or cannot load its libraries.

    Imports it at the first call, which takes a tenth of a second or more: call it before the
    control loop starts.
    """
    try:
        return importlib.import_module("cv2")
    except ImportError:
        return None


def to_uint8_hwc(
    image: npt.NDArray[Any], *, key: str = "image", layout: Layout | None = None
) -> UInt8Array:
    """Convert one RGB image to contiguous uint8 `(height, width, 3)`.

    A float image is read as 0 to 1, rounded, exact for every k/255 (ties may round either way).

    Args:
        image: `(height, width, 3)` or `(3, height, width)`, uint8 0 to 255 or floating 0 to 1.
        key: Name of the image in error messages.
        layout: Order of the axes. None looks for the axis of length 3; an image that is also
            3 pixels high or wide is refused then.

    Returns:
        `(height, width, 3)` uint8; the input itself when it is that already.

    Raises:
        ObservationError: If shape, dtype or values are anything else.
    """
    layout = _check_shape(image, key, layout)
    if layout == "chw" and image.transpose(1, 2, 0).flags.c_contiguous:
        # A channel-first view of channel-last memory, as torch's `permute` makes: use that.
        image, layout = image.transpose(1, 2, 0), "hwc"
    pixels = image if image.dtype == np.uint8 else _unit_float_to_uint8(image, key)
    return np.ascontiguousarray(pixels) if layout == "hwc" else _interleave(pixels)


def resize_with_pad(
    images: UInt8Array, height: int, width: int, *, key: str = "image"
) -> UInt8Array:
    """Resize to fit, keep the aspect ratio, centre on black. The same pixels as OpenPI's function.

    Args:
        images: `(..., height, width, 3)` uint8, RGB.
        height: Rows of the result.
        width: Columns of the result.
        key: Name of the image in error messages.

    Returns:
        `(..., height, width, 3)` uint8; the input itself when it has that size.

    Raises:
        ObservationError: If the dtype or the last axis is wrong, or an image is so long and thin
            that nothing of it would be left.

    Source: openpi `packages/openpi-client/src/openpi_client/image_tools.py` @ 15a9616, the
    arithmetic; tests/interop/test_image_tools.py compares the pixels.
    """
    return _resize_each(images, height, width, key, functools.partial(_pad, key=key))


def resize_crop(images: UInt8Array, height: int, width: int, *, key: str = "image") -> UInt8Array:
    """Resize to cover, keep the aspect ratio, cut what is over equally from both ends.

    Arguments, result and errors as `resize_with_pad`.
    """
    return _resize_each(images, height, width, key, _crop)


def resize_stretch(
    images: UInt8Array, height: int, width: int, *, key: str = "image"
) -> UInt8Array:
    """Resize each axis on its own; the aspect ratio is lost.

    Arguments, result and errors as `resize_with_pad`.
    """
    return _resize_each(images, height, width, key, _stretch)


def _check_shape(image: npt.NDArray[Any], key: str, layout: Layout | None) -> Layout:
    expected = "a colour image (height, width, 3) or (3, height, width)"
    if not isinstance(image, np.ndarray):
        raise ObservationError(key, expected, f"{type(image).__name__}", "Convert it to numpy")
    shape = image.shape
    if image.ndim != 3 or 0 in shape:
        remedy = "Send one image, without a batch axis" if image.ndim == 4 else ""
        raise ObservationError(key, expected, f"shape {shape}", remedy)
    fits = {"hwc": shape[2] == CHANNELS, "chw": shape[0] == CHANNELS}
    if layout is not None:
        if not fits[layout]:
            raise ObservationError(key, f"3 channels in the order {layout!r}", f"shape {shape}")
        return layout
    if fits["hwc"] and fits["chw"]:
        raise ObservationError(
            key, expected, f"shape {shape}, which can be read as either", "Say which: layout='hwc'"
        )
    if fits["hwc"]:
        return "hwc"
    if fits["chw"]:
        return "chw"
    remedy = "Drop the alpha channel" if 4 in (shape[0], shape[2]) else ""
    raise ObservationError(key, expected, f"shape {shape}", remedy)


def _unit_float_to_uint8(image: npt.NDArray[Any], key: str) -> UInt8Array:
    """Check the dtype and that the values are within 0..1, multiply by 255 and round."""
    if image.dtype.kind != "f":
        raise ObservationError(
            key,
            "uint8 0..255 or float 0..1",
            f"{image.dtype}",
            "Depth images and label maps cannot be sent as colour images",
        )
    if image.dtype not in (np.float32, np.float64):  # float16 and foreign byte order
        image = image.astype(np.float32)
    image = np.ascontiguousarray(image)
    _check_range(image, key)
    cv2 = opencv()
    if cv2 is not None:
        # Two axes keep OpenCV on its fast path; the shape comes back afterwards.
        flat = image.reshape(image.shape[0], -1)
        converted: UInt8Array = cv2.convertScaleAbs(flat, alpha=255.0).reshape(image.shape)
        return converted
    scaled = image * image.dtype.type(255.0)
    scaled += image.dtype.type(0.5)
    rounded: UInt8Array = scaled.astype(np.uint8)
    return rounded


def _check_range(image: npt.NDArray[np.floating[Any]], key: str) -> None:
    """Refuse what does not lie in 0..1.

    Non-negative IEEE floats sort like their bits read as unsigned integers, while negative ones and
    NaN read as larger than any of them: one integer maximum checks both bounds and NaN at once.
    """
    bits: type[np.unsignedinteger[Any]] = np.uint32 if image.dtype == np.float32 else np.uint64
    largest = np.array(1.0 + FLOAT_TOLERANCE, image.dtype).view(bits)
    if image.view(bits).max() <= largest:
        return
    low, high = float(image.min()), float(image.max())
    if low >= -FLOAT_TOLERANCE and high <= 1.0 + FLOAT_TOLERANCE:
        return  # -0.0 and rounding just below zero
    if np.isnan(low):
        raise ObservationError(key, "floats in [0, 1]", "NaN", "The camera or its filter is broken")
    raise ObservationError(
        key, "floats in [0, 1]", f"values from {low:g} to {high:g}", _range_remedy(low, high)
    )


def _range_remedy(low: float, high: float) -> str:
    if low >= 0.0 and 1.5 < high <= 255.0:
        return "Divide by 255, or send uint8"
    if -1.5 <= low < -0.5 and high <= 1.5:
        return "If it is scaled to [-1, 1], send (image + 1) / 2"
    return "Send pixels as uint8, or as floats from 0 (black) to 1 (white), without normalisation"


def _interleave(planes: UInt8Array) -> UInt8Array:
    """Turn `(3, height, width)` into contiguous `(height, width, 3)`."""
    cv2 = opencv()
    if cv2 is None:
        return np.ascontiguousarray(planes.transpose(1, 2, 0))
    merged: UInt8Array = cv2.merge((planes[0], planes[1], planes[2]))
    return merged


def _resize_each(
    images: UInt8Array,
    height: int,
    width: int,
    key: str,
    resize_one: Callable[[UInt8Array, int, int], UInt8Array],
) -> UInt8Array:
    if images.dtype != np.uint8 or images.ndim < 3 or images.shape[-1] != CHANNELS:
        raise ObservationError(
            key, "uint8 (..., height, width, 3)", f"{images.dtype} {images.shape}"
        )
    if images.shape[-3:-1] == (height, width):
        return images
    if images.ndim == 3:
        return resize_one(images, height, width)
    resized = np.empty((*images.shape[:-3], height, width, CHANNELS), np.uint8)
    for index in np.ndindex(images.shape[:-3]):
        resized[index] = resize_one(images[index], height, width)
    return resized


def _pad(image: UInt8Array, height: int, width: int, *, key: str) -> UInt8Array:
    rows, columns = image.shape[:2]
    # The order of operations decides about single pixels: OpenPI's, word for word in arithmetic.
    ratio = max(columns / width, rows / height)
    inner_height, inner_width = int(rows / ratio), int(columns / ratio)
    if inner_height == 0 or inner_width == 0:
        raise ObservationError(
            key, f"an image that fits into {height}x{width} pixels", f"{rows}x{columns} pixels"
        )
    top, left = int((height - inner_height) / 2), int((width - inner_width) / 2)
    canvas = np.zeros((height, width, CHANNELS), np.uint8)
    canvas[top : top + inner_height, left : left + inner_width] = _stretch(
        image, inner_height, inner_width
    )
    return canvas


def _crop(image: UInt8Array, height: int, width: int) -> UInt8Array:
    rows, columns = image.shape[:2]
    ratio = min(columns / width, rows / height)
    # Clipped, because the last bit of a product can lie one step outside the image.
    left = max(0.0, (columns - width * ratio) / 2)
    top = max(0.0, (rows - height * ratio) / 2)
    box = (left, top, min(columns, left + width * ratio), min(rows, top + height * ratio))
    return _resize(image, height, width, box)


def _stretch(image: UInt8Array, height: int, width: int) -> UInt8Array:
    return _resize(image, height, width, (0, 0, image.shape[1], image.shape[0]))


def _resize(
    image: UInt8Array, height: int, width: int, box: tuple[float, float, float, float]
) -> UInt8Array:
    picture = Image.fromarray(image)
    return np.array(picture.resize((width, height), Image.Resampling.BILINEAR, box=box))
