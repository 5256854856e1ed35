# SPDX-License-Identifier: Apache-2.0
"""What an ingress does about replicas that are slow, gone or full; each replica here does as it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import numpy as np
import pytest

from pi05_websocket.engine_ray.config import LinkSettings
from pi05_websocket.engine_ray.ejection import Replicas
from pi05_websocket.engine_ray.link import Busy, PolicyLink, ReplicaLost
from pi05_websocket.engine_ray.messages import Answer, Description
from pi05_websocket.engine_ray.tickets import Ticket
from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.requests import Answered, Failed, Outcome, Refused, Request
from pi05_websocket.wire import codec
from pi05_websocket.wire.protocol import ServerProtocol
from pi05_websocket.wire.realtime import RealtimeRequest, with_realtime
from pi05_websocket.wire.refusals import Refusal

Behaviour = Callable[[str], Coroutine[Any, Any, Answer]]


async def works(name: str) -> Answer:
    """Answer at once, with one's name."""
    return Answer(kind="answered", message=name.encode(), generation="g1")


async def hangs(name: str) -> Answer:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


async def dies(name: str) -> Answer:
    """Go down with the request."""
    raise ReplicaLost(name)


async def is_cut_off(name: str) -> Answer:
    """Be cancelled from the other end."""
    raise asyncio.CancelledError


async def is_full(name: str) -> Answer:
    """Let nobody wait."""
    raise Busy(name)


async def breaks(name: str) -> Answer:
    """Fail as a replica does whose code is wrong."""
    raise ValueError("no such thing")


class Cluster:
    """Replicas by name, chosen as Ray's router of ours does."""

    def __init__(self, replicas: Replicas, **behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.asked: list[str] = []
        self.said: list[Mapping[str, Any]] = []
        self.metadata: dict[str, Any] | None = {"name": "x"}
        self.generation = "g1"
        self._replicas = replicas

    async def ask(self, payload: bytes | str, said: dict[str, Any], ticket: Ticket) -> Any:
        """Ask the best one."""
        now = time.monotonic()
        name = self._replicas.order(self.behaviour, now, tried=ticket.tried, before=ticket.before)[
            0
        ]
        ticket.replica, ticket.asked_at = name, now
        self._replicas.asked(name, now)
        self.asked.append(name)
        self.said.append(said)
        return (await self.behaviour[name](name)).to_map()

    async def describe(self) -> Mapping[str, Any]:
        """Say what this is."""
        if self.metadata is None:
            raise ReplicaLost("nobody there")
        return Description(
            metadata=codec.encode(self.metadata), generation=self.generation
        ).to_map()


class Robot:
    """Collects its outcomes."""

    def __init__(self, number: int = 1) -> None:
        self.number = number
        self.state: dict[str, Any] = {}
        self.outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        self.requests = 0

    def request(self, payload: bytes = b"stock", refusal: Refusal | None = None) -> Request:
        """Make the next request."""
        self.requests += 1
        return Request(
            connection=self,
            number=self.requests,
            protocol=ServerProtocol({}, debug=False),
            payload=payload,
            arrived=time.perf_counter(),
            priority=1,
            refusal=refusal,
        )

    def deliver(self, request: Request, outcome: Outcome) -> None:
        """Keep it."""
        self.outcomes.put_nowait(outcome)

    async def outcome(self) -> Outcome:
        """Return the next one."""
        async with asyncio.timeout(10):
            return await self.outcomes.get()


def ours() -> bytes:
    """A request of a robot that reads refusals."""
    request = RealtimeRequest(
        seq=1, leftover=np.zeros((0, 6), np.float32), delay=0, execution_horizon=10, control_hz=30.0
    )
    return codec.encode(with_realtime({"observation/state": np.zeros(6, np.float32)}, request))


def run(
    script: Callable[[PolicyLink, Cluster], Coroutine[Any, Any, None]],
    *,
    max_wait_s: float = 10.0,
    settings: Mapping[str, Any] | None = None,
    **behaviour: Behaviour,
) -> None:
    """Run a script with a link to these replicas, asked in the order of their names."""

    async def whole() -> None:
        replicas = Replicas(eject_s=60.0, longest_eject_s=60.0, shuffle=lambda names: names.sort())
        cluster = Cluster(replicas, **behaviour)
        stopped = asyncio.Event()
        link = PolicyLink(
            cluster,
            replicas,
            LinkSettings(**{"deadline_s": 0.02, "first_deadline_s": 0.02} | dict(settings or {})),
            ServerConfig(max_wait_s=max_wait_s),
            lambda outcomes: [r.connection.deliver(r, o) for r, o in outcomes] and None,
            stopped.set,
            name="here",
        )
        link.start()
        try:
            await script(link, cluster)
        finally:
            link.stop()
            async with asyncio.timeout(10):
                await stopped.wait()

    asyncio.run(whole())


def test_an_answer_and_what_is_said_with_it() -> None:
    """Whose the request is, which one, and how long it has been here."""

    async def script(link: PolicyLink, cluster: Cluster) -> None:
        robot = Robot(7)
        link.submit(robot.request())
        answered = await robot.outcome()
        assert isinstance(answered, Answered)
        assert answered.message == b"a"
        (said,) = cluster.said
        assert (said["session"], said["number"], said["debug"]) == ("here:7", 1, False)
        assert said["waited_ms"] >= 0
        assert link.waiting == 0

    run(script, a=works)


@pytest.mark.parametrize("fault", [dies, hangs, is_cut_off])
def test_another_replica_is_asked(fault: Behaviour) -> None:
    """Where one dies, hangs or cuts the call off; and it is left out from then on."""

    async def script(link: PolicyLink, cluster: Cluster) -> None:
        robot = Robot()
        for _ in range(3):
            link.submit(robot.request())
            answered = await robot.outcome()
            assert isinstance(answered, Answered)
            assert answered.message == b"b"
        assert cluster.asked == ["a", "b", "b", "b"]

    run(script, a=fault, b=works)


def test_changed_settings_count_for_the_next_request() -> None:
    """No other replica is asked any more, and the wait is another."""

    async def script(link: PolicyLink, cluster: Cluster) -> None:
        robot = Robot()
        link.change(
            LinkSettings(first_deadline_s=0.02, retries=0, retry_share=0.0),
            ServerConfig(max_wait_s=0.05),
        )
        link.submit(robot.request())
        failed = await robot.outcome()
        assert isinstance(failed, Failed)
        assert "(0.05 s)" in failed.text
        assert cluster.asked == ["a"]

    run(script, a=hangs, b=works)


def test_who_is_slow_is_left_out_though_nobody_else_is_asked() -> None:
    """Without retries the one request is lost; the next goes elsewhere."""

    async def script(link: PolicyLink, cluster: Cluster) -> None:
        robot = Robot()
        link.submit(robot.request())
        assert isinstance(await robot.outcome(), Failed)
        link.submit(robot.request())
        assert isinstance(await robot.outcome(), Answered)
        assert cluster.asked == ["a", "b"]

    run(script, max_wait_s=0.2, settings={"retries": 0, "retry_share": 0.0}, a=hangs, b=works)


def test_a_late_answer_counts() -> None:
    """The slow one is asked on while nobody else answers either."""

    async def script(link: PolicyLink, cluster: Cluster) -> None:
        let_go = asyncio.Event()

        async def is_late(name: str) -> Answer:
            await let_go.wait()
            return await works(name)

        cluster.behaviour["a"] = is_late
        robot = Robot()
        link.submit(robot.request())
        while cluster.asked != ["a", "b"]:
            await asyncio.sleep(0)
        let_go.set()
        answered = await robot.outcome()
        assert isinstance(answered, Answered)
        assert answered.message == b"a"

    run(script, a=hangs, b=hangs)


def test_nobody_is_asked_twice_over_while_the_policy_has_never_answered() -> None:
    """It may be compiling: the first answer may take its time."""

    async def script(link: PolicyLink, cluster: Cluster) -> None:
        robot = Robot()
        link.submit(robot.request())
        assert isinstance(await robot.outcome(), Failed)
        assert cluster.asked == ["a"]

    run(script, a=hangs, b=works, max_wait_s=0.2, settings={"first_deadline_s": 60.0})


def test_there_is_an_end_to_dying() -> None:
    """A request that takes replicas with it does not get all of them."""

    async def script(link: PolicyLink, cluster: Cluster) -> None:
        robot = Robot()
        link.submit(robot.request())
        failed = await robot.outcome()
        assert isinstance(failed, Failed)
        assert failed.cause == "AskFailed: 3 replicas of the policy died with this request"
        assert cluster.asked == ["a", "b", "c"]

    run(script, a=dies, b=dies, c=dies, d=dies)


def test_slowness_of_all_is_not_answered_with_load() -> None:
    """Without a share for retries everybody is asked once."""

    async def script(link: PolicyLink, cluster: Cluster) -> None:
        robots = [Robot(number) for number in range(4)]
        for robot in robots:
            link.submit(robot.request())
        for robot in robots:
            assert isinstance(await robot.outcome(), Failed)
        assert len(cluster.asked) == 4

    run(script, a=hangs, b=hangs, max_wait_s=0.2, settings={"retry_share": 0.0})


@pytest.mark.parametrize(("fault", "why"), [(is_full, "as many"), (hangs, "no replica answered")])
def test_a_busy_policy_is_said_so(fault: Behaviour, why: str) -> None:
    """A robot of ours is told when to come back; a stock client gets an error."""

    async def script(link: PolicyLink, cluster: Cluster) -> None:
        robot = Robot()
        link.submit(robot.request(ours()))
        refused = await robot.outcome()
        assert isinstance(refused, Refused)
        assert refused.refusal.kind == "busy"
        assert refused.refusal.text.startswith(why)
        link.submit(robot.request())
        failed = await robot.outcome()
        assert isinstance(failed, Failed)
        assert failed.text.startswith(f"TimeoutError: {why}")

    run(script, a=fault, max_wait_s=0.1)


def test_what_else_goes_wrong_is_the_requests_own() -> None:
    """Asked once, and told in one line."""

    async def script(link: PolicyLink, cluster: Cluster) -> None:
        robot = Robot()
        link.submit(robot.request())
        failed = await robot.outcome()
        assert isinstance(failed, Failed)
        assert failed.text == "ValueError: no such thing\n"
        assert cluster.asked == ["a"]

    run(script, a=breaks, b=works)


def test_answers_come_in_the_order_of_the_requests() -> None:
    """Whatever each of them took, refusals included; other robots do not wait for it."""

    async def script(link: PolicyLink, cluster: Cluster) -> None:
        first, let_go = True, asyncio.Event()

        async def is_slow_at_first(name: str) -> Answer:
            nonlocal first
            if first:
                first = False
                await let_go.wait()
                return Answer(kind="answered", message=b"slow")
            return await works(name)

        cluster.behaviour["a"] = is_slow_at_first
        robot, other = Robot(1), Robot(2)
        refusal = Refusal(kind="rate", text="too often")
        link.submit(robot.request())
        link.submit(robot.request())
        link.submit(robot.request(refusal=refusal))
        link.submit(other.request())
        assert isinstance(await other.outcome(), Answered)
        assert robot.outcomes.empty()
        let_go.set()
        outcomes = [await robot.outcome() for _ in range(3)]
        assert [getattr(outcome, "message", None) for outcome in outcomes] == [b"slow", b"a", None]
        assert outcomes[2] == Refused(refusal=refusal)

    run(script, a=works, settings={"first_deadline_s": 60.0, "deadline_s": 60.0})


def test_who_is_gone_is_asked_for_no_more() -> None:
    """Its calls are cancelled, and its replica is free."""

    async def script(link: PolicyLink, cluster: Cluster) -> None:
        ended = asyncio.Event()

        async def notices(name: str) -> Answer:
            try:
                return await hangs(name)
            finally:
                ended.set()

        cluster.behaviour["a"] = notices
        robot = Robot()
        link.submit(robot.request())
        link.submit(robot.request())
        await asyncio.sleep(0)
        assert link.waiting == 2
        link.forget(robot)
        link.forget(robot)
        assert link.waiting == 0
        await ended.wait()
        assert robot.outcomes.empty()

    run(script, a=hangs)


def test_nobody_comes_in_before_the_policy_is_known() -> None:
    """And its metadata is what it says, again after a rollout."""

    async def script(link: PolicyLink, cluster: Cluster) -> None:
        assert link.unready == "no replica of its policy answers"
        while link.unready is not None:
            await asyncio.sleep(0.01)
        assert link.metadata == {"name": "x"}
        cluster.metadata, cluster.generation = {"name": "second"}, "g2"

        async def is_new(name: str) -> Answer:
            return Answer(kind="answered", message=b"", generation="g2")

        cluster.behaviour["a"] = is_new
        robot = Robot()
        link.submit(robot.request())
        await robot.outcome()
        while link.metadata != {"name": "second"}:
            await asyncio.sleep(0.01)

    run(script, a=works)


def test_nobody_comes_in_after_the_policy_was_taken_down() -> None:
    """And they do again when it is back."""

    async def script(link: PolicyLink, cluster: Cluster) -> None:
        while link.unready is not None:
            await asyncio.sleep(0.01)
        cluster.metadata, known = None, cluster.metadata
        robot = Robot()
        link.submit(
            robot.request()
        )  # its answer is of another generation: the description is asked for
        await robot.outcome()
        while link.unready is None:
            await asyncio.sleep(0.01)
        cluster.metadata = known
        while link.unready is not None:
            await asyncio.sleep(0.01)

    async def is_new(name: str) -> Answer:
        return Answer(kind="answered", message=b"", generation="g2")

    run(script, a=is_new)
