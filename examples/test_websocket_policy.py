# SPDX-License-Identifier: Apache-2.0
"""Check the policy without a robot: configuration, observation format, error handling, basic function.

    python examples/test_websocket_policy.py                        no server needed
    python examples/test_websocket_policy.py ws://GPU_MACHINE:8000  and ask this server once
    python examples/test_websocket_policy.py ws://GPU_MACHINE:8000 --keymap so101_as_libero

Prints one line for each check. Exit code 0 if all passed.
"""

from __future__ import annotations

import argparse
import logging
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lerobot.policies.factory import get_policy_class

from lerobot_policy_pi05_websocket import PI05WebSocketConfig, make_policy
from pi05_websocket.errors import NoValidAction
from pi05_websocket.presets import SO101_JOINTS, preset
from pi05_websocket.server import WebsocketPolicyServer
from pi05_websocket.wire import codec

POSE = dict(zip((f"{joint}.pos" for joint in SO101_JOINTS), (1.0, -20, 30, 40, 5, 60), strict=True))
CONTROL_HZ = 30.0


def robot_observation() -> dict[str, Any]:
    """Return what `robot.get_observation()` of an SO-101 with two cameras returns."""
    return {
        **POSE,
        "wrist2": np.full((480, 640, 3), 80, np.uint8),
        "realsense": np.full((480, 640, 3), 160, np.uint8),
    }


def closed_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Ramp:
    """A policy whose rows count up from the pose it is shown, one unit a tick."""

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Return 50 rows of 6."""
        steps = np.arange(50, dtype=np.float32)[:, None]
        return {"actions": observation["observation/state"][None] + steps}


def check_configuration() -> str:
    """Defaults work, wrong settings are refused in words, LeRobot knows the policy."""
    config = PI05WebSocketConfig(websocket_url="ws://localhost:8000", timeout=5.0, action_horizon=8)
    wrong: list[dict[str, Any]] = [
        {"websocket_url": "http://localhost:8000"},
        {"websocket_url": "ws://user:secret@localhost:8000"},
        {"fallback": "nothing"},
        {"keymap": "so102"},
    ]
    for settings in wrong:
        try:
            PI05WebSocketConfig(**settings)
        except ValueError:
            continue
        raise AssertionError(f"{settings} was not refused")
    assert get_policy_class("pi05_websocket").config_class is PI05WebSocketConfig
    return f"{config.websocket_url}, {config.timeout:g} s, {len(wrong)} wrong settings refused"


def check_observation_format() -> str:
    """The observation on the wire has OpenPI's keys, shapes and types."""
    frames = {name: robot_observation()[name] for name in ("wrist2", "realsense")}
    sent = preset("so101").observation(frames, np.array(list(POSE.values())), "pick up the cube")
    message = codec.encode(sent)
    received = codec.decode(message)
    expected = {
        "observation/images/wrist2": ((224, 224, 3), np.uint8),
        "observation/images/realsense": ((480, 640, 3), np.uint8),
        "observation/state": ((6,), np.float32),
    }
    for key, (shape, dtype) in expected.items():
        assert received[key].shape == shape, f"{key}: {received[key].shape}"
        assert received[key].dtype == dtype, f"{key}: {received[key].dtype}"
    assert received["prompt"] == "pick up the cube"
    return f"{len(received)} keys, {len(message):,} bytes"


def check_errors_without_server() -> str:
    """Without a server every tick is answered at once, by the fallback that was chosen."""
    url = f"ws://127.0.0.1:{closed_port()}"
    slowest = 0.0
    for fallback in ("hold", "zero", "raise"):
        policy = make_policy(PI05WebSocketConfig(websocket_url=url, fallback=fallback))
        began = time.monotonic()
        try:
            action = policy.select_action(robot_observation())
        except NoValidAction:
            assert fallback == "raise", f"{fallback}: raised"
        else:
            assert fallback != "raise", "raise: did not raise"
            expected = POSE if fallback == "hold" else dict.fromkeys(POSE, 0.0)
            assert action == expected, f"{fallback}: {action}"
        finally:
            policy.close()
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 1.5, f"a call took {slowest:.1f} s"
    return f"hold keeps the pose, zero is zeros, raise raises; slowest call {slowest:.2f} s"


def check_basic_function() -> str:
    """Against a server in this process: rows come in order, as the robot's dict and as a tensor."""
    with WebsocketPolicyServer(Ramp(), port=0) as server:
        config = PI05WebSocketConfig(websocket_url=server.url, control_hz=CONTROL_HZ)
        policy = make_policy(config)
        observation = robot_observation()
        actions = []
        for _ in range(15):
            actions.append(policy.select_action(observation)["shoulder_pan.pos"])
            time.sleep(1 / CONTROL_HZ)
        batch = {
            "observation.state": torch.tensor([list(POSE.values())]),
            "observation.images.wrist2": torch.full((1, 3, 480, 640), 0.5),
            "observation.images.realsense": torch.full((1, 3, 480, 640), 0.5),
            "task": ["pick up the cube"],
        }
        tensor = policy.select_action(batch)
        policy.close()
    assert actions[0] == POSE["shoulder_pan.pos"], f"began with {actions[0]}"
    assert actions == sorted(actions), f"not in order: {actions}"
    assert actions[-1] > actions[0], f"did not advance: {actions}"
    assert tensor.shape == (1, 6), f"shape {tuple(tensor.shape)}"
    return f"15 ticks, joint 1 from {actions[0]:g} to {actions[-1]:g}"


def check_server(url: str, keymap: str) -> str:
    """One real answer from a real server, to an observation with this key map's keys."""
    config = PI05WebSocketConfig(websocket_url=url, keymap=keymap, task="pick up the cube")
    policy = make_policy(config)
    try:
        # Says within half a minute why there is no connection; after that, a model may compile for minutes.
        metadata = policy.connect().get_server_metadata()
        key_map = policy.key_map
        images = [f"observation.images.{camera}" for camera in key_map.cameras]
        batch = {
            **{image: torch.full((1, 3, 480, 640), 0.5) for image in images},
            "observation.state": torch.zeros(1, key_map.state_dim or len(POSE)),
            "task": ["pick up the cube"],
        }
        began = time.monotonic()
        chunk = policy.predict_action_chunk(batch)
        seconds = time.monotonic() - began
        return f"chunk {tuple(chunk.shape[1:])} after {seconds:.2f} s, metadata {metadata}"
    finally:
        policy.close()


def passed(name: str, check: Callable[[], str]) -> bool:
    """Run one check and print its line."""
    try:
        print(f"ok      {name}: {check()}", flush=True)
    except Exception as exc:
        print(f"FAILED  {name}: {exc or type(exc).__name__}", flush=True)
        logging.getLogger().debug("%s", traceback.format_exc())
        return False
    return True


def main(arguments: list[str] | None = None) -> int:
    """Run the checks; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("url", nargs="?", help="a server to ask once, for example ws://host:8000")
    parser.add_argument("--keymap", default="so101", help="names that server's policy knows")
    parser.add_argument("--verbose", action="store_true", help="show what the policy logs")
    options = parser.parse_args(arguments)
    if options.verbose:
        logging.basicConfig(level=logging.DEBUG)
    else:
        logging.disable()
    checks: dict[str, Callable[[], str]] = {
        "configuration": check_configuration,
        "observation format": check_observation_format,
        "errors without a server": check_errors_without_server,
        "basic function": check_basic_function,
    }
    if options.url:
        checks[f"server {options.url}"] = lambda: check_server(options.url, options.keymap)
    results = [passed(name, check) for name, check in checks.items()]
    print(f"{sum(results)} of {len(results)} checks passed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
