# SPDX-License-Identifier: Apache-2.0
"""Who comes in while the file and the time change, on clocks of the test's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pi05_websocket.errors import ConfigError
from pi05_websocket.server.doorkeeper import Doorkeeper
from pi05_websocket.server.keys import RobotKey
from pi05_websocket.server.keys_file import add_key, revoke_key, rotate_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Clocks:
    """A time of day and monotonic seconds that stand still."""

    def __init__(self) -> None:
        self.today = NOW
        self.seconds = 0.0


class House:
    """A keys file, a doorkeeper who reads it, and clocks."""

    def __init__(self, file: Path) -> None:
        self.file, self.clocks = file, Clocks()
        self.secret = add_key(file, "arm", NOW, requests_per_second=2.0)
        self.doorkeeper = Doorkeeper(
            str(file), now=lambda: self.clocks.today, monotonic=lambda: self.clocks.seconds
        )

    def key(self, secret: str) -> RobotKey | None:
        """Come in with a secret; None: refused."""
        admitted = self.doorkeeper.admit([f"Bearer {secret}"], "/")
        return admitted if isinstance(admitted, RobotKey) else None


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A server's door."""
    return House(tmp_path / "keys.json")


def test_without_a_file_everybody_comes_in() -> None:
    """As at a stock server, and as often as they like."""
    doorkeeper = Doorkeeper(None)
    assert doorkeeper.admit([], "/") is None
    assert doorkeeper.may_stay(None, "/")
    assert doorkeeper.too_many(None) is None
    doorkeeper.look_again()
    assert repr(doorkeeper) == "<Doorkeeper everybody>"


def test_a_server_without_its_file_does_not_start(tmp_path: Path) -> None:
    """Nobody is let in by mistake."""
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Doorkeeper(str(tmp_path / "keys.json"))


def test_another_file_counts_at_once(house: House, tmp_path: Path) -> None:
    """Who came without a key goes when one is asked for; a file that is none changes nothing."""
    other = add_key(tmp_path / "others.json", "other", NOW)
    doorkeeper = Doorkeeper(None, now=lambda: NOW)
    doorkeeper.change(str(house.file))
    assert not doorkeeper.may_stay(None, "/")
    arm = doorkeeper.admit([f"Bearer {house.secret}"], "/")
    assert isinstance(arm, RobotKey)
    with pytest.raises(ConfigError, match="cannot be read"):
        doorkeeper.change(str(tmp_path / "none.json"))
    doorkeeper.change(str(house.file))
    assert doorkeeper.may_stay(arm, "/")
    doorkeeper.change(str(tmp_path / "others.json"))
    assert not doorkeeper.may_stay(arm, "/")
    assert isinstance(doorkeeper.admit([f"Bearer {other}"], "/"), RobotKey)
    doorkeeper.change(None)
    assert doorkeeper.admit([], "/") is None


def test_a_changed_file_counts_when_it_was_looked_at(house: House) -> None:
    """A new key opens, a revoked one does not and its connections go, the others stay."""
    other = add_key(house.file, "other", NOW)
    assert house.key(other) is None
    house.doorkeeper.look_again()
    arm, second = house.key(house.secret), house.key(other)
    assert arm is not None
    assert second is not None
    revoke_key(house.file, "arm")
    assert house.doorkeeper.may_stay(arm, "/")
    house.doorkeeper.look_again()
    assert not house.doorkeeper.may_stay(arm, "/")
    assert house.doorkeeper.may_stay(second, "/")
    assert house.key(house.secret) is None
    assert repr(house.doorkeeper) == "<Doorkeeper keys=1>"


def test_a_rotated_key_ends_what_its_old_secret_opened(house: House) -> None:
    """The name is the same, the secret is not."""
    arm = house.key(house.secret)
    new = rotate_key(house.file, "arm", NOW)
    house.doorkeeper.look_again()
    assert not house.doorkeeper.may_stay(arm, "/")
    assert house.key(new) is not None


def test_a_key_expires_without_a_change(house: House) -> None:
    """Time alone ends it."""
    secret = add_key(house.file, "guest", NOW, expires=NOW + timedelta(days=1))
    house.doorkeeper.look_again()
    guest = house.key(secret)
    house.clocks.today += timedelta(hours=23)
    assert house.doorkeeper.may_stay(guest, "/")
    house.clocks.today += timedelta(hours=1)
    assert not house.doorkeeper.may_stay(guest, "/")
    assert house.key(secret) is None


@pytest.mark.parametrize("broken", ["", "{}", None])
def test_a_broken_file_changes_nothing(
    house: House, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A typing mistake does not lock a fleet out; the log says so, once."""
    arm = house.key(house.secret)
    if broken is None:
        house.file.unlink()
    else:
        house.file.write_text(broken)
    house.doorkeeper.look_again()
    house.doorkeeper.look_again()
    assert house.doorkeeper.may_stay(arm, "/")
    assert house.key(house.secret) == arm
    (record,) = caplog.records
    assert "the keys stay as they were" in record.getMessage()


def test_the_rate_counts_over_all_connections(house: House) -> None:
    """A second's worth, then a text that says why, for this key alone."""
    arm = house.key(house.secret)
    assert [house.doorkeeper.too_many(arm) for _ in range(2)] == [None, None]
    refusal = house.doorkeeper.too_many(house.key(house.secret))
    assert refusal is not None
    assert (refusal.kind, refusal.retry_after_s) == ("rate", 0.5)
    assert refusal.text.startswith("too many requests: the key arm may send 2 a second")
    house.clocks.seconds += 0.5
    assert house.doorkeeper.too_many(arm) is None
    secret = add_key(house.file, "other", NOW)
    house.doorkeeper.look_again()
    assert {house.doorkeeper.too_many(house.key(secret)) for _ in range(100)} == {None}


def test_another_rate_counts_from_the_next_look(house: House) -> None:
    """The connection stays; what it used up stays used up."""
    arm = house.key(house.secret)
    assert [house.doorkeeper.too_many(arm) for _ in range(2)] == [None, None]
    text = house.file.read_text()
    house.file.write_text(text.replace('"requests_per_second": 2', '"requests_per_second": 10'))
    house.doorkeeper.look_again()
    assert house.doorkeeper.too_many(arm) is not None
    house.clocks.seconds += 0.1
    assert house.doorkeeper.too_many(arm) is None
    assert house.doorkeeper.may_stay(arm, "/")
