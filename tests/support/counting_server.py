# SPDX-License-Identifier: Apache-2.0
"""A policy server as a process, to be killed and frozen: it echoes each observation's number.

In: words of the command line. Out: its port on a line of standard output; it serves until it is killed.
"""

from __future__ import annotations

import argparse
import socket
import time
from typing import Any

import numpy as np


class Counting:
    """Answers with the observation's number, and with which version of the policy it is."""

    def __init__(self, version: str, seconds: float, each: float) -> None:
        self._version, self._seconds, self._each = version, seconds, each

    def infer(self, obs: dict[str, Any], /) -> dict[str, Any]:
        """Take as long as one does alone."""
        time.sleep(self._seconds + self._each)
        return self._answer(obs)

    def _answer(self, obs: dict[str, Any]) -> dict[str, Any]:
        number = int(obs["number"])
        actions = np.full((2, 6), number % 1000, np.float32)
        return {"actions": actions, "number": number, "version": self._version}


class Batching(Counting):
    """The same, and takes several at once."""

    def infer_batch(self, observations: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Take longer for more, but not as much longer."""
        time.sleep(self._seconds + self._each * len(observations))
        return [self._answer(obs) for obs in observations]


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("stock", "ours"))
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--version", default="v1")
    parser.add_argument("--seconds", type=float, default=0.02)
    parser.add_argument("--each", type=float, default=0.002)
    parser.add_argument("--metadata", default="")
    words = parser.parse_args()
    metadata = {"name": words.metadata} if words.metadata else {}
    if words.kind == "ours":
        from pi05_websocket.server import WebsocketPolicyServer

        policy = Batching(words.version, words.seconds, words.each)
        ours = WebsocketPolicyServer(policy, "127.0.0.1", words.port, metadata)
        ours.serve_forever(listening=lambda: print(ours.port, flush=True))
        return
    from openpi_server.websocket_policy_server import WebsocketPolicyServer as StockServer

    port = words.port or free_port()
    print(port, flush=True)
    policy = Counting(words.version, words.seconds, words.each)
    StockServer(policy, "127.0.0.1", port, metadata).serve_forever()


if __name__ == "__main__":
    main()
