# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket audit-images`: what JPEG and smaller images change in a policy's answers; what floor fits.

In: words. Out: a table and a recommendation; exit code 1 where not even the best quality is good enough.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import tyro

from pi05_websocket.cli import EXIT_FAILED, EXIT_OK
from pi05_websocket.cli.asking import ask_policy, connect
from pi05_websocket.cli.server_access import ServerAccess
from pi05_websocket.data import Observation
from pi05_websocket.errors import ConfigError
from pi05_websocket.extras import how_to_install
from pi05_websocket.keymap import KeyMap
from pi05_websocket.presets import preset
from pi05_websocket.recording.contents import open_recording
from pi05_websocket.recording.differences import Quantiles, as_dict
from pi05_websocket.recording.observations import has_jpeg
from pi05_websocket.recording.quality import Ask, Audit, audit, floor_of
from pi05_websocket.wire.messages import read_actions

__all__ = ["AuditCommand", "run"]

_DESCRIPTION = """\
Ask a policy about recorded observations with raw images, and again with the same images as JPEG of several
qualities, and smaller; compare the answers. Raw images are sent twice, so that what the policy differs from
itself is known.

The observations are from a recording made with raw images (--policy.record=DIR --policy.image_transport=raw),
or from a LeRobot data set on this machine, whose videos have lost something already.

examples:
  pi05-websocket audit-images recordings --to ws://gpu-box:8000
  pi05-websocket audit-images recordings --policy lerobot:outputs/train/pi05/checkpoints/last/pretrained_model
  pi05-websocket audit-images data/so101_cube --to ws://gpu-box:8000 --keymap so101 --cameras front realsense
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCommand:
    """What to ask, and whom."""

    source: Annotated[Path, tyro.conf.Positional]
    """A recording, or the folder of a LeRobot data set."""

    to: str | None = None
    """Address of the server that is asked."""

    policy: str | None = None
    """Instead: a policy to load here, as for serve. Where it takes seeds, all answers to an observation have
    the same one."""

    qualities: tuple[int, ...] = (95, 90, 85, 75, 60, 40)
    """libjpeg's, 1 to 100."""

    size: int | None = 224
    """Larger images are also tried fitted into as many pixels a side; 0: not."""

    most: int = 20
    """Observations, spread over the recording."""

    allow: float = 0.02
    """What a joint's 95th percentile of differences may be, as a share of how far its answers range."""

    keymap: str = "so101"
    """For a data set: names the policy uses."""

    cameras: dict[str, str] = field(default_factory=dict)
    """For a data set: its camera to the policy's, where names differ."""

    access: tyro.conf.OmitArgPrefixes[ServerAccess] = field(default_factory=ServerAccess)

    json: Path | None = None
    """Write everything here."""


def run(argv: list[str]) -> int:
    """Run the command."""
    try:
        command = tyro.cli(
            AuditCommand, args=argv, prog="pi05-websocket audit-images", description=_DESCRIPTION
        )
    except SystemExit as exc:  # tyro has printed its help or what is wrong
        return exc.code if isinstance(exc.code, int) else EXIT_FAILED
    if (command.to is None) == (command.policy is None):
        raise ConfigError("who is asked: give --to URL or --policy NAME, one of them")
    if not command.qualities or not all(1 <= quality <= 100 for quality in command.qualities):
        raise ConfigError(f"qualities={command.qualities}: expected numbers from 1 to 100")
    if command.most < 1:
        raise ConfigError(f"most={command.most}: expected 1 or more observations")
    observations, joints = _observations(command)
    with _asked(command) as ask:
        found = audit(_counted(observations), ask, command.qualities, command.size or None)
    if not found.ways[0].nbytes:
        raise ConfigError(f"{command.source}: no observation in it")
    floor = floor_of(found, command.allow)
    print(_report(command, found, floor, joints))
    if command.json is not None:
        facts = _facts(command, found, floor, joints)
        command.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return EXIT_OK if floor is not None else EXIT_FAILED


@contextlib.contextmanager
def _asked(command: AuditCommand) -> Iterator[Ask]:
    if command.policy is not None:
        yield ask_policy(command.policy)
        return
    with connect(command.to or "", command.access) as policy:
        yield lambda observation, _number: read_actions(policy.infer(observation))


def _observations(command: AuditCommand) -> tuple[Iterator[Observation], list[str]]:
    """Return the observations to ask with, and the joints' names.

    Raises:
        ConfigError: There are none, or their images were JPEGs.
    """
    folder = command.source.expanduser()
    if (folder / "meta" / "info.json").is_file():
        key_map = preset(command.keymap).with_cameras(command.cameras)
        return _of_dataset(folder, key_map, command.most), list(key_map.joint_names)
    recording = open_recording(folder)
    count = sum(1 for _ in recording.answered())
    wanted = _spread(count, command.most)
    chosen = (one for number, one in enumerate(recording.answered()) if number in wanted)
    joints = recording.settings.get("joint_names", "").split()
    return (_raw(one.observation()) for one in chosen), joints


def _spread(count: int, most: int) -> set[int]:
    """Return numbers below `count`, at most so many, from the first to the last."""
    return {int(number) for number in np.linspace(0, count - 1, min(count, most)).round()}


def _raw(observation: Observation) -> Observation:
    if has_jpeg(observation):
        raise ConfigError(
            "the images in this recording were sent as JPEG, so nobody knows what the cameras saw: record with "
            "--policy.image_transport=raw (pi05-websocket run --image-transport raw)"
        )
    return observation


def _of_dataset(folder: Path, key_map: KeyMap, most: int) -> Iterator[Observation]:
    try:
        # By name only: the library must not need LeRobot.
        frames = importlib.import_module("lerobot_policy_pi05_websocket.dataset_frames")
    except ImportError as exc:
        raise ConfigError(
            f"a LeRobot data set needs {exc.name or exc}: {how_to_install('lerobot')} (Python 3.12)"
        ) from exc
    read: Callable[..., Iterator[Observation]] = frames.observations
    return read(folder, key_map, most)


def _counted(observations: Iterator[Observation]) -> Iterator[Observation]:
    for number, observation in enumerate(observations, start=1):
        if sys.stderr.isatty():
            print(f"\r\033[Kobservation {number}", end="", file=sys.stderr, flush=True)
        yield observation


def _report(command: AuditCommand, found: Audit, floor: int | None, joints: list[str]) -> str:
    """Return the answer as people read it."""
    allowed = found.allowed(command.allow)
    names = [joints[i] if i < len(joints) else f"joint {i}" for i in range(len(allowed))]
    lines = [
        f"{len(found.ways[0].nbytes)} observations; differences to the answer to raw images, in action units",
    ]
    for title, pick in _COLUMNS.items():
        lines += ["", f"{title:16}{'kB':>6}" + "".join(f"{name:>14}" for name in names)]
        for way in found.ways:
            if way.nbytes:
                cells = [f"{pick(one):14.3g}" for one in way.differences.joints()]
                lines.append(f"{way.name:16}{median(way.nbytes) / 1000:6.0f}" + "".join(cells))
    lines += ["", f"{'allowed: 95 %':22}" + "".join(f"{most:14.3g}" for most in allowed)]
    lines.append(
        f"({command.allow:.0%} of how far the joint's answers range, or what the policy differs from itself)"
    )
    lines += [
        f"{way.name}: the policy refuses it: {way.refused}" for way in found.ways if way.refused
    ]
    return "\n".join([*lines, "", _advice(command, floor)])


_COLUMNS: dict[str, Callable[[Quantiles], float]] = {
    "median": lambda one: one.median,
    "95 %": lambda one: one.p95,
    "largest": lambda one: one.largest,
}


def _advice(command: AuditCommand, floor: int | None) -> str:
    if floor is None:
        return (
            f"not even quality {max(command.qualities)} is lost in that: --policy.image_transport=raw, or "
            "allow more (--allow)"
        )
    return f"--policy.jpeg_quality_floor={floor}: no joint notices it"


def _facts(
    command: AuditCommand, found: Audit, floor: int | None, joints: list[str]
) -> dict[str, Any]:
    return {
        "source": str(command.source),
        "asked": command.to or command.policy,
        "observations": len(found.ways[0].nbytes),
        "allowed": [round(most, 6) for most in found.allowed(command.allow)],
        "jpeg_quality_floor": floor,
        "ways": [
            {
                "name": way.name,
                "quality": way.quality,
                "side": way.side,
                "bytes": median(way.nbytes) if way.nbytes else None,
                "refused": way.refused,
                "joints": as_dict(way.differences.joints(), joints),
            }
            for way in found.ways
        ],
    }
