# SPDX-License-Identifier: Apache-2.0
"""Settings for every test: what is collected without the extras, and how Hypothesis searches."""

from __future__ import annotations

import importlib.util

from hypothesis import settings

# Test modules of an extra import it at their top; without the extra there is nothing to collect.
_NEEDS = {
    "plugin": "lerobot",
    "sim": "so101_nexus",
    "interop": "openpi_client",
    "faults": "trustme",
}
collect_ignore = [
    folder for folder, package in _NEEDS.items() if importlib.util.find_spec(package) is None
]

# No deadline: how long an example takes says more about the machine than about the code.
settings.register_profile("default", deadline=None)
settings.load_profile("default")
