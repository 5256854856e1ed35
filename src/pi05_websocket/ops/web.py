# SPDX-License-Identifier: Apache-2.0
"""The operations port's paths: who may ask for what is `access`, what there is to tell is `watch`.

In: HTTP. Out: health, metrics, the page, its figures as they change, images, and what a person wants of the
server. Needs the extra `ops`. Runs on the operations thread's event loop.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from importlib.resources import files
from typing import cast

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pi05_websocket.ops.access import OPS_HEADER, Denied, Purpose, decide_access
from pi05_websocket.ops.config import OpsConfig
from pi05_websocket.ops.exposition import CONTENT_TYPE, Exposition
from pi05_websocket.ops.watch import ACTIONS, Action, Watch
from pi05_websocket.server.doorkeeper import Doorkeeper
from pi05_websocket.server.exposure import is_loopback

__all__ = ["OpsPages"]

logger = logging.getLogger(__name__)

_MOST_WATCHERS = 16
_EVENTS_S = 0.5
_EVENTS_OF_MANY_S = 1.0
_MANY = 32
"""From so many robots on the figures are sent once a second."""

_LONGEST_STREAM_S = 600.0
"""A page that still looks then asks again; one that is gone without a word gives its place back."""

_TEXT = "text/plain; charset=utf-8"

Answer = Callable[[Request], Awaitable[Response]]


class OpsPages:
    """The application.

    Args:
        watch: What there is to tell.
        config: Who may look.
        doorkeeper: Who has a key.
    """

    def __init__(self, watch: Watch, config: OpsConfig, doorkeeper: Doorkeeper) -> None:
        self._watch = watch
        self._config = config
        self._doorkeeper = doorkeeper
        self._exposition = Exposition(watch.reading)
        self._watchers = 0
        self.stopping = asyncio.Event()
        """Set at the end, so that nobody who looks keeps the port open."""
        self._page = files("pi05_websocket.ops").joinpath("page.html").read_bytes()
        headers = _headers(_content_policy(self._page.decode()))
        self.application = Starlette(
            routes=[
                Route("/", self._show_page),
                Route("/healthz", _healthy),
                Route("/readyz", self._ready),
                Route("/metrics", self._for("scrape", self._metrics)),
                Route("/api/state", self._for("look", self._state)),
                Route("/api/events", self._for("look", self._events)),
                Route("/api/robots/{number:int}/plan", self._for("look", self._plan)),
                Route(
                    "/api/robots/{number:int}/images/{name:path}.jpg",
                    self._for("look", self._image),
                ),
                Route("/api/key", self._for("act", _known), methods=["POST"]),
                Route("/api/actions/{action}", self._for("act", self._act), methods=["POST"]),
                Route(
                    "/api/actions/{action}/{number:int}",
                    self._for("act", self._act),
                    methods=["POST"],
                ),
            ],
            middleware=[Middleware(_WithHeaders, headers=headers)],
        )

    def __repr__(self) -> str:
        return f"<OpsPages watchers={self._watchers}>"

    def _for(self, purpose: Purpose, answer: Answer) -> Answer:
        """Let a request through to its answer if whoever sent it may."""

        async def guarded(request: Request) -> Response:
            who = decide_access(
                purpose,
                host=request.headers.get("host", ""),
                authorization=request.headers.getlist("authorization"),
                own_page=OPS_HEADER in request.headers,
                admit=self._doorkeeper.admit,
                has_keys=self._config.ops_admin_key_file is not None,
                free_to_look=self._config.free_to_look,
                loopback=is_loopback(self._config.ops_host),
            )
            if isinstance(who, Denied):
                if purpose == "act":
                    logger.warning(
                        "operations: refused path=%r from=%r: HTTP %d",
                        request.url.path, _peer(request), who.status,
                    )  # fmt: skip
                return _plain(who.text, who.status)
            request.state.who = who
            return await answer(request)

        return guarded

    async def _show_page(self, request: Request) -> Response:
        """The page itself has no secrets: without a key it asks for one."""
        return Response(self._page, media_type="text/html; charset=utf-8")

    async def _ready(self, request: Request) -> Response:
        word, why = await self._watch.fresh_state()
        if word == "ready":
            return _plain("ready\n")
        return _plain(f"not ready: {why}\n", 503, {"Retry-After": "2"})

    async def _metrics(self, request: Request) -> Response:
        return Response(self._exposition.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _state(self, request: Request) -> Response:
        return Response(self._watch.shown(), media_type="application/json")

    async def _events(self, request: Request) -> Response:
        if self._watchers >= _MOST_WATCHERS:
            return _plain("too many look already\n", 503, {"Retry-After": "5"})
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[bytes]:
        self._watchers += 1
        until = time.monotonic() + _LONGEST_STREAM_S
        try:
            while not self.stopping.is_set() and time.monotonic() < until:
                yield b"data: " + self._watch.shown() + b"\n\n"
                many = len(self._watch.statistics.robots) > _MANY
                await _wait(self.stopping, _EVENTS_OF_MANY_S if many else _EVENTS_S)
        finally:
            self._watchers -= 1

    async def _plan(self, request: Request) -> Response:
        plan = self._watch.plan(request.path_params["number"])
        if plan is None:
            return _plain("no plan\n", 404)
        return Response(msgspec.json.encode(plan), media_type="application/json")

    async def _image(self, request: Request) -> Response:
        number, name = request.path_params["number"], request.path_params["name"]
        picture = self._watch.image(number, name)
        if picture is None:
            return _plain("no such image\n", 404)
        return Response(picture, media_type="image/jpeg")

    async def _act(self, request: Request) -> Response:
        action, number = request.path_params["action"], request.path_params.get("number", 0)
        if action not in ACTIONS or (action == "disconnect") != bool(number):
            return _plain(f"there are {', '.join(ACTIONS)}; disconnect/NUMBER\n", 404)
        done = self._watch.act(cast("Action", action), number)
        # Who did what to other people's robots is asked afterwards.
        logger.warning(
            "operations: %s%s by=%s from=%r%s",
            action, f" connection={number}" if number else "", request.state.who, _peer(request),
            "" if done else ": the server does not run",
        )  # fmt: skip
        if not done:
            return _plain("the server does not run yet\n", 409)
        return _plain(f"{action}: done\n", 202)


async def _healthy(request: Request) -> Response:
    return _plain("OK\n")


async def _known(request: Request) -> Response:
    """Whoever may act learns that the key is right, and whose it is."""
    return _plain(f"{request.state.who}\n")


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _plain(text: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(text, status, headers=headers, media_type=_TEXT)


def _peer(request: Request) -> str:
    return "?" if request.client is None else f"{request.client.host}:{request.client.port}"


def _content_policy(page: str) -> str:
    """Return a policy under which a browser runs what is in the page and nothing else, from nowhere else."""

    def hashes(tag: str) -> str:
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = (hashlib.sha256(text.encode()).digest() for text in found)
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; "
        "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _headers(content_policy: str) -> list[tuple[bytes, bytes]]:
    said = {
        "Content-Security-Policy": content_policy,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
    return [(name.lower().encode(), value.encode()) for name, value in said.items()]


class _WithHeaders:
    """Adds the same headers to every answer; streams pass through as they are."""

    def __init__(self, app: ASGIApp, headers: list[tuple[bytes, bytes]]) -> None:
        self._app = app
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, partial(self._send, send))

    async def _send(self, send: Send, message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *self._headers]
        await send(message)
