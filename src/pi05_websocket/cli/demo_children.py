# SPDX-License-Identifier: Apache-2.0
"""Child processes that never outlive their parent, and whose last words are kept.

In: a command line. Out: a running process; its output goes to a file, whose tail explains a failure.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

__all__ = ["Child", "every_end_like_ctrl_c"]

_POLITE_S = 20.0
_FIRM_S = 5.0
"""How long a child may take to stop after SIGINT, and after SIGTERM."""

_NOISE = "Record loop is running slower"
"""LeRobot says this at each late tick; the demo counts the rate itself."""


class Child:
    """One child process in a session of its own: Ctrl-C reaches only the parent, which decides.

    Args:
        name: What messages call it.
        command: Program and arguments.
        log: Where stdout and stderr go.
        env: Added to this process's environment.
    """

    def __init__(
        self, name: str, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {}), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )

    def __repr__(self) -> str:
        return f"<Child {self.name} pid={self._process.pid} exit_code={self.exit_code}>"

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        return self._process.poll()

    def interrupt(self) -> None:
        """Do what Ctrl-C in its terminal would do; return at once."""
        self._signal(signal.SIGINT)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end; return the exit code, None if it still runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout_s)
        return None

    def stop(self) -> None:
        """End it and whatever it started: politely, then firmly. Returns once it is gone."""
        try:
            for number, patience_s in ((signal.SIGINT, _POLITE_S), (signal.SIGTERM, _FIRM_S)):
                if self.exit_code is not None:
                    break
                self._signal(number)
                self.wait(patience_s)
        finally:  # also when a second Ctrl-C cuts the patience short
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.name == "nt":
                    self._process.kill()
                else:
                    os.killpg(self.pid, signal.SIGKILL)  # grandchildren too
            self._process.wait()

    def text(self) -> str:
        """Return everything it has said so far."""
        return self.log.read_text(errors="replace")

    def last_words(self, lines: int = 20) -> str:
        """Return the last lines it said, without the noise."""
        said = [line for line in self.text().splitlines() if line.strip() and _NOISE not in line]
        return "\n".join(said[-lines:]) or "(it said nothing)"

    def _signal(self, number: signal.Signals) -> None:
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                if os.name == "nt":  # which has no signals for other processes
                    self._process.terminate()
                else:
                    self._process.send_signal(number)


@contextlib.contextmanager
def every_end_like_ctrl_c() -> Iterator[None]:
    """A closed terminal and a supervisor's SIGTERM must take the children along, as Ctrl-C does."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
