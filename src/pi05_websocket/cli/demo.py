# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket demo`: the whole loop on this machine, each part in the process it would have in reality.

In: words. Out: a folder with a video, a plot and `summary.json`; exit code 0 only if the loop really ran and at
least one episode succeeded. A policy server and LeRobot's own `lerobot-rollout` are child processes.
"""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import tyro

from pi05_websocket.cli import EXIT_FAILED, EXIT_OK
from pi05_websocket.cli.demo_children import Child, every_end_like_ctrl_c
from pi05_websocket.cli.demo_delay import SlowLink
from pi05_websocket.cli.demo_needs import check_installed, console_script
from pi05_websocket.cli.demo_results import (
    OWN_FILES,
    POLICY_TRACE,
    RECORDING,
    ROBOT_TRACE,
    Results,
    last_words,
)
from pi05_websocket.cli.demo_screen import Screen, Window, has_display, open_window, story_line
from pi05_websocket.cli.demo_story import Story, Tail
from pi05_websocket.errors import ConfigError, Pi05WebsocketError

__all__ = ["DemoCommand", "DemoFailed", "run"]

_DESCRIPTION = """\
Watch a simulated SO-101 do its task over a policy server, everything on this machine.

Starts a policy server, then LeRobot's own lerobot-rollout with this project's plugin and a simulated arm. The
policy sees what a real one would see: two camera images, six joints, the instruction.

examples:
  pi05-websocket demo
  pi05-websocket demo --latency-ms 200          the server is far away
  pi05-websocket demo --task belt --episodes 10
"""

_SERVER_START_S = 60.0
_FIRST_TICK_S = 300.0
_HELD_S = 60.0
"""How long the arm may hold before the demo has nothing to show."""
_STALL_S = 60.0
"""How long to wait for the server's address, the first tick, and the next one."""
_LOOK_EVERY_S = 0.1

_SERVING = re.compile(r"serving expert at ws://127\.0\.0\.1:(\d+)")

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    # LeRobot converts images with torch at each tick; a second torch thread and the renderer's would stall each
    # other on a small machine: the 99th percentile of the loop's period was 101 ms with two, 40 ms with one.
    "OMP_NUM_THREADS": "1",
}


class DemoFailed(Pi05WebsocketError):
    """The demo could not show the loop; the message holds what the process that failed said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoCommand:
    """What to show."""

    episodes: int = 5
    """How many cubes to pick up, one after another."""

    task: Literal["cube", "belt", "moved"] = "cube"
    """A cube that lies still, one on a moving belt, or one that is moved while the arm is on its way."""

    seed: int = 0
    """Decides where the cubes lie."""

    latency_ms: float = 0.0
    """Milliseconds added to each round trip on the way."""

    action_horizon: int = 25
    """Rows executed of each chunk of 50 before the next one takes over."""

    out: Path | None = None
    """Folder for the results; by default outputs/demo-DATE-TIME."""

    headless: bool = field(default_factory=lambda: not has_display())
    """Open no window. The default where there is no display."""

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ConfigError(f"--episodes {self.episodes}: expected at least 1")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}: expected 0 or more")
        if not 0 <= self.latency_ms <= 10_000:
            raise ConfigError(f"--latency-ms {self.latency_ms:g}: expected 0 to 10000")
        if not 1 <= self.action_horizon <= 50:
            raise ConfigError(f"action_horizon is {self.action_horizon}: expected 1 to 50")


def run(argv: list[str]) -> int:
    """Run the command."""
    try:
        command = tyro.cli(
            DemoCommand, args=argv, prog="pi05-websocket demo", description=_DESCRIPTION
        )
    except SystemExit as exc:  # tyro has printed its help or what is wrong
        return exc.code if isinstance(exc.code, int) else EXIT_FAILED
    check_installed()
    with every_end_like_ctrl_c(), Screen() as screen:
        return Demo(command, screen).run()


class Demo:
    """One run: two child processes, the story they tell, the results."""

    def __init__(self, command: DemoCommand, screen: Screen) -> None:
        from pi05_websocket.sim.tasks import TASKS

        self._command = command
        self._screen = screen
        self._prompt = TASKS[command.task].prompt
        stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        self._out = command.out or Path("outputs") / f"demo-{stamp}"
        self._recording = self._out / RECORDING
        self._policy_trace = self._recording / POLICY_TRACE
        self._robot_trace = self._recording / ROBOT_TRACE
        self._story = Story()
        self._told = 0

    def run(self) -> int:
        """Show everything; return the exit code.

        Raises:
            DemoFailed: A child process failed, or nothing moved.
        """
        self._prepare()
        with ExitStack() as stack:
            self._show(stack)
        command = self._command
        settings = {
            "task": command.task,
            "seed": command.seed,
            "added_latency_ms": command.latency_ms,
            "action_horizon": command.action_horizon,
        }
        results = Results(self._out, episodes=command.episodes, prompt=self._prompt)
        figures = results.make(settings, progress=self._screen.update)
        self._screen.update("")
        self._screen.say(last_words(figures, self._out))
        return EXIT_OK if figures["ticks"] and figures["successes"] else EXIT_FAILED

    def _prepare(self) -> None:
        self._recording.mkdir(parents=True, exist_ok=True)
        for name in OWN_FILES:  # of an earlier run into the same folder; nothing else is touched
            (self._out / name).unlink(missing_ok=True)
        count = f"{self._command.episodes} episodes of “{self._prompt}”"
        self._screen.say(f"pi05-websocket demo: {count} Results go to {self._out}", "bold")

    def _show(self, stack: ExitStack) -> None:
        server = stack.enter_context(self._start_server())
        port = self._port_of(server)
        self._screen.say(f"policy server: process {server.pid}, ws://127.0.0.1:{port}")
        if self._command.latency_ms > 0:
            link = SlowLink(port, round_trip_s=self._command.latency_ms / 1000)
            port = stack.enter_context(link).port
            self._screen.say(
                f"slow link: {self._command.latency_ms:g} ms more for a round trip, through port {port}"
            )
        rollout = stack.enter_context(self._start_rollout(port))
        self._screen.say(f"lerobot-rollout: process {rollout.pid}, with its simulated SO-101")
        window = None if self._command.headless else open_window(self._live_image, self._screen)
        self._watch(rollout, server, window)
        self._stop(rollout)
        if window is not None:
            window.close()
        self._live_image.unlink(missing_ok=True)

    @property
    def _live_image(self) -> Path:
        return self._recording / "live.jpg"

    def _start_server(self) -> Child:
        command = [console_script("pi05-websocket"), "serve", "--policy", "expert", "--port", "0"]
        return Child("the policy server", command, log=self._out / "server.log")

    def _port_of(self, server: Child) -> int:
        deadline = time.monotonic() + _SERVER_START_S
        while time.monotonic() < deadline:
            found = _SERVING.search(server.text())
            if found:
                return int(found[1])
            if server.exit_code is not None:
                raise _child_failed(server)
            self._screen.update("starting the policy server …")
            time.sleep(_LOOK_EVERY_S)
        raise DemoFailed(f"{server.name} gave no address within {_SERVER_START_S:g} s")

    def _start_rollout(self, port: int) -> Child:
        command = self._command
        words = [
            console_script("lerobot-rollout"),
            "--strategy.type=base",
            "--inference.type=sync",
            "--policy.type=pi05_websocket",
            f"--policy.websocket_url=ws://127.0.0.1:{port}",
            # A slow link is what is to be seen, not a fault.
            f"--policy.timeout={5.0 + self._command.latency_ms / 1000:g}",
            f"--policy.action_horizon={command.action_horizon}",
            f"--policy.trace_file={self._policy_trace}",
            "--robot.type=so101_sim",
            f"--robot.task={command.task}",
            f"--robot.seed={command.seed}",
            f"--robot.record_dir={self._recording}",
            f"--task={self._prompt}",
            "--fps=30",
            "--play_sounds=false",
            "--return_to_initial_position=false",
        ]
        if not command.headless:
            words.append(f"--robot.live_image={self._live_image}")
        log = self._out / "rollout.log"
        return Child("lerobot-rollout", words, log=log, env=_ENVIRONMENT)

    def _watch(self, rollout: Child, server: Child, window: Window | None) -> None:
        """Follow the traces until all episodes have ended."""
        policy, robot = Tail(self._policy_trace), Tail(self._robot_trace)
        started = moved = time.monotonic()
        while len(self._story.outcomes) < self._command.episodes:
            before = self._story.ticks
            self._story.tell([*policy.read(), *robot.read()])
            self._announce()
            now = time.monotonic()
            if self._story.ticks > before:
                moved = now
            for child in (rollout, server):
                if child.exit_code is not None:
                    raise _child_failed(child)
            self._check_stall(rollout, now - moved)
            self._screen.update(self._line(now - started))
            if window is not None:
                window.update()
            time.sleep(_LOOK_EVERY_S)

    def _line(self, elapsed_s: float) -> Any:
        if self._story.ticks:
            return story_line(self._story, self._command.episodes)
        if self._story.connected:
            return f"the arm is there; waiting for the first chunk … {elapsed_s:.0f} s"
        return f"loading torch, LeRobot and the simulator … {elapsed_s:.0f} s"

    def _check_stall(self, rollout: Child, quiet_s: float) -> None:
        limit = _STALL_S if self._story.ticks else _FIRST_TICK_S
        if quiet_s > limit:
            raise DemoFailed(
                f"no tick of the control loop for {limit:g} s. {rollout.name} said last:\n"
                f"{rollout.last_words()}"
            )
        if self._story.held_s > _HELD_S:
            raise DemoFailed(
                f"no valid action for {_HELD_S:g} s, the arm only holds. {rollout.name} said last:\n"
                f"{rollout.last_words()}"
            )

    def _announce(self) -> None:
        for outcome in self._story.outcomes[self._told : self._command.episodes]:
            if outcome.success:
                text, style = f"picked up after {outcome.duration_s:.1f} s", "green"
            else:
                text, style = "time is up, not picked up", "red"
            self._screen.say(f"episode {outcome.episode + 1}: {text}", style)
        self._told = len(self._story.outcomes)

    def _stop(self, rollout: Child) -> None:
        self._screen.update("stopping lerobot-rollout as Ctrl-C would …")
        rollout.interrupt()
        if rollout.wait(30.0) != 0:
            raise _child_failed(rollout)


def _child_failed(child: Child) -> DemoFailed:
    code = child.exit_code
    how = "does not stop" if code is None else f"ended with exit code {code}"
    return DemoFailed(
        f"{child.name} {how}. It said last ({child.log} has everything):\n{child.last_words()}"
    )
