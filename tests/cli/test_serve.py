# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket serve` as a process: what it says, how it ends; and its refusals."""

from __future__ import annotations

import errno
import importlib.util
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pi05_websocket import cli
from pi05_websocket.cli import serve
from pi05_websocket.cli.serve_policy import PolicyChoice, load_warm, warm_up_sizes
from pi05_websocket.client import RemotePolicy
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.server.app import why_not
from pi05_websocket.server.replay import ReplayPolicy

CHOICE = PolicyChoice(policy="x:y")


class Warm:
    """A policy that remembers how it was warmed up."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Answer."""
        return {"actions": np.zeros((1, 6), np.float32)}

    def warm_up(self, sizes: list[int]) -> None:
        """Remember."""
        self.sizes = sizes


@pytest.mark.parametrize(
    ("choice", "spec"),
    [
        (PolicyChoice(policy="expert"), "expert"),
        (PolicyChoice(path="me/pi05"), "lerobot:me/pi05"),
        (PolicyChoice(path="p", device="cuda:1"), "lerobot:p?device=cuda%3A1"),
        (PolicyChoice(path="p", device="cpu", dtype="bfloat16"), "lerobot:p?device=cpu&dtype=bfloat16"),
    ],
)  # fmt: skip
def test_lerobots_words_and_ours_name_the_same(choice: PolicyChoice, spec: str) -> None:
    """One word for every policy, which other processes can be told."""
    assert choice.spec == spec


@pytest.mark.parametrize(
    ("max_batch", "sizes"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])]
)
def test_sizes_to_warm_up(max_batch: int, sizes: list[int]) -> None:
    """The powers of two and the largest."""
    assert warm_up_sizes(max_batch) == sizes


def test_a_policy_is_warm_before_robots_can_connect(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Loading and warming up are told; `--no-warm-up` leaves it out."""
    monkeypatch.setitem(sys.modules, "warm_policy", sys.modules[__name__])
    warm = load_warm(PolicyChoice(policy="warm_policy:Warm"), 4)
    assert isinstance(warm, Warm)
    assert warm.sizes == [1, 2, 4]
    said = capsys.readouterr().err
    assert "loading warm_policy:Warm" in said
    assert "warm after" in said
    cold = load_warm(PolicyChoice(policy="warm_policy:Warm", warm_up=False), 4)
    assert isinstance(cold, Warm)
    assert cold.sizes == []


@pytest.fixture
def recording(tmp_path: Path) -> str:
    """Name a policy that needs nothing."""
    np.save(tmp_path / "wave.npy", np.zeros((3, 6)))
    return f"replay:{tmp_path / 'wave.npy'}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_it_is_told_to_stop(recording: str, number: signal.Signals) -> None:
    """One line with the URL and what to type on the robot, the health check, and exit code 0."""
    command = [
        sys.executable,
        "-c",
        "import sys; from pi05_websocket.cli import main; sys.exit(main())",
    ]
    with subprocess.Popen(
        [*command, "serve", "--policy", recording, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        found = re.search(r"at (ws://127\.0\.0\.1:\d+) \(only this machine", lines[0])
        assert found, lines
        assert f"--policy.websocket_url={found[1]}" in lines[1]
        health = found[1].replace("ws://", "http://") + "/healthz"
        assert urllib.request.urlopen(health, timeout=10).read() == b"OK\n"
        process.send_signal(number)
        _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in log
    assert "stopped" in log


@pytest.mark.skipif(importlib.util.find_spec("uvicorn") is None, reason="needs the extra ops")
def test_operations_are_open_before_the_policy_is_loaded(
    tmp_path: Path, recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A probe hears that it is being loaded; a port that is taken, or strangers, end it before."""
    (tmp_path / "looks.py").write_text(
        "import sys, urllib.error, urllib.request\n"
        "def make():\n"
        "    try:\n"
        "        urllib.request.urlopen(f'http://127.0.0.1:{sys.ops_port}/readyz', timeout=10)\n"
        "    except urllib.error.HTTPError as exc:\n"
        "        raise SystemExit(exc.read().decode()) from None\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", "--policy", recording, "--ops-port", str(port)]) == 1
    assert f"127.0.0.1:{port} is in use" in capsys.readouterr().err
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.ops_port = {port}; "
        "from pi05_websocket.cli import main; "
        f"sys.exit(main(['serve', '--policy', 'looks:make', '--ops-port', '{port}']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert "not ready: the policy is being loaded" in done.stderr
    beyond = ["serve", "--policy", "x:y", "--ops-port", "0", "--ops-host", "0.0.0.0"]
    assert cli.main(beyond) == 2
    assert "other computers can reach the operations port" in capsys.readouterr().err


def test_port_in_use(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The commonest failure says what to do instead."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", "--policy", recording, "--port", str(port)]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message == (
        f"error: 127.0.0.1:{port} is in use. Is another server running? "
        f"Stop it, or take another port, say {port + 1}."
    )


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--policy", "nowhere:make"], 2, "there is no module 'nowhere'"),
        (["--policy", "RECORDING", "--insecure", "--host", "192.0.2.1"], 1, "192.0.2.1 is no address of this"),
        (["--policy", "RECORDING", "--stop-timeout-s", "-1"], 2, "stop_timeout_s must be at least 0"),
        (["--policy", "RECORDING", "--host", "0.0.0.0"], 2, "no keys (--keys FILE"),
        (["--policy", "RECORDING", "--host", "", "--keys", "x"], 2, "has no TLS (--tls auto, --tls-cert FILE"),
        (["--policy", "x:y", "--host", "0.0.0.0", "--behind-proxy", "--keys", "x"], 2, "around the proxy"),
        (["--policy", "RECORDING", "--tls-cert", "x"], 2, "tls_cert and tls_key"),
        (["--policy", "RECORDING", "--keys", "nowhere.json"], 2, "the keys file cannot be read"),
        (["--policy", "RECORDING", "--ops-port", "70000"], 2, "ops_port must be from 0 to 65535"),
        ([], 2, "give --policy (module:factory, lerobot:PATH, replay:FILE, expert), --policy.path"),
        (["--policy", "expert", "--policy.path", "x"], 2, "one of them"),
        (["--policy", "lerobot:x", "--policy.device", "cuda"], 2, "write ?device=cuda"),
        (["--policy.path", "./nowhere"], 2, "lerobot:"),
        (["--policy", "RECORDING", "--upstream", "ws://a:1"], 2, "there is no policy to name"),
        (["--upstream", "ws://a:1", "--upstream", "ws://a:1"], 2, "given twice"),
        (["--upstream", "http://a:1"], 2, "Did you mean ws://a:1"),
        (["--upstream", "ws://a:1", "--upstream-timeout-s", "0"], 2, "upstream_timeout_s must be more"),
        (["--upstream", "ws://a:1", "--host", "0.0.0.0"], 2, "no keys (--keys FILE"),
    ],
)  # fmt: skip
def test_refusals(
    recording: str, words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong words are told in words, with an exit code that says whose fault it is."""
    words = [recording if word == "RECORDING" else word for word in words]
    assert cli.main(["serve", *words]) == code
    assert message in capsys.readouterr().err


def test_a_server_with_its_own_certificate_tells_how_to_know_it(tmp_path: Path) -> None:
    """The line for the robot holds the fingerprint, and `wss://`."""
    config = ServerConfig(tls="auto", tls_folder=str(tmp_path))
    command = serve.ServeCommand(choice=CHOICE, host="127.0.0.1", port=8000, config=config)
    server = WebsocketPolicyServer(
        ReplayPolicy(np.zeros((1, 6))), command.host, command.port, config=config
    )
    assert serve.welcome(command, server).endswith(
        f"--policy.websocket_url=wss://127.0.0.1:8000 --policy.tls_fingerprint={server.tls_fingerprint}"
    )


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Every setting is explained, with examples."""
    assert cli.main(["serve", "--help"]) == 0
    shown = capsys.readouterr().out
    for word in (
        "--policy",
        "--host",
        "--debug",
        "--no-encoded-images",
        "--ops-port",
        "--upstream",
        "examples:",
    ):
        assert word in shown


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EACCES, "Permission denied"), "127.0.0.1:80 needs more rights"),
        (OSError(errno.EIO, "Input/output error"), "cannot be listened on: Input/output error"),
        (socket.gaierror(-2, "Name or service not known"), "is no address of this machine"),
    ],
)
def test_why_an_address_cannot_be_used(error: OSError, message: str) -> None:
    """What the system says, in words that help."""
    assert message in why_not(error, "127.0.0.1", 80)


def test_a_server_for_the_network_tells_its_address() -> None:
    """The line for the robot holds an address that works from there, not 0.0.0.0."""
    command = serve.ServeCommand(choice=CHOICE, host="0.0.0.0", port=8000)
    server = WebsocketPolicyServer(ReplayPolicy(np.zeros((1, 6))), command.host, command.port)
    shown = serve.welcome(command, server)
    assert "whoever reaches this machine can reach it" in shown
    keyed = serve.ServeCommand(choice=CHOICE, host="0.0.0.0", config=ServerConfig(keys="k"))
    assert "who has a key or certificate comes in" in serve.welcome(keyed, server)
    assert serve.welcome(keyed, server).endswith(" --policy.api_key_file=FILE")
    assert re.search(r"--policy\.websocket_url=ws://\d+\.\d+\.\d+\.\d+:8000$", shown)
    assert "0.0.0.0" not in shown


def test_serves_what_other_servers_serve() -> None:
    """The line names them; robots are answered by them."""
    hold = WebsocketPolicyServer(ReplayPolicy(np.ones((1, 6))), port=0)
    program = "import sys; from pi05_websocket.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", program, "serve", "--port", "0"]
    with hold:
        upstreams = ["--upstream", hold.url, "--upstream", "ws://127.0.0.1:9"]
        with subprocess.Popen(
            [*words, *upstreams, "--upstream-connections", "2"], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"serving (.*) at (ws://127\.0\.0\.1:\d+) ", line)
            assert found, line
            assert found[1] == f"{hold.url}, ws://127.0.0.1:9"
            with RemotePolicy(found[2], wait_for_server=20) as robot:
                assert robot.infer({"state": 1})["actions"][0, 0] == 1.0
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
        assert process.returncode == 0
