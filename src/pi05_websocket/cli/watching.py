# SPDX-License-Identifier: Apache-2.0
"""Who watches a server that the command line starts: the operations port, the traces.

In: settings. Out: listeners for the server; they are closed when it has ended.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pi05_websocket.ops import OpsConfig, make_ops_port
from pi05_websocket.server import ServerConfig
from pi05_websocket.server.records import Listener
from pi05_websocket.server.spans import ServerSpans
from pi05_websocket.telemetry import make_provider

if TYPE_CHECKING:
    from pi05_websocket.ops.port import OpsPort
    from pi05_websocket.ops.watch import Operable

__all__ = ["Watching", "watching"]


@dataclass(slots=True)
class Watching:
    """What is open."""

    listeners: list[Listener] = field(default_factory=list)
    ops: OpsPort | None = None

    def begin(self, server: Operable) -> None:
        """Watch a server, and say where that is to be seen."""
        if self.ops is not None:
            self.ops.watch(server)
            print(f"operations at {self.ops.url}", flush=True)


@contextlib.contextmanager
def watching(
    ops: OpsConfig, config: ServerConfig, otel_endpoint: str | None, *, policy: str
) -> Iterator[Watching]:
    """Open what the settings ask for, before a policy is loaded: that may take minutes, and is to be seen.

    Raises:
        ConfigError: Something is not safe, or its extra is not installed.
        OSError: The operations port cannot be listened on.
    """
    found = Watching()
    with contextlib.ExitStack() as stack:
        if ops.ops_port is not None:
            found.ops = stack.enter_context(make_ops_port(ops, config, policy=policy))
            found.listeners.append(found.ops.listener)
        if otel_endpoint is not None:
            spans = ServerSpans(make_provider("pi05-server", otel_endpoint))
            stack.callback(spans.close)
            found.listeners.append(spans)
        yield found
