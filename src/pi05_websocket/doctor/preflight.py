# SPDX-License-Identifier: Apache-2.0
"""The quick checks at the start of every run: what metadata, first observation and first answer show.

In: what is exchanged anyway. Out: log lines; an error where the server states that it is for another robot.
Sends nothing, waits for nothing. Owned by the player, on its thread.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Literal

from pi05_websocket.data import Float32Array, Observation, ServerMetadata
from pi05_websocket.doctor.check_answer import check_answer
from pi05_websocket.doctor.check_cameras import check_pictures
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
    """Looks once at each server's metadata, at the first observation and at the first answer.

    Args:
        setup: How the robot is driven.
        preflight: Whether a contradiction ends the run or is only said; off: nothing is looked at.
    """

    def __init__(self, setup: Setup, preflight: Preflight = "refuse") -> None:
        self._setup = setup
        self._preflight = preflight
        self._metadata: ServerMetadata | None = None
        self._observed = preflight == "off"
        self._answered = preflight == "off"
        self._translated = preflight == "off"

    def asked(self, metadata: ServerMetadata) -> None:
        """Look at the server that is about to be asked.

        Raises:
            IncompatibleServer: It states what contradicts the settings.
        """
        if self._preflight == "off" or metadata is self._metadata:
            return
        self._metadata = metadata
        findings = check_metadata(metadata, self._setup)
        wrong = [finding for finding in findings if finding.contract]
        if wrong and self._preflight == "refuse":
            raise IncompatibleServer(
                "; ".join(f"{finding.said}. {finding.fix}" for finding in wrong)
                + " (preflight=warn goes on all the same; `pi05-websocket doctor` tells more)"
            )
        self._tell(findings)

    def observed(self, observation: Observation) -> None:
        """Look at the first observation as it is sent: its pictures, and the length of its prompt."""
        if self._observed:
            return
        self._observed = True
        key_map, findings = self._setup.key_map, []
        prompt = key_map.prompt(observation)
        if prompt:  # without one the server may have its own, and says so where it has none
            findings.append(check_prompt(replace(self._setup, task=prompt)))
        self._tell([*findings, *check_pictures(key_map.pictures(observation))])

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
