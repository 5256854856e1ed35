# SPDX-License-Identifier: Apache-2.0
"""What everything a client sent says about it, when the script is over. Pure.

In: evidence. Out: a finding for each check.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pi05_websocket.conformance.checks import Check
from pi05_websocket.conformance.encoding import (
    Fault,
    encoding_faults,
    faults_text,
    is_openpis_bytes,
)
from pi05_websocket.conformance.frames import HttpHead
from pi05_websocket.conformance.judging import decoded, has_encoded_image, request_faults
from pi05_websocket.conformance.verdicts import Found, not_applicable, ok, wrong
from pi05_websocket.wire.realtime import REALTIME_KEY

__all__ = ["EVIDENCE_CHECKS", "Evidence"]

_KEY: Final = re.compile(r"(Api-Key|Bearer) \S+", re.ASCII)
_ENCODING: Final = ("W-1", "W-2", "W-3", "W-4", "W-6", "W-7", "W-8")


@dataclass(slots=True)
class Evidence:
    """Everything that was seen of the client."""

    upgrades: list[HttpHead] = field(default_factory=list)
    too_early: list[str] = field(default_factory=list)
    """What came before the metadata."""

    requests: list[tuple[bytes | str, Mapping[str, Any]]] = field(default_factory=list)
    """Each message, and the metadata of its connection."""

    frame_faults: list[str] = field(default_factory=list)


def _upgrades(seen: Evidence) -> Found:
    for head in seen.upgrades:
        fault = _upgrade_fault(head)
        if fault:
            return wrong(fault)
    return ok(f"{len(seen.upgrades)} of them")


def _upgrade_fault(head: HttpHead) -> str:
    if not head.line.startswith("GET ") or not head.line.endswith(" HTTP/1.1"):
        return head.line
    if head.get("sec-websocket-version") != "13":
        return f"Sec-WebSocket-Version: {head.get('sec-websocket-version')}"
    if "upgrade" not in head.get("connection").lower():
        return f"Connection: {head.get('connection')}"
    if len(head.all("host")) != 1:
        return f"{len(head.all('host'))} Host headers"
    try:
        key = base64.b64decode(head.get("sec-websocket-key"), validate=True)
    except ValueError:  # no base64, or no ASCII
        key = b""
    return "" if len(key) == 16 else f"Sec-WebSocket-Key: {head.get('sec-websocket-key')}"


def _keys(seen: Evidence) -> Found:
    said = [head.all("authorization") for head in seen.upgrades]
    if not any(said):
        return not_applicable("it sends no key")
    for values in said:
        if len(values) > 1 or not all(_KEY.fullmatch(value) for value in values):
            schemes = ", ".join(value.partition(" ")[0] for value in values)
            return wrong(f"{len(values)} Authorization headers: {schemes} ...")
    return ok(f"{next(values for values in said if values)[0].partition(' ')[0]} KEY")


def _early(seen: Evidence) -> Found:
    if seen.too_early:
        return wrong(f"before the metadata: {seen.too_early[0]}")
    return ok(f"waited for it, {len(seen.upgrades)} times")


def _requests(seen: Evidence) -> Found:
    for said, _ in seen.requests:
        if isinstance(said, str):
            return wrong(f"the text {said[:60]!r}")
    return _of(seen, "C-5")


def _frames(seen: Evidence) -> Found:
    if seen.frame_faults:
        return wrong(", ".join(sorted(set(seen.frame_faults))))
    return ok("masked, without reserved bits")


def _encoding(seen: Evidence) -> Found:
    for said, _ in seen.requests:
        faults = encoding_faults(said) if isinstance(said, bytes) else []
        if faults:
            return wrong(faults_text(faults), *dict.fromkeys(fault.clause for fault in faults))
    return ok(f"{len(seen.requests)} requests")


def _bytes(seen: Evidence) -> Found:
    if not all(is_openpis_bytes(said) for said, _ in seen.requests if isinstance(said, bytes)):
        return wrong("other bytes than OpenPI's packer writes for the same")
    return ok("the bytes OpenPI's packer writes")


def _of(seen: Evidence, clause: str) -> Found:
    faults = [fault for fault in _request_faults(seen) if fault.clause == clause]
    return wrong(faults[0].text) if faults else ok(f"{len(seen.requests)} requests")


def _request_faults(seen: Evidence) -> Iterator[Fault]:
    for said, metadata in seen.requests:
        if isinstance(said, bytes):
            yield from request_faults(said, metadata)


def _obeys(clause: str) -> Callable[[Evidence], Found]:
    return lambda seen: _of(seen, clause)


def _form_of(clause: str, what: str, sent: Callable[[object], bool]) -> Callable[[Evidence], Found]:
    def look(seen: Evidence) -> Found:
        if not any(sent(decoded(said)) for said, _ in seen.requests if isinstance(said, bytes)):
            return not_applicable(f"it sends no {what}")
        return _of(seen, clause)

    return look


def _has_realtime(value: object) -> bool:
    return isinstance(value, dict) and REALTIME_KEY in value


EVIDENCE_CHECKS: Final[tuple[Check[Evidence], ...]] = (
    Check(
        name="upgrade",
        clauses=("C-1",),
        expected="GET, one Host, version 13, a key of 16 bytes",
        look=_upgrades,
    ),
    Check(
        name="key",
        clauses=("C-17",),
        expected="one header: Api-Key KEY or Bearer KEY",
        look=_keys,
    ),
    Check(
        name="early",
        clauses=("C-3",),
        expected="nothing before the metadata",
        look=_early,
    ),
    Check(
        name="requests",
        clauses=("C-5",),
        expected="binary messages, each a map",
        look=_requests,
    ),
    Check(
        name="frames",
        clauses=("C-6",),
        expected="masked frames without reserved bits",
        look=_frames,
    ),
    Check(
        name="request-encoding",
        clauses=_ENCODING,
        expected="OpenPI's encoding",
        look=_encoding,
    ),
    Check(
        name="request-bytes",
        clauses=("W-5",),
        expected="the bytes OpenPI's packer writes",
        look=_bytes,
    ),
    Check(
        name="episodes",
        clauses=("C-19",),
        expected="no message for a new episode",
        look=_obeys("C-19"),
    ),
    Check(
        name="rt-unannounced",
        clauses=("RT-2",),
        expected="no _rt where none is announced",
        look=_obeys("RT-2"),
    ),
    Check(
        name="rt-form",
        clauses=("RT-3",),
        expected="_rt with the fields of its table",
        look=_form_of("RT-3", "_rt", _has_realtime),
    ),
    Check(
        name="images-unannounced",
        clauses=("IM-2",),
        expected="no encoded image where none is announced",
        look=_obeys("IM-2"),
    ),
    Check(
        name="images-form",
        clauses=("IM-3",),
        expected="encoded images that are what they say",
        look=_form_of("IM-3", "encoded images", has_encoded_image),
    ),
)
"""In the order in which they are shown."""
