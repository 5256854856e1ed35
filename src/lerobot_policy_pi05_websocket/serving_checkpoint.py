# SPDX-License-Identifier: Apache-2.0
"""From `PATH?device=cuda&dtype=bfloat16` to a LeRobot policy to serve. Reads files; no thread of its own.

It looks whether the weights really arrived: LeRobot 0.6.1's π₀ and π₀.₅ print a line and go on with random
ones when a file cannot be read or does not fit, and an arm would execute that. The same look at the file gives
its fingerprint.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.import_utils import register_third_party_plugins
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lerobot_policy_pi05_websocket.serving import LeRobotPolicy
from lerobot_policy_pi05_websocket.serving_config import ServingConfig, serving_config
from lerobot_policy_pi05_websocket.serving_fingerprint import Fingerprint
from lerobot_policy_pi05_websocket.serving_origin import origin_of
from pi05_websocket.errors import ConfigError

__all__ = ["load_checkpoint", "serving_config"]

TRAIN_CONFIG = "train_config.json"


def load_checkpoint(spec: str) -> LeRobotPolicy:
    """Load `PATH`, a folder with `config.json` or a name on the hub, with options after a `?`.

    Raises:
        ConfigError: Nothing is there, an option is unknown, or the weights were not loaded.
    """
    path, _, query = spec.partition("?")
    config = serving_config(query)
    register_third_party_plugins()
    policy_config = _policy_config(path)
    _set(policy_config, config)
    policy = get_policy_class(policy_config.type).from_pretrained(path, config=policy_config)
    weights = _fingerprint(policy, _file(path, SAFETENSORS_SINGLE_FILE), path)
    policy.to(policy_config.device)
    preprocessor, postprocessor = make_pre_post_processors(
        policy_config,
        pretrained_path=path,
        preprocessor_overrides={"device_processor": {"device": str(policy_config.device)}},
    )
    origin = origin_of(_train_config(path), weights)
    return LeRobotPolicy(policy, preprocessor, postprocessor, config, origin)


def _set(policy_config: PreTrainedConfig, config: ServingConfig) -> None:
    """Put into the policy's own config what it has to know before it is made."""
    if config.device is not None:
        policy_config.device = config.device
    if config.dtype is None or not hasattr(policy_config, "dtype"):
        return
    if config.dtype == "float16":
        raise ConfigError(
            f"lerobot: dtype=float16: {policy_config.type} knows float32 and bfloat16. On a GPU without "
            "bfloat16 serve it in float32."
        )
    policy_config.dtype = config.dtype


def _policy_config(path: str) -> PreTrainedConfig:
    looks_local = path.startswith((".", "/", "~")) or path.count("/") > 1
    if looks_local and not (Path(path) / "config.json").is_file():
        raise ConfigError(
            f"lerobot:{path}: no config.json there. Give the folder `pretrained_model` of a training run."
        )
    return PreTrainedConfig.from_pretrained(path)


def _file(path: str, name: str) -> Path:
    return Path(path) / name if Path(path).is_dir() else Path(hf_hub_download(path, name))


def _train_config(path: str) -> Path | None:
    """Return the trainer's record of the checkpoint; None where there is none."""
    try:
        file = _file(path, TRAIN_CONFIG)
    except (EntryNotFoundError, LocalEntryNotFoundError):
        return None
    return file if file.is_file() else None


def _fingerprint(policy: PreTrainedPolicy, file: Path, path: str) -> str:
    """Return the fingerprint of the file's tensors, having compared the first row of each with the model's."""
    fingerprint = Fingerprint()
    wrong = _first_difference(policy, file, fingerprint)
    if wrong is not None:
        raise ConfigError(
            f"lerobot:{path}: the weights were not loaded ({wrong}). LeRobot goes on with random ones then; "
            "see what it printed above."
        )
    return fingerprint.hexadecimal()


def _first_difference(policy: PreTrainedPolicy, file: Path, fingerprint: Fingerprint) -> str | None:
    loaded = policy.state_dict()
    compared = 0
    try:
        with safe_open(file, "pt") as stored:
            for name in sorted(stored.keys()):
                tensor = stored.get_tensor(name)  # mapped, not copied
                fingerprint.add(name, tensor)
                ours = loaded.get(name, loaded.get(f"model.{name}"))
                if ours is None or ours.ndim == 0:
                    continue
                compared += 1
                if not _begins_like(ours, tensor):
                    return f"{name} differs"
    except (OSError, SafetensorError) as exc:
        return f"{file.name}: {exc}"
    # Names may be mapped while loading; that none is known means that nothing was.
    return None if compared else f"no name in {file.name} is the model's"


def _begins_like(ours: Tensor, stored: Tensor) -> bool:
    theirs = stored[:1].to(ours)
    return theirs.shape == ours[:1].shape and bool((theirs == ours[:1]).all())
