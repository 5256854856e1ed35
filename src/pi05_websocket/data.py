# SPDX-License-Identifier: Apache-2.0
"""The nouns that flow between the parts: plain, immutable, without behaviour.

Pure. Shapes, units and order are stated at each field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = [
    "Action",
    "ActionChunk",
    "ActionKind",
    "ExchangeRecord",
    "Float32Array",
    "Observation",
    "ServerMetadata",
    "UInt8Array",
]

Float32Array = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]

ActionKind = Literal["absolute", "delta", "velocity", "torque"]
"""What an action's numbers mean: joint targets, differences to the present pose, speeds, or torques."""

Observation = dict[str, Any]
"""What the policy sees at one tick: policy keys to uint8 images, float32 state, prompt."""

ServerMetadata = dict[str, Any]
"""What the server sends first; `{}` from a stock OpenPI server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionChunk:
    """The rows of one answer, tied to the ticks they are for."""

    actions: Float32Array
    """`(action_horizon, action_dim)`, policy order and units, finite."""

    first_tick: int
    """Tick at which the observation was taken; row i is for tick `first_tick + i`."""

    episode: int
    """Episode the observation belongs to."""

    seq: int
    """Number of the request this answers; larger is newer."""

    pinned_rows: int = 0
    """How many rows the server took over unchanged from the running chunk (RTC); 0: it did not condition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One tick's command and where it came from."""

    values: Float32Array
    """`(action_dim,)`, policy order and units."""

    tick: int
    """The tick it is for."""

    seq: int
    """Request whose chunk it is a row of; -1 when it is no row of a chunk (a hold)."""

    row: int
    """Row of that chunk; -1 for a hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRecord:
    """Timings and ids of one request and its reply. Durations in milliseconds."""

    seq: int
    tick: int
    round_trip_ms: float
    encode_ms: float
    bytes_out: int
    bytes_in: int
    jpeg_quality: int | None = None
    """Of the observation's images as JPEG; None: they were sent raw."""

    server_ms: float | None = None
    """`server_timing.infer_ms` as the server states it; None where it does not."""

    delay_ticks: int | None = None
    """Inference delay: ticks executed between the observation and the takeover. None until merged."""

    sent_s: float = 0.0
    """When the request was handed over, in the machine's monotonic seconds."""

    received_s: float = 0.0
    """When the reply was there, likewise."""

    server: str | None = None
    """Which of several servers answered; None: there is only one."""

    @property
    def encoding(self) -> str:
        """How the observation's images were sent: `raw` or `jpeg`."""
        return "raw" if self.jpeg_quality is None else "jpeg"
