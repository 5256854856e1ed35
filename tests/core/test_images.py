# SPDX-License-Identifier: Apache-2.0
"""Conversion and resizing of images. The comparison with OpenPI's pixels is in tests/interop."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pi05_websocket import images
from pi05_websocket.errors import ObservationError

EVERY_BYTE = np.arange(256, dtype=np.uint8)


@pytest.fixture(params=["opencv", "numpy"])
def converter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run with OpenCV, where it is installed, and without it."""
    if request.param == "opencv":
        pytest.importorskip("cv2")
    else:
        monkeypatch.setitem(sys.modules, "cv2", None)  # what a missing package looks like
    images.opencv.cache_clear()
    yield request.param
    images.opencv.cache_clear()


def pixels(height: int, width: int, seed: int = 0) -> Any:
    """Return noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_opencv_is_found_or_not(converter: str) -> None:
    """The accelerator is there exactly when it can be imported."""
    assert (images.opencv() is not None) == (converter == "opencv")


def test_uint8_hwc_is_passed_on() -> None:
    """An image that is right already is returned itself, not copied."""
    image = pixels(4, 5)
    assert images.to_uint8_hwc(image) is image


def test_strided_uint8_becomes_contiguous() -> None:
    """A view with a stride is copied to contiguous memory with the same pixels."""
    image = pixels(8, 10)[::2, ::-1]
    converted = images.to_uint8_hwc(image)
    assert converted.flags.c_contiguous
    np.testing.assert_array_equal(converted, image)


@pytest.mark.usefixtures("converter")
def test_uint8_chw_is_turned() -> None:
    """A channel-first image comes out channel-last and contiguous."""
    image = pixels(4, 5)
    converted = images.to_uint8_hwc(np.ascontiguousarray(image.transpose(2, 0, 1)))
    assert converted.flags.c_contiguous
    np.testing.assert_array_equal(converted, image)


def test_channel_first_view_costs_nothing() -> None:
    """A channel-first view of channel-last memory is that memory, not a copy."""
    image = pixels(4, 5)
    assert np.shares_memory(images.to_uint8_hwc(image.transpose(2, 0, 1)), image)


@pytest.mark.usefixtures("converter")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.dtype(">f4")])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
def test_float_is_exact_on_every_byte(dtype: Any, axes: tuple[int, int, int]) -> None:
    """Every k/255 becomes k, in every float type and both layouts."""
    image = np.stack([EVERY_BYTE, EVERY_BYTE[::-1], np.roll(EVERY_BYTE, 7)], axis=-1)
    image = image.reshape(16, 16, 3)
    floats = (image.astype(np.float64) / 255).astype(dtype).transpose(axes)
    np.testing.assert_array_equal(images.to_uint8_hwc(floats), image)
    np.testing.assert_array_equal(images.to_uint8_hwc(np.ascontiguousarray(floats)), image)


@pytest.mark.usefixtures("converter")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    value=st.floats(0, 1, width=32),
    dtype=st.sampled_from([np.float32, np.float64]),
    chw=st.booleans(),
)
def test_float_is_rounded_to_the_nearest_byte(value: float, dtype: Any, chw: bool) -> None:
    """No value ends up more than half a step away, which truncation would do."""
    image = np.full((3, 2, 5) if chw else (2, 5, 3), value, dtype)
    converted = images.to_uint8_hwc(image)
    assert converted.shape == (2, 5, 3)
    assert np.abs(converted.astype(np.float64) - value * 255).max() <= 0.5 + 1e-4


@pytest.mark.usefixtures("converter")
def test_rounding_outside_the_range_is_forgiven() -> None:
    """Values a rounding error below 0 or above 1 count as 0 and 1."""
    image = np.array([-1e-7, -0.0, 1.0 + 1e-7], np.float32).reshape(1, 1, 3).repeat(4, axis=0)
    np.testing.assert_array_equal(images.to_uint8_hwc(image)[0, 0], [0, 0, 255])


@pytest.mark.parametrize(
    ("values", "got", "remedy"),
    [
        ((0.0, 255.0), "values from 0 to 255", "Divide by 255"),
        ((-1.0, 1.0), "values from -1 to 1", "(image + 1) / 2"),
        ((-2.1, 2.6), "values from -2.1 to 2.6", "without normalisation"),
        ((0.0, 1.001), "values from 0 to 1.001", "from 0 (black) to 1 (white)"),
        ((-1e-3, 1.0), "values from -0.001 to 1", "from 0 (black) to 1 (white)"),
        ((0.0, np.inf), "values from 0 to inf", "from 0 (black) to 1 (white)"),
        ((0.5, np.nan), "NaN", "camera"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_outside_the_range_are_refused(
    values: tuple[float, float], got: str, remedy: str, dtype: Any
) -> None:
    """The error names the key, the range that is there and what to do about it."""
    image = np.zeros((2, 4, 3), dtype)
    image[0, 0, 0], image[1, 3, 2] = values
    with pytest.raises(ObservationError) as caught:
        images.to_uint8_hwc(image, key="observation/image")
    assert caught.value.key == "observation/image"
    assert caught.value.expected == "floats in [0, 1]"
    assert caught.value.got == got
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ("image", "layout", "got"),
    [
        ([[0]], None, "list"),
        (np.zeros((4, 5), np.uint8), None, "shape (4, 5)"),
        (np.zeros((1, 4, 5, 3), np.uint8), None, "without a batch axis"),
        (np.zeros((4, 5, 4), np.uint8), None, "Drop the alpha channel"),
        (np.zeros((4, 5, 1), np.uint8), None, "shape (4, 5, 1)"),
        (np.zeros((0, 5, 3), np.uint8), None, "shape (0, 5, 3)"),
        (np.zeros((3, 5, 3), np.uint8), None, "can be read as either"),
        (np.zeros((4, 5, 3), np.uint8), "chw", "shape (4, 5, 3)"),
        (np.zeros((4, 5, 3), np.uint16), None, "uint16"),
        (np.zeros((4, 5, 3), np.bool_), None, "bool"),
    ],
)
def test_what_is_no_image_is_refused(image: Any, layout: images.Layout | None, got: str) -> None:
    """Wrong rank, channels, dtype or type end in an error that says what is there."""
    with pytest.raises(ObservationError) as caught:
        images.to_uint8_hwc(image, key="wrist", layout=layout)
    assert "observation['wrist']" in str(caught.value)
    assert got in str(caught.value)


@pytest.mark.parametrize(("layout", "shape"), [("hwc", (3, 5, 3)), ("chw", (5, 3, 3))])
def test_stated_layout_settles_a_three_pixel_image(
    layout: images.Layout, shape: tuple[int, int, int]
) -> None:
    """An image of 3 rows is read as told."""
    image = np.arange(45, dtype=np.uint8).reshape(3, 5, 3)
    assert images.to_uint8_hwc(image, layout=layout).shape == shape


RESIZERS = [images.resize_with_pad, images.resize_crop, images.resize_stretch]


@pytest.mark.parametrize("resize", RESIZERS)
def test_right_size_is_passed_on(resize: Any) -> None:
    """An image that has the size already is returned itself."""
    image = pixels(24, 32)
    assert resize(image, 24, 32) is image


@pytest.mark.parametrize("resize", RESIZERS)
@given(
    rows=st.integers(8, 60), columns=st.integers(8, 60), height=st.integers(8, 60), seed=st.just(1)
)
@settings(max_examples=25)
def test_result_has_the_size_asked_for(
    resize: Any, rows: int, columns: int, height: int, seed: int
) -> None:
    """Every size becomes every other, as writable contiguous uint8."""
    resized = resize(pixels(rows, columns, seed), height, 33)
    assert resized.shape == (height, 33, 3)
    assert resized.dtype == np.uint8
    assert resized.flags.writeable


def test_crop_box_never_leaves_the_image() -> None:
    """The rounding of a product may lie one step outside: 7x5 to some heights did."""
    for rows, columns in ((7, 5), (7, 14), (23, 40)):
        for height in range(1, 64):
            image = np.zeros((rows, columns, 3), np.uint8)
            assert images.resize_crop(image, height, 33).shape == (height, 33, 3)


@pytest.mark.parametrize("resize", RESIZERS)
def test_leading_axes_are_kept(resize: Any) -> None:
    """A stack of images becomes the stack of the resized images."""
    stack = np.stack([[pixels(20, 30, 0), pixels(20, 30, 1)]])
    resized = resize(stack, 8, 8)
    assert resized.shape == (1, 2, 8, 8, 3)
    np.testing.assert_array_equal(resized[0, 1], resize(stack[0, 1], 8, 8))


def test_pad_centres_on_black() -> None:
    """A wide white image becomes a white band between equal black bars."""
    padded = images.resize_with_pad(np.full((50, 100, 3), 255, np.uint8), 40, 40)
    rows = padded.reshape(40, -1)
    assert (rows[:10] == 0).all()
    assert (rows[10:30] == 255).all()
    assert (rows[30:] == 0).all()


def test_crop_cuts_both_ends() -> None:
    """A wide image with black ends and a white middle square keeps the middle."""
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 18:42] = 255  # two pixels more than the cut: the filter looks that far beyond it
    assert (images.resize_crop(image, 10, 10) == 255).all()


def test_stretch_keeps_every_part() -> None:
    """Left half black, right half white stays so in a square."""
    image = np.zeros((10, 40, 3), np.uint8)
    image[:, 20:] = 255
    stretched = images.resize_stretch(image, 10, 10)
    assert stretched[:, 0].max() == 0
    assert stretched[:, -1].min() == 255


@pytest.mark.parametrize("resize", RESIZERS)
@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8), np.uint8),
        np.zeros((3, 8, 8), np.uint8),
    ],
)
def test_only_colour_bytes_are_resized(resize: Any, image: Any) -> None:
    """Float, grey and channel-first images are refused by name."""
    with pytest.raises(ObservationError, match="observation\\['front'\\]: expected uint8"):
        resize(image, 4, 4, key="front")


def test_pad_refuses_an_image_that_would_vanish() -> None:
    """An image one row high and very long leaves no row when it is scaled down."""
    with pytest.raises(ObservationError, match="got 1x1000 pixels"):
        images.resize_with_pad(np.zeros((1, 1000, 3), np.uint8), 224, 224)
