# SPDX-License-Identifier: Apache-2.0
"""The tables, and what is made of observations, answers and requests by them; bytes against the vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pi05_websocket.conformance.vectors import read_vectors
from pi05_websocket.errors import (
    ConfigError,
    DecodeError,
    EncodeError,
    InvalidReply,
    ObservationError,
    PolicyError,
)
from pi05_websocket.wire import codec
from pi05_websocket.wire.dialect_robot import (
    image_resolution,
    read_answer,
    read_reset_answer,
    request_message,
    reset_message,
    said_error,
)
from pi05_websocket.wire.dialect_server import answer, error_answer, metadata_of, unwrap
from pi05_websocket.wire.dialects import (
    DIALECTS,
    OPENPI,
    check_dialect,
    dialect_for,
    dialect_of_path,
    recognised,
)
from pi05_websocket.wire.protocol import (
    ClientProtocol,
    ReplyReceived,
    RequestFailed,
    ServerProtocol,
)

VECTORS = {each["name"]: bytes.fromhex(each["hex"]) for each in read_vectors()}
ROWS = np.array([[0.0, 0.25, 0.5, 0.75, 1.0, 1.25]], np.float32) + 1.5 * np.arange(4)[:, None]
ROWS = ROWS.astype(np.float32)


def asked(name: str, observation: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """Return the message for an observation."""
    return request_message(
        DIALECTS[name], observation, metadata=metadata, session_id="2f0c", request_id="r1"
    )


def test_a_roboarena_request_is_written_as_in_the_vector() -> None:
    """A roboarena request is written as in the vector."""
    observation = {
        "observation/joint_position": np.zeros(7, np.float32),
        "observation/gripper_position": np.zeros(1, np.float32),
        "prompt": "test",
    }
    message = asked("roboarena", observation, needs_session_id=True)
    written = {key: message[key] for key in ("endpoint", *observation, "session_id")}
    assert codec.encode(written) == VECTORS["obs_roboarena_infer"]
    assert message.keys() == written.keys()


def test_a_starvla_request_is_written_as_in_the_vector() -> None:
    """A starvla request is written as in the vector."""
    expected = codec.decode(VECTORS["obs_starvla"])["examples"][0]
    observation = {
        "camera": expected["image"][0],
        "state": expected["state"][0],
        "prompt": "pick",
    }
    assert codec.encode(asked("starvla", observation)) == VECTORS["obs_starvla"]


@pytest.mark.parametrize(
    ("name", "vector"),
    [
        ("roboarena", "reset_roboarena"),
        ("dreamzero", "reset_roboarena"),
        ("vllm-omni", "reset_roboarena"),
        ("behavior", "reset_behavior1k"),
    ],
)
def test_a_reset_is_written_as_in_the_vector(name: str, vector: str) -> None:
    """A reset is written as in the vector."""
    assert codec.encode(reset_message(DIALECTS[name], {})) == VECTORS[vector]


@pytest.mark.parametrize(
    ("name", "vector"),
    [
        ("roboarena", "resp_no_timing"),
        ("dreamzero", "resp_bare_ndarray"),
        ("vllm-omni", "resp_bare_ndarray"),
        ("sglang", "resp_next_float32"),
        ("behavior", "resp_action_singular"),
        ("lingbot-va", "resp_action_singular"),
        ("starvla", "resp_actions_batched"),
    ],
)
def test_the_answers_in_the_vectors_are_read_as_four_rows(name: str, vector: str) -> None:
    """The answers in the vectors are read as four rows."""
    actions = read_answer(DIALECTS[name], codec.decode(VECTORS[vector]))["actions"]
    assert [actions.shape, float(actions[3, 5])] == [(4, 6), 5.75]


def test_a_single_action_in_the_vector_is_one_row() -> None:
    """A single action in the vector is one row."""
    value = codec.decode(VECTORS["resp_actions_1d"])
    assert read_answer(DIALECTS["behavior"], value)["actions"].shape == (1, 6)


def test_the_servers_side_writes_what_the_vectors_hold() -> None:
    """The servers side writes what the vectors hold."""
    chunk = {"actions": codec.decode(VECTORS["resp_bare_ndarray"])}
    timing = {"infer_ms": 1.0}
    dreamzero = answer(DIALECTS["dreamzero"], chunk, timing=timing)
    assert codec.encode(dreamzero) == VECTORS["resp_bare_ndarray"]
    error = error_answer(DIALECTS["starvla"], "boom", "r1")
    assert codec.encode(error) == VECTORS["resp_starvla_error"]
    reset = ServerProtocol({}, dialect=DIALECTS["vllm-omni"]).read(VECTORS["reset_roboarena"])
    assert reset.message == VECTORS["resp_vllm_reset"]  # type: ignore[union-attr]
    metadata = ServerProtocol({"name": "x"}, dialect=DIALECTS["roboarena"]).metadata_message
    assert metadata == VECTORS["metadata_roboarena"]


@pytest.mark.parametrize(
    ("metadata", "path", "name"),
    [
        ({}, "/", None),
        ({"reset_pose": [0, -1.5]}, "/", None),
        (codec.decode(VECTORS["metadata_roboarena"]), "/", "roboarena"),
        (codec.decode(VECTORS["metadata_roboarena"]), "/v1/realtime/robot/openpi?x", "vllm-omni"),
        ({"action_keys": ["arm"]}, "/", "vllm-omni"),
        ({"object": "action.metadata"}, "/openpi/policy", "sglang"),
        ({"available_unnorm_keys": []}, "/", "starvla"),
    ],
)
def test_a_server_is_recognised_where_it_is_certain(
    metadata: dict[str, Any], path: str, name: str | None
) -> None:
    """A server is recognised where it is certain."""
    found = recognised(metadata, path)
    assert (found and found.name) == name
    assert dialect_for("auto", metadata, path) is (found or OPENPI)


def test_what_is_chosen_counts_more_than_what_is_recognised() -> None:
    """What is chosen counts more than what is recognised."""
    assert dialect_for("openpi", {"available_unnorm_keys": []}, "/") is OPENPI


def test_a_path_names_a_dialect_and_others_name_none() -> None:
    """A path names a dialect and others name none."""
    paths = ["/starvla/", "/openpi/policy", "/v1/realtime/robot/openpi?x=1", "/", "/cube"]
    found = [dialect_of_path(path) for path in paths]
    assert [each and each.name for each in found] == ["starvla", "sglang", "vllm-omni", None, None]


def test_an_unknown_dialect_is_refused_with_all_that_there_are() -> None:
    """An unknown dialect is refused with all that there are."""
    check_dialect("auto")
    with pytest.raises(ConfigError, match="'klingon': expected one of auto, openpi, roboarena"):
        check_dialect("klingon")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"type": "error", "message": "out of memory"}, "out of memory"),
        ({"status": "error", "ok": False, "error": {"message": "boom"}}, "boom"),
        ({"ok": False}, "None"),
        ({"error": "Traceback\n  File\nValueError: no state\n"}, "ValueError: no state"),
        ({"error": " "}, "(no text)"),
    ],
)
def test_a_map_that_is_an_error_is_one(value: Any, text: str) -> None:
    """A map that is an error is one."""
    error = said_error(value)
    assert error is not None
    assert str(error) == f"server error: {text}"
    with pytest.raises(PolicyError):
        read_answer(DIALECTS["vllm-omni"], value)


@pytest.mark.parametrize("value", [ROWS, {"actions": ROWS, "error": "a note"}, {}, "text"])
def test_what_is_no_error_is_none(value: Any) -> None:
    """What is no error is none."""
    assert said_error(value) is None


def test_parts_of_a_robot_are_put_side_by_side_in_their_order() -> None:
    """Parts of a robot are put side by side in their order."""
    value = {"arm": ROWS[None, :, :5], "gripper": ROWS[:, 5], "note": "x"}
    assert read_answer(DIALECTS["vllm-omni"], value)["actions"].tolist() == ROWS.tolist()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vllm-omni", {"arm": ROWS, "gripper": ROWS[:2]}),
        ("vllm-omni", {"note": "x"}),
        ("starvla", {"data": {}}),
        ("behavior", 7),
    ],
)
def test_an_answer_without_actions_says_where_they_were_expected(name: str, value: Any) -> None:
    """An answer without actions says where they were expected."""
    with pytest.raises(InvalidReply, match=f"dialect {name}: expected actions under"):
        read_answer(DIALECTS[name], value)


def test_channels_become_rows_without_the_frame_in_front() -> None:
    """Channels become rows without the frame in front."""
    frames = np.concatenate([np.zeros((6, 1, 2)), ROWS.T.reshape(6, 2, 2)], axis=1)
    lingbot = DIALECTS["lingbot-va"]
    assert read_answer(lingbot, {"action": frames})["actions"].tolist() == ROWS.tolist()
    alone = read_answer(lingbot, {"action": frames[:, 1:2]})["actions"]
    assert alone.tolist() == ROWS[:2].tolist()


def test_frames_and_examples_take_nested_images_all_state_and_the_prompt() -> None:
    """Frames and examples take nested images all state and the prompt."""
    image = np.zeros((2, 2, 3), np.uint8)
    observation = {
        "images": {"front": image},
        "arm": np.ones(5, np.float32),
        "gripper": np.zeros(1, np.float32),
        "flag": True,
        "prompt": "pick",
    }
    lingbot = asked("lingbot-va", observation)
    assert [list(lingbot["obs"][0]), lingbot["prompt"]] == [["images.front"], "pick"]
    assert asked("starvla", observation)["examples"][0]["state"].tolist() == [[1, 1, 1, 1, 1, 0]]
    bare = asked("starvla", {})["examples"][0]
    assert bare == {"image": [], "lang": ""}
    assert reset_message(DIALECTS["lingbot-va"], observation)["prompt"] == "pick"


def test_outside_cameras_are_counted_from_zero_and_only_as_many_as_wanted() -> None:
    """Outside cameras are counted from zero and only as many as wanted."""
    observation = {f"observation/exterior_image_{n}_left": n for n in (2, 1)} | {"prompt": "x"}
    sent = asked("roboarena", observation, n_external_cameras=1)
    assert sent["observation/exterior_image_0_left"] == 1
    assert "observation/exterior_image_1_left" not in sent
    assert asked("roboarena", observation).keys() >= observation.keys()
    with pytest.raises(ObservationError, match="3 outside cameras"):
        asked("roboarena", observation, n_external_cameras=3)


@pytest.mark.parametrize(
    ("said", "size"),
    [([180, 320], (180, 320)), (None, None), ([180], None), (["a", 3], None), ([0, 5], None)],
)
def test_an_image_size_is_taken_only_if_it_is_one(said: Any, size: Any) -> None:
    """An image size is taken only if it is one."""
    assert image_resolution(DIALECTS["roboarena"], {"image_resolution": said}) == size
    assert image_resolution(OPENPI, {"image_resolution": said}) is None


def test_a_resets_answer_is_good_unless_it_is_an_error() -> None:
    """A resets answer is good unless it is an error."""
    roboarena = DIALECTS["roboarena"]
    for good in ("reset successful", "reset done", {"status": "reset successful"}, {}):
        read_reset_answer(roboarena, good)
    for bad in ("Traceback ...", {"type": "error", "message": "no"}):
        with pytest.raises(PolicyError):
            read_reset_answer(roboarena, bad)


def client_of(name: str) -> ClientProtocol:
    """Return a protocol that has sent a reset, 1, and a request, 2."""
    protocol = ClientProtocol(dialect=name)
    protocol.receive(codec.encode({}))
    protocol.request_sent(1, reset=True)
    protocol.request_sent(2)
    return protocol


@pytest.mark.parametrize(
    ("told", "kinds"),
    [
        ("reset successful", [ReplyReceived]),
        (codec.encode({"status": "reset successful"}), [ReplyReceived]),
        (codec.encode({"type": "error", "message": "no"}), [RequestFailed]),
        (b"\xc1", [RequestFailed]),
        ("Traceback ...", [RequestFailed, RequestFailed]),
    ],
)
def test_a_resets_answer_belongs_to_the_reset(told: Any, kinds: list[type]) -> None:
    """A resets answer belongs to the reset."""
    protocol = client_of("roboarena")
    events = protocol.receive(told)
    assert [type(each) for each in events] == kinds
    assert events[0].seq == 1  # type: ignore[union-attr]
    if len(kinds) == 1:
        [reply] = protocol.receive(codec.encode({"actions": ROWS}))
        assert reply.seq == 2  # type: ignore[union-attr]


def test_metadata_is_what_the_dialects_clients_read_and_nothing_of_ours() -> None:
    """Metadata is what the dialects clients read and nothing of ours."""
    said = {"_rt": {"version": 1}, "_images": {}, "action_horizon": 8, "n_external_cameras": 2}
    roboarena = codec.decode(ServerProtocol(said, dialect=DIALECTS["roboarena"]).metadata_message)
    assert [len(roboarena), roboarena["n_external_cameras"]] == [6, 2]
    starvla = metadata_of(DIALECTS["starvla"], {"action_horizon": 8})
    assert starvla["action_chunk_size"] == 8
    assert metadata_of(DIALECTS["starvla"], {}) == {"available_unnorm_keys": []}
    protocol = ServerProtocol(said, dialect=DIALECTS["vllm-omni"], encoded_images=True)
    assert [protocol.encoded_images, protocol.reads_realtime] == [False, False]


@pytest.mark.parametrize(
    ("name", "message", "text"),
    [
        ("starvla", {"examples": []}, "a list of one map"),
        ("starvla", {"payload": 3}, "a list of one map"),
        ("starvla", {"type": "reset"}, "Unsupported message type"),
        ("lingbot-va", {"obs": []}, "a map of images"),
        ("lingbot-va", {"reset": np.ones(2)}, "yes or no under 'reset'"),
        ("lingbot-va", {"compute_kv_cache": np.ones(2)}, "yes or no under 'compute_kv_cache'"),
        ("behavior", {"reset": np.ones((0, 3))}, "yes or no under 'reset'"),
        ("roboarena", {"endpoint": np.ones(2)}, "a word under 'endpoint'"),
        ("vllm-omni", {"endpoint": np.array(["reset", "x"])}, "a word under 'endpoint'"),
        ("starvla", {"type": np.ones(2)}, "a word under 'type'"),
    ],
)
def test_a_message_that_is_none_of_the_dialects_says_what_was_expected(
    name: str, message: dict[str, Any], text: str
) -> None:
    """A message that is none of the dialects says what was expected."""
    with pytest.raises(DecodeError, match=text):
        unwrap(DIALECTS[name], message)


def test_an_example_without_words_or_with_a_plain_state_stays_as_it_is() -> None:
    """An example without words or with a plain state stays as it is."""
    message = {"examples": [{"state": np.ones(6)}], "unnorm_key": "so101"}
    found = unwrap(DIALECTS["starvla"], message)
    assert sorted(found.observation) == ["state", "unnorm_key"]  # type: ignore[union-attr]


def test_a_result_without_actions_cannot_be_answered_in_a_dialect_of_actions_alone() -> None:
    """A result without actions cannot be answered in a dialect of actions alone."""
    with pytest.raises(EncodeError, match="the policy returned the keys state"):
        answer(DIALECTS["dreamzero"], {"state": 1}, timing={})
    assert answer(DIALECTS["roboarena"], {"state": 1}, timing={}) == {"state": 1}


def test_a_chunk_that_cannot_be_cut_into_frames_of_four_has_frames_of_one() -> None:
    """A chunk that cannot be cut into frames of four has frames of one."""
    chunk = {"actions": np.ones((3, 6))}
    found = answer(DIALECTS["lingbot-va"], chunk, timing={}, has_history=True)
    assert found["action"].shape == (6, 3, 1)
