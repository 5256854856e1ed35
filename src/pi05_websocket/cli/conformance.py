# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket conformance`: check a server, or with `--listen` a client, against the protocol's clauses.

In: words. Out: a table or JSON; exit code 0 if every MUST that was looked at is kept, 1 if not, 2 if
the words make no sense.
"""

from __future__ import annotations

import json
import ssl
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import tyro

from pi05_websocket.cli import EXIT_FAILED, EXIT_OK
from pi05_websocket.cli.server_access import ServerKey
from pi05_websocket.conformance.checks import Needs, selected
from pi05_websocket.conformance.examine_client import ClientExamination
from pi05_websocket.conformance.examine_server import SERVER_CHECKS, examine_server
from pi05_websocket.conformance.observing import made_up, read_observation
from pi05_websocket.conformance.target import ServerSettings
from pi05_websocket.conformance.verdicts import Verdict, as_maps, conforms, report
from pi05_websocket.conformance.visit import ClientSettings
from pi05_websocket.errors import ConfigError
from pi05_websocket.wire.dialects import DialectName

__all__ = ["ConformanceCommand", "run"]

_DESCRIPTION = """\
Check a policy server, or with --listen a client, against the clauses of docs/reference/protocol.md.

A server is asked with made-up observations; nothing moves. What a weak server may die of needs --rough.
A client is answered with made-up chunks that repeat the state it sends: never a robot that can move.

examples:
  pi05-websocket conformance ws://gpu-box:8000
  pi05-websocket conformance ws://gpu-box:8000 --keymap droid --only S-10 S-14
  pi05-websocket conformance ws://gpu-box:8000/roboarena --dialect roboarena --keymap droid --rough
  pi05-websocket conformance --listen 8000 --json verdicts.json

exit codes: 0 every MUST looked at is kept, 1 one is not or could not be seen, 2 the words make no sense
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConformanceCommand:
    """What to check."""

    url: Annotated[str, tyro.conf.Positional] = ""
    """The server, ws:// or wss://; nothing with --listen."""

    listen: int | None = None
    """Be a server on this port and check the client that connects; 0: a free port."""

    host: str = "127.0.0.1"
    """Address to listen on."""

    dialect: DialectName = "openpi"
    """The server's."""

    keymap: str = "so101"
    """Whose names a made-up observation has."""

    observation: Path | None = None
    """File with an observation that the server takes, one message in the wire's encoding."""

    access: tyro.conf.OmitArgPrefixes[ServerKey] = field(default_factory=ServerKey)

    only: tuple[str, ...] = ()
    """Clauses or checks to look at, such as S-10 or order."""

    skip: tuple[str, ...] = ()
    """Clauses or checks to leave out."""

    read_only: bool = False
    """Send no request: only what comes before the first one is looked at."""

    rough: bool = False
    """Also send what a weak server may die of: hostile arrays, broken frames, half connections."""

    patience: float | None = None
    """Longest wait for a server's next word (5 s), or for what a client does next (10 s)."""

    first_patience: float = 60.0
    """Longest wait for a server's first answer, in seconds: a model may be compiling."""

    hold: float = 1.0
    """How long a client's answer is held back, its pings unanswered; 60 shows one that gives up at 40 s."""

    late: float = 3.0
    """Longest a client's answer is held back to see what becomes of it when it comes late."""

    action_horizon: int = 10
    """Rows of the chunks a client is answered with."""

    action_dim: int | None = None
    """Their columns; left out: as many as the observation's state has."""

    json: str | None = None
    """Write the verdicts to this file, for programs; -: to standard output instead of the table."""

    def check(self) -> None:
        """Check that the words go together.

        Raises:
            ConfigError: They do not.
        """
        if bool(self.url) == (self.listen is not None):
            raise ConfigError("conformance: give a server's URL, or --listen PORT for a client")
        if self.url and urlsplit(self.url).scheme not in ("ws", "wss"):
            raise ConfigError(f"url={self.url!r}: expected ws:// or wss://")
        if self.read_only and self.rough:
            raise ConfigError("--read-only and --rough contradict each other")

    def server(self) -> ServerSettings:
        """Return which server to check, and how.

        Raises:
            ConfigError: Key, certificate or observation cannot be had.
        """
        observation = (
            made_up(self.keymap) if self.observation is None else read_observation(self.observation)
        )
        return ServerSettings(
            url=self.url,
            observation=observation,
            headers=self.access.headers(),
            dialect=self.dialect,
            patience_s=5.0 if self.patience is None else self.patience,
            first_patience_s=self.first_patience,
            tls=self._tls(),
        )

    def client(self) -> ClientSettings:
        """Return where to wait for a client, and how."""
        return ClientSettings(
            host=self.host,
            port=self.listen or 0,
            patience_s=10.0 if self.patience is None else self.patience,
            hold_s=self.hold,
            late_s=self.late,
            action_horizon=self.action_horizon,
            action_dim=self.action_dim,
        )

    def _tls(self) -> ssl.SSLContext | None:
        if not self.url.startswith("wss:"):
            return None
        try:
            return ssl.create_default_context(cafile=self.access.ca_file)
        except OSError as exc:
            raise ConfigError(f"ca_file={self.access.ca_file!r}: {exc}") from exc


def run(argv: list[str]) -> int:
    """Run the command."""
    try:
        command = tyro.cli(
            ConformanceCommand,
            args=argv,
            prog="pi05-websocket conformance",
            description=_DESCRIPTION,
        )
    except SystemExit as exc:  # tyro has printed its help or what is wrong
        return exc.code if isinstance(exc.code, int) else EXIT_FAILED
    command.check()
    who, verdicts = _server(command) if command.url else _client(command)
    for_programs = json.dumps(as_maps(verdicts, who), indent=1)
    print(for_programs if command.json == "-" else report(verdicts, who))
    if command.json not in (None, "-"):
        Path(command.json or "").write_text(for_programs + "\n")
    return EXIT_OK if conforms(verdicts) else EXIT_FAILED


def _server(command: ConformanceCommand) -> tuple[str, list[Verdict]]:
    needs: tuple[Needs, ...] = ("connection",)
    if not command.read_only:
        needs += ("request",)
    if command.rough:
        needs += ("rough",)
    checks = selected(SERVER_CHECKS, only=command.only, skip=command.skip, needs=needs)
    if not checks:
        raise ConfigError(
            "no check is left: what --only names needs requests (no --read-only) or --rough"
        )
    return f"server {command.url}", list(examine_server(command.server(), checks))


def _client(command: ConformanceCommand) -> tuple[str, list[Verdict]]:
    try:
        examination = ClientExamination(command.client(), only=command.only, skip=command.skip)
    except OSError as exc:
        raise ConfigError(f"listen={command.listen}: {exc.strerror or exc}") from exc
    print(
        f"waiting for a client on {examination.url}; let it ask, and come back, until this ends",
        file=sys.stderr,
    )
    return f"client on {examination.url}", examination.run()
