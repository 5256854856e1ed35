# SPDX-License-Identifier: Apache-2.0
"""OpenPI's conversation as two pure state machines, one for each side. No I/O, no clock.

Rules (openpi `serving/websocket_policy_server.py` @ 15a9616):

1. The server speaks first: one binary message, its metadata, a map.
2. Then strictly one reply for each request, in the order of the requests. There are no request ids:
   the n-th reply answers the n-th request. Requests may be pipelined.
3. A text message instead of a reply is an error: the server's traceback. The server then closes with 1011.
   Ours does not close after a refusal (`wire.refusals`): nothing went wrong, the request was not let
   through. It counts as the reply, so the next one is still told apart.
4. Text to the server is an error too.

Other server families differ in small ways (`wire.dialects`): a message that begins an episode has an answer of
its own, or none, and an error may be binary. Both count as the reply they stand for.

The client side therefore knows by counting which request a reply belongs to, however late it comes. It loses
that knowledge only with an unexpected message, which ends the connection (`ProtocolState.CLOSED`).
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from pi05_websocket.data import ServerMetadata
from pi05_websocket.errors import (
    ConnectionLost,
    DecodeError,
    IncompatibleServer,
    InvalidReply,
    Pi05WebsocketError,
    PolicyError,
    RequestRefused,
    ServerError,
)
from pi05_websocket.wire import codec
from pi05_websocket.wire.dialect_robot import read_answer, read_reset_answer
from pi05_websocket.wire.dialect_server import (
    NO_ANSWER,
    Aside,
    answer,
    error_answer,
    metadata_of,
    unwrap,
)
from pi05_websocket.wire.dialects import OPENPI, Dialect, dialect_for
from pi05_websocket.wire.encoded_images import (
    decode_images,
    holds_encoded_images,
    image_announcement,
)
from pi05_websocket.wire.foreign_words import in_a_line
from pi05_websocket.wire.realtime import (
    NO_PREFIX,
    RealtimeRequest,
    RealtimeSupport,
    announcement,
    realtime_support,
    split_realtime,
)
from pi05_websocket.wire.refusals import REFUSED, Refusal, read_refusal, refusal_text

__all__ = [
    "CLOSE_INTERNAL_ERROR",
    "CLOSE_NORMAL",
    "TRACEBACK_CLOSE_REASON",
    "Asked",
    "ClientProtocol",
    "ErrorMessage",
    "MetadataReceived",
    "ProtocolState",
    "ReplyReceived",
    "RequestFailed",
    "ServerProtocol",
    "Told",
    "raised",
    "server_error",
]

CLOSE_NORMAL = 1000
CLOSE_INTERNAL_ERROR = 1011

TRACEBACK_CLOSE_REASON = "Internal server error. Traceback included in previous frame."
"""Close reason of a stock server after an error, word for word."""

_LONGEST_TRACEBACK = 128 * 1024
"""Characters that a client looks at: what a server of ours sends at most, and more."""

_METADATA_BYTES = 1024 * 1024
_METADATA_ITEMS = 16_384
# Of the first message, which is kept and looked at on every connection. The largest known has a few hundred
# values; a message of 64 MiB may hold more than a robot has memory for.

Buffer = bytes | bytearray | memoryview

_LONGEST_ERROR_TEXT = 64 * 1024
"""Characters. A whole traceback has thousands; an exception may quote megabytes that a client sent."""


class ProtocolState(Enum):
    """Where a conversation stands."""

    AWAITING_METADATA = "awaiting metadata"
    READY = "ready"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class MetadataReceived:
    """The server introduced itself; requests may be sent from now on."""

    metadata: ServerMetadata


@dataclass(frozen=True, slots=True)
class ReplyReceived:
    """The answer to request `seq`: the decoded message, whatever it is; its bytes if nobody is to decode it."""

    seq: int
    reply: Any
    nbytes: int


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """Request `seq` will not be answered, and why."""

    seq: int
    error: Pi05WebsocketError


Event = MetadataReceived | ReplyReceived | RequestFailed


def server_error(text: str) -> ServerError:
    """Turn a server's text frame into an error: what was raised in the message, everything in `.detail`.

    A server of ours that did not let the request through says so in a form of its own (`wire.refusals`).
    """
    refusal = read_refusal(text)
    if refusal is not None:
        return RequestRefused(
            f"the server refused the request ({refusal.kind}): {in_a_line(refusal.text)}",
            kind=refusal.kind,
            retry_after_s=refusal.retry_after_s,
            detail=text,
        )
    if text.startswith(REFUSED):
        return RequestRefused(
            f"the server refused the request: {in_a_line(text[len(REFUSED) :])}", detail=text
        )
    return PolicyError(f"server error: {in_a_line(raised(text)) or '(empty text)'}", detail=text)


def raised(text: str) -> str:
    """Return the line of a traceback that names the exception.

    It is the first line at the margin after the last frame; more may follow it: the rest of a long text,
    notes (JAX ends its own with "For simplicity, JAX has removed its internal frames"). A text that is no
    traceback gives its last line. Of a text longer than any traceback only the end is looked at.
    """
    lines = [line for line in text[-_LONGEST_TRACEBACK:].splitlines() if line.strip()]
    frames = [i for i, line in enumerate(lines) if line.startswith('  File "')]
    after = lines[frames[-1] :] if frames else []
    at_margin = [line for line in after if not line[0].isspace()]
    return (at_margin or lines or [""])[0 if at_margin else -1].strip()


class ClientProtocol:
    """The client's side of one transport. One object for each transport; it is not reused.

    Feed it what arrives (`receive`, `connection_ended`) and tell it what you send (`request_sent`);
    it returns events. `outstanding` are the requests that still wait for their reply, oldest first.

    Args:
        limits: What a message may ask for.
        undecoded: Leave replies as they came, for who passes them on.
        dialect: The server's, by name; `auto`: as it says itself.
        path: The URL path it was found at.
    """

    def __init__(
        self,
        *,
        limits: codec.DecodeLimits = codec.DEFAULT_LIMITS,
        undecoded: bool = False,
        dialect: str = OPENPI.name,
        path: str = "/",
    ) -> None:
        self.dialect = OPENPI
        """The server's, from its metadata on."""
        self.state = ProtocolState.AWAITING_METADATA
        self.error: Pi05WebsocketError | None = None
        """Why the conversation is over, once `state` is CLOSED."""
        self._chosen = dialect
        self._path = path
        self._outstanding: deque[int] = deque()
        self._resets: set[int] = set()
        """Those of them that begin an episode."""
        self._answered = False
        self._limits = limits
        self._undecoded = undecoded

    def __repr__(self) -> str:
        return f"<ClientProtocol {self.state.value} outstanding={len(self._outstanding)}>"

    @property
    def outstanding(self) -> tuple[int, ...]:
        """Numbers of the unanswered requests, oldest first."""
        return tuple(self._outstanding)

    def request_sent(self, seq: int, *, reset: bool = False) -> None:
        """Note that request `seq` goes out now. The caller must send its bytes before any later request's.

        Args:
            seq: Its number.
            reset: It begins an episode. Not to be noted where the dialect has no answer to that.

        Raises:
            AssertionError: If the server has not introduced itself yet.
        """
        if self.state is not ProtocolState.READY:
            raise AssertionError(f"request {seq} sent while {self.state.value}")
        self._outstanding.append(seq)
        if reset:
            self._resets.add(seq)

    def receive(self, payload: Buffer | str) -> list[Event]:
        """Take one whole message, `str` for text and bytes for binary; return what it means.

        After an event list that leaves `state` CLOSED the caller must close the transport.
        """
        if self.state is ProtocolState.CLOSED:
            return []  # whatever follows an error belongs to nobody
        if self.state is ProtocolState.AWAITING_METADATA:
            return self._receive_metadata(payload)
        if not self._outstanding:
            return self._end(self._unasked("text" if isinstance(payload, str) else "binary"))
        if self._outstanding[0] in self._resets:
            return self._receive_reset_answer(payload)
        if isinstance(payload, str):
            return self._receive_error_text(payload)
        return self._receive_reply(payload)

    def give_up(self, error: Pi05WebsocketError) -> list[Event]:
        """End the conversation from this side: every outstanding request fails with `error`."""
        return [] if self.state is ProtocolState.CLOSED else self._end(error)

    def connection_ended(self, *, code: int = 1006, reason: str = "") -> list[Event]:
        """Note that the transport is gone; every outstanding request fails. Later calls return nothing."""
        if self.state is ProtocolState.CLOSED:
            return []
        detail = f" ({in_a_line(reason)})" if reason else ""
        if self.state is ProtocolState.AWAITING_METADATA:
            message = f"the server closed the connection before its metadata, code {code}{detail}"
        else:
            message = f"connection lost, close code {code}{detail}"
        return self._end(ConnectionLost(message, code=code, reason=reason))

    def _unasked(self, kind: str) -> Pi05WebsocketError:
        """Return why a message that answers no request ends the conversation."""
        text = f"the server sent a {kind} message nobody asked for: replies can no longer be told apart"
        if (
            self._answered
        ):  # it is a policy server, and a new connection counts from the start again
            return ConnectionLost(text)
        return IncompatibleServer(f"{text}. Is this an OpenPI policy server?")

    def _receive_metadata(self, payload: Buffer | str) -> list[Event]:
        if isinstance(payload, str):
            return self._end(
                IncompatibleServer(
                    f"expected OpenPI's metadata as the first message, got text: {payload[:200]!r}. "
                    "Check that the URL is a policy server's."
                )
            )
        try:
            metadata = codec.decode(payload, _of_metadata(self._limits))
        except DecodeError as exc:
            return self._end(
                IncompatibleServer(
                    f"expected OpenPI's metadata as the first message, got undecodable bytes: {exc}. "
                    "Check that the URL is a policy server's."
                )
            )
        if not isinstance(metadata, dict):
            return self._end(
                IncompatibleServer(
                    f"expected OpenPI's metadata (a map) as the first message, got {type(metadata).__name__}"
                )
            )
        self.dialect = dialect_for(self._chosen, metadata, self._path)
        self.state = ProtocolState.READY
        return [MetadataReceived(metadata)]

    def _receive_reset_answer(self, payload: Buffer | str) -> list[Event]:
        seq = self._outstanding[0]
        self._resets.discard(seq)
        try:
            told = payload if isinstance(payload, str) else codec.decode(payload, self._limits)
            read_reset_answer(self.dialect, told)
        except PolicyError as exc:
            if isinstance(payload, str):
                return self._receive_error_text(payload)
            return [RequestFailed(self._outstanding.popleft(), exc)]
        except DecodeError as exc:
            return [RequestFailed(self._outstanding.popleft(), exc)]
        return [ReplyReceived(self._outstanding.popleft(), None, len(payload))]

    def _receive_error_text(self, text: str) -> list[Event]:
        failed: list[Event] = [RequestFailed(self._outstanding.popleft(), server_error(text))]
        if text.startswith(REFUSED):
            return failed
        # Stock servers close right after this frame (rule 3): what else was pipelined is lost with it.
        return failed + self._end(_closed_after_an_error())

    def _receive_reply(self, payload: Buffer) -> list[Event]:
        seq = self._outstanding.popleft()
        try:
            reply = payload if self._undecoded else codec.decode(payload, self._limits)
            if self.dialect is not OPENPI and not self._undecoded:
                reply = read_answer(self.dialect, reply)
        except (DecodeError, PolicyError, InvalidReply) as exc:
            # The frame is whole, so counting still works: only this reply is bad.
            failed: list[Event] = [RequestFailed(seq, exc)]
            if isinstance(exc, PolicyError) and self.dialect.errors == "traceback":
                failed += self._end(_closed_after_an_error())
            return failed
        self._answered = True
        return [ReplyReceived(seq, reply, len(payload))]

    def _end(self, error: Pi05WebsocketError) -> list[Event]:
        self.state = ProtocolState.CLOSED
        self.error = error
        failed: list[Event] = [RequestFailed(seq, error) for seq in self._outstanding]
        self._outstanding.clear()
        return failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request asks for: actions for an observation."""

    observation: dict[str, Any]
    realtime: RealtimeRequest | None = None
    tag: Any = None
    """Comes back in the answer, in dialects that number requests."""

    session: str | None = None
    """The episode it belongs to, in dialects that say so."""

    packed: bool = False
    """Whether it holds encoded images, see `ServerProtocol.unpacked`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A request that asks for no actions, such as a reset, and its answer: text, bytes, or none at all."""

    message: bytes | str | None
    begins_episode: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorMessage:
    """What is sent for a failed request, and whether the connection ends with it."""

    message: bytes | str
    closes: bool


class ServerProtocol:
    """The server's side of one transport: what to send first, what a message means, how to answer.

    The caller decodes, infers and answers in the order of arrival; `metadata_message` goes out first.

    Args:
        metadata: What the server says about itself.
        debug: See `error_text`.
        limits: What a request may ask for.
        encoded_images: Whether to announce that images may come as JPEG, and to decode them. Announced and
            decoded here alone, so that the two cannot differ.
        deadlines: Whether to announce that requests may say under `_rt` until when their answer is of use.
        dialect: The client's. In any but OpenPI's nothing of ours is announced or read.
    """

    def __init__(
        self,
        metadata: Mapping[str, Any],
        *,
        debug: bool = True,
        limits: codec.DecodeLimits = codec.DEFAULT_LIMITS,
        encoded_images: bool = False,
        deadlines: bool = False,
        dialect: Dialect = OPENPI,
    ) -> None:
        self.dialect = dialect
        if dialect is not OPENPI:
            encoded_images = deadlines = False
            metadata = metadata_of(dialect, _without_additions(metadata))
        said = dict(metadata)
        if encoded_images:
            said |= image_announcement()
        if deadlines:
            support = realtime_support(metadata) or RealtimeSupport(prefix=NO_PREFIX)
            said |= announcement(replace(support, refusals=True))
        self.metadata_message = codec.encode(said)
        self._reads_realtime = realtime_support(said) is not None
        self._encoded_images = encoded_images
        self._debug = debug
        self._limits = limits
        self._prev_total_ms: float | None = None
        self._has_history = False

    @property
    def reads_realtime(self) -> bool:
        """Whether it announced that requests may have `_rt`."""
        return self._reads_realtime

    @property
    def encoded_images(self) -> bool:
        """Whether it announced that it decodes images."""
        return self._encoded_images

    @property
    def debug(self) -> bool:
        """Whether errors are sent with their traceback."""
        return self._debug

    @property
    def prev_total_ms(self) -> float | None:
        """What was noted of the last reply; None before the first."""
        return self._prev_total_ms

    def request(self, payload: Buffer | str) -> tuple[dict[str, Any], RealtimeRequest | None]:
        """Decode one request: the observation, and what the robot says about it under `_rt`.

        A server that announces nothing under `_rt` leaves what is there in the observation: a policy may know
        the name for something else.

        Raises:
            DecodeError: If it is text, not msgpack, or not a map; if an encoded image is not what it says; if
                `_rt` is not what it should be.
        """
        observation, realtime = self._split(payload)
        return self.unpacked(observation), realtime

    def read(self, payload: Buffer | str) -> Asked | Told:
        """Say what one request asks for, in the client's dialect; its encoded images stay as they are.

        Raises:
            DecodeError: As `request`, or it is no message of the dialect.
        """
        observation, realtime = self._split(payload)
        if self.dialect is OPENPI:
            packed = self._encoded_images and holds_encoded_images(observation)
            return Asked(observation=observation, realtime=realtime, packed=packed)
        said = unwrap(self.dialect, observation)
        if isinstance(said, Aside):
            self._has_history = (
                self._has_history or said.gives_history
            ) and not said.begins_episode
            told = None if said.answer is NO_ANSWER else said.answer
            message = told if told is None or isinstance(told, str) else codec.encode(told)
            return Told(message=message, begins_episode=said.begins_episode)
        return Asked(observation=said.observation, tag=said.tag, session=said.session)

    def unpacked(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Return an observation with arrays in the place of encoded images, if they were announced.

        Raises:
            DecodeError: If an encoded image is not what it says.
        """
        return decode_images(observation, self._limits) if self._encoded_images else observation

    def _split(self, payload: Buffer | str) -> tuple[dict[str, Any], RealtimeRequest | None]:
        if isinstance(payload, str):
            raise DecodeError("expected a binary message (msgpack), got a text message")
        observation = codec.decode(payload, self._limits)
        if not isinstance(observation, dict):
            raise DecodeError(f"expected an observation (a map), got {type(observation).__name__}")
        return split_realtime(observation) if self._reads_realtime else (observation, None)

    def reply(self, result: Mapping[str, Any], *, infer_ms: float, tag: Any = None) -> bytes:
        """Encode one answer with OpenPI's `server_timing`; the policy's own dict stays as it is.

        Args:
            result: The policy's.
            infer_ms: How long it took.
            tag: The request's.

        Raises:
            EncodeError: If the result holds something the wire cannot carry.
        """
        timing: dict[str, float] = {"infer_ms": infer_ms}
        if self._prev_total_ms is not None:
            timing["prev_total_ms"] = self._prev_total_ms
        if self.dialect is OPENPI:
            return codec.encode({**result, "server_timing": timing})
        return codec.encode(
            answer(self.dialect, result, timing=timing, tag=tag, has_history=self._has_history)
        )

    def reply_sent(self, *, total_ms: float) -> None:
        """Note the time from receiving the last request to having sent its reply."""
        self._prev_total_ms = total_ms

    def error_text(self, error: BaseException) -> str:
        """Return the text frame for a failed request; close with 1011 and the standard reason after it.

        With `debug` the whole traceback as OpenPI sends it, otherwise type and message: no file, no note.
        What is very long is cut.
        """
        if self._debug:
            return _cut("".join(traceback.format_exception(error)))
        short = traceback.TracebackException(type(error), error, None)
        short.__notes__ = None
        return _cut(list(short.format_exception_only())[-1])

    def error_message(self, error: BaseException, tag: Any = None) -> ErrorMessage:
        """Return what is sent for a failed request, in the client's dialect.

        Args:
            error: Why.
            tag: The request's, as far as it is known.
        """
        text = self.error_text(error)
        said = error_answer(self.dialect, text.strip(), tag)
        if said is None:
            return ErrorMessage(message=text, closes=True)
        return ErrorMessage(message=codec.encode(said), closes=self.dialect.errors == "traceback")

    def refusal_message(self, refusal: Refusal, tag: Any = None) -> bytes | str:
        """Return what is sent for a request that was not let through; the connection stays."""
        text = refusal_text(refusal)
        said = error_answer(self.dialect, text, tag)
        return text if said is None else codec.encode(said)

    def passed_on(self, error: ServerError) -> str:
        """Return the text frame for an error that another server answered with: its own text.

        Without `debug` the line that says what was raised, as in `error_text`.
        """
        return _cut(error.detail if self._debug else f"{raised(error.detail) or 'server error'}\n")


def _cut(text: str) -> str:
    """Return a text that is not too long; the end goes, which in a traceback is what the exception quotes."""
    if len(text) <= _LONGEST_ERROR_TEXT:
        return text
    left_out = len(text) - _LONGEST_ERROR_TEXT
    return f"{text[:_LONGEST_ERROR_TEXT]} ... ({left_out} characters more)\n"


def _of_metadata(limits: codec.DecodeLimits) -> codec.DecodeLimits:
    return replace(
        limits,
        max_message_bytes=min(limits.max_message_bytes, _METADATA_BYTES),
        max_items=min(limits.max_items, _METADATA_ITEMS),
    )


def _without_additions(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata without the keys that this project adds to OpenPI's."""
    return {key: value for key, value in metadata.items() if not str(key).startswith("_")}


def _closed_after_an_error() -> ConnectionLost:
    return ConnectionLost(
        "the server closes after an error",
        code=CLOSE_INTERNAL_ERROR,
        reason=TRACEBACK_CLOSE_REASON,
    )
