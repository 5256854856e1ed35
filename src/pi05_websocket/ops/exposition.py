# SPDX-License-Identifier: Apache-2.0
"""`/metrics`, written by prometheus_client. Needs the extra `ops`; the operations thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import prometheus_client
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.utils import floatToGoString

from pi05_websocket.ops.histogram import Histogram
from pi05_websocket.ops.metrics import METRICS, Metric, Reading

__all__ = ["CONTENT_TYPE", "Exposition"]

CONTENT_TYPE: str = prometheus_client.CONTENT_TYPE_LATEST


class Exposition:
    """Reads everything anew at each scrape.

    Args:
        read: What there is to tell now.
    """

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read
        self._registry = prometheus_client.CollectorRegistry()
        self._registry.register(self)
        prometheus_client.ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """Return the body of a scrape."""
        written: bytes = prometheus_client.generate_latest(self._registry)
        return written

    def describe(self) -> list[Any]:
        """Return nothing: prometheus_client need not read in order to register."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield each family, as prometheus_client asks for it."""
        reading = self._read()
        for metric in METRICS:
            yield _family(metric, reading)


def _family(metric: Metric, reading: Reading) -> Any:
    found = metric.read(reading)
    if isinstance(found, Histogram):
        buckets = [(floatToGoString(bound), count) for bound, count in found.cumulative()]
        return HistogramMetricFamily(
            metric.name, metric.meaning, buckets=buckets, sum_value=found.sum
        )
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.meaning, labels=metric.labels)
    for labels, value in found.items():
        family.add_metric(labels, value)
    return family
