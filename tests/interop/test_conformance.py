# SPDX-License-Identifier: Apache-2.0
"""OpenPI's own server and client under the kit: what the clauses say of stock is what stock does."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy

from pi05_websocket.conformance.checks import selected
from pi05_websocket.conformance.clauses import CLAUSES
from pi05_websocket.conformance.examine_client import ClientExamination
from pi05_websocket.conformance.examine_server import SERVER_CHECKS, examine_server
from pi05_websocket.conformance.target import ServerSettings
from pi05_websocket.conformance.vectors import read_vectors
from pi05_websocket.conformance.verdicts import conforms, failures, report
from pi05_websocket.conformance.visit import ClientSettings

pytestmark = [
    pytest.mark.openpi,
    # OpenPI's client opens its connection in the way websockets 17 deprecates.
    pytest.mark.filterwarnings(r"ignore:connect\(\) must be used as a context:DeprecationWarning"),
]

OBSERVATION = {
    "observation/state": np.arange(6, dtype=np.float32),
    "observation/image": np.zeros((32, 32, 3), np.uint8),
    "prompt": "pick up the cube",
}


class Still:
    """A policy that stays where the arm is."""

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Answer."""
        return {"actions": np.tile(obs["observation/state"].astype(np.float64), (10, 1))}


def test_openpis_server_conforms(start: Any) -> None:
    """Every MUST; what it leaves out of the SHOULDs is what the clauses say of it."""
    server = start.server("stock server", Still())
    settings = ServerSettings(
        url=f"ws://127.0.0.1:{server.port}", observation=OBSERVATION, patience_s=1.0
    )
    # Not an array of objects: OpenPI's decoder would end this process.
    checks = selected(SERVER_CHECKS, needs=("connection", "request", "rough"), skip=("objects",))
    verdicts = list(examine_server(settings, checks))
    assert conforms(verdicts), report(verdicts, "OpenPI's server")
    left_out = {clause for each in failures(verdicts, "should") for clause in each.clauses}
    assert left_out == {"S-28", "W-10"}
    assert all(CLAUSES[clause].stock for clause in left_out)


def test_openpis_server_answers_no_ping_while_it_computes(start: Any, gate: Any) -> None:
    """What S-17 says of stock: the pong comes after the answer."""

    class Slow(Still):
        def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
            gate.opened.acquire(timeout=0.3)
            return super().infer(obs)

    server = start.server("stock server", Slow())
    settings = ServerSettings(url=f"ws://127.0.0.1:{server.port}", observation=OBSERVATION)
    [verdict] = examine_server(settings, selected(SERVER_CHECKS, only=("S-17",)))
    assert verdict.outcome == "failed"
    ours = start.server("our server", Slow())
    settings = ServerSettings(url=f"ws://127.0.0.1:{ours.port}", observation=OBSERVATION)
    [verdict] = examine_server(settings, selected(SERVER_CHECKS, only=("S-17",)))
    assert verdict.outcome == "passed"


def test_openpis_client_conforms() -> None:
    """Every MUST, with a program around it that makes a new client after an error."""
    examination = ClientExamination(ClientSettings(patience_s=3.0, late_s=0.5, hold_s=0.3))
    examination.start()
    host, port = examination.url[5:].split(":")
    while examination.wanting:
        client = None
        with contextlib.suppress(Exception):
            client = WebsocketClientPolicy(host, int(port), api_key="secret")
            while examination.wanting:
                client.infer(OBSERVATION)
        if client is not None:
            client._ws.close()
    verdicts = examination.wait()
    assert conforms(verdicts), report(verdicts, "OpenPI's client")
    assert failures(verdicts, "should") == []


@pytest.mark.parametrize(
    "vector",
    [each for each in read_vectors() if each["flavour"] == "additions"],
    ids=lambda v: v["name"],
)
def test_openpis_packer_writes_our_additions_the_same(vector: dict[str, Any]) -> None:
    """What travels under `_rt` and `_images` is OpenPI's encoding too."""
    message = bytes.fromhex(vector["hex"])
    value = msgpack_numpy.unpackb(message)
    assert msgpack_numpy.packb(value) == message
