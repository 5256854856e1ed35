# SPDX-License-Identifier: Apache-2.0
"""What differs between two settings of an ingress, in words for a person. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from pi05_websocket.engine_ray.config import IngressSettings

__all__ = ["changes"]


def changes(before: IngressSettings, after: IngressSettings) -> str:
    """Return what becomes of an ingress and its robots, and which settings change.

    Ray changes the settings of what a command of the same version has deployed; what another version or a
    config file has deployed it replaces.
    """
    old, new = asdict(before), asdict(after)
    for name in ("deployed_by", "version"):
        del old[name], new[name]
    said = "; ".join(_differences(old, new, "")) or "its settings are the same"
    if before.version == after.version:
        return f"changing the ingress, robots stay ({said})"
    whose = f"of version {before.version}" if before.version else "of a config file"
    return f"replacing the ingress {whose}, robots connect again ({said})"


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], where: str) -> Iterator[str]:
    for name in [*old, *(name for name in new if name not in old)]:
        was, will_be = old.get(name), new.get(name)
        if isinstance(was, Mapping) and isinstance(will_be, Mapping):
            yield from _differences(was, will_be, f"{where}{name} ")
        elif was != will_be:
            yield f"{where}{name}: {_word(was)} -> {_word(will_be)}"


def _word(value: Any) -> str:
    return "none" if value is None else str(value)
