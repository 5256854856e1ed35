# SPDX-License-Identifier: Apache-2.0
"""LeRobot's own `lerobot-rollout` drives an arm through the plugin: the real thing, in this process."""

from __future__ import annotations

import json
import shlex
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_lerobot import START, FakeArm

from pi05_websocket.cli.serve import ServeCommand, welcome
from pi05_websocket.cli.serve_policy import PolicyChoice
from pi05_websocket.recording.contents import open_recording
from pi05_websocket.server import WebsocketPolicyServer
from pi05_websocket.server.loading import load_policy

pytestmark = [
    pytest.mark.lerobot,
    pytest.mark.timeout(120),
    # LeRobot and its dependencies warn about themselves.
    pytest.mark.filterwarnings("default"),
]

POLICY = "--policy.type=pi05_websocket"


def pans(arm) -> list[float]:
    """Return the commanded shoulder angles in order."""
    return [action["shoulder_pan.pos"] for _, action in arm.sent]


class TestSync:
    def test_drives_the_arm_through_every_row(self, served, arm, lerobot_rollout_main):
        """Rows follow each other one by one from the measured pose on: no jump, no hold, no repeat."""
        _, url = served(delay_s=0.1)

        lerobot_rollout_main(POLICY, f"--policy.websocket_url={url}", "--duration=2.5")

        commanded = pans(arm())
        steps = np.diff([START[0], *commanded])
        assert len(commanded) > 20
        assert steps.max() <= 4  # at most the rows a late loop may skip
        assert (steps > 0).mean() > 0.9
        assert arm().disconnected

    def test_observation_is_the_missions(self, served, arm, lerobot_rollout_main):
        """Keys, shapes and dtypes as OpenPI's server expects them, pixels unchanged."""
        policy, url = served()

        lerobot_rollout_main(POLICY, f"--policy.websocket_url={url}", "--duration=0.5")

        first = policy.observations[0]
        assert {key: (value.shape, value.dtype.str) for key, value in first.items()} == {
            "observation/images/wrist2": ((224, 224, 3), "|u1"),
            "observation/images/realsense": ((480, 640, 3), "|u1"),
            "observation/state": ((6,), "<f4"),
            "prompt": ((), "<U16"),
        }
        assert first["observation/images/wrist2"].flat[0] == 50
        assert first["observation/state"].tolist() == list(START)
        assert policy.prompts == ["pick up the cube"]

    def test_action_horizon_is_the_rows_between_takeovers(
        self, served, arm, lerobot_rollout_main, tmp_path: Path
    ):
        """With action_horizon=8 a chunk is left after eight ticks."""
        _, url = served(rows=50)
        trace = tmp_path / "trace.jsonl"

        lerobot_rollout_main(
            POLICY,
            f"--policy.websocket_url={url}",
            "--policy.action_horizon=8",
            f"--policy.trace_file={trace}",
            "--duration=2",
        )

        ticks = [line for line in map(json.loads, trace.read_text().splitlines()) if "row" in line]
        starts = [
            line["tick"] for i, line in enumerate(ticks) if i and line["seq"] != ticks[i - 1]["seq"]
        ]
        assert len(starts) >= 4
        assert set(np.diff(starts[1:])) <= {8, 9, 10}

    def test_server_that_comes_later_is_waited_for_with_the_arm_still(
        self, scripted, arm, lerobot_rollout_main
    ):
        """Refused at first: the measured pose is held, the first chunk moves it, no call blocks."""
        server = scripted(lambda connection: answer_counting(connection))
        server.stop()
        FakeArm.at_send[10] = server.start

        lerobot_rollout_main(POLICY, f"--policy.websocket_url={server.url}", "--duration=4")

        commanded = pans(arm())
        held = [value for value in commanded if value == START[0]]
        assert len(held) >= 10
        assert commanded[: len(held)] == held
        assert commanded[-1] > 10
        gaps = np.diff([when for when, _ in arm().sent])
        assert gaps.max() < 1.0

    def test_outage_holds_the_last_target_and_recovers(self, scripted, arm, lerobot_rollout_main):
        """A server restart in mid-run: rows run out, the last one is held, then it goes on from there."""
        server = scripted(lambda connection: answer_counting(connection))
        FakeArm.at_send[20] = lambda: (server.stop(), threading.Timer(2.0, server.start).start())

        lerobot_rollout_main(POLICY, f"--policy.websocket_url={server.url}", "--duration=5")

        commanded = pans(arm())
        steps = np.diff(commanded)
        assert (steps == 0).sum() >= 10
        assert steps.max() <= 4
        assert steps[-5:].sum() > 0

    def test_policy_errors_hold(self, served, arm, lerobot_rollout_main, said):
        """A server that fails on every observation never moves the arm; its last line is in the log."""
        policy, url = served()
        policy.change = lambda actions: 1 / 0

        lerobot_rollout_main(POLICY, f"--policy.websocket_url={url}", "--duration=1.5")

        assert set(pans(arm())) == {START[0]}
        assert "ZeroDivisionError" in "\n".join(said)

    @pytest.mark.parametrize("width", [5, 7])
    def test_wrong_width_never_reaches_the_arm(
        self, served, arm, lerobot_rollout_main, said, width
    ):
        """LeRobot would cut a seventh value silently; here it is an invalid reply."""
        _, url = served(width=width)

        lerobot_rollout_main(POLICY, f"--policy.websocket_url={url}", "--duration=1")

        assert set(pans(arm())) == {START[0]}
        assert f"expected 6 values for each tick, got {width}" in "\n".join(said)

    def test_renamed_cameras(self, served, arm, lerobot_rollout_main):
        """A robot that calls its cameras otherwise, mapped by a config field."""
        policy, url = served()

        lerobot_rollout_main(
            POLICY,
            f"--policy.websocket_url={url}",
            "--robot.camera_names=[hand, front]",
            "--policy.cameras={hand: wrist2, front: realsense}",
            "--duration=0.5",
        )

        assert "observation/images/wrist2" in policy.observations[0]

    def test_missing_camera_ends_the_run_before_motion(self, served, arm, lerobot_rollout_main):
        """The error says which cameras there are and how to name one."""
        _, url = served()

        with pytest.raises(ValueError, match="realsense") as caught:
            lerobot_rollout_main(
                POLICY,
                f"--policy.websocket_url={url}",
                "--robot.camera_names=[wrist2, top]",
                "--duration=1",
            )

        assert "--policy.cameras='{top: " in str(caught.value)
        assert arm().sent == []

    def test_wrong_setting_gives_its_reason(self, lerobot_rollout_main, said):
        """LeRobot answers every refused setting with the same sentence; ours is in the log before it."""
        with pytest.raises(BaseException):  # noqa: B017  # argparse's exit, or draccus' own
            lerobot_rollout_main(POLICY, "--policy.websocket_url=http://localhost:8000")

        assert any("Did you mean ws://localhost:8000" in line for line in said)

    def test_torch_compile_is_harmless(self, served, arm, lerobot_rollout_main):
        """`--use_torch_compile=true` compiles nothing: a network call cannot be."""
        _, url = served()

        lerobot_rollout_main(
            POLICY, f"--policy.websocket_url={url}", "--use_torch_compile=true", "--duration=1"
        )

        assert len(pans(arm())) > 10


class TestSavedConfig:
    def test_folder_with_config_and_no_weights(
        self, served, arm, lerobot_rollout_main, tmp_path: Path
    ):
        """`--policy.path=DIR`: config and processors are all there is, and `--rename_map` works."""
        from lerobot.policies.factory import make_pre_post_processors

        from lerobot_policy_pi05_websocket import PI05WebSocketConfig
        from lerobot_policy_pi05_websocket.modeling_pi05_websocket import PI05WebSocketPolicy

        policy, url = served()
        config = PI05WebSocketConfig(websocket_url="ws://127.0.0.1:1")
        PI05WebSocketPolicy(config).save_pretrained(tmp_path)
        for pipeline in make_pre_post_processors(config):
            pipeline.save_pretrained(tmp_path)

        lerobot_rollout_main(
            f"--policy.path={tmp_path}",
            f"--policy.websocket_url={url}",
            "--robot.camera_names=[wrist2, front]",
            "--rename_map={observation.images.front: observation.images.realsense}",
            "--duration=1",
        )

        assert not (tmp_path / "model.safetensors").exists()
        assert len(policy.observations) > 0
        assert pans(arm())[-1] > START[0] + 5


class TestRecording:
    def test_episodes_become_an_ordinary_dataset(
        self, served, arm, lerobot_rollout_main, tmp_path: Path
    ):
        """`--strategy.type=episodic` records what the policy did; a reset lies between the episodes."""
        from lerobot.datasets import LeRobotDataset

        _, url = served()
        root = tmp_path / "dataset"

        lerobot_rollout_main(
            POLICY,
            f"--policy.websocket_url={url}",
            "--strategy.type=episodic",
            "--dataset.repo_id=me/rollout_cube",
            f"--dataset.root={root}",
            "--dataset.num_episodes=2",
            "--dataset.episode_time_s=1.5",
            "--dataset.reset_time_s=0.3",
            "--dataset.push_to_hub=false",
            "--dataset.single_task=pick up the cube",
            f"--policy.record={tmp_path / 'recordings'}",
        )

        dataset = LeRobotDataset("me/rollout_cube", root=root)
        assert dataset.num_episodes == 2
        assert dataset.meta.features["action"]["shape"] == (6,)
        assert dataset[0]["observation.images.realsense"].shape == (3, 480, 640)
        assert dataset[0]["task"] == "pick up the cube"
        assert trains_on(root, "me/rollout_cube", tmp_path / "training")
        assert not [name for name in dataset.meta.features if "record" in name]
        recording = open_recording(tmp_path / "recordings")
        lines = list(recording.lines())
        commanded = np.array([line["values"] for line in lines if line["kind"] == "tick"])
        rows = dataset.hf_dataset.with_format("numpy")["action"]
        for row in rows:
            assert np.abs(commanded - row).sum(axis=1).min() < 1e-2, "what was commanded"
        assert sum(line["kind"] == "episode" for line in lines) >= 2
        assert recording.settings["keymap"] == "so101"
        first = next(recording.answered()).observation()
        assert first["observation/images/realsense"].shape == (480, 640, 3)
        (sent,) = frames_as_sent(root, 1)
        assert sent["observation/images/realsense"].shape == (480, 640, 3)
        assert sent["prompt"] == "pick up the cube"

    def test_sentry_records_without_episodes(
        self, served, arm, lerobot_rollout_main, tmp_path: Path
    ):
        """`--strategy.type=sentry` records all the time; what it leaves is as ordinary a data set."""
        from lerobot.datasets import LeRobotDataset

        _, url = served()
        root = tmp_path / "dataset"

        lerobot_rollout_main(
            POLICY,
            f"--policy.websocket_url={url}",
            "--strategy.type=sentry",
            "--duration=3",
            "--dataset.streaming_encoding=true",
            "--dataset.repo_id=me/rollout_sentry",
            f"--dataset.root={root}",
            "--dataset.push_to_hub=false",
            "--dataset.single_task=pick up the cube",
        )

        dataset = LeRobotDataset("me/rollout_sentry", root=root)
        assert dataset.num_episodes == 1
        assert len(dataset) > 30
        recorded = np.array(dataset.hf_dataset.with_format("numpy")["action"])[:, 0]
        sent = np.array(pans(arm()))
        nearest = np.abs(recorded[:, None] - sent[None]).min(axis=1)
        assert nearest.max() < 1e-3, "what was commanded"

    def test_a_person_takes_over_and_gives_back(
        self, served, arm, lerobot_rollout_main, tmp_path: Path, monkeypatch
    ):
        """`--strategy.type=dagger`: pause, correct by hand, go on; the policy begins where the arm was left."""
        from lerobot.datasets import LeRobotDataset
        from lerobot.rollout.strategies import dagger

        _, url = served()
        root = tmp_path / "dataset"
        keys = dagger.DAggerKeyboardConfig()

        class Listener:
            def stop(self) -> None:
                """Nothing listens."""

        def listen(dispatch: Any, **_: Any) -> Listener:
            presses = (keys.pause_resume, keys.correction, keys.correction, keys.pause_resume)
            for after_s, key in zip((1.5, 2.5, 5.5, 6.5), presses, strict=True):
                threading.Timer(after_s, dispatch, (key,)).start()
            return Listener()

        monkeypatch.setattr(dagger, "create_key_listener", listen)
        lerobot_rollout_main(
            POLICY,
            f"--policy.websocket_url={url}",
            "--strategy.type=dagger",
            "--strategy.num_episodes=5",
            "--teleop.type=fake_leader",
            "--duration=9",
            "--dataset.repo_id=me/rollout_dagger",
            f"--dataset.root={root}",
            "--dataset.push_to_hub=false",
            "--dataset.single_task=pick up the cube",
        )

        commanded = pans(arm())
        assert commanded[-1] > commanded[len(commanded) // 2], "the policy goes on after the person"
        # The policy's own step is 1, the person's half of that; LeRobot slides between them in two seconds.
        assert np.abs(np.diff(commanded)).max() < 4.5
        dataset = LeRobotDataset("me/rollout_dagger", root=root)
        assert dataset.num_episodes == 1
        assert all(dataset.hf_dataset.with_format("numpy")["intervention"])


def frames_as_sent(root: Path, most: int) -> list[dict[str, Any]]:
    """Return frames of a data set as a policy sees them, as `pi05-websocket audit-images` reads them."""
    from lerobot_policy_pi05_websocket.dataset_frames import observations
    from pi05_websocket.presets import preset

    return list(observations(root, preset("so101"), most))


def trains_on(root: Path, repo_id: str, out: Path) -> bool:
    """Let LeRobot's trainer take two steps on a recorded data set; say whether it left a checkpoint."""
    from lerobot.configs.default import DatasetConfig
    from lerobot.configs.train import TrainPipelineConfig
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.scripts import lerobot_train

    act = ACTConfig(
        device="cpu",
        push_to_hub=False,
        chunk_size=10,
        n_action_steps=10,
        pretrained_backbone_weights=None,
        dim_model=32,
        n_heads=2,
        dim_feedforward=64,
        n_encoder_layers=1,
        use_vae=False,
    )
    config = TrainPipelineConfig(
        dataset=DatasetConfig(repo_id, root=str(root)),
        policy=act,
        output_dir=out,
        steps=2,
        batch_size=2,
        num_workers=0,
        save_freq=2,
        env_eval_freq=0,
    )
    before, sys.argv = sys.argv, sys.argv[:1]  # LeRobot reads the command line once more
    try:
        lerobot_train.train(config)
    finally:
        sys.argv = before
    return (out / "checkpoints" / "last" / "pretrained_model" / "model.safetensors").exists()


class TestRtc:
    RTC = ("--inference.type=rtc", "--inference.queue_threshold=15")

    def test_first_command_is_the_first_row(self, served, arm, lerobot_rollout_main):
        """LeRobot's engine drops as many rows as the first chunk took; the arm would jump over them."""
        _, url = served(rows=50, delay_s=0.3)

        lerobot_rollout_main(POLICY, f"--policy.websocket_url={url}", *self.RTC, "--duration=3")

        commanded = pans(arm())
        assert commanded[0] <= START[0] + 2
        assert len(commanded) > 20
        assert np.diff(commanded).max() < 12

    def test_chunk_shorter_than_the_delay_still_moves(
        self, served, arm, lerobot_rollout_main, said
    ):
        """LeRobot's engine would drop every such chunk whole and never move at all."""
        _, url = served(rows=5, delay_s=0.4)

        lerobot_rollout_main(POLICY, f"--policy.websocket_url={url}", *self.RTC, "--duration=4")

        commanded = pans(arm())
        assert commanded
        assert commanded[-1] > START[0] + 4
        assert "the queue ran dry" in "\n".join(said)

    def test_outage_sends_nothing_and_recovers(self, scripted, arm, lerobot_rollout_main):
        """The engine ends after ten errors in a row; a down link must not be one each."""
        server = scripted(lambda connection: answer_counting(connection))
        FakeArm.at_send[20] = lambda: (server.stop(), threading.Timer(3.0, server.start).start())

        lerobot_rollout_main(
            POLICY, f"--policy.websocket_url={server.url}", *self.RTC, "--duration=7"
        )

        times = np.array([when for when, _ in arm().sent])
        assert np.diff(times).max() > 1.0
        assert np.diff(pans(arm())).max() <= 6

    def test_says_once_what_this_server_does_not_do(self, served, arm, lerobot_rollout_main, said):
        """A stock server takes no prefix: said in one line."""
        _, url = served(rows=50)

        lerobot_rollout_main(POLICY, f"--policy.websocket_url={url}", *self.RTC, "--duration=2")

        assert len([line for line in said if "does not take a prefix" in line]) == 1

    def test_zero_fallback_is_refused(self, served, arm, lerobot_rollout_main):
        """The engine sends nothing without a chunk, so zeros cannot be had."""
        _, url = served()

        with pytest.raises(ValueError, match=r"inference\.type=sync"):
            lerobot_rollout_main(
                POLICY, f"--policy.websocket_url={url}", *self.RTC, "--policy.fallback=zero"
            )


def answer_counting(connection) -> None:
    """Serve thirty rows that go on from the state, twenty milliseconds each."""
    import time

    from misbehaving import METADATA

    from pi05_websocket.wire import codec

    connection.send(METADATA)
    for message in connection:
        time.sleep(0.02)
        state = np.asarray(codec.decode(message)["observation/state"], np.float64)
        connection.send(codec.encode({"actions": state + np.arange(1, 31)[:, None]}))


def test_a_lerobot_checkpoint_drives_the_arm_with_the_flags_its_server_prints(
    checkpoints, arm, lerobot_rollout_main
):
    """Its own keys and sizes, as they stand after "on the robot:"; the default key map does not have them."""
    pytest.importorskip("transformers", reason="needs the extra `serve`")
    spec = f"lerobot:{checkpoints('act')}?observation.images.front=observation/images/realsense"
    command = ServeCommand(choice=PolicyChoice(policy=spec), port=0)
    with WebsocketPolicyServer(load_policy(spec), port=0) as server:
        flags = shlex.split(welcome(command, server).partition("on the robot: ")[2])
        assert '--policy.cameras={realsense: "observation/images/realsense pad 40x48"}' in flags
        lerobot_rollout_main(*flags, "--duration=1.5")
    assert len(arm().sent) > 20
    assert len(set(pans(arm()))) > 5  # it moves: rows of the policy, and no hold
