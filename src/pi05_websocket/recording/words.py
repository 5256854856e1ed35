# SPDX-License-Identifier: Apache-2.0
"""A recording's story in sentences: what happened, why, and what to do about it. Pure.

In: a `Story`. Out: lines of text for a person, or a dict for a program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pi05_websocket.recording.story import Jump, Line, Pause, Story
from pi05_websocket.wire.foreign_words import in_a_line

__all__ = ["REMEDIES", "as_dict", "sentences"]

REMEDIES: Final = {
    "first_chunk": "nothing: the first chunk of an episode takes one round trip. If it takes long, the model "
    "was compiling or loading: let the server warm up",
    "link_down": "look at the network between robot and server, and whether the server was restarted; the arm "
    "goes on by itself when the link is back",
    "policy_changed": "the servers that were left serve another policy, or do not say which: start servers "
    "with equal weights, mark stock servers as the same (--policy.same_policy), or accept the other policy",
    "server_error": "read the server's log: its policy failed on this observation",
    "server_busy": "fewer robots on this server, batches (--max-batch), or a second server",
    "chunk_rejected": "read what was wrong with the answer; another data set's statistics or another robot's "
    "policy answers like that",
    "reply_late": "look at the round trips around it: a link that loses packets, or a server that does "
    "something else now and then. A longer chunk or an earlier question (--policy.margin_ticks) rides over it",
    "horizon_too_short": "a policy with a longer chunk, a faster one, or a nearer server; pi05-websocket tune "
    "says what fits",
    "asked_late": "see that the control loop keeps its rate, and raise --policy.margin_ticks",
    "stopped": "a person had to let the arm move again, because the pause was too long (--policy.auto_resume) "
    "or because a person had stopped it",
    "unknown": "nothing was recorded about it",
}
"""Cause to what to do."""

_LONGEST: Final = 2000
"""Characters of a line."""

_WHERE: Final = {
    "seam": "where two chunks meet: they disagree about the way. Blending or RTC joins them (--policy.seam)",
    "inside a chunk": "inside one chunk: the policy's own step. --policy.max_velocity bounds it",
    "pause": "at a pause",
    "skipped ticks": "the loop was late and rows were skipped: see that it keeps its rate",
}


def sentences(story: Story, joints: Sequence[str] = (), *, most: int = 20) -> list[str]:
    """Return the story, a line at a time.

    Args:
        story: What happened.
        joints: What to call them, in action order.
        most: How many pauses to tell one by one: the longest.
    """
    if not story.ticks:
        return ["nothing was commanded in this recording"]
    origin = float(story.ticks[0]["time_s"])
    lines = [_summary(story), ""]
    longest = sorted(story.pauses, key=lambda pause: -pause.ticks)[:most]
    for pause in sorted(longest, key=lambda pause: pause.begin_s):
        lines += [*_of_pause(pause, origin), ""]
    if len(story.pauses) > most:
        lines += [f"and {len(story.pauses) - most} shorter pauses", ""]
    if not story.pauses:
        lines += ["The arm never paused.", ""]
    if story.handovers:
        shown = story.handovers[:most]
        lines += ["Other servers went on:", *(_of_handover(*pair, origin) for pair in shown)]
        if len(story.handovers) > most:
            lines += [f"  and {len(story.handovers) - most} times more"]
        lines += [""]
    if story.jumps:
        lines += ["Largest steps between two commands:"]
        lines += [_of_jump(jump, origin, joints) for jump in story.jumps]
    else:
        lines += ["No command was far from the one before it."]
    if story.lost:
        lines += ["", f"{story.lost} messages are missing: the disk was too slow for the recorder."]
    return [in_a_line(line, _LONGEST) for line in lines]  # a recording may be a stranger's


def as_dict(story: Story, joints: Sequence[str] = ()) -> dict[str, Any]:
    """Return the same for programs."""
    origin = float(story.ticks[0]["time_s"]) if story.ticks else 0.0
    return {
        "ticks": len(story.ticks),
        "seconds": round(story.seconds, 3),
        "exchanges": len(story.exchanges),
        "failed": len(story.failed),
        "skipped_ticks": story.skipped,
        "lost_messages": story.lost,
        "held_by_cause": story.held_by_cause,
        "pauses": [
            {
                "at_s": round(pause.begin_s - origin, 3),
                "seconds": round(pause.seconds, 3),
                "tick": pause.first_tick,
                "ticks": pause.ticks,
                "episode": pause.episode,
                "causes": dict(pause.causes),
                "said": list(pause.said),
                "state": pause.stopped,
                "latched": pause.latched,
                "remedy": _remedy(pause),
            }
            for pause in story.pauses
        ],
        "handovers": [
            {
                "at_s": round(float(new["time_s"]) - origin, 3),
                "from": old["server"],
                "to": new["server"],
                "without_answer_s": round(float(new["time_s"]) - float(old["time_s"]), 3),
            }
            for old, new in story.handovers
        ],
        "jumps": [
            {
                "at_s": round(jump.at_s - origin, 3),
                "tick": jump.tick,
                "joint": _joint(jump.joint, joints),
                "step": round(jump.step, 4),
                "usual": round(jump.usual, 4),
                "where": jump.where,
                "chunks": [jump.before["seq"], jump.after["seq"]],
            }
            for jump in story.jumps
        ],
    }


def _summary(story: Story) -> str:
    held = sum(story.held_by_cause.values())
    causes = ", ".join(
        f"{cause.replace('_', ' ')} {ticks}" for cause, ticks in story.held_by_cause.items()
    )
    skipped = f"; {story.skipped} ticks skipped by a late loop" if story.skipped else ""
    return (
        f"{len(story.ticks)} ticks in {story.seconds:.1f} s, {len(story.exchanges)} answers, "
        f"{len(story.failed)} failed requests; held {held} ticks in {len(story.pauses)} pauses"
        f"{': ' + causes if causes else ''}{skipped}"
    )


def _of_pause(pause: Pause, origin: float) -> list[str]:
    causes = ", then ".join(f"{name.replace('_', ' ')} ({ticks})" for name, ticks in pause.causes)
    lines = [
        f"{pause.begin_s - origin:.1f} s, tick {pause.first_tick}, episode {pause.episode}: the arm held for "
        f"{pause.seconds:.2f} s ({pause.ticks} ticks): {causes}"
    ]
    if pause.before is not None:
        lines.append(
            f"  before: row {pause.before['row']} of chunk {pause.before['seq']} was the last to be commanded"
        )
    else:
        lines.append("  before: nothing had moved in this episode")
    if pause.exchange is not None and pause.before is not None:
        lines.append(
            f"  last answer: {_of_exchange(pause.exchange)}, {_ago(pause, pause.exchange)}"
        )
    lines += [f"  said: {text}" for text in pause.said[:3]]
    lines += [
        f"  request {line.get('seq')} failed: {line.get('error')}" for line in pause.failed[:3]
    ]
    if pause.stopped == "stop":
        ended = (
            "a person had to let it go on" if pause.latched else "only a fresh plan could move it"
        )
        lines.append(f"  it came to a stop: {ended}")
    if pause.after is not None:
        lines.append(f"  it went on with row {pause.after['row']} of chunk {pause.after['seq']}")
    lines.append(f"  what to do: {_remedy(pause)}")
    return lines


def _remedy(pause: Pause) -> str:
    return REMEDIES.get(pause.main_cause, REMEDIES["unknown"])


def _of_exchange(line: Any) -> str:
    took = line.get("round_trip_ms")
    said = f"to request {line.get('seq')}"
    if took is not None:
        said += f", after {took:.0f} ms"
    if line.get("server_ms") is not None:
        said += f" of which the policy took {line['server_ms']:.0f}"
    return said


def _of_handover(old: Line, new: Line, origin: float) -> str:
    between = float(new["time_s"]) - float(old["time_s"])
    return (
        f"  {float(new['time_s']) - origin:.1f} s: {new['server']} answered, {between:.2f} s after the last "
        f"answer of {old['server']}"
    )


def _ago(pause: Pause, line: Any) -> str:
    return f"{pause.begin_s - float(line['time_s']):.1f} s before"


def _of_jump(jump: Jump, origin: float, joints: Sequence[str]) -> str:
    before, after = jump.before, jump.after
    chunks = f"chunk {before['seq']} row {before['row']} to chunk {after['seq']} row {after['row']}"
    return (
        f"  {jump.at_s - origin:.1f} s, tick {jump.tick}: {_joint(jump.joint, joints)} {jump.step:+.3g} "
        f"({abs(jump.step) / jump.usual:.1f} times its usual {jump.usual:.3g}), {chunks}; {_WHERE[jump.where]}"
    )


def _joint(number: int, joints: Sequence[str]) -> str:
    return joints[number] if number < len(joints) else f"joint {number}"
