# SPDX-License-Identifier: Apache-2.0
"""A LeRobot checkpoint under the benchmark: the leftover reaches its sampler, and only virtual time counts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.lerobot, pytest.mark.sim]
pytest.importorskip("transformers", reason="needs the extra `serve`")
pytest.importorskip("so101_nexus", reason="needs the extra `sim`")

import tiny_lerobot  # noqa: E402
from lerobot.configs import FeatureType, PolicyFeature  # noqa: E402
from tiny_lerobot import JOINTS, ROWS, STATE  # noqa: E402

from pi05_websocket.bench.cells import Cell  # noqa: E402
from pi05_websocket.bench.episodes import Bench  # noqa: E402
from pi05_websocket.bench.links import LINKS  # noqa: E402
from pi05_websocket.bench.policies import MeasuredPolicy  # noqa: E402
from pi05_websocket.data import Observation  # noqa: E402
from pi05_websocket.wire.realtime import (  # noqa: E402
    RealtimeReply,
    RealtimeRequest,
    read_realtime_reply,
    split_realtime,
)

CAMERAS = ("wrist2", "realsense")


class Listening(MeasuredPolicy):
    """Remembers what was asked and answered, and what the same noise gives without the leftover."""

    def __init__(self, spec: str) -> None:
        super().__init__(spec)
        self.heard: list[tuple[RealtimeRequest, RealtimeReply, np.ndarray, np.ndarray]] = []

    def infer(self, observation: Observation, queue_ms: float) -> Mapping[str, Any]:
        """Ask twice."""
        result = super().infer(observation, queue_ms)
        stock, request = split_realtime(observation)
        reply = read_realtime_reply(result)
        if request is not None and reply is not None:
            self._requests -= 1
            free = super().infer(stock, queue_ms)
            self.heard.append((request, reply, result["actions"], free["actions"]))
        return result


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Listening:
    """A SmolVLA with random weights that wants both cameras, 24 x 32 pixels each."""
    vlm = tmp_path_factory.mktemp("vlm")
    tiny_lerobot.save_tokenizer(vlm)
    tiny_lerobot.save_vlm_config(vlm)
    images = {
        f"observation.images.{name}": PolicyFeature(FeatureType.VISUAL, (3, 24, 32))
        for name in CAMERAS
    }
    state = {STATE: PolicyFeature(FeatureType.STATE, (JOINTS,))}
    folder = tmp_path_factory.mktemp("smolvla")
    tiny_lerobot.save_checkpoint("smolvla", folder, vlm, input_features={**images, **state})
    return Listening(f"lerobot:{folder}")


@pytest.fixture(scope="module")
def bench(policy: Listening) -> Iterator[Bench]:
    """An arm that it drives."""
    with Bench("cube", policy=policy) as arm:
        yield arm


def cell(seam: str) -> Cell:
    """Return a cell of ours with the checkpoint's 12 rows, six of which are executed."""
    return Cell(
        task="cube", horizon=ROWS, link=LINKS["lan"], rule="ours", seam=seam, policy="smolvla"
    )


def test_a_checkpoint_says_what_the_benchmark_needs(policy: Listening) -> None:
    """Its type, its rows, the size of its images."""
    assert (policy.name, policy.action_horizon, policy.conditions) == ("smolvla", ROWS, True)
    assert {camera.size for camera in policy.key_map().cameras.values()} == {"24x32"}


def test_the_chunk_follows_the_leftover_for_as_long_as_virtual_time_says(
    bench: Bench, policy: Listening
) -> None:
    """The prefix comes of the link's and the charged times, and the rows under it are the leftover's."""
    policy.heard.clear()

    bench.run(cell("rtc"), 1)

    follows = [heard for heard in policy.heard if len(heard[0].leftover)]
    assert len(follows) > 3
    for request, reply, chunk, free in follows:
        assert (reply.infer_ms, reply.queue_ms, reply.prefix) == (50.0, 0.0, "guided")
        way_ms = 2 * request.age_ms + 50.0
        assert reply.delay == min(math.ceil(way_ms / 1000 * 30 - 1e-9), len(request.leftover))
        pinned = slice(0, reply.delay)
        missed, missed_free = (
            np.abs(rows[pinned] - request.leftover[pinned]).mean() for rows in (chunk, free)
        )
        assert missed < 0.5 * missed_free


def test_an_episode_repeats(bench: Bench) -> None:
    """Though the policy draws noise and the machine's speed varies."""
    assert bench.run(cell("rtc"), 2) == bench.run(cell("rtc"), 2)
