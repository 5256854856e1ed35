# SPDX-License-Identifier: Apache-2.0
"""The checks of a server: a good one passes, and one that breaks a clause is found to break just that."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from mutant_servers import (
    MUTANTS,
    OBSERVATION,
    ROWS,
    ExchangingByContent,
    GoodServer,
    StrictLink,
    changed,
)
from mutant_servers import _asks_late_for_keys as asks_late

from pi05_websocket.conformance.checks import Check, selected
from pi05_websocket.conformance.clauses import CLAUSES
from pi05_websocket.conformance.examine_server import SERVER_CHECKS, examine_server, look
from pi05_websocket.conformance.frames import Frame, HttpHead, response_head
from pi05_websocket.conformance.link import Heard, Link
from pi05_websocket.conformance.target import ServerSettings, Target
from pi05_websocket.conformance.verdicts import Found, Verdict, conforms, failures, ok, report
from pi05_websocket.errors import DecodeError
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.server.keys_file import add_key
from pi05_websocket.wire.dialects import DIALECTS
from pi05_websocket.wire.protocol import Asked, ServerProtocol

ALL = ("connection", "request", "rough")


@contextlib.contextmanager
def running(kind: type[GoodServer]) -> Iterator[GoodServer]:
    """Start a server of a kind."""
    server = kind()
    try:
        yield server
    finally:
        server.close()


def examined(url: str, dialect: str = "openpi", **words: object) -> list[Verdict]:
    """Return the verdicts on a server."""
    settings = ServerSettings(
        url=url,
        observation=OBSERVATION,
        dialect=dialect,
        patience_s=1.0,
        first_patience_s=1.0,
        quiet_s=0.1,
    )
    return list(examine_server(settings, selected(SERVER_CHECKS, needs=ALL, **words)))  # type: ignore[arg-type]


def test_the_good_server_breaks_nothing() -> None:
    """The double that all mutants are made from keeps every clause, SHOULD included."""
    with running(GoodServer) as server:
        verdicts = examined(server.url)
    assert conforms(verdicts), report(verdicts, "the double")
    assert failures(verdicts, "should") == []


@pytest.mark.parametrize(
    ("clause", "kind"), MUTANTS, ids=[f"{clause}-{i}" for i, (clause, _) in enumerate(MUTANTS)]
)
def test_a_server_that_breaks_a_clause_is_found(clause: str, kind: type[GoodServer]) -> None:
    """The check of that clause fails, and names it."""
    with running(kind) as server:
        verdicts = examined(server.url, kind.dialect, only=(clause,))
    broken = {name for each in failures(verdicts) for name in each.clauses}
    assert clause in broken, report(verdicts, clause)


def test_every_must_on_servers_has_a_mutant() -> None:
    """No check of a MUST is without a server that it fails."""
    checked = {clause for each in SERVER_CHECKS if each.level == "must" for clause in each.clauses}
    assert checked == {clause for clause, _ in MUTANTS}


def test_what_is_checked_is_what_the_clauses_say() -> None:
    """A clause that binds servers is checked, or says why not."""
    checked = {clause for each in SERVER_CHECKS for clause in each.clauses}
    for clause in CLAUSES.values():
        if clause.binds != "client":
            assert (clause.id in checked) == (clause.unchecked == ""), clause.id


class Still:
    """A policy that stays where the arm is."""

    def infer(self, observation: dict[str, object]) -> dict[str, object]:
        """Answer."""
        return {"actions": ROWS.astype(np.float32)}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_our_server_conforms_in_every_dialect(dialect: str) -> None:
    """Every MUST and every SHOULD, what a weak server dies of included."""
    with WebsocketPolicyServer(Still(), "127.0.0.1", 0) as server:
        verdicts = examined(f"{server.url}/{dialect}", dialect)
    assert conforms(verdicts), report(verdicts, dialect)
    assert failures(verdicts, "should") == []


def test_a_server_with_keys_refuses_others_before_the_upgrade(tmp_path) -> None:
    """Ours answers 401, and lets the examiner in with its key."""
    from datetime import UTC, datetime

    file = tmp_path / "keys.json"
    secret = add_key(file, "arm", datetime.now(UTC))
    config = ServerConfig(keys=str(file))
    with WebsocketPolicyServer(Still(), "127.0.0.1", 0, config=config) as server:
        settings = ServerSettings(
            url=server.url,
            observation=OBSERVATION,
            headers={"Authorization": f"Api-Key {secret}"},
        )
        checks = selected(SERVER_CHECKS, only=("S-23", "S-7"))
        verdicts = list(examine_server(settings, checks))
    assert [each.outcome for each in verdicts] == ["passed", "passed"]


@pytest.mark.parametrize(
    ("scheme", "outcome", "got"),
    [
        ("Bearer", "passed", "it reads Bearer"),
        ("Token", "failed", "read as Api-Key or Bearer by neither name"),
    ],
)
def test_the_right_key_has_to_be_read_under_a_name_of_the_clause(
    scheme: str, outcome: str, got: str
) -> None:
    """One of the two is enough; a third is none."""

    def response(self: GoodServer, head: HttpHead) -> bytes:
        if head.get("authorization") != f"{scheme} secret":
            return response_head("401 Unauthorized", {"Content-Length": "0"})
        return GoodServer.response(self, head)

    with running(changed("response", response)) as server:
        settings = ServerSettings(
            url=server.url,
            observation=OBSERVATION,
            headers={"Authorization": f"{scheme} secret"},
        )
        [verdict] = examine_server(settings, selected(SERVER_CHECKS, only=("keys",)))
    assert verdict.outcome == outcome
    assert verdict.got.endswith(got)


def test_without_the_right_key_nothing_is_said_of_it() -> None:
    """Others are refused; whether it would be let in is not known."""

    def response(self: GoodServer, head: HttpHead) -> bytes:
        return response_head("403 Forbidden", {"Content-Length": "0"})

    with running(changed("response", response)) as server:
        [verdict] = examined(server.url, only=("keys",))
    assert verdict.outcome == "passed"
    assert verdict.got.endswith("with the right one it was not asked: give it")


class TestWhoseAnswer:
    """What two answers in their order are told apart by."""

    def told(self, kind: type[GoodServer]) -> str:
        """Return what the verdict on a server that keeps the order says."""
        with running(kind) as server:
            [verdict] = examined(server.url, kind.dialect, only=("order",))
        assert verdict.outcome == "passed"
        return verdict.got

    def test_by_number(self) -> None:
        """Of a server that reads `_rt`."""
        assert "by _rt.seq" in self.told(GoodServer)

    def test_by_request_id(self) -> None:
        """Of starVLA's."""
        assert "by request_id" in self.told(changed("dialect", "starvla"))

    def test_by_actions(self) -> None:
        """Of a stock one, whose actions follow from the observation."""
        assert "by their actions" in self.told(InOrder)

    def test_not_by_noise(self) -> None:
        """Actions that follow from chance tell nothing, and the verdict says so."""
        assert "do not follow from the observation alone" in self.told(
            changed("noise", 5.0, InOrder)
        )

    def test_not_where_another_observation_is_an_error(self) -> None:
        """A policy that takes one state alone is asked with that."""

        def answer(self: GoodServer, protocol: ServerProtocol, asked: Asked) -> bytes:
            if asked.observation["observation/state"][0] != 0:
                raise ValueError("beyond its range")
            return InOrder.answer(self, protocol, asked)

        assert "takes no other observation" in self.told(changed("answer", answer, InOrder))

    def test_not_where_chunks_have_no_one_shape(self) -> None:
        """One row here, two there."""

        def answer(self: GoodServer, protocol: ServerProtocol, asked: Asked) -> bytes:
            self.rows = 3 - getattr(self, "rows", 1)
            return protocol.reply({"actions": ROWS[: self.rows]}, infer_ms=1.0)

        assert "differ in shape" in self.told(changed("answer", answer, InOrder))

    def test_a_request_that_a_newer_one_replaces_is_no_fault(self) -> None:
        """A server that reads `_rt` may refuse it, in its place."""

        def serve(self: GoodServer, link: Link) -> None:
            protocol = self.protocol()
            self.greet(link, protocol)
            while (heard := link.message(30)).said is not None:
                newer = link.message(0.1)
                if newer.said is not None:
                    link.send_message(self.refusal())
                    heard = newer
                try:
                    link.send_message(next(self.answers(protocol, heard)))
                except DecodeError as exc:
                    self.fail(link, protocol, exc)
                    return

        assert "in their order, by _rt.seq" in self.told(changed("serve", serve))


class InOrder(ExchangingByContent):
    """A stock server whose actions tell whose they are."""

    def serve(self, link: Link) -> None:
        """Answer one after the other."""
        GoodServer.serve(self, link)


def test_a_big_request_may_be_refused_for_what_it_is_made_bigger_with() -> None:
    """A policy that takes no other keys refuses a small one too, for the same."""

    def answers(self: GoodServer, protocol: ServerProtocol, heard: Heard) -> Iterator[bytes | str]:
        if b"conformance" in heard.payload:
            raise KeyError(f"conformance, in {len(heard.payload)} bytes")
        yield from GoodServer.answers(self, protocol, heard)

    with running(changed("answers", answers)) as server:
        [verdict] = examined(server.url, only=("big",))
    assert verdict.outcome == "passed"
    assert verdict.got.endswith("as to a small one with another key")


def test_what_could_not_be_looked_at_is_no_conformance() -> None:
    """Nobody listens: everything is skipped, one sentence says why, and it does not conform."""
    with running(GoodServer) as server:
        url = server.url
    verdicts = examined(url, only=("S-7", "S-16"))
    assert {each.outcome for each in verdicts} == {"skipped"}
    assert not conforms(verdicts)
    assert {each.lacks for each in verdicts} == {"server"}
    assert report(verdicts, url).startswith(f"Nothing could be judged: {url}: Connection refused")
    assert len(report(verdicts, url).splitlines()) == 1


def test_a_refusal_is_cut_at_a_word() -> None:
    """What is left out is marked."""
    words = "RequestRefused: late: " + "inference " * 20
    with running(changed("refusal", lambda self: words)) as server:
        [verdict] = examined(server.url, only=("refusal",))
    assert verdict.got.endswith("inference …")
    assert len(verdict.got) <= 80


def test_a_server_that_does_not_know_the_observation_says_so() -> None:
    """Its error is quoted, with what to do."""

    def answers(self, protocol, heard):
        raise KeyError("observation/image")
        yield b""

    with running(changed("answers", answers)) as server:
        [verdict] = examined(server.url, only=("actions",))
    assert verdict.outcome == "skipped"
    assert "KeyError: 'observation/image'. Give one that its policy takes" in verdict.got


def test_another_observation_is_no_broken_clause() -> None:
    """Of a server that keeps every clause; what must be asked for is skipped, and the last line says why."""

    def answers(self, protocol, heard):
        protocol.read(heard.said)
        raise KeyError("observation/images/front")
        yield b""

    with running(changed("answers", answers)) as server:
        verdicts = examined(server.url)
    assert failures(verdicts) == [], report(verdicts, "strict")
    assert not conforms(verdicts)
    outcomes = {each.check: (each.outcome, each.lacks) for each in verdicts}
    for check in ("actions", "rt-answer", "rt-wrong", "rt-stock", "images-wrong", "half"):
        assert outcomes[check] == ("skipped", "observation"), check
    last = report(verdicts, "strict").splitlines()[-1]
    assert "refused the observation" in last
    assert "--observation FILE" in last
    assert "--keymap NAME" in last


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("no-compression", ("agreed", lambda self, head: GoodServer.agreed(self, head) | {
            "Sec-WebSocket-Extensions": "permessage-deflate"})),
        ("health", ("response", lambda self, head: GoodServer.response(
            self, HttpHead(line="GET /x HTTP/1.1", headers=head.headers)))),
        ("no-upgrade", ("response", lambda self, head: GoodServer.response(self, head)
            if head.get("upgrade") else response_head("404 Not Found", {"Content-Length": "0"}))),
        ("timing", ("answer", lambda self, protocol, asked: b"\x80")),
        ("answer-bytes", ("answer", lambda self, protocol, asked: b"\x81\xa1n\xcc\x01")),
        ("error-reason", ("fail", lambda self, link, protocol, exc: (
            link.send_message("boom"), link.say_goodbye(1011, 1.0, "sorry")))),
        ("error-cause", ("fail", lambda self, link, protocol, exc: (
            link.send_message("it broke!"), link.say_goodbye(1011, 1.0)))),
    ],
)  # fmt: skip
def test_a_should_that_is_not_kept_is_told_and_no_failure(check: str, change: tuple) -> None:
    """The verdict says what was got; the exit code does not depend on it."""
    with running(changed(*change)) as server:
        [verdict] = examined(server.url, only=(check,))
    assert (verdict.level, verdict.outcome) == ("should", "failed")


def test_a_server_that_asks_for_keys_after_the_upgrade_is_told() -> None:
    """Closing later is not refusing before."""
    with running(changed("greet", asks_late)) as server:
        [verdict] = examined(server.url, only=("keys",))
    assert verdict.got == "without a key it upgrades, then close code 4401 (no key)"


class EndlessHealth(GoodServer):
    """Answers a plain GET with a body that has no end: at once, or a byte now and then."""

    pause_s = 0.0

    def talk(self, sock: socket.socket) -> None:
        """Send until nobody is there any more."""
        if b"Upgrade" in sock.recv(4096, socket.MSG_PEEK):
            super().talk(sock)
            return
        with sock, contextlib.suppress(OSError):
            sock.sendall(response_head("200 OK", {"Content-Length": str(10**12)}, b"OK\n"))
            while not threading.Event().wait(self.pause_s):
                sock.sendall(bytes(1 if self.pause_s else 65536))


@pytest.mark.parametrize("pause_s", [0.0, 0.05])
def test_a_body_without_end_is_left_in_time(pause_s: float) -> None:
    """What is read of it has a bound, and a time; the other checks are made."""
    with running(changed("pause_s", pause_s, EndlessHealth)) as server:
        verdicts = examined(server.url, only=("health", "metadata"))
    assert [each.outcome for each in verdicts] == ["failed", "passed"]
    assert verdicts[0].got.startswith("200 b'OK")


class Talker(StrictLink):
    """Answers a frame that none may send with messages, for ever."""

    def _take(self, frame: Frame) -> Heard | None:
        while not frame.masked:
            self._socket.sendall(
                b"\x81\x02no"
            )  # raises once nobody is there any more: that is the end of it
        return super()._take(frame)


def test_messages_without_end_instead_of_a_close_are_a_verdict() -> None:
    """And no reason to listen for ever."""
    with running(changed("link_class", Talker)) as server:
        [verdict] = examined(server.url, only=("frames",))
    assert (verdict.outcome, verdict.got) == ("failed", "silence after an unmasked frame")


class Pinging(GoodServer):
    """Sends pings after its metadata, and reads nothing."""

    def greet(self, link: Link, protocol: ServerProtocol) -> None:
        """Send pings until nobody is there any more."""
        super().greet(link, protocol)
        while True:
            link._socket.sendall(b"\x89\x7d" + bytes(125))  # raises when that is so


def test_a_server_that_pings_and_reads_nothing_is_left_in_time() -> None:
    """One verdict says so, and the others are made."""
    with running(Pinging) as server:
        verdicts = examined(server.url, only=("ping", "metadata"))
    assert [each.outcome for each in verdicts] == ["passed", "failed"]


def test_a_connection_that_breaks_in_a_check_is_that_checks_verdict() -> None:
    """The other checks go on."""

    def breaks(target: Target) -> Found:
        with target.tcp() as sock:
            sock.close()
            sock.sendall(b"anybody?")
        return ok("never")

    with running(GoodServer) as server:
        target = Target(ServerSettings(url=server.url, observation=OBSERVATION))
        check = Check(name="breaks", clauses=("S-1",), expected="none", look=breaks)
        verdict = look(check, target)
    assert (verdict.outcome, verdict.got) == ("skipped", "[Errno 9] Bad file descriptor")
