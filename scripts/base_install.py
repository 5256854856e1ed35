# SPDX-License-Identifier: Apache-2.0
"""Check the base install: the wheel, small, without torch, on old and new Python and numpy.

In: this repository. Out: exit code 0 if the wheel has the name LeRobot looks for, installs within
its size, imports neither torch nor LeRobot, and passes the core tests in both environments.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from environment import ROOT, find_uv
from run_tests import STEPS

NAME = "lerobot_policy_pi05_websocket"
SIZE_LIMIT_MB = 130
ENVIRONMENTS = (("3.11", "numpy==1.26.4"), ("3.12", "numpy>=2"))
"""OpenPI's own server environment, and LeRobot's."""

IMPORT_CHECK = """
import importlib.util, sys
import pi05_websocket, pi05_websocket.client, pi05_websocket.presets
loaded = {"torch", "lerobot"} & set(sys.modules)
found = [name for name in ("torch", "lerobot") if importlib.util.find_spec(name)]
if loaded or found:
    sys.exit(f"base install: torch or LeRobot is there: loaded {loaded}, installed {found}")
"""


def run(*command: str | Path) -> str:
    """Run a command, return what it printed; end the check if it fails."""
    words = [str(part) for part in command]
    done = subprocess.run(words, cwd=ROOT, text=True, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        print(done.stdout)
        raise SystemExit(f"base install: failed: {' '.join(words)}")
    return done.stdout


def build_wheel(uv: str, folder: Path) -> Path:
    """Build the wheel and check the name in its metadata.

    LeRobot finds plugins by that name, underscores included; build tools may rewrite it.
    """
    run(uv, "build", "-q", "--wheel", "--python", sys.executable, "-o", folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    if f"Name: {NAME}" not in lines:
        raise SystemExit(f"base install: the wheel's metadata has no line 'Name: {NAME}'")
    return wheel


def pins_without_numpy(folder: Path) -> Path:
    """Write constraints.txt without numpy, whose versions this check chooses itself."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = folder / "pins.txt"
    pins.write_text("\n".join(line for line in lines if not line.startswith("numpy==")) + "\n")
    return pins


def size_mb(folder: Path) -> float:
    """Return how much the files below a folder hold, in units of 1 000 000 bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def check(uv: str, wheel: Path, version: str, numpy: str, folder: Path) -> str | None:
    """Check one environment; return a sentence about it, None where there is no such Python."""
    venv = folder / f"venv-{version}"
    made = subprocess.run([uv, "venv", "-q", "--python", version, str(venv)], check=False)
    if made.returncode != 0:
        print(f"base install: no Python {version} here, and none to be downloaded: skipped")
        return None
    python = venv / "bin" / "python"
    pip = [uv, "pip", "install", "-q", "--python", str(python)]
    run(*pip, wheel, numpy, "-c", pins_without_numpy(folder))
    (site_packages,) = venv.glob("lib/python*/site-packages")
    size = size_mb(site_packages)
    if size > SIZE_LIMIT_MB:
        raise SystemExit(
            f"base install: {size:.0f} MB with Python {version}, allowed {SIZE_LIMIT_MB}"
        )
    run(python, "-I", "-c", IMPORT_CHECK)
    run(*pip, "--group", "test", numpy, "-c", pins_without_numpy(folder))
    # From the installed wheel, not from `src`: the tests lie outside of it.
    tests = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", STEPS["core"])
    return f"Python {version}, {numpy}: {size:.0f} MB, {tests.strip().splitlines()[-1].strip('= ')}"


def main() -> None:
    """Build once, check in every environment."""
    uv = find_uv()
    sentences = []
    with tempfile.TemporaryDirectory(prefix="base-install-") as name:
        folder = Path(name)
        wheel = build_wheel(uv, folder)
        for version, numpy in ENVIRONMENTS:
            sentence = check(uv, wheel, version, numpy, folder)
            if sentence is not None:
                sentences.append(sentence)
                print(sentence, flush=True)
    if not sentences:
        raise SystemExit("base install: not a single Python to try it with")
    print("base install: " + "; ".join(sentences))


if __name__ == "__main__":
    main()
