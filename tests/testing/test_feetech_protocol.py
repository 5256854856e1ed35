# SPDX-License-Identifier: Apache-2.0
"""Frames of the servo bus: bytes as the manual prints them, and streams that are cut and broken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.testing.feetech_protocol import (
    BROADCAST,
    PAUSE_S,
    Decoder,
    Instruction,
    Packet,
    checksum,
)

packets = st.builds(
    Packet,
    id=st.integers(0, BROADCAST),
    code=st.integers(0, 255),
    parameters=st.binary(max_size=250),
)


@pytest.mark.parametrize(
    ("packet", "frame"),
    [
        # Feetech's manual, "ping", "read the present position of servo 1", "write 2048 to all".
        (Packet(1, Instruction.PING), "FF FF 01 02 01 FB"),
        (Packet(1, Instruction.READ, b"\x38\x02"), "FF FF 01 04 02 38 02 BE"),
        (Packet(BROADCAST, Instruction.WRITE, b"\x2a\x00\x08"), "FF FF FE 05 03 2A 00 08 C7"),
        (Packet(1, 0), "FF FF 01 02 00 FC"),
        (Packet(1, 0, b"\x18\x05"), "FF FF 01 04 00 18 05 DD"),
    ],
)
def test_frames_are_the_manuals(packet: Packet, frame: str) -> None:
    """Both ways."""
    assert packet.encode().hex(" ").upper() == frame
    assert Decoder().feed(bytes.fromhex(frame), 0.0) == [packet]


@given(sent=st.lists(packets, max_size=4), cuts=st.lists(st.integers(1, 40), max_size=30))
def test_round_trip_in_any_pieces(sent: list[Packet], cuts: list[int]) -> None:
    """However a stream is cut, the packets are the ones that were sent."""
    stream = b"".join(packet.encode() for packet in sent)
    decoder = Decoder()
    found: list[Packet] = []
    for cut in [*cuts, len(stream)]:
        found += decoder.feed(stream[:cut], 0.0)
        stream = stream[cut:]
    assert found == sent


@given(noise=st.binary(max_size=30), packet=packets)
def test_noise_that_is_no_header_hides_nothing(noise: bytes, packet: Packet) -> None:
    """Bytes before a frame are passed over."""
    noise = noise.replace(b"\xff", b"\x00")
    assert Decoder().feed(noise + packet.encode(), 0.0) == [packet]


@given(junk=st.binary(max_size=600))
def test_any_bytes_are_bounded(junk: bytes) -> None:
    """Never an error, and never more than one frame is kept."""
    decoder = Decoder()
    decoder.feed(junk, 0.0)
    assert len(decoder._rest) <= 259


@given(packet=packets, flipped=st.integers(0, 7), place=st.integers(0, 300))
def test_a_broken_frame_is_not_taken(packet: Packet, flipped: int, place: int) -> None:
    """One wrong bit behind the header: the packet is never read as another one of its length."""
    frame = bytearray(packet.encode())
    frame[4 + place % (len(frame) - 4)] ^= 1 << flipped
    assert packet not in Decoder().feed(bytes(frame), 0.0)


@pytest.mark.parametrize(
    "broken",
    ["FF FF 01 02 01 FA", "FF FF 01 01 FD", "FF FF FF 01 00 00 00", "FF FF 01 00 FE"],
    ids=["checksum", "too short", "id 255", "no code"],
)
def test_what_is_no_frame_is_passed_over(broken: str) -> None:
    """The next whole frame is found."""
    ping = Packet(3, Instruction.PING)
    assert Decoder().feed(bytes.fromhex(broken) + ping.encode(), 0.0) == [ping]


def test_half_a_frame_is_given_up_after_a_pause() -> None:
    """An instruction that was cut off does not swallow the next one."""
    ping = Packet(3, Instruction.PING)
    decoder = Decoder()
    assert decoder.feed(bytes.fromhex("FF FF 01 40 03"), 1.0) == []
    assert repr(decoder) == "<Decoder 5 bytes of a frame>"
    assert decoder.feed(ping.encode(), 1.0 + 2 * PAUSE_S) == [ping]


def test_too_many_parameters_make_no_frame() -> None:
    """The length is one byte."""
    with pytest.raises(ValueError, match="250"):
        Packet(1, 0, bytes(251)).encode()


def test_checksum_is_one_byte() -> None:
    """The sum's low byte, inverted."""
    assert checksum(b"\xff\xff\x03") == 0xFE
