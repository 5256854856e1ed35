# SPDX-License-Identifier: Apache-2.0
"""What a policy draws at random, for each request from a stream of its own.

In: a seed for each row of a batch. Out: the noise to begin with, as `predict_action_chunk` takes it. Runs on
the policy thread.

The streams are torch's on the CPU, whatever the model runs on, and give what LeRobot alone would draw there
after `torch.manual_seed(seed)`. So one seed is one chunk, on every machine and in every batch, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION
from torch import Tensor

__all__ = ["GLOBALLY_SEEDED", "Noise", "noise_shape"]

_SHAPES: Mapping[str, Callable[[Any], tuple[int, ...]]] = {
    "act": lambda config: (),
    "pi0": lambda config: (config.chunk_size, config.max_action_dim),
    "pi05": lambda config: (config.chunk_size, config.max_action_dim),
    "smolvla": lambda config: (config.chunk_size, config.max_action_dim),
    "diffusion": lambda config: (config.horizon, config.output_features[ACTION].shape[0]),
}

GLOBALLY_SEEDED = ("multi_task_dit", "pi0_fast", "tdmpc", "vqbet")
"""Types that draw from torch's global generator alone, in the middle of the model: seeded, but one by one."""


def noise_shape(config: PreTrainedConfig) -> tuple[int, ...] | None:
    """Return `(rows, columns)` of the noise that `predict_action_chunk(batch, noise=...)` begins with.

    A config of somebody else's may say so itself, with an attribute `noise_shape`.

    Returns:
        `()` where nothing is drawn; None where it is not known or cannot be handed in.
    """
    own = getattr(config, "noise_shape", None)
    if own is not None:
        return tuple(own)
    known = _SHAPES.get(config.type)
    return None if known is None else known(config)


class Noise:
    """What one policy draws.

    Args:
        policy: For a diffusion policy its scheduler's step is replaced by one that each row draws alone in.
    """

    def __init__(self, policy: PreTrainedPolicy) -> None:
        self._shape = noise_shape(policy.config)
        self._device = torch.device(policy.config.device or "cpu")
        self._steps = _RowSteps(policy) if policy.config.type == "diffusion" else None

    def __repr__(self) -> str:
        return f"<Noise {self._shape}>"

    @property
    def by_row(self) -> bool:
        """Whether each row of a batch can draw from a stream of its own."""
        return self._shape is not None

    @contextmanager
    def drawn(self, seeds: Sequence[int | None]) -> Iterator[dict[str, Any]]:
        """Yield what `predict_action_chunk` is given besides the batch, and let it draw only inside.

        Args:
            seeds: One for each row, exactly one where `by_row` is False; None: torch's global generator.
        """
        if self._shape is None:
            (seed,) = seeds
            with self.put_back() if seed is not None else nullcontext():
                if seed is not None:
                    torch.manual_seed(seed)
                yield {}
        elif not self._shape:
            yield {}
        else:
            generators = [_generator(seed) for seed in seeds]
            rows: list[Tensor] = [torch.randn(self._shape, generator=own) for own in generators]
            with nullcontext() if self._steps is None else self._steps.drawing(generators):
                yield {"noise": torch.stack(rows).to(self._device)}

    def put_back(self) -> Any:
        """Return a context after which torch's global generators are as before."""
        devices = [self._device] if self._device.type == "cuda" else []
        return torch.random.fork_rng(devices)


def _generator(seed: int | None) -> torch.Generator:
    return torch.default_generator if seed is None else torch.Generator().manual_seed(seed)


class _RowSteps:
    """A diffusion policy's noise scheduler, whose steps draw too: with a generator for each row.

    diffusers takes a list of them; LeRobot 0.6.1 hands none on.
    """

    def __init__(self, policy: PreTrainedPolicy) -> None:
        scheduler = policy.diffusion.noise_scheduler
        self._step = scheduler.step
        self._generators: list[torch.Generator] | None = None
        scheduler.step = self

    @contextmanager
    def drawing(self, generators: list[torch.Generator]) -> Iterator[None]:
        self._generators = generators
        try:
            yield
        finally:
            self._generators = None

    def __call__(
        self, output: Tensor, timestep: Any, sample: Tensor, generator: Any = None, **options: Any
    ) -> Any:
        # In the sample's float32: a generator gives other numbers for other types, and the sum of many small
        # steps wants it.
        output = output.to(sample.dtype)
        return self._step(
            output, timestep, sample, generator=self._generators or generator, **options
        )
