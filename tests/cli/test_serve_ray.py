# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket serve --engine ray`, as far as it goes without Ray."""

from __future__ import annotations

import importlib.util

import pytest

from pi05_websocket import cli
from pi05_websocket.extras import how_to_install


def test_without_ray(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.main(["serve", "--policy", "m:f", "--engine", "ray"]) != 0
    assert how_to_install("ray") in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray")
@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--host", "0.0.0.0"], "no keys"),
        (["--host", "0.0.0.0", "--keys", "k.json"], "no proxy that ends TLS"),
        (["--host", "10.0.0.5", "--keys", "k.json", "--behind-proxy"], "127.0.0.1 or 0.0.0.0"),
        (["--behind-proxy"], "no keys"),
        (["--also", "cube"], "/PATH=POLICY"),
    ],
)
def test_refusals_are_the_plain_servers(
    flags: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody is let in by accident, and a mistake is named before anything is started."""
    assert cli.main(["serve", "--policy", "m:f", "--engine", "ray", *flags]) != 0
    assert why in capsys.readouterr().err
