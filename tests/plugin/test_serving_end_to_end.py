# SPDX-License-Identifier: Apache-2.0
"""From the robot's player to a flow policy in LeRobot's sampling loop and back: do the chunks join?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.lerobot
pytest.importorskip("transformers", reason="needs the extra `serve`")

from lerobot.configs import FeatureType, PolicyFeature  # noqa: E402
from lerobot.processor import make_default_pre_post_processors  # noqa: E402
from tiny_lerobot import JOINTS, STATE, STATS, ToyFlow, ToyFlowConfig  # noqa: E402

from lerobot_policy_pi05_websocket.serving import LeRobotPolicy  # noqa: E402
from pi05_websocket.chunks.config import SchedulerConfig  # noqa: E402
from pi05_websocket.chunks.seam import SeamConfig  # noqa: E402
from pi05_websocket.client import RemotePolicy  # noqa: E402
from pi05_websocket.robot.player import ActionPlayer, PlayerConfig  # noqa: E402
from pi05_websocket.server import WebsocketPolicyServer  # noqa: E402

TICKS = 40
WAY_TICKS = 2
"""Ticks between asking and taking the answer."""


def commands(*, use_rtc: bool) -> np.ndarray:
    """Drive a player for some seconds against a toy policy that goes on from the last pinned row."""
    config = ToyFlowConfig(
        device="cpu",
        rtc_training_max_delay=6,
        input_features={STATE: PolicyFeature(FeatureType.STATE, (JOINTS,))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (JOINTS,))},
    )
    processors = make_default_pre_post_processors(config, dataset_stats=STATS)
    policy = LeRobotPolicy(ToyFlow(config), *processors)
    scheduler = SchedulerConfig(
        seam=SeamConfig(kind="replace"), action_horizon=6, min_execution_ticks=0
    )
    values = []
    with WebsocketPolicyServer(policy, port=0) as server, RemotePolicy(server.url) as remote:
        player = ActionPlayer(
            remote, PlayerConfig(use_rtc=use_rtc, control_hz=30.0, scheduler=scheduler)
        )
        player.start_episode()
        due = 0
        for tick in range(TICKS):
            if player.waiting and tick >= due:
                player.wait(10)
                player.collect(tick)
            if not player.waiting:
                player.ask(tick, an_observation)
                due = tick + (WAY_TICKS if tick else 0)
            if tick == 0:
                player.wait(10)
                player.collect(tick)
            values.append(player.act(tick, None).values[0])
    return np.diff(values)


def an_observation() -> dict[str, Any]:
    """Always the same: what makes chunks fit can only be the leftover."""
    return {"observation/state": np.zeros(JOINTS, np.float32)}


def test_chunks_that_continue_the_running_one_make_one_line() -> None:
    """Seven chunks, no step at any seam: every tick goes on by the same amount."""
    one_step = STATS["action"]["std"][0].item()
    np.testing.assert_allclose(commands(use_rtc=True), one_step, atol=1e-3)


def test_without_it_the_same_chunks_jump() -> None:
    """The seams are really there: told nothing, the policy begins anew with each chunk."""
    one_step = STATS["action"]["std"][0].item()
    assert np.abs(commands(use_rtc=False)).max() > 3 * one_step
