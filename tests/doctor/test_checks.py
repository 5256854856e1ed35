# SPDX-License-Identifier: Apache-2.0
"""The doctor's pure checks beside the seeded mistakes: what must not be called one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from mistakes import POSE

from pi05_websocket.doctor.catalogue import markdown_table
from pi05_websocket.doctor.check_answer import check_answer, check_timing
from pi05_websocket.doctor.check_cameras import check_cameras, sent_pictures
from pi05_websocket.doctor.check_dataset import Episode, Replayed, check_dataset, check_episode
from pi05_websocket.doctor.check_metadata import check_metadata
from pi05_websocket.doctor.check_robot import check_robot
from pi05_websocket.doctor.facts import AnswerFacts, CameraFacts, RobotFacts, Setup
from pi05_websocket.doctor.findings import Finding, found, passed, skipped
from pi05_websocket.doctor.table import report
from pi05_websocket.doctor.translate import translated
from pi05_websocket.presets import preset

SETUP = Setup(key_map=preset("so101"), task="pick up the cube")
CUSTOM = replace(SETUP, key_map=preset("custom"))
ROBOT = RobotFacts(pose=POSE, cameras={}, read_s=[0.001], seconds=1.0)


def answer(rows: np.ndarray, pose: np.ndarray | None = POSE, **changed: object) -> AnswerFacts:
    """Return an answer that came at once."""
    known: dict[str, object] = {
        "round_trips_s": [0.01, 0.02],
        "infer_s": None,
        "ping_s": (),
        "bytes_out": 1000,
        "metadata": {},
    }
    return AnswerFacts(rows=rows.astype(np.float32), pose=pose, **(known | changed))  # type: ignore[arg-type]


def mistakes(findings: list[Finding]) -> list[str]:
    """Return the names of what was found."""
    return [name for finding in findings for name in finding.mistakes]


class TestAnswer:
    @pytest.mark.parametrize(
        ("kind", "pose"), [("delta", POSE), ("absolute", None), ("absolute", POSE[:5])]
    )
    def test_what_cannot_be_compared_is_not_judged(self, kind, pose) -> None:
        """Differences, no robot, another width: only the shape is said."""
        rows = np.full((10, 6), 500.0)
        found_ = check_answer(answer(rows, pose), replace(SETUP, action_kind=kind))
        assert [f.outcome for f in found_] == ["passed"]

    @pytest.mark.parametrize(
        ("pose", "outcome"), [(np.zeros(6), "passed"), (POSE, "refused"), (None, "refused")]
    )
    def test_zeros_where_the_arm_is_at_zero(self, pose, outcome) -> None:
        """They are a plan that stays; anywhere else they are none."""
        assert [f.outcome for f in check_answer(answer(np.zeros((10, 6)), pose), SETUP)] == [
            outcome
        ]

    def test_many_joints_are_not_permuted(self) -> None:
        """Of more than eight joints that are off no order is tried; a name is made up for each."""
        pose = np.arange(10, dtype=np.float32) * 37
        rows = np.tile(pose[::-1], (5, 1)) + 11
        findings = check_answer(answer(rows, pose), CUSTOM)
        assert mistakes(findings) == ["answer-far"]
        assert "joint 0 is at 0.0" in findings[0].said

    def test_radians_are_compared_in_radians(self) -> None:
        """A fifth of a radian is far where the policy counts them."""
        rows = np.tile(np.deg2rad(POSE) + 0.2, (5, 1))
        setup = replace(SETUP, policy_units="radians")
        assert mistakes(check_answer(answer(rows, np.deg2rad(POSE)), setup)) == ["answer-far"]

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({}, "jitter 10; 0.00 MB; 1 of 5"),
            (
                {"infer_s": 0.004, "ping_s": [0.001]},
                "model 4, empty message 1.0; 0.00 MB at 2 Mbit/s",
            ),
        ],
    )
    def test_time_is_told_apart_where_it_can_be(self, changed, said) -> None:
        """A server that says nothing leaves link and model in one."""
        findings = check_timing(answer(np.ones((10, 6)), **changed), SETUP)
        assert [f.outcome for f in findings] == ["passed"]
        assert said in findings[0].said


class TestRobotAndCameras:
    def test_unknown_joints_get_numbers(self) -> None:
        """Without names of the key map; nothing is said against them."""
        findings = check_robot(ROBOT, CUSTOM)
        assert [f.outcome for f in findings] == ["passed", "passed"]
        assert findings[0].said.startswith("joint 0 12.0")

    def test_no_cameras_are_needed(self) -> None:
        """A key map without any has nothing to show."""
        assert [f.outcome for f in check_cameras(ROBOT, CUSTOM)] == ["passed"]

    def test_simulated_cameras_may_stand_still(self) -> None:
        """They have no noise; and pictures of another layout are shown rows first."""
        image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
        cameras = {"cam_high": CameraFacts(image=image, distinct=1)}
        robot = replace(ROBOT, cameras=cameras, read_s=[0.001] * 9, noiseless=True)
        setup = replace(SETUP, key_map=preset("so101_aloha"))
        assert "camera-frozen" not in mistakes(check_cameras(robot, setup))
        assert sent_pictures(robot, setup)["images.cam_high"].shape == (224, 224, 3)


ROBOARENA = {"n_external_cameras": 2, "needs_session_id": True, "action_space": "joint_position"}


class TestMetadata:
    @pytest.mark.parametrize(
        "metadata",
        [
            {},
            {"image_sizes": {"observation/images/wrist2": [224, 224], "other": 1}},
            {"image_sizes": {"observation/images/wrist2": "large"}},
            {"action_dim": True, "control_hz": float("nan"), "action_names": [1, 2]},
            {"action_names": ["shoulder_pan"], "observation_keys": ["observation/state", "prompt"]},
            {"needs_session_id": np.ones(2), "object": np.ones(2), "action_keys": np.ones(2)},
            {"image_sizes": {"observation/images/wrist2": [np.ones(2), 224]}},
        ],
    )
    def test_strangers_words_are_no_errors(self, metadata) -> None:
        """What agrees, says nothing, or makes no sense, refuses nobody."""
        assert [f.outcome for f in check_metadata(metadata, SETUP)] == ["passed"]

    def test_an_escape_sequence_is_written_out(self) -> None:
        """Where a server's words are shown, a terminal does not obey them."""
        joints = [f"\x1b[{number}m" for number in range(6)]
        (finding,) = check_metadata({"action_names": joints}, SETUP)
        assert finding.said.isprintable()
        assert finding.fix.isprintable()
        (finding,) = check_metadata({"\x1b[2J": 1}, SETUP)
        assert finding.said == "agrees: \\x1b[2J"


class TestWords:
    @pytest.mark.parametrize(
        ("metadata", "dialect", "outcome"),
        [
            (ROBOARENA, "auto", "passed"),
            (ROBOARENA, "roboarena", "passed"),
            (ROBOARENA, "dreamzero", "passed"),  # its metadata looks the same
            (ROBOARENA, "openpi", "refused"),
            (ROBOARENA, "sglang", "refused"),
            ({"needs_session_id": True}, "auto", "refused"),  # whose it is is not certain
            ({"needs_session_id": True}, "roboarena", "passed"),  # a person has said it
            ({}, "starvla", "passed"),
        ],
    )
    def test_dialects(self, metadata, dialect, outcome) -> None:
        """Other families are no mistake where we speak as they do."""
        findings = check_metadata(metadata, replace(SETUP, dialect=dialect))
        assert [f.outcome for f in findings] == [outcome]
        assert all(f.mistakes == ("dialect-other",) for f in findings if outcome == "refused")

    def test_a_missing_prompt_by_its_key(self) -> None:
        """Servers without OpenPI's message say KeyError."""
        assert translated("KeyError: 'prompt'", SETUP.key_map).mistakes == ("prompt-required",)

    def test_presets_are_chosen_by_joints(self) -> None:
        """Of two presets with a key the one for six joints."""
        text = "KeyError: 'observation/image'"
        assert "so101_as_libero" in translated(text, SETUP.key_map, 6).fix
        assert "--keymap libero " not in translated(text, SETUP.key_map, 6).fix
        assert translated(text, SETUP.key_map).fix.startswith(
            "Choose a key map that has the key, libero or so101_as_libero: --keymap NAME"
        )

    def test_a_key_that_most_presets_have(self) -> None:
        """Three are named at most, each once, those for the robot's joints."""
        for joints, names in ((None, "so101, libero or so101_pr968"), (8, "libero")):
            fix = translated("KeyError: 'observation/state'", preset("droid"), joints).fix
            assert f" {names}" in fix
            assert sum(fix.count(name) for name in ("so100_phospho", "custom", "ur5")) == 0

    @pytest.mark.parametrize(
        ("key", "text", "mistake", "fix"),
        [
            (
                "observation/images/front",
                "the policy's input observation.images.front, got the keys prompt",
                "keys-of-another-policy",
                "--keymap so101_pr968",
            ),
            (
                "observation/images/chest",
                "a uint8 array of shape (224, 224, 3), got nothing",
                "keys-nobody-knows",
                "--cameras MY_CAMERA 'observation/images/chest pad HEIGHTxWIDTH'",
            ),
            (
                "observation/images/realsense",
                "an image of 240 x 320 pixels, as in the data set, got 480 x 640",
                "image-layout",
                "--cameras realsense 'observation/images/realsense pad 240x320'",
            ),
            (
                "observation/images/chest",
                "uint8 (224, 256, 3), got float32 (224, 256, 3)",
                "image-layout",
                "--cameras MY_CAMERA 'observation/images/chest pad 224x256'",
            ),
            (
                "observation/state",
                "7 numbers, got float32 (6,)",
                "state-width-for-stats",
                "norm stats",
            ),
            ("prompt", "text, got list", "server-error", "Send prompt as that line says"),
        ],
    )
    def test_what_a_server_says_of_an_entry(self, key, text, mistake, fix) -> None:
        """Its cure is named, and nobody is sent to the server's log."""
        error = f"pi05_websocket.errors.ObservationError: observation[{key!r}]: expected {text}"
        finding = translated(error, SETUP.key_map)
        assert finding.mistakes == (mistake,)
        assert fix in finding.fix
        assert "log" not in finding.fix

    def test_table(self) -> None:
        """A line for each finding, its fix below, and what it comes to."""
        fine = passed("server", "it is there")
        left = skipped("robot", "needs a robot", "Name it with --robot.")
        look = found("prompt", "prompt-missing", "no task is given")
        wrong = found("answer", "answer-of-zeros", "zeros")

        assert "server     ok          it is there" in report([fine])
        assert report([fine]).endswith("Nothing speaks against a careful first motion.")
        assert "-> Name it with --robot." in report([fine, left])
        assert "Look at what is marked LOOK" in report([fine, look])
        assert report([fine, look, wrong]).endswith("Do not let the arm move yet.")

    def test_page(self) -> None:
        """A row for each mistake."""
        assert "| `answer-sign` |" in markdown_table()


class TestDataset:
    WAY = np.linspace(0, 30, 40)[:, None] + np.arange(6) * 9.0

    def judged(self, predicted: np.ndarray, setup: Setup = SETUP) -> list[Finding]:
        """Compare with a way that began at its first row."""
        pose = np.tile(self.WAY[:1], (40, 1))
        return check_dataset(Replayed(predicted=predicted, recorded=self.WAY, pose=pose), setup)

    def test_near(self) -> None:
        """A policy that does what was done; joints without names get numbers."""
        assert "shoulder_pan 0.0" in self.judged(self.WAY)[0].said
        assert "joint 0 0.0" in self.judged(self.WAY, CUSTOM)[0].said

    def test_what_nothing_explains(self) -> None:
        """A joint that stands elsewhere, moves at random, or twice as far: only that it is far is said."""
        still, noisy, twice = self.WAY.copy(), self.WAY.copy(), self.WAY.copy()
        still[:, 1] = 400.0
        noisy[:, 1] = np.random.default_rng(0).normal(0, 90, 40)
        twice[:, 1] = 3 * self.WAY[:, 1] + 50
        for predicted in (still, noisy, twice):
            assert mistakes(self.judged(predicted)) == ["dataset-far"]

    def test_shares(self) -> None:
        """A gripper of 0 to 1 where 0 to 100 was recorded."""
        predicted = self.WAY.copy()
        predicted[:, 5] /= 100
        (finding,) = self.judged(predicted)
        assert finding.mistakes == ("dataset-units",)
        assert "gripper" in finding.said

    def test_offset_is_what_the_policy_says_more(self) -> None:
        """As `joint_offsets` wants it."""
        predicted = self.WAY.copy()
        predicted[:, 2] += 90
        fix = self.judged(predicted)[0].fix
        assert fix.startswith("--policy.joint_offsets='{elbow_flex: 90}' with LeRobot")

    def test_no_task_is_not_another_one(self) -> None:
        """Without a task the data set's own is sent."""
        episode = Episode(
            states=np.zeros((1, 6), np.float32),
            actions=np.zeros((1, 6), np.float32),
            images=lambda _: {},
            fps=30.0,
            tasks=["pick"],
        )
        assert check_episode(episode, replace(SETUP, task="")) == []
