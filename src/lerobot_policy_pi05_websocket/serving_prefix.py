# SPDX-License-Identifier: Apache-2.0
"""Chunks that follow the running ones, for all rows of a batch in one pass.

In: what robots say under `_rt`, and how long passes took. Out: which rows of which chunk follow what, and what
to tell the robot. Runs on the policy thread.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from torch import Tensor

from lerobot_policy_pi05_websocket.rtc_guidance import PrefixMode, PrefixSampler
from lerobot_policy_pi05_websocket.serving_config import ServingConfig
from pi05_websocket.errors import ObservationError
from pi05_websocket.server.prefix import InferenceTime, PrefixPlan, late_bound
from pi05_websocket.wire.realtime import RealtimeReply, RealtimeRequest, RealtimeSupport

__all__ = ["FLOW_POLICIES", "ExpectedTime", "Prefix", "padded"]

logger = logging.getLogger(__name__)

FLOW_POLICIES = ("pi0", "pi05", "smolvla")
"""Types whose sampling loop takes an `rtc_processor`; so does whatever was trained with a prefix."""


class ExpectedTime:
    """How long a pass will take: the median of those with as many rows, with a prefix or without."""

    def __init__(self) -> None:
        self._times: dict[tuple[bool, int], InferenceTime] = {}

    def __repr__(self) -> str:
        return f"<ExpectedTime {self._times}>"

    def add(self, ms: float, *, follows: bool, rows: int) -> None:
        """Record one pass."""
        self._times.setdefault((follows, rows), InferenceTime()).add(ms)

    def ms(self, *, follows: bool, rows: int) -> float | None:
        """Return the time to expect, from the passes most like it; None before anything was measured."""
        if not self._times:
            return None
        nearest = min(
            self._times, key=lambda kind: (kind[0] is not follows, abs(kind[1] - rows), -kind[1])
        )
        return self._times[nearest].ms()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """How one policy follows a running chunk."""

    support: RealtimeSupport
    action_horizon: int
    action_dim: int

    @classmethod
    def of(cls, policy: PreTrainedPolicy, config: ServingConfig, action_dim: int) -> Prefix | None:
        """Have the policy's sampling loop call our sampler; None where chunks cannot follow the running one.

        Without a prefix the sampler changes nothing.
        """
        if not config.rtc or not _flows(policy):
            return None
        for setting in ("compile_model", "adapt_to_pi_aloha"):
            if getattr(policy.config, setting, False):
                logger.warning("served without a prefix: the checkpoint's %s forbids it", setting)
                return None
        most = _trained_delay(policy)
        mode: PrefixMode = "trained" if most else "guided"
        policy.config.rtc_config = RTCConfig(enabled=True)
        policy.rtc_processor = policy.model.rtc_processor = PrefixSampler(
            mode, config.guidance_weight
        )
        return cls(
            support=RealtimeSupport(prefix=mode, max_delay=most or None),
            action_horizon=int(policy.config.chunk_size),
            action_dim=action_dim,
        )

    def check(self, request: RealtimeRequest) -> None:
        """Raise ObservationError for a leftover that is not this policy's."""
        rows, width = request.leftover.shape
        if rows and width != self.action_dim:
            raise ObservationError(
                "_rt.leftover",
                f"{self.action_dim} values in each row, as the policy answers",
                f"{width}",
            )

    def plan(
        self, request: RealtimeRequest, *, queue_ms: float, infer_ms: float | None
    ) -> PrefixPlan | None:
        """Return which rows follow the leftover; None where none does."""
        plan = late_bound(
            request,
            queue_ms=queue_ms,
            infer_ms=infer_ms,
            action_horizon=self.action_horizon,
            most=self.support.max_delay,
        )
        follows = plan.horizon if self.support.prefix == "guided" else plan.delay
        return plan if follows > 0 else None

    def options(self, prefix: Tensor, plans: Sequence[PrefixPlan]) -> dict[str, Any]:
        """Return what LeRobot's sampling loop hands on to our sampler, with a number for each row."""
        return {
            "prev_chunk_left_over": prefix,
            "inference_delay": torch.tensor([plan.delay for plan in plans]),
            # LeRobot's word for H - s.
            "execution_horizon": torch.tensor([plan.horizon for plan in plans]),
        }

    def reply(
        self, request: RealtimeRequest, plan: PrefixPlan | None, *, queue_ms: float, infer_ms: float
    ) -> RealtimeReply:
        """Return what the robot is told."""
        return RealtimeReply(
            seq=request.seq,
            delay=plan.delay if plan else 0,
            prefix=self.support.prefix if plan else "none",
            queue_ms=queue_ms,
            infer_ms=infer_ms,
        )


def padded(requests: Sequence[RealtimeRequest]) -> Tensor:
    """Return `(batch, n, action_dim)`, n of the longest leftover.

    A shorter one's last row is repeated, never filled with zeros: zeros are a pose. Those rows are beyond its
    horizon and have no weight.
    """
    longest = max(len(request.leftover) for request in requests)
    rows = []
    for request in requests:
        leftover = torch.from_numpy(request.leftover.copy())
        rows.append(torch.cat([leftover, leftover[-1:].expand(longest - len(leftover), -1)]))
    return torch.stack(rows)


def _flows(policy: PreTrainedPolicy) -> bool:
    return policy.config.type in FLOW_POLICIES or _trained_delay(policy) > 0


def _trained_delay(policy: PreTrainedPolicy) -> int:
    """Return how many clean rows the checkpoint was trained with; 0 in LeRobot 0.6.1, which cannot."""
    return int(getattr(policy.config, "rtc_training_max_delay", 0) or 0)
