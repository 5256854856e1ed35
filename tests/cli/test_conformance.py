# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket conformance`, in process: servers and clients, output for people and programs, exit codes."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from documents import ROOT, named_block
from mutant_servers import GoodServer, changed

from pi05_websocket.cli import main
from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.conformance.observing import read_observation
from pi05_websocket.errors import Pi05WebsocketError
from pi05_websocket.presets import PRESETS


@pytest.fixture
def good_server():
    """A server that keeps every clause."""
    server = GoodServer()
    yield server
    server.close()


def test_a_good_server_is_exit_code_0(
    good_server: GoodServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table, and JSON beside it."""
    file = tmp_path / "verdicts.json"
    assert main(["conformance", good_server.url, "--json", str(file)]) == 0
    assert capsys.readouterr().out.rstrip().endswith("It conforms.")
    told = json.loads(file.read_text())
    assert told["conforms"] is True
    assert told["protocol"] == "1.0"
    facts = {"check", "clauses", "level", "outcome", "expected", "got", "lacks"}
    assert set(told["verdicts"][0]) == facts


def test_nobody_at_the_address_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """And the exit code of what could not be judged; programs are told of each check."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert main(["conformance", f"ws://127.0.0.1:{port}"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert "Connection refused. Is the server running" in line
    assert main(["conformance", f"ws://127.0.0.1:{port}", "--json", "-"]) == 1
    assert {each["lacks"] for each in json.loads(capsys.readouterr().out)["verdicts"]} == {"server"}


def test_a_broken_must_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    """The verdicts as JSON alone."""
    server = changed("result", lambda self: {"actions": np.zeros(6)})()
    try:
        code = main(["conformance", server.url, "--only", "S-7", "S-8", "--json", "-"])
    finally:
        server.close()
    told = json.loads(capsys.readouterr().out)
    assert code == 1
    assert [each["outcome"] for each in told["verdicts"]] == ["failed", "passed"]


def test_read_only_sends_no_request(capsys: pytest.CaptureFixture[str]) -> None:
    """A server whose policy must not run."""
    asked: list[bytes] = []

    def answers(self, protocol, heard):
        asked.append(heard.payload)
        yield b""

    server = changed("answers", answers)()
    try:
        assert main(["conformance", server.url, "--read-only"]) == 0
    finally:
        server.close()
    assert asked == []
    assert "S-4 " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give a server's URL, or --listen PORT"),
        (["ws://x", "--listen", "1"], "give a server's URL, or --listen PORT"),
        (["http://x"], "expected ws:// or wss://"),
        (["ws://x", "--read-only", "--rough"], "contradict each other"),
        (["ws://x", "--only", "S-99"], "S-99: no check"),
        (["ws://x", "--only", "S-31"], "does not stop other people's servers"),
        (["ws://x", "--only", "S-7", "--read-only"], "no check is left"),
        (["ws://x", "--observation", "none"], "No such file"),
        (["wss://x", "--ca-file", "none"], "ca_file='none'"),
    ],
)
def test_words_without_sense_are_exit_code_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says what is wrong."""
    assert main(["conformance", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_port_that_is_taken_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anybody waits."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["conformance", "--listen", str(port)]) == 2
    assert f"listen={port}" in capsys.readouterr().err


def test_a_client_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    """Ours, for the clauses named."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    over = threading.Event()

    def ask() -> None:
        config = ConnectionConfig(url=f"ws://127.0.0.1:{port}", backoff_first=0.02, backoff_max=0.1)
        with RemotePolicy(config=config, wait_for_server=10) as policy:
            while not over.is_set():
                try:
                    policy.infer({"observation/state": np.zeros(6, np.float32)})
                except Pi05WebsocketError:
                    continue

    robot = threading.Thread(target=ask)
    robot.start()
    code = main(["conformance", "--listen", str(port), "--only", "C-3", "C-7", "--patience", "5"])
    over.set()
    robot.join()
    shown = capsys.readouterr()
    assert code == 0
    assert f"waiting for a client on ws://127.0.0.1:{port}" in shown.err
    assert shown.out.rstrip().endswith("It conforms.")


def test_an_observation_of_ones_own(
    good_server: GoodServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the page writes it; a file with anything but a map is refused."""
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "howto" / "conformance.md"
    exec(compile(named_block(page, "write_observation.py"), "write_observation.py", "exec"), {})
    assert main(["conformance", good_server.url, "--observation", "observation.msgpack"]) == 0
    Path("list").write_bytes(b"\x90")
    assert main(["conformance", good_server.url, "--observation", "list"]) == 2
    assert read_observation(Path("observation.msgpack"))["prompt"] == "fold the towel"


@pytest.mark.parametrize("keymap", sorted(PRESETS))
def test_every_key_map_can_be_asked_with(good_server: GoodServer, keymap: str) -> None:
    """A made-up observation of each."""
    words = ["conformance", good_server.url, "--keymap", keymap, "--only", "S-7"]
    assert main(words) == 0
