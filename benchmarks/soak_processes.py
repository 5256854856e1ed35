# SPDX-License-Identifier: Apache-2.0
"""Processes of the soak: started, asked a line at a time, looked at from outside; and the cable between two.

In: command lines. Out: answers, and `Sample`s from /proc. Linux only. The cable has a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from soak_analysis import Sample

__all__ = ["Cable", "Child", "free_port", "look_at"]

_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6
_PATIENCE_S = 60.0
_PIECE = 65536


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def look_at(pid: int, at_s: float, blocks: int | None) -> Sample:
    """Return how a process is, by what its system says."""
    folder = Path(f"/proc/{pid}")
    return Sample(
        at_s=at_s,
        rss_mb=int((folder / "statm").read_text().split()[1]) * _PAGE_MB,
        blocks=blocks,
        fds=len(os.listdir(folder / "fd")),
        threads=len(os.listdir(folder / "task")),
    )


class Child:
    """A program of the soak: says something first, then answers each line with one."""

    def __init__(self, program: str, *words: str) -> None:
        self._command = [sys.executable, str(Path(__file__).parent / program), *words]
        self.lives = 0
        self.start()

    def start(self) -> dict[str, Any]:
        """Start, again after an end; return what it says first."""
        self.lives += 1
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.first = self._read()
        return self.first

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def ask(self, line: str) -> dict[str, Any]:
        """Return the answer to a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._read()

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it by a signal, at once after a while. Safe to call twice."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        self._forget()

    def close(self) -> None:
        """Let it end by itself."""
        self._forget()

    def _forget(self) -> None:
        process = self._process
        with contextlib.suppress(BrokenPipeError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait(_PATIENCE_S)
            raise RuntimeError(f"{' '.join(self._command[1:3])} ended with code {code}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Cable:
    """A TCP forwarder that can be cut, and that can be silent."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._flows.set()
        self._open: set[asyncio.StreamWriter] = set()
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(listener.getsockname()[1])
        self._thread = threading.Thread(target=self._run, args=(listener,), daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """End every connection at once, without a goodbye."""
        self._loop.call_soon_threadsafe(self._abort)

    def be_silent(self, silent: bool) -> None:
        """Let nothing through, or all that has piled up."""
        act = self._flows.clear if silent else self._flows.set
        self._loop.call_soon_threadsafe(act)

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, listener: socket.socket) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, sock=listener))
        self._loop.run_forever()
        server.close()
        self._abort()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.1))
        self._loop.close()

    def _abort(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, far_writer}
        self._open |= both
        ways = [
            asyncio.ensure_future(self._carry(reader, far_writer)),
            asyncio.ensure_future(self._carry(far_reader, writer)),
        ]
        try:
            with contextlib.suppress(asyncio.CancelledError):  # at the end of all
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open -= both
            for way in ways:
                way.cancel()
            for end in both:
                end.transport.abort()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_PIECE):
                await self._flows.wait()
                sink.write(data)
                await sink.drain()
            await asyncio.sleep(0.2)  # what was written last, a goodbye perhaps, still goes out
