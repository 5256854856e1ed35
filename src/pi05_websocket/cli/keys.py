# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket keys`: make, list, replace and revoke the keys that let robots into a policy server.

In: words. Out: a changed keys file; a new secret on standard output, once.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pi05_websocket.cli import EXIT_FAILED, EXIT_OK
from pi05_websocket.errors import ConfigError
from pi05_websocket.server.keys import RobotKey
from pi05_websocket.server.keys_file import add_key, read_keys, revoke_key, rotate_key
from pi05_websocket.server.sessions import Priority
from pi05_websocket.wire.dialects import DialectName

__all__ = ["KeysCommand", "run"]

_DESCRIPTION = """\
Make, list, replace and revoke the keys that let robots into `pi05-websocket serve --keys FILE`.

A secret is printed once and kept nowhere; the file has its hash. A running server looks at the file every
second: what was revoked or replaced opens nothing more, and connections it had opened are closed.

examples:
  pi05-websocket keys add kitchen-arm > kitchen-arm.key     for the robot's --policy.api_key_file
  pi05-websocket keys add guest --expires-days 7 --rate 5
  pi05-websocket keys list
  pi05-websocket keys rotate kitchen-arm                    another secret, the same rights
  pi05-websocket keys revoke kitchen-arm
"""

_MOST_DAYS = 36_500


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysCommand:
    """What to do with which key."""

    action: Annotated[Literal["add", "list", "revoke", "rotate"], tyro.conf.Positional]
    """add: a new key; list: all, without secrets; revoke: take one out; rotate: give one another secret."""

    name: Annotated[str, tyro.conf.Positional] = ""
    """Whose key it is: letters, digits, dots, dashes, underscores."""

    file: Path = Path("keys.json")
    """The keys file."""

    expires_days: int = 0
    """add, rotate: days until it opens nothing more. 0: add makes one that lasts, rotate keeps its end."""

    rate: float = 0.0
    """add: requests a second, over all its connections together. 0: as many as it likes."""

    priority: Priority = "normal"
    """add: who goes first while requests wait for the policy: low for an evaluation, high for an arm that must
    not wait."""

    path: tuple[str, ...] = ()
    """add: URL paths it opens, such as /cube. None named: all."""

    dialect: DialectName | None = None
    """add: how its clients talk, where their URL path does not say."""


def run(argv: list[str]) -> int:
    """Run the command."""
    try:
        command = tyro.cli(
            KeysCommand, args=argv, prog="pi05-websocket keys", description=_DESCRIPTION
        )
    except SystemExit as exc:  # tyro has printed its help or what is wrong
        return exc.code if isinstance(exc.code, int) else EXIT_FAILED
    _check(command)
    now = datetime.now(UTC)
    if command.action == "list":
        for line in listing(read_keys(command.file.expanduser()).keys, now):
            print(line)
    elif command.action == "revoke":
        revoke_key(command.file, command.name)
        print(f"revoked {command.name}: it opens nothing more", file=sys.stderr)
    else:
        _make(command, now)
    return EXIT_OK


def _make(command: KeysCommand, now: datetime) -> None:
    expires = now + timedelta(days=command.expires_days) if command.expires_days else None
    if command.action == "add":
        secret = add_key(
            command.file,
            command.name,
            now,
            expires=expires,
            requests_per_second=command.rate or None,
            paths=command.path,
            priority=command.priority,
            dialect=command.dialect,
        )
    else:
        secret = rotate_key(command.file, command.name, now, expires=expires)
    print(secret)
    print(
        f"This is the secret of {command.name}; it is not shown again. Put it into a file on the robot, "
        f"of mode 0600, and name that with --policy.api_key_file. Serve with --keys {command.file}.",
        file=sys.stderr,
    )


def _check(command: KeysCommand) -> None:
    """Find what contradicts itself.

    Raises:
        ConfigError: If something does.
    """
    if (command.action != "list") != bool(command.name):
        wanted = "takes no name" if command.action == "list" else "needs the key's name"
        raise ConfigError(f"pi05-websocket keys {command.action} {wanted}")
    if command.name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", command.name):
        raise ConfigError(
            f"expected a name of letters, digits, dots, dashes and underscores, got {command.name!r}"
        )
    if not 0 <= command.expires_days <= _MOST_DAYS:
        raise ConfigError(f"--expires-days: expected 0 to {_MOST_DAYS}, got {command.expires_days}")
    if not 0 <= command.rate <= 1e6:
        raise ConfigError(f"--rate: expected 0 to 1e6 requests a second, got {command.rate}")
    if command.action != "add" and (command.rate or command.path or command.priority != "normal"):
        raise ConfigError(
            "--rate, --path and --priority belong to add: revoke the key and add it again"
        )
    if command.expires_days and command.action not in ("add", "rotate"):
        raise ConfigError("--expires-days belongs to add and rotate")


def listing(keys: tuple[RobotKey, ...], now: datetime) -> list[str]:
    """Return a table of keys, a line each; no secrets, no hashes."""
    rows = [("NAME", "CREATED", "EXPIRES", "RATE", "PRIORITY", "PATHS")]
    for key in keys:
        expires = "never" if key.expires is None else f"{key.expires:%Y-%m-%d %H:%M}"
        rate = key.requests_per_second
        rows.append(
            (
                key.name,
                f"{key.created:%Y-%m-%d %H:%M}",
                f"{expires} (over)" if key.expired(now) else expires,
                "any" if rate is None else f"{rate:g}/s",
                key.priority,
                " ".join(key.paths) or "any",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
