# SPDX-License-Identifier: Apache-2.0
"""One of several servers is killed, frozen, slow or another one (docs/topics/failures.md)."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dialect_servers import Double
from misbehaving import METADATA, OBSERVATION, eventually, reply
from upstreams import AS_STOCK, Echo, Gate, timed

from pi05_websocket.client import ConnectionConfig, PolicyPool, RemotePolicy, connect
from pi05_websocket.client.failover import FailoverSettings
from pi05_websocket.errors import (
    AccessRefused,
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    EncodeError,
    InvalidReply,
    ObservationError,
    PolicyChanged,
    PolicyError,
)
from pi05_websocket.robot.player import ActionPlayer, PlayerConfig
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer

pytestmark = pytest.mark.faults

SERVER = Path(__file__).parents[1] / "support" / "counting_server.py"
SAME: dict[str, Any] = {"fingerprint": {"weights": "same"}}
OTHER: dict[str, Any] = {"fingerprint": {"weights": "other"}}
SHORT = ConnectionConfig(
    connect_timeout=2.0,
    handshake_timeout=0.5,
    metadata_timeout=0.5,
    request_timeout=0.4,
    first_request_timeout=3.0,
    backoff_first=0.02,
    backoff_max=0.1,
)


@pytest.fixture
def serve() -> Iterator[Callable[..., WebsocketPolicyServer]]:
    """Return a function that starts a server of ours; all stop at the end."""
    with contextlib.ExitStack() as stack:

        def start(
            name: str, metadata: dict[str, Any] | None = None, **settings: Any
        ) -> WebsocketPolicyServer:
            port, policy = settings.pop("port", 0), settings.pop("policy", Echo(name))
            config = ServerConfig(**settings)
            made = WebsocketPolicyServer(policy, "127.0.0.1", port, metadata or {}, config=config)
            return stack.enter_context(made)

        yield start


@pytest.fixture
def pool() -> Iterator[Callable[..., PolicyPool]]:
    """Return a function that makes a pool; all are closed at the end."""
    with contextlib.ExitStack() as stack:

        def make(
            *servers: Any, config: ConnectionConfig = SHORT, all_there: bool = True, **said: Any
        ) -> PolicyPool:
            urls = ",".join(server.url for server in servers)
            made = connect(urls, config, **said)
            assert isinstance(made, PolicyPool)
            stack.enter_context(made)
            # Whoever comes first is asked first: for the first to be it, all have to be there.
            if all_there:
                assert eventually(lambda: all(server.connected for server in made.servers))
            return made

        yield make


def ask(pool: PolicyPool) -> str:
    """Ask once; return who answered."""
    return str(pool.infer({"number": 1})["by"])


def both_sound(pool: PolicyPool) -> bool:
    """Ask, so that somebody is tried; say whether all are sound."""
    pool.infer({"number": 1})
    return all(server.sound for server in pool.servers)


class Process:
    """A policy server that can be killed and frozen."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, str(SERVER), "ours", *words]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = f"ws://127.0.0.1:{int(self._process.stdout.readline())}"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self._process.pid, number)

    def close(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def processes() -> Iterator[tuple[Process, Process]]:
    """Start two servers of the same policy."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(contextlib.closing(Process("--seconds", "0.1"))) for _ in "ab"]
        yield made[0], made[1]


# ----------------------------------------------------------------------------------------------- equal policies


def test_one_address_is_no_pool(serve: Any) -> None:
    """A single server costs nothing extra: it is the same class as ever."""
    with connect(serve("a").url, SHORT) as policy:
        assert isinstance(policy, RemotePolicy)
        assert policy.infer({"number": 7})["number"] == 7


def test_another_takes_over_with_the_same_fingerprint(serve: Any, pool: Any, caplog: Any) -> None:
    """The first goes, and the next request is answered by the other."""
    first, second = serve("a", SAME), serve("b", SAME)
    policy = pool(first, second)
    assert eventually(lambda: both_sound(policy))
    assert ask(policy) == "a"
    with caplog.at_level(logging.WARNING):
        first.close()
        assert ask(policy) == "b"
    assert policy.failovers == 1
    assert f"{second.url} takes over from {first.url}" in caplog.text
    exchange = policy.submit({"number": 2})
    assert exchange.result(2.0).value["number"] == 2
    assert exchange.server == second.url


def test_a_request_that_is_lost_is_asked_again(processes: Any, pool: Any) -> None:
    """Killed while it works on the request: the other one is asked, before anybody asks for it."""
    first, second = processes
    policy = pool(first, second, same_policy=True)
    assert eventually(lambda: both_sound(policy))
    image = np.zeros((8, 8, 3), np.uint8)
    exchange = policy.submit({"number": 41, "image": image})
    image[:] = 255  # the robot's own buffer, written to again
    time.sleep(0.03)
    first.signal(signal.SIGKILL)
    answer = exchange.future.result(3.0)
    assert answer.value["number"] == 41
    assert exchange.server == second.url
    assert not exchange.observation["image"].any()


def test_a_killed_server_is_tried_and_stands_by_again(serve: Any, pool: Any, caplog: Any) -> None:
    """It comes back on its port: a copy of a request tells that it answers, and the other is kept."""
    first, second = serve("a", SAME), serve("b", SAME)
    policy = pool(first, second)
    assert eventually(lambda: both_sound(policy))
    port = first.port
    first.close()
    assert ask(policy) == "b"
    with WebsocketPolicyServer(Echo("again"), "127.0.0.1", port, SAME):
        with caplog.at_level(logging.INFO):
            assert eventually(lambda: both_sound(policy))
        assert "it stands by" in caplog.text
        assert ask(policy) == "b"


def test_a_frozen_server_is_hedged_when_rows_run_out(processes: Any, pool: Any) -> None:
    """SIGSTOP: with rows left nobody else is asked; when they run out the other one is, and twice ejects."""
    first, second = processes
    config = ConnectionConfig(request_timeout=20.0)
    policy = pool(first, second, same_policy=True, config=config)
    assert eventually(lambda: both_sound(policy))
    for number in range(6):
        policy.infer({"number": number})
    first.signal(signal.SIGSTOP)
    try:
        for number in (1, 2):
            exchange = policy.submit({"number": number})
            exchange.rows_last(5.0)
            time.sleep(0.3)
            assert not exchange.done()
            exchange.rows_last(0.1)
            assert eventually(exchange.done)
            assert exchange.result(0).value["number"] == number
            assert exchange.server == second.url
        assert policy.hedges == 2
        assert policy.submit({"number": 3}).result(5.0).value["number"] == 3
        assert policy.hedges == 2
        assert policy.connection.config.url == second.url
    finally:
        first.signal(signal.SIGCONT)


def test_a_hedge_that_the_first_wins_is_no_strike_against_the_second(serve: Any) -> None:
    """It had no time to answer: it stays sound without an error, and its answer counts when it comes."""
    gates = Gate("a"), Gate("b")
    servers = [serve(gate.name, SAME, policy=gate) for gate in gates]
    configs = [replace(SHORT, url=server.url, request_timeout=20.0) for server in servers]
    # Whoever is asked first is asked first in every round, however slow the machine is.
    settings = FailoverSettings(much_faster=0.0)
    with PolicyPool(configs, settings=settings) as policy:
        assert eventually(lambda: all(server.connected for server in policy.servers))
        gates[0].let_through(7)
        gates[1].let_through()
        for number in range(7):
            policy.infer({"number": number})
        assert eventually(lambda: policy.servers[1].sound)
        for _ in range(2):
            exchange = policy.submit({"number": 8})
            exchange.rows_last(0.0)
            assert eventually(lambda e=exchange: e.done() or len(e.asked) == 2)
            gates[0].let_through()
            assert eventually(exchange.done)
            assert exchange.server == servers[0].url
            took_s = policy.servers[1].turnaround_s
            assert policy.servers[1].error_rate == 0.0
            assert policy.servers[1].sound
            gates[1].let_through()
            assert eventually(lambda s=took_s: policy.servers[1].turnaround_s != s)
        assert policy.hedges == 2


def test_the_late_answer_of_the_first_is_dropped(processes: Any, pool: Any) -> None:
    """Both answer: the one that was first counts, the other is nobody's, also for the next request."""
    first, second = processes
    policy = pool(first, second, same_policy=True, config=ConnectionConfig(request_timeout=20.0))
    assert eventually(lambda: both_sound(policy))
    for number in range(6):
        policy.infer({"number": number})
    first.signal(signal.SIGSTOP)
    exchange = policy.submit({"number": 50})
    exchange.rows_last(0.0)
    assert eventually(exchange.done)
    first.signal(signal.SIGCONT)
    assert eventually(lambda: all(asked.exchange.done() for asked in exchange.asked))
    assert exchange.server == second.url
    assert [policy.infer({"number": number})["number"] for number in (51, 52)] == [51, 52]


def test_an_answer_that_never_comes_is_asked_for_elsewhere(
    scripted: Any, serve: Any, pool: Any
) -> None:
    """After `timeout`, without anybody saying how many rows are left."""

    def silent_after(connection: Any) -> None:
        connection.send(METADATA)
        connection.recv()
        connection.send(reply(1.0))
        for _ in connection:
            pass

    first, second = scripted(silent_after), serve("b")
    policy = pool(first, second, same_policy=True)
    assert policy.infer(OBSERVATION)["actions"][0][0] == 1.0
    began = time.monotonic()
    assert ask(policy) == "b"
    assert time.monotonic() - began >= SHORT.request_timeout


def test_an_answer_no_arm_may_execute_is_asked_for_elsewhere(
    scripted: Any, serve: Any, pool: Any
) -> None:
    """NaN from one server: the other one's answer is the first that counts."""

    def wrong(connection: Any) -> None:
        connection.send(METADATA)
        for _ in connection:
            connection.send(reply(float("nan")))

    policy = pool(scripted(wrong), serve("b"), same_policy=True)
    assert ask(policy) == "b"


def test_when_all_fail_the_last_error_is_told(scripted: Any, serve: Any, pool: Any) -> None:
    """Both were asked, and nobody is asked for ever."""

    def wrong(connection: Any) -> None:
        connection.send(METADATA)
        for _ in connection:
            connection.send(reply(float("nan")))

    policy = pool(scripted(wrong), scripted(wrong), same_policy=True)
    with pytest.raises(InvalidReply):
        policy.infer(OBSERVATION)
    policy = pool(serve("a", SAME), serve("b", SAME))
    assert eventually(lambda: both_sound(policy))
    with pytest.raises(PolicyError):
        policy.infer({"do": "fail"})


# ----------------------------------------------------------------------- servers that cannot be sent everything

NO_CAMERA: dict[str, Any] = {"observation/state": np.zeros(6, np.float32), "prompt": "pick"}
"""What a RoboArena server cannot be asked with: it wants an outside camera."""


def hangs_up(connection: Any) -> None:
    """Introduce itself, and hang up on the first request."""
    connection.send(METADATA)
    connection.recv()


def test_who_cannot_be_sent_an_observation_is_passed_over(
    scripted: Any, serve: Any, pool: Any, caplog: Any
) -> None:
    """As the first, as a standby, and as one that is tried: the others answer, and the log says it."""
    picky = scripted(Double("roboarena"))
    policy = pool(picky, serve("b", **AS_STOCK), same_policy=True)
    assert policy.infer(NO_CAMERA)["by"] == "b"
    assert policy.failovers == 1

    policy = pool(scripted(hangs_up), picky, serve("c", **AS_STOCK), same_policy=True)
    assert policy.submit(NO_CAMERA).future.result(3.0).value["by"] == "c"

    policy = pool(serve("d", **AS_STOCK), picky, same_policy=True)
    caplog.clear()
    for _ in range(4):
        assert policy.infer(NO_CAMERA)["by"] == "d"
    assert not policy.servers[1].sound
    assert not policy._failover.standings[1].probing
    assert caplog.text.count(f"{picky.url} cannot be sent this observation") == 1


def test_where_only_those_are_left_who_cannot_be_sent_it_the_exchange_ends(
    scripted: Any, pool: Any
) -> None:
    """Lost by the first, or never answered by it: nobody waits for ever, and who looks is told no lie."""
    picky = scripted(Double("roboarena"))
    policy = pool(scripted(hangs_up), picky, same_policy=True)
    with pytest.raises(ObservationError, match="1 outside cameras"):
        policy.submit(NO_CAMERA).future.result(3.0)

    def silent(connection: Any) -> None:
        connection.send(METADATA)
        connection.recv()
        connection.recv()

    config = replace(SHORT, first_request_timeout=0.2, hard_timeout=0.4, request_timeout=0.2)
    policy = pool(scripted(silent), picky, same_policy=True, config=config)
    exchange = policy.submit(NO_CAMERA)
    assert eventually(exchange.done)
    with pytest.raises(DeadlineExceeded):
        exchange.result(0)


def test_what_nobody_can_be_sent_is_told_to_who_sends_it(serve: Any, pool: Any) -> None:
    """As with one server; it is nobody's failure, and the next request is answered."""
    policy = pool(serve("a", SAME), serve("b", SAME))
    with pytest.raises(EncodeError):
        policy.submit({"number": object()})
    assert [server.error_rate for server in policy.servers] == [0.0, 0.0]
    assert ask(policy) == "a"


# ----------------------------------------------------------------------------------------------- other policies


@pytest.mark.parametrize(
    ("before", "after", "marked", "words"),
    [
        (SAME, OTHER, False, "serves another policy"),
        (SAME, OTHER, True, "serves another policy"),
        ({}, {}, False, "same_policy"),
    ],
)
def test_the_arm_holds_where_nothing_proves_the_policy(
    serve: Any, pool: Any, before: dict[str, Any], after: dict[str, Any], marked: bool, words: str
) -> None:
    """The other is not asked until a person accepts it; both are named."""
    first, second = serve("a", before, **AS_STOCK), serve("b", after, **AS_STOCK)
    policy = pool(first, second, same_policy=marked)
    assert ask(policy) == "a"
    assert not policy.accept()
    first.close()
    assert eventually(lambda: isinstance(policy.unavailable(), PolicyChanged))
    with pytest.raises(PolicyChanged, match=words) as caught:
        policy.infer({"number": 1})
    assert first.url in str(caught.value)
    assert second.url in str(caught.value)
    assert (caught.value.got == caught.value.expected) is (before == after)
    assert policy.accept()
    assert ask(policy) == "b"


def test_an_only_server_that_comes_back_as_another_policy(serve: Any) -> None:
    """It is not asked until a person accepts it; the same policy goes on; a stock server says nothing."""
    first = serve("a", SAME)
    with RemotePolicy(config=replace(SHORT, url=first.url)) as policy:
        assert policy.infer({"number": 1})["by"] == "a"
        assert not policy.accept()
        first.close()
        serve("same", SAME, port=first.port)
        assert eventually(lambda: policy.unavailable() is None)
        assert policy.infer({"number": 2})["by"] == "same"

    stock = serve("a", **AS_STOCK)
    with RemotePolicy(config=replace(SHORT, url=stock.url)) as policy:
        assert policy.infer({"number": 1})["by"] == "a"
        stock.close()
        serve("b", port=stock.port, **AS_STOCK)
        assert eventually(lambda: policy.unavailable() is None)
        assert policy.infer({"number": 2})["by"] == "b"

    ours = serve("a", SAME)
    with RemotePolicy(config=replace(SHORT, url=ours.url)) as policy:
        assert policy.submit({"number": 1}).result(5).value["by"] == "a"
        ours.close()
        serve("b", OTHER, port=ours.port)
        assert eventually(lambda: isinstance(policy.unavailable(), PolicyChanged))
        refused = policy.submit({"number": 2})
        with pytest.raises(PolicyChanged, match="serves another policy than"):
            policy.infer({"number": 3})
        with pytest.raises(PolicyChanged):
            refused.result(5)
        assert policy.accept()
        assert policy.infer({"number": 4})["by"] == "b"


@pytest.mark.parametrize("several", [False, True])
def test_accepted_is_the_policy_that_a_person_was_told_of(
    serve: Any, pool: Any, several: bool
) -> None:
    """A third that has come since is a question of its own."""
    first, third = serve("a", SAME), {"fingerprint": {"weights": "third"}}
    if several:
        beside = serve("b", OTHER)
        policy = pool(first, beside)
    else:
        policy = RemotePolicy(config=replace(SHORT, url=first.url))
    with contextlib.closing(policy):
        assert policy.infer({"number": 1})["by"] == "a"
        first.close()
        if not several:
            beside = serve("b", OTHER, port=first.port)
        assert eventually(lambda: isinstance(policy.unavailable(), PolicyChanged))
        told = policy.unavailable()
        beside.close()
        serve("c", third, port=beside.port)
        assert eventually(
            lambda: (
                isinstance(error := policy.unavailable(), PolicyChanged) and str(error) != str(told)
            )
        )
        assert not policy.accept(told)
        with pytest.raises(PolicyChanged):
            policy.infer({"number": 2})
        assert policy.accept(policy.unavailable())
        assert policy.infer({"number": 3})["by"] == "c"


class Counting(Echo):
    """Counts who asks it."""

    def __init__(self) -> None:
        super().__init__("b")
        self.asked = 0

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Answer."""
        self.asked += 1
        return super().infer(obs)


class Replaced:
    """Lets a server be replaced while a client packs an observation, before it begins or when it has ended."""

    def __init__(
        self, policy: RemotePolicy, replace_it: Callable[[], object], *, first: bool
    ) -> None:
        self._policy, self._replace_it, self._first = policy, replace_it, first
        self._pack, self._done = policy._encode, False

    def __call__(self, obs: Any) -> Any:
        """Pack an observation."""
        if self._first:
            self._now()
        packed = self._pack(obs)
        self._now()
        return packed

    def _now(self) -> None:
        if not self._done:
            self._done = True
            before = self._policy.connection.greeting.number
            self._replace_it()
            assert eventually(lambda: self._policy.connection.greeting.number > before)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("before", "after"), [(SAME, OTHER), (None, OTHER), (SAME, None)])
@pytest.mark.parametrize("submitted", [True, False])
def test_replaced_between_the_look_and_the_sending(
    serve: Any,
    monkeypatch: pytest.MonkeyPatch,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    first: bool,
    submitted: bool,
) -> None:
    """Whoever has come meanwhile gets nothing of it: no answer of another policy can come back."""
    said = AS_STOCK if before is None else {"metadata": before}
    server = serve("a", **said)
    other = Counting()

    def come() -> None:
        server.close()
        said = AS_STOCK if after is None else {"metadata": after}
        serve("b", port=server.port, policy=other, **said)

    with RemotePolicy(config=replace(SHORT, url=server.url)) as policy:
        assert policy.infer({"number": 1})["by"] == "a"
        monkeypatch.setattr(policy, "_encode", Replaced(policy, come, first=first))
        ask_it = (lambda obs: policy.submit(obs).result(5)) if submitted else policy.infer
        with pytest.raises((PolicyChanged, ConnectionLost)):
            ask_it({"number": 2})
        assert other.asked == 0
        assert isinstance(policy.unavailable(), PolicyChanged)


class LeftWaiting:
    """Lets a thread rest between its request and its look at the answer: the server is replaced meanwhile."""

    def __init__(self, policy: RemotePolicy, replace_it: Callable[[], object]) -> None:
        self._policy, self._replace_it = policy, replace_it
        self._send, self._done = policy.connection.submit, False

    def __call__(self, buffer: bytearray, **settings: Any) -> Any:
        """Send a request."""
        exchange = self._send(buffer, **settings)
        if not self._done:
            self._done = True
            exchange.result(5)
            before = self._policy.connection.greeting.number
            self._replace_it()
            assert eventually(lambda: self._policy.connection.greeting.number > before)
            self._policy.unavailable()  # as another thread asks in each of its ticks
        return exchange


@pytest.mark.parametrize("requests", [0, 1])
def test_replaced_before_an_answer_is_looked_at(
    serve: Any, monkeypatch: pytest.MonkeyPatch, requests: int
) -> None:
    """The arm follows who has answered, not who has come since: that one is a person's to accept."""
    server = serve("a", SAME)
    other = Counting()

    def come() -> None:
        server.close()
        serve("b", OTHER, port=server.port, policy=other)

    with RemotePolicy(config=replace(SHORT, url=server.url)) as policy:
        for number in range(requests):
            policy.infer({"number": number})
        monkeypatch.setattr(policy.connection, "submit", LeftWaiting(policy, come))
        assert policy.submit({"number": 2}).result(5).value["by"] == "a"
        assert isinstance(policy.unavailable(), PolicyChanged)
        with pytest.raises(PolicyChanged):
            policy.infer({"number": 3})
        assert other.asked == 0


def test_replaced_between_a_pools_choice_and_the_sending(
    serve: Any, pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server that was chosen is another now: the other one answers."""
    first, second = serve("a", SAME), serve("same", SAME)
    other = Counting()
    both = pool(first, second)
    assert ask(both) == "a"

    def come() -> None:
        first.close()
        serve("b", OTHER, port=first.port, policy=other)

    chosen = both._servers[0]
    monkeypatch.setattr(chosen, "_encode", Replaced(chosen, come, first=True))
    assert ask(both) == "same"
    assert other.asked == 0


def test_stock_servers_are_one_policy_where_the_user_says_so(serve: Any, pool: Any) -> None:
    """Metadata `{}` prove nothing; `same_policy` is the user's word."""
    first, second = serve("a", **AS_STOCK), serve("b", **AS_STOCK)
    policy = pool(first, second, same_policy=True)
    assert eventually(lambda: both_sound(policy))
    first.close()
    assert ask(policy) == "b"


def driven(player: ActionPlayer) -> Callable[[], str]:
    """Begin an episode; return a function that makes the next tick and says where its action is from."""
    player.start_episode()
    pose = np.zeros(6, np.float32)
    ticks = itertools.count()

    def source() -> str:
        tick = next(ticks)
        player.collect(tick)
        player.ask(tick, lambda: {"number": tick}, pose)
        return player.act(tick, pose).source

    return source


def test_a_player_holds_and_a_person_lets_it_go_on(serve: Any, pool: Any) -> None:
    """The cause is `policy_changed`; `resume` accepts the other policy, and a fresh plan moves the arm."""
    first, second = serve("a", SAME), serve("b", OTHER)
    policy = pool(first, second)
    player = ActionPlayer(policy, PlayerConfig())
    source = driven(player)
    assert eventually(lambda: source() == "chunk")
    first.close()
    assert eventually(lambda: source() == "hold" and "policy_changed" in player.held_by_cause)
    assert second.url in player.cause
    for _ in range(20):
        assert source() == "hold"
    assert player.resume()
    assert eventually(lambda: source() == "chunk")
    assert player.last_exchange is not None
    assert player.last_exchange.server == second.url


@pytest.mark.parametrize("looked", [True, False])
def test_a_stopped_arm_is_let_go_only_when_the_other_policy_was_told(
    serve: Any, caplog: pytest.LogCaptureFixture, looked: bool
) -> None:
    """A person has stopped it; the server is replaced: the log says so aloud, and `resume` waits for that."""
    first = serve("a", SAME)
    with RemotePolicy(config=replace(SHORT, url=first.url)) as policy:
        player = ActionPlayer(policy, PlayerConfig())
        source = driven(player)
        assert eventually(lambda: source() == "chunk")
        player.stop()
        assert source() == "hold"
        first.close()
        serve("b", OTHER, port=first.port)
        assert eventually(lambda: isinstance(policy.unavailable(), PolicyChanged))
        caplog.clear()
        for _ in range(3 if looked else 0):
            assert source() == "hold"
        if not looked:
            assert not player.resume()
        told = [line for line in caplog.messages if "serves another policy than" in line]
        assert len(told) == 1
        assert caplog.records[caplog.messages.index(told[0])].levelno == logging.WARNING
        assert source() == "hold"
        assert player.resume()
        assert eventually(lambda: source() == "chunk")


# -------------------------------------------------------------------------------------------------- the servers


def test_a_hopeless_server_is_left_out_alone(scripted: Any, serve: Any, pool: Any) -> None:
    """401 from one: the other is asked. From both: told at once, and not waited for."""

    def refuse(connection: Any, request: Any) -> Any:
        return connection.respond(401, "no\n")

    first = scripted(lambda connection: None, process_request=refuse)
    policy = pool(first, serve("b", SAME), all_there=False)
    assert ask(policy) == "b"
    other = scripted(lambda connection: None, process_request=refuse)
    with pytest.raises(AccessRefused):
        pool(first, other, all_there=False, wait_for_server=5.0)


def test_nobody_is_there(pool: Any, scripted: Any) -> None:
    """The reason is told, and a pool that is asked all the same says it too."""
    first, second = scripted(lambda connection: None), scripted(lambda connection: None)
    first.stop()
    second.stop()
    policy = pool(first, second, all_there=False, wait_for_server=0)
    assert eventually(lambda: isinstance(policy.connection.error, ConnectFailed))
    with pytest.raises(ConnectFailed):
        policy.submit(OBSERVATION).result(1.0)
    assert policy.metadata == {}
    assert not policy.accept()


def test_a_server_of_another_kind_gets_what_it_reads(serve: Any, pool: Any) -> None:
    """`_rt` is for who announces it: a request that moves from one to the other loses it."""
    first, second = serve("a", SAME), serve("b", SAME, **AS_STOCK)
    policy = pool(first, second)
    assert eventually(lambda: both_sound(policy))
    said = timed({"number": 1}, deadline_ms=2000.0, leftover_ms=500.0)
    assert "_rt" in policy.submit(said).result(2.0).value
    first.close()
    answer = policy.submit(said).result(2.0).value
    assert answer["by"] == "b"
    assert "_rt" not in answer["names"]


def test_a_pool_is_two_different_servers() -> None:
    """One is no pool, and the same twice is no help."""
    with pytest.raises(ConfigError, match="given twice"):
        connect("ws://a:1, ws://a:1", SHORT)
    with pytest.raises(ConfigError, match="expected two"):
        PolicyPool([SHORT])
