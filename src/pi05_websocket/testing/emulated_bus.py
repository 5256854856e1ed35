# SPDX-License-Identifier: Apache-2.0
"""Feetech servos on a serial port that is none: a pseudo-terminal, a thread behind it. Linux; macOS untried.

In: what a driver writes to `port`, and the faults a test asks for. Out: what servos would answer. The driver's
side is an ordinary serial port; a pulled cable is to it what it is with USB. Any thread may call it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Sequence

from pi05_websocket.clock import SYSTEM_CLOCK, Clock
from pi05_websocket.errors import Pi05WebsocketError
from pi05_websocket.testing.feetech_chain import Faults, Reply, ServoChain
from pi05_websocket.testing.feetech_servo import Servo, ServoError

__all__ = ["EmulatedBus", "NoPseudoTerminal", "six_servos"]

logger = logging.getLogger(__name__)

_CHUNK = 4096
_MOST_WAITING = 256
"""Replies that wait for their time; what is beyond is lost, as on a wire that nobody reads."""
_END_S = 5.0
"""How long the thread may take to end; it waits for nothing but what `on_changed` does."""


class NoPseudoTerminal(Pi05WebsocketError):
    """This system has no pseudo-terminals, or no more of them."""


def six_servos() -> list[Servo]:
    """Return servos 1 to 6 as shipped, their shafts in mid-turn."""
    return [Servo(number) for number in range(1, 7)]


class EmulatedBus:
    """Servos on a serial port. A context manager.

    Args:
        servos: Six as shipped by default.
        clock: What their shafts follow.
        on_changed: Called after whatever may have changed what drives a shaft, one call at a time: a packet, in
            the bus's thread; an error or a loss of power, in the thread that asked for it.

    Raises:
        NoPseudoTerminal: On Windows, or if there are no more of them.
    """

    def __init__(
        self,
        servos: Sequence[Servo] | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
        on_changed: Callable[[], None] | None = None,
    ) -> None:
        self._chain = ServoChain(six_servos() if servos is None else servos, on_changed)
        self._clock = clock
        self._lock = threading.RLock()
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._stop = threading.Event()
        self.failure: BaseException | None = None
        """What ended the bus, if it was not asked to end."""
        self._host, self._driver = _open_terminal()
        self._speeds = _speeds()
        self.port = os.ttyname(self._driver)
        """Path of the serial port."""
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name="emulated-bus", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<EmulatedBus {self.port} {self._chain!r}>"

    def __enter__(self) -> EmulatedBus:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def faults(self) -> Faults:
        """What is wrong with the wire; set it, `Faults()` for nothing."""
        return self._chain.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        with self._lock:
            self._chain.faults = faults

    def value(self, servo_id: int, name: str) -> int:
        """Return a register, without the bus: `value(1, "Goal_Position")`."""
        with self._lock:
            servo = self._servo(servo_id)
            servo.read(0, 1, self._clock.now())
            return servo.memory[name]

    def set_errors(self, servo_id: int, errors: ServoError) -> None:
        """Set a servo's error byte; `ServoError(0)` for none."""
        with self._lock:
            self._servo(servo_id).errors = errors
            self._chain.tell_changed()

    def turn(self, servo_id: int, ticks: float) -> None:
        """Turn a shaft by hand; one with torque turns back."""
        with self._lock:
            self._servo(servo_id).shaft.position += ticks

    def lose_power(self) -> None:
        """Switch the servos' power off and on: no torque, volatile registers as at the start."""
        with self._lock:
            for servo in self._chain.servos:
                servo.lose_power(self._clock.now())
            self._chain.tell_changed()

    def pull_cable(self) -> None:
        """Take the serial port away. The servos keep their power, and hold what they were told last."""
        with self._lock:
            if not self._stop.is_set():
                self._stop.set()
                os.close(self._wake_write)  # the other end of the pipe becomes readable
        if threading.current_thread() is not self._thread:
            self._thread.join(_END_S)

    def close(self) -> None:
        """End the thread and close the port. Safe to call twice."""
        self.pull_cable()

    def _servo(self, servo_id: int) -> Servo:
        for servo in self._chain.servos:
            if servo.id == servo_id:
                return servo
        raise KeyError(f"no servo {servo_id}: there are {[one.id for one in self._chain.servos]}")

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._serve()
        # The top of a thread: a bus that fails is a cable that is pulled.
        except BaseException as exc:
            self.failure = exc
            logger.exception("the emulated bus ends")
        finally:
            for descriptor in (self._host, self._driver, self._wake_read):
                os.close(descriptor)

    def _serve(self) -> None:
        """Wait for bytes, for a reply's time, or for the end; deal with them."""
        timeout = None
        if self._waiting:
            timeout = max(0.0, self._waiting[0][0] - self._clock.now())
        ready, _, _ = select.select([self._host, self._wake_read], [], [], timeout)
        if self._host in ready and not self._stop.is_set():
            data = b""
            with contextlib.suppress(BlockingIOError):  # the driver has flushed it meanwhile
                data = os.read(self._host, _CHUNK)
            with self._lock:
                now = self._clock.now()
                for reply in self._chain.receive(data, now, self._baud_rate()):
                    self._queue(reply, now)
        while self._waiting and self._waiting[0][0] <= self._clock.now():
            # What does not fit is lost: the thread must never wait for a driver that does not read.
            with contextlib.suppress(BlockingIOError):
                os.write(self._host, self._waiting[0][1])
            self._waiting.popleft()

    def _queue(self, reply: Reply, now: float) -> None:
        """Put a reply behind those before it: on one wire nothing overtakes."""
        due = now + reply.delay_s
        if self._waiting:
            due = max(due, self._waiting[-1][0])
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append((due, reply.data))

    def _baud_rate(self) -> int | None:
        import termios

        # A speed without a code of its own is one that no servo is set to.
        return self._speeds.get(termios.tcgetattr(self._host)[5], 0)


def _open_terminal() -> tuple[int, int]:
    try:
        import pty
        import tty
    except ImportError as exc:  # Windows
        raise NoPseudoTerminal(
            "an emulated bus needs a pseudo-terminal: Linux or macOS, on Windows within WSL"
        ) from exc
    try:
        host, driver = pty.openpty()
    except OSError as exc:
        raise NoPseudoTerminal(f"no pseudo-terminal could be opened: {exc}") from exc
    tty.setraw(driver)
    os.set_blocking(host, False)
    return host, driver


def _speeds() -> dict[int, int]:
    """Return what the system's codes for speeds mean, bits/s."""
    import termios

    return {
        code: int(name[1:])
        for name, code in vars(termios).items()
        if name[0] == "B" and name[1:].isdecimal() and int(name[1:])
    }
