# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket keys`: what it prints where, and what it refuses."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pi05_websocket import cli
from pi05_websocket.cli.keys import listing
from pi05_websocket.server.keys import RobotKey
from pi05_websocket.server.keys_file import read_keys

SECRET = re.compile(r"pi05_[\w-]{43}\n")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "keys.json"


def test_the_secret_alone_goes_to_standard_output(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that `> arm.key` makes the file the robot wants; what to do with it is said beside."""
    assert cli.main(["keys", "add", "arm", "--rate", "5", "--path", "/cube", "/belt"]) == 0
    shown = capsys.readouterr()
    assert SECRET.fullmatch(shown.out)
    assert "it is not shown again" in shown.err
    key = read_keys(here).of_secret(shown.out.strip())
    assert key is not None
    assert (key.name, key.requests_per_second, key.paths) == ("arm", 5.0, ("/cube", "/belt"))


def test_rotate_and_revoke(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another secret, then none."""
    assert cli.main(["keys", "add", "arm", "--expires-days", "3"]) == 0
    old = capsys.readouterr().out.strip()
    assert cli.main(["keys", "rotate", "arm"]) == 0
    new = capsys.readouterr().out.strip()
    keys = read_keys(here)
    assert keys.of_secret(old) is None
    assert keys.of_secret(new) is not None
    assert keys.keys[0].expires is not None
    assert cli.main(["keys", "revoke", "arm"]) == 0
    assert capsys.readouterr() == ("", "revoked arm: it opens nothing more\n")
    assert read_keys(here).keys == ()


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each, no secrets."""
    assert cli.main(["keys", "add", "arm", "--file", "other.json"]) == 0
    capsys.readouterr()
    assert cli.main(["keys", "list", "--file", "other.json"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "CREATED", "EXPIRES", "RATE", "PRIORITY", "PATHS"]
    assert re.fullmatch(r"arm   \d{4}-\d\d-\d\d \d\d:\d\d  never    any   normal    any", line)


def test_the_table_says_what_is_over() -> None:
    """Names, times, rates and paths in columns."""
    now = datetime(2026, 1, 2, tzinfo=UTC)
    key = RobotKey(
        name="guest",
        salt=bytes(16),
        sha256=bytes(32),
        created=now - timedelta(days=1),
        expires=now,
        requests_per_second=0.5,
        paths=("/cube",),
    )
    assert listing((key,), now) == [
        "NAME   CREATED           EXPIRES                  RATE   PRIORITY  PATHS",
        "guest  2026-01-01 00:00  2026-01-02 00:00 (over)  0.5/s  normal    /cube",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["add"], "keys add needs the key's name"),
        (["list", "arm"], "keys list takes no name"),
        (["list"], "the keys file cannot be read"),
        (["add", "two words"], "expected a name of letters"),
        (["add", "arm", "--rate", "-1"], "--rate: expected 0 to 1e6"),
        (["add", "arm", "--rate", "nan"], "--rate: expected 0 to 1e6"),
        (["add", "arm", "--expires-days", "99999999"], "--expires-days: expected 0 to 36500"),
        (["add", "arm", "--path", "cube"], "paths"),
        (["rotate", "arm", "--rate", "1"], "--rate, --path and --priority belong to add"),
        (["revoke", "arm", "--expires-days", "1"], "--expires-days belongs to add and rotate"),
        (["give", "arm"], "invalid choice"),
    ],
)
def test_refusals(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong words are told in words, and change nothing."""
    assert cli.main(["keys", *words]) == 2
    assert message in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Every setting is explained, with examples."""
    assert cli.main(["keys", "--help"]) == 0
    shown = capsys.readouterr().out
    for word in ("--file", "--expires-days", "--rate", "--path", "examples:"):
        assert word in shown
