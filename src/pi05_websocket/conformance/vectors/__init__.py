# SPDX-License-Identifier: Apache-2.0
"""The published vectors: messages of the protocol as bytes, in files beside this one. See README.md there.

In: nothing. Out: the files' contents. Reads them from the installed package.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

__all__ = ["read_manifest", "read_transcript", "read_vectors"]


def read_vectors() -> list[dict[str, Any]]:
    """Return every vector: `name`, `hex`, `flavour` and the other keys of README.md."""
    vectors: list[dict[str, Any]] = json.loads(_text("vectors.json"))
    return vectors


def read_transcript() -> dict[str, Any]:
    """Return the recorded conversation."""
    transcript: dict[str, Any] = json.loads(_text("transcript.json"))
    return transcript


def read_manifest() -> dict[str, Any]:
    """Return names and checksums of all of them, and the version of the protocol."""
    manifest: dict[str, Any] = json.loads(_text("manifest.json"))
    return manifest


def _text(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
