# SPDX-License-Identifier: Apache-2.0
"""LeRobot's own `lerobot-eval` on a vectorised environment: one request per environment, in flight together."""

from __future__ import annotations

import gc
import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from lerobot_policy_pi05_websocket.env_so101_sim import SO101SimEnv, SO101SimEnvConfig
from pi05_websocket.errors import ConfigError
from pi05_websocket.server import WebsocketPolicyServer
from pi05_websocket.sim.expert import ExpertPolicy

pytestmark = [
    pytest.mark.lerobot,
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("default"),  # LeRobot and its dependencies warn about themselves
]


def test_batch_of_environments(served, lerobot_eval_main, tmp_path: Path):
    """Three environments, five episodes: every one reaches its goal, with as few requests as needed."""
    policy, url = served(rows=10, step=5.0)

    lerobot_eval_main(
        "--policy.type=pi05_websocket",
        f"--policy.websocket_url={url}",
        "--eval.batch_size=3",
        "--eval.n_episodes=5",
        "--eval.use_async_envs=false",
        f"--output_dir={tmp_path}",
    )

    overall = json.loads((tmp_path / "eval_info.json").read_text())["overall"]
    assert overall["pc_success"] == 100.0
    assert overall["n_episodes"] == 5
    # Two batches of three environments; ten rows a chunk and at most twelve steps an episode.
    assert len(policy.observations) <= 2 * 2 * 3
    assert {str(o["prompt"]) for o in policy.observations} == {"reach forty"}


def test_execution_horizon_is_exact(served, lerobot_eval_main, tmp_path: Path):
    """A simulator waits for its chunk: `action_horizon` rows of each, no more and no fewer."""
    policy, url = served(rows=10, step=1.0)

    lerobot_eval_main(
        "--policy.type=pi05_websocket",
        f"--policy.websocket_url={url}",
        "--policy.action_horizon=4",
        "--eval.batch_size=1",
        "--eval.n_episodes=1",
        "--eval.use_async_envs=false",
        f"--output_dir={tmp_path}",
    )

    pans = [float(o["observation/state"][0]) for o in policy.observations]
    assert np.diff(pans).tolist() == [4.0, 4.0]


def test_requests_are_in_flight_together(bare_tcp, scripted, lerobot_eval_main, tmp_path: Path):
    """All environments' observations are on their way before the first answer is waited for."""
    from misbehaving import METADATA, reply

    together = []

    def answer_when_all_have_asked(connection):
        connection.send(METADATA)
        while True:
            for _ in range(4):
                connection.recv()
            together.append(True)
            for _ in range(4):
                connection.send(reply(50.0))

    server = scripted(answer_when_all_have_asked)
    lerobot_eval_main(
        "--policy.type=pi05_websocket",
        f"--policy.websocket_url={server.url}",
        "--eval.batch_size=4",
        "--eval.n_episodes=4",
        "--eval.use_async_envs=false",
        f"--output_dir={tmp_path}",
    )

    assert together


def test_server_that_starts_late_is_waited_for(scripted, lerobot_eval_main, tmp_path: Path):
    """An evaluation is not lost because the server needs a moment."""
    from misbehaving import METADATA, reply

    def answer(connection):
        connection.send(METADATA)
        for _ in connection:
            connection.send(reply(50.0))

    server = scripted(answer)
    server.stop()
    threading.Timer(1.0, server.start).start()

    lerobot_eval_main(
        "--policy.type=pi05_websocket",
        f"--policy.websocket_url={server.url}",
        "--eval.batch_size=1",
        "--eval.n_episodes=1",
        "--eval.use_async_envs=false",
        f"--output_dir={tmp_path}",
    )

    overall = json.loads((tmp_path / "eval_info.json").read_text())["overall"]
    assert overall["pc_success"] == 100.0


def test_server_that_never_answers_ends_the_evaluation(served, lerobot_eval_main, tmp_path: Path):
    """Holding for ever would only hide that nothing was ever valid."""
    policy, url = served()
    policy.change = lambda actions: actions * np.nan
    began = time.monotonic()

    with pytest.raises(Exception, match="never answered with a valid chunk"):
        lerobot_eval_main(
            "--policy.type=pi05_websocket",
            f"--policy.websocket_url={url}",
            "--policy.first_request_timeout=2",
            "--policy.timeout=1",
            "--eval.batch_size=1",
            "--eval.n_episodes=1",
            "--eval.use_async_envs=false",
            f"--output_dir={tmp_path}",
        )

    assert time.monotonic() - began < 30


def test_server_that_is_not_there_is_told_as_such(lerobot_eval_main, tmp_path: Path, said):
    """Not as a policy without valid chunks, and not after the ten minutes a model may compile."""
    with pytest.raises(Exception, match="connection refused"):
        lerobot_eval_main(
            "--policy.type=pi05_websocket",
            "--policy.websocket_url=ws://127.0.0.1:9",
            "--policy.connect_timeout=1",
            "--policy.handshake_timeout=1",
            "--policy.metadata_timeout=1",
            "--eval.batch_size=1",
            "--eval.n_episodes=1",
            "--eval.use_async_envs=false",
            f"--output_dir={tmp_path}",
        )

    assert any("still without actions" in line for line in said)


@pytest.mark.sim
def test_the_simulated_arm_is_an_environment(lerobot_eval, tmp_path: Path):
    """Two arms at once, the expert behind a server: both cubes are picked up; the link's figures are there."""
    info = tmp_path / "eval_info.json"
    with WebsocketPolicyServer(ExpertPolicy(), host="127.0.0.1", port=0) as server:
        lerobot_eval(
            "--env.type=so101_sim",
            "--env.task=belt",
            "--policy.type=pi05_websocket",
            f"--policy.websocket_url={server.url}",
            "--policy.action_horizon=25",
            f"--policy.summary_file={info}",
            "--eval.batch_size=2",
            "--eval.n_episodes=2",
            "--eval.use_async_envs=false",
            f"--output_dir={tmp_path}",
        )
    gc.collect()  # lerobot-eval ends with its process; here its policy does

    found = json.loads(info.read_text())
    assert found["overall"]["pc_success"] == 100.0
    link = found["remote_policy"]
    assert link["held_ticks"] == 0
    assert link["ticks"] > 60
    assert link["exchanges"]["accepted"] >= 4
    assert link["round_trip_ms"]["p50"] > 0


@pytest.mark.sim
def test_an_environment_repeats_and_ends():
    """The same seed is the same cube; without motion an episode ends after its time, and is none."""
    world = SO101SimEnv(task="cube", episode_s=0.2)
    first, info = world.reset(seed=3)
    again, _ = world.reset(seed=3)
    other, _ = world.reset()
    steps = [world.step(first["agent_pos"].astype(np.float32)) for _ in range(6)]

    assert info == {"is_success": False}
    assert np.array_equal(first["pixels"]["realsense"], again["pixels"]["realsense"])
    assert not np.array_equal(first["pixels"]["realsense"], other["pixels"]["realsense"])
    assert [(terminated, truncated) for _, _, terminated, truncated, _ in steps] == [
        *[(False, False)] * 5,
        (False, True),
    ]
    assert world.render().shape == (480, 640, 3)
    assert world.observation_space.contains(first)
    world.close()


@pytest.mark.sim
def test_several_environments_may_have_processes_of_their_own():
    """As `lerobot-eval` does unless it is told otherwise."""
    made = SO101SimEnvConfig(task="belt", belt_speed=0.02).create_envs(2, use_async_envs=True)
    vector = made["so101_sim"][0]
    try:
        seen, _ = vector.reset(seed=[0, 1])
        assert seen["agent_pos"].shape == (2, 6)
        assert (
            vector.call("task_description")
            == ("Pick up the red cube from the belt, which moves left at 2 cm/s.",) * 2
        )
    finally:
        vector.close()


@pytest.mark.sim
@pytest.mark.parametrize("bad", [{"task": "juggle"}, {"fps": 0}, {"episode_s": 0.0}])
def test_impossible_environments_are_refused(bad: dict[str, object]):
    """By name."""
    with pytest.raises(ConfigError):
        SO101SimEnv(**bad)  # type: ignore[arg-type]
