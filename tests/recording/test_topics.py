# SPDX-License-Identifier: Apache-2.0
"""What happened goes to the topic that is documented, as JSON that any program reads."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from pi05_websocket.recording import topics

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "recording.md"


@pytest.mark.parametrize(
    ("kind", "topic"),
    [("tick", "/tick"), ("exchange", "/exchange"), ("failed", "/exchange"), ("chunk", "/chunk"),
     ("episode", "/event"), ("anything new", "/event")],
)  # fmt: skip
def test_topic_of_each_kind(kind: str, topic: str):
    """What nobody has thought of yet is an event."""
    assert topics.topic_of(kind) == topic


def test_json_says_what_numpy_and_strangers_say():
    """Arrays as lists, numbers as numbers, NaN as null, other things as text."""
    facts = {"a": np.arange(2), "b": np.float32(1.5), "c": np.nan, "d": np.array([None]), "e": 1j}

    said = json.loads(topics.as_json("event", 1.23456789, facts))

    assert said == {
        "kind": "event", "time_s": 1.234568, "a": [0, 1], "b": 1.5, "c": None, "d": "[None]", "e": "1j",
    }  # fmt: skip


def test_a_tick_says_as_a_number_whether_it_was_held():
    """So that a viewer can plot it."""
    assert json.loads(topics.as_json("tick", 0, {}))["held"] == 0
    assert json.loads(topics.as_json("tick", 0, {"cause": "link_down"}))["held"] == 1


@pytest.mark.parametrize(
    ("kind", "facts", "said"),
    [
        ("tick", {}, None),
        ("outage", {"cause": "gone"}, ("WARNING", "no valid actions: gone")),
        ("failed", {"seq": 3, "cause": "late"}, ("WARNING", "request 3 failed: late")),
        ("held", {}, ("WARNING", "no row for tick ?: ?")),
    ],
)
def test_sentences(kind: str, facts: dict, said: tuple[str, str] | None):
    """Ticks have none; a fact that is missing is a question mark."""
    assert topics.words(kind, facts) == said


@pytest.mark.parametrize("topic", topics.SCHEMAS)
def test_every_json_topic_has_a_schema(topic: str):
    """With `kind` and `time_s` in it."""
    said = json.loads(topics.schema(topic))

    assert said["type"] == "object"
    assert {"kind", "time_s"} <= said["properties"].keys()


@pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not part of the wheel")
def test_every_topic_is_documented():
    """The page names all of them, and no other."""
    named = set(re.findall(r"^\| `(/[a-z]+)[/`]", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    fixed = {topics.REQUEST, topics.REPLY, topics.LOG, topics.CAMERA.rstrip("/")}

    assert named == fixed | topics.SCHEMAS.keys()
