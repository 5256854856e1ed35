# SPDX-License-Identifier: Apache-2.0
"""Who may come in and how often, by the keys file as it is now.

Runs on the event loop. Decisions are `keys` and `rate`; here are the file, the clock and the log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pi05_websocket.errors import ConfigError
from pi05_websocket.server.keys import KeySet, Refusal, RobotKey, decide
from pi05_websocket.server.keys_file import read_keys
from pi05_websocket.server.rate import TokenBucket
from pi05_websocket.server.sessions import NORMAL_PRIORITY, PRIORITIES
from pi05_websocket.server.watching import signature
from pi05_websocket.wire.refusals import Refusal as RequestRefusal

__all__ = ["Doorkeeper"]

logger = logging.getLogger(__name__)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Doorkeeper:
    """Holds the keys of one run of a server. Without a file everybody comes in, as at OpenPI's server."""

    def __init__(
        self,
        path: str | None,
        *,
        now: Callable[[], datetime] = _utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the file.

        Args:
            path: The keys file; None: there are no keys.
            now: The time of day, for keys that expire.
            monotonic: Seconds, for rates.

        Raises:
            ConfigError: If the file cannot be read, or is none.
        """
        self._path = None if path is None else Path(path).expanduser()
        self._now = now
        self._monotonic = monotonic
        self._buckets: dict[str, TokenBucket] = {}
        self._keys = KeySet()
        self._seen: tuple[tuple[int, ...] | None, ...] = ()
        if self._path is not None:
            self._seen = signature(self._path)
            self._keys = read_keys(self._path)

    def __repr__(self) -> str:
        who = "everybody" if self._path is None else f"keys={len(self._keys.keys)}"
        return f"<Doorkeeper {who}>"

    def admit(self, authorization: Sequence[str], path: str) -> RobotKey | Refusal | None:
        """Say who asks to come in, or what to answer instead; None: nobody in particular."""
        if self._path is None:
            return None
        return decide(self._keys, authorization, path, self._now())

    def may_stay(self, key: RobotKey | None, path: str) -> bool:
        """Whether a connection may go on, by the keys as they are now."""
        if self._path is None:
            return True
        return key is not None and self._keys.still(key, path, self._now())

    def rank(self, key: RobotKey | None) -> int:
        """Return the rank of a client's priority class, by the keys as they are now."""
        current = None if key is None else self._keys.named(key.name)
        return NORMAL_PRIORITY if current is None else PRIORITIES[current.priority]

    def too_many(self, key: RobotKey | None) -> RequestRefusal | None:
        """Count a request; return what to answer if it is one too many."""
        current = None if key is None else self._keys.named(key.name)
        if current is None or current.requests_per_second is None:
            return None
        rate, now = current.requests_per_second, self._monotonic()
        bucket = self._buckets.get(current.name)
        if bucket is None:
            bucket = self._buckets[current.name] = TokenBucket(rate, now)
        elif bucket.rate != rate:
            bucket.set_rate(rate, now)
        if bucket.take(now):
            return None
        return RequestRefusal(
            kind="rate",
            text=f"too many requests: the key {current.name} may send {rate:g} a second. Ask less often "
            "(a longer action_horizon), or have the key's rate raised. The connection stays.",
            retry_after_s=1.0 / rate,
        )

    def change(self, path: str | None) -> None:
        """Go over to another file, or to none: for who is here, and for who comes.

        Raises:
            ConfigError: If it cannot be read, or is none; then the one of before goes on counting.
        """
        found = None if path is None else Path(path).expanduser()
        if found == self._path:
            return
        seen, keys = ((), KeySet()) if found is None else (signature(found), read_keys(found))
        self._path, self._seen, self._keys, self._buckets = found, seen, keys, {}
        logger.info("keys are %s", "not asked for" if found is None else f"those of {found}")

    def look_again(self) -> None:
        """Read the file if it has changed. If it cannot be read, what was read before goes on counting."""
        if self._path is None:
            return
        found = signature(self._path)
        if found == self._seen:
            return
        self._seen = found
        try:
            self._keys = read_keys(self._path)
        except ConfigError as exc:
            logger.error("the keys stay as they were: %s", exc)
            return
        self._buckets = {
            name: bucket for name, bucket in self._buckets.items() if self._keys.named(name)
        }
        logger.info("keys read again from %s: there are %d now", self._path, len(self._keys.keys))
