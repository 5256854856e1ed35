# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the part of OpenPI that integrations/openpi uses: its rules, without jax and torch.

Written from the behaviour of Physical-Intelligence/openpi at 15a9616 (2026-06-15): transforms.py,
models/model.py, models/pi0_config.py, training/config.py, training/weight_loaders.py. Classes take exactly the
fields that are there, so that a setting OpenPI does not have is a TypeError here too.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib.util
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "integrations" / "openpi"


def load(name: str, path: Path) -> Any:
    """Import a file under a name."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


class ModelType(enum.Enum):
    """Which model."""

    PI0 = "pi0"
    PI0_FAST = "pi0_fast"
    PI05 = "pi05"


@dataclasses.dataclass(frozen=True)
class Pi0Config:
    """The model's sizes; pi0.5 has a longer prompt, because the state is part of it."""

    action_dim: int = 32
    action_horizon: int = 50
    max_token_len: int | None = None
    dtype: str = "bfloat16"
    paligemma_variant: str = "gemma_2b"
    action_expert_variant: str = "gemma_300m"
    pi05: bool = False
    discrete_state_input: bool | None = None
    pytorch_compile_mode: str | None = "max-autotune"

    @property
    def model_type(self) -> ModelType:
        """Follows from `pi05`."""
        return ModelType.PI05 if self.pi05 else ModelType.PI0

    def get_freeze_filter(self) -> str:
        """Say what is frozen; the real one is a filter of flax."""
        return f"frozen: {self.paligemma_variant}, {self.action_expert_variant}"


@dataclasses.dataclass(frozen=True)
class Group:
    """Transforms towards the model, and from it."""

    inputs: Sequence[Any] = ()
    outputs: Sequence[Any] = ()

    def push(self, *, inputs: Sequence[Any] = (), outputs: Sequence[Any] = ()) -> Group:
        """Inputs go to the end, outputs to the beginning: an onion."""
        return Group((*self.inputs, *inputs), (*outputs, *self.outputs))


@dataclasses.dataclass(frozen=True)
class RepackTransform:
    """A flat map of new key -> the data set's key; a missing one is a KeyError, all others are dropped."""

    structure: Mapping[str, str]

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Rename and select."""
        return {new: data[old] for new, old in self.structure.items()}


@dataclasses.dataclass(frozen=True)
class DeltaActions:
    """Subtracts the state from the masked columns of all rows, in place."""

    mask: Sequence[bool]
    sign: int = -1

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Change the rows of an item, if it has any."""
        if "actions" in data:
            width = len(self.mask)
            step = np.where(np.asarray(self.mask), data["state"][..., :width], 0)
            data["actions"][..., :width] += self.sign * step[..., None, :]
        return data


@dataclasses.dataclass(frozen=True)
class AbsoluteActions(DeltaActions):
    """Adds it again."""

    sign: int = 1


@dataclasses.dataclass(frozen=True)
class PadStatesAndActions:
    """Zeros up to the model's width."""

    model_action_dim: int

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Widen the last axis."""
        for key in {"state", "actions"} & set(data):
            array = data[key]
            missing = self.model_action_dim - array.shape[-1]
            data[key] = np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)])
        return data


def make_bool_mask(*dims: int) -> tuple[bool, ...]:
    """Positive: so many True, negative: so many False."""
    return tuple(dim > 0 for dim in dims for _ in range(abs(dim)))


@dataclasses.dataclass(frozen=True)
class AssetsConfig:
    """Where norm stats come from."""

    assets_dir: str | None = None
    asset_id: str | None = None


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What a data set becomes."""

    repo_id: str | None = None
    asset_id: str | None = None
    norm_stats: Any = None
    repack_transforms: Group = dataclasses.field(default_factory=Group)
    data_transforms: Group = dataclasses.field(default_factory=Group)
    model_transforms: Group = dataclasses.field(default_factory=Group)
    use_quantile_norm: bool = False
    action_sequence_keys: Sequence[str] = ("actions",)
    prompt_from_task: bool = False
    rlds_data_dir: str | None = None
    action_space: Any = None
    datasets: Sequence[Any] = ()


@dataclasses.dataclass(frozen=True)
class ModelTransformFactory:
    """The transforms after normalisation; of them only the padding matters here."""

    default_prompt: str | None = None

    def __call__(self, model_config: Pi0Config) -> Group:
        """Return what comes after normalisation."""
        return Group(inputs=[PadStatesAndActions(model_config.action_dim)])


@dataclasses.dataclass(frozen=True)
class DataConfigFactory:
    """The base class of a robot's data config."""

    repo_id: str = "missing"
    assets: AssetsConfig = dataclasses.field(default_factory=AssetsConfig)
    base_config: DataConfig | None = None

    def create_base_config(self, assets_dirs: Path, model_config: Pi0Config) -> DataConfig:
        """Norm stats are looked for under the asset id, which is the data set's name if there is none."""
        return dataclasses.replace(
            self.base_config or DataConfig(),
            repo_id=self.repo_id,
            asset_id=self.assets.asset_id or self.repo_id,
            use_quantile_norm=model_config.model_type is not ModelType.PI0,
        )


@dataclasses.dataclass(frozen=True)
class CheckpointWeightLoader:
    """Where the first weights come from."""

    params_path: str


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything about a training run."""

    name: str
    project_name: str = "openpi"
    exp_name: str = ""
    model: Pi0Config = dataclasses.field(default_factory=Pi0Config)
    weight_loader: Any = None
    pytorch_weight_path: str | None = None
    pytorch_training_precision: str = "bfloat16"
    lr_schedule: Any = None
    optimizer: Any = None
    ema_decay: float | None = 0.99
    freeze_filter: Any = "nothing"
    data: Any = None
    assets_base_dir: str = "./assets"
    checkpoint_base_dir: str = "./checkpoints"
    seed: int = 42
    batch_size: int = 32
    num_workers: int = 2
    num_train_steps: int = 30_000
    log_interval: int = 100
    save_interval: int = 1000
    keep_period: int | None = 5000
    overwrite: bool = False
    resume: bool = False
    wandb_enabled: bool = True
    policy_metadata: dict[str, Any] | None = None
    fsdp_devices: int = 1


MODULES: dict[str, tuple[Any, ...]] = {
    "openpi": (),
    "openpi.models": (),
    "openpi.models.model": (ModelType,),
    "openpi.models.pi0_config": (Pi0Config,),
    "openpi.policies": (),
    "openpi.training": (),
    "openpi.training.config": (
        AssetsConfig,
        DataConfig,
        DataConfigFactory,
        ModelTransformFactory,
        TrainConfig,
    ),
    "openpi.training.weight_loaders": (CheckpointWeightLoader,),
    "openpi.transforms": (
        AbsoluteActions,
        DeltaActions,
        Group,
        PadStatesAndActions,
        RepackTransform,
        make_bool_mask,
    ),
}
"""Module -> what is in it."""


def checkout(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Put the stand-in and our two files where an OpenPI checkout has them; return these two."""
    for name in ("openpi.policies.so101_policy", "openpi.training.misc.so101_config"):
        monkeypatch.setitem(sys.modules, name, None)  # so that it is taken out again afterwards
    for name, contents in MODULES.items():
        module = types.ModuleType(name)
        module.__path__ = []
        for thing in contents:
            setattr(module, thing.__name__, thing)
        module.BaseModelConfig = Pi0Config
        monkeypatch.setitem(sys.modules, name, module)
    policy = load("openpi.policies.so101_policy", FOLDER / "so101_policy.py")
    return policy, load("openpi.training.misc.so101_config", FOLDER / "so101_config.py")
