# SPDX-License-Identifier: Apache-2.0
"""The keys file on the disk: read, and edited so that a server that reads it never sees half of one.

In: a path. Out: `KeySet`s and new secrets. Blocks for as long as a disk does; any thread.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec

from pi05_websocket.errors import ConfigError
from pi05_websocket.server.keys import KeySet, RobotKey, format_keys, hashed, parse_keys
from pi05_websocket.server.private_files import alone_in, replace
from pi05_websocket.server.sessions import Priority
from pi05_websocket.wire.dialects import DialectName

__all__ = ["add_key", "read_keys", "revoke_key", "rotate_key"]

_PREFIX = "pi05_"
# So that a secret that was pasted somewhere is known for what it is.


def read_keys(path: Path) -> KeySet:
    """Read a keys file.

    Raises:
        ConfigError: If it cannot be read, or is none.
    """
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise ConfigError(
            f"{path}: the keys file cannot be read: {exc.strerror or exc}. "
            f"Make one: pi05-websocket keys add NAME --file {path}"
        ) from exc
    return parse_keys(text, str(path))


def add_key(
    path: Path,
    name: str,
    now: datetime,
    *,
    expires: datetime | None = None,
    requests_per_second: float | None = None,
    paths: tuple[str, ...] = (),
    priority: Priority = "normal",
    dialect: DialectName | None = None,
) -> str:
    """Add a key, to a new file if there is none; return its secret, which is kept nowhere.

    Raises:
        ConfigError: If the name is taken, or something is out of bounds.
    """
    secret, salt, digest = _new_secret()

    def edit(keys: KeySet) -> KeySet:
        if keys.named(name) is not None:
            raise ConfigError(
                f"{path}: there is a key {name} already. Take another name, or give it a new secret: "
                f"pi05-websocket keys rotate {name}"
            )
        key = RobotKey(
            name=name,
            salt=salt,
            sha256=digest,
            created=now,
            expires=expires,
            paths=paths,
            requests_per_second=requests_per_second,
            priority=priority,
            dialect=dialect,
        )
        return KeySet((*keys.keys, key))

    _edit(path, edit, create=True)
    return secret


def rotate_key(path: Path, name: str, now: datetime, *, expires: datetime | None = None) -> str:
    """Give a key another secret and return it; what the key opens stays, the old secret opens nothing.

    Raises:
        ConfigError: If there is no such key, or it would be expired.
    """
    secret, salt, digest = _new_secret()

    def edit(keys: KeySet) -> KeySet:
        old = _known(keys, name, path)
        new = msgspec.structs.replace(
            old, salt=salt, sha256=digest, created=now, expires=expires or old.expires
        )
        if new.expired(now):
            raise ConfigError(f"{path}: the key {name} has expired; say --expires-days too")
        return KeySet(tuple(new if key is old else key for key in keys.keys))

    _edit(path, edit)
    return secret


def revoke_key(path: Path, name: str) -> None:
    """Take a key out.

    Raises:
        ConfigError: If there is no such key.
    """

    def edit(keys: KeySet) -> KeySet:
        gone = _known(keys, name, path)
        return KeySet(tuple(key for key in keys.keys if key is not gone))

    _edit(path, edit)


def _new_secret() -> tuple[str, bytes, bytes]:
    secret, salt = _PREFIX + secrets.token_urlsafe(32), secrets.token_bytes(16)
    return secret, salt, hashed(salt, secret)


def _known(keys: KeySet, name: str, path: Path) -> RobotKey:
    key = keys.named(name)
    if key is None:
        known = ", ".join(key.name for key in keys.keys) or "none"
        raise ConfigError(f"{path}: no key {name}; there are: {known}")
    return key


def _edit(path: Path, edit: Callable[[KeySet], KeySet], *, create: bool = False) -> None:
    """Read, change and replace the file while nobody else does.

    What is written is read again first: it must be what a server takes.
    """
    path = path.expanduser().resolve()  # a link stays one
    try:
        with alone_in(path.parent):
            keys = KeySet() if create and not path.exists() else read_keys(path)
            text = format_keys(edit(keys))
            parse_keys(text, str(path))
            replace(path, text)
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be written: {exc.strerror or exc}") from exc
