# SPDX-License-Identifier: Apache-2.0
"""Child processes, with real ones."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pi05_websocket.cli.demo_children import Child

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

READY = "print('ready', flush=True);"
SLEEP = "import time; time.sleep(600)"


def child(program: str, log: Path, **env: str) -> Child:
    """Start Python with a program."""
    return Child("the child", [sys.executable, "-c", program], log=log, env=env)


def await_text(started: Child, text: str) -> None:
    """Wait until the child has said something; the test's time limit bounds it."""
    while text not in started.text():
        assert started.exit_code is None, started.text()
        started.wait(0.02)


def is_alive(pid: int) -> bool:
    """Say whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_says_and_ends(tmp_path: Path) -> None:
    """Output and exit code are kept, the environment is extended."""
    program = "import os, sys; print(os.environ['WORD']); sys.exit(3)"
    with child(program, tmp_path / "log", WORD="hello") as started:
        assert started.wait(30) == 3

    assert started.last_words() == "hello"
    assert "exit_code=3" in repr(started)


def test_last_words_are_the_last_and_without_noise(tmp_path: Path) -> None:
    """What LeRobot repeats at each late tick is left out."""
    program = "for i in range(30): print(i); print('Record loop is running slower (9 Hz)')"
    with child(program, tmp_path / "log") as started:
        started.wait(30)

    assert started.last_words(2) == "28\n29"


def test_silence_is_told(tmp_path: Path) -> None:
    """A child that said nothing is said to have."""
    with child("", tmp_path / "log") as started:
        started.wait(30)

    assert started.last_words() == "(it said nothing)"


def test_leaving_the_context_ends_it(tmp_path: Path) -> None:
    """A running child does not outlive the block that started it."""
    with child(READY + SLEEP, tmp_path / "log") as started:
        await_text(started, "ready")

    assert started.exit_code is not None


def test_interrupt_is_what_ctrl_c_does(tmp_path: Path) -> None:
    """The child may end in its own way."""
    program = (
        f"try:\n {READY} {SLEEP}\nexcept KeyboardInterrupt:\n print('bye'); raise SystemExit(0)"
    )
    with child(program, tmp_path / "log") as started:
        await_text(started, "ready")
        started.interrupt()
        assert started.wait(30) == 0

    assert started.last_words(1) == "bye"
    started.interrupt()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_grandchildren_go_too(tmp_path: Path) -> None:
    """What a child has started and left behind is ended with it."""
    program = (
        "import subprocess, sys;"
        f"p = subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); print('pid', p.pid, flush=True)"
    )
    with child(program, tmp_path / "log") as started:
        started.wait(30)
        grandchild = int(started.text().split()[1])
        assert is_alive(grandchild)

    while is_alive(grandchild):
        os.sched_yield()


def test_impatience_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second Ctrl-C while a stubborn child is being stopped ends it at once."""
    program = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {READY} {SLEEP}"
    started = child(program, tmp_path / "log")
    await_text(started, "ready")

    def impatient(timeout_s: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(started, "wait", impatient)
    with pytest.raises(KeyboardInterrupt):
        started.stop()

    assert started.exit_code == -9
