# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket control`: stop a running robot, let it go on, give it another task, from another terminal.

In: words. Out: HTTP requests to the robot program's control port on this machine.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from pi05_websocket.cli import EXIT_FAILED, EXIT_OK
from pi05_websocket.errors import ConfigError, ConnectFailed
from pi05_websocket.robot.control_page import CONTROL_HEADER
from pi05_websocket.robot.wishes import Outcome, WishName, last_word, outcome

__all__ = ["ControlCommand", "run"]

_DESCRIPTION = """\
Stop a robot that is running on this machine, let it go on, or give it another task.

It was started with a control port: lerobot-rollout with --policy.control_port=9091, pi05-websocket run with
--control-port 9091. The same can be done in a browser there: http://127.0.0.1:9091/

examples:
  pi05-websocket control pause              hold, whatever comes, until resume (takes a second to get there:
                                            in a hurry the page, or the power switch)
  pi05-websocket control resume             go on after a stop; confirm the first motion
  pi05-websocket control task "pick up the blue cube"
  pi05-websocket control status
"""

_PATIENCE_S = 5.0
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlCommand:
    """What to do."""

    action: Annotated[
        Literal["status", "pause", "resume", "episode", "task", "quit"], tyro.conf.Positional
    ]
    """status; pause: stop and hold; resume: go on; episode: begin a new one; task: another one; quit: end
    `pi05-websocket run` (under lerobot-rollout the arm only holds)."""

    text: Annotated[str, tyro.conf.Positional] = ""
    """The task."""

    port: int = 9091
    """The robot program's control port."""

    patience: float = 3.0
    """Longest to wait, in seconds, until what was wanted is seen to happen. Exit code 1: it was not."""


def run(argv: list[str]) -> int:
    """Run the command."""
    try:
        command = tyro.cli(
            ControlCommand, args=argv, prog="pi05-websocket control", description=_DESCRIPTION
        )
    except SystemExit as exc:  # tyro has printed its help or what is wrong
        return exc.code if isinstance(exc.code, int) else EXIT_FAILED
    if (command.action == "task") != bool(command.text.strip()):
        raise ConfigError('a text belongs to `task`: pi05-websocket control task "what to do"')
    before = _ask(command, "status")
    if command.action == "status":
        for name, value in before.items():
            print(f"{name}: {value}")
        return EXIT_OK
    _ask(command, command.action)
    found = _wait(command, command.action, before)
    print(found.text)
    return EXIT_OK if found.granted else EXIT_FAILED


def _wait(command: ControlCommand, name: WishName, before: dict[str, Any]) -> Outcome:
    """Return what has come of a wish, or what to say of it in the end."""
    until = time.monotonic() + command.patience
    while True:
        try:
            now = _ask(command, "status")
        except ConnectFailed:
            if name != "quit":
                raise
            return Outcome("The program has ended.")
        if name == "quit" and time.monotonic() >= until:
            return Outcome(
                "Asked for. Under lerobot-rollout the arm only holds: end it with Ctrl-C there."
            )
        found = outcome(name, command.text.strip(), before, now)
        if found is not None:
            return found
        if time.monotonic() >= until:
            return last_word(name, now)
        time.sleep(_LOOK_S)


def _ask(command: ControlCommand, action: str) -> dict[str, Any]:
    """Return what the robot program answers.

    Raises:
        ConnectFailed: There is none, or it refuses.
    """
    url = f"http://127.0.0.1:{command.port}/{action}"
    body = None
    if action != "status":
        body = json.dumps({"task": command.text}).encode() if command.text else b""
    request = urllib.request.Request(url, data=body, headers={CONTROL_HEADER: "1"})
    # Not through a proxy: the robot is here.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_PATIENCE_S) as reply:
            answer: dict[str, Any] = json.load(reply)
    except urllib.error.HTTPError as exc:
        raise ConnectFailed(
            f"the robot program refuses: {exc.read(500).decode(errors='replace')}"
        ) from exc
    except (OSError, ValueError) as exc:
        raise ConnectFailed(
            f"no robot program answers at {url}: {exc}. Start it with a control port: "
            "--policy.control_port=9091, or pi05-websocket run --control-port 9091"
        ) from exc
    return answer
