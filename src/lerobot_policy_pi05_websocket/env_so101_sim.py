# SPDX-License-Identifier: Apache-2.0
"""`--env.type=so101_sim`: the simulated SO-101 as an environment for `lerobot-eval`, several at once.

In: joint targets, six degrees (the gripper 0 to 100). Out: `agent_pos` (the joints), `pixels` (both cameras),
success once the cube is in the air. Time is the environment's own and stands still between steps, so a policy's
latency costs nothing here; for that there are `--robot.type=so101_sim` and `pi05-websocket bench latency`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from pi05_websocket.data import Float32Array
from pi05_websocket.errors import ConfigError
from pi05_websocket.sim.arm import JOINTS, LOWER, UPPER
from pi05_websocket.sim.episodes import EpisodeRules
from pi05_websocket.sim.so101 import CAMERA_SHAPES, SimConfig, SimSO101
from pi05_websocket.sim.tasks import BELT_SPEED, make_task
from pi05_websocket.testing import FakeClock

__all__ = ["SO101SimEnv", "SO101SimEnvConfig"]

_SEEDS = 2**31 - 1


class SO101SimEnv(gym.Env):  # type: ignore[misc]  # gymnasium's spaces are untyped for mypy
    """One arm, one cube, on a clock that goes on by one tick a step.

    Args:
        task: `cube`, `belt` or `moved`.
        belt_speed: Metres per second, for `belt`.
        fps: Ticks per second.
        episode_s: Seconds after which an episode has failed.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 30}
    render_mode = "rgb_array"

    def __init__(
        self,
        *,
        task: str = "cube",
        belt_speed: float = BELT_SPEED,
        fps: int = 30,
        episode_s: float = 10.0,
    ) -> None:
        if fps < 1 or not episode_s > 0:
            raise ConfigError(f"fps={fps} episode_s={episode_s}: expected numbers above 0")
        chosen = make_task(task, belt_speed=belt_speed)
        self.task = chosen.name
        self.task_description = chosen.prompt
        self._max_episode_steps = max(1, round(episode_s * fps))
        self._period = 1.0 / fps
        self._clock = FakeClock()
        rules = EpisodeRules(next_episode="never", time_limit_s=episode_s)
        self._sim = SimSO101(
            SimConfig(task=chosen, rules=rules, render="demand"), clock=self._clock
        )
        box = gym.spaces.Box
        self.observation_space = gym.spaces.Dict(
            {
                "agent_pos": box(-np.inf, np.inf, (len(JOINTS),), np.float64),
                "pixels": gym.spaces.Dict(
                    {name: box(0, 255, shape, np.uint8) for name, shape in CAMERA_SHAPES.items()}
                ),
            }
        )
        self.action_space = box(
            np.asarray(LOWER, np.float32), np.asarray(UPPER, np.float32), dtype=np.float32
        )
        self._steps = 0
        self._seen: dict[str, Any] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Lay out the seed's cube, the arm at rest; without a seed the next one of the last."""
        super().reset(seed=seed, options=options)
        chosen = int(self.np_random.integers(_SEEDS)) if seed is None else seed
        self._sim.reset(chosen)
        self._steps = 0
        return self._observe(), {"is_success": False}

    def step(
        self, action: Float32Array
    ) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Command joint targets `(6,)` for one tick.

        Raises:
            IllegalAction: They are not six finite numbers.
        """
        self._sim.send_action(action)
        self._clock.sleep(self._period)
        self._steps += 1
        seen = self._observe()
        success = self._sim.succeeded
        over = self._steps >= self._max_episode_steps
        return seen, float(success), success, over and not success, {"is_success": success}

    def render(self) -> np.ndarray[Any, Any]:
        """Return the scene camera's present picture."""
        return np.asarray(self._seen["realsense"])

    def close(self) -> None:
        """Free the simulator. Safe to call twice."""
        self._sim.close()

    def _observe(self) -> dict[str, Any]:
        self._seen = self._sim.get_observation()
        return {
            "agent_pos": np.array([self._seen[f"{name}.pos"] for name in JOINTS], np.float64),
            "pixels": {name: self._seen[name] for name in CAMERA_SHAPES},
        }


@EnvConfig.register_subclass("so101_sim")
@dataclass
class SO101SimEnvConfig(EnvConfig):  # type: ignore[misc]  # LeRobot is untyped for mypy
    """What to simulate for `lerobot-eval`."""

    task: str | None = "cube"
    """`cube` lies still, `belt` carries it towards +y, `moved` is moved once while the arm is on its way."""

    fps: int = 30
    """Ticks per second; the rate the policy was trained at."""

    belt_speed: float = BELT_SPEED
    """Metres per second, for `belt`."""

    episode_s: float = 10.0
    """Seconds after which an episode has failed."""

    features: dict[str, PolicyFeature] = field(
        default_factory=lambda: {
            ACTION: PolicyFeature(type=FeatureType.ACTION, shape=(len(JOINTS),)),
            "agent_pos": PolicyFeature(type=FeatureType.STATE, shape=(len(JOINTS),)),
            **{
                f"pixels/{name}": PolicyFeature(type=FeatureType.VISUAL, shape=shape)
                for name, shape in CAMERA_SHAPES.items()
            },
        }
    )
    features_map: dict[str, str] = field(
        default_factory=lambda: {
            ACTION: ACTION,
            "agent_pos": OBS_STATE,
            **{f"pixels/{name}": f"{OBS_IMAGES}.{name}" for name in CAMERA_SHAPES},
        }
    )

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """What the environment is made with."""
        return {
            "task": self.task or "cube",
            "belt_speed": self.belt_speed,
            "fps": self.fps,
            "episode_s": self.episode_s,
        }

    def create_envs(
        self, n_envs: int, use_async_envs: bool = False
    ) -> dict[str, dict[int, gym.vector.VectorEnv]]:
        """Return the vectorised environment, each in a process of its own where asked for."""
        makers = [partial(SO101SimEnv, **self.gym_kwargs) for _ in range(n_envs)]
        how: dict[str, Any] = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}
        vector: gym.vector.VectorEnv
        if use_async_envs and n_envs > 1:
            # Not forked: an OpenGL context and torch's threads do not survive that.
            vector = gym.vector.AsyncVectorEnv(makers, context="forkserver", **how)
        else:
            vector = gym.vector.SyncVectorEnv(makers, **how)
        return {self.type: {0: vector}}
