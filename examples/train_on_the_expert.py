# SPDX-License-Identifier: Apache-2.0
"""Train a small policy on what the simulator's expert does, with LeRobot's own trainer, on a CPU.

    RECIPE=examples/train_on_the_expert.py
    python $RECIPE record --out outputs/learned/data
    python $RECIPE train smolvla --data outputs/learned/data --out outputs/learned/smolvla
    python $RECIPE train act --data outputs/learned/data --out outputs/learned/act

Then the checkpoint is served like any other, or measured against distance:

    pi05-websocket bench latency --policy lerobot:outputs/learned/smolvla/checkpoints/last/pretrained_model

`record` writes an ordinary LeRobot data set (v3): two cameras of 96 x 96 pixels, six joints, and as action the
joints that the expert commanded, in degrees. An episode of the simulator becomes several of the data set: now
and then somebody pushes the arm, which nobody should learn, and a new one begins where it ends up.

`train` calls `lerobot-train` in this process, with all frames decoded in memory: on one core the decoding of
pictures would take longer than the network. SmolVLA is LeRobot's class with a vision-language model of a
million weights instead of 500 million, from scratch.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.scripts import lerobot_train
from tokenizers import Tokenizer, models, pre_tokenizers
from torchvision.ops.misc import FrozenBatchNorm2d
from transformers import (
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from pi05_websocket.camera_map import CameraMap
from pi05_websocket.data import Float32Array, Observation
from pi05_websocket.presets import preset
from pi05_websocket.sim.arm import GRIPPER, JOINTS, forward
from pi05_websocket.sim.camera import REALSENSE, WRIST
from pi05_websocket.sim.episodes import EpisodeRules
from pi05_websocket.sim.expert import ExpertPolicy
from pi05_websocket.sim.so101 import SimConfig, SimSO101
from pi05_websocket.sim.tasks import TASKS
from pi05_websocket.testing import FakeClock

HZ = 30
SIDE = 96
"""Of both images, pixels: the cube is 6 pixels wide in the front image, one pixel is 4 mm on the table."""
REPO_ID = "local/expert"
FIRST_SEED = 100_000
"""The benchmark's cubes, seeds 0 to 499, are not among those that are learned from."""

LIMIT = 240
"""Ticks after which an episode is given up and thrown away."""
AFTERWARDS = 20
"""Ticks recorded after success: rows for the chunks of the last frames before it."""
SWERVE = 2.5
"""Standard deviation of how far an executed command strays from the label, degrees, in the middle of a plan."""
PUSH = 10.0
"""Standard deviation of where a push takes a joint, degrees."""


class Recorder:
    """Lets the expert work in the simulated arm, on a virtual clock, and writes down what it commands."""

    def __init__(self, task: str, data: LeRobotDataset) -> None:
        self._clock = FakeClock()
        rules = EpisodeRules(next_episode="never", time_limit_s=2 * LIMIT / HZ, settle_s=5.0)
        config = SimConfig(task=TASKS[task], rules=rules, render="demand")
        self._sim = SimSO101(config, clock=self._clock)
        self._data = data
        self._keys = preset("so101")
        self._expert = ExpertPolicy()
        self._small = {
            camera: CameraMap(policy_key=camera, fit="crop", height=SIDE, width=SIDE)
            for camera in (WRIST, REALSENSE)
        }

    def episode(self, seed: int) -> bool:
        """Record one cube; return whether it was picked up. What was not is thrown away."""
        random = np.random.default_rng(seed)
        self._sim.reset(seed)
        parts: list[list[dict[str, Any]]] = [[]]
        pushes = set(random.integers(0, 75, size=random.integers(0, 3)).tolist())
        plan: Float32Array | None = None
        executed: Float32Array = np.zeros((1, len(JOINTS)), np.float32)
        left, row = AFTERWARDS, 0
        for tick in range(LIMIT):
            if tick in pushes:
                self._push(random)
                parts.append([])
                plan = None
            images, state = self._look()
            if plan is None or row == len(executed):
                # From where the plan before it ended, so that labels have no seams; the jaws as they are.
                here = state if plan is None else np.append(plan[row - 1, :GRIPPER], state[GRIPPER])
                plan = self._plan(images, here)
                executed, row = swerved(plan, random, precise=forward(here).position[2] < 0.05), 0
            parts[-1].append(self._frame(images, state, plan[row]))
            self._sim.send_action(executed[row])
            self._clock.sleep(1 / HZ)
            self._sim.get_joints()  # lets the physics follow
            row += 1
            left -= self._sim.succeeded
            if left == 0:
                break
        if self._sim.succeeded:
            for part in parts:
                self._save(part)
        return self._sim.succeeded

    def close(self) -> None:
        """Free the simulator."""
        self._sim.close()

    def _look(self) -> tuple[dict[str, Any], Float32Array]:
        seen = self._sim.get_observation()
        state = np.array([seen[f"{name}.pos"] for name in JOINTS], np.float32)
        return {camera: seen[camera] for camera in self._small}, state

    def _plan(self, images: dict[str, Any], joints: Float32Array) -> Float32Array:
        prompt = self._sim.config.task.prompt
        observation: Observation = self._keys.observation(images, joints.astype(np.float32), prompt)
        return np.asarray(self._expert.infer(observation)["actions"])

    def _frame(
        self, images: dict[str, Any], state: Float32Array, action: Float32Array
    ) -> dict[str, Any]:
        small = {
            f"observation.images.{name}": self._small[name].prepare(image)
            for name, image in images.items()
        }
        task = self._sim.config.task.prompt
        return {**small, "observation.state": state, "action": action, "task": task}

    def _push(self, random: np.random.Generator) -> None:
        joints = np.array(list(self._sim.get_joints().values()))
        there = joints + np.append(random.normal(0, PUSH, GRIPPER), 0.0)
        if random.random() < 0.3:
            there[GRIPPER] = random.uniform(0, 60)
        for share in np.linspace(0, 1, random.integers(5, 12)):
            self._sim.send_action(joints + share * (there - joints))
            self._clock.sleep(1 / HZ)

    def _save(self, part: list[dict[str, Any]]) -> None:
        if len(part) < 2:
            return
        for frame in part:
            self._data.add_frame(frame)
        self._data.save_episode()


def swerved(plan: Float32Array, random: np.random.Generator, *, precise: bool) -> Float32Array:
    """Return the first rows of a plan as they are executed: off to one side and back.

    The label stays the plan's row, so what is learned is the way back.
    """
    rows = int(random.integers(8, 25))
    off = random.normal(0, SWERVE * (0.3 if precise else 1.0), len(JOINTS))
    off[GRIPPER] = 0.0
    if random.random() < 0.4:
        off[:] = 0.0
    bump = np.sin(np.pi * np.arange(rows) / rows)[:, None]
    return (plan[:rows] + bump * off).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Record:
    """Record the expert's episodes as a LeRobot data set."""

    out: Path
    """Folder of the data set; must not exist yet."""
    cube: int = 500
    """Episodes with the cube at rest."""
    belt: int = 250
    """Episodes with the cube on the belt."""

    def run(self) -> None:
        """Record, cube and belt in turn, so that any beginning of the data set has both."""
        image = {
            "dtype": "image",
            "shape": (SIDE, SIDE, 3),
            "names": ["height", "width", "channels"],
        }
        joints = {"dtype": "float32", "shape": (len(JOINTS),), "names": list(JOINTS)}
        data = LeRobotDataset.create(
            REPO_ID,
            HZ,
            {
                f"observation.images.{WRIST}": image,
                f"observation.images.{REALSENSE}": image,
                "observation.state": joints,
                "action": joints,
            },
            root=self.out,
            robot_type="so101_sim",
            use_videos=False,
        )
        wanted = [(i / max(1, n), task) for task, n in self._counts() for i in range(n)]
        recorders = {task: Recorder(task, data) for task, n in self._counts() if n}
        lifted = 0
        for seed, (_, task) in enumerate(sorted(wanted), FIRST_SEED):
            lifted += recorders[task].episode(seed)
        for recorder in recorders.values():
            recorder.close()
        data.finalize()
        print(
            f"{lifted} of {len(wanted)} cubes, {data.num_episodes} episodes, {data.num_frames} frames"
        )

    def _counts(self) -> list[tuple[str, int]]:
        return [("cube", self.cube), ("belt", self.belt)]


class InMemory(torch.utils.data.Dataset):  # type: ignore[misc]  # torch is not looked into
    """A LeRobot data set with every frame decoded: what `lerobot-train` reads, and nothing to wait for."""

    def __init__(self, data: LeRobotDataset, chunk_size: int) -> None:
        self.meta, self.episodes = data.meta, data.episodes
        self.num_frames, self.num_episodes = data.num_frames, data.num_episodes
        self.absolute_to_relative_idx = data.absolute_to_relative_idx
        self._rows = torch.arange(chunk_size)
        table = data.hf_dataset.with_format(None)
        self._images = {
            key: torch.stack([_pixels(image) for image in table[key]])
            for key in data.meta.camera_keys
        }
        self._state, self._action = (
            torch.tensor(np.array(table[key]), dtype=torch.float32)
            for key in ("observation.state", "action")
        )
        episode = np.array(table["episode_index"])
        last = np.append(np.nonzero(np.diff(episode))[0], len(episode) - 1)
        self._last = torch.from_numpy(last[np.searchsorted(last, np.arange(len(episode)))])
        self._tasks = [data.meta.tasks.iloc[i].name for i in table["task_index"]]

    def __len__(self) -> int:
        return len(self._state)

    def some_images(self, count: int = 32) -> torch.Tensor:
        """Return images of all cameras from all over the data, `(n, 3, side, side)`, mean 0 and deviation 1."""
        chosen = torch.linspace(0, len(self) - 1, min(count, len(self))).long()
        pictures = torch.cat([images[chosen] for images in self._images.values()]).float()
        return (pictures - pictures.mean()) / pictures.std()

    def __getitem__(self, i: int) -> dict[str, Any]:
        rows = i + self._rows
        return {
            **{key: images[i] for key, images in self._images.items()},
            "observation.state": self._state[i],
            "action": self._action[rows.clamp(max=int(self._last[i]))],
            "action_is_pad": rows > self._last[i],
            "task": self._tasks[i],
        }


def _pixels(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def save_small_vlm(folder: Path) -> None:
    """Save the config of a vision-language model of a million weights, and a tokenizer of the tasks' words."""
    special = ["<pad>", "<unk>", "<s>", "</s>", "<fake>", "<image>", "<global>", "<end>"]
    split = pre_tokenizers.Whitespace()
    words = {
        word for task in TASKS.values() for word, _ in split.pre_tokenize_str(task.prompt)
    } - set(special)
    vocabulary = {word: i for i, word in enumerate([*special, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **dict(zip(("pad_token", "unk_token", "bos_token", "eos_token"), special, strict=False)),
        extra_special_tokens={
            "fake_image_token": "<fake>",
            "image_token": "<image>",
            "global_image_token": "<global>",
            "end_of_utterance_token": "<end>",
        },
    )
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(), fast, SmolVLMVideoProcessor(), image_seq_len=16, chat_template=""
    )
    processor.save_pretrained(folder)
    SmolVLMConfig(
        text_config={
            "model_type": "llama",
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "vocab_size": len(vocabulary),
            "attention_bias": False,
            "initializer_range": 0.05,
        },
        vision_config={
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": 12,
            "initializer_range": 0.05,
        },
        scale_factor=2,
        image_token_id=vocabulary["<image>"],
        pad_token_id=0,
    ).save_pretrained(folder)


def small_smolvla(vlm: Path, steps: int) -> SmolVLAConfig:
    """Return LeRobot's SmolVLA, small and all of it to be trained."""
    save_small_vlm(vlm)
    return SmolVLAConfig(
        device="cpu",
        use_amp=True,  # bfloat16 where the processor has it: up to twice as fast
        push_to_hub=False,
        vlm_model_name=str(vlm),
        num_vlm_layers=4,
        expert_width_multiplier=0.75,
        freeze_vision_encoder=False,
        train_expert_only=False,
        resize_imgs_with_padding=(SIDE, SIDE),
        max_state_dim=len(JOINTS),
        max_action_dim=len(JOINTS),
        tokenizer_max_length=24,
        num_steps=5,
        optimizer_lr=1e-3,
        optimizer_grad_clip_norm=1.0,
        scheduler_warmup_steps=min(200, steps),
        scheduler_decay_steps=steps,
        scheduler_decay_lr=2e-5,
    )


def small_act() -> ACTConfig:
    """Return LeRobot's ACT with narrow transformers; its ResNet is the smallest there is, from scratch."""
    return ACTConfig(
        device="cpu",
        use_amp=True,  # bfloat16 where the processor has it: up to twice as fast
        push_to_hub=False,
        chunk_size=50,
        n_action_steps=50,
        pretrained_backbone_weights=None,
        dim_model=128,
        n_heads=4,
        dim_feedforward=256,
        n_encoder_layers=2,
        n_vae_encoder_layers=2,
        use_vae=False,
        dropout=0.0,
        # Three times as fast diverges: the decoder begins with zeros, which its norms blow up.
        optimizer_lr=1e-4,
        optimizer_lr_backbone=1e-4,
    )


def calibrate_norms(policy: torch.nn.Module, images: torch.Tensor) -> None:
    """Give a ResNet from scratch the statistics its frozen batch norms would have come with.

    LeRobot freezes them, which is right for a trained backbone. From scratch they would let through whatever
    random convolutions make of an image: eight blocks of that, and training does not begin.

    Args:
        policy: With `FrozenBatchNorm2d` in it.
        images: `(n, 3, height, width)`, normalised.
    """

    def note(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        spread = inputs[0].var(dim=(0, 2, 3))
        module.running_mean.copy_(inputs[0].mean(dim=(0, 2, 3)))
        # A channel that hardly varies would be blown up, and its gradient with it.
        module.running_var.copy_(spread.clamp(min=0.1 * float(spread.mean())))

    norms = [module for module in policy.modules() if isinstance(module, FrozenBatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    with torch.no_grad():
        policy.model.backbone(images)  # in order: each norm sees what the ones before it make
    for hook in hooks:
        hook.remove()


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train on a recorded data set."""

    kind: Annotated[Literal["smolvla", "act"], tyro.conf.Positional]
    """smolvla: a flow policy, which can continue a running chunk (RTC) and reads the task. act: neither."""
    data: Path
    """Folder of the data set."""
    out: Path
    """Folder of the run; must not exist yet."""
    steps: int = 6000
    """Updates of the weights."""
    batch: int = 32
    """Frames in each."""
    save_every: int = 1000
    """Steps from one checkpoint to the next."""
    seed: int = 1
    """Of the weights and of the order."""

    def run(self) -> None:
        """Call LeRobot's trainer."""
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        policy = (
            small_act()
            if self.kind == "act"
            else small_smolvla(self.out.with_name(f"{self.out.name}-vlm"), self.steps)
        )
        config = TrainPipelineConfig(
            dataset=DatasetConfig(REPO_ID, root=str(self.data)),
            policy=policy,
            output_dir=self.out,
            steps=self.steps,
            batch_size=self.batch,
            num_workers=0,
            save_freq=self.save_every,
            log_freq=100,
            env_eval_freq=0,
            seed=self.seed,
        )
        make_data, make_policy = lerobot_train.make_train_eval_datasets, lerobot_train.make_policy
        made: list[InMemory] = []

        def decoded(config: TrainPipelineConfig) -> tuple[Any, Any]:
            made.append(InMemory(make_data(config)[0], policy.chunk_size))
            return made[0], None

        def calibrated(*args: Any, **kwargs: Any) -> Any:
            network = make_policy(*args, **kwargs)
            if self.kind == "act":
                calibrate_norms(network, made[0].some_images())
            return network

        lerobot_train.make_train_eval_datasets, lerobot_train.make_policy = decoded, calibrated
        sys.argv = sys.argv[:1]  # LeRobot reads the command line once more
        try:
            lerobot_train.train(config)
        finally:
            lerobot_train.make_train_eval_datasets = make_data
            lerobot_train.make_policy = make_policy


def main() -> None:
    """Run the command line."""
    tyro.cli(Record | Train, description=__doc__).run()


if __name__ == "__main__":
    main()
