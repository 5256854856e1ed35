# SPDX-License-Identifier: Apache-2.0
"""A page and a few commands for whoever stands beside the arm: how it is, stop, go on, another task.

In: the trace's lines, HTTP requests. Out: `Controls`, a page, `/status` as JSON. Threads of its own; the
control thread only leaves facts behind. For this machine alone: it listens on the loopback interface, and takes
commands only from its own page and from `pi05-websocket control`, not from a web page that somebody has open.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, get_args

from pi05_websocket.errors import ConfigError
from pi05_websocket.robot.controls import Controls
from pi05_websocket.robot.wishes import WISHES, WishName

__all__ = ["CONTROL_HEADER", "ControlPage"]

logger = logging.getLogger(__name__)

CONTROL_HEADER = "X-Pi05-Control"
"""A request with this header cannot come from another site's page: browsers ask first, and are refused."""

_HOST = "127.0.0.1"
_OWN_NAMES = ("127.0.0.1", "localhost", "[::1]")
_MOST_BYTES = 4096
_PATIENCE_S = 5.0


class ControlPage:
    """A listener of the trace that can be looked at, and asked to do things. One for each process.

    Args:
        port: Where to answer; 0 lets the system choose, see `port`.
        controls: Where wishes go.

    Raises:
        ConfigError: The port is taken.
    """

    def __init__(self, port: int, controls: Controls) -> None:
        self._controls = controls
        self._lock = threading.Lock()
        self._facts: dict[str, Any] = {"state": "wait", "latched": False, "cause": None}
        self._held: Counter[str] = Counter()
        self._ticks = 0
        self._ticked_at: float | None = None
        try:
            self._server = _Server(port, self)
        except OSError as exc:
            raise ConfigError(f"control_port={port}: {exc.strerror or exc}") from exc
        self.port: int = self._server.server_port
        """The TCP port."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="pi05-control", daemon=True
        )
        self._thread.start()
        logger.info("control page at http://%s:%d/", _HOST, self.port)

    def __repr__(self) -> str:
        return f"<ControlPage port={self.port}>"

    def __call__(self, kind: str, facts: dict[str, Any]) -> None:
        """Take one line of the trace."""
        with self._lock:
            self._take(kind, facts)

    def close(self) -> None:
        """Stop answering. Safe to call twice."""
        self._server.shutdown()
        self._server.server_close()

    def status(self) -> dict[str, Any]:
        """Return how the robot is."""
        with self._lock:
            age = None if self._ticked_at is None else round(time.monotonic() - self._ticked_at, 2)
            return {**self._facts, "age_s": age, "ticks": self._ticks, "held": dict(self._held)}

    def want(self, name: WishName, text: str) -> None:
        """Pass on a wish."""
        if name == "task":
            self._controls.change_task(text)
        else:
            self._controls.want(name)

    def _tick(self, facts: dict[str, Any]) -> None:
        self._ticks += 1
        self._ticked_at = time.monotonic()
        self._facts["source"] = facts["source"]
        cause = facts.get("cause")
        if cause is not None:
            self._held[cause] += 1
        elif facts["source"] in ("chunk", "dry_run"):
            state = "run" if facts["source"] == "chunk" else "dry run"
            self._facts |= {"state": state, "latched": False, "why": None}
        self._facts["cause"] = cause

    def _take(self, kind: str, facts: dict[str, Any]) -> None:
        if kind == "tick":
            self._tick(facts)
        elif kind == "held":
            self._facts["why"] = facts["text"]
        elif kind == "state":
            self._facts |= {key: facts[key] for key in ("state", "latched", "cause")}
        elif kind == "exchange":
            shown = ("round_trip_ms", "server_ms", "delay_ticks", "outcome")
            self._facts |= {key: facts.get(key) for key in shown}
        elif kind == "episode":
            self._held.clear()
            self._ticks = 0
            self._facts |= {"episode": facts["episode"], "state": "wait", "latched": False}
        elif kind in ("resumed", "confirmed"):
            self._facts |= {"state": "wait", "latched": False, "plan": None}
        elif kind in ("plan", "settings"):
            self._facts[kind] = facts
        elif kind == "task":
            self._facts["task"] = facts["task"]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Else a robot that is started again at once finds its own port taken. On Windows it would let two programs
    # share the port, and STOP go to either.
    allow_reuse_address = os.name == "posix"

    def __init__(self, port: int, page: ControlPage) -> None:
        self.page = page
        super().__init__((_HOST, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say at DEBUG that a client hung up, or sent what no client sends."""
        logger.debug("control page: a request failed: %r", sys.exc_info()[1])


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE_S

    def do_GET(self) -> None:
        """Answer with the page or the status."""
        if not self._from_here():
            return
        if self.path == "/":
            page = files("pi05_websocket.robot").joinpath("control_page.html").read_bytes()
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", page)
        elif self.path == "/status":
            self._say(HTTPStatus.OK, self.server.page.status())
        else:
            self._say(HTTPStatus.NOT_FOUND, {"error": "there are / and /status"})

    def do_POST(self) -> None:
        """Take a wish: `/resume`, `/pause`, `/episode`, `/quit`, or `/task` with `{"task": "..."}`."""
        if not self._from_here():
            return
        if self.headers.get(CONTROL_HEADER) is None:
            text = f"commands need the header {CONTROL_HEADER}: use pi05-websocket control"
            self._say(HTTPStatus.FORBIDDEN, {"error": text})
            return
        name = self.path.strip("/")
        if name not in get_args(WishName):
            self._say(HTTPStatus.NOT_FOUND, {"error": f"there are {', '.join(WISHES)}"})
            return
        task = self._task() if name == "task" else ""
        if task is not None:
            self.server.page.want(name, task)  # type: ignore[arg-type]  # looked at above
            self._say(HTTPStatus.ACCEPTED, {"wanted": name})

    def log_message(self, format: str, *args: Any) -> None:
        """Say requests at DEBUG, not on stderr."""
        logger.debug("control page: %s", format % args)

    def _from_here(self) -> bool:
        """Refuse names that are not this machine's: somebody else's may lead here too (DNS rebinding)."""
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        if host in _OWN_NAMES:
            return True
        self._say(HTTPStatus.FORBIDDEN, {"error": "this page is for this machine alone"})
        return False

    def _task(self) -> str | None:
        length = self.headers.get("Content-Length", "")
        few = len(length) <= len(str(_MOST_BYTES)) and length.isascii() and length.isdigit()
        if not few or int(length) > _MOST_BYTES:
            self._say(HTTPStatus.BAD_REQUEST, {"error": f"expected at most {_MOST_BYTES} bytes"})
            return None
        try:
            read = json.loads(self.rfile.read(int(length)))
            task = read["task"]
        except (ValueError, KeyError, TypeError, OSError, RecursionError):
            task = None
        if not isinstance(task, str) or not task.strip():
            self._say(HTTPStatus.BAD_REQUEST, {"error": 'expected {"task": "what to do"}'})
            return None
        return task

    def _say(self, status: HTTPStatus, what: dict[str, Any]) -> None:
        self._answer(status, "application/json", json.dumps(what).encode())

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")  # nor inside another site's page
        self.end_headers()
        self.wfile.write(body)
