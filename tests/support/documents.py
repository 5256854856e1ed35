# SPDX-License-Identifier: Apache-2.0
"""The Python in the documents. In: Markdown files. Out: code blocks, by the file name in their first line."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["ROOT", "documents", "named_block", "python_blocks"]

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    """Return every Markdown file of the project."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def python_blocks(path: Path) -> list[str]:
    """Return a document's Python, block by block."""
    return _BLOCK.findall(path.read_text(encoding="utf-8"))


def named_block(document: str, name: str) -> str:
    """Return the block of a document that begins with the comment `# name`."""
    (block,) = (
        block for block in python_blocks(ROOT / document) if block.startswith(f"# {name}\n")
    )
    return block
