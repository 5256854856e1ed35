# SPDX-License-Identifier: Apache-2.0
"""Both cameras in one picture, in a file that is always whole: what a window in another process shows.

In: pairs of frames from the thread that rendered them. Out: a JPEG, replaced ten times a second.
"""

from __future__ import annotations

import logging
import math
import os
import time
from pathlib import Path

import numpy as np
from PIL import Image

from pi05_websocket.data import UInt8Array
from pi05_websocket.sim.camera import REALSENSE, WRIST
from pi05_websocket.sim.cameras import Images

__all__ = ["LiveImage", "side_by_side"]

logger = logging.getLogger(__name__)

_PERIOD_S = 0.1


def side_by_side(front: UInt8Array, wrist: UInt8Array) -> UInt8Array:
    """Return the front image with the wrist's, framed in white, in its upper right corner."""
    picture = front.copy()
    height, width = wrist.shape[:2]
    frame = picture[10 : 10 + height + 4, -(14 + width) : -10]
    frame[:] = 255
    frame[2:-2, 2:-2] = wrist
    return np.ascontiguousarray(picture)


class LiveImage:
    """A JPEG file that follows the cameras."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).expanduser()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._draft = self._path.with_name(self._path.name + ".new")
        self._due_s = 0.0

    def show(self, images: Images) -> None:
        """Renew the file, if it is time to."""
        now = time.monotonic()
        if now < self._due_s:
            return
        self._due_s = now + _PERIOD_S
        picture = Image.fromarray(side_by_side(images[REALSENSE], images[WRIST]))
        try:
            picture.save(self._draft, format="JPEG", quality=85)
            os.replace(self._draft, self._path)  # a reader sees the old picture or the new one
        except OSError as exc:  # a picture to look at must not stop the arm
            self._due_s = math.inf
            logger.warning("the live picture ends here: %s", exc)
