# SPDX-License-Identifier: Apache-2.0
"""What is read of a JPEG before it is decoded, from JPEGs that say anything."""

from __future__ import annotations

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.wire.arrays import Malformed
from pi05_websocket.wire.jpeg_header import JpegHeader, read_jpeg_header

SOI = b"\xff\xd8"


def segment(marker: int, content: bytes) -> bytes:
    """A segment with its length."""
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2) + content


def frame(
    rows: int = 48,
    columns: int = 64,
    components: int = 3,
    *,
    marker: int = 0xC0,
    precision: int = 8,
) -> bytes:
    """A frame header."""
    content = bytes((precision,)) + rows.to_bytes(2) + columns.to_bytes(2) + bytes((components,))
    return segment(marker, content + bytes(3 * components))


@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
def test_an_encoders_header_is_read(subsampling: str) -> None:
    """Rows first, as numpy has them."""
    image = np.zeros((48, 64, 3), np.uint8)
    data = simplejpeg.encode_jpeg(image, colorsubsampling=subsampling)
    assert read_jpeg_header(data) == JpegHeader(rows=48, columns=64, components=3)


def test_segments_before_the_frame_are_passed_over() -> None:
    """Comments, application data and tables, in any order."""
    data = SOI + segment(0xE1, b"Exif") + segment(0xFE, b"made here") + segment(0xDB, b"") + frame()
    assert read_jpeg_header(data) == JpegHeader(rows=48, columns=64, components=3)


@pytest.mark.parametrize("components", [1, 4])
def test_other_components_are_told(components: int) -> None:
    """Whether they are allowed is for the caller to say."""
    assert read_jpeg_header(SOI + frame(components=components)).components == components


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "got bytes that begin with nothing"),
        (b"\x89PNG\r\n", "got bytes that begin with 89504e47"),
        (SOI, "got its end after 2 bytes"),
        (SOI + b"\xff\xe0\x00", "got its end after 5 bytes"),
        (SOI + segment(0xE0, b"JFIF")[:-2], "got its end after 8 bytes"),
        (SOI + b"\x00\x00\x00\x02", "expected a JPEG segment at byte 2, got 00000002"),
        (SOI + b"\xff\xe0\x00\x01", "expected a JPEG segment at byte 2, got ffe00001"),
        (SOI + frame(marker=0xC2), "expected a baseline JPEG, got the marker ffc2"),
        (SOI + frame(marker=0xC9), "expected a baseline JPEG, got the marker ffc9"),
        (SOI + segment(0xDA, b"scan"), "expected a baseline JPEG, got the marker ffda"),
        (SOI + b"\xff\xff\xff\xff", "expected a baseline JPEG, got the marker ffff"),
        (SOI + frame(precision=12), "expected a JPEG of 8 bits, got 12"),
        (SOI + segment(0xC0, b"\x08\x00"), "got 2 bytes of one"),
        (SOI + frame()[:-1], "got 14 bytes of one"),
        (SOI + segment(0xFE, b"") * 100 + frame(), "got 64 other segments"),
    ],
)
def test_what_is_no_baseline_jpeg_is_refused(data: bytes, told: str) -> None:
    """With what was found in its place."""
    with pytest.raises(Malformed, match=told):
        read_jpeg_header(data)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_end_in_a_header_or_a_refusal(data: bytes, begins_well: bool) -> None:
    """And nothing else."""
    try:
        header = read_jpeg_header(SOI * begins_well + data)
    except Malformed:
        return
    assert 0 <= header.rows < 65536
