# SPDX-License-Identifier: Apache-2.0
"""The keys file on the disk: edits, what they leave behind, and two at once."""

from __future__ import annotations

import os
import stat
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pi05_websocket.errors import ConfigError
from pi05_websocket.server.keys_file import (
    add_key,
    read_keys,
    revoke_key,
    rotate_key,
)
from pi05_websocket.server.watching import signature

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the keys are."""
    return tmp_path / "keys.json"


def test_a_new_key_opens_and_its_secret_is_kept_nowhere(file: Path) -> None:
    """The secret has 256 random bits and is known by its hash alone; the file is its owner's."""
    secret = add_key(file, "arm", NOW, requests_per_second=5.0, paths=("/cube",))
    assert len(secret) == len("pi05_") + 43
    assert secret not in file.read_text()
    (key,) = read_keys(file).keys
    assert read_keys(file).of_secret(secret) == key
    assert (key.name, key.created, key.expires) == ("arm", NOW, None)
    assert (key.requests_per_second, key.paths, key.priority) == (5.0, ("/cube",), "normal")
    if sys.platform != "win32":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.skipif(sys.platform == "win32", reason="no such modes there")
def test_an_edited_file_stays_as_readable_as_it_was(file: Path) -> None:
    """The server may be another user of the file's group: it must read that a key is revoked."""
    add_key(file, "arm", NOW)
    file.chmod(0o640)
    revoke_key(file, "arm")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_rotating_keeps_what_the_key_opens(file: Path) -> None:
    """Another secret, the same rights; the old secret opens nothing."""
    old = add_key(file, "arm", NOW, requests_per_second=5.0)
    add_key(file, "other", NOW)
    new = rotate_key(file, "arm", NOW + timedelta(days=1))
    keys = read_keys(file)
    assert [key.name for key in keys.keys] == ["arm", "other"]
    assert keys.of_secret(old) is None
    assert keys.of_secret(new) is keys.named("arm")
    assert keys.keys[0].requests_per_second == 5.0


def test_revoking_takes_one_out(file: Path) -> None:
    """The others stay."""
    for name in ("a", "b", "c"):
        add_key(file, name, NOW)
    revoke_key(file, "b")
    assert [key.name for key in read_keys(file).keys] == ["a", "c"]


def test_a_rotated_key_must_be_of_use(file: Path) -> None:
    """A secret that opens nothing would be found out on the robot."""
    add_key(file, "guest", NOW, expires=NOW + timedelta(days=1))
    with pytest.raises(ConfigError, match="guest has expired; say --expires-days"):
        rotate_key(file, "guest", NOW + timedelta(days=2))
    rotate_key(file, "guest", NOW + timedelta(days=2), expires=NOW + timedelta(days=3))
    assert read_keys(file).keys[0].expires == NOW + timedelta(days=3)


def test_refusals_leave_the_file_as_it_was(file: Path) -> None:
    """A name that is taken, one that is none, one that is not there."""
    with pytest.raises(ConfigError, match=r"cannot be read: No such file.*keys add NAME"):
        revoke_key(file, "arm")
    add_key(file, "arm", NOW)
    before = file.read_bytes(), signature(file)
    with pytest.raises(ConfigError, match="there is a key arm already"):
        add_key(file, "arm", NOW)
    with pytest.raises(ConfigError, match=r"\.name"):
        add_key(file, "two words", NOW)
    with pytest.raises(ConfigError, match="no key leg; there are: arm"):
        rotate_key(file, "leg", NOW)
    assert (file.read_bytes(), signature(file)) == before
    assert os.listdir(file.parent) == ["keys.json"]


def test_a_file_that_is_none_is_not_overwritten(file: Path) -> None:
    """Somebody else's file of that name stays."""
    file.write_text("{}")
    with pytest.raises(ConfigError, match="no keys file"):
        add_key(file, "arm", NOW)
    assert file.read_text() == "{}"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """It says which."""
    with pytest.raises(ConfigError, match=r"nowhere.keys.json: cannot be written: No such file"):
        add_key(tmp_path / "nowhere" / "keys.json", "arm", NOW)


def test_what_cannot_be_replaced_leaves_no_pieces(tmp_path: Path) -> None:
    """A folder of that name cannot be a keys file."""
    (tmp_path / "keys.json").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        add_key(tmp_path / "keys.json", "arm", NOW)
    assert os.listdir(tmp_path) == ["keys.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs rights to make links there")
def test_a_link_stays_one(file: Path) -> None:
    """The file it points to is replaced."""
    link = file.with_name("link.json")
    link.symlink_to(file)
    add_key(link, "arm", NOW)
    assert link.is_symlink()
    assert [key.name for key in read_keys(file).keys] == ["arm"]


@pytest.mark.skipif(sys.platform == "win32", reason="no lock there")
def test_edits_at_once_are_all_kept(file: Path) -> None:
    """Each waits for the one before."""
    threads = [
        threading.Thread(target=add_key, args=(file, f"arm{i}", NOW), name=f"edit {i}")
        for i in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in read_keys(file).keys} == {f"arm{i}" for i in range(12)}


def test_a_file_that_changes_is_noticed(file: Path) -> None:
    """None while it is not there, and another value after each edit."""
    seen = [signature(file)]
    for name in ("a", "b"):
        add_key(file, name, NOW)
        seen.append(signature(file))
    assert seen[0] == (None,)
    assert len(set(seen)) == 3
