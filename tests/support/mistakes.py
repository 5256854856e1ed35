# SPDX-License-Identifier: Apache-2.0
"""Every mistake the doctor promises to find, each made on purpose: one table, real servers on loopback.

In: a `World` in which all is well. Out: the same with one thing wrong.
"""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import trustme
from misbehaving import ScriptedServer

from pi05_websocket.client import ConnectionConfig
from pi05_websocket.doctor.check_dataset import Episode
from pi05_websocket.doctor.facts import Setup
from pi05_websocket.doctor.gathering import RobotSource
from pi05_websocket.presets import SO101_JOINTS, preset
from pi05_websocket.robot.interface import RobotReading
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.wire import codec

POSE = np.array([12.0, -60.0, 55.0, 38.0, -14.0, 30.0], np.float32)
ROWS = 200


class Policy:
    """Plans onwards from where the arm is; `change` spoils the rows, `fail` the request."""

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {"action_names": list(SO101_JOINTS)}
        self.change: Callable[[np.ndarray], Any] = lambda rows: rows
        self.fail: Exception | None = None
        self.seconds = 0.0
        self.own_error: Callable[[dict[str, Any]], None] = lambda obs: None

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Answer."""
        time.sleep(self.seconds)
        if self.fail is not None:
            raise self.fail
        self.own_error(obs)
        start = np.asarray(obs["observation/state"], np.float64)
        return {"actions": self.change(start + 0.1 * np.arange(ROWS)[:, None] * np.ones(6))}


class Arm:
    """A robot with two noisy cameras, which counts what it is told."""

    def __init__(self) -> None:
        self.pose: Any = POSE
        self.commands = 0
        self.noise = np.random.default_rng(0)
        self.seconds = 0.0
        self.change: Callable[[dict[str, Any]], dict[str, Any]] = lambda images: images
        self.error: Exception | None = None

    def get_observation(self) -> RobotReading:
        """Return two different scenes with noise, and the pose."""
        time.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        shade = np.linspace(40, 180, 640)[None, :, None] * np.array([1.0, 0.8, 0.6])
        scene = np.broadcast_to(shade, (480, 640, 3)) + self.noise.integers(0, 9, (480, 640, 1))
        wrist = scene[:224, 639:415:-1] * 0.7
        images = {"wrist2": wrist.astype(np.uint8), "realsense": scene.astype(np.uint8)}
        return RobotReading(self.change(images), self.pose)

    def send_action(self, values: Any) -> None:
        """Count it: nobody may."""
        self.commands += 1


@dataclass
class World:
    """A setup that works, until a mistake is made in it."""

    stack: contextlib.ExitStack
    policy: Policy = field(default_factory=Policy)
    arm: Arm = field(default_factory=Arm)
    setup: Setup = field(
        default_factory=lambda: Setup(
            key_map=preset("so101"),
            task="pick up the cube",
            control_hz=60.0,
            policy_units="lerobot",
        )
    )
    source: dict[str, Any] = field(default_factory=lambda: {"units": "lerobot"})
    connection: dict[str, Any] = field(default_factory=dict)
    episode: Episode | None = None
    url: str | None = None
    words: list[str] | None = None
    """Words for the command line, where the mistake is one of theirs."""

    def config(self) -> ConnectionConfig:
        """Return how to reach the server; start one where none is named."""
        settings = {
            "connect_timeout": 1.0,
            "handshake_timeout": 0.5,
            "metadata_timeout": 0.5,
            "first_request_timeout": 5.0,
            **self.connection,
        }
        return ConnectionConfig(url=self.url or self.serve(), **settings)

    def robot(self) -> RobotSource:
        """Return the arm, to be read."""
        return RobotSource(read=self.arm.get_observation, **self.source)

    def serve(self, **settings: Any) -> str:
        """Serve the policy; return the address."""
        server = WebsocketPolicyServer(
            self.policy, "127.0.0.1", 0, self.policy.metadata, config=ServerConfig(**settings)
        )
        self.stack.callback(server.start().close)
        self.url = server.url
        return server.url

    def script(self, script: Callable[[Any], None], **options: Any) -> None:
        """Serve a script."""
        server = ScriptedServer(script, **options)
        self.stack.callback(server.stop)
        self.url = server.url

    def tcp(self, talk: Callable[[socket.socket], None]) -> None:
        """Serve bare TCP."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.stack.callback(listener.close)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with contextlib.suppress(OSError), connection:
                        talk(connection)

        threading.Thread(target=accept, daemon=True).start()
        self.url = f"ws://127.0.0.1:{listener.getsockname()[1]}"

    def tls(self, *, expired: bool = False) -> trustme.CA:
        """Serve with a certificate of an authority of our own."""
        authority = trustme.CA()
        dates: dict[str, Any] = {}
        if expired:
            dates["not_before"] = datetime.datetime(2020, 1, 1)
            dates["not_after"] = datetime.datetime(2021, 1, 1)
        issued = authority.issue_cert("localhost", "127.0.0.1", **dates)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
        self.script(greeting({}), tls=context)
        return authority

    def file(self, content: bytes = b"") -> str:
        """Write a file; return its name."""
        folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        path = Path(folder) / "file"
        path.write_bytes(content)
        return str(path)


def greeting(metadata: dict[str, Any]) -> Callable[[Any], None]:
    """Return a script that greets and answers nothing."""

    def run(connection: Any) -> None:
        connection.send(codec.encode(metadata))
        connection.recv()

    return run


def never_answering(connection: Any) -> None:
    """Greet, take every request, answer none."""
    connection.send(codec.encode({}))
    while connection.recv():
        pass


def http(status: str, body: str = "") -> Callable[[socket.socket], None]:
    """Return a talk that answers any request with a status."""

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(f"{head}{body}".encode())

    return talk


def silent(connection: socket.socket) -> None:
    """Say nothing until the peer has gone."""
    connection.settimeout(5)
    while connection.recv(4096):
        pass


def closed_port() -> int:
    """Return a port at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _setup(**changed: Any) -> Callable[[World], None]:
    return lambda w: setattr(w, "setup", replace(w.setup, **changed))


def _metadata(**said: Any) -> Callable[[World], None]:
    return lambda w: w.policy.metadata.update(said)


def _fails(error: Exception) -> Callable[[World], None]:
    return lambda w: setattr(w.policy, "fail", error)


def _rows(change: Callable[[np.ndarray], Any]) -> Callable[[World], None]:
    return lambda w: setattr(w.policy, "change", change)


def _images(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[World], None]:
    return lambda w: setattr(w.arm, "change", change)


def _pose(**joints: float) -> Callable[[World], None]:
    values = [
        joints.get(name, float(value)) for name, value in zip(SO101_JOINTS, POSE, strict=True)
    ]
    return lambda w: setattr(w.arm, "pose", np.array(values, np.float32))


def _all(*seeds: Callable[[World], Any]) -> Callable[[World], None]:
    def run(world: World) -> None:
        for seed in seeds:
            seed(world)

    return run


def _untrusted(world: World) -> None:
    world.tls()


def _expired(world: World) -> None:
    authority = world.tls(expired=True)
    world.connection["ca_file"] = world.file(authority.cert_pem.bytes())


def _other_key(world: World) -> None:
    world.tls()
    world.connection["tls_fingerprint"] = "sha256:" + "ab" * 32


def _plain_for_tls(world: World) -> None:
    world.tls()
    assert world.url is not None
    world.url = world.url.replace("wss", "ws")


def _frozen() -> Callable[[dict[str, Any]], dict[str, Any]]:
    first: dict[str, Any] = {}

    def change(images: dict[str, Any]) -> dict[str, Any]:
        first.setdefault("realsense", images["realsense"])
        return images | first

    return change


def _slow_camera() -> Callable[[dict[str, Any]], dict[str, Any]]:
    kept: dict[str, Any] = {"count": 0}

    def change(images: dict[str, Any]) -> dict[str, Any]:
        if kept["count"] % 4 == 0:
            kept["image"] = images["realsense"]
        kept["count"] += 1
        return images | {"realsense": kept["image"]}

    return change


def _says_it_took_nothing(world: World) -> None:
    def run(connection: Any) -> None:
        connection.send(codec.encode({}))
        while True:
            connection.recv()
            time.sleep(0.3)
            rows = np.tile(POSE, (10, 1))
            connection.send(codec.encode({"actions": rows, "server_timing": {"infer_ms": 1.0}}))

    world.script(run)


def _no_actions(connection: Any) -> None:
    connection.send(codec.encode({}))
    while connection.recv():
        connection.send(codec.encode({"result": 1}))


def _recorded(change: Callable[[np.ndarray], Any], **facts: Any) -> Callable[[World], None]:
    """Replay an episode in which every joint moved as the policy plans, with its rows changed."""

    def seed(world: World) -> None:
        ways = POSE + np.outer(np.arange(120) * 0.1, np.ones(6)) + np.arange(6) * 7
        images = world.arm.get_observation().images
        known: dict[str, Any] = {"fps": 60.0, "tasks": ["pick up the cube"]}
        world.episode = Episode(
            states=ways.astype(np.float32),
            actions=(ways + 0.1).astype(np.float32),
            images=lambda _: images,
            **(known | facts),
        )
        world.policy.change = change

    return seed


def _scaled(joint: int, factor: float) -> Callable[[np.ndarray], np.ndarray]:
    scale = np.ones(6)
    scale[joint] = factor
    return lambda rows: rows * scale


_SHORT = 10

SEEDS: dict[str, Callable[[World], Any]] = {
    "address-malformed": lambda w: setattr(w, "words", ["--url", "http://127.0.0.1:8000"]),
    "key-source-empty": lambda w: setattr(w, "words", ["--api-key-env", "NO_SUCH_VARIABLE_HERE"]),
    "name-unknown": lambda w: setattr(w, "url", "ws://no-such-host.invalid:8000"),
    "nothing-listens": lambda w: setattr(w, "url", f"ws://127.0.0.1:{closed_port()}"),
    "port-silent": lambda w: w.tcp(silent),
    "not-a-websocket": lambda w: w.tcp(lambda c: c.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")),
    "path-wrong": lambda w: w.tcp(http("404 Not Found")),
    "server-busy": lambda w: w.tcp(http("503 Service Unavailable")),
    "tls-not-spoken": lambda w: setattr(w, "url", w.serve().replace("ws", "wss")),
    "tls-needed": _plain_for_tls,
    "certificate-untrusted": _untrusted,
    "certificate-expired": _expired,
    "fingerprint-differs": _other_key,
    "key-missing": lambda w: w.tcp(http("401 Unauthorized")),
    "key-wrong": _all(
        lambda w: w.tcp(http("403 Forbidden")),
        lambda w: w.connection.update(headers={"Authorization": "Api-Key guessed"}),
    ),
    "no-greeting": lambda w: w.script(lambda connection: connection.recv()),
    "other-protocol": lambda w: w.script(lambda connection: connection.send('{"hello": 1}')),
    "dialect-other": _metadata(needs_session_id=True),
    "metadata-width": _metadata(action_dim=7),
    "metadata-joints": _metadata(action_names=[*SO101_JOINTS[1:], SO101_JOINTS[0]]),
    "metadata-keys": _metadata(observation_keys=["observation/image", "observation/state"]),
    "metadata-image-size": _metadata(image_sizes={"observation/images/wrist2": [256, 256]}),
    "metadata-rate": _metadata(control_hz=15),
    "keys-of-another-policy": _fails(KeyError("observation/image")),
    "keys-nobody-knows": _fails(KeyError("observation/chest")),
    "camera-names-of-aloha": _fails(
        ValueError("Expected images to contain ('cam_high',), got ('wrist2',)")
    ),
    "image-layout": _fails(ValueError("einops: 3 axes expected, got 4")),
    "prompt-required": _all(_setup(task=""), _fails(ValueError("Prompt is required"))),
    "state-width-for-stats": _fails(
        ValueError("operands could not be broadcast together with shapes (6,) (8,)")
    ),
    "endpoint-missing": _fails(KeyError("endpoint")),
    "server-codec": _fails(AttributeError("'dict' object has no attribute 'shape'")),
    "server-out-of-memory": _fails(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")),
    "server-error": _fails(RuntimeError("the moon is not full")),
    "no-answer-in-time": _all(
        lambda w: w.script(never_answering),
        lambda w: w.connection.update(first_request_timeout=0.2),
    ),
    "answer-not-a-chunk": lambda w: w.script(_no_actions),
    "answer-not-finite": _rows(lambda rows: rows * np.nan),
    "answer-width": _rows(lambda rows: np.hstack([rows, rows[:, :1]])),
    "answer-padded": _rows(lambda rows: np.pad(rows, ((0, 0), (0, 26)))),
    "answer-of-zeros": _rows(lambda rows: rows * 0),
    "answer-in-radians": _rows(lambda rows: np.deg2rad(rows)),
    "answer-of-deltas": _rows(lambda rows: (rows - rows[:1]) / 10 + 0.01),
    "answer-sign": _rows(_scaled(1, -1)),
    "answer-order": _rows(lambda rows: rows[:, [0, 2, 1, 3, 4, 5]]),
    "answer-offset": _rows(lambda rows: rows + np.array([0, 0, 90, 0, 0, 0])),
    "answer-gripper-fraction": _rows(_scaled(5, 0.01)),
    "answer-far": _rows(lambda rows: rows + np.array([0, 31, 0, 0, 0, 0])),
    "rates-differ": _setup(loop_hz=30.0),
    "horizon-beyond-chunk": _setup(action_horizon=ROWS + 1),
    "delay-too-long": _all(
        _rows(lambda rows: rows[:_SHORT]), lambda w: setattr(w.policy, "seconds", 0.3)
    ),
    "uplink-too-slow": _says_it_took_nothing,
    "joint-missing": lambda w: setattr(
        w.arm, "error", _observation_error("gripper.pos", "this joint", "joints none")
    ),
    "joint-count": lambda w: setattr(w.arm, "pose", POSE[:5]),
    "joint-not-finite": _pose(elbow_flex=float("nan")),
    "robot-unreadable": lambda w: setattr(w.arm, "error", OSError("There is no status packet!")),
    "calibration-differs": lambda w: w.source.update(calibrated=False),
    "pose-beyond-calibration": _setup(joint_ranges={"elbow_flex": (-40.0, 40.0)}),
    "robot-units": lambda w: w.source.update(units="lerobot_normalized"),
    "robot-in-radians": _all(
        lambda w: w.source.update(units=""),
        lambda w: setattr(w.arm, "pose", np.deg2rad(POSE).astype(np.float32)),
    ),
    "gripper-not-percent": _pose(gripper=140.0),
    "units-unsaid": _setup(policy_units=""),
    "sign-and-order-unsaid": lambda w: w.policy.metadata.clear(),
    "loop-too-slow": lambda w: setattr(w.arm, "seconds", 0.05),
    "camera-missing": _images(lambda images: {"front": images["realsense"]}),
    "camera-unused": _images(lambda images: images | {"chest": images["realsense"]}),
    "camera-black": _images(lambda images: images | {"wrist2": images["wrist2"] // 60}),
    "camera-uniform": _images(
        lambda images: images | {"wrist2": np.full((224, 224, 3), 250, np.uint8)}
    ),
    "camera-frozen": _images(_frozen()),
    "camera-slow": _images(_slow_camera()),
    "cameras-same-picture": _images(
        lambda images: (
            images
            | {"wrist2": images["realsense"][::2, ::2][:224, :224]}
            | {
                "realsense": np.kron(images["realsense"][::2, ::2][:224, :224], np.ones((3, 3, 1)))[
                    :480, :640
                ].astype(np.uint8)
            }
        )
    ),
    "camera-size": _images(lambda images: images | {"realsense": images["realsense"][:240]}),
    "image-numbers": _images(
        lambda images: images | {"wrist2": images["wrist2"].astype(np.float32)}
    ),
    "cameras-exchanged": _images(lambda images: images),
    "camera-upside-down": _images(lambda images: {k: v[::-1, ::-1] for k, v in images.items()}),
    "camera-colours": _images(lambda images: {k: v[..., ::-1] for k, v in images.items()}),
    "prompt-missing": _setup(task=""),
    "dataset-prompt": _recorded(lambda rows: rows, tasks=["fold the towel"]),
    "dataset-rate": _recorded(lambda rows: rows, fps=30.0),
    "dataset-sign": _recorded(_scaled(1, -1)),
    "dataset-order": _recorded(lambda rows: rows[:, [0, 2, 1, 3, 4, 5]]),
    "dataset-units": _recorded(lambda rows: np.deg2rad(rows)),
    "dataset-offset": _recorded(lambda rows: rows + np.array([0, 0, 90, 0, 0, 0])),
    "dataset-far": _recorded(lambda rows: rows[::-1] * 3.3 + 40),
    "prompt-too-long": _setup(task="pick up the red cube and then " * 30),
}
"""Mistake to how it is made."""


def _observation_error(key: str, expected: str, got: str) -> Exception:
    from pi05_websocket.errors import ObservationError

    return ObservationError(key, expected, got)
