# SPDX-License-Identifier: Apache-2.0
"""The quick checks at the start of every run: what metadata, first observation and first answer show.

In: what is exchanged anyway. Out: log lines; an error where the server states that it is for another robot.
Sends nothing, waits for nothing. Owned by the player, on its thread.
"""

from __future__ import annotations

import logging
from typing import Literal

from pi05_websocket.data import Float32Array, ServerMetadata
from pi05_websocket.doctor.check_answer import check_answer
from pi05_websocket.doctor.check_metadata import check_metadata, check_prompt
from pi05_websocket.doctor.facts import AnswerFacts, Setup
from pi05_websocket.doctor.findings import Finding
from pi05_websocket.doctor.translate import translated
from pi05_websocket.errors import IncompatibleServer, Pi05WebsocketError, PolicyError

__all__ = ["PREFLIGHT", "FirstLook", "Preflight"]

logger = logging.getLogger(__name__)

Preflight = Literal["refuse", "warn", "off"]
PREFLIGHT = ("refuse", "warn", "off")


class FirstLook:
    """Looks once at each server's metadata, and at the first answer.

    Args:
        setup: How the robot is driven.
        preflight: Whether a contradiction ends the run or is only said; off: nothing is looked at.
    """

    def __init__(self, setup: Setup, preflight: Preflight = "refuse") -> None:
        self._setup = setup
        self._preflight = preflight
        self._metadata: ServerMetadata | None = None
        self._answered = preflight == "off"
        self._translated = preflight == "off"

    def asked(self, metadata: ServerMetadata) -> None:
        """Look at the server that is about to be asked.

        Raises:
            IncompatibleServer: It states what contradicts the settings.
        """
        if self._preflight == "off" or metadata is self._metadata:
            return
        first, self._metadata = self._metadata is None, metadata
        findings = check_metadata(metadata, self._setup)
        wrong = [finding for finding in findings if finding.contract]
        if wrong and self._preflight == "refuse":
            raise IncompatibleServer(
                "; ".join(f"{finding.said}. {finding.fix}" for finding in wrong)
                + " (preflight=warn goes on all the same; `pi05-websocket doctor` tells more)"
            )
        prompt = [check_prompt(self._setup)] if first and self._setup.task else []
        self._tell([*findings, *prompt])

    def answered(self, rows: Float32Array, pose: Float32Array | None) -> None:
        """Look at the first answer, before a row of it is executed."""
        if self._answered:
            return
        self._answered = True
        facts = AnswerFacts(
            rows=rows,
            pose=pose,
            round_trips_s=(),
            infer_s=None,
            ping_s=(),
            bytes_out=0,
            metadata=self._metadata or {},
        )
        self._tell(check_answer(facts, self._setup))

    def failed(self, error: Pi05WebsocketError) -> None:
        """Say what the policy's first error means for the settings."""
        if self._translated or not isinstance(error, PolicyError):
            return
        self._translated = True
        text = str(error).removeprefix("server error: ")
        self._tell([translated(text, self._setup.key_map)])

    @staticmethod
    def _tell(findings: list[Finding]) -> None:
        for finding in findings:
            if finding.fix:
                logger.warning("preflight: %s. %s", finding.said, finding.fix)
