# SPDX-License-Identifier: Apache-2.0
"""The server side: any policy behind OpenPI's protocol."""

from pi05_websocket.server.app import WebsocketPolicyServer
from pi05_websocket.server.config import ServerConfig

__all__ = ["ServerConfig", "WebsocketPolicyServer"]
