# SPDX-License-Identifier: Apache-2.0
"""Every flag of `pi05-websocket serve` counts, or is refused with what to do instead."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pi05_websocket import cli
from pi05_websocket.cli.serve import ServeCommand
from pi05_websocket.cli.serve_flags import NOT_ON_RAY, ON_RAY, check_flags, flag_of, leaves
from pi05_websocket.cli.serve_policy import PolicyChoice
from pi05_websocket.cli.serve_ray import engine_for
from pi05_websocket.engine_ray.config import RayOptions
from pi05_websocket.errors import ConfigError

BASE = ServeCommand(engine="ray", choice=PolicyChoice(policy="m:f"))
LEAVES = dict(leaves(ServeCommand()))

OTHER: dict[str, Any] = {
    "choice.policy": "m:g",
    "choice.path": "folder",
    "choice.device": "cpu",
    "choice.dtype": "float16",
    "upstream": ("ws://10.0.0.1:8000",),
    "host": "0.0.0.0",
    "log_level": "debug",
    "config.keys": "/secrets/keys.json",
    "config.tls": "auto",
    "config.seed": 7,
    "config.max_message_bytes": 2048,
    "config.max_connections_per_address": 5,
    "config.dialect": "starvla",
    "gateway.upstream_tls_fingerprint": ("sha256:00",),
    "gateway.upstream_connections": 3,
    "gateway.upstream_mismatch": "allow",
    "ops.ops_port": 9090,
    "ops.ops_host": "10.0.0.1",
    "ray.autoscale": (1, 4),
    "ray.also": ("/cube=m:g",),
}
"""A value that is not the default, where adding one makes none."""

COMPANIONS: dict[str, dict[str, Any]] = {
    "choice.device": {"choice.policy": "", "choice.path": "folder"},
    "choice.dtype": {"choice.policy": "", "choice.path": "folder"},
    "host": {"config.insecure": True},
    "config.behind_proxy": {"config.keys": "/secrets/keys.json"},
    "config.tls_cert": {"config.tls_key": "key.pem"},
    "config.tls_key": {"config.tls_cert": "cert.pem"},
    "config.tls_folder": {"config.tls": "auto"},
    "config.tls_client_ca": {"config.tls": "auto"},
    "ops.ops_host": {"ops.ops_port": 9000},
    "ops.ops_admin_key_file": {"ops.ops_port": 9000},
    "ray.requests_per_replica": {"ray.autoscale": (1, 4)},
}
"""What a flag does not go without."""


def other(path: str) -> Any:
    """Return a value that is not the default."""
    if path in OTHER:
        return OTHER[path]
    default = LEAVES[path]
    if isinstance(default, bool):
        return not default
    return "file" if default is None else default + 1


def changed(command: Any, path: str, value: Any) -> Any:
    """Return the command with one setting changed."""
    first, _, rest = path.partition(".")
    return replace(
        command, **{first: changed(getattr(command, first), rest, value) if rest else value}
    )


def command_with(path: str) -> tuple[Any, Any]:
    """Return a command without and one with a flag."""
    if path == "choice.path":
        return BASE, replace(BASE, choice=PolicyChoice(path=other(path)))
    command = BASE
    for name, value in COMPANIONS.get(path, {}).items():
        command = replace_both(command, name, value)
    return command, replace_both(command, path, other(path))


def replace_both(command: Any, path: str, value: Any) -> Any:
    """Change a setting; both files of a certificate at once, since neither goes alone."""
    if path in ("config.tls_cert", "config.tls_key"):
        config = replace(command.config, tls_cert="cert.pem", tls_key="key.pem")
        return replace(command, config=config)
    return changed(command, path, value)


def deployed(command: Any) -> str:
    """Return everything that goes to Ray."""
    made = engine_for(command, print)
    ingress = replace(made.ingress_settings, deployed_by="")
    return repr((made.host, made.port, ingress, made.policy_settings, made.options))


def test_none_is_forgotten() -> None:
    """A new flag has to be put into one of the two lists."""
    assert set(LEAVES) == set(NOT_ON_RAY) | ON_RAY
    assert set(NOT_ON_RAY) & ON_RAY == set()


@pytest.mark.parametrize("path", sorted(ON_RAY - {"engine"}))
def test_what_counts_goes_to_ray(path: str) -> None:
    """Into the settings of an application, or of Ray."""
    without, with_it = command_with(path)
    check_flags(with_it)
    assert deployed(with_it) != deployed(without)


@pytest.mark.parametrize("path", sorted(NOT_ON_RAY))
def test_what_does_not_is_refused(path: str) -> None:
    """By its name, with what to do instead."""
    _, command = command_with(path)
    with pytest.raises(ConfigError) as caught:
        check_flags(command)
    assert f"{flag_of(path)}: {NOT_ON_RAY[path]}" in str(caught.value)


@pytest.mark.parametrize("path", LEAVES)
def test_each_has_the_flag_that_is_named(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What a refusal names is what one can say."""
    assert cli.main(["serve", "--help"]) == 0
    said = capsys.readouterr().out
    assert flag_of(path) in said


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--engine", "ray", "--ops-port", "9090"], "--ops-port: the operations port is the plain"),
        (["--engine", "ray", "--upstream", "ws://h:1"], "--upstream: Ray runs policies"),
        (["--engine", "ray", "--max-message-bytes", "20000000"], "16777216 bytes at most"),
        (["--replicas", "3"], "--replicas: say --engine ray too"),
        (["--link.deadline-s", "3"], "--link.deadline-s: say --engine ray too"),
        (["--upstream-retries", "3"], "--upstream-retries: say --upstream too"),
    ],
)
def test_from_the_command_line(
    flags: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is started."""
    assert cli.main(["serve", "--policy", "m:f", *flags]) != 0
    assert why in capsys.readouterr().err


def test_the_plain_server_and_a_gateway_take_theirs() -> None:
    """Only what does not count is refused."""
    check_flags(replace(BASE, engine="own"))
    check_flags(
        changed(replace(BASE, engine="own", upstream=("ws://h:1",)), "gateway.upstream_retries", 3)
    )
    check_flags(replace(BASE, ray=RayOptions(replicas=4)))
