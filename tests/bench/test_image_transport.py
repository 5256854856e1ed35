# SPDX-License-Identifier: Apache-2.0
"""The benchmark of JPEG runs and reports; what it measures is the machine's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "image_transport.py"


def test_it_reports_every_way(tmp_path: Path) -> None:
    """Raw and two qualities, in full and padded: worse is smaller, and raw is exact."""
    file = tmp_path / "figures.json"
    words = ["--images", "made-up", "--calls", "2", "--qualities", "95", "75", "--json", str(file)]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    figures = json.loads(file.read_text())
    ways = {way["name"]: way for way in figures["ways"]}
    assert list(ways) == [
        f"{size}, {kind}" for size in ("full", "padded") for kind in ("raw", "JPEG 95", "JPEG 75")
    ]
    assert all(name in done.stdout for name in ways)
    assert ways["full, raw"]["psnr_db"] is None
    assert ways["padded, JPEG 75"]["psnr_db"] < ways["padded, JPEG 95"]["psnr_db"]
    sizes = [ways[f"full, {kind}"]["bytes"] for kind in ("raw", "JPEG 95", "JPEG 75")]
    assert sizes == sorted(sizes, reverse=True)
    assert figures["commit"]
    assert "cores" in figures["machine"]


def test_help_teaches() -> None:
    """What is compared with what."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    for word in ("PSNR", "padded", "--noise", "14.5 kB", "examples:"):
        assert word in done.stdout
