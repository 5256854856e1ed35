# SPDX-License-Identifier: Apache-2.0
"""Episodes on the machine's clock and over real sockets, and round trips of messages alone.

In: cells and seeds. Out: episodes, with what real time adds to them. The arm, the rules and the records are
those of `bench.episodes`; only clock and connection differ. One connection for all episodes, as a robot has.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pi05_websocket.bench.cells import COMPUTE_MS, Cell, Episode, Images
from pi05_websocket.client import ConnectionConfig, Exchange, RemotePolicy
from pi05_websocket.clock import SYSTEM_CLOCK
from pi05_websocket.data import Observation, ServerMetadata
from pi05_websocket.errors import Pi05WebsocketError
from pi05_websocket.policy import Policy, Result
from pi05_websocket.wire.messages import read_actions

if TYPE_CHECKING:
    from pi05_websocket.bench.episodes import Bench, Record

__all__ = [
    "Charged",
    "RealBench",
    "RealEpisode",
    "StillPolicy",
    "connect",
    "round_trips",
    "until_answered",
]

_PATIENCE_S = 60.0
"""Until an unanswered request costs the socket: a link that stalls is what is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RealEpisode(Episode):
    """An episode, and what only real time has."""

    tick_to_send_ms: list[float] = field(default_factory=list)
    """From the moment a tick is due to its observation's being handed to the socket: both images are rendered
    and encoded meanwhile, which takes no time on the virtual clock."""
    infer_ms: list[float] = field(default_factory=list)
    """What the policy really computed, of the time it is charged."""
    late_ticks: int = 0
    """Ticks that were skipped, because the loop was not ready in time."""


class Charged:
    """A policy that always takes `COMPUTE_MS`: it sleeps for what is left of them.

    Args:
        policy: What computes.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def __repr__(self) -> str:
        return f"<Charged {self._policy!r}>"

    def infer(self, observation: dict[str, Any], /) -> Result:
        """Answer; `policy_timing` says under `infer_ms` what it really took."""
        began = time.perf_counter()
        result = dict(self._policy.infer(observation))
        took = time.perf_counter() - began
        time.sleep(max(0.0, COMPUTE_MS / 1000 - took))
        return {**result, "policy_timing": {"infer_ms": 1000 * took}}


class StillPolicy:
    """Answers with 50 rows of zeros, for round trips alone."""

    def infer(self, observation: dict[str, Any], /) -> Result:
        """Return the rows."""
        return {"actions": np.zeros((50, 6), np.float32)}


def connect(url: str, images: Images = "raw") -> RemotePolicy:
    """Connect to the server of the benchmark; patient, since a stalled link is no broken one."""
    return RemotePolicy(
        config=ConnectionConfig(
            url=url,
            congestion_control="",  # it is what is to be measured
            connect_timeout=_PATIENCE_S,
            handshake_timeout=_PATIENCE_S,
            metadata_timeout=_PATIENCE_S,
            hard_timeout=_PATIENCE_S,
            first_request_timeout=_PATIENCE_S,
            image_transport=images,
        ),
        wait_for_server=_PATIENCE_S,
    )


def round_trips(policy: RemotePolicy, count: int, *, pause_s: float, pixels: int) -> list[float]:
    """Return the milliseconds that observations of random pixels took, one after the other.

    Args:
        policy: Where to.
        count: How many.
        pause_s: From one reply to the next observation.
        pixels: Rows of the image of 640 columns; 480 and a small one beside it are the usual observation.
    """
    observation = _observation(pixels)
    found = []
    for _ in range(count):
        exchange = policy.submit(observation)
        reply = exchange.result(_PATIENCE_S)
        found.append(1000 * (reply.received_at - exchange.sent_at))
        time.sleep(pause_s)
    return found


def until_answered(policy: RemotePolicy, *, pixels: int) -> float:
    """Ask, and again where the request fails, until there is an answer; return when, by the system's clock.

    As an arm does that holds: a failed request is followed by a fresh one as soon as there is a connection.
    """
    observation = _observation(pixels)
    while True:
        try:
            return policy.submit(observation).result(_PATIENCE_S).received_at
        except Pi05WebsocketError:
            with contextlib.suppress(Pi05WebsocketError):
                policy.connection.wait_ready(_PATIENCE_S)


def _observation(pixels: int) -> Observation:
    image = np.random.default_rng(0).integers(0, 256, (pixels, 640, 3), np.uint8)
    wrist = image[:224, :224] if pixels >= 224 else image
    return {
        "observation/images/realsense": image,
        "observation/images/wrist2": np.ascontiguousarray(wrist),
        "observation/state": np.zeros(6, np.float32),
        "prompt": "pick up the red cube",
    }


class _Noted:
    """The connection, with notes for the record of one episode."""

    def __init__(self, remote: RemotePolicy, record: Record) -> None:
        self.exchanges: list[Exchange] = []
        self.tick_to_send_ms: list[float] = []
        self._remote, self._record = remote, record

    @property
    def metadata(self) -> ServerMetadata:
        """The server's."""
        return self._remote.metadata

    def submit(self, observation: Observation, /) -> Exchange:
        """Send an observation."""
        self._record.asked()
        exchange = self._remote.submit(observation)
        self.tick_to_send_ms.append(1000 * (exchange.sent_at - self._record.tick_at))
        self.exchanges.append(exchange)
        return exchange

    def unavailable(self) -> Pi05WebsocketError | None:
        """Say why nothing can be sent."""
        return self._remote.unavailable()


class RealBench:
    """The arms of both tasks and one connection for each way to send images. A context manager.

    Args:
        policy: The connection for raw images, which stays the caller's.
    """

    def __init__(self, policy: RemotePolicy) -> None:
        self._policies: dict[Images, RemotePolicy] = {"raw": policy}
        self._url = policy.config.url
        self._arms: dict[str, Bench] = {}

    def __enter__(self) -> RealBench:
        return self

    def __exit__(self, *exc: object) -> None:
        for arm in self._arms.values():
            arm.__exit__()
        for images, policy in self._policies.items():
            if images != "raw":
                policy.close()

    def run(self, cell: Cell, seed: int) -> RealEpisode:
        """Run one seed of a cell; returns once the last reply is there, for the next episode's link is free."""
        from pi05_websocket.bench.episodes import Bench, Record

        arm = self._arms.get(cell.task)
        if arm is None:
            arm = self._arms[cell.task] = Bench(cell.task, clock=SYSTEM_CLOCK)
        record = Record()
        policy = self._policies.get(cell.images)
        if policy is None:
            policy = self._policies[cell.images] = connect(self._url, cell.images)
        noted = _Noted(policy, record)
        episode = arm.play(cell, seed, noted, record)
        return self._finish(episode, noted, record)

    def _finish(self, episode: Episode, noted: _Noted, record: Record) -> RealEpisode:
        trips, infer = [], []
        for exchange in noted.exchanges:
            with contextlib.suppress(Pi05WebsocketError):
                reply = exchange.result(_PATIENCE_S)
                record.planned(read_actions(reply.value))
                trips.append(round(1000 * (reply.received_at - exchange.sent_at), 2))
                infer.append(round(float(reply.value["policy_timing"]["infer_ms"]), 2))
        facts = asdict(episode) | {"row_jumps": record.row_jumps, "round_trips_ms": trips}
        return RealEpisode(
            **facts,
            tick_to_send_ms=[round(wait, 2) for wait in noted.tick_to_send_ms],
            infer_ms=infer,
            late_ticks=record.late_ticks,
        )
