# SPDX-License-Identifier: Apache-2.0
"""A server known by its key: the fingerprint of a certificate's public key, held against what a server shows.

In: a certificate as bytes; a fingerprint. Out: `sha256:` and 64 digits; a TLS context that knows one server
alone. Whatever thread the connection has.

The pin takes the place of authorities, names and dates: whoever has the private key is the server, and nobody
else. It is held against what comes during the handshake, before a key or an image is sent.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import ssl

from pi05_websocket.errors import ConfigError, DecodeError

__all__ = ["FingerprintDiffers", "pinned_context", "public_key_fingerprint", "read_fingerprint"]

_PREFIX = "sha256:"
_DIGITS = re.compile(r"[0-9a-f]{64}")

# ASN.1, as far as a certificate's way to its public key needs it (RFC 5280, 4.1).
_SEQUENCE = 0x30
_VERSION = 0xA0
_BEFORE_THE_KEY = 5
"""Fields between version and public key: serial number, algorithm, issuer, dates, subject."""


class FingerprintDiffers(ssl.SSLCertVerificationError):
    """A server showed another key than the pinned one.

    Attributes:
        got: The fingerprint of the key that it showed.
    """

    def __init__(self, got: str) -> None:
        self.got = got
        super().__init__(f"the server's public key has the fingerprint {got}")


def read_fingerprint(text: str, setting: str = "tls_fingerprint") -> str:
    """Return a fingerprint as it is compared: `sha256:` and 64 digits in lower case.

    Colons between the digits, upper case and a missing `sha256:` are taken too: other tools write them so.

    Raises:
        ConfigError: If it is none.
    """
    digits = text.strip().lower().removeprefix(_PREFIX).replace(":", "")
    if not _DIGITS.fullmatch(digits):
        raise ConfigError(
            f"{setting}={text!r}: expected {_PREFIX} and 64 hexadecimal digits, as the server prints it"
        )
    return _PREFIX + digits


def public_key_fingerprint(certificate: bytes) -> str:
    """Return the fingerprint of a certificate's public key: SHA-256 of its SubjectPublicKeyInfo.

    It stays the same when the certificate is renewed for the same key.

    Args:
        certificate: One X.509 certificate in DER.

    Raises:
        DecodeError: If it is none.
    """
    at, end = _entered(certificate, 0, len(certificate), _SEQUENCE)  # the certificate
    at, end = _entered(certificate, at, end, _SEQUENCE)  # its signed body
    if at < end and certificate[at] == _VERSION:  # which the first version did not say
        at = _after(certificate, at, end)
    for _ in range(_BEFORE_THE_KEY):
        at = _after(certificate, at, end)
    _entered(certificate, at, end, _SEQUENCE)
    key = certificate[at : _after(certificate, at, end)]
    return _PREFIX + hashlib.sha256(key).hexdigest()


def pinned_context(fingerprint: str) -> ssl.SSLContext:
    """Return a context whose handshakes fail with `FingerprintDiffers` unless the server has this key."""
    context = _PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the pin is what is verified, in `_PinnedObject`
    context.sslobject_class = _PinnedObject
    context.sslsocket_class = _NoSocket
    context.fingerprint = fingerprint
    return context


class _PinnedContext(ssl.SSLContext):
    fingerprint: str


class _PinnedObject(ssl.SSLObject):
    """One TLS connection: its handshake is not done before the pin agrees."""

    def do_handshake(self) -> None:
        super().do_handshake()
        certificate = self.getpeercert(binary_form=True)
        got = "none" if certificate is None else public_key_fingerprint(certificate)
        if not hmac.compare_digest(got, self.context.fingerprint):  # type: ignore[attr-defined]
            raise FingerprintDiffers(got)


class _NoSocket(ssl.SSLSocket):
    """A context used in another way than with asyncio would verify nothing: it is of no use so."""

    def do_handshake(self, block: bool = False) -> None:
        raise FingerprintDiffers("unknown: only asyncio's own TLS looks at it")


def _entered(data: bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    """Return where the content of a value begins and ends."""
    if at >= end or data[at] != tag:
        raise DecodeError(f"not a certificate: expected the tag {tag:#x} at byte {at}")
    return _content(data, at, end)


def _after(data: bytes, at: int, end: int) -> int:
    """Return where the next value begins."""
    return _content(data, at, end)[1]


def _content(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return where the content of the value at a byte begins and ends; it lies before `end`."""
    start = at + 2
    if start > end:
        raise DecodeError(f"not a certificate: it ends after {end} bytes")
    length = data[at + 1]
    if length & 0x80:
        digits = length & 0x7F
        length = int.from_bytes(data[start : start + digits], "big")
        start += digits
    if start + length > end:
        raise DecodeError(f"not a certificate: {length} bytes announced at byte {at}, fewer follow")
    return start, start + length
