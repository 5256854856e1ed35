# SPDX-License-Identifier: Apache-2.0
"""What Prometheus is told of a server: names, units, meanings, and where each number comes from. Pure.

In: counts and how the server is. Out: samples; `exposition` gives them to prometheus_client. Nothing is counted
here: a request costs what `statistics` costs, and a scrape reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pi05_websocket.ops.histogram import Histogram
from pi05_websocket.ops.statistics import Statistics
from pi05_websocket.server.records import ServerState, UpstreamStanding

__all__ = ["METRICS", "Metric", "Reading", "table"]

Labelled = Mapping[tuple[str, ...], float]
"""Label values to a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What there is to tell at one moment."""

    statistics: Statistics
    state: ServerState | None
    """How the server is; None: it does not run, or does not answer."""

    model: Mapping[str, str] = field(default_factory=dict)
    """What the policy says it is: `model`, `version`, `fingerprint`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One family of numbers."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    read: Callable[[Reading], Labelled | Histogram]
    labels: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """Its name as it is scraped, with its labels."""
        name = f"{self.name}_total" if self.kind == "counter" else self.name
        return f"{name}{{{','.join(self.labels)}}}" if self.labels else name


def _one(value: float) -> Labelled:
    return {(): value}


def _by_name(counter: Mapping[str, float]) -> Labelled:
    return {(name,): value for name, value in counter.items()}


def _state(read: Callable[[ServerState], float]) -> Callable[[Reading], Labelled]:
    return lambda reading: _one(0.0 if reading.state is None else read(reading.state))


def _upstreams(read: Callable[[UpstreamStanding], float]) -> Callable[[Reading], Labelled]:
    """One number for each server behind a gateway: as many as were named when it was started."""
    return lambda reading: (
        {}
        if reading.state is None
        else {(upstream.url,): read(upstream) for upstream in reading.state.upstreams}
    )


def _metric(
    kind: Literal["counter", "gauge", "histogram"],
    name: str,
    meaning: str,
    read: Callable[[Reading], Any],
    *labels: str,
) -> Metric:
    return Metric(name=f"pi05_server_{name}", kind=kind, meaning=meaning, read=read, labels=labels)


_MODEL_LABELS = ("model", "version", "fingerprint")

METRICS: tuple[Metric, ...] = (
    _metric("gauge", "robots", "Robots connected", lambda r: _one(len(r.statistics.robots))),
    _metric(
        "gauge",
        "ready",
        "1 while robots are let in, 0 while it is not ready, paused, drained or full",
        _state(lambda state: state.unready is None),
    ),
    _metric("gauge", "paused", "1 while it is paused", _state(lambda state: state.paused)),
    _metric("gauge", "draining", "1 while it is drained", _state(lambda state: state.draining)),
    _metric(
        "gauge",
        "waiting_requests",
        "Requests that wait for the policy",
        _state(lambda state: state.waiting),
    ),
    _metric(
        "gauge",
        "upstream_usable",
        "Of a gateway: 1 while this upstream is there and serves the policy",
        _upstreams(lambda upstream: upstream.usable),
        "upstream",
    ),
    _metric(
        "gauge",
        "upstream_sound",
        "Of a gateway: 1 while robots are given to this upstream, because it has answered, and in time",
        _upstreams(lambda upstream: upstream.sound),
        "upstream",
    ),
    _metric(
        "counter",
        "requests",
        "Requests by what became of them: `answered`, `refused`, `failed`",
        lambda r: _by_name(r.statistics.counts.outcomes),
        "outcome",
    ),
    _metric(
        "counter",
        "refusals",
        "Refused requests by kind: `busy`, `late`, `superseded`, `rate`",
        lambda r: _by_name(r.statistics.counts.refusals),
        "kind",
    ),
    _metric(
        "counter",
        "failures",
        "Failed requests by the exception's name",
        lambda r: _by_name(r.statistics.counts.failures),
        "error",
    ),
    _metric(
        "counter",
        "deadline_misses",
        "Requests answered when the arm had to hold already, as far as robots say how long their rows last",
        lambda r: _one(r.statistics.counts.misses),
    ),
    _metric(
        "counter",
        "key_requests",
        "The same requests by the name of the robot's key",
        lambda r: r.statistics.counts.keys,
        "key",
        "outcome",
    ),
    _metric(
        "counter",
        "key_deadline_misses",
        "The same misses by the name of the robot's key",
        lambda r: _by_name(r.statistics.counts.key_misses),
        "key",
    ),
    _metric(
        "histogram",
        "queue_seconds",
        "From a request's last byte to the start of its inference",
        lambda r: r.statistics.counts.queue_s,
    ),
    _metric(
        "histogram",
        "inference_seconds",
        "The inference that answered a request, shared or not",
        lambda r: r.statistics.counts.infer_s,
    ),
    _metric(
        "histogram",
        "total_seconds",
        "From a request's last byte to its outcome's hand-over to the network",
        lambda r: r.statistics.counts.total_s,
    ),
    _metric(
        "histogram",
        "network_seconds",
        "There and back, as robots estimate it; stock clients do not",
        lambda r: r.statistics.counts.network_s,
    ),
    _metric(
        "histogram",
        "batch_size",
        "Requests that shared the inference, told once for each request",
        lambda r: r.statistics.counts.batch,
    ),
    _metric(
        "counter",
        "inference_busy_seconds",
        "Time in which the policy was at work; its rate is the share of the time",
        lambda r: _one(r.statistics.counts.busy_s),
    ),
    _metric(
        "counter",
        "received_bytes",
        "Bytes of requests",
        lambda r: _one(r.statistics.counts.bytes_in),
    ),
    _metric(
        "counter", "sent_bytes", "Bytes of replies", lambda r: _one(r.statistics.counts.bytes_out)
    ),
    _metric(
        "counter",
        "connections_opened",
        "Robots that came",
        lambda r: _one(r.statistics.counts.opened),
    ),
    _metric(
        "counter",
        "connections_closed",
        "Robots that went: `goodbye`, `lost`, `failed`, `key`, `bounds`, `operator`, `stopping`, `protocol`, "
        "`too_big`, `other`",
        lambda r: _by_name(r.statistics.counts.closed),
        "reason",
    ),
    _metric(
        "counter",
        "connections_refused",
        "Robots that were not let in: `key`, `path`, `full`, `busy`, `unready`",
        lambda r: _by_name(r.statistics.counts.turned_away),
        "reason",
    ),
    _metric(
        "histogram",
        "event_loop_lag_seconds",
        "How long the robots' event loop let a callback wait, asked once a second",
        lambda r: r.statistics.counts.lag_s,
    ),
    _metric(
        "counter",
        "unseen_records",
        "Requests that were served and are in no other number: more came at once than could be counted",
        lambda r: _one(r.statistics.counts.unseen),
    ),
    _metric(
        "gauge",
        "model_info",
        "1, with what the policy says it is",
        lambda r: {tuple(r.model.get(name, "") for name in _MODEL_LABELS): 1.0},
        *_MODEL_LABELS,
    ),
)
"""Everything that is told, in the order of the documentation."""


def table(metrics: Iterable[Metric] = METRICS) -> str:
    """Return the metrics as a Markdown table."""
    rows = ["| metric | kind | what |", "|---|---|---|"]
    rows += [f"| `{metric.shown}` | {metric.kind} | {metric.meaning} |" for metric in metrics]
    return "\n".join(rows)
