# SPDX-License-Identifier: Apache-2.0
"""What has to be in the environment before Ray starts, on every machine: it is read once, when Ray is imported.

In: an environment. Out: it, with what is missing; or what is wrong, in a sentence. Imports no Ray.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, MutableMapping

from pi05_websocket.errors import ConfigError

__all__ = ["NEEDED", "USEFUL", "check", "exports", "prepare", "wrong"]

NEEDED: dict[str, str] = {
    # The sockets end in the ingress replicas, behind HAProxy, and not in Ray's proxy, which takes 9 to 20 ms.
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    # Replicas call each other by gRPC, on one event loop each: half the CPU.
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # Ray's own limit is 4 MiB; an observation with three raw camera images can be more.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(64 * 1024 * 1024),
    # HAProxy is started anew when an ingress replica comes or goes; the old one cuts its sockets after this.
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "3600",
}
"""Without these the engine is slow, refuses large observations, or cuts sockets two minutes after a fault."""

USEFUL: dict[str, str] = {
    # Ray's own ports listen on every interface, and who may talk to them may run code: a token is asked for.
    "RAY_AUTH_MODE": "token",
    # HAProxy looks after the ingress replicas of all machines, and cuts the sockets of one that is frozen after
    # 5 s: else its robots wait until it goes on. Ray puts these words into HAProxy's configuration as they are.
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s on-marked-down shutdown-sessions",
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_FASTINTER": "500ms",
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL": "3",
    # Of a freed port, for HAProxies of before: else an hour, and there are a thousand ports.
    "RAY_SERVE_PORT_QUARANTINE_S": "150",
    # How long a replica that is replaced stays before it ends: long enough for HAProxy to hear of it.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
}
"""Better so, and left alone where somebody has set them."""


def prepare(environment: MutableMapping[str, str]) -> None:
    """Set what is not set.

    Raises:
        ConfigError: Something is set otherwise, or Ray is imported already and has read it.
    """
    missing = [name for name in {**NEEDED, **USEFUL} if name not in environment]
    if missing and "ray.serve" in sys.modules:
        raise ConfigError(
            f"Ray is imported already and has read its environment without {', '.join(missing)}. "
            "Call pi05_websocket.engine_ray.environment.prepare(os.environ) before the first import of ray."
        )
    for name, value in {**NEEDED, **USEFUL}.items():
        environment.setdefault(name, value)
    check(environment, "this process")


def check(environment: Mapping[str, str], where: str) -> None:
    """Look whether an environment is fit.

    Raises:
        ConfigError: It is not; says what to do.
    """
    found = wrong(environment)
    if found:
        said = ", ".join(f"{name} is {got or 'not set'}" for name, got in found.items())
        raise ConfigError(
            f"Ray was started on {where} without what this engine needs: {said}. Stop Ray (ray stop), then on "
            f"every machine, before ray start:\n{exports()}"
        )


def wrong(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Return what is not as needed, as it is; larger numbers are fine."""
    return {
        name: environment.get(name)
        for name, value in NEEDED.items()
        if not _is_enough(environment.get(name), value)
    }


def exports() -> str:
    """Return the lines for a shell."""
    return "\n".join(
        f"export {name}={shlex.quote(value)}" for name, value in {**NEEDED, **USEFUL}.items()
    )


def _is_enough(got: str | None, needed: str) -> bool:
    if needed == "1":
        return got == "1"
    return got is not None and got.isdecimal() and int(got) >= int(needed)
