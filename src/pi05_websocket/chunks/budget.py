# SPDX-License-Identifier: Apache-2.0
"""The time budget of a remote policy: from measured round trips to settings, with the reason for each. Pure.

    t_up + t_queue + t_infer + t_down = round trip L       d = ceil(L * control_hz)
    d <= s <= H - d                                        s = action_horizon (execution horizon)

`docs/topics/timing.md` explains it; `pi05-websocket tune` measures and prints it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pi05_websocket.data import ActionKind
from pi05_websocket.errors import ConfigError

__all__ = ["Advice", "Budget", "Measured", "budget", "percentile"]

_FEWEST_EXECUTED = 8
"""Rows a plan is given at least: at 1 of 16 a policy finished 54 % of LIBERO-Long, at 8 89 %
(BridgeQuant-Async)."""
_UPLOAD_SHARE = 0.25
"""Share of the round trip that sending images may take before a smaller image is advised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of a link and the server behind it."""

    round_trips_s: Sequence[float]
    """Of warm exchanges, from sending an observation to having its chunk."""

    infer_s: float | None
    """Median time the server says its policy took; None where it does not say."""

    ping_s: float | None
    """Median round trip of an empty message; None where it was not measured."""

    bytes_out: int
    """Size of an observation on the wire."""

    rows: int
    """Rows of a chunk, H."""


@dataclass(frozen=True, slots=True)
class Advice:
    """One setting, its value, and why."""

    setting: str
    value: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What follows from a measurement."""

    delay: int
    """Inference delay to plan with, ticks: nine of ten replies are there by then."""

    worst_delay: int
    """What 99 of 100 keep, ticks."""

    action_horizon: int
    """Rows to execute of each chunk."""

    margin_ticks: int
    """Ticks to ask earlier than `delay` requires."""

    reserve_ticks: int
    """Rows that are left when the next chunk is due: how late a reply may be before the arm holds."""

    feasible: bool
    """Whether the arm can move without a pause: `delay <= H / 2`."""

    upload_s: float | None
    """Time the observation's bytes need; None where it cannot be told."""

    advice: tuple[Advice, ...]
    """Settings in the order a person would change them."""


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values do not exceed (nearest rank).

    Raises:
        ConfigError: Without values.
    """
    if not values:
        raise ConfigError("nothing was measured")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def budget(
    measured: Measured,
    *,
    control_hz: float,
    action_kind: ActionKind = "absolute",
    offers_rtc: bool = False,
) -> Budget:
    """Return the settings for a link.

    Args:
        measured: What was measured.
        control_hz: Rate of the rows.
        action_kind: What actions mean; only absolute targets can be blended.
        offers_rtc: Whether the server conditions chunks on the rows being executed.
    """
    rows = measured.rows
    delay = math.ceil(percentile(measured.round_trips_s, 0.9) * control_hz)
    worst = math.ceil(percentile(measured.round_trips_s, 0.99) * control_hz)
    margin = max(1, worst - delay)
    feasible = delay <= rows // 2
    # Late enough that a plan is given its chance, early enough that rows are left for a late reply.
    latest = max(1, rows - worst - margin)
    horizon = max(1, min(max(rows // 2, delay, min(_FEWEST_EXECUTED, rows)), latest))
    upload = _upload(measured)
    advice = [
        _horizon_advice(horizon, rows, delay, feasible=feasible),
        Advice(
            "margin_ticks",
            str(margin),
            f"nine of ten replies take up to {delay} ticks, 99 of 100 up to {worst}",
        ),
        _seam_advice(action_kind, offers_rtc=offers_rtc),
        Advice(
            "timeout",
            f"{max(1.0, math.ceil(30 * percentile(measured.round_trips_s, 0.99)) / 10):.1f}",
            "three times what 99 of 100 replies take: an older plan is for a pose that is gone",
        ),
        _image_advice(measured, upload),
    ]
    return Budget(
        delay=delay,
        worst_delay=worst,
        action_horizon=horizon,
        margin_ticks=margin,
        reserve_ticks=rows - horizon,
        feasible=feasible,
        upload_s=upload,
        advice=tuple(advice),
    )


def _horizon_advice(horizon: int, rows: int, delay: int, *, feasible: bool) -> Advice:
    if feasible:
        why = (
            f"of {rows} rows; the next chunk is asked for {delay} ticks before, and {rows - horizon} rows "
            "are left for a reply that is late"
        )
    else:
        why = (
            f"a reply takes {delay} ticks, more than half of the {rows} rows: the arm will hold for a part of "
            "every chunk. Use a longer chunk, a nearer or faster server, or a lower control rate"
        )
    return Advice("action_horizon", str(horizon), why)


def _seam_advice(action_kind: ActionKind, *, offers_rtc: bool) -> Advice:
    if offers_rtc:
        return Advice("seam", "rtc", "the server conditions each chunk on the rows being executed")
    if action_kind == "absolute":
        return Advice(
            "seam", "blend", "the server takes no leftover rows; targets can be blended smoothly"
        )
    return Advice("seam", "replace", f"{action_kind} actions: their sum moves the arm, not a blend")


def _upload(measured: Measured) -> float | None:
    """Return what is left of the median round trip without the model and an empty message's way."""
    if measured.infer_s is None or measured.ping_s is None:
        return None
    median = percentile(measured.round_trips_s, 0.5)
    return max(0.0, median - measured.infer_s - measured.ping_s)


def _image_advice(measured: Measured, upload: float | None) -> Advice:
    if upload is None:
        return Advice("cameras", "as they are", "the server does not say how long its policy takes")
    share = upload / percentile(measured.round_trips_s, 0.5)
    size = f"{measured.bytes_out / 1e6:.2f} MB take {1000 * upload:.0f} ms"
    if share <= _UPLOAD_SHARE:
        return Advice("cameras", "as they are", f"{size}, {share:.0%} of the round trip")
    return Advice(
        "cameras",
        "pad 224x224",
        f"{size}, {share:.0%} of the round trip: resize before sending if the server resizes anyway, as "
        "OpenPI's pi0.5 configs do; 150 kB an image instead of 920 kB",
    )
