# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket demo`: the whole loop on this machine, each part in the process it would have in reality.

In: words. Out: a folder with a video, a plot and `summary.json`; exit code 0 only if the loop really ran and at
least one episode succeeded. A policy server and LeRobot's own `lerobot-rollout` are child processes.
"""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import tyro

from pi05_websocket.cli import EXIT_FAILED, EXIT_OK
from pi05_websocket.cli.demo_children import Child, every_end_like_ctrl_c
from pi05_websocket.cli.demo_command import DESCRIPTION, DemoCommand
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
from pi05_websocket.cli.demo_robots import EMULATED_AT, DemoArm
from pi05_websocket.cli.demo_screen import Screen, Window, open_window, story_line
from pi05_websocket.cli.demo_story import Story, Tail
from pi05_websocket.errors import Pi05WebsocketError

__all__ = ["DemoCommand", "DemoFailed", "run"]

_START_S = 60.0
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


def run(argv: list[str]) -> int:
    """Run the command."""
    try:
        command = tyro.cli(
            DemoCommand, args=argv, prog="pi05-websocket demo", description=DESCRIPTION
        )
    except SystemExit as exc:  # tyro has printed its help or what is wrong
        return exc.code if isinstance(exc.code, int) else EXIT_FAILED
    check_installed(driver=command.robot == "so101-emulated")
    with every_end_like_ctrl_c(), Screen() as screen:
        return Demo(command, screen).run()


class Demo:
    """One run: two or three child processes, the story they tell, the results."""

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
            "robot": command.robot,
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
        port = int(self._said(server, _SERVING, "starting the policy server …"))
        self._screen.say(f"policy server: process {server.pid}, ws://127.0.0.1:{port}")
        if self._command.latency_ms > 0:
            link = SlowLink(port, round_trip_s=self._command.latency_ms / 1000)
            port = stack.enter_context(link).port
            self._screen.say(
                f"slow link: {self._command.latency_ms:g} ms more for a round trip, through port {port}"
            )
        children, flags = self._start_arm(stack)
        rollout = stack.enter_context(self._start_rollout(port, flags))
        driven = "so101_follower on the emulated bus" if children else "its simulated SO-101"
        self._screen.say(f"lerobot-rollout: process {rollout.pid}, with {driven}")
        window = None if self._command.headless else open_window(self._live_image, self._screen)
        self._watch(rollout, [server, *children], window)
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

    def _said(self, child: Child, pattern: re.Pattern[str], doing: str) -> str:
        """Wait until a child says where it is to be found; return that."""
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            found = pattern.search(child.text())
            if found:
                return found[1]
            if child.exit_code is not None:
                raise _child_failed(child)
            self._screen.update(doing)
            time.sleep(_LOOK_EVERY_S)
        raise DemoFailed(f"{child.name} gave no address within {_START_S:g} s")

    def _start_arm(self, stack: ExitStack) -> tuple[list[Child], list[str]]:
        """Return the arm's processes beside lerobot-rollout, and lerobot-rollout's flags for it."""
        command = self._command
        arm = DemoArm(
            task=command.task,
            seed=command.seed,
            recording=self._recording,
            live_image=None if command.headless else self._live_image,
        )
        if command.robot == "so101-sim":
            return [], arm.sim_flags()
        words = [console_script("pi05-websocket"), *arm.emulate_words()]
        child = stack.enter_context(Child("the emulated arm", words, log=self._out / "arm.log"))
        port = self._said(child, EMULATED_AT, "starting the emulated arm …")
        self._screen.say(f"emulated SO-101: process {child.pid}, six servos at {port}")
        return [child], arm.emulated_flags(port)

    def _start_rollout(self, port: int, robot: list[str]) -> Child:
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
            *robot,
            f"--task={self._prompt}",
            "--fps=30",
            "--play_sounds=false",
            "--return_to_initial_position=false",
        ]
        log = self._out / "rollout.log"
        return Child("lerobot-rollout", words, log=log, env=_ENVIRONMENT)

    def _watch(self, rollout: Child, others: list[Child], window: Window | None) -> None:
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
            for child in (rollout, *others):
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
