# SPDX-License-Identifier: Apache-2.0
"""The key we add to OpenPI's messages, `_rt`: the running chunk, and until when an answer is of use.

The first lets a policy join its chunk to the running one, the second a server plan for many robots.

In: metadata, observations and replies as decoded, whose `_rt` is a stranger's word. Out: checked values.
Pure. It is sent only to a server whose metadata announces it; every other server sees stock bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np

from pi05_websocket.data import Float32Array
from pi05_websocket.errors import DecodeError
from pi05_websocket.wire.arrays import shortened

__all__ = [
    "NO_PREFIX",
    "REALTIME_KEY",
    "REALTIME_VERSION",
    "RealtimeReply",
    "RealtimeRequest",
    "RealtimeSupport",
    "announcement",
    "read_realtime_reply",
    "realtime_support",
    "split_realtime",
    "with_realtime",
    "with_realtime_reply",
]

REALTIME_KEY: Final = "_rt"
"""Reserved in the metadata, the observation and the reply."""

REALTIME_VERSION: Final = 1

NO_PREFIX: Final = "none"
"""The `prefix` of a server, or of an answer, that does not condition."""

_MOST_TICKS: Final = 10_000
"""Longest chunk, delay or horizon anybody may claim; a chunk has 8 to 100 rows."""
_MOST_COLUMNS: Final = 1024
_MOST_MS: Final = 3_600_000.0
_MOST_HZ: Final = 10_000.0
_LAST_SEQ: Final = 2**53
_LONGEST_WORD: Final = 32
_FLOATS: Final = ("f2", "f4", "f8")

# Version 00 of W3C's Trace Context; an id of zeros is none.
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RealtimeSupport:
    """What a server announces under `_rt` in its metadata."""

    version: int = REALTIME_VERSION
    """Version of these fields; a server of another version is treated as one without."""

    prefix: str = "guided"
    """How it conditions on the leftover: `guided` (any flow policy), `trained` (its training pinned rows), or
    `none`: it does not."""

    max_delay: int | None = None
    """Most rows it can pin; None: as many as the chunk allows."""

    refusals: bool = False
    """Whether it plans by deadlines, and refuses what would be answered too late (`wire.refusals`)."""

    @property
    def conditions(self) -> bool:
        """Whether chunks can follow the running one."""
        return self.prefix != NO_PREFIX


@dataclass(frozen=True, slots=True, kw_only=True)
class RealtimeRequest:
    """What a robot says with an observation."""

    seq: int
    """Number of the request; comes back in the reply."""

    leftover: Float32Array
    """`(n, action_dim)` rows of the running chunk still to be executed, in raw policy units (what the policy
    answered); row 0 is for the observation's tick. n = 0: there is no running chunk."""

    delay: int
    """The robot's estimate of the inference delay d, in ticks."""

    execution_horizon: int
    """s: ticks from one takeover to the next. Not LeRobot's `RTCConfig.execution_horizon`, which is H - s."""

    control_hz: float
    """Control rate in ticks per second."""

    deadline_ms: float | None = None
    """How long after it was sent the reply is of any use, in milliseconds; later it is dropped. None: for as
    long as it takes."""

    robot: int = 0
    """Which of the robots that share the connection it is, as vectorised environments do: a newer observation
    replaces one of the same robot only."""

    leftover_ms: float | None = None
    """How long after it was sent the robot still has rows to execute, in milliseconds; 0: it stands still. A
    reply that comes later is of use, but the arm has held. None: not said."""

    age_ms: float = 0.0
    """The robot's estimate of how old the observation is when it arrives: the time a message travels."""

    traceparent: str | None = None
    """The trace this exchange is a part of, as W3C's Trace Context writes it; None: it is not traced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RealtimeReply:
    """What the server says with the actions."""

    seq: int
    """The request it answers."""

    delay: int
    """Inference delay d the server conditioned on: the first d rows continue the leftover."""

    prefix: str
    """How: `guided`, `trained`, or `none` when it could not or had nothing to condition on."""

    queue_ms: float
    """From the request's last byte to the start of inference."""

    infer_ms: float


def announcement(support: RealtimeSupport) -> dict[str, Any]:
    """Return the metadata entry of a server that reads `_rt`."""
    said = {
        "version": support.version,
        "prefix": support.prefix,
        "max_delay": support.max_delay,
        "refusals": support.refusals,
    }
    return {REALTIME_KEY: said}


def realtime_support(metadata: Any) -> RealtimeSupport | None:
    """Return what the server announces; None when it announces nothing, or nothing that can be relied on."""
    said = metadata.get(REALTIME_KEY) if isinstance(metadata, Mapping) else None
    if not isinstance(said, Mapping):
        return None
    try:
        support = RealtimeSupport(
            version=_integer(said, "version", most=_MOST_TICKS),
            prefix=_word(said, "prefix"),
            max_delay=_optional(_ticks, said, "max_delay"),
            refusals=said.get("refusals") is True,
        )
    except DecodeError:
        return None
    of_use = support.conditions or support.refusals
    return support if support.version == REALTIME_VERSION and of_use else None


def with_realtime(observation: Mapping[str, Any], request: RealtimeRequest) -> dict[str, Any]:
    """Return the observation with the request in it, as a new dict."""
    said = {
        "seq": request.seq,
        "leftover": np.ascontiguousarray(request.leftover, np.float32),
        "delay": request.delay,
        "execution_horizon": request.execution_horizon,
        "control_hz": float(request.control_hz),
        "deadline_ms": request.deadline_ms,
        "leftover_ms": request.leftover_ms,
        "robot": request.robot,
        "age_ms": float(request.age_ms),
    }
    if request.traceparent is not None:
        said["traceparent"] = request.traceparent
    return {**observation, REALTIME_KEY: said}


def split_realtime(
    observation: Mapping[str, Any],
) -> tuple[dict[str, Any], RealtimeRequest | None]:
    """Return the observation as the policy knows it, and the request; None when there is none.

    Raises:
        DecodeError: `_rt` is there and is not what it should be.
    """
    stock = {key: value for key, value in observation.items() if key != REALTIME_KEY}
    if REALTIME_KEY not in observation:
        return stock, None
    said = observation[REALTIME_KEY]
    if not isinstance(said, Mapping):
        raise _wrong("", "a map", said)
    request = RealtimeRequest(
        seq=_integer(said, "seq", most=_LAST_SEQ),
        leftover=_leftover(said),
        delay=_ticks(said, "delay"),
        execution_horizon=_ticks(said, "execution_horizon"),
        control_hz=_number(said, "control_hz", most=_MOST_HZ),
        deadline_ms=_optional(_milliseconds, said, "deadline_ms"),
        leftover_ms=_optional(_milliseconds, said, "leftover_ms"),
        robot=_optional(_ticks, said, "robot") or 0,
        age_ms=_optional(_milliseconds, said, "age_ms") or 0.0,
        traceparent=_optional(_traceparent, said, "traceparent"),
    )
    if request.control_hz == 0.0:
        raise _wrong("control_hz", "a number above 0", request.control_hz)
    return stock, request


def with_realtime_reply(result: Mapping[str, Any], reply: RealtimeReply) -> dict[str, Any]:
    """Return the policy's result with the reply in it, as a new dict."""
    said = {
        "seq": reply.seq,
        "delay": reply.delay,
        "prefix": reply.prefix,
        "queue_ms": float(reply.queue_ms),
        "infer_ms": float(reply.infer_ms),
    }
    return {**result, REALTIME_KEY: said}


def read_realtime_reply(reply: Any) -> RealtimeReply | None:
    """Return what the server says about its conditioning; None when it says nothing that can be relied on.

    Not an error: the actions stand for themselves, and are joined like those of a stock server.
    """
    said = reply.get(REALTIME_KEY) if isinstance(reply, Mapping) else None
    if not isinstance(said, Mapping):
        return None
    try:
        return RealtimeReply(
            seq=_integer(said, "seq", most=_LAST_SEQ),
            delay=_ticks(said, "delay"),
            prefix=_word(said, "prefix"),
            queue_ms=_milliseconds(said, "queue_ms"),
            infer_ms=_milliseconds(said, "infer_ms"),
        )
    except DecodeError:
        return None


def _leftover(said: Mapping[str, Any]) -> Float32Array:
    rows = said.get("leftover")
    expected = "a finite float array of shape (rows, action_dim)"
    if not isinstance(rows, np.ndarray):
        raise _wrong("leftover", expected, rows)
    if rows.dtype.kind != "f" or rows.dtype.str[1:] not in _FLOATS or rows.ndim != 2:
        raise _wrong("leftover", expected, f"{rows.dtype} of shape {rows.shape}")
    if len(rows) > _MOST_TICKS or rows.shape[1] > _MOST_COLUMNS:
        bounds = f"at most {_MOST_TICKS} rows of {_MOST_COLUMNS} values"
        raise _wrong("leftover", bounds, f"shape {rows.shape}")
    with np.errstate(over="ignore", invalid="ignore"):  # infinite, or NaN: refused
        finite = rows.astype(np.float32)
    if not np.isfinite(finite).all():
        raise _wrong("leftover", expected, "NaN or infinity")
    return finite


def _optional(
    read: Callable[[Mapping[str, Any], str], T], said: Mapping[str, Any], key: str
) -> T | None:
    return None if said.get(key) is None else read(said, key)


def _ticks(said: Mapping[str, Any], key: str) -> int:
    return _integer(said, key, most=_MOST_TICKS)


def _milliseconds(said: Mapping[str, Any], key: str) -> float:
    return _number(said, key, most=_MOST_MS)


def _integer(said: Mapping[str, Any], key: str, *, most: int) -> int:
    value = said.get(key)
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and 0 <= value <= most:
        return int(value)
    raise _wrong(key, f"an integer from 0 to {most}", value)


def _number(said: Mapping[str, Any], key: str, *, most: float) -> float:
    value = said.get(key)
    is_number = (
        isinstance(value, int | float | np.integer | np.floating) and type(value) is not bool
    )
    if is_number and 0.0 <= value <= most:  # type: ignore[operator]  # NaN compares false
        return float(value)  # type: ignore[arg-type]
    raise _wrong(key, f"a number from 0 to {most:g}", value)


def _traceparent(said: Mapping[str, Any], key: str) -> str:
    value = said.get(key)
    if isinstance(value, str) and _TRACEPARENT.fullmatch(value):
        return value
    raise _wrong(key, "a traceparent of W3C, version 00", value)


def _word(said: Mapping[str, Any], key: str) -> str:
    value = said.get(key)
    if isinstance(value, str) and 0 < len(value) <= _LONGEST_WORD:
        return value
    raise _wrong(key, f"a word of 1 to {_LONGEST_WORD} characters", value)


def _wrong(key: str, expected: str, got: object) -> DecodeError:
    name = f"{REALTIME_KEY}.{key}" if key else REALTIME_KEY
    text = got if isinstance(got, str) and key == "leftover" else shortened(got)
    return DecodeError(
        f"{name}: expected {expected}, got {text}. Leave {REALTIME_KEY} out to be answered without a prefix."
    )
