# SPDX-License-Identifier: Apache-2.0
"""`make fuzz`, for a moment."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import corpus
from fuzz.__main__ import Progress

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="no wheel for this platform"
)
def test_a_target_is_fuzzed_and_summed_up() -> None:
    """Executions, branches and no failure."""
    command = [sys.executable, "-m", "fuzz", "--seconds", "1", "--target", "jpeg_header"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok     jpeg_header      executions=" in done.stdout
    assert "branches=    0" not in done.stdout


def test_progress_is_read_from_libfuzzers_lines() -> None:
    """The last line has the number that counts."""
    progress = Progress("codec")
    progress.take(
        "#4096\tpulse  cov: 213 ft: 642 corp: 171/4410b lim: 4096 exec/s: 2048 rss: 79Mb\n"
    )
    assert (progress.executions, progress.branches, progress.inputs) == (4096, 213, 171)
    progress.take("stat::number_of_executed_units: 5000\n")
    progress.take("INFO: Seed: 1\n")
    assert str(progress) == "codec            executions=    5,000 branches=  213 inputs=  171"


def test_inputs_are_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a word about them, and read back byte for byte."""
    monkeypatch.setattr(corpus, "FOLDER", tmp_path)
    assert corpus.kept("codec") == []
    assert corpus.keep("codec", [b"\xff\x00", b"", b"\xff\x00"], "was: an error") == 2
    assert corpus.keep("codec", [b"", b"new"]) == 1
    assert corpus.kept("codec") == [b"\xff\x00", b"", b"new"]
