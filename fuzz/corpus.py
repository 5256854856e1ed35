# SPDX-License-Identifier: Apache-2.0
"""The inputs that are kept: a file of lines for each target, an input a line in base64.

In: a target's name. Out: its inputs. A line that begins with `#` says what the next one is about.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

from fuzz.target import Target

__all__ = ["FOLDER", "inputs", "keep", "kept"]

FOLDER = Path(__file__).parent / "corpus"


def inputs(target: Target) -> list[bytes]:
    """Return a target's seeds and what is kept for it, each once."""
    return list(dict.fromkeys((*target.seeds(), *kept(target.name))))


def kept(name: str) -> list[bytes]:
    """Return what is kept for a target."""
    path = FOLDER / f"{name}.txt"
    if not path.exists():
        return []
    lines = path.read_text(encoding="ascii").splitlines()
    return [base64.b64decode(line) for line in lines if not line.startswith("#")]


def keep(name: str, found: Iterable[bytes], note: str = "") -> int:
    """Add inputs to what is kept, unless they are there; return how many."""
    before = set(kept(name))
    new = [data for data in dict.fromkeys(found) if data not in before]
    if new:
        with (FOLDER / f"{name}.txt").open("a", encoding="ascii") as file:
            if note:
                file.write(f"# {note}\n")
            file.writelines(base64.b64encode(data).decode() + "\n" for data in new)
    return len(new)
