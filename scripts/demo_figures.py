# SPDX-License-Identifier: Apache-2.0
"""Keep what demo runs showed, for the documents: their figures, and the first one's picture and plot.

In: folders that `pi05-websocket demo --out FOLDER` wrote. Out: docs/figures/demo_*.json, docs/images/demo*.png.
`make docs` puts them into the documents.

    python scripts/demo_figures.py outputs/demo-a outputs/demo-b
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import av
from PIL import Image

from pi05_websocket.bench.commit import present_commit

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "docs" / "figures"
IMAGES = ROOT / "docs" / "images"

AT_S = 2.3
"""Which moment of the video to show: the first cube is between the jaws."""


def keep_figures(folder: Path, commit: str) -> None:
    """Copy a run's summary, with the commit it was made at."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    name = f"demo_{summary['task']}_{summary['added_latency_ms']:.0f}ms.json"
    FIGURES.mkdir(exist_ok=True)
    text = json.dumps(summary | {"commit": commit}, indent=2)
    (FIGURES / name).write_text(text + "\n", encoding="utf-8")


def keep_picture(folder: Path) -> None:
    """Save one frame of a run's video."""
    with av.open(str(folder / "demo.mp4")) as video:
        for frame in video.decode(video=0):
            if frame.time is not None and frame.time >= AT_S:
                frame.to_image().save(IMAGES / "demo.png", optimize=True)
                return
    raise SystemExit(f"{folder / 'demo.mp4'} is shorter than {AT_S} s")


def keep_plot(folder: Path) -> None:
    """Copy a run's plot, with a palette: a third of the size, the same lines."""
    plot = Image.open(folder / "plot.png").convert("RGB")
    palette = plot.quantize(method=Image.Quantize.MAXCOVERAGE)
    palette.save(IMAGES / "demo-plot.png", optimize=True)


def main() -> None:
    """Keep the figures of all folders and the pictures of the first."""
    folders = [Path(name) for name in sys.argv[1:]]
    if not folders:
        raise SystemExit(__doc__)
    commit = present_commit()  # before the figures change what is checked out
    for folder in folders:
        keep_figures(folder, commit)
    keep_picture(folders[0])
    keep_plot(folders[0])


if __name__ == "__main__":
    main()
