# SPDX-License-Identifier: Apache-2.0
"""Pauses and jumps, found in made-up runs whose truth is known."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.recording.story import tell
from pi05_websocket.recording.words import REMEDIES, as_dict, sentences
from pi05_websocket.robot.causes import CauseName

HZ = 30.0


class Run:
    """Writes the lines of a run, tick by tick."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.tick = 0
        self.row = 0
        self.episode = 1

    @property
    def now(self) -> float:
        """The time of the next tick."""
        return 100 + self.tick / HZ

    def say(self, kind: str, **facts: Any) -> Run:
        """Write another line, a moment before the next tick's."""
        self.lines.append({"kind": kind, "time_s": self.now - 0.001, **facts})
        return self

    def _step(self, source: str, seq: int, row: int, values: list[float], **facts: Any) -> None:
        tick = {
            "tick": self.tick,
            "episode": self.episode,
            "source": source,
            "seq": seq,
            "row": row,
        }
        self.lines.append({"kind": "tick", "time_s": self.now, "values": values, **tick, **facts})
        self.tick += 1

    def chunk(self, seq: int, *values: float) -> Run:
        """Command rows of a chunk; the second joint stands still."""
        for row, value in enumerate(values):
            self._step("chunk", seq, row, [value, 0.0])
        return self

    def hold(self, ticks: int, cause: str | None, value: float = 0.0) -> Run:
        """Hold."""
        for _ in range(ticks):
            self._step("hold", -1, -1, [value, 0.0], **({"cause": cause} if cause else {}))
        return self


def steady(count: int, first: float = 0.0) -> list[float]:
    """Return a motion of one unit a tick."""
    return [first + i for i in range(count)]


class TestPauses:
    def test_a_pause_has_its_cause_what_came_before_and_what_ended_it(self):
        """A link that was cut in mid-chunk."""
        run = Run().say("episode", episode=1).chunk(0, *steady(20))
        run.say("exchange", seq=0, round_trip_ms=120.0, server_ms=80.0, outcome="ACCEPTED")
        run.chunk(1, *steady(10, 20))
        run.say("failed", seq=2, error="ConnectionLost", cause="the cable")
        run.say("outage", cause="the cable", error="ConnectionLost")
        run.say("held", tick=30, cause="link_down", text="link down for 0.1 s")
        run.hold(12, "link_down", 29).chunk(3, *steady(5, 30))

        story = tell(run.lines)
        (pause,) = story.pauses

        assert (pause.first_tick, pause.ticks, pause.causes) == (30, 12, (("link_down", 12),))
        assert pause.seconds == pytest.approx(12 / HZ)
        assert (pause.before["seq"], pause.before["row"]) == (1, 9)
        assert (pause.after["seq"], pause.after["row"]) == (3, 0)
        assert pause.exchange["seq"] == 0
        assert [line["seq"] for line in pause.failed] == [2]
        assert pause.said == ("the cable", "link down for 0.1 s")
        assert (pause.stopped, pause.latched) == (None, False)
        assert story.held_by_cause == {"link_down": 12}

    def test_causes_come_in_their_order(self):
        """The first began it, the longest has the remedy."""
        run = Run().chunk(0, *steady(5)).hold(2, "reply_late").hold(9, "link_down").hold(1, None)

        (pause,) = tell(run.lines).pauses

        assert pause.causes == (("reply_late", 2), ("link_down", 9), ("unknown", 1))
        assert (pause.cause, pause.main_cause) == ("reply_late", "link_down")
        assert pause.after is None

    def test_a_stop_in_a_pause_does_not_split_it(self):
        """It drops the plans, which counts as a new episode for the scheduler alone."""
        run = Run().say("episode", episode=1).chunk(0, *steady(5)).hold(30, "link_down", 4)
        run.say("state", state="coast", latched=False, cause="link_down")
        run.say("state", state="stop", latched=True, cause="link_down")
        run.episode = 2
        run.hold(30, "link_down", 4).chunk(1, *steady(5, 4))

        (pause,) = tell(run.lines).pauses

        assert (pause.ticks, pause.stopped, pause.latched) == (60, "stop", True)

    def test_episodes_are_apart(self):
        """What was before a reset is not what came before the pause after it, and is joined by no jump."""
        run = Run().say("episode", episode=1).chunk(0, *steady(40)).hold(2, "reply_late", 39)
        run.say("episode", episode=2).hold(3, "first_chunk", -500).chunk(9, *steady(4, -500))

        story = tell(run.lines)
        late, first = story.pauses

        assert late.after is None
        assert first.before is None
        assert first.exchange is None
        assert story.jumps == ()

    @given(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=12))
    def test_every_held_tick_is_in_exactly_one_pause(self, runs: list[tuple[bool, int]]):
        """Whatever comes after what."""
        run = Run()
        for held, ticks in runs:
            _ = run.hold(ticks, "reply_late") if held else run.chunk(1, *steady(ticks))

        story = tell(run.lines)

        held = [line["tick"] for line in run.lines if line["source"] == "hold"]
        spans = [range(p.first_tick, p.first_tick + p.ticks) for p in story.pauses]
        assert [tick for span in spans for tick in span] == held


class TestJumps:
    def test_a_jump_at_a_seam(self):
        """Two chunks that disagree about the way."""
        run = Run().chunk(0, *steady(40)).chunk(1, *steady(40, 60))

        (jump,) = tell(run.lines).jumps

        assert (jump.tick, jump.joint, jump.step, jump.usual) == (40, 0, 21.0, 1.0)
        assert (jump.before["seq"], jump.after["seq"], jump.where) == (0, 1, "seam")

    @pytest.mark.parametrize(
        ("run", "where"),
        [
            (Run().chunk(0, *steady(40), *steady(40, 90)), "inside a chunk"),
            (Run().chunk(0, *steady(40)).hold(1, "link_down", 39).chunk(1, *steady(9, 80)), "pause"),
            (Run().chunk(0, *steady(40)).hold(1, "link_down", 0), "pause"),
        ],
    )  # fmt: skip
    def test_where_a_jump_lies(self, run: Run, where: str):
        """In the policy's plan, or where none was commanded."""
        assert tell(run.lines).jumps[0].where == where

    def test_a_late_loop_skips_rows(self):
        """Counted, and told as the reason of a large step; its size does not make others look usual."""
        run = Run().chunk(0, *steady(40))
        run.tick += 7
        run.chunk(0, *steady(40, 47))

        story = tell(run.lines)

        assert story.skipped == 7
        assert (story.jumps[0].where, story.jumps[0].step) == ("skipped ticks", 8.0)

    def test_largest_first_and_no_more_than_asked(self):
        """As many times the joint's usual step."""
        run = Run().chunk(0, *steady(60), *steady(60, 70), *steady(60, 190), *steady(60, 300))

        story = tell(run.lines, most_jumps=2)

        assert [round(jump.step) for jump in story.jumps] == [61, 51]

    def test_an_even_motion_has_none(self):
        """Nor has an arm that stands, or moves once."""
        assert tell(Run().chunk(0, *steady(90)).lines).jumps == ()
        assert tell(Run().chunk(0, 1, 1, 1).lines).jumps == ()
        assert tell(Run().chunk(0, 1, 1, 5).lines).jumps == ()


class TestWords:
    def test_every_cause_has_a_remedy(self):
        """Also one that was not recorded."""
        assert REMEDIES.keys() == {*get_args(CauseName), "unknown"}

    def test_a_story_in_sentences(self):
        """Cause, length, what came before, what was said, what ended it, what to do; then the jumps."""
        run = Run().say("episode", episode=1).hold(3, "first_chunk").chunk(0, *steady(30))
        run.say("exchange", seq=0, round_trip_ms=120.0, server_ms=80.0, outcome="ACCEPTED")
        run.say("failed", seq=1, error="ConnectionLost", cause="x")
        run.say("outage", cause="the cable")
        run.say("state", state="stop", latched=False)
        run.hold(60, "link_down", 29).chunk(2, *steady(30, 60))
        run.say("gap", lost=4)

        said = "\n".join(sentences(tell(run.lines), ["shoulder_pan"]))

        assert "held 63 ticks in 2 pauses: link down 60, first chunk 3" in said
        assert (
            "1.1 s, tick 33, episode 1: the arm held for 2.00 s (60 ticks): link down (60)" in said
        )
        assert "before: nothing had moved in this episode" in said
        assert "before: row 29 of chunk 0 was the last" in said
        assert "last answer: to request 0, after 120 ms of which the policy took 80" in said
        assert "said: the cable" in said
        assert "request 1 failed: ConnectionLost" in said
        assert "it came to a stop: only a fresh plan could move it" in said
        assert "it went on with row 0 of chunk 2" in said
        assert "look at the network" in said
        assert "shoulder_pan +31 (31.0 times its usual 1), chunk -1 row -1 to chunk 2 row 0" in said
        assert "4 messages are missing" in said

    def test_another_server_that_went_on(self):
        """With how long no answer came; the same server again is no news, nor is a reply without one."""
        run = Run().chunk(0, *steady(30)).say("exchange", seq=0, server="ws://a:8000")
        run.chunk(1, *steady(30, 30)).say("exchange", seq=1, server="ws://a:8000")
        run.say("exchange", seq=2).say("exchange", seq=3, server=7)
        run.chunk(2, *steady(15, 60)).say("exchange", seq=4, server="ws://b:8000")
        run.chunk(4, *steady(30, 75))
        story = tell(run.lines)

        assert (
            "  2.5 s: ws://b:8000 answered, 0.50 s after the last answer of ws://a:8000"
            in sentences(story)
        )
        (handover,) = as_dict(story)["handovers"]
        assert handover == {
            "at_s": 2.499,
            "from": "ws://a:8000",
            "to": "ws://b:8000",
            "without_answer_s": 0.5,
        }
        run.say("exchange", seq=5, server="ws://a:8000")
        assert "  and 1 times more" in sentences(tell(run.lines), most=1)

    def test_a_quiet_run_says_so(self):
        """No pause, no jump; nothing at all."""
        said = sentences(tell(Run().chunk(0, *steady(30)).lines))

        assert "The arm never paused." in said
        assert "No command was far from the one before it." in said
        assert sentences(tell([])) == ["nothing was commanded in this recording"]

    def test_only_the_longest_pauses_are_told(self):
        """The others are counted, and a late loop is said."""
        run = Run().chunk(0, *steady(3))
        for ticks in (1, 5, 2):
            run.hold(ticks, "reply_late", 2).chunk(1, *steady(3))
        run.tick += 2
        run.say("state", state="stop", latched=True).hold(1, "odd", 2)

        said = "\n".join(sentences(tell(run.lines), most=1))

        assert "(5 ticks): reply late (5)" in said
        assert "and 3 shorter pauses" in said
        assert "2 ticks skipped by a late loop" in said
        latched = "\n".join(sentences(tell(run.lines)))
        assert "a person had to let it go on" in latched
        assert "nothing was recorded about it" in latched

    def test_answers_without_times_are_told_without(self):
        """As LeRobot's rtc engine leaves them."""
        run = Run().chunk(0, *steady(3)).say("exchange", seq=4).hold(2, "reply_late", 2)

        assert "last answer: to request 4, 0.0 s before" in "\n".join(sentences(tell(run.lines)))

    def test_the_same_for_programs(self):
        """Times count from the first command; joints have names or numbers."""
        run = Run().chunk(0, *steady(30)).hold(3, "link_down", 29).chunk(1, *steady(30, 50))

        facts = as_dict(tell(run.lines), ["shoulder_pan"])

        assert facts["held_by_cause"] == {"link_down": 3}
        (pause,) = facts["pauses"]
        assert (pause["at_s"], pause["ticks"], pause["causes"]) == (1.0, 3, {"link_down": 3})
        (jump,) = facts["jumps"]
        assert (jump["joint"], jump["step"], jump["where"]) == ("shoulder_pan", 21.0, "pause")
        assert as_dict(tell(run.lines))["jumps"][0]["joint"] == "joint 0"
        assert as_dict(tell([]))["ticks"] == 0


def test_lines_that_are_no_ticks_are_left_alone():
    """A stranger's file may say anything."""
    lines = [
        {"kind": "tick", "time_s": 0.0},
        {"kind": "tick", "time_s": 0, "tick": 1, "episode": 1, "source": "hold", "seq": 0, "row": 0,
         "values": [None]},
        {"kind": "what", "time_s": 1.0},
    ]  # fmt: skip

    assert tell(lines).ticks == ()
    assert tell(lines).seconds == 0.0
