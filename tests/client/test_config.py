# SPDX-License-Identifier: Apache-2.0
"""Addresses, limits and secrets are checked before anything is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pi05_websocket.client.backoff import Backoff
from pi05_websocket.client.config import ConnectionConfig, load_headers, openpi_url, split_urls
from pi05_websocket.client.policy import RemotePolicy
from pi05_websocket.errors import ConfigError


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("localhost", 8000, "ws://localhost:8000"),
        ("10.0.0.7", None, "ws://10.0.0.7"),
        ("wss://gpu.example.org/pi05", None, "wss://gpu.example.org/pi05"),
        ("ws://gpu", 9000, "ws://gpu:9000"),
        ("wsl-box", 8000, "ws://wsl-box:8000"),  # OpenPI takes this one for a URL
    ],
)
def test_openpi_arguments_become_a_url(host: str, port: int | None, expected: str):
    """Host and port as in OpenPI's constructor."""
    assert openpi_url(host, port) == expected


@pytest.mark.parametrize(
    "url",
    [
        "ws://localhost:8000",
        "wss://gpu.example.org",
        "ws://[::1]:8000/path?model=pi05",
        "ws://10.0.0.7",
    ],
)
def test_good_addresses(url: str):
    """Any host, port, path and query."""
    assert ConnectionConfig(url=url).url == url


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://localhost:8000", "Did you mean ws://localhost:8000"),
        ("https://gpu.example.org", "Did you mean wss://gpu.example.org"),
        ("localhost:8000", "localhost scheme"),
        ("gpu", "no scheme"),
        ("ws://", "no host"),
        ("ws://gpu:port", "not a valid address"),
        ("ws://gpu:99999", "not a valid address"),
        ("ws://gpu/#part", "fragment"),
        ("ws://gpu/a b", "white space"),
        ("ws://gpu/\r\nX-Robot: 7", "white space"),
        ("ws://gpu/\x00", "white space"),
        ("ws://b\u0661.example\ufffd", "no valid host name"),
        ("ws://" + "\u00fc" * 64, "no valid host name"),
    ],
)
def test_bad_addresses_say_what_is_wrong(url: str, told: str):
    """Each mistake has its own sentence."""
    with pytest.raises(ConfigError, match=told):
        ConnectionConfig(url=url)


def test_credentials_in_the_address_are_refused_and_not_repeated():
    """URLs are logged and saved: the secret is not even in the error."""
    with pytest.raises(ConfigError, match="api_key_env") as caught:
        ConnectionConfig(url="wss://robot:hunter2@gpu.example.org/pi05")

    assert "hunter2" not in str(caught.value)
    assert "gpu.example.org/pi05" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "robot:hunter2@gpu",
        "robot:hunter2@gpu:8_0",
        "ws:robot:hunter2@gpu",
        "hunter2@gpu://x",
        "ws://robot\uff0f:hunter2@gpu",
        "ws://ws:://robot:hunter2@gpu",
    ],
)
def test_credentials_are_not_repeated_where_the_scheme_is_missing_either(url: str):
    """It is one mistake more, not one less."""
    with pytest.raises(ConfigError) as caught:
        ConnectionConfig(url=url)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"connect_timeout": 0},
        {"request_timeout": -1},
        {"hard_timeout": float("nan")},
        {"max_message_bytes": 10},
        {"client_key_file": "key.pem"},
    ],
)
def test_impossible_settings_are_quoted(wrong: dict[str, Any]):
    """The message names the field."""
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ConnectionConfig(**wrong)


def test_limits_before_and_after_the_first_answer():
    """A server that has never answered may be compiling; afterwards twice the timeout is the end."""
    config = ConnectionConfig(request_timeout=5, first_request_timeout=600)

    limits = [
        (config.request_limit(answered_before=known), config.hard_limit(answered_before=known))
        for known in (False, True)
    ]

    assert limits == [(600, 600), (5, 10)]


def test_hard_limit_can_be_set():
    """An explicit hard timeout counts."""
    config = ConnectionConfig(hard_timeout=33)

    assert config.hard_limit(answered_before=True) == 33


class TestSecrets:
    def test_no_secret_no_header(self):
        """Without a key nothing is sent."""
        assert load_headers() == {}

    @pytest.mark.parametrize(
        ("scheme", "expected"), [("api-key", "Api-Key s3cret"), ("bearer", "Bearer s3cret")]
    )
    def test_schemes(self, scheme: Any, expected: str):
        """OpenPI's scheme, and the one gateways want."""
        headers = load_headers(
            api_key_env="PI_KEY", auth_scheme=scheme, environ={"PI_KEY": " s3cret\n"}
        )

        assert headers == {"Authorization": expected}

    def test_key_from_a_file(self, tmp_path: Path):
        """White space around it does not count."""
        (tmp_path / "key").write_text("s3cret\n")

        headers = load_headers(api_key_file=str(tmp_path / "key"))

        assert headers == {"Authorization": "Api-Key s3cret"}

    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ({"api_key": "a", "api_key_env": "B"}, "one place only"),
            ({"api_key_env": "NOT_SET"}, "not set"),
            ({"api_key_file": "/no/such/file"}, "cannot be read"),
            ({"headers_file": "/no/such/file"}, "cannot be read"),
            ({"api_key": "two\nlines"}, "line breaks"),
        ],
    )
    def test_broken_sources(self, settings: dict[str, str], told: str):
        """Each says what to mend."""
        with pytest.raises(ConfigError, match=told):
            load_headers(**settings, environ={})

    def test_empty_key_file(self, tmp_path: Path):
        """An empty file is no key."""
        (tmp_path / "key").touch()

        with pytest.raises(ConfigError, match="empty"):
            load_headers(api_key_file=str(tmp_path / "key"))

    def test_bad_header_line_is_named_but_not_quoted(self, tmp_path: Path):
        """The line may hold a secret."""
        (tmp_path / "headers").write_text("X-Good: 1\nhunter2\n")

        with pytest.raises(ConfigError, match="line 2") as caught:
            load_headers(headers_file=str(tmp_path / "headers"))

        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize("line", ["X(Robot): 7", "X\x00: 7", "X\tY: 7", ": 7"])
    def test_header_names_that_no_server_takes(self, tmp_path: Path, line: str):
        """Told here, and not by a server's HTTP 400."""
        (tmp_path / "headers").write_text(line)

        with pytest.raises(ConfigError, match="line 1: expected 'Name: value'"):
            load_headers(headers_file=str(tmp_path / "headers"))

    def test_key_and_authorization_line_contradict(self, tmp_path: Path):
        """One of them must go."""
        (tmp_path / "headers").write_text("authorization: Bearer x\n")

        with pytest.raises(ConfigError, match="Authorization"):
            load_headers(api_key="a", headers_file=str(tmp_path / "headers"))

    def test_headers_are_not_in_the_repr(self):
        """A logged config gives nothing away."""
        assert "s3cret" not in repr(ConnectionConfig(headers={"Authorization": "s3cret"}))


def test_config_excludes_openpis_arguments():
    """Either OpenPI's arguments or a whole config."""
    with pytest.raises(ConfigError, match="one or the other"):
        RemotePolicy("gpu", config=ConnectionConfig())


def test_backoff_doubles_with_jitter_up_to_its_bound():
    """Between half and all of a bound that doubles; a success begins anew."""
    low, high = Backoff(0.1, 1.0, lambda: 0.0), Backoff(0.1, 1.0, lambda: 1.0)

    waits = [(low.next(), high.next()) for _ in range(6)]
    low.reset()

    assert [wait for wait, _ in waits] == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.5, 0.5])
    assert [wait for _, wait in waits] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    assert low.next() == pytest.approx(0.05)


def test_several_addresses_are_one_setting() -> None:
    """Commas part them, spaces do no harm, and one address is one."""
    assert split_urls("ws://a:8000") == ("ws://a:8000",)
    assert split_urls("ws://a:8000, wss://b/pi05") == ("ws://a:8000", "wss://b/pi05")


@pytest.mark.parametrize(
    ("urls", "words"),
    [
        ("ws://a:8000,", "expected ws://HOST:PORT"),
        ("ws://a,http://b", "Did you mean ws://b"),
        ("ws://a,ws://a", "ws://a is given twice"),
    ],
)
def test_each_of_several_addresses_is_checked(urls: str, words: str) -> None:
    """The text names the one that is wrong."""
    with pytest.raises(ConfigError, match=words):
        split_urls(urls)
