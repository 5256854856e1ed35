# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry, where it is wanted: one trace from a robot's cameras to its motors, across both sides.

In: where traces go. Out: a tracer; times and contexts in OpenTelemetry's form. Needs the extra `otel`, which is
imported when something is asked of this module and not before.
"""

from __future__ import annotations

import importlib
import time
from typing import Any

from pi05_websocket.errors import ConfigError
from pi05_websocket.extras import how_to_install

__all__ = ["ENVIRONMENT", "EpochClock", "context_of", "make_provider", "otel", "traceparent_of"]

ENVIRONMENT = "env"
"""Endpoint that means: what the standard OTEL_* variables say."""

_EXPORT_S = 2.0
"""Longest time for an export, retries included: a collector that is gone keeps no program from ending."""

_HTTP = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


def otel(module: str) -> Any:
    """Import one of OpenTelemetry's modules.

    Raises:
        ConfigError: The extra is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise ConfigError(
            f"--otel-endpoint needs {exc.name or exc}: {how_to_install('otel')}"
        ) from exc


def make_provider(service: str, endpoint: str, *, sampling: float = 1.0) -> Any:
    """Return a provider that exports in the background over OTLP/HTTP; `shutdown` sends what waits.

    Args:
        service: Name of this side.
        endpoint: A collector's address, such as `http://localhost:4318`; or `env`.
        sampling: Share of the traces that begin here and are recorded, 0 to 1. What began elsewhere is recorded
            if it was there.

    Raises:
        ConfigError: The extra is not installed, or an argument is out of bounds.
    """
    if not 0.0 <= sampling <= 1.0:
        raise ConfigError(f"otel_sampling={sampling}: expected a share from 0 to 1")
    if endpoint != ENVIRONMENT and not endpoint.startswith(("http://", "https://")):
        raise ConfigError(
            f"otel_endpoint={endpoint!r}: expected http://HOST:4318, or env for the OTEL_* variables"
        )
    sdk, sampler = otel("opentelemetry.sdk.trace"), otel("opentelemetry.sdk.trace.sampling")
    resources = otel("opentelemetry.sdk.resources")
    exporter = otel(_HTTP).OTLPSpanExporter(**_where(endpoint))
    provider = sdk.TracerProvider(
        resource=resources.Resource.create({"service.name": service}),
        sampler=sampler.ParentBasedTraceIdRatio(sampling),
    )
    provider.add_span_processor(otel("opentelemetry.sdk.trace.export").BatchSpanProcessor(exporter))
    return provider


def _where(endpoint: str) -> dict[str, Any]:
    if endpoint == ENVIRONMENT:
        return {}
    path = "" if endpoint.rstrip("/").endswith("/v1/traces") else "/v1/traces"
    return {"endpoint": endpoint.rstrip("/") + path, "timeout": _EXPORT_S}


def traceparent_of(span: Any) -> str | None:
    """Return how the other side is told of a span; None: it is not recorded."""
    context = span.get_span_context()
    if not context.trace_flags.sampled:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def context_of(traceparent: str) -> Any:
    """Return the context in which the spans of this side belong to the other's trace."""
    propagation = otel("opentelemetry.trace.propagation.tracecontext")
    return propagation.TraceContextTextMapPropagator().extract({"traceparent": traceparent})


class EpochClock:
    """Turns seconds of a monotonic clock into nanoseconds since 1970, by what both say now."""

    def __init__(self, now_s: float) -> None:
        self._offset = time.time_ns() - round(now_s * 1e9)

    def ns(self, seconds: float) -> int:
        """Return a moment of that clock as OpenTelemetry wants it."""
        return self._offset + round(seconds * 1e9)
