# SPDX-License-Identifier: Apache-2.0
"""An arm that is driven over real sockets while somebody breaks something, and everything it was commanded.

`World` starts a server, a link that can be cut, frozen and narrowed, and a `Runtime` on a thread of its own.
Whatever is broken, each command is looked at: it must be finite and near the one before.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from misbehaving import METADATA, ScriptedServer
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from pi05_websocket.chunks.config import SchedulerConfig
from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.clock import SYSTEM_CLOCK, Clock
from pi05_websocket.keymap import KeyMap
from pi05_websocket.presets import preset
from pi05_websocket.robot.interface import RobotReading
from pi05_websocket.robot.limits import LimitsConfig
from pi05_websocket.robot.player import PlayerConfig
from pi05_websocket.robot.runtime import Runtime
from pi05_websocket.robot.settings import hold_config
from pi05_websocket.robot.trace import Trace
from pi05_websocket.wire import codec

HZ = 30.0
ROWS = 20
PER_TICK = 0.5
"""How far the policy's plan goes in a tick."""
MAX_STEP = 2.0
"""What the limits let a joint do in a tick."""
KEY_MAP: KeyMap = preset("so101")
SHORT: dict[str, Any] = {
    "connect_timeout": 1.0,
    "handshake_timeout": 0.5,
    "metadata_timeout": 0.5,
    "request_timeout": 0.5,
    "first_request_timeout": 5.0,
    "backoff_first": 0.02,
    "backoff_max": 0.1,
    "max_message_bytes": 1_000_000,
    "image_transport": "raw",
}


def plan(observation: dict[str, Any]) -> np.ndarray:
    """Return rows that go on evenly from where the arm is."""
    state = np.asarray(observation["observation/state"], np.float32)
    return state + PER_TICK * np.arange(1, ROWS + 1, dtype=np.float32)[:, None]


class Onwards:
    """The policy behind a server of ours."""

    def __init__(self) -> None:
        self.before: Callable[[], None] = lambda: None
        """What happens before an answer; may raise."""

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Answer with a plan."""
        self.before()
        return {"actions": plan(observation)}


class Scripted:
    """A stock server's conversation, with answers that can be changed in mid-run."""

    def __init__(self) -> None:
        self.answer: Callable[[ServerConnection, dict[str, Any]], None] = self.well
        self.asked = 0

    def __call__(self, connection: ServerConnection) -> None:
        """Talk to one client."""
        connection.send(METADATA)
        for message in connection:
            self.asked += 1
            assert isinstance(message, bytes)
            self.answer(connection, codec.decode(message))

    @staticmethod
    def well(connection: ServerConnection, observation: dict[str, Any]) -> None:
        """Answer as one should."""
        connection.send(codec.encode({"actions": plan(observation)}))


class Arm:
    """Is where it was commanded, and keeps all commands."""

    def __init__(self) -> None:
        self.joints = np.zeros(6, np.float32)
        self.commands: list[np.ndarray] = []
        self.images = {
            "wrist2": np.zeros((224, 224, 3), np.uint8),
            "realsense": np.zeros((480, 640, 3), np.uint8),
        }
        self.before: Callable[[], None] = lambda: None
        """What happens before it is read; may raise."""

    def get_observation(self) -> RobotReading:
        """Return two images and the joints."""
        self.before()
        return RobotReading(dict(self.images), self.joints)

    def send_action(self, values: np.ndarray, /) -> None:
        """Go there."""
        self.commands.append(np.array(values))
        self.joints = np.array(values, np.float32)


class Wire:
    """A TCP forwarder between robot and server, on which everything can be done to a cable."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        self._flows: list[threading.Event] = []
        self._frozen = False
        self._lock = threading.Lock()
        self._closed = False
        self.refuses = False
        """Accepts and hangs up, as a tunnel to a dead port."""
        self.delay_s = 0.0
        """Added to each piece on the way back."""
        self.bytes_per_s: float | None = None
        """What gets through to the server."""
        self.piece = 65536
        """How much is handed on at a time on the way back."""
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self, *, new: bool = True) -> None:
        """Carry nothing any more, and say nothing of it: half-open; of new connections too, or not."""
        with self._lock:
            self._frozen = new
            for flows in self._flows:
                flows.clear()

    def thaw(self) -> None:
        """Carry again."""
        with self._lock:
            self._frozen = False
            for flows in self._flows:
                flows.set()

    def cut(self, *, reset: bool = False) -> None:
        """End every connection, with a FIN or a RST."""
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    if reset:
                        sock.setsockopt(
                            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                        )
                        sock.close()
                    else:
                        sock.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def fail(self, *, broken: bool) -> None:
        """End every connection and each new one at once, or let them through again."""
        self.refuses = broken
        if broken:
            self.cut()

    def close(self) -> None:
        """End for good."""
        self._closed = True
        self.thaw()
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._closed:
                near, _ = self._listener.accept()
                if self.refuses:
                    near.close()
                    continue
                try:
                    far = socket.create_connection(("127.0.0.1", self.target), 2)
                except OSError:
                    near.close()
                    continue
                flows = threading.Event()
                with self._lock:
                    self._open += [near, far]
                    self._flows.append(flows)
                    if not self._frozen:
                        flows.set()
                for ends in ((near, far, flows, True), (far, near, flows, False)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(
        self, source: socket.socket, sink: socket.socket, flows: threading.Event, up: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(16384 if up else self.piece):
                flows.wait(30)
                if up and self.bytes_per_s is not None:
                    time.sleep(len(data) / self.bytes_per_s)
                elif not up and self.delay_s:
                    time.sleep(self.delay_s)
                sink.sendall(data)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        source.close()


class World:
    """An arm in motion, what drives it, and what happened.

    Args:
        url: Where its policy is; None: a scripted server behind a wire.
        connection: Changes to the connection's settings.
        clock: What paces the loop.
        listeners: Who is told what happens, besides.
        trace: A trace file.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        connection: dict[str, Any] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        listeners: tuple[Any, ...] = (),
        trace: Any = None,
    ) -> None:
        self._open = contextlib.ExitStack()
        self.server = Scripted()
        self.socket_server: ScriptedServer | None = None
        self.wire: Wire | None = None
        if url is None:
            self.socket_server = ScriptedServer(self.server)
            self._open.callback(lambda: self.socket_server and self.socket_server.stop())
            self.wire = self._kept(Wire(self.socket_server.port))
            url = f"ws://127.0.0.1:{self.wire.port}"
        self.arm = Arm()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.error: BaseException | None = None
        self.policy = self._kept(
            RemotePolicy(
                config=ConnectionConfig(url=url, **{**SHORT, **(connection or {})}),
                wait_for_server=0,
            )
        )
        told = Trace(trace, listeners=[self._note, *listeners])
        config = PlayerConfig(
            scheduler=SchedulerConfig(max_age_ticks=round(0.5 * HZ)),
            limits=LimitsConfig(max_velocity=(MAX_STEP * HZ,)),
            hold=hold_config(pose="commanded", coast=1.0, auto_resume=10.0, control_hz=HZ),
            control_hz=HZ,
        )
        self.runtime = Runtime(
            self.arm, self.policy, KEY_MAP, config, task="go", trace=told, clock=clock
        )
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> World:
        self.thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.runtime.controls.quit()
        self.thread.join(10)
        self._open.close()

    def moves(self, ticks: int = 8, seconds: float = 8.0) -> None:
        """Wait until so many more rows were commanded.

        Raises:
            AssertionError: They were not.
        """
        self._more(
            lambda kind, facts: kind == "tick" and facts["source"] == "chunk", ticks, seconds
        )

    def holds(self, *causes: str, seconds: float = 8.0) -> None:
        """Wait until a tick is held for one of these causes.

        Raises:
            AssertionError: None was.
        """
        self._more(lambda kind, facts: kind == "tick" and facts.get("cause") in causes, 1, seconds)

    def fails(self, error: str, seconds: float = 8.0) -> None:
        """Wait until a request or the link fails with an error of this class.

        Raises:
            AssertionError: It did not.
        """
        self._more(lambda kind, facts: facts.get("error") == error, 1, seconds)

    def still_holds(self, seconds: float = 0.6) -> bool:
        """Watch for a moment; say whether no row was commanded."""
        seen = len(self.events)
        time.sleep(seconds)
        return not any(
            facts["source"] == "chunk" for kind, facts in self.events[seen:] if kind == "tick"
        )

    def ends(self, seconds: float = 8.0) -> BaseException:
        """Wait until the run ends by an error; return it.

        Raises:
            AssertionError: It goes on.
        """
        self.thread.join(seconds)
        assert not self.thread.is_alive()
        assert self.error is not None
        return self.error

    def check(self) -> None:
        """Look at every command.

        Raises:
            AssertionError: One is not finite, or farther from the one before than the limits allow for the
                ticks between them: a machine that was busy may have skipped some.
        """
        commands = list(self.arm.commands)  # one for each tick, sent after it was told
        told = [facts for kind, facts in self.events if kind == "tick"]
        assert len(told) >= len(commands)
        assert np.isfinite(np.array(commands)).all()
        for command, tick in zip(commands, told, strict=False):
            assert np.allclose(command, tick["values"], atol=1e-3)
        for before, after in itertools.pairwise(range(len(commands))):
            passed = max(1, told[after]["tick"] - told[before]["tick"])
            step = np.abs(commands[after] - commands[before]).max()
            assert step <= passed * MAX_STEP + 1e-3, (told[before], told[after])

    def _kept(self, made: Any) -> Any:
        self._open.callback(made.close)
        return made

    def _note(self, kind: str, facts: dict[str, Any]) -> None:
        self.events.append((kind, facts))

    def _run(self) -> None:
        try:
            self.runtime.run()
        except BaseException as exc:
            self.error = exc

    def _more(
        self, counts: Callable[[str, dict[str, Any]], bool], wanted: int, seconds: float
    ) -> None:
        seen, deadline = len(self.events), time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = sum(counts(kind, facts) for kind, facts in self.events[seen:])
            if found >= wanted:
                return
            time.sleep(0.01)
        told = [facts for kind, facts in self.events[seen:] if kind != "tick"][-5:]
        last = [facts for kind, facts in self.events if kind == "tick"][-1:]
        raise AssertionError(
            f"not within {seconds} s; last tick {last}, told {told}, {self.error!r}"
        )


def closing(connection: ServerConnection, code: int) -> None:
    """Close a scripted server's connection."""
    with contextlib.suppress(ConnectionClosed):
        connection.close(code, "as it pleases")


@contextlib.contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Put something else in the place of an attribute, for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
