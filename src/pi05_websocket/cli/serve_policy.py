# SPDX-License-Identifier: Apache-2.0
"""Which policy `pi05-websocket serve` serves: LeRobot's own words turned into ours, loading, warming up.

In: the command's words. Out: one word that names the policy, and the policy, warm. Says what takes long.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote

import tyro

from pi05_websocket.errors import ConfigError
from pi05_websocket.policy import Policy, warm_up_policy
from pi05_websocket.server.loading import load_policy

__all__ = ["PolicyChoice", "load_warm", "warm_up_sizes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChoice:
    """What to serve, in one of two ways."""

    policy: str = ""
    """module:factory (a function, class or object with infer(observation)), lerobot:PATH (a
    checkpoint's folder or its name on the hub), replay:FILE (actions or a recording) or expert."""

    path: Annotated[str, tyro.conf.arg(name="policy.path")] = ""
    """A LeRobot checkpoint in LeRobot's own words: its folder or its name on the hub."""

    device: Annotated[str, tyro.conf.arg(name="policy.device")] = ""
    """With --policy.path: cuda, cpu, mps. Empty: the checkpoint's own, or the best there is."""

    dtype: Annotated[str, tyro.conf.arg(name="policy.dtype")] = ""
    """With --policy.path: float32, bfloat16 or float16. Empty: the checkpoint's own."""

    warm_up: bool = True
    """Infer once for each size of batch before robots can connect: first inferences compile and allocate."""

    @property
    def given(self) -> bool:
        """Whether there is one at all."""
        return bool(self.policy or self.path)

    @property
    def spec(self) -> str:
        """The policy in one word, as `server.loading.load_policy` takes it.

        Raises:
            ConfigError: If there is none, or more than one.
        """
        if bool(self.policy) == bool(self.path):
            raise ConfigError(
                "what to serve: give --policy (module:factory, lerobot:PATH, replay:FILE, expert), "
                "--policy.path (a LeRobot checkpoint) or --upstream (servers behind this one), one of them"
            )
        options = {"device": self.device, "dtype": self.dtype}
        given = [f"{name}={quote(text)}" for name, text in options.items() if text]
        if self.policy:
            if given:
                raise ConfigError(
                    "--policy.device and --policy.dtype go with --policy.path; after lerobot:PATH write "
                    f"?{'&'.join(given)}"
                )
            return self.policy
        return f"lerobot:{self.path}{'?' if given else ''}{'&'.join(given)}"


def load_warm(choice: PolicyChoice, max_batch: int) -> Policy:
    """Load the policy and warm it up; say so, since both can take minutes.

    Raises:
        ConfigError: See `load_policy`.
    """
    spec = choice.spec
    began = time.monotonic()
    print(f"loading {spec}", file=sys.stderr, flush=True)
    policy = load_policy(spec)
    if choice.warm_up:
        loaded = time.monotonic()
        if warm_up_policy(policy, warm_up_sizes(max_batch)):
            print(
                f"loaded in {loaded - began:.1f} s, warm after {time.monotonic() - loaded:.1f} s more",
                file=sys.stderr,
                flush=True,
            )
    return policy


def warm_up_sizes(max_batch: int) -> list[int]:
    """Return the sizes of batches to try: what lies between is estimated from these.

    1, the powers of two, and the largest.
    """
    sizes = [2**n for n in range(max_batch.bit_length()) if 2**n < max_batch]
    return [*sizes, max_batch]
