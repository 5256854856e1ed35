# SPDX-License-Identifier: Apache-2.0
"""Sixteen digits that say which weights are served and which statistics they are served with.

In: tensors by name. Out: the first 16 hexadecimal digits of a SHA-256 over name, type, shape and bytes of each,
in the order of the names: the same for the same tensors, in whatever order they are stored. No thread.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor

__all__ = ["Fingerprint", "normalizer_fingerprint"]

_DIGITS = 16


class Fingerprint:
    """Takes tensors in the order of their names."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._last = ""

    def __repr__(self) -> str:
        return f"<Fingerprint up to {self._last!r}>"

    def add(self, name: str, tensor: Tensor) -> None:
        """Add a tensor; the next one's name must come after this one's."""
        if name < self._last:
            raise AssertionError(f"{name!r} comes before {self._last!r}")
        self._last = name
        said = f"{name} {tensor.dtype} {tuple(tensor.shape)}\n"
        self._hash.update(said.encode())
        # Bytes, because numpy has no bfloat16.
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        self._hash.update(raw.numpy())

    def hexadecimal(self) -> str:
        """Return the digits."""
        return self._hash.hexdigest()[:_DIGITS]


def normalizer_fingerprint(*pipelines: Any) -> str | None:
    """Return the digits of everything the processors know by heart; None where they know nothing.

    Args:
        pipelines: LeRobot's preprocessor and postprocessor. Their statistics count, and what is made of them:
            mean and deviation are used otherwise than quantiles.
    """
    tensors: dict[str, Tensor] = {}
    settings: list[str] = []
    for which, pipeline in enumerate(pipelines):
        for place, step in enumerate(pipeline.steps):
            known = step.state_dict()
            if known:
                settings.append(json.dumps(step.get_config(), sort_keys=True))
                tensors |= {f"{which}.{place:03d}.{name}": value for name, value in known.items()}
    if not tensors:
        return None
    fingerprint = Fingerprint()
    for name in sorted(tensors):
        fingerprint.add(name, tensors[name])
    said = "\n".join(settings).encode()
    fingerprint.add("settings", torch.frombuffer(bytearray(said), dtype=torch.uint8))
    return fingerprint.hexadecimal()
