# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket serve`: load a policy, serve it, say where, stop cleanly.

In: words. Out: an exit code; 0 after SIGINT or SIGTERM, 1 when the address cannot be used.
"""

from __future__ import annotations

import logging
import socket
import sys
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from pi05_websocket.cli import EXIT_FAILED, EXIT_OK
from pi05_websocket.cli.serve_ray import run_on_ray
from pi05_websocket.engine_ray.config import RayOptions
from pi05_websocket.errors import ConfigError
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.server.exposure import is_loopback, not_behind_a_proxy, why_not_safe
from pi05_websocket.server.loading import load_policy

__all__ = ["ServeCommand", "run"]

_DESCRIPTION = """\
Serve a policy to robots over OpenPI's protocol.

Any OpenPI client can talk to it, and so can this project's. Inference runs in a thread of its own, so health
checks (GET /healthz) and other robots never wait for it. Ctrl-C stops it after the inference under way.

examples:
  pi05-websocket serve --policy expert
  pi05-websocket serve --policy my_module:make_policy --host 0.0.0.0 --keys keys.json \\
                       --tls-cert cert.pem --tls-key key.pem
  pi05-websocket serve --policy lerobot:outputs/train/pi05/checkpoints/last/pretrained_model
  pi05-websocket serve --policy "replay:wave.npz?loop&action_horizon=25"
  pi05-websocket serve --policy my_module:make_policy --engine ray --replicas 4 --replica-gpus 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeCommand:
    """What to serve and where."""

    policy: str
    """module:factory (a function, class or object with infer(observation)), lerobot:PATH (a
    checkpoint's folder or its name on the hub), replay:FILE or expert."""

    host: str = "127.0.0.1"
    """Address to listen on. 0.0.0.0 lets other computers in, and asks for --keys and --tls-cert."""

    port: int = 8000
    """TCP port; 0 lets the system choose one."""

    log_level: Literal["debug", "info", "warning"] = "info"
    """debug tells each exchange with its timings."""

    engine: Literal["own", "ray"] = "own"
    """ray: on Ray Serve, on as many machines as its cluster has; needs the extra ray. own: one process."""

    config: Annotated[ServerConfig, tyro.conf.arg(name="")] = field(default_factory=ServerConfig)

    ray: Annotated[RayOptions, tyro.conf.arg(name="")] = field(default_factory=RayOptions)


def run(argv: list[str]) -> int:
    """Run the command."""
    try:
        command = tyro.cli(
            ServeCommand, args=argv, prog="pi05-websocket serve", description=_DESCRIPTION
        )
    except SystemExit as exc:  # tyro has printed its help or what is wrong
        return exc.code if isinstance(exc.code, int) else EXIT_FAILED
    logging.basicConfig(
        level=command.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    _refuse_to_serve_strangers(command)
    if command.engine == "ray":
        return run_on_ray(command)
    server = WebsocketPolicyServer(
        load_policy(command.policy), command.host, command.port, config=command.config
    )
    try:
        server.serve_forever(listening=lambda: print(welcome(command, server), flush=True))
    except OSError as exc:
        print(f"error: {exc.strerror or exc}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK


def _refuse_to_serve_strangers(command: ServeCommand) -> None:
    """Check the address before a model is loaded for it.

    Raises:
        ConfigError: If others can reach it who should not.
    """
    wrong = not_behind_a_proxy(command.host, command.config)
    if wrong is None and not command.config.insecure:
        wrong = why_not_safe(command.host, command.config)
    if wrong is not None:
        raise ConfigError(wrong)


def welcome(command: ServeCommand, server: WebsocketPolicyServer) -> str:
    url = server.url
    note = "only this machine can reach it; --host 0.0.0.0 lets robots on the network in"
    if not is_loopback(command.host):
        note = "whoever reaches this machine can reach it"
        if command.config.keys or command.config.tls_client_ca:
            note = "who has a key or certificate comes in"
    if command.host in ("0.0.0.0", "::", ""):
        url = f"{url.partition(':')[0]}://{_own_address()}:{server.port}"
    key = " --policy.api_key_file=FILE" if command.config.keys else ""
    return (
        f"serving {command.policy} at {url} ({note})\n"
        f"on the robot: --policy.type=pi05_websocket --policy.websocket_url={url}{key}"
    )


def _own_address() -> str:
    """Return the address by which other computers most likely reach this one; sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(
                ("192.0.2.1", 9)
            )  # reserved for documentation: only the route is looked up
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
