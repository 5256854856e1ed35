# SPDX-License-Identifier: Apache-2.0
"""The command's overview, its exit codes, and that it stays light."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pi05_websocket import cli


@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), (["-h"], 0), (["help"], 0), ([], 2)])
def test_overview(words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command is listed with what it does; no words at all is a mistake, but a taught one."""
    assert cli.main(words) == code
    shown = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert f"  {name}" in shown
        assert command.summary in shown
    assert "examples:" in shown


@pytest.mark.parametrize("command", ["doctor", "conformance"])
def test_exit_codes_are_a_line_of_their_own(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Below the examples, not behind the last one."""
    assert cli.main([command, "--help"]) == 0
    assert any(line.startswith("exit codes: 0") for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--help"], ["replay", "--help"], ["doctor", "--help"]])
def test_a_closed_pipe_ends_it_quietly(words: list[str], unbuffered: str) -> None:
    """As `| head` does: no traceback, no complaint at the end."""
    read, write = os.pipe()
    os.close(read)
    program = f"import sys; from pi05_websocket.cli import main; sys.exit(main({words!r}))"
    with open(write, "wb") as unread:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdout=unread,
            stderr=subprocess.PIPE,
            timeout=60,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_connection_that_breaks_is_no_closed_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error is not swallowed."""
    (tmp_path / "broken_command.py").write_text("def run(argv):\n    raise BrokenPipeError\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(cli.COMMANDS, "break", cli.Command(module="broken_command", summary=""))
    with pytest.raises(BrokenPipeError):
        cli.main(["break"])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The installed version."""
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("pi05-websocket 0.")


@pytest.mark.parametrize(
    ("word", "hint"),
    [("serv", "Did you mean 'serve'?"), ("xyz", "There are: audit-images, bench, conformance")],
)
def test_unknown_command(word: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A typing mistake gets the word that was meant."""
    assert cli.main([word]) == 2
    assert hint in capsys.readouterr().err


def test_overview_imports_nothing_heavy() -> None:
    """The overview is there at once: no numpy, no tyro, no picows."""
    program = (
        "import sys; from pi05_websocket import cli; cli.main(['--help']);"
        "sys.exit(len({'numpy', 'tyro', 'picows', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert done.returncode == 0


def test_what_lets_in_is_said_in_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key and a certificate are given to a command with its flags, not with Python's settings."""
    (tmp_path / "refused_command.py").write_text(
        "from pi05_websocket import errors\n"
        "def run(argv):\n"
        "    kind = getattr(errors, argv[0])\n"
        "    facts = {'expected': argv[1]} if len(argv) > 1 else {}\n"
        "    raise kind('no', remedy='Set headers', **facts)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(cli.COMMANDS, "ask", cli.Command(module="refused_command", summary=""))
    told = []
    for words in (["AccessRefused"], ["CertificateRefused"], ["CertificateRefused", "sha256:1"]):
        assert cli.main(["ask", *words]) == 1
        told.append(capsys.readouterr().err)
    assert "--api-key-file" in told[0]
    assert "--ca-file" in told[1]
    assert ["Set headers" in text for text in told] == [False, False, True]


def test_errors_become_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Our own errors end a command with a line and a code, without a traceback."""
    (tmp_path / "failing_command.py").write_text(
        "from pi05_websocket import errors\n"
        "def run(argv):\n"
        "    if argv == ['config']: raise errors.ConfigError('settings')\n"
        "    if argv == ['lost']: raise errors.ConnectionLost('gone')\n"
        "    raise KeyboardInterrupt\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(cli.COMMANDS, "fail", cli.Command(module="failing_command", summary=""))
    assert [cli.main(["fail", word]) for word in ("config", "lost", "Ctrl-C")] == [2, 1, 130]
    assert capsys.readouterr().err == "error: settings\nerror: gone\n"
