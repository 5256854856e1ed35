# SPDX-License-Identifier: Apache-2.0
"""OpenPI training configs of an SO-101: pi0.5, pi0.5 with LoRA, pi0.

In: the settings below, a LeRobot data set (in the version OpenPI reads). Out: `TrainConfig`s for OpenPI's
compute_norm_stats.py, train.py and serve_policy.py. Belongs into an OpenPI checkout as
`src/openpi/training/misc/so101_config.py`; README.md beside this file says how. Those scripts find a config by
its name and two of them take no further settings, so they are constants here and not flags.
Imported at the end of `openpi.training.config`, whose classes it needs: import that one, never this one first.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import openpi.models.model as _model
import openpi.models.pi0_config as pi0_config
import openpi.policies.so101_policy as so101_policy
import openpi.training.config as _config
import openpi.training.weight_loaders as weight_loaders
import openpi.transforms as _transforms

__all__ = ["LeRobotSO101DataConfig", "get_so101_configs"]

REPO_ID = "you/so101_pick"
"""The data set's name. The norm stats are filed under it, in the checkpoint too: serve with the name the policy
was trained with."""

BASE_CAMERA = "realsense"
"""The data set's camera that looks at the scene, without `observation.images.`."""

WRIST_CAMERA: str | None = "wrist2"
"""The data set's camera at the gripper; None for a policy without one."""

UNITS = "degrees, gripper 0..100"
"""What the data set counts in, in words. Nothing is converted here; the server tells it in its metadata."""

ACTION_HORIZON = 50
"""Rows of a chunk: 1.7 s at 30 fps. Longer bridges a slower network, shorter trains faster."""


@dataclasses.dataclass(frozen=True)
class LeRobotSO101DataConfig(_config.DataConfigFactory):
    """How a data set that LeRobot recorded with an SO-101 becomes what the model is trained on."""

    base_camera: str = BASE_CAMERA
    """The data set's camera that looks at the scene."""

    wrist_camera: str | None = WRIST_CAMERA
    """The data set's camera at the gripper, None if there is none."""

    use_delta_joint_actions: bool = True
    """Train on actions relative to the state, but for the gripper, and give the robot absolute ones. False for
    data sets whose actions are relative already."""

    default_prompt: str | None = None
    """The prompt of requests that have none."""

    action_sequence_keys: Sequence[str] = ("action",)
    """The data set's column of actions: LeRobot's name, not OpenPI's."""

    def create(
        self, assets_dirs: pathlib.Path, model_config: _model.BaseModelConfig
    ) -> _config.DataConfig:
        """Return the transforms from the data set to the model, and from the model to the robot."""
        base = self.create_base_config(assets_dirs, model_config)
        # Applied to the data set only: its names become the keys the robot sends.
        structure = {
            "observation/images/realsense": f"observation.images.{self.base_camera}",
            "observation/state": "observation.state",
            "actions": "action",
        }
        if self.wrist_camera is not None:
            structure["observation/images/wrist2"] = f"observation.images.{self.wrist_camera}"
        if base.prompt_from_task:
            structure["prompt"] = "prompt"
        # Applied to the data set and to what the robot sends.
        data_transforms = _transforms.Group(
            inputs=[
                so101_policy.SO101Inputs(
                    model_type=model_config.model_type, wrist=self.wrist_camera is not None
                )
            ],
            outputs=[so101_policy.SO101Outputs()],
        )
        if self.use_delta_joint_actions:
            mask = _transforms.make_bool_mask(*so101_policy.DELTA_DIMS)
            # `push` puts its outputs first: absolute while the state is still there, then cut.
            data_transforms = data_transforms.push(
                inputs=[_transforms.DeltaActions(mask)],
                outputs=[_transforms.AbsoluteActions(mask)],
            )
        return dataclasses.replace(
            base,
            repack_transforms=_transforms.Group(inputs=[_transforms.RepackTransform(structure)]),
            data_transforms=data_transforms,
            model_transforms=_config.ModelTransformFactory(default_prompt=self.default_prompt)(
                model_config
            ),
            action_sequence_keys=self.action_sequence_keys,
        )


def get_so101_configs() -> list[_config.TrainConfig]:
    """Return the configs, for the list `_CONFIGS` in `openpi/training/config.py`."""
    lora = {"paligemma_variant": "gemma_2b_lora", "action_expert_variant": "gemma_300m_lora"}
    return [
        _train_config("pi05_so101", "pi05_base", pi05=True),
        _train_config("pi05_so101_low_mem", "pi05_base", pi05=True, **lora),
        _train_config("pi0_so101", "pi0_base"),
    ]


def _train_config(name: str, weights: str, **model: Any) -> _config.TrainConfig:
    """Return one config; with LoRA the base weights are frozen and nothing is averaged."""
    model_config = pi0_config.Pi0Config(action_horizon=ACTION_HORIZON, **model)
    low_memory: dict[str, Any] = {}
    if "paligemma_variant" in model:
        low_memory = {"freeze_filter": model_config.get_freeze_filter(), "ema_decay": None}
    return _config.TrainConfig(
        name=name,
        model=model_config,
        data=LeRobotSO101DataConfig(
            repo_id=REPO_ID, base_config=_config.DataConfig(prompt_from_task=True)
        ),
        weight_loader=weight_loaders.CheckpointWeightLoader(
            f"gs://openpi-assets/checkpoints/{weights}/params"
        ),
        num_train_steps=20_000,
        # What the robot is told first. Stock configs say nothing, and then nobody knows.
        policy_metadata={
            "policy": name,
            "action_horizon": ACTION_HORIZON,
            "joint_names": list(so101_policy.JOINTS),
            "units": UNITS,
        },
        **low_memory,
    )
