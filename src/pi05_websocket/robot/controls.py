# SPDX-License-Identifier: Apache-2.0
"""What a person wants of a running robot, from any thread: a key, a page, another terminal.

In: wishes. Out: the same, oldest first, when the control loop looks: nothing happens in between two ticks.
"""

from __future__ import annotations

from collections import deque

from pi05_websocket.robot.player import ActionPlayer
from pi05_websocket.robot.wishes import Wish, WishName

__all__ = ["KEYS", "Controls", "grant"]

KEYS = "r: go on after a stop   p: stop and hold   n: new episode   t: new task   q: quit"
"""What a person can press."""

_BY_KEY: dict[str, WishName] = {
    "r": "resume",
    "p": "pause",
    "P": "pause",
    " ": "pause",
    "n": "episode",
    "q": "quit",
}
_MOST = 1000
_LONGEST_TASK = 1000
_ENTER, _ESCAPE, _BACKSPACE = "\r\n", "\x1b", "\x08\x7f"


class Controls:
    """Collects wishes; the control loop takes them at its next tick."""

    def __init__(self) -> None:
        # A deque's ends need no lock, and a signal handler that waits for one waits for ever.
        self._wanted: deque[Wish] = deque()
        self._typed: str | None = None
        """The task that is being typed; None while keys are commands."""

    def __repr__(self) -> str:
        return f"<Controls {len(self._wanted)} wishes>"

    @property
    def typed(self) -> str | None:
        """What of a new task has been typed so far; None: nobody is typing one."""
        return self._typed

    def resume(self) -> None:
        """Go on after a stop; confirm the first motion."""
        self.want("resume")

    def pause(self) -> None:
        """Hold until `resume`."""
        self.want("pause")

    def new_episode(self) -> None:
        """Forget chunks and commands; begin anew from the pose the arm has."""
        self.want("episode")

    def change_task(self, task: str) -> None:
        """Do something else from now on; an empty task changes nothing."""
        if task.strip():
            self.want("task", task.strip()[:_LONGEST_TASK])

    def quit(self) -> None:
        """End the loop after this tick."""
        self.want("quit")

    def want(self, name: WishName, text: str = "") -> None:
        """Add a wish. While the loop does not look, all but stopping and ending is dropped after a thousand."""
        if len(self._wanted) < _MOST or name in ("pause", "quit"):
            self._wanted.append(Wish(name, text))

    def press(self, keys: str) -> None:
        """Take keys as a person pressed them; unknown ones do nothing. After `t` comes a task, then Enter."""
        for key in keys:
            if self._typed is not None:
                self._type(key)
            elif key == "t":
                self._typed = ""
            elif key in _BY_KEY:
                self.want(_BY_KEY[key])

    def take(self) -> list[Wish]:
        """Return what was wanted since the last call, oldest first."""
        taken = []
        while self._wanted:
            taken.append(self._wanted.popleft())
        return taken

    def _type(self, key: str) -> None:
        assert self._typed is not None
        if key in _ENTER:
            self.change_task(self._typed)
            self._typed = None
        elif key == _ESCAPE:
            self._typed = None
        elif key in _BACKSPACE:
            self._typed = self._typed[:-1]
        elif key.isprintable():
            self._typed += key


def grant(wish: Wish, player: ActionPlayer) -> None:
    """Let a player do what is wanted of it; a new task and the end are its owner's to see to."""
    if wish.name == "resume":
        player.resume()
    elif wish.name == "pause":
        player.stop()
    elif wish.name == "episode":
        player.start_episode()
    elif wish.name == "task":
        player.change_task()
