# SPDX-License-Identifier: Apache-2.0
"""Files that only the server's user reads, written so that a reader never sees half of one.

In: a path and bytes. Out: the file, of mode 0600, or of the mode of the one before it. Blocks for as
long as a disk does; any thread.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["alone_in", "replace"]


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other edits in this folder waiting; the system lets go of the lock if we die. Not on Windows."""
    if sys.platform == "win32":
        yield
    else:
        import fcntl  # only Unix has it

        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def replace(path: Path, text: bytes) -> None:
    """Put a new file in the place of the old one, in one step.

    It is the old one's owner's, and as readable as that was: the server may be another user than who edits.
    Without an old one its mode is 0600.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(OSError, AttributeError):  # no old one, not ours to give, Windows
            old = os.stat(path)
            os.chown(name, old.st_uid, old.st_gid)
            os.chmod(name, stat.S_IMODE(old.st_mode))
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
