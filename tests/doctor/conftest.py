# SPDX-License-Identifier: Apache-2.0
"""What the seeded mistakes need: servers that misbehave, made with a library the base install lacks."""

from __future__ import annotations

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("websockets") else ["test_*.py"]
