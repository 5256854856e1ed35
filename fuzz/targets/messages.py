# SPDX-License-Identifier: Apache-2.0
"""What messages mean: `_rt`, announcements, actions, and whole conversations from either side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np

from fuzz.mutation import of_msgpack, of_words
from fuzz.target import Broken, Target, check_scalars
from fuzz.targets.wire import images, vectors
from pi05_websocket.errors import DecodeError, EncodeError, InvalidReply, Pi05WebsocketError
from pi05_websocket.wire import codec
from pi05_websocket.wire.encoded_images import image_announcement, reads_jpeg
from pi05_websocket.wire.limits import DecodeLimits
from pi05_websocket.wire.messages import read_actions, server_infer_ms
from pi05_websocket.wire.protocol import (
    ClientProtocol,
    Event,
    MetadataReceived,
    ProtocolState,
    ReplyReceived,
    ServerProtocol,
    server_error,
)
from pi05_websocket.wire.realtime import (
    RealtimeReply,
    RealtimeRequest,
    RealtimeSupport,
    announcement,
    read_realtime_reply,
    realtime_support,
    split_realtime,
    with_realtime,
    with_realtime_reply,
)
from pi05_websocket.wire.refusals import KINDS, REFUSED, Refusal, read_refusal, refusal_text

__all__ = ["TARGETS"]

_REFUSAL_WORDS: Final = (REFUSED.encode(), *map(str.encode, KINDS), b" retry_after_s=", b"9", b".")

_LIMITS: Final = DecodeLimits(max_message_bytes=64 * 1024)


def _value(data: bytes) -> Any:
    try:
        return codec.decode(data, _LIMITS)
    except DecodeError:
        return None


def _realtime(data: bytes) -> str:
    value = _value(data)
    words = []
    support = realtime_support(value)
    if support is not None and realtime_support(announcement(support)) != support:
        raise Broken(f"an announcement that changes on the way: {support}")
    words.append("announced" if support else "")
    reply = read_realtime_reply(value)
    if reply is not None and read_realtime_reply(with_realtime_reply({}, reply)) != reply:
        raise Broken(f"a reply that changes on the way: {reply}")
    words.append("reply" if reply else "")
    words.append("jpeg" if reads_jpeg(value) else "")
    if isinstance(value, dict):
        words.append(_request(value))
    return " ".join(words)


def _request(observation: dict[str, Any]) -> str:
    try:
        stock, request = split_realtime(observation)
    except DecodeError:
        return "DecodeError"
    if "_rt" in stock:
        raise Broken("a policy would see `_rt`")
    if request is None:
        return "stock"
    if request.leftover.dtype != np.float32 or not np.isfinite(request.leftover).all():
        raise Broken(f"a leftover no arm may execute: {request.leftover}")
    again = split_realtime(codec.decode(codec.encode(with_realtime(stock, request))))[1]
    if again is None or codec.encode(with_realtime({}, again)) != codec.encode(
        with_realtime({}, request)
    ):
        raise Broken(f"a request that changes on the way: {request}")
    return "request"


def _reply(data: bytes) -> str:
    value = _value(data)
    timing = server_infer_ms(value)
    if timing is not None and not np.isfinite(timing):
        raise Broken(f"an impossible timing: {timing}")
    words = ["timing" if timing is not None else ""]
    for width in (None, 6):
        try:
            chunk = read_actions(value, action_dim=width)
        except InvalidReply:
            words.append("InvalidReply")
            continue
        if chunk.dtype != np.float32 or chunk.ndim != 2 or not np.isfinite(chunk).all():
            raise Broken(f"a chunk no arm may execute: {chunk}")
        if not chunk.size or width not in (None, chunk.shape[1]):
            raise Broken(f"a chunk of shape {chunk.shape}")
        words.append("actions")
    return " ".join(words)


# A conversation is a list of steps, each a kind and a payload; what is no such list is one payload.
_Steps = msgspec.msgpack.Decoder(list[tuple[int, bytes]])


def _steps(data: bytes) -> list[tuple[int, bytes]]:
    try:
        return _Steps.decode(data)[:64]
    except (msgspec.MsgspecError, RecursionError):
        return [(0, data)]


def _client(data: bytes) -> str:
    """Whatever a server says, in whatever order: events for each request once, and typed errors."""
    protocol = ClientProtocol(limits=_LIMITS)
    sent = 0
    ended: set[int] = set()
    words = set()
    for kind, payload in _steps(data):
        if kind % 4 == 1 and protocol.state is ProtocolState.READY:
            protocol.request_sent(sent)
            sent += 1
            continue
        for event in _events(protocol, kind, payload):
            words.add(type(event).__name__)
            _check_event(event, sent, ended)
    if protocol.state is ProtocolState.CLOSED:
        if protocol.error is None or protocol.outstanding:
            raise Broken("a conversation ended without a reason, or with requests that wait")
        words.add(type(protocol.error).__name__)
    if len(ended) + len(protocol.outstanding) != sent:
        raise Broken("a request was lost")
    return " ".join(sorted(words))


def _events(protocol: ClientProtocol, kind: int, payload: bytes) -> list[Event]:
    if kind % 4 == 2:
        return protocol.receive(payload.decode("utf-8", "replace"))
    if kind % 16 == 3:
        return protocol.connection_ended(code=len(payload), reason=payload.decode("latin-1"))
    return protocol.receive(payload)


def _check_event(event: Event, sent: int, ended: set[int]) -> None:
    if isinstance(event, MetadataReceived):
        check_scalars(event.metadata)
        return
    if event.seq in ended or event.seq >= sent:
        raise Broken(f"request {event.seq} of {sent} was answered twice, or was never sent")
    ended.add(event.seq)
    if isinstance(event, ReplyReceived):
        check_scalars(event.reply)
    elif not isinstance(event.error, Pi05WebsocketError):
        raise Broken(f"an error of another kind: {event!r}")


def _server(data: bytes) -> str:
    """Whatever a client says: an observation or a DecodeError, and an error text that can be sent."""
    protocol = ServerProtocol(
        {"name": "x"}, debug=False, limits=_LIMITS, encoded_images=True, deadlines=True
    )
    words = set()
    for kind, payload in _steps(data):
        said = payload.decode("utf-8", "replace") if kind % 4 == 2 else payload
        try:
            observation, realtime = protocol.request(said)
        except DecodeError as exc:
            if not protocol.error_text(exc).startswith("pi05_websocket.errors.DecodeError: "):
                raise Broken(f"an error that a client cannot read: {exc!r}") from exc
            words.add("DecodeError")
            continue
        check_scalars(observation)
        words.add("observation" if realtime is None else "realtime")
        try:
            codec.decode(protocol.reply(observation, infer_ms=1.0))
        except EncodeError as exc:
            raise Broken(f"what was decoded cannot be sent: {exc}") from exc
    return " ".join(sorted(words))


def _refusal(data: bytes) -> str:
    """Whatever text a server sends in place of a reply: a refusal that reads the same again, or an error."""
    text = data.decode("utf-8", "replace")
    refusal = read_refusal(text)
    if refusal is None:
        return type(server_error(text)).__name__
    if read_refusal(refusal_text(refusal)) != refusal:
        raise Broken(f"not the same again: {refusal!r}")
    return refusal.kind


def _refusals() -> Iterator[bytes]:
    for kind in KINDS:
        for after in (None, 0.25):
            yield refusal_text(Refusal(kind=kind, text="40 wait", retry_after_s=after)).encode()


def _realtime_seeds() -> Iterator[bytes]:
    request = RealtimeRequest(
        seq=3,
        leftover=np.ones((4, 6), np.float32),
        delay=2,
        execution_horizon=8,
        control_hz=30.0,
        deadline_ms=250.0,
    )
    yield codec.encode(with_realtime({"prompt": "pick"}, request))
    empty = RealtimeRequest(
        seq=0, leftover=np.zeros((0, 0), np.float32), delay=0, execution_horizon=1, control_hz=50.0
    )
    yield codec.encode(with_realtime({}, empty))
    reply = RealtimeReply(seq=3, delay=2, prefix="guided", queue_ms=1.0, infer_ms=40.0)
    yield codec.encode(with_realtime_reply({"actions": np.ones((2, 6))}, reply))
    yield codec.encode(announcement(RealtimeSupport(max_delay=8)) | image_announcement())


def _conversations() -> Iterator[bytes]:
    said = list(vectors())
    good = codec.encode({"actions": np.ones((2, 6), np.float32)})
    yield msgspec.msgpack.encode([(0, b"\x80"), (1, b""), (0, good), (1, b""), (1, b""), (0, good)])
    yield msgspec.msgpack.encode(
        [(0, b"\x80"), (1, b""), (1, b""), (2, b"Traceback\nKeyError: 'x'")]
    )
    yield msgspec.msgpack.encode(
        [(0, b"\x80"), (1, b""), (2, b"RequestRefused: slow"), (3, b"gone")]
    )
    yield msgspec.msgpack.encode([(2, b"hello")])
    for first in range(0, len(said), 8):
        steps = [(0, b"\x80")]
        for message in said[first : first + 8]:
            steps += [(1, b""), (0, message)]
        yield msgspec.msgpack.encode(steps)


def _requests() -> Iterator[bytes]:
    yield from _conversations()
    for message in images():
        yield msgspec.msgpack.encode([(0, message), (2, b"text"), (0, b"\x80")])


def _memory(size: int) -> int:
    return 256 * 1024 + 512 * size


TARGETS: Final = (
    Target(
        name="realtime",
        check=_realtime,
        seeds=_realtime_seeds,
        mutate=of_msgpack,
        most_memory=_memory,
    ),
    Target(name="reply", check=_reply, seeds=vectors, mutate=of_msgpack, most_memory=_memory),
    Target(
        name="client_protocol",
        check=_client,
        seeds=_conversations,
        mutate=of_msgpack,
        most_memory=_memory,
    ),
    Target(
        name="server_protocol",
        check=_server,
        seeds=_requests,
        mutate=of_msgpack,
        most_memory=lambda size: _memory(size) + 2 * _LIMITS.max_message_bytes,
    ),
    Target(
        name="refusal",
        check=_refusal,
        seeds=_refusals,
        mutate=of_words(_REFUSAL_WORDS),
        most_memory=_memory,
    ),
)
