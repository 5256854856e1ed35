# SPDX-License-Identifier: Apache-2.0
"""What happens on the robot as Prometheus metrics, for whoever watches more than one arm.

In: the trace's lines. Out: `http://HOST:PORT/metrics`. Needs the extra `metrics`. The counting happens on the
control thread, the answering on a thread of prometheus_client's.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any

from pi05_websocket.errors import ConfigError
from pi05_websocket.extras import how_to_install

__all__ = ["RobotMetrics"]

logger = logging.getLogger(__name__)

_ROUND_TRIP_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2, 2.0, 5.0)
"""Seconds; close together where an arm at 30 Hz with 50 rows begins to notice."""


class RobotMetrics:
    """A listener of the trace that counts. One for each process.

    Args:
        port: Where to answer; 0 lets the system choose, see `port`.
        host: Address to listen on; the loopback interface unless you say otherwise.

    Raises:
        ConfigError: prometheus_client is not installed, or the port is taken.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        try:
            prometheus: Any = importlib.import_module("prometheus_client")
        except ImportError as exc:
            raise ConfigError(
                f"metrics_port needs prometheus-client: {how_to_install('metrics')}"
            ) from exc
        self._registry = prometheus.CollectorRegistry()
        kept = {"registry": self._registry}
        self._ticks = prometheus.Counter(
            "pi05_ticks", "Commanded ticks by where the action came from", ["source"], **kept
        )
        self._held = prometheus.Counter(
            "pi05_held_ticks", "Ticks without a row to execute, by cause", ["cause"], **kept
        )
        self._exchanges = prometheus.Counter(
            "pi05_exchanges", "Replies by what became of them", ["outcome"], **kept
        )
        self._answers = prometheus.Counter(
            "pi05_answers", "Replies by which of several servers they came from", ["server"], **kept
        )
        self._bytes = prometheus.Counter(
            "pi05_bytes", "Bytes on the wire, messages only", ["direction"], **kept
        )
        self._outages = prometheus.Counter(
            "pi05_outages", "Times that no valid chunk came, by the error's type", ["error"], **kept
        )
        self._episodes = prometheus.Counter("pi05_episodes", "Episodes begun", **kept)
        self._delay = prometheus.Gauge(
            "pi05_inference_delay_ticks", "Inference delay of the last reply", **kept
        )
        self._round_trip = prometheus.Histogram(
            "pi05_round_trip_seconds",
            "From sending an observation to having its chunk",
            buckets=_ROUND_TRIP_BUCKETS,
            **kept,
        )
        self._infer = prometheus.Histogram(
            "pi05_infer_seconds",
            "The part of it the server says its policy took",
            buckets=_ROUND_TRIP_BUCKETS,
            **kept,
        )
        self._takes: dict[str, Callable[[dict[str, Any]], object]] = {
            "tick": self._tick,
            "exchange": self._exchange,
            "outage": self._outage,
            "episode": lambda _: self._episodes.inc(),
        }
        try:
            self._server, self._thread = prometheus.start_http_server(
                port, addr=host, registry=self._registry
            )
        except OSError as exc:
            raise ConfigError(f"metrics_port={port}: {exc.strerror or exc}") from exc
        self.port: int = self._server.server_port
        """The TCP port."""
        logger.info("metrics at http://%s:%d/metrics", host, self.port)

    def __repr__(self) -> str:
        return f"<RobotMetrics port={self.port}>"

    def __call__(self, kind: str, facts: dict[str, Any]) -> None:
        """Count one line of the trace."""
        take = self._takes.get(kind)
        if take is not None:
            take(facts)

    def close(self) -> None:
        """Stop answering. Safe to call twice."""
        self._server.shutdown()
        self._server.server_close()

    def _tick(self, facts: dict[str, Any]) -> None:
        self._ticks.labels(facts["source"]).inc()
        if facts.get("cause") is not None:
            self._held.labels(str(facts["cause"])).inc()

    def _exchange(self, facts: dict[str, Any]) -> None:
        self._exchanges.labels(str(facts.get("outcome", "ACCEPTED")).lower()).inc()
        if facts.get("server") is not None:
            self._answers.labels(facts["server"]).inc()
        self._bytes.labels("out").inc(facts.get("bytes_out", 0))
        self._bytes.labels("in").inc(facts.get("bytes_in", 0))
        self._round_trip.observe(facts["round_trip_ms"] / 1000.0)
        if facts.get("server_ms") is not None:
            self._infer.observe(facts["server_ms"] / 1000.0)
        if facts.get("delay_ticks") is not None:
            self._delay.set(facts["delay_ticks"])

    def _outage(self, facts: dict[str, Any]) -> None:
        self._outages.labels(str(facts["error"])).inc()
