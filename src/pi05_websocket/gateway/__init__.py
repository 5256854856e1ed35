# SPDX-License-Identifier: Apache-2.0
"""Policy servers behind ours: it answers robots by asking other servers, whatever becomes of one of them."""

from pi05_websocket.gateway.app import PolicyGateway
from pi05_websocket.gateway.config import GatewayConfig

__all__ = ["GatewayConfig", "PolicyGateway"]
