# SPDX-License-Identifier: Apache-2.0
"""Whether upstreams serve the same policy, and what robots are told of it. Pure.

In: the metadata that upstreams introduce themselves with. Out: who may be used, and the metadata in common.
A robot whose plan came from one policy must not get the next from another because a socket was renewed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pi05_websocket.wire import codec
from pi05_websocket.wire.fingerprint import digest, fingerprint_of
from pi05_websocket.wire.realtime import (
    REALTIME_KEY,
    RealtimeSupport,
    announcement,
    realtime_support,
)

__all__ = ["Agreement", "common_metadata", "identity_of"]

_VOLATILE = frozenset({"hostname", "pid", "port", "started_at", "uptime_s"})
"""What differs between two processes that serve the same policy."""

_ADOPTED_AFTER_S = 2.0
"""How long nobody may serve the old policy before another takes its place: connections are renewed in less."""


def identity_of(metadata: Mapping[str, Any]) -> str:
    """Return a text that two servers have in common if they serve the same policy.

    By its `fingerprint` where it announces one, else by everything it says but what is about the process or the
    wire (names that begin with `_`).
    """
    known = fingerprint_of(metadata)
    if known is not None:
        return known
    return digest(
        {
            key: value
            for key, value in metadata.items()
            if not key.startswith("_") and key not in _VOLATILE
        }
    )


def common_metadata(of: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what all of them say; `_rt` with the prefix that all of them know, if they do."""
    first, *others = of
    said = {
        key: value
        for key, value in first.items()
        if key != REALTIME_KEY and all(_same(key, value, other) for other in others)
    }
    supports = [realtime_support(metadata) for metadata in of]
    known = [support for support in supports if support is not None]
    if len(known) < len(of) or len({support.prefix for support in known}) > 1:
        return said
    return said | announcement(_weakest(known))


def _same(key: str, value: Any, other: Mapping[str, Any]) -> bool:
    return key in other and codec.encode(other[key]) == codec.encode(value)


def _weakest(supports: Sequence[RealtimeSupport]) -> RealtimeSupport:
    bounds = [support.max_delay for support in supports if support.max_delay is not None]
    return replace(
        supports[0],
        max_delay=min(bounds, default=None),
        refusals=all(support.refusals for support in supports),
    )


class Agreement:
    """Which policy the pool serves: that of the first upstream, as long as somebody serves it."""

    def __init__(self, *, mismatch_allowed: bool = False) -> None:
        self._allowed = mismatch_allowed
        self._members: dict[int, tuple[str, Mapping[str, Any]]] = {}
        self._identity: str | None = None
        self._nobody_since: float | None = None

    def __repr__(self) -> str:
        return f"<Agreement {self._identity} members={len(self._members)}>"

    @property
    def identity(self) -> str | None:
        """Of the policy that is served; None before the first upstream has come."""
        return self._identity

    def came(self, number: int, metadata: Mapping[str, Any], now: float) -> bool:
        """Note what an upstream says; return whether it may be used."""
        self._members[number] = (identity_of(metadata), metadata)
        if self._identity is None:
            self._identity = self._members[number][0]
        self._look(now)
        return self.usable(number)

    def left(self, number: int, now: float) -> None:
        """Note that an upstream is gone."""
        self._members.pop(number, None)
        self._look(now)

    def knows(self, number: int) -> str | None:
        """Return the identity of an upstream that is there."""
        member = self._members.get(number)
        return None if member is None else member[0]

    def usable(self, number: int) -> bool:
        """Whether it is there and serves the policy."""
        member = self._members.get(number)
        return member is not None and (self._allowed or member[0] == self._identity)

    def serves(self, identity: str) -> bool:
        """Whether a robot that was told this may be answered."""
        return self._allowed or identity == self._identity

    def review(self, now: float) -> bool:
        """Take another policy if nobody has served the present one for a while; return whether it did."""
        if self._nobody_since is None or now - self._nobody_since < _ADOPTED_AFTER_S:
            return False
        if not self._members:
            return False
        served = Counter(identity for identity, _ in self._members.values())
        self._identity = served.most_common(1)[0][0]
        self._look(now)
        return True

    def metadata(self) -> dict[str, Any]:
        """Return what robots are told of the policy; `{}` while nobody is there."""
        usable = [said for number, (_, said) in self._members.items() if self.usable(number)]
        return common_metadata(usable) if usable else {}

    def _look(self, now: float) -> None:
        if any(self.usable(number) for number in self._members):
            self._nobody_since = None
        elif self._nobody_since is None:
            self._nobody_since = now
