# SPDX-License-Identifier: Apache-2.0
"""What the library imports, and that it says what it exports."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import pi05_websocket

MODULES = sorted(m.name for m in pkgutil.walk_packages(pi05_websocket.__path__, "pi05_websocket."))
NEED_EXTRAS = ("pi05_websocket.sim", "pi05_websocket.cli")
BASE_MODULES = [name for name in MODULES if not name.startswith(NEED_EXTRAS)]


def test_library_imports_neither_torch_nor_lerobot() -> None:
    """A fresh interpreter that imports every module of the base install has loaded neither."""
    imports = "\n".join(f"import {name}" for name in BASE_MODULES)
    check = "import sys; print([m for m in ('torch', 'lerobot', 'cv2') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{imports}\n{check}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", BASE_MODULES)
def test_exports_exist(name: str) -> None:
    """Every name in a module's `__all__` is there."""
    module = importlib.import_module(name)
    missing = [export for export in getattr(module, "__all__", ()) if not hasattr(module, export)]
    assert missing == []
