# SPDX-License-Identifier: Apache-2.0
"""How much a peer's message may ask for: settings of the decoder. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from pi05_websocket.errors import ConfigError

__all__ = ["DEFAULT_LIMITS", "DecodeLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """How much a message from a peer may ask for."""

    max_message_bytes: int = 64 * 1024 * 1024
    """Longest message in bytes; also the most any array in it may span."""

    max_depth: int = 32
    """Most maps and lists inside one another."""

    max_items: int = 262_144
    """Most values in one message, keys included; an array counts as a handful."""

    max_array_dims: int = 32
    """Most dimensions of an array (numpy 1's own limit)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ConfigError(
                    f"{field.name} must be at least 1, got {getattr(self, field.name)}"
                )


DEFAULT_LIMITS: Final = DecodeLimits()
"""What `decode` allows when told nothing: 64 MiB, 32 levels, 262 144 values."""
