# SPDX-License-Identifier: Apache-2.0
"""One server for each dialect, as its family's own server behaves: written from what is known of them.

They decode and encode with OpenPI's packer rules through our codec and share nothing else with our server.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from pi05_websocket.wire import codec

ROWS = np.arange(12, dtype=np.float32).reshape(2, 6)
"""What each of them answers, in its own shape."""

METADATA: dict[str, dict[str, Any]] = {
    "openpi": {},
    "roboarena": {
        "image_resolution": [24, 32],
        "needs_wrist_camera": True,
        "n_external_cameras": 1,
        "needs_stereo_camera": False,
        "needs_session_id": True,
        "action_space": "joint_position",
    },
    "vllm-omni": {"action_horizon": 2, "supported_embodiments": ["so101"]},
    "sglang": {"object": "action.metadata", "output": {"action_horizon": 2, "action_dim": 6}},
    "starvla": {"action_chunk_size": 2, "available_unnorm_keys": ["so101"]},
    "behavior": {},
    "lingbot-va": {},
}
METADATA["dreamzero"] = METADATA["roboarena"]


class Double:
    """A script for a connection; keeps what it was sent."""

    def __init__(self, dialect: str, *, idle_s: float | None = None) -> None:
        self.dialect = dialect
        self.received: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self.resets = 0
        self.fail = 0
        """How many of the next requests fail."""
        self._idle_s = idle_s
        self._answer: Callable[[ServerConnection, dict[str, Any]], None] = getattr(
            self, "_" + dialect.replace("-", "_")
        )

    def __call__(self, connection: ServerConnection) -> None:
        """Serve one client, as the family's server does."""
        connection.send(codec.encode(METADATA[self.dialect]))
        while True:
            try:
                raw = connection.recv(timeout=self._idle_s)
            except TimeoutError:
                connection.close()
                return
            except ConnectionClosed:
                return
            assert isinstance(raw, bytes)
            self.raw.append(raw)
            message = codec.decode(raw)
            self.received.append(message)
            try:
                self._answer(connection, message)
            except KeyError:
                connection.send(traceback.format_exc())
                connection.close(
                    1011, "Internal server error. Traceback included in previous frame."
                )
                return

    def _fails(self) -> bool:
        self.fail -= 1
        return self.fail >= 0

    def _openpi(self, connection: ServerConnection, message: dict[str, Any]) -> None:
        if self._fails():
            raise KeyError("observation/image")
        connection.send(codec.encode({"actions": ROWS, "server_timing": {"infer_ms": 1.0}}))

    def _roboarena(self, connection: ServerConnection, message: dict[str, Any]) -> None:
        endpoint = message["endpoint"]
        if self._fails():
            raise KeyError("observation/image")
        if endpoint == "reset":
            self.resets += 1
            connection.send("reset successful")
            return
        message["session_id"]
        message["observation/exterior_image_0_left"]
        connection.send(codec.encode(ROWS if self.dialect == "dreamzero" else {"actions": ROWS}))

    _dreamzero = _roboarena

    def _vllm_omni(self, connection: ServerConnection, message: dict[str, Any]) -> None:
        if message.get("endpoint", "infer") == "reset":
            self.resets += 1
            connection.send(codec.encode({"status": "reset successful"}))
        elif self._fails():
            connection.send(codec.encode({"type": "error", "message": "Internal inference error"}))
        else:
            connection.send(codec.encode({"arm": ROWS[None, :, :5], "gripper": ROWS[:, 5]}))

    def _sglang(self, connection: ServerConnection, message: dict[str, Any]) -> None:
        if self._fails():
            connection.send(codec.encode({"error": "Traceback ...\nValueError: no state"}))
            connection.close(1011, "Internal server error")
            return
        connection.send(codec.encode({"actions": ROWS, "server_timing": {"infer_ms": 1.0}}))

    def _starvla(self, connection: ServerConnection, message: dict[str, Any]) -> None:
        said = {"type": "inference_result", "request_id": message.get("request_id", "default")}
        if message.get("type", "infer") != "infer" or self._fails():
            error = {"status": "error", "ok": False, "error": {"message": "boom"}}
            connection.send(codec.encode(said | error))
            return
        [example] = message["examples"]
        assert example["lang"]
        assert example["state"].ndim == 2
        connection.send(
            codec.encode(said | {"status": "ok", "ok": True, "data": {"actions": ROWS[None]}})
        )

    def _behavior(self, connection: ServerConnection, message: dict[str, Any]) -> None:
        if "reset" in message:
            self.resets += 1
            return
        if self._fails():
            raise KeyError("robot_r1::proprio")
        connection.send(codec.encode({"action": ROWS[0], "server_timing": {"infer_ms": 1.0}}))

    def _lingbot_va(self, connection: ServerConnection, message: dict[str, Any]) -> None:
        timing = {"server_timing": {"infer_ms": 1.0}}
        if message.get("reset"):
            self.resets += 1
            assert message["prompt"]
            connection.send(codec.encode(timing))
            return
        if self._fails() or not self.resets:
            raise KeyError("obs")
        assert all(image.ndim == 3 for image in message["obs"][0].values())
        frames = np.concatenate([np.zeros((6, 1, 2), np.float32), ROWS.T[:, None, :]], axis=1)
        connection.send(codec.encode({"action": frames, **timing}))
