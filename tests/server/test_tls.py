# SPDX-License-Identifier: Apache-2.0
"""TLS on real sockets: our client's settings against our server, and certificates that change."""

from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.errors import CertificateRefused, ConfigError, Pi05WebsocketError
from pi05_websocket.server import ServerConfig
from pi05_websocket.server.tls import Certificate

OBSERVATION = {"image": np.zeros((480, 640, 3), np.uint8)}


class Pki:
    """An authority and the files it has written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.ca = str(folder / "ca.pem")
        self.authority.cert_pem.write_to_path(self.ca)
        self.settings = {"tls_cert": str(folder / "cert.pem"), "tls_key": str(folder / "key.pem")}
        self.renew()

    def renew(self) -> None:
        """Write another certificate for this machine."""
        issued = self.authority.issue_cert("localhost", "127.0.0.1")
        (self.folder / "key.pem").write_bytes(issued.private_key_pem.bytes())
        chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
        (self.folder / "cert.pem").write_bytes(chain)

    def client_certificate(self) -> str:
        """Write a client's certificate with its key and return the file's name."""
        issued = self.authority.issue_cert("robot-7")
        file = self.folder / "robot.pem"
        issued.private_key_and_cert_chain_pem.write_to_path(str(file))
        return str(file)


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    """Certificates for a server."""
    return Pki(tmp_path)


def remote(server: Any, *, wait: float = 5, **settings: Any) -> RemotePolicy:
    """Connect our client."""
    return RemotePolicy(config=ConnectionConfig(url=server.url, **settings), wait_for_server=wait)


def shown(server: Any, pki: Pki) -> int:
    """Connect, check and return the number of the certificate that the server shows."""
    context = ssl.create_default_context(cafile=pki.ca)
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        certificate = client.getpeercert()
        assert certificate is not None
        return int(str(certificate["serialNumber"]), 16)


def test_our_client_trusts_what_it_is_told_to(serve: Any, scripted: Any, pki: Pki) -> None:
    """`wss://` with `ca_file`; requests of a megabyte and their replies travel as ever."""
    server = serve(scripted, **pki.settings)
    assert server.url == f"wss://127.0.0.1:{server.port}"
    with remote(server, ca_file=pki.ca) as policy:
        for _ in range(3):
            assert policy.infer(OBSERVATION)["actions"].shape == (2, 6)


def test_a_certificate_nobody_vouches_for_is_refused(serve: Any, scripted: Any, pki: Pki) -> None:
    """By our client, and the server goes on."""
    server = serve(scripted, **pki.settings)
    with pytest.raises(CertificateRefused, match="Give the CA's file as ca_file"):
        remote(server)
    with remote(server, ca_file=pki.ca) as policy:
        assert "actions" in policy.infer(OBSERVATION)


def test_plain_text_to_a_tls_port_disturbs_nobody(serve: Any, scripted: Any, pki: Pki) -> None:
    """Whoever says anything else than TLS is hung up on."""
    server = serve(scripted, **pki.settings)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not client.recv(65536).startswith(b"HTTP")
    assert shown(server, pki)


def test_a_failed_handshake_is_a_line_in_the_log(
    serve: Any, scripted: Any, pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    """Scanners do it all day: no traceback, no ERROR; with the address, for who wants to keep it out."""
    caplog.set_level("INFO")
    server = serve(scripted, **pki.settings)
    for said in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b""):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall(said)
            if said:
                client.recv(65536)
    with pytest.raises(ssl.SSLError):
        ssl_hello(server.port, ssl.create_default_context())  # it does not know the authority
    assert shown(server, pki)
    server.close()
    told = [
        line
        for line in caplog.messages
        if line.startswith("a TLS handshake failed from=127.0.0.1:")
    ]
    assert told
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def ssl_hello(port: int, context: ssl.SSLContext) -> None:
    """Do a handshake."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        context.wrap_socket(plain, server_hostname="localhost").close()


def test_a_renewed_certificate_counts_for_new_connections(
    serve: Any, scripted: Any, pki: Pki
) -> None:
    """Without a restart, and a connection that is open goes on."""
    server = serve(scripted, **pki.settings)
    before = shown(server, pki)
    with remote(server, ca_file=pki.ca) as policy:
        policy.infer(OBSERVATION)
        pki.renew()
        deadline = time.monotonic() + 5
        while shown(server, pki) == before:
            assert time.monotonic() < deadline, "not in time"
        assert "actions" in policy.infer(OBSERVATION)
        assert policy.connection.reconnects == 0


def test_a_client_certificate_is_asked_for(serve: Any, scripted: Any, pki: Pki) -> None:
    """With `tls_client_ca` nobody else comes in."""
    server = serve(scripted, tls_client_ca=pki.ca, **pki.settings)
    mine = pki.client_certificate()
    with remote(server, ca_file=pki.ca, client_cert_file=mine) as policy:
        assert "actions" in policy.infer(OBSERVATION)
    with pytest.raises(Pi05WebsocketError):
        remote(server, ca_file=pki.ca, wait=0.5)
    (pki.folder / "strangers").mkdir()
    strangers = Pki(pki.folder / "strangers")
    with pytest.raises(Pi05WebsocketError):
        remote(server, ca_file=pki.ca, wait=0.5, client_cert_file=strangers.client_certificate())


def test_a_broken_renewal_changes_nothing(pki: Pki, caplog: pytest.LogCaptureFixture) -> None:
    """A certificate that came before its key, or a file that is gone: said once, then read when whole."""
    certificate = Certificate(ServerConfig(**pki.settings))
    caplog.set_level("INFO")
    key = pki.folder / "key.pem"
    old = key.read_bytes()
    pki.renew()
    new = key.read_bytes()
    key.write_bytes(old)
    certificate.look_again()
    certificate.look_again()
    key.unlink()
    certificate.look_again()
    key.write_bytes(new)
    certificate.look_again()
    messages = [record.getMessage() for record in caplog.records]
    assert [message.partition(":")[0].partition(" from")[0] for message in messages] == [
        "the certificate stays as it was",
        "the certificate stays as it was",
        "certificate read again",
    ]


def test_without_tls_there_is_no_context() -> None:
    """And nothing to look at."""
    certificate = Certificate(ServerConfig())
    certificate.look_again()
    assert certificate.context is None
    assert repr(certificate) == "<Certificate none>"


ENCRYPTED = """\
-----BEGIN RSA PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF

AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
-----END RSA PRIVATE KEY-----
"""


def test_what_cannot_be_loaded_is_told_before_anything_is_opened(pki: Pki) -> None:
    """Which files, and what is expected in them; nobody is asked for a password."""
    nowhere = {"tls_cert": str(pki.folder / "no.pem"), "tls_key": pki.settings["tls_key"]}
    with pytest.raises(ConfigError, match=r"no\.pem.*cannot be loaded: .*in PEM"):
        Certificate(ServerConfig(**nowhere))
    with pytest.raises(ConfigError, match=r"tls_client_ca=.*cannot be loaded"):
        Certificate(ServerConfig(tls_client_ca=nowhere["tls_cert"], **pki.settings))
    assert repr(Certificate(ServerConfig(**pki.settings))).endswith("cert.pem>")
    (pki.folder / "key.pem").write_text(ENCRYPTED)
    with pytest.raises(ConfigError, match="the private key is encrypted"):
        Certificate(ServerConfig(**pki.settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tls_cert": "a"}, "tls_cert and tls_key: give both or neither"),
        ({"tls_key": "a"}, "tls_cert and tls_key: give both or neither"),
        ({"tls_client_ca": "a"}, "tls_client_ca without tls_cert"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, str], message: str) -> None:
    """Told before any file is opened."""
    with pytest.raises(ConfigError, match=message):
        ServerConfig(**settings)  # type: ignore[arg-type]
