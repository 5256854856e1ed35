# SPDX-License-Identifier: Apache-2.0
"""Checks of a server before the first request: upgrade, keys, plain HTTP, metadata, pings, the goodbye."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pi05_websocket.conformance.checks import Check
from pi05_websocket.conformance.encoding import encoding_faults, faults_text
from pi05_websocket.conformance.frames import PING, accept_of
from pi05_websocket.conformance.judging import (
    announces_realtime,
    decoded,
    images_fault,
    realtime_fault,
)
from pi05_websocket.conformance.target import Target, Unmet
from pi05_websocket.conformance.verdicts import Found, not_applicable, ok, wrong
from pi05_websocket.wire.dialects import OPENPI
from pi05_websocket.wire.encoded_images import IMAGES_KEY, reads_jpeg
from pi05_websocket.wire.realtime import REALTIME_KEY

__all__ = ["CHECKS", "ENCODING"]

ENCODING: Final = ("W-1", "W-2", "W-3", "W-4", "W-6", "W-7", "W-8")
_REFUSED: Final = (401, 403)
_SCHEMES: Final = ("Api-Key", "Bearer")


def _upgrade(target: Target) -> Found:
    link, response, key = target.connect()
    if response is None:
        return wrong("the connection ended without an HTTP answer")
    if link is None:
        return wrong(response.line)
    accept = response.get("sec-websocket-accept")
    if accept != accept_of(key):
        return wrong(f"Sec-WebSocket-Accept {accept!r} for the key {key!r}")
    return ok(response.line)


def _nothing_extra(target: Target) -> Found:
    link, response, _ = target.connect()
    if link is None or response is None:
        return wrong("no WebSocket")
    for header in ("sec-websocket-extensions", "sec-websocket-protocol"):
        if response.all(header):
            return wrong(f"{header}: {response.get(header)}, which was not offered")
    link.message(target.settings.patience_s)
    if link.faults:
        return wrong(", ".join(sorted(set(link.faults))))
    return ok("no extension, no subprotocol; frames without reserved bits and masks")


def _no_compression(target: Target) -> Found:
    _, response, _ = target.connect({"Sec-WebSocket-Extensions": "permessage-deflate"})
    agreed = "" if response is None else response.get("sec-websocket-extensions")
    return wrong(f"agreed to {agreed}") if agreed else ok("declined")


def _unknown_headers(target: Target) -> Found:
    link, response, _ = target.connect({"X-Conformance": "1", "X-Empty": ""})
    if link is None:
        return wrong("no answer" if response is None else response.line)
    return ok("let in with headers of no meaning")


def _keys(target: Target) -> Found:
    link, response, _ = target.connect(with_key=False)
    if link is not None:
        heard = link.message(target.settings.patience_s)
        if heard.what == "closed":
            return wrong(f"without a key it upgrades, then {heard}")
        return not_applicable("it lets in whoever comes")
    statuses = [0 if response is None else response.status]
    for scheme in _SCHEMES:
        link, response, _ = target.connect(_with(scheme, "wrong"), with_key=False)
        statuses.append(101 if link is not None else 0 if response is None else response.status)
    said = f"HTTP {statuses[0]} without a key, {statuses[1]} and {statuses[2]} with a wrong one"
    if not all(status in _REFUSED for status in statuses):
        return wrong(said)
    key = _key_in(target.settings.headers)
    if not key:
        return ok(f"{said}; with the right one it was not asked: give it")
    read = [scheme for scheme in _SCHEMES if target.connect(_with(scheme, key), with_key=False)[0]]
    if not read:
        return wrong(f"{said}; the right key is read as {' or '.join(_SCHEMES)} by neither name")
    return ok(f"{said}; it reads {' and '.join(read)}")


def _with(scheme: str, key: str) -> dict[str, str]:
    return {"Authorization": f"{scheme} {key}"}


def _key_in(headers: Mapping[str, str]) -> str:
    """Return the key that is sent, whatever its scheme; empty: none."""
    sent = next((value for name, value in headers.items() if name.lower() == "authorization"), "")
    return sent.rpartition(" ")[2]


def _health(target: Target) -> Found:
    status, body = target.get("/healthz")
    said = f"{status} {body[:40]!r}" if status else "no HTTP answer"
    return ok(said) if (status, body) == (200, b"OK\n") else wrong(said)


def _no_upgrade(target: Target) -> Found:
    status, _ = target.get("/conformance")
    return ok("426") if status == 426 else wrong(f"{status}" if status else "no HTTP answer")


def _metadata(target: Target) -> Found:
    link, _, _ = target.connect()
    if link is None:
        return wrong("no WebSocket")
    heard = link.message(target.settings.patience_s)
    if heard.what != "binary":
        return wrong(f"{heard} as the first message")
    value = decoded(heard.payload)
    if not isinstance(value, dict):
        return wrong(f"a message that is {type(value).__name__}: {str(value)[:80]}")
    return ok(f"a map of {', '.join(sorted(value)) or 'nothing'}")


def _metadata_encoding(target: Target) -> Found:
    link, _, _ = target.connect()
    heard = None if link is None else link.message(target.settings.patience_s)
    if heard is None or heard.what != "binary":
        return not_applicable("no binary first message")
    faults = encoding_faults(heard.payload)
    if faults:
        return wrong(faults_text(faults), *dict.fromkeys(fault.clause for fault in faults))
    return ok(f"{len(heard.payload)} bytes")


def _quiet(target: Target) -> Found:
    heard = target.begin(episode=False).link.receive(target.settings.quiet_s)
    if heard.what != "silence":
        return wrong(f"{heard} after the metadata, unasked")
    return ok(f"silence for {target.settings.quiet_s:g} s")


def _ping(target: Target) -> Found:
    link = target.begin(episode=False).link
    link.send(PING, b"conformance")
    heard = link.receive(target.settings.patience_s)
    if heard.what != "pong" or heard.payload != b"conformance":
        return wrong(f"{heard} {heard.payload[:40]!r}" if heard.what == "pong" else str(heard))
    return ok("a pong with the same payload")


def _goodbye(target: Target) -> Found:
    link = target.begin(episode=False).link
    heard = link.say_goodbye(1000, target.settings.patience_s)
    if heard.what == "silence" or heard.code == 1006:
        return wrong(str(heard))
    return ok(str(heard))


def _several(target: Target) -> Found:
    link = target.begin(episode=False).link
    try:
        for _ in range(2):
            target.begin(episode=False)
    except Unmet as exc:
        return wrong(f"while one is open: {exc}")
    link.send(PING, b"still here")
    heard = link.receive(target.settings.patience_s)
    if heard.what != "pong":
        return wrong(f"with three connections the first has {heard}")
    return ok("three at a time, each with its metadata")


def _announced(key: str, fault_of: Any) -> Any:
    def look(target: Target) -> Found:
        metadata = target.begin(episode=False).metadata
        if key not in metadata:
            return not_applicable(f"no {key} in the metadata")
        fault = fault_of(metadata)
        return wrong(fault) if fault else ok(str(metadata[key]))

    return look


def _nothing_of_ours(target: Target) -> Found:
    if target.dialect is OPENPI:
        return not_applicable("the dialect is openpi")
    metadata = target.begin(episode=False).metadata
    if announces_realtime(metadata) or reads_jpeg(metadata):
        return wrong(f"announced: {', '.join(sorted(metadata))}")
    return ok("neither is announced")


CHECKS: Final[tuple[Check[Target], ...]] = (
    Check(
        name="upgrade",
        clauses=("S-1",),
        expected="101 and the right Sec-WebSocket-Accept",
        look=_upgrade,
        needs="connection",
    ),
    Check(
        name="nothing-extra",
        clauses=("S-2",),
        expected="nothing that was not offered",
        look=_nothing_extra,
        needs="connection",
    ),
    Check(
        name="no-compression",
        clauses=("S-3",),
        expected="permessage-deflate is declined",
        look=_no_compression,
        needs="connection",
    ),
    Check(
        name="unknown-headers",
        clauses=("S-22",),
        expected="an upgrade, whatever other headers say",
        look=_unknown_headers,
        needs="connection",
    ),
    Check(
        name="keys",
        clauses=("S-23",),
        expected="HTTP 401 or 403 before the upgrade, without a key and with a wrong one",
        look=_keys,
        needs="connection",
    ),
    Check(
        name="health",
        clauses=("S-20",),
        expected="200 and b'OK\\n'",
        look=_health,
        needs="connection",
    ),
    Check(
        name="no-upgrade",
        clauses=("S-21",),
        expected="426 for a plain GET",
        look=_no_upgrade,
        needs="connection",
    ),
    Check(
        name="metadata",
        clauses=("S-4",),
        expected="a binary message with a map, before anything was asked",
        look=_metadata,
        needs="connection",
    ),
    Check(
        name="metadata-encoding",
        clauses=ENCODING,
        expected="OpenPI's encoding",
        look=_metadata_encoding,
        needs="connection",
    ),
    Check(
        name="quiet",
        clauses=("S-5",),
        expected="no message that nobody asked for",
        look=_quiet,
        needs="connection",
    ),
    Check(
        name="ping",
        clauses=("S-16",),
        expected="a pong with the ping's payload",
        look=_ping,
        needs="connection",
    ),
    Check(
        name="goodbye",
        clauses=("S-18",),
        expected="a close frame for a close frame",
        look=_goodbye,
        needs="connection",
    ),
    Check(
        name="several",
        clauses=("S-19",),
        expected="several connections at a time, each with metadata",
        look=_several,
        needs="connection",
    ),
    Check(
        name="rt-announcement",
        clauses=("RT-1",),
        expected="version, prefix, max_delay, refusals as in the table",
        look=_announced(REALTIME_KEY, realtime_fault),
        needs="connection",
    ),
    Check(
        name="images-announcement",
        clauses=("IM-1",),
        expected="version and encodings as in the table",
        look=_announced(IMAGES_KEY, images_fault),
        needs="connection",
    ),
    Check(
        name="nothing-of-ours",
        clauses=("D-2",),
        expected="neither _rt nor _images announced in another family's dialect",
        look=_nothing_of_ours,
        needs="connection",
    ),
)
"""In the order in which they are made."""
