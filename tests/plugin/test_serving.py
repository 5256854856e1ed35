# SPDX-License-Identifier: Apache-2.0
"""LeRobot's own policies behind our server: what comes over the wire is what they answer, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.lerobot
pytest.importorskip("transformers", reason="needs the extra `serve`")

import torch  # noqa: E402
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig  # noqa: E402
from lerobot.policies.factory import get_policy_class, make_pre_post_processors  # noqa: E402
from lerobot.policies.rtc import reanchor_relative_rtc_prefix  # noqa: E402
from lerobot.processor import (  # noqa: E402
    NormalizerProcessorStep,
    RelativeActionsProcessorStep,
    make_default_pre_post_processors,
)
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

from lerobot_policy_pi05_websocket.rtc_guidance import PrefixSampler  # noqa: E402
from lerobot_policy_pi05_websocket.serving import LeRobotPolicy, ServingConfig  # noqa: E402
from lerobot_policy_pi05_websocket.serving_checkpoint import load_checkpoint  # noqa: E402
from lerobot_policy_pi05_websocket.serving_keys import ObservationKeys  # noqa: E402
from lerobot_policy_pi05_websocket.serving_prefix import padded  # noqa: E402
from pi05_websocket.client import RemotePolicy  # noqa: E402
from pi05_websocket.errors import ConfigError, ObservationError  # noqa: E402
from pi05_websocket.policy import PolicyRequest, session_seed  # noqa: E402
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer  # noqa: E402
from pi05_websocket.server.loading import load_policy  # noqa: E402
from pi05_websocket.wire.realtime import (  # noqa: E402
    RealtimeRequest,
    RealtimeSupport,
    read_realtime_reply,
    realtime_support,
    with_realtime,
)

Checkpoints = Callable[..., Path]

FLOWS = ["pi05", "smolvla", "pi0"]
WITHOUT_DIFFUSERS = pytest.mark.skipif(
    find_spec("diffusers") is None, reason="needs LeRobot's extra `diffusion`"
)
EVERY_KIND = [
    *FLOWS,
    "act",
    pytest.param("diffusion", marks=WITHOUT_DIFFUSERS),
    "vqbet",
    "tdmpc",
]
SEED = 7


def by_lerobot_alone(folder: Path, observation: dict[str, Any], seed: int = SEED) -> np.ndarray:
    """Do what LeRobot's own inference does, with none of our code in between.

    Diffusion, VQ-BeT and TD-MPC are asked for one action after the other, as on a robot: the first of them
    fill their queues with what they see first. They are asked while the queue of actions lasts.
    """
    config = PreTrainedConfig.from_pretrained(folder)
    policy = get_policy_class(config.type).from_pretrained(folder, config=config)
    before, after = make_pre_post_processors(config, pretrained_path=str(folder))
    batch = {
        name: (torch.from_numpy(value).type(torch.float32) / 255)
        .permute(2, 0, 1)[None]
        .contiguous()
        if value.ndim == 3
        else torch.from_numpy(value)[None]
        for key, value in observation.items()
        if key != "prompt"
        for name in [key.replace("/", ".")]
    }
    batch["task"] = [observation["prompt"]]
    torch.manual_seed(seed)
    if config.type in (*FLOWS, "act"):
        return after(policy.predict_action_chunk(before(batch)))[0].numpy()
    actions = []
    while not actions or policy._queues["action"]:
        prepared = before(dict(batch))
        prepared.pop("action")
        actions.append(after(policy.select_action(prepared))[0])
    return torch.stack(actions).numpy()


def seen_by(kind: str, seed: int = 1) -> dict[str, Any]:
    """Return what a robot of this policy sends."""
    observation = an_observation(seed)
    if kind == "tdmpc":
        del observation["observation/images/front"]
        observation["observation/image"] = np.full((64, 64, 3), 40 * seed, np.uint8)
    return observation


def seeded(infer: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Call with LeRobot's noise fixed."""
    torch.manual_seed(SEED)
    return infer(*arguments)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_the_remote_result_is_lerobots_own(checkpoints: Checkpoints, kind: str) -> None:
    """Through keys, server, codec and client: bit for bit what LeRobot computes from the same files."""
    folder = checkpoints(kind)
    expected = by_lerobot_alone(folder, seen_by(kind), session_seed(SEED, 1, 1))
    served, seed = load_policy(f"lerobot:{folder}"), ServerConfig(seed=SEED)
    with (
        WebsocketPolicyServer(served, port=0, config=seed) as server,
        RemotePolicy(server.url) as remote,
    ):
        reply = remote.infer(seen_by(kind))
        assert remote.metadata["action_horizon"] == len(expected)
    assert set(reply) == {"actions", "server_timing"}
    np.testing.assert_array_equal(reply["actions"], expected, strict=True)
    assert expected.shape[1] == JOINTS


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_requests_seed_is_torchs(checkpoints: Checkpoints, kind: str) -> None:
    """A request with a seed is answered what LeRobot alone answers after `torch.manual_seed` with it."""
    folder = checkpoints(kind)
    policy = load_checkpoint(str(folder))
    torch.manual_seed(99)
    before = torch.get_rng_state()
    (answer,) = policy.infer_requests([PolicyRequest(observation=seen_by(kind), seed=SEED)])
    assert torch.equal(torch.get_rng_state(), before)  # the global generator is nobody's
    assert not isinstance(answer, Exception)
    np.testing.assert_array_equal(
        answer["actions"], by_lerobot_alone(folder, seen_by(kind)), strict=True
    )


def test_a_policy_of_queues_remembers_no_other_robot(checkpoints: Checkpoints) -> None:
    """VQ-BeT looks at five steps, all of the request's own; what it saw before is gone."""
    policy = load_checkpoint(str(checkpoints("vqbet")))
    first, again = (seeded(policy.infer, seen_by("vqbet", 1)) for _ in range(2))
    other = seeded(policy.infer, seen_by("vqbet", 2))
    after_another = seeded(policy.infer, seen_by("vqbet", 1))
    np.testing.assert_array_equal(first["actions"], again["actions"])
    np.testing.assert_array_equal(first["actions"], after_another["actions"])
    assert np.abs(other["actions"] - first["actions"]).max() > 0.1


@pytest.mark.parametrize("kind", FLOWS)
def test_the_remote_result_with_a_prefix_is_the_local_one(
    checkpoints: Checkpoints, kind: str
) -> None:
    """The same with a leftover: bit for bit what the policy answers to it in this process."""
    folder = checkpoints(kind)
    request = PolicyRequest(
        observation=an_observation(), realtime=a_request(), seed=session_seed(SEED, 1, 1)
    )
    (local,) = load_checkpoint(str(folder)).infer_requests([request])
    assert not isinstance(local, Exception)
    served, seed = load_checkpoint(str(folder)), ServerConfig(seed=SEED)
    with (
        WebsocketPolicyServer(served, port=0, config=seed) as server,
        RemotePolicy(server.url) as remote,
    ):
        support = RealtimeSupport(prefix="guided", refusals=True)
        assert realtime_support(remote.metadata) == support
        reply = remote.infer(with_realtime(an_observation(), a_request()))
    np.testing.assert_array_equal(reply["actions"], local["actions"], strict=True)
    said = read_realtime_reply(reply)
    assert said is not None
    assert (said.seq, said.delay, said.prefix) == (3, 3, "guided")


@pytest.mark.parametrize("kind", FLOWS)
def test_a_prefix_is_followed(checkpoints: Checkpoints, kind: str) -> None:
    """The pinned rows come much closer to the leftover than without it, the rows after them change too."""
    policy = load_checkpoint(str(checkpoints(kind)))
    request = a_request()
    free = seeded(policy.infer, an_observation())["actions"]
    led = seeded(policy.infer_realtime, an_observation(), request, 0.0)["actions"]
    pinned = slice(0, request.delay)
    missed, missed_free = (
        np.abs(chunk[pinned] - request.leftover[pinned]).mean() for chunk in (led, free)
    )
    assert missed < 0.5 * missed_free
    assert np.abs(led[8:] - free[8:]).max() > 1e-3  # beyond the leftover, through the model alone


def test_without_a_leftover_the_chunk_is_the_policys_own(checkpoints: Checkpoints) -> None:
    """The first request of an episode has nothing to follow, and the reply says so."""
    policy = load_checkpoint(str(checkpoints("pi05")))
    stock = seeded(policy.infer, an_observation())["actions"]
    first = seeded(policy.infer_realtime, an_observation(), a_request(rows=0), 5.0)
    np.testing.assert_array_equal(first["actions"], stock, strict=True)
    said = read_realtime_reply(first)
    assert said is not None
    assert (said.delay, said.prefix, said.queue_ms) == (0, "none", 5.0)


def test_the_queue_time_moves_the_pinned_rows(checkpoints: Checkpoints) -> None:
    """Once the server knows its own speed, a request that waited 200 ms is pinned six ticks further."""
    policy = load_checkpoint(str(checkpoints("smolvla")))
    delays = []
    for queue_ms in (0.0, 0.0, 200.0):
        reply = policy.infer_realtime(an_observation(), a_request(rows=ROWS, delay=0), queue_ms)
        said = read_realtime_reply(reply)
        assert said is not None
        delays.append(said.delay)
    assert delays[0] == 0  # the robot's word: nothing measured yet
    assert delays[2] >= 6


@pytest.mark.parametrize("kind", FLOWS)
def test_the_correction_is_the_models_true_product(checkpoints: Checkpoints, kind: str) -> None:
    """In each step the real model's vector-Jacobian product equals a finite difference of the model."""
    policy = load_checkpoint(str(checkpoints(kind)))
    checked: list[float] = []

    class Checking(PrefixSampler):
        def denoise_step(self, x_t: Any, prefix: Any = None, delay: Any = None, **step: Any) -> Any:
            model, time = step["original_denoise_step_partial"], step["time"]
            with torch.no_grad():
                v = model(x_t)
                guided = super().denoise_step(
                    x_t, step.pop("prev_chunk_left_over"), step.pop("inference_delay"), **step
                )
                weights = first_rows_of_the_joints(x_t)
                target = torch.zeros_like(x_t)
                error = (target - (x_t - time * v)) * weights
                strength = min(
                    5.0, 5.0 if time == 1.0 else ((1 - time) ** 2 + time**2) / (time * (1 - time))
                )
                product = (v - guided) / strength
                direction = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(1))
                h = 1e-2
                ahead, behind = (
                    x_t + sign * h * direction - time * model(x_t + sign * h * direction)
                    for sign in (1, -1)
                )
                by_difference = ((ahead - behind) / (2 * h) * error).sum()
                by_product = (product * direction).sum()
                # The model's own part, without the identity that LeRobot's correction consists of.
                models_part = (product - error).norm()
                assert models_part > 0.05 * error.norm()
                checked.append(float((by_product - by_difference) / models_part))
            return guided

    def first_rows_of_the_joints(x: torch.Tensor) -> torch.Tensor:
        weights = torch.zeros(x.shape[1:])
        weights[:4, :JOINTS] = 1.0
        return weights

    policy._policy.model.rtc_processor = Checking("guided")
    torch.manual_seed(SEED)
    with torch.no_grad():
        batch, _ = policy._processors.prepared([policy._keys.batch(an_observation())], None)
        policy._policy.predict_action_chunk(
            batch,
            prev_chunk_left_over=torch.zeros(1, 4, JOINTS),
            inference_delay=4,
            execution_horizon=4,
        )
    assert len(checked) == 4
    assert max(map(abs, checked)) < 0.02


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("pi05", {}), ("smolvla", {}), ("pi05", {"use_relative_actions": True})],
)
def test_leftover_to_model_units_and_back(
    checkpoints: Checkpoints, kind: str, changes: dict[str, Any]
) -> None:
    """What the preprocessor makes of raw rows, the postprocessor turns into the same raw rows."""
    policy = load_checkpoint(str(checkpoints(kind, **changes)))
    leftover = a_request().leftover
    row = policy._keys.batch(an_observation())
    _, model_units = policy._processors.prepared([row], padded([a_request()]))
    assert model_units is not None
    assert np.abs(model_units[0].numpy() - leftover).mean() > 5.0
    back = policy._processors.finished(model_units)[0]
    np.testing.assert_allclose(back, leftover, atol=1e-4)


def test_relative_actions_are_anchored_at_the_new_state(checkpoints: Checkpoints) -> None:
    """The same raw rows are other model rows for another state, as LeRobot's own re-anchoring has it."""
    policy = load_checkpoint(str(checkpoints("pi05", use_relative_actions=True)))
    steps = policy._processors.before.steps
    relative = next(step for step in steps if isinstance(step, RelativeActionsProcessorStep))
    normalizer = next(step for step in steps if isinstance(step, NormalizerProcessorStep))
    seen = []
    for seed in (1, 2):
        observation = an_observation(seed)
        row = policy._keys.batch(observation)
        seen.append(policy._processors.prepared([row], padded([a_request()]))[1])
        expected = reanchor_relative_rtc_prefix(
            prev_actions_absolute=torch.from_numpy(a_request().leftover)[None],
            current_state=torch.from_numpy(observation["observation/state"]),
            relative_step=relative,
            normalizer_step=normalizer,
            policy_device="cpu",
        )
        torch.testing.assert_close(seen[-1], expected)
    assert (seen[0] - seen[1]).abs().max() > 0.01


def test_a_leftover_of_another_width_is_refused(checkpoints: Checkpoints) -> None:
    """A robot that holds rows of another policy is told."""
    policy = load_checkpoint(str(checkpoints("smolvla")))
    request = RealtimeRequest(
        seq=1,
        leftover=np.zeros((5, 7), np.float32),
        delay=2,
        execution_horizon=3,
        control_hz=30.0,
    )
    with pytest.raises(ObservationError, match="expected 6 values in each row"):
        policy.infer_realtime(an_observation(), request, 0.0)


def toy(trained: int, **config: Any) -> LeRobotPolicy:
    """Serve the toy flow, trained for up to `trained` clean rows."""
    settings = ToyFlowConfig(
        device="cpu",
        rtc_training_max_delay=trained,
        input_features={STATE: PolicyFeature(FeatureType.STATE, (JOINTS,))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (JOINTS,))},
        **config,
    )
    return LeRobotPolicy(
        ToyFlow(settings), *make_default_pre_post_processors(settings, dataset_stats=STATS)
    )


def test_a_trained_prefix_comes_back_unchanged_and_is_continued() -> None:
    """The pinned rows are the leftover's, and the policy goes on from the last of them."""
    policy, request = toy(trained=5), a_request()
    reply = policy.infer_realtime(an_observation(), request, 0.0)
    said = read_realtime_reply(reply)
    assert said is not None
    assert (said.delay, said.prefix) == (3, "trained")
    np.testing.assert_allclose(reply["actions"][:3], request.leftover[:3], atol=1e-3)
    one_unit = STATS["action"]["std"].numpy()
    np.testing.assert_allclose(reply["actions"][3] - reply["actions"][2], one_unit, atol=1e-3)


def test_a_delay_beyond_the_training_is_pinned_as_far_as_allowed() -> None:
    """The robot gets a chunk all the same, and is told how far it can trust the join."""
    policy = toy(trained=2)
    assert realtime_support(policy.metadata) == RealtimeSupport(prefix="trained", max_delay=2)
    reply = policy.infer_realtime(an_observation(), a_request(delay=6), 0.0)
    said = read_realtime_reply(reply)
    assert said is not None
    assert (said.delay, said.prefix) == (2, "trained")
    assert reply["actions"].shape == (ROWS, JOINTS)


def test_a_trained_policy_with_nothing_to_pin_says_none() -> None:
    """Without a delay there is no prefix, however much is left over."""
    said = read_realtime_reply(
        toy(trained=4).infer_realtime(an_observation(), a_request(delay=0), 0)
    )
    assert said is not None
    assert (said.delay, said.prefix) == (0, "none")


def test_a_policy_that_looks_at_several_steps_sees_this_one_repeated() -> None:
    """A request holds one observation; the server keeps none of a robot's."""
    policy = toy(trained=0, n_obs_steps=2)
    policy.infer(an_observation())
    assert policy._policy.batches[0][STATE].shape == (1, 2, JOINTS)


def test_a_policy_that_is_no_flow_serves_without_rt(checkpoints: Checkpoints) -> None:
    """ACT answers its chunk; nothing is announced, so robots send stock bytes."""
    policy = load_checkpoint(str(checkpoints("act")))
    assert realtime_support(policy.metadata) is None
    assert policy.infer_realtime is None
    assert repr(policy) == "<LeRobotPolicy act prefix=none>"
    wrong = an_observation() | {"observation/images/front": np.zeros((20, 20, 3), np.uint8)}
    with pytest.raises(ObservationError, match="40 x 48 pixels"):
        policy.infer(wrong)


@pytest.mark.parametrize("option", ["rtc=false", "guidance_weight=3&rtc=false"])
def test_rtc_can_be_turned_off(checkpoints: Checkpoints, option: str) -> None:
    """Then the server is one like any other."""
    policy = load_checkpoint(f"{checkpoints('smolvla')}?{option}")
    assert "_rt" not in policy.metadata
    policy.reset()


def test_a_compiled_checkpoint_is_served_without_a_prefix(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    """The product cannot be taken through LeRobot's compiled sampler; the log says so."""
    loaded = load_checkpoint(str(checkpoints("smolvla")))
    loaded._policy.config.compile_model = True
    policy = LeRobotPolicy(loaded._policy, loaded._processors.before, loaded._processors.after)
    assert policy.infer_realtime is None
    assert "served without a prefix: the checkpoint's compile_model forbids it" in caplog.text


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("/nowhere/at/all", "no config.json there"),
        ("x?beta=3", "unknown option 'beta'"),
        ("x?rtc=maybe", "expected rtc=true or rtc=false"),
        ("x?guidance_weight=much", "expected a number"),
        ("x?guidance_weight=-1", "must be above 0"),
    ],
)
def test_what_cannot_be_served_is_told(spec: str, said: str) -> None:
    """Before anything is loaded."""
    with pytest.raises(ConfigError, match=said):
        load_policy(f"lerobot:{spec}")


def test_weights_that_were_not_loaded_are_noticed(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """LeRobot prints a line and goes on with random weights; an arm must not."""
    for file in checkpoints("pi05").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ConfigError, match="the weights were not loaded"):
        load_checkpoint(str(tmp_path))


def test_another_policys_weights_are_noticed(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """LeRobot takes what has a known name, here nothing, and serves the rest at random."""
    for file in checkpoints("act").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    others = checkpoints("tdmpc") / "model.safetensors"
    (tmp_path / others.name).write_bytes(others.read_bytes())
    with pytest.raises(ConfigError, match=r"no name in model\.safetensors is the model's"):
        load_checkpoint(str(tmp_path))


def test_keys_can_be_renamed(checkpoints: Checkpoints) -> None:
    """For robots whose key map has other names; unknown inputs are refused."""
    folder = checkpoints("smolvla")
    policy = load_checkpoint(f"{folder}?observation.images.front=observation/image&device=cpu")
    observation = an_observation()
    observation["observation/image"] = observation.pop("observation/images/front")
    assert policy.infer(observation)["actions"].shape == (ROWS, JOINTS)
    with pytest.raises(ConfigError, match=r"no input observation\.images\.rear; it has"):
        load_checkpoint(f"{folder}?observation.images.rear=x")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "observation/images/front",
            None,
            r"expected the policy's input observation\.images\.front",
        ),
        ("observation/images/front", np.zeros((3, 40, 48), np.uint8), r"\(height, width, 3\)"),
        ("observation/images/front", np.zeros((40, 48, 3), np.float32), "float32 of shape"),
        ("observation/state", np.zeros(7, np.float32), "expected 6 numbers"),
        ("observation/state", [0.0] * 6, "expected 6 numbers, got list"),
        ("observation/state", np.full(6, np.nan, np.float32), "expected finite numbers"),
        ("prompt", 3, "expected text, got int"),
    ],
)
def test_an_observation_that_does_not_fit(key: str, value: Any, said: str) -> None:
    """The error names the entry, what it should be and what it is."""
    config = ToyFlowConfig(
        input_features={
            STATE: PolicyFeature(FeatureType.STATE, (JOINTS,)),
            "observation.images.front": PolicyFeature(FeatureType.VISUAL, (3, 40, 48)),
        },
        device="cpu",
    )
    keys = ObservationKeys(config)
    observation = an_observation() | {key: value}
    if value is None:
        del observation[key]
    with pytest.raises(ObservationError, match=said):
        keys.batch(observation)


def test_an_error_names_no_more_than_a_person_reads() -> None:
    """A client chooses how many keys it sends, and how long they are."""
    config = ToyFlowConfig(
        input_features={STATE: PolicyFeature(FeatureType.STATE, (JOINTS,))}, device="cpu"
    )
    sent = {f"key {number:03} {'x' * 100_000}": 1 for number in range(200)}
    with pytest.raises(ObservationError, match="and 188 more") as caught:
        ObservationKeys(config).batch(sent)
    assert len(str(caught.value)) < 1200


def test_lerobots_own_names_are_taken_too() -> None:
    """A client that sends `observation.state` means it."""
    policy = toy(trained=0)
    state = an_observation()["observation/state"]
    assert policy.infer({STATE: state})["actions"].shape == (ROWS, JOINTS)
    assert ServingConfig().guidance_weight == 5.0
