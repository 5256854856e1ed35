# SPDX-License-Identifier: Apache-2.0
"""Which commit figures are of. Asks git."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["present_commit"]


def present_commit() -> str:
    """Return the commit that runs, with a plus where files were changed since; `unknown` without git."""
    git = ["git", "describe", "--always", "--dirty=+"]
    try:
        done = subprocess.run(
            git, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
