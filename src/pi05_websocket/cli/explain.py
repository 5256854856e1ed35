# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket explain`: why the arm paused or jumped, in words and as a picture.

In: a recording, or a trace file. Out: sentences, a PNG, JSON; exit code 0.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from pi05_websocket.cli import EXIT_FAILED, EXIT_OK
from pi05_websocket.errors import ConfigError
from pi05_websocket.recording.contents import open_recording
from pi05_websocket.recording.story import Story, tell
from pi05_websocket.recording.words import as_dict, sentences

__all__ = ["ExplainCommand", "run"]

_DESCRIPTION = """\
Say why the arm paused or jumped: each pause with its cause, what came before and what to do; the largest steps
between two commands with the chunks they lie between; and a picture of both.

examples:
  pi05-websocket explain recordings                             the newest run in it
  pi05-websocket explain recordings/20261126-093000/0003.mcap   one segment
  pi05-websocket explain run.jsonl --picture run.png            a trace file
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainCommand:
    """What to explain."""

    recording: Annotated[Path, tyro.conf.Positional]
    """A recording's folder, an .mcap file, a folder of recordings (the newest is taken), or a trace file."""

    picture: Path | None = None
    """Where the picture goes; None: explain.png beside the recording's files. Needs matplotlib (extra sim)."""

    no_picture: bool = False
    """Words alone."""

    most: int = 20
    """Pauses to tell one by one: the longest."""

    jumps: int = 5
    """Steps to tell."""

    json: Path | None = None
    """Write the same for programs here."""


def run(argv: list[str]) -> int:
    """Run the command."""
    try:
        command = tyro.cli(
            ExplainCommand, args=argv, prog="pi05-websocket explain", description=_DESCRIPTION
        )
    except SystemExit as exc:  # tyro has printed its help or what is wrong
        return exc.code if isinstance(exc.code, int) else EXIT_FAILED
    story, settings, cut_off, beside = _read(command)
    joints = settings.get("joint_names", "").split()
    print("\n".join(sentences(story, joints, most=command.most)))
    if cut_off:
        print("\nThe recording has no proper end: its process was killed, or is still writing.")
    if command.json is not None:
        text = json.dumps(as_dict(story, joints), indent=1)
        command.json.write_text(text + "\n", encoding="utf-8")
    if not command.no_picture and story.ticks:
        _draw(story, joints, command.picture or beside / "explain.png")
    return EXIT_OK


def _read(command: ExplainCommand) -> tuple[Story, dict[str, str], bool, Path]:
    """Return what happened, the run's settings, whether its end is missing, and where its files lie."""
    path = command.recording.expanduser()
    if path.suffix == ".jsonl":
        return tell(_trace_lines(path), most_jumps=command.jumps), {}, False, path.parent
    recording = open_recording(path)
    story = tell(recording.lines(), most_jumps=command.jumps)
    return story, recording.settings, recording.cut_off, recording.paths[0].parent


def _trace_lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            for text in file:
                try:
                    line = json.loads(text)
                except ValueError:  # the last line of a process that was killed
                    continue
                if isinstance(line, dict) and "kind" in line and "time_s" in line:
                    yield line
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read: {exc}") from exc


def _draw(story: Story, joints: list[str], path: Path) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        print("no picture: it needs matplotlib (pip install matplotlib)")
        return
    from pi05_websocket.cli.explain_plot import draw_story

    draw_story(story, joints, path)
    print(f"\npicture: {path}")
