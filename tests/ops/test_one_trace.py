# SPDX-License-Identifier: Apache-2.0
"""One trace from a robot's cameras to its motors, with the server's part in the middle."""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import pytest
from told import opened, refused

from pi05_websocket.client import RemotePolicy
from pi05_websocket.errors import ConfigError, PolicyError
from pi05_websocket.robot.player import ActionPlayer, PlayerConfig
from pi05_websocket.robot.spans import RobotSpans
from pi05_websocket.robot.trace import Trace
from pi05_websocket.server import WebsocketPolicyServer
from pi05_websocket.server.spans import ServerSpans
from pi05_websocket.telemetry import context_of, make_provider, otel, traceparent_of
from pi05_websocket.testing import FakeClock, ScriptedPolicy

pytest.importorskip("opentelemetry.sdk", reason="needs the extra otel")

POSE = np.zeros(2, np.float32)
SLACK_NS = 20_000_000
"""By so much may a reply's arrival seem earlier than its departure: each side has its own clock."""


class Ramp:
    """Answers with ten rows."""

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Refuse to work without a state."""
        observation["state"]
        return {"actions": np.zeros((10, 2), np.float32)}


class Recorder:
    """A provider whose spans stay here."""

    def __init__(self, *, sampled: bool = True) -> None:
        sdk, export = otel("opentelemetry.sdk.trace"), otel("opentelemetry.sdk.trace.export")
        memory = otel("opentelemetry.sdk.trace.export.in_memory_span_exporter")
        sampling = otel("opentelemetry.sdk.trace.sampling")
        self._exporter = memory.InMemorySpanExporter()
        root = sampling.ALWAYS_ON if sampled else sampling.ALWAYS_OFF
        self.provider = sdk.TracerProvider(sampler=sampling.ParentBased(root))
        self.provider.add_span_processor(export.SimpleSpanProcessor(self._exporter))

    @property
    def spans(self) -> dict[str, Any]:
        """What has ended, by name."""
        return {span.name: span for span in self._exporter.get_finished_spans()}


def test_one_trace_across_both_sides() -> None:
    """One trace id, the right parents, and every part within its parent and after the one before it."""
    recorder = Recorder()
    with contextlib.ExitStack() as stack:
        server_spans = ServerSpans(recorder.provider)
        stack.callback(server_spans.close)
        server = stack.enter_context(
            WebsocketPolicyServer(Ramp(), port=0, listeners=[server_spans])
        )
        policy = stack.enter_context(RemotePolicy("127.0.0.1", server.port))
        trace = Trace(None, spans=RobotSpans(recorder.provider))
        player = ActionPlayer(policy, PlayerConfig(use_rtc=True), trace=trace)
        player.start_episode()
        player.ask(0, lambda: {"state": POSE}, POSE)
        player.wait(10)
        for tick in (1, 2):
            player.collect(tick)
            player.act(tick, POSE)
    spans = recorder.spans
    parents = {
        "observe": "cycle",
        "exchange": "cycle",
        "encode": "exchange",
        "request": "exchange",
        "queue": "request",
        "infer": "request",
        "reply": "request",
        "merge": "cycle",
        "command": "cycle",
    }
    assert set(spans) == {"cycle", *parents}
    assert spans["cycle"].parent is None
    for name, parent in parents.items():
        assert spans[name].context.trace_id == spans["cycle"].context.trace_id
        assert spans[name].parent.span_id == spans[parent].context.span_id
        assert spans[parent].start_time <= spans[name].start_time <= spans[name].end_time
        assert spans[name].end_time <= spans[parent].end_time + SLACK_NS
    order = ["observe", "encode", "queue", "infer", "reply", "merge", "command"]
    starts = [spans[name].start_time for name in order]
    assert all(earlier <= later + SLACK_NS for earlier, later in itertools.pairwise(starts))
    assert spans["cycle"].attributes["outcome"] == "ACCEPTED"
    assert spans["cycle"].attributes["tick"] == 1
    assert spans["request"].attributes["outcome"] == "answered"
    assert spans["request"].attributes["bytes_in"] == spans["exchange"].attributes["bytes_out"]


# ------------------------------------------------------------------------------------------ the robot's side


class Robot:
    """A player with a scripted policy on a clock of its own."""

    def __init__(self, recorder: Recorder) -> None:
        self.clock = FakeClock()
        self.policy = ScriptedPolicy(self.clock)
        self.spans = RobotSpans(recorder.provider, self.clock)
        trace = Trace(None, spans=self.spans)
        self.player = ActionPlayer(self.policy, PlayerConfig(), trace=trace, clock=self.clock)
        self.player.start_episode()

    def tick(self, tick: int, answer: Any = None) -> None:
        """Go through one tick; the policy answers in it, if it does."""
        self.player.collect(tick)
        self.player.ask(tick, dict, seen_s=self.clock.now() - 0.01)
        self.player.act(tick, POSE)
        self.clock.sleep(1 / 30)
        if answer is not None:
            self.policy.exchanges[-1].answer(answer)


def test_a_stock_server_is_told_nothing() -> None:
    """The robot's own part is traced; what is sent is stock."""
    recorder = Recorder()
    robot = Robot(recorder)
    robot.tick(0, answer=np.zeros((3, 2), np.float32))
    robot.tick(1)
    assert "traceparent" not in str(robot.policy.exchanges[0].observation)
    cycle, observe = recorder.spans["cycle"], recorder.spans["observe"]
    assert observe.end_time - observe.start_time == pytest.approx(10e6, abs=1000)
    assert cycle.end_time - cycle.start_time == pytest.approx(10e6 + 1e9 / 30, abs=1000)
    assert cycle.status.is_ok is not False


def test_an_answer_that_is_none_ends_its_trace() -> None:
    """At the next request, with the reason: nothing in the trace's lines says that it will not come."""
    recorder = Recorder()
    robot = Robot(recorder)
    robot.tick(0, answer=np.full((3, 2), np.nan, np.float32))
    robot.tick(1)
    assert repr(robot.spans) == "<RobotSpans open=1>"
    for tick in range(2, 40):
        robot.tick(tick)
        if "cycle" in recorder.spans:
            break
    assert recorder.spans["cycle"].status.description == "no valid answer"
    assert recorder.spans["exchange"].status.description == "no valid answer"


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([("dropped", {"seq": 1, "cause": "observed before zeros"})], "observed before zeros"),
        ([("exchange", {"outcome": "TOO_LATE"})], "TOO_LATE"),
        ([("exchange", {"outcome": "ACCEPTED"})], "no row of it was commanded"),
        ([], "no valid answer"),
    ],
)
def test_how_else_a_trace_ends(lines: list[tuple[str, dict[str, Any]]], why: str) -> None:
    """Every one ends, with the reason where nothing was commanded."""
    recorder, clock = Recorder(), FakeClock()
    spans = RobotSpans(recorder.provider, clock)
    assert spans.begin(1, seen_s=clock.now(), observed_s=clock.now()) is not None
    spans("tick", {"seq": -1, "source": "hold", "tick": 0, "row": -1})
    for kind, facts in lines:
        said = {"seq": 1, "sent_s": clock.now(), "received_s": clock.now(), "episode": 1}
        said |= {"bytes_in": 1, "bytes_out": 1, "encoding": "raw"}
        spans(kind, said | facts)
    spans.close()
    assert recorder.spans["cycle"].status.description == why


def test_what_is_not_sampled_costs_nobody_anything() -> None:
    """The server is not told, and nothing is kept."""
    recorder, clock = Recorder(sampled=False), FakeClock()
    spans = RobotSpans(recorder.provider, clock)
    assert spans.begin(1, seen_s=0.0, observed_s=0.0) is None
    assert repr(spans) == "<RobotSpans open=0>"


# ------------------------------------------------------------------------------------------ the server's side

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_refused_request_has_no_inference() -> None:
    """Its span says why; records without a trace, and other records, make none."""
    recorder = Recorder()
    spans = ServerSpans(recorder.provider)
    for record in (opened(), refused("busy"), refused("busy", traceparent=TRACEPARENT)):
        spans(record)
    spans.close()
    assert set(recorder.spans) == {"request", "queue"}
    request = recorder.spans["request"]
    assert request.status.description == "busy"
    assert f"{request.parent.span_id:016x}" == "b7ad6b7169203331"
    assert repr(spans) == "<ServerSpans waiting=0>"


def test_a_trace_that_is_not_recorded_there_is_not_recorded_here() -> None:
    """The flag in the robot's word decides."""
    recorder = Recorder()
    spans = ServerSpans(recorder.provider)
    spans(refused("busy", traceparent=TRACEPARENT[:-1] + "0"))
    spans.close()
    assert recorder.spans == {}


# ------------------------------------------------------------------------------------------------- setting up


@pytest.fixture
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A collector that keeps what it is sent: its address, and path and body of each request."""
    got: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    "endpoint", [lambda url: url, lambda url: f"{url}/v1/traces/", lambda url: "env"]
)
def test_spans_reach_a_collector(
    collector: Any, endpoint: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over OTLP/HTTP, by an address, or by the standard variables."""
    url, got = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    spans = ServerSpans(make_provider("pi05-server", endpoint(url)))
    spans(refused("busy", traceparent=TRACEPARENT))
    spans.close()
    ((path, body),) = got
    assert path == "/v1/traces"
    assert b"pi05-server" in body
    assert bytes.fromhex("0af7651916cd43dd8448eb211c80319c") in body


def test_contexts_survive_the_way() -> None:
    """What one side says of a span is what the other understands."""
    tracer = Recorder().provider.get_tracer("x")
    span = tracer.start_span("x", context_of(TRACEPARENT))
    said = traceparent_of(span)
    assert said is not None
    assert said[:36] == TRACEPARENT[:36]
    assert traceparent_of(tracer.start_span("y", context_of(said))) != said


@pytest.mark.parametrize(
    ("endpoint", "sampling", "message"),
    [
        ("localhost:4318", 1.0, "expected http://HOST:4318, or env"),
        ("http://x", 1.5, "expected a share from 0 to 1"),
    ],
)
def test_settings_that_are_none(endpoint: str, sampling: float, message: str) -> None:
    """Told before anything is opened."""
    with pytest.raises(ConfigError, match=message):
        make_provider("x", endpoint, sampling=sampling)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"pip install .*\[otel\]'"):
        make_provider("x", "http://127.0.0.1:1")


def test_a_server_that_fails_a_request_says_so_in_the_trace() -> None:
    """The exception's line is the status of the server's span."""
    recorder = Recorder()
    with contextlib.ExitStack() as stack:
        spans = ServerSpans(recorder.provider)
        stack.callback(spans.close)
        server = stack.enter_context(WebsocketPolicyServer(Ramp(), port=0, listeners=[spans]))
        policy = stack.enter_context(RemotePolicy("127.0.0.1", server.port))
        player = ActionPlayer(
            policy,
            PlayerConfig(use_rtc=True),
            trace=Trace(None, spans=RobotSpans(Recorder().provider)),
        )
        player.start_episode()
        player.ask(0, dict, POSE)
        player.wait(10)
        with contextlib.suppress(PolicyError):
            player.collect(1)
    assert recorder.spans["request"].status.description == "KeyError: 'state'"
