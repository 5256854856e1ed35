# SPDX-License-Identifier: Apache-2.0
"""Whether a file is still the one that was read. Asks the file system; any thread."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["signature"]


def signature(*paths: Path) -> tuple[tuple[int, ...] | None, ...]:
    """Return what changes when one of some files is written or replaced; None for one that is not there."""
    return tuple(map(_of_one, paths))


def _of_one(path: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
