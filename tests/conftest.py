# SPDX-License-Identifier: Apache-2.0
"""Settings for every test: what is collected without the extras, markers, Hypothesis; and the control page."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pi05_websocket.robot.control_page import ControlPage
from pi05_websocket.robot.controls import Controls

FOLDERS = {
    "plugin": ("lerobot", "lerobot"),
    "sim": ("sim", "so101_nexus"),
    "interop": ("openpi", "openpi_client"),
    "faults": ("faults", "websockets"),
    "ray_serve": ("ray", "ray"),
}
"""Folder -> the marker all its tests have, and the package they cannot be collected without."""

# Test modules of an extra import it at their top; without the extra there is nothing to collect.
collect_ignore = [
    folder for folder, (_, package) in FOLDERS.items() if importlib.util.find_spec(package) is None
]

# No deadline: how long an example takes says more about the machine than about the code.
settings.register_profile("default", deadline=None)
settings.load_profile("default")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in a folder with the folder's marker, so that each is in exactly one step."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in FOLDERS:
            item.add_marker(FOLDERS[folder][0])


@pytest.fixture
def controls() -> Controls:
    """What a person at the control page wants."""
    return Controls()


@pytest.fixture
def page(controls: Controls) -> Iterator[ControlPage]:
    """A control page on a free port, for what `controls` wants."""
    page = ControlPage(0, controls)
    yield page
    page.close()
