# SPDX-License-Identifier: Apache-2.0
"""Examine a client: be the server it connects to, and go through the script.

In: settings, which checks. Out: verdicts. Blocks until the script is over, or the client does not come.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final

from pi05_websocket.conformance.checks import Check, selected, skipped, verdict
from pi05_websocket.conformance.client_evidence import EVIDENCE_CHECKS
from pi05_websocket.conformance.client_script import SCRIPT
from pi05_websocket.conformance.target import Unmet
from pi05_websocket.conformance.verdicts import Verdict
from pi05_websocket.conformance.visit import ClientSettings, Visit

__all__ = ["CLIENT_CHECKS", "ClientExamination"]

CLIENT_CHECKS: Final[tuple[Check[Any], ...]] = (*SCRIPT, *EVIDENCE_CHECKS)
"""All of them; those of the script in the order in which they are made."""

_ALWAYS: Final = frozenset({"nothing-agreed", "answers", "metadata"})
"""Steps without which there is no evidence, or nothing announced."""


class ClientExamination:
    """A server with a script. Point a client at `url`, let it ask and come back; `wanting` says until when.

    Args:
        settings: Where, and how patiently.
        only: Clauses or checks to report; none: all.
        skip: The same, to leave out.

    Raises:
        OSError: The port is taken.
        ConfigError: `only` or `skip` name what is not there.
    """

    def __init__(
        self,
        settings: ClientSettings | None = None,
        *,
        only: Iterable[str] = (),
        skip: Iterable[str] = (),
    ) -> None:
        self._reported = {each.name for each in selected(CLIENT_CHECKS, only=only, skip=skip)}
        self._visit = Visit(settings or ClientSettings())
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.verdicts: list[Verdict] = []
        """Filled when the script is over."""

    @property
    def url(self) -> str:
        """Where the client has to connect to."""
        return self._visit.url

    @property
    def wanting(self) -> bool:
        """Whether the script goes on, and the client has to ask."""
        return not self._over.is_set()

    def run(self) -> list[Verdict]:
        """Go through the script; return the verdicts. Once."""
        try:
            verdicts = [*self._script(), *self._evidence()]
            self.verdicts = [each for each in verdicts if each.check in self._reported]
        finally:
            self._visit.close()
            self._over.set()
        return self.verdicts

    def start(self) -> None:
        """Go through the script on a thread of its own."""
        self._thread = threading.Thread(target=self.run, name="pi05-conformance", daemon=True)
        self._thread.start()

    def wait(self) -> list[Verdict]:
        """Wait for the end of a script that was started; return the verdicts."""
        if self._thread is not None:
            self._thread.join()
        return self.verdicts

    def _script(self) -> list[Verdict]:
        verdicts = []
        absent = ""
        for step in SCRIPT:
            if step.name not in self._reported and step.name not in _ALWAYS:
                continue
            if absent:
                verdicts.append(skipped(step, absent))
                continue
            try:
                verdicts.append(verdict(step, step.look(self._visit)))
            except Unmet as exc:
                absent = str(exc)
                verdicts.append(skipped(step, absent))
        self._visit.hang_up()
        return verdicts

    def _evidence(self) -> Sequence[Verdict]:
        seen = self._visit.evidence
        if not seen.requests:
            return [skipped(each, "no request came") for each in EVIDENCE_CHECKS]
        return [verdict(each, each.look(seen)) for each in EVIDENCE_CHECKS]
