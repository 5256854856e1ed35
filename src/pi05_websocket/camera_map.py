# SPDX-License-Identifier: Apache-2.0
"""Camera map: what happens to one camera's image on its way into an observation.

In: an RGB image of the robot. Out: the same at the size, dtype and axis order of a policy key.
Pure.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from pi05_websocket import images
from pi05_websocket.data import UInt8Array
from pi05_websocket.errors import ConfigError, ObservationError

__all__ = ["CameraMap", "Fit", "PolicyKey", "key_path", "shown_key"]

Fit = Literal["raw", "pad", "crop", "stretch"]
"""How an image gets to the policy's size; `pad` is what OpenPI does itself."""

PolicyKey = str | tuple[str, ...]
"""A key of the observation, or the path to a nested one: `("images", "cam_high")`."""

_RESIZE = {
    "pad": images.resize_with_pad,
    "crop": images.resize_crop,
    "stretch": images.resize_stretch,
}


def key_path(key: PolicyKey) -> tuple[str, ...]:
    """Return the way to a key through nested maps, outermost first."""
    return (key,) if isinstance(key, str) else key


def shown_key(key: PolicyKey) -> str:
    """Return a key as people write it; nested parts are joined by a dot."""
    return ".".join(key_path(key))


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraMap:
    """Where one camera's image goes and what is done to it on the way."""

    policy_key: PolicyKey
    """Key of the image in the observation; a tuple is a path into nested maps."""

    fit: Fit = "raw"
    """`raw` as it is, `pad` with black to fit, `crop` to cover, `stretch` each axis alone."""

    height: int | None = None
    """Rows the policy wants. With `raw`: rows the camera must have; None takes any."""

    width: int | None = None
    """Columns the policy wants. With `raw`: columns the camera must have; None takes any."""

    layout: images.Layout = "hwc"
    """Axes in the observation: `hwc`, or `chw` as OpenPI's ALOHA policies want it."""

    required: bool = True
    """Whether an observation without this camera is an error; otherwise the key is left out."""

    def __post_init__(self) -> None:
        key = shown_key(self.policy_key)
        if not key or not all(key_path(self.policy_key)):
            raise ConfigError(f"camera: policy_key must not be empty, got {self.policy_key!r}")
        if self.fit not in get_args(Fit) or self.layout not in get_args(images.Layout):
            raise ConfigError(
                f"camera {key!r}: fit must be one of {get_args(Fit)} and layout one of "
                f"{get_args(images.Layout)}, got fit={self.fit!r} layout={self.layout!r}"
            )
        if (self.height is None) != (self.width is None):
            raise ConfigError(f"camera {key!r}: give height and width together, or neither")
        if self.height is None or self.width is None:
            if self.fit != "raw":
                raise ConfigError(f"camera {key!r}: fit={self.fit!r} needs height and width")
        elif self.height < 1 or self.width < 1:
            raise ConfigError(f"camera {key!r}: impossible size {self.height}x{self.width}")

    @property
    def size(self) -> str:
        """The size in words: `224x224`, rows first, or `any size`."""
        return "any size" if self.height is None else f"{self.height}x{self.width}"

    def prepare(self, image: npt.NDArray[Any]) -> UInt8Array:
        """Return the image as the policy wants it.

        Args:
            image: One RGB image, uint8 or float 0..1, HWC or CHW.

        Returns:
            `(height, width, 3)` or `(3, height, width)` uint8, contiguous.

        Raises:
            ObservationError: If it is no such image, or `raw` and of another size.
        """
        key = shown_key(self.policy_key)
        pixels = images.to_uint8_hwc(image, key=key)
        if self.height is not None and self.width is not None:
            if self.fit != "raw":
                pixels = _RESIZE[self.fit](pixels, self.height, self.width, key=key)
            elif pixels.shape[:2] != (self.height, self.width):
                raise ObservationError(
                    key,
                    f"an image of {self.size} pixels (rows x columns)",
                    f"{pixels.shape[0]}x{pixels.shape[1]}",
                    "Set the camera to that size, or let it be resized: add "
                    f"'pad {self.size}' after the policy key in the camera map",
                )
        return pixels if self.layout == "hwc" else np.ascontiguousarray(pixels.transpose(2, 0, 1))

    @classmethod
    def parse(cls, text: str) -> CameraMap:
        """Read a camera map from one line: `KEY FIT [HEIGHTxWIDTH]`.

        `observation/images/top pad 224x224`, `image raw`, `images/front raw 480x640`.

        Raises:
            ConfigError: If the line has another form.
        """
        usage = (
            "a camera map is 'KEY FIT [HEIGHTxWIDTH]', for example 'observation/image pad 224x224'"
        )
        words = text.split()
        size: tuple[int, ...] = ()
        if len(words) == 3:
            numbers = words[2].split("x")
            if len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
                raise ConfigError(f"{usage}; got {text!r}")
            size = (int(numbers[0]), int(numbers[1]))
        elif len(words) != 2:
            raise ConfigError(f"{usage}; got {text!r}")
        height, width = size or (None, None)
        return cls(policy_key=words[0], fit=_as_fit(words[1]), height=height, width=width)

    def with_fit_of(self, other: CameraMap) -> CameraMap:
        """Return a copy that resizes as `other` does and goes where this one goes."""
        return dataclasses.replace(self, fit=other.fit, height=other.height, width=other.width)


def _as_fit(word: str) -> Fit:
    for fit in get_args(Fit):
        if word == fit:
            return fit  # type: ignore[no-any-return]  # get_args cannot say it
    raise ConfigError(f"fit must be one of {', '.join(get_args(Fit))}; got {word!r}")
