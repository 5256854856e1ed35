# SPDX-License-Identifier: Apache-2.0
"""How far a served LeRobot policy's chunks depend on how many robots ask at once, and what a batch costs.

Sixteen robots with other images, joints, tasks and leftovers are asked together and each alone, with the same
seeds. Printed: the largest difference of any value, in the units of the actions, without a prefix and with one;
with checkpoints of your own also the times. Without any it takes the tests' tiny ones of each kind, whose
actions are degrees.

    python benchmarks/batches.py --json docs/figures/batches.json
    python benchmarks/batches.py --checkpoints outputs/learned/smolvla/checkpoints/last/pretrained_model
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro

from lerobot_policy_pi05_websocket.serving import LeRobotPolicy
from lerobot_policy_pi05_websocket.serving_checkpoint import load_checkpoint
from pi05_websocket.bench.report import measured_at
from pi05_websocket.policy import PolicyRequest
from pi05_websocket.wire.realtime import RealtimeRequest

ROBOTS = 16
KINDS = ("act", "diffusion", "pi0", "pi05", "smolvla", "tdmpc", "vqbet")
PROMPTS = ("pick up the cube", "cube", "pick pick pick up the cube 7 8 9", "the cube")
SUPPORT = Path(__file__).resolve().parent.parent / "tests" / "support"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Compare batches with single requests."""

    checkpoints: tuple[str, ...] = ()
    """What to measure, as after `lerobot:`; none: a tiny one of each kind."""

    json: Path | None = None
    """Where to write the figures."""


def tiny(folder: Path) -> Iterator[str]:
    """Yield a checkpoint of each kind with random weights; diffusion only where diffusers is installed."""
    sys.path.insert(0, str(SUPPORT))
    made: Any = importlib.import_module("tiny_lerobot")
    made.save_tokenizer(folder / "vlm")
    made.save_vlm_config(folder / "vlm")
    with pytest.MonkeyPatch.context() as patch:
        made.shrink_gemma(patch)
        for kind in KINDS:
            if kind == "diffusion" and importlib.util.find_spec("diffusers") is None:
                print("diffusion: needs LeRobot's extra `diffusion`, left out")
                continue
            yield str(made.save_checkpoint(kind, folder / kind, folder / "vlm"))


def asked(policy: LeRobotPolicy, *, follow: bool) -> list[PolicyRequest]:
    """Return what different robots ask of a policy: other images, joints, tasks, leftovers and delays."""
    said = policy.metadata
    requests = []
    for robot in range(ROBOTS):
        rng = np.random.default_rng(robot)
        observation: dict[str, Any] = {
            key: rng.integers(0, 256, shape, np.uint8)
            if key in said["cameras"]
            else rng.uniform(-50, 50, shape).astype(np.float32)
            for key, shape in said["observation_shapes"].items()
        }
        rows = 1 + robot % (said["action_horizon"] - 1)
        leftover = np.linspace(-30, 30, rows * said["action_dim"], dtype=np.float32)
        realtime = RealtimeRequest(
            seq=robot,
            leftover=leftover.reshape(rows, -1),
            delay=robot % 4,
            execution_horizon=4,
            control_hz=30.0,
        )
        requests.append(
            PolicyRequest(
                observation={**observation, "prompt": PROMPTS[robot % len(PROMPTS)]},
                realtime=realtime if follow else None,
                seed=100 + robot,
            )
        )
    return requests


def compared(policy: LeRobotPolicy, *, follow: bool) -> dict[str, float]:
    """Ask together and alone; both see a policy that expects every pass to take 40 ms."""
    requests = asked(policy, follow=follow)
    policy.timed = lambda work: (work(), 40.0)
    policy.infer_requests(requests[:1])
    began = time.perf_counter()
    together = [actions(answer) for answer in policy.infer_requests(requests)]
    between = time.perf_counter()
    alone = [actions(policy.infer_requests([request])[0]) for request in requests]
    return {
        "largest_difference": float(np.abs(np.stack(together) - np.stack(alone)).max()),
        "largest_value": float(np.abs(alone).max()),
        "together_s": between - began,
        "alone_s": time.perf_counter() - between,
    }


def actions(answer: Any) -> np.ndarray[Any, Any]:
    """Return an answer's chunk, or raise what it is instead."""
    if isinstance(answer, Exception):
        raise answer
    chunk: np.ndarray[Any, Any] = answer["actions"]
    return chunk


def measured(spec: str) -> dict[str, Any]:
    """Measure one checkpoint."""
    policy = load_checkpoint(spec)
    said = policy.metadata
    found: dict[str, Any] = {"policy": said["policy"], "batch": said["capabilities"]["batch"]}
    found["free"] = compared(policy, follow=False)
    if policy.infer_realtime is not None:
        found["following"] = compared(load_checkpoint(spec), follow=True)
    return found


def main() -> None:
    """Measure, print, write."""
    command = tyro.cli(Batches, description=__doc__)
    with tempfile.TemporaryDirectory() as folder:
        specs = command.checkpoints or tiny(Path(folder))
        found = [measured(spec) for spec in specs]
    for one in found:
        for name in ("free", "following"):
            if name in one:
                figures = one[name]
                print(
                    f"{one['policy']:<10} {name:<10} {figures['largest_difference']:.1e} of "
                    f"{figures['largest_value']:.0f}; {ROBOTS} together {figures['together_s']:.2f} s, "
                    f"alone {figures['alone_s']:.2f} s"
                )
    if command.json is not None:
        where = measured_at()
        figures = {**where, "robots": ROBOTS, "policies": found}
        command.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
