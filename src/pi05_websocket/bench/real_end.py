# SPDX-License-Identifier: Apache-2.0
"""One end of a real link: a process with a network of its own, that serves the policy or is the robot.

In: what it is, on the command line; jobs, a JSON object a line, on standard input. Out: answers, likewise, on
standard output. It ends when standard input does. What starts threads is imported once the network is entered.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from pi05_websocket.bench import namespaces

__all__: list[str] = []

_HERE = "127.0.0.1"


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def _jobs() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def _join(facts: dict[str, Any]) -> None:
    """Enter a network of one's own and hand the TUN device's other side to who started this process."""
    namespaces.enter()
    device = namespaces.open_tun(facts["end"])
    if facts["congestion"]:
        namespaces.use_congestion_control(facts["end"], facts["congestion"])
    with socket.socket(fileno=facts["handover"]) as handover:
        socket.send_fds(handover, [b"tun"], [device])
    os.close(device)


def _serve(facts: dict[str, Any]) -> None:
    from pi05_websocket.bench.real import Charged, StillPolicy
    from pi05_websocket.server import ServerConfig, WebsocketPolicyServer

    if facts["policy"] == "expert":
        from pi05_websocket.sim.expert import ExpertPolicy

        policy: Any = ExpertPolicy()
    else:
        policy = StillPolicy()
    served = policy if facts["policy"] == "instant" else Charged(policy)
    host = f"{namespaces.PREFIX}{facts['end']}" if facts["handover"] is not None else _HERE
    # Nobody else is in the benchmark's own network.
    server = WebsocketPolicyServer(served, host, 0, config=ServerConfig(insecure=True))

    def wait_for_the_end() -> None:
        with contextlib.suppress(OSError):
            sys.stdin.read()
        server.request_stop()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    server.serve_forever(listening=lambda: _say({"url": server.url}))


def _be_robot(facts: dict[str, Any]) -> None:
    import numpy as np

    from pi05_websocket.bench.cells import Cell
    from pi05_websocket.bench.links import Link
    from pi05_websocket.bench.paced import WAYS, paced
    from pi05_websocket.bench.real import RealBench, connect, round_trips, until_answered
    from pi05_websocket.client.tcp import congestion_control

    before = namespaces.tcp_counters() if os.path.exists("/proc/self/net/snmp") else {}
    where = urlsplit(facts["url"])
    with socket.create_connection((where.hostname, where.port), timeout=60) as probe:
        congestion = congestion_control(probe)
    with connect(facts["url"]) as policy, RealBench(policy) as bench:
        _say({"congestion": congestion})
        for job in _jobs():
            if job["do"] == "episode":
                told = job["cell"]
                cell = Cell(**{**told, "link": Link(**told["link"])})
                _say(asdict(bench.run(cell, job["seed"])))
            elif job["do"] == "round trips":
                trips = round_trips(
                    policy, job["count"], pause_s=job["pause_s"], pixels=job["pixels"]
                )
                _say({"round_trips_ms": trips})
            elif job["do"] == "until answered":
                answered_s = until_answered(policy, pixels=job["pixels"])
                _say({"answered_s": answered_s, "reconnects": policy.connection.reconnects})
            elif job["do"] == "paced":
                with np.load(job["images"]) as images:
                    timed = paced(
                        facts["url"],
                        WAYS[job["way"]],
                        dict(images),
                        count=job["count"],
                        every_s=job["every_s"],
                    )
                _say({"exchanges": timed})
            else:
                now = namespaces.tcp_counters() if before else {}
                _say({name: now[name] - before[name] for name in now})


def _main() -> None:
    facts = json.loads(sys.argv[1])
    if facts["handover"] is not None:
        _join(facts)
    if facts["role"] == "server":
        _serve(facts)
    else:
        _be_robot(facts)


if __name__ == "__main__":
    _main()
