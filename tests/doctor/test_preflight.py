# SPDX-License-Identifier: Apache-2.0
"""The quick checks at the start of a run, on a real server and the library's own loop."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator

import numpy as np
import pytest
from mistakes import POSE, World

from pi05_websocket.camera_map import shown_key
from pi05_websocket.client import RemotePolicy
from pi05_websocket.data import UInt8Array
from pi05_websocket.doctor.preflight import FirstLook, Preflight
from pi05_websocket.errors import IncompatibleServer, PolicyError
from pi05_websocket.presets import preset
from pi05_websocket.robot.player import PlayerConfig
from pi05_websocket.robot.runtime import Runtime


@pytest.fixture
def world() -> Iterator[World]:
    """Return a setup in which all is well."""
    with contextlib.ExitStack() as stack:
        yield World(stack)


def noise() -> UInt8Array:
    """A picture that is neither dark nor of one colour."""
    return np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)


def run(world: World, preflight: Preflight) -> None:
    """Drive the arm for a moment."""
    with RemotePolicy(config=world.config(), wait_for_server=5) as policy:
        Runtime(
            world.arm,
            policy,
            world.setup.key_map,
            PlayerConfig(control_hz=60.0, action_dim=6),
            task="pick up the cube",
            preflight=FirstLook(world.setup, preflight),
        ).run(0.3)


class TestRuns:
    def test_refuses_before_anything_moves(self, world) -> None:
        """The server states another order of joints: the run ends, and no command was sent."""
        world.policy.metadata["action_names"] = ["gripper", "b", "c", "d", "e", "f"]
        with pytest.raises(IncompatibleServer, match=r"gripper, b.*joint_names.*preflight=warn"):
            run(world, "refuse")
        assert world.arm.commands == 0

    @pytest.mark.parametrize(("preflight", "said"), [("warn", True), ("off", False)])
    def test_goes_on_when_told_to(self, world, caplog, preflight, said) -> None:
        """The same is said, or not even looked at; the arm moves."""
        world.policy.metadata["control_hz"] = 15
        with caplog.at_level(logging.WARNING, "pi05_websocket.doctor"):
            run(world, preflight)
        assert ("trained at 15 Hz" in caplog.text) == said
        assert world.arm.commands > 0

    def test_a_server_that_agrees(self, world, caplog) -> None:
        """Nothing is said, the arm moves, and the server was asked no more than the loop asks."""
        with caplog.at_level(logging.WARNING, "pi05_websocket.doctor"):
            run(world, "refuse")
        assert "preflight" not in caplog.text
        assert world.arm.commands > 0


class TestFirstLook:
    def test_each_server_once(self, world, caplog) -> None:
        """Metadata are looked at when they are new, and after another server has taken over."""
        look = FirstLook(world.setup)
        first: dict[str, object] = {"control_hz": 60}
        for _ in range(3):
            look.asked(first)
        with pytest.raises(IncompatibleServer, match="15 Hz"):
            look.asked({"control_hz": 15})

    @pytest.mark.parametrize("name", ["libero", "aloha"])
    def test_first_pictures(self, world, caplog, name) -> None:
        """What one look shows is said once, by the key it is sent under; a picture of the scene is fine."""
        key_map = preset(name)
        first, *others = key_map.cameras
        pictures = dict.fromkeys(others, np.zeros((224, 224, 3), np.uint8))
        pictures[first] = noise()
        look = FirstLook(dataclasses.replace(world.setup, key_map=key_map))
        for _ in range(2):
            look.observed(key_map.observation(pictures, np.zeros(key_map.state_dim or 0), "pick"))
        keys = {camera: shown_key(key_map.cameras[camera].policy_key) for camera in key_map.cameras}
        assert f"{keys[first]}: " not in caplog.text
        assert all(caplog.text.count(f"{keys[dark]}: mean brightness") == 1 for dark in others)

    def test_the_same_picture_twice(self, world, caplog) -> None:
        """Two cameras that are one: said before the first command."""
        key_map = preset("libero")
        pictures = dict.fromkeys(key_map.cameras, noise())
        look = FirstLook(dataclasses.replace(world.setup, key_map=key_map))
        look.observed(key_map.observation(pictures, np.zeros(key_map.state_dim or 0), "pick"))
        assert "show the same" in caplog.text

    @pytest.mark.parametrize(
        ("prompt", "said"), [("pick " * 300, True), ("pick", False), ("", False)]
    )
    def test_first_prompt(self, world, caplog, prompt, said) -> None:
        """The caller's, whatever the settings name; none may be the server's business."""
        key_map = world.setup.key_map
        pictures = dict.fromkeys(key_map.cameras, noise())
        FirstLook(world.setup).observed(key_map.observation(pictures, POSE, prompt))
        assert ("tokens" in caplog.text) == said

    def test_first_answer_and_first_error(self, world, caplog) -> None:
        """Both are told once, in words of the settings."""
        look = FirstLook(world.setup)
        look.asked({})
        for _ in range(2):
            look.answered(np.deg2rad(np.tile(POSE, (5, 1))), POSE)
            look.failed(PolicyError("server error: KeyError: 'observation/image'"))
        assert caplog.text.count("shoulder_lift is at -60.0") == 1
        assert caplog.text.count("libero or so101_as_libero: --keymap NAME") == 1

    def test_off_looks_at_nothing(self, world, caplog) -> None:
        """Not at metadata, answers or errors."""
        look = FirstLook(world.setup, "off")
        look.asked({"control_hz": 15})
        look.observed({"prompt": "pick " * 300})
        look.answered(np.zeros((5, 6), np.float32), POSE)
        look.failed(PolicyError("server error: KeyError: 'observation/image'"))
        assert caplog.text == ""
