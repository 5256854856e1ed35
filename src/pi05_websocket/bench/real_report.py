# SPDX-License-Identifier: Apache-2.0
"""The sample on real sockets beside the same seeds on the virtual clock: do they agree?

In: episodes of both, round trips of both. Out: figures and Markdown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pi05_websocket.bench.cells import COMPUTE_MS, Cell, Episode, summary
from pi05_websocket.bench.links import Link, Path
from pi05_websocket.bench.real import RealEpisode
from pi05_websocket.bench.real_link import PAUSE_S
from pi05_websocket.bench.report import paired_difference
from pi05_websocket.bench.virtual import OBSERVATION_BYTES, REPLY_BYTES

__all__ = ["compare", "comparison_table", "modelled_round_trips", "quantile", "round_trip_table"]

Figures = Mapping[str, Any]


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the value below which `share` of them lie; None without any."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else None


def compare(
    cell: Cell, real: Sequence[RealEpisode], virtual: Sequence[Episode], *, kind: str
) -> dict[str, Any]:
    """Return a cell's figures of both, and whether they agree: 0 lies in the interval of the difference.

    Args:
        real: Episodes over real sockets.
        virtual: Episodes on the virtual clock, seeds of `real` among them.
        kind: What the real link was made of.
    """
    modelled = {episode.seed: episode for episode in virtual}
    pairs = [(modelled[e.seed], e) for e in real if e.seed in modelled]
    difference = paired_difference([(theirs.success, ours.success) for theirs, ours in pairs])
    waits = [wait for episode in real for wait in episode.tick_to_send_ms]
    infer = [took for episode in real for took in episode.infer_ms]
    return {
        "cell": cell.key,
        "task": cell.task,
        "link": cell.link.name,
        "rule": cell.rule,
        "seam": cell.seam,
        "images": cell.images,
        "kind": kind,
        "real": _figures(cell, [ours for _, ours in pairs]),
        "virtual": _figures(cell, [theirs for theirs, _ in pairs]),
        "difference": [round(value, 4) for value in difference],
        "agrees": difference[1] <= 0.0 <= difference[2],
        "tick_to_send_ms": {"median": quantile(waits, 0.5), "p95": quantile(waits, 0.95)},
        "infer_ms": {"median": quantile(infer, 0.5), "max": max(infer, default=None)},
        "slower_than_charged": sum(took > COMPUTE_MS for took in infer),
        "late_ticks": sum(episode.late_ticks for episode in real),
    }


def _figures(cell: Cell, episodes: Sequence[Episode]) -> dict[str, Any]:
    trips = [trip for episode in episodes for trip in episode.round_trips_ms]
    found = {
        key: value
        for key, value in summary(cell, episodes).items()
        if key not in ("task", "horizon", "link", "rule", "seam", "images")
    }
    return {
        **found,
        "round_trip_ms": {"median": quantile(trips, 0.5), "p90": quantile(trips, 0.9)},
    }


def comparison_table(found: Sequence[Figures]) -> str:
    """Return the Markdown table: cells down, each figure as real and virtual."""
    lines = [
        "| cell | success, real | virtual | difference | held | time to success | round trip | tick to send "
        "| verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for f in found:
        real, virtual = f["real"], f["virtual"]
        middle, low, high = f["difference"]
        both = [
            f"{_held(real)} / {_held(virtual)}",
            f"{_seconds(real)} / {_seconds(virtual)}",
            f"{_trip(real)} / {_trip(virtual)}",
        ]
        lines.append(
            f"| {f['cell']} | {_success(real)} | {_success(virtual)} | "
            f"{middle:+.0%} ({low:+.0%} to {high:+.0%}) | {' | '.join(both)} | "
            f"{_whole(f['tick_to_send_ms']['median'])} ms | {'agrees' if f['agrees'] else 'DIFFERS'} |"
        )
    agreeing = sum(bool(f["agrees"]) for f in found)
    late = sum(f["late_ticks"] for f in found)
    ticks = sum(f["real"]["ticks"] for f in found)
    slower = sum(f["slower_than_charged"] for f in found)
    lines += [
        "",
        f"{agreeing} of {len(found)} cells agree. Pairs are real / virtual; medians.",
        "",
        f"Real time: {late} ticks of {late + ticks} were skipped, {slower} inferences took more than the "
        f"{COMPUTE_MS:g} ms that every one is charged.",
    ]
    return "\n".join(lines)


def modelled_round_trips(link: Link, count: int = 400) -> list[float]:
    """Return the milliseconds that observations take on the virtual clock."""
    up, down = Path(link, 0), Path(link, 1)
    now, found = 0.0, []
    for _ in range(count):
        at_server = up.arrival(now, OBSERVATION_BYTES)
        there = down.arrival(at_server + COMPUTE_MS / 1000, REPLY_BYTES)
        found.append(1000 * (there - now))
        now = there + PAUSE_S
    return found


def round_trip_table(measured: Mapping[str, Figures], links: Sequence[Link]) -> str:
    """Return the Markdown table of observations alone: what was measured beside what `links.Path` says.

    Args:
        measured: Link's name to `first_ms`, `round_trips_ms`, `kind`, as `bench real` stores it.
        links: Of which to tell.
    """
    lines = [
        "| link | first | median | modelled | difference | 90 % below | modelled | made of |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for link in links:
        if link.name not in measured:
            continue
        found = measured[link.name]
        real, model = found["round_trips_ms"], modelled_round_trips(link)
        median, expected = quantile(real, 0.5), quantile(model, 0.5)
        more = median / expected - 1 if median and expected else 0.0
        lines.append(
            f"| {link.name} ({link.rtt_ms:g} ms) | {_whole(found['first_ms'])} ms | {_whole(median)} ms | "
            f"{_whole(expected)} ms | {more:+.0%} | {_whole(quantile(real, 0.9))} ms | "
            f"{_whole(quantile(model, 0.9))} ms | {found['kind']} |"
        )
    return "\n".join(lines)


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _success(f: Figures) -> str:
    low, high = f["wilson_95"]
    return f"{f['successes']}/{f['episodes']} ({low:.0%} to {high:.0%})"


def _held(f: Figures) -> str:
    return f"{f['held_ticks'] / max(1, f['ticks']):.0%}"


def _seconds(f: Figures) -> str:
    time = f["time_to_success_s"]
    return "-" if time is None else f"{time:.1f} s"


def _trip(f: Figures) -> str:
    return f"{_whole(f['round_trip_ms']['median'])} ms"
