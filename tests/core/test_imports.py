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
NEED_EXTRAS = (
    "pi05_websocket.sim",
    "pi05_websocket.cli",
    "pi05_websocket.engine_ray.apps",
    "pi05_websocket.engine_ray.calls",
    "pi05_websocket.engine_ray.deployments",
    "pi05_websocket.engine_ray.joining",
    "pi05_websocket.engine_ray.router",
    "pi05_websocket.ops.exposition",
    "pi05_websocket.ops.port",
    "pi05_websocket.ops.web",
)
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


ELSEWHERE = """
import asyncio, ctypes, multiprocessing.pool, os, signal, socket, socketserver, subprocess, sys, tempfile, uuid
import http.server, logging.handlers, concurrent.futures, urllib.request, webbrowser
import msgspec, numpy, picows, PIL.Image, rich.console, tyro

gone = {"fcntl", "termios", "tty", "pty", "pwd", "grp", "resource", "readline", "syslog", "posix"}

class Gone:
    def find_spec(self, name, path=None, target=None):
        if name in gone:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Gone())
for name in gone:
    sys.modules.pop(name, None)
for module, names in {
    os: "fork killpg setsid nice getuid geteuid getegid sched_setaffinity sched_getaffinity getloadavg mkfifo",
    signal: "SIGKILL SIGHUP SIGALRM SIGQUIT SIGUSR1 SIGUSR2 setitimer pthread_sigmask",
    socket: "AF_UNIX TCP_KEEPIDLE TCP_KEEPINTVL TCP_KEEPCNT TCP_CONGESTION TCP_INFO SO_REUSEPORT",
}.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
sys.platform = {platform!r}
"""


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_library_and_command_line_import_on_other_systems(platform: str) -> None:
    """The base install, and the commands that drive a robot, import without what only Unix or Linux has."""
    commands = [f"pi05_websocket.cli.{name}" for name in ("run", "serve", "tune", "control")]
    imports = "\n".join(
        f"import {name}" for name in (*BASE_MODULES, "pi05_websocket.cli", *commands)
    )
    program = ELSEWHERE.replace("{platform!r}", repr(platform)) + imports
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
