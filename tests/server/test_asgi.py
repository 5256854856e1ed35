# SPDX-License-Identifier: Apache-2.0
"""The policy server as an ASGI application, without a server: every message by hand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asgi_client import AsgiClient

from pi05_websocket.errors import ConfigError
from pi05_websocket.server import ServerConfig
from pi05_websocket.server.asgi import PolicyApp
from pi05_websocket.server.backend import Backend
from pi05_websocket.server.keys_file import add_key, revoke_key
from pi05_websocket.server.open_connections import OpenConnections
from pi05_websocket.server.records import Closed, Opened, RequestRecord, TurnedAway
from pi05_websocket.server.worker import PolicyWorker
from pi05_websocket.wire import codec
from pi05_websocket.wire.protocol import TRACEBACK_CLOSE_REASON

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OBSERVATION = {"observation/state": np.arange(6, dtype=np.float32), "prompt": "pick"}


def app_of(
    policy: Any,
    *,
    through_proxy: bool = False,
    listeners: Any = (),
    reads_ahead: bool = False,
    connections: Any = None,
    **settings: Any,
) -> PolicyApp:
    """An application with one policy behind it."""

    def backend(config: ServerConfig, deliver: Any, stopped: Any) -> Backend:
        return PolicyWorker(policy, config, deliver, stopped)

    return PolicyApp(
        backend,
        lambda: {"name": "scripted"},
        config=ServerConfig(**settings),
        listeners=listeners,
        connections=connections,
        reads_ahead=reads_ahead,
        through_proxy=through_proxy,
    )


def drive(app: PolicyApp, script: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a script on a loop of its own, then end the application."""

    async def whole() -> None:
        try:
            await script()
        finally:
            await app.drain()

    asyncio.run(whole())


def test_metadata_first_then_answers_in_order(scripted: Any) -> None:
    """The conversation of the plain server, announcements and timings included."""
    app = app_of(scripted)

    async def script() -> None:
        client = AsgiClient(app)
        metadata = await client.opened()
        assert metadata["name"] == "scripted"
        assert {"_rt", "_images"} <= set(metadata)
        for turn in range(2):
            client.request(OBSERVATION)
            reply = await client.reply()
            assert reply["actions"].shape == (2, 6)
            assert set(reply["server_timing"]) == {"infer_ms", "prev_total_ms"} - (
                set() if turn else {"prev_total_ms"}
            )
        client.say("websocket.disconnect", code=1000)
        await client.ended()

    drive(app, script)


def test_requests_may_be_pipelined(gate: Any) -> None:
    """The n-th answer belongs to the n-th request."""
    app = app_of(gate)

    async def script() -> None:
        client = AsgiClient(app)
        await client.opened()
        for number in range(5):
            client.request({"number": number})
            gate.opened.release()
        assert [(await client.reply())["number"] for _ in range(5)] == list(range(5))

    drive(app, script)


def test_an_error_is_openpis(scripted: Any) -> None:
    """Text, then a close with 1011 and the stock reason; here with the traceback, the client being local."""
    app = app_of(scripted)

    async def script() -> None:
        client = AsgiClient(app)
        await client.opened()
        client.request({"do": "fail"})
        text = (await client.sent())["text"]
        assert text.startswith("Traceback")
        assert "KeyError: 'observation/image'" in text
        assert await client.sent() == {
            "type": "websocket.close",
            "code": 1011,
            "reason": TRACEBACK_CLOSE_REASON,
        }
        await client.ended()

    drive(app, script)


@pytest.mark.parametrize(("host", "through_proxy"), [("203.0.113.9", False), ("127.0.0.1", True)])
def test_strangers_see_no_traceback(scripted: Any, host: str, through_proxy: bool) -> None:
    """Another computer gets type and message; and so does whoever comes through a proxy on this machine."""
    app = app_of(scripted, through_proxy=through_proxy)

    async def script() -> None:
        client = AsgiClient(app, client=(host, 1))
        await client.opened()
        client.send("text")
        assert (await client.sent())["text"].startswith(
            "pi05_websocket.errors.DecodeError: expected"
        )

    drive(app, script)


@pytest.mark.parametrize(
    ("path", "query", "status", "body"),
    [
        (b"/healthz", b"", 200, b"OK\n"),
        (b"/healthz", b"x", 426, b"This is a policy server"),
        (b"/", b"", 426, b"This is a policy server"),
    ],
)
def test_plain_http(scripted: Any, path: bytes, query: bytes, status: int, body: bytes) -> None:
    """The health check on its exact path; a word to those who come with a browser."""
    app = app_of(scripted)

    async def script() -> None:
        client = AsgiClient(app, "http", path=path.decode(), raw_path=path, query_string=query)
        start, sent = await client.sent(), await client.sent()
        assert (start["type"], start["status"]) == ("http.response.start", status)
        assert sent["body"].startswith(body)
        assert (b"upgrade", b"websocket") in start["headers"] or status == 200

    drive(app, script)


def test_who_is_not_let_in_is_told_by_http(scripted: Any, tmp_path: Path) -> None:
    """401 before the handshake where the server can, a close before it where not; a key lets in."""
    file = tmp_path / "keys.json"
    secret = add_key(file, "arm", NOW, paths=("/pick",))
    app = app_of(scripted, keys=str(file))
    key = [(b"Authorization", f"Bearer {secret}".encode())]

    async def script() -> None:
        stranger = AsgiClient(app)
        start, body = await stranger.sent(), await stranger.sent()
        assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
        assert (b"www-authenticate", b"Api-Key, Bearer") in start["headers"]
        assert body["body"].startswith(b"This policy server lets in who has a key")
        await stranger.ended()
        old = AsgiClient(app, extensions={})
        closed = await old.sent()
        assert (closed["type"], closed["code"]) == ("websocket.close", 1008)
        assert len(closed["reason"].encode()) <= 123
        elsewhere = AsgiClient(app, headers=key)
        assert (await elsewhere.sent())["status"] == 403
        arm = AsgiClient(app, headers=key, path="/pick", raw_path=b"/pick", query_string=b"a=1")
        await arm.opened()

    drive(app, script)


def test_a_full_server_says_when_to_come_back(scripted: Any) -> None:
    """503 with Retry-After, or a close with 1013; who leaves makes room."""
    app = app_of(scripted, max_connections=1)

    async def script() -> None:
        first = AsgiClient(app)
        await first.opened()
        second = AsgiClient(app)
        start = await second.sent()
        assert start["status"] == 503
        assert (b"retry-after", b"10") in start["headers"]
        third = AsgiClient(app, extensions={})
        assert (await third.sent())["code"] == 1013
        first.say("websocket.disconnect", code=1000)
        await first.ended()
        await AsgiClient(app).opened()

    drive(app, script)


def test_a_revoked_key_ends_its_connection(scripted: Any, tmp_path: Path) -> None:
    """1008, within seconds."""
    file = tmp_path / "keys.json"
    secret = add_key(file, "arm", NOW)
    app = app_of(scripted, keys=str(file))

    async def script() -> None:
        client = AsgiClient(app, headers=[(b"authorization", f"Api-Key {secret}".encode())])
        await client.opened()
        revoke_key(file, "arm")
        closed = await client.sent()
        assert (closed["code"], closed["reason"][:11]) == (1008, "the key arm")

    drive(app, script)


def test_too_many_requests_are_refused_and_the_connection_stays(
    scripted: Any, tmp_path: Path
) -> None:
    """By the key's rate, in the place of the answer."""
    file = tmp_path / "keys.json"
    secret = add_key(file, "arm", NOW, requests_per_second=0.001)
    app = app_of(scripted, keys=str(file))

    async def script() -> None:
        client = AsgiClient(app, headers=[(b"authorization", f"Bearer {secret}".encode())])
        await client.opened()
        for _ in range(3):
            client.request(OBSERVATION)
        await client.reply()
        for _ in range(2):
            assert (await client.sent())["text"].startswith("RequestRefused: rate")

    drive(app, script)


def test_nothing_is_read_while_many_requests_wait(gate: Any) -> None:
    """The ASGI server is asked for no more than the bound; with answers the reading goes on."""
    app = app_of(gate, max_queued_requests=2)

    async def script() -> None:
        client = AsgiClient(app)
        await client.opened()
        for number in range(4):
            client.request({"number": number})
        await asyncio.to_thread(gate.entered.acquire)
        assert client.received == 3  # the connect, and two requests
        for number in range(4):
            gate.opened.release()
            assert (await client.reply())["number"] == number

    drive(app, script)


def test_behind_a_server_that_reads_ahead_who_sends_too_much_is_closed(gate: Any) -> None:
    """Twice the bound is the end: nobody can slow such a client down."""
    app = app_of(gate, max_queued_requests=2, reads_ahead=True)

    async def script() -> None:
        client = AsgiClient(app)
        await client.opened()
        for number in range(4):
            client.request({"number": number})
        closed = await client.sent()
        assert (closed["type"], closed["code"]) == ("websocket.close", 1008)
        gate.opened.release()

    drive(app, script)


def test_a_message_that_is_too_large_is_the_end(scripted: Any) -> None:
    """1009, as the plain server says."""
    app = app_of(scripted, max_message_bytes=1024)

    async def script() -> None:
        client = AsgiClient(app)
        await client.opened()
        client.send(bytes(1025))
        assert (await client.sent())["code"] == 1009

    drive(app, script)


def test_the_end_comes_between_messages(gate: Any) -> None:
    """The request under way is answered, then 1012; a new client is told to come back."""
    app = app_of(gate)

    async def script() -> None:
        idle, busy = AsgiClient(app), AsgiClient(app)
        await idle.opened()
        await busy.opened()
        busy.request({"number": 7})
        await asyncio.to_thread(gate.entered.acquire)
        ending = asyncio.ensure_future(app.drain(1012, "moving"))
        goodbye = {"type": "websocket.close", "code": 1012, "reason": "moving"}
        assert await idle.sent() == goodbye
        late = AsgiClient(app)
        assert (await late.sent())["status"] == 503
        gate.opened.release()
        assert (await busy.reply())["number"] == 7
        assert await busy.sent() == goodbye
        await ending

    drive(app, script)


def test_an_inference_that_hangs_does_not_hold_up_the_end(gate: Any) -> None:
    """Its client gets a goodbye without an answer."""
    app = app_of(gate, stop_timeout_s=0.05)

    async def script() -> None:
        client = AsgiClient(app)
        await client.opened()
        client.request({"number": 1})
        await asyncio.to_thread(gate.entered.acquire)
        await app.drain()
        assert (await client.sent())["code"] == 1001

    drive(app, script)


def test_lifespan(scripted: Any) -> None:
    """Ready at the start, ended at the end; without it the first scope begins."""
    app = app_of(scripted)

    async def script() -> None:
        server = AsgiClient(app, "lifespan")
        server.say("lifespan.startup")
        assert await server.sent() == {"type": "lifespan.startup.complete"}
        client = AsgiClient(app)
        await client.opened()
        server.say("lifespan.shutdown")
        assert (await client.sent())["code"] == 1001
        assert await server.sent() == {"type": "lifespan.shutdown.complete"}
        await server.ended()

    drive(app, script)


def test_listeners_and_the_log(scripted: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What the plain server tells: who came, what became of each request, why it ended."""
    caplog.set_level(logging.INFO)
    records: list[Any] = []
    app = app_of(scripted, listeners=[records.append], behind_proxy=True)

    async def script() -> None:
        client = AsgiClient(app, headers=[(b"X-Forwarded-For", b"1.2.3.4, 203.0.113.9")])
        await client.opened()
        client.request(OBSERVATION)
        await client.reply()
        client.request({"do": "fail"})
        await client.sent()
        await client.sent()
        await client.ended()

    drive(app, script)
    opened, answered, failed, closed = records
    assert isinstance(opened, Opened)
    assert opened.peer == "203.0.113.9 via 127.0.0.1:50000"
    assert isinstance(answered, RequestRecord)
    assert (answered.outcome, answered.bytes_in) == ("answered", len(codec.encode(OBSERVATION)))
    assert (failed.outcome, failed.why) == ("failed", "KeyError: 'observation/image'")
    assert isinstance(closed, Closed)
    assert closed.why == "1011 KeyError: 'observation/image'"
    (line,) = [message for message in caplog.messages if " closed who=" in message]
    assert " who=anonymous from='203.0.113.9 via 127.0.0.1:50000' " in line
    assert " requests=2 answered=1 refused=0 " in line


def test_who_hangs_up_is_forgotten(gate: Any) -> None:
    """What waits for it is dropped, and the others are served."""
    app = app_of(gate)

    async def script() -> None:
        gone, stays = AsgiClient(app), AsgiClient(app)
        await gone.opened()
        await stays.opened()
        gone.request({"number": 1})
        await asyncio.to_thread(gate.entered.acquire)
        gone.request({"number": 2})
        gone.say("websocket.disconnect", code=1006)
        await gone.ended()
        stays.request({"number": 3})
        for _ in range(2):
            gate.opened.release()
        assert (await stays.reply())["number"] == 3

    drive(app, script)
    assert gate.numbers == [1, 3]


def test_drain_before_anybody_came_and_twice(scripted: Any) -> None:
    """Nothing to do, and nothing to do again."""
    app = app_of(scripted)

    async def script() -> None:
        await app.drain()
        await AsgiClient(app).opened()
        assert repr(app) == "<PolicyApp serving connections=1>"
        await app.drain()
        await app.drain()
        assert repr(app).startswith("<PolicyApp it is stopping")

    asyncio.run(script())


def test_a_client_that_vanishes_while_it_is_written_to(scripted: Any) -> None:
    """Its server says so by an error, as ASGI has it; the line in the log says why."""
    closed: list[str] = []
    app = app_of(scripted, listeners=[lambda record: closed.append(getattr(record, "why", ""))])

    async def script() -> None:
        client = AsgiClient(app)
        await client.opened()
        client.vanish()
        client.request(OBSERVATION)
        await client.ended()

    drive(app, script)
    assert closed[-1].startswith("lost: OSError('gone')")


def test_who_does_not_read_is_cut(scripted: Any) -> None:
    """After the setting's time, without a goodbye that would not leave either."""
    records: list[Any] = []
    app = app_of(scripted, listeners=[records.append], unread_timeout_s=0.05)

    async def script() -> None:
        client = AsgiClient(app)
        await client.opened()
        client.stall()
        client.request(OBSERVATION)
        await client.ended()

    drive(app, script)
    assert records[-1].why == "1008 did not read its replies for 0.05 s"


def test_a_goodbye_that_is_not_read_ends_by_itself(scripted: Any) -> None:
    """As at the plain server: the ASGI server would wait for as long as the client likes."""
    app = app_of(scripted, max_message_bytes=1024)

    async def script() -> None:
        client = AsgiClient(app)
        await client.opened()
        client.stall()
        client.send(bytes(1025))
        await client.ended()

    drive(app, script)


def test_what_comes_after_the_end_is_read_and_dropped(gate: Any) -> None:
    """Else it would pile up in the ASGI server, which reads on."""
    app = app_of(gate, max_queued_requests=1, reads_ahead=True)

    async def script() -> None:
        client = AsgiClient(app)
        await client.opened()
        client.stall()
        for number in range(20):
            client.request({"number": number})
        await client.ended()
        assert client.received >= 21
        gate.opened.release()

    drive(app, script)
    assert gate.numbers in ([], [0])  # the first may have begun


def test_bounds_over_all_connections_hold_for_several_applications_together(gate: Any) -> None:
    """Of those that share an ingress: who holds most goes, and one more than may come does not."""

    async def whole() -> None:
        records: list[Any] = []
        shared: OpenConnections[Any] = OpenConnections([records.append])
        settings = {"connections": shared, "max_connections": 2, "max_held_bytes": 4096}
        apps = [app_of(gate, **settings), app_of(gate, **settings)]
        large, small = (AsgiClient(app) for app in apps)
        await large.opened()
        await small.opened()
        for app in apps:
            assert (await AsgiClient(app).sent())["status"] == 503
        assert [type(each) for each in records[-2:]] == [TurnedAway, TurnedAway]
        small.request({"number": 1, "image": bytes(1500)})
        large.request({"number": 2, "image": bytes(3500)})
        closed = await large.sent()
        assert closed["code"] == 1008
        assert closed["reason"].endswith("bytes waiting, more than there is room for")
        for _ in range(2):
            gate.opened.release()
        assert (await small.reply())["number"] == 1
        for app in apps:
            await app.drain()

    asyncio.run(whole())


def test_an_application_that_ends_leaves_the_others_theirs(scripted: Any) -> None:
    """Its own clients get a goodbye, those that came through another stay."""

    async def whole() -> None:
        shared: OpenConnections[Any] = OpenConnections()
        ending, staying = (app_of(scripted, connections=shared) for _ in range(2))
        goes, stays = AsgiClient(ending), AsgiClient(staying)
        await goes.opened()
        await stays.opened()
        await ending.drain(1012, "moving")
        assert (await goes.sent())["code"] == 1012
        stays.request(OBSERVATION)
        await stays.reply()
        await staying.drain()

    asyncio.run(whole())


def test_settings_change_while_clients_are_there(scripted: Any, tmp_path: Path) -> None:
    """Bounds for who comes from now on; keys for everybody; a file that is none changes nothing."""
    file = tmp_path / "keys.json"
    secret = add_key(file, "arm", NOW)
    key = [(b"authorization", f"Bearer {secret}".encode())]
    app = app_of(scripted)

    async def script() -> None:
        first = AsgiClient(app)
        await first.opened()
        app.change(ServerConfig(max_connections=1))
        assert (await AsgiClient(app).sent())["status"] == 503
        with pytest.raises(ConfigError, match="cannot be read"):
            app.change(ServerConfig(keys=str(tmp_path / "none.json")))
        first.request(OBSERVATION)
        await first.reply()
        app.change(ServerConfig(keys=str(file)))
        assert (await first.sent())["code"] == 1008
        await first.ended()
        assert (await AsgiClient(app).sent())["status"] == 401
        await AsgiClient(app, headers=key).opened()
        app.change(ServerConfig())
        await AsgiClient(app).opened()

    drive(app, script)
