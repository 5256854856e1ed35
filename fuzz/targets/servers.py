# SPDX-License-Identifier: Apache-2.0
"""What a server says to a robot: its greeting, its answers in every dialect, its errors, its HTTP refusals.

What a person is shown of it is printable and short, whatever the server sent.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from picows.picows import (  # type: ignore[attr-defined]  # what the library does before it tells us
    _parse_upgrade_response,
)

from fuzz.mutation import of_msgpack, of_words
from fuzz.target import Broken, Target, check_scalars
from pi05_websocket.cli.asking import for_server
from pi05_websocket.client.backoff import Backoff
from pi05_websocket.client.config import ConnectionConfig
from pi05_websocket.client.dialling import _translated
from pi05_websocket.client.sameness import Sameness
from pi05_websocket.client.speaking import Speaking
from pi05_websocket.doctor.check_metadata import check_metadata
from pi05_websocket.doctor.facts import Setup
from pi05_websocket.doctor.preflight import FirstLook
from pi05_websocket.doctor.translate import translated
from pi05_websocket.errors import (
    IncompatibleServer,
    InvalidReply,
    ObservationError,
    Pi05WebsocketError,
)
from pi05_websocket.presets import PRESETS
from pi05_websocket.recording.messages import messages_of
from pi05_websocket.wire import codec
from pi05_websocket.wire.dialects import AUTO, DIALECTS
from pi05_websocket.wire.encoded_images import reads_jpeg
from pi05_websocket.wire.fingerprint import fingerprint_of
from pi05_websocket.wire.limits import DecodeLimits
from pi05_websocket.wire.messages import read_actions, server_infer_ms
from pi05_websocket.wire.protocol import (
    ClientProtocol,
    Event,
    MetadataReceived,
    ProtocolState,
    ReplyReceived,
    RequestFailed,
    server_error,
)
from pi05_websocket.wire.realtime import realtime_support

__all__ = ["TARGETS"]

_LIMITS: Final = DecodeLimits(max_message_bytes=64 * 1024)
_PATHS: Final = ("/", "/v1/realtime/robot/openpi", "/starvla")
_LONGEST_SAID: Final = 6000
"""Characters: several lines of what a person is shown, each of them bounded, with all written out."""
_MOST_ROWS, _MOST_COLUMNS = 10_000, 1024


class _Log(logging.Handler):
    """Holds each line that is logged against what a terminal may get."""

    def emit(self, record: logging.LogRecord) -> None:
        _said(record.getMessage())


@contextlib.contextmanager
def _looked_at() -> Iterator[None]:
    """Look at what is logged, and keep it from the screen."""
    logger, log = logging.getLogger("pi05_websocket"), _Log()
    before, logger.propagate = logger.propagate, False
    logger.addHandler(log)
    try:
        yield
    finally:
        logger.removeHandler(log)
        logger.propagate = before


def _observation() -> dict[str, Any]:
    image = np.zeros((8, 8, 3), np.uint8)
    names = ("observation/exterior_image_1_left", "observation/exterior_image_2_left")
    return {**dict.fromkeys(names, image), "observation/state": np.zeros(6), "prompt": "pick"}


_OBSERVATION: Final = _observation()
_SETUPS: Final = tuple(
    Setup(key_map=PRESETS[name], dialect=dialect, task="pick")  # type: ignore[arg-type]
    for name, dialect in (("so101", "auto"), ("droid", "roboarena"))
)


def _said(text: str) -> None:
    """Hold what a person is shown against what a terminal may get."""
    if not text.isprintable():
        raise Broken(f"not printable: {text!r}")
    if len(text) > _LONGEST_SAID:
        raise Broken(f"{len(text)} characters for a person: {text[:80]!r}...")


def _greeting(data: bytes) -> str:
    """Whatever metadata: a server to talk to, or an error that says why not."""
    words = []
    for path in _PATHS:
        protocol = ClientProtocol(limits=_LIMITS, dialect=AUTO, path=path)
        events = protocol.receive(data)
        if not events:
            if not isinstance(protocol.error, IncompatibleServer):
                raise Broken(f"an error of another kind: {protocol.error!r}")
            _said(str(protocol.error))
            return "IncompatibleServer"
        (greeted,) = events
        if not isinstance(greeted, MetadataReceived):
            raise Broken(f"no greeting: {greeted!r}")
        check_scalars(greeted.metadata)
        words.append(_talk(protocol, greeted.metadata))
    return " ".join(dict.fromkeys(words))


def _talk(protocol: ClientProtocol, metadata: dict[str, Any]) -> str:
    """Do all that a robot does with metadata before and with its first request."""
    fingerprint = fingerprint_of(metadata)
    same = Sameness(2)
    same.came(0, fingerprint)
    same.follow(0)
    if not same.agrees(0):
        raise Broken("a server differs from itself")
    support = realtime_support(metadata)
    reads_jpeg(metadata)
    for setup in _SETUPS:
        for finding in check_metadata(metadata, setup):
            _said(finding.said)
            _said(finding.fix)
        try:
            with _looked_at():
                FirstLook(setup).asked(metadata)
        except IncompatibleServer as exc:
            _said(str(exc))
    messages_of("server", {"metadata": metadata}, 0, 0)
    codec.encode(for_server(_OBSERVATION, metadata))
    speaking = Speaking()
    reset = speaking.reset(protocol.dialect, _OBSERVATION, greeting=1)
    try:
        message = speaking.message(protocol.dialect, metadata, _OBSERVATION)
    except ObservationError as exc:
        _said(str(exc))
        return "ObservationError"
    codec.encode(message)
    codec.encode(reset)
    known = "known" if fingerprint else "unknown"
    return f"{protocol.dialect.name} {known} {support is not None}"


def _greetings() -> Iterator[bytes]:
    for dialect in DIALECTS.values():
        yield codec.encode(dict(dialect.metadata))
    yield codec.encode({"fingerprint": {"weights": "a", "b": [1, 2.5, None]}, "control_hz": 30.0})
    yield codec.encode(
        {"fingerprint": np.ones(3), "needs_session_id": np.ones(2), "object": np.ones(2)}
    )
    yield codec.encode(
        {
            "image_sizes": {"observation/images/wrist2": [np.ones(2), 224]},
            "action_names": ["a\x1b[2J", "b", "c", "d", "e", "f"],
            "observation_keys": ["x\x9b31m"],
            "action_dim": 7,
        }
    )
    roboarena = {
        "n_external_cameras": 2,
        "needs_session_id": True,
        "action_space": "joint_position",
    }
    yield codec.encode({**roboarena, "image_resolution": [16, 16]})
    yield codec.encode(
        {**roboarena, "image_resolution": [1048576, 1], "n_external_cameras": -(2**63)}
    )
    yield codec.encode({"object": "action.metadata", "image_resolution": [4, 4]})
    yield codec.encode({f"key{number}\n": number for number in range(60)})
    yield codec.encode({"_rt": {"version": 1, "prefix": "guided", "refusals": True}, "_images": {}})


def _answer(data: bytes) -> str:
    """Whatever answer, in every dialect: rows an arm may execute, or a typed error."""
    words = []
    for name, dialect in DIALECTS.items():
        for reset in (False, True):
            protocol = ClientProtocol(limits=_LIMITS, dialect=name)
            protocol.receive(b"\x80")
            protocol.request_sent(0, reset=reset and dialect.reset not in ("none", "silent"))
            text = data.decode("utf-8", "replace") if len(data) % 5 == 4 else data
            words += [_event(event, reset=reset) for event in protocol.receive(text)]
            if protocol.state is ProtocolState.CLOSED and protocol.error is not None:
                _said(str(protocol.error))
    return " ".join(dict.fromkeys(words))


def _event(event: Event, *, reset: bool) -> str:
    if isinstance(event, RequestFailed):
        if not isinstance(event.error, Pi05WebsocketError):
            raise Broken(f"an error of another kind: {event.error!r}")
        _said(str(event.error))
        return type(event.error).__name__
    if not isinstance(event, ReplyReceived):
        raise Broken(f"another event: {event!r}")
    if event.reply is None:
        return "reset" if reset else "none"
    return _rows(event.reply)


def _rows(reply: Any) -> str:
    took_ms = server_infer_ms(reply)
    if took_ms is not None and not 0 <= took_ms <= 3_600_000:
        raise Broken(f"an inference of {took_ms} ms")
    messages_of("reply", {"seq": 0, "value": reply}, 0, 0)
    try:
        rows = read_actions(reply)
    except InvalidReply as exc:
        _said(str(exc))
        return "InvalidReply"
    if rows.dtype != np.float32 or rows.ndim != 2 or not np.isfinite(rows).all():
        raise Broken(f"rows no arm may execute: {rows}")
    if not rows.size or rows.shape[0] > _MOST_ROWS or rows.shape[1] > _MOST_COLUMNS:
        raise Broken(f"rows of shape {rows.shape}")
    return "rows"


def _answers() -> Iterator[bytes]:
    rows = np.ones((4, 6), np.float32)
    yield codec.encode({"actions": rows, "server_timing": {"infer_ms": 12.5}})
    yield codec.encode({"action": rows[None]})
    yield codec.encode({"data": {"actions": rows[None]}, "status": "success"})
    yield codec.encode(rows)
    yield codec.encode({"action.arm": rows[None], "action.gripper": rows[:, 0]})
    yield codec.encode({"action": np.ones((6, 2, 3))})
    yield codec.encode({"action": np.ones((0, 2, 3))})
    yield codec.encode({"type": "error", "error": {"message": "Traceback\nKeyError: 'x'\x1b[2J"}})
    yield codec.encode({"status": np.ones(2), "type": np.ones(2), "ok": False})
    yield codec.encode({"error": "\u202egone"})
    yield codec.encode({"server_timing": {"infer_ms": -1e308}, "actions": rows.astype(np.int8)})
    yield codec.encode({"actions": np.zeros((20_000, 1), np.uint8)})
    yield codec.encode({f"\x1b{number}": "x" * 9 for number in range(80)})
    yield b"reset successful"
    yield b'Traceback (most recent call last):\n  File "x"\nValueError: \x07'


def _error(data: bytes) -> str:
    """Whatever text in place of an answer, or as a close reason: a line that a terminal may get."""
    text = data.decode("utf-8", "replace")
    error = server_error(text)
    _said(str(error))
    finding = translated(str(error).removeprefix("server error: "), PRESETS["so101"])
    _said(finding.said)
    _said(finding.fix)
    for greeted in (False, True):
        protocol = ClientProtocol(limits=_LIMITS)
        if greeted:
            protocol.receive(b"\x80")
        protocol.connection_ended(code=len(data), reason=text)
        _said(str(protocol.error))
    _said(str(_ended_by(text)))
    return f"{type(error).__name__} {' '.join(finding.mistakes)}"


def _ended_by(text: str) -> Pi05WebsocketError | None:
    protocol = ClientProtocol(limits=_LIMITS)
    protocol.receive(text)
    return protocol.error


def _errors() -> Iterator[bytes]:
    frames = b'Traceback (most recent call last):\n  File "/x.py", line 3, in infer\n    y\n'
    yield frames + b"KeyError: 'observation/image'\n"
    yield frames + b"ValueError: \x1b]0;owned\x07 could not be broadcast together\n\nnotes\n"
    yield b"RequestRefused: busy retry_after_s=0.250: 40 wait\x1b[1A\nall is well"
    yield b"RequestRefused: \x9b\xc2\x9b"
    yield b"RESOURCE_EXHAUSTED: out of memory" + b"x" * 900
    yield b"\n" * 300
    yield "\u2028\u202e\u0000".encode()


def _http(data: bytes) -> str:
    """Whatever a server answers to the upgrade: one of our errors, and a wait that has a bound."""
    try:
        with _translated(ConnectionConfig(url="ws://robot.example:8000")):
            _parse_upgrade_response(data, b"x" * 24)
    except Pi05WebsocketError as exc:
        _said(str(exc))
        after_s = getattr(exc, "retry_after_s", None)
        wait_s = Backoff(0.1, 2.0, lambda: 0.5).next(after_s)
        if not 0 <= wait_s <= 90:
            raise Broken(f"a wait of {wait_s} s") from exc
        return f"{type(exc).__name__} {after_s is not None}"
    return "upgraded"


def _responses() -> Iterator[bytes]:
    for status in (
        b"503 Busy",
        b"401 No",
        b"429 Many",
        b"404 Not Found",
        b"301 Moved",
        b"101 Switching",
    ):
        head = b"HTTP/1.1 " + status + b"\r\nRetry-After: 2\r\nContent-Length: 9"
        yield head + b"\r\n\r\nmodel \x1b[2J"
    yield b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    yield b"SSH-2.0-\x1b[31m\r\n\r\n"
    yield b"HTTP/1.0 200 OK\r\n\r\n<html>"


_HTTP_WORDS: Final = (
    b"\r\n", b"\r\n\r\n", b": ", b" ", b"HTTP/1.1 ", b"HTTP/1.0 ", b"503", b"429", b"401", b"999", b"-1",
    b"\xd9\xa1",
    b"Retry-After: ", b"99999", b"999999999999", b"1e999", b"-5", b"Wed, 21 Oct 2026 07:28:00 GMT", b"\x1b[2J",
    b"\xe2\x80\xae", b"\xc2\x9b", b"\0", b"\xff", b"Content-Length: 9", b"Transfer-Encoding: chunked",
    b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: x", b"A: b\r\n" * 130, b"y" * 2000,
)  # fmt: skip
_ERROR_WORDS: Final = (
    b"\n", b"\r", b"\t", b"\x1b[2J", b"\x1b]0;x\x07", b"\xc2\x9b", b"\xe2\x80\xae", b"\xe2\x80\xa8", b"\0",
    b"\xff", b'  File "', b"KeyError: '", b"'", b"prompt", b"RequestRefused: ", b"busy",
    b" retry_after_s=", b"9", b": ",
    b"observation/image", b"einops", b"endpoint", b"x" * 700, b"\n" * 200,
)  # fmt: skip


def _memory(size: int) -> int:
    return 512 * 1024 + 512 * size


TARGETS: Final = (
    Target(
        name="greeting",
        check=_greeting,
        seeds=_greetings,
        mutate=of_msgpack,
        # Images are resized to what a server asks for: two of a million pixels, with the way there.
        most_memory=lambda size: _memory(size) + 64 * 1024 * 1024,
    ),
    Target(
        name="answer",
        check=_answer,
        seeds=_answers,
        mutate=of_msgpack,
        most_memory=_memory,
    ),
    Target(
        name="error_text",
        check=_error,
        seeds=_errors,
        mutate=of_words(_ERROR_WORDS),
        most_memory=_memory,
    ),
    Target(
        name="http_refusal",
        check=_http,
        seeds=_responses,
        mutate=of_words(_HTTP_WORDS),
        most_memory=_memory,
    ),
)
