# SPDX-License-Identifier: Apache-2.0
"""What a pause between two chunks costs: observations at an arm's pace over a link that is far.

In: nothing; the images are rendered by the simulator, or made up, with a sensor's noise added. Out: a table,
and a JSON file where asked for. Stock's client and ours take turns over the same link, in one run.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from image_transport import made_up, noisy, rendered

from pi05_websocket.bench.links import Link
from pi05_websocket.bench.paced import WAYS
from pi05_websocket.bench.real_link import RealLink, kind_here
from pi05_websocket.bench.report import measured_at

DESCRIPTION = """\
Send an observation every 0.8 s, as an arm does that executes a chunk in between, over kernel TCP with a link's
rate and delay, and say how long the answer takes beside what its bytes need: size / rate + round trip.

  stock    OpenPI's own client, unchanged
  ours     this project's; "cold" without the pongs that keep a resting connection quick
  raw      480x640 and 224x224 pixels as they are; resized: both 224x224, as OpenPI's examples do
  JPEG     quality 90 to 95, where the server reads it

Linux, with a kernel that offers TUN; both ends use CUBIC, as most systems do.

examples:
  python benchmarks/idle_link.py
  python benchmarks/idle_link.py --mbit 20 --rtt-ms 100 --json idle_link.json
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The link, and how much to measure."""

    mbit: float = 50.0
    """Rate from the robot to the server, megabits per second."""

    rtt_ms: float = 50.0
    """Round trip of the link."""

    every_s: float = 0.8
    """From one observation to the next."""

    count: int = 20
    """Observations of a turn, after three that do not count."""

    rounds: int = 3
    """Turns of each way."""

    congestion: str = "cubic"
    """Congestion control of both ends."""

    images: Literal["rendered", "made-up"] = "rendered"
    """rendered: by the simulator, which needs the extra `sim`; made-up: slopes and edges."""

    noise: float = 1.5
    """Standard deviation of the noise on each pixel."""

    json: Path | None = None
    """Where to write the figures."""


def cameras(settings: Settings) -> dict[str, Any]:
    """Return both cameras' images."""
    if settings.images == "rendered":
        clean = rendered()
    else:
        clean = {"wrist2": made_up(224, 224), "realsense": made_up(480, 640)}
    return {name: noisy(image, settings.noise) for name, image in clean.items()}


def measure(settings: Settings) -> dict[str, list[tuple[float, int]]]:
    """Return milliseconds and bytes of every exchange of each way."""
    link = Link(name="idle", rtt_ms=settings.rtt_ms, mbit=settings.mbit)
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images.npz"
        np.savez(images, **cameras(settings))
        with RealLink(link, congestion=settings.congestion, policy="instant") as real:
            for number in range(settings.rounds):
                for name in WAYS:
                    asked = {"do": "paced", "way": name, "images": str(images)}
                    answer = real.ask(**asked, count=settings.count, every_s=settings.every_s)
                    found[name] += [(took, nbytes) for took, nbytes in answer["exchanges"]]
                    print(f"round {number + 1} of {settings.rounds}, {name}", file=sys.stderr)
    return found


def figures(
    exchanges: dict[str, list[tuple[float, int]]], settings: Settings
) -> dict[str, dict[str, float]]:
    """Boil each way's exchanges down to what is reported."""
    raw_bytes = np.median([nbytes for _, nbytes in exchanges["stock, raw"]])
    found = {}
    for name, timed in exchanges.items():
        took, nbytes = np.array(timed).T
        needed_ms = float(np.median(nbytes)) * 8 / settings.mbit / 1000 + settings.rtt_ms
        found[name] = {
            "bytes": float(np.median(nbytes)),
            "of_raw": float(np.median(nbytes) / raw_bytes),
            "needed_ms": needed_ms,
            "p50_ms": float(np.median(took)),
            "p99_ms": float(np.percentile(took, 99)),
            "ratio": float(np.median(took) / needed_ms),
        }
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    """Lay the figures out."""
    lines = [
        f"{'':<22}{'kB':>8}{'of raw':>8}{'needs ms':>10}{'p50 ms':>8}{'p99 ms':>8}{'p50/needs':>11}"
    ]
    lines += [
        f"{name:<22}{f['bytes'] / 1000:8.0f}{f['of_raw']:8.2f}{f['needed_ms']:10.0f}"
        f"{f['p50_ms']:8.0f}{f['p99_ms']:8.0f}{f['ratio']:11.2f}"
        for name, f in found.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and report."""
    settings = tyro.cli(Settings, prog="idle_link.py", description=DESCRIPTION)
    kind, reason = kind_here()
    if kind != "tun":
        sys.exit(f"no link of one's own on this machine: {reason}")
    where = measured_at()
    found = figures(measure(settings), settings)
    print(table(found))
    print(" | ".join(f"{key}: {text}" for key, text in where.items()))
    if settings.json is not None:
        content = {
            "benchmark": "idle_link",
            "machine": where,
            "mbit": settings.mbit,
            "rtt_ms": settings.rtt_ms,
            "every_s": settings.every_s,
            "congestion": settings.congestion,
            "count": settings.count * settings.rounds,
            "ways": found,
        }
        settings.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
