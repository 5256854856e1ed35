# SPDX-License-Identifier: Apache-2.0
"""Which flags of `pi05-websocket serve` count for which way of serving.

In: the command. Out: nothing, or what is wrong with it. A flag that would have no effect is refused, with what
to do instead: who sets a bound believes that it holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final

from pi05_websocket.errors import ConfigError

if TYPE_CHECKING:
    from pi05_websocket.cli.serve import ServeCommand

__all__ = ["NOT_ON_RAY", "ON_RAY", "check_flags", "flag_of", "leaves"]

_TLS: Final = (
    "Ray's HAProxy speaks HTTP only. Put a proxy before it that ends TLS, and say --behind-proxy"
)
_FRAMES: Final = (
    "Ray's web server takes connections and frames, and has no such bound. Set it in the proxy that "
    "ends TLS"
)
_WATCH: Final = (
    "the operations port is the plain server's. Ray's own dashboard (ray start --include-dashboard=true) "
    "and `serve status` show the applications, and Ray exports its metrics for Prometheus"
)
_GATEWAY: Final = (
    "it is about --upstream, which Ray does not do. Run the gateway without --engine ray"
)

NOT_ON_RAY: Final[Mapping[str, str]] = {
    "upstream": "Ray runs policies, and a gateway has none. Run it without --engine ray",
    "otel_endpoint": "an ingress decodes nothing, so it has no traces to go on with. Robots send their own",
    "config.tls": _TLS,
    "config.tls_folder": _TLS,
    "config.tls_cert": _TLS,
    "config.tls_key": _TLS,
    "config.tls_client_ca": _TLS,
    "config.max_connections_per_address": (
        "every client comes from Ray's HAProxy. Count in the proxy that ends TLS"
    ),
    "config.max_small_frames_per_s": _FRAMES,
    "config.handshake_timeout_s": _FRAMES,
    "config.message_timeout_s": _FRAMES,
    "config.ping_interval_s": "Ray's web server pings every 20 s, and that cannot be set",
    "gateway.upstream_key_file": _GATEWAY,
    "gateway.upstream_key_env": _GATEWAY,
    "gateway.upstream_ca_file": _GATEWAY,
    "gateway.upstream_tls_fingerprint": _GATEWAY,
    "gateway.upstream_connections": _GATEWAY,
    "gateway.upstream_timeout_s": _GATEWAY,
    "gateway.upstream_first_timeout_s": _GATEWAY,
    "gateway.upstream_retries": _GATEWAY,
    "gateway.upstream_mismatch": _GATEWAY,
    "ops.ops_port": _WATCH,
    "ops.ops_host": _WATCH,
    "ops.ops_admin_key_file": _WATCH,
    "ops.ops_images": _WATCH,
}
"""Without effect with `--engine ray`, and what to do instead."""

ON_RAY: Final = frozenset(
    {
        "choice.policy",
        "choice.path",
        "choice.device",
        "choice.dtype",
        "choice.warm_up",
        "host",
        "port",
        "log_level",
        "engine",
        "config.keys",
        "config.behind_proxy",
        "config.insecure",
        "config.debug",
        "config.max_batch",
        "config.batch_window_ms",
        "config.max_queue_s",
        "config.max_wait_s",
        "config.deadlines",
        "config.seed",
        "config.max_message_bytes",
        "config.max_queued_requests",
        "config.max_queued_bytes",
        "config.max_held_bytes",
        "config.max_pipelined_requests",
        "config.max_connections",
        "config.unread_timeout_s",
        "config.encoded_images",
        "config.dialect",
        "config.stop_timeout_s",
        "ray.ray_address",
        "ray.replicas",
        "ray.autoscale",
        "ray.requests_per_replica",
        "ray.replica_cpus",
        "ray.replica_gpus",
        "ray.ingress_replicas",
        "ray.also",
        "ray.hang_s",
        "ray.link.deadline_s",
        "ray.link.first_deadline_s",
        "ray.link.retries",
        "ray.link.retry_share",
        "ray.link.eject_s",
        "ray.link.longest_eject_s",
    }
)
"""Those that count with `--engine ray`."""

_RAYS_LONGEST_MESSAGE: Final = 16 * 1024 * 1024
"""Bytes: the bound of Ray's web server, which cannot be set."""

_PREFIXES: Final = {"choice.": "policy.", "ray.link.": "link."}
_WITHOUT_PREFIX: Final = ("choice.policy", "choice.warm_up")


def check_flags(command: ServeCommand) -> None:
    """Look whether every flag that was given counts.

    Raises:
        ConfigError: One does not; says what to do instead.
    """
    default = dict(leaves(type(command)()))
    given = [path for path, value in leaves(command) if value != default[path]]
    if command.engine == "ray":
        _refuse({path: NOT_ON_RAY[path] for path in given if path in NOT_ON_RAY}, "--engine ray")
        longest = command.config.max_message_bytes
        if "config.max_message_bytes" in given and longest > _RAYS_LONGEST_MESSAGE:
            raise ConfigError(
                f"--max-message-bytes {longest}: Ray's web server takes {_RAYS_LONGEST_MESSAGE} bytes at most. "
                "Say no more than that; have images sent as JPEG; or serve without --engine ray."
            )
        return
    _refuse(
        {path: "say --engine ray too" for path in given if path.startswith("ray.")}, "one process"
    )
    if not command.upstream:
        gateways = {path: "say --upstream too" for path in given if path.startswith("gateway.")}
        _refuse(gateways, "a policy of its own")


def leaves(settings: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Return each setting of a nested dataclass, as `outer.inner`, with its value."""
    for each in fields(settings):
        value, path = getattr(settings, each.name), f"{where}{each.name}"
        if is_dataclass(value):
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def flag_of(path: str) -> str:
    """Return a setting's flag."""
    prefix = next((each for each in _PREFIXES if path.startswith(each)), "")
    said = path.rpartition(".")[2].replace("_", "-")
    named = "" if path in _WITHOUT_PREFIX else _PREFIXES.get(prefix, "")
    return f"--{named}{said}"


def _refuse(wrong: Mapping[str, str], way: str) -> None:
    if wrong:
        said = "; ".join(f"{flag_of(path)}: {instead}" for path, instead in wrong.items())
        raise ConfigError(f"without effect with {way}: {said}.")
