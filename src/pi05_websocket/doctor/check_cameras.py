# SPDX-License-Identifier: Apache-2.0
"""A robot's pictures, camera by camera and beside each other. Pure.

What only a person can see (which camera is which, upside down, colours) is put on the contact sheet.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from pi05_websocket import images
from pi05_websocket.camera_map import shown_key
from pi05_websocket.data import UInt8Array
from pi05_websocket.doctor.facts import CameraFacts, RobotFacts, Setup
from pi05_websocket.doctor.findings import Finding, found, passed
from pi05_websocket.errors import ObservationError

__all__ = ["check_cameras", "check_pictures", "sent_pictures"]

_BLACK = 8.0
_ONE_COLOUR = 3.0
_SAME = 2.0
_BLUISH = 25.0
"""Grey values by which the mean of blue exceeds red's: wood, skin and lamps are the other way round."""
_FEW = 0.6
"""Share of the pictures that the control rate needs."""


def sent_pictures(robot: RobotFacts, setup: Setup) -> dict[str, UInt8Array]:
    """Return policy key to picture `(rows, columns, 3)` as it would be sent, of those that can be."""
    sent = {}
    for name, camera in setup.key_map.cameras.items():
        if name not in robot.cameras:
            continue
        try:
            picture = camera.prepare(robot.cameras[name].image)
        except ObservationError:
            continue
        rows_first = camera.layout == "hwc"
        sent[shown_key(camera.policy_key)] = (
            picture if rows_first else np.ascontiguousarray(picture.transpose(1, 2, 0))
        )
    return sent


def check_cameras(robot: RobotFacts, setup: Setup) -> list[Finding]:
    """Return what is to be said of the cameras."""
    key_map, findings = setup.key_map, []
    for name in key_map.missing(robot.cameras):
        key = shown_key(key_map.cameras[name].policy_key)
        free = key_map.unused(robot.cameras)
        said = f"{key} needs camera {name!r}; the robot has {', '.join(robot.cameras) or 'none'}"
        fix = f"--cameras {free[0] if free else 'MY_CAMERA'} {name} (--policy.cameras)"
        findings.append(found("cameras", "camera-missing", said, fix=fix))
    unused = key_map.unused(robot.cameras)
    findings += [found("cameras", "camera-unused", f"{name} is not sent") for name in unused]
    for name, camera in robot.cameras.items():
        if name in key_map.cameras:
            findings += _one(name, camera, robot, setup)
    sent = sent_pictures(robot, setup)
    findings += _pairs(sent)
    if sent:
        findings.append(_to_be_seen(sent))
    return findings or [passed("cameras", "none are sent, and none are needed")]


def check_pictures(sent: Mapping[str, UInt8Array]) -> list[Finding]:
    """Return what one look at pictures shows: dark, of one colour, the same twice.

    Args:
        sent: Policy key to picture `(rows, columns, 3)` or `(3, rows, columns)`, as it is sent.
    """
    pictures = {key: images.to_uint8_hwc(picture, key=key) for key, picture in sent.items()}
    looked_at = [_emptiness(key, picture) for key, picture in pictures.items()]
    return [finding for finding in looked_at if finding is not None] + _pairs(pictures)


def _one(name: str, camera: CameraFacts, robot: RobotFacts, setup: Setup) -> list[Finding]:
    try:
        setup.key_map.cameras[name].prepare(camera.image)
        pixels = images.to_uint8_hwc(camera.image, key=name)
    except ObservationError as exc:
        mistake = "camera-size" if "pixels" in exc.expected else "image-numbers"
        return [found("cameras", mistake, str(exc), fix=exc.remedy)]
    empty = _emptiness(name, pixels)
    return _changes(name, camera, robot, setup) if empty is None else [empty]


def _emptiness(name: str, pixels: UInt8Array) -> Finding | None:
    small = pixels[::8, ::8].astype(np.float64)
    if small.mean() < _BLACK:
        return found("cameras", "camera-black", f"{name}: mean brightness {small.mean():.1f}")
    if small.std(axis=(0, 1)).max() < _ONE_COLOUR:
        said = f"{name}: all pixels are like {pixels[0, 0].tolist()}"
        return found("cameras", "camera-uniform", said)
    return None


def _changes(name: str, camera: CameraFacts, robot: RobotFacts, setup: Setup) -> list[Finding]:
    reads, rate = len(robot.read_s), camera.distinct / robot.seconds
    if robot.noiseless or reads < 3:
        return []
    if camera.distinct == 1:
        said = f"{name}: one picture in {robot.seconds:.1f} s, {reads} readings"
        return [found("cameras", "camera-frozen", said)]
    if camera.distinct < _FEW * reads:
        said = (
            f"{name}: {rate:.0f} pictures in a second, the loop reads {reads / robot.seconds:.0f}"
        )
        return [found("cameras", "camera-slow", said)]
    return [passed("cameras", f"{name}: {rate:.0f} pictures in a second")]


def _pairs(sent: Mapping[str, UInt8Array]) -> list[Finding]:
    small = {
        key: images.resize_stretch(picture, 32, 32).astype(np.float64)
        for key, picture in sent.items()
        if picture.std() > _ONE_COLOUR
    }
    return [
        found("cameras", "cameras-same-picture", f"{one} and {other} show the same")
        for one, other in itertools.combinations(small, 2)
        if np.abs(small[one] - small[other]).mean() < _SAME
    ]


def _to_be_seen(sent: dict[str, UInt8Array]) -> Finding:
    blue = [
        key
        for key, picture in sent.items()
        if picture[..., 2].mean() - picture[..., 0].mean() > _BLUISH
    ]
    said = f"is each picture what its key says, upright, in true colours? {', '.join(sent)}"
    if blue:
        said += f"; much blue in {', '.join(blue)}: red and blue may be exchanged"
    return Finding(
        group="cameras",
        outcome="look",
        said=said,
        fix="Open the contact sheet. Exchanged: --cameras. Upside down: rotation: 180. Wrong colours: "
        "color_mode: rgb.",
        mistakes=("cameras-exchanged", "camera-upside-down", "camera-colours"),
    )
