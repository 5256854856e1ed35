# SPDX-License-Identifier: Apache-2.0
"""One exchange, told once: the record, the canonical log line, the trace line."""

from __future__ import annotations

import logging

from pi05_websocket.chunks.scheduler import MergeOutcome, Request
from pi05_websocket.data import ExchangeRecord
from pi05_websocket.robot.interface import PendingExchange, PendingReply
from pi05_websocket.robot.trace import Trace
from pi05_websocket.wire.messages import server_infer_ms

__all__ = ["exchange_record", "tell_exchange"]

logger = logging.getLogger(__name__)


def exchange_record(
    request: Request, exchange: PendingExchange, reply: PendingReply, *, encode_ms: float, tick: int
) -> ExchangeRecord:
    """Return the timings of an exchange whose reply was taken at `tick`."""
    return ExchangeRecord(
        seq=request.seq,
        tick=request.tick,
        round_trip_ms=1000 * (reply.received_at - exchange.sent_at),
        encode_ms=encode_ms,
        bytes_out=exchange.nbytes,
        bytes_in=reply.nbytes,
        jpeg_quality=exchange.quality,
        server_ms=server_infer_ms(reply.value),
        delay_ticks=tick - request.tick,
        sent_s=exchange.sent_at,
        received_s=reply.received_at,
        server=getattr(exchange, "server", None),
    )


def tell_exchange(
    record: ExchangeRecord, outcome: MergeOutcome, *, episode: int, name: str, trace: Trace
) -> None:
    """Write the exchange to the log (DEBUG) and the trace."""
    logger.debug(
        "%sexchange id=%d tick=%d round_trip_ms=%.1f encode_ms=%.1f infer_ms=%s delay_ticks=%s "
        "bytes_out=%d bytes_in=%d encoding=%s quality=%s outcome=%s%s",
        name,
        record.seq,
        record.tick,
        record.round_trip_ms,
        record.encode_ms,
        record.server_ms,
        record.delay_ticks,
        record.bytes_out,
        record.bytes_in,
        record.encoding,
        record.jpeg_quality,
        outcome.name,
        "" if record.server is None else f" server={record.server}",
    )
    answered_by = {} if record.server is None else {"server": record.server}
    trace.write(
        "exchange",
        seq=record.seq,
        tick=record.tick,
        episode=episode,
        round_trip_ms=round(record.round_trip_ms, 3),
        encode_ms=round(record.encode_ms, 3),
        server_ms=record.server_ms,
        delay_ticks=record.delay_ticks,
        bytes_out=record.bytes_out,
        bytes_in=record.bytes_in,
        encoding=record.encoding,
        quality=record.jpeg_quality,
        outcome=outcome.name,
        sent_s=round(record.sent_s, 6),
        received_s=round(record.received_s, 6),
        **answered_by,
    )
