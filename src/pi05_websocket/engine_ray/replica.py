# SPDX-License-Identifier: Apache-2.0
"""What runs in a replica of the policy application: a policy, our planner, and futures for what is asked.

In: raw requests, from the event loop. Out: raw answers. The policy has a thread of its own, as in the plain
server; requests are decoded there or beside it. Knows nothing of Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from pi05_websocket.engine_ray.config import PolicySettings
from pi05_websocket.engine_ray.messages import Answer, Ask, Description
from pi05_websocket.policy import Policy, policy_metadata, warm_up_policy
from pi05_websocket.server.backend import Delivery
from pi05_websocket.server.inference import takes_batches
from pi05_websocket.server.loading import load_policy
from pi05_websocket.server.requests import Outcome, Request
from pi05_websocket.server.worker import PolicyWorker
from pi05_websocket.wire.dialects import DIALECTS, OPENPI
from pi05_websocket.wire.protocol import ServerProtocol

__all__ = ["PolicyHung", "PolicyReplica"]

logger = logging.getLogger(__name__)

_MOST_SESSIONS = 4096
"""What the policy remembers of a robot is kept for so many of them; the longest silent is forgotten first."""

_OVERDUE_S = 0.25


class PolicyHung(RuntimeError):
    """An inference takes longer than any should."""


class PolicyReplica:
    """Answers for one policy. On one event loop; `begin` before anything else."""

    def __init__(
        self,
        settings: PolicySettings,
        *,
        load: Callable[[str], Policy] = load_policy,
        most_sessions: int = _MOST_SESSIONS,
    ) -> None:
        if settings.server.seed is None:
            seeded = replace(settings.server, seed=secrets.randbits(63))
            settings = replace(settings, server=seeded)
        self._settings = settings
        self._load = load
        self._most_sessions = most_sessions
        self._serving: _Serving | None = None
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._waiting: dict[Request, tuple[asyncio.Future[Answer], str]] = {}
        """Who waits, and the generation of the policy that was asked."""
        self._overdue: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<PolicyReplica {self._settings.policy} waiting={len(self._waiting)}>"

    async def begin(self) -> None:
        """Load the policy and have it infer once for each batch size, beside the event loop."""
        await self._serve(self._settings.policy)
        self._overdue = asyncio.get_running_loop().create_task(self._refuse_overdue_now_and_then())

    async def change(self, said: Mapping[str, Any]) -> None:
        """Go over to another policy, `{"policy": ...}`, while the present one answers; both are in memory."""
        spec = said.get("policy", self._settings.policy)
        if self._serving is not None and spec == self._serving.spec:
            return
        await self._serve(spec)

    async def ask(self, payload: bytes | str, said: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one request; see `Ask` and `Answer`."""
        assert self._serving is not None
        serving, ask = self._serving, Ask.from_map(said)
        session = self._session(ask.session)
        request = Request(
            connection=session,
            number=ask.number,
            protocol=serving.protocol(ask),
            payload=payload,
            arrived=time.perf_counter() - ask.waited_ms / 1000,
            priority=ask.priority,
        )
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[request] = future, serving.description.generation
        session.waiting += 1
        serving.worker.submit(request)
        try:
            return (await future).to_map()
        finally:
            session.waiting -= 1
            if self._waiting.pop(request, None) is not None and not session.waiting:
                serving.worker.forget(session)  # nobody wants the answer any more

    def describe(self) -> dict[str, Any]:
        """Return the application's `Description`."""
        assert self._serving is not None
        return self._serving.description.to_map()

    def check_health(self) -> None:
        """Say whether the policy gets on.

        Raises:
            PolicyHung: The inference under way takes longer than the settings allow.
        """
        since = None if self._serving is None else self._serving.worker.asked_at
        if since is not None and time.perf_counter() - since > self._settings.hang_s:
            raise PolicyHung(
                f"the policy has been at one inference for {time.perf_counter() - since:.0f} s, and "
                f"{self._settings.hang_s:g} s are allowed (hang_s). Where it may take longer, allow it."
            )

    async def end(self) -> None:
        """Stop the policy's thread."""
        if self._overdue is not None:
            self._overdue.cancel()
        if self._serving is not None:
            self._serving.worker.stop()

    # -------------------------------------------------------------------------------------------------

    async def _serve(self, spec: str) -> None:
        loop, config = asyncio.get_running_loop(), self._settings.server

        def call(callback: Callable[..., None], *args: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                loop.call_soon_threadsafe(callback, *args)

        def make() -> _Serving:
            policy = self._load(spec)
            sizes = _batch_sizes(config.max_batch if takes_batches(policy) else 1)
            began = time.perf_counter()
            warmed = self._settings.warm_up and warm_up_policy(policy, sizes)
            took = f", warmed up in {time.perf_counter() - began:.1f} s" if warmed else ""
            logger.info("serving %s%s", spec, took)
            worker = PolicyWorker(
                policy,
                config,
                lambda outcomes: call(self._settle, outcomes),
                lambda: None,
                seed=config.seed or 0,
            )
            return _Serving(spec, policy, worker, self._settings)

        before, self._serving = self._serving, await asyncio.to_thread(make)
        # What a policy remembers of a robot is for that policy alone.
        self._sessions = OrderedDict()
        self._serving.worker.start()
        if before is not None:
            await self._until_answered(before)
            before.worker.stop()

    async def _until_answered(self, before: _Serving) -> None:
        """Let whoever waits for a policy that is replaced have its answer."""
        while before.worker.waiting or before.worker.asked_at is not None:
            await asyncio.sleep(_OVERDUE_S)
            before.worker.refuse_overdue()

    def _session(self, name: str) -> _Session:
        session = self._sessions.get(name)
        if session is None:
            session = self._sessions[name] = _Session(name)
            excess = max(len(self._sessions) - self._most_sessions, 0)
            for old, idle in list(self._sessions.items())[:excess]:
                if not idle.waiting:
                    del self._sessions[old]
                    if self._serving is not None:
                        self._serving.worker.forget(idle)
        self._sessions.move_to_end(name)
        return session

    def _settle(self, outcomes: Delivery) -> None:
        for request, outcome in outcomes:
            future, generation = self._waiting.pop(request, (None, ""))
            if future is not None and not future.done():
                future.set_result(Answer.of(outcome, generation))

    async def _refuse_overdue_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_OVERDUE_S)
            if self._serving is not None and self._serving.worker.waiting:
                self._serving.worker.refuse_overdue()


class _Session:
    """One connection of a robot, wherever its socket is."""

    def __init__(self, name: str) -> None:
        # 63 bits, from the name alone: a robot's random stream is the same on each replica.
        self.number = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") >> 1
        self.state: dict[str, Any] = {}
        self.waiting = 0

    def deliver(self, request: Request, outcome: Outcome) -> None:
        """Nothing: whoever asked waits for a future."""


class _Serving:
    """One policy at work, and what there is to say of it."""

    def __init__(
        self, spec: str, policy: Policy, worker: PolicyWorker, settings: PolicySettings
    ) -> None:
        self.spec = spec
        self.worker = worker
        self._metadata = policy_metadata(policy)
        self._config = settings.server
        self._protocols: dict[tuple[bool, str], ServerProtocol] = {}
        said = self._protocol_for(False, OPENPI.name).metadata_message
        generation = blake2b(spec.encode() + b"\0" + said, digest_size=8).hexdigest()
        self.description = Description(metadata=said, generation=generation)

    def protocol(self, ask: Ask) -> ServerProtocol:
        """Return one for a single request, as its connection's would be."""
        protocol = copy.copy(self._protocol_for(ask.debug, ask.dialect))
        if ask.prev_total_ms is not None:
            protocol.reply_sent(total_ms=ask.prev_total_ms)
        return protocol

    def _protocol_for(self, debug: bool, dialect: str) -> ServerProtocol:
        """Return the one that all such clients' are copies of; it is made when the first of them asks."""
        made = self._protocols.get((debug, dialect))
        if made is None:
            made = self._protocols[debug, dialect] = ServerProtocol(
                self._metadata,
                debug=debug,
                limits=self._config.limits,
                encoded_images=self._config.encoded_images,
                deadlines=self._config.deadlines,
                dialect=DIALECTS[dialect],
            )
        return made


def _batch_sizes(most: int) -> list[int]:
    """Return 1, 2, 4, ... and the largest."""
    sizes = [1]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], most))
    return sizes
