# SPDX-License-Identifier: Apache-2.0
"""The applications behind an ingress change all together, or not at all; no cluster is needed for that."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pi05_websocket.engine_ray.applications import Applications
from pi05_websocket.engine_ray.config import IngressSettings
from pi05_websocket.engine_ray.tickets import Ticket
from pi05_websocket.errors import ConfigError
from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.keys_file import add_key


class Calls:
    """An application that says who it is and is asked nothing."""

    async def ask(self, payload: bytes | str, said: dict[str, Any], ticket: Ticket) -> Any:
        """Never asked."""
        raise AssertionError

    async def describe(self) -> Mapping[str, Any]:
        """Say nothing yet."""
        await asyncio.Event().wait()
        raise AssertionError


def calls_of(application: str) -> Calls:
    """Return what asks an application; one of them cannot be made."""
    if application == "broken":
        raise RuntimeError("it cannot be made")
    return Calls()


OLD = IngressSettings(
    paths={"/old": "old", "/stays": "stays"}, server=ServerConfig(max_connections=7)
)


def test_applications_come_stay_and_go() -> None:
    """One that stays is the same one; one that went is drained."""

    async def change() -> None:
        applications = Applications(calls_of, name="i")
        applications.change(OLD)
        old, stays = applications.serving("/old"), applications.serving("/stays?x")
        assert applications.serving("/other") is None
        applications.change(IngressSettings(paths={"/new": "new", "/stays": "stays"}))
        await asyncio.gather(*applications._tasks)
        assert "stopping" in repr(old)
        assert applications.serving("/old") is None
        assert applications.serving("/stays") is stays
        assert applications.any() in (stays, applications.serving("/new"))
        await applications.end()
        assert "stopping" in repr(stays)

    asyncio.run(change())


@pytest.mark.parametrize("keys_change", [True, False])
def test_where_one_cannot_be_made_everything_stays(tmp_path: Path, keys_change: bool) -> None:
    """Settings, keys and applications; those that were made for nothing end."""
    file = tmp_path / "keys.json"
    add_key(file, "arm", datetime.now(UTC))
    paths = {"/a": "a", "/broken": "broken", "/z": "z", "/stays": "stays"}
    server = ServerConfig(keys=str(file) if keys_change else None, max_connections=1)

    async def change() -> None:
        made: list[str] = []

        def noted(application: str) -> Calls:
            made.append(application)
            return calls_of(application)

        applications = Applications(noted, name="i")
        applications.change(OLD)
        old, stays = applications.serving("/old"), applications.serving("/stays")
        made.clear()
        with pytest.raises(RuntimeError, match="it cannot be made"):
            applications.change(IngressSettings(paths=paths, server=server))
        await asyncio.gather(*applications._tasks)
        assert applications.settings is OLD
        assert applications.serving("/old") is old
        assert "serving" in repr(old)
        assert stays is not None
        assert stays._config.max_connections == 7
        assert repr(applications._doorkeeper) == "<Doorkeeper everybody>"
        assert "broken" in made
        applications.change(IngressSettings(paths={"/a": "a", "/stays": "stays"}))
        assert applications.serving("/a") is not None
        await applications.end()

    asyncio.run(change())


def test_where_the_keys_cannot_be_read_everything_stays(tmp_path: Path) -> None:
    """No application is made or drained for them."""

    async def change() -> None:
        applications = Applications(calls_of, name="i")
        applications.change(OLD)
        old = applications.serving("/old")
        server = ServerConfig(keys=str(tmp_path / "none.json"))
        with pytest.raises(ConfigError):
            applications.change(IngressSettings(paths={"/new": "new"}, server=server))
        await asyncio.gather(*applications._tasks)
        assert applications.settings is OLD
        assert "serving" in repr(old)
        await applications.end()

    asyncio.run(change())
