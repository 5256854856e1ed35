# SPDX-License-Identifier: Apache-2.0
"""Make `.venv` what constraints.txt and pyproject.toml say; get uv and Python 3.12 if need be.

In: nothing but a Python 3 to run it. Out: `.venv` with everything the Makefile's targets use.
Standard library only, and no syntax newer than Python 3.8.
"""

from __future__ import annotations

import ctypes.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PROGRESS_S = 10.0
OWN_UV = ROOT / ".uv"
PYTHON_VERSION = "3.12"

NO_PYTHON = (
    f"make setup: no Python {PYTHON_VERSION} was found and none could be downloaded. Install one: "
    f"'apt install python{PYTHON_VERSION} python{PYTHON_VERSION}-venv', 'pyenv install {PYTHON_VERSION}' or "
    f"'brew install python@{PYTHON_VERSION}'"
)
NO_UV = (
    "make setup: uv is missing and pip could not install it. Install it: "
    "https://docs.astral.sh/uv/getting-started/installation (or, on Debian and Ubuntu, "
    "'apt install python3-venv' and try again)"
)


def works(command: list[str]) -> bool:
    """Say whether a program runs; a shim of pyenv or asdf exists but may not."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def find_uv() -> str:
    """Return a uv that works: the user's, else a private one in `.uv`, installed now if need be."""
    own = str(OWN_UV / ("Scripts" if os.name == "nt" else "bin") / "uv")
    for candidate in (os.environ.get("UV"), shutil.which("uv"), own):
        if candidate and works([candidate, "--version"]):
            return candidate
    print("setup: getting uv into .uv/", flush=True)
    python = Path(own).with_name("python")
    steps = [
        [sys.executable, "-m", "venv", str(OWN_UV)],
        [str(python), "-m", "pip", "install", "-q", "uv"],
    ]
    for step in steps:
        if subprocess.run(step, check=False).returncode != 0:
            sys.exit(NO_UV)
    return own


def venv_python() -> Path:
    """Return the path of `.venv`'s interpreter."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def has_version(python: str) -> bool:
    """Say whether an interpreter runs and is of the version we want."""
    ask = f"import sys; sys.exit(sys.version_info[:2] != {tuple(map(int, PYTHON_VERSION.split('.')))})"
    return works([python, "-c", ask])


def make_venv(uv: str) -> None:
    """Create `.venv`, unless there is one with the right Python."""
    if has_version(str(venv_python())):
        return
    wanted = sys.executable if has_version(sys.executable) else PYTHON_VERSION
    created = subprocess.run(
        [uv, "venv", "-q", "--seed", "--clear", "--python", wanted, str(VENV)], check=False
    )
    if created.returncode != 0:
        sys.exit(NO_PYTHON)


def pinned_packages() -> Path:
    """Return a file with the packages to install here.

    LeRobot imports pyrealsense2 wherever it is installed, in `lerobot-rollout` too, and its wheel cannot be
    imported without the system's libusb. So the RealSense driver comes only where that is present.
    """
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if ctypes.util.find_library("usb-1.0") is None:
        lines = [line for line in lines if not line.startswith("pyrealsense2")]
        print(
            "setup: without pyrealsense2: for a RealSense 'apt install libusb-1.0-0', then 'make setup'"
        )
    here = VENV / "packages.txt"
    here.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return here


def install(uv: str) -> None:
    """Install the pinned packages as they are pinned, then this project on top, editable."""
    pip = [uv, "pip", "install", "-q", "--python", str(venv_python()), "--no-deps"]
    # Compiled once here, because importing LeRobot without bytecode takes twice as long, every time.
    pinned = [*pip, "--compile-bytecode", "-r", str(pinned_packages())]
    for command in (pinned, [*pip, "--editable", str(ROOT)]):
        if run_with_progress(command) != 0:
            sys.exit("make setup: installing failed, see above")


def run_with_progress(command: list[str]) -> int:
    """Run a command that says nothing itself; say every few seconds how far it is. Return its exit code."""
    started, free = time.monotonic(), shutil.disk_usage(ROOT).free
    process = subprocess.Popen(command)
    while True:
        try:
            return process.wait(timeout=PROGRESS_S)
        except subprocess.TimeoutExpired:
            grown = (free - shutil.disk_usage(ROOT).free) / 1e9
            print(
                f"setup: {time.monotonic() - started:.0f} s, {max(grown, 0):.1f} GB on the disk",
                flush=True,
            )


def main() -> None:
    """Bring `.venv` up to date and say how long it took."""
    started = time.monotonic()
    uv = find_uv()
    if not venv_python().exists():
        print("setup: about 6 GB into .venv (LeRobot, torch, MuJoCo): 1 to 5 minutes", flush=True)
    make_venv(uv)
    install(uv)
    print(f"setup: .venv is ready after {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
