# SPDX-License-Identifier: Apache-2.0
"""LeRobot's rtc engine, its queue, our wire, our server: the rows to continue arrive as they were answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from misbehaving import eventually

pytestmark = [
    pytest.mark.lerobot,
    pytest.mark.timeout(120),
    # LeRobot and its dependencies warn about themselves.
    pytest.mark.filterwarnings("default"),
]

import torch  # noqa: E402
from lerobot.policies.rtc import ActionQueue  # noqa: E402
from lerobot.policies.rtc.configuration_rtc import RTCConfig  # noqa: E402
from lerobot.rollout.inference.rtc import _normalize_prev_actions_length  # noqa: E402

from lerobot_policy_pi05_websocket import make_policy  # noqa: E402
from lerobot_policy_pi05_websocket.configuration_pi05_websocket import (  # noqa: E402
    PI05WebSocketConfig,
)
from lerobot_policy_pi05_websocket.rtc_engine import from_observation  # noqa: E402
from pi05_websocket.errors import PolicyChanged, PolicyError  # noqa: E402
from pi05_websocket.server import WebsocketPolicyServer  # noqa: E402
from pi05_websocket.wire.realtime import (  # noqa: E402
    RealtimeReply,
    RealtimeRequest,
    RealtimeSupport,
    announcement,
    with_realtime_reply,
)

ROWS = 30
RTC = ("--policy.type=pi05_websocket", "--inference.type=rtc", "--inference.queue_threshold=15")


class ContinuingPolicy:
    """Answers with the leftover itself and goes on from its end; remembers all it was sent and answered.

    Each row is a third further than the one before, so that no row is a round number.
    """

    def __init__(self, *, prefix: str = "guided") -> None:
        self.prefix = prefix
        self.requests: list[RealtimeRequest] = []
        self.states: list[np.ndarray] = []
        self.answers: list[np.ndarray] = []
        self.plain: list[dict[str, Any]] = []

    @property
    def metadata(self) -> dict[str, Any]:
        """Announce `_rt`."""
        return announcement(RealtimeSupport())

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Answer a request without `_rt`."""
        self.plain.append(observation)
        return {"actions": self._from(np.asarray(observation["observation/state"]), ROWS)}

    def infer_realtime(
        self, observation: dict[str, Any], request: RealtimeRequest, queue_ms: float
    ) -> dict[str, Any]:
        """Answer one with it."""
        state = np.array(observation["observation/state"])
        self.requests.append(request)
        self.states.append(state)
        kept = request.leftover
        start = kept[-1] if len(kept) else state
        rows = [*kept, *self._from(start, ROWS - len(kept))]
        self.answers.append(np.array(rows, np.float32))
        reply = RealtimeReply(
            seq=request.seq,
            delay=len(kept),
            prefix=self.prefix if len(kept) else "none",
            queue_ms=queue_ms,
            infer_ms=0.0,
        )
        return with_realtime_reply({"actions": self.answers[-1]}, reply)

    @staticmethod
    def _from(start: np.ndarray, rows: int) -> np.ndarray:
        return (start + np.arange(1, rows + 1)[:, None] / 3).astype(np.float32)


@pytest.fixture
def serve_continuing() -> Iterator[Callable[..., tuple[ContinuingPolicy, str]]]:
    """Return a function that serves such a policy; gives it and its URL."""
    servers: list[WebsocketPolicyServer] = []

    def serve(**options: Any) -> tuple[ContinuingPolicy, str]:
        policy = ContinuingPolicy(**options)
        servers.append(WebsocketPolicyServer(policy, host="127.0.0.1", port=0).start())
        return policy, f"ws://127.0.0.1:{servers[-1].port}"

    yield serve
    for server in servers:
        server.close()


def batch(state: np.ndarray) -> dict[str, Any]:
    """Return what the engine hands a policy: one environment."""
    images = {
        f"observation.images.{name}": torch.zeros(1, 3, height, width)
        for name, height, width in (("wrist2", 224, 224), ("realsense", 480, 640))
    }
    return {"observation.state": torch.from_numpy(state)[None], **images, "task": ["go"]}


@pytest.mark.parametrize("cut_or_padded_to", [5, 40])
def test_the_leftover_arrives_unchanged(serve_continuing, cut_or_padded_to: int):
    """In raw units, bit for bit, row 0 for the observation's tick, though the engine cuts and pads."""
    server, url = serve_continuing()
    policy = make_policy(PI05WebSocketConfig(websocket_url=url))
    queue = ActionQueue(RTCConfig(enabled=True))  # the engine's own
    state = np.full(6, 0.1, np.float32)
    commanded: list[np.ndarray] = []
    expected: list[np.ndarray] = []
    for tick in range(24):
        observed, action = state, queue.get()
        if action is not None:
            state = action.numpy()
            commanded.append(state)
        if tick % 6 == 0:  # the engine asks, having taken the row of the tick it observed
            before = queue.get_action_index()
            leftover = queue.get_left_over()
            if leftover is not None:
                expected.append(np.concatenate([state[None], leftover.numpy()]))
                leftover = _normalize_prev_actions_length(leftover, cut_or_padded_to)
            chunk = policy.predict_action_chunk(
                batch(observed), inference_delay=3, prev_chunk_left_over=leftover
            )[0]
            in_front = len(chunk) - ROWS if leftover is None else 0  # dropped: the arm stood still
            queue.merge(chunk, chunk, in_front, before)
    policy.close()

    assert [len(request.leftover) for request in server.requests] == [0, 25, 24, 24]
    for sent, rows, state in zip(server.requests[1:], expected, server.states[1:], strict=True):
        assert sent.leftover.tobytes() == rows.tobytes()
        np.testing.assert_allclose(sent.leftover[0] - state, 1 / 3, atol=1e-5)
    steps = np.diff(np.array(commanded), axis=0)
    np.testing.assert_allclose(
        steps, 1 / 3, atol=1e-5
    )  # the reply's rows are where the engine counts them


def test_own_words_and_own_estimate(serve_continuing):
    """What is sent as s is measured, what is sent as d is ours: the engine's 99 goes nowhere."""
    server, url = serve_continuing()
    policy = make_policy(PI05WebSocketConfig(websocket_url=url, control_hz=10))
    last = None
    for taken in (0, 7, 4):
        prefix = None if last is None else last[max(0, len(last) - ROWS) + taken :]
        last = policy.predict_action_chunk(
            batch(np.zeros(6, np.float32)), inference_delay=99, prev_chunk_left_over=prefix
        )[0]
    policy.close()

    assert [request.seq for request in server.requests] == [1, 2, 3]
    assert server.requests[1].execution_horizon == 7
    assert server.requests[2].execution_horizon == 4
    assert 0 < server.requests[2].delay < 10
    assert {request.control_hz for request in server.requests} == {10.0}


def test_a_seam_of_ones_own_sends_no_prefix(serve_continuing, said):
    """Whoever sets a seam gets it: the server hears when the arm runs out of rows, not which they are."""
    server, url = serve_continuing()
    policy = make_policy(PI05WebSocketConfig(websocket_url=url, seam="replace"))

    policy.predict_action_chunk(
        batch(np.zeros(6, np.float32)), inference_delay=0, prev_chunk_left_over=None
    )
    policy.close()

    assert [len(request.leftover) for request in server.requests] == [0]
    assert server.plain == []
    assert any("the seam is set" in line for line in said)


def test_the_first_look(serve_continuing, said):
    """As in the library's own loop: dark pictures are told, and what the server's first error means."""
    server, url = serve_continuing()
    policy = make_policy(PI05WebSocketConfig(websocket_url=url))

    def fails(*_: Any) -> None:
        raise KeyError("observation/image")

    server.infer_realtime = fails
    with pytest.raises(PolicyError, match="observation/image"):
        policy.predict_action_chunk(
            batch(np.zeros(6, np.float32)), inference_delay=0, prev_chunk_left_over=None
        )
    policy.close()

    told = [line for line in said if "preflight" in line]
    assert sum("mean brightness 0.0" in line for line in told) == 2
    assert sum("has the key, libero or" in line for line in told) == 1


def test_another_policy_is_told_before_resume_accepts_it(said):
    """One server, LeRobot's rtc engine: the first `resume` only says what has changed, the next one accepts."""
    first = WebsocketPolicyServer(
        ContinuingPolicy(), "127.0.0.1", 0, {"fingerprint": "first"}
    ).start()
    config = PI05WebSocketConfig(websocket_url=f"ws://127.0.0.1:{first.port}")
    with closing(make_policy(config)) as policy:
        asked = {"inference_delay": 0, "prev_chunk_left_over": None}
        policy.predict_action_chunk(batch(np.zeros(6, np.float32)), **asked)
        first.close()
        other = {"fingerprint": "other"}
        with WebsocketPolicyServer(ContinuingPolicy(), "127.0.0.1", first.port, other):
            remote = policy.connect()
            assert eventually(lambda: isinstance(remote.unavailable(), PolicyChanged))
            assert not policy.resume()
            assert any("serves another policy than" in line for line in said)
            assert policy.resume()
            assert eventually(lambda: remote.unavailable() is None)


def test_rollout_continues_the_running_chunk(serve_continuing, arm, lerobot_rollout_main, said):
    """`lerobot-rollout --inference.type=rtc`: what is sent was answered before, and the log says it counts."""
    server, url = serve_continuing()

    lerobot_rollout_main(*RTC, f"--policy.websocket_url={url}", "--duration=3")

    assert len(server.requests) >= 4
    assert server.plain == []
    continued = 0
    for previous, request in zip(server.answers, server.requests[1:], strict=False):
        if len(request.leftover):
            continued += 1
            assert request.leftover.tobytes() == previous[-len(request.leftover) :].tobytes()
    assert continued >= 3
    log = "\n".join(said)
    assert "lets each chunk continue the running one (guided)" in log
    assert "does not take a prefix" not in log


def test_a_server_that_answers_without_conditioning_is_told_of(
    serve_continuing, arm, lerobot_rollout_main, said
):
    """It announced RTC and says `none`: one line, and the arm goes on."""
    _, url = serve_continuing(prefix="none")

    lerobot_rollout_main(*RTC, f"--policy.websocket_url={url}", "--duration=3")

    assert len([line for line in said if "answered without it" in line]) == 1
    assert len(arm().sent) > 20


def test_the_observations_own_row_comes_in_front():
    """Taken back from the last chunk; nothing stays nothing, and a whole chunk has no row before it."""
    last = np.arange(12, dtype=np.float32).reshape(6, 2)

    assert from_observation(last[3:], last).tolist() == last[2:].tolist()
    assert len(from_observation(last[6:], last)) == 0
    assert from_observation(last, last).tolist() == last.tolist()
