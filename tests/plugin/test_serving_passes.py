# SPDX-License-Identifier: Apache-2.0
"""Many robots in one forward pass: each gets what it would get alone."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.lerobot
pytest.importorskip("transformers", reason="needs the extra `serve`")

from lerobot.configs import FeatureType, PolicyFeature  # noqa: E402
from lerobot.processor import make_default_pre_post_processors  # noqa: E402
from tiny_lerobot import (  # noqa: E402
    JOINTS,
    ROWS,
    STATE,
    STATS,
    ToyFlow,
    ToyFlowConfig,
    a_request,
    an_observation,
)

from lerobot_policy_pi05_websocket.serving import LeRobotPolicy, ServingConfig  # noqa: E402
from lerobot_policy_pi05_websocket.serving_checkpoint import load_checkpoint  # noqa: E402
from pi05_websocket.errors import ObservationError  # noqa: E402
from pi05_websocket.policy import PolicyRequest  # noqa: E402
from pi05_websocket.wire.realtime import RealtimeReply, read_realtime_reply  # noqa: E402

Checkpoints = Callable[..., Path]

DEGREES = 2e-3
"""How far a chunk may be from the one its robot would get alone: docs/howto/serve-a-policy.md says so."""
ROBOTS = 16
PROMPTS = ["pick up the cube", "cube", "pick pick pick up the cube 7 8 9", "the cube"]
FLOWS = ["pi0", "pi05", "smolvla"]
IN_BATCHES = [
    *FLOWS,
    "act",
    pytest.param(
        "diffusion",
        marks=pytest.mark.skipif(
            find_spec("diffusers") is None, reason="needs LeRobot's extra `diffusion`"
        ),
    ),
]


def requests(number: int = ROBOTS, *, follow: bool = False) -> list[PolicyRequest]:
    """Return what different robots ask: other images, states, tasks, leftovers and delays."""
    return [
        PolicyRequest(
            observation=an_observation(robot) | {"prompt": PROMPTS[robot % len(PROMPTS)]},
            realtime=a_request(rows=4 + robot % 9, delay=robot % 4) if follow else None,
            seed=100 + robot,
        )
        for robot in range(number)
    ]


def chunks(answers: Any) -> np.ndarray:
    """Return all answers' actions; none may be an error."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return np.stack([answer["actions"] for answer in answers])


def replies(answers: Any) -> list[RealtimeReply]:
    """Return what each robot was told."""
    said = [read_realtime_reply(answer) for answer in answers]
    assert None not in said
    return said  # type: ignore[return-value]


def in_no_time(work: Callable[[], Any]) -> tuple[Any, float]:
    """Run a pass that counts as taking 40 ms: one tick and a bit."""
    return work(), 40.0


def asked_alone(policy: LeRobotPolicy, asked: list[PolicyRequest]) -> np.ndarray:
    """Ask one by one, each as if nothing were measured before it."""
    answers = []
    for request in asked:
        policy._passes.forget()
        answers += policy.infer_requests([request])
    return chunks(answers)


def hold_together_as_alone(policy: LeRobotPolicy, asked: list[PolicyRequest]) -> None:
    """Compare a batch with its requests alone."""
    policy._passes.forget()
    together = chunks(policy.infer_requests(asked))
    alone = asked_alone(policy, asked)
    assert np.abs(together - alone).max() < DEGREES
    assert (
        np.abs(alone[1:] - alone[:-1]).max(axis=(1, 2)).min() > 1.0
    )  # they do ask for other things


@pytest.mark.parametrize("kind", IN_BATCHES)
def test_sixteen_together_as_each_alone(checkpoints: Checkpoints, kind: str) -> None:
    """Up to the rounding of matrix products, whose kernels depend on the number of rows."""
    hold_together_as_alone(load_checkpoint(str(checkpoints(kind))), requests())


@pytest.mark.parametrize("kind", FLOWS)
def test_sixteen_that_follow_as_each_alone(checkpoints: Checkpoints, kind: str) -> None:
    """Sixteen leftovers of nine lengths with four delays, all in one pass."""
    hold_together_as_alone(load_checkpoint(str(checkpoints(kind))), requests(follow=True))


def test_relative_actions_are_each_robots_own(checkpoints: Checkpoints) -> None:
    """Leftovers and chunks are relative to the state of their own robot, not of the last one."""
    policy = load_checkpoint(str(checkpoints("pi05", use_relative_actions=True)))
    hold_together_as_alone(policy, requests(4))
    hold_together_as_alone(policy, requests(4, follow=True))


@pytest.mark.parametrize("kind", ["vqbet", "tdmpc"])
def test_what_goes_one_by_one_is_the_same_to_the_bit(checkpoints: Checkpoints, kind: str) -> None:
    """A policy that draws in the middle of the model answers a batch with one pass for each."""
    policy = load_checkpoint(str(checkpoints(kind)))
    asked = requests(3)
    for number, request in enumerate(asked):
        request.observation["observation/image"] = np.full((64, 64, 3), 50 * number, np.uint8)
    together = chunks(policy.infer_requests(asked))
    np.testing.assert_array_equal(together, asked_alone(policy, asked), strict=True)
    assert np.abs(together[0] - together[1]).max() > 1.0


@pytest.mark.parametrize("kind", IN_BATCHES)
def test_who_else_is_in_the_batch_changes_no_bit(checkpoints: Checkpoints, kind: str) -> None:
    """The same number of others with other images, states, seeds and leftovers: the same chunk, to the bit."""
    policy = load_checkpoint(str(checkpoints(kind)))
    follow = kind in FLOWS
    mine = requests(3, follow=follow)[2]
    others = requests(8, follow=follow)
    first = policy.infer_requests([others[4], mine, others[5]])[1]
    policy._passes.forget()
    second = policy.infer_requests([others[6], mine, others[7]])[1]
    np.testing.assert_array_equal(*chunks([first, second]), strict=True)


def test_a_seed_is_a_chunk(checkpoints: Checkpoints) -> None:
    """Asked again with the same seed a robot gets the same chunk, with another one another."""
    policy = load_checkpoint(str(checkpoints("smolvla")))
    one = an_observation()
    first, again, other = chunks(
        policy.infer_requests([PolicyRequest(observation=one, seed=seed) for seed in (5, 5, 6)])
    )
    np.testing.assert_allclose(first, again, atol=DEGREES)
    assert np.abs(other - first).max() > 1.0


def test_infer_batch_draws_as_infer_does(checkpoints: Checkpoints) -> None:
    """Without seeds: from torch's global generator, row after row."""
    policy = load_checkpoint(str(checkpoints("pi05")))
    shown = [an_observation(seed) for seed in range(3)]
    policy.seed(4)
    together = chunks(policy.infer_batch(shown))
    policy.seed(4)
    one_by_one = chunks([policy.infer(observation) for observation in shown])
    np.testing.assert_allclose(together, one_by_one, atol=DEGREES)
    with pytest.raises(ObservationError, match="expected 6 numbers"):
        policy.infer_batch([shown[0], shown[1] | {"observation/state": np.zeros(5, np.float32)}])


class Watched(ToyFlow):
    """The toy flow, which cannot do one task, whoever else is in the batch."""

    def predict_action_chunk(self, batch: dict[str, Any], *args: Any, **options: Any) -> Any:
        """Raise for the task it cannot do."""
        chunk = super().predict_action_chunk(batch, *args, **options)
        if "juggle" in batch["task"]:
            raise ValueError("cannot juggle")
        return chunk

    @property
    def sizes(self) -> list[int]:
        """Rows of each pass so far."""
        return [len(batch["task"]) for batch in self.batches]


def toy(trained: int = 0, **config: Any) -> LeRobotPolicy:
    """Serve the toy flow, trained for up to `trained` clean rows."""
    settings = ToyFlowConfig(
        device="cpu",
        rtc_training_max_delay=trained,
        input_features={STATE: PolicyFeature(FeatureType.STATE, (JOINTS,))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (JOINTS,))},
    )
    processors = make_default_pre_post_processors(settings, dataset_stats=STATS)
    return LeRobotPolicy(Watched(settings), *processors, ServingConfig(**config))


def test_one_pass_for_all() -> None:
    """As many as ask, unless the settings say how many at most."""
    policy = toy()
    chunks(policy.infer_requests(requests(5)))
    assert policy._policy.sizes == [5]
    policy = toy(max_batch=2)
    answers = policy.infer_requests(requests(5))
    assert policy._policy.sizes == [2, 2, 1]
    np.testing.assert_allclose(
        chunks(answers), chunks(toy().infer_requests(requests(5))), atol=1e-4
    )


def test_a_bad_observation_fails_alone() -> None:
    """Its place holds the reason; the others are answered in one pass, each in its own place."""
    policy = toy(trained=5)
    asked = requests(4)
    asked[1].observation["observation/state"] = np.zeros(5, np.float32)
    narrow = a_request()
    asked[2] = PolicyRequest(
        observation=an_observation(),
        realtime=type(narrow)(
            seq=1,
            leftover=np.zeros((3, 2), np.float32),
            delay=1,
            execution_horizon=2,
            control_hz=30.0,
        ),
    )
    answers = policy.infer_requests(asked)
    assert [type(answer).__name__ for answer in answers] == [
        *("dict", "ObservationError", "ObservationError", "dict")
    ]
    assert "expected 6 values in each row" in str(answers[2])
    assert policy._policy.sizes == [2]
    expected = chunks(toy(trained=5).infer_requests([asked[0], asked[3]]))
    np.testing.assert_array_equal(chunks([answers[0], answers[3]]), expected)


def test_nobody_asks_nothing_happens() -> None:
    """An empty batch has no pass."""
    policy = toy()
    assert policy.infer_requests([]) == []
    assert policy._policy.sizes == []


def test_what_fails_in_the_model_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    """A pass that raises is tried row by row, and the log says why."""
    policy = toy()
    asked = requests(3)
    asked[1].observation["prompt"] = "juggle"
    answers = policy.infer_requests(asked)
    assert policy._policy.sizes == [3, 1, 1, 1]
    assert isinstance(answers[1], ValueError)
    assert chunks([answers[0], answers[2]]).shape == (2, ROWS, JOINTS)
    assert "a pass of 3 rows failed; now each alone" in caplog.text
    with pytest.raises(ValueError, match="cannot juggle"):
        policy.infer(asked[1].observation)


def test_each_row_has_its_own_delay() -> None:
    """A trained policy pins of each leftover as many rows as will be executed, and goes on from there."""
    policy = toy(trained=6)
    asked = [
        PolicyRequest(
            observation=an_observation(robot),
            realtime=a_request(rows=2 + 3 * robot, delay=1 + robot),
            seed=robot,
        )
        for robot in range(4)
    ]
    answers = policy.infer_requests(asked)
    assert policy._policy.sizes == [4]
    step = STATS["action"]["std"].numpy()
    for request, said, chunk in zip(asked, replies(answers), chunks(answers), strict=True):
        delay = request.realtime.delay
        assert (said.delay, said.prefix) == (delay, "trained")
        np.testing.assert_allclose(chunk[:delay], request.realtime.leftover[:delay], atol=1e-3)
        np.testing.assert_allclose(chunk[delay] - chunk[delay - 1], step, atol=1e-3)


def test_who_follows_and_who_begins_have_a_pass_each() -> None:
    """Those that follow come first; the others' wait is told with their own."""
    policy = toy(trained=4)
    policy.timed = in_no_time
    begins, follows = a_request(rows=0), a_request()
    asked = [
        PolicyRequest(observation=an_observation(), realtime=realtime, queue_ms=5.0)
        for realtime in (begins, follows, None, follows)
    ]
    answers = policy.infer_requests(asked)
    assert policy._policy.sizes == [2, 2]
    said = replies([answers[place] for place in (0, 1, 3)])
    assert [reply.prefix for reply in said] == ["none", "trained", "trained"]
    assert [reply.queue_ms for reply in said] == [45.0, 5.0, 5.0]
    assert [reply.infer_ms for reply in said] == [40.0, 40.0, 40.0]
    assert set(answers[2]) == {"actions"}  # it did not ask how


def test_a_batchs_own_time_moves_the_pinned_rows() -> None:
    """What is expected is how long a pass of as many rows took, not one of a single robot."""
    policy = toy(trained=10)
    took = iter([40.0, 40.0, 100.0, 100.0, 40.0, 100.0])
    policy.timed = lambda work: (work(), next(took))
    alone, both = requests(1, follow=True), requests(2, follow=True)
    for asked in (alone, alone, both, both):
        policy.infer_requests(asked)
    (one,) = replies(policy.infer_requests(alone))
    first, _ = replies(policy.infer_requests(both))
    assert (one.delay, first.delay) == (2, 3)  # 40 ms and 100 ms at 30 Hz


def test_images_of_two_sizes_are_two_batches(checkpoints: Checkpoints) -> None:
    """A policy that resizes by itself takes any size, but one at a time: the key says so."""
    policy = load_checkpoint(str(checkpoints("smolvla")))
    small, large = (an_observation(seed) for seed in (1, 2))
    large["observation/images/front"] = np.zeros((48, 64, 3), np.uint8)
    asked = [
        PolicyRequest(observation=shown, seed=place)
        for place, shown in enumerate((small, large, small))
    ]
    keys = [policy.batch_key(request) for request in asked]
    assert keys[0] == keys[2] != keys[1]
    np.testing.assert_allclose(
        chunks(policy.infer_requests(asked)), asked_alone(policy, asked), atol=DEGREES
    )


def test_the_key_of_a_batch() -> None:
    """Who follows is not with who begins; a request that is not right has a key too."""
    policy = toy(trained=4)
    shown = an_observation()
    follows, begins, plain = (
        policy.batch_key(PolicyRequest(observation=shown, realtime=realtime))
        for realtime in (a_request(), a_request(rows=0), None)
    )
    assert follows != begins
    assert begins == plain == policy.batch_key(PolicyRequest(observation={}))
    never = toy()
    assert never.batch_key(PolicyRequest(observation=shown, realtime=a_request())) == plain
    assert repr(never._passes).startswith("<Passes most=None")


def test_where_nothing_can_be_followed_nothing_is_told() -> None:
    """A leftover sent all the same is not looked at."""
    (answer,) = toy().infer_requests(requests(1, follow=True))
    assert isinstance(answer, dict)
    assert set(answer) == {"actions"}


def test_an_answer_keeps_no_other_in_memory() -> None:
    """Each is an array of its own, which its receiver may change."""
    one, other = toy().infer_requests(requests(2))
    assert not isinstance(one, Exception)
    assert not isinstance(other, Exception)
    assert one["actions"].base is None
    assert one["actions"].flags.writeable
    before = other["actions"].copy()
    one["actions"][:] = 0.0
    np.testing.assert_array_equal(other["actions"], before)
