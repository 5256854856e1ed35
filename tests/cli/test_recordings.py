# SPDX-License-Identifier: Apache-2.0
"""`run --record`, then `explain`, `replay` and `audit-images` on what it left: real servers, in process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pi05_websocket.cli import main
from pi05_websocket.server import WebsocketPolicyServer

pytest.importorskip("mcap")

ARM = """
import numpy as np
from pi05_websocket.robot.interface import RobotReading

ROWS, COLUMNS = np.mgrid[:480, :640]
SCENE = np.stack([128 + 60 * np.sin(COLUMNS / 37), 120 + 70 * np.cos(ROWS / 50), COLUMNS % 200], -1)

class Arm:
    def __init__(self):
        self.joints = np.zeros(6, np.float32)

    def get_observation(self):
        image = np.roll(SCENE, int(self.joints[0]), 1).astype(np.uint8)
        return RobotReading({"wrist2": image[:224, :224].copy(), "realsense": image}, self.joints)

    def send_action(self, values):
        self.joints = np.array(values, np.float32)
"""


class Onwards:
    """Ten rows onwards from where the arm is; what an image adds is its own to say."""

    def __init__(
        self,
        look: Callable[[np.ndarray], float] = lambda image: 0.0,
        offset: float = 0,
        rows: int = 10,
    ):
        self.look = look
        self.offset = offset
        self.rows = rows
        self.seen: list[dict[str, Any]] = []

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Answer."""
        self.seen.append(observation)
        rows = np.arange(self.rows)[:, None] + np.asarray(observation["observation/state"])
        rows[:, 0] += self.offset + self.look(observation["observation/images/realsense"])
        return {"actions": rows.astype(np.float32)}


@pytest.fixture
def served() -> Iterator[Callable[[Any], str]]:
    """Return a function that serves a policy and says where."""
    servers: list[WebsocketPolicyServer] = []

    def serve(policy: Any) -> str:
        servers.append(WebsocketPolicyServer(policy, "127.0.0.1", 0).start())
        return servers[-1].url

    yield serve
    for server in servers:
        server.close()


@pytest.fixture
def record(served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a function that drives an arm for a second, recording; it returns the folder."""
    (tmp_path / "recorded_arm.py").write_text(ARM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(transport: str) -> Path:
        words = ["run", "--robot", "recorded_arm:Arm", "--url", served(Onwards()), "--no-confirm"]
        more = ["--duration", "1", "--record", "recs", "--image-transport", transport]
        assert main([*words, *more]) == 0
        return tmp_path / "recs"

    yield run
    sys.modules.pop("recorded_arm", None)


def test_explain_tells_and_draws(record: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Words, a picture, a file for programs."""
    pytest.importorskip("matplotlib")
    folder = record("raw")

    code = main(["explain", str(folder), "--json", "story.json"])

    said = capsys.readouterr().out
    assert code == 0
    assert "the arm held for" in said
    assert "first chunk" in said
    (picture,) = folder.glob("*/explain.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    facts = json.loads((tmp_path / "story.json").read_text())
    assert facts["ticks"] > 20
    assert set(facts["held_by_cause"]) <= {"first_chunk", "reply_late", "horizon_too_short"}


def test_explain_reads_a_trace_too(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Whose last line was cut off; a file that is not there is told."""
    tick = {"kind": "tick", "time_s": 1, "tick": 0, "episode": 1, "source": "hold", "seq": -1}
    lines = [json.dumps({**tick, "row": -1, "values": [0.0], "cause": "link_down"}), '{"kind": "ti']
    (tmp_path / "run.jsonl").write_text("\n".join(lines))

    assert main(["explain", str(tmp_path / "run.jsonl"), "--no-picture"]) == 0
    assert "link down (1)" in capsys.readouterr().out
    assert main(["explain", str(tmp_path / "gone.jsonl")]) == 2
    assert main(["explain"]) == 2


def test_replay_to_the_same_policy_is_the_same(record: Any, served: Any, capsys: Any):
    """Also where it was recorded as JPEG: the same bytes go out again, and `_rt` with them."""
    for transport in ("raw", "jpeg"):
        folder = record(transport)
        policy = Onwards()

        code = main(["replay", str(folder), "--to", served(policy), "--json", "same.json"])

        facts = json.loads(Path("same.json").read_text())
        assert (code, facts["same"]) == (0, True)
        assert facts["joints"]["shoulder_pan"]["max"] == 0
        assert facts["observations"] == len(policy.seen) > 0
        assert policy.seen[0]["observation/images/realsense"].shape == (480, 640, 3)
    assert "the same:" in capsys.readouterr().out


def test_replay_to_another_policy_says_where_it_differs(record: Any, served: Any, capsys: Any):
    """Exit code 1 and the joint's difference; one that fails is counted."""
    folder = record("raw")

    assert main(["replay", str(folder), "--to", served(Onwards(offset=3)), "--most", "1"]) == 1
    assert "shoulder_pan" in (said := capsys.readouterr().out)
    assert "not the same" in said

    assert main(["replay", str(folder), "--to", served(Onwards(look=lambda image: 1 / 0))]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_replay_to_a_policy_of_shorter_chunks(record: Any, served: Any, capsys: Any):
    """Whose rows are the same, as far as they go: not the same policy, and how many rows are said."""
    folder = record("raw")

    assert main(["replay", str(folder), "--to", served(Onwards(rows=1)), "--most", "2"]) == 1
    said = capsys.readouterr().out
    assert "2 chunks have another number of rows, as 1 beside 10 recorded" in said
    assert "not the same" in said


@pytest.mark.parametrize("count", [1, 2, 5, 19, 20, 21, 39, 40, 1000])
def test_what_is_asked_is_spread_over_the_recording(count: int):
    """From the first to the last, in even steps, and as many as there may be."""
    from pi05_websocket.cli.audit_images import _spread

    numbers = sorted(_spread(count, 20))
    assert len(numbers) == min(count, 20)
    assert (numbers[0], numbers[-1]) == (0, count - 1)
    assert max(np.diff(numbers), default=0) - min(np.diff(numbers), default=0) <= 1


def test_replay_serves(record: Any, monkeypatch: pytest.MonkeyPatch):
    """Its words are those of `serve`."""
    from pi05_websocket.cli import replay

    folder = record("raw")
    command = replay.ReplayCommand(recording=folder, loop=True, timing=True, port=0)

    assert replay._serve_words(command) == [
        "--policy", f"replay:{folder}?loop&timing", "--host", "127.0.0.1", "--port", "0",
    ]  # fmt: skip
    assert main(["replay", str(folder / "gone")]) == 2


def test_audit_of_a_policy_that_does_not_look(record: Any, served: Any, capsys: Any):
    """Any quality will do; bytes and differences of each are written."""
    folder = record("raw")
    words = ["audit-images", str(folder), "--to", served(Onwards()), "--most", "2"]

    code = main([*words, "--qualities", "90", "30", "--json", "audit.json"])

    facts = json.loads(Path("audit.json").read_text())
    assert (code, facts["jpeg_quality_floor"]) == (0, 30)
    assert "--policy.jpeg_quality_floor=30" in capsys.readouterr().out
    assert [way["name"] for way in facts["ways"]] == [
        "raw again", "JPEG 90", "JPEG 30", "224 px raw", "224 px JPEG 90", "224 px JPEG 30",
    ]  # fmt: skip
    raw, good, poor = (way["bytes"] for way in facts["ways"][:3])
    assert poor < good < raw


def test_audit_of_a_policy_that_looks_at_one_pixel(record: Any, capsys: Any):
    """Loaded here by its name; no quality will do, and it refuses smaller images."""
    folder = record("raw")
    Path("closely.py").write_text(
        "import numpy as np\n"
        "def make():\n"
        "    class Policy:\n"
        "        def infer(self, observation):\n"
        "            return {'actions': observation['observation/images/realsense'][300:310, 400:402, 0] * 9}\n"
        "    return Policy()\n"
    )
    words = ["audit-images", str(folder), "--policy", "closely:make", "--most", "3"]

    assert main([*words, "--qualities", "75", "--allow", "0.00001"]) == 1
    said = capsys.readouterr().out
    assert "not even quality 75 is lost in that" in said
    assert "224 px raw: the policy refuses it" in said


def test_audit_refuses_what_nobody_can_tell(record: Any, capsys: Any):
    """A recording of JPEGs, no one to ask, two to ask, no such quality."""
    folder = record("jpeg")
    for words, text in [
        (["--policy", "replay:recs"], "record with --policy.image_transport=raw"),
        ([], "give --to URL or --policy"),
        (["--policy", "x:y", "--to", "ws://x"], "one of them"),
        (["--policy", "x:y", "--qualities", "0"], "from 1 to 100"),
        (["--policy", "x:y", "--most", "0"], "1 or more"),
    ]:
        assert main(["audit-images", str(folder), *words]) == 2
        assert text in capsys.readouterr().err
