# SPDX-License-Identifier: Apache-2.0
"""A LeRobot policy to serve; flow policies (π₀, π₀.₅, SmolVLA) join their chunks to the running one.

In: observations in OpenPI's manner, and with `_rt` the rows still to be executed. Out: `{"actions":
(action_horizon, action_dim) float32}` in the robot's units. Runs on the policy thread, which alone touches the
model.

    observation ─ keys ─ preprocessor ─ predict_action_chunk ─ postprocessor ─ actions
    leftover ───────────┘ as `action`, the way training data goes: relative to the new state, normalised
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from lerobot.utils.constants import ACTION

from lerobot_policy_pi05_websocket.rtc_guidance import PrefixMode, PrefixSampler
from lerobot_policy_pi05_websocket.serving_keys import ObservationKeys
from pi05_websocket.data import Float32Array, Observation
from pi05_websocket.errors import ConfigError, ObservationError
from pi05_websocket.policy import Result
from pi05_websocket.server.prefix import InferenceTime, PrefixPlan, late_bound
from pi05_websocket.wire.realtime import (
    RealtimeReply,
    RealtimeRequest,
    RealtimeSupport,
    announcement,
    with_realtime_reply,
)

__all__ = ["FLOW_POLICIES", "LeRobotPolicy", "ServingConfig", "timed_by_the_wall_clock"]

logger = logging.getLogger(__name__)

FLOW_POLICIES = ("pi0", "pi05", "smolvla")
"""Types whose sampling loop takes an `rtc_processor`; so does whatever was trained with a prefix."""

T = TypeVar("T")


def timed_by_the_wall_clock(work: Callable[[], T]) -> tuple[T, float]:
    """Return what `work` returns and how many milliseconds it took."""
    began = time.perf_counter()
    result = work()
    return result, (time.perf_counter() - began) * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingConfig:
    """How to serve a checkpoint."""

    device: str | None = None
    """`cuda`, `cpu`, ...; None: the checkpoint's own, or the best there is."""

    rtc: bool = True
    """Whether to offer robots that chunks continue the running one, where the policy can."""

    guidance_weight: float = 5.0
    """β: how strictly a policy that was not trained for it follows the running chunk."""

    keys: Mapping[str, str] = field(default_factory=dict)
    """Policy input to observation key, where `observation.images.front` is not `observation/images/front`."""

    def __post_init__(self) -> None:
        if not 0.0 < self.guidance_weight < float("inf"):
            raise ConfigError(f"guidance_weight={self.guidance_weight}: must be above 0")


class LeRobotPolicy:
    """One LeRobot policy with its processors, behind `infer`.

    Args:
        policy: Anything with `predict_action_chunk`; put into evaluation mode, its gradients turned off.
        preprocessor: Its own, from batch to batch.
        postprocessor: Its own, from model units to the robot's.
        config: The settings.
    """

    def __init__(
        self,
        policy: PreTrainedPolicy,
        preprocessor: Any,
        postprocessor: Any,
        config: ServingConfig | None = None,
    ) -> None:
        self._config = config or ServingConfig()
        self._policy = policy.eval().requires_grad_(False)
        self._preprocessor = preprocessor
        self._postprocessor = postprocessor
        self._keys = ObservationKeys(policy.config, self._config.keys)
        self._action_dim = int(policy.config.output_features[ACTION].shape[0])
        self._support = _support(policy, self._config)
        if self._support is not None:
            self._action_horizon = int(policy.config.chunk_size)
            _install(policy, PrefixSampler(_mode(policy), self._config.guidance_weight))
        self._infer_time = InferenceTime()
        self.timed: Callable[[Callable[[], Float32Array]], tuple[Float32Array, float]] = (
            timed_by_the_wall_clock
        )
        """Runs an inference and says how long it took; what the next one will take is expected from it. A
        program that keeps time of its own, such as a benchmark on a virtual clock, puts its own here."""

    def __repr__(self) -> str:
        prefix = "none" if self._support is None else self._support.prefix
        return f"<LeRobotPolicy {self._policy.config.type} prefix={prefix}>"

    @property
    def metadata(self) -> dict[str, Any]:
        """What the server says first: type, sizes, the keys it needs, and `_rt` where it can."""
        said: dict[str, Any] = {
            "policy": self._policy.config.type,
            "action_dim": self._action_dim,
            "observation_keys": list(self._keys.keys),
            "image_sizes": self._keys.image_sizes,
        }
        rows = getattr(self._policy.config, "chunk_size", None)
        if rows is not None:
            said["action_horizon"] = int(rows)
        return said if self._support is None else {**said, **announcement(self._support)}

    def reset(self) -> None:
        """Forget what the policy and its processors remember of an episode."""
        self._policy.reset()
        self._preprocessor.reset()
        self._postprocessor.reset()

    def seed(self, number: int) -> None:
        """Make what the policy draws from here on repeatable: the noise a flow policy begins with."""
        torch.manual_seed(number)

    def infer(self, observation: Observation, /) -> Result:
        """Return one chunk, as the policy alone would.

        Raises:
            ObservationError: The observation does not fit the policy.
        """
        return {"actions": self._chunk(observation)}

    @property
    def infer_realtime(self) -> Any:
        """`infer` with a `RealtimeRequest` and its queue time; None where the policy cannot follow a chunk."""
        return None if self._support is None else self._infer_realtime

    def _infer_realtime(
        self, observation: Observation, request: RealtimeRequest, queue_ms: float
    ) -> Result:
        assert self._support is not None
        plan = late_bound(
            request,
            queue_ms=queue_ms,
            infer_ms=self._infer_time.ms(),
            action_horizon=self._action_horizon,
            most=self._support.max_delay,
        )
        follows = plan.horizon > 0 if self._support.prefix == "guided" else plan.delay > 0
        leftover = request.leftover if follows else None
        actions, infer_ms = self.timed(lambda: self._chunk(observation, leftover, plan))
        self._infer_time.add(infer_ms)
        reply = RealtimeReply(
            seq=request.seq,
            delay=plan.delay if follows else 0,
            prefix=self._support.prefix if follows else "none",
            queue_ms=queue_ms,
            infer_ms=infer_ms,
        )
        return with_realtime_reply({"actions": actions}, reply)

    def _chunk(
        self,
        observation: Observation,
        leftover: Float32Array | None = None,
        plan: PrefixPlan | None = None,
    ) -> Float32Array:
        batch = self._keys.batch(observation)
        if leftover is not None:
            batch[ACTION] = self._as_training_data(leftover)
        batch = self._preprocessor(batch)
        prefix = batch.pop(ACTION, None)  # also without a leftover: an empty entry is no input
        options: dict[str, Any] = {}
        if leftover is not None and plan is not None:
            options = {
                "prev_chunk_left_over": prefix,
                "inference_delay": plan.delay,
                "execution_horizon": plan.horizon,  # LeRobot's word for H - s
            }
        with torch.no_grad():
            chunk = self._policy.predict_action_chunk(batch, **options)
        actions = self._postprocessor(chunk)[0].detach().float().cpu().numpy()
        return np.ascontiguousarray(actions)

    def _as_training_data(self, leftover: Float32Array) -> torch.Tensor:
        """Return `(1, n, action_dim)` for the preprocessor, which knows the way into the model's units.

        Relative actions become relative to the state of this observation there, not to the one the running
        chunk was planned from.
        """
        if leftover.shape[1] != self._action_dim:
            raise ObservationError(
                "_rt.leftover",
                f"{self._action_dim} values in each row, as the policy answers",
                f"{leftover.shape[1]}",
            )
        return torch.from_numpy(leftover.copy())[None]


def _mode(policy: PreTrainedPolicy) -> PrefixMode:
    return "trained" if _trained_delay(policy) else "guided"


def _trained_delay(policy: PreTrainedPolicy) -> int:
    """Return how many clean rows the checkpoint was trained with; 0 in LeRobot 0.6.1, which cannot."""
    return int(getattr(policy.config, "rtc_training_max_delay", 0) or 0)


def _support(policy: PreTrainedPolicy, config: ServingConfig) -> RealtimeSupport | None:
    """Return what to announce; None where chunks cannot follow the running one."""
    flows = policy.config.type in FLOW_POLICIES or _trained_delay(policy) > 0
    if not config.rtc or not flows:
        return None
    for setting in ("compile_model", "adapt_to_pi_aloha"):
        if getattr(policy.config, setting, False):
            logger.warning("served without a prefix: the checkpoint's %s forbids it", setting)
            return None
    return RealtimeSupport(prefix=_mode(policy), max_delay=_trained_delay(policy) or None)


def _install(policy: PreTrainedPolicy, sampler: PrefixSampler) -> None:
    """Have the sampling loop call ours in each step; without a prefix it changes nothing."""
    policy.config.rtc_config = RTCConfig(enabled=True)
    policy.rtc_processor = policy.model.rtc_processor = sampler
