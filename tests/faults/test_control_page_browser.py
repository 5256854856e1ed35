# SPDX-License-Identifier: Apache-2.0
"""The control page in a real Chromium: what a person sees, and what the buttons do."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pi05_websocket.robot.control_page import ControlPage
from pi05_websocket.robot.controls import Controls
from pi05_websocket.robot.trace import Trace
from pi05_websocket.robot.wishes import Wish

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        shutil.which("chromedriver") is None,
        reason="no chromedriver here (Debian: apt install chromium chromium-driver)",
    ),
]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """Chromium as on a phone, without a screen and without looking for the internet."""
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
        f"--user-data-dir={tmp_path}",
        "--window-size=390,844",
    ):
        options.add_argument(word)
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def eventually(true: Callable[[], bool], timeout: float = 20.0) -> bool:
    """Wait until something is so; the page looks twice a second."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.05)
    return False


def text(browser: Any, css: str) -> str:
    """Return what an element says."""
    return str(browser.find_element("css selector", css).text)


def test_a_person_sees_and_commands(browser: Any, page: ControlPage, controls: Controls):
    """The state in words, its cause, figures; STOP, go on, another task; and when the program is gone."""
    trace = Trace(None, listeners=[page])
    trace.write("task", task="pick up the <b>red</b> cube")
    trace.write("episode", episode=1)
    browser.get(f"http://127.0.0.1:{page.port}/")
    assert eventually(lambda: text(browser, "#state") == "Waiting for the first chunk")

    trace.write("exchange", round_trip_ms=212.4, server_ms=50.0, delay_ticks=7, outcome="ACCEPTED")
    trace.write("tick", source="chunk")
    assert eventually(lambda: text(browser, "#state") == "Running")
    figures = text(browser, "#figures")
    assert "round trip 212 ms" in figures
    assert "pick up the <b>red</b> cube" in figures, "what comes over the wire is text, not a page"

    browser.find_element("css selector", "button.stop").click()
    assert eventually(lambda: controls.take() == [Wish("pause")])
    trace.write("state", state="stop", latched=True, cause="stopped")
    trace.write("tick", source="hold", cause="stopped")
    assert eventually(lambda: text(browser, "#state") == "Stopped")
    assert text(browser, "#why") == "It holds until you press “Go on”."

    browser.find_element("css selector", "[data-wish=resume]").click()
    assert eventually(lambda: controls.take() == [Wish("resume")])
    browser.find_element("css selector", "input[name=task]").send_keys("put it down\n")
    assert eventually(lambda: controls.take() == [Wish("task", "put it down")])

    wider = browser.execute_script("return document.documentElement.scrollWidth - innerWidth")
    assert wider <= 0, "on a phone nothing is to be scrolled sideways"
    page.close()
    assert eventually(lambda: text(browser, "#state") == "No robot program answers")
