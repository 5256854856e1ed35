# SPDX-License-Identifier: Apache-2.0
"""The policy that is measured, asked as a server would ask it, but in virtual time and with repeatable noise.

In: a policy's name as after `serve --policy`. Out: what it answers, its `_rt` included. A policy of LeRobot
computes in this process; nothing of it is imported before one is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pi05_websocket.bench.cells import COMPUTE_MS, Images
from pi05_websocket.camera_map import CameraMap
from pi05_websocket.data import Observation, ServerMetadata
from pi05_websocket.errors import ConfigError
from pi05_websocket.keymap import KeyMap
from pi05_websocket.policy import policy_metadata, realtime_inference, reset_policy
from pi05_websocket.presets import preset
from pi05_websocket.server.loading import load_policy
from pi05_websocket.wire.realtime import realtime_support, split_realtime

__all__ = ["MeasuredPolicy"]

T = TypeVar("T")

_MOST_REQUESTS = 10_000
"""Of one episode; so that no two requests of a benchmark share their noise."""


class MeasuredPolicy:
    """One policy, loaded once for many episodes.

    Args:
        spec: `expert`, `lerobot:PATH`, `module:factory`.

    Raises:
        ConfigError: There is no such policy, or it does not say how long its chunks are.
    """

    def __init__(self, spec: str) -> None:
        self._policy: Any = load_policy(spec)
        said = policy_metadata(self._policy)
        self.name = "expert" if spec == "expert" else str(said.get("policy") or spec)
        self.metadata: ServerMetadata = said
        horizon = said.get("action_horizon")
        if not isinstance(horizon, int) or horizon < 1:
            raise ConfigError(
                f"policy {spec!r}: its metadata has no action_horizon, the rows of its chunks"
            )
        self.action_horizon = horizon
        self._infer_realtime = realtime_inference(self._policy)
        self._seed = self._requests = 0
        if hasattr(self._policy, "timed"):
            self._policy.timed = _in_virtual_time

    def __repr__(self) -> str:
        return f"<MeasuredPolicy {self.name} conditions={self.conditions}>"

    @property
    def conditions(self) -> bool:
        """Whether it joins its chunks to the running one."""
        return self._infer_realtime is not None and realtime_support(self.metadata) is not None

    def key_map(self, images: Images = "raw") -> KeyMap:
        """Return the arm's key map, with images of the sizes the policy was trained with.

        An image is cropped to the policy's proportions and scaled; where it says no size, the preset's stands.
        As JPEG the preset's front image is padded to 224x224 first, as for a robot that is far away: with it
        an observation fits into ten segments.
        """
        arm = preset("so101")
        if images == "jpeg":
            arm = arm.with_cameras({"realsense": "realsense pad 224x224"})
        sizes = self.metadata.get("image_sizes", {})
        cameras: dict[str, str | CameraMap] = {}
        for name, camera in arm.cameras.items():
            size = sizes.get(camera.policy_key) if isinstance(sizes, Mapping) else None
            if size is not None:
                height, width = size
                cameras[name] = CameraMap(
                    policy_key=camera.policy_key, fit="crop", height=height, width=width
                )
        return arm.with_cameras(cameras)

    def begin_episode(self, seed: int) -> None:
        """Forget the episode before; from here on the noise is this seed's."""
        reset_policy(self._policy)
        self._seed, self._requests = seed, 0

    def infer(self, observation: Observation, queue_ms: float) -> Mapping[str, Any]:
        """Return what the policy answers to the next request of the episode."""
        if callable(seed := getattr(self._policy, "seed", None)):
            seed(self._seed * _MOST_REQUESTS + self._requests)
        self._requests += 1
        stock, realtime = split_realtime(observation)
        if realtime is None or self._infer_realtime is None:
            result: Mapping[str, Any] = self._policy.infer(stock)
            return result
        return self._infer_realtime(stock, realtime, queue_ms)


def _in_virtual_time(work: Callable[[], T]) -> tuple[T, float]:
    """Return what `work` returns, and the milliseconds every policy is given."""
    return work(), COMPUTE_MS
