# SPDX-License-Identifier: Apache-2.0
"""How a run went, as one JSON object: ticks, held ticks by cause, round trips, outages.

In: the trace's lines. Out: a file, written at the end. Where the file is there already and holds an object, as
`lerobot-eval`'s `eval_info.json` does by then, the figures go into it under `remote_policy`.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

__all__ = ["RunStatistics", "quantiles"]

logger = logging.getLogger(__name__)

_KEY = "remote_policy"
_MOST = 100_000
"""Exchanges whose times are kept: a day of them."""


class RunStatistics:
    """A listener of the trace that counts, and writes on `close`.

    Args:
        path: The file.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).expanduser()
        self._counts = Counter[str]()
        self._held = Counter[str]()
        self._outcomes = Counter[str]()
        self._round_trip_ms: list[float] = []
        self._server_ms: list[float] = []
        self._written = False

    def __repr__(self) -> str:
        return f"<RunStatistics {self._path.name} {self._counts['ticks']} ticks>"

    def __call__(self, kind: str, facts: dict[str, Any]) -> None:
        """Take one line of the trace."""
        if kind == "tick":
            self._counts["ticks"] += 1
            if facts.get("cause") is not None:
                self._held[facts["cause"]] += 1
        elif kind == "exchange":
            self._outcomes[str(facts.get("outcome", "ACCEPTED")).lower()] += 1
            if len(self._round_trip_ms) < _MOST:
                self._round_trip_ms.append(float(facts["round_trip_ms"]))
                if facts.get("server_ms") is not None:
                    self._server_ms.append(float(facts["server_ms"]))
        elif kind in ("episode", "outage"):
            self._counts[f"{kind}s"] += 1

    def figures(self) -> dict[str, Any]:
        """Return the figures so far."""
        return {
            "episodes": self._counts["episodes"],
            "ticks": self._counts["ticks"],
            "held_ticks": sum(self._held.values()),
            "held_by_cause": dict(self._held),
            "outages": self._counts["outages"],
            "exchanges": dict(self._outcomes),
            "round_trip_ms": quantiles(self._round_trip_ms),
            "infer_ms": quantiles(self._server_ms),
        }

    def close(self) -> None:
        """Write the file. Safe to call twice; a disk that is full ends nothing but this."""
        if self._written:
            return
        self._written = True
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            there = _object_in(self._path)
            there[_KEY] = self.figures()
            beside = self._path.with_name(f"{self._path.name}.part")
            beside.write_text(json.dumps(there, indent=2) + "\n", encoding="utf-8")
            os.replace(beside, self._path)  # half a file is none
        except OSError as exc:
            logger.warning("summary_file: %s", exc)


def quantiles(values: list[float]) -> dict[str, float] | None:
    """Return median, 99th percentile and largest, rounded; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)

    return {"p50": at(0.5), "p99": at(0.99), "max": round(ordered[-1], 2)}


def _object_in(path: Path) -> dict[str, Any]:
    """Return the object in a file; an empty one where there is none, or something else.

    Raises:
        OSError: The file holds something else, which is not to be lost.
    """
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise OSError(f"{path} is there and holds no JSON object; it is left as it is")
    return found
