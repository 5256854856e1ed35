# SPDX-License-Identifier: Apache-2.0
"""What a person wants reaches the loop, and nobody else's wishes do."""

from __future__ import annotations

import http.client
import json
import threading
from typing import Any

import pytest

from pi05_websocket.cli import main
from pi05_websocket.errors import ConfigError
from pi05_websocket.robot.control_page import CONTROL_HEADER, ControlPage
from pi05_websocket.robot.controls import Controls
from pi05_websocket.robot.trace import Trace
from pi05_websocket.robot.wishes import Wish


def ask(
    page: ControlPage, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, Any]:
    """Return status and answer of a request."""
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=5)
    connection.request(method, path, body, headers)
    reply = connection.getresponse()
    text = reply.read()
    connection.close()
    is_json = reply.getheader("Content-Type") == "application/json"
    return reply.status, json.loads(text) if is_json else text.decode()


OURS = {CONTROL_HEADER: "1"}


@pytest.mark.parametrize(
    ("keys", "wishes"),
    [
        ("r", [Wish("resume")]),
        ("P nq", [Wish("pause"), Wish("pause"), Wish("episode"), Wish("quit")]),
        ("RQN", []),  # moving and ending take the small letter
        ("xyz", []),
        ("tgo left\nr", [Wish("task", "go left"), Wish("resume")]),
        ("tgoo\x7f\r", [Wish("task", "go")]),
        ("tquit\x1bq", [Wish("quit")]),  # thought better of it
        ("t  \n", []),
        ("ta\x00b\n", [Wish("task", "ab")]),
    ],
)
def test_keys(keys: str, wishes: list[Wish], controls: Controls):
    """While a task is typed, its letters are no commands."""
    for key in keys:  # as they come, one by one
        controls.press(key)

    assert controls.take() == wishes
    assert controls.take() == []
    assert controls.typed is None


def test_a_stop_is_never_crowded_out(controls: Controls):
    """While the loop does not look, other wishes may be dropped."""
    controls.pause()
    for _ in range(2000):
        controls.change_task("more")
    controls.quit()
    taken = controls.take()

    assert taken[0] == Wish("pause")
    assert taken[-1] == Wish("quit")
    assert len(taken) < 1100


def test_what_is_typed_can_be_shown(controls: Controls):
    """So that a person sees it."""
    controls.press("tab")

    assert controls.typed == "ab"
    assert repr(controls) == "<Controls 0 wishes>"


def test_methods(controls: Controls):
    """For programs."""
    controls.pause()
    controls.resume()
    controls.new_episode()
    controls.change_task(" pick ")
    controls.change_task("")
    controls.quit()

    assert [wish.name for wish in controls.take()] == [
        *("pause", "resume", "episode", "task", "quit")
    ]


@pytest.mark.parametrize("wish", ["resume", "pause", "episode", "quit"])
def test_the_page_passes_wishes_on(wish: str, page: ControlPage, controls: Controls):
    """Each has a path."""
    assert ask(page, "POST", f"/{wish}", **OURS) == (202, {"wanted": wish})
    assert [taken.name for taken in controls.take()] == [wish]


def test_a_new_task_over_the_page(page: ControlPage, controls: Controls):
    """As JSON."""
    body = json.dumps({"task": "pick up the blüe cube"}).encode()

    assert ask(page, "POST", "/task", body, **OURS)[0] == 202
    assert controls.take() == [Wish("task", "pick up the blüe cube")]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"task": 3}', b'{"task": " "}', b"[" * 4000, b"x" * 5000]
)
def test_no_task_is_refused(body: bytes, page: ControlPage, controls: Controls):
    """With a sentence, whatever the bytes."""
    status, answer = ask(page, "POST", "/task", body, **OURS)

    assert status == 400
    assert "expected" in answer["error"]
    assert controls.take() == []


def test_other_sites_cannot_command(page: ControlPage, controls: Controls):
    """A web page somewhere can neither send our header nor pretend to be this machine."""
    plain = ask(page, "POST", "/resume")
    rebound = ask(page, "POST", "/resume", Host="evil.example:80", **OURS)
    looked = ask(page, "GET", "/status", Host="evil.example")

    assert (plain[0], rebound[0], looked[0]) == (403, 403, 403)
    assert "pi05-websocket control" in plain[1]["error"]
    assert controls.take() == []


def test_unknown_paths_are_told_what_there_is(page: ControlPage):
    """For whoever writes a client."""
    assert ask(page, "GET", "/nothing")[1]["error"] == "there are / and /status"
    assert ask(page, "POST", "/nothing", **OURS)[1]["error"].startswith("there are resume, pause")


def test_the_status_follows_the_trace(page: ControlPage):
    """State, causes, round trip: what the trace says."""
    trace = Trace(None, listeners=[page])
    trace.write("task", task="pick")
    trace.write("episode", episode=2)
    trace.write("tick", source="hold", cause="first_chunk")
    trace.write("exchange", round_trip_ms=41.5, server_ms=30.0, delay_ticks=2, outcome="ACCEPTED")
    trace.write("tick", source="chunk")
    running = ask(page, "GET", "/status")[1]
    trace.write("state", state="stop", latched=True, cause="link_down")
    trace.write("tick", source="hold", cause="stopped")
    stopped = ask(page, "GET", "/status")[1]
    trace.write("resumed")
    resumed = ask(page, "GET", "/status")[1]
    trace.write("plan", far=[])
    trace.write("episode", episode=3)
    anew = page.status()

    assert (running["state"], running["task"], running["ticks"]) == ("run", "pick", 2)
    assert (running["round_trip_ms"], running["held"]) == (41.5, {"first_chunk": 1})
    assert (stopped["state"], stopped["latched"], stopped["cause"]) == ("stop", True, "stopped")
    assert (resumed["state"], resumed["latched"]) == ("wait", False)
    assert 0 <= resumed["age_s"] < 60
    assert (anew["state"], anew["held"], anew["plan"]) == ("wait", {}, {"far": []})


def test_the_page_is_one_file(page: ControlPage):
    """Nothing is fetched from elsewhere: it works without internet."""
    status, text = ask(page, "GET", "/")

    assert status == 200
    assert "http://" not in text
    assert "https://" not in text
    assert repr(page) == f"<ControlPage port={page.port}>"


def test_a_port_that_is_taken_says_so(page: ControlPage, controls: Controls):
    """By the setting's name."""
    with pytest.raises(ConfigError, match=f"control_port={page.port}"):
        ControlPage(page.port, controls)


def test_the_command_is_the_same_from_a_terminal(page: ControlPage, controls: Controls, capsys):
    """Status, wishes, a task."""
    port = ["--port", str(page.port)]

    at_once = ["--patience", "0"]

    assert main(["control", "status", *port]) == 0
    assert main(["control", "pause", *port, *at_once]) == 1
    assert main(["control", "task", "pick", *port, *at_once]) == 1

    printed = capsys.readouterr().out
    assert "state: wait" in printed
    assert printed.count("Asked for. The control loop has not begun yet") == 2
    assert controls.take() == [Wish("pause"), Wish("task", "pick")]


def test_the_command_waits_for_what_comes_of_it(page: ControlPage, controls: Controls, capsys):
    """A sentence, and an exit code: a loop that stops the arm, refuses to let it go, lets it go."""
    trace = Trace(None, listeners=[page])
    port, stop = ["--port", str(page.port)], threading.Event()
    answers: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "pause": [("state", {"state": "stop", "latched": True, "cause": "stopped"})],
        "resume": [("held", {"cause": "policy_changed", "text": "another policy answers now"})],
        "again": [("tick", {"source": "chunk"})],
        "episode": [("episode", {"episode": 7})],
        "quit": [],
    }
    source: dict[str, Any] = {"source": "chunk"}

    def loop() -> None:
        asked = 0
        while not stop.wait(0.01):
            for wish in controls.take():
                asked += wish.name == "resume"
                name = "again" if asked == 2 and wish.name == "resume" else wish.name
                for kind, facts in answers[name]:
                    trace.write(kind, **facts)
                if name == "pause":
                    source.update(source="hold", cause="stopped")
                elif name == "again":
                    source.update(source="chunk", cause=None)
            trace.write("tick", **source)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        assert main(["control", "pause", *port]) == 0
        assert main(["control", "resume", *port, "--patience", "0.3"]) == 1
        assert main(["control", "resume", *port]) == 0
        assert main(["control", "episode", *port]) == 0
        assert main(["control", "quit", *port, "--patience", "0.1"]) == 0
    finally:
        stop.set()
        thread.join()

    assert capsys.readouterr().out.splitlines() == [
        "The arm holds, whatever comes, until `resume`.",
        "It still holds: another policy answers now. Where that names another policy, `resume` once more.",
        "The arm moves.",
        "Episode 7 has begun.",
        "Asked for. Under lerobot-rollout the arm only holds: end it with Ctrl-C there.",
    ]


def test_the_command_tells_what_is_wrong(page: ControlPage, capsys):
    """No robot there, a task without words, words that are no task."""
    port = page.port
    assert main(["control", "task", "--port", str(port)]) == 2
    assert main(["control", "pause", "now", "--port", str(port)]) == 2
    page.close()
    assert main(["control", "status", "--port", str(port)]) == 1

    told = capsys.readouterr().err
    assert told.count("a text belongs to `task`") == 2
    assert "--policy.control_port=9091" in told
