# SPDX-License-Identifier: Apache-2.0
"""A demo as a video: the front camera, the wrist camera, what the episode does, and the last seconds of joints.

In: the recording of the simulated arm and both traces. Out: an MP4, 30 frames a second. Needs PyAV and Pillow.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pi05_websocket.cli.demo_plot import JOINT_COLOURS, chunk_borders
from pi05_websocket.cli.demo_story import EpisodeOutcome, Story, TraceLine
from pi05_websocket.data import UInt8Array

__all__ = ["FPS", "SIZE", "Narration", "draw_frame", "make_video", "paired_frames"]

FPS = 30
SIZE = (1280, 720)
"""Width and height of the video."""

_FRONT = (960, 720)
_WRIST = 320
_MARGIN = 18
_CHART = (_FRONT[0] + _MARGIN, 555, SIZE[0] - _MARGIN, 690)
_CHART_SECONDS = 4.0
_CHART_RANGE = (-110.0, 110.0)

_PANEL, _INK, _FAINT = "#14171c", "#f2f4f7", "#8b94a3"
_GOOD, _BAD, _WARN = "#5bd68a", "#ff6b6b", "#ffc857"
_BEFORE_S, _AFTER_S = 0.4, 0.3
"""Seconds shown before the first episode and after the last."""

_X264 = {"preset": "veryfast", "crf": "21"}

Progress = Callable[[float], None]
"""Is told how much is done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What is said at one moment."""

    episode: int | None
    outcome: EpisodeOutcome | None
    """Of the episode, once it has succeeded or ended."""

    elapsed_s: float
    exchange: TraceLine | None
    held_ticks: int
    holding: bool


class Narration:
    """What both traces say about any moment."""

    def __init__(
        self, policy: list[TraceLine], story: Story, *, episodes: int, prompt: str
    ) -> None:
        self.prompt = prompt
        self.episodes = episodes
        self._outcomes = story.outcomes[:episodes]
        self._exchanges = story.exchanges
        self._exchange_times = [line["time_s"] for line in story.exchanges]
        self.ticks = [line for line in policy if line["kind"] == "tick"]
        self.tick_times = [line["time_s"] for line in self.ticks]
        self.values = np.array([line["values"] for line in self.ticks] or np.empty((0, 6)))
        self.borders = chunk_borders(self.ticks)
        held = [line["source"] != "chunk" for line in self.ticks]
        self._held = [0, *np.cumsum(held).tolist()]

    @property
    def span(self) -> tuple[float, float] | None:
        """From before the first episode to after the last one counted; None if none ended."""
        if not self._outcomes:
            return None
        return self._outcomes[0].began_s - _BEFORE_S, self._outcomes[-1].ended_s + _AFTER_S

    def at(self, time_s: float) -> Moment:
        """Return what is to be said at a moment on the monotonic clock."""
        begun = [one for one in self._outcomes if one.began_s <= time_s]
        current = begun[-1] if begun else None
        elapsed = 0.0 if current is None else min(time_s, current.ended_s) - current.began_s
        decided = current is not None and elapsed >= current.duration_s
        exchange = bisect.bisect_right(self._exchange_times, time_s) - 1
        tick = bisect.bisect_right(self.tick_times, time_s)
        return Moment(
            episode=None if current is None else current.episode,
            outcome=current if decided else None,
            elapsed_s=elapsed,
            exchange=self._exchanges[exchange] if exchange >= 0 else None,
            held_ticks=self._held[tick],
            holding=tick > 0 and self._held[tick] > self._held[tick - 1],
        )


def make_video(
    recording: Path, narration: Narration, path: Path, *, origin_s: float, progress: Progress
) -> int:
    """Write the video; return the number of its frames, 0 if no episode ended.

    Args:
        recording: Folder with `realsense.mp4` and `wrist2.mp4`.
        narration: What to say.
        path: Where the MP4 goes.
        origin_s: Time zero of the recording on the monotonic clock.
        progress: Told now and then how far it is.
    """
    import av

    if narration.span is None:
        return 0
    begin, end = narration.span
    written = 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=_X264)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for moment, front, wrist in _steady(
            paired_frames(recording), begin - origin_s, end - origin_s
        ):
            picture = draw_frame(front, wrist, narration, origin_s + moment)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
            written += 1
            if written % 10 == 0:
                progress((origin_s + moment - begin) / (end - begin))
        container.mux(stream.encode(None))
    return written


Pair = tuple[float, UInt8Array, UInt8Array]


def paired_frames(recording: Path) -> Iterator[Pair]:
    """Yield time in the recording, front and wrist image at the video's sizes, frame by frame."""
    import av

    with (
        av.open(str(recording / "realsense.mp4")) as front,
        av.open(str(recording / "wrist2.mp4")) as wrist,
    ):
        for one, other in zip(front.decode(video=0), wrist.decode(video=0), strict=False):
            yield float(one.time), _scaled(one, *_FRONT), _scaled(other, _WRIST, _WRIST)


def _scaled(frame: Any, width: int, height: int) -> UInt8Array:
    scaled = frame.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC")
    return np.asarray(scaled.to_ndarray(), dtype=np.uint8)


def _steady(pairs: Iterator[Pair], begin: float, end: float) -> Iterator[Pair]:
    """Yield the newest pair for each moment of a steady 30 Hz."""
    newest = next(pairs, None)
    count = 0
    for pair in pairs:
        while newest is not None and begin + count / FPS < min(pair[0], end):
            yield begin + count / FPS, newest[1], newest[2]
            count += 1
        newest = pair
        if newest[0] > end:
            return


def draw_frame(
    front: UInt8Array, wrist: UInt8Array, narration: Narration, time_s: float
) -> UInt8Array:
    """Return one frame of the video, `(720, 1280, 3)`.

    Args:
        front: `(720, 960, 3)`.
        wrist: `(320, 320, 3)`.
        narration: What to say.
        time_s: The moment shown, on the monotonic clock.
    """
    canvas = Image.new("RGB", SIZE, _PANEL)
    canvas.paste(Image.fromarray(front), (0, 0))
    canvas.paste(Image.fromarray(wrist), (_FRONT[0], 0))
    draw = ImageDraw.Draw(canvas, "RGBA")
    moment = narration.at(time_s)
    _caption(draw, narration.prompt, moment)
    _camera_name(draw, _FRONT[0], "realsense")
    _camera_name(draw, SIZE[0], "wrist2")
    _panel(draw, narration, moment)
    _chart(draw, narration, time_s)
    return np.asarray(canvas)


_fonts: dict[int, Any] = {}


def _font(size: int) -> Any:
    # Loading a font takes longer than drawing with it.
    if size not in _fonts:
        _fonts[size] = ImageFont.load_default(size)
    return _fonts[size]


def _label(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, colour: str, size: int
) -> None:
    """Write on a dark, half transparent plate, so that it is legible on any picture."""
    left, top, right, bottom = draw.textbbox(at, text, font=_font(size))
    draw.rounded_rectangle(
        (left - 12, top - 8, right + 12, bottom + 8), radius=8, fill=(20, 23, 28, 190)
    )
    draw.text(at, text, font=_font(size), fill=colour)


def _camera_name(draw: ImageDraw.ImageDraw, right: int, name: str) -> None:
    """Write a camera's name into the upper right corner of its image, which ends at `right`."""
    width = draw.textlength(name, font=_font(17))
    _label(draw, (right - 24 - round(width), 18), name, _INK, 17)


def _caption(draw: ImageDraw.ImageDraw, prompt: str, moment: Moment) -> None:
    _label(draw, (28, 24), f"“{prompt}”", _INK, 24)
    if moment.outcome is not None and moment.outcome.success:
        text = f"picked up after {moment.outcome.duration_s:.1f} s"
        _label(draw, (28, 672), text, _GOOD, 26)
    elif moment.outcome is not None:
        _label(draw, (28, 672), "time is up", _BAD, 26)
    elif moment.holding:
        _label(draw, (28, 672), "no action here: holding", _WARN, 26)


def _panel(draw: ImageDraw.ImageDraw, narration: Narration, moment: Moment) -> None:
    left, top = _FRONT[0] + _MARGIN, _WRIST + 14
    number = 1 if moment.episode is None else moment.episode + 1
    draw.text((left, top), f"Episode {number} of {narration.episodes}", font=_font(26), fill=_INK)
    draw.text(
        (SIZE[0] - _MARGIN, top + 4),
        f"{moment.elapsed_s:4.1f} s",
        font=_font(22),
        fill=_INK,
        anchor="ra",
    )
    exchange = moment.exchange or {}
    trip, server = exchange.get("round_trip_ms"), exchange.get("server_ms")
    rows = (
        ("round trip", "–" if trip is None else f"{trip:.0f} ms", _INK),
        ("of it inference", "–" if server is None else f"{server:.0f} ms", _INK),
        ("inference delay", _in_ticks(exchange.get("delay_ticks")), _INK),
        ("held ticks", str(moment.held_ticks), _WARN if moment.held_ticks else _INK),
    )
    for row, (name, value, colour) in enumerate(rows):
        y = top + 48 + row * 30
        draw.text((left, y), name, font=_font(19), fill=_FAINT)
        draw.text((SIZE[0] - _MARGIN, y), value, font=_font(19), fill=colour, anchor="ra")


def _in_ticks(count: int | None) -> str:
    if count is None:
        return "–"
    return "1 tick" if count == 1 else f"{count} ticks"


def _chart(draw: ImageDraw.ImageDraw, narration: Narration, time_s: float) -> None:
    """Draw the last seconds of commanded joints; a light line is where a new chunk took over."""
    left, top, right, bottom = _CHART
    draw.text((left, top - 28), "commanded joints; | a new chunk", font=_font(15), fill=_FAINT)
    draw.rectangle(_CHART, fill="#1d222a")
    since = time_s - _CHART_SECONDS
    scale_x, (low, high) = (right - left) / _CHART_SECONDS, _CHART_RANGE
    for border in narration.borders:
        if since < border <= time_s:
            x = left + (border - since) * scale_x
            draw.line((x, top, x, bottom), fill="#6b7482", width=1)
    first = bisect.bisect_left(narration.tick_times, since)
    last = bisect.bisect_right(narration.tick_times, time_s)
    if last - first < 2:
        return
    xs = left + (np.array(narration.tick_times[first:last]) - since) * scale_x
    ys = bottom - (narration.values[first:last] - low) / (high - low) * (bottom - top)
    for joint, colour in enumerate(JOINT_COLOURS[: ys.shape[1]]):
        line = np.column_stack([xs, np.clip(ys[:, joint], top, bottom)])
        draw.line([tuple(point) for point in line], fill=colour, width=2)
