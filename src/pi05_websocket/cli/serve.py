# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket serve`: load a policy, or find other servers, serve it, say where, stop cleanly.

In: words. Out: an exit code; 0 after SIGINT or SIGTERM, 1 when the address cannot be used.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from pi05_websocket.cli import EXIT_FAILED, EXIT_OK
from pi05_websocket.cli.robot_flags import key_flags
from pi05_websocket.cli.serve_flags import check_flags
from pi05_websocket.cli.serve_policy import PolicyChoice, load_warm
from pi05_websocket.cli.serve_ray import run_on_ray
from pi05_websocket.cli.watching import watching
from pi05_websocket.engine_ray.config import RayOptions
from pi05_websocket.errors import ConfigError
from pi05_websocket.gateway import GatewayConfig, PolicyGateway
from pi05_websocket.ops import OpsConfig
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.server.app import PolicyServer
from pi05_websocket.server.exposure import is_loopback, not_behind_a_proxy, why_not_safe
from pi05_websocket.server.own_certificate import check_can_make_certificates
from pi05_websocket.server.records import Listener

__all__ = ["ServeCommand", "run"]

_DESCRIPTION = """\
Serve a policy to robots over OpenPI's protocol.

Any OpenPI client can talk to it, and so can this project's. Inference runs in a thread of its own, so health
checks (GET /healthz) and other robots never wait for it. Ctrl-C stops it after the inference under way.

examples:
  pi05-websocket serve --policy expert
  pi05-websocket serve --policy my_module:make_policy --host 0.0.0.0 --keys keys.json --tls auto
  pi05-websocket serve --policy.path=outputs/train/pi05/checkpoints/last/pretrained_model --policy.device=cuda
  pi05-websocket serve --policy expert --ops-port 9090        and look at http://127.0.0.1:9090/
  pi05-websocket serve --policy "replay:wave.npz?loop&action_horizon=25"
  pi05-websocket serve --upstream ws://gpu-1:8000 --upstream ws://gpu-2:8000 --port 8001
  pi05-websocket serve --policy my_module:make_policy --engine ray --replicas 4 --replica-gpus 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeCommand:
    """What to serve and where."""

    choice: Annotated[PolicyChoice, tyro.conf.arg(name="")] = field(default_factory=PolicyChoice)

    upstream: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Instead of a policy: address of a policy server that answers for this one, OpenPI's own or ours. Several
    share the robots, and take over from each other."""

    host: str = "127.0.0.1"
    """Address to listen on. 0.0.0.0 lets other computers in, and asks for --keys and --tls auto."""

    port: int = 8000
    """TCP port; 0 lets the system choose one."""

    otel_endpoint: str | None = None
    """Send the server's part of robots' OpenTelemetry traces to this collector, such as http://localhost:4318;
    env: as the OTEL_* variables say. None: none. Needs the extra otel."""

    log_level: Literal["debug", "info", "warning"] = "info"
    """debug tells each exchange with its timings."""

    engine: Literal["own", "ray"] = "own"
    """ray: on Ray Serve, on as many machines as its cluster has; needs the extra ray. own: one process."""

    config: Annotated[ServerConfig, tyro.conf.arg(name="")] = field(default_factory=ServerConfig)

    gateway: Annotated[GatewayConfig, tyro.conf.arg(name="")] = field(default_factory=GatewayConfig)

    ops: Annotated[OpsConfig, tyro.conf.arg(name="")] = field(default_factory=OpsConfig)

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
    check_flags(command)
    if command.engine == "ray":
        return run_on_ray(command)
    _refuse_to_serve_strangers(command)
    _check_choice(command)
    try:
        with watching(
            command.ops, command.config, command.otel_endpoint, policy=_served(command)
        ) as watched:
            server = _server(command, watched.listeners)
            watched.begin(server)
            server.serve_forever(listening=lambda: print(welcome(command, server), flush=True))
    except OSError as exc:
        print(f"error: {exc.strerror or exc}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK


def _check_choice(command: ServeCommand) -> None:
    """Find out what to serve before anything is opened.

    Raises:
        ConfigError: If there is nothing to serve, or two things.
    """
    if command.upstream and command.choice.given:
        raise ConfigError("--upstream: other servers answer, so there is no policy to name")
    _served(command)


def _server(command: ServeCommand, listeners: Sequence[Listener]) -> PolicyServer:
    """Make what was asked for; load the policy, if there is one."""
    where, config = (command.host, command.port), command.config
    if command.upstream:
        return PolicyGateway(
            command.upstream, *where, config=config, gateway=command.gateway, listeners=listeners
        )
    policy = load_warm(command.choice, config.max_batch)
    return WebsocketPolicyServer(policy, *where, config=config, listeners=listeners)


def _served(command: ServeCommand) -> str:
    return ", ".join(command.upstream) or command.choice.spec


def _refuse_to_serve_strangers(command: ServeCommand) -> None:
    """Check the address before a model is loaded for it.

    Raises:
        ConfigError: If others can reach it who should not, or no certificate can be made.
    """
    wrong = not_behind_a_proxy(command.host, command.config)
    if wrong is None and not command.config.insecure:
        wrong = why_not_safe(command.host, command.config)
    if wrong is not None:
        raise ConfigError(wrong)
    if command.config.tls == "auto":
        check_can_make_certificates()


def welcome(command: ServeCommand, server: PolicyServer) -> str:
    """Return what is served and where, and what to type on the robot."""
    url = server.url_for_robots
    note = "only this machine can reach it; --host 0.0.0.0 lets robots on the network in"
    if not is_loopback(command.host):
        note = "whoever reaches this machine can reach it"
        if command.config.keys or command.config.tls_client_ca:
            note = "who has a key or certificate comes in"
    pin = f" --policy.tls_fingerprint={server.tls_fingerprint}" if server.tls_fingerprint else ""
    key = " --policy.api_key_file=FILE" if command.config.keys else ""
    keys = key_flags(server.metadata) if isinstance(server, WebsocketPolicyServer) else ""
    return (
        f"serving {_served(command)} at {url} ({note})\n"
        f"on the robot: --policy.type=pi05_websocket --policy.websocket_url={url}{pin}{key}{keys}"
    )
