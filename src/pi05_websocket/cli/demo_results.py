# SPDX-License-Identifier: Apache-2.0
"""What a demo leaves behind: `summary.json`, `plot.png`, `demo.mp4`, and a few sentences.

In: the folder with the recording and both traces. Out: files beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pi05_websocket.cli.demo_story import Story, TraceLine, read_trace

__all__ = ["OWN_FILES", "POLICY_TRACE", "RECORDING", "ROBOT_TRACE", "Results", "last_words"]

RECORDING = "recording"
POLICY_TRACE = "policy.jsonl"
ROBOT_TRACE = "robot.jsonl"
"""Names in the demo's folder: the raw material, and in it the traces of policy and robot."""

OWN_FILES = (
    "summary.json",
    "plot.png",
    "demo.mp4",
    *(
        f"{RECORDING}/{name}"
        for name in (
            POLICY_TRACE,
            ROBOT_TRACE,
            "realsense.mp4",
            "wrist2.mp4",
            "live.jpg",
            "emulated.json",
        )
    ),
)
"""What a demo leaves in its folder, and the next one into the same folder replaces."""

Progress = Callable[[str], None]
"""Is told what is being made."""


class Results:
    """Makes the files of one demo from its recording.

    Args:
        folder: The demo's folder.
        episodes: How many episodes were asked for; a rollout may have begun one more.
        prompt: What the arm was told.
    """

    def __init__(self, folder: Path, *, episodes: int, prompt: str) -> None:
        self._folder = folder
        self._episodes = episodes
        self._prompt = prompt

    def make(self, settings: Mapping[str, Any], *, progress: Progress) -> dict[str, Any]:
        """Write all files; return the summary, `settings` included."""
        recording = self._folder / RECORDING
        policy, robot = read_trace(recording / POLICY_TRACE), read_trace(recording / ROBOT_TRACE)
        story = Story()
        story.tell([*policy, *robot])
        figures = {**self._figures(story), **settings}
        (self._folder / "summary.json").write_text(json.dumps(figures, indent=2) + "\n")
        progress("drawing the plot …")
        self._plot(policy, robot, story, figures)
        self._video(policy, robot, story, progress)
        return figures

    def _figures(self, story: Story) -> dict[str, Any]:
        from pi05_websocket.sim.stats import wilson_interval

        figures = story.figures(self._episodes)
        low, high = wilson_interval(figures["successes"], figures["episodes"])
        return {**figures, "success_rate_95": [round(low, 3), round(high, 3)]}

    def _plot(
        self,
        policy: list[TraceLine],
        robot: list[TraceLine],
        story: Story,
        figures: Mapping[str, Any],
    ) -> None:
        from pi05_websocket.cli.demo_plot import draw_plot

        title = (
            f"lerobot-rollout, a simulated SO-101 and a policy server: {figures['successes']} of "
            f"{figures['episodes']} cubes picked up at {figures['control_hz']} Hz"
        )
        draw_plot(policy, robot, story, self._folder / "plot.png", title=title)

    def _video(
        self, policy: list[TraceLine], robot: list[TraceLine], story: Story, progress: Progress
    ) -> None:
        from pi05_websocket.cli.demo_video import Narration, make_video

        make_video(
            self._folder / RECORDING,
            Narration(policy, story, episodes=self._episodes, prompt=self._prompt),
            self._folder / "demo.mp4",
            origin_s=robot[0]["video_origin_s"],
            progress=lambda share: progress(f"making the video … {share:.0%}"),
        )


def _why(held_by_cause: Mapping[str, int]) -> str:
    causes = [f"{cause.replace('_', ' ')} {count}" for cause, count in held_by_cause.items()]
    return f": {', '.join(causes)}" if causes else ""


def last_words(figures: Mapping[str, Any], folder: Path) -> str:
    """Return what the viewer has just seen, and what to try next."""
    trip = figures["round_trip_ms"]
    seen = (
        f"\n{folder}/demo.mp4  plot.png  summary.json\n"
        f"{figures['control_hz']} Hz, round trip {trip['p50']} ms (p99 {trip['p99']} ms), "
        f"{figures['held_ticks']} of {figures['ticks']} ticks held{_why(figures['held_by_cause'])}\n\n"
    )
    if not figures["successes"]:
        return f"{seen}The loop ran, but no cube was picked up within the time limit; watch the video for why."
    arm = "with a simulated SO-101 whose actions came"
    if figures.get("robot") == "so101-emulated":
        arm = "through its own so101_follower, on an emulated servo bus, with actions that came"
    another = "--task belt" if figures["added_latency_ms"] > 0 else "--latency-ms 200"
    return (
        f"{seen}You have just seen LeRobot's own lerobot-rollout pick up {figures['successes']} of "
        f"{figures['episodes']} cubes {arm}, in chunks, from a policy "
        "server in another process, over a WebSocket and OpenPI's protocol; next, give your own OpenPI "
        "server's address to --policy.websocket_url and your own arm to --robot.type=so101_follower "
        f"(docs/howto/real-arm.md), or try this again with {another}."
    )
