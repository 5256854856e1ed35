# SPDX-License-Identifier: Apache-2.0
"""The robot's side of the wire: a remote policy that looks like a local one."""

from pi05_websocket.client.config import ConnectionConfig, load_headers
from pi05_websocket.client.connection import Connection, ConnectionState
from pi05_websocket.client.exchange import Exchange, Reply
from pi05_websocket.client.policy import RemotePolicy
from pi05_websocket.client.pool import PolicyPool, connect

__all__ = [
    "Connection",
    "ConnectionConfig",
    "ConnectionState",
    "Exchange",
    "PolicyPool",
    "RemotePolicy",
    "Reply",
    "connect",
    "load_headers",
]
