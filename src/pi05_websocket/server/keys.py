# SPDX-License-Identifier: Apache-2.0
"""Keys that let robots in: what a keys file says, whose a secret is, what its key opens. Pure.

In: a file's text, a request's `Authorization` headers and path, the time. Out: a key, or a refusal to send.
The secrets are not in the file, only their hashes. They are 256 random bits, made by `pi05-websocket keys`,
never chosen by a person: nobody can go through 2^256 of them. A slow hash such as scrypt makes a short password
dear to guess; here it would only make every connection slow. A salt for each lets no table serve two files.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from pi05_websocket.errors import ConfigError
from pi05_websocket.server.sessions import Priority
from pi05_websocket.wire.dialects import DialectName

__all__ = [
    "KeySet",
    "Refusal",
    "RobotKey",
    "decide",
    "format_keys",
    "hashed",
    "parse_keys",
    "secret_in",
]

_LONGEST_SECRET = 512
_SCHEMES = ("api-key", "bearer")

# Names are written to logs and close reasons.
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
_Path = Annotated[str, msgspec.Meta(pattern=r"^/[!->@-~]{0,255}\Z")]
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class RobotKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key: its secret's hash, and what it opens."""

    name: _Name
    """Whose it is, for logs and for revoking it."""

    salt: Annotated[bytes, msgspec.Meta(min_length=16, max_length=64)]
    sha256: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    """HMAC-SHA256 of the secret under the salt."""

    created: _Moment
    expires: _Moment | None = None
    """From then on it opens nothing; None: never."""

    paths: tuple[_Path, ...] = ()
    """URL paths it opens; none named: all."""

    requests_per_second: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    """How often all its connections together may ask; None: as often as they like."""

    priority: Priority = "normal"
    """Who goes first while requests wait for the policy."""

    dialect: DialectName | None = None
    """How its clients talk, where their path does not say; None: as the server is set."""

    def opens(self, path: str) -> bool:
        """Whether it opens a path; a query does not count."""
        return not self.paths or path.partition("?")[0] in self.paths

    def expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires is not None and now >= self.expires


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Literal[1]
    keys: tuple[RobotKey, ...]


@dataclass(frozen=True, slots=True)
class KeySet:
    """All keys of a server; no two have the same name."""

    keys: tuple[RobotKey, ...] = ()

    def named(self, name: str) -> RobotKey | None:
        """Return the key of a name."""
        return next((key for key in self.keys if key.name == name), None)

    def of_secret(self, secret: str) -> RobotKey | None:
        """Return the key a secret belongs to. Every key is compared in full: the time taken tells nothing."""
        found = None
        for key in self.keys:
            if hmac.compare_digest(hashed(key.salt, secret), key.sha256):
                found = key
        return found

    def still(self, key: RobotKey, path: str, now: datetime) -> bool:
        """Whether a connection that `key` opened may stay: the same secret, in time, for its path."""
        current = self.named(key.name)
        return (
            current is not None
            and current.sha256 == key.sha256
            and not current.expired(now)
            and current.opens(path)
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP answer in the place of the WebSocket."""

    status: int
    text: str
    """What to do; the same whether a key is missing, unknown or out of date."""

    cause: str
    """For our own log; not sent."""

    retry_after_s: float | None = None
    """Sent as `Retry-After`."""

    reason: str = "key"
    """Why, in a word, for who counts."""


_NO_KEY = (
    "This policy server lets in who has a key: Authorization: Api-Key KEY, or Bearer KEY.\n"
    "Ask whoever runs it for one (pi05-websocket keys add NAME). On the robot, put it into a file and name "
    "that with --policy.api_key_file, or an environment variable with --policy.api_key_env.\n"
)


def hashed(salt: bytes, secret: str) -> bytes:
    """Return what the file keeps of a secret."""
    return hmac.digest(salt, secret.encode("utf-8", "surrogateescape"), "sha256")


def secret_in(authorization: Sequence[str]) -> str | None:
    """Return the secret that a request's `Authorization` headers carry: one of them, in one of two forms."""
    if len(authorization) != 1:
        return None
    scheme, _, secret = authorization[0].partition(" ")
    secret = secret.strip(" ")
    if scheme.lower() not in _SCHEMES or not 0 < len(secret) <= _LONGEST_SECRET:
        return None
    return secret if re.fullmatch(r"[!-~]+", secret) else None


def decide(
    keys: KeySet, authorization: Sequence[str], path: str, now: datetime
) -> RobotKey | Refusal:
    """Say who asks to come in, or what to answer instead.

    Args:
        keys: Who may.
        authorization: Every `Authorization` header of the request.
        path: Its path, with or without a query.
        now: The time, with its zone.
    """
    secret = secret_in(authorization)
    key = None if secret is None else keys.of_secret(secret)
    if key is None:
        return Refusal(401, _NO_KEY, "no key" if not authorization else "no such key")
    if key.expired(now):
        return Refusal(401, _NO_KEY, f"the key {key.name} has expired")
    if not key.opens(path):
        return Refusal(
            403,
            f"This key opens {', '.join(key.paths)} here and no other path.\n"
            "Correct the path in the robot's --policy.websocket_url, or ask for another key.\n",
            f"the key {key.name} does not open the path",
            reason="path",
        )
    return key


def parse_keys(text: str | bytes, source: str = "the keys file") -> KeySet:
    """Read a keys file.

    Raises:
        ConfigError: If it is none; says where.
    """
    try:
        keys = msgspec.json.decode(text, type=_File).keys
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as exc:
        raise ConfigError(
            f"{source}: no keys file: {exc}. `pi05-websocket keys add NAME` writes one."
        ) from exc
    seen: set[str] = set()
    for key in keys:
        if key.name in seen:
            raise ConfigError(f"{source}: two keys are named {key.name}; names tell them apart")
        seen.add(key.name)
    return KeySet(keys)


def format_keys(keys: KeySet) -> bytes:
    """Return a keys file's text."""
    return (
        msgspec.json.format(msgspec.json.encode(_File(version=1, keys=keys.keys)), indent=2) + b"\n"
    )
