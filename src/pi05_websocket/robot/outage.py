# SPDX-License-Identifier: Apache-2.0
"""What is said while there are no valid actions: once when it begins, now and then, once when it ends.

In: what the player notices. Out: log lines and trace lines. Owned by the player's thread.
"""

from __future__ import annotations

import logging

from pi05_websocket.chunks.hold import Fallback
from pi05_websocket.clock import Clock
from pi05_websocket.errors import Pi05WebsocketError
from pi05_websocket.robot.trace import Trace

__all__ = ["PROGRESS_AFTER_S", "Outage", "next_progress"]

logger = logging.getLogger(__name__)

PROGRESS_AFTER_S = 2.0
"""A person who waits longer than this is told what for; again after twice the time, and so on."""

PROGRESS_AT_LEAST_EVERY_S = 30.0
"""The longest silence while waiting."""

_WHAT_IS_DONE: dict[Fallback, str] = {
    "hold": "Holding {held} once the chunk has run out",
    "zero": "Commanding zeros (fallback='zero') once the chunk has run out",
    "raise": "Stopping (fallback='raise') once the chunk has run out",
}


class Outage:
    """Knows whether there is one, since when, and why.

    Args:
        fallback: What is done meanwhile.
        name: Put before every line, empty or `env 3: `.
    """

    def __init__(self, fallback: Fallback, *, clock: Clock, trace: Trace, name: str) -> None:
        self.count = 0
        """How many there were."""
        self.cause = "no chunk has been asked for yet"
        """Why there is no valid action, while there is none."""
        self._fallback = fallback
        self._clock = clock
        self._trace = trace
        self._name = name
        self._since: float | None = None
        self._held = 0
        self._told_of_hold = True
        self._waiting_since = clock.now()
        self._tell_after = PROGRESS_AFTER_S

    def begin_waiting(self, cause: str) -> None:
        """Note that from now on a chunk is waited for; that alone is no outage."""
        self.cause = cause
        self._told_of_hold = True
        self._waiting_since = self._clock.now()
        self._tell_after = PROGRESS_AFTER_S

    def note(self, cause: str) -> None:
        """Note what is waited for now, unless an outage has a better reason."""
        if self._since is None:
            self.cause = cause

    def report(self, error: Pi05WebsocketError, *, commanded: bool = True) -> None:
        """Note that something failed; the first time in an outage is told aloud.

        Args:
            commanded: Whether the arm has been commanded anything in this episode.
        """
        self.cause = str(error)
        if self._since is not None:
            return
        self._since = self._clock.now()
        self._held = 0
        self.count += 1
        what = _WHAT_IS_DONE[self._fallback].format(held="the last commanded target")
        if self._fallback == "hold" and not commanded:
            what = "Holding the measured pose"
        logger.warning(
            "%sno valid actions: %s. %s until it recovers.",
            self._name,
            str(error).rstrip(".?! "),
            what,
        )
        detail = getattr(error, "detail", "")
        if detail:
            logger.debug("%sserver's text:\n%s", self._name, detail)
        self._trace.write("outage", cause=str(error), error=type(error).__name__)

    def held_tick(self) -> None:
        """Count a tick without an action; told once when rows ran out, and now and then."""
        if self._since is not None:
            self._held += 1
        elif not self._told_of_hold:
            self._told_of_hold = True
            logger.warning(
                "%sno row for this tick: %s. A larger action_horizon gives a slow policy more time.",
                self._name,
                self.cause,
            )
        self.show_progress()

    def show_progress(self) -> None:
        """Say what is waited for: after 2 s, 4 s, 8 s and so on, then every 30 s."""
        if self.waited_s < self._tell_after:
            return
        self._tell_after = next_progress(self.waited_s)
        logger.info(
            "%sstill without actions after %.0f s: %s", self._name, self.waited_s, self.cause
        )

    def end(self) -> None:
        """Note that a valid chunk is here."""
        if self._since is not None:
            seconds = self._clock.now() - self._since
            logger.info(
                "%sactions again after %.1f s, %d held ticks", self._name, seconds, self._held
            )
            self._trace.write("recovered", seconds=round(seconds, 3), held=self._held)
            self._since = None
        self.begin_waiting("the running chunk ended before the next one arrived")
        self._told_of_hold = False

    @property
    def waited_s(self) -> float:
        """Seconds since a chunk is waited for."""
        return self._clock.now() - self._waiting_since


def next_progress(waited_s: float) -> float:
    """Return the waiting time, in seconds, at which to speak again."""
    return waited_s + min(waited_s, PROGRESS_AT_LEAST_EVERY_S)
