# SPDX-License-Identifier: Apache-2.0
"""Whether images are sent as they are or as JPEG, and how good: decided from how long exchanges take. Pure.

In: what the server announces, and of each exchange its bytes and its time without the policy's. Out: the
quality of the next one. One object for each connection.

    rungs      raw ── 95 ── 90 ── 85 ── 75 (the floor)
    near       raw, as long as it is quick
    far        at once to the floor; up again rung by rung, as far as a better image costs no time
    not far    at once to raw, where JPEG travels so fast that raw images would be quick: connecting was slow,
               or the link is better now

Down in one step, because what a link makes of few bytes cannot be told from large messages: a kernel that paces
spreads 44 kB over 200 ms as long as a megabyte, and sends at once what fits into ten segments.
Up in small steps, each measured, because a better image may turn out to be free.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

from pi05_websocket.errors import ConfigError

__all__ = ["IMAGE_TRANSPORTS", "LADDER", "ImageQuality", "ImageTransport", "Sent", "check_images"]

ImageTransport = Literal["auto", "raw", "jpeg"]
"""`auto`: raw while that is quick, else JPEG; `raw`: never JPEG; `jpeg`: always, where the server reads it."""

IMAGE_TRANSPORTS: Final[tuple[ImageTransport, ...]] = ("auto", "raw", "jpeg")

LADDER: Final = (95, 90, 85, 75)
"""libjpeg's qualities. Above 95 bytes grow fast and nothing is to be seen; below 75 blocks are."""

QUICK_S: Final = 0.05
"""Raw images that take no longer stay raw: one and a half ticks at 30 Hz, 3 % of a chunk of 50 rows."""

NEAR_S: Final = 0.01
"""A TCP connection that opens as fast begins raw; the first large message over a farther one takes six round
trips more than the later ones, so it begins small."""

_STALLED_S: Final = 0.5
"""One raw message that takes as long needs no second one to be too slow."""

_WINDOW: Final = 3
"""Exchanges whose median counts: one loss among them changes nothing."""

_LITTLE: Final = 0.1
_LITTLE_S: Final = 0.01
"""A better image is free if it adds no more than this share and this time to the smallest message's."""

_NO_GAIN: Final = 0.9
"""Share of the raw images' time from which on JPEG is not worth its loss: something else takes the time."""

_MOST_SHRUNK: Final = 40
"""Until a raw observation was sent it is taken for so many times a JPEG one's bytes: what plain rendered images
come to at quality 75 (1,072 kB and 28 kB). Cameras' images shrink less, and are quicker raw than expected."""

_PATIENCE: Final = 8
_MOST_PATIENCE: Final = 256
"""Exchanges before another rung is tried; they double with each try in vain."""


_NOT_ANNOUNCED: Final = "the server does not announce that it reads JPEG"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One exchange that had the connection to itself."""

    quality: int | None
    """Of its images as JPEG; None: raw."""

    nbytes: int
    """Of the request."""

    network_s: float
    """From sending to the reply, without what the server says it computed and let wait."""


def check_images(transport: str, quality_floor: int) -> None:
    """Check the settings.

    Raises:
        ConfigError: There is no such transport, or the quality is none of libjpeg's.
    """
    if transport not in IMAGE_TRANSPORTS:
        raise ConfigError(
            f"image_transport={transport!r}: expected one of {', '.join(IMAGE_TRANSPORTS)}"
        )
    if type(quality_floor) is not int or not 1 <= quality_floor <= 100:
        raise ConfigError(
            f"jpeg_quality_floor={quality_floor!r}: expected an integer from 1 to 100"
        )


class ImageQuality:
    """Decides for one connection, whose lives it is told of.

    Args:
        transport: What the user wants.
        quality_floor: Worst quality to be sent.
    """

    def __init__(self, transport: ImageTransport = "auto", quality_floor: int = 75) -> None:
        check_images(transport, quality_floor)
        self._transport = transport
        self._rungs: list[int | None] = [q for q in LADDER if q > quality_floor]
        self._rungs.append(quality_floor)
        if transport == "auto":
            self._rungs.insert(0, None)
        self._floor = len(self._rungs) - 1
        self._rung = -1
        """Index of the present rung; -1: raw, whatever happens."""
        self._gave_up = False
        self._told = False
        """Whether it was told that the server reads no JPEG."""
        self._cold = True
        self._times: deque[float] = deque(maxlen=_WINDOW)
        self._waited = 0
        """Exchanges since the last change."""
        self._patience = _PATIENCE
        self._least_s = 0.0
        """What the smallest messages take; no others take less. 0 while it is not known."""
        self._raw_s: float | None = None
        """What raw images took when they were given up, until JPEG has proved quicker."""
        self._raw_nbytes: int | None = None
        """Bytes of the last raw observation."""
        self._without_raw = 0
        """Exchanges since raw images were given up."""
        self._raw_patience = 0
        """How many there must be before a quick JPEG brings raw images back."""

    def __repr__(self) -> str:
        return f"<ImageQuality {self._transport} {self.words}>"

    @property
    def quality(self) -> int | None:
        """Quality of the next observation's images as JPEG; None: raw."""
        return None if self._rung < 0 else self._rungs[self._rung]

    @property
    def words(self) -> str:
        """The same for people."""
        return "raw" if self.quality is None else f"JPEG of quality {self.quality}"

    def connected(self, *, announced: bool, connect_s: float | None) -> str | None:
        """Begin with a new connection; return what is to be told, None where nothing is.

        Args:
            announced: Whether the server reads JPEG.
            connect_s: What opening the TCP connection took: about one round trip. None: not known.
        """
        before = self.words
        near = (connect_s is None or connect_s <= NEAR_S) and not self._gave_up
        self._without_raw, self._raw_patience = 0, self._longer() if self._gave_up else 0
        self._cold, self._gave_up = True, False
        self._patience, self._least_s, self._raw_s = _PATIENCE, 0.0, None
        if self._transport == "raw" or not announced:
            self._go(-1)
        else:
            self._go(0 if near else self._floor)
        if self._transport == "jpeg" and not announced:
            told, self._told = self._told, True
            return None if told else f"images are sent raw: {_NOT_ANNOUNCED}"
        return None if self.words == before else f"images are sent as {self.words}"

    def gave_up(self) -> None:
        """Note that a request was so late that it cost its connection: the next one begins small."""
        self._gave_up = True

    def exchanged(self, sent: Sent) -> str | None:
        """Take an exchange into account; return what is to be told if the next images are sent otherwise."""
        if sent.quality is None:
            self._raw_nbytes = sent.nbytes
        if self._rung < 0 or sent.quality != self.quality:
            return None  # or it was under way when the quality changed
        stalled = self.quality is None and sent.network_s >= _STALLED_S
        if self._cold and not stalled:  # the first message of a connection finds its window small
            self._cold = False
            return None
        self._times.append(sent.network_s)
        self._waited += 1
        self._without_raw += self.quality is not None
        if len(self._times) < _WINDOW and not stalled:
            return None
        before, took = self.words, median(self._times)
        if self.quality is None:
            self._judge_raw(took)
        else:
            self._judge_jpeg(took, sent.nbytes)
        if self.words == before:
            return None
        return (
            f"images are sent as {self.words} instead of {before}: "
            f"{sent.nbytes / 1000:,.0f} kB took {1000 * took:.0f} ms"
        )

    def _judge_raw(self, took: float) -> None:
        tried_in_vain = self._raw_s is not None and self._waited < self._patience
        if took > QUICK_S and not tried_in_vain:
            self._raw_s = took
            self._without_raw, self._raw_patience = 0, self._longer()
            self._go(self._floor)
        elif took <= QUICK_S and self._waited >= self._raw_patience:
            self._raw_patience = 0  # it has proved itself

    def _judge_jpeg(self, took: float, nbytes: int) -> None:
        if self._raw_would_be_quick(took, nbytes):
            self._go(0)
            return
        if self._rung == self._floor:
            if self._raw_s is not None and took > _NO_GAIN * self._raw_s:
                self._go_back(0)
                return
            self._least_s, self._raw_s = took, None
        self._least_s = min(took, self._least_s or took)
        if took > max((1 + _LITTLE) * self._least_s + _LITTLE_S, QUICK_S / 2):
            self._go_back(self._rung + 1)
        elif self._rung > 0 and self._waited >= self._patience and self._may_climb(took):
            self._go(self._rung - 1)

    def _raw_would_be_quick(self, took: float, nbytes: int) -> bool:
        """Whether raw images stay below their own bound at the rate at which JPEG travels.

        All of the time is taken for the bytes', the way's too: where a message takes a time for the way and one
        for its bytes, raw images are quicker than this says. Where they are not, the next try waits longer.
        """
        if self._rungs[0] is not None or self._without_raw < self._raw_patience:
            return False
        raw_nbytes = self._raw_nbytes or _MOST_SHRUNK * nbytes
        return took * raw_nbytes <= QUICK_S * nbytes

    def _longer(self) -> int:
        """Return how long raw images are not tried after they were too slow: longer each time."""
        return min(max(_PATIENCE, 2 * self._raw_patience), _MOST_PATIENCE)

    def _may_climb(self, took: float) -> bool:
        if self._rungs[self._rung - 1] is not None:
            return True
        # A megabyte is tried only over a near link, and not again and again: it may take twenty times as long.
        return took <= NEAR_S and self._without_raw >= self._raw_patience

    def _go(self, rung: int) -> None:
        self._rung, self._waited = rung, 0
        self._times.clear()

    def _go_back(self, rung: int) -> None:
        """Leave a rung that was tried in vain, and wait longer before the next try."""
        self._patience = min(2 * self._patience, _MOST_PATIENCE)
        self._go(rung)
