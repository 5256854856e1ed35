# SPDX-License-Identifier: Apache-2.0
"""The expert's checks, and the expert against the simulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sim_bench import Bench, make_bench

from pi05_websocket.data import UInt8Array
from pi05_websocket.errors import ObservationError
from pi05_websocket.images import resize_with_pad
from pi05_websocket.policy import Policy, policy_metadata, reset_policy
from pi05_websocket.sim.arm import HOME, JOINTS
from pi05_websocket.sim.expert import CONTROL_HZ, ExpertPolicy
from pi05_websocket.sim.so101 import CAMERA_SHAPES
from pi05_websocket.wire.encoded_images import decode_images, encode_images

WRIST, FRONT = "observation/images/wrist2", "observation/images/realsense"


def observation(**changed: Any) -> dict[str, Any]:
    """Return a legal observation of an empty table, with changes."""
    legal = {
        WRIST: np.zeros((224, 224, 3), dtype=np.uint8),
        FRONT: np.zeros((480, 640, 3), dtype=np.uint8),
        "observation/state": HOME.astype(np.float32),
        "prompt": "Pick up the red cube.",
    }
    return legal | changed


def test_is_a_policy_with_openpi_answers() -> None:
    """50 rows of six finite float32 targets, timing, and metadata that says so."""
    expert = ExpertPolicy()

    result = expert.infer(observation())

    assert isinstance(expert, Policy)
    assert repr(expert) == "<ExpertPolicy action_horizon=50>"
    assert result["actions"].shape == (50, 6)
    assert result["actions"].dtype == np.float32
    assert np.isfinite(result["actions"]).all()
    assert result["policy_timing"]["infer_ms"] > 0
    assert policy_metadata(expert)["action_horizon"] == 50


def test_no_state_between_requests() -> None:
    """The same observation gets the same answer, before and after a reset."""
    expert = ExpertPolicy()

    first = expert.infer(observation())["actions"]
    reset_policy(expert)

    assert np.array_equal(expert.infer(observation())["actions"], first)


def test_no_cube_is_no_error() -> None:
    """An empty table makes it look around with an open gripper."""
    assert ExpertPolicy().infer(observation())["actions"][-1, 5] == pytest.approx(55.0)


@pytest.mark.parametrize(
    ("key", "value", "got"),
    [
        (WRIST, None, "NoneType"),
        (WRIST, np.zeros((3, 224, 224), dtype=np.uint8), r"\(3, 224, 224\)"),
        (FRONT, np.zeros((480, 640, 3), dtype=np.float32), "float32"),
        ("observation/state", [0.0] * 6, "list"),
        ("observation/state", np.zeros(7, dtype=np.float32), "shape"),
        ("observation/state", np.zeros(6, dtype=np.int64), "int64"),
        ("observation/state", np.full(6, np.nan, dtype=np.float32), "nan"),
        ("prompt", 3, "int"),
    ],
)
def test_wrong_observations_are_named(key: str, value: object, got: str) -> None:
    """Each wrong entry is refused with its key and what came instead."""
    with pytest.raises(ObservationError, match=f"{key}.*{got}"):
        ExpertPolicy().infer(observation(**{key: value}))


def test_missing_keys_are_named() -> None:
    """A missing entry is refused as nothing."""
    with pytest.raises(ObservationError, match=f"{FRONT}.*nothing"):
        ExpertPolicy().infer({WRIST: observation()[WRIST], "observation/state": HOME})


def run(
    bench: Bench,
    seed: int,
    *,
    execute: int,
    latency_s: float = 0.0,
    see: Callable[[UInt8Array], UInt8Array] = np.asarray,
) -> bool:
    """Let the expert drive for 10 s, asking and waiting; return whether the cube was lifted.

    Args:
        execute: Rows of each chunk.
        latency_s: Between looking and acting.
        see: What happens to the front image on its way.
    """
    bench.sim.reset(seed)
    expert = ExpertPolicy()
    while bench.clock.now() < 1e6 and not bench.sim.succeeded:
        seen = bench.sim.get_observation()
        state = np.array([seen[f"{name}.pos"] for name in JOINTS], dtype=np.float32)
        images = {f"observation/images/{name}": seen[name] for name in CAMERA_SHAPES}
        images[FRONT] = see(images[FRONT])
        asked = {**images, "observation/state": state, "prompt": "Pick up the red cube."}
        bench.clock.sleep(latency_s)
        for row in expert.infer(asked)["actions"][:execute]:
            bench.sim.send_action(row)
            bench.clock.sleep(1 / CONTROL_HZ)
        if any(event.kind == "ended" for event in bench.events):
            break
    succeeded = bench.sim.succeeded
    bench.events.clear()
    return succeeded


@pytest.mark.sim
@pytest.mark.parametrize(("seed", "execute"), [(0, 10), (1, 25), (2, 25), (3, 2)])
def test_solves_the_cube_at_rest(bench: Bench, seed: int, execute: int) -> None:
    """From pixels alone, whatever share of a chunk is executed."""
    assert run(bench, seed, execute=execute)


def padded_jpeg(image: UInt8Array) -> UInt8Array:
    """Return what arrives over a far link: padded to 224x224, JPEG of quality 75."""
    there, _ = encode_images({FRONT: resize_with_pad(image, 224, 224)}, 75)
    arrived: UInt8Array = decode_images(there)[FRONT]
    return arrived


@pytest.mark.sim
@pytest.mark.parametrize("seed", range(4))
def test_solves_the_cube_from_what_a_far_link_carries(bench: Bench, seed: int) -> None:
    """Two images of 224x224, at the worst quality that is sent by default."""
    assert run(bench, seed, execute=25, see=padded_jpeg)


@pytest.mark.sim
def test_solves_the_belt_and_misses_it_late() -> None:
    """A cube on the belt is caught at once; with a second between looking and acting it is missed."""
    belt = make_bench("belt")

    caught = run(belt, 0, execute=10)
    missed = not run(belt, 0, execute=25, latency_s=1.0)
    belt.sim.close()

    assert (caught, missed) == (True, True)
