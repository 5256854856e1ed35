# SPDX-License-Identifier: Apache-2.0
"""What a person is told who lacks an extra."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest

from pi05_websocket.extras import how_to_install


class Installed(metadata.Distribution):
    """A distribution that says where it came from."""

    def __init__(self, direct_url: str | None) -> None:
        self._direct_url = direct_url

    def read_text(self, filename: str) -> str | None:
        """Return that."""
        return self._direct_url

    def locate_file(self, path: Any) -> Any:
        """Never called."""
        raise AssertionError


@pytest.mark.parametrize(
    ("direct_url", "command"),
    [
        (
            '{"url": "file:///home/me/my%20clone", "dir_info": {"editable": true}}',
            "pip install -e '/home/me/my clone[sim]'",
        ),
        (
            '{"url": "file:///home/me/clone", "dir_info": {}}',
            "'lerobot_policy_pi05_websocket[sim]'",
        ),
        ('{"url": "https://example/a.whl", "archive_info": {}}', "websocket[sim]'"),
        ("null", "websocket[sim]'"),
        ("{", "websocket[sim]'"),
        (None, "websocket[sim]'"),
    ],
)
def test_the_command_fits_how_it_was_installed(
    direct_url: str | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place from a clone, or as a package, by name."""
    monkeypatch.setattr(metadata, "distribution", lambda _name: Installed(direct_url))
    assert how_to_install("sim").endswith(command)


def test_what_is_not_installed_is_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files on the path alone."""

    def missing(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    assert how_to_install("a,b") == "pip install 'lerobot_policy_pi05_websocket[a,b]'"
