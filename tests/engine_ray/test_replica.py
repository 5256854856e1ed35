# SPDX-License-Identifier: Apache-2.0
"""A replica's inside: the plain server's planner and protocol behind futures, without Ray."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from pi05_websocket.engine_ray.config import PolicySettings
from pi05_websocket.engine_ray.messages import Answer, Ask, Description
from pi05_websocket.engine_ray.replica import PolicyHung, PolicyReplica
from pi05_websocket.policy import PolicyRequest
from pi05_websocket.server import ServerConfig
from pi05_websocket.wire import codec


class Gate:
    """A policy whose inference waits to be let through."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.opened = threading.Semaphore(0)
        self.batches: list[list[int]] = []
        self.metadata = {"name": "gate"}

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Answer one."""
        return self.infer_batch([observation])[0]

    def infer_batch(self, observations: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Wait, then answer with the observations' numbers."""
        self.entered.release()
        assert self.opened.acquire(timeout=20)
        self.batches.append([observation["number"] for observation in observations])
        return [
            {"actions": np.zeros((1, 6), np.float32), "number": observation["number"]}
            for observation in observations
        ]


class Remembering:
    """Counts the requests of each session, and says what it would draw from."""

    def __init__(self) -> None:
        self.warmed: list[int] = []

    def warm_up(self, sizes: list[int]) -> None:
        """Note the sizes."""
        self.warmed = list(sizes)

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Not asked."""
        raise AssertionError

    def infer_requests(self, requests: list[PolicyRequest]) -> list[dict[str, Any]]:
        """Return how often this session was here."""
        answers = []
        for request in requests:
            request.state["seen"] = request.state.get("seen", 0) + 1
            request.observation["x"][0] = 1.0  # arrays may be written into, as in the plain server
            answers.append(
                {
                    "actions": np.zeros((1, 6), np.float32),
                    "seen": request.state["seen"],
                    "seed": request.seed,
                }
            )
        return answers


@pytest.fixture
def gate() -> Any:
    """A gate that opens for everybody at the end."""
    policy = Gate()
    yield policy
    for _ in itertools.repeat(None, 100):
        policy.opened.release()


def run(
    policies: dict[str, Any],
    script: Callable[[PolicyReplica], Coroutine[Any, Any, None]],
    *,
    hang_s: float = 60.0,
    most_sessions: int = 100,
    warm_up: bool = True,
    **server: Any,
) -> None:
    """Run a script with a replica of the first policy."""

    async def whole() -> None:
        config = ServerConfig(**{"seed": 1} | server)
        settings = PolicySettings(
            policy=next(iter(policies)), server=config, hang_s=hang_s, warm_up=warm_up
        )
        replica = PolicyReplica(settings, load=policies.__getitem__, most_sessions=most_sessions)
        await replica.begin()
        try:
            await script(replica)
        finally:
            await replica.end()

    asyncio.run(whole())


def until_it_complains(replica: PolicyReplica) -> None:
    """Ask for its health again and again."""
    while True:
        replica.check_health()


async def ask(
    replica: PolicyReplica, number: int, session: str = "i:1", **said: Any
) -> tuple[Answer, Any]:
    """Ask, and decode the answer."""
    ask = Ask(session=session, number=number, **said)
    payload = codec.encode({"number": number, "x": np.zeros(3, np.float32)})
    answer = Answer.from_map(await replica.ask(payload, ask.to_map()))
    return answer, codec.decode(answer.message) if answer.message else None


def test_requests_that_wait_share_an_inference(gate: Gate) -> None:
    """A batch is what waits when the policy is free."""

    async def script(replica: PolicyReplica) -> None:
        first = asyncio.ensure_future(ask(replica, 0))
        await asyncio.to_thread(gate.entered.acquire)
        others = [asyncio.ensure_future(ask(replica, n, session=f"i:{n}")) for n in range(1, 5)]
        while replica._serving.worker.waiting < 4:  # type: ignore[union-attr]
            await asyncio.sleep(0.001)
        for _ in range(2):
            gate.opened.release()
        answers = [await future for future in (first, *others)]
        assert [answer[1]["number"] for answer in answers] == list(range(5))
        assert [len(batch) for batch in gate.batches] == [1, 4]
        assert answers[1][0].batch == 4

    run({"gate": gate}, script)


def test_timings_and_errors_are_the_plain_servers(gate: Gate) -> None:
    """The connection's last round trip is passed on; errors with and without a traceback."""

    async def script(replica: PolicyReplica) -> None:
        gate.opened.release()
        _, reply = await ask(replica, 1, prev_total_ms=12.5)
        assert reply["server_timing"]["prev_total_ms"] == 12.5
        for debug, beginning in ((False, "pi05_websocket.errors.DecodeError"), (True, "Traceback")):
            said = Ask(session="i:2", number=1, debug=debug)
            answer = Answer.from_map(await replica.ask("text", said.to_map()))
            assert answer.kind == "failed"
            assert answer.text.startswith(beginning)

    run({"gate": gate}, script)


def test_what_is_remembered_and_drawn() -> None:
    """By session: its own memory, and a random stream that is the same on every replica."""
    policy, seeds = Remembering(), []

    async def script(replica: PolicyReplica) -> None:
        for number, session in ((1, "i:1"), (2, "i:1"), (1, "j:1")):
            _, reply = await ask(replica, number, session=session)
            seeds.append((session, number, reply["seen"], reply["seed"]))
        assert replica.check_health() is None

    for _ in range(2):
        run({"remembering": policy}, script)
    assert [seen for _, _, seen, _ in seeds[:3]] == [1, 2, 1]
    assert [seed for *_, seed in seeds[:3]] == [seed for *_, seed in seeds[3:]]
    assert len({seed for *_, seed in seeds}) == 3
    assert policy.warmed == [1, 2, 4, 8, 16]


def test_a_policy_that_is_not_to_be_warmed_up() -> None:
    """As `--no-warm-up` says."""
    policy = Remembering()

    async def script(replica: PolicyReplica) -> None:
        _, reply = await ask(replica, 1)
        assert reply["seen"] == 1

    run({"remembering": policy}, script, warm_up=False)
    assert policy.warmed == []


def test_each_client_is_answered_in_its_dialect() -> None:
    """Made for the first who asks in it."""

    async def script(replica: PolicyReplica) -> None:
        for dialect, answered in (("openpi", dict), ("dreamzero", np.ndarray), ("openpi", dict)):
            said = Ask(session="i:1", number=1, dialect=dialect)
            payload = codec.encode({"x": np.zeros(3, np.float32)})
            answer = Answer.from_map(await replica.ask(payload, said.to_map()))
            assert isinstance(codec.decode(answer.message or b""), answered)

    run({"remembering": Remembering()}, script)


def test_who_gives_up_does_not_wait_any_more(gate: Gate) -> None:
    """A call that is cancelled leaves the line."""

    async def script(replica: PolicyReplica) -> None:
        first = asyncio.ensure_future(ask(replica, 0))
        await asyncio.to_thread(gate.entered.acquire)
        second = asyncio.ensure_future(ask(replica, 1, session="i:2"))
        while not replica._serving.worker.waiting:  # type: ignore[union-attr]
            await asyncio.sleep(0.001)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.opened.release()
        await first
        assert gate.batches == [[0]]
        assert replica._serving.worker.waiting == 0  # type: ignore[union-attr]

    run({"gate": gate}, script)


def test_an_inference_that_hangs_is_unhealthy(gate: Gate) -> None:
    """Even when nobody waits for it any more; once it is over the replica is well again."""

    async def script(replica: PolicyReplica) -> None:
        asking = asyncio.ensure_future(ask(replica, 0))
        await asyncio.to_thread(gate.entered.acquire)
        asking.cancel()
        with pytest.raises(PolicyHung, match="at one inference for 0 s"):
            until_it_complains(replica)
        gate.opened.release()
        while replica._serving.worker.asked_at is not None:  # type: ignore[union-attr]
            await asyncio.sleep(0.001)
        replica.check_health()

    run({"gate": gate}, script, hang_s=0.02)


def test_who_waits_too_long_is_told(gate: Gate) -> None:
    """By the plain server's bound."""

    async def script(replica: PolicyReplica) -> None:
        first = asyncio.ensure_future(ask(replica, 0))
        await asyncio.to_thread(gate.entered.acquire)
        answer, _ = await ask(replica, 1, session="i:2")
        assert answer.kind == "failed"
        assert "TimeoutError: the request waited" in answer.text
        gate.opened.release()
        await first

    run({"gate": gate}, script, max_wait_s=0.01)


def test_another_policy_in_place(gate: Gate) -> None:
    """Whoever waits for the old one has its answer; the description changes; the same again changes nothing."""
    new = Gate()
    new.metadata = {"name": "new"}

    async def script(replica: PolicyReplica) -> None:
        before = Description.from_map(replica.describe())
        asking = [asyncio.ensure_future(ask(replica, n, session=f"i:{n}")) for n in range(3)]
        await asyncio.to_thread(gate.entered.acquire)
        changing = asyncio.ensure_future(replica.change({"policy": "new"}))
        while Description.from_map(replica.describe()) == before:
            await asyncio.sleep(0.001)
        for _ in range(3):
            gate.opened.release()
        answers = [await future for future in asking]
        assert sorted(answer["number"] for _, answer in answers) == [0, 1, 2]
        assert {said.generation for said, _ in answers} == {before.generation}  # who answered
        await changing
        new.opened.release()
        await ask(replica, 9)
        assert new.batches == [[9]]
        after = Description.from_map(replica.describe())
        assert codec.decode(after.metadata)["name"] == "new"
        assert after.generation != before.generation
        await replica.change({"policy": "new"})
        await replica.change({})  # back to what it was deployed with
        assert Description.from_map(replica.describe()) == before

    run({"gate": gate, "new": new}, script)


def test_another_policy_in_place_remembers_nothing() -> None:
    """What the one before kept of a robot is not given to it."""

    async def script(replica: PolicyReplica) -> None:
        assert [(await ask(replica, n))[1]["seen"] for n in range(2)] == [1, 2]
        await replica.change({"policy": "new"})
        assert [(await ask(replica, n))[1]["seen"] for n in range(2)] == [1, 2]

    run({"old": Remembering(), "new": Remembering()}, script)


@pytest.mark.parametrize(
    ("most", "expected"),
    [(2, [1, 1, 2, 1, 1, 1]), (3, [1, 1, 2, 1, 2, 3]), (4, [1, 1, 2, 1, 2, 3])],
)
def test_the_longest_silent_is_forgotten_first(most: int, expected: list[int]) -> None:
    """What the policy remembers is kept for the last ones only."""

    async def script(replica: PolicyReplica) -> None:
        sessions = ("a", "b", "a", "c", "b", "a")
        seen = [(await ask(replica, 1, session=session))[1]["seen"] for session in sessions]
        assert seen == expected
        assert replica._serving is not None
        # The planner keeps nothing of those that are forgotten either.
        assert len(replica._serving.worker._sessions._lines) == min(most, 3)

    run({"remembering": Remembering()}, script, most_sessions=most)
