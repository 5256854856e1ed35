# SPDX-License-Identifier: Apache-2.0
"""Settings of the two applications, and how they are read from a Serve config file. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar, get_type_hints

import msgspec

from pi05_websocket.errors import ConfigError
from pi05_websocket.server.config import ServerConfig

__all__ = [
    "FRONT_DEPLOYMENT",
    "INGRESS_APPLICATION",
    "POLICY_APPLICATION",
    "POLICY_DEPLOYMENT",
    "IngressSettings",
    "LinkSettings",
    "LogLevel",
    "PolicySettings",
    "RayOptions",
    "settings_from",
]

POLICY_APPLICATION = "policy"
INGRESS_APPLICATION = "ingress"
POLICY_DEPLOYMENT = "policy"
"""In each policy application; handles are found by it."""

FRONT_DEPLOYMENT = "front"
"""In each policy application too; whose the application is stands in its `user_config`."""

LogLevel = Literal["debug", "info", "warning"]

T = TypeVar("T")

_AT_LEAST = {
    "deadline_s": 0.001,
    "first_deadline_s": 0.001,
    "retries": 0,
    "retry_share": 0.0,
    "eject_s": 0.0,
    "longest_eject_s": 0.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    """What an ingress expects of the replicas behind it, and what it does when they fail."""

    deadline_s: float = 1.0
    """Longest time in seconds that a request waits for one replica. Then that is left out for a while and
    another one is asked too; the first answer counts. Set it above what the policy takes under full load."""

    first_deadline_s: float = 60.0
    """The same until the policy has answered for the first time: it may still be compiling."""

    retries: int = 2
    """How many replicas more are asked, at most, for one request."""

    retry_share: float = 0.1
    """Share of the requests that may be asked for again because they took too long: slowness that comes from
    overload must not be answered with more load. Those whose replica died do not count."""

    eject_s: float = 1.0
    """How long a replica is left out that failed, in seconds; twice as long each time that it fails again."""

    longest_eject_s: float = 30.0

    def __post_init__(self) -> None:
        for name, least in _AT_LEAST.items():
            if not getattr(self, name) >= least:
                raise ConfigError(f"{name} must be at least {least:g}, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """What a replica of the policy application serves."""

    policy: str
    """As for `pi05-websocket serve --policy`."""

    server: ServerConfig = field(default_factory=ServerConfig)
    """How batches are planned and what is announced; what concerns sockets and keys counts at the ingress."""

    hang_s: float = 60.0
    """An inference that takes longer than this, in seconds, makes the replica unhealthy: Ray replaces it."""

    warm_up: bool = True
    """Infer once for each size of batch before the replica is asked anything."""

    log_level: LogLevel = "info"

    def __post_init__(self) -> None:
        if not self.hang_s > 0:
            raise ConfigError(f"hang_s must be above 0, got {self.hang_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressSettings:
    """What an ingress replica does with those who come."""

    paths: Mapping[str, str] = field(default_factory=lambda: {"/": POLICY_APPLICATION})
    """URL path to the name of the policy application that serves it. With one entry every path leads there;
    with several, any other path is answered with HTTP 404."""

    server: ServerConfig = field(default_factory=ServerConfig)
    """Keys, connections and bounds. What is announced is the policy application's business."""

    link: LinkSettings = field(default_factory=LinkSettings)

    log_level: LogLevel = "info"

    deployed_by: str = ""
    """The command whose the application is, and with which it ends; empty: a config file's."""

    version: str = ""
    """Of the package with which that command deployed it; empty likewise."""

    def __post_init__(self) -> None:
        if not self.paths:
            raise ConfigError("paths: expected at least one, such as {'/': 'policy'}")
        for path in self.paths:
            if not path.startswith("/") or "?" in path:
                raise ConfigError(f"paths: expected a URL path such as /pick, got {path!r}")

    def application(self, path: str) -> str | None:
        """Return whose a path is, with or without a query; None: nobody's."""
        if len(self.paths) == 1:
            return next(iter(self.paths.values()))
        return self.paths.get(path.partition("?")[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class RayOptions:
    """With `--engine ray`: how many processes, and where."""

    ray_address: str | None = None
    """Of a running Ray cluster, or auto for the one on this machine. None: Ray is started, here alone."""

    replicas: int = 2
    """Processes that have the policy; each has the whole of it in memory."""

    autoscale: tuple[int, int] | None = None
    """Fewest and most replicas, by how many requests are under way; instead of a fixed number."""

    requests_per_replica: float = 8.0
    """With autoscale: how many requests may be under way for each replica before another one is started."""

    replica_cpus: float = 1.0
    """CPUs that Ray sets aside for each replica."""

    replica_gpus: float = 0.0
    """GPUs likewise; 0.5 puts two replicas on each."""

    ingress_replicas: int = 2
    """Processes that have the robots' sockets; with one alone, its death disconnects everybody for a while."""

    also: tuple[str, ...] = ()
    """More checkpoints, each as /PATH=POLICY: robots choose by the path of their URL; --policy is at /."""

    hang_s: float = 60.0
    """An inference that takes longer than this, in seconds, has its replica replaced."""

    link: LinkSettings = field(default_factory=LinkSettings)

    def __post_init__(self) -> None:
        if self.replicas < 1 or self.ingress_replicas < 1:
            raise ConfigError("replicas and ingress_replicas must be at least 1")
        if self.autoscale is not None and not 1 <= self.autoscale[0] <= self.autoscale[1]:
            raise ConfigError(
                f"autoscale: expected fewest and most, from 1 on, got {self.autoscale}"
            )
        for said in self.also:
            path, equals, policy = said.partition("=")
            if not equals or not policy or not path.startswith("/") or path == "/":
                raise ConfigError(f"also: expected /PATH=POLICY, got {said!r}")
        paths = [said.partition("=")[0] for said in self.also]
        twice = sorted({path for path in paths if paths.count(path) > 1})
        if twice:
            raise ConfigError(
                f"also: expected one policy for each path, got several for {', '.join(twice)}. "
                "Give each its own path."
            )
        self._check_scale()

    def _check_scale(self) -> None:
        """Check that no number stands there that would not count.

        Raises:
            ConfigError: One would not.
        """
        defaults = {each.name: each.default for each in fields(self)}
        if self.autoscale is not None and self.replicas != defaults["replicas"]:
            raise ConfigError(
                f"replicas={self.replicas} and autoscale={self.autoscale}: give one of them"
            )
        if self.autoscale is None and (
            self.requests_per_replica != defaults["requests_per_replica"]
        ):
            raise ConfigError(
                "requests_per_replica without autoscale: the number of replicas is fixed. Say autoscale too."
            )

    @property
    def more(self) -> dict[str, str]:
        """URL path to policy, of those named with `also`."""
        return {path: policy for path, _, policy in (said.partition("=") for said in self.also)}

    @property
    def scale(self) -> dict[str, Any]:
        """The policy deployment's size, as Ray Serve takes it."""
        if self.autoscale is None:
            return {"num_replicas": self.replicas}
        least, most = self.autoscale
        config = {
            "min_replicas": least,
            "max_replicas": most,
            "target_ongoing_requests": self.requests_per_replica,
        }
        return {"autoscaling_config": config}


def settings_from(kind: type[T], said: Mapping[str, Any], where: str) -> T:
    """Return settings as a config file says them: nested maps, every name known.

    Raises:
        ConfigError: A name or a value is none.
    """
    _check_names(kind, said, where)
    try:
        return msgspec.convert(said, kind)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"{where}: {exc}") from exc


def _check_names(kind: Any, said: Mapping[str, Any], where: str) -> None:
    known = {each.name for each in fields(kind)}
    unknown = sorted(set(said) - known)
    if unknown:
        raise ConfigError(
            f"{where}: there is no setting {', '.join(unknown)}; there are {', '.join(sorted(known))}"
        )
    hints = get_type_hints(kind)
    for name, value in said.items():
        if is_dataclass(hints[name]) and isinstance(value, Mapping):
            _check_names(hints[name], value, f"{where}.{name}")
