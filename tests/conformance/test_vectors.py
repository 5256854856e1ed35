# SPDX-License-Identifier: Apache-2.0
"""The published vectors are whole, and the checks judge each of them as its flavour says."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Any

import pytest

from pi05_websocket.conformance.clauses import PROTOCOL_VERSION
from pi05_websocket.conformance.encoding import encoding_faults, is_openpis_bytes
from pi05_websocket.conformance.vectors import read_manifest, read_transcript, read_vectors

VECTORS = read_vectors()
FOLDER = files("pi05_websocket.conformance.vectors")


def test_the_manifest_names_every_vector_with_its_checksum() -> None:
    """In the order of the file, for the version of the protocol that is published."""
    manifest = read_manifest()
    assert manifest["protocol"] == PROTOCOL_VERSION
    named = [(each["name"], each["sha256"], each["bytes"]) for each in manifest["vectors"]]
    messages = [(each["name"], bytes.fromhex(each["hex"])) for each in VECTORS]
    assert named == [(name, hashlib.sha256(m).hexdigest(), len(m)) for name, m in messages]
    assert all(each["what"] for each in manifest["vectors"])
    for name, file in manifest["files"].items():
        assert file["sha256"] == hashlib.sha256(FOLDER.joinpath(name).read_bytes()).hexdigest()


def test_names_are_unique_and_there_is_a_page_for_readers() -> None:
    """Others refer to them by name."""
    assert len({each["name"] for each in VECTORS}) == len(VECTORS)
    assert "manifest.json" in FOLDER.joinpath("README.md").read_text(encoding="utf-8")
    assert read_transcript()["frames"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_checks_judge_a_vector_as_its_flavour_says(vector: dict[str, Any]) -> None:
    """What OpenPI's packer writes has no fault, everything else has one."""
    message = bytes.fromhex(vector["hex"])
    written = (
        vector["flavour"] in ("openpi", "additions") and vector["name"] != "dialect_marker_false"
    )
    assert (encoding_faults(message) == []) == written, encoding_faults(message)
    if written:
        assert is_openpis_bytes(message)
