# SPDX-License-Identifier: Apache-2.0
"""What an ingress and a policy replica say to each other beside the robot's bytes. Pure.

Maps of plain values: an ingress outlives many versions of the policy application, so unknown names are passed
over and missing ones have a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from pi05_websocket.server.requests import Answered, Done, Failed, Outcome, Refused
from pi05_websocket.server.sessions import NORMAL_PRIORITY
from pi05_websocket.wire.realtime import REALTIME_KEY
from pi05_websocket.wire.refusals import KINDS, Refusal, RefusalKind

__all__ = ["Answer", "Ask", "Description", "reads_refusals"]


class _Plain:
    """Goes to a map and comes back from one."""

    __slots__ = ()

    def to_map(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]  # each subclass is a dataclass

    @classmethod
    def from_map(cls, said: Mapping[str, Any]) -> Self:
        """Read it; what is not known here is left out."""
        names = {each.name for each in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: value for name, value in said.items() if name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask(_Plain):
    """One request, beside its payload."""

    session: str
    """Whose it is: the same for all requests of one connection, and for no other."""

    number: int
    """Which request of its connection, from 1."""

    ticket: int = 0
    """For the ingress itself: which of its calls this is."""

    waited_ms: float = 0.0
    """Since its last byte came to the ingress."""

    priority: int = NORMAL_PRIORITY
    debug: bool = False
    """Whether its client may see tracebacks."""

    prev_total_ms: float | None = None
    """What the ingress measured of the connection's last reply."""

    dialect: str = "openpi"
    """How its client talks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(_Plain):
    """What became of it."""

    kind: Literal["answered", "failed", "refused", "done"]
    message: bytes | None = b""
    text: str = ""
    cause: str = ""
    refusal: str = ""
    retry_after_s: float | None = None
    queue_ms: float = 0.0
    infer_ms: float = 0.0
    batch: int = 1
    closes: bool = True
    begins_episode: bool = False

    generation: str = ""
    """Of the replica's `Description`: another one than before means that it is to be asked for again."""

    @classmethod
    def of(cls, outcome: Outcome, generation: str) -> Self:
        """Wrap an outcome; the chunk itself stays where it is, the reply has it."""
        if isinstance(outcome, Answered):
            return cls(
                kind="answered",
                message=outcome.message,
                queue_ms=outcome.queue_ms,
                infer_ms=outcome.infer_ms,
                batch=outcome.batch,
                generation=generation,
            )
        if isinstance(outcome, Failed):
            return cls(
                kind="failed",
                text=outcome.text,
                cause=outcome.cause,
                message=outcome.message,
                closes=outcome.closes,
                generation=generation,
            )
        if isinstance(outcome, Done):
            text = isinstance(outcome.message, str)
            return cls(
                kind="done",
                message=None if text else outcome.message,  # type: ignore[arg-type]  # else bytes or None
                text=str(outcome.message) if text else "",
                begins_episode=outcome.begins_episode,
                generation=generation,
            )
        refusal = outcome.refusal
        return cls(
            kind="refused",
            refusal=refusal.kind,
            text=refusal.text,
            retry_after_s=refusal.retry_after_s,
            generation=generation,
        )

    def outcome(self) -> Outcome:
        """Unwrap it."""
        if self.kind == "answered":
            return Answered(
                message=self.message or b"",
                queue_ms=self.queue_ms,
                infer_ms=self.infer_ms,
                batch=self.batch,
            )
        if self.kind == "failed":
            return Failed(
                text=self.text, cause=self.cause, message=self.message or None, closes=self.closes
            )
        if self.kind == "done":
            return Done(message=self.text or self.message, begins_episode=self.begins_episode)
        kind: RefusalKind = next((kind for kind in KINDS if kind == self.refusal), "busy")
        return Refused(refusal=Refusal(kind=kind, text=self.text, retry_after_s=self.retry_after_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Description(_Plain):
    """What a policy application is."""

    metadata: bytes
    """Encoded, with everything that its replicas announce."""

    generation: str
    """Changes when the metadata or the policy does."""


_REALTIME_KEY_ENCODED = b"\xa3" + REALTIME_KEY.encode()


def reads_refusals(payload: bytes | bytearray | str) -> bool:
    """Whether a request comes from a robot that understands refusals, without decoding it.

    It looks for `_rt` as msgpack writes it. An image may contain these four bytes by chance, once in four
    thousand megabytes: then a stock client reads a refusal, which is an error to it like any other text.
    """
    return not isinstance(payload, str) and _REALTIME_KEY_ENCODED in payload
