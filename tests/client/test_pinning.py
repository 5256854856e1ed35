# SPDX-License-Identifier: Apache-2.0
"""Fingerprints of public keys: written in any way, read from any certificate, held against a handshake."""

from __future__ import annotations

import hashlib
import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.client import ConnectionConfig
from pi05_websocket.client.pinning import (
    FingerprintDiffers,
    pinned_context,
    public_key_fingerprint,
    read_fingerprint,
)
from pi05_websocket.errors import ConfigError, DecodeError

DIGITS = "0123456789abcdef" * 4
NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        f"sha256:{DIGITS}",
        f"  SHA256:{DIGITS.upper()}\n",
        DIGITS,
        ":".join(DIGITS[i : i + 2] for i in range(0, 64, 2)).upper(),
    ],
)
def test_a_fingerprint_as_any_tool_writes_it(text: str) -> None:
    """With colons, in upper case, without its prefix."""
    assert read_fingerprint(text) == f"sha256:{DIGITS}"


@pytest.mark.parametrize(
    "text", ["", "sha256:", DIGITS[:-1], DIGITS + "0", "sha1:" + DIGITS, "x" * 64]
)
def test_what_is_no_fingerprint(text: str) -> None:
    """Told before anything is opened."""
    with pytest.raises(ConfigError, match="expected sha256: and 64 hexadecimal digits"):
        ConnectionConfig(url="wss://h", tls_fingerprint=text)


def test_settings_that_contradict_a_fingerprint() -> None:
    """There is no key without TLS, and one kind of trust is enough."""
    with pytest.raises(ConfigError, match="only wss:// has a key"):
        ConnectionConfig(url="ws://h", tls_fingerprint=DIGITS)
    with pytest.raises(ConfigError, match="tls_fingerprint and ca_file"):
        ConnectionConfig(url="wss://h", tls_fingerprint=DIGITS, ca_file="ca.pem")


def certificate(key: Any, *, serial: int = 1) -> tuple[bytes, str]:
    """Return a certificate of a key, and the key's fingerprint by another's code."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x" * 60)])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    der = made.public_bytes(serialization.Encoding.DER)
    return der, f"sha256:{hashlib.sha256(public).hexdigest()}"


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
)
def test_the_fingerprint_is_of_the_key_and_not_of_the_certificate(key: Any) -> None:
    """Two certificates of one key have the same; short and long values alike."""
    der, expected = certificate(key)
    renewed, _ = certificate(key, serial=2**150)
    assert public_key_fingerprint(der) == expected
    assert public_key_fingerprint(renewed) == expected


DER = certificate(ec.generate_private_key(ec.SECP256R1()))[0]


@given(st.integers(0, len(DER) - 1))
def test_half_a_certificate_is_refused(length: int) -> None:
    """Wherever it ends."""
    with pytest.raises(DecodeError, match="not a certificate"):
        public_key_fingerprint(DER[:length])


def test_a_certificate_of_the_first_version_is_read_too() -> None:
    """It does not say its version."""
    body = bytes.fromhex("020101 3000 3000 3000 3000 300100")
    signed = bytes([0x30, len(body)]) + body
    expected = hashlib.sha256(bytes.fromhex("300100")).hexdigest()
    assert public_key_fingerprint(bytes([0x30, len(signed)]) + signed) == f"sha256:{expected}"


def test_a_pinned_context_is_of_no_use_without_its_check() -> None:
    """Nobody uses it with a blocking socket by mistake: that would verify nothing."""
    ours, theirs = socket.socketpair()
    context = pinned_context(f"sha256:{DIGITS}")
    secure = context.wrap_socket(ours, do_handshake_on_connect=False)
    with theirs, secure, pytest.raises(FingerprintDiffers):
        secure.do_handshake()
