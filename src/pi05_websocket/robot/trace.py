# SPDX-License-Identifier: Apache-2.0
"""What happened, one JSON object a line: ticks, exchanges, outages, episodes.

In: keyword facts from the player. Out: a file that plots, tests and a live line can read while it grows, and
whoever else listens (`metrics`, `rerun_view`).
Every line has `kind` and `time_s`, the machine's monotonic seconds: traces of several processes fit together.
A full disk ends the trace, not the motion, and so does a listener that fails.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

__all__ = ["ExchangeSpans", "Listener", "Trace"]

logger = logging.getLogger(__name__)


Listener = Callable[[str, dict[str, Any]], None]
"""Told the kind and the facts of what happened, on the control thread; must be quick."""


class ExchangeSpans(Protocol):
    """Makes a distributed trace of each exchange (`robot.spans`); a listener too."""

    def begin(self, seq: int, /, *, seen_s: float, observed_s: float) -> str | None:
        """Begin that of a request; return what to tell the server."""
        ...

    def __call__(self, kind: str, facts: dict[str, Any], /) -> None:
        """Take one line of the trace."""


class Trace:
    """A JSON-lines file; without a path it only tells its listeners.

    Args:
        path: The file.
        append: Whether to go on in it.
        listeners: Who else is told. One that raises is told nothing more.
        spans: Is told too, and asked before each request.
    """

    def __init__(
        self,
        path: str | Path | None,
        *,
        append: bool = False,
        listeners: Sequence[Listener] = (),
        spans: ExchangeSpans | None = None,
    ) -> None:
        self._listeners = list(listeners)
        self.spans = spans
        if spans is not None:
            self._listeners.append(spans)
        self._file = None
        if path is not None:
            target = Path(path).expanduser()
            target.parent.mkdir(parents=True, exist_ok=True)
            if not append:
                target.write_text("")
            # Appending always: a copied policy may write to the same file.
            self._file = target.open("a", encoding="utf-8", buffering=1)

    def write(self, kind: str, **facts: Any) -> None:
        """Append one line, and tell the listeners."""
        self.show(kind, **facts)
        if self._file is None:
            return
        line = {"kind": kind, "time_s": round(time.monotonic(), 4), **facts}
        try:
            self._file.write(json.dumps(line) + "\n")
        except (OSError, ValueError) as exc:
            logger.warning("the trace ends here: %s", exc)
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def show(self, kind: str, **facts: Any) -> None:
        """Tell the listeners alone: what is too large for a line."""
        for listener in tuple(self._listeners):
            try:
                listener(kind, facts)
            except Exception as exc:  # somebody else's library must not stop an arm
                logger.warning("%r failed and is told nothing more: %s", listener, exc)
                self._listeners.remove(listener)

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        if self._file is not None:
            self._file.close()
            self._file = None
