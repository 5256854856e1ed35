# SPDX-License-Identifier: Apache-2.0
"""Key map: a robot's names for its cameras and joints <-> the names a policy was trained with.

In: images by robot camera name, the joint vector, the prompt. Out: an OpenPI observation.
Pure. OpenPI has no standard key set and stock servers do not say theirs, so everything is
checked here, before it costs a connection. Ready-made key maps: `pi05_websocket.presets`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pi05_websocket.camera_map import CameraMap, Fit, PolicyKey, key_path, shown_key
from pi05_websocket.data import ActionKind, Observation, UInt8Array
from pi05_websocket.errors import ConfigError, ObservationError

__all__ = ["CameraMap", "Fit", "KeyMap", "PolicyKey", "StatePart"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatePart:
    """A run of consecutive joints that travels under one key."""

    policy_key: PolicyKey
    """Key of the vector in the observation; a tuple is a path into nested maps."""

    size: int | None
    """Number of joints; None takes however many there are (only a part that stands alone can)."""

    dtype: Literal["float32", "float64"] = "float32"
    """What it is sent as."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyMap:
    """Everything a policy wants to be called, and how to make an observation of it.

    Frozen; `with_cameras` and `dataclasses.replace` make changed copies.
    """

    name: str
    """What error messages call it."""

    cameras: Mapping[str, CameraMap]
    """Robot camera name -> where its image goes."""

    state: tuple[StatePart, ...]
    """The joint vector cut into parts, in order; usually one."""

    prompt_key: PolicyKey = "prompt"
    """Key of the instruction."""

    action_dim: int | None = None
    """Width of the policy's actions; None where it is not known."""

    action_kind: ActionKind = "absolute"
    """What the policy's actions mean; decides what holding still is."""

    action_horizon: int | None = None
    """Rows of the policy's chunks as its stock configuration has it; None where it is not known."""

    joint_names: tuple[str, ...] = ()
    """Order of the joint vector, of the state as of the actions; empty where it is not known."""

    unit_system: str = ""
    """The same for programs, of joints that can be converted: a name of `units.UNIT_SYSTEMS`; empty where it is
    not known, or not about joints."""

    units: str = ""
    """Units and meaning of state and actions, in words: the wire does not say them."""

    description: str = ""
    """Who uses these keys, in one sentence."""

    source: str = ""
    """Where they are written down."""

    def __post_init__(self) -> None:
        # A plain dict: policies are copied and pickled, which a mapping proxy refuses.
        object.__setattr__(self, "cameras", dict(self.cameras))
        object.__setattr__(self, "state", tuple(self.state))
        if not self.state:
            raise ConfigError(f"key map {self.name!r}: no state key")
        if len(self.state) > 1 and any(part.size is None for part in self.state):
            raise ConfigError(f"key map {self.name!r}: a state in several parts needs their sizes")
        if any(part.size is not None and part.size < 1 for part in self.state):
            raise ConfigError(f"key map {self.name!r}: a state part needs at least one joint")
        self._check_keys()

    def _check_keys(self) -> None:
        """Refuse keys that would overwrite each other, nested ones included."""
        taken: dict[tuple[str, ...], str] = {}
        for key, owner in self._keys():
            path = key_path(key)
            for other, other_owner in taken.items():
                shorter = min(len(path), len(other))
                if path[:shorter] == other[:shorter]:
                    raise ConfigError(
                        f"key map {self.name!r}: {other_owner} and {owner} "
                        f"would both be sent as {shown_key(key)!r}; give each its own policy key"
                    )
            taken[path] = owner

    def _keys(self) -> Iterable[tuple[PolicyKey, str]]:
        for robot_camera, camera in self.cameras.items():
            yield camera.policy_key, f"camera {robot_camera!r}"
        for part in self.state:
            yield part.policy_key, "the state"
        yield self.prompt_key, "the prompt"

    @property
    def state_dim(self) -> int | None:
        """Length of the joint vector; None takes any."""
        sizes = [part.size for part in self.state if part.size is not None]
        return sum(sizes) if sizes else None

    def unused(self, robot_cameras: Iterable[str]) -> tuple[str, ...]:
        """Return the robot's cameras that this key map does not send, sorted."""
        return tuple(sorted(set(robot_cameras) - set(self.cameras)))

    def missing(self, robot_cameras: Iterable[str]) -> tuple[str, ...]:
        """Return the cameras an observation needs and the robot does not have, sorted."""
        needed = {name for name, camera in self.cameras.items() if camera.required}
        return tuple(sorted(needed - set(robot_cameras)))

    def with_cameras(self, renamed: Mapping[str, str | CameraMap]) -> KeyMap:
        """Return a copy with other robot cameras.

        Args:
            renamed: Robot camera name -> one of: a camera of this key map, by its name or policy
                key, whose fit it takes over; the same with a fit of its own, `realsense pad
                224x224`; a new key with a fit, `observation/images/top raw`; a `CameraMap`.
                Cameras of this key map that are not mentioned keep their robot camera's name.

        Raises:
            ConfigError: If a name is unknown, or two cameras want the same key.
        """
        cameras = {robot: self._camera(text) for robot, text in renamed.items()}
        served = {key_path(camera.policy_key) for camera in cameras.values()}
        for name, camera in self.cameras.items():
            if key_path(camera.policy_key) in served:
                continue
            if name not in cameras:
                cameras[name] = camera
            elif camera.required:
                raise ConfigError(
                    f"key map {self.name!r}: robot camera {name!r} now serves "
                    f"{shown_key(cameras[name].policy_key)!r}, which leaves "
                    f"{shown_key(camera.policy_key)!r} without a camera; map another camera to it"
                )
        return dataclasses.replace(self, cameras=cameras)

    def _camera(self, wanted: str | CameraMap) -> CameraMap:
        if isinstance(wanted, CameraMap):
            return wanted
        target, _, rest = wanted.strip().partition(" ")
        known = self.cameras.get(target)
        for camera in self.cameras.values():
            if known is None and shown_key(camera.policy_key) == target:
                known = camera
        if rest:
            own = CameraMap.parse(wanted)
            return own if known is None else known.with_fit_of(own)
        if known is None:
            choices = ", ".join(
                f"{name} ({shown_key(camera.policy_key)})" for name, camera in self.cameras.items()
            )
            raise ConfigError(
                f"key map {self.name!r} has no camera {target!r}; it has {choices or 'none'}. "
                f"To send another key, say how: '{target or 'KEY'} pad 224x224'"
            )
        return known

    def observation(
        self,
        images: Mapping[str, npt.NDArray[Any]],
        state: npt.NDArray[Any],
        prompt: str | None = None,
    ) -> Observation:
        """Make what the policy sees at one tick.

        Args:
            images: Robot camera name -> RGB image, uint8 or float 0..1, HWC or CHW. More cameras
                than the key map has are left out; `unused` names them.
            state: `(state_dim,)` joint positions in key-map order and the policy's units.
            prompt: What to do. None and "" leave the key out: the server then takes its default
                prompt, or answers "Prompt is required".

        Returns:
            Policy keys to arrays. uint8 images of the right size are passed on, not copied: do not
            write into them until the observation is encoded. The state is a copy.

        Raises:
            ObservationError: If a camera is missing, or anything has a wrong shape, dtype or value.
        """
        observation: Observation = {}
        for robot_camera, camera in self.cameras.items():
            image = images.get(robot_camera)
            if image is not None:
                _put(observation, camera.policy_key, camera.prepare(image))
            elif camera.required:
                raise self._missing_camera(camera, robot_camera, images)
        self._put_state(observation, state)
        if prompt is not None and not isinstance(prompt, str):
            raise ObservationError(shown_key(self.prompt_key), "a str", type(prompt).__name__)
        if prompt:
            _put(observation, self.prompt_key, prompt)
        return observation

    def pictures(self, observation: Observation) -> dict[str, UInt8Array]:
        """Return the pictures in an observation that this key map made, by their keys as people write them."""
        found = {
            shown_key(camera.policy_key): _get(observation, camera.policy_key)
            for camera in self.cameras.values()
        }
        return {key: picture for key, picture in found.items() if picture is not None}

    def prompt(self, observation: Observation) -> str:
        """Return the prompt in an observation that this key map made; empty: there is none."""
        return str(_get(observation, self.prompt_key) or "")

    def _put_state(self, observation: Observation, state: npt.NDArray[Any]) -> None:
        key = " + ".join(shown_key(part.policy_key) for part in self.state)
        vector = np.asarray(state)
        width = self.state_dim
        if vector.dtype.kind not in "fiu" or vector.ndim != 1 or width not in (None, vector.size):
            names = f": {', '.join(self.joint_names)}" if self.joint_names else ""
            raise ObservationError(
                key,
                f"a vector of {'any number of' if width is None else width} joint positions{names}",
                f"{vector.dtype} of shape {vector.shape}",
                f"Check that key map {self.name!r} is the one this robot and policy need",
            )
        if not np.isfinite(vector).all():
            joint = int(np.argmin(np.isfinite(vector)))
            name = self.joint_names[joint] if joint < len(self.joint_names) else f"joint {joint}"
            raise ObservationError(key, "finite joint positions", f"{name} = {vector[joint]}")
        start = 0
        for part in self.state:
            stop = vector.size if part.size is None else start + part.size
            _put(observation, part.policy_key, np.array(vector[start:stop], dtype=part.dtype))
            start = stop

    def _missing_camera(
        self, camera: CameraMap, robot_camera: str, images: Mapping[str, Any]
    ) -> ObservationError:
        free = self.unused(images)
        candidate = free[0] if free else "YOUR_CAMERA"
        key = shown_key(camera.policy_key)
        return ObservationError(
            key,
            f"an image from robot camera {robot_camera!r} (key map {self.name!r})",
            f"cameras {', '.join(sorted(images)) or 'none'}",
            f"There is no {robot_camera!r}; map one that exists: --policy.cameras='{{{candidate}: {key}}}', "
            "in Python KeyMap.with_cameras",
        )


def _put(observation: Observation, key: PolicyKey, value: object) -> None:
    *parents, last = key_path(key)
    for parent in parents:
        observation = observation.setdefault(parent, {})
    observation[last] = value


def _get(observation: Observation, key: PolicyKey) -> Any:
    """Return what `_put` has put there; None: nothing."""
    value: Any = observation
    for part in key_path(key):
        if value is None:
            break
        value = value.get(part)
    return value
