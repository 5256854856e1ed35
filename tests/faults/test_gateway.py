# SPDX-License-Identifier: Apache-2.0
"""Servers behind a gateway are killed, frozen and replaced under load: robots lose no request and no socket."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from counting_server import free_port
from misbehaving import METADATA, eventually, reply

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.gateway import GatewayConfig, PolicyGateway
from pi05_websocket.server import ServerConfig

pytest.importorskip("openpi_server")

SERVER = Path(__file__).parents[1] / "support" / "counting_server.py"


class Process:
    """A policy server that can be killed."""

    def __init__(self, kind: str, *words: str, port: int = 0) -> None:
        command = [sys.executable, str(SERVER), kind, "--port", str(port or free_port()), *words]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"ws://127.0.0.1:{self.port}"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Kill it, frozen or not. Safe to call twice."""
        self._process.kill()
        self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()


Start = Callable[..., Process]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start servers; they are killed at the end."""
    with contextlib.ExitStack() as stack:

        def start(*args: Any, **kwargs: Any) -> Process:
            process = Process(*args, **kwargs)
            stack.callback(process.kill)
            return process

        yield start


class Robots:
    """Robots that ask as soon as they have their answer, each observation with a number of its own."""

    def __init__(self, url: str, count: int, size: int = 64) -> None:
        self.answers = 0
        self.versions: list[str] = []
        self.wrong: list[str] = []
        self.worst_s = 0.0
        self._url, self._size = url, size
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(count)]
        self.reconnects = 0

    def __enter__(self) -> Robots:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def reach(self, more: int, seconds: float = 20.0) -> None:
        """Wait until they have had so many more answers."""
        goal = self.answers + more
        assert eventually(lambda: self.answers >= goal or bool(self.wrong), seconds), self.answers
        assert self.wrong == []

    def _run(self, robot: int) -> None:
        config = ConnectionConfig(url=self._url, request_timeout=20, image_transport="raw")
        with RemotePolicy(config=config, wait_for_server=20) as policy:
            number = robot * 1_000_000
            while not self._stop.is_set():
                number += 1
                observation = {"number": number, "state": b"x" * self._size}
                began = time.monotonic()
                try:
                    answer = policy.infer(observation)
                except Exception as exc:
                    self._note(f"{number}: {exc!r}")
                    continue
                if answer["number"] != number or int(answer["actions"][0, 0]) != number % 1000:
                    self._note(f"{number} was answered with {answer['number']}")
                with self._lock:
                    self.answers += 1
                    self.versions.append(answer["version"])
                    self.worst_s = max(self.worst_s, time.monotonic() - began)
            with self._lock:
                self.reconnects += policy.connection.reconnects

    def _note(self, what: str) -> None:
        with self._lock:
            self.wrong.append(what)


@contextlib.contextmanager
def gateway(*upstreams: Process, **settings: Any) -> Iterator[PolicyGateway]:
    """Serve robots with these servers."""
    config = ServerConfig(ping_interval_s=0)
    urls = [upstream.url for upstream in upstreams]
    with PolicyGateway(urls, port=0, config=config, gateway=GatewayConfig(**settings)) as server:
        assert eventually(lambda: all(state.connections for state in server.upstreams), 20)
        yield server


def sound(server: PolicyGateway) -> list[bool]:
    """Whom robots are given to."""
    return [state.sound for state in server.upstreams]


@pytest.mark.parametrize("kind", ["stock", "ours"])
def test_a_killed_server_costs_no_request(start: Start, kind: str) -> None:
    """SIGKILL under load, and a new process on its port later: all is answered, on the same sockets."""
    first, second = start(kind), start(kind)
    with gateway(first, second) as server, Robots(server.url, 8) as robots:
        robots.reach(100)
        assert eventually(lambda: sound(server) == [True, True])
        for _ in range(2):
            first.kill()
            robots.reach(100)
            assert sound(server) == [False, True]
            first = start(kind, port=first.port)
            assert eventually(lambda: sound(server) == [True, True], 20)
            robots.reach(100)
    assert (robots.wrong, robots.reconnects) == ([], 0)


@pytest.mark.parametrize("kind", ["stock", "ours"])
def test_a_frozen_server_costs_a_second(start: Start, kind: str) -> None:
    """SIGSTOP under load: its requests go to the other one; when it goes on, its late answers are nobody's."""
    first, second = start(kind), start(kind)
    with gateway(first, second) as server, Robots(server.url, 8) as robots:
        robots.reach(100)
        assert eventually(lambda: sound(server) == [True, True])
        first.signal(signal.SIGSTOP)
        robots.reach(150)
        assert sound(server) == [False, True]
        first.signal(signal.SIGCONT)
        assert eventually(lambda: sound(server) == [True, True], 30)
        robots.reach(100)
    assert (robots.wrong, robots.reconnects) == ([], 0)
    assert robots.worst_s < 5


def test_servers_are_replaced_one_after_the_other(start: Start) -> None:
    """v1 becomes v2 under load: no request and no socket is lost, and at the end all answers are v2's."""
    servers = [start("stock"), start("stock")]
    with gateway(*servers) as server, Robots(server.url, 8) as robots:
        robots.reach(50)
        for i, old in enumerate(servers):
            old.kill()
            servers[i] = start("stock", "--version", "v2", port=old.port)
            assert eventually(lambda: sound(server) == [True, True], 20)
        robots.reach(20)
        before = len(robots.versions)
        robots.reach(50)
        assert set(robots.versions[before:]) == {"v2"}
    assert (robots.wrong, robots.reconnects) == ([], 0)


def test_large_observations_survive_a_kill(start: Start) -> None:
    """A megabyte is under way when the server dies: it is sent again whole."""
    first, second = start("stock"), start("stock")
    with gateway(first, second) as server, Robots(server.url, 4, size=1_070_000) as robots:
        robots.reach(40)
        first.kill()
        robots.reach(40)
    assert (robots.wrong, robots.reconnects) == ([], 0)


def test_the_only_server_comes_back(start: Start) -> None:
    """While nobody is there robots wait on their sockets, newcomers are sent away, and then all go on."""
    only = start("stock")
    with gateway(only) as server, Robots(server.url, 4) as robots:
        robots.reach(20)
        only.signal(signal.SIGSTOP)
        time.sleep(2.5)
        only.signal(signal.SIGCONT)
        robots.reach(20)
        assert robots.wrong == []


# ---------------------------------------------------------------------------- servers that misbehave on purpose


def talking(*messages: Any, wait: float = 0.0) -> Callable[[Any], None]:
    """A script that says these, then answers everything with an empty reply."""

    def script(connection: Any) -> None:
        for message in messages:
            connection.send(message)
        while True:
            connection.recv()
            time.sleep(wait)
            connection.send(reply(1.0))

    return script


@pytest.mark.parametrize(
    ("script", "trouble"),
    [
        (talking("hello"), "expected OpenPI's metadata as the first message, got text"),
        (talking(b"\xc1"), "got undecodable bytes"),
        (lambda connection: connection.close(1013, "full"), "code 1013 (full)"),
    ],
)
def test_what_is_no_policy_server_is_shown(scripted: Any, script: Any, trouble: str) -> None:
    """It is not used, and tried again now and then; nobody comes in meanwhile."""
    upstream = scripted(script)
    with PolicyGateway([upstream.url], port=0) as server:
        assert eventually(lambda: trouble in server.upstreams[0].trouble), server.upstreams
        assert not server.upstreams[0].usable


def test_who_speaks_unasked_loses_its_connection(scripted: Any, remote: Any) -> None:
    """From then on its messages could be anybody's: a new connection is opened, and robots go on."""

    def script(connection: Any) -> None:
        connection.send(METADATA)
        connection.recv()
        connection.send(reply(1.0))
        connection.send(reply(2.0))
        connection.recv()

    upstream = scripted(script)
    with PolicyGateway([upstream.url], port=0) as server:
        robot = remote(server.url, wait_for_server=5)
        for count in (2, 3, 4):
            assert robot.infer({"state": 1})["actions"][0, 0] == 1.0
            assert eventually(lambda wanted=count: upstream.connections >= wanted)
            assert eventually(lambda: server.upstreams[0].usable)


def test_a_reply_that_never_comes_costs_the_connection(scripted: Any, remote: Any) -> None:
    """After ten seconds it is renewed, and the server is asked again if it is well by then."""
    silent = threading.Event()

    def script(connection: Any) -> None:
        connection.send(METADATA)
        while True:
            connection.recv()
            if not silent.is_set():
                connection.send(reply(1.0))

    upstream, other = scripted(script), scripted(talking(METADATA))
    gateway = GatewayConfig(upstream_timeout_s=0.2)
    with PolicyGateway([upstream.url, other.url], port=0, gateway=gateway) as server:
        assert eventually(lambda: all(state.usable for state in server.upstreams))
        robots = [remote(server.url, wait_for_server=5, request_timeout=5) for _ in range(4)]

        def ask() -> None:
            for exchange in [robot.submit({"state": 1}) for robot in robots]:
                exchange.result(5)

        while not all(state.sound for state in server.upstreams):
            ask()
        silent.set()
        while server.upstreams[0].sound:
            ask()
        before = upstream.connections
        silent.clear()
        assert eventually(lambda: upstream.connections > before, 20)
        while not server.upstreams[0].sound:
            ask()


def test_one_that_is_slow_to_say_hello_is_waited_for(bare_tcp: Any, scripted: Any) -> None:
    """It accepts and says nothing, as a stock server that computes; the others serve."""
    stop = threading.Event()
    hanging = f"ws://127.0.0.1:{bare_tcp(lambda _: stop.wait(5))}"
    with PolicyGateway([hanging, scripted(talking(METADATA)).url], port=0) as server:
        assert eventually(lambda: server.upstreams[1].usable)
        assert not server.upstreams[0].usable
    stop.set()
