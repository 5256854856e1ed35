# SPDX-License-Identifier: Apache-2.0
"""The bus as a serial port: opened and read as a file, without any driver."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from pi05_websocket.testing import EmulatedBus, FakeClock, Faults
from pi05_websocket.testing.emulated_bus import NoPseudoTerminal, six_servos
from pi05_websocket.testing.feetech_chain import ServoChain
from pi05_websocket.testing.feetech_protocol import BROADCAST, Decoder, Instruction, Packet
from pi05_websocket.testing.feetech_servo import Servo, ServoError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")

PATIENCE_S = 20.0


class Driver:
    """The other end of the port."""

    def __init__(self, port: str) -> None:
        import termios

        self.descriptor = os.open(port, os.O_RDWR | os.O_NOCTTY)
        settings = termios.tcgetattr(self.descriptor)
        settings[4] = settings[5] = termios.B1000000
        termios.tcsetattr(self.descriptor, termios.TCSANOW, settings)

    def send(self, packet: Packet) -> None:
        """Write one packet."""
        os.write(self.descriptor, packet.encode())

    def receive(self, count: int) -> list[Packet]:
        """Read until there are `count` packets."""
        decoder, found = Decoder(), []
        while len(found) < count:
            ready, _, _ = select.select([self.descriptor], [], [], PATIENCE_S)
            assert ready, "the bus does not answer"
            found += decoder.feed(os.read(self.descriptor, 4096), 0.0)
        return found


@pytest.fixture
def clock() -> FakeClock:
    """Return what the shafts follow."""
    return FakeClock(1.0)


@pytest.fixture
def bus(clock: FakeClock) -> Iterator[EmulatedBus]:
    """Return six servos on a port."""
    with EmulatedBus(clock=clock) as made:
        yield made


@pytest.fixture
def driver(bus: EmulatedBus) -> Iterator[Driver]:
    """Return the other end of the port."""
    made = Driver(bus.port)
    yield made
    os.close(made.descriptor)


def test_six_servos_answer(bus: EmulatedBus, driver: Driver) -> None:
    """A ping to all, as shipped."""
    driver.send(Packet(BROADCAST, Instruction.PING))
    assert [packet.id for packet in driver.receive(6)] == [1, 2, 3, 4, 5, 6]
    assert bus.port in repr(bus)


def test_shafts_follow_the_clock(bus: EmulatedBus, driver: Driver, clock: FakeClock) -> None:
    """What is written moves the shaft when time passes, and only then."""
    driver.send(Packet(2, Instruction.WRITE, bytes((40, 1))))
    driver.send(Packet(2, Instruction.WRITE, bytes((42, 0, 10))))
    driver.receive(2)
    assert bus.value(2, "Present_Position") == 2048
    clock.sleep(2.0)
    assert bus.value(2, "Present_Position") == 2560


def test_other_speeds_are_not_heard() -> None:
    """At 115200 baud only the servo answers that is set to it; at 1 Mbaud only the other one."""
    import termios

    with EmulatedBus([Servo(1), Servo(2, eeprom={"Baud_Rate": 4})]) as bus:
        driver = Driver(bus.port)
        for speed, answering in ((termios.B115200, 2), (termios.B1000000, 1)):
            settings = termios.tcgetattr(driver.descriptor)
            settings[4] = settings[5] = speed
            termios.tcsetattr(driver.descriptor, termios.TCSANOW, settings)
            for servo_id in (1, 2):  # whoever answers answers in this order
                driver.send(Packet(servo_id, Instruction.PING))
            assert driver.receive(1) == [Packet(answering, 0)]
            # Its answer to this comes behind the other one's to the ping, if there were one.
            driver.send(Packet(answering, Instruction.READ, bytes((5, 1))))
            assert driver.receive(1) == [Packet(answering, 0, bytes((answering,)))]
        os.close(driver.descriptor)


def test_delayed_replies_keep_their_order() -> None:
    """Replies wait, and none overtakes."""
    with EmulatedBus() as bus:
        driver = Driver(bus.port)
        bus.faults = Faults(delay_s=0.02, replies=1)
        assert bus.faults.delay_s == 0.02
        driver.send(Packet(1, Instruction.PING))
        driver.send(Packet(2, Instruction.PING))
        assert [packet.id for packet in driver.receive(2)] == [1, 2]
        os.close(driver.descriptor)


def test_pulled_cable(bus: EmulatedBus, driver: Driver) -> None:
    """The port is gone, as with USB: reads end, writes fail. The servos go on."""
    driver.send(Packet(1, Instruction.WRITE, bytes((40, 1))))
    driver.receive(1)

    bus.pull_cable()

    assert os.read(driver.descriptor, 10) == b""
    with pytest.raises(OSError, match="Input/output"):
        driver.send(Packet(1, Instruction.PING))
    assert bus.value(1, "Torque_Enable") == 1
    bus.pull_cable()
    assert bus.failure is None


def test_lost_power(bus: EmulatedBus, driver: Driver) -> None:
    """Torque is off; the port is still there."""
    driver.send(Packet(1, Instruction.WRITE, bytes((40, 1))))
    driver.receive(1)
    bus.lose_power()
    driver.send(Packet(1, Instruction.READ, bytes((40, 1))))
    assert driver.receive(1) == [Packet(1, 0, b"\0")]


def test_faults_of_servos_are_told() -> None:
    """Who moves something else with the shafts learns of torque that is lost without a packet."""
    told: list[str] = []
    with EmulatedBus(on_changed=lambda: told.append("changed")) as bus:
        bus.set_errors(1, ServoError.OVERLOAD)
        bus.lose_power()
    assert told == ["changed", "changed"]


def test_nothing_stays_open() -> None:
    """Neither descriptors nor the thread, after ten of them."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        with EmulatedBus() as bus:
            bus.pull_cable()
        assert not bus._thread.is_alive()
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_bytes_end_it(bus: EmulatedBus, driver: Driver) -> None:
    """Reads of more than a reply holds, writes beyond the table, noise: it answers the next ping."""
    for packet in (
        Packet(1, Instruction.READ, bytes((0, 255))),
        Packet(BROADCAST, Instruction.SYNC_READ, bytes((0, 255, 1, 2))),
        Packet(1, Instruction.WRITE, bytes((120, *range(40)))),
    ):
        driver.send(packet)
    os.write(driver.descriptor, b"\xff\xff\x01\x00" * 20)
    driver.send(Packet(2, Instruction.PING))
    assert driver.receive(2) == [Packet(1, 0), Packet(2, 0)]
    assert bus.failure is None


def test_hands_and_errors(bus: EmulatedBus, driver: Driver) -> None:
    """A test turns shafts and sets flags; a servo that is not there is a mistake."""
    bus.turn(3, 100)
    bus.set_errors(3, ServoError.OVERLOAD)
    driver.send(Packet(3, Instruction.READ, bytes((56, 2))))
    assert driver.receive(1) == [Packet(3, 32, (2148).to_bytes(2, "little"))]
    with pytest.raises(KeyError, match="no servo 9"):
        bus.value(9, "ID")


def test_driver_that_does_not_read_stops_nothing(bus: EmulatedBus, driver: Driver) -> None:
    """What does not fit is lost; the bus still ends at once."""
    for _ in range(2000):
        driver.send(Packet(BROADCAST, Instruction.SYNC_READ, bytes((0, 100, 1, 2, 3, 4, 5, 6))))
    bus.close()
    assert not bus._thread.is_alive()


def test_failure_behind_the_port_is_a_pulled_cable() -> None:
    """What is told of writes raises: the thread ends and says why."""
    ended = threading.Event()

    def fail() -> None:
        ended.set()
        raise RuntimeError("the simulator is gone")

    with EmulatedBus(six_servos(), on_changed=fail) as bus:
        driver = Driver(bus.port)
        driver.send(Packet(1, Instruction.WRITE, bytes((40, 1))))
        assert ended.wait(PATIENCE_S)
        bus._thread.join(PATIENCE_S)
        assert os.read(driver.descriptor, 10) == b""
        assert str(bus.failure) == "the simulator is gone"
        os.close(driver.descriptor)


def test_waiting_replies_are_bounded(bus: EmulatedBus) -> None:
    """Beyond the bound they are lost."""
    chain = ServoChain(six_servos())
    chain.faults = Faults(delay_s=5.0)
    for _ in range(100):
        for reply in chain.receive(Packet(BROADCAST, Instruction.PING).encode(), 0.0):
            bus._queue(reply, 0.0)
    assert len(bus._waiting) == 256
    bus._waiting.clear()


def test_import_without_pseudo_terminals() -> None:
    """On Windows the module can be imported; only a bus cannot be made, and says why."""
    program = (
        "import sys\n"
        "sys.modules.update(pty=None, tty=None, termios=None)\n"
        "from pi05_websocket.testing import EmulatedBus\n"
        "from pi05_websocket.testing.emulated_bus import NoPseudoTerminal\n"
        "try: EmulatedBus()\n"
        "except NoPseudoTerminal as exc: print(exc)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "WSL" in done.stdout, done.stderr


def test_no_more_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's own words are passed on."""
    import pty

    def refuse() -> tuple[int, int]:
        raise OSError("out of pty devices")

    monkeypatch.setattr(pty, "openpty", refuse)
    with pytest.raises(NoPseudoTerminal, match="out of pty devices"):
        EmulatedBus()
