# SPDX-License-Identifier: Apache-2.0
"""The cable between two TUN devices: a process that hands packets on through a delay line each way.

In: the file descriptors of both devices and the link, on the command line. Out: packets; when standard input
ends it does too, and says on standard output what it has carried. SIGUSR1 cuts it, or mends it. One thread that
waits in `select`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from typing import Any

from pi05_websocket.bench.delay_line import DelayLine
from pi05_websocket.bench.links import Link

__all__ = ["Scissors", "forward"]

_AT_A_TIME = 32
"""Packets read from one device before the other's turn: 370 us at 1 Gbit/s."""
_PACKET_BYTES = 2048
_LONGEST_SLEEP_S = 1.0


class Scissors:
    """Whether the cable is cut."""

    closed = False

    def turn(self, *_: object) -> None:
        """Cut it, or mend it."""
        self.closed = not self.closed


def forward(
    near: int, far: int, link: Link, seed: int, stop: int, scissors: Scissors | None = None
) -> dict[str, Any]:
    """Hand on packets until `stop` can be read; return what was carried.

    Args:
        near: Device of the robot, a non-blocking file descriptor.
        far: Device of the server.
        link: The network between them.
        seed: Of its randomness.
        stop: File descriptor of which the end is waited for.
        scissors: What cuts it; None: nothing does.
    """
    up, down = DelayLine(link, 2 * seed), DelayLine(link, 2 * seed + 1)

    ways = ((near, up, far), (far, down, near))
    latest, refused = 0.0, 0
    while True:
        now = time.monotonic()
        for _, line, sink in ways:
            if line.next_at <= now:
                latest = max(latest, now - line.next_at)
                for packet in line.take(now):
                    try:
                        os.write(sink, packet)
                    except (
                        BlockingIOError
                    ):  # the kernel's own queue is full: lost, and not by the link
                        refused += 1
                    except OSError:  # its end is gone
                        pass
        left = min(up.next_at, down.next_at) - time.monotonic()
        readable, _, _ = select.select(
            [near, far, stop], [], [], min(max(0.0, left), _LONGEST_SLEEP_S)
        )
        if stop in readable:
            break
        for source, line, _ in ways:
            if source in readable:
                line.cut = scissors is not None and scissors.closed
                _read(source, line)
    return {
        "up": _counts(up),
        "down": _counts(down),
        "refused": refused,
        "latest_ms": round(1000 * latest, 3),
    }


def _counts(line: DelayLine) -> dict[str, int]:
    names = ("carried", "lost", "dropped", "overtaken", "doubled")
    return {name: getattr(line, name) for name in names}


def _read(source: int, line: DelayLine) -> None:
    with contextlib.suppress(BlockingIOError):
        for _ in range(_AT_A_TIME):
            packet = os.read(source, _PACKET_BYTES)
            line.put(time.monotonic(), packet)


if __name__ == "__main__":
    near, far, seed = map(int, sys.argv[1:4])
    scissors = Scissors()
    signal.signal(signal.SIGUSR1, scissors.turn)
    link = Link(**json.loads(sys.argv[4]))
    print(json.dumps(forward(near, far, link, seed, sys.stdin.fileno(), scissors)))
