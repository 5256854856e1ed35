# SPDX-License-Identifier: Apache-2.0
"""Policies for tests of several processes: each answers with whom and what it was asked, and where.

In: observations with a robot's number and their own. Out: the same, so that a foreign or stale answer is seen.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np


class Numbered:
    """Takes 20 ms and 2 ms for each observation of a batch; answers with the observation's own numbers."""

    version = "v1"

    @property
    def metadata(self) -> dict[str, Any]:
        """Name the version."""
        return {"version": self.version}

    def infer(self, observation: dict[str, Any], /) -> dict[str, Any]:
        """Answer one."""
        return self.infer_batch([observation])[0]

    def infer_batch(self, observations: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answer several; all fail if one is bad, so that each is then asked alone."""
        time.sleep(0.020 + 0.002 * len(observations))
        if any("fail" in observation for observation in observations):
            raise KeyError("observation/image")
        return [
            {
                "actions": np.full((2, 6), observation["number"], np.float32),
                "robot": observation["robot"],
                "number": observation["number"],
                "version": self.version,
                "pid": os.getpid(),
                "batch": len(observations),
            }
            for observation in observations
        ]


class Numbered2(Numbered):
    """The next version."""

    version = "v2"


class Numbered3(Numbered):
    """And the one after."""

    version = "v3"


class Summing:
    """Answers with something that depends on every byte."""

    def infer(self, observation: dict[str, Any], /) -> dict[str, Any]:
        """Return sums and the state."""
        arrays = {k: v for k, v in observation.items() if isinstance(v, np.ndarray)}
        return {
            "actions": np.tile(observation["observation/state"].astype(np.float64), (50, 1)),
            "sums": {key: int(value.sum(dtype=np.int64)) for key, value in arrays.items()},
            "prompt": str(observation["prompt"]),
        }
