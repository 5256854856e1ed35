# SPDX-License-Identifier: Apache-2.0
"""The observations of several robots as one batch, and the batch's chunks as each robot's.

In: what `ObservationKeys` made of each. Out: what the policy's own preprocessor makes of all of
them together; and `(rows, action_horizon, action_dim)` in the robot's units. Runs on the policy thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lerobot.utils.constants import ACTION
from torch import Tensor

from pi05_websocket.data import Float32Array

__all__ = ["Processors", "collated"]

_ROW_BY_ROW = frozenset(
    {
        "AbsoluteActionsProcessorStep",
        "AddBatchDimensionProcessorStep",
        "DeviceProcessorStep",
        "NewLineTaskProcessorStep",
        "NormalizerProcessorStep",
        "Pi05PrepareStateTokenizerProcessorStep",
        "Pi0NewLineProcessor",
        "RelativeActionsProcessorStep",
        "RenameObservationsProcessorStep",
        "TokenizerProcessorStep",
        "UnnormalizerProcessorStep",
    }
)
"""LeRobot's steps that give each row of a batch the bits it would have alone: they move, name, add, subtract
and multiply element by element. A tokenizer with `padding="longest"` pads to the longest prompt of the batch
and masks that; the tokens are the same."""


class Processors:
    """A policy's own pre- and postprocessor.

    Args:
        preprocessor: From batch to batch.
        postprocessor: From model units to the robot's.
        device: Where images are made float: a byte travels four times as fast as its float.
    """

    def __init__(self, preprocessor: Any, postprocessor: Any, device: str | None = None) -> None:
        self.before = preprocessor
        self.after = postprocessor
        self._device = torch.device(device or "cpu")

    def __repr__(self) -> str:
        return f"<Processors by_row={self.by_row}>"

    @property
    def by_row(self) -> bool:
        """Whether all steps are known to treat each row alone.

        Of a step that is not LeRobot's, or not on the list, nothing is known. It may also keep something
        between pre- and postprocessing, as relative actions keep the state: two robots must not share that.
        """
        steps = [*self.before.steps, *self.after.steps]
        return all(
            type(step).__module__.startswith("lerobot.") and type(step).__name__ in _ROW_BY_ROW
            for step in steps
        )

    def reset(self) -> None:
        """Forget what the steps remember of an episode."""
        self.before.reset()
        self.after.reset()

    def prepared(
        self, rows: Sequence[dict[str, Any]], leftovers: Tensor | None
    ) -> tuple[dict[str, Any], Tensor | None]:
        """Return the policy's batch, and the leftovers in the model's units.

        A leftover goes the way of training data: relative actions become relative to the state of this
        observation there, not to the one the running chunk was planned from.

        Args:
            rows: What `ObservationKeys.batch` returned for each.
            leftovers: `(rows, n, action_dim)` in the robot's units.
        """
        batch = collated(rows, self._device)
        if leftovers is not None:
            batch[ACTION] = leftovers
        batch = self.before(batch)
        prefix = batch.pop(ACTION, None)  # also without a leftover: an empty entry is no input
        return batch, prefix

    def finished(self, chunks: Tensor) -> Float32Array:
        """Return `(rows, action_horizon, action_dim)` float32 in the robot's units."""
        # float32 before the step, not after it: an unnormaliser takes over what it is given, for good.
        return self.after(chunks.float()).detach().float().cpu().numpy()


def collated(rows: Sequence[dict[str, Any]], device: torch.device) -> dict[str, Any]:
    """Return one batch of all rows, as LeRobot's preprocessors want it.

    Tensors one after the other, images float32 in [0, 1] with channels first, texts in a list.
    """
    first = rows[0]
    return {
        name: _joined([row[name] for row in rows], device)
        if isinstance(first[name], Tensor)
        else [text for row in rows for text in row[name]]
        for name in first
    }


def _joined(parts: list[Tensor], device: torch.device) -> Tensor:
    joined = parts[0] if len(parts) == 1 else torch.cat(parts)
    if joined.dtype != torch.uint8:
        return joined
    images = joined.to(device).movedim(-1, -3).contiguous().to(torch.float32)
    # Divided by a tensor: by a number, CUDA multiplies with 1 / 255, which is another last bit.
    return images / torch.tensor(255.0, device=device)
