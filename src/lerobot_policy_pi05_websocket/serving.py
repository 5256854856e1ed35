# SPDX-License-Identifier: Apache-2.0
"""A LeRobot policy to serve to many robots: one forward pass for all that ask at the same time.

In: observations in OpenPI's manner, and with `_rt` the rows still to be executed. Out: `{"actions":
(action_horizon, action_dim) float32}` in the robot's units. Runs on the policy thread, which alone touches the
model.

    observation ─ keys ─┐                                                ┌─ actions
    observation ─ keys ─┼─ preprocessor ─ forward pass ─ postprocessor ──┼─ actions
    leftovers ──────────┘ as `action`, the way training data goes        └─ ...
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION

from lerobot_policy_pi05_websocket.serving_batches import Processors
from lerobot_policy_pi05_websocket.serving_config import ServingConfig
from lerobot_policy_pi05_websocket.serving_fingerprint import normalizer_fingerprint
from lerobot_policy_pi05_websocket.serving_keys import ObservationKeys
from lerobot_policy_pi05_websocket.serving_metadata import Origin, described
from lerobot_policy_pi05_websocket.serving_model import Model
from lerobot_policy_pi05_websocket.serving_noise import GLOBALLY_SEEDED
from lerobot_policy_pi05_websocket.serving_passes import (
    Answer,
    Passes,
    Row,
    Timed,
    timed_by_the_wall_clock,
)
from lerobot_policy_pi05_websocket.serving_prefix import FLOW_POLICIES, Prefix
from lerobot_policy_pi05_websocket.serving_warm_up import rehearsals
from pi05_websocket.data import Observation
from pi05_websocket.errors import ObservationError
from pi05_websocket.policy import PolicyRequest, Result
from pi05_websocket.wire.realtime import RealtimeRequest, announcement

__all__ = ["FLOW_POLICIES", "LeRobotPolicy", "ServingConfig", "timed_by_the_wall_clock"]

logger = logging.getLogger(__name__)

WORTH_A_LINE_MS = 2000.0
"""A pass of the warm-up that took longer is logged: whoever waits wants to see that it goes on."""


class LeRobotPolicy:
    """One LeRobot policy with its processors, behind `infer` and `infer_requests`.

    Args:
        policy: Anything with `predict_action_chunk`; put into evaluation mode, its gradients turned off.
        preprocessor: Its own, from batch to batch.
        postprocessor: Its own, from model units to the robot's.
        config: The settings.
        origin: What its files say of it, for the metadata.
    """

    def __init__(
        self,
        policy: PreTrainedPolicy,
        preprocessor: Any,
        postprocessor: Any,
        config: ServingConfig | None = None,
        origin: Origin | None = None,
    ) -> None:
        config = config or ServingConfig()
        self._policy = policy
        self._origin = origin or Origin()
        self._model = Model(policy, config.dtype)
        self._processors = Processors(preprocessor, postprocessor, policy.config.device)
        self._normalizer = normalizer_fingerprint(preprocessor, postprocessor)
        self._keys = ObservationKeys(policy.config, config.keys)
        action_dim = int(policy.config.output_features[ACTION].shape[0])
        self._prefix = Prefix.of(policy, config, action_dim)
        self._passes = Passes(self._model, self._processors, self._prefix, config.max_batch)

    def __repr__(self) -> str:
        return f"<LeRobotPolicy {self._policy.config.type} prefix={self._prefix_kind}>"

    @property
    def metadata(self) -> dict[str, Any]:
        """What the server says first: what the policy is, what it needs and can, and `_rt` where it can."""
        said = described(self._policy.config, self._keys, self._processors.before, self._origin)
        fingerprint = {"weights": self._origin.weights, "normalizer": self._normalizer}
        said["fingerprint"] = {name: text for name, text in fingerprint.items() if text is not None}
        drawn_alone = self._model.noise.by_row
        said["capabilities"] = {
            "batch": self._passes.by_row,
            "max_batch": self._passes.most,
            "prefix": self._prefix_kind,
            "seeds": drawn_alone or self._policy.config.type in GLOBALLY_SEEDED,
        }
        return said if self._prefix is None else {**said, **announcement(self._prefix.support)}

    @property
    def timed(self) -> Timed:
        """Runs a pass and says how long it took; what the next one will take is expected from it.

        A program that keeps time of its own, such as a benchmark on a virtual clock, puts its own here.
        """
        return self._passes.timed

    @timed.setter
    def timed(self, timed: Timed) -> None:
        self._passes.timed = timed

    def reset(self) -> None:
        """Forget what the policy and its processors remember of an episode."""
        self._model.reset()
        self._processors.reset()

    def seed(self, number: int) -> None:
        """Make what `infer` draws from here on repeatable: the noise a flow policy begins with."""
        torch.manual_seed(number)

    def infer(self, observation: Observation, /) -> Result:
        """Return one chunk, as the policy alone would: what it draws comes from torch's global generator.

        Raises:
            ObservationError: The observation does not fit the policy.
        """
        return _result(*self._passes.answers([self._row(observation)]))

    @property
    def infer_realtime(self) -> Any:
        """`infer` with a `RealtimeRequest` and its queue time; None where the policy cannot follow a chunk."""
        return None if self._prefix is None else self._infer_realtime

    def infer_batch(self, observations: Sequence[Observation], /) -> list[Result]:
        """Return the chunks of several observations; what is drawn comes from torch's global generator.

        Raises:
            ObservationError: One of them does not fit the policy.
        """
        rows = [self._row(observation) for observation in observations]
        return [_result(answer) for answer in self._passes.answers(rows)]

    def infer_requests(self, requests: Sequence[PolicyRequest], /) -> list[Answer]:
        """Return a chunk for each request, or why there is none.

        Those with the same `batch_key` share a forward pass. What is drawn for a request depends on its seed
        alone.
        """
        checked = [self._checked(request) for request in requests]
        answers = iter(self._passes.answers([row for row in checked if isinstance(row, Row)]))
        return [next(answers) if isinstance(row, Row) else row for row in checked]

    def batch_key(self, request: PolicyRequest) -> Hashable:
        """Return what the requests of one pass have in common: a prefix or none, and the images' sizes."""
        realtime = None if self._prefix is None else request.realtime
        follows = realtime is not None and len(realtime.leftover) > 0
        return follows, self._keys.sizes_of(request.observation)

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Run one pass of each size, so that the first robot waits for nothing that happens only once.

        What is drawn and measured here is forgotten.

        Raises:
            Exception: What the policy raises.
        """
        most = self._passes.most
        sizes = sorted({size if most is None else min(size, most) for size in batch_sizes})
        batches = list(rehearsals(self._keys.example(), sizes, self._prefix))
        with self._model.noise.put_back():
            for number, requests in enumerate(batches, start=1):
                answers, ms = self.timed(partial(self.infer_requests, requests))
                for answer in answers:
                    _result(answer)
                if ms > WORTH_A_LINE_MS:
                    with_prefix = " with a prefix" if requests[0].realtime is not None else ""
                    logger.info(
                        "warming up, %d of %d: %d rows%s took %.1f s",
                        *(number, len(batches), len(requests), with_prefix, ms / 1000),
                    )
        self._passes.forget()
        self.reset()

    @property
    def _prefix_kind(self) -> str:
        return "none" if self._prefix is None else self._prefix.support.prefix

    def _infer_realtime(
        self, observation: Observation, request: RealtimeRequest, queue_ms: float
    ) -> Result:
        return _result(*self._passes.answers([self._row(observation, request, queue_ms)]))

    def _checked(self, request: PolicyRequest) -> Row | ObservationError:
        try:
            return self._row(request.observation, request.realtime, request.queue_ms, request.seed)
        except ObservationError as exc:
            return exc

    def _row(
        self,
        observation: Observation,
        realtime: RealtimeRequest | None = None,
        queue_ms: float = 0.0,
        seed: int | None = None,
    ) -> Row:
        if self._prefix is not None and realtime is not None:
            self._prefix.check(realtime)
        return Row(
            batch=self._keys.batch(observation),
            sizes=self._keys.sizes_of(observation),
            seed=seed,
            realtime=realtime,
            queue_ms=queue_ms,
        )


def _result(answer: Answer) -> Result:
    if isinstance(answer, Exception):
        raise answer
    return answer
