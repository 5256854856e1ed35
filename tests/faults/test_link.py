# SPDX-License-Identifier: Apache-2.0
"""What the connection does about each way a server or a network can fail. See docs/topics/failures.md."""

from __future__ import annotations

import gc
import http
import logging
import socket
import ssl
import struct
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from misbehaving import METADATA, OBSERVATION, eventually, reply, upgrade

from pi05_websocket.client import ConnectionConfig, ConnectionState, RemotePolicy, load_headers
from pi05_websocket.doctor.reaching import named, reached
from pi05_websocket.errors import (
    AccessRefused,
    CertificateRefused,
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    DecodeError,
    IncompatibleServer,
    PolicyError,
)

pytestmark = pytest.mark.faults

RETRYABLE = (408, 425, 429, 500, 502, 503, 504)


def answer_all(connection):
    """Behave: metadata, then the number of each request."""
    connection.send(METADATA)
    for number, _ in enumerate(connection):
        connection.send(reply(number))


def two_addresses(host, port, **_named):
    """Resolve as `getaddrinfo` does, every name to the same two addresses."""
    stream = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    return [(*stream, (address, port)) for address in ("127.0.0.2", "127.0.0.1")]


def frame(payload: bytes, *, opcode: int = 2, fin: bool = True) -> bytes:
    """Return one unmasked frame as a server sends it."""
    head = bytes([(0x80 if fin else 0) | opcode])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    if len(payload) < 65536:
        return head + b"\x7e" + struct.pack(">H", len(payload)) + payload
    return head + b"\x7f" + struct.pack(">Q", len(payload)) + payload


class TestConnecting:
    def test_refused_is_retried_until_the_server_is_there(self, scripted, remote):
        """A robot may be started before its server."""
        server = scripted(answer_all)
        server.stop()
        policy = remote(server.url)
        assert eventually(lambda: isinstance(policy.unavailable(), ConnectFailed))

        server.start()

        assert eventually(lambda: policy.unavailable() is None)
        assert policy.infer(OBSERVATION)["actions"].shape == (10, 6)

    def test_constructor_says_why_there_is_no_server(self, scripted, remote):
        """Like OpenPI's constructor it waits, but not for ever, and names the cause."""
        server = scripted(answer_all)
        server.stop()

        with pytest.raises(ConnectFailed, match="connection refused"):
            remote(server.url, wait_for_server=0.3)

    def test_accepting_and_closing_is_retried(self, bare_tcp, remote):
        """A tunnel to a dead port accepts and hangs up."""
        port = bare_tcp(lambda connection: None)

        policy = remote(f"ws://127.0.0.1:{port}")

        assert eventually(lambda: policy.connection.state is ConnectionState.WAITING)
        assert isinstance(policy.connection.error, ConnectFailed)

    def test_no_answer_to_tcp_costs_the_connect_timeout(self, remote):
        """A host behind a firewall that drops everything is given up in time, and tried again."""
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            address = full.getsockname()
            waiting = [socket.socket() for _ in range(4)]
            for sock in waiting:  # fill the queue: later attempts get no answer at all
                sock.setblocking(False)
                sock.connect_ex(address)

            policy = remote(f"ws://127.0.0.1:{address[1]}", connect_timeout=0.2)

            assert eventually(lambda: isinstance(policy.connection.error, DeadlineExceeded))
            assert policy.connection.error.phase == "connect"
            for sock in waiting:
                sock.close()

    def test_an_address_that_never_answers_costs_the_next_ones_nothing_but_a_moment(
        self, scripted, remote, monkeypatch
    ):
        """A name with two addresses, the first behind a firewall that drops everything: the other is used."""
        server = scripted(answer_all)

        with socket.create_server(("127.0.0.2", server.port), backlog=0):
            waiting = [socket.socket() for _ in range(4)]
            for sock in waiting:
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.2", server.port))
            monkeypatch.setattr(socket, "getaddrinfo", two_addresses)

            policy = remote(f"ws://policy.example:{server.port}", connect_timeout=1.0)

            assert policy.infer(OBSERVATION)["actions"][0, 0] == 0
            findings = []
            with reached(replace(policy.config, connect_timeout=0.3), findings) as other:
                assert other is not None
            assert [finding.outcome for finding in findings] == ["passed"] * 3
            assert "not at 127.0.0.2 (timed out)" in findings[1].said
            for sock in waiting:
                sock.close()

    def test_of_several_addresses_that_refuse_the_last_ones_word_is_told(self, remote, monkeypatch):
        """All were dialled; none is waited for."""
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]

        monkeypatch.setattr(socket, "getaddrinfo", two_addresses)

        policy = remote(f"ws://policy.example:{port}")

        assert eventually(lambda: policy.connection.state is ConnectionState.WAITING)
        assert "connection refused" in str(policy.connection.error)

    def test_silent_server_costs_the_handshake_timeout(self, bare_tcp, remote):
        """A server that never answers the upgrade is given up in time, and tried again."""
        port = bare_tcp(lambda connection: connection.recv(65536) and time.sleep(3))

        policy = remote(f"ws://127.0.0.1:{port}", handshake_timeout=0.2)

        assert eventually(lambda: isinstance(policy.connection.error, DeadlineExceeded))
        assert policy.connection.error.phase == "handshake"
        assert policy.connection.error.retryable

    def test_missing_metadata_costs_the_metadata_timeout(self, scripted, remote):
        """A peer that upgrades and says nothing is no policy server, or a busy one."""
        stop = threading.Event()
        server = scripted(lambda connection: stop.wait(5))

        policy = remote(server.url, metadata_timeout=0.2)

        assert eventually(lambda: isinstance(policy.connection.error, DeadlineExceeded))
        assert policy.connection.error.phase == "metadata"
        assert eventually(lambda: server.connections >= 2)
        stop.set()

    @pytest.mark.parametrize("first", ["text", b"\xc1 no msgpack", b"\x93\x01\x02\x03"])
    def test_other_protocols_are_not_retried(self, scripted, remote, first):
        """What opens with anything but a metadata map is something else."""
        server = scripted(lambda connection: (connection.send(first), connection.recv()))

        policy = remote(server.url)

        assert eventually(lambda: policy.connection.state is ConnectionState.FAILED)
        assert isinstance(policy.connection.error, IncompatibleServer)
        assert server.connections == 1

    @pytest.mark.parametrize(
        ("status", "error", "state"),
        [
            (401, AccessRefused, ConnectionState.FAILED),
            (403, AccessRefused, ConnectionState.FAILED),
            (404, IncompatibleServer, ConnectionState.FAILED),
            (302, IncompatibleServer, ConnectionState.FAILED),
            *((status, ConnectFailed, ConnectionState.WAITING) for status in RETRYABLE),
        ],
    )
    def test_http_answers_decide_what_is_retried(self, scripted, remote, status, error, state):
        """Refused keys and wrong addresses are told at once, a starting server is tried again."""

        def refuse(connection, request):
            return connection.respond(http.HTTPStatus(status), "no\n")

        policy = remote(scripted(answer_all, process_request=refuse).url)

        assert eventually(lambda: policy.connection.state is state)
        assert type(policy.connection.error) is error

    def test_unknown_host_is_retried(self, remote):
        """The robot's network may come up later."""
        policy = remote("ws://no-such-host.invalid:8000")

        assert eventually(lambda: policy.connection.state is ConnectionState.WAITING, 8)
        assert "cannot be resolved" in str(policy.connection.error)

    def test_impossible_host_name_is_a_setting(self, remote):
        """A name with an empty label is told as such and not retried."""
        policy = remote("ws://a..b:8000")

        assert eventually(lambda: policy.connection.state is ConnectionState.FAILED)
        assert isinstance(policy.connection.error, ConfigError)

    def test_key_and_headers_travel_in_the_upgrade(self, scripted, remote, tmp_path: Path):
        """`Authorization: Api-Key …` as OpenPI sends it, and any other header from a file."""
        seen = {}

        def look(connection, request):
            seen.update(request.headers.raw_items())

        headers_file = tmp_path / "headers"
        headers_file.write_text("# for the gateway\nX-Robot: seven\n")
        server = scripted(answer_all, process_request=look)
        headers = load_headers(api_key="s3cret", headers_file=str(headers_file))
        remote(server.url + "/any/path?x=1", headers=headers).infer(OBSERVATION)

        assert seen["Authorization"] == "Api-Key s3cret"
        assert seen["X-Robot"] == "seven"

    def test_environment_proxies_are_not_used(self, scripted, remote, monkeypatch):
        """A dead proxy in the environment does not keep a robot from its server."""
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")

        assert remote(scripted(answer_all).url).infer(OBSERVATION)


class TestTls:
    @pytest.fixture
    def authority(self) -> trustme.CA:
        """A small certificate authority."""
        return trustme.CA()

    def server_context(self, authority: trustme.CA, **options) -> ssl.SSLContext:
        """Return what a server needs to speak TLS, asking for client certificates if told to."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        if options.get("ask"):
            context.verify_mode = ssl.CERT_REQUIRED
            authority.configure_trust(context)
        return context

    def test_own_ca_file(self, scripted, remote, authority, tmp_path: Path):
        """wss:// with a certificate of one's own authority."""
        ca_file = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(ca_file))
        server = scripted(answer_all, tls=self.server_context(authority))

        assert remote(server.url, ca_file=str(ca_file)).infer(OBSERVATION)

    def test_untrusted_certificate_is_not_retried(self, scripted, remote, authority):
        """Without the authority's file the server is refused, with the remedy."""
        policy = remote(scripted(answer_all, tls=self.server_context(authority)).url)

        assert eventually(lambda: policy.connection.state is ConnectionState.FAILED)
        assert isinstance(policy.connection.error, CertificateRefused)
        assert "ca_file" in str(policy.connection.error)

    def test_client_certificate(self, scripted, remote, authority, tmp_path: Path):
        """A server that asks for a client certificate gets it."""
        ca_file, cert_file, key_file = (tmp_path / name for name in ("ca", "cert", "key"))
        authority.cert_pem.write_to_path(str(ca_file))
        mine = authority.issue_cert("robot-7.example.org")
        mine.cert_chain_pems[0].write_to_path(str(cert_file))
        mine.private_key_pem.write_to_path(str(key_file))
        server = scripted(answer_all, tls=self.server_context(authority, ask=True))

        policy = remote(
            server.url,
            ca_file=str(ca_file),
            client_cert_file=str(cert_file),
            client_key_file=str(key_file),
        )

        assert policy.infer(OBSERVATION)

    def test_closing_leaves_no_socket_behind_when_nobody_says_goodbye(
        self, bare_tcp, authority, tmp_path: Path
    ):
        """The end of TLS is waited for, then the connection is cut: the garbage collector finds none."""
        ca_file = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(ca_file))
        context, over = self.server_context(authority), threading.Event()

        def freeze_after_the_metadata(plain: socket.socket) -> None:
            with context.wrap_socket(plain, server_side=True) as connection:
                upgrade(connection)
                connection.sendall(b"\x82\x01\x80")  # a binary message: the metadata, {}
                over.wait(10)

        port = bare_tcp(freeze_after_the_metadata)
        config = ConnectionConfig(url=f"wss://127.0.0.1:{port}", ca_file=str(ca_file))
        with warnings.catch_warnings(record=True) as left_behind:
            warnings.simplefilter("always")
            policy = RemotePolicy(config=config, wait_for_server=10)
            policy.close()
            del policy
            gc.collect()
        over.set()

        assert [str(warning.message) for warning in left_behind] == []

    def test_tls_to_a_plain_server_names_the_mistake(self, scripted, remote):
        """wss:// where only ws:// is spoken."""
        policy = remote(scripted(answer_all).url.replace("ws://", "wss://"))

        assert eventually(lambda: policy.connection.error is not None)
        assert isinstance(policy.connection.error, IncompatibleServer | ConnectFailed)

    @pytest.mark.parametrize("pinned", [False, True])
    @pytest.mark.parametrize("reads", [False, True])
    def test_hanging_up_in_the_handshake_is_told_in_words_and_a_line(
        self, bare_tcp, remote, caplog, capsys, pinned, reads
    ):
        """A tunnel to a dead port behind wss://: what happened and what to do, and no more than that."""
        caplog.set_level(logging.DEBUG)
        port = bare_tcp(lambda connection: reads and connection.recv(10))
        pin = {"tls_fingerprint": "sha256:" + "0" * 64} if pinned else {}

        policy = remote(f"wss://127.0.0.1:{port}", **pin)

        assert eventually(lambda: policy.connection.state is ConnectionState.WAITING)
        assert isinstance(policy.connection.error, ConnectFailed)
        assert "hangs up in the TLS handshake" in str(policy.connection.error)
        policy.close()
        assert [record.message for record in caplog.records if "\n" in record.message] == []
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("pinned", [False, True])
    def test_silence_in_the_handshake_costs_its_timeout(self, bare_tcp, remote, pinned):
        """Whoever accepts and does not say a word of TLS is given up in time, and tried again."""
        port = bare_tcp(lambda connection: time.sleep(3))
        pin = {"tls_fingerprint": "sha256:" + "0" * 64} if pinned else {}

        policy = remote(f"wss://127.0.0.1:{port}", handshake_timeout=0.2, **pin)

        assert eventually(lambda: policy.connection.state is ConnectionState.WAITING)
        assert isinstance(policy.connection.error, DeadlineExceeded)
        assert policy.connection.error.phase == "TLS handshake"

    def test_an_alert_in_the_handshake_is_tried_again(
        self, bare_tcp, remote, authority, tmp_path: Path
    ):
        """A proxy that has no certificate yet says `internal_error`; once it has one, the robot is served."""
        ca_file, connections = tmp_path / "ca.pem", []
        authority.cert_pem.write_to_path(str(ca_file))
        context = self.server_context(authority)

        def alert_first(plain: socket.socket) -> None:
            connections.append(plain)
            if len(connections) == 1:
                plain.recv(65536)
                plain.sendall(bytes([21, 3, 3, 0, 2, 2, 80]))  # an alert: fatal, internal_error
                plain.recv(65536)
                return
            with context.wrap_socket(plain, server_side=True) as connection:
                upgrade(connection)
                connection.sendall(b"\x82\x01\x80")
                connection.recv(65536)

        port = bare_tcp(alert_first)
        policy = remote(
            f"wss://127.0.0.1:{port}", ca_file=str(ca_file), backoff_first=0.5, backoff_max=0.5
        )

        assert eventually(lambda: policy.connection.state is ConnectionState.WAITING)
        assert isinstance(policy.connection.error, ConnectFailed)
        assert "ALERT_INTERNAL_ERROR" in str(policy.connection.error)
        assert named(policy.connection.error, policy.config).mistakes == ("server-busy",)
        assert eventually(lambda: policy.connection.state is ConnectionState.READY)

    def test_missing_certificate_file_is_a_setting(self, remote):
        """A wrong path is told as such and not retried."""
        policy = remote("wss://127.0.0.1:9", ca_file="/no/such/file.pem")

        assert eventually(lambda: policy.connection.state is ConnectionState.FAILED)
        assert isinstance(policy.connection.error, ConfigError)


class TestExchanging:
    def test_late_answer_is_never_the_next_ones(self, scripted, remote):
        """OpenPI has no request ids; the answer to the request that timed out goes nowhere else."""

        def slow_once(connection):
            connection.send(METADATA)
            for number, _ in enumerate(connection):
                time.sleep(0.6 if number == 1 else 0)
                connection.send(reply(number))

        policy = remote(scripted(slow_once).url, hard_timeout=5)
        policy.infer(OBSERVATION)
        with pytest.raises(DeadlineExceeded):
            policy.infer(OBSERVATION)

        third = policy.infer(OBSERVATION)

        assert third["actions"][0, 0] == 2
        assert policy.connection.reconnects == 0

    def test_late_answer_still_reaches_its_own_exchange(self, scripted, remote):
        """The scheduler may still use it by its tick."""

        def slow(connection):
            connection.send(METADATA)
            for _ in connection:
                time.sleep(0.5)
                connection.send(reply(7))

        exchange = None
        policy = remote(scripted(slow).url, hard_timeout=5)
        policy.connection.wait_ready(2)
        exchange = policy.submit(OBSERVATION)
        with pytest.raises(DeadlineExceeded):
            exchange.result(0.1)

        assert exchange.result(2).value["actions"][0, 0] == 7

    def test_hard_timeout_renews_the_socket(self, scripted, remote):
        """A reply that never comes costs the connection, not the robot."""
        release = threading.Event()

        def deaf_once(connection):
            connection.send(METADATA)
            connection.recv()
            connection.send(reply(1))
            if server.connections == 1:
                release.wait(5)
            for _ in connection:
                connection.send(reply(2))

        server = scripted(deaf_once)
        policy = remote(server.url, request_timeout=0.1, hard_timeout=0.3)
        policy.infer(OBSERVATION)
        with pytest.raises(DeadlineExceeded):
            policy.infer(OBSERVATION)

        assert eventually(lambda: server.connections == 2)
        assert eventually(lambda: policy.unavailable() is None)
        assert policy.infer(OBSERVATION)["actions"][0, 0] == 1
        release.set()

    def test_first_request_may_take_minutes(self, scripted, remote):
        """Until the server has answered once, the longer limit holds: its model may be compiling."""

        def compile_first(connection):
            connection.send(METADATA)
            for number, _ in enumerate(connection):
                time.sleep(1.0 if number == 0 else 0)
                connection.send(reply(number))

        policy = remote(scripted(compile_first).url, request_timeout=0.2, first_request_timeout=5)

        assert policy.infer(OBSERVATION)["actions"][0, 0] == 0
        assert policy.infer(OBSERVATION)["actions"][0, 0] == 1
        assert policy.connection.reconnects == 0

    def test_pipelined_answers_come_to_their_own_requests(self, scripted, remote):
        """Several requests in flight together, answered in order."""
        policy = remote(scripted(answer_all).url)
        policy.connection.wait_ready(2)

        exchanges = [policy.submit(OBSERVATION) for _ in range(8)]

        values = [exchange.result(3).value["actions"][0, 0] for exchange in exchanges]
        assert values == list(range(8))

    def test_error_text_is_the_requests_own(self, scripted, remote):
        """The traceback is kept, its last line is the message, and the link comes back."""

        def fail_once(connection):
            connection.send(METADATA)
            connection.recv()
            if server.connections == 1:
                connection.send("Traceback (most recent call last):\n  ...\nKeyError: 'state'\n")
                connection.close(
                    1011, "Internal server error. Traceback included in previous frame."
                )
                return
            connection.send(reply(5))
            connection.recv()

        server = scripted(fail_once)
        policy = remote(server.url)
        with pytest.raises(PolicyError, match="KeyError: 'state'") as caught:
            policy.infer(OBSERVATION)

        assert caught.value.detail.startswith("Traceback")
        assert policy.infer(OBSERVATION)["actions"][0, 0] == 5

    def test_undecodable_answer_fails_alone(self, scripted, remote):
        """The frame was whole, so the next answer is still known to be the next one's."""

        def garble_second(connection):
            connection.send(METADATA)
            for number, _ in enumerate(connection):
                connection.send(b"\xc1\xc1" if number == 1 else reply(number))

        policy = remote(scripted(garble_second).url)
        policy.infer(OBSERVATION)
        with pytest.raises(DecodeError):
            policy.infer(OBSERVATION)

        assert policy.infer(OBSERVATION)["actions"][0, 0] == 2

    def test_unasked_message_renews_the_link(self, scripted, remote):
        """With an answer too many nothing can be attributed any more; a new connection counts anew."""

        def answer_twice(connection):
            connection.send(METADATA)
            connection.recv()
            connection.send(reply(0))
            connection.send(reply(0))
            connection.recv()

        policy = remote(scripted(answer_twice).url)
        policy.infer(OBSERVATION)

        assert eventually(lambda: policy.connection.reconnects == 1)
        assert policy.infer(OBSERVATION)["actions"][0, 0] == 0

    def test_chatter_before_any_answer_is_no_policy_server(self, scripted, remote):
        """What talks without being asked from the start is something else."""
        policy = remote(scripted(lambda c: (c.send(METADATA), c.send(METADATA), c.recv())).url)

        assert eventually(lambda: policy.connection.state is ConnectionState.FAILED)
        assert isinstance(policy.connection.error, IncompatibleServer)

    def test_cut_in_the_middle_of_a_message(self, bare_tcp, remote):
        """Half a reply is no reply."""

        def cut(connection):
            upgrade(connection)
            connection.sendall(frame(METADATA))
            connection.recv(65536)
            connection.sendall(frame(reply(1))[:100])

        policy = remote(f"ws://127.0.0.1:{bare_tcp(cut)}")
        policy.connection.wait_ready(2)

        with pytest.raises(ConnectionLost):
            policy.submit(OBSERVATION).result(3)

    def test_oversized_message_is_refused(self, scripted, remote):
        """More than max_message_bytes never reaches memory whole."""

        def flood(connection):
            connection.send(METADATA)
            connection.recv()
            connection.send(reply(1, rows=5000))
            connection.recv()

        policy = remote(scripted(flood).url, max_message_bytes=65536)
        policy.connection.wait_ready(2)

        with pytest.raises(ConnectionLost):
            policy.submit(OBSERVATION).result(3)

    def test_fragments_are_joined(self, bare_tcp, remote):
        """A reply in three frames, with a ping between them, is one reply."""

        def in_pieces(connection):
            upgrade(connection)
            message = reply(3)
            connection.sendall(frame(METADATA))
            connection.recv(65536)
            connection.sendall(frame(message[:50], fin=False))
            connection.sendall(frame(b"", opcode=9))
            connection.sendall(frame(message[50:99], opcode=0, fin=False))
            connection.sendall(frame(message[99:], opcode=0))
            connection.recv(65536)
            time.sleep(0.3)

        policy = remote(f"ws://127.0.0.1:{bare_tcp(in_pieces)}")
        policy.connection.wait_ready(2)

        assert policy.submit(OBSERVATION).result(3).value["actions"][0, 0] == 3

    def test_failing_policy_is_told_once(self, scripted, remote, caplog):
        """A stock server closes after every error: reconnecting over and over is no news."""

        def always_fail(connection):
            connection.send(METADATA)
            connection.recv()
            connection.send("Traceback ...\nKeyError: 'state'\n")
            connection.close(1011)

        caplog.set_level(logging.INFO, "pi05_websocket")
        policy = remote(scripted(always_fail).url)
        for _ in range(5):
            with pytest.raises(PolicyError):
                policy.infer(OBSERVATION)

        told = [r for r in caplog.records if r.name == "pi05_websocket.client.connection"]
        assert [r.levelname for r in told] == ["INFO", "WARNING"]

    def test_endless_fragments_are_bounded(self, bare_tcp, remote):
        """Small frames do not add up to a message over max_message_bytes."""

        def endless(connection):
            upgrade(connection)
            connection.sendall(frame(METADATA))
            connection.recv(65536)
            connection.sendall(frame(bytes(30000), fin=False))
            for _ in range(10):
                connection.sendall(frame(bytes(30000), opcode=0, fin=False))

        policy = remote(f"ws://127.0.0.1:{bare_tcp(endless)}", max_message_bytes=65536)
        policy.connection.wait_ready(2)

        with pytest.raises(ConnectionLost, match="max_message_bytes"):
            policy.submit(OBSERVATION).result(3)

    @pytest.mark.parametrize("pieces", [[(0, True)], [(2, False), (2, True)]])
    def test_fragments_out_of_order_end_the_link(self, bare_tcp, remote, pieces):
        """A continuation of nothing, and a message inside a message, are protocol errors."""

        def confuse(connection):
            upgrade(connection)
            connection.sendall(frame(METADATA))
            connection.recv(65536)
            for opcode, fin in pieces:
                connection.sendall(frame(b"x", opcode=opcode, fin=fin))
            time.sleep(0.3)

        policy = remote(f"ws://127.0.0.1:{bare_tcp(confuse)}")
        policy.connection.wait_ready(2)

        with pytest.raises(ConnectionLost, match="code 1002"):
            policy.submit(OBSERVATION).result(3)

    def test_restart_between_chunks(self, scripted, remote):
        """The next request waits for the new server and succeeds."""
        server = scripted(answer_all)
        policy = remote(server.url)
        policy.infer(OBSERVATION)
        server.stop()
        assert eventually(lambda: policy.unavailable() is not None)
        server.start()

        assert policy.infer(OBSERVATION)["actions"].shape == (10, 6)
        assert policy.connection.reconnects == 1

    def test_idle_pings_are_answered(self, scripted, remote):
        """A robot that pauses does not lose its connection to the server's keepalive."""
        pong = threading.Event()

        def ping(connection):
            connection.send(METADATA)
            connection.ping().wait(3) and pong.set()
            answer = connection.recv()
            connection.send(reply(len(answer) > 0))

        policy = remote(scripted(ping).url)

        assert pong.wait(3)
        assert policy.infer(OBSERVATION)["actions"][0, 0] == 1

    def test_close_fails_what_is_outstanding(self, scripted, remote):
        """Nobody waits for a closed link."""
        stop = threading.Event()
        policy = remote(scripted(lambda c: (c.send(METADATA), stop.wait(5))).url)
        policy.connection.wait_ready(2)
        exchange = policy.submit(OBSERVATION)

        policy.close()
        policy.close()

        with pytest.raises(ConnectionLost):
            exchange.result(1)
        with pytest.raises(ConnectionLost):
            policy.infer(OBSERVATION)
        stop.set()
