# SPDX-License-Identifier: Apache-2.0
"""The checks of a client: a good one passes, and one that breaks a clause is found to break just that."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
from mutant_clients import MUTANTS, OBSERVATION, GoodClient, Left, Link, Slow, changed

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.conformance.clauses import CLAUSES
from pi05_websocket.conformance.examine_client import CLIENT_CHECKS, ClientExamination
from pi05_websocket.conformance.frames import request_head
from pi05_websocket.conformance.link import Heard
from pi05_websocket.conformance.sockets import open_socket, read_http
from pi05_websocket.conformance.verdicts import Verdict, conforms, failures, report
from pi05_websocket.conformance.visit import ClientSettings, Visit
from pi05_websocket.errors import ConfigError, Pi05WebsocketError
from pi05_websocket.wire import codec

SOON = ClientSettings(patience_s=2.0, hold_s=0.2, late_s=0.8, quiet_s=0.05)


def examined(kind: type[GoodClient], **words: object) -> list[Verdict]:
    """Return the verdicts on a client."""
    examination = ClientExamination(SOON, **words)  # type: ignore[arg-type]
    examination.start()
    client = kind(examination)
    verdicts = examination.wait()
    client.join()
    return verdicts


def test_the_good_client_breaks_nothing() -> None:
    """The double that all mutants are made from keeps every clause, SHOULD included, and uses all of them."""
    verdicts = examined(GoodClient)
    assert conforms(verdicts), report(verdicts, "the double")
    assert {each.outcome for each in verdicts} == {"passed"}, report(verdicts, "the double")


@pytest.mark.parametrize(
    ("clause", "kind"), MUTANTS, ids=[f"{clause}-{i}" for i, (clause, _) in enumerate(MUTANTS)]
)
def test_a_client_that_breaks_a_clause_is_found(clause: str, kind: type[GoodClient]) -> None:
    """The check of that clause fails, and names it."""
    verdicts = examined(kind, only=(clause,))
    broken = {name for each in failures(verdicts) for name in each.clauses}
    assert clause in broken, report(verdicts, clause)


def test_every_must_on_clients_has_a_mutant() -> None:
    """No check of a MUST is without a client that it fails."""
    checked = {clause for each in CLIENT_CHECKS if each.level == "must" for clause in each.clauses}
    assert checked == {clause for clause, _ in MUTANTS}


def test_what_is_checked_is_what_the_clauses_say() -> None:
    """A clause that binds clients alone is checked, or says why not."""
    checked = {clause for each in CLIENT_CHECKS for clause in each.clauses}
    for clause in CLAUSES.values():
        if clause.binds == "client":
            assert (clause.id in checked) == (clause.unchecked == ""), clause.id


def asked_by_ours(examination: ClientExamination, **settings: object) -> list[Verdict]:
    """Let our client ask until the examination is over; return the verdicts."""
    examination.start()
    config = ConnectionConfig(
        url=examination.url,
        backoff_first=0.02,
        backoff_max=0.1,
        **settings,  # type: ignore[arg-type]
    )
    with RemotePolicy(config=config, wait_for_server=5) as policy:

        def ask() -> None:
            while examination.wanting:
                with contextlib.suppress(Pi05WebsocketError):
                    policy.infer(OBSERVATION)

        robot = threading.Thread(target=ask)
        robot.start()
        verdicts = examination.wait()
        policy.close()
        robot.join()
    return verdicts


def test_our_client_conforms() -> None:
    """Every MUST and every SHOULD; it comes back by itself."""
    verdicts = asked_by_ours(ClientExamination(SOON))
    assert conforms(verdicts), report(verdicts, "ours")
    assert failures(verdicts, "should") == []


def test_a_client_of_ours_with_a_short_deadline_tells_late_answers_apart() -> None:
    """It asks again on the same connection, and counts."""
    examination = ClientExamination(SOON, only=("late",))
    [verdict] = asked_by_ours(examination, request_timeout=0.3, first_request_timeout=0.3)
    assert verdict.outcome == "passed"
    assert "did not take the first answer for the second's" in verdict.got


def test_a_client_that_executes_and_tells_late_answers_apart_is_told_from_a_confused_one() -> None:
    """It asks a third time when its own patience ends, not when the late answer is executed."""

    def reply(self: Slow, link: Link) -> Heard:
        heard = link.message(self.waits_s)
        asked = 1
        while heard.what == "silence":
            link.send_message(codec.encode(OBSERVATION))
            asked += 1
            heard = link.message(self.waits_s)
            if heard.said is not None and asked == 2:  # the first request's
                heard = link.message(self.waits_s)
        threading.Event().wait(self.executes_s)
        return heard

    [verdict] = examined(changed_from(Slow, reply=reply), only=("late",))
    assert verdict.outcome == "passed"
    assert "it did not take the first answer for the second's" in verdict.got


def test_where_patience_and_execution_are_as_long_nothing_is_said() -> None:
    """Not even that it conforms; what to do is said."""
    [verdict] = examined(changed_from(Slow, executes_s=0.3, waits_s=0.3), only=("late",))
    assert verdict.outcome == "skipped"
    assert "Give --action-horizon or the client's timeout another length" in verdict.got


def changed_from(base: type[GoodClient], **things: object) -> type[GoodClient]:
    """Return a client with things changed."""
    return type("Changed", (base,), things)


def test_nobody_comes() -> None:
    """Everything is skipped with the reason, and that is no conformance."""
    examination = ClientExamination(ClientSettings(patience_s=0.05))
    verdicts = examination.run()
    assert {each.outcome for each in verdicts} == {"skipped"}
    assert "did not connect within 0.05 s" in verdicts[0].got
    assert not conforms(verdicts)


@pytest.mark.parametrize(
    ("check", "kind"),
    [
        ("again-after-close", changed("run", lambda self: Once.run(self))),
        ("held", changed("timeout_s", 0.1)),
    ],
)
def test_a_should_that_is_not_kept_is_told_and_no_failure(
    check: str, kind: type[GoodClient]
) -> None:
    """A client that never comes back, and one that gives up while it waits."""
    verdicts = examined(kind, only=(check,))
    assert [each.outcome for each in verdicts] == ["failed"]
    assert failures(verdicts) == []


class Once:
    """Connects once."""

    @staticmethod
    def run(client: GoodClient) -> None:
        """Ask until the connection ends."""
        with contextlib.suppress(OSError, Left):
            host, port = client._examination.url[5:].split(":")
            with socket.create_connection((host, int(port))) as sock:
                client.upgrade(sock)


def test_a_client_that_sends_ahead_is_not_taken_for_a_confused_one() -> None:
    """Two requests at once say nothing about late answers."""

    def before(self: GoodClient, link: Link) -> None:
        self.pending = 0

    def reply(self: GoodClient, link: Link):
        if self.pending == 0:
            link.send_message(self.message({}, 0))
            self.pending = 1
        return link.message(5)

    ahead = type("Ahead", (GoodClient,), {"before": before, "reply": reply})
    [verdict] = examined(ahead, only=("late",))
    assert verdict.outcome in ("not applicable", "passed")


def test_plain_http_is_answered_while_it_waits() -> None:
    """A client that polls the health check first is let go on."""
    examination = ClientExamination(ClientSettings(patience_s=1.0))
    examination.start()
    base = examination.url.replace("ws:", "http:")
    with urllib.request.urlopen(f"{base}/healthz", timeout=5) as health:
        assert health.read() == b"OK\n"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(base, timeout=5)
    assert refused.value.code == 426
    refused.value.close()
    examination.wait()


@pytest.mark.parametrize("words", [{"action_dim": 0}, {"action_horizon": 0}])
def test_chunks_without_rows_or_columns_are_refused(words: dict[str, int]) -> None:
    """They would be no chunks."""
    with pytest.raises(ConfigError, match="at least 1"):
        ClientSettings(**words)


def test_a_word_that_names_nothing_is_refused() -> None:
    """With the reason, where the clause is not looked at."""
    with pytest.raises(ConfigError, match=r"C-20: no check .*cannot be seen"):
        ClientExamination(only=("C-20",))


def asks_and_resets(examination: ClientExamination) -> None:
    """Ask for the upgrade and hang up as a machine does that lost its power, before the answer."""
    host, port = examination.url[5:].split(":")
    with socket.create_connection((host, int(port))) as sock:
        sock.sendall(request_head("/", host, GoodClient.key, {}))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_handshake_that_breaks_off_is_no_connection_and_costs_no_verdict() -> None:
    """The next one is waited for."""
    examination = ClientExamination(SOON, only=("nothing-agreed", "upgrade", "requests"))
    asks_and_resets(examination)
    examination.start()
    client = GoodClient(examination)
    verdicts = examination.wait()
    client.join()
    assert [each.outcome for each in verdicts] == ["passed"] * 3, report(verdicts, "it")


def test_nobody_but_broken_handshakes_is_nobody() -> None:
    """Every check is skipped with that reason."""
    examination = ClientExamination(ClientSettings(patience_s=0.2))
    asks_and_resets(examination)
    verdicts = examination.run()
    assert {each.outcome for each in verdicts} == {"skipped"}
    assert "did not connect within 0.2 s" in verdicts[0].got


def test_a_state_of_a_million_numbers_makes_no_chunk_of_gigabytes() -> None:
    """No arm has as many joints as it has columns."""
    visit = Visit(SOON)
    visit.close()
    rows = visit.rows(codec.encode({"observation/state": np.ones(1_000_000, np.float32)}))
    assert rows.shape == (10, 1024)


def test_requests_are_kept_up_to_a_bound() -> None:
    """Those that come afterwards are heard and not judged."""
    visit = Visit(SOON)
    request = codec.encode({"observation/image": np.zeros(50_000_000, np.uint8)})

    def ask() -> None:
        with (
            contextlib.suppress(OSError),
            contextlib.closing(open_socket(visit.url, 5, None)) as sock,
        ):
            sock.sendall(request_head("/", "localhost", GoodClient.key, {}))
            found = read_http(sock, 5)
            link = Link(sock, masks=True, rest=found[1] if found else b"")
            for _ in range(6):
                link.send_message(request)
            link.receive(30)

    client = threading.Thread(target=ask)
    client.start()
    heard = [visit.hear(30.0).what for _ in range(6)]
    visit.close()
    client.join()
    assert heard == ["binary"] * 6
    assert len(visit.evidence.requests) == 5
