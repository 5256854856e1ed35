# SPDX-License-Identifier: Apache-2.0
"""A policy server in a thread, LeRobot's command lines in this process, and a fake arm to watch."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_lerobot
import lerobot.configs.parser
import numpy as np
import pytest
from lerobot.scripts import lerobot_eval, lerobot_rollout
from lerobot.utils.import_utils import register_third_party_plugins
from misbehaving import bare_tcp, scripted

from pi05_websocket.server import WebsocketPolicyServer

__all__ = ["bare_tcp", "scripted"]


class CountingPolicy:
    """Answers with chunks that continue from the state it is shown, and remembers what it saw."""

    def __init__(self, *, rows: int = 30, width: int = 6, step: float = 1.0, delay_s: float = 0.0):
        self.observations: list[dict[str, Any]] = []
        self.rows, self.width, self.step, self.delay_s = rows, width, step, delay_s
        self.change: Callable[[np.ndarray], Any] = lambda actions: actions

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Return the next `rows` rows, each `step` further than the one before."""
        time.sleep(self.delay_s)
        self.observations.append({key: np.array(value) for key, value in obs.items()})
        start = np.resize(np.asarray(obs["observation/state"], np.float64), self.width)
        actions = start + self.step * np.arange(1, self.rows + 1)[:, None]
        return {"actions": self.change(actions)}

    @property
    def prompts(self) -> list[str]:
        """The prompts seen, in order, repetitions left out."""
        seen = [str(observation.get("prompt")) for observation in self.observations]
        return [text for i, text in enumerate(seen) if i == 0 or seen[i - 1] != text]


@pytest.fixture
def served() -> Iterator[Callable[..., tuple[CountingPolicy, str]]]:
    """Return a function that serves a counting policy; gives the policy and its URL."""
    servers: list[WebsocketPolicyServer] = []

    def serve(**options: Any) -> tuple[CountingPolicy, str]:
        policy = CountingPolicy(**options)
        servers.append(WebsocketPolicyServer(policy, host="127.0.0.1", port=0).start())
        return policy, f"ws://127.0.0.1:{servers[-1].port}"

    yield serve
    for server in servers:
        server.close()


@pytest.fixture(scope="session", autouse=True)
def plugins() -> None:
    """Find plugins as LeRobot's commands do: by the installed distributions' names."""
    register_third_party_plugins()


@pytest.fixture
def arm() -> Iterator[Callable[[], fake_lerobot.FakeArm]]:
    """Return the arm that LeRobot made during the test."""
    fake_lerobot.FakeArm.made.clear()
    fake_lerobot.FakeArm.at_send.clear()
    yield lambda: fake_lerobot.FakeArm.made[-1]
    fake_lerobot.FakeArm.made.clear()
    fake_lerobot.FakeArm.at_send.clear()


@pytest.fixture(autouse=True)
def accelerate_begins_anew() -> Iterator[None]:
    """Forget the precision that LeRobot's trainer has chosen for its process: here it trains several times."""
    yield
    state = sys.modules.get("accelerate.state")
    if state is not None:
        state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True)
def logging_enabled() -> Iterator[None]:
    """Undo `logging.disable`, with which the check script keeps its table readable."""
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """Return what our loggers say during the test; LeRobot's commands replace the root logger's handlers."""
    lines: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [
        logging.getLogger(name) for name in ("pi05_websocket", "lerobot_policy_pi05_websocket")
    ]
    for logger in loggers:
        logger.addHandler(listener)
        logger.setLevel(logging.INFO)
    yield lines
    for logger in loggers:
        logger.removeHandler(listener)
        logger.setLevel(logging.NOTSET)


def _run(main: Callable[[], Any], program: str, *arguments: str) -> None:
    previous = sys.argv
    sys.argv = [program, *arguments]
    lerobot.configs.parser._config_path_args.clear()
    try:
        main()
    finally:
        sys.argv = previous


@pytest.fixture
def lerobot_rollout_main() -> Callable[..., None]:
    """Return `lerobot-rollout` on the fake arm: settings every test shares, then its own."""
    common = (
        "--robot.type=fake_arm",
        "--task=pick up the cube",
        "--fps=30",
        "--play_sounds=false",
        "--return_to_initial_position=false",
    )
    return lambda *arguments: _run(lerobot_rollout.rollout, "lerobot-rollout", *common, *arguments)


@pytest.fixture(name="lerobot_eval")
def any_lerobot_eval() -> Callable[..., None]:
    """Return `lerobot-eval`."""
    return lambda *arguments: _run(lerobot_eval.eval_main, "lerobot-eval", *arguments)


@pytest.fixture
def lerobot_eval_main() -> Callable[..., None]:
    """Return `lerobot-eval` on the fake environment."""
    return lambda *arguments: _run(
        lerobot_eval.eval_main, "lerobot-eval", "--env.type=fake_world", *arguments
    )


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """Return a function that saves a tiny checkpoint, once for each kind (how: `tiny_lerobot`)."""
    import tiny_lerobot  # here, because it needs the extra `serve`

    vlm = tmp_path_factory.mktemp("vlm")
    tiny_lerobot.save_tokenizer(vlm)
    tiny_lerobot.save_vlm_config(vlm)
    saved: dict[str, Path] = {}

    def save(kind: str, **changes: Any) -> Path:
        name = kind + json.dumps(changes)
        if name not in saved:
            folder = tmp_path_factory.mktemp(kind)
            saved[name] = tiny_lerobot.save_checkpoint(kind, folder, vlm, **changes)
        return saved[name]

    with pytest.MonkeyPatch.context() as patch:
        tiny_lerobot.shrink_gemma(patch)
        yield save


@pytest.fixture
def patient_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let LeRobot's driver wait 0.5 s for a servo: on a busy machine its 50 ms pass without a fault."""

    def set_timeout(handler: Any, packet_length: int) -> None:
        handler.packet_start_time = handler.getCurrentTime()
        handler.packet_timeout = 500.0

    monkeypatch.setattr("lerobot.motors.feetech.feetech.patch_setPacketTimeout", set_timeout)
