# SPDX-License-Identifier: Apache-2.0
"""The command `pi05-websocket`: a table of sub-commands, each imported when it is asked for.

In: words. Out: an exit code: 0 done, 1 it did not work, 2 the words make no sense, 130 Ctrl-C, 141 nobody
reads what is printed.
"""

from __future__ import annotations

import difflib
import importlib
import os
import select
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from pi05_websocket.errors import AccessRefused, CertificateRefused, Pi05WebsocketError

__all__ = ["COMMANDS", "EXIT_FAILED", "EXIT_OK", "EXIT_USAGE", "Command", "main"]

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_UNREAD = 141
"""As of a program that SIGPIPE ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One sub-command."""

    module: str
    """Module with `run(argv) -> exit code`; imported only when the command is used."""

    summary: str
    """One line for the overview."""


COMMANDS: dict[str, Command] = {
    "audit-images": Command(
        module="pi05_websocket.cli.audit_images",
        summary="Say what JPEG of each quality changes in a policy's answers to recorded observations.",
    ),
    "bench": Command(
        module="pi05_websocket.cli.bench",
        summary="Measure what distance costs: success of the simulated arm, ours beside every peer's rule.",
    ),
    "conformance": Command(
        module="pi05_websocket.cli.conformance",
        summary="Check a policy server, or a client, against the clauses of the protocol.",
    ),
    "control": Command(
        module="pi05_websocket.cli.control",
        summary="Stop a running robot, let it go on, give it another task, from another terminal.",
    ),
    "demo": Command(
        module="pi05_websocket.cli.demo",
        summary="Watch a simulated SO-101 do its task over a policy server, everything on this machine.",
    ),
    "doctor": Command(
        module="pi05_websocket.cli.doctor",
        summary="Find what is wrong with a robot, a server and their settings before anything moves.",
    ),
    "emulate": Command(
        module="pi05_websocket.cli.emulate",
        summary="Emulate an SO-101 on a serial port, for LeRobot's own driver.",
    ),
    "explain": Command(
        module="pi05_websocket.cli.explain",
        summary="Say why a recorded arm paused or jumped, in words and as a picture.",
    ),
    "keys": Command(
        module="pi05_websocket.cli.keys",
        summary="Make and revoke the keys that let robots into a policy server.",
    ),
    "replay": Command(
        module="pi05_websocket.cli.replay",
        summary="Serve a recording's answers, or compare another server's answers with them.",
    ),
    "run": Command(
        module="pi05_websocket.cli.run",
        summary="Drive a robot with a policy server, without LeRobot.",
    ),
    "serve": Command(
        module="pi05_websocket.cli.serve",
        summary="Serve a policy to robots over OpenPI's protocol.",
    ),
    "tune": Command(
        module="pi05_websocket.cli.tune",
        summary="Measure a policy server and recommend settings for it.",
    ),
}

_KEY_FLAGS = (
    "Name the environment variable that holds the key with --api-key-env, or the file with --api-key-file; "
    "--auth-scheme bearer for servers that want a bearer token."
)
_CERTIFICATE_FLAGS = (
    "Give the authority's file as --ca-file, or, of a server with --tls auto, its "
    "--tls-fingerprint."
)

_EXAMPLES = """\
examples:
  pi05-websocket demo                                 the whole loop, nothing to prepare
  pi05-websocket serve --policy expert                the simulator's policy, for this machine
  pi05-websocket serve --policy my_module:make_policy your own
  pi05-websocket keys add NAME                        a key for a robot on the network
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    try:
        code = _main(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        if not _unread():  # a connection's, and no business of a `| head`
            raise
        return EXIT_UNREAD
    return code


def _unread() -> bool:
    """Say whether nobody reads standard output any more; then what is left of it goes nowhere."""
    try:
        out = sys.stdout.fileno()
    except (OSError, ValueError):  # it is no file
        return False
    poll = select.poll()
    poll.register(out, 0)
    if not poll.poll(0):  # errors and hang-ups are told without being asked for
        return False
    # Python flushes once more at its end, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), out)
    return True


def _main(argv: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return EXIT_OK if words else EXIT_USAGE
    if words[0] in ("-V", "--version", "version"):
        print(f"pi05-websocket {_version()}")
        return EXIT_OK
    command = COMMANDS.get(words[0])
    if command is None:
        print(_unknown(words[0]), file=sys.stderr)
        return EXIT_USAGE
    return _run(command, words[1:])


def _run(command: Command, argv: list[str]) -> int:
    try:
        return int(importlib.import_module(command.module).run(argv))
    except Pi05WebsocketError as exc:
        print(f"error: {_in_flags(exc)}", file=sys.stderr)
        return EXIT_USAGE if isinstance(exc, ValueError) else EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _in_flags(exc: Pi05WebsocketError) -> str:
    """Return an error's text; what to do about it in words of the command line, where Python's are others."""
    if isinstance(exc, AccessRefused):
        return f"{exc.said}. {_KEY_FLAGS}"
    if isinstance(exc, CertificateRefused) and not exc.expected:
        return f"{exc.said}. {_CERTIFICATE_FLAGS}"
    return str(exc)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in sorted(COMMANDS.items())]
    return "\n".join(
        [
            "usage: pi05-websocket COMMAND [--help] ...",
            "",
            "A robot here, its policy on another computer: OpenPI's protocol at both ends.",
            "",
            "commands:",
            *lines,
            "",
            _EXAMPLES.rstrip(),
            "",
            "pi05-websocket COMMAND --help tells each command's settings; --version which one this is.",
        ]
    )


def _unknown(word: str) -> str:
    close = difflib.get_close_matches(word, COMMANDS, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(sorted(COMMANDS))}."
    return f"error: no command {word!r}. {hint} See pi05-websocket --help."


def _version() -> str:
    try:
        return version("lerobot_policy_pi05_websocket")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "(not installed)"
