# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket replay`: serve a recording's answers, or ask another server its questions and compare.

In: words. Out: a server until Ctrl-C; or a table and exit code 0 where the answers are the same, 1 where not.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from pi05_websocket.cli import EXIT_FAILED, EXIT_OK, serve
from pi05_websocket.cli.asking import connect, for_server
from pi05_websocket.cli.server_access import ServerAccess
from pi05_websocket.client import RemotePolicy
from pi05_websocket.errors import ConfigError, InvalidReply, ServerError
from pi05_websocket.recording.contents import Recording, open_recording
from pi05_websocket.recording.differences import Differences, as_dict, table
from pi05_websocket.wire.messages import read_actions

__all__ = ["ReplayCommand", "run"]

_DESCRIPTION = """\
Play back what was recorded (pi05-websocket run --record DIR, --policy.record=DIR).

Without --to the recorded answers are served, one after the other, whatever a robot asks. With --to the recorded
observations are sent to another server and its answers compared with the recorded ones: did a new checkpoint,
another machine or a new key map change anything?

examples:
  pi05-websocket replay recordings --timing                      the same answers, and as late
  pi05-websocket replay recordings --to ws://new-box:8000        is it the same policy?
  pi05-websocket replay recordings/20261126-093000 --to ws://new-box:8000 --json report.json
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayCommand:
    """What to play back, and to whom."""

    recording: Annotated[Path, tyro.conf.Positional]
    """A recording's folder, an .mcap file, or a folder of recordings, of which the newest is taken."""

    to: str | None = None
    """Address of a server that is sent the recorded observations; None: the recorded answers are served."""

    host: str = "127.0.0.1"
    """Address to serve at."""

    port: int = 8000
    """TCP port; 0 lets the system choose one."""

    loop: bool = False
    """Begin again after the last answer; otherwise its last row is held."""

    timing: bool = False
    """Take as long for each answer as it took then."""

    tolerance: float = 0.5
    """Largest 95th percentile of a joint's differences that counts as the same, in action units."""

    most: int = 200
    """Observations to send, from the first on."""

    access: tyro.conf.OmitArgPrefixes[ServerAccess] = field(default_factory=ServerAccess)

    json: Path | None = None
    """Write the comparison here."""


@dataclass(slots=True)
class _Compared:
    differences: Differences
    failed: list[str]


def run(argv: list[str]) -> int:
    """Run the command."""
    try:
        command = tyro.cli(
            ReplayCommand, args=argv, prog="pi05-websocket replay", description=_DESCRIPTION
        )
    except SystemExit as exc:  # tyro has printed its help or what is wrong
        return exc.code if isinstance(exc.code, int) else EXIT_FAILED
    recording = open_recording(command.recording)
    if command.to is None:
        return serve.run(_serve_words(command))
    with connect(command.to, command.access) as policy:
        compared = _compare(recording, policy, command.most)
    return _report(command, compared, recording.settings)


def _serve_words(command: ReplayCommand) -> list[str]:
    options = [name for name in ("loop", "timing") if getattr(command, name)]
    spec = f"replay:{command.recording}{'?' + '&'.join(options) if options else ''}"
    return ["--policy", spec, "--host", command.host, "--port", str(command.port)]


def _compare(recording: Recording, policy: RemotePolicy, most: int) -> _Compared:
    found = _Compared(Differences(), [])
    for asked, answered in enumerate(recording.answered()):
        if asked == most:
            break
        observation = for_server(answered.observation(), policy.metadata)
        try:
            actions = read_actions(policy.infer(observation))
        except (ServerError, InvalidReply) as exc:
            found.failed.append(f"request {answered.seq}: {exc}")
            continue
        found.differences.add(answered.actions, actions)
        if sys.stderr.isatty():
            print(f"\r\033[K{asked + 1} observations", end="", file=sys.stderr, flush=True)
    if not found.differences.observations and not found.failed:
        raise ConfigError(f"{recording!r}: no request in it was answered")
    return found


def _report(command: ReplayCommand, compared: _Compared, settings: dict[str, str]) -> int:
    joints = settings.get("joint_names", "").split()
    found = compared.differences.joints()
    lengths = compared.differences.other_lengths
    same = not (compared.failed or lengths) and all(one.p95 <= command.tolerance for one in found)
    print(
        f"{compared.differences.observations} answers of {command.to} beside those recorded from "
        f"{settings.get('url') or 'a server'}; differences in action units"
    )
    print("\n".join(table(found, joints)))
    for text in compared.failed[:3]:
        print(text)
    if compared.failed:
        print(f"{len(compared.failed)} observations were not answered")
    if lengths:
        recorded, answered = lengths[0]
        print(
            f"{len(lengths)} chunks have another number of rows, as {answered} beside {recorded} recorded; "
            "compared is what both have"
        )
    verdict = "the same" if same else "not the same"
    print(f"{verdict}: 95 % of each joint's differences within {command.tolerance:g} was asked for")
    if command.json is not None:
        facts: dict[str, Any] = {
            "recording": str(command.recording),
            "server": command.to,
            "observations": compared.differences.observations,
            "failed": compared.failed,
            "other_lengths": lengths,
            "tolerance": command.tolerance,
            "same": same,
            "joints": as_dict(found, joints),
        }
        command.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return EXIT_OK if same else EXIT_FAILED
