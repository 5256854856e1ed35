# SPDX-License-Identifier: Apache-2.0
"""HTTP from strangers, and what users type: upgrade requests, keys files, addresses, header files."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import picows
from picows.picows import (  # type: ignore[attr-defined]  # what the library does before it asks us
    _parse_http_request,
    _validate_upgrade_request,
)
from picows.url import parse_url

from fuzz.mutation import of_bytes, of_json, of_words
from fuzz.target import Broken, Target
from pi05_websocket.client.config import check_url, load_headers, openpi_url
from pi05_websocket.client.pinning import public_key_fingerprint, read_fingerprint
from pi05_websocket.errors import ConfigError, DecodeError
from pi05_websocket.server.exposure import forwarded_for, is_loopback, is_private
from pi05_websocket.server.http import authorization_of, plain_response, refusal_response
from pi05_websocket.server.keys import (
    KeySet,
    Refusal,
    RobotKey,
    decide,
    format_keys,
    hashed,
    parse_keys,
)

__all__ = ["TARGETS"]

_NOW: Final = datetime(2026, 5, 1, tzinfo=UTC)
_SECRET: Final = "pi05_" + "a" * 43
_OF_ADDRESSES: Final = set("0123456789abcdef.:")
_SALT: Final = bytes(range(16))


def _key(name: str, *, secret: str = _SECRET, paths: tuple[str, ...] = ()) -> RobotKey:
    return RobotKey(name=name, salt=_SALT, sha256=hashed(_SALT, secret), created=_NOW, paths=paths)


_KEYS: Final = KeySet((_key("arm", paths=("/cube",)), _key("other", secret="b" * 40)))


def _upgrade(data: bytes) -> str:
    """The head of a request: whoever is let in has a secret of the keys file, byte for byte."""
    try:
        request = _parse_http_request(data)
    except RuntimeError:
        return "no request"
    response = plain_response(request)
    if response is not None:
        bytes(response.to_bytes())
        return str(int(response.status))
    address = forwarded_for(request.headers.getall("X-Forwarded-For", []))
    if address is not None:
        is_loopback(address), is_private(address)
        if not set(address) <= _OF_ADDRESSES:
            raise Broken(f"an address that could look like words in a log: {address!r}")
    admitted = decide(
        _KEYS, authorization_of(request), request.path.decode("ascii", "replace"), _NOW
    )
    if isinstance(admitted, Refusal):
        bytes(refusal_response(admitted).to_bytes())
        return f"{admitted.status} {address is not None}"
    try:
        _validate_upgrade_request(request)
    except RuntimeError as exc:
        str(exc).encode()  # it becomes the answer's body
    if admitted.name == "arm" and not (_SECRET.encode() in data and b"/cube" in data):
        raise Broken("let in without the secret, or to another path")
    return "admitted"


def _upgrades() -> Iterator[bytes]:
    head = b"Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13"
    yield b"GET /cube HTTP/1.1\r\n" + head + b"\r\nAuthorization: Api-Key " + _SECRET.encode()
    yield b"GET / HTTP/1.1\r\n" + head + b"\r\nAuthorization: bearer " + _SECRET.encode()
    yield b"GET /cube?a=1 HTTP/1.1\r\n" + head + b"\r\nX-Forwarded-For: 10.0.0.1, 2001:db8::1"
    yield b"GET /healthz HTTP/1.1\r\nHost: x"
    bad = head.replace(b": 13", b": \xff13") + b"\r\nAuthorization: Api-Key " + _SECRET.encode()
    yield b"GET /cube HTTP/1.1\r\n" + bad
    yield b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: fe80::1%eth0\r\nX-Forwarded-For: \xff"


def _keys_file(data: bytes) -> str:
    try:
        keys = parse_keys(data)
    except ConfigError:
        return "ConfigError"
    again = format_keys(keys)
    if parse_keys(again) != keys:
        raise Broken("a keys file that means something else when it is written again")
    decide(keys, ["Api-Key " + _SECRET], "/", _NOW)
    for key in keys.keys:
        if not key.name.isascii() or not key.name.isprintable():
            raise Broken(f"a name that could look like log lines: {key.name!r}")
        key.expired(_NOW)
    return f"{min(len(keys.keys), 3)} keys"


def _keys_files() -> Iterator[bytes]:
    yield format_keys(_KEYS)
    yield format_keys(KeySet(()))


def _address(data: bytes) -> str:
    """What is taken for an address, the dialler's library takes too."""
    text = data.decode("utf-8", "replace")
    words = []
    for url in (text, openpi_url(text, None), openpi_url(text, 8000)):
        try:
            check_url(url)
        except ConfigError as exc:
            words.append("ConfigError")
            if "secret@" in text and "secret@" in str(exc):
                raise Broken("credentials are quoted") from exc
            continue
        try:
            path = parse_url(url).resource_name.encode()
            _parse_http_request(b"GET " + path + b" HTTP/1.1\r\nHost: x")
        except (picows.WSError, ValueError, RuntimeError) as exc:
            raise Broken(f"{url!r} passes, and cannot be dialled: {exc}") from exc
        words.append("address")
    return " ".join(words)


def _certificate(data: bytes) -> str:
    """A certificate that a server shows: the fingerprint of what is really in it."""
    try:
        found = public_key_fingerprint(data)
    except DecodeError:
        return "DecodeError"
    if read_fingerprint(found) != found:
        raise Broken(f"a fingerprint that is none: {found}")
    return "fingerprint"


def _certificates() -> Iterator[bytes]:
    """Yield certificates of an elliptic curve: with and without a version, short ones and long ones."""
    key = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200") + bytes(65)
    for filler in (b"\x30\x00", b"\x30\x81\x80" + bytes(128), b"\x30\x82\x01\x00" + bytes(256)):
        for version in (b"\xa0\x03\x02\x01\x02", b""):
            body = version + b"\x02\x01\x07" + filler * 4 + key
            body = b"\x30\x83" + len(body).to_bytes(3, "big") + body
            yield b"\x30\x83" + len(body).to_bytes(3, "big") + body


def _addresses() -> Iterator[bytes]:
    yield from (b"ws://127.0.0.1:8000", b"wss://example.org/cube?x=1", b"host.name", b"[::1]")
    yield from (
        b"ws://u:secret@h",
        b"http://h",
        b"ws://[fe80::1%eth0]:80/",
        b"ws://h:99999",
        b"ws://h#x",
    )
    yield from (
        "ws://bücher.example:80/é".encode(),
        b"ws://",
        b"::1",
        b"ws://[v1.x]",
        b"ws://h/\r\nX: y",
    )


_FOLDER: Final = tempfile.TemporaryDirectory(prefix="pi05-fuzz-")
_FILE: Final = Path(_FOLDER.name) / "headers"


def _headers(data: bytes) -> str:
    """What is taken for headers reaches a server as these headers, and no others."""
    _FILE.write_bytes(data)
    try:
        headers = load_headers(headers_file=str(_FILE))
    except ConfigError:
        return "ConfigError"
    lines = "".join(f"\r\n{name}: {value}" for name, value in headers.items())
    try:
        request = _parse_http_request(b"GET / HTTP/1.1" + lines.encode())
    except RuntimeError as exc:
        if len(headers) > 50:
            return "too many for the server"
        if "Content-Length" in str(exc) or "Transfer-Encoding" in str(exc):
            return "a body"
        raise Broken(f"headers that no server takes: {exc}") from exc
    if len(request.headers) != len(headers):
        raise Broken(f"{len(headers)} headers arrive as {len(request.headers)}")
    return f"{min(len(headers), 3)} headers"


def _header_files() -> Iterator[bytes]:
    yield b"# mine\nX-Robot: seven\n\nAuthorization: Bearer x\n"
    yield b"A:b\r\nC : d\r\n"
    yield "X-Name: Bücher".encode()
    yield b"no colon"


_HTTP_WORDS: Final = (
    b"\r\n", b"\r\n\r\n", b": ", b" ", b",", b"\xff", b"\0", b"%00", b"Authorization: ", b"Api-Key ",
    b"Bearer ", _SECRET.encode(), b"X-Forwarded-For: ", b"::1", b"127.0.0.1", b"0.0.0.0",
    b"::ffff:127.0.0.1", b"fe80::1%x", b"10.0.0.1", b"Upgrade: websocket", b"upgrade: WEBSOCKET",
    b"Content-Length: 0", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"GET ", b"POST ", b"/",
    b"/cube", b"/healthz", b"?", b" HTTP/1.1", b"HTTP/1.0", b"x" * 600, b"A: b\r\n" * 40,
)  # fmt: skip
_JSON_WORDS: Final = (
    b"{", b"}", b"[", b"]", b",", b'"', b":", b"null", b"true", b"1e999", b"-1", b'"name"', b'"expires"',
    b'"paths"', b'"requests_per_second"', b'"priority"', b'"low"', b'"2026-01-01T00:00:00Z"',
    b'"0001-01-01T00:00:00+23:59"', b'"9999-12-31T23:59:59.999999-23:59"', b'"created"', b"\\u0000",
    b"\\ud800", b"\xff", b"[" * 200, b"2", b'"/a"',
)  # fmt: skip
_URL_WORDS: Final = (
    b"ws://", b"wss://", b"WS://", b"http://", b"//", b"/", b":", b"@", b"#", b"?", b"[", b"]", b"::1",
    b"%", b"secret@", b":0", b":65535", b":65536", b":-1", b":8_0", b" ", b"\t", b"\r\n", b"\xc3\xa9",
    b"%00", b"\xef\xbc\x8f", b"\xe2\x84\x80", b".", b"..", b"a" * 64, b"xn--", b"\\", b"\0", b"v1.",
    b"\xd9\xa1",
)  # fmt: skip

_JSON_TEXT: Final = of_words(_JSON_WORDS)


def _of_keys_file(data: bytes, chance: random.Random) -> bytes:
    return (of_json if chance.random() < 0.7 else _JSON_TEXT)(data, chance)


TARGETS: Final = (
    Target(
        name="upgrade",
        check=_upgrade,
        seeds=_upgrades,
        mutate=of_words(_HTTP_WORDS),
        most_memory=lambda size: 64 * 1024 + 256 * size,
    ),
    Target(
        name="keys_file",
        check=_keys_file,
        seeds=_keys_files,
        mutate=_of_keys_file,
        most_memory=lambda size: 64 * 1024 + 256 * size,
    ),
    Target(
        name="address",
        check=_address,
        seeds=_addresses,
        mutate=of_words(_URL_WORDS),
        most_memory=lambda size: 256 * 1024 + 256 * size,
    ),
    Target(
        name="certificate",
        check=_certificate,
        seeds=_certificates,
        mutate=of_bytes,
        most_memory=lambda size: 16 * 1024 + 4 * size,
    ),
    Target(
        name="headers_file",
        check=_headers,
        seeds=_header_files,
        mutate=of_words(_HTTP_WORDS),
        most_memory=lambda size: 256 * 1024 + 256 * size,
    ),
)
