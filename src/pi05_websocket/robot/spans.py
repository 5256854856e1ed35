# SPDX-License-Identifier: Apache-2.0
"""A trace of each exchange: from the cameras to the first command that came of what they saw.

In: moments from the player, the trace's lines. Out: OpenTelemetry spans, most of them after the fact.

    cycle     ├───────────────────────────────────────────────────────────────────┤
    observe   ├──┤
    exchange     ├────────────────────────────────────────────┤
    encode       ├───┤
    (server)              request: queue, infer, reply
    merge                                                     ├─┤
    command                                                     ├──────────────────┤  first row commanded

Runs on the control thread, a tenth of a millisecond for each exchange; sending is the exporter's own thread's.
Needs the extra `otel`. One object for each player.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pi05_websocket.clock import SYSTEM_CLOCK, Clock
from pi05_websocket.telemetry import EpochClock, otel, traceparent_of

__all__ = ["RobotSpans"]


@dataclass(slots=True)
class _Open:
    cycle: Any
    exchange: Any
    epoch: EpochClock
    encoding_s: float
    merged_s: float | None = None


class RobotSpans:
    """Makes spans. Also a listener of the trace.

    Args:
        provider: OpenTelemetry's, see `telemetry.make_provider`.
        clock: The player's.
    """

    def __init__(self, provider: Any, clock: Clock = SYSTEM_CLOCK) -> None:
        self._api = otel("opentelemetry.trace")
        self._provider = provider
        self._tracer = provider.get_tracer("pi05_websocket.robot")
        self._clock = clock
        self._open: dict[int, _Open] = {}

    def __repr__(self) -> str:
        return f"<RobotSpans open={len(self._open)}>"

    def begin(self, seq: int, *, seen_s: float, observed_s: float) -> str | None:
        """Begin the trace of a request, before it is encoded.

        Args:
            seq: Its number.
            seen_s: When the cameras were read, on the player's clock.
            observed_s: When the observation was made of it.

        Returns:
            What to tell the server, or None: this one is not recorded.
        """
        self._end_unanswered()
        now = self._clock.now()
        epoch = EpochClock(now)
        cycle = self._tracer.start_span(
            "cycle", start_time=epoch.ns(seen_s), attributes={"seq": seq}
        )
        if not cycle.is_recording():
            return None
        self._span("observe", cycle, epoch.ns(seen_s), epoch.ns(observed_s))
        exchange = self._tracer.start_span(
            "exchange",
            self._api.set_span_in_context(cycle),
            kind=self._api.SpanKind.CLIENT,
            start_time=epoch.ns(now),
        )
        self._open[seq] = _Open(cycle, exchange, epoch, now)
        return traceparent_of(exchange)

    def __call__(self, kind: str, facts: dict[str, Any]) -> None:
        """Take one line of the trace."""
        opened = self._open.get(facts.get("seq", -1))
        if opened is None:
            return
        if kind == "exchange":
            self._answered(opened, facts)
        elif kind == "dropped":
            self._end(facts["seq"], error=str(facts["cause"]))
        elif kind == "tick" and facts["source"] == "chunk" and opened.merged_s is not None:
            epoch, now = opened.epoch, self._clock.now()
            self._span("command", opened.cycle, epoch.ns(opened.merged_s), epoch.ns(now))
            opened.cycle.set_attributes({"tick": facts["tick"], "row": facts["row"]})
            self._end(facts["seq"])

    def close(self) -> None:
        """End what is open, and send what waits."""
        self._end_unanswered()
        self._provider.shutdown()

    def _answered(self, opened: _Open, facts: dict[str, Any]) -> None:
        epoch, now = opened.epoch, self._clock.now()
        sent, received = epoch.ns(facts["sent_s"]), epoch.ns(facts["received_s"])
        self._span("encode", opened.exchange, epoch.ns(opened.encoding_s), sent)
        opened.exchange.set_attributes(
            {name: facts[name] for name in ("bytes_out", "bytes_in", "encoding")}
        )
        opened.exchange.end(received)
        self._span("merge", opened.cycle, received, epoch.ns(now))
        opened.merged_s = now
        opened.cycle.set_attributes({name: facts[name] for name in ("outcome", "episode")})
        if facts["outcome"] != "ACCEPTED":
            self._end(facts["seq"], error=facts["outcome"])

    def _end_unanswered(self) -> None:
        """End what no line of the trace will end: a player asks again only when it has given up the last."""
        for seq in list(self._open):
            waits = self._open[seq].merged_s is None
            self._end(seq, error="no valid answer" if waits else "no row of it was commanded")

    def _end(self, seq: int, *, error: str | None = None) -> None:
        opened = self._open.pop(seq)
        now = opened.epoch.ns(self._clock.now())
        if error is not None:
            status = self._api.Status(self._api.StatusCode.ERROR, error)
            opened.cycle.set_status(status)
            if opened.merged_s is None:
                opened.exchange.set_status(status)
                opened.exchange.end(now)
        opened.cycle.end(now)

    def _span(self, name: str, parent: Any, start: int, end: int) -> None:
        context = self._api.set_span_in_context(parent)
        self._tracer.start_span(name, context, start_time=start).end(max(start, end))
