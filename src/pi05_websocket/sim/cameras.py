# SPDX-License-Identifier: Apache-2.0
"""Who renders, and when: on a thread of its own at the cameras' rate, or in the caller at each request.

`CameraThread` is for the wall clock: like a USB camera it delivers its latest frame at once. `CameraOnDemand`
is for a virtual clock: the frame shows exactly the moment of the call, so that runs repeat bit by bit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from pi05_websocket.data import UInt8Array
from pi05_websocket.sim.gl import SimulatorUnavailable
from pi05_websocket.sim.rendering import CameraRig, Look

__all__ = ["CAMERA_HZ", "CameraOnDemand", "CameraThread", "Cameras", "Images"]

CAMERA_HZ = 30.0
"""Frame pairs per second on the wall clock."""

_FIRST_FRAME_TIMEOUT_S = 60.0
"""A software renderer compiles its shaders at the first frame; seconds on a busy machine."""

Images = dict[str, UInt8Array]
"""Camera name to `(height, width, 3)` RGB."""

Snapshot = Callable[[], Look]
"""Brings the physics up to the present and returns what is to be seen. Thread-safe."""

Sink = Callable[[Images], None]
"""Is given every pair of frames, in the thread that rendered it."""


class Cameras(Protocol):
    """Delivers the newest frames."""

    def read(self) -> Images:
        """Return the newest pair of frames."""
        ...

    def close(self) -> None:
        """Stop and free what rendering holds."""
        ...


class CameraOnDemand:
    """Renders in the caller's thread, always the same one."""

    def __init__(self, model: Any, snapshot: Snapshot, sink: Sink | None = None) -> None:
        self._rig = CameraRig(model)
        self._snapshot = snapshot
        self._sink = sink

    def read(self) -> Images:
        """Render the present."""
        images = self._rig.render(self._snapshot())
        if self._sink is not None:
            self._sink(images)
        return images

    def close(self) -> None:
        """Free the rendering context."""
        self._rig.close()


class CameraThread:
    """Renders continuously, off the control thread.

    Raises:
        SimulatorUnavailable: If there is no working OpenGL; from the constructor.
    """

    def __init__(self, model: Any, snapshot: Snapshot, sink: Sink | None = None) -> None:
        self._model = model
        self._snapshot = snapshot
        self._sink = sink
        self._images: Images = {}
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="so101-cameras", daemon=True)
        self._thread.start()
        if not self._ready.wait(_FIRST_FRAME_TIMEOUT_S):
            self._stop.set()
            raise SimulatorUnavailable(
                f"no first camera frame within {_FIRST_FRAME_TIMEOUT_S:g} s: is the machine overloaded?"
            )
        self._raise_error()

    def read(self) -> Images:
        """Return the newest pair of frames, without waiting.

        Raises:
            SimulatorUnavailable: If rendering has failed since.
        """
        self._raise_error()
        return dict(self._images)

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join(timeout=10.0)

    def _raise_error(self) -> None:
        if isinstance(self._error, SimulatorUnavailable):
            raise self._error
        if self._error is not None:
            raise SimulatorUnavailable(f"rendering failed: {self._error!r}") from self._error

    def _run(self) -> None:
        try:
            rig = CameraRig(self._model)
            try:
                self._loop(rig)
            finally:
                rig.close()
        except BaseException as exc:  # the top of a thread: kept for the owner's next call
            self._error = exc
        finally:
            self._ready.set()

    def _loop(self, rig: CameraRig) -> None:
        period = 1.0 / CAMERA_HZ
        due = time.monotonic()
        while not self._stop.is_set():
            self._images = rig.render(self._snapshot())
            if self._sink is not None:
                self._sink(self._images)
            self._ready.set()
            # Absolute pacing; a late frame is dropped rather than followed by two at once.
            now = time.monotonic()
            due = max(due + period, now)
            self._stop.wait(due - now)
