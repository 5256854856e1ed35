# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket serve --engine ray`: put a policy on Ray Serve, say where, and take it down again.

In: the command. Out: an exit code; 0 after SIGINT or SIGTERM.
"""

from __future__ import annotations

import importlib.util
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pi05_websocket.cli import EXIT_OK
from pi05_websocket.engine_ray.running import RayEngine
from pi05_websocket.errors import ConfigError
from pi05_websocket.extras import how_to_install
from pi05_websocket.server.exposure import is_loopback
from pi05_websocket.server.own_address import host_for_robots

if TYPE_CHECKING:
    from pi05_websocket.cli.serve import ServeCommand

__all__ = ["engine_for", "run_on_ray"]


def run_on_ray(command: ServeCommand) -> int:
    """Serve until SIGINT or SIGTERM.

    Raises:
        ConfigError: Ray is not installed, or cannot be used so.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(f"--engine ray needs Ray Serve: {how_to_install('ray')}")
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: _interrupt(stop))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    engine = engine_for(command, lambda line: print(line, flush=True))
    try:
        with engine:
            print(_welcome(command, engine), flush=True)
            stop.wait()
    except KeyboardInterrupt:  # while it was starting: what was started is taken down
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return EXIT_OK


def engine_for(command: ServeCommand, say: Callable[[str], None]) -> RayEngine:
    """Return what serves as the command says; nothing is started.

    Raises:
        ConfigError: It cannot be had with Ray.
    """
    return RayEngine(
        command.choice.spec,
        command.host,
        command.port,
        command.config,
        command.ray,
        say,
        warm_up=command.choice.warm_up,
        log_level=command.log_level,
    )


def _interrupt(stop: threading.Event) -> None:
    """End the wait; before it, end what is under way."""
    if not stop.is_set():
        stop.set()
        raise KeyboardInterrupt


def _welcome(command: ServeCommand, engine: RayEngine) -> str:
    url = f"ws://{host_for_robots(command.host)}:{engine.port}"
    note = "only this machine can reach it"
    if not is_loopback(command.host):
        note = "through the proxy that ends TLS" if command.config.behind_proxy else "not encrypted"
    key = " --policy.api_key_file=FILE" if command.config.keys else ""
    paths = "".join(f"\n{policy} at {url}{path}" for path, policy in command.ray.more.items())
    return (
        f"serving {command.choice.spec} on Ray at {url} ({note}){paths}\n"
        f"on the robot: --policy.type=pi05_websocket --policy.websocket_url={url}{key}"
    )
