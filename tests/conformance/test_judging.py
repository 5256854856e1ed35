# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a message, in tables of cases: encoding, answers, errors, requests, frames."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.conformance import judging
from pi05_websocket.conformance.checks import Check, selected, skipped, verdict
from pi05_websocket.conformance.clauses import CLAUSES, GROUPS, markdown_clauses
from pi05_websocket.conformance.client_evidence import EVIDENCE_CHECKS, Evidence
from pi05_websocket.conformance.encoding import (
    Fault,
    _has_too_many_values,
    encoding_faults,
    faults_text,
    is_openpis_bytes,
)
from pi05_websocket.conformance.frames import (
    BINARY,
    Frame,
    FrameReader,
    HttpHead,
    accept_of,
    close_payload,
    frame_bytes,
    read_close,
    read_head,
    request_head,
)
from pi05_websocket.conformance.verdicts import (
    Verdict,
    as_maps,
    conforms,
    not_applicable,
    ok,
    report,
    wrong,
)
from pi05_websocket.errors import ConfigError
from pi05_websocket.wire import codec
from pi05_websocket.wire.dialects import DIALECTS, OPENPI

ROWS = np.zeros((2, 6))


def array(**entries: Any) -> bytes:
    """Return a message with an array's map, entries changed."""
    good = {"__ndarray__": True, "data": bytes(24), "dtype": "<f4", "shape": [6]} | entries
    return codec.encode({"a": {key.encode(): value for key, value in good.items()}})


def scalar(**entries: Any) -> bytes:
    """Return a message with a scalar's map, entries changed."""
    good = {"__npgeneric__": True, "data": 1, "dtype": "<i8"} | entries
    return codec.encode({"a": {key.encode(): value for key, value in good.items()}})


@pytest.mark.parametrize(
    ("message", "clause"),
    [
        (b"", "W-1"),
        (b"\x80\x00", "W-1"),
        (b"\xa1\xff", "W-1"),
        (b"\x91" * 100_000 + b"\xc0", "W-1"),
        (b"\x91" * 40 + b"\xc0", "W-1"),
        (b"\x81\xa1a" * 600 + b"\xc0", "W-1"),
        (b"\x91\xd4\x01\x00", "W-2"),
        (b"\x81\x01\x02", "W-3"),
        (b"\x81\x91\x01\x02", "W-3"),
        (b"\x82\xa1a\x01\xa1a\x02", "W-3"),
        (codec.encode({"a": {"__ndarray__": True}}), "W-4"),
        (codec.encode({"a": {"nd": True, "type": "<f4", "data": b"", "shape": []}}), "W-4"),
        (array(__ndarray__=False), "W-4"),
        (array(dtype=b"<f4"), "W-6"),
        (array(dtype="<f3"), "W-6"),
        (array(dtype="<i16"), "W-6"),
        (array(data="text"), "W-7"),
        (array(shape=6), "W-7"),
        (array(shape=[2**62] * 200_000), "W-7"),
        (array(shape=[True]), "W-7"),
        (scalar(extra=1), "W-8"),
        (scalar(dtype="<f8"), "W-8"),
        (scalar(dtype="<U1"), "W-8"),
        (scalar(dtype="O"), "W-8"),
        (scalar(data="1"), "W-8"),
    ],
)
def test_an_encoding_that_breaks_a_clause_is_named(message: bytes, clause: str) -> None:
    """The first fault is of that clause."""
    assert encoding_faults(message)[0].clause == clause


def test_good_arrays_and_scalars_have_no_fault() -> None:
    """As they are before something is changed in them."""
    assert encoding_faults(array()) == []
    assert encoding_faults(scalar()) == []
    merely = {"nd": 3, "type": "<f4", "data": b"", "colour": "red"}
    assert encoding_faults(codec.encode({"a": merely})) == []


def test_a_message_without_end_of_values_is_not_taken_apart() -> None:
    """A byte may become a hundred; the fault says how many are too many."""
    count = 1 << 20
    message = b"\xdd" + count.to_bytes(4, "big") + bytes(count)
    assert encoding_faults(message) == [Fault("W-1", "more than 1048576 values")]


EACH_HEAD: list[Any] = [
    *(None, True, -1, 7, 2**7, 2**15, 2**31, 2**63, -(2**7), -(2**15), -(2**31), -(2**63), 1.5),
    *("é" * size for size in (1, 15, 100, 40_000)),
    *(bytes(size) for size in (1, 300, 70_000)),
    *([1] * size for size in (3, 20, 70_000)),
    *(dict.fromkeys(map(str, range(size))) for size in (3, 20, 70_000)),
    *(msgspec.msgpack.Ext(1, bytes(size)) for size in (1, 2, 3, 4, 8, 16, 300, 70_000)),
]


@pytest.mark.parametrize("value", EACH_HEAD, ids=lambda value: str(value)[:12])
def test_values_are_counted_whatever_they_are(value: Any) -> None:
    """What fills a message up to the bound fits, one more does not; a message may end anywhere."""
    message = msgspec.msgpack.encode(value)
    held = len(value) * (1 + isinstance(value, dict)) if isinstance(value, list | dict) else 0
    assert not _has_too_many_values(message + bytes(9), held + 10)
    assert _has_too_many_values(message + bytes(10), held + 10)
    assert not any(_has_too_many_values(message[:size], 6) for size in range(6))


def test_of_a_message_that_is_wrong_everywhere_the_first_faults_are_told() -> None:
    """With keys that are cut."""
    wrong_values = [msgspec.msgpack.Ext(1, b"x")] * 200
    faults = encoding_faults(msgspec.msgpack.encode({"k" * 10_000: wrong_values}))
    assert len(faults) == 100
    assert max(len(fault.text) for fault in faults) < 300


def test_a_peers_words_are_printable_and_short_in_a_verdict() -> None:
    """Nothing in them reaches the terminal as a command."""
    check: Check[None] = Check(name="x", clauses=("S-1",), expected="y", look=lambda _: ok(""))
    assert verdict(check, wrong("\x1b[2J")).got == r"\x1b[2J"
    assert len(verdict(check, wrong("x" * 10_000)).got) == 1_003


def test_the_last_line_of_a_text() -> None:
    """Of a long one without looking at all of it."""
    assert judging.last_line("a\nb \n\n") == "b"
    assert judging.last_line(" \n") == "(no text)"
    assert judging.last_line("a" * 5000) == "a" * 4096


@given(st.binary(max_size=64))
def test_any_bytes_are_judged(message: bytes) -> None:
    """Nothing that a stranger sends ends the examination; OpenPI's bytes have no fault."""
    faults = encoding_faults(message)
    if is_openpis_bytes(message):
        assert faults == []


def test_faults_are_told_in_a_line() -> None:
    """The first three, and how many more."""
    faults = [Fault(f"W-{number}", "x") for number in range(1, 6)]
    assert faults_text(faults) == "W-1: x; W-2: x; W-3: x; and 2 more"
    assert faults_text(faults[:1]) == "W-1: x"


@pytest.mark.parametrize(
    ("dialect", "message", "said"),
    [
        ("openpi", codec.encode({"actions": ROWS}), ""),
        ("openpi", b"\xc1", "cannot be read"),
        ("openpi", codec.encode({"action": ROWS}), "expected a map with 'actions', got a map of"),
        ("openpi", codec.encode([]), "got a value of type list"),
        ("openpi", codec.encode({}), "got a map of nothing"),
        ("openpi", codec.encode({"actions": ROWS + np.nan}), "finite"),
        ("vllm-omni", codec.encode(ROWS), ""),
        ("vllm-omni", codec.encode({"type": "error", "message": "boom"}), "boom"),
        ("starvla", codec.encode({"data": 1}), "expected actions under data.actions"),
    ],
)
def test_actions(dialect: str, message: bytes, said: str) -> None:
    """In the dialect's place, finite, two axes."""
    fault = judging.actions_fault(DIALECTS[dialect], message)
    assert (said in fault) if said else fault == ""


@pytest.mark.parametrize(
    ("value", "first", "fault"),
    [
        ({"server_timing": {"infer_ms": 1.5}}, True, ""),
        ({"server_timing": {"infer_ms": 1, "prev_total_ms": np.float32(2)}}, False, ""),
        ({"server_timing": {"infer_ms": 1.5}}, False, "server_timing.prev_total_ms is None"),
        ({"server_timing": {"infer_ms": -1.0}}, True, "server_timing.infer_ms is -1.0"),
        ({"server_timing": {"infer_ms": True}}, True, "server_timing.infer_ms is True"),
        ({"server_timing": {"infer_ms": np.nan}}, True, "server_timing.infer_ms is nan"),
        ([], True, "no map server_timing"),
        ({}, True, "no map server_timing"),
    ],
)
def test_timing(value: Any, first: bool, fault: str) -> None:
    """Milliseconds from 0 on; the second figure from the second answer on."""
    assert judging.timing_fault(codec.encode(value), first=first) == fault


STATUS = codec.encode({"status": "error", "ok": False, "error": {"message": "boom"}})


@pytest.mark.parametrize(
    ("dialect", "said", "code", "fault"),
    [
        ("openpi", "boom", 1011, ""),
        ("openpi", "boom", None, "the connection stays open after the error"),
        ("openpi", "boom", 1000, "close code 1000 after the error"),
        ("openpi", "", 1011, "an empty text"),
        ("openpi", None, 1006, "no word, then close code 1006"),
        ("openpi", STATUS, 1011, "expected text, got a map of error, ok, status"),
        ("openpi", b"\xc1", 1011, "expected text, got bytes that cannot be read"),
        ("starvla", STATUS, None, ""),
        ("starvla", STATUS, 1011, "the connection ended with 1011"),
        ("starvla", "boom", None, "expected an error map, got text"),
        ("starvla", codec.encode({}), None, "expected an error map, got a map of nothing"),
        ("sglang", codec.encode({"error": "boom"}), 1011, ""),
    ],
)
def test_errors(dialect: str, said: bytes | str | None, code: int | None, fault: str) -> None:
    """In the dialect's form, and the connection ends or stays as its table says."""
    assert judging.error_fault(DIALECTS[dialect], said, code).startswith(fault)
    assert bool(judging.error_fault(DIALECTS[dialect], said, code)) == bool(fault)


def test_a_map_is_no_error_in_openpis_dialect() -> None:
    """There a text is one."""
    assert not judging.is_error(OPENPI, STATUS)
    assert judging.is_error(OPENPI, "boom")
    assert judging.is_error(DIALECTS["starvla"], STATUS)


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"version": 1, "prefix": "none", "max_delay": None, "refusals": True}, ""),
        ({"version": 2, "prefix": "guided", "max_delay": 3}, ""),
        ([], "_rt is a value of type list"),
        ({"version": True}, "_rt.version is True"),
        ({"version": 1}, "_rt.prefix is None"),
        ({"version": 1, "prefix": "none", "max_delay": -1}, "_rt.max_delay is -1"),
        ({"version": 1, "prefix": "none", "refusals": 1}, "_rt.refusals is 1"),
    ],
)
def test_the_announcement_of_rt(said: Any, fault: str) -> None:
    """The fields of the table."""
    assert judging.realtime_fault({"_rt": said}) == fault


@pytest.mark.parametrize(
    ("metadata", "announced"),
    [
        ([], False),
        ({}, False),
        ({"_rt": 1}, False),
        ({"_rt": {"version": 1}}, True),
        ({"_rt": {"version": 2}}, False),
    ],
)
def test_only_this_version_of_rt_counts(metadata: Any, announced: bool) -> None:
    """Another one counts as none."""
    assert judging.announces_realtime(metadata) is announced


REPLY = {"seq": 4, "delay": 1, "prefix": "guided", "queue_ms": 0.0, "infer_ms": 1.0}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, ""),
        ({"seq": None}, "no _rt in the answer, or one without its fields"),
        ({"seq": 5}, "_rt.seq is 5, of request 4"),
        ({"delay": 3}, "_rt.delay is 3, with 2 rows sent"),
        ({"prefix": "hopeful"}, "_rt.prefix is 'hopeful'"),
    ],
)
def test_the_answer_to_rt(changes: dict[str, Any], fault: str) -> None:
    """The request's number, and no more rows than were sent."""
    message = codec.encode({"actions": ROWS, "_rt": REPLY | changes})
    assert judging.realtime_answer_fault(message, seq=4, rows=2) == fault


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"version": 1, "encodings": ["jpeg"]}, ""),
        ({"encodings": ["jpeg"]}, "_images is a map of encodings without a number 'version'"),
        (1, "_images is a value of type int without a number 'version'"),
        ({"version": 1, "encodings": [1]}, "_images.encodings is [1]"),
    ],
)
def test_the_announcement_of_images(said: Any, fault: str) -> None:
    """The fields of the table."""
    assert judging.images_fault({"_images": said}) == fault


def test_refusals() -> None:
    """Of the four kinds."""
    assert judging.refusal_fault("RequestRefused: late: too late") == ""
    assert "no refusal of a known form" in judging.refusal_fault("RequestRefused: bored")


@pytest.mark.parametrize(
    ("text", "named"),
    [("KeyError: 'x'", True), ("msgpack.exceptions.FormatError", True), ("it broke!", False)],
)
def test_causes(text: str, named: bool) -> None:
    """A type, and what it says."""
    assert judging.cause_named(text) is named


@pytest.mark.parametrize(
    ("value", "clauses"),
    [
        (b"\xc1", []),
        ([], ["C-5"]),
        ({"state": np.zeros(6)}, []),
        ({"reset": np.zeros(6)}, []),
        ({"reset": True}, ["C-19"]),
        ({"images": [{"deep": {"__image__": "jpeg"}}]}, ["IM-2"]),
        ({"_rt": {}}, ["RT-2"]),
    ],
)
def test_requests_to_a_stock_server(value: Any, clauses: list[str]) -> None:
    """Nothing of ours, no word for an episode."""
    message = value if isinstance(value, bytes) else codec.encode(value)
    assert [fault.clause for fault in judging.request_faults(message, {})] == clauses


# ------------------------------------------------------------------------------------------------ frames


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize("mask", [b"", b"abcd"])
def test_frames_come_back_as_they_were_sent(size: int, mask: bytes) -> None:
    """Whole, and byte by byte at their beginning."""
    frame = Frame(kind=BINARY, payload=bytes(range(256)) * 257, fin=False, reserved=4)
    frame = dataclasses.replace(frame, payload=frame.payload[:size], masked=bool(mask))
    sent = frame_bytes(frame, mask)
    reader = FrameReader(1 << 20)
    for start in range(min(20, len(sent) - 1)):
        reader.feed(sent[start : start + 1])
        assert reader.next() is None
    reader.feed(sent[min(20, len(sent) - 1) :])
    assert reader.next() == frame
    assert reader.next() is None


def test_a_frame_that_announces_too_much_is_not_waited_for() -> None:
    """Its head is enough."""
    reader = FrameReader(100)
    reader.feed(b"\x82\x7e\x00\x65")
    assert reader.next() is None
    assert reader.too_long
    reader.feed(b"\x82\x00")
    assert reader.next() is None


def test_closes() -> None:
    """Code and reason; 1005 where there is none."""
    assert read_close(close_payload(1011, "sorry")) == (1011, "sorry")
    assert read_close(b"") == (1005, "")


def test_heads() -> None:
    """Whole ones are read with what follows them; others are waited for, or refused."""
    sent = request_head("/x?y", "host:1", "k", {"A": "1"})
    found = read_head(sent + b"rest")
    assert found is not None
    head, rest = found
    assert (head.path, head.status, head.get("a"), rest) == ("/x?y", 0, "1", b"rest")
    assert read_head(sent[:-1]) is None
    assert HttpHead(line="HTTP/1.1 101 Switching", headers=()).status == 101
    assert HttpHead(line="HTTP/1.1", headers=()).path == ""
    with pytest.raises(ValueError, match="no HTTP"):
        read_head(b"SSH-2.0\r\n\r\n")
    with pytest.raises(ValueError, match="without an end"):
        read_head(b"x" * 70_000)
    assert accept_of("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


# ------------------------------------------------------------------------------------------------ evidence

UPGRADE = {
    "host": "h",
    "connection": "keep-alive, Upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": "AAECAwQFBgcICQoLDA0ODw==",
}


def looked(name: str, seen: Evidence) -> str:
    """Return the outcome of a check of evidence."""
    [check] = [each for each in EVIDENCE_CHECKS if each.name == name]
    return check.look(seen).outcome


@pytest.mark.parametrize(
    ("line", "changes", "outcome"),
    [
        ("GET / HTTP/1.1", {}, "passed"),
        ("POST / HTTP/1.1", {}, "failed"),
        ("GET / HTTP/1.0", {}, "failed"),
        ("GET / HTTP/1.1", {"sec-websocket-version": "8"}, "failed"),
        ("GET / HTTP/1.1", {"connection": "close"}, "failed"),
        ("GET / HTTP/1.1", {"host": None}, "failed"),
        ("GET / HTTP/1.1", {"sec-websocket-key": "?"}, "failed"),
        ("GET / HTTP/1.1", {"sec-websocket-key": "é"}, "failed"),
    ],
)
def test_upgrades(line: str, changes: dict[str, str | None], outcome: str) -> None:
    """As RFC 6455 says."""
    headers = tuple((k, v) for k, v in (UPGRADE | changes).items() if v is not None)
    seen = Evidence(upgrades=[HttpHead(line=line, headers=headers)])
    assert looked("upgrade", seen) == outcome


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ([], "not applicable"),
        (["Api-Key secret"], "passed"),
        (["Bearer secret"], "passed"),
        (["Basic secret"], "failed"),
        (["Api-Key a", "Api-Key b"], "failed"),
    ],
)
def test_keys(values: list[str], outcome: str) -> None:
    """One header, one of two schemes."""
    headers = tuple(("authorization", value) for value in values)
    assert looked("key", Evidence(upgrades=[HttpHead(line="", headers=headers)])) == outcome


# ------------------------------------------------------------------------------------------------ verdicts

CHECK: Check[Any] = Check(name="one", clauses=("S-6",), expected="x", look=lambda _: ok(""))


def test_a_verdict_names_what_was_broken() -> None:
    """All of a check's clauses, unless it says which."""
    many = dataclasses.replace(CHECK, clauses=("W-1", "W-2", "W-3", "W-4"))
    assert verdict(many, wrong("y")).clauses == many.clauses
    assert verdict(many, wrong("y", "W-2")).clauses == ("W-2",)
    assert verdict(many, ok("")).level == "must"


@pytest.mark.parametrize(
    ("founds", "end", "conforming"),
    [
        ([ok("fine")], "It conforms.", True),
        ([ok("fine"), not_applicable("none")], "It conforms.", True),
        ([not_applicable("none")], "Not everything could be judged.", False),
        ([ok("fine"), wrong("bad")], "It does not conform.", False),
        ([], "Not everything could be judged.", False),
    ],
)
def test_what_verdicts_come_to(founds: list[Any], end: str, conforming: bool) -> None:
    """A sentence under the table."""
    verdicts: list[Verdict] = [verdict(CHECK, found) for found in founds]
    assert conforms(verdicts) is conforming
    assert report(verdicts, "it").endswith(end)
    assert not conforms([*verdicts, skipped(CHECK, "gone")])


def test_a_should_alone_says_nothing_about_conformance() -> None:
    """No MUST was broken, and none was seen to be kept."""
    alone = dataclasses.replace(CHECK, clauses=("S-8",))
    verdicts = [verdict(alone, wrong("none"))]
    assert conforms(verdicts)
    assert report(verdicts, "it").endswith(
        "1 of SHOULD, 0 not applicable, 0 skipped.\nNo MUST was looked at."
    )


def test_verdicts_as_maps() -> None:
    """For programs."""
    told = as_maps([verdict(CHECK, ok("fine"))], "it")
    assert told["conforms"] is True
    assert told["verdicts"][0]["clauses"] == ["S-6"]


def test_a_table_tells_what_was_expected_and_shortens_many_clauses() -> None:
    """An empty word leaves no line out."""
    many = dataclasses.replace(CHECK, clauses=("W-1", "W-2", "W-3", "W-4"))
    shown = report([verdict(many, wrong("bad")), verdict(CHECK, ok(""))], "it")
    assert "W-1..W-4  must    FAILED   bad" in shown
    assert "expected: x" in shown
    assert "\none  S-6       must    ok" in shown


def test_checks_are_chosen_by_clause_or_name() -> None:
    """And a word that names nothing is refused."""
    other = dataclasses.replace(CHECK, name="two", clauses=("S-7",), needs="rough")
    assert selected([CHECK, other]) == [CHECK]
    assert selected([CHECK, other], needs=("request", "rough"), only=("S-7",)) == [other]
    assert selected([CHECK, other], needs=("request", "rough"), skip=("one",)) == [other]
    with pytest.raises(ConfigError, match=r"three: no check .* Checks: one, two"):
        selected([CHECK, other], only=("three",))
    with pytest.raises(ConfigError, match=r"C-20: no check .*\(it cannot be seen"):
        selected([CHECK, other], only=("C-20",))


# ------------------------------------------------------------------------------------------------ clauses


def test_every_clause_says_what_its_level_says() -> None:
    """MUST and SHOULD are in the text, and the id in a section."""
    for clause in CLAUSES.values():
        assert clause.level.upper() in clause.text, clause.id
        assert (clause.level == "must") or "MUST" not in clause.text, clause.id
        assert clause.group in GROUPS.values()


def test_the_tables_hold_every_clause_once() -> None:
    """With what stock does, and why the kit does not look."""
    tables = [markdown_clauses(group) for group in GROUPS.values()]
    for name in CLAUSES:
        assert sum(f"| `{name}` |" in table for table in tables) == 1
    assert "no: it cannot be seen from the other end of the wire" in tables[2]
    assert "*OpenPI's client: its decoder raises; the program has to go on.*" in tables[2]


@pytest.mark.parametrize(
    ("answer", "rows"),
    [
        ({"actions": np.ones((2, 3))}, 2),
        ({"actions": np.full((2, 3), np.nan)}, None),
        ({"action": np.ones((2, 3))}, None),
        ([1], None),
    ],
)
def test_actions_are_returned_where_they_can_be_read(answer: Any, rows: int | None) -> None:
    """None where an arm could not execute them."""
    found = judging.actions_in(DIALECTS["openpi"], codec.encode(answer))
    assert (None if found is None else len(found)) == rows
