# SPDX-License-Identifier: Apache-2.0
"""Servos on one wire: who answers what, and how a test breaks it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.errors import ConfigError
from pi05_websocket.testing.feetech_chain import NO_FAULTS, Faults, Reply, ServoChain
from pi05_websocket.testing.feetech_protocol import BROADCAST, Decoder, Instruction, Packet
from pi05_websocket.testing.feetech_servo import Servo, ServoError

TORQUE, GOAL, POSITION, RESPONSE_LEVEL, ID = 40, 42, 56, 8, 5


@pytest.fixture
def chain() -> ServoChain:
    """Three servos."""
    return ServoChain([Servo(1), Servo(2), Servo(3)])


def ask(chain: ServoChain, servo_id: int, code: int, *parameters: int) -> list[Packet]:
    """Send one packet; return what comes back, whole frames only."""
    replies = chain.receive(Packet(servo_id, code, bytes(parameters)).encode(), 0.0)
    return Decoder().feed(b"".join(reply.data for reply in replies), 0.0)


@pytest.mark.parametrize(
    ("servo_id", "code", "parameters", "answers"),
    [
        (1, Instruction.PING, (), [Packet(1, 0)]),
        (BROADCAST, Instruction.PING, (), [Packet(1, 0), Packet(2, 0), Packet(3, 0)]),
        (9, Instruction.PING, (), []),
        (2, Instruction.READ, (POSITION, 2), [Packet(2, 0, b"\x00\x08")]),
        (2, Instruction.READ, (3, 2), [Packet(2, 0, b"\x09\x03")]),
        (BROADCAST, Instruction.READ, (3, 2), []),
        (2, Instruction.READ, (3,), []),
        (2, Instruction.READ, (0, 250), [Packet(2, 0, Servo(2).read(0, 250, 0.0))]),
        (2, Instruction.READ, (0, 251), []),
        (BROADCAST, Instruction.SYNC_READ, (0, 251, 1), []),
        (2, Instruction.WRITE, (TORQUE, 1), [Packet(2, 0)]),
        (2, Instruction.WRITE, (TORQUE,), []),
        (BROADCAST, Instruction.WRITE, (TORQUE, 1), []),
        (2, Instruction.REG_WRITE, (TORQUE, 1), [Packet(2, 0)]),
        (2, Instruction.REG_WRITE, (), []),
        (2, Instruction.ACTION, (), [Packet(2, 0)]),
        (BROADCAST, Instruction.ACTION, (), []),
        (
            BROADCAST, Instruction.SYNC_READ, (POSITION, 2, 3, 1),
            [Packet(3, 0, b"\x00\x08"), Packet(1, 0, b"\x00\x08")],
        ),
        (BROADCAST, Instruction.SYNC_READ, (POSITION,), []),
        (BROADCAST, Instruction.SYNC_WRITE, (GOAL, 2, 1, 0, 9), []),
        (BROADCAST, Instruction.SYNC_WRITE, (), []),
        (2, 0x77, (), []),
    ],
)  # fmt: skip
def test_who_answers_what(
    chain: ServoChain,
    servo_id: int,
    code: int,
    parameters: tuple[int, ...],
    answers: list[Packet],
) -> None:
    """In the order of the bus, or of the ids asked."""
    assert ask(chain, servo_id, code, *parameters) == answers


def test_sync_write_reaches_each_with_its_own(chain: ServoChain) -> None:
    """Rows of id and data; a row that is cut off is nobody's."""
    ask(chain, BROADCAST, Instruction.SYNC_WRITE, GOAL, 2, 1, 1, 2, 3, 3, 4, 2, 5)
    assert [servo.memory["Goal_Position"] for servo in chain.servos] == [0x0201, 0, 0x0403]


def test_reg_write_waits_for_action(chain: ServoChain) -> None:
    """All at once, with one packet to all."""
    for servo_id in (1, 3):
        ask(chain, servo_id, Instruction.REG_WRITE, GOAL, servo_id, 0)
    assert [servo.memory["Goal_Position"] for servo in chain.servos] == [0, 0, 0]
    ask(chain, BROADCAST, Instruction.ACTION)
    assert [servo.memory["Goal_Position"] for servo in chain.servos] == [1, 0, 3]


def test_a_new_id_counts_after_the_answer(chain: ServoChain) -> None:
    """The write is answered under the old id, the next packet reaches the new one."""
    assert ask(chain, 2, Instruction.WRITE, ID, 7) == [Packet(2, 0)]
    assert ask(chain, 2, Instruction.PING) == []
    assert ask(chain, 7, Instruction.PING) == [Packet(7, 0)]
    assert repr(chain) == "<ServoChain [1, 7, 3]>"


def test_response_level_0_answers_reads_and_pings_only(chain: ServoChain) -> None:
    """From the next write on."""
    assert ask(chain, 1, Instruction.WRITE, RESPONSE_LEVEL, 0) == [Packet(1, 0)]
    assert ask(chain, 1, Instruction.WRITE, TORQUE, 1) == []
    assert ask(chain, 1, Instruction.READ, TORQUE, 1) == [Packet(1, 0, b"\x01")]


def test_errors_are_in_every_reply(chain: ServoChain) -> None:
    """Also in those that do what was asked."""
    chain.servos[0].errors = ServoError.OVERLOAD
    assert ask(chain, 1, Instruction.PING) == [Packet(1, 32)]
    assert ask(chain, 1, Instruction.WRITE, GOAL, 1, 0) == [Packet(1, 32)]
    assert chain.servos[0].memory["Goal_Position"] == 1


def test_writes_are_told() -> None:
    """Once for each packet, however many servos it reaches; what changes no register is not."""
    told: list[int] = []
    chain = ServoChain([Servo(1), Servo(2)], on_changed=lambda: told.append(1))
    ask(chain, BROADCAST, Instruction.SYNC_WRITE, GOAL, 2, 1, 0, 8, 2, 0, 8)
    ask(chain, 1, Instruction.WRITE, TORQUE, 1)
    for code in (Instruction.READ, Instruction.REG_WRITE, 0x77):
        ask(chain, 1, code, TORQUE, 1)
    assert len(told) == 2
    ask(chain, 1, Instruction.ACTION)
    assert len(told) == 3


@pytest.mark.parametrize(("rate", "heard"), [(None, 3), (1_000_000, 2), (115_200, 1), (0, 0)])
def test_servos_hear_their_own_speed(rate: int | None, heard: int) -> None:
    """None is a wire without one."""
    chain = ServoChain([Servo(1), Servo(2), Servo(3, eeprom={"Baud_Rate": 4})])
    assert len(chain.receive(Packet(BROADCAST, Instruction.PING).encode(), 0.0, rate)) == heard


packets = st.builds(
    Packet,
    id=st.sampled_from((1, 2, BROADCAST)),
    code=st.sampled_from(Instruction) | st.integers(0, 255),
    parameters=st.binary(max_size=250)
    | st.tuples(st.integers(0, 130), st.binary(max_size=20)).map(lambda a: bytes((a[0],)) + a[1]),
)


@given(sent=st.lists(packets, max_size=8), pause_s=st.floats(0.0, 100.0))
def test_no_packet_is_an_error(sent: list[Packet], pause_s: float) -> None:
    """Whatever registers hold afterwards: every reply is a whole frame, and later reads work too."""
    chain = ServoChain([Servo(1), Servo(2, eeprom={"Phase": 28})])
    everything = Packet(BROADCAST, Instruction.SYNC_READ, bytes((0, 128, *range(240))))
    for now, packet in enumerate([*sent, everything], 1):
        for reply in chain.receive(packet.encode(), now * pause_s):
            assert len(Decoder().feed(reply.data, 0.0)) == 1 or reply.data[2] == 0xFF
    for servo in chain.servos:
        servo.lose_power(1000.0)
        servo.read(0, 128, 2000.0)


def test_silent(chain: ServoChain) -> None:
    """It neither answers nor hears."""
    chain.faults = Faults(silent=frozenset({2}))
    assert [packet.id for packet in ask(chain, BROADCAST, Instruction.PING)] == [1, 3]
    ask(chain, BROADCAST, Instruction.WRITE, TORQUE, 1)
    chain.faults = NO_FAULTS
    assert [servo.memory["Torque_Enable"] for servo in chain.servos] == [1, 0, 1]
    assert ask(chain, 2, Instruction.PING) == [Packet(2, 0)]


def test_wrong_checksum_for_some_replies(chain: ServoChain) -> None:
    """As many as were asked for, then it is well again."""
    chain.faults = Faults(wrong_checksum=frozenset({1}), replies=2)
    assert chain.faults.replies == 2
    assert [ask(chain, 1, Instruction.PING) for _ in range(3)] == [[], [], [Packet(1, 0)]]


def test_garbage_and_delay(chain: ServoChain) -> None:
    """Before each reply, for as long as it is set."""
    chain.faults = Faults(garbage=b"\xff\x00", delay_s=0.2)
    ping = Packet(1, Instruction.PING).encode()
    assert chain.receive(ping, 0.0) == [Reply(b"\xff\x00" + Packet(1, 0).encode(), 0.2)]
    assert chain.receive(ping, 0.0) == [Reply(b"\xff\x00" + Packet(1, 0).encode(), 0.2)]


@pytest.mark.parametrize("wrong", [{"garbage": bytes(65)}, {"delay_s": 6.0}, {"delay_s": -1.0}])
def test_faults_are_bounded(wrong: dict[str, object]) -> None:
    """More than the bus would hold is refused."""
    with pytest.raises(ConfigError, match="expected"):
        Faults(**wrong)  # type: ignore[arg-type]
