# SPDX-License-Identifier: Apache-2.0
"""Both sides of OpenPI's conversation: a recorded one replayed, and the two sides linked to each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.conformance.vectors import read_transcript
from pi05_websocket.errors import (
    ConnectionLost,
    DeadlineExceeded,
    DecodeError,
    EncodeError,
    IncompatibleServer,
    PolicyError,
    RequestRefused,
)
from pi05_websocket.wire import codec
from pi05_websocket.wire.encoded_images import encode_images
from pi05_websocket.wire.protocol import (
    CLOSE_INTERNAL_ERROR,
    TRACEBACK_CLOSE_REASON,
    Asked,
    ClientProtocol,
    MetadataReceived,
    ProtocolState,
    ReplyReceived,
    RequestFailed,
    ServerProtocol,
    server_error,
)
from pi05_websocket.wire.refusals import REFUSED

TRANSCRIPT = read_transcript()  # OpenPI's own client and server, recorded
OBSERVATION = {"observation/state": np.arange(6, dtype=np.float32), "prompt": "pick"}
METADATA = {"reset_pose": [0.0, 1.5]}


def frame(index: int) -> Any:
    """Return one recorded message as a transport delivers it."""
    recorded = TRANSCRIPT["frames"][index]
    return recorded["text"] if recorded["opcode"] == "text" else bytes.fromhex(recorded["hex"])


def ready_client(*seqs: int) -> ClientProtocol:
    """Return a client that has its metadata and has sent these requests."""
    client = ClientProtocol()
    client.receive(codec.encode(METADATA))
    for seq in seqs:
        client.request_sent(seq)
    return client


# --------------------------------------------------------------------------------- the recorded conversation


def test_client_understands_the_recorded_server() -> None:
    """Metadata, two replies, an error text and the close: each recorded frame means what it meant."""
    client = ClientProtocol()
    assert client.receive(frame(0)) == [
        MetadataReceived({"reset_pose": [0, -1.5, 1.5, 0, 0, 0]}),
    ]
    for seq, index in ((0, 2), (1, 4)):
        client.request_sent(seq)
        [reply] = client.receive(frame(index))
        assert isinstance(reply, ReplyReceived)
        assert reply.seq == seq
        assert reply.nbytes == len(frame(index))
        np.testing.assert_array_equal(reply.reply["actions"], np.tile(np.arange(6.0), (3, 1)))
    client.request_sent(2)
    [failure] = client.receive(frame(6))
    assert isinstance(failure, RequestFailed)
    assert isinstance(failure.error, PolicyError)
    assert str(failure.error) == "server error: KeyError: 'observation/state'"
    assert failure.error.detail == frame(6)
    assert client.state is ProtocolState.CLOSED
    assert client.connection_ended(code=TRANSCRIPT["close"]["code"]) == []


def test_server_writes_what_the_recorded_server_wrote() -> None:
    """Given the recorded timings, every binary message is the recorded one, byte for byte."""
    server = ServerProtocol(codec.decode(frame(0)))
    assert server.metadata_message == frame(0)
    for index in (1, 3):
        observation, realtime = server.request(frame(index))
        assert realtime is None
        recorded = codec.decode(frame(index + 1))
        timing = recorded["server_timing"]
        if "prev_total_ms" in timing:
            server.reply_sent(total_ms=timing["prev_total_ms"])
        result = {
            "actions": np.tile(observation["observation/state"].astype(np.float64), (3, 1)),
            "policy_timing": {"infer_ms": 1.0},
        }
        recorded_actions = recorded["actions"]
        np.testing.assert_array_equal(result["actions"], recorded_actions)
        assert server.reply(result, infer_ms=timing["infer_ms"]) == frame(index + 1)


def test_recorded_close_is_the_one_we_send() -> None:
    """Code and reason after an error are a stock server's."""
    assert TRANSCRIPT["close"]["code"] == CLOSE_INTERNAL_ERROR
    assert TRANSCRIPT["close"]["reason"] == TRACEBACK_CLOSE_REASON


# ------------------------------------------------------------------------------------------------ client


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("hello", "got text: 'hello'"),
        (b"\xc1", "got undecodable bytes: .*unused tag"),
        (b"\x90", "got list"),
    ],
)
def test_a_first_message_that_is_no_metadata_ends_it(first: Any, message: str) -> None:
    """Anything but a map first means that the peer is no policy server."""
    client = ClientProtocol()
    assert client.receive(first) == []
    assert client.state is ProtocolState.CLOSED
    with pytest.raises(IncompatibleServer, match=message):
        raise client.error or AssertionError("no error")


def test_requests_before_the_metadata_are_a_mistake() -> None:
    """The server speaks first."""
    with pytest.raises(AssertionError, match="request 0 sent while awaiting metadata"):
        ClientProtocol().request_sent(0)


@pytest.mark.parametrize(("payload", "kind"), [("text", "text"), (b"\x80", "binary")])
def test_a_message_nobody_asked_for_ends_it(payload: Any, kind: str) -> None:
    """After an extra message, counting replies no longer tells whose they are."""
    client = ready_client()
    assert client.receive(payload) == []
    assert client.state is ProtocolState.CLOSED
    assert f"a {kind} message nobody asked for" in str(client.error)
    assert isinstance(client.error, IncompatibleServer)


def test_an_answer_too_many_is_mended_by_a_new_connection() -> None:
    """A server that has answered is a policy server: only the counting is lost."""
    client = ClientProtocol()
    client.receive(codec.encode({}))
    client.request_sent(0)
    client.receive(codec.encode({"actions": 1}))

    client.receive(codec.encode({"actions": 1}))

    assert client.state is ProtocolState.CLOSED
    assert isinstance(client.error, ConnectionLost)
    assert client.error.retryable


def test_a_reply_that_cannot_be_decoded_fails_alone() -> None:
    """The next reply still belongs to the next request."""
    client = ready_client(1, 2)
    [failure] = client.receive(b"\xc1")
    assert isinstance(failure, RequestFailed)
    assert failure.seq == 1
    assert isinstance(failure.error, DecodeError)
    assert client.receive(b"\x80") == [ReplyReceived(2, {}, 1)]


def test_who_passes_replies_on_gets_them_as_they_came() -> None:
    """Nothing is decoded, not even what cannot be; metadata is."""
    client = ClientProtocol(undecoded=True)
    [introduced] = client.receive(codec.encode({"a": 1}))
    assert introduced == MetadataReceived({"a": 1})
    client.request_sent(1)
    assert client.receive(b"\xc1") == [ReplyReceived(1, b"\xc1", 1)]


def test_an_error_text_fails_its_request_and_those_behind_it() -> None:
    """A stock server closes after an error, so what was pipelined is lost with it."""
    client = ready_client(1, 2, 3)
    failures = client.receive("Traceback ...\nValueError: no\n")
    assert [f.seq for f in failures if isinstance(f, RequestFailed)] == [1, 2, 3]
    errors = [f.error for f in failures if isinstance(f, RequestFailed)]
    assert [type(error) for error in errors] == [PolicyError, ConnectionLost, ConnectionLost]
    assert client.receive(b"\x80") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "(empty text)"), (" \n", "(empty text)"), ("one", "one"), ("a\n b \n\n", "b")],
)
def test_server_error_takes_the_last_line(text: str, message: str) -> None:
    """The last line of a traceback says what happened; the rest is kept."""
    error = server_error(text)
    assert str(error) == f"server error: {message}"
    assert error.detail == text


def test_a_lost_connection_fails_every_outstanding_request() -> None:
    """Whoever waits learns the close code and reason; a second loss is no news."""
    client = ready_client(4, 5)
    assert client.outstanding == (4, 5)
    assert repr(client) == "<ClientProtocol ready outstanding=2>"
    failures = client.connection_ended(code=1001, reason="bye")
    assert [f.seq for f in failures if isinstance(f, RequestFailed)] == [4, 5]
    assert str(client.error) == "connection lost, close code 1001 (bye)"
    assert client.outstanding == ()
    assert client.connection_ended() == []


def test_a_connection_lost_before_the_metadata_says_so() -> None:
    """Accepting and closing at once is what a tunnel to a dead port does."""
    client = ClientProtocol()
    assert client.connection_ended() == []
    assert "before its metadata, code 1006" in str(client.error)


def test_give_up_fails_what_is_outstanding_once() -> None:
    """The caller's own reason reaches every request, and only the first reason counts."""
    client = ready_client(7)
    error = DeadlineExceeded("request", 1.0)
    assert client.give_up(error) == [RequestFailed(7, error)]
    assert client.give_up(ConnectionLost("later")) == []
    assert client.error is error


# ------------------------------------------------------------------------------------------------ server


@pytest.mark.parametrize(
    ("payload", "message"),
    [("text", "got a text message"), (b"\xc1", "unused tag"), (b"\x91\xc0", "got list")],
)
def test_server_refuses_what_is_no_observation(payload: Any, message: str) -> None:
    """A request is a binary map."""
    with pytest.raises(DecodeError, match=message):
        ServerProtocol({}).request(payload)


def test_reply_leaves_the_policys_dict_alone() -> None:
    """Timing is added to a copy: a policy may return the same dict for ever."""
    result = {"actions": np.zeros((1, 6)), "server_timing": "the policy's own"}
    message = ServerProtocol({}).reply(result, infer_ms=2.0)
    assert codec.decode(message)["server_timing"] == {"infer_ms": 2.0}
    assert result["server_timing"] == "the policy's own"


def test_a_result_that_cannot_travel_names_its_key() -> None:
    """The policy's author learns which entry is wrong."""
    with pytest.raises(EncodeError, match="debug/features"):
        ServerProtocol({}).reply({"debug": {"features": {1}}}, infer_ms=0.0)


@pytest.mark.parametrize(
    ("sent", "text", "kind", "after"),
    [
        (
            "busy retry_after_s=0.250: 40 requests wait",
            "the server refused the request (busy): 40 requests wait",
            "busy",
            0.25,
        ),
        ("late: too late", "the server refused the request (late): too late", "late", None),
        ("something new", "the server refused the request: something new", "", None),
    ],
)
def test_a_refused_request_fails_alone(
    sent: str, text: str, kind: str, after: float | None
) -> None:
    """Our server's text for a request that was not let through counts as its reply; the others go on."""
    client = ready_client()
    client.request_sent(1)
    client.request_sent(2)
    (failed,) = client.receive(f"{REFUSED}{sent}")
    assert isinstance(failed, RequestFailed)
    assert isinstance(failed.error, RequestRefused)
    said = (failed.seq, str(failed.error), failed.error.kind, failed.error.retry_after_s)
    assert said == (1, text, kind, after)
    (reply,) = client.receive(codec.encode({"actions": 1}))
    assert isinstance(reply, ReplyReceived)
    assert (reply.seq, client.state) == (2, ProtocolState.READY)


@pytest.mark.parametrize(
    ("debug", "first_line"),
    [(True, "Traceback (most recent call last):"), (False, "KeyError: 'observation/state'")],
)
def test_error_text(debug: bool, first_line: str) -> None:
    """With debug the whole traceback, as OpenPI sends it; without, its last line alone."""
    server = ServerProtocol({}, debug=debug)
    try:
        {}["observation/state"]
    except KeyError as exc:
        lines = server.error_text(exc).splitlines()
    assert lines[0] == first_line
    assert lines[-1] == "KeyError: 'observation/state'"


@pytest.mark.parametrize(
    ("debug", "text", "passed_on"),
    [
        (True, "Traceback ...\nKeyError: 1\n", "Traceback ...\nKeyError: 1\n"),
        (False, "Traceback ...\nKeyError: 1\n", "KeyError: 1\n"),
        (False, "", "server error\n"),
    ],
)
def test_another_servers_error_is_passed_on(debug: bool, text: str, passed_on: str) -> None:
    """Word for word to whom may see tracebacks."""
    assert ServerProtocol({}, debug=debug).passed_on(server_error(text)) == passed_on


def test_what_a_server_announced_can_be_asked() -> None:
    """Who passes messages on has to know what clients were told."""
    server = ServerProtocol({}, encoded_images=True, deadlines=True)
    assert (server.encoded_images, server.reads_realtime) == (True, True)
    assert (ServerProtocol({}).encoded_images, ServerProtocol({}).reads_realtime) == (False, False)


def test_images_are_unpacked_after_reading() -> None:
    """Reading is quick, and says what the robot says; `request` does both."""
    image = np.zeros((32, 32, 3), np.uint8)
    packed, _ = encode_images({"image": image, "prompt": "pick"}, 80)
    payload = codec.encode(packed)
    server = ServerProtocol({}, encoded_images=True, deadlines=True)
    asked = server.read(payload)
    assert isinstance(asked, Asked)
    assert (asked.packed, asked.observation["image"]["shape"]) == (True, [32, 32, 3])
    for observation in (server.unpacked(asked.observation), server.request(payload)[0]):
        assert np.array_equal(observation["image"], image)
    for other in (server.read(codec.encode(OBSERVATION)), ServerProtocol({}).read(payload)):
        assert isinstance(other, Asked)
        assert not other.packed
    assert ServerProtocol({}).unpacked(packed) is packed


@pytest.mark.parametrize("debug", [False, True])
def test_an_error_text_has_a_bound(debug: bool) -> None:
    """What a policy quotes may be what a client has sent; the client finds the error all the same."""
    server = ServerProtocol({}, debug=debug)
    try:
        raise KeyError("k" * 1_000_000)
    except KeyError as exc:
        text = server.error_text(exc)
    assert len(text) < 66_000
    assert text.endswith("characters more)\n")
    assert str(server_error(text)).startswith("server error: KeyError: 'kkk")
    assert len(server.passed_on(server_error(f"KeyError: {'k' * 1_000_000}\n"))) < 66_000


def test_without_debug_no_file_and_no_note_is_told() -> None:
    """A syntax error in somebody's policy names its file, JAX hangs notes on its errors: both stay here."""
    server = ServerProtocol({}, debug=False)
    error = SyntaxError("invalid", ("/home/somebody/policy.py", 3, 1, "secret = ", 3, 2))
    error.add_note("in /home/somebody")
    assert server.error_text(error) == "SyntaxError: invalid\n"
    assert server.error_text(ValueError("two\nlines")) == "ValueError: two\nlines\n"


# -------------------------------------------------------------------------------------- the two sides linked


@given(st.lists(st.sampled_from(["request", "reply", "bad reply"]), max_size=30))
def test_linked_sides_agree_on_whose_reply_is_whose(steps: list[str]) -> None:
    """However requests and replies interleave, each request gets the reply that was made for it."""
    client, server = ClientProtocol(), ServerProtocol(METADATA)
    assert client.receive(server.metadata_message) == [MetadataReceived(METADATA)]
    link: list[tuple[int, bytes]] = []
    sent = 0
    for step in steps:
        if step == "request":
            link.append((sent, codec.encode({**OBSERVATION, "number": sent})))
            client.request_sent(sent)
            sent += 1
        elif link:
            seq, message = link.pop(0)
            number = server.request(message)[0]["number"]
            reply = server.reply({"number": number}, infer_ms=1.0)
            [event] = client.receive(reply if step == "reply" else b"\xc1")
            assert event.seq == seq  # type: ignore[union-attr]
            if isinstance(event, ReplyReceived):
                assert event.reply["number"] == seq
    assert client.outstanding == tuple(seq for seq, _ in link)


def test_linked_sides_carry_timing_from_the_second_reply_on() -> None:
    """`prev_total_ms` is the previous exchange's, so the first reply has none."""
    client, server = ready_client(0, 1), ServerProtocol(METADATA)
    [first] = client.receive(server.reply({}, infer_ms=1.0))
    server.reply_sent(total_ms=3.5)
    [second] = client.receive(server.reply({}, infer_ms=2.0))
    assert isinstance(first, ReplyReceived)
    assert isinstance(second, ReplyReceived)
    assert first.reply == {"server_timing": {"infer_ms": 1.0}}
    assert second.reply == {"server_timing": {"infer_ms": 2.0, "prev_total_ms": 3.5}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "(empty text)"),
        ("just a sentence", "just a sentence"),
        (
            'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\n'
            "KeyError: 'observation/state'\n",
            "KeyError: 'observation/state'",
        ),
        (
            'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\n'
            "ValueError: state has 7 values\nexpected 6\n--------------------\n"
            "For simplicity, JAX has removed its internal frames from the traceback.\n",
            "ValueError: state has 7 values",
        ),
        (
            'Traceback (most recent call last):\n  File "a.py", line 1, in f\nKeyError: 1\n\n'
            "During handling of the above exception, another exception occurred:\n\n"
            'Traceback (most recent call last):\n  File "b.py", line 2, in g\nRuntimeError: two\n',
            "RuntimeError: two",
        ),
        ('Traceback (most recent call last):\n  File "cut off', 'File "cut off'),
    ],
)
def test_error_text_names_what_was_raised(text: str, expected: str) -> None:
    """The line that names the exception, whatever notes follow it."""
    error = server_error(text)
    assert str(error) == f"server error: {expected}"
    assert error.detail == text


class TestHostileServers:
    """What a server says is shown to people: printable, and of a length that a screen has."""

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("ValueError: \x1b[2J", "server error: ValueError: \\x1b[2J"),
            ("RequestRefused: busy: wait\nall is well\x07", "wait\\nall is well\\x07"),
            ("RequestRefused: \x9b", "the server refused the request: \\x9b"),
            ("E: " + "x" * 5000, "x..."),
        ],
    )
    def test_an_escape_sequence_reaches_no_terminal(self, text: str, shown: str) -> None:
        """The error's text has it written out; `.detail` has it as it came."""
        error = server_error(text)
        assert str(error).endswith(shown)
        assert len(str(error)) < 600
        assert error.detail == text

    def test_a_close_reason_is_written_out_too(self) -> None:
        """It is in the log at every reconnect."""
        client = ready_client()
        client.connection_ended(code=1011, reason="\x1b]0;owned\x07")
        assert str(client.error).endswith("code 1011 (\\x1b]0;owned\\x07)")

    @pytest.mark.parametrize(
        "metadata",
        [
            {"weights": b"\0" * 1024 * 1024},
            {str(number): None for number in range(10_000)},
        ],
    )
    def test_metadata_has_bounds_of_its_own(self, metadata: dict[str, Any]) -> None:
        """It is kept and looked at on every connection; it is not tried again."""
        client = ClientProtocol()
        assert client.receive(codec.encode(metadata)) == []
        assert isinstance(client.error, IncompatibleServer)
        assert not client.error.retryable

    @pytest.mark.parametrize("key", ["object", "fingerprint", "needs_session_id", "_rt", "_images"])
    def test_an_array_where_a_word_is_expected_says_nothing(self, key: str) -> None:
        """It would compare to an array, which is neither true nor false."""
        client = ClientProtocol(dialect="auto")
        (greeted,) = client.receive(codec.encode({key: np.ones(3)}))
        assert isinstance(greeted, MetadataReceived)
        assert client.dialect.name == "openpi"

    def test_an_answer_whose_status_is_an_array_is_no_error(self) -> None:
        """Of the dialects that say so with a word."""
        client = ClientProtocol(dialect="starvla")
        client.receive(b"\x80")
        client.request_sent(0)
        answer = {"status": np.ones(2), "type": np.ones(2), "data": {"actions": np.ones((1, 2, 3))}}
        (replied,) = client.receive(codec.encode(answer))
        assert isinstance(replied, ReplyReceived)

    def test_channels_without_any_are_no_rows(self) -> None:
        """An empty array of three dimensions was an internal error."""
        client = ClientProtocol(dialect="lingbot-va")
        client.receive(b"\x80")
        client.request_sent(0)
        (replied,) = client.receive(codec.encode({"action": np.ones((0, 2, 3))}))
        assert isinstance(replied, ReplyReceived)
        assert 0 in replied.reply["actions"].shape

    def test_of_a_text_of_megabytes_the_end_is_looked_at(self) -> None:
        """A list of its lines would take sixty times as much."""
        text = "\n" * 10_000_000 + "KeyError: 'x'"
        assert str(server_error(text)) == "server error: KeyError: 'x'"
