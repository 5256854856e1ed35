# SPDX-License-Identifier: Apache-2.0
"""How to serve a checkpoint: the settings, and how they are written after a `?`.

In: `device=cuda&dtype=bfloat16&max_batch=16`. Out: a `ServingConfig`. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl

from pi05_websocket.errors import ConfigError

__all__ = ["ModelDtype", "ServingConfig", "serving_config"]

ModelDtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingConfig:
    """How to serve a checkpoint."""

    device: str | None = None
    """`cuda`, `cpu`, ...; None: the checkpoint's own, or the best there is."""

    dtype: ModelDtype | None = None
    """What the weights are cast to; None: as LeRobot loads them. The processors stay in float32. A policy whose
    own config has a `dtype` (π₀, π₀.₅) is given it, and keeps in float32 what LeRobot keeps; any other is cast
    whole and runs under autocast."""

    max_batch: int | None = None
    """Most requests in one forward pass; a longer batch is cut. None: as many as come."""

    rtc: bool = True
    """Whether to offer robots that chunks continue the running one, where the policy can."""

    guidance_weight: float = 5.0
    """β: how strictly a policy that was not trained for it follows the running chunk."""

    keys: Mapping[str, str] = field(default_factory=dict)
    """Policy input to observation key, where `observation.images.front` is not `observation/images/front`."""

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in get_args(ModelDtype):
            known = ", ".join(get_args(ModelDtype))
            raise ConfigError(f"dtype={self.dtype!r}: expected one of {known}")
        if self.max_batch is not None and self.max_batch < 1:
            raise ConfigError(f"max_batch={self.max_batch}: must be 1 or more")
        if not 0.0 < self.guidance_weight < math.inf:
            raise ConfigError(f"guidance_weight={self.guidance_weight}: must be above 0")


def serving_config(query: str) -> ServingConfig:
    """Read `device=cuda&rtc=false&guidance_weight=8&observation.images.front=observation/image`.

    Raises:
        ConfigError: An option is unknown or has no such value.
    """
    options: dict[str, Any] = {"keys": {}}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name.startswith("observation."):
            options["keys"][name] = text
        elif name in _READ:
            options[name] = _READ[name](name, text)
        else:
            known = f"{', '.join(_READ)}, observation.NAME=KEY"
            raise ConfigError(f"lerobot: unknown option {name!r}; known are {known}")
    return ServingConfig(**options)


def _text(_name: str, text: str) -> str:
    return text


def _boolean(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise ConfigError(f"lerobot: expected {name}=true or {name}=false, got {text!r}")
    return text == "true"


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"lerobot: expected a number for {name}, got {text!r}") from None


def _count(name: str, text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"lerobot: expected a whole number for {name}, got {text!r}")
    return int(text)


_READ: Mapping[str, Callable[[str, str], Any]] = {
    "device": _text,
    "dtype": _text,
    "max_batch": _count,
    "rtc": _boolean,
    "guidance_weight": _number,
}
