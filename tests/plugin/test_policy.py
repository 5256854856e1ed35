# SPDX-License-Identifier: Apache-2.0
"""The policy object as scripts and LeRobot's factories use it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from announced import ANNOUNCED
from fake_lerobot import JOINTS, START, FakeArm, FakeArmConfig, FakeEnvConfig
from lerobot.configs import PreTrainedConfig
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.factory import (
    get_policy_class,
    make_policy_config,
    make_pre_post_processors,
)
from lerobot.policies.factory import make_policy as lerobot_make_policy

import lerobot_policy_pi05_websocket
from lerobot_policy_pi05_websocket import PI05WebSocketConfig
from lerobot_policy_pi05_websocket.modeling_pi05_websocket import PI05WebSocketPolicy
from pi05_websocket.client import PolicyPool
from pi05_websocket.errors import (
    AccessRefused,
    ConfigError,
    NoValidAction,
    ObservationError,
    Pi05WebsocketError,
)
from pi05_websocket.testing import FakeClock

pytestmark = [pytest.mark.lerobot, pytest.mark.filterwarnings("default")]


@pytest.fixture
def made():
    """Return a function that makes a policy; all are closed at the end."""
    policies: list[PI05WebSocketPolicy] = []

    def make(url: str = "ws://127.0.0.1:1", **settings: Any) -> PI05WebSocketPolicy:
        config = PI05WebSocketConfig(websocket_url=url, **settings)
        policies.append(lerobot_policy_pi05_websocket.make_policy(config))
        return policies[-1]

    yield make
    for policy in policies:
        policy.close()


def batch(size: int = 1, task: str = "pick", *, uint8: bool = False) -> dict[str, Any]:
    """Return what LeRobot's pipelines hand over."""
    state = torch.arange(6.0).repeat(size, 1) + 10 * torch.arange(size)[:, None]
    wrist = torch.full((size, 3, 224, 224), 51, dtype=torch.uint8)
    scene = torch.full((size, 3, 480, 640), 102, dtype=torch.uint8)
    if not uint8:
        wrist, scene = wrist.float() / 255, scene.float() / 255
    return {
        "observation.state": state,
        "observation.images.wrist2": wrist,
        "observation.images.realsense": scene,
        "task": [task] * size,
        "action": None,
        "next.reward": 0.0,
        "info": {},
    }


def raw() -> dict[str, Any]:
    """Return what `robot.get_observation()` hands over."""
    arm = FakeArm(FakeArmConfig())
    arm.connect()
    return arm.get_observation()


class TestMissionUsage:
    def test_get_observation_in_send_action_out(self, served, made):
        """MISSION's control loop, line by line, with only its import changed."""
        _, url = served()
        robot = FakeArm(FakeArmConfig())
        robot.connect()
        policy = made(url, timeout=5.0, action_horizon=8, task="pick up the cube")

        observation = robot.get_observation()
        action = policy.select_action(observation)
        robot.send_action(action)

        assert action == {
            f"{joint}.pos": start + 1 for joint, start in zip(JOINTS, START, strict=True)
        }

    def test_lerobots_own_factory_needs_a_dataset_or_environment(self):
        """Why `make_policy(config)` is ours: LeRobot's raises without one."""
        with pytest.raises(ValueError, match="Either one of"):
            lerobot_make_policy(PI05WebSocketConfig())

    def test_joint_order_can_be_the_policys(self, served, made):
        """Joints of a raw observation are sent, and commanded, in `joint_names`' order."""
        policy, url = served()
        order = list(reversed(JOINTS))

        action = made(url, joint_names=order, task="pick").select_action(raw())

        assert policy.observations[0]["observation/state"].tolist() == list(reversed(START))
        assert list(action) == [f"{joint}.pos" for joint in order]
        assert action["shoulder_pan.pos"] == START[0] + 1

    def test_unknown_joint_is_named(self, served, made):
        """A robot that calls a joint otherwise is told which."""
        _, url = served()
        observation = raw()
        del observation["gripper.pos"]

        with pytest.raises(ObservationError, match=r"gripper\.pos"):
            made(url).select_action(observation)


class TestSelectAction:
    @pytest.mark.parametrize("uint8", [False, True])
    def test_images_arrive_pixel_for_pixel(self, served, made, uint8: bool):
        """Float k/255 and uint8 are the same bytes at the server, channels last."""
        policy, url = served()

        action = made(url).select_action(batch(uint8=uint8))

        seen = policy.observations[0]
        assert action.shape == (1, 6)
        assert action.dtype == torch.float32
        assert seen["observation/images/wrist2"].shape == (224, 224, 3)
        assert np.unique(seen["observation/images/wrist2"]).tolist() == [51]
        assert np.unique(seen["observation/images/realsense"]).tolist() == [102]

    def test_any_webcam_is_padded_to_the_models_size(self, served, made):
        """The preset's wrist2 takes 480x640 and sends 224x224 as OpenPI would make it."""
        policy, url = served()
        observation = raw()
        observation["wrist2"] = np.full((480, 640, 3), 9, np.uint8)

        made(url, task="pick").select_action(observation)

        wrist = policy.observations[0]["observation/images/wrist2"]
        assert wrist.shape == (224, 224, 3)
        assert (wrist[0, 0].tolist(), wrist[112, 112].tolist()) == ([0, 0, 0], [9, 9, 9])

    def test_batch_of_several_waits_for_all_of_them(self, served, made):
        """More than one row is a simulator: each gets its own answer in its own place."""
        policy, url = served()

        action = made(url).select_action(batch(3))

        assert action[:, 0].tolist() == [1.0, 11.0, 21.0]
        assert len(policy.observations) == 3

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"observation.state": torch.zeros(1, 5)}, "state"),
            ({"observation.state": None}, "state"),
            ({"observation.state": torch.full((1, 6), torch.nan)}, "finite"),
            ({"observation.images.wrist2": torch.full((1, 3, 224, 224), 3.0)}, "wrist2"),
            ({"observation.images.realsense": torch.zeros(1, 3, 100, 100)}, "480x640"),
            ({"observation.images.realsense": torch.zeros(3, 480, 640)}, "realsense"),
            ({"task": ["a", "b"]}, "task"),
        ],
    )
    def test_wrong_observations_name_key_expected_got(self, served, made, change, told: str):
        """Before anything is sent, and as an error: settings are wrong, not the link."""
        policy, url = served()

        with pytest.raises(ObservationError, match=told):
            made(url).select_action(batch() | change)

        assert policy.observations == []

    def test_task_comes_with_every_request_and_may_change(self, served, made):
        """A changed task is asked at once, in mid-chunk."""
        policy, url = served()
        robot = made(url)
        robot.select_action(batch(task="pick"))

        robot.select_action(batch(task="place"))

        deadline = time.monotonic() + 5
        while policy.prompts != ["pick", "place"] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert policy.prompts == ["pick", "place"]

    def test_reset_begins_with_a_fresh_observation(self, served, made):
        """After `reset` no row of the old chunk is left."""
        policy, url = served()
        robot = made(url)
        robot.select_action(batch())
        robot.reset()

        action = robot.select_action(batch() | {"observation.state": torch.full((1, 6), 500.0)})

        assert action[0, 0] == 501.0
        assert len(policy.observations) == 2

    def test_first_call_of_an_unreachable_server_is_short(self, made):
        """The measured pose is held; Ctrl-C works."""
        robot = made()
        began = time.monotonic()

        action = robot.select_action(batch())

        assert time.monotonic() - began < 1.0
        assert action.tolist() == [[0, 1, 2, 3, 4, 5]]

    def test_compiling_server_is_waited_for_without_blocking(self, served, made):
        """A first inference of seconds: the calls stay short and the pose is held meanwhile."""
        policy, url = served(delay_s=2.0)
        robot = made(url, timeout=0.5)
        slowest, sources = 0.0, []
        end = time.monotonic() + 3.0
        while time.monotonic() < end:
            began = time.monotonic()
            sources.append(float(robot.select_action(batch())[0, 0]))
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(1 / 30)

        assert slowest < 1.0
        assert sources[0] == 0.0
        # the first answer described a world two seconds old: dropped, and asked anew
        assert len(policy.observations) >= 2 or sources[-1] == 0.0

    def test_refused_key_is_an_error_before_motion(self, scripted, made):
        """It cannot mend itself."""
        import http

        def refuse(connection, request):
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "no\n")

        robot = made(scripted(lambda c: None, process_request=refuse).url)

        def drive() -> None:
            for _ in range(50):
                robot.select_action(batch())
                time.sleep(0.02)

        with pytest.raises(AccessRefused):
            drive()

    def test_raise_is_an_error(self, made):
        """`fallback="raise"` stops the loop with the cause."""
        with pytest.raises(NoValidAction, match=r"refused|not connected"):
            made(fallback="raise").select_action(batch())

    def test_zero_is_zero(self, made):
        """The mission's documented behaviour, where chosen."""
        assert made(fallback="zero").select_action(batch()).tolist() == [[0.0] * 6]

    def test_threads_have_their_own_episodes(self, served, made):
        """lerobot-eval may evaluate several tasks at once with one policy."""
        _, url = served(rows=5)
        robot = made(url, tick_source="calls")
        results: dict[int, list[float]] = {}

        def evaluate(number: int) -> None:
            state = {"observation.state": torch.full((1, 6), 100.0 * number)}
            results[number] = [float(robot.select_action(batch() | state)[0, 0]) for _ in range(5)]

        threads = [threading.Thread(target=evaluate, args=(number,)) for number in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)

        assert results == {n: [100.0 * n + row for row in range(1, 6)] for n in (1, 2)}


class TestOneArm:
    def test_reset_from_any_thread_counts(self, served, made):
        """There is one arm: whoever resets it, no row of the old episode is executed any more."""
        _, url = served()
        robot = made(url)
        robot.select_action(batch())
        thread = threading.Thread(target=robot.reset)
        thread.start()
        thread.join(5)

        action = robot.select_action(batch() | {"observation.state": torch.full((1, 6), 500.0)})

        assert action[0, 0] == 501.0

    def test_a_pool_of_threads_drives_one_plan(self, served, made):
        """Calls from several threads share the arm's chunk: rows never go back."""
        _, url = served(rows=50)
        robot = made(url)
        values: list[float] = []

        def call() -> None:
            values.append(float(robot.select_action(batch())[0, 0]))
            time.sleep(1 / 30)

        for _ in range(12):
            thread = threading.Thread(target=call)
            thread.start()
            thread.join(5)

        assert values == sorted(values)
        assert values[0] == 1.0

    def test_width_of_absolute_targets_is_the_joints(self, served, made):
        """Without a width in the key map, a row must be as wide as the joints: LeRobot would cut it."""
        _, url = served(width=32)
        robot = made(url, keymap="custom")

        action = robot.select_action(batch())

        assert action.tolist() == [[0, 1, 2, 3, 4, 5]]  # held

    def test_a_config_used_for_an_environment_is_a_robots_again(self, served):
        """LeRobot fills features into the caller's config; our `make_policy` is for robots."""
        _, url = served()
        config = PI05WebSocketConfig(websocket_url=url)
        lerobot_make_policy(config, env_cfg=FakeEnvConfig()).close()

        robot = lerobot_policy_pi05_websocket.make_policy(config)

        assert robot._tick_source == "wall"
        robot.close()

    def test_trace_goes_on_after_a_close(self, served, made, tmp_path: Path):
        """A policy that is closed and used again adds to its trace."""
        _, url = served()
        trace = tmp_path / "trace.jsonl"
        robot = made(url, trace_file=str(trace))
        robot.select_action(batch())
        robot.close()
        before = len(trace.read_text().splitlines())
        robot.select_action(batch())
        robot.close()

        assert len(trace.read_text().splitlines()) > before >= 2


class TestChunks:
    def test_whole_chunks_of_a_batch(self, served, made):
        """`predict_action_chunk` without the engine's arguments: a chunk per environment."""
        _, url = served(rows=7)

        assert made(url).predict_action_chunk(batch(2)).shape == (2, 7, 6)

    def test_no_server_is_an_error(self, made):
        """A chunk cannot be made up."""
        with pytest.raises(Pi05WebsocketError):
            made(first_request_timeout=0.3, timeout=0.3).predict_action_chunk(batch())

    def test_engine_drives_one_robot(self, served, made):
        """The rtc engine's prefix belongs to one arm."""
        _, url = served()

        with pytest.raises(ConfigError, match="one robot"):
            made(url).predict_action_chunk(batch(2), inference_delay=0, prev_chunk_left_over=None)

    def test_reset_in_flight_drops_the_chunk(self, served, made):
        """A chunk asked before a reset never reaches the queue of the new episode."""
        _, url = served(delay_s=0.5)
        robot = made(url)
        robot.connect().get_server_metadata()
        threading.Timer(0.2, robot.reset).start()

        with pytest.raises(Pi05WebsocketError, match="new episode"):
            robot.predict_action_chunk(batch(), inference_delay=0, prev_chunk_left_over=None)

    def test_first_observation_after_a_reset_may_be_stale(self, served, made):
        """LeRobot's engine asks with the old episode's observation at once: refused, the next one counts."""
        _, url = served()
        robot = made(url)
        robot.predict_action_chunk(batch(), inference_delay=0, prev_chunk_left_over=None)
        robot.reset()

        with pytest.raises(Pi05WebsocketError, match="new episode"):
            robot.predict_action_chunk(batch(), inference_delay=0, prev_chunk_left_over=None)
        chunk = robot.predict_action_chunk(batch(), inference_delay=0, prev_chunk_left_over=None)
        assert chunk.shape[2] == 6

    def test_answer_to_a_world_long_gone_is_refused(self, served, made):
        """`timeout` is the oldest observation that may be executed, in the rtc engine too."""
        _, url = served(delay_s=0.6)
        robot = made(url, timeout=0.3, hard_timeout=5)

        with pytest.raises(Pi05WebsocketError, match="too old"):
            robot.predict_action_chunk(batch(), inference_delay=0, prev_chunk_left_over=None)

    def test_refused_key_ends_the_engines_wait(self, scripted, made):
        """A link that can never come up is an error, not a wait without end."""
        import http

        from misbehaving import METADATA

        def refuse_later(connection, request):
            if server.connections:
                return connection.respond(http.HTTPStatus.UNAUTHORIZED, "no\n")
            return None

        server = scripted(lambda c: c.send(METADATA), process_request=refuse_later)
        robot = made(server.url)

        def drive() -> None:
            for _ in range(100):
                try:
                    robot.predict_action_chunk(
                        batch(), inference_delay=0, prev_chunk_left_over=None
                    )
                except Pi05WebsocketError as exc:
                    if not exc.retryable:
                        raise
                time.sleep(0.05)  # the engine goes on after what may pass

        with pytest.raises(AccessRefused):
            drive()

    def test_all_zero_prefix_is_a_dry_queue(self, served, made):
        """LeRobot pads with zeros; the arm stood still, so rows are put in front of the chunk."""
        _, url = served(rows=10, delay_s=0.2)
        robot = made(url)
        robot.connect().get_server_metadata()
        robot.predict_action_chunk(batch(), inference_delay=0, prev_chunk_left_over=None)

        chunk = robot.predict_action_chunk(
            batch(), inference_delay=9, prev_chunk_left_over=torch.zeros(10, 6)
        )

        repeated = int((chunk[0, :, 0] == chunk[0, 0, 0]).sum())
        assert chunk.shape[1] == 10 + repeated - 1
        assert repeated >= 7  # 0.2 s at 30 Hz, and one more


class TestFactories:
    def test_discovered_by_its_distribution_name(self):
        """LeRobot imports every installed distribution whose name begins with lerobot_policy_."""
        code = (
            "from lerobot.utils.import_utils import register_third_party_plugins as r; r();"
            "from lerobot.configs import PreTrainedConfig as C;"
            "print('pi05_websocket' in C.get_known_choices())"
        )

        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )

        assert out.stdout.strip().endswith("True")

    def test_get_policy_class_and_config(self):
        """By type, as every LeRobot tool does it."""
        config = make_policy_config("pi05_websocket", action_horizon=8)

        assert get_policy_class("pi05_websocket") is PI05WebSocketPolicy
        assert isinstance(config, PI05WebSocketConfig)
        assert (config.type, config.action_horizon, config.device) == ("pi05_websocket", 8, "cpu")

    def test_environment_means_calls(self, served):
        """Built for an environment: a call waits and takes one row of each chunk."""
        policy, url = served(rows=4)
        config = PI05WebSocketConfig(websocket_url=url)
        robot = lerobot_make_policy(config, env_cfg=FakeEnvConfig())

        values = [float(robot.select_action(batch())[0, 0]) for _ in range(8)]

        assert values == [1, 2, 3, 4] * 2
        assert len(policy.observations) == 2
        robot.close()

    def test_dataset_means_a_robot(self):
        """Built from dataset metadata: ticks follow the clock."""

        class Meta:
            features = {  # noqa: RUF012
                "action": {
                    "dtype": "float32",
                    "shape": (6,),
                    "names": [f"{j}.pos" for j in JOINTS],
                },
                "observation.state": {"dtype": "float32", "shape": (6,), "names": None},
            }
            stats = {}  # noqa: RUF012

        robot = lerobot_make_policy(PI05WebSocketConfig(), ds_meta=Meta())

        assert robot._tick_source == "wall"

    def test_environment_width_wins_over_the_key_maps(self):
        """What LeRobot says the action is, the reply must be."""
        feature = PolicyFeature(type=FeatureType.ACTION, shape=(7,))
        config = PI05WebSocketConfig(keymap="libero", output_features={"action": feature})

        player = config.player_config(tick_source="calls", key_map=config.key_map())

        assert player.action_dim == 7

    def test_processors_leave_values_alone(self):
        """The server normalises; here only names, batch dimension and device change."""
        pre, post = make_pre_post_processors(PI05WebSocketConfig())
        observation = {"observation.state": torch.arange(6.0), "task": "pick"}

        processed = pre(observation)

        assert processed["observation.state"].tolist() == [[0, 1, 2, 3, 4, 5]]
        assert processed["task"] == ["pick"]
        assert post(torch.ones(1, 6)).tolist() == [[1.0] * 6]

    def test_save_and_load(self, tmp_path: Path):
        """A folder with a config is a whole policy; features are not saved."""
        feature = PolicyFeature(type=FeatureType.ACTION, shape=(6,))
        config = PI05WebSocketConfig(
            websocket_url="ws://gpu:8000",
            action_horizon=8,
            cameras={"front": "realsense"},
            output_features={"action": feature},
        )
        PI05WebSocketPolicy(config).save_pretrained(tmp_path)

        loaded = PI05WebSocketPolicy.from_pretrained(tmp_path)

        assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json"]
        assert loaded.config.websocket_url == "ws://gpu:8000"
        assert (loaded.config.action_horizon, loaded.config.cameras) == (8, {"front": "realsense"})
        assert loaded.config.output_features == {}
        assert not loaded.training
        loaded.close()

    def test_from_pretrained_of_nothing_says_what_it_needs(self):
        """Neither a path nor a config."""
        with pytest.raises(ConfigError, match=r"config\.json"):
            PI05WebSocketPolicy.from_pretrained()

    def test_no_weights_anywhere(self, tmp_path: Path):
        """Nothing to optimise, to move or to train."""
        policy = PI05WebSocketPolicy(PI05WebSocketConfig())

        assert list(policy.to("cpu").parameters()) == []
        assert policy.get_optim_params() == {}
        with pytest.raises(NotImplementedError, match="OpenPI"):
            policy.forward(batch())

    def test_copies_begin_anew(self, served, made):
        """Deepcopy and pickle leave the socket and its thread behind."""
        _, url = served()
        robot = made(url)
        robot.select_action(batch())

        for copied in (copy.deepcopy(robot), pickle.loads(pickle.dumps(robot))):
            assert copied.select_action(batch())[0, 0] == 1.0
            copied.close()

    def test_close_and_use_again(self, served, made):
        """A closed policy connects again when it is asked."""
        _, url = served()
        robot = made(url)
        robot.select_action(batch())
        robot.close()
        robot.close()

        assert robot.select_action(batch())[0, 0] == 1.0
        assert robot.server_metadata == ANNOUNCED


class TestConfig:
    def test_every_field_survives_the_command_line(self, tmp_path: Path):
        """LeRobot saves with draccus and reads it back."""
        config = PI05WebSocketConfig(fallback="raise", keymap="libero", joint_names=["a", "b"])
        config._save_pretrained(tmp_path)

        assert PreTrainedConfig.from_pretrained(tmp_path) == config

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            ({"websocket_url": "http://gpu"}, "http"),
            ({"websocket_url": "ws://robot:hunter2@gpu"}, "credentials"),
            ({"timeout": 0}, "request_timeout"),
            ({"action_horizon": 0}, "action_horizon"),
            ({"keymap": "so102"}, "so101"),
            ({"cameras": {"front": "nothing"}}, "nothing"),
            ({"fallback": "panic"}, "hold, zero, raise"),
            ({"tick_source": "sun"}, "wall"),
            ({"auth_scheme": "basic"}, "bearer"),
            ({"action_kind": "jerk"}, "velocity"),
            ({"control_hz": 0}, "control_hz"),
            ({"action_dim": 0}, "action_dim"),
            ({"image_transport": "png"}, "auto, raw, jpeg"),
            ({"jpeg_quality_floor": 0}, "from 1 to 100"),
        ],
    )
    def test_impossible_settings_are_refused_at_once(self, wrong: dict[str, Any], told: str):
        """Before any I/O, quoting the field."""
        with pytest.raises(ConfigError, match=told):
            PI05WebSocketConfig(**wrong)

    def test_no_field_can_hold_a_secret(self):
        """Names of places, never keys: configs are printed and saved."""
        fields = PI05WebSocketConfig.__dataclass_fields__

        assert {
            name for name in fields if "key" in name or "token" in name or "header" in name
        } == {
            "api_key_env",
            "api_key_file",
            "headers_file",
            "client_key_file",
            "keymap",
            "state_key",
            "prompt_key",
        }

    def test_how_images_are_sent_reaches_the_connection(self):
        """Near servers get every pixel by default."""
        usual = PI05WebSocketConfig().connection_config()
        assert (usual.image_transport, usual.jpeg_quality_floor) == ("auto", 75)

        config = PI05WebSocketConfig(image_transport="jpeg", jpeg_quality_floor=90)
        asked = config.connection_config()
        assert (asked.image_transport, asked.jpeg_quality_floor) == ("jpeg", 90)

    def test_a_pinned_server_reaches_the_connection(self):
        """And its fingerprint is looked at before any I/O, like every setting."""
        config = PI05WebSocketConfig(websocket_url="wss://gpu", tls_fingerprint="AB" * 32)
        assert config.connection_config().tls_fingerprint == "AB" * 32
        with pytest.raises(ConfigError, match="tls_fingerprint"):
            PI05WebSocketConfig(websocket_url="ws://gpu", tls_fingerprint="AB" * 32)

    def test_own_keys(self):
        """A free key map from the command line's fields."""
        config = PI05WebSocketConfig(
            keymap="custom",
            cameras={"top": "images/top pad 224x224"},
            state_key="joints",
            prompt_key="text",
        )

        key_map = config.key_map()

        observation = key_map.observation(
            {"top": np.zeros((480, 640, 3), np.uint8)}, np.zeros(4), "go"
        )
        assert set(observation) == {"images/top", "joints", "text"}

    def test_virtual_clock(self, served):
        """The tick source takes any clock: without time passing it is the same tick."""
        _, url = served()
        config = PI05WebSocketConfig(websocket_url=url)
        robot = lerobot_policy_pi05_websocket.make_policy(config, clock=FakeClock())
        robot.connect().get_server_metadata()

        values = {float(robot.select_action(batch())[0, 0]) for _ in range(5)}

        assert values == {1.0}
        robot.close()


def test_several_servers_are_saved_and_joined_to_one_policy(tmp_path: Path):
    """Addresses with commas come back from `config.json`, and a pool is made of them; each is checked."""
    urls = "ws://127.0.0.1:9,ws://127.0.0.1:10"
    PI05WebSocketConfig(websocket_url=urls, same_policy=True).save_pretrained(tmp_path)
    config = PreTrainedConfig.from_pretrained(tmp_path)
    assert (config.websocket_url, config.same_policy) == (urls, True)
    policy = PI05WebSocketPolicy(config)
    remote = policy.connect()
    assert isinstance(remote, PolicyPool)
    assert [server.url for server in remote.servers] == urls.split(",")
    assert not policy.resume()
    policy.close()
    with pytest.raises(ConfigError, match="expected ws"):
        PI05WebSocketConfig(websocket_url="ws://a,ftp://b")
