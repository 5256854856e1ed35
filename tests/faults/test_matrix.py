# SPDX-License-Identifier: Apache-2.0
"""The fault matrix: an arm in motion over real sockets, and everything that can be pulled out meanwhile.

Each row of the matrix in docs/topics/failures.md is a function here, by the same name, that breaks something,
says what the arm has to do, and mends it. Whatever happens, every command is finite and near the one before.
"""

from __future__ import annotations

import contextlib
import http
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme
from driven_arm import Onwards, Scripted, World, closing, patched, plan
from misbehaving import ScriptedServer
from mutant_servers import GoodServer

from pi05_websocket.bench.links import Link
from pi05_websocket.bench.real_link import RealLink, kind_here
from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.clock import SystemClock
from pi05_websocket.errors import AccessRefused, IncompatibleServer, ObservationError
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.server.keys_file import add_key, revoke_key
from pi05_websocket.wire import codec

pytestmark = pytest.mark.faults

PAGE = Path(__file__).parents[2] / "docs" / "topics" / "failures.md"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Laboratory:
    """Makes worlds and servers, and ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept = contextlib.ExitStack()

    def world(self, *words: Any, **settings: Any) -> World:
        """Return a world with an arm in motion."""
        world: World = self.kept.enter_context(World(*words, **settings))
        self.kept.callback(world.check)
        world.moves()
        return world

    def ours(self, policy: Any = None, port: int = 0, metadata: Any = None, **settings: Any) -> Any:
        """Return a server of ours."""
        server = WebsocketPolicyServer(
            policy or Onwards(),
            "127.0.0.1",
            port,
            metadata or {},
            config=ServerConfig(**settings),
        )
        return self.kept.enter_context(server)

    def scripted(self, script: Any = None, **options: Any) -> ScriptedServer:
        """Return a scripted server."""
        server = ScriptedServer(script or Scripted(), **options)
        self.kept.callback(server.stop)
        return server


MATRIX: dict[str, Callable[[Laboratory], None]] = {}


def fault(row: Callable[[Laboratory], None]) -> Callable[[Laboratory], None]:
    """Put a row into the matrix, by its function's name."""
    MATRIX[row.__name__.replace("_", "-")] = row
    return row


@pytest.fixture
def laboratory(tmp_path: Path) -> Iterator[Laboratory]:
    """Return a place to break things."""
    made = Laboratory(tmp_path)
    with made.kept:
        yield made


# ------------------------------------------------------------------------------------------------ the network


@fault
def cable_pulled(lab: Laboratory) -> None:
    """Cut for two seconds."""
    world = lab.world()
    world.wire.refuses = True
    world.wire.cut()
    world.holds("link_down")
    time.sleep(2.0)
    world.wire.refuses = False
    world.moves()


@fault
def connection_reset(lab: Laboratory) -> None:
    """RST with a request under way: a standstill of a moment at most."""
    world = lab.world()
    world.wire.cut(reset=True)
    world.moves(30)
    assert world.policy.connection.reconnects == 1


@fault
def half_open(lab: Laboratory) -> None:
    """The other side vanishes without a word, and a new connection works."""
    world = lab.world()
    world.wire.freeze()
    world.holds("reply_late", "horizon_too_short")
    world.wire.thaw()
    world.moves()


@fault
def half_open_for_good(lab: Laboratory) -> None:
    """The same, and only another connection carries anything: it is renewed."""
    world = lab.world()
    world.wire.freeze(new=False)
    world.holds("link_down", "reply_late", "horizon_too_short")
    world.moves()
    assert world.policy.connection.reconnects == 1


@fault
def tunnel_to_a_dead_port(lab: Laboratory) -> None:
    """Connections are accepted and hung up."""
    world = lab.world()
    world.wire.refuses = True
    world.wire.cut()
    world.fails("ConnectFailed")
    world.holds("link_down")
    world.wire.refuses = False
    world.moves()


@fault
def narrow_link(lab: Laboratory) -> None:
    """100 kB a second: an observation takes ten, the arm holds, and goes on when there is room again."""
    world = lab.world()
    world.wire.bytes_per_s = 100_000
    world.holds("reply_late", "horizon_too_short")
    world.wire.bytes_per_s = None
    world.moves()


@fault
def slow_loris(lab: Laboratory) -> None:
    """Answers come a few bytes at a time."""
    world = lab.world()
    world.wire.piece, world.wire.delay_s = 20, 0.05
    world.wire.cut()  # the next connection drips
    world.holds("reply_late", "horizon_too_short", "link_down", "first_chunk")
    world.wire.piece, world.wire.delay_s = 65536, 0.0
    world.wire.cut()
    world.moves()


@fault
def latency_spike(lab: Laboratory) -> None:
    """One answer is 0.3 s late: rows run on."""
    world = lab.world()
    world.wire.delay_s = 0.3
    time.sleep(0.3)
    world.wire.delay_s = 0.0
    world.moves(30)
    assert world.policy.connection.reconnects == 0


def _pointing(real: Any, port: int, host: str = "127.0.0.1") -> Any:
    """Return a resolver that names another place."""

    def resolve(_host: Any, _port: Any, *words: Any, **named: Any) -> Any:
        return real(host, port, *words, **named)

    return resolve


@fault
def name_moves(lab: Laboratory) -> None:
    """The server's name stands for another address after it was moved."""
    first, second, real = lab.ours(), lab.ours(), socket.getaddrinfo
    with patched(socket, "getaddrinfo", _pointing(real, first.port)):
        world = lab.world("ws://policy.example:8000")
        socket.getaddrinfo = _pointing(real, second.port)
        first.close()
        world.moves(30)
        world.runtime.controls.quit()
        world.thread.join(5)


@fault
def name_is_gone(lab: Laboratory) -> None:
    """Nobody knows the server's name for a while."""
    first, second, real = lab.ours(), lab.ours(), socket.getaddrinfo

    def unknown(*_words: Any, **_named: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with patched(socket, "getaddrinfo", _pointing(real, first.port)):
        world = lab.world("ws://policy.example:8000")
        socket.getaddrinfo = unknown
        first.close()
        world.holds("link_down")
        socket.getaddrinfo = _pointing(real, second.port)
        world.moves()
        world.runtime.controls.quit()
        world.thread.join(5)


@contextlib.contextmanager
def _tun(**wrong: float) -> Iterator[RealLink]:
    """A cable between two kernels."""
    kind, reason = kind_here()
    if kind != "tun":
        pytest.skip(f"no network namespace with a TUN device: {reason}")
    with RealLink(Link(name="x", rtt_ms=10, mbit=200, **wrong), policy="still", seed=1) as link:
        yield link


def _over_tun(**wrong: float) -> dict[str, Any]:
    """Return what a cable has done to packets while every answer came, each to its own request."""
    with _tun(**wrong) as link:
        assert len(link.measure(4, pixels=120)) == 4
    return dict(link.carried["up"])


@fault
def server_does_not_read(_: Laboratory) -> None:
    """Its program is busy, and a large observation waits at both kernels: nothing is renewed."""
    with closing_server(Dozing()) as server:
        config = ConnectionConfig(url=server.url, silence_timeout=0.2, image_transport="raw")
        with RemotePolicy(config=config, wait_for_server=5) as policy:
            observation = {"image": np.zeros((4096, 4096, 3), np.uint8)}  # 50 MB
            policy.infer(observation)
            assert policy.connection.reconnects == 0


class Dozing(GoodServer):
    """Reads nothing for two seconds after it has introduced itself."""

    def greet(self, link: Any, protocol: Any) -> None:
        """Introduce itself, then doze."""
        super().greet(link, protocol)
        time.sleep(2.0)


@contextlib.contextmanager
def closing_server(server: GoodServer) -> Iterator[GoodServer]:
    """Stop it in the end."""
    try:
        yield server
    finally:
        server.close()


@fault
def packets_stop(_: Laboratory) -> None:
    """None arrives for a while: the kernel by itself waits twice as long each time before it tries again."""
    with _tun() as link, ThreadPoolExecutor() as threads:
        link.measure(1, pixels=64)
        link.cut_or_mend()
        time.sleep(0.2)  # the cable takes the signal
        answered = threads.submit(link.ask, do="until answered", pixels=64)
        time.sleep(4.0)
        link.cut_or_mend()
        assert answered.result(30)["reconnects"] == 1


@fault
def packets_lost(_: Laboratory) -> None:
    """Two in a hundred: the kernel sends them again, answers take longer."""
    assert _over_tun(loss=0.02)["lost"] > 0


@fault
def packets_reordered(_: Laboratory) -> None:
    """A tenth is overtaken: the kernel puts them in order."""
    assert _over_tun(reorder=0.1)["overtaken"] > 0


@fault
def packets_duplicated(_: Laboratory) -> None:
    """A tenth arrives twice: the kernel drops the second."""
    assert _over_tun(duplicate=0.1)["doubled"] > 0


# ------------------------------------------------------------------------------------------------ the server

PROCESS = """
import sys
sys.path.insert(0, sys.argv[2])
from driven_arm import Onwards
from pi05_websocket.server import WebsocketPolicyServer
server = WebsocketPolicyServer(Onwards(), "127.0.0.1", int(sys.argv[1]))
server.serve_forever(listening=lambda: print(server.port, flush=True))
"""


@contextlib.contextmanager
def process(port: int = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a server as a process of its own."""
    support = str(Path(__file__).parents[1] / "support")
    command = [sys.executable, "-c", PROCESS, str(port), support]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as made:
        try:
            assert made.stdout is not None
            yield made, int(made.stdout.readline())
        finally:
            made.kill()


@fault
def server_killed(lab: Laboratory) -> None:
    """Signal 9, and started again on its port."""
    with process() as (server, port):
        world = lab.world(f"ws://127.0.0.1:{port}")
        server.kill()
        server.wait(5)
        world.holds("link_down")
    with process(port):
        world.moves()
        world.runtime.controls.quit()
        world.thread.join(5)


@fault
def server_frozen(lab: Laboratory) -> None:
    """Stopped for a second and a half, as a machine that swaps."""
    with process() as (server, port):
        world = lab.world(f"ws://127.0.0.1:{port}")
        server.send_signal(signal.SIGSTOP)
        world.holds("reply_late", "horizon_too_short")
        time.sleep(0.5)
        server.send_signal(signal.SIGCONT)
        world.moves()
        world.runtime.controls.quit()
        world.thread.join(5)


@fault
def server_restarted(lab: Laboratory) -> None:
    """In good order, on its port."""
    first = lab.ours()
    world = lab.world(first.url)
    first.close()
    lab.ours(port=first.port)
    world.moves(30)


@fault
def server_cold(lab: Laboratory) -> None:
    """The first answer takes as long as a model compiles: the pose that was measured is held."""
    policy = Onwards()
    policy.before = lambda: time.sleep(1.5)
    world = lab.kept.enter_context(World(lab.ours(policy).url))
    world.holds("first_chunk")
    assert (np.array(world.arm.commands) == 0).all()
    policy.before = lambda: None
    world.moves()
    world.check()


@fault
def out_of_memory(lab: Laboratory) -> None:
    """The policy fails on every request, then works again."""
    policy = Onwards()
    world = lab.world(lab.ours(policy).url)

    def fail() -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    policy.before = fail
    world.holds("server_error")
    policy.before = lambda: None
    world.moves()


@fault
def another_policy(lab: Laboratory) -> None:
    """Another checkpoint on the same port: a person decides."""
    first = lab.ours(metadata={"fingerprint": {"weights": "a"}})
    world = lab.world(first.url)
    first.close()
    lab.ours(port=first.port, metadata={"fingerprint": {"weights": "b"}})
    world.holds("policy_changed")
    assert world.still_holds()
    world.runtime.controls.resume()
    world.moves()


@fault
def wrong_server(lab: Laboratory) -> None:
    """Something else listens on the port now: it is not tried again, and the arm holds."""
    first = lab.ours()
    world = lab.world(first.url)
    first.close()
    lab.scripted(lambda connection: connection.send('{"hello": 1}'), port=first.port)
    world.holds("link_down")
    assert world.still_holds(1.0)
    assert isinstance(world.policy.unavailable(), IncompatibleServer)


@fault
def server_full(lab: Laboratory) -> None:
    """HTTP 503, until somebody leaves."""
    first = lab.ours()
    world = lab.world(first.url)
    first.close()

    def refuse(connection: Any, _request: Any) -> Any:
        return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "full\n")

    full = lab.scripted(port=first.port, process_request=refuse)
    world.holds("link_down")
    full.stop()
    lab.ours(port=first.port)
    world.moves()


@fault
def closes_after_each_answer(lab: Laboratory) -> None:
    """A server that hangs up whenever it has answered."""
    world = lab.world()

    def hang_up(connection: Any, observation: dict[str, Any]) -> None:
        Scripted.well(connection, observation)
        closing(connection, 1000)

    world.server.answer = hang_up
    world.moves(20)
    world.server.answer = Scripted.well
    world.moves()


# --------------------------------------------------------------------------------------------- keys and TLS


@fault
def key_revoked(lab: Laboratory) -> None:
    """In mid-run: the connection is closed within seconds, and not opened again."""
    file = lab.folder / "keys.toml"
    secret = add_key(file, "arm", NOW)
    server = lab.ours(keys=str(file))
    world = lab.world(server.url, connection={"headers": {"Authorization": f"Api-Key {secret}"}})
    revoke_key(file, "arm")
    world.holds("link_down")
    assert world.still_holds(1.0)
    assert isinstance(world.policy.unavailable(), AccessRefused)


@fault
def more_than_the_key_allows(lab: Laboratory) -> None:
    """One request in two seconds: the arm holds between two chunks, and the connection stays."""
    file = lab.folder / "keys.toml"
    secret = add_key(file, "arm", NOW, requests_per_second=0.5)
    server = lab.ours(keys=str(file))
    world = lab.world(server.url, connection={"headers": {"Authorization": f"Api-Key {secret}"}})
    world.holds("server_busy")
    world.moves()
    assert world.policy.connection.reconnects == 0


def _tls(lab: Laboratory, authority: trustme.CA, *, expired: bool = False) -> ssl.SSLContext:
    options = {"not_after": datetime.now(UTC) - timedelta(hours=1)} if expired else {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", **options).configure_cert(context)
    return context


@fault
def certificate_expires(lab: Laboratory) -> None:
    """At the next connection: it is not trusted any more, the arm holds, nothing is sent."""
    authority = trustme.CA()
    ca_file = lab.folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    first = lab.scripted(tls=_tls(lab, authority))
    world = lab.world(first.url, connection={"ca_file": str(ca_file)})
    first.stop()
    script = Scripted()
    lab.scripted(script, port=first.port, tls=_tls(lab, authority, expired=True))
    world.holds("link_down")
    assert world.still_holds(1.0)
    assert "expired" in str(world.policy.unavailable())
    assert script.asked == 0


@fault
def another_servers_key(lab: Laboratory) -> None:
    """The pinned key is not the one the server shows now: nothing is sent to it."""
    pytest.importorskip("cryptography", reason="needs the extra tls")
    first = lab.ours(tls="auto", tls_folder=str(lab.folder / "a"))
    pin = {"tls_fingerprint": first.tls_fingerprint}
    world = lab.world(first.url, connection=pin)
    first.close()
    lab.ours(port=first.port, tls="auto", tls_folder=str(lab.folder / "b"))
    world.holds("link_down")
    assert world.still_holds(1.0)
    assert type(world.policy.unavailable()).__name__ == "CertificateRefused"


# -------------------------------------------------------------------------------------------------- answers


def _answering(value: Any, cause: str, error: str, name: str, words: str) -> None:
    """Put a row into the matrix: an answer no arm may execute, until a good one comes."""

    def row(lab: Laboratory) -> None:
        world = lab.world()
        message = value if isinstance(value, bytes | str) else codec.encode(value)
        world.server.answer = lambda connection, _observation: connection.send(message)
        world.fails(error)
        world.holds(cause)
        world.server.answer = Scripted.well
        world.moves()

    row.__name__, row.__doc__ = name, words
    fault(row)


def _rows(value: float = 0.0, shape: tuple[int, ...] = (20, 6), dtype: Any = np.float64) -> Any:
    return {"actions": np.full(shape, value, dtype)}


def _with_hole(hole: float) -> Any:
    actions = np.zeros((20, 6))
    actions[7, 3] = hole
    return {"actions": actions}


def _array(dtype: bytes, data: bytes, shape: list[int]) -> bytes:
    """Return an answer with an array as OpenPI packs it, of any dtype."""
    import msgpack

    array = {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}
    return bytes(msgpack.packb({"actions": array}))


REJECTED = "chunk_rejected"
_answering(_with_hole(np.nan), REJECTED, "InvalidReply", "not_a_number", "One NaN among zeros.")
_answering(_with_hole(np.inf), REJECTED, "InvalidReply", "infinite", "One infinity among zeros.")
_answering(
    _with_hole(1e39),
    REJECTED,
    "InvalidReply",
    "beyond_float32",
    "A float64 that no float32 can be.",
)
_answering(
    _rows(shape=(20, 7)), REJECTED, "InvalidReply", "wrong_width", "Seven joints for an arm of six."
)
_answering(_rows(shape=(1, 20, 6)), REJECTED, "InvalidReply", "wrong_rank", "A batch of chunks.")
_answering(_rows(shape=(0, 6)), REJECTED, "InvalidReply", "no_rows", "A chunk of none.")
_answering(
    {"actions": "forward"}, REJECTED, "InvalidReply", "no_array", "Words instead of numbers."
)
_answering({"result": 1}, REJECTED, "InvalidReply", "no_actions", "A map without actions.")
_answering([1, 2, 3], REJECTED, "InvalidReply", "no_map", "A list instead of a map.")
_answering(
    _array(b"|O", b"\x80\x04K\x01.", [1]), REJECTED, "DecodeError", "code_from_the_wire",
    "An object array: a pickle, which is never opened.",
)  # fmt: skip
_answering(
    _array(b"<f8", bytes(8), [1 << 40, 6]), REJECTED, "DecodeError", "size_that_lies",
    "An array that says it is petabytes.",
)  # fmt: skip
_answering(b"\xc1", REJECTED, "DecodeError", "not_msgpack", "Bytes that mean nothing.")
_answering(
    b"\x91" * 5000 + b"\x90",
    REJECTED,
    "DecodeError",
    "nested_without_end",
    "5,000 lists in each other.",
)
_answering(
    "Traceback (most recent call last):\n  ...\nKeyError: 'observation/image'\n",
    "server_error", "PolicyError", "policy_fails", "OpenPI's form of an error.",
)  # fmt: skip


@fault
def reply_too_large(lab: Laboratory) -> None:
    """More than `max_message_bytes`: the connection is renewed."""
    world = lab.world()
    world.server.answer = lambda connection, _observation: connection.send(bytes(2_000_000))
    world.holds("link_down", "chunk_rejected", "reply_late")
    world.server.answer = Scripted.well
    world.moves()
    assert world.policy.connection.reconnects >= 1


@fault
def replayed_reply(lab: Laboratory) -> None:
    """The first answer once more for every later request: the rows are those of long ago."""
    world = lab.world()
    kept: list[bytes] = []

    def replay(connection: Any, observation: dict[str, Any]) -> None:
        kept.append(codec.encode({"actions": plan(observation)}))
        connection.send(kept[0])

    world.server.answer = replay
    world.moves(
        60
    )  # nobody can tell it from a policy that wants to go back: the limits make it slow
    world.check()


@fault
def reply_sent_twice(lab: Laboratory) -> None:
    """Replies can no longer be told apart: the connection is renewed."""
    world = lab.world()

    def twice(connection: Any, observation: dict[str, Any]) -> None:
        Scripted.well(connection, observation)
        Scripted.well(connection, observation)

    world.server.answer = twice
    world.moves(20)
    world.server.answer = Scripted.well
    world.moves()
    assert world.policy.connection.reconnects >= 1


@fault
def no_reply(lab: Laboratory) -> None:
    """The server reads and says nothing."""
    world = lab.world()
    world.server.answer = lambda _connection, _observation: None
    world.holds("reply_late", "horizon_too_short")
    world.fails("DeadlineExceeded")
    world.server.answer = Scripted.well
    world.moves()


@fault
def late_for_ever(lab: Laboratory) -> None:
    """Every answer is about an observation of 0.8 s ago, where 0.5 are allowed: none is executed."""
    world = lab.world()

    def late(connection: Any, observation: dict[str, Any]) -> None:
        time.sleep(0.8)
        Scripted.well(connection, observation)

    world.server.answer = late
    world.holds("chunk_rejected", "reply_late", "horizon_too_short")
    assert world.still_holds(2.0)
    world.server.answer = Scripted.well
    world.moves()


@fault
def plan_from_elsewhere(lab: Laboratory) -> None:
    """A plan that begins 90 degrees away: the arm goes there at a bounded speed."""
    world = lab.world()
    world.server.answer = lambda connection, observation: connection.send(
        codec.encode({"actions": plan(observation) + 90})
    )
    world.moves(45)
    world.check()


@fault
def wild_answers(lab: Laboratory) -> None:
    """Rows that jump by hundreds: limits hold them back, and the log says so once."""
    world = lab.world()
    random = np.random.default_rng(0)
    world.server.answer = lambda connection, _observation: connection.send(
        codec.encode({"actions": random.normal(0, 300, (20, 6))})
    )
    world.moves(45)


# ------------------------------------------------------------------------------------------ the robot's side


@fault
def clock_set_back(lab: Laboratory) -> None:
    """The computer's date jumps by an hour, both ways: nothing here goes by the date."""
    world = lab.world()
    real = time.time
    for hours in (-1, 1):
        with patched(time, "time", lambda shift=3600 * hours: real() + shift):
            world.moves(20)
    assert world.policy.connection.reconnects == 0


@fault
def computer_suspended(lab: Laboratory) -> None:
    """For a minute, in which the monotonic clock stood still: no row from before is executed."""
    slept = 0.0
    clock = SystemClock(lambda: slept)
    server = lab.ours(policy := Onwards())
    world = lab.world(server.url, clock=clock)
    # So that there is time to see what the arm does until the answer.
    policy.before = lambda: time.sleep(0.3)
    slept = 60.0
    world.holds("first_chunk", "reply_late", "horizon_too_short", "asked_late", "stopped")
    if world.runtime.player.latched:  # a minute is longer than auto_resume
        world.runtime.controls.resume()
    world.moves()
    ticks = [facts for kind, facts in world.events if kind == "tick"]
    before = [facts for facts in ticks if facts["tick"] < 1000]
    after = [facts for facts in ticks if facts["tick"] > 1000]
    assert before
    assert after[0]["source"] == "hold"
    newest = max(facts["seq"] for facts in before)
    assert all(facts["seq"] > newest for facts in after if facts["source"] == "chunk")


@fault
def loop_stalls(lab: Laboratory) -> None:
    """For half a second, as a disk or a garbage collector makes it: the arm goes on, without a jump."""
    world = lab.world()
    stalled = []

    def stall() -> None:
        if not stalled:
            stalled.append(time.sleep(0.5))

    world.arm.before = stall
    world.moves(30)


@fault
def camera_lost(lab: Laboratory) -> None:
    """Its image is missing from one reading on: the run ends with the key's name, nothing more is commanded."""
    world = lab.world()
    del world.arm.images["wrist2"]
    error = world.ends()
    assert isinstance(error, ObservationError)
    assert "wrist2" in str(error)


@fault
def camera_of_another_size(lab: Laboratory) -> None:
    """It comes back at another resolution: the run ends and says both."""
    world = lab.world()
    world.arm.images["realsense"] = np.zeros((720, 1280, 3), np.uint8)
    error = world.ends()
    assert isinstance(error, ObservationError)
    assert "720" in str(error)


@fault
def driver_fails(lab: Laboratory) -> None:
    """The robot's own driver raises: the run ends with its error."""
    world = lab.world()

    def fail() -> None:
        raise ConnectionError("There is no status packet!")

    world.arm.before = fail
    assert "status packet" in str(world.ends())


@fault
def joint_not_a_number(lab: Laboratory) -> None:
    """A reading is NaN: the run ends before anything is sent to the arm."""
    world = lab.world()
    commands = len(world.arm.commands)
    world.arm.joints = np.array([0, 0, np.nan, 0, 0, 0], np.float32)
    error = world.ends()
    assert isinstance(error, ObservationError)
    assert "elbow" in str(error)
    assert len(world.arm.commands) <= commands + 1  # the one that was under way


@fault
def disk_full_while_tracing(lab: Laboratory) -> None:
    """The trace ends, the motion goes on."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    world = lab.world(trace="/dev/full")
    world.moves(30)


@fault
def disk_full_while_recording(lab: Laboratory) -> None:
    """The recording ends, the motion goes on."""
    pytest.importorskip("mcap", reason="needs the extra record")
    from pi05_websocket.recording.recorder import Recorder

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    recorder = Recorder(lab.folder / "recording", {})
    lab.kept.callback(recorder.close)
    world = lab.world(listeners=(recorder,))
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (50_000, hard)
    )  # EFBIG, as ENOSPC an OSError of `write`
    try:
        world.moves(60)
        recorder.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    world.moves()


@fault
def person_stops(lab: Laboratory) -> None:
    """STOP in mid-motion: held until a person lets it go on, whatever comes from the server."""
    world = lab.world()
    world.runtime.controls.pause()
    world.holds("stopped")
    assert world.still_holds()
    world.runtime.controls.resume()
    world.moves()


# ------------------------------------------------------------------------------------------------- the tests


@pytest.mark.parametrize("name", MATRIX)
def test_matrix(name: str, laboratory: Laboratory) -> None:
    """The arm does what the page says, and every command is finite and near the one before."""
    MATRIX[name](laboratory)


def test_the_page_has_every_row_and_no_other() -> None:
    """What is promised is what is tested."""
    page = PAGE.read_text(encoding="utf-8")
    matrix = page[page.index("## The fault matrix") : page.index("## Connecting")]
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", matrix, re.MULTILINE)
    assert sorted(rows) == sorted(MATRIX)
    assert len(rows) >= 30
