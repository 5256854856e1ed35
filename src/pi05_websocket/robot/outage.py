# SPDX-License-Identifier: Apache-2.0
"""What is said while there are no valid actions: once when it begins, now and then, once when it ends.

In: what the player notices. Out: log lines and trace lines. Owned by the player's thread.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pi05_websocket.chunks.hold import Fallback
from pi05_websocket.clock import Clock
from pi05_websocket.errors import Pi05WebsocketError, PolicyChanged
from pi05_websocket.robot.causes import Cause, CauseName
from pi05_websocket.robot.trace import Trace
from pi05_websocket.wire.foreign_words import in_lines

__all__ = ["PROGRESS_AFTER_S", "OtherPolicy", "Outage", "next_progress"]

logger = logging.getLogger(__name__)

PROGRESS_AFTER_S = 2.0
"""A person who waits longer than this is told what for; again after twice the time, and so on."""

PROGRESS_AT_LEAST_EVERY_S = 30.0
"""The longest silence while waiting."""

_FAR_TICKS = 10
"""A way to the plan that takes longer is worth a warning."""

_SAID_OTHERWISE = ("stopped", "policy_changed")
"""Causes that are told aloud by themselves."""

_WHAT_IS_DONE: dict[Fallback, str] = {
    "hold": "Holding {held} once the chunk has run out",
    "zero": "Commanding zeros (fallback='zero') once the chunk has run out",
    "raise": "Stopping (fallback='raise') once the chunk has run out",
}


class OtherPolicy:
    """Which other policy a person has been told of."""

    def __init__(self, name: str = "") -> None:
        self._name = name
        self._told: str | None = None

    def told(self, error: PolicyChanged | None) -> bool:
        """Say aloud, once, that only another policy is left; say whether a person has been told before.

        Args:
            error: Which policies; None: the one that the arm follows is there.
        """
        text = None if error is None else str(error)
        before, self._told = text == self._told, text
        if text is not None and not before:
            logger.warning("%s%s", self._name, _sentence(text))
        return before

    def tells(self, error: PolicyChanged) -> None:
        """Note that a person is told now, by another line."""
        self._told = str(error)


class Outage:
    """Knows whether there is one, since when, and why.

    Args:
        fallback: What is done meanwhile.
        name: Put before every line, empty or `env 3: `.
        how_to_resume: What a person does to let a stopped arm move again.
    """

    def __init__(
        self, fallback: Fallback, *, clock: Clock, trace: Trace, name: str, how_to_resume: str
    ) -> None:
        self.count = 0
        """How many there were."""
        self.cause = "no chunk has been asked for yet"
        """Why there is no valid action, while there is none."""
        self._fallback = fallback
        self._clock = clock
        self._trace = trace
        self._name = name
        self._how_to_resume = how_to_resume
        self.cause_name: CauseName | None = None
        """The same by name; None while there are actions."""
        self._limits_told: set[str] = set()
        self._other_policy = OtherPolicy(name)
        self._since: float | None = None
        self._held = 0
        self._told_of_hold = True
        self._waiting_since = clock.now()
        self._without_since: float | None = None
        """When the first tick without an action was; None: there was none since the last action."""
        self._tell_after = PROGRESS_AFTER_S

    def begin_waiting(self, cause: str) -> None:
        """Note that from now on a chunk is waited for; that alone is no outage."""
        self.cause = cause
        self.cause_name = None
        self._told_of_hold = True
        self._waiting_since = self._clock.now()
        self._without_since = None
        self._held = 0
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
        if isinstance(error, PolicyChanged):
            self._other_policy.tells(error)  # below
        self._since = self._clock.now()
        self.count += 1
        what = _WHAT_IS_DONE[self._fallback].format(held="the last commanded target")
        if self._fallback == "hold" and not commanded:
            what = "Holding the measured pose"
        logger.warning(
            "%sno valid actions: %s %s until it recovers.",
            self._name,
            _sentence(str(error)),
            what,
        )
        detail = getattr(error, "detail", "")
        if detail:
            logger.debug("%sserver's text:\n%s", self._name, in_lines(detail))
        self._trace.write("outage", cause=str(error), error=type(error).__name__)

    def other_policy(self, error: PolicyChanged | None) -> bool:
        """Tell of another policy, once, and say whether a person has been told before.

        Whatever the arm waits for: one that a person has stopped must not be let go without this being known.
        """
        return self._other_policy.told(error)

    def held_tick(self, cause: Cause) -> None:
        """Count a tick without an action; told when rows ran out, when the cause changes, and now and then."""
        changed = self.cause_name not in (None, cause.name)
        self.cause_name = cause.name
        self.cause = cause.text
        if self._without_since is None:
            self._without_since = self._clock.now()
            self._tell_after = PROGRESS_AFTER_S
        self._held += 1
        if not self._told_of_hold:
            self._told_of_hold = True
            if self._since is None:
                logger.warning("%sno row for this tick: %s", self._name, cause.text)
        elif changed and self._since is not None and cause.name not in _SAID_OTHERWISE:
            logger.info("%sstill without actions: %s", self._name, cause.text)
        self.show_progress()

    def stopped(self, cause: Cause, seconds: float, *, latched: bool) -> None:
        """Say that the pause was too long to go on where it was."""
        if cause.name == "stopped":
            logger.warning("%sSTOP: %s. To go on: %s", self._name, cause.text, self._how_to_resume)
        elif latched:
            logger.error(
                "%sSTOP after %.1f s without actions: %s The arm holds, whatever comes now. To let it move "
                "again: %s",
                self._name,
                seconds,
                _sentence(cause.text),
                self._how_to_resume,
            )
        else:
            logger.warning(
                "%sSTOP after %.1f s without actions: %s The arm holds; it goes on with a plan from a fresh "
                "observation",
                self._name,
                seconds,
                _sentence(cause.text),
            )

    def resumed(self) -> None:
        """Say that a person lets the arm move again."""
        logger.info("%sresumed: a fresh observation is sent", self._name)
        self._trace.write("resumed")
        self.begin_waiting("a chunk from a fresh observation is under way")

    def motion(self, jump: float, ticks: int) -> None:
        """Say how motion begins, where the plan is not where the arm is."""
        if jump:
            # An arm always hangs a little; half a plan away is a wrong unit, or a wrong policy.
            logger.log(
                logging.WARNING if ticks > _FAR_TICKS else logging.INFO,
                "%sthe plan begins %.3g away from where the arm is: it goes there at a bounded speed, in "
                "about %d ticks",
                self._name,
                jump,
                ticks,
            )
            self._trace.write("approach", jump=round(jump, 4), ticks=ticks)

    def limited(self, limits: tuple[str, ...]) -> None:
        """Say once for each limit that it changes what the policy wants."""
        for limit in limits:
            if limit != "resume" and limit not in self._limits_told:
                self._limits_told.add(limit)
                logger.warning(
                    "%s%s: the policy wants more than is allowed; commanded is what is allowed. Said once",
                    self._name,
                    limit,
                )

    def summary(self, ticks: int, held: Mapping[CauseName, int]) -> None:
        """Say how many ticks of an episode were held, and why."""
        if not ticks:
            return
        causes = ", ".join(f"{name} {count}" for name, count in sorted(held.items()))
        text = f"held {sum(held.values())} of {ticks} ticks{': ' if causes else ''}{causes}"
        logger.info("%s%s", self._name, text)
        self._trace.write("summary", ticks=ticks, held=dict(held))

    def show_progress(self) -> None:
        """Say what is waited for: after 2 s without actions, after 4 s, 8 s and so on, then every 30 s."""
        if self._without_s < self._tell_after:
            return
        self._tell_after = next_progress(self._without_s)
        logger.info(
            "%sstill without actions after %.0f s: %s", self._name, self._without_s, self.cause
        )

    def end(self) -> None:
        """Note that a valid chunk is here."""
        if self._since is not None:
            seconds = self._without_s if self._held else 0.0
            if self._held:
                text = f"actions again after {seconds:.1f} s without, {self._held} held ticks"
            else:
                text = "answers again; no tick was held"
            logger.info("%s%s", self._name, text)
            self._trace.write("recovered", seconds=round(seconds, 3), held=self._held)
            self._since = None
        self.cause_name = None
        self.begin_waiting("the running chunk ended before the next one arrived")
        self._told_of_hold = False

    @property
    def waited_s(self) -> float:
        """Seconds since a chunk is waited for."""
        return self._clock.now() - self._waiting_since

    @property
    def _without_s(self) -> float:
        """Seconds without actions; before the first tick without one, since a chunk is waited for."""
        since = self._waiting_since if self._without_since is None else self._without_since
        return self._clock.now() - since


def _sentence(text: str) -> str:
    """Return a text with one mark at its end."""
    text = text.rstrip(". ")
    return text if text.endswith(("?", "!")) else f"{text}."


def next_progress(waited_s: float) -> float:
    """Return the waiting time, in seconds, at which to speak again."""
    return waited_s + min(waited_s, PROGRESS_AT_LEAST_EVERY_S)
