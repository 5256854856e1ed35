# SPDX-License-Identifier: Apache-2.0
"""X.509 for `--tls auto`: a small authority, and certificates of its making for one server's key.

In: PEM, names, the time. Out: PEM, a fingerprint. Needs the package `cryptography`, the extra `tls`; reads and
writes no file.
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket
from collections.abc import Iterable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = [
    "Authority",
    "fingerprint",
    "is_due",
    "names_in",
    "new_key",
    "read_certificate",
    "read_key",
]

_AUTHORITY_LASTS = timedelta(days=3650)
_LASTS = timedelta(days=90)
_RENEWED_BEFORE_ITS_END = timedelta(days=30)
_CLOCKS_DIFFER = timedelta(days=1)
"""A robot whose clock is behind must not find the certificate too young."""

_DER = serialization.Encoding.DER
_PEM = serialization.Encoding.PEM


def new_key() -> bytes:
    """Return a new private key, without a password."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Read a key as `new_key` makes them.

    Raises:
        ValueError: If it is none.
    """
    try:
        key = serialization.load_pem_private_key(pem, None)
    except TypeError as exc:  # it has a password
        raise ValueError(str(exc)) from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("a private key that is none of an elliptic curve")
    return key


def read_certificate(pem: bytes | None) -> x509.Certificate | None:
    """Read the first certificate of a file; None where there is no file.

    Raises:
        ValueError: If it is none.
    """
    return None if pem is None else x509.load_pem_x509_certificate(pem)


def fingerprint(key: ec.EllipticCurvePrivateKey) -> str:
    """Return what robots are told: `sha256:` of the public key, which outlives its certificates."""
    public = key.public_key().public_bytes(_DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(public).hexdigest()}"


def is_due(
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    names: Iterable[str],
    now: datetime,
) -> bool:
    """Whether a certificate is soon over, for another key, or lacks a name."""
    return (
        certificate.not_valid_after_utc - now < _RENEWED_BEFORE_ITS_END
        or certificate.public_key() != key.public_key()
        or not set(names) <= set(names_in(certificate))
    )


def names_in(certificate: x509.Certificate) -> list[str]:
    """Return the names and addresses a certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in found]


class Authority:
    """Signs certificates for one server."""

    def __init__(
        self, key: ec.EllipticCurvePrivateKey, known: x509.Certificate | None, now: datetime
    ) -> None:
        """Go on with the certificate that clients know, while it outlives what it signs.

        Args:
            key: The authority's.
            known: Its certificate; None: there is none yet.
            now: The time, with its zone.
        """
        self._key = key
        if (
            known is None
            or known.public_key() != key.public_key()
            or known.not_valid_after_utc < now + _LASTS
        ):
            known = _self_signed(key, now)
        self._certificate = known

    @property
    def pem(self) -> bytes:
        """Its certificate, for a client's `ca_file`."""
        return self._certificate.public_bytes(_PEM)

    def issue(
        self, server_key: ec.EllipticCurvePrivateKey, names: Iterable[str], now: datetime
    ) -> bytes:
        """Return a certificate for a server of these names and addresses."""
        public = server_key.public_key()
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        said = x509.SubjectAlternativeName([_general_name(name) for name in names])
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        made = (
            _builder(public, now, _LASTS)
            .subject_name(_named("pi05-websocket policy server"))
            .issuer_name(self._certificate.subject)
            .add_extension(said, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(purpose, critical=False)
            .add_extension(signer, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return made.public_bytes(_PEM)


def _self_signed(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = _named(f"pi05-websocket on {socket.gethostname()}"[:64])
    return (
        _builder(key.public_key(), now, _AUTHORITY_LASTS)
        .subject_name(name)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _builder(
    public: ec.EllipticCurvePublicKey, now: datetime, lasts: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + lasts)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
