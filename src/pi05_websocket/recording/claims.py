# SPDX-License-Identifier: Apache-2.0
"""Which files are being written, known to every process: a lock that the system lets go of when a process dies.

In: open files, paths. Out: yes or no. Any thread; nothing waits. Windows has no such locks and does not delete
an open file anyway; on a file system without them no file counts as being written.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import IO

__all__ = ["claim", "is_claimed"]


def claim(file: IO[bytes]) -> None:
    """Let others see that a file is being written, until it is closed or we die."""
    if sys.platform != "win32":
        import fcntl  # only Unix has it

        with contextlib.suppress(OSError):  # this file system has no locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_claimed(path: Path) -> bool:
    """Say whether a file is being written, by anybody."""
    if sys.platform != "win32":
        import fcntl

        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # gone, not for us to read, or no locks here
            return False
    return False
