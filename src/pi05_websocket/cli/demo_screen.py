# SPDX-License-Identifier: Apache-2.0
"""What a person watches during the demo: a line in the terminal, and a window where there is a display.

In: a story. Out: text, on a terminal as one line that renews itself, elsewhere as a line every two seconds.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pi05_websocket.cli.demo_story import Story

__all__ = ["Screen", "Window", "has_display", "open_window", "story_line"]

_QUIET_S = 2.0
"""Where lines cannot be renewed, so much time lies between two."""


def has_display() -> bool:
    """Say whether a window could be opened."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def story_line(story: Story, episodes: int) -> Text:
    """Return the live line."""
    number = 1 if story.episode is None else min(story.episode + 1, episodes)
    parts = [(f"episode {number}/{episodes}", "bold")]
    marks = Text.assemble(
        *[("●", "green") if one.success else ("●", "red") for one in story.outcomes]
    )
    rate = "–" if story.tick_rate is None else f"{story.tick_rate:.1f} Hz"
    parts.append((f"  {rate}", ""))
    if story.exchanges:
        last = story.exchanges[-1]
        parts.append((f"  round trip {last['round_trip_ms']:.0f} ms", ""))
        parts.append((f"  inference delay {last['delay_ticks']} ticks", ""))
    parts.append((f"  held {story.held_ticks}", "yellow" if story.held_ticks else ""))
    parts.append((f"  picked up {story.successes} ", "green" if story.successes else ""))
    line = Text.assemble(*parts) + marks
    if story.outage is not None:
        line.append(f"  no actions: {story.outage}", style="red")
    return line


class Screen:
    """The terminal. A context manager around the time in which the line is live."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._shown_s = 0.0

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str | Text, style: str = "") -> None:
        """Print a line that stays."""
        self._console.print(text, style=style or None)

    def update(self, line: str | Text) -> None:
        """Renew the live line; where there is none, print it if two seconds have passed."""
        now = time.monotonic()
        if self._live is not None:
            self._live.update(Text(line) if isinstance(line, str) else line)
        elif line and now - self._shown_s >= _QUIET_S:
            self._shown_s = now
            self._console.print(line)


class Window:
    """Shows a picture file that another process keeps renewing. One thread, the main one."""

    def __init__(self, picture: Path) -> None:
        import tkinter

        from PIL import ImageTk

        self._picture = picture
        self._as_photo: Any = ImageTk.PhotoImage
        self._root = tkinter.Tk()
        self._root.title("pi05_websocket demo: front and wrist camera")
        self._label = tkinter.Label(self._root, borderwidth=0)
        self._label.pack()
        self._shown = 0
        self.closed = False
        self._root.protocol("WM_DELETE_WINDOW", self.close)

    def update(self) -> None:
        """Show the newest picture and let the window react."""
        if self.closed:
            return
        if self._picture.exists() and self._picture.stat().st_mtime_ns != self._shown:
            from PIL import Image

            self._shown = self._picture.stat().st_mtime_ns
            with Image.open(self._picture) as image:
                self._photo = self._as_photo(image)
            self._label.configure(image=self._photo)
        self._root.update()

    def close(self) -> None:
        """Take the window away; the demo goes on."""
        if not self.closed:
            self.closed = True
            self._root.destroy()


def open_window(picture: Path, screen: Screen) -> Window | None:
    """Open a window, or say why there is none: the video shows the same."""
    try:
        return Window(picture)
    except (
        Exception
    ) as exc:  # Tk is missing, or there is no display after all: its errors share no base
        screen.say(f"no window: {exc}. The video will show the same.", "yellow")
        return None
