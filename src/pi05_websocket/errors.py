# SPDX-License-Identifier: Apache-2.0
"""The errors of this library: one tree, one root; data on the class, the remedy in the text.

    Pi05WebsocketError
    ├── ConfigError          also ValueError    settings contradict each other; before any I/O
    ├── ObservationError     also ValueError    missing key, wrong shape or dtype: names key, expected, got
    ├── WireError
    │   ├── EncodeError      also TypeError     we were asked to send something the wire cannot carry
    │   └── DecodeError      also ValueError    the peer sent something illegal
    ├── TransportError                          retryable
    │   ├── ConnectFailed                       refused, DNS, TLS, HTTP status, no WebSocket there
    │   │   ├── AccessRefused                   401 or 403: not retried, another key is needed
    │   │   └── CertificateRefused              the server's certificate is not trusted: not retried
    │   ├── ConnectionLost                      dropped while in use
    │   └── DeadlineExceeded also TimeoutError  which phase, how long it was allowed
    ├── ServerError          also RuntimeError  the server answered with an error; its text is `.detail`
    │   ├── PolicyError                         inference failed for this request
    │   └── RequestRefused   retryable          not let through: busy, late, superseded, or too often
    ├── IncompatibleServer                      speaks something else: not retried
    ├── PolicyChanged        retryable          the servers that are left serve, or may serve, another policy
    ├── InvalidReply                            an answer no arm may execute: NaN, wrong rank or width, empty
    └── NoValidAction                           nothing to execute and the fallback is "raise"

`retryable` says whether the same call can succeed later without anybody changing a setting.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "AccessRefused",
    "CertificateRefused",
    "ConfigError",
    "ConnectFailed",
    "ConnectionLost",
    "DeadlineExceeded",
    "DecodeError",
    "EncodeError",
    "IncompatibleServer",
    "InvalidReply",
    "NoValidAction",
    "ObservationError",
    "Pi05WebsocketError",
    "PolicyChanged",
    "PolicyError",
    "RequestRefused",
    "ServerError",
    "TransportError",
    "WireError",
]


def _with(remedy: str, text: str) -> str:
    return f"{text}. {remedy}" if remedy else text


class Pi05WebsocketError(Exception):
    """Root of every error this library raises on purpose."""

    retryable: ClassVar[bool] = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it come back from another process, whatever its class wants to be made with."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(
    kind: type[Pi05WebsocketError], args: tuple[Any, ...], facts: dict[str, Any]
) -> Pi05WebsocketError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


class ConfigError(Pi05WebsocketError, ValueError):
    """Settings are impossible or contradict each other."""


class ObservationError(Pi05WebsocketError, ValueError):
    """An observation does not fit what the key map or the policy needs.

    Attributes:
        key: The entry that is wrong.
        expected: What it should be, in words.
        got: What it is, in words.
    """

    def __init__(self, key: str, expected: str, got: str, remedy: str = "") -> None:
        self.key, self.expected, self.got, self.remedy = key, expected, got, remedy
        text = f"observation[{key!r}]: expected {expected}, got {got}"
        super().__init__(_with(remedy, text))


class WireError(Pi05WebsocketError):
    """Bytes and meaning do not match."""


class EncodeError(WireError, TypeError):
    """A value cannot travel in OpenPI's msgpack flavour. The message names its key."""


class DecodeError(WireError, ValueError):
    """A message from the peer is not legal. The message says what was wrong with it."""


class TransportError(Pi05WebsocketError):
    """The link to the peer failed."""

    retryable = True


class ConnectFailed(TransportError):
    """No connection could be opened.

    Attributes:
        retry_after_s: How long a server that is full or busy asks to wait, in seconds; None: it does not say.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class AccessRefused(ConnectFailed):
    """The server, or a proxy before it, refused our credentials (HTTP 401 or 403).

    Attributes:
        said: What happened.
        remedy: What to do about it, in the words of the Python settings.
    """

    retryable = False

    def __init__(self, said: str, *, remedy: str = "") -> None:
        self.said, self.remedy = said, remedy
        super().__init__(_with(remedy, said))


class CertificateRefused(ConnectFailed):
    """The server's TLS certificate is not trusted by our settings.

    Attributes:
        said: What happened.
        remedy: What to do about it, in the words of the Python settings.
        expected: The fingerprint that was pinned with `tls_fingerprint`, empty where none was.
        got: The fingerprint of the key that the server showed, likewise.
    """

    retryable = False

    def __init__(self, said: str, *, remedy: str = "", expected: str = "", got: str = "") -> None:
        self.said, self.remedy = said, remedy
        self.expected, self.got = expected, got
        super().__init__(_with(remedy, said))


class ConnectionLost(TransportError):
    """An open connection ended.

    Attributes:
        code: WebSocket close code (RFC 6455 section 7.4), 1006 when there was no close frame.
        reason: The peer's close reason, often empty.
    """

    def __init__(self, message: str, *, code: int = 1006, reason: str = "") -> None:
        self.code, self.reason = code, reason
        super().__init__(message)


class DeadlineExceeded(TransportError, TimeoutError):
    """A phase took longer than it was allowed.

    Attributes:
        phase: "connect", "TLS handshake", "handshake", "metadata", "request" or "first request".
        timeout_s: How long the phase was allowed, in seconds.
    """

    def __init__(self, phase: str, timeout_s: float, remedy: str = "") -> None:
        self.phase, self.timeout_s = phase, timeout_s
        text = f"{phase} took longer than the allowed {timeout_s:g} s"
        super().__init__(_with(remedy, text))


class ServerError(Pi05WebsocketError, RuntimeError):
    """The server answered with an error instead of a result.

    A `RuntimeError` too, because that is what OpenPI's client raises.

    Attributes:
        detail: The server's whole text, usually a traceback.
    """

    retryable = True

    def __init__(self, message: str, *, detail: str = "") -> None:
        self.detail = detail
        super().__init__(message)


class PolicyError(ServerError):
    """The policy failed on this request; a different observation may work."""


class RequestRefused(ServerError):
    """The server did not let this request through; the connection stays, and so does the policy.

    Attributes:
        kind: `busy`, `late`, `superseded` or `rate`, see `wire.refusals`; empty where the server does not say.
        retry_after_s: How long it asks to wait before the next request, in seconds; None: it does not say.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str = "",
        retry_after_s: float | None = None,
        detail: str = "",
    ) -> None:
        self.kind, self.retry_after_s = kind, retry_after_s
        super().__init__(message, detail=detail)


class IncompatibleServer(Pi05WebsocketError):
    """The peer does not speak OpenPI's protocol, or speaks it for another robot."""


class PolicyChanged(Pi05WebsocketError):
    """The server came back as another policy than the arm follows; of several, those that are left did.

    Or they do not say which theirs is.

    Attributes:
        expected: The fingerprint of the policy the arm follows; None: it has none.
        got: That of the server that could be asked, likewise.
    """

    retryable = True

    def __init__(
        self, message: str, *, expected: str | None = None, got: str | None = None
    ) -> None:
        self.expected, self.got = expected, got
        super().__init__(message)


class InvalidReply(Pi05WebsocketError):
    """The server answered, but with nothing an arm may execute."""

    retryable = True


class NoValidAction(Pi05WebsocketError):
    """There is no valid action for this tick and the fallback is "raise"."""

    retryable = True
