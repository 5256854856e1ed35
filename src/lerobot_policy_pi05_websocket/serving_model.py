# SPDX-License-Identifier: Apache-2.0
"""One forward pass of a LeRobot policy. Runs on the policy thread.

In: the policy's batch, a seed for each row. Out: `(rows, action_horizon, action_dim)` float32, model units.
Nothing of one pass is seen by the next: what a policy remembers would be another robot's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION
from torch import Tensor

from lerobot_policy_pi05_websocket.serving_config import ModelDtype
from lerobot_policy_pi05_websocket.serving_keys import WITH_QUEUES
from lerobot_policy_pi05_websocket.serving_noise import Noise
from pi05_websocket.errors import ConfigError

__all__ = ["Model", "action_horizon"]


class Model:
    """One policy, in evaluation mode, its gradients turned off.

    Args:
        policy: LeRobot's; it is cast in place.
        dtype: Of its weights; None: as they are.

    Raises:
        ConfigError: The policy chose another type while it was made.
    """

    def __init__(self, policy: PreTrainedPolicy, dtype: ModelDtype | None = None) -> None:
        self._policy = policy.eval().requires_grad_(False)
        self._with_queues = policy.config.type in WITH_QUEUES
        self._autocast = _cast(policy, dtype)
        self._device = torch.device(policy.config.device or "cpu")
        self.noise = Noise(policy)

    def __repr__(self) -> str:
        return f"<Model {self._policy.config.type} {self.noise!r}>"

    def chunks(
        self, batch: dict[str, Any], seeds: Sequence[int | None], prefix: Mapping[str, Any]
    ) -> Tensor:
        """Return the chunks of a batch; of one row only, where the policy's noise is not `by_row`.

        Args:
            batch: What the preprocessor made.
            seeds: One for each row; None: torch's global generator.
            prefix: What LeRobot's sampling loop hands on to our sampler.
        """
        if not self.noise.by_row:
            self._policy.reset()
        with torch.no_grad(), self._precision(), self.noise.drawn(seeds) as noise:
            if self._with_queues:
                chunks = self._from_queues(batch)
            else:
                chunks = self._policy.predict_action_chunk(batch, **noise, **prefix)
        return chunks.float()

    def reset(self) -> None:
        """Forget what the policy remembers of an episode."""
        self._policy.reset()

    def _from_queues(self, batch: dict[str, Any]) -> Tensor:
        """Return what the policy would execute from here on: its next action, and those it queued behind it.

        Its `predict_action_chunk` answers from queues that only `select_action` fills.
        """
        following = self._policy.select_action(batch)
        return torch.stack([following, *self._policy._queues[ACTION]], dim=1)

    def _precision(self) -> AbstractContextManager[Any]:
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._autocast)


def action_horizon(config: Any) -> int | None:
    """Return how many rows a chunk of this policy has; None where its config does not say.

    Not always `chunk_size`: some compute more rows than they answer.
    """
    if config.type == "tdmpc":
        repeats = int(config.n_action_repeats)
        return repeats if repeats > 1 else min(int(config.n_action_steps), int(config.horizon))
    names = {
        "diffusion": "n_action_steps",
        "multi_task_dit": "n_action_steps",
        "pi0_fast": "n_action_steps",
        "vqbet": "action_chunk_size",
    }
    rows = getattr(config, names.get(config.type, "chunk_size"), None)
    return None if rows is None else int(rows)


def _cast(policy: PreTrainedPolicy, dtype: ModelDtype | None) -> torch.dtype | None:
    """Cast the weights; return what to compute in where inputs and weights then differ."""
    own = getattr(policy.config, "dtype", None)
    if dtype is None or own == dtype:
        return None
    if own is not None:
        raise ConfigError(
            f"dtype={dtype}: {policy.config.type} was made with dtype={own}. Set it in the policy's config "
            "before the policy is made."
        )
    chosen: torch.dtype = getattr(torch, dtype)
    policy.to(chosen)
    return None if chosen == torch.float32 else chosen
