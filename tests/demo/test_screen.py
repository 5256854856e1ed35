# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from rich.console import Console

from pi05_websocket.cli.demo_screen import Screen, has_display, open_window, story_line
from pi05_websocket.cli.demo_story import EpisodeOutcome, Story


def test_line_has_what_matters() -> None:
    """Episode, rate, round trip, delay, held ticks, successes and a mark for each episode."""
    story = Story(episode=1, held_ticks=3, outage="connection lost")
    story.outcomes = [EpisodeOutcome(0, True, 2.0, 0.0, 3.0), EpisodeOutcome(1, False, 10, 3, 13)]
    story.exchanges = [{"round_trip_ms": 41.6, "delay_ticks": 2}]

    assert story_line(story, 5).plain == (
        "episode 2/5  –  round trip 42 ms  inference delay 2 ticks  held 3  picked up 1 ●●"
        "  no actions: connection lost"
    )


def test_line_before_anything_happened() -> None:
    """Nothing is invented before the first tick."""
    assert story_line(Story(), 3).plain == "episode 1/3  –  held 0  picked up 0 "


def test_without_a_terminal_lines_are_rare() -> None:
    """Into a file the live line goes at most every two seconds, what is said always."""
    output = io.StringIO()
    with Screen(Console(file=output)) as screen:
        for number in range(20):
            screen.update(f"line {number}")
        screen.update("")
        screen.say("done", "green")

    assert output.getvalue() == "line 0\ndone\n"


def test_on_a_terminal_the_line_renews_itself() -> None:
    """On a terminal the live line is taken away at the end, what is said stays."""
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=80)
    with Screen(console) as screen:
        screen.update("working")
        screen.say("done")

    assert "done" in output.getvalue()
    assert "\x1b[2K" in output.getvalue()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, False), ({"DISPLAY": ":0"}, True), ({"WAYLAND_DISPLAY": "wayland-0"}, True)],
)
def test_display_is_found(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: bool
) -> None:
    """X and Wayland say so in the environment; other systems always have one."""
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert has_display() is expected
    monkeypatch.setattr("sys.platform", "darwin")
    assert has_display()


def test_a_window_that_cannot_open_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a display the demo says so and goes on."""
    monkeypatch.setenv("DISPLAY", "127.0.0.1:99")
    output = io.StringIO()

    window = open_window(tmp_path / "live.jpg", Screen(Console(file=output)))

    assert window is None
    assert "no window" in output.getvalue()


class FakeTk:
    """The parts of a Tk window that are used."""

    def __init__(self) -> None:
        self.on_close: Callable[[], None] = lambda: None
        self.updates = 0
        self.destroyed = False

    def title(self, text: str) -> None:
        """Take a title."""

    def protocol(self, name: str, function: Callable[[], None]) -> None:
        """Remember what closing does."""
        self.on_close = function

    def update(self) -> None:
        """Count."""
        self.updates += 1

    def destroy(self) -> None:
        """Be gone."""
        self.destroyed = True


def test_window_follows_the_picture_until_it_is_closed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A renewed picture is shown once; after a click on the cross nothing happens any more."""
    root, shown = FakeTk(), list[tuple[int, int]]()
    label = SimpleNamespace(pack=lambda: None, configure=lambda image: None)
    tk = SimpleNamespace(Tk=lambda: root, Label=lambda *_, **__: label)
    monkeypatch.setitem(sys.modules, "tkinter", tk)
    image_tk = SimpleNamespace(PhotoImage=lambda image: shown.append(image.size))
    monkeypatch.setitem(sys.modules, "PIL.ImageTk", image_tk)
    monkeypatch.setattr("PIL.ImageTk", image_tk, raising=False)
    picture = tmp_path / "live.jpg"

    window = open_window(picture, Screen(Console(file=io.StringIO())))

    assert window is not None
    window.update()
    Image.new("RGB", (64, 48)).save(picture)
    window.update()
    window.update()
    assert shown == [(64, 48)]
    root.on_close()
    window.update()
    window.close()
    assert (root.updates, root.destroyed) == (3, True)
