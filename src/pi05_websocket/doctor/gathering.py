# SPDX-License-Identifier: Apache-2.0
"""Watch a robot and ask a server with what it sees. Nothing is ever sent to the robot.

In: how to read a robot, an open policy. Out: facts for the checks, or a finding where there are none. Blocks.
"""

from __future__ import annotations

import statistics
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pi05_websocket.client import RemotePolicy
from pi05_websocket.data import Float32Array, Observation
from pi05_websocket.doctor.check_dataset import Episode, Replayed
from pi05_websocket.doctor.facts import AnswerFacts, CameraFacts, RobotFacts, Setup
from pi05_websocket.doctor.findings import Finding, found
from pi05_websocket.doctor.translate import translated
from pi05_websocket.errors import (
    DeadlineExceeded,
    InvalidReply,
    Pi05WebsocketError,
    ServerError,
)
from pi05_websocket.robot.interface import RobotReading
from pi05_websocket.wire.messages import read_actions, server_infer_ms

__all__ = ["RobotSource", "asked", "made_up", "replayed", "watched"]

_PINGS = 10
_READINGS = 10
"""At least; a camera is not called frozen after fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotSource:
    """A robot to be read. There is nothing here to command it with."""

    read: Callable[[], RobotReading]
    noiseless: bool = False
    units: str = ""
    calibrated: bool | None = None


def watched(source: RobotSource, setup: Setup, seconds: float) -> RobotFacts:
    """Read a robot at the control rate for a while.

    Raises:
        Exception: Whatever the robot raises.
    """
    took: list[float] = []
    marks: dict[str, int] = {}
    distinct: dict[str, int] = {}
    began = time.monotonic()
    while True:
        before = time.monotonic()
        reading = source.read()
        now = time.monotonic()
        took.append(now - before)
        for name, image in reading.images.items():
            mark = zlib.crc32(np.ascontiguousarray(image))
            distinct[name] = distinct.get(name, 0) + (marks.get(name) != mark)
            marks[name] = mark
        if now - began >= seconds and len(took) >= _READINGS:
            break
        time.sleep(max(0.0, 1.0 / setup.control_hz - (now - before)))
    return RobotFacts(
        pose=np.asarray(reading.joints, np.float32),
        cameras={
            name: CameraFacts(image=np.array(image), distinct=distinct[name])
            for name, image in reading.images.items()
        },
        read_s=took,
        seconds=time.monotonic() - began,
        noiseless=source.noiseless,
        units=source.units,
        calibrated=source.calibrated,
    )


def made_up(setup: Setup) -> Observation:
    """Return an observation of the right form without a robot: noise for images, a made-up state.

    No joint is at 0: a policy that answers with its state would look like one that answers nothing but zeros.
    The numbers are small, possible in degrees, radians and shares.
    """
    noise = np.random.default_rng(0)
    images: dict[str, npt.NDArray[Any]] = {
        name: noise.integers(0, 256, (camera.height or 480, camera.width or 640, 3), np.uint8)
        for name, camera in setup.key_map.cameras.items()
    }
    state = np.linspace(0.1, 0.5, setup.key_map.state_dim or 6, dtype=np.float32)
    return setup.key_map.observation(images, state, setup.task)


def asked(
    policy: RemotePolicy,
    observation: Observation,
    pose: Float32Array | None,
    setup: Setup,
    requests: int,
) -> AnswerFacts | Finding:
    """Send an observation a few times and return what came, or what is wrong with it."""
    joints = None if pose is None else len(pose)
    round_trips, infer = [], []
    try:
        first = policy.infer(observation)
        rows = read_actions(first)
        pings = policy.connection.ping(_PINGS, timeout=5.0)
        for _ in range(max(1, requests)):
            exchange = policy.submit(observation)
            reply = exchange.result(exchange.limit)
            round_trips.append(reply.received_at - exchange.sent_at)
            rows = read_actions(reply.value)
            said_ms = server_infer_ms(reply.value)
            if said_ms is not None:
                infer.append(said_ms / 1000.0)
    except ServerError as exc:
        return translated(str(exc).removeprefix("server error: "), setup.key_map, joints)
    except InvalidReply as exc:
        finite = "finite" in str(exc)
        return found("answer", "answer-not-finite" if finite else "answer-not-a-chunk", str(exc))
    except DeadlineExceeded as exc:
        return found("answer", "no-answer-in-time", str(exc))
    except Pi05WebsocketError as exc:
        return found("answer", "server-error", str(exc))
    expected = joints if setup.action_kind == "absolute" else setup.key_map.action_dim
    expected = setup.key_map.action_dim if expected is None else expected
    if expected not in (None, rows.shape[1]):
        padded = rows.shape[1] >= 2 * (expected or 0) and not rows[:, expected:].any()
        said = f"an action has {rows.shape[1]} values, the robot takes {expected}"
        return found("answer", "answer-padded" if padded else "answer-width", said)
    return AnswerFacts(
        rows=rows,
        pose=pose,
        round_trips_s=round_trips,
        infer_s=statistics.median(infer) if infer else None,
        ping_s=pings,
        bytes_out=exchange.nbytes,
        metadata=policy.metadata,
    )


def replayed(policy: RemotePolicy, episode: Episode, setup: Setup, frames: int) -> Replayed:
    """Send recorded observations, evenly spread, and put the answers beside what was done then.

    Raises:
        Pi05WebsocketError: An observation does not fit, or there is no valid answer.
    """
    units, key_map = setup.units, setup.key_map
    states, actions = episode.states, episode.actions
    if units is not None:
        states, actions = units.to_policy(states), units.to_policy(actions)
    predicted, recorded, poses = [], [], []
    task = setup.task or next(iter(episode.tasks), "")
    for frame in np.linspace(0, len(states) - 1, min(frames, len(states)), dtype=int):
        observation = key_map.observation(episode.images(int(frame)), states[frame], task)
        rows = read_actions(policy.infer(observation), action_dim=actions.shape[1])
        count = min(len(rows), len(actions) - int(frame))
        predicted.append(rows[:count])
        recorded.append(actions[frame : frame + count])
        poses.append(np.tile(states[frame], (count, 1)))
    return Replayed(
        predicted=np.concatenate(predicted).astype(np.float64),
        recorded=np.concatenate(recorded).astype(np.float64),
        pose=np.concatenate(poses).astype(np.float64),
    )
