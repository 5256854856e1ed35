# SPDX-License-Identifier: Apache-2.0
"""The operations page in a real Chromium: who suffers and why, and what the buttons do."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pi05_websocket.client import RemotePolicy
from pi05_websocket.errors import Pi05WebsocketError
from pi05_websocket.gateway import PolicyGateway
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.server.keys_file import add_key
from pi05_websocket.wire.realtime import RealtimeRequest, with_realtime

pytest.importorskip("uvicorn", reason="needs the extra ops")

from pi05_websocket.ops import OpsConfig
from pi05_websocket.ops.port import OpsPort

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        shutil.which("chromedriver") is None,
        reason="no chromedriver here (Debian: apt install chromium chromium-driver)",
    ),
]

DARK = "rgb(17, 20, 23)"
MARKUP = "<img src=x onerror=document.title='hacked'>"


class Slow:
    """A policy that takes 50 ms."""

    metadata: dict[str, Any] = {"policy": "slow", "version": "<i>7</i>"}  # noqa: RUF012  # never written to

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Answer with a ramp."""
        observation["state"]
        time.sleep(0.05)
        return {"actions": np.arange(20, dtype=np.float32).reshape(10, 2)}


def an_observation(leftover_ms: float, age_ms: float, seq: int) -> dict[str, Any]:
    """What a robot sends that says how long an answer is of use."""
    request = RealtimeRequest(
        seq=seq,
        leftover=np.zeros((0, 2), np.float32),
        delay=1,
        execution_horizon=5,
        control_hz=30.0,
        leftover_ms=leftover_ms,
        age_ms=age_ms,
    )
    observation = {
        "state": np.zeros(2, np.float32),
        "cameras/top": np.full((60, 80, 3), 120, np.uint8),
        "prompt": MARKUP,
    }
    return with_realtime(observation, request)


class Laboratory:
    """A server, its page, and two robots: one is fine, one asks from far away for answers in no time."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.admin = add_key(folder / "ops.json", "boss", datetime(2026, 1, 1, tzinfo=UTC))
        config = OpsConfig(ops_port=0, ops_admin_key_file=str(folder / "ops.json"))
        self.ops = stack.enter_context(OpsPort(config, ServerConfig(), policy="tests:Slow"))
        self.server = WebsocketPolicyServer(Slow(), port=0, listeners=[self.ops.listener])
        stack.enter_context(self.server)
        self.ops.watch(self.server)
        stop = threading.Event()
        threads = [
            threading.Thread(target=self._drive, args=(leftover_ms, age_ms, stop))
            for leftover_ms, age_ms in ((5000.0, 2.0), (200.0, 80.0))
        ]
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
        stack.callback(stop.set)

    def _drive(self, leftover_ms: float, age_ms: float, stop: threading.Event) -> None:
        with RemotePolicy("127.0.0.1", self.server.port) as robot:
            seq = 0
            while not stop.wait(0.15):
                seq += 1
                with contextlib.suppress(Pi05WebsocketError):
                    robot.infer(an_observation(leftover_ms, age_ms, seq))


@pytest.fixture
def laboratory(tmp_path: Path) -> Iterator[Laboratory]:
    """A laboratory at work."""
    with contextlib.ExitStack() as stack:
        yield Laboratory(tmp_path, stack)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """Chromium without a screen and without looking for the internet; its console is kept."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for word in (
        "--headless=new",
        "--no-sandbox",  # tests run as root in containers
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-proxy-server",
        f"--user-data-dir={tmp_path / 'browser'}",
        "--window-size=1200,1000",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def eventually(true: Callable[[], Any], timeout: float = 20.0) -> bool:
    """Wait until something is so; the page is told twice a second."""
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

    until = time.monotonic() + timeout
    while time.monotonic() < until:
        # The page is just changing.
        with contextlib.suppress(StaleElementReferenceException, NoSuchElementException):
            if true():
                return True
        time.sleep(0.05)
    return False


def text(browser: Any, css: str) -> str:
    """Return what an element says."""
    return str(browser.find_element("css selector", css).text)


def console(browser: Any) -> list[str]:
    """Return what the browser complained about since the last time."""
    return [entry["message"] for entry in browser.get_log("browser")]


def press(browser: Any, css: str) -> None:
    """Press a button."""
    browser.find_element("css selector", css).click()


def emulate(browser: Any, *, width: int = 1200, dark: bool = False) -> None:
    """Have the page think that it is on a screen of this width and colour."""
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def test_a_person_sees_who_suffers_and_why(browser: Any, laboratory: Laboratory) -> None:
    """First the robot in trouble, with its reason in words; what it sees and plans; all as text."""
    emulate(browser)
    browser.get(laboratory.ops.url)
    assert eventually(lambda: text(browser, "#state") == "ready")
    assert eventually(lambda: "too late" in text(browser, ".card.bad .verdict"))
    first = browser.find_elements("css selector", ".card")[0]
    assert eventually(lambda: "bad" in first.get_attribute("class"))
    assert text(browser, ".card.bad .verdict").startswith("suffers: ")
    assert "network 160 ms of " in text(browser, ".card.bad .verdict")
    assert text(browser, ".card.fine .verdict") == "fine"
    assert "network 160 ms · queue" in text(browser, ".card.bad .parts")
    assert "allowed" in text(browser, ".card.bad .numbers")
    assert text(browser, "#robots-count") == "2"
    assert text(browser, "#robots-how") == "1 suffers"
    assert "slow · version <i>7</i> · from tests:Slow" in text(browser, "#model")
    assert MARKUP in text(browser, ".card.fine")
    assert browser.title == "(1) Policy server"
    loaded = "return [...document.images].filter(i => i.naturalWidth === 80).length"
    assert eventually(lambda: browser.execute_script(loaded) == 2)
    drawn = "return document.querySelectorAll('.card.fine figure polyline').length"
    assert eventually(lambda: browser.execute_script(drawn) == 2)
    assert eventually(lambda: float(text(browser, "#busy").removesuffix(" %")) > 0)
    assert not browser.find_element("css selector", "#levers").is_displayed()
    assert console(browser) == []


def test_the_buttons_do_what_they_say(browser: Any, laboratory: Laboratory) -> None:
    """A wrong key unlocks nothing; the right one pauses after a second press, drains and disconnects."""
    emulate(browser)
    browser.get(laboratory.ops.url)
    assert eventually(lambda: browser.find_element("css selector", "#unlock").is_displayed())
    assert console(browser) == []
    browser.find_element("css selector", "[name=key]").send_keys("nonsense\n")
    assert eventually(lambda: text(browser, "#said") == "The server does not know this key.")
    assert not browser.find_element("css selector", "#levers").is_displayed()
    assert all("401" in complaint for complaint in console(browser))

    browser.find_element("css selector", "[name=key]").send_keys(f"{laboratory.admin}\n")
    assert eventually(lambda: text(browser, "#said") == "Unlocked for boss.")
    assert eventually(lambda: browser.find_element("css selector", "#pause").is_displayed())
    press(browser, "#pause")
    assert text(browser, "#pause") == "Stop all robots?"
    assert text(browser, "#state") == "ready", "one press of a thumb does nothing"
    press(browser, "#pause")
    assert eventually(lambda: text(browser, "#state") == "paused: an operator has paused it")
    assert eventually(lambda: text(browser, "#pause") == "Go on")
    press(browser, "#pause")
    assert eventually(lambda: text(browser, "#state") == "ready")

    press(browser, "#drain")
    press(browser, "#drain")
    assert eventually(lambda: text(browser, "#state").startswith("draining"))
    assert eventually(lambda: len(browser.find_elements("css selector", ".card")) == 2)
    press(browser, ".card button")
    assert text(browser, ".card button") == "Disconnect anonymous?"
    press(browser, ".card button")
    assert eventually(lambda: len(browser.find_elements("css selector", ".card")) == 1)
    assert eventually(
        lambda: "an operator has disconnected this robot" in text(browser, "#departed")
    )
    assert eventually(lambda: text(browser, "#drain") == "Let in again")
    press(browser, "#drain")
    assert eventually(lambda: text(browser, "#state") == "ready")
    assert eventually(lambda: len(browser.find_elements("css selector", ".card")) == 2)
    assert console(browser) == []

    browser.refresh()
    assert eventually(lambda: browser.find_element("css selector", "#levers").is_displayed()), (
        "the key is good until the tab is closed"
    )


def test_on_a_phone_at_night(browser: Any, laboratory: Laboratory) -> None:
    """Nothing to be scrolled sideways at 375 pixels, light or dark as the system is."""
    emulate(browser, width=375, dark=True)
    browser.get(laboratory.ops.url)
    assert eventually(lambda: len(browser.find_elements("css selector", ".card")) == 2)
    wider = "return document.documentElement.scrollWidth - innerWidth"
    colour = "return getComputedStyle(document.body).backgroundColor"
    assert eventually(lambda: text(browser, ".card .numbers") != "")
    assert browser.execute_script("return innerWidth") == 375
    assert browser.execute_script(wider) <= 0
    assert browser.execute_script(colour) == DARK
    emulate(browser, width=375)
    assert browser.execute_script(colour) != DARK


def test_the_server_goes(browser: Any, laboratory: Laboratory) -> None:
    """The page says so: what it shows is no longer so."""
    browser.get(laboratory.ops.url)
    assert eventually(lambda: text(browser, "#state") == "ready")
    laboratory.ops.close()
    assert eventually(lambda: text(browser, "#state") == "no answer from the server")


def test_a_person_sees_which_server_behind_a_gateway_is_away(browser: Any) -> None:
    """Each with a word, and why; a server of its own shows no such list."""
    with contextlib.ExitStack() as stack:
        well = stack.enter_context(WebsocketPolicyServer(Slow(), port=0))
        ops = stack.enter_context(OpsPort(OpsConfig(ops_port=0), ServerConfig(), policy="gateway"))
        gateway = PolicyGateway([well.url, "ws://127.0.0.1:9"], port=0, listeners=[ops.listener])
        stack.enter_context(gateway)
        ops.watch(gateway)
        robot = stack.enter_context(RemotePolicy("127.0.0.1", gateway.port, wait_for_server=20))
        robot.infer({"state": np.zeros(2, np.float32)})
        emulate(browser, width=400, dark=True)
        browser.get(ops.url)
        assert eventually(lambda: text(browser, "#upstreams .sound") == "sound")
        rows = [row.text for row in browser.find_elements("css selector", "#upstreams li")]
        assert well.url in rows[0]
        assert "answers in" in rows[0]
        assert rows[1].startswith("away\nws://127.0.0.1:9")
        assert "no server listens there" in rows[1]
        wide = "return document.documentElement.scrollWidth <= window.innerWidth"
        assert browser.execute_script(wide)
        assert console(browser) == []
