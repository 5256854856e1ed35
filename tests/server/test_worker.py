# SPDX-License-Identifier: Apache-2.0
"""The policy thread and those that decode beside it, without sockets: whose images keep whom."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from pi05_websocket.policy import PolicyRequest
from pi05_websocket.server.backend import Delivery
from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.requests import Answered, Failed, Outcome, Refused, Request
from pi05_websocket.server.worker import PolicyWorker
from pi05_websocket.wire import codec
from pi05_websocket.wire.encoded_images import encode_images
from pi05_websocket.wire.protocol import ServerProtocol
from pi05_websocket.wire.realtime import RealtimeRequest, with_realtime

IMAGE = encode_images({"image": np.zeros((32, 32, 3), np.uint8)}, 80)[0]["image"]


class Robot:
    """One connection; its outcomes come here."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.state: dict[str, Any] = {}
        self.outcomes: SimpleQueue[tuple[str, Outcome]] = SimpleQueue()
        self.asked = 0

    def deliver(self, request: Request, outcome: Outcome) -> None:
        """Never called: the test stands in the place of the event loop."""
        raise AssertionError

    def outcome(self) -> tuple[str, Outcome]:
        """Wait for the next: the request's name, and what became of it."""
        return self.outcomes.get(timeout=10)

    def answered(self) -> str:
        """Wait for the next, which must be actions; return the request's name."""
        name, outcome = self.outcome()
        assert isinstance(outcome, Answered), outcome
        return name


class Protocol(ServerProtocol):
    """Unpacks a robot's images when it is let."""

    def __init__(self, *, held: bool = False) -> None:
        super().__init__({}, encoded_images=True, deadlines=True)
        self.unpacked_names: list[str] = []
        self.entered = threading.Semaphore(0)
        self.opened = threading.Semaphore(0 if held else 1000)

    def unpacked(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Wait, then do it."""
        self.entered.release()
        assert self.opened.acquire(timeout=20)
        self.unpacked_names.append(observation["name"])
        return super().unpacked(observation)


class Unreadable(ServerProtocol):
    """Reads nothing."""

    def __init__(self) -> None:
        super().__init__({})

    def read(self, payload: Any) -> Any:
        """Fail."""
        raise ValueError("not msgpack")


class Policy:
    """Answers, remembers whom it was asked for and on which thread; waits first if it is to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.threads: set[str] = set()
        self.held = False
        self.entered = threading.Semaphore(0)
        self.opened = threading.Semaphore(0)

    def infer(self, observation: dict[str, Any]) -> Any:
        """Never called: there is a better way."""
        raise AssertionError

    def batch_key(self, request: PolicyRequest) -> Any:
        """All together, but one that has no key."""
        self.threads.add(threading.current_thread().name)
        if request.observation["name"].endswith("without key"):
            raise KeyError("key")
        return 1

    def infer_requests(self, requests: Sequence[PolicyRequest]) -> list[Any]:
        """Fail where it is asked to."""
        self.threads.add(threading.current_thread().name)
        self.entered.release()
        if self.held:
            assert self.opened.acquire(timeout=20)
        self.batches.append([request.observation["name"] for request in requests])
        return [
            ValueError("bad")
            if request.observation["name"].endswith("bad")
            else {"actions": np.zeros((1, 6), np.float32)}
            for request in requests
        ]


class Server:
    """A worker and its robots."""

    def __init__(self, *, started: bool = True) -> None:
        self.policy = Policy()
        self.robots: dict[str, Robot] = {}
        self.protocols: list[Protocol] = []
        self.stopped = threading.Event()
        self.worker = PolicyWorker(
            self.policy, ServerConfig(), self._deliver, self.stopped.set, seed=1
        )
        if started:
            self.worker.start()

    def robot(self, name: str) -> Robot:
        """Return the robot of that name."""
        return self.robots.setdefault(name, Robot(name, len(self.robots) + 1))

    def protocol(self, *, held: bool = False) -> Protocol:
        """Return one that unpacks at once, or when it is let."""
        self.protocols.append(Protocol(held=held))
        return self.protocols[-1]

    def ask(
        self, name: str, protocol: ServerProtocol, *, packed: bool = False, typed: bool = False
    ) -> None:
        """Ask: the first letter is the robot's."""
        robot = self.robot(name[0])
        robot.asked += 1
        asked: dict[str, Any] = {"name": name}
        if packed:
            asked["image"] = IMAGE
        if typed:
            said = RealtimeRequest(
                seq=robot.asked,
                leftover=np.zeros((0, 0), np.float32),
                delay=0,
                execution_horizon=10,
                control_hz=30.0,
            )
            asked = with_realtime(asked, said)
        self.worker.submit(
            Request(
                connection=robot,
                number=robot.asked,
                protocol=protocol,
                payload=bytearray(codec.encode(asked)),
                arrived=0.0,
                priority=1,
            )
        )

    def close(self) -> None:
        """Let everybody go on, and end the threads."""
        for protocol in self.protocols:
            protocol.opened.release(1000)
        self.policy.opened.release(1000)
        self.worker.stop()
        assert self.stopped.wait(10)

    def _deliver(self, outcomes: Delivery) -> None:
        for request, outcome in outcomes:
            said = codec.decode(request.payload)["name"]
            self.robots[said[0]].outcomes.put((said, outcome))


@pytest.fixture
def server() -> Iterator[Server]:
    """A worker that has nothing to do."""
    made = Server()
    yield made
    made.close()


@pytest.mark.parametrize("packed", [False, True])
def test_who_sends_images_without_end_keeps_nobody(server: Server, packed: bool) -> None:
    """While one of its images is unpacked, the others wait, and another robot is served: arrays or images."""
    greedy, modest = server.protocol(held=True), server.protocol()
    for number in range(10):
        server.ask(f"g{number}", greedy, packed=True)
    assert greedy.entered.acquire(timeout=10)
    for number in range(20):
        server.ask(f"m{number}", modest, packed=packed)
        assert server.robot("m").answered() == f"m{number}"
    assert not greedy.entered.acquire(blocking=False)
    greedy.opened.release(10)
    assert [server.robot("g").answered() for _ in range(10)] == [f"g{n}" for n in range(10)]


def test_of_a_connection_that_is_gone_nothing_more_is_decoded(server: Server) -> None:
    """Only what was under way ends, for nobody; who comes next finds all threads free."""
    greedy, modest = server.protocol(held=True), server.protocol()
    for number in range(10):
        server.ask(f"g{number}", greedy, packed=True)
    assert greedy.entered.acquire(timeout=10)
    server.worker.forget(server.robot("g"))
    greedy.opened.release(10)
    server.ask("m", modest, packed=True)
    assert server.robot("m").answered() == "m"
    assert greedy.unpacked_names in ([], ["g0"])  # it may still be about to
    assert (len(server.worker._undecoded), server.policy.batches) == (0, [["m"]])


def test_what_a_newer_observation_replaces_is_not_unpacked(server: Server) -> None:
    """The one under way is kept, so that somebody is always answered; of those behind it, only the newest."""
    robot = server.protocol(held=True)
    server.ask("a0", robot, packed=True, typed=True)
    assert robot.entered.acquire(timeout=10)
    server.policy.held = True
    for number in (1, 2, 3):
        server.ask(f"a{number}", robot, packed=True, typed=True)
    robot.opened.release()
    assert server.policy.entered.acquire(timeout=10)
    assert robot.entered.acquire(timeout=10)
    server.policy.opened.release(10)
    robot.opened.release(10)
    outcomes = [server.robot("a").outcome() for _ in range(4)]
    refused = [name for name, outcome in outcomes if isinstance(outcome, Refused)]
    assert [name for name, _ in outcomes] == ["a0", "a1", "a2", "a3"]
    assert refused == ["a1", "a2"]
    assert robot.unpacked_names == ["a0", "a3"]


@pytest.mark.parametrize("packed", [False, True])
def test_what_came_together_is_read_before_the_policy_is_asked_for_the_old_one(
    packed: bool,
) -> None:
    """As after a cut of the link: only the newest is worth an inference. A stock client is always answered."""
    server = Server(started=False)
    quick = server.protocol()
    for name in ("a0", "a1", "a2"):
        server.ask(name, quick, typed=True)
    for name in ("s0", "s1"):
        server.ask(name, quick, packed=packed)
    server.worker.start()
    outcomes = [server.robot("a").outcome() for _ in range(3)]
    assert [type(outcome) for _, outcome in outcomes] == [Refused, Refused, Answered]
    assert [server.robot("s").answered() for _ in range(2)] == ["s0", "s1"]
    server.close()
    assert sorted(name for batch in server.policy.batches for name in batch) == ["a2", "s0", "s1"]


def test_what_waits_for_a_newer_one_to_be_read_goes_on_where_that_replaces_nothing() -> None:
    """Its images are still to be unpacked, or it cannot be read at all: the older one is answered."""
    server = Server(started=False)
    held = server.protocol(held=True)
    server.ask("a0", server.protocol(), typed=True)
    server.ask("a1", held, typed=True, packed=True)
    server.ask("b0", server.protocol(), typed=True)
    server.ask("b1 bad", Unreadable(), typed=True)
    server.worker.start()
    assert server.robot("a").answered() == "a0"
    assert server.robot("b").answered() == "b0"
    held.opened.release()
    assert server.robot("a").answered() == "a1"
    assert isinstance(server.robot("b").outcome()[1], Failed)
    server.close()


def test_what_is_ready_does_not_wait_while_images_are_unpacked(server: Server) -> None:
    """Of the same connection: what has come behind those cannot be read before."""
    held, quick = server.protocol(held=True), server.protocol()
    server.policy.held = True
    server.ask("b0", quick)
    assert server.policy.entered.acquire(timeout=10)
    server.ask("a0", quick, typed=True)
    server.ask("a1", held, typed=True, packed=True)
    assert held.entered.acquire(timeout=10)
    server.ask("a2", quick, typed=True)
    server.policy.opened.release(10)
    assert server.robot("a").answered() == "a0"
    held.opened.release(10)
    assert [server.robot("a").outcome()[0] for _ in range(2)] == ["a1", "a2"]


def test_the_policy_goes_on_before_its_thread_reads_more(server: Server) -> None:
    """What can be inferred is not kept by what has to be read; that is read beside, while the policy works."""
    slow, quick = server.protocol(held=True), server.protocol()
    server.policy.held = True
    server.ask("a", quick)
    assert server.policy.entered.acquire(timeout=10)
    for name in ("s", "t"):  # both threads beside have their hands full
        server.ask(name, slow, packed=True)
        assert slow.entered.acquire(timeout=10)
    server.ask("b", quick)
    server.ask("c", quick)
    server.policy.opened.release()
    assert server.policy.entered.acquire(timeout=10)
    slow.opened.release(2)
    server.policy.opened.release(10)
    assert server.robot("b").answered() == "b"
    assert server.policy.batches[:2] == [["a"], ["b"]]
    assert sorted(server.robot(name).answered() for name in "ct") == ["c", "t"]


def test_the_policy_is_touched_by_one_thread(server: Server) -> None:
    """Also for what its requests have in common; who has no key fails alone."""
    quick = server.protocol()
    for name in ("a", "b without key", "c"):
        server.ask(name, quick, packed=True)
    assert server.robot("a").answered() == "a"
    assert server.robot("c").answered() == "c"
    name, outcome = server.robot("b").outcome()
    assert isinstance(outcome, Failed)
    assert (name, outcome.cause) == ("b without key", "KeyError: 'key'")
    assert server.policy.threads == {"pi05-policy"}


def test_quick_failures_are_no_inferences(server: Server) -> None:
    """Else robots would be promised answers that take longer."""
    quick = server.protocol()
    for _ in range(3):
        server.ask("a bad", quick)
        assert isinstance(server.robot("a").outcome()[1], Failed)
    assert server.worker._times.expect(1, 1) == 0.0
    server.ask("a", quick)
    assert server.robot("a").answered() == "a"
    assert server.worker._times.expect(1, 1) > 0.0
