# SPDX-License-Identifier: Apache-2.0
"""Photograph the operations page with a laboratory of simulated robots, one of which suffers.

In: nothing. Out: docs/images/ops-page.png and ops-phone.png; with `--out FOLDER` also the dark page, elsewhere.
Needs the extras `ops` and `sim`, and Debian's chromium-driver.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.errors import Pi05WebsocketError
from pi05_websocket.ops import OpsConfig
from pi05_websocket.ops.port import OpsPort
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.server.keys_file import add_key
from pi05_websocket.wire.realtime import RealtimeRequest, with_realtime

ROOT = Path(__file__).resolve().parent.parent
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """How a simulated robot asks."""

    name: str
    every_s: float
    due_ms: float | None = None
    """None: a stock client, which says nothing."""

    age_ms: float = 3.0
    per_second: float | None = None
    """What its key allows."""

    asks: int | None = None
    """How often before it falls silent."""

    task: str = "pick up the red cube"


ARMS = (
    Arm(name="kitchen-arm", every_s=0.35, due_ms=900.0, age_ms=4.0),
    Arm(name="bench-2", every_s=0.5, due_ms=1200.0, task="put the cube into the box"),
    Arm(name="belt-3", every_s=0.12, due_ms=95.0, task="take the cube off the belt"),
    Arm(name="remote-lab", every_s=0.4, due_ms=320.0, age_ms=96.0),
    Arm(name="old-client", every_s=0.6, task="wipe the table"),
    Arm(name="guest", every_s=0.15, due_ms=900.0, per_second=3.0),
    Arm(name="spare-arm", every_s=0.3, due_ms=900.0, asks=3),
)


class Policy:
    """Takes as long as a policy on a GPU does, and plans a smooth motion."""

    def __init__(self) -> None:
        self.metadata: Mapping[str, Any] = {
            "policy": "pi05",
            "version": "cube-2026-05",
            "action_dim": 6,
            "action_horizon": 50,
            "action_names": list(JOINTS),
            "fingerprint": {"weights": "5b1f8c02a94e7d10", "normalizer": "c0ffee1253aa77de"},
        }
        self._phase = 0.0

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Plan one chunk."""
        return self.infer_batch([observation])[0]

    def infer_batch(self, observations: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Plan a chunk for each."""
        for observation in observations:
            observation["observation/images/realsense"]  # what a policy does with a camera it needs
        time.sleep(0.062 + 0.008 * len(observations))
        self._phase += 0.3
        ticks = np.linspace(0.0, 2.0, 50)[:, None] + self._phase
        joints = 40.0 * np.sin(ticks * np.array([0.9, 1.3, 0.7, 1.1, 0.5, 1.7]) + np.arange(6))
        return [{"actions": joints.astype(np.float32)} for _ in observations]


def observations() -> Iterator[dict[str, Any]]:
    """Yield what the simulated arm's cameras see, again and again."""
    from pi05_websocket.sim.so101 import SimConfig, SimSO101

    with contextlib.closing(SimSO101(SimConfig())) as sim:
        seen = sim.get_observation()
        cameras = {name: np.array(seen[name]) for name in ("realsense", "wrist2")}
    while True:
        yield {f"observation/images/{name}": image for name, image in cameras.items()}


def drive(arm: Arm, url: str, key: str, seen: dict[str, Any], stop: threading.Event) -> None:
    """Ask as this robot does until told to stop."""
    config = ConnectionConfig(url=url, headers={"Authorization": f"Bearer {key}"})
    observation = {**seen, "observation/state": np.zeros(6, np.float32), "prompt": arm.task}
    with RemotePolicy(config=config) as policy:
        number = 0
        while not stop.wait(arm.every_s):
            number += 1
            if arm.asks is not None and number > arm.asks:
                continue
            asked = observation
            if arm.due_ms is not None:
                request = RealtimeRequest(
                    seq=number,
                    leftover=np.zeros((0, 6), np.float32),
                    delay=3,
                    execution_horizon=15,
                    control_hz=30.0,
                    leftover_ms=arm.due_ms,
                    age_ms=arm.age_ms,
                )
                asked = with_realtime(observation, request)
            with contextlib.suppress(Pi05WebsocketError):
                policy.infer(asked)


def fail_once(url: str, key: str) -> None:
    """Ask as somebody does whose cameras have other names."""
    config = ConnectionConfig(url=url, headers={"Authorization": f"Bearer {key}"})
    with RemotePolicy(config=config) as policy, contextlib.suppress(Pi05WebsocketError):
        policy.infer({"observation/images/top": np.zeros((64, 64, 3), np.uint8)})


@contextlib.contextmanager
def laboratory(folder: Path) -> Iterator[tuple[str, str]]:
    """Run a server with its robots; yield the page's address and a key that may act."""
    keys, admins, now = folder / "keys.json", folder / "admins.json", datetime.now(UTC)
    secrets = {
        arm.name: add_key(keys, arm.name, now, requests_per_second=arm.per_second) for arm in ARMS
    }
    secrets["new-arm"] = add_key(keys, "new-arm", now)
    admin = add_key(admins, "operator", now)
    server_config = ServerConfig(keys=str(keys), max_batch=8)
    config = OpsConfig(ops_port=0, ops_admin_key_file=str(admins))
    ops = OpsPort(config, server_config, policy="lerobot:lab/pi05-cube")
    server = WebsocketPolicyServer(Policy(), port=0, config=server_config, listeners=[ops.listener])
    stop = threading.Event()
    seen = next(observations())
    with ops, server:
        ops.watch(server)
        robots = [
            threading.Thread(target=drive, args=(arm, server.url, secrets[arm.name], seen, stop))
            for arm in ARMS
        ]
        for robot in robots:
            robot.start()
        fail_once(server.url, secrets["new-arm"])
        try:
            yield ops.url, admin
        finally:
            stop.set()
            for robot in robots:
                robot.join()


@contextlib.contextmanager
def chromium(folder: Path, width: int, height: int, *, dark: bool) -> Iterator[Any]:
    """Open a browser without a screen."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--no-first-run",
        "--no-proxy-server",
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={folder}",
        f"--window-size={width},{height}",
        *(["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []),
    ):
        options.add_argument(word)
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        # What a window cannot be made that small, a page in it can.
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        yield driver
    finally:
        driver.quit()


def photograph(url: str, admin: str, target: Path, size: tuple[int, int], *, dark: bool) -> None:
    """Open the page, unlock it, let it show a few seconds, and write what is to be seen."""
    with (
        tempfile.TemporaryDirectory() as folder,
        chromium(Path(folder), *size, dark=dark) as driver,
    ):
        driver.get(url)
        driver.execute_script("sessionStorage.setItem('key', arguments[0])", admin)
        driver.get(url)
        time.sleep(6.0)
        driver.save_screenshot(str(target))


def smaller(path: Path, colours: int = 128) -> None:
    """Write a picture with few colours: it is a page, not a photograph."""
    from PIL import Image

    with Image.open(path) as image:
        image.convert("RGB").quantize(colours).save(path, optimize=True)


def main() -> None:
    """Take the pictures."""
    out = Path(sys.argv[sys.argv.index("--out") + 1]) if "--out" in sys.argv else None
    images = ROOT / "docs" / "images" if out is None else out
    shots = [("ops-page.png", (1180, 900), False), ("ops-phone.png", (375, 900), False)]
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        shots += [
            ("ops-page-dark.png", (1180, 1400), True),
            ("ops-phone-dark.png", (375, 2600), True),
        ]
    with tempfile.TemporaryDirectory() as folder, laboratory(Path(folder)) as (url, admin):
        time.sleep(12.0)  # rates are of ten seconds
        for name, size, dark in shots:
            photograph(url, admin, images / name, size, dark=dark)
            smaller(images / name)


if __name__ == "__main__":
    main()
