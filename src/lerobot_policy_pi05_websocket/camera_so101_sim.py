# SPDX-License-Identifier: Apache-2.0
"""`type: so101_sim` among `--robot.cameras`: a camera of the emulated arm, for LeRobot's drivers of real arms.

In: the file of frames that the emulated arm writes, in this process or another one. Out: `(height, width, 3)`
uint8 RGB frames through LeRobot's camera interface, with its errors. Nothing here waits in a thread.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot.cameras import Camera, CameraConfig
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from pi05_websocket.data import UInt8Array
from pi05_websocket.errors import ConfigError
from pi05_websocket.sim.feed import FeedReader, NoFrames

__all__ = ["SO101SimCamera", "SO101SimCameraConfig"]

_LOOK_EVERY_S = 0.002
_FIRST_FRAME_S = 10.0
"""How long `connect` waits for a frame; a real camera takes a second or two."""


@CameraConfig.register_subclass("so101_sim")
@dataclass(kw_only=True)
class SO101SimCameraConfig(CameraConfig):  # type: ignore[misc]  # LeRobot is untyped for mypy
    """Which frames."""

    frames: str
    """The file: `wrist2.frames` or `realsense.frames` in the emulated arm's folder."""


class SO101SimCamera(Camera):  # type: ignore[misc]  # LeRobot is untyped for mypy
    """A camera of the emulated arm; see the module. LeRobot wants `width`, `height` and `fps` in its config."""

    def __init__(self, config: SO101SimCameraConfig) -> None:
        super().__init__(config)
        self.config = config
        self._reader: FeedReader | None = None
        self._seen = 0

    @property
    def _path(self) -> Path:
        return Path(self.config.frames).expanduser()

    @property
    def is_connected(self) -> bool:
        """Whether it delivers frames."""
        return self._reader is not None

    @staticmethod
    def find_cameras() -> list[dict[str, Any]]:
        """Return nothing: what the emulated arm prints names its cameras."""
        return []

    def connect(self, warmup: bool = True) -> None:
        """Open the file; wait for a frame unless `warmup` is False.

        Raises:
            DeviceAlreadyConnectedError: It is open.
            NoFrames: There is no such file.
            ConfigError: Its frames have another size than the config says.
            TimeoutError: No frame within ten seconds.
        """
        if self._reader is not None:
            raise DeviceAlreadyConnectedError(f"{self} is already connected")
        self._reader = FeedReader(self._path)
        self._seen = 0
        try:
            self._check_size(self._reader.shape)
            if warmup:
                self.async_read(timeout_ms=_FIRST_FRAME_S * 1000)
        except BaseException:
            self.disconnect()
            raise

    def _check_size(self, shape: tuple[int, ...]) -> None:
        height, width = shape[:2]
        if (self.width, self.height) != (width, height):
            raise ConfigError(
                f"{self._path} holds frames of width {width} and height {height}: "
                f"the camera's config says {self.width} and {self.height}"
            )

    def read(self) -> UInt8Array:
        """Return the next frame.

        Raises:
            DeviceNotConnectedError: Before `connect`.
            TimeoutError: None comes.
        """
        return self.async_read()

    def async_read(self, timeout_ms: float = 200) -> UInt8Array:
        """Return the newest frame that was not returned before; wait for one at most `timeout_ms`.

        Raises:
            DeviceNotConnectedError: Before `connect`.
            TimeoutError: None came.
        """
        reader = self._open()
        deadline = time.monotonic() + timeout_ms / 1000
        while reader.newest == self._seen:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no new frame in {self._path} within {timeout_ms:g} ms")
            time.sleep(_LOOK_EVERY_S)
        frame, self._seen, _ = reader.read()
        return frame

    def read_latest(self, max_age_ms: int = 500) -> UInt8Array:
        """Return the newest frame at once.

        Raises:
            DeviceNotConnectedError: Before `connect`.
            RuntimeError: There is none yet.
            TimeoutError: It is older than `max_age_ms`: the emulated arm has ended.
        """
        try:
            frame, self._seen, taken_s = self._open().read()
        except NoFrames as exc:
            raise RuntimeError(str(exc)) from exc
        age_ms = (time.monotonic() - taken_s) * 1000
        if age_ms > max_age_ms:
            raise TimeoutError(
                f"the newest frame in {self._path} is {age_ms:.0f} ms old, more than {max_age_ms}: "
                "has the emulated arm ended?"
            )
        return frame

    def disconnect(self) -> None:
        """Close the file.

        Raises:
            DeviceNotConnectedError: Before `connect`.
        """
        reader, self._reader = self._open(), None
        reader.close()

    def _open(self) -> FeedReader:
        if self._reader is None:
            raise DeviceNotConnectedError(f"{self} is not connected: call connect() first")
        return self._reader
