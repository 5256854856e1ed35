# SPDX-License-Identifier: Apache-2.0
"""What JPEG costs a policy: its answers at each quality beside those to the raw images. Pure.

In: observations with raw images, and a function that asks. Out: differences and bytes for each way of sending,
the policy's own noise, and the worst quality that is lost in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from pi05_websocket.data import Float32Array, Observation
from pi05_websocket.errors import InvalidReply, ServerError
from pi05_websocket.recording.differences import Differences
from pi05_websocket.recording.observations import as_jpeg, fewer_pixels, message_bytes, stock

__all__ = ["Ask", "Audit", "Way", "audit", "floor_of"]

Ask = Callable[[Observation, int], Float32Array]
"""Return the actions for an observation. The number is the observation's: where a policy draws at random, it
draws the same for the same number, if it can."""

_ALIKE = 1.25
"""Times its own noise: two estimates of one percentile, from a few hundred rows, are as far apart."""


@dataclass(slots=True)
class Way:
    """One way to send images."""

    name: str
    quality: int | None
    """Of JPEG; None: raw."""
    side: int | None = None
    """Pixels to which larger images are fitted; None: their own size."""
    differences: Differences = field(default_factory=Differences)
    nbytes: list[int] = field(default_factory=list)
    refused: str = ""
    """Why the policy does not take smaller images; empty: it does."""

    def sent(self, observation: Observation) -> tuple[Observation, int]:
        """Return what the policy sees of it, and how large the request is."""
        if self.side is not None:
            observation = fewer_pixels(observation, self.side)
        if self.quality is None:
            return observation, message_bytes(observation)
        return as_jpeg(observation, self.quality)


@dataclass(slots=True)
class Audit:
    """What was found."""

    ways: list[Way]
    """The first is raw, asked a second time: how much the policy differs from itself."""
    range_of: list[float]
    """How far each joint's answers to raw images go, from the 5th to the 95th percentile."""

    @property
    def noise(self) -> list[float]:
        """Each joint's 95th percentile of differences between two answers to the same raw images."""
        return [one.p95 for one in self.ways[0].differences.joints()]

    def allowed(self, share: float) -> list[float]:
        """Return what each joint's 95th percentile may be: a share of its range, or the policy's own noise."""
        return [
            max(share * far, _ALIKE * noise)
            for far, noise in zip(self.range_of, self.noise, strict=True)
        ]


def audit(
    observations: Iterable[Observation], ask: Ask, qualities: Sequence[int], side: int | None
) -> Audit:
    """Ask for each observation raw, raw again, at each quality, and, with `side`, smaller too.

    Args:
        observations: With raw images.
        ask: Who answers.
        qualities: libjpeg's, 1 to 100.
        side: Pixels; None: images keep their size.
    """
    ways = [Way("raw again", None), *(Way(f"JPEG {q}", q) for q in qualities)]
    if side is not None:
        ways.append(Way(f"{side} px raw", None, side))
        ways += [Way(f"{side} px JPEG {q}", q, side) for q in qualities]
    answers: list[Float32Array] = []
    for number, observation in enumerate(observations):
        plain = stock(observation)
        raw = ask(plain, number)
        answers.append(raw)
        for way in ways:
            if not way.refused:
                _try(way, plain, raw, ask, number)
    rows = np.concatenate(answers) if answers else np.zeros((1, 0), np.float32)
    low, high = np.quantile(rows.astype(np.float64), (0.05, 0.95), axis=0)
    return Audit(ways=ways, range_of=[float(far) for far in high - low])


def _try(way: Way, plain: Observation, raw: Float32Array, ask: Ask, number: int) -> None:
    """Ask in one way and compare.

    Raises:
        ServerError, InvalidReply: Of images that keep their size; a policy may want no other one.
    """
    seen, nbytes = way.sent(plain)
    try:
        got = ask(seen, number)
    except (ServerError, InvalidReply) as exc:
        if way.side is None:
            raise
        way.refused = str(exc)
        return
    way.differences.add(raw, got)
    way.nbytes.append(nbytes)


def floor_of(found: Audit, share: float) -> int | None:
    """Return the worst quality that may be sent at full size, None where no quality may.

    A quality may be sent where it and all better ones stay within what is allowed for every joint.
    """
    allowed, floor = found.allowed(share), None
    tried = [way for way in found.ways if way.quality is not None and way.side is None]
    for way in sorted(tried, key=lambda way: -(way.quality or 0)):
        joints = way.differences.joints()
        if any(one.p95 > most for one, most in zip(joints, allowed, strict=True)):
            break
        floor = way.quality
    return floor
