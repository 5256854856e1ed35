# SPDX-License-Identifier: Apache-2.0
"""Which dialect a client is spoken to in: the server speaks first, so nothing of the client's own words tells.

In: the URL path, its key, the server's setting. Out: a dialect's name. Pure.
"""

from __future__ import annotations

from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.keys import RobotKey
from pi05_websocket.wire.dialects import OPENPI, DialectName, dialect_of_path

__all__ = ["dialect_name"]


def dialect_name(config: ServerConfig, path: str, key: RobotKey | None) -> DialectName:
    """Return the dialect of a connection: its path's, else its key's, else the server's."""
    if config.dialect == "none":
        return OPENPI.name
    named = dialect_of_path(path)
    if named is not None:
        return named.name
    if key is not None and key.dialect is not None:
        return key.dialect
    return config.dialect
