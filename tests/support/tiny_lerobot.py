# SPDX-License-Identifier: Apache-2.0
"""LeRobot's policies with a few thousand random weights, built and saved without the hub.

The classes are LeRobot's and transformers' own. What is shrunk: the sizes of the Gemma, SigLIP and SmolVLM
configs, the vocabularies, and the tokenizer, which knows a few words and numbers and lives in a local folder.
ACT, diffusion, VQ-BeT and TD-MPC are small because their configs say so; their ResNet is a whole one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.common.flow_matching import euler_integrate
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.policies.pi0 import modeling_pi0
from lerobot.policies.pi0.configuration_pi0 import PI0Config
from lerobot.policies.pi05 import modeling_pi05
from lerobot.policies.pi05.configuration_pi05 import PI05Config
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.tdmpc.configuration_tdmpc import TDMPCConfig
from lerobot.policies.vqbet.configuration_vqbet import VQBeTConfig
from lerobot.processor import TokenizerProcessorStep, tokenizer_processor
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from pi05_websocket.wire.realtime import RealtimeRequest

ROWS, JOINTS = 12, 6
IMAGE = "observation.images.front"
STATE = "observation.state"

_WORDS = [
    *("<pad>", "<unk>", "<s>", "</s>", "<fake_token_around_image>", "<image>", "<global-img>"),
    *("<end_of_utterance>", "Task", "State", "Action", ":", ",", ";", "pick", "up", "the", "cube"),
    *(str(number) for number in range(-1, 257)),
]
_VOCABULARY = 300

STATS = {
    key: {
        "mean": torch.linspace(-40.0, 40.0, JOINTS) + shift,
        "std": torch.linspace(5.0, 30.0, JOINTS),
        "q01": torch.linspace(-110.0, -50.0, JOINTS) + shift,
        "q99": torch.linspace(40.0, 120.0, JOINTS) + shift,
        "min": torch.full((JOINTS,), -130.0),
        "max": torch.full((JOINTS,), 130.0),
    }
    for key, shift in ((STATE, 0.0), ("action", 3.0))
}
"""Degrees, so that raw and model units differ by far."""


def save_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Save a tokenizer of a few hundred words, and the SmolVLM processor around it."""
    words = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(_WORDS)}, unk_token="<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={
            "fake_image_token": "<fake_token_around_image>",
            "image_token": "<image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
    )
    SmolVLMProcessor(
        SmolVLMImageProcessor(),
        tokenizer,
        SmolVLMVideoProcessor(),
        image_seq_len=4,
        chat_template="",
    ).save_pretrained(folder)
    return tokenizer


def save_vlm_config(folder: Path) -> None:
    """Save SmolVLM's config with two layers of 32 units."""
    SmolVLMConfig(
        text_config={
            "model_type": "llama",
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "vocab_size": _VOCABULARY,
            "attention_bias": False,
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
        },
        scale_factor=2,
        image_token_id=_WORDS.index("<image>"),
        pad_token_id=0,
    ).save_pretrained(folder)


def shrink_gemma(patch: pytest.MonkeyPatch) -> None:
    """Have π₀ and π₀.₅ build their own classes from small configs, until `patch` is undone."""
    for module in (modeling_pi0, modeling_pi05):
        vision_language = module.PaliGemmaForConditionalGenerationWithPiGemma
        expert = module.PiGemmaForCausalLM
        patch.setattr(
            module,
            "PaliGemmaForConditionalGenerationWithPiGemma",
            lambda config, real=vision_language: real(config=_small_vision_language(config)),
        )
        patch.setattr(
            module, "PiGemmaForCausalLM", lambda config, real=expert: real(config=_small(config))
        )
        patch.setattr(module, "get_gemma_config", lambda variant, of=module: _gemma(of, variant))


def _gemma(module: Any, variant: str) -> Any:
    width = 32 if variant == "gemma_2b" else 16
    return module.GemmaConfig(
        width=width, depth=2, mlp_dim=32, num_heads=2, num_kv_heads=1, head_dim=8
    )


def _small(config: Any) -> Any:
    config.vocab_size = _VOCABULARY
    return config


def _small_vision_language(config: Any) -> Any:
    _small(config.text_config)
    width = config.text_config.hidden_size
    config.image_token_index = config.image_token_id = _VOCABULARY - 1
    config.hidden_size = config.projection_dim = width
    vision = config.vision_config
    vision.hidden_size = vision.intermediate_size = 16
    vision.num_hidden_layers, vision.num_attention_heads = 1, 2
    vision.projection_dim = width
    return config


def an_observation(seed: int = 1) -> dict[str, Any]:
    """What a robot with one camera sends."""
    rng = np.random.default_rng(seed)
    return {
        "observation/images/front": rng.integers(0, 256, (40, 48, 3), np.uint8),
        "observation/state": rng.uniform(-50, 50, JOINTS).astype(np.float32),
        "prompt": "pick up the cube",
    }


def a_request(rows: int = 8, **fields: Any) -> RealtimeRequest:
    """Ask to follow `rows` rows, the first three of which are pinned."""
    defaults: dict[str, Any] = {"delay": 3, "execution_horizon": 4, "control_hz": 30.0}
    leftover = np.linspace(-30, 30, rows * JOINTS, dtype=np.float32).reshape(rows, JOINTS)
    return RealtimeRequest(seq=3, leftover=leftover, **(defaults | fields))


def config_of(kind: str, vlm: Path, **changes: Any) -> PreTrainedConfig:
    """Return the config of a tiny policy for one camera and six joints."""
    if kind in _WITH_RESNET:
        return _WITH_RESNET[kind](changes)
    side = 32 if kind == "smolvla" else 28
    common: dict[str, Any] = {
        "device": "cpu",
        "chunk_size": ROWS,
        "n_action_steps": ROWS,
        "tokenizer_max_length": 32,
        "input_features": {
            IMAGE: PolicyFeature(FeatureType.VISUAL, (3, side, side)),
            STATE: PolicyFeature(FeatureType.STATE, (JOINTS,)),
        },
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (JOINTS,))},
    }
    if kind == "smolvla":
        small = {"num_steps": 4, "num_vlm_layers": 2, "resize_imgs_with_padding": (side, side)}
        return SmolVLAConfig(vlm_model_name=str(vlm), **small, **(common | changes))
    small = {"num_inference_steps": 4, "image_resolution": (side, side)}
    kinds = {"pi0": PI0Config, "pi05": PI05Config}
    return kinds[kind](**small, **(common | changes))


def _cameras_and_joints(image: str = IMAGE, side: int | None = None) -> dict[str, Any]:
    """Return features with images as `an_observation` has them."""
    shape = (3, 40, 48) if side is None else (3, side, side)
    return {
        "device": "cpu",
        "input_features": {
            image: PolicyFeature(FeatureType.VISUAL, shape),
            STATE: PolicyFeature(FeatureType.STATE, (JOINTS,)),
        },
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (JOINTS,))},
    }


def _act(changes: dict[str, Any]) -> ACTConfig:
    small: dict[str, Any] = {
        "chunk_size": ROWS,
        "n_action_steps": ROWS,
        "dim_model": 16,
        "n_heads": 2,
        "dim_feedforward": 16,
        "n_encoder_layers": 1,
        "n_decoder_layers": 1,
        "n_vae_encoder_layers": 1,
        "pretrained_backbone_weights": None,
    }
    return ACTConfig(**(_cameras_and_joints() | small | changes))


def _diffusion(changes: dict[str, Any]) -> DiffusionConfig:
    small: dict[str, Any] = {
        "horizon": 16,
        "n_action_steps": 8,
        "down_dims": (16, 32),
        "crop_shape": None,
        "pretrained_backbone_weights": None,
        "num_train_timesteps": 10,
        "num_inference_steps": 4,
    }
    return DiffusionConfig(**(_cameras_and_joints() | small | changes))


def _vqbet(changes: dict[str, Any]) -> VQBeTConfig:
    sizes = ("gpt_input_dim", "gpt_output_dim", "gpt_hidden_dim")
    small: dict[str, Any] = {
        "gpt_n_layer": 1,
        "gpt_n_head": 2,
        **dict.fromkeys((*sizes, "vqvae_embedding_dim", "vqvae_enc_hidden_dim"), 16),
        "crop_shape": None,
        "pretrained_backbone_weights": None,
    }
    return VQBeTConfig(**(_cameras_and_joints() | small | changes))


def _tdmpc(changes: dict[str, Any]) -> TDMPCConfig:
    """It knows one image only, by LeRobot's older name, and only square ones."""
    widths = ("latent_dim", "mlp_dim", "image_encoder_hidden_dim", "state_encoder_hidden_dim")
    small: dict[str, Any] = {**dict.fromkeys(widths, 8), "q_ensemble_size": 2}
    return TDMPCConfig(**(_cameras_and_joints("observation.image", 64) | small | changes))


_WITH_RESNET: dict[str, Any] = {
    "act": _act,
    "diffusion": _diffusion,
    "vqbet": _vqbet,
    "tdmpc": _tdmpc,
}


def save_checkpoint(kind: str, folder: Path, vlm: Path, **changes: Any) -> Path:
    """Save a checkpoint with random weights, large enough that what it answers depends on what it sees."""
    config = config_of(kind, vlm, **changes)
    torch.manual_seed(0)
    policy = get_policy_class(kind)(config)
    if kind not in _WITH_RESNET:
        with torch.no_grad():
            for parameter in policy.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=0.25)
    if kind == "vqbet":
        # Its first stage, the code book, counts as trained; otherwise it warns with each answer.
        policy.vqbet.action_head.vqvae_model.discretized.fill_(True)
    with pytest.MonkeyPatch.context() as patch:
        # The names of the real tokenizers are fixed in LeRobot; the hub is not asked for them.
        patch.setattr(tokenizer_processor, "AutoTokenizer", _LocalTokenizer(vlm))
        before, after = make_pre_post_processors(config, dataset_stats=STATS)
    for step in before.steps:
        if isinstance(step, TokenizerProcessorStep):
            step.tokenizer_name = str(vlm)
    policy.save_pretrained(folder)
    before.save_pretrained(folder)
    after.save_pretrained(folder)
    return folder


class _LocalTokenizer:
    """Stands for `AutoTokenizer` while a checkpoint is made: every name is the local one."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)

    def from_pretrained(self, _name: str) -> PreTrainedTokenizerFast:
        """Return the local tokenizer."""
        return self._tokenizer


@PreTrainedConfig.register_subclass("toy_flow")
@dataclass
class ToyFlowConfig(PreTrainedConfig):
    """A flow policy that was trained with clean rows in front; LeRobot 0.6.1 has none."""

    chunk_size: int = ROWS
    n_action_steps: int = ROWS
    rtc_training_max_delay: int = 0
    n_obs_steps: int = 1
    rtc_config: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.normalization_mapping = {
            "STATE": NormalizationMode.MEAN_STD,
            "ACTION": NormalizationMode.MEAN_STD,
        }

    observation_delta_indices = action_delta_indices = reward_delta_indices = None

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Say what `predict_action_chunk` takes, so that several rows go into one pass."""
        return self.chunk_size, JOINTS

    def validate_features(self) -> None:
        """Take whatever comes."""

    def get_optimizer_preset(self) -> Any:
        """Not trained."""

    def get_scheduler_preset(self) -> Any:
        """Not trained."""


class ToyFlow(PreTrainedPolicy):
    """Continues the last clean row in steps of one model unit; without any it starts at 0."""

    config_class = ToyFlowConfig
    name = "toy_flow"

    class Model(torch.nn.Module):
        """Where LeRobot's policies keep the processor that the sampling loop calls."""

        rtc_processor: Any = None

    def __init__(self, config: ToyFlowConfig) -> None:
        super().__init__(config)
        self.model = self.Model()
        self.batches: list[dict[str, Any]] = []
        self._queues = {"action": deque(maxlen=1)}

    def predict_action_chunk(
        self, batch: dict[str, Any], noise: torch.Tensor, **prefix: Any
    ) -> torch.Tensor:
        """Integrate with LeRobot's own loop."""
        self.batches.append(dict(batch))
        rtc = self.config.rtc_config
        return euler_integrate(
            self._velocity,
            noise,
            5,
            rtc_processor=self.model.rtc_processor,
            rtc_enabled=rtc is not None and rtc.enabled,
            **prefix,
        )

    def _velocity(self, x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        times = times[:, None].expand(x.shape[:2]) if times.ndim == 1 else times
        pinned = times == 0
        last = pinned.sum(dim=1) - 1
        begin = torch.where(last[:, None] < 0, -1.0, x[torch.arange(len(x)), last.clamp(min=0)])
        further = (torch.arange(x.shape[1])[None] - last[:, None])[..., None]
        data = torch.where(pinned[..., None], x, begin[:, None] + further)
        return (x - data) / times.clamp_min(1e-6)[..., None]

    def reset(self) -> None:
        """Nothing is remembered."""

    def forward(self, batch: dict[str, Any]) -> Any:
        """Not trained."""
        raise NotImplementedError

    def select_action(self, batch: dict[str, Any]) -> Any:
        """Not asked for one action."""
        raise NotImplementedError

    def get_optim_params(self) -> Any:
        """Not trained."""
        return {}
