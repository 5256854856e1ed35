# SPDX-License-Identifier: Apache-2.0
"""From `PATH?device=cuda&guidance_weight=8` to a LeRobot policy to serve. Reads files; no thread of its own.

It looks whether the weights really arrived: LeRobot 0.6.1's π₀ and π₀.₅ print a line and go on with random
ones when a file cannot be read or does not fit, and an arm would execute that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from huggingface_hub import hf_hub_download
from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.import_utils import register_third_party_plugins
from safetensors import SafetensorError, safe_open

from lerobot_policy_pi05_websocket.serving import LeRobotPolicy, ServingConfig
from pi05_websocket.errors import ConfigError

__all__ = ["load_checkpoint", "serving_config"]


def load_checkpoint(spec: str) -> LeRobotPolicy:
    """Load `PATH`, a folder with `config.json` or a name on the hub, with options after a `?`.

    Raises:
        ConfigError: Nothing is there, an option is unknown, or the weights were not loaded.
    """
    path, _, query = spec.partition("?")
    config = serving_config(query)
    register_third_party_plugins()
    policy_config = _policy_config(path)
    if config.device is not None:
        policy_config.device = config.device
    policy = get_policy_class(policy_config.type).from_pretrained(path, config=policy_config)
    _check_weights(policy, _weights_file(path), path)
    policy.to(policy_config.device)
    preprocessor, postprocessor = make_pre_post_processors(
        policy_config,
        pretrained_path=path,
        preprocessor_overrides={"device_processor": {"device": str(policy_config.device)}},
    )
    return LeRobotPolicy(policy, preprocessor, postprocessor, config)


def serving_config(query: str) -> ServingConfig:
    """Read `device=cuda&rtc=false&guidance_weight=8&observation.images.front=observation/image`.

    Raises:
        ConfigError: An option is unknown or has no such value.
    """
    options: dict[str, Any] = {"keys": {}}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name.startswith("observation."):
            options["keys"][name] = text
        elif name == "device":
            options[name] = text
        elif name == "rtc":
            if text not in ("true", "false"):
                raise ConfigError(f"lerobot: expected rtc=true or rtc=false, got {text!r}")
            options[name] = text == "true"
        elif name == "guidance_weight":
            try:
                options[name] = float(text)
            except ValueError:
                raise ConfigError(f"lerobot: expected a number for {name}, got {text!r}") from None
        else:
            known = "device, rtc, guidance_weight, observation.NAME=KEY"
            raise ConfigError(f"lerobot: unknown option {name!r}; known are {known}")
    return ServingConfig(**options)


def _policy_config(path: str) -> PreTrainedConfig:
    looks_local = path.startswith((".", "/", "~")) or path.count("/") > 1
    if looks_local and not (Path(path) / "config.json").is_file():
        raise ConfigError(
            f"lerobot:{path}: no config.json there. Give the folder `pretrained_model` of a training run."
        )
    return PreTrainedConfig.from_pretrained(path)


def _weights_file(path: str) -> Path:
    if Path(path).is_dir():
        return Path(path) / SAFETENSORS_SINGLE_FILE
    return Path(hf_hub_download(path, SAFETENSORS_SINGLE_FILE))


def _check_weights(policy: PreTrainedPolicy, file: Path, path: str) -> None:
    """Compare the first row of every tensor in the file with the model's."""
    wrong = _first_difference(policy, file)
    if wrong is not None:
        raise ConfigError(
            f"lerobot:{path}: the weights were not loaded ({wrong}). LeRobot goes on with random ones then; "
            "see what it printed above."
        )


def _first_difference(policy: PreTrainedPolicy, file: Path) -> str | None:
    loaded = policy.state_dict()
    compared = 0
    try:
        with safe_open(file, "pt") as stored:
            for name in stored.keys():  # noqa: SIM118  # not a dict
                ours = loaded.get(name, loaded.get(f"model.{name}"))
                if ours is None or ours.ndim == 0:
                    continue
                compared += 1
                theirs = stored.get_slice(name)[:1].to(ours)
                if theirs.shape != ours[:1].shape or not bool((theirs == ours[:1]).all()):
                    return f"{name} differs"
    except (OSError, SafetensorError) as exc:
        return f"{file.name}: {exc}"
    # Names may be mapped while loading; that none is known means that nothing was.
    return None if compared else f"no name in {file.name} is the model's"
