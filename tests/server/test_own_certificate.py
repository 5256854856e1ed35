# SPDX-License-Identifier: Apache-2.0
"""`--tls auto`: made once, renewed in time, known by the same fingerprint; robots that pin it, and others."""

from __future__ import annotations

import contextlib
import socket
import ssl
import stat
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.client.pinning import public_key_fingerprint
from pi05_websocket.errors import CertificateRefused, ConfigError
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.server.certificates import names_in, new_key, read_certificate, read_key
from pi05_websocket.server.own_certificate import OwnCertificate, default_folder, names_of

OBSERVATION = {"image": np.zeros((480, 640, 3), np.uint8)}
OTHER = "sha256:" + "ab" * 32


def now(days: int = 0) -> datetime:
    """Return the time in so many days."""
    return datetime.now(UTC) + timedelta(days=days)


def shown(own: OwnCertificate) -> x509.Certificate:
    """Return the certificate that is there."""
    found = read_certificate(own.certificate.read_bytes())
    assert found is not None
    return found


def test_it_is_made_once(tmp_path: Path) -> None:
    """A second start finds what the first one made; only the user reads it."""
    folder = tmp_path / "config" / "tls"
    first = OwnCertificate(folder, "127.0.0.1")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    second = OwnCertificate(folder, "127.0.0.1")
    assert {path.name for path in before} == {"ca.key", "ca.pem", "server.key", "server.pem"}
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert second.fingerprint == first.fingerprint
    assert repr(second) == f"<OwnCertificate {folder} {first.fingerprint}>"
    if sys.platform != "win32":
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in before} == {0o600}


def test_a_renewed_certificate_has_the_same_fingerprint(tmp_path: Path) -> None:
    """A month before its end, for the same key and by the same authority."""
    own = OwnCertificate(tmp_path, "127.0.0.1")
    fingerprint, old, authority = own.fingerprint, shown(own), own.authority.read_bytes()
    assert not own.renew_if_due(now(days=59))
    assert own.renew_if_due(now(days=61))
    new = shown(own)
    assert new.serial_number != old.serial_number
    assert new.not_valid_after_utc > now(days=150)
    assert own.fingerprint == fingerprint
    assert own.authority.read_bytes() == authority
    assert public_key_fingerprint(ssl.PEM_cert_to_DER_cert(first_pem(own))) == fingerprint


def first_pem(own: OwnCertificate) -> str:
    """Return the server's certificate without the authority's."""
    text = own.certificate.read_text()
    return text[: text.index("-----END") + len("-----END CERTIFICATE-----")]


def test_another_authority_comes_before_the_old_one_ends(tmp_path: Path) -> None:
    """After ten years those with a `ca_file` need another; a fingerprint stays."""
    own = OwnCertificate(tmp_path, "127.0.0.1")
    fingerprint, authority = own.fingerprint, own.authority.read_bytes()
    assert own.renew_if_due(now(days=3600))
    assert own.authority.read_bytes() != authority
    assert own.fingerprint == fingerprint


def test_another_name_makes_another_certificate(tmp_path: Path) -> None:
    """A server that moved is found by its new name too."""
    own = OwnCertificate(tmp_path, "127.0.0.1")
    moved = OwnCertificate(tmp_path, "Robots.example.org")
    said = shown(moved).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "robots.example.org" in said.get_values_for_type(x509.DNSName)
    assert moved.fingerprint == own.fingerprint
    assert not OwnCertificate(tmp_path, "127.0.0.1").renew_if_due(now())
    OwnCertificate(tmp_path, "third.example.org")
    assert {"robots.example.org", "third.example.org"} <= set(names_in(shown(own)))


def test_another_key_makes_another_certificate_and_fingerprint(tmp_path: Path) -> None:
    """Who takes the key away wants a new one."""
    own = OwnCertificate(tmp_path, "127.0.0.1")
    own.key.unlink()
    assert OwnCertificate(tmp_path, "127.0.0.1").fingerprint != own.fingerprint


def private(key: Any, password: bytes | None = None) -> bytes:
    """Return a private key's file."""
    how: Any = serialization.NoEncryption()
    if password:
        how = serialization.BestAvailableEncryption(password)
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how
    )
    return pem


@pytest.mark.parametrize(
    "pem",
    [
        private(rsa.generate_private_key(65537, 2048)),
        private(ec.generate_private_key(ec.SECP256R1()), b"password"),
        b"",
    ],
)
def test_keys_that_are_none_of_ours(pem: bytes) -> None:
    """Of another kind, with a password, none at all."""
    with pytest.raises(ValueError):
        read_key(pem)


def test_a_certificate_may_be_for_no_name() -> None:
    """It is one to renew then, and no error."""
    key = read_key(new_key())
    name = x509.Name([])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now(), now(days=80)).sign(
        key, hashes.SHA256()
    )
    assert names_in(made) == []


@pytest.mark.parametrize(
    ("host", "found", "names"),
    [
        ("0.0.0.0", ["gpu", "10.0.0.5"], ["localhost", "127.0.0.1", "::1", "gpu", "10.0.0.5"]),
        ("127.0.0.1", [], ["localhost", "127.0.0.1", "::1"]),
        ("GPU.example.org", ["gpu"], ["localhost", "127.0.0.1", "::1", "gpu", "gpu.example.org"]),
        ("fe80:0::1%eth0", [], ["localhost", "127.0.0.1", "::1", "fe80::1"]),
        ("bücher", [], ["localhost", "127.0.0.1", "::1"]),
    ],
)
def test_names(host: str, found: list[str], names: list[str]) -> None:
    """What the machine has and what was asked for, each once."""
    assert names_of(host, found) == names


@pytest.mark.parametrize(
    ("file", "content"),
    [("server.pem", b"none"), ("server.key", b"none"), ("ca.key", b"none"), ("ca.pem", b"none")],
)
def test_what_is_none_of_ours_is_told(tmp_path: Path, file: str, content: bytes) -> None:
    """Nothing is overwritten that somebody else may need."""
    own = OwnCertificate(tmp_path, "127.0.0.1")
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ConfigError, match="expected the keys and certificates of --tls auto"):
        own.renew_if_due(now(days=80))
    assert (tmp_path / file).read_bytes() == content


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """With its name and the system's reason."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"tls_folder='.*tls': Not a directory"):
        OwnCertificate(tmp_path / "file" / "tls", "127.0.0.1")


def test_the_folder_when_nobody_names_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where other programs keep their settings."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "pi05-websocket" / "tls"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert OwnCertificate(None, "127.0.0.1").key.parent == default_folder()


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And that files do without."""
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ConfigError, match=r"pip install .*\[tls\]'"):
        OwnCertificate(tmp_path / "tls", "127.0.0.1")
    assert not (tmp_path / "tls").exists()


# ------------------------------------------------------------------------------------------ on real sockets


@pytest.fixture
def auto(serve: Any, scripted: Any, tmp_path: Path) -> WebsocketPolicyServer:
    """A server with a certificate of its own."""
    server: WebsocketPolicyServer = serve(scripted, tls="auto", tls_folder=str(tmp_path / "tls"))
    return server


def remote(url: str, *, wait: float = 5, **settings: Any) -> RemotePolicy:
    """Connect our client."""
    return RemotePolicy(config=ConnectionConfig(url=url, **settings), wait_for_server=wait)


def test_a_robot_that_pins_the_server(auto: WebsocketPolicyServer) -> None:
    """With what the server prints; a megabyte travels as ever."""
    assert auto.url.startswith("wss://")
    with remote(auto.url, tls_fingerprint=auto.tls_fingerprint) as policy:
        for _ in range(3):
            assert policy.infer(OBSERVATION)["actions"].shape == (2, 6)


def test_a_pin_takes_the_place_of_the_names(serve: Any, scripted: Any, tmp_path: Path) -> None:
    """A server that is reached by an address its certificate does not know."""
    issued = trustme.CA().issue_cert("elsewhere.example.org")
    both = tmp_path / "both.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(both))
    server = serve(scripted, tls_cert=str(both), tls_key=str(both))
    der = ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())
    with remote(server.url, tls_fingerprint=public_key_fingerprint(der)) as policy:
        assert "actions" in policy.infer(OBSERVATION)


def test_a_robot_that_pins_another(auto: WebsocketPolicyServer) -> None:
    """Refused with both fingerprints, and not tried again."""
    with pytest.raises(CertificateRefused, match=f"expected .* {OTHER}, got sha256:") as caught:
        remote(auto.url, tls_fingerprint=OTHER)
    assert (caught.value.expected, caught.value.got) == (OTHER, auto.tls_fingerprint)
    assert not caught.value.retryable


def test_a_robot_with_the_authoritys_file(auto: WebsocketPolicyServer, tmp_path: Path) -> None:
    """For clients that know no fingerprints; the names count then."""
    with remote(auto.url, ca_file=str(tmp_path / "tls" / "ca.pem")) as policy:
        assert "actions" in policy.infer(OBSERVATION)
    with pytest.raises(
        CertificateRefused, match=r"Give the CA's file as ca_file, or.*tls_fingerprint"
    ):
        remote(auto.url)


def test_a_server_of_files_has_no_fingerprint_to_tell(serve: Any, scripted: Any) -> None:
    """Its certificate is somebody else's to renew, with another key perhaps."""
    assert serve(scripted).tls_fingerprint is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tls": "auto", "tls_cert": "a", "tls_key": "a"}, "tls=auto and tls_cert"),
        ({"tls_folder": "a"}, "tls_folder without tls=auto"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, str], message: str) -> None:
    """Told before anything is made."""
    with pytest.raises(ConfigError, match=message):
        ServerConfig(**settings)  # type: ignore[arg-type]


class Eavesdropper:
    """A TLS server with a key of its own, which keeps what clients say to it after the handshake."""

    def __init__(self, folder: Path) -> None:
        own = OwnCertificate(folder, "127.0.0.1")
        self.heard: list[bytes] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(own.certificate, own.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"wss://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        with self._listener:
            client, _ = self._listener.accept()
            client.settimeout(10)
            try:
                with self._context.wrap_socket(client, server_side=True) as secure:
                    self.heard.append(secure.recv(65536))
            except OSError:  # hung up on, in the handshake or right after it
                pass
            finally:
                client.close()

    def join(self) -> None:
        """Wait until its client has gone."""
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def eavesdropper(tmp_path: Path) -> Iterator[Eavesdropper]:
    """Somebody else in the server's place."""
    somebody = Eavesdropper(tmp_path / "else")
    yield somebody
    somebody.join()


def test_somebody_else_in_the_servers_place_hears_nothing(eavesdropper: Eavesdropper) -> None:
    """The key for the server is in the first line of HTTP: it is not sent before the pin agrees."""
    with pytest.raises(CertificateRefused):
        remote(eavesdropper.url, tls_fingerprint=OTHER, headers={"Authorization": "Api-Key secret"})
    eavesdropper.join()
    assert b"".join(eavesdropper.heard) == b""


class Proxy:
    """An HTTP proxy for one connection: `CONNECT`, then bytes both ways."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        with self._listener:
            client, _ = self._listener.accept()
        asked = b""
        while b"\r\n\r\n" not in asked:
            asked += client.recv(65536)
        assert asked.startswith(b"CONNECT ")
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        server = socket.create_connection(("127.0.0.1", self._port))
        self._threads += [
            threading.Thread(target=self._pass_on, args=ends)
            for ends in ((client, server), (server, client))
        ]
        for thread in self._threads[1:]:
            thread.start()
        for thread in self._threads[1:]:
            thread.join()
        client.close()
        server.close()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def join(self) -> None:
        """Wait until both ends have gone."""
        self._threads[0].join(10)
        assert not self._threads[0].is_alive()


@pytest.mark.parametrize("pinned", [True, False])
def test_a_pin_through_a_proxy(auto: WebsocketPolicyServer, pinned: bool) -> None:
    """TLS begins later there, and is looked at all the same."""
    proxy = Proxy(auto.port)
    try:
        if pinned:
            assert auto.tls_fingerprint is not None
            with remote(auto.url, tls_fingerprint=auto.tls_fingerprint, proxy=proxy.url) as policy:
                assert "actions" in policy.infer(OBSERVATION)
        else:
            with pytest.raises(CertificateRefused):
                remote(auto.url, tls_fingerprint=OTHER, proxy=proxy.url)
    finally:
        proxy.join()
