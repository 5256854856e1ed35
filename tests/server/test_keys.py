# SPDX-License-Identifier: Apache-2.0
"""Whose a secret is and what it opens, over tables and over anything at all."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.errors import ConfigError
from pi05_websocket.server.keys import (
    KeySet,
    Refusal,
    RobotKey,
    decide,
    format_keys,
    hashed,
    parse_keys,
    secret_in,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SALT = bytes(16)


def key(name: str = "arm", secret: str = "s3cret", **fields: Any) -> RobotKey:
    """Return a key of a secret."""
    return RobotKey(name=name, salt=SALT, sha256=hashed(SALT, secret), created=NOW, **fields)


KEYS = KeySet(
    (
        key(),
        key("guest", "gu3st", expires=NOW + timedelta(days=1)),
        key("cube", "cub3", paths=("/cube", "/belt")),
    )
)


@pytest.mark.parametrize(
    ("authorization", "secret"),
    [
        (["Api-Key abc"], "abc"),
        (["Bearer abc"], "abc"),
        (["bearer   abc "], "abc"),
        (["API-KEY abc"], "abc"),
        ([], None),
        ([""], None),
        (["Api-Key"], None),
        (["Api-Key "], None),
        (["Basic abc"], None),
        (["abc"], None),
        (["Api-Key abc", "Api-Key abc"], None),
        (["Api-Key abc def"], None),
        (["Api-Key grün"], None),
        (["Api-Key \udcff"], None),
        (["Api-Key a\nb"], None),
        (["Api-Key " + "x" * 512], "x" * 512),
        (["Api-Key " + "x" * 513], None),
    ],
)
def test_the_secret_of_a_request(authorization: list[str], secret: str | None) -> None:
    """One header in one of two forms; whatever else comes carries no secret."""
    assert secret_in(authorization) == secret


@pytest.mark.parametrize(
    ("authorization", "path", "later", "outcome"),
    [
        (["Api-Key s3cret"], "/", 0, "arm"),
        (["Bearer s3cret"], "/any?x=1", 9, "arm"),
        (["Api-Key gu3st"], "/", 0.99, "guest"),
        (["Api-Key gu3st"], "/", 1, 401),
        (["Api-Key cub3"], "/cube", 0, "cube"),
        (["Api-Key cub3"], "/belt?prompt=/", 0, "cube"),
        (["Api-Key cub3"], "/", 0, 403),
        (["Api-Key cub3"], "/cube/", 0, 403),
        (["Api-Key cub3"], "/%63ube", 0, 403),
        (["Api-Key wrong"], "/", 0, 401),
        (["Api-Key S3CRET"], "/", 0, 401),
        ([], "/", 0, 401),
    ],
)
def test_who_comes_in(
    authorization: list[str], path: str, later: float, outcome: str | int
) -> None:
    """A known secret in time for its own paths; 401 without one, 403 for another path."""
    decided = decide(KEYS, authorization, path, NOW + timedelta(days=later))
    assert (decided.status if isinstance(decided, Refusal) else decided.name) == outcome


def test_a_refusal_does_not_tell_whether_a_key_exists() -> None:
    """Without a key, with a wrong one and with one that is over the answer is the same, and says what to do."""
    later = NOW + timedelta(days=2)
    texts = set()
    for authorization in ([], ["Api-Key wrong"], ["Api-Key gu3st"], ["Api-Key \udcff"]):
        refusal = decide(KEYS, authorization, "/", later)
        assert isinstance(refusal, Refusal)
        texts.add((refusal.status, refusal.text))
    ((status, text),) = texts
    assert status == 401
    assert "--policy.api_key_file" in text


def test_the_wrong_path_is_told_to_who_has_the_key() -> None:
    """Its holder may know what it opens."""
    refusal = decide(KEYS, ["Api-Key cub3"], "/", NOW)
    assert isinstance(refusal, Refusal)
    assert "This key opens /cube, /belt here" in refusal.text


@pytest.mark.parametrize(
    ("now", "after", "path", "stays"),
    [
        (key(), NOW, "/", True),
        (key(requests_per_second=1.0), NOW, "/", True),
        (key("other"), NOW, "/", False),
        (key(secret="rotated"), NOW, "/", False),
        (key(expires=NOW), NOW, "/", False),
        (key(paths=("/cube",)), NOW, "/", False),
        (key(paths=("/cube",)), NOW, "/cube?a=b", True),
    ],
)
def test_who_may_stay(now: RobotKey, after: datetime, path: str, stays: bool) -> None:
    """A connection lasts as long as its key opens its path under the same secret."""
    assert KeySet((now,)).still(key(), path, after) is stays


def test_a_file_is_read_as_it_was_written() -> None:
    """Every field survives, times with their zone."""
    keys = KeySet((*KEYS.keys, key("x", requests_per_second=0.5, priority="high")))
    assert parse_keys(format_keys(keys)) == keys
    assert b"s3cret" not in format_keys(keys)


def changed(**fields: Any) -> str:
    """Return a file of one key with some fields changed; None takes one out."""
    record = json.loads(format_keys(KeySet((key(),))))["keys"][0] | fields
    return json.dumps({"version": 1, "keys": [{k: v for k, v in record.items() if v is not None}]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "truncated"),
        ("[]", "Expected `object`"),
        ("[" * 100_000, "Expected `object`"),
        ('{"version": 2, "keys": []}', "2"),
        ('{"version": 1}', "missing required field `keys`"),
        (changed(name="two words"), r"\$.keys\[0\].name"),
        (changed(name="line\n"), r"\$.keys\[0\].name"),
        (changed(name="x" * 65), r"\$.keys\[0\].name"),
        (changed(sha256=None), "sha256"),
        (changed(sha256="AAAA"), r"\$.keys\[0\].sha256"),
        (changed(salt="AAAA"), r"\$.keys\[0\].salt"),
        (changed(created="2026-01-01T00:00:00"), "timezone"),
        (changed(expries="2026-01-01T00:00:00Z"), "unknown field `expries`"),
        (changed(requests_per_second=0), r"\$.keys\[0\].requests_per_second"),
        (changed(requests_per_second=True), r"\$.keys\[0\].requests_per_second"),
        (changed(requests_per_second=float("nan")), "malformed"),
        (changed(paths=["cube"]), r"\$.keys\[0\].paths"),
        (changed(paths=["/a?b"]), r"\$.keys\[0\].paths"),
        (changed(priority="urgent"), "urgent"),
    ],
)
def test_a_file_that_is_none_says_where(text: str, message: str) -> None:
    """A mistyped field could leave a door open: nothing unknown is skipped."""
    with pytest.raises(ConfigError, match=message):
        parse_keys(text, "keys.json")


def test_names_tell_keys_apart() -> None:
    """Two of one name could not be revoked one by one."""
    with pytest.raises(ConfigError, match=r"keys.json: two keys are named arm"):
        parse_keys(format_keys(KeySet((key(), key()))), "keys.json")


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)))
def test_any_bytes_are_keys_or_an_error(text: str | bytes) -> None:
    """Nothing but `ConfigError` comes out of a broken file."""
    with contextlib.suppress(ConfigError):
        parse_keys(text)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_any_field_is_a_key_or_an_error(value: Any) -> None:
    """The same for JSON that almost is a keys file."""
    for field in RobotKey.__struct_fields__:
        record = msgspec.to_builtins(key()) | {field: value}
        with contextlib.suppress(ConfigError):
            parse_keys(json.dumps({"version": 1, "keys": [record]}))


@given(
    st.lists(st.text(max_size=600), max_size=3),
    st.text(max_size=20),
)
def test_no_header_comes_in_by_chance(authorization: list[str], path: str) -> None:
    """Whatever a stranger sends is answered with 401, never with an exception."""
    decided = decide(KEYS, authorization, path, NOW)
    assert isinstance(decided, Refusal)
    assert decided.status == 401
