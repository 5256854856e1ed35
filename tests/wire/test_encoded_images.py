# SPDX-License-Identifier: Apache-2.0
"""Images as JPEG: what is encoded, what comes back, and what a hostile peer gets."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.errors import DecodeError, EncodeError
from pi05_websocket.wire import codec
from pi05_websocket.wire.encoded_images import (
    decode_images,
    encode_images,
    holds_encoded_images,
    image_announcement,
    image_layout,
    reads_jpeg,
)
from pi05_websocket.wire.limits import DecodeLimits

UInt8 = npt.NDArray[np.uint8]


def picture(rows: int = 48, columns: int = 64, seed: int = 0) -> UInt8:
    """Slopes of all three colours with a little noise, as a camera has it."""
    x, y = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
    slopes = np.stack([x, y, (x + y) / 2], axis=2) * 200 + 20
    noise = np.random.default_rng(seed).normal(0, 1, slopes.shape)
    return np.clip(slopes + noise, 0, 255).astype(np.uint8)


def encoded(**changes: Any) -> dict[str, Any]:
    """What stands in the place of `picture()`, with changes."""
    observation, _ = encode_images({"image": picture()}, 90)
    return {**observation["image"], **changes}


def jpeg(image: UInt8, **options: Any) -> bytes:
    """A JPEG of an image."""
    return bytes(simplejpeg.encode_jpeg(image, **options))


# ------------------------------------------------------------------------------------- the announcement


def test_an_announcement_is_understood() -> None:
    """By this project's own client."""
    assert image_announcement() == {"_images": {"version": 1, "encodings": ["jpeg"]}}
    assert reads_jpeg(codec.decode(codec.encode(image_announcement())))


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {"_images": None},
        {"_images": ["jpeg"]},
        {"_images": {"encodings": ["jpeg"]}},
        {"_images": {"version": True, "encodings": ["jpeg"]}},
        {"_images": {"version": 2, "encodings": ["jpeg"]}},
        {"_images": {"version": 1}},
        {"_images": {"version": 1, "encodings": "jpeg"}},
        {"_images": {"version": 1, "encodings": ["webp"]}},
        {"_images": {"version": 1, "encodings": [np.zeros(2)]}},
    ],
)
def test_what_cannot_be_relied_on_announces_nothing(metadata: Any) -> None:
    """The server then gets arrays."""
    assert not reads_jpeg(metadata)


# ------------------------------------------------------------------------------------ what is an image


@pytest.mark.parametrize(
    ("value", "layout"),
    [
        (np.zeros((48, 64, 3), np.uint8), "hwc"),
        (np.zeros((3, 48, 64), np.uint8), "chw"),
        (np.zeros((3, 48, 3), np.uint8), None),
        (np.zeros((48, 64, 4), np.uint8), None),
        (np.zeros((48, 64), np.uint8), None),
        (np.zeros((1, 48, 64, 3), np.uint8), None),
        (np.zeros((48, 64, 3), np.float32), None),
        (np.zeros((48, 64, 3), np.uint16), None),
        (np.ma.masked_array(np.zeros((48, 64, 3), np.uint8)), None),
        (np.zeros((15, 64, 3), np.uint8), None),
        (np.zeros((3, 48, 0), np.uint8), None),
        (np.zeros((16, 65_501, 3), np.uint8), None),
        ([[1, 2, 3]], None),
        ("image", None),
    ],
)
def test_only_one_rgb_image_is_an_image(value: Any, layout: str | None) -> None:
    """Depth, masks, batches, and what could be read both ways stay arrays."""
    assert image_layout(value) == layout


# ---------------------------------------------------------------------------------------- there and back


@given(
    rows=st.integers(16, 70),
    columns=st.integers(16, 70),
    layout=st.sampled_from(["hwc", "chw"]),
    strided=st.booleans(),
    seed=st.integers(0, 9),
)
def test_an_image_comes_back_as_it_was_but_for_a_little(
    rows: int, columns: int, layout: str, strided: bool, seed: int
) -> None:
    """Shape, dtype and layout to the bit; at quality 95 the error is a step or two in 255."""
    step = 2 if strided else 1
    image = picture(rows * step, columns * step, seed)[::step, ::step]
    if layout == "chw":
        image = image.transpose(2, 0, 1)
    before = image.copy()

    there, count = encode_images({"cameras": {"top": image}, "prompt": "pick"}, 95)
    back = decode_images(codec.decode(codec.encode(there)))

    assert count == 1
    assert back["prompt"] == "pick"
    found = back["cameras"]["top"]
    assert (found.shape, found.dtype) == (image.shape, image.dtype)
    assert found.flags.c_contiguous
    assert found.flags.writeable
    error = np.abs(found.astype(int) - image.astype(int))
    assert error.mean() < 1.5
    assert error.max() < 16
    np.testing.assert_array_equal(image, before)


def test_everything_else_stays_what_it_is() -> None:
    """The same objects; the observation itself is not changed."""
    image, state, depth = picture(), np.zeros(6, np.float32), np.zeros((48, 64), np.uint16)
    observation = {"image": image, "state": state, "depth": depth, "nested": {"prompt": "pick"}}

    there, count = encode_images(observation, 75)

    assert count == 1
    assert observation["image"] is image
    assert there["state"] is state
    assert there["depth"] is depth
    assert there["image"].keys() == {"__image__", "data", "shape", "layout"}
    assert len(there["image"]["data"]) < image.nbytes / 4


def test_a_map_that_contains_itself_is_left_to_the_codec() -> None:
    """Which names it, as it does for raw images."""
    endless: dict[str, Any] = {"image": picture()}
    endless["again"] = endless
    there, _ = encode_images(endless, 90)
    with pytest.raises(EncodeError, match="nested deeper than 32 levels"):
        codec.encode(there)


def test_noise_is_sent_as_it_is() -> None:
    """JPEG would make it larger."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    there, count = encode_images({"image": noise}, 100)
    assert count == 0
    assert there["image"] is noise


def test_worse_images_are_smaller() -> None:
    """Which is what the quality is for."""
    sizes = [len(encode_images({"i": picture()}, q)[0]["i"]["data"]) for q in (95, 90, 85, 75)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 4


def test_a_stock_observation_passes_the_decoder() -> None:
    """A client that sends arrays to a server that reads JPEG is answered as ever."""
    observation = {"image": picture(), "nested": {"state": np.zeros(6, np.float32)}, "n": 1}
    found = decode_images(observation)
    assert found["image"] is observation["image"]
    assert found["nested"] == observation["nested"]


@pytest.mark.parametrize(
    ("observation", "holds"),
    [
        ({}, False),
        ({"n": 1, "image": np.zeros((2, 2, 3), np.uint8), "nested": {"state": [1]}}, False),
        ({"image": {"__image__": "jpeg"}}, True),
        ({"n": 1, "a": {"b": {"c": {"__image__": None}}}}, True),
        ({"list": [{"__image__": "jpeg"}]}, False),  # nobody announces this
    ],
)
def test_whether_there_is_anything_to_decode(observation: dict[str, Any], holds: bool) -> None:
    """Where there is not, decoding changes nothing."""
    assert holds_encoded_images(observation) == holds


def test_an_image_deeper_than_anything_is_none() -> None:
    """The codec lets through no more than 32 levels; looking goes no deeper."""
    observation: dict[str, Any] = {"image": {"__image__": "jpeg"}}
    for _ in range(40):
        observation = {"deeper": observation}
    assert not holds_encoded_images(observation)


# -------------------------------------------------------------------------------------- hostile messages


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"extra": 1}, "expected an encoded image's entries"),
        ({"__image__": "png"}, "expected the encoding 'jpeg', got 'png'"),
        ({"__image__": None}, "expected the encoding 'jpeg', got None"),
        ({"layout": "whc"}, "expected the layout 'hwc' or 'chw', got 'whc'"),
        ({"layout": 1}, "expected the layout"),
        ({"__image__": np.zeros(2)}, "expected the encoding 'jpeg', got an array of float64"),
        ({"layout": np.zeros(2)}, "expected the layout 'hwc' or 'chw', got an array of float64"),
        ({"shape": None}, "expected a shape .rows, columns, 3., got None"),
        ({"shape": [48, 64]}, "got .48, 64."),
        ({"shape": [48, 64, 1]}, "got .48, 64, 1."),
        ({"shape": [48.0, 64, 3]}, "expected a shape"),
        ({"shape": [True, 64, 3]}, "expected a shape"),
        ({"shape": [0, 64, 3]}, "expected a shape"),
        ({"shape": [48, -64, 3]}, "expected a shape"),
        ({"shape": [65_501, 64, 3]}, "expected a shape"),
        ({"shape": [48, 65_501, 3]}, "expected a shape"),
        ({"shape": [64, 48, 3]}, "expected 64x48 pixels as declared, got a JPEG of 48x64"),
        ({"shape": [480, 640, 3]}, "expected 480x640 pixels as declared, got a JPEG of 48x64"),
        ({"data": "text"}, "expected fewer bytes than the 9216 of the image itself, got 'text'"),
        ({"data": bytes(9216)}, "expected fewer bytes than the 9216 of the image itself, got 9216"),
        ({"data": b"\x00" * 100}, "expected a JPEG, got bytes that begin with 00000000"),
        ({"data": b""}, "expected a JPEG, got bytes that begin with nothing"),
        (
            {"data": jpeg(picture()[..., :1].copy(), colorspace="GRAY", colorsubsampling="Gray")},
            "expected a JPEG of 3 components .RGB., got 1",
        ),
    ],
)
def test_an_image_that_is_not_what_it_says_is_refused(changes: dict[str, Any], told: str) -> None:
    """With its key, what was expected and what came."""
    with pytest.raises(DecodeError, match=f"^cameras/top: .*{told}"):
        decode_images({"cameras": {"top": encoded(**changes)}})


def test_a_missing_entry_is_refused() -> None:
    """A marker alone makes no image."""
    with pytest.raises(DecodeError, match=r"^image: expected an encoded image's entries"):
        decode_images({"image": {"__image__": "jpeg"}})


def test_a_header_that_announces_more_than_is_declared_decodes_nothing() -> None:
    """Four billion pixels in a file of a kilobyte, declared as a small image or as what they are."""
    data = encoded()["data"]
    at = data.index(b"\xff\xc0") + 5
    bomb = data[:at] + (65_000).to_bytes(2) + (65_000).to_bytes(2) + data[at + 4 :]
    with pytest.raises(DecodeError, match="got a JPEG of 65000x65000"):
        decode_images({"image": encoded(data=bomb)})
    with pytest.raises(DecodeError, match="expected images of at most 67108864 more bytes"):
        decode_images({"image": encoded(data=bomb, shape=[65_000, 65_000, 3])})


def test_many_images_together_are_bounded_too() -> None:
    """As if they had been sent as arrays."""
    observation = {str(number): encoded() for number in range(4)}
    enough = DecodeLimits(max_message_bytes=4 * 9216)
    assert len(decode_images(observation, enough)) == 4
    with pytest.raises(DecodeError, match=r"^3: expected images of at most 9215 more bytes"):
        decode_images(observation, DecodeLimits(max_message_bytes=4 * 9216 - 1))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_a_truncated_image_is_refused(share: float) -> None:
    """Grey instead of what the camera saw is nothing to act on."""
    data = encoded()["data"]
    with pytest.raises(DecodeError, match=r"^image: expected "):
        decode_images({"image": encoded(data=data[: int(share * len(data))])})


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_bytes_end_in_an_image_of_the_declared_shape_or_a_refusal(
    damage: list[tuple[int, int]],
) -> None:
    """Whatever is changed, and wherever."""
    said = encoded()
    data = bytearray(said["data"])
    for at, value in damage:
        data[at % len(data)] = value
    try:
        found = decode_images({"image": {**said, "data": bytes(data)}})["image"]
    except DecodeError:
        return
    assert (found.shape, found.dtype) == ((48, 64, 3), np.uint8)
