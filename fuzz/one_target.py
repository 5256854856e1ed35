# SPDX-License-Identifier: Apache-2.0
"""One target in a process of its own, under atheris: libFuzzer looks which input reaches new branches.

In: a target's name, a folder, seconds. Out: in FOLDER/found inputs that reach something new, in FOLDER/failures
those that broke a property, with the traceback beside each, and FOLDER/outcome.json.
"""

from __future__ import annotations

import json
import random
import sys
import traceback
from collections import Counter
from pathlib import Path

try:
    import atheris
except ImportError:  # no wheel for this platform
    sys.exit("make fuzz needs atheris, for Linux on x86: uv pip install atheris")

with atheris.instrument_imports(
    include=["pi05_websocket", "numpy.lib", "http", "email", "zipfile"]
):
    from fuzz import corpus
    from fuzz.target import Target, try_input
    from fuzz.targets import TARGETS

_LONGEST = 4096
_PATIENCE_S = 10
"""An input that takes longer is a finding: libFuzzer ends the process and leaves it in FOLDER/failures."""
_SAVED_EVERY = 20_000


class _Run:
    """Counts what came out; keeps one input of each kind of failure."""

    def __init__(self, target: Target, folder: Path) -> None:
        self._target = target
        self._folder = folder
        self._words: Counter[str] = Counter()
        self._failures: dict[str, int] = {}
        self._count = 0

    def try_input(self, data: bytes) -> None:
        """Give the target an input; a failure is noted and the run goes on."""
        self._count += 1
        try:
            self._words[try_input(self._target, data)] += 1
        except Exception as exc:
            self._note(data, exc)
        if self._count % _SAVED_EVERY == 0:
            self.save()

    def save(self) -> None:
        """Write what came out so far: libFuzzer ends the process without a word to Python."""
        outcome = {"executions": self._count, "outcomes": self._words, "failures": self._failures}
        (self._folder / "outcome.json").write_text(json.dumps(outcome), encoding="utf-8")

    def _note(self, data: bytes, exc: Exception) -> None:
        frames = traceback.extract_tb(exc.__traceback__)
        place = " < ".join(
            f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[:-4:-1]
        )
        kind = f"{type(exc).__name__} at {place}"
        self._failures[kind] = self._failures.get(kind, 0) + 1
        if self._failures[kind] == 1:
            path = self._folder / "failures" / f"{len(self._failures)}"
            path.with_suffix(".input").write_bytes(data)
            text = "".join(traceback.format_exception(exc))
            path.with_suffix(".txt").write_text(f"{kind}\n\n{text}", encoding="utf-8")
            self.save()


def main() -> None:
    """Fuzz until the time is over."""
    name, folder, seconds = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    target = TARGETS[name]
    for part in ("found", "seeds", "failures"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(corpus.inputs(target)):
        (folder / "seeds" / str(number)).write_bytes(data)
    run = _Run(target, folder)

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.5:
            return bytes(atheris.Mutate(data, longest))
        return target.mutate(bytes(data), chance)[:longest]

    options = [
        f"-max_total_time={seconds}", f"-max_len={_LONGEST}", f"-timeout={_PATIENCE_S}", "-rss_limit_mb=1024",
        f"-artifact_prefix={folder}/failures/", "-print_final_stats=1", f"{folder}/found", f"{folder}/seeds",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options], run.try_input, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
