# SPDX-License-Identifier: Apache-2.0
"""A policy on Ray Serve, from the command line: connect to Ray or start it, deploy, take down what was started.

Runs on the main thread; Ray is imported here, after its environment is set.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pi05_websocket.engine_ray import environment
from pi05_websocket.engine_ray.config import (
    INGRESS_APPLICATION,
    POLICY_APPLICATION,
    PolicySettings,
    RayOptions,
)
from pi05_websocket.errors import ConfigError
from pi05_websocket.server.config import ServerConfig

__all__ = ["RayEngine", "application_named"]

_SAY_AGAIN_S = 15.0


class RayEngine:
    """Serves while it is entered."""

    def __init__(
        self,
        policy: str,
        host: str,
        port: int,
        config: ServerConfig,
        options: RayOptions,
        say: Callable[[str], None],
    ) -> None:
        """Prepare it.

        Args:
            policy: As for `pi05-websocket serve --policy`.
            host: Address for Ray's HAProxy to listen on.
            port: TCP port; 0 finds one.
            config: Of the server.
            options: Of Ray.
            say: Told what is going on, for a person.

        Raises:
            ConfigError: The settings cannot be had with Ray.
        """
        if config.encrypted or config.tls_client_ca:
            raise ConfigError(
                "--engine ray has no TLS of its own: Ray's HAProxy speaks HTTP only. Put a proxy before it "
                "that ends TLS, and say --behind-proxy."
            )
        if config.keys is not None:  # other processes read it, with other working folders
            config = replace(config, keys=str(Path(config.keys).expanduser().resolve()))
        names = [POLICY_APPLICATION, *map(application_named, options.more)]
        if len(set(names)) < len(names):
            raise ConfigError(
                f"--also {', '.join(options.more)}: expected paths that differ in letters and digits, "
                f"got applications {', '.join(names)}"
            )
        self._paths = {"/": POLICY_APPLICATION} | {
            path: application_named(path) for path in options.more
        }
        self._policies = {POLICY_APPLICATION: policy} | {
            application_named(path): spec for path, spec in options.more.items()
        }
        self._host = host
        self.port = port or _free_port(host)
        self._config = config
        self._options = options
        self._say = say
        self._started: list[str] = []
        self._started_ray = False
        self._started_serve = False

    def __repr__(self) -> str:
        return f"<RayEngine {self._host}:{self.port} {', '.join(self._started) or 'idle'}>"

    def __enter__(self) -> Self:
        try:
            self._connect()
            self._start_serve()
            for application in self._policies:
                self._deploy_policy(application)
            self._deploy_ingress()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take down what was started here, robots first. Safe to call twice."""
        import ray
        from ray import serve

        if not ray.is_initialized():
            return
        if self._started_serve:
            self._say("stopping Ray Serve")
            serve.shutdown()  # type: ignore[no-untyped-call]
        else:
            for application in reversed(self._started):
                self._say(f"taking down the application {application}")
                serve.delete(application)
        self._started.clear()
        ray.shutdown()

    # -------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        environment.prepare(os.environ)
        address = self._options.ray_address
        with self._saying("starting Ray" if address is None else f"connecting to Ray at {address}"):
            import ray
            from ray import serve  # noqa: F401  # its log has its level from the import

            logging.getLogger("ray.serve").setLevel(logging.WARNING)
            if address is not None:
                ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
                self._check_nodes()
                return
            self._started_ray = True
            ray.init(
                address="local",
                num_cpus=self._cpus(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )

    def _cpus(self) -> int:
        """Return as many as the applications ask for: a Ray of our own has nobody else to leave room for."""
        options = self._options
        most = options.replicas if options.autoscale is None else options.autoscale[1]
        policies = most * options.replica_cpus * len(self._policies)
        return max(os.cpu_count() or 1, int(policies + options.ingress_replicas) + 1)

    def _check_nodes(self) -> None:
        """Look at the environment of every machine of the cluster.

        Raises:
            ConfigError: One was started without what is needed.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        @ray.remote(num_cpus=0)
        def variables() -> dict[str, str]:
            return {name: os.environ[name] for name in environment.NEEDED if name in os.environ}

        nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            found = ray.get(variables.options(scheduling_strategy=there).remote())
            environment.check(found, node["NodeManagerAddress"])

    def _start_serve(self) -> None:
        """Start Ray Serve with its HAProxy, where it does not run already.

        Raises:
            ConfigError: It does not start; a port is in use, for instance.
        """
        from ray import serve

        if serve.status().proxies:
            self._say("Ray Serve is running already: its address and port stay as they are")
            return
        with self._saying("starting Ray Serve"):
            self._started_serve = self._started_ray
            try:
                serve.start(
                    proxy_location="EveryNode",
                    http_options={"host": self._host or "0.0.0.0", "port": self.port},
                )
            except RuntimeError as exc:  # Ray's own stack stands before what HAProxy says
                said = str(exc).rpartition("RuntimeError: ")[2]
                raise ConfigError(f"Ray Serve does not start: {said}") from exc

    def _deploy_policy(self, application: str) -> None:
        from pi05_websocket.engine_ray import apps

        options = self._options
        settings = PolicySettings(
            policy=self._policies[application], server=self._config, hang_s=options.hang_s
        )
        with self._saying(f"loading {settings.policy} in each replica"):
            self._started.append(application)
            made = apps.policy_application(
                asdict(settings),
                **options.scale,
                ray_actor_options={
                    "num_cpus": options.replica_cpus,
                    "num_gpus": options.replica_gpus,
                },
            )
            _run(made, application, None)

    def _deploy_ingress(self) -> None:
        from ray import serve

        from pi05_websocket.engine_ray import apps

        if INGRESS_APPLICATION in serve.status().applications:
            self._say("the ingress is there already, and robots stay connected to it")
            return
        with self._saying("starting the ingress"):
            self._started.append(INGRESS_APPLICATION)
            said = {
                "paths": self._paths,
                "server": asdict(self._config),
                "link": asdict(self._options.link),
            }
            made = apps.ingress_application(said, num_replicas=self._options.ingress_replicas)
            _run(made, INGRESS_APPLICATION, "/")

    @contextlib.contextmanager
    def _saying(self, what: str) -> Iterator[None]:
        """Say what begins, and now and then that it goes on."""
        self._say(f"{what} ...")
        began, over = time.monotonic(), threading.Event()

        def say_again() -> None:
            while not over.wait(_SAY_AGAIN_S):
                self._say(f"{what}: {time.monotonic() - began:.0f} s so far")

        thread = threading.Thread(target=say_again, name="pi05-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def application_named(path: str) -> str:
    """Return the name of the application of a URL path."""
    words = "".join(letter if letter.isalnum() else "-" for letter in path.strip("/"))
    return f"{POLICY_APPLICATION}-{words}" if words else POLICY_APPLICATION


def _run(application: Any, name: str, route_prefix: str | None) -> None:
    """Deploy and wait until it is there.

    Raises:
        ConfigError: It does not start; says what its replicas say.
    """
    from ray import serve

    try:
        serve.run(application, name=name, route_prefix=route_prefix)
    except RuntimeError as exc:
        deployments = serve.status().applications[name].deployments.values()
        said = "\n".join(each.message for each in deployments if each.message)
        raise ConfigError(f"the application {name} does not start: {said or exc}") from exc


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as probe:
        return int(probe.getsockname()[1])
