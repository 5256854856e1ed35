# SPDX-License-Identifier: Apache-2.0
"""Names and numbers for Prometheus; and that dashboard, alerts and documents use no others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from told import answered, opened, refused, server_state

from pi05_websocket.ops.histogram import Histogram
from pi05_websocket.ops.metrics import METRICS, Reading, table
from pi05_websocket.ops.statistics import Statistics
from pi05_websocket.server.records import Closed, TurnedAway, UpstreamStanding

ROOT = Path(__file__).resolve().parents[2]
INTEGRATIONS = ROOT / "integrations"


def a_reading(**changes: Any) -> Reading:
    """What a server tells that has answered one robot, refused it once and turned away another."""
    statistics = Statistics()
    statistics.take(
        [
            opened(),
            answered(age_ms=5.0, due_ms=1.0),
            refused("busy", due_ms=1.0),
            refused("KeyError: 'x'", outcome="failed"),
            opened(2),
            Closed(connection=2, why="lost: no goodbye"),
            TurnedAway(reason="full", why="4 are connected"),
        ],
        100.0,
    )
    facts: dict[str, Any] = {"statistics": statistics, "state": server_state(waiting=3)}
    return Reading(**(facts | changes))


def read(name: str, reading: Reading) -> Any:
    """Return what one metric says."""
    (metric,) = [metric for metric in METRICS if metric.name == f"pi05_server_{name}"]
    return metric.read(reading)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("robots", {(): 1}),
        ("ready", {(): True}),
        ("paused", {(): False}),
        ("draining", {(): False}),
        ("waiting_requests", {(): 3}),
        ("requests", {("answered",): 1, ("refused",): 1, ("failed",): 1}),
        ("refusals", {("busy",): 1, ("late",): 0, ("superseded",): 0, ("rate",): 0}),
        ("failures", {("KeyError",): 1}),
        ("deadline_misses", {(): 1}),
        ("key_requests", {("arm", "answered"): 1, ("arm", "refused"): 1, ("arm", "failed"): 1}),
        ("inference_busy_seconds", {(): 0.05}),
        ("received_bytes", {(): 3000}),
        ("sent_bytes", {(): 100}),
        ("connections_opened", {(): 2}),
        ("connections_closed", {("lost",): 1}),
        ("connections_refused", {("full",): 1}),
        ("unseen_records", {(): 0}),
        ("model_info", {("pi05", "", ""): 1.0}),
    ],
)
def test_what_each_says(name: str, expected: Any) -> None:
    """Every outcome, kind and reason is where its name says."""
    assert read(name, a_reading(model={"model": "pi05"})) == expected


def test_a_key_that_missed_is_counted() -> None:
    """What was refused has answered nobody too late: it is among the refusals."""
    assert read("key_deadline_misses", a_reading()) == {("arm",): 1}


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("queue_seconds", 1),
        ("inference_seconds", 1),
        ("total_seconds", 3),
        ("network_seconds", 1),
        ("batch_size", 1),
        ("event_loop_lag_seconds", 0),
    ],
)
def test_histograms(name: str, count: int) -> None:
    """Each request is in each histogram at most once."""
    found = read(name, a_reading())
    assert isinstance(found, Histogram)
    assert found.count == count


def test_a_server_that_does_not_run_is_not_ready() -> None:
    """What is not known of it is 0."""
    reading = a_reading(state=None)
    assert [read(name, reading) for name in ("ready", "paused", "waiting_requests")] == [
        {(): 0}
    ] * 3


def test_each_upstream_of_a_gateway_has_its_numbers() -> None:
    """By the address it was given: dead, frozen, well. Without upstreams there are none."""
    upstreams = [
        UpstreamStanding(url="ws://a:8000", usable=False, sound=False),
        UpstreamStanding(url="ws://b:8000", usable=True, sound=False),
        UpstreamStanding(url="ws://c:8000", usable=True, sound=True),
    ]
    reading = a_reading(state=server_state(upstreams=upstreams))
    assert read("upstream_usable", reading) == {
        ("ws://a:8000",): False,
        ("ws://b:8000",): True,
        ("ws://c:8000",): True,
    }
    assert read("upstream_sound", reading) == {
        ("ws://a:8000",): False,
        ("ws://b:8000",): False,
        ("ws://c:8000",): True,
    }
    assert read("upstream_usable", a_reading()) == {}
    assert read("upstream_sound", a_reading(state=None)) == {}


def test_every_metric_is_in_the_table() -> None:
    """As it is scraped, with labels."""
    lines = table().splitlines()
    assert len(lines) == len(METRICS) + 2
    assert "| `pi05_server_requests_total{outcome}` | counter |" in table()
    assert "| `pi05_server_queue_seconds` | histogram |" in table()


def scraped_names() -> set[str]:
    """Return every series name a scrape can have."""
    names = set()
    for metric in METRICS:
        if metric.kind == "histogram":
            names |= {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
        else:
            names.add(metric.shown.partition("{")[0])
    return names


def expressions() -> Iterator[tuple[str, str]]:
    """Yield each query of the dashboard and of the alerts."""
    dashboard = json.loads((INTEGRATIONS / "grafana" / "pi05_server.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]
    yield "alerts", (INTEGRATIONS / "prometheus" / "alerts.yml").read_text()


def test_dashboard_and_alerts_ask_for_what_there_is() -> None:
    """Every series they name is scraped, and every metric is on the dashboard."""
    used: set[str] = set()
    for where, expression in expressions():
        names = set(re.findall(r"pi05_server_\w+", expression))
        assert names, where
        assert names <= scraped_names(), where
        used |= names
    shown = {metric.name for metric in METRICS if any(n.startswith(metric.name) for n in used)}
    assert shown == {metric.name for metric in METRICS}


def test_labels_exist() -> None:
    """What is summed by or selected is a label of that metric."""
    labels = {metric.shown.partition("{")[0]: metric.labels for metric in METRICS}
    for where, expression in expressions():
        for name, selected in re.findall(r"(pi05_server_\w+)\{([^}]*)\}", expression):
            for label in re.findall(r"(\w+)=~?\"", selected):
                known = {"job", "instance", "le", *labels.get(name, ())}
                assert label in known, (where, name, label)


def test_panels_do_not_overlap() -> None:
    """Each has its place on the grid of 24 columns."""
    dashboard = json.loads((INTEGRATIONS / "grafana" / "pi05_server.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
