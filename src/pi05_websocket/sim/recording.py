# SPDX-License-Identifier: Apache-2.0
"""The cameras' frames as one video file each, encoded beside the loop while it runs.

In: pairs of frames from the thread that rendered them. Out: `realsense.mp4` and `wrist2.mp4`, every frame with
the moment it was taken, and how many had to be dropped because encoding could not keep up.
"""

from __future__ import annotations

import logging
import queue
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

from pi05_websocket.clock import SYSTEM_CLOCK, Clock
from pi05_websocket.data import UInt8Array
from pi05_websocket.sim.cameras import Images

__all__ = ["FrameRecorder"]

logger = logging.getLogger(__name__)

_MILLISECONDS = Fraction(1, 1000)
_QUEUE_FRAMES = 60
"""Two seconds, 60 MB: what a busy machine may fall behind before frames are dropped."""

# Fast before small: these files are an intermediate product, made while a control loop wants the processor.
_X264 = {"preset": "ultrafast", "crf": "16", "tune": "zerolatency"}


class FrameRecorder:
    """Writes frames to `folder`. `add` from any one thread; `close` once.

    Times in the files are milliseconds since `origin_s` on the machine's monotonic clock.
    """

    def __init__(self, folder: Path, *, clock: Clock = SYSTEM_CLOCK) -> None:
        import av  # an extra's dependency, needed only by those who record

        folder.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        self.origin_s = clock.now()
        self.frames = 0
        self.dropped = 0
        self._av = av
        self._folder = folder
        self._queue: queue.Queue[tuple[int, Images] | None] = queue.Queue(_QUEUE_FRAMES)
        self._streams: dict[str, tuple[Any, Any]] = {}
        self._thread = threading.Thread(target=self._run, name="so101-recorder", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<FrameRecorder {self._folder} frames={self.frames} dropped={self.dropped}>"

    def add(self, images: Images) -> None:
        """Hand over a pair of frames taken now; returns at once."""
        moment = round((self._clock.now() - self.origin_s) * 1000)
        try:
            self._queue.put_nowait((moment, images))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Finish the files. Safe to call twice."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        if self.dropped:
            logger.warning("%d camera frames were dropped: recording fell behind", self.dropped)

    def _run(self) -> None:
        try:
            last = -1
            while (item := self._queue.get()) is not None:
                moment, images = item
                last = moment = max(moment, last + 1)  # a file's times must grow
                for name, image in images.items():
                    self._encode(name, moment, image)
                self.frames += 1
        except Exception:
            logger.exception("recording ends here; the arm goes on")
            self._drain()
        finally:
            self._finish()

    def _drain(self) -> None:
        while self._queue.get() is not None:
            self.dropped += 1

    def _encode(self, name: str, moment: int, image: UInt8Array) -> None:
        if name not in self._streams:
            self._streams[name] = self._open(name, image)
        container, stream = self._streams[name]
        frame = self._av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = moment, _MILLISECONDS
        container.mux(stream.encode(frame))

    def _open(self, name: str, image: UInt8Array) -> tuple[Any, Any]:
        container = self._av.open(str(self._folder / f"{name}.mp4"), "w")
        stream = container.add_stream("libx264", rate=30, options=_X264)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = _MILLISECONDS
        stream.codec_context.thread_count = 1
        return container, stream

    def _finish(self) -> None:
        for name, (container, stream) in self._streams.items():
            try:
                container.mux(stream.encode(None))
                container.close()
            except Exception:  # the others can still be finished
                logger.exception("%s.mp4 is incomplete", name)
