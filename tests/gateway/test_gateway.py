# SPDX-License-Identifier: Apache-2.0
"""A gateway on real sockets: what passes, what is changed on the way, and who is asked when one fails."""

from __future__ import annotations

import http.client
import itertools
import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from announced import ANNOUNCED
from upstreams import AS_STOCK, Echo, Gate, reach, timed

from pi05_websocket.errors import (
    ConnectFailed,
    Pi05WebsocketError,
    PolicyChanged,
    PolicyError,
    RequestRefused,
)
from pi05_websocket.server.keys_file import add_key
from pi05_websocket.server.records import Closed, Opened, Record, RequestRecord
from pi05_websocket.server.requests import Answered, Failed, Refused, Request
from pi05_websocket.wire import codec
from pi05_websocket.wire.encoded_images import encode_images
from pi05_websocket.wire.protocol import ServerProtocol
from pi05_websocket.wire.realtime import (
    RealtimeReply,
    RealtimeRequest,
    RealtimeSupport,
    announcement,
    read_realtime_reply,
    realtime_support,
    with_realtime_reply,
)

RAMP = np.tile(np.arange(64, dtype=np.uint8)[:, None, None], (1, 48, 3))


class Conditioned(Echo):
    """Says how much delay it was told of, with the age of the observation."""

    def __init__(self) -> None:
        support = RealtimeSupport(prefix="trained", max_delay=3)
        super().__init__("conditioned", announcement(support))
        self.requests: list[RealtimeRequest] = []

    def infer_realtime(
        self, observation: dict[str, Any], request: RealtimeRequest, queue_ms: float
    ) -> dict[str, Any]:
        """Answer."""
        self.requests.append(request)
        said = RealtimeReply(
            seq=request.seq, delay=2, prefix="trained", queue_ms=queue_ms, infer_ms=1.0
        )
        return with_realtime_reply(self.infer(observation), said)


# ---------------------------------------------------------------------------------------------- what passes


def test_a_stock_server_gains_what_ours_announces(world: Any) -> None:
    """Its metadata and ours; its replies as they are."""
    gateway = world.gateway(world.upstream(Echo("a", {"reset_pose": [0.0]}), **AS_STOCK))
    robot = world.robot(gateway)
    assert robot.get_server_metadata() == {"reset_pose": [0.0], **ANNOUNCED}
    for number in range(3):
        answer = robot.infer({"number": number, "state": np.zeros(6, np.float32)})
        assert (answer["number"], answer["names"]) == (number, ["number", "state"])
    assert list(answer["server_timing"]) == ["infer_ms", "prev_total_ms"]
    assert robot.connection.reconnects == 0


def test_without_announcements_a_gateway_is_only_a_wire(world: Any) -> None:
    """Robots are told what the server says, and no message is looked into."""
    echo = Echo("a", {"x": 1})
    gateway = world.gateway(world.upstream(echo, **AS_STOCK), **AS_STOCK)
    robot = world.robot(gateway)
    assert robot.get_server_metadata() == {"x": 1}
    assert robot.infer(timed({"number": 1}))["names"] == ["number", "_rt"]


def test_a_stock_server_never_sees_what_was_said_to_the_gateway(world: Any) -> None:
    """`_rt` is the gateway's to read; JPEG becomes arrays, of any size."""
    echo = Echo()
    gateway = world.gateway(world.upstream(echo, **AS_STOCK))
    robot = world.robot(gateway, image_transport="jpeg")
    assert robot.infer(timed({"number": 1, "image": RAMP}))["names"] == ["number", "image"]
    nested = {"number": 2, "cameras": {"left": RAMP}}
    assert robot.infer(nested)["names"] == ["number", "cameras"]
    raw = world.robot(gateway)
    large = np.zeros((1300, 1300, 3), np.uint8)
    assert raw.infer({"number": 3, "image": large})["names"] == ["number", "image"]
    images = echo.seen[0]["image"], echo.seen[1]["cameras"]["left"]
    for image in images:
        assert (image.shape, image.dtype) == (RAMP.shape, np.uint8)
        assert np.abs(image.astype(int) - RAMP).max() < 8
    assert echo.seen[2]["image"].shape == (1300, 1300, 3)


def test_one_of_ours_is_told_all(world: Any) -> None:
    """The prefix is announced, the request arrives with a greater age, and the reply comes back."""
    policy = Conditioned()
    robot = world.robot(world.gateway(world.upstream(policy)), image_transport="jpeg")
    support = realtime_support(robot.get_server_metadata())
    assert support == RealtimeSupport(prefix="trained", max_delay=3, refusals=True)
    answer = robot.infer(timed({"number": 1, "image": RAMP}, age_ms=5.0))
    said = read_realtime_reply(answer)
    assert said is not None
    assert (said.seq, said.delay, said.prefix) == (1, 2, "trained")
    assert policy.requests[0].age_ms > 5.0
    assert policy.seen[0]["image"].shape == RAMP.shape


def test_several_robots_are_under_way_at_one_of_ours(world: Any, make_gate: Any) -> None:
    """It forms batches from them, so it is sent them."""
    gate = make_gate()
    gateway = world.gateway(world.upstream(gate))
    reach(lambda: gateway.upstreams[0].connections == 32)
    robots = [world.robot(gateway) for _ in range(4)]
    exchanges = [robot.submit({"number": number}) for number, robot in enumerate(robots)]
    reach(lambda: gateway.upstreams[0].under_way == 4)
    gate.let_through(4)
    assert [exchange.result(10).value["number"] for exchange in exchanges] == [0, 1, 2, 3]


def test_a_stock_server_is_asked_one_at_a_time(world: Any, make_gate: Any) -> None:
    """The others wait at the gateway, where they can still be given to somebody else."""
    gate = make_gate()
    gateway = world.gateway(world.upstream(gate, **AS_STOCK))
    robots = [world.robot(gateway) for _ in range(3)]
    exchanges = [robot.submit({"number": number}) for number, robot in enumerate(robots)]
    backend = gateway._backend_now
    reach(lambda: backend.waiting == 2)
    assert gateway.upstreams[0].under_way == 1
    assert repr(backend) == "<GatewayBackend waiting=2 under_way=1>"
    gate.let_through(3)
    assert {exchange.result(10).value["number"] for exchange in exchanges} == {0, 1, 2}


def test_newest_wins_while_a_robot_waits(world: Any, make_gate: Any) -> None:
    """Of ours; what it asked before is answered as superseded, in its turn."""
    gate = make_gate()
    gateway = world.gateway(world.upstream(gate, **AS_STOCK))
    robot = world.robot(gateway)
    exchanges = [robot.submit(timed({"number": number})) for number in range(3)]
    reach(lambda: gateway._backend_now.waiting == 2)
    gate.let_through(3)
    assert exchanges[0].result(10).value["number"] == 0
    with pytest.raises(RequestRefused, match="superseded"):
        exchanges[1].result(10)
    assert exchanges[2].result(10).value["number"] == 2


class Beside:
    """A robot whose requests the test hands to the backend itself, several before anything else happens."""

    def __init__(self, backend: Any) -> None:
        self.number = 99
        self.state: dict[str, Any] = {}
        self.outcomes: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        self._backend = backend
        self._protocol = ServerProtocol(backend.metadata(), encoded_images=True, deadlines=True)

    def deliver(self, request: Request, outcome: Any) -> None:
        """Note it."""
        self.outcomes.put((request.number, type(outcome)))

    def ask(self, number: int) -> None:
        """Hand over an observation with an image."""
        packed, _ = encode_images(timed({"number": number, "image": RAMP}), 80)
        self._backend.submit(
            Request(
                connection=self,
                number=number,
                protocol=self._protocol,
                payload=bytearray(codec.encode(packed)),
                arrived=time.perf_counter(),
                priority=1,
            )
        )


def test_images_that_a_newer_observation_replaces_are_not_decoded(world: Any) -> None:
    """But those that are being decoded are, so that a robot in a hurry is answered."""
    echo = Echo()
    gateway = world.gateway(world.upstream(echo, **AS_STOCK))
    robot = Beside(gateway._backend_now)
    gateway.operate(lambda _: [robot.ask(number) for number in range(4)])
    outcomes = [robot.outcomes.get(timeout=10) for _ in range(4)]
    assert outcomes == [(0, Answered), (1, Refused), (2, Refused), (3, Answered)]
    assert [observation["number"] for observation in echo.seen] == [0, 3]


def test_images_of_a_robot_that_is_gone_are_not_decoded(world: Any) -> None:
    """What waits is forgotten with it; what is being decoded is for nobody."""
    echo = Echo()
    gateway = world.gateway(world.upstream(echo, **AS_STOCK))
    backend = gateway._backend_now
    robot = Beside(backend)
    left: SimpleQueue[tuple[int, int]] = SimpleQueue()

    def come_and_go(_: Any) -> None:
        for number in range(4):
            robot.ask(number)
        backend.forget(robot)
        left.put((len(backend._unread), len(backend._reader._order)))

    gateway.operate(come_and_go)
    assert left.get(timeout=10) == (0, 0)
    reach(lambda: repr(backend._reader) == "<Reader decoding=0 waiting=0>")
    assert world.robot(gateway).infer({"number": 7})["number"] == 7
    assert [observation["number"] for observation in echo.seen] == [7]
    assert robot.outcomes.empty()


def test_images_are_decoded_when_a_server_comes_that_reads_none(world: Any, make_gate: Any) -> None:
    """A request that waits for one that reads JPEG goes to the other as arrays."""
    gate, echo = make_gate("reads"), Echo("stock")
    reading = world.upstream(gate, deadlines=False)
    later = world.upstream(echo, **AS_STOCK)
    port = later.port
    later.close()
    gateway = world.gateway(reading, later.url, ready=1, gateway={"upstream_connections": 1})
    robots = [world.robot(gateway, image_transport="jpeg") for _ in range(2)]
    exchanges = [robot.submit({"number": n, "image": RAMP}) for n, robot in enumerate(robots)]
    reach(lambda: gateway._backend_now.waiting == 1)
    world.upstream(echo, port, **AS_STOCK)
    answered = {exchange.result(20).value["by"] for exchange in exchanges[1:]}
    gate.let_through(100)
    answered.add(exchanges[0].result(20).value["by"])
    assert answered >= {"stock"}
    assert echo.seen[0]["image"].shape == RAMP.shape


def test_a_server_of_another_kind_may_take_its_place(world: Any) -> None:
    """Ours with many connections, then a stock one with one: what it says now counts."""
    first = world.upstream(Echo("ours"))
    gateway = world.gateway(first)
    robot = world.robot(gateway)
    reach(lambda: gateway.upstreams[0].connections == 32)
    assert robot.infer({"number": 1})["by"] == "ours"
    first.close()
    world.upstream(Echo("stock"), first.port, **AS_STOCK)
    reach(lambda: gateway.upstreams[0].usable)
    assert robot.infer({"number": 2})["by"] == "stock"
    assert gateway.upstreams[0].connections == 1
    assert robot.connection.reconnects == 0


# ---------------------------------------------------------------------------------------------------- errors


def test_an_upstreams_error_is_the_policys_own(world: Any) -> None:
    """It is passed on once, in OpenPI's form, and not asked for again; the next request is answered."""
    one, other = Echo("a"), Echo("b")
    gateway = world.gateway(world.upstream(one, **AS_STOCK), world.upstream(other, **AS_STOCK))
    robot = world.robot(gateway)
    with pytest.raises(PolicyError, match="KeyError: 'observation/image'") as caught:
        robot.infer({"do": "fail"})
    assert caught.value.detail.startswith("Traceback")
    reach(lambda: robot.connection.reconnects == 1)
    assert robot.infer({"number": 2})["number"] == 2
    assert [state.usable for state in gateway.upstreams] == [True, True]


@pytest.mark.parametrize("extras", [AS_STOCK, {}], ids=["stock", "ours"])
def test_an_upstream_that_only_fails_is_left_to_itself(world: Any, extras: dict[str, bool]) -> None:
    """Failing is quick, but it is not the quickest server; when it is well again it gets its share."""
    broken, sound = Echo("broken"), Echo("sound")
    broken.broken = True
    gateway = world.gateway(world.upstream(broken, **extras), world.upstream(sound, **extras))
    robot = world.robot(gateway)
    replies = []
    for number in range(200):
        try:
            replies.append(robot.infer({"number": number})["by"])
        except Pi05WebsocketError:
            replies.append("nobody")
    assert replies.count("nobody") <= 3
    assert set(replies[-190:]) == {"sound"}
    broken.broken = False

    def share() -> bool:
        return "broken" in {robot.infer({"number": 0})["by"] for _ in range(20)}

    reach(share)


def test_through_a_proxy_only_type_and_message_are_passed_on(world: Any) -> None:
    """The gateway's own rule, though its server behind it said more."""
    gateway = world.gateway(world.upstream(Echo(), **AS_STOCK), behind_proxy=True)
    with pytest.raises(PolicyError) as caught:
        world.robot(gateway).infer({"do": "fail"})
    assert caught.value.detail == "KeyError: 'observation/image'\n"


@pytest.mark.parametrize(
    ("payload", "wrong"),
    [
        (b"\xc1", "an unused tag"),
        (b"\x93\x01\x02\x03", "got list"),
        (b"\x81\xa3_rt\x81\xa3seq\xff", "_rt.seq: expected an integer"),
        (
            b"\x81\xa5image\x84\xa9__image__\xa3gif\xa4data\xa0\xa5shape\x90\xa6layout\xa3hwc",
            "'jpeg'",
        ),
    ],
)
def test_what_is_no_request_never_reaches_an_upstream(
    world: Any, payload: bytes, wrong: str
) -> None:
    """Where the gateway reads it, it refuses what a server would."""
    echo = Echo()
    robot = world.robot(world.gateway(world.upstream(echo, **AS_STOCK)))
    exchange = robot.connection.submit(bytearray(64) + payload)
    with pytest.raises(PolicyError, match=wrong):
        exchange.result(10)
    assert echo.seen == []


def test_whatever_is_wrong_with_a_request_is_its_own(world: Any) -> None:
    """An array where a word should be, in an image that has to be decoded: an error, and nobody waits."""
    echo = Echo()
    robot = world.robot(world.gateway(world.upstream(echo, **AS_STOCK)))
    image = {"__image__": "jpeg", "data": b"x", "shape": [8, 8, 3], "layout": np.zeros(3)}
    with pytest.raises(PolicyError, match=r"layout|ambiguous"):
        robot.infer({"image": image})
    assert echo.seen == []


def test_an_upstreams_refusal_reaches_the_robot(world: Any, tmp_path: Path) -> None:
    """The gateway has a key of its own there, sent as OpenPI's client does, and that may not ask so often."""
    keys, secret = tmp_path / "keys.json", tmp_path / "secret"
    secret.write_text(add_key(keys, "gateway", datetime.now(UTC), requests_per_second=0.001))
    upstream = world.upstream(Echo(), keys=str(keys), **AS_STOCK)
    gateway = world.gateway(upstream, gateway={"upstream_key_file": str(secret)})
    robot = world.robot(gateway)
    robot.infer({"number": 1})
    with pytest.raises(RequestRefused, match="too many requests: the key gateway") as caught:
        robot.infer({"number": 2})
    assert caught.value.kind == "rate"
    assert robot.connection.reconnects == 0


# -------------------------------------------------------------------------------------------- who is there


def test_without_an_upstream_nobody_comes_in(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    """HTTP 503 with the time to come back in the place of the WebSocket; the gateway itself is well."""
    gateway = world.gateway("ws://127.0.0.1:9", ready=0)
    reach(lambda: gateway.upstreams[0].trouble != "")
    assert "connection refused" in gateway.upstreams[0].trouble
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    upgrade = {"Sec-WebSocket-Key": "x" * 22 + "==", "Sec-WebSocket-Version": "13"}
    upgrade |= {"Upgrade": "websocket", "Connection": "Upgrade"}
    connection.request("GET", "/", headers=upgrade)
    response = connection.getresponse()
    assert (response.status, response.getheader("Retry-After")) == (503, "2")
    assert b"the server behind it cannot be reached" in response.read()
    connection.close()
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()
    assert sum("(trying again)" in line for line in caplog.messages) == 1


def test_a_refused_key_is_shown(world: Any, tmp_path: Path) -> None:
    """A person has to change something; it is tried again now and then."""
    keys = tmp_path / "keys.json"
    add_key(keys, "somebody", datetime.now(UTC))
    gateway = world.gateway(world.upstream(Echo(), keys=str(keys)), "ws://127.0.0.1:9", ready=0)
    reach(lambda: "HTTP 401" in gateway.upstreams[0].trouble)
    assert gateway._backend_now.unready == "none of the 2 servers behind it can be reached"


def test_a_server_of_another_policy_is_left_out(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """With one line in the log and where the upstreams are shown; unless a person wants it."""
    one = world.upstream(Echo("a", {"fingerprint": {"weights": "1"}}))
    gateway = world.gateway(one)
    other = world.upstream(Echo("b", {"fingerprint": {"weights": "2"}}))
    gateway = world.gateway(one, other, ready=1)
    reach(lambda: all(state.connections for state in gateway.upstreams))
    reach(lambda: any("serves another policy" in line for line in caplog.messages))
    assert sorted(state.usable for state in gateway.upstreams) == [False, True]
    (left_out,) = (state for state in gateway.upstreams if not state.usable)
    assert left_out.trouble == "serves another policy"
    allowed = world.gateway(one, other, gateway={"upstream_mismatch": "allow"})
    assert [state.usable for state in allowed.upstreams] == [True, True]


def test_robots_of_a_policy_that_is_gone_are_told_to_connect_again(world: Any) -> None:
    """Nobody gets the next plan from another policy; after the new handshake a person decides."""
    first = world.upstream(Echo("a", {"fingerprint": "1"}))
    gateway = world.gateway(first)
    robot = world.robot(gateway)
    assert robot.infer({"number": 1})["by"] == "a"
    port = first.port
    first.close()
    world.upstream(Echo("b", {"fingerprint": "2"}), port)
    reach(lambda: gateway.upstreams[0].usable)
    with pytest.raises(PolicyError, match="replaced by another one"):
        robot.infer({"number": 2})
    reach(lambda: robot.connection.reconnects == 1)
    with pytest.raises(PolicyChanged):
        robot.infer({"number": 3})
    assert robot.accept()
    assert robot.infer({"number": 4})["by"] == "b"
    assert robot.get_server_metadata()["fingerprint"] == "2"


def test_who_waits_gets_no_plan_of_another_policy(world: Any) -> None:
    """Asked while its policy was away, and then another one came in its place."""
    first = world.upstream(Echo("a", {"fingerprint": "1"}))
    gateway = world.gateway(first)
    robot = world.robot(gateway)
    assert robot.infer({"number": 1})["by"] == "a"
    port = first.port
    first.close()
    reach(lambda: not gateway.upstreams[0].usable)
    waits = robot.submit({"number": 2})
    reach(lambda: gateway._backend_now.waiting == 1)
    world.upstream(Echo("b", {"fingerprint": "2"}), port)
    with pytest.raises(PolicyError, match="replaced by another one"):
        waits.result(20)


def another_policy(backend: Any) -> None:
    """Let a free connection end at a server of another policy, as after dialling it again."""
    backend._pool.link_up(backend._pool._upstreams[0].free_link(), {"fingerprint": "2"})


def test_images_that_are_decoded_while_another_policy_takes_over(world: Any) -> None:
    """Whose request they belong to is told so; the policy that has come is not asked."""
    echo = Echo("a", {"fingerprint": "1"})
    gateway = world.gateway(world.upstream(echo, **AS_STOCK))
    backend = gateway._backend_now
    robot = Beside(backend)

    def ask_and_replace(_: Any) -> None:
        robot.ask(1)
        another_policy(backend)
        assert backend._pool._agreement.review(time.perf_counter() + 60)  # nobody serves the first
        backend.upstreams_changed()

    gateway.operate(ask_and_replace)
    assert robot.outcomes.get(timeout=10) == (1, Failed)
    assert echo.seen == []


def test_what_is_under_way_while_another_policy_comes(world: Any, make_gate: Any) -> None:
    """On another connection to the same server: it is lost with that, and never asked of who has come."""
    gate = make_gate("a", {"fingerprint": "1"})
    gateway = world.gateway(world.upstream(gate), gateway={"upstream_connections": 2})
    reach(lambda: gateway.upstreams[0].connections == 2)
    exchange = world.robot(gateway).submit({"number": 1})
    assert gate.entered.acquire(timeout=10)
    backend = gateway._backend_now
    under_way: SimpleQueue[int] = SimpleQueue()

    def come(_: Any) -> None:
        another_policy(backend)
        under_way.put(len(backend._errands))

    gateway.operate(come)
    assert under_way.get(timeout=10) == 0
    gate.let_through(10)
    assert exchange.result(20).value["by"] == "a"  # which is at the end of the renewed connection


# ------------------------------------------------------------------------------------------- when one fails


def test_who_comes_back_while_the_last_one_is_frozen_is_asked(world: Any) -> None:
    """One answered and froze while the other was away: nobody waits for it once the other is there."""
    frozen = Gate("frozen")
    one = world.upstream(Echo("other"), **AS_STOCK)
    port = one.port
    one.close()
    gateway = world.gateway(
        world.upstream(frozen, **AS_STOCK),
        f"ws://127.0.0.1:{port}",
        ready=1,
        gateway={"upstream_timeout_s": 0.2, "upstream_connections": 1},
    )
    frozen.let_through()
    assert world.robot(gateway).infer({"number": 1})["by"] == "frozen"
    lost = world.robot(gateway).submit({"number": 2})
    frozen.entered.acquire(timeout=10)
    frozen.entered.acquire(timeout=10)
    reach(lambda: not gateway._backend_now._pool.balancer.standings[0].sound)
    world.upstream(Echo("other"), port, **AS_STOCK)
    reach(lambda: gateway.upstreams[1].usable)
    assert world.robot(gateway).infer({"number": 3})["by"] == "other"
    assert lost.result(10).value["by"] == "other"
    frozen.let_through()


def test_every_upstream_becomes_known_though_one_robot_asks(world: Any) -> None:
    """A copy of its request warms the other one up."""
    one, other = Echo("a"), Echo("b")
    gateway = world.gateway(world.upstream(one, **AS_STOCK), world.upstream(other, **AS_STOCK))
    robot = world.robot(gateway)
    for number in range(2):
        robot.infer({"number": number})
    reach(lambda: all(state.sound for state in gateway.upstreams))
    assert one.seen
    assert other.seen


def hanging(world: Any, gate: Gate, **gateway: Any) -> tuple[Any, list[Any]]:
    """A gateway before two that have answered, of which the first hangs from now on; and robots."""
    gate.let_through(1000)
    upstreams = [world.upstream(policy, **AS_STOCK) for policy in (gate, Echo("quick"))]
    server = world.gateway(*upstreams, gateway=gateway)
    robots = [world.robot(server) for _ in range(4)]
    for number in range(10):
        robots[0].infer({"number": number})
    reach(lambda: all(state.sound and not state.under_way for state in server.upstreams))
    while gate.opened.acquire(blocking=False):
        pass
    while gate.entered.acquire(blocking=False):
        pass
    return server, robots


def all_ask(robots: list[Any], numbers: Any, **said: Any) -> None:
    """Let all robots ask at once, each with a number of its own, which comes back."""
    asked = [next(numbers) for _ in robots]
    observations = [{"number": number} for number in asked]
    exchanges = [
        robot.submit(timed(observation, **said) if said else observation)
        for robot, observation in zip(robots, observations, strict=True)
    ]
    assert [exchange.result(10).value["number"] for exchange in exchanges] == asked


def test_who_does_not_answer_is_replaced_and_its_late_reply_is_nobodys(
    world: Any, make_gate: Any
) -> None:
    """The robot has its answer from the other one; each has its own number back, whatever comes late."""
    gate, numbers = make_gate("slow"), itertools.count()
    gateway, robots = hanging(world, gate, upstream_timeout_s=0.1)
    while not gate.entered.acquire(blocking=False):
        all_ask(robots, numbers)
    all_ask(robots, numbers)
    assert not gateway.upstreams[0].sound
    gate.let_through(1000)
    while not gateway.upstreams[0].sound:
        all_ask(robots, numbers)
    all_ask(robots, numbers)
    assert [robot.connection.reconnects for robot in robots] == [0, 0, 0, 0]


def test_a_robots_deadline_is_kept_by_another_upstream(world: Any, make_gate: Any) -> None:
    """The one that hangs is left in time for the other to answer."""
    gate, numbers = make_gate("slow"), itertools.count()
    _, robots = hanging(world, gate, upstream_timeout_s=30.0)
    while not gate.entered.acquire(blocking=False):
        all_ask(robots, numbers, deadline_ms=2000.0)


def test_a_request_whose_server_hung_up_is_asked_again(world: Any, make_gate: Any) -> None:
    """At once, by the other one."""
    gate, echo = make_gate("dying"), Echo("quick")
    dying = world.upstream(gate, stop_timeout_s=0, **AS_STOCK)
    gateway = world.gateway(dying)
    robot = world.robot(gateway)
    exchange = robot.submit({"number": 1})
    assert gate.entered.acquire(timeout=10)
    dying.close()
    reach(lambda: not gateway.upstreams[0].usable)
    assert not exchange.done()
    world.upstream(echo, dying.port, **AS_STOCK)
    assert exchange.result(20).value["by"] == "quick"
    assert robot.connection.reconnects == 0


@pytest.mark.parametrize("ours", [True, False])
def test_what_may_not_be_asked_again_is_answered(world: Any, make_gate: Any, ours: bool) -> None:
    """Ours is told to try again, a stock client gets an error and a new connection."""
    gate = make_gate()
    dying = world.upstream(gate, stop_timeout_s=0, **AS_STOCK)
    gateway = world.gateway(dying, gateway={"upstream_retries": 0})
    robot = world.robot(gateway)
    exchange = robot.submit(timed({"number": 1}) if ours else {"number": 1})
    assert gate.entered.acquire(timeout=10)
    dying.close()
    with pytest.raises(RequestRefused if ours else PolicyError, match="went away"):
        exchange.result(10)


@pytest.mark.parametrize(("ours", "under_way"), [(True, False), (False, False), (False, True)])
def test_nobody_waits_for_ever(world: Any, make_gate: Any, ours: bool, under_way: bool) -> None:
    """An upstream that hangs, and no other: what waits, and what is under way, is answered within the bound."""
    gate = make_gate()
    gate.let_through(2)
    gateway = world.gateway(
        world.upstream(gate, **AS_STOCK), max_wait_s=0.3, gateway={"upstream_timeout_s": 0.1}
    )
    first, second = world.robot(gateway), world.robot(gateway)
    for number in range(2):
        first.infer({"number": number})
    stuck = first.submit({"number": 1})
    waits = second.submit(timed({"number": 2}) if ours else {"number": 2})
    with pytest.raises(RequestRefused if ours else PolicyError, match=r"waited|within"):
        (stuck if under_way else waits).result(10)


def test_a_robot_with_a_deadline_is_told_when_it_has_passed(world: Any, make_gate: Any) -> None:
    """Its request waits behind another robot's, and nobody comes."""
    gate = make_gate()
    gateway = world.gateway(world.upstream(gate, **AS_STOCK))
    first, second = world.robot(gateway), world.robot(gateway)
    first.submit({"number": 1})
    assert gate.entered.acquire(timeout=10)
    with pytest.raises(RequestRefused, match="its turn did not come") as caught:
        second.infer(timed({"number": 2}, deadline_ms=50.0))
    assert caught.value.kind == "busy"


# --------------------------------------------------------------------------------------- the end, the records


def test_stopping_finishes_what_is_under_way(world: Any, make_gate: Any) -> None:
    """As a server does; what waits behind it is dropped."""
    gate = make_gate()
    gateway = world.gateway(world.upstream(gate, **AS_STOCK))
    robot, other = world.robot(gateway), world.robot(gateway)
    exchange = robot.submit({"number": 1})
    assert gate.entered.acquire(timeout=10)
    other.submit({"number": 2})
    gateway.request_stop()
    gate.let_through()
    assert exchange.result(10).value["number"] == 1
    gateway.close()
    assert [answer.get("number") for answer in gate.seen] == [1]


def test_stopping_twice_waits_for_nobody(world: Any, make_gate: Any) -> None:
    """Whatever hangs."""
    gate = make_gate()
    gateway = world.gateway(world.upstream(gate, **AS_STOCK), stop_timeout_s=1000)
    robot = world.robot(gateway)
    robot.submit({"number": 1})
    assert gate.entered.acquire(timeout=10)
    gateway.request_stop()
    gateway.close()


def test_a_robot_that_leaves_takes_its_requests_along(world: Any, make_gate: Any) -> None:
    """What is under way for it is answered into the void, what waits is dropped."""
    gate = make_gate()
    gateway = world.gateway(world.upstream(gate, **AS_STOCK))
    leaving, other = world.robot(gateway), world.robot(gateway)
    for number in range(2):
        leaving.submit({"number": number})
    reach(lambda: gateway._backend_now.waiting == 1)
    leaving.close()
    reach(lambda: gateway._backend_now.waiting == 0)
    exchange = other.submit({"number": 5})
    gate.let_through(2)
    assert exchange.result(10).value["number"] == 5
    assert [answer["number"] for answer in gate.seen] == [0, 5]


def test_listeners_are_told_as_by_a_server(world: Any) -> None:
    """Who came, what became of each request, who went; nobody knows how many shared the inference."""
    records: list[Record] = []
    gateway = world.gateway(world.upstream(Echo(), **AS_STOCK), listeners=[records.append])
    with world.robot(gateway) as robot:
        robot.infer(timed({"number": 1}, leftover_ms=5000.0, age_ms=2.0))
        with pytest.raises(PolicyError):
            robot.infer({"do": "fail"})
    reach(lambda: sum(isinstance(record, Closed) for record in records) >= 1)
    opened, answered, failed = records[:3]
    assert isinstance(opened, Opened)
    assert isinstance(answered, RequestRecord)
    assert (answered.outcome, answered.batch, answered.number) == ("answered", 0, 1)
    assert (answered.age_ms, answered.due_ms) == (2.0, pytest.approx(4996.0))
    assert 0 < answered.infer_ms <= answered.total_ms
    assert answered.observation is None
    assert answered.bytes_out > 0
    assert isinstance(failed, RequestRecord)
    assert (failed.outcome, failed.why) == ("failed", "server error: KeyError: 'observation/image'")


def test_what_the_log_says_when_one_goes_and_comes(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for each change, with the address."""
    caplog.set_level(logging.INFO)
    one, other = Echo("a"), Echo("b")
    first = world.upstream(one, **AS_STOCK)
    gateway = world.gateway(first, world.upstream(other, **AS_STOCK))
    robot = world.robot(gateway)
    for number in range(2):
        robot.infer({"number": number})
    reach(lambda: all(state.sound for state in gateway.upstreams))
    first.close()
    reach(lambda: not gateway.upstreams[0].usable)
    robot.infer({"number": 3})
    world.upstream(one, first.port, **AS_STOCK)
    reach(lambda: bool(robot.infer({"number": 4})) and gateway.upstreams[0].sound)
    lines = [line for line in caplog.messages if first.url in line and "serving" not in line]
    lost = [line for line in lines if "robots are given to others" in line]
    assert len(lost) == 1
    assert sum(line == f"connected to {first.url}" for line in lines) == 2


def test_no_address_but_a_newcomer_is_told_nothing(world: Any) -> None:
    """Addresses of upstreams stay in the log."""
    gateway = world.gateway("ws://127.0.0.1:9", ready=0)
    with pytest.raises(ConnectFailed) as caught:
        world.robot(gateway, wait=1.0)
    assert "127.0.0.1:9:" not in str(caught.value)


# --------------------------------------------------------------------------------------- what is told


def test_whoever_watches_is_told_of_each_upstream(world: Any) -> None:
    """One that has answered, and one at whose address nobody listens: by their addresses, in their order."""
    well = world.upstream(Echo("a"))
    gateway = world.gateway(well, "ws://127.0.0.1:9", ready=1)
    world.robot(gateway).infer({"number": 1})
    told: SimpleQueue[Any] = SimpleQueue()
    assert gateway.operate(lambda operator: told.put(operator.state().upstreams))
    first, second = told.get(timeout=20)
    assert (first.url, first.usable, first.sound, first.trouble) == (well.url, True, True, "")
    assert first.turnaround_s > 0
    assert (second.url, second.usable, second.sound) == ("ws://127.0.0.1:9", False, False)
    assert "no server listens there" in second.trouble
