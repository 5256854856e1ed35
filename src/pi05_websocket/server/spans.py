# SPDX-License-Identifier: Apache-2.0
"""The server's part of a robot's trace: how long a request waited, was inferred, and was answered.

In: records, on the robots' event loop, which only leaves those that belong to a trace. Out: OpenTelemetry
spans, made on a thread beside it. Needs the extra `otel`.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

from msgspec.structs import replace

from pi05_websocket.server.records import Record, RequestRecord
from pi05_websocket.telemetry import EpochClock, context_of, otel

__all__ = ["ServerSpans"]

_MOST = 10_000
"""Records that may wait; more are not traced."""


class ServerSpans:
    """A listener of the server.

    Args:
        provider: OpenTelemetry's, see `telemetry.make_provider`.
    """

    def __init__(self, provider: Any) -> None:
        self._api = otel("opentelemetry.trace")
        self._provider = provider
        self._tracer = provider.get_tracer("pi05_websocket.server")
        self._records: queue.SimpleQueue[RequestRecord | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="pi05-spans", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<ServerSpans waiting={self._records.qsize()}>"

    def __call__(self, record: Record) -> None:
        """Take one, on the robots' event loop."""
        if not isinstance(record, RequestRecord) or record.traceparent is None:
            return
        if self._records.qsize() < _MOST:
            self._records.put(replace(record, observation=None, actions=None))

    def close(self) -> None:
        """Make what waits into spans, and send them."""
        self._records.put(None)
        self._thread.join()
        self._provider.shutdown()

    def _run(self) -> None:
        while (record := self._records.get()) is not None:
            self._tell(record)

    def _tell(self, record: RequestRecord) -> None:
        assert record.traceparent is not None
        epoch = EpochClock(time.perf_counter())
        begin, total_s = record.arrived, record.total_ms / 1000
        queued_s = min(record.queue_ms / 1000, total_s)
        inferred_s = min(queued_s + record.infer_ms / 1000, total_s)
        said = {
            "connection": record.connection,
            "request": record.number,
            "outcome": record.outcome,
            "why": record.why,
            "batch": record.batch,
            "missed": record.missed,
            "bytes_in": record.bytes_in,
            "bytes_out": record.bytes_out,
            "due_ms": record.due_ms,
            "age_ms": record.age_ms,
        }
        request = self._tracer.start_span(
            "request",
            context_of(record.traceparent),
            kind=self._api.SpanKind.SERVER,
            start_time=epoch.ns(begin),
            attributes={name: value for name, value in said.items() if value is not None},
        )
        parts = [("queue", 0.0, queued_s)]
        if record.outcome == "answered":
            parts += [("infer", queued_s, inferred_s), ("reply", inferred_s, total_s)]
        else:
            request.set_status(self._api.Status(self._api.StatusCode.ERROR, record.why))
        inside = self._api.set_span_in_context(request)
        for name, start_s, end_s in parts:
            span = self._tracer.start_span(name, inside, start_time=epoch.ns(begin + start_s))
            span.end(epoch.ns(begin + end_s))
        request.end(epoch.ns(begin + total_s))
