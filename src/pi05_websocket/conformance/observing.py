# SPDX-License-Identifier: Apache-2.0
"""An observation to ask with: made up for a key map, or read from a file.

In: a key map's name or a file in the wire's encoding. Out: an observation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pi05_websocket.data import Observation
from pi05_websocket.errors import ConfigError, DecodeError
from pi05_websocket.presets import preset
from pi05_websocket.wire import codec

__all__ = ["made_up", "read_observation"]

_ROWS, _COLUMNS = 240, 320
"""Of cameras whose size the key map does not say."""
_STATE_DIM = 6


def made_up(keymap: str, prompt: str = "pick up the cube") -> Observation:
    """Return an observation of a key map: grey noise for images, zeros for the state.

    Raises:
        ConfigError: There is no such key map.
    """
    key_map = preset(keymap)
    noise = np.random.default_rng(0)
    images = {
        name: noise.integers(
            0, 256, (camera.height or _ROWS, camera.width or _COLUMNS, 3), dtype=np.uint8
        )
        for name, camera in key_map.cameras.items()
    }
    state = np.zeros(key_map.state_dim or _STATE_DIM, np.float32)
    return key_map.observation(images, state, prompt)


def read_observation(path: Path) -> Observation:
    """Return the observation in a file: one message, as a client would send it.

    Raises:
        ConfigError: It cannot be read, or is none.
    """
    try:
        observation = codec.decode(path.read_bytes())
    except (OSError, DecodeError) as exc:
        raise ConfigError(f"observation={str(path)!r}: {exc}") from exc
    if not isinstance(observation, dict):
        raise ConfigError(
            f"observation={str(path)!r}: expected a map in the wire's encoding, got "
            f"{type(observation).__name__}. Write one with pi05_websocket.wire.codec.encode."
        )
    return observation
