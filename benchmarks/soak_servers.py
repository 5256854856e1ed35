# SPDX-License-Identifier: Apache-2.0
"""Servers of the soak: a policy of 20 ms whose rows say whose they are, or a gateway before such servers.

In: `policy PORT` or `gateway PORT URL...` on the command line, `sample` lines on standard input. Out: the port
first, then a JSON line for each line read. A process of its own; it stops in good order when its input ends.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from pi05_websocket.gateway import PolicyGateway
from pi05_websocket.policy import PolicyRequest
from pi05_websocket.server import WebsocketPolicyServer
from pi05_websocket.server.app import PolicyServer

__all__ = ["METADATA", "SayingPolicy"]

METADATA = {"fingerprint": {"weights": "soak"}}
INFER_S = 0.020
ROWS, COLUMNS = 50, 6


class SayingPolicy:
    """Answers with robot, episode, number of the observation and row, in the first four columns."""

    def infer(self, obs: dict[str, Any], /) -> dict[str, Any]:
        """Return `{"actions": (50, 6) float32}` after 20 ms.

        Raises:
            ValueError: The observation asks for it.
        """
        time.sleep(INFER_S)
        return self._answer(obs)

    def infer_requests(self, requests: Sequence[PolicyRequest]) -> list[dict[str, Any] | Exception]:
        """Return one answer for each, after 20 ms for all of them."""
        time.sleep(INFER_S)
        answers: list[dict[str, Any] | Exception] = []
        for request in requests:
            try:
                answers.append(self._answer(request.observation))
            except ValueError as exc:
                answers.append(exc)
        return answers

    def _answer(self, obs: dict[str, Any]) -> dict[str, Any]:
        if obs["fail"]:
            raise ValueError("asked to fail")
        rows = np.zeros((ROWS, COLUMNS), np.float32)
        rows[:, 0], rows[:, 1], rows[:, 2] = obs["robot"], obs["episode"], obs["number"]
        rows[:, 3] = np.arange(ROWS)
        # As a policy reads its images: all of the pixels.
        rows[:, 4] = obs["observation/image"].mean() + obs["observation/wrist_image"].mean()
        return {"actions": rows}


def answer_lines(server: PolicyServer) -> None:
    """Answer each line of standard input; stop the server when there are no more."""
    for _ in sys.stdin:
        print(json.dumps({"blocks": sys.getallocatedblocks()}), flush=True)
    server.request_stop()


def main() -> None:
    """Serve until standard input ends."""
    kind, port, log, *upstreams = sys.argv[1:]
    logging.basicConfig(filename=log, level=logging.WARNING, format="%(asctime)s %(message)s")
    server: PolicyServer
    if kind == "gateway":
        server = PolicyGateway(upstreams, port=int(port))
    else:
        server = WebsocketPolicyServer(SayingPolicy(), port=int(port), metadata=METADATA)
    threading.Thread(target=answer_lines, args=(server,), daemon=True).start()
    server.serve_forever(listening=lambda: print(json.dumps({"port": server.port}), flush=True))


if __name__ == "__main__":
    main()
