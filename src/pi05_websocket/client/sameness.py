# SPDX-License-Identifier: Apache-2.0
"""Whether a server may go on where another one's plan ended: whether it serves the same policy. Pure.

In: each server's fingerprint as it connects, whose answer moves the arm, what a person accepts. Out: yes or no.
An arm in mid-episode must not be handed from one policy to another without a person who wants that.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Sameness"]


class Sameness:
    """Knows which policy the arm follows. Servers are numbered from 0.

    Args:
        marked: Whether the user says that all servers serve the same policy. Counts where nothing is announced;
            fingerprints that differ prove the contrary.
    """

    def __init__(self, count: int, *, marked: bool = False) -> None:
        self._marked = marked
        self._said: list[str | None] = [None] * count
        self._followed: int | None = None
        self._expected: str | None = None

    def __repr__(self) -> str:
        return f"<Sameness followed={self._followed} expected={self._expected}>"

    @property
    def followed(self) -> int | None:
        """Whose answers the arm follows; None before the first."""
        return self._followed

    @property
    def expected(self) -> str | None:
        """The fingerprint of that policy; None where it has none."""
        return self._expected

    def said(self, number: int) -> str | None:
        """Return the fingerprint that a server announces; None: it does not."""
        return self._said[number]

    def came(self, number: int, fingerprint: str | None) -> None:
        """Note what a server announces that has just connected."""
        self._said[number] = fingerprint

    def follow(self, number: int) -> None:
        """Note that an answer of this server moves the arm, or that a person wants that."""
        self.follow_as(number, self._said[number])

    def follow_as(self, number: int, fingerprint: str | None) -> None:
        """Note the same of a server that announced this when it was asked; another may have come since."""
        self._followed, self._expected = number, fingerprint

    def agrees(self, number: int) -> bool:
        """Say whether the arm may go on with this server."""
        if self._followed is None:
            return True
        said, expected = self._said[number], self._expected
        if said is not None and expected is not None:
            return said == expected
        return self._marked or (said is expected and number == self._followed)

    def why_not(self, number: int, urls: Sequence[str]) -> str:
        """Say why the arm may not go on with a server, naming both, and what a person can do."""
        assert self._followed is not None
        said, expected = self._said[number], self._expected
        before = urls[self._followed]
        here = "the server" if number == self._followed else urls[number]
        if said is not None and expected is not None:
            why = f"{here} serves another policy than {before} did: fingerprint {said}, expected {expected}"
            remedy = ""
        else:
            silent = "neither says" if said is expected else "one of them does not say"
            why = f"{before} is gone, and whether {urls[number]} serves the same policy is not known: {silent}"
            remedy = " Servers that run the same checkpoint: set same_policy."
        return f"{why}. The arm holds until a person accepts it (resume), or that policy is back.{remedy}"
