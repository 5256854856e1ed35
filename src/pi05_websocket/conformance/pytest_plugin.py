# SPDX-License-Identifier: Apache-2.0
"""The kit in other people's tests: one item for each check of a server, a fixture for a client.

In: pytest's options. Out: items, a fixture. Loaded by pytest in every environment that has this package, so it
imports nothing but pytest until it is used.

    pytest --pi05-websocket-url ws://localhost:8000         checks a running server, beside the tests there are

    def test_my_client(conformance_server):                 checks a client
        while conformance_server.wanting:
            with contextlib.suppress(Exception):            errors, closes and cuts are a part of it
                client = MyClient(conformance_server.url)
                while conformance_server.wanting:
                    client.infer(OBSERVATION)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pi05_websocket.conformance.checks import Check
    from pi05_websocket.conformance.examine_client import ClientExamination
    from pi05_websocket.conformance.target import ServerSettings, Target
    from pi05_websocket.conformance.verdicts import Verdict

__all__ = ["CheckItem", "ClauseBroken", "conformance_server", "conformance_settings"]

_URL = "--pi05-websocket-url"


class ClauseBroken(Exception):
    """A check failed; the text is its verdict."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options (pytest hook)."""
    group = parser.getgroup("pi05-websocket", "conformance to OpenPI's WebSocket protocol")
    group.addoption(_URL, metavar="URL", help="check this policy server, ws:// or wss://")
    group.addoption(
        "--pi05-websocket-dialect", metavar="NAME", default="openpi", help="the server's dialect"
    )
    group.addoption(
        "--pi05-websocket-keymap",
        metavar="NAME",
        default="so101",
        help="key map of the made-up observation",
    )
    group.addoption(
        "--pi05-websocket-observation",
        metavar="FILE",
        help="an observation that the server takes, one message in the wire's encoding",
    )
    group.addoption("--pi05-websocket-api-key-file", metavar="FILE", help="holds the server's key")
    group.addoption(
        "--pi05-websocket-skip",
        metavar="NAME",
        action="append",
        default=[],
        help="a clause or check to leave out; may be given again",
    )
    group.addoption(
        "--pi05-websocket-rough",
        action="store_true",
        help="also send what a weak server may die of",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker of the items (pytest hook)."""
    config.addinivalue_line("markers", "pi05_websocket: a clause of OpenPI's WebSocket protocol")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Add an item for each check of the server that was named (pytest hook)."""
    if session.config.getoption(_URL):
        suite = _Suite.from_parent(session, name="pi05-websocket")
        items += suite.collect()


class _Suite(pytest.Collector):
    """All checks of one server."""

    def collect(self) -> list[pytest.Item]:
        """Return an item for each check."""
        from pi05_websocket.conformance.checks import selected
        from pi05_websocket.conformance.examine_server import SERVER_CHECKS
        from pi05_websocket.errors import Pi05WebsocketError

        option = self.config.getoption
        needs: tuple[Any, ...] = ("connection", "request")
        if option("--pi05-websocket-rough"):
            needs += ("rough",)
        try:
            checks = selected(SERVER_CHECKS, skip=option("--pi05-websocket-skip"), needs=needs)
            settings = _server_settings(self.config)
        except Pi05WebsocketError as exc:
            raise pytest.UsageError(str(exc)) from exc
        return [
            CheckItem.from_parent(
                self,
                name=f"{check.name}[{'-'.join(check.clauses[:1])}]",
                check=check,
                server=settings,
            )
            for check in checks
        ]


class CheckItem(pytest.Item):
    """One check of a server: fails where a MUST is broken, and is an expected failure where a SHOULD is."""

    def __init__(self, *, check: Check[Target], server: ServerSettings, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check = check
        self.server = server
        self.add_marker("pi05_websocket")

    def runtest(self) -> None:
        """Make the check."""
        from pi05_websocket.conformance.examine_server import examine_server

        [verdict] = examine_server(self.server, [self.check])
        if verdict.outcome == "failed" and verdict.level == "must":
            raise ClauseBroken(_text(verdict))
        if verdict.outcome == "failed":
            pytest.xfail(_text(verdict))
        if verdict.outcome == "skipped" and verdict.level == "must":
            raise ClauseBroken(f"could not be judged: {_text(verdict)}")
        if verdict.outcome != "passed":
            pytest.skip(f"{verdict.outcome}: {verdict.got}")

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """Show a verdict without a traceback."""
        if isinstance(excinfo.value, ClauseBroken):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Say where the item comes from."""
        return self.path, None, f"{self.check.name}: {', '.join(self.check.clauses)}"


@pytest.fixture
def conformance_settings() -> Any:
    """How patiently a client is examined: a `ClientSettings`, or None. Override it in your tests."""
    return None


@pytest.fixture
def conformance_server(conformance_settings: Any) -> Iterator[ClientExamination]:
    """A server with a script for a client: let it ask while `wanting`; a broken MUST fails at the end."""
    from pi05_websocket.conformance.examine_client import ClientExamination
    from pi05_websocket.conformance.verdicts import conforms, report

    examination = ClientExamination(conformance_settings)
    examination.start()
    yield examination
    verdicts = examination.wait()
    if not conforms(verdicts):
        pytest.fail(report(verdicts, f"client on {examination.url}"), pytrace=False)


def _server_settings(config: pytest.Config) -> ServerSettings:
    from pi05_websocket.client import load_headers
    from pi05_websocket.conformance.observing import made_up, read_observation
    from pi05_websocket.conformance.target import ServerSettings
    from pi05_websocket.wire.dialects import AUTO, check_dialect

    option = config.getoption
    dialect = option("--pi05-websocket-dialect")
    if dialect == AUTO:
        raise pytest.UsageError("--pi05-websocket-dialect: name one, not auto")
    check_dialect(dialect)
    file = option("--pi05-websocket-observation")
    return ServerSettings(
        url=option(_URL),
        dialect=dialect,
        observation=(
            read_observation(Path(file)) if file else made_up(option("--pi05-websocket-keymap"))
        ),
        headers=load_headers(api_key_file=option("--pi05-websocket-api-key-file")),
    )


def _text(verdict: Verdict) -> str:
    clauses = ", ".join(verdict.clauses)
    return f"{clauses} ({verdict.level}): expected {verdict.expected}, got {verdict.got}"
