# SPDX-License-Identifier: Apache-2.0
"""A policy on Ray Serve, from the command line: connect to Ray or start it, deploy, take down what is its own.

Several commands may share a Ray cluster. Each application belongs to the command that deployed it last, and
ends with it alone; a Ray that a command has started is its own, and no other command may use it.

Runs on the main thread; Ray is imported here, after its environment is set.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pi05_websocket import __version__
from pi05_websocket.engine_ray import environment
from pi05_websocket.engine_ray.config import (
    INGRESS_APPLICATION,
    POLICY_APPLICATION,
    IngressSettings,
    LogLevel,
    PolicySettings,
    RayOptions,
)
from pi05_websocket.engine_ray.exposure import EVERYWHERE, listens_everywhere, why_not_on_ray
from pi05_websocket.engine_ray.settings_words import changes
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
        *,
        warm_up: bool = True,
        log_level: LogLevel = "info",
    ) -> None:
        """Prepare it.

        Args:
            policy: As for `pi05-websocket serve --policy`.
            host: Address for Ray's HAProxy to listen on.
            port: TCP port; 0 finds one, or takes that of the Ray Serve that runs.
            config: Of the server.
            options: Of Ray.
            say: Told what is going on, for a person.
            warm_up: Whether each replica infers before it is asked anything.
            log_level: Of all processes.

        Raises:
            ConfigError: The settings cannot be had with Ray.
        """
        _refuse(why_not_on_ray(host, config, {}))
        if config.keys is not None:  # other processes read it, with other working folders
            config = replace(config, keys=str(Path(config.keys).expanduser().resolve()))
        names = [POLICY_APPLICATION, *map(application_named, options.more)]
        if len(set(names)) < len(names):
            raise ConfigError(
                f"--also {', '.join(options.more)}: expected paths that differ in letters and digits, "
                f"got applications {', '.join(names)}"
            )
        self.name = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(4)}"
        """Of this command, for others: machine, process, and what makes it unique."""

        self.ingress_settings = IngressSettings(
            paths={"/": POLICY_APPLICATION}
            | {path: application_named(path) for path in options.more},
            server=config,
            link=options.link,
            log_level=log_level,
            deployed_by=self.name,
            version=__version__,
        )
        specs = {"/": policy} | options.more
        self.policy_settings = {
            application_named(path): PolicySettings(
                policy=spec,
                server=config,
                hang_s=options.hang_s,
                warm_up=warm_up,
                log_level=log_level,
            )
            for path, spec in specs.items()
        }
        self.host = EVERYWHERE if listens_everywhere(host) else host
        self.port = port
        self._config = config
        self.options = options
        self._say = say
        self._started: list[str] = []
        self._started_ray = False
        self._started_serve = False

    def __repr__(self) -> str:
        return f"<RayEngine {self.host}:{self.port} {', '.join(self._started) or 'idle'}>"

    def __enter__(self) -> Self:
        try:
            machines = self._connect()
            self._start_serve(machines)
            for application in self.policy_settings:
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
        """Take down what is this command's own, robots first. Safe to call twice."""
        import ray
        from ray import serve

        if not ray.is_initialized():
            return
        try:
            if self._started_serve:
                self._say_what_else_ends()
                self._say("stopping Ray Serve")
                serve.shutdown()  # type: ignore[no-untyped-call]
            else:
                self._take_down()
        finally:
            self._started.clear()
            ray.shutdown()

    def _take_down(self) -> None:
        from ray import serve

        from pi05_websocket.engine_ray.serve_state import serving

        running = serving()
        owners = {} if running is None else running.applications()
        for application in reversed(self._started):
            if owners.get(application) == self.name:
                self._say(f"taking down the application {application}")
                serve.delete(application)
            elif application in owners:
                whose = owners[application] or "a config file"
                self._say(f"the application {application} stays: it is now that of {whose}")

    def _say_what_else_ends(self) -> None:
        """Name what others have put on the Ray that ends with this command."""
        from pi05_websocket.engine_ray.serve_state import serving

        running = serving()
        others = [] if running is None else sorted(set(running.applications()) - {*self._started})
        if others:
            self._say(f"with it ends what others have deployed on it: {', '.join(others)}")

    # -------------------------------------------------------------------------------------------------

    def _connect(self) -> dict[str, tuple[str, ...]]:
        """Connect to Ray, or start it; return the addresses of its machines."""
        environment.prepare(os.environ)
        address = self.options.ray_address
        with self._saying("starting Ray" if address is None else f"connecting to Ray at {address}"):
            from pi05_websocket.engine_ray import joining

            if address is not None:
                joining.join(address)
            else:
                self._started_ray = True
                joining.start(self._cpus())
            return joining.look_at_machines()

    def _cpus(self) -> int:
        """Return as many as the applications ask for: a Ray of our own has nobody else to leave room for."""
        options = self.options
        most = options.replicas if options.autoscale is None else options.autoscale[1]
        policies = most * options.replica_cpus * len(self.policy_settings)
        return max(os.cpu_count() or 1, int(policies + options.ingress_replicas) + 1)

    def _start_serve(self, machines: Mapping[str, tuple[str, ...]]) -> None:
        """Start Ray Serve with its HAProxy, where it does not run already.

        Raises:
            ConfigError: It does not start, a port is in use, for instance; or it listens elsewhere; or where
                others could reach it who should not.
        """
        from ray import serve

        from pi05_websocket.engine_ray.serve_state import serving

        running = serving()
        if running is not None:
            self._use(running.host, running.port)
        _refuse(why_not_on_ray(self.host, self._config, machines))
        if running is not None:
            return
        self.port = self.port or _free_port(self.host)
        with self._saying("starting Ray Serve"):
            self._started_serve = self._started_ray
            try:
                serve.start(
                    proxy_location="EveryNode",
                    http_options={"host": self.host, "port": self.port},
                )
            except RuntimeError as exc:  # Ray's own stack stands before what HAProxy says
                said = str(exc).rpartition("RuntimeError: ")[2]
                raise ConfigError(f"Ray Serve does not start: {said}") from exc

    def _use(self, host: str | None, port: int) -> None:
        """Serve where Ray Serve listens already.

        Raises:
            ConfigError: That is elsewhere than this command says.
        """
        there = EVERYWHERE if listens_everywhere(host) else str(host)
        if there != self.host or self.port not in (0, port):
            raise ConfigError(
                f"Ray Serve is running already, at {there}:{port}, and cannot move: expected that, got "
                f"{self.host}:{self.port}. Say --host {there} --port {port}; or stop it, with all that it "
                "serves: serve shutdown."
            )
        self.port = port
        self._say(f"Ray Serve is running already, at {there}:{port}")

    def _deploy_policy(self, application: str) -> None:
        from pi05_websocket.engine_ray import apps

        options, settings = self.options, self.policy_settings[application]
        what = f"loading {settings.policy} in each replica"
        with self._saying(what), self._owning(application):
            made = apps.policy_application(
                asdict(settings),
                deployed_by=self.name,
                **options.scale,
                ray_actor_options={
                    "num_cpus": options.replica_cpus,
                    "num_gpus": options.replica_gpus,
                },
            )
            _run(made, application, None)

    def _deploy_ingress(self) -> None:
        """Deploy the ingress; where there is one of this version, its settings change, and robots stay."""
        from pi05_websocket.engine_ray import apps
        from pi05_websocket.engine_ray.serve_state import serving

        running = serving()
        before = None if running is None else running.ingress()
        what = "starting the ingress"
        if before is not None:
            what = changes(before, self.ingress_settings)
        elif running is not None and INGRESS_APPLICATION in running.applications():
            what = "replacing the ingress, whose settings are not known here; robots connect again"
        with self._saying(what), self._owning(INGRESS_APPLICATION):
            made = apps.ingress_application(
                asdict(self.ingress_settings), num_replicas=self.options.ingress_replicas
            )
            _run(made, INGRESS_APPLICATION, "/")

    @contextlib.contextmanager
    def _owning(self, application: str) -> Iterator[None]:
        """Take an application for one's own; one of others that cannot be replaced is left to its robots."""
        from pi05_websocket.engine_ray.serve_state import serving

        running = serving()
        if running is None or application not in running.applications():
            self._started.append(application)
            yield
            return
        try:
            yield
        except BaseException:
            self._say(
                f"the application {application} was there before and stays, as far as it runs; whoever deploys "
                "it again owns it"
            )
            raise
        self._started.append(application)

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


def _refuse(why: str | None) -> None:
    if why is not None:
        raise ConfigError(f"--engine ray: {why}")


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as probe:
        return int(probe.getsockname()[1])
