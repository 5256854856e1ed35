# SPDX-License-Identifier: Apache-2.0
"""What is said of settings that change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pi05_websocket.engine_ray.config import IngressSettings, LinkSettings
from pi05_websocket.engine_ray.settings_words import changes
from pi05_websocket.server import ServerConfig

BEFORE = IngressSettings(paths={"/": "policy", "/cube": "policy-cube"}, deployed_by="a")


def test_what_differs_is_named() -> None:
    """With both values, however deep; what is gone or new has none on the other side."""
    after = IngressSettings(
        paths={"/": "policy", "/pick": "policy-pick"},
        server=ServerConfig(keys="keys.json"),
        link=LinkSettings(deadline_s=2.0),
    )
    assert changes(BEFORE, after) == (
        "changing the ingress, robots stay (paths /cube: policy-cube -> none; "
        "paths /pick: none -> policy-pick; server keys: none -> keys.json; link deadline_s: 1.0 -> 2.0)"
    )


def test_another_owner_is_no_change() -> None:
    """It is told apart, when something is taken down."""
    after = IngressSettings(paths=BEFORE.paths, deployed_by="b")
    said = "changing the ingress, robots stay (its settings are the same)"
    assert changes(BEFORE, after) == said


@pytest.mark.parametrize(
    ("version", "whose"), [("0.0.9", "of version 0.0.9"), ("", "of a config file")]
)
def test_what_ray_replaces_is_said_so(version: str, whose: str) -> None:
    """Its robots lose their sockets, whatever the settings are."""
    before, after = replace(BEFORE, version=version), replace(BEFORE, version="0.1.0")
    assert changes(before, after).startswith(f"replacing the ingress {whose}, robots connect again")
