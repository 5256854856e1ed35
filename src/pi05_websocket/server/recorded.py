# SPDX-License-Identifier: Apache-2.0
"""A policy that answers as another one did: the answers of a recording, one after the other.

In: a recording (`--policy.record=DIR`, `pi05-websocket run --record DIR`). Out: its chunks in their order,
whatever the observation. Reads the recording once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl

from pi05_websocket.data import Float32Array, Observation
from pi05_websocket.errors import ConfigError
from pi05_websocket.policy import Result
from pi05_websocket.recording.contents import open_recording
from pi05_websocket.server.replay import read_flag

__all__ = ["RecordedPolicy", "is_recording", "load_recorded"]


class RecordedPolicy:
    """Answers each request with the next recorded chunk; after the last, with its last row: the arm holds.

    Args:
        answers: Each chunk and the seconds it took.
        loop: Begin again after the last answer.
        timing: Take as long for each as it took then: the arm meets the same delays.
        source: What to call it.
        sleep: How to wait.
    """

    def __init__(
        self,
        answers: list[tuple[Float32Array, float]],
        *,
        loop: bool = False,
        timing: bool = False,
        source: str = "recording",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not answers:
            raise ConfigError(f"{source}: expected at least one answered request, got none")
        self._answers = answers
        self._loop = loop
        self._timing = timing
        self._source = source
        self._sleep = sleep
        self._next = 0

    def __repr__(self) -> str:
        return f"<RecordedPolicy {self._source} next={self._next} of {len(self._answers)}>"

    def infer(self, observation: Observation, /) -> Result:
        """Return `{"actions": (action_horizon, action_dim) float32}`: the next answer."""
        number, self._next = self._next, self._next + 1
        over = number >= len(self._answers) and not self._loop
        actions, seconds = self._answers[-1 if over else number % len(self._answers)]
        if self._timing:
            self._sleep(seconds)
        if over:
            return {"actions": actions[-1:].repeat(len(actions), axis=0)}
        return {"actions": actions.copy()}

    def reset(self) -> None:
        """Begin again with the first answer."""
        self._next = 0


def is_recording(spec: str) -> bool:
    """Say whether `FILE?options` names a recording and no file of actions."""
    path, _, _ = spec.partition("?")
    return path.endswith(".mcap") or Path(path).expanduser().is_dir()


def load_recorded(spec: str) -> RecordedPolicy:
    """Load `RECORDING` or `RECORDING?loop&timing`.

    Raises:
        ConfigError: There is no such recording, nothing was answered in it, or an option is unknown.
    """
    path, _, query = spec.partition("?")
    flags = {"loop": False, "timing": False}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in flags:
            raise ConfigError(
                f"replay: unknown option {name!r} of a recording; known are {', '.join(flags)}"
            )
        flags[name] = read_flag(name, text)
    recording = open_recording(path)
    answers = [(one.actions, one.seconds) for one in recording.answered()]
    return RecordedPolicy(answers, loop=flags["loop"], timing=flags["timing"], source=path)
