# SPDX-License-Identifier: Apache-2.0
"""What a remote policy says in its server's dialect: whose episode it is, when one begins, images as asked for.

In: observations in policy names, the server's metadata. Out: messages to encode. For OpenPI's own dialect
nothing is said and nothing is changed. May be called from several threads.
"""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np

from pi05_websocket.data import Observation
from pi05_websocket.images import resize_with_pad
from pi05_websocket.wire.dialect_robot import image_resolution, request_message, reset_message
from pi05_websocket.wire.dialects import OPENPI, Dialect

__all__ = ["Speaking"]


class Speaking:
    """Keeps the episode: its id, and whether the server knows that it began."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._session_id = uuid.uuid4().hex
        self._used = False
        self._reset_due = True
        self._told = 0
        """Number of the greeting of whom it was said to last."""

    def __repr__(self) -> str:
        return f"<Speaking session={self._session_id} reset_due={self._reset_due}>"

    def new_episode(self) -> None:
        """Begin an episode, unless nothing was asked in the present one."""
        with self._lock:
            if self._used:
                self._session_id = uuid.uuid4().hex
                self._used, self._reset_due = False, True

    def reset(
        self, dialect: Dialect, observation: Observation, *, greeting: int
    ) -> dict[str, Any] | None:
        """Return what has to be said before the first request of an episode; None: nothing, or it was said.

        Args:
            dialect: The server's.
            observation: The episode's first, or an empty one.
            greeting: Number of the server's greeting. One that has come in mid-episode is told again if it
                learns what to do by the reset alone: it may be another process. The others find what they
                know of an episode by its id, and would forget it.
        """
        if dialect.reset == "none":
            return None
        with self._lock:
            due = self._reset_due or (dialect.reset_needs_prompt and greeting != self._told)
            self._reset_due, self._told = False, greeting
        return reset_message(dialect, observation) if due else None

    def reset_failed(self) -> None:
        """Note that the server may not have heard it: it is said again."""
        with self._lock:
            self._reset_due = True

    def message(
        self, dialect: Dialect, metadata: Mapping[str, Any], observation: Observation
    ) -> Observation:
        """Return the request for an observation.

        Raises:
            ObservationError: It lacks cameras that the server wants.
        """
        with self._lock:
            self._used = True
            session, number = self._session_id, next(self._numbers)
        if dialect is OPENPI:
            return observation
        size = image_resolution(dialect, metadata)
        if size is not None:
            observation = {
                key: resize_with_pad(value, *size, key=key) if _is_picture(value) else value
                for key, value in observation.items()
            }
        return request_message(
            dialect,
            observation,
            metadata=metadata,
            session_id=session,
            request_id=str(number),
        )


def _is_picture(value: Any) -> bool:
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.uint8
        and value.ndim == 3
        and value.shape[-1] == 3
    )
