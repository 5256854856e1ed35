# SPDX-License-Identifier: Apache-2.0
"""A policy that plays back recorded actions: to see an arm follow a known motion through the whole loop.

In: a `.npy` or `.npz` file. Out: chunk after chunk of it, whatever the observation. Reads the file once.

The file holds numbers, in the policy's units and order, finite:

- `.npy`: the array itself; `.npz`: the array under the key `actions` (other keys are left alone);
- of shape `(ticks, action_dim)`: one row for each tick, as recorded; or
- of shape `(chunks, action_horizon, action_dim)`: recorded replies, one chunk for each request.

`numpy.savez("wave.npz", actions=rows)` writes one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from pi05_websocket.data import Float32Array, Observation
from pi05_websocket.errors import ConfigError
from pi05_websocket.policy import Result

__all__ = ["ReplayOptions", "ReplayPolicy", "load_replay", "read_actions_file", "read_flag"]


_MOST_ROWS = 10_000
"""In a reply; the longest chunk that anybody reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """How to play rows that were recorded tick by tick."""

    action_horizon: int = 50
    """Rows in each reply. Ignored for recorded chunks, which are replied as they are."""

    advance: int = 0
    """Rows from one reply to the next: what the robot executes of each. 0: the whole reply."""

    loop: bool = False
    """Begin again after the last row; otherwise the last row is repeated, so that the arm holds."""

    def __post_init__(self) -> None:
        if not 1 <= self.action_horizon <= _MOST_ROWS or not 0 <= self.advance <= _MOST_ROWS:
            raise ConfigError(
                f"expected action_horizon from 1 and advance from 0 to {_MOST_ROWS}, "
                f"got action_horizon={self.action_horizon} advance={self.advance}"
            )


class ReplayPolicy:
    """Answers every observation with the next rows of a recording.

    ::

        rows recorded    r0 r1 r2 r3 r4        action_horizon 3, advance 2
        replies          r0 r1 r2 │ r2 r3 r4 │ r4 r4 r4 │ …        loop=True: │ r4 r0 r1 │ …

    One position for all clients: the server cannot tell robots apart. `reset()` goes back to the start.
    """

    def __init__(
        self,
        actions: npt.ArrayLike,
        options: ReplayOptions | None = None,
        *,
        source: str = "actions",
    ) -> None:
        """Take the recording.

        Args:
            actions: `(ticks, action_dim)` or `(chunks, action_horizon, action_dim)`.
            source: What to call it in errors.

        Raises:
            ConfigError: If it is none of these, empty, or not finite.
        """
        self._actions = _checked(actions, source)
        self._options = options or ReplayOptions()
        self._source = source
        self._next = 0

    def __repr__(self) -> str:
        return f"<ReplayPolicy {self._source} shape={self._actions.shape} next={self._next}>"

    def infer(self, observation: Observation, /) -> Result:
        """Return `{"actions": (action_horizon, action_dim) float32}`: the next rows."""
        if self._actions.ndim == 3:
            chunk = self._chunk(self._next)
            self._next += 1
        else:
            rows = self._next + np.arange(self._options.action_horizon)
            chunk = self._actions[self._within(rows)]
            self._next += self._options.advance or self._options.action_horizon
        return {"actions": chunk}

    def reset(self) -> None:
        """Begin again with the first row."""
        self._next = 0

    def _chunk(self, index: int) -> Float32Array:
        chunk: Float32Array = self._actions[self._within(np.array(index))]
        if index >= len(self._actions) and not self._options.loop:
            return np.repeat(chunk[-1:], len(chunk), axis=0)
        return chunk.copy()

    def _within(self, indexes: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        length = len(self._actions)
        return indexes % length if self._options.loop else np.minimum(indexes, length - 1)


def load_replay(spec: str) -> ReplayPolicy:
    """Load `FILE` or `FILE?loop&action_horizon=25&advance=10`.

    Raises:
        ConfigError: If the file cannot be read, holds no recording, or an option is unknown.
    """
    path, _, query = spec.partition("?")
    return ReplayPolicy(
        read_actions_file(Path(path).expanduser()), _options(query), source=Path(path).name
    )


def read_actions_file(path: Path) -> npt.NDArray[Any]:
    """Read the recording's array from a `.npy` or `.npz` file; never unpickles.

    Raises:
        ConfigError: If there is no such file, it is no numpy file, or has no `actions`.
    """
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, Mapping):
                if "actions" not in loaded:
                    keys = ", ".join(sorted(loaded)) or "none"
                    raise ConfigError(f"{path}: expected the key 'actions', got the keys: {keys}")
                loaded = loaded["actions"]
    except ConfigError:
        raise
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    except (
        Exception
    ) as exc:  # of a damaged file numpy, zipfile and the tokenizer raise what they like
        raise ConfigError(
            f"{path}: expected a .npy or .npz file of numbers ({exc}). "
            'Write one with numpy.savez("FILE.npz", actions=rows).'
        ) from exc
    return np.asarray(loaded)


def _checked(actions: npt.ArrayLike, source: str) -> Float32Array:
    array = np.asarray(actions)
    if array.dtype.kind not in "iuf":
        raise ConfigError(f"{source}: expected numbers, got dtype {array.dtype}")
    if array.ndim not in (2, 3) or array.size == 0:
        raise ConfigError(
            f"{source}: expected shape (ticks, action_dim) or (chunks, action_horizon, action_dim), "
            f"not empty, got {array.shape}"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # infinite, or NaN: refused
        rows: Float32Array = array.astype(np.float32)
    if not np.isfinite(rows).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(rows))[0])
        raise ConfigError(f"{source}: expected finite numbers, got {array[where]} at {where}")
    return rows


def _options(query: str) -> ReplayOptions:
    known = [field.name for field in fields(ReplayOptions)]
    values: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise ConfigError(f"replay: unknown option {name!r}; known are {', '.join(known)}")
        values[name] = read_flag(name, text) if name == "loop" else _number(name, text)
    return ReplayOptions(**values)


def read_flag(name: str, text: str) -> bool:
    """Return what an option that is there, or is `true` or `false`, says.

    Raises:
        ConfigError: It says something else.
    """
    if text.lower() not in ("", "1", "true", "0", "false"):
        raise ConfigError(f"replay: expected {name}, {name}=true or {name}=false, got {text!r}")
    return text.lower() in ("", "1", "true")


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"replay: expected a whole number for {name}, got {text!r}") from None
