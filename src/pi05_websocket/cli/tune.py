# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket tune`: measure a policy server, then say which settings suit it, and why.

In: words. Out: a table; exit code 1 when the server cannot be used. Sends made-up observations, moves nothing.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro

from pi05_websocket.chunks.budget import Budget, Measured, budget, percentile
from pi05_websocket.cli import EXIT_FAILED, EXIT_OK
from pi05_websocket.cli.server_access import ServerAccess
from pi05_websocket.client import RemotePolicy
from pi05_websocket.data import Observation
from pi05_websocket.errors import ConfigError
from pi05_websocket.keymap import KeyMap
from pi05_websocket.presets import preset
from pi05_websocket.wire.messages import read_actions, server_infer_ms
from pi05_websocket.wire.realtime import realtime_support

__all__ = ["TuneCommand", "report", "run", "sample_observation"]

_DESCRIPTION = """\
Measure a policy server for half a minute and recommend settings for it.

Made-up observations of the right shape go to the server one after the other, as a robot's would; nothing moves.
What comes back says how long a reply takes from here, and from that follow action_horizon, margin_ticks, seam,
timeout and whether images should be smaller. docs/topics/timing.md explains the arithmetic.

examples:
  pi05-websocket tune --url ws://gpu-box:8000
  pi05-websocket tune --url wss://policy.example.org --api-key-env POLICY_KEY --seconds 60
  pi05-websocket tune --url ws://gpu-box:8000 --keymap droid --control-hz 15 --json my_network.json
"""

_WARM_UP = 2
"""Exchanges that do not count: connection, compilation, caches."""
_PINGS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneCommand:
    """Which server, and how it will be used."""

    url: str = "ws://localhost:8000"
    """Address of the policy server."""

    seconds: float = 30.0
    """How long to measure. Rare stalls need longer."""

    control_hz: float = 30.0
    """Control rate the policy was trained at."""

    keymap: str = "so101"
    """Names and shapes of the observation, as for the policy."""

    cameras: dict[str, str] = field(default_factory=dict)
    """Changes to the key map's cameras, as for the policy: `front "realsense pad 224x224"`."""

    camera_size: tuple[int, int] = (480, 640)
    """Rows and columns of the cameras whose size the key map does not fix."""

    state_dim: int = 6
    """Joints, where the key map does not say."""

    prompt: str = "Pick up the red cube."
    """Instruction to send."""

    access: tyro.conf.OmitArgPrefixes[ServerAccess] = field(default_factory=ServerAccess)

    json: Path | None = None
    """Write the round trips and the settings here."""


def run(argv: list[str]) -> int:
    """Run the command."""
    try:
        command = tyro.cli(
            TuneCommand, args=argv, prog="pi05-websocket tune", description=_DESCRIPTION
        )
    except SystemExit as exc:  # tyro has printed its help or what is wrong
        return exc.code if isinstance(exc.code, int) else EXIT_FAILED
    if not command.seconds > 0 or not command.control_hz > 0:
        raise ConfigError("seconds and control_hz: expected more than 0")
    key_map = preset(command.keymap).with_cameras(command.cameras)
    observation = sample_observation(key_map, command)
    config = command.access.connection(
        command.url,
        image_transport="raw",  # what is recommended about sizes is said of these bytes
    )
    with RemotePolicy(config=config, wait_for_server=30.0) as policy:
        measured = _measure(policy, observation, command)
        support = realtime_support(policy.metadata)
    found = budget(
        measured,
        control_hz=command.control_hz,
        action_kind=key_map.action_kind,
        offers_rtc=support is not None and support.conditions,
    )
    print(report(measured, found, command.control_hz))
    if command.json is not None:
        _write(command.json, measured, found)
    return EXIT_OK


def sample_observation(key_map: KeyMap, command: TuneCommand) -> Observation:
    """Return a made-up observation: noise for images, which no link can compress; zeros for the state."""
    noise = np.random.default_rng(0)
    rows, columns = command.camera_size
    images = {
        name: noise.integers(
            0, 256, (camera.height or rows, camera.width or columns, 3), dtype=np.uint8
        )
        if camera.fit == "raw"
        else noise.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
        for name, camera in key_map.cameras.items()
    }
    state = np.zeros(key_map.state_dim or command.state_dim, np.float32)
    return key_map.observation(images, state, command.prompt)


def _measure(policy: RemotePolicy, observation: Observation, command: TuneCommand) -> Measured:
    round_trips: list[float] = []
    infer: list[float] = []
    rows = nbytes = 0
    for number in range(_WARM_UP):
        _say(
            f"warming up, {number + 1} of {_WARM_UP}: the first reply may take as long as a model compiles"
        )
        rows = len(read_actions(policy.infer(observation)))
    pings = policy.connection.ping(_PINGS, timeout=5.0)
    end = time.monotonic() + command.seconds
    while (left := end - time.monotonic()) > 0 or not round_trips:
        exchange = policy.submit(observation)
        reply = exchange.result(exchange.limit)
        rows, nbytes = len(read_actions(reply.value)), exchange.nbytes
        round_trips.append(reply.received_at - exchange.sent_at)
        said = server_infer_ms(reply.value)
        if said is not None:
            infer.append(said / 1000.0)
        _say(
            f"{len(round_trips)} replies, last {1000 * round_trips[-1]:.1f} ms, {max(0.0, left):.0f} s left"
        )
        # A robot asks about once per chunk; faster than twice a second would measure our own queue.
        time.sleep(max(0.0, min(0.1, end - time.monotonic())))
    _say("")
    return Measured(
        round_trips_s=round_trips,
        infer_s=statistics.median(infer) if infer else None,
        ping_s=statistics.median(pings) if pings else None,
        bytes_out=nbytes,
        rows=rows,
    )


def report(measured: Measured, found: Budget, control_hz: float) -> str:
    """Return the answer as people read it."""
    p50, p90, p99 = (1000 * percentile(measured.round_trips_s, p) for p in (0.5, 0.9, 0.99))
    tick_ms = 1000.0 / control_hz
    lines = [
        f"{len(measured.round_trips_s)} replies of {measured.rows} rows; round trip "
        f"{p50:.1f} ms p50, {p90:.1f} p90, {p99:.1f} p99",
        _parts(measured, found),
        f"inference delay: {found.delay} ticks of {tick_ms:.1f} ms at {control_hz:g} Hz "
        f"({found.worst_delay} for the slowest of a hundred); at most {measured.rows // 2} are possible "
        f"without a pause",
        "",
    ]
    width = max(len(f"{item.setting}={item.value}") for item in found.advice)
    lines += [f"  {f'{item.setting}={item.value}':{width}}  {item.why}" for item in found.advice]
    settings = " ".join(
        f"--policy.{item.setting}={item.value}"
        for item in found.advice
        if item.setting != "cameras"
    )
    return "\n".join([*lines, "", f"for LeRobot: {settings}"])


def _parts(measured: Measured, found: Budget) -> str:
    if measured.infer_s is None or measured.ping_s is None or found.upload_s is None:
        return "the server does not say how long its policy takes, so link and model cannot be told apart"
    return (
        f"of the median: policy {1000 * measured.infer_s:.1f} ms, an empty message there and back "
        f"{1000 * measured.ping_s:.2f} ms, the rest {1000 * found.upload_s:.1f} ms for "
        f"{measured.bytes_out / 1e6:.2f} MB and waiting"
    )


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _write(path: Path, measured: Measured, found: Budget) -> None:
    facts = {
        "round_trips_ms": [round(1000 * value, 3) for value in measured.round_trips_s],
        "infer_ms": None if measured.infer_s is None else round(1000 * measured.infer_s, 3),
        "ping_ms": None if measured.ping_s is None else round(1000 * measured.ping_s, 3),
        "bytes_out": measured.bytes_out,
        "rows": measured.rows,
        "settings": {item.setting: item.value for item in found.advice},
        "feasible": found.feasible,
    }
    path.write_text(json.dumps(facts, indent=1) + "\n")
