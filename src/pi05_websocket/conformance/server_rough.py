# SPDX-License-Identifier: Apache-2.0
"""Checks that a weak server may die of: hostile arrays, frames against RFC 6455, half connections.

After each of them the server is asked again, and what it does then is the verdict.
"""

from __future__ import annotations

import contextlib
import struct
from typing import Final

from pi05_websocket.conformance.checks import Check
from pi05_websocket.conformance.frames import BINARY, PING
from pi05_websocket.conformance.judging import is_error
from pi05_websocket.conformance.server_exchange import unharmed
from pi05_websocket.conformance.target import Target, Unmet
from pi05_websocket.conformance.verdicts import Found, ok, wrong
from pi05_websocket.wire import codec

__all__ = ["CHECKS"]


def _array(dtype: str, data: bytes, shape: list[int]) -> dict[bytes, object]:
    return {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}


def _long_data(target: Target) -> Found:
    return _refused(target, _array("<f4", bytes(64), [2, 3]), "an array with more bytes than shape")


def _structs(target: Target) -> Found:
    return _refused(target, _array("<i4,<f4", bytes(16), [2]), "an array of structs")


def _objects(target: Target) -> Found:
    return _refused(target, _array("|O", bytes(range(8, 24)), [2]), "an array of objects")


def _refused(target: Target, hostile: object, what: str) -> Found:
    session = target.begin()
    session.answer()
    heard = session.ask({**session.request(), "conformance": hostile})
    try:
        target.begin().answer()
    except Unmet as exc:
        return wrong(f"after {what}: {exc}")
    if heard.said is not None and not is_error(target.dialect, heard.said):
        return wrong(f"{what} was taken")
    return ok(f"{what} was refused: {heard}")


def _frames(target: Target) -> Found:
    other = target.begin()
    other.answer()
    cases = {
        "an unmasked frame": b"\x82\x01\x80",
        "a frame of an unknown kind": b"\x8b\x80\x00\x00\x00\x00",
    }
    for what, frame in cases.items():
        link = target.begin(episode=False).link
        link.send_raw(frame)
        heard = link.end(target.settings.patience_s)  # perhaps an error for it, before the close
        if heard.what != "closed":
            return wrong(f"{heard} after {what}")
    return unharmed(target, other, "frames that none may send")


def _announced_length(target: Target) -> Found:
    link = target.begin(episode=False).link
    link.send_raw(b"\x82\xff" + struct.pack(">Q", 1 << 60) + bytes(4) + bytes(1000))
    heard = link.message(target.settings.patience_s)
    if heard.what != "closed":
        return wrong(f"{heard} after a frame that announces an exabyte")
    return ok(str(heard))


def _half(target: Target) -> Found:
    other = target.begin()
    other.answer()
    with contextlib.ExitStack() as opened:
        for said in (b"", b"GET / HTTP/1.1\r\nHost: x\r\nUpgr", b"\x16\x03\x01\x02\x00\x01\x00"):
            sock = opened.enter_context(target.tcp())
            with contextlib.suppress(OSError):
                sock.sendall(said)
        try:
            unfinished = target.begin(episode=False).link
        except Unmet as exc:
            return wrong(f"beside half an upgrade, a new connection: {exc}")
        unfinished.send(BINARY, codec.encode({"a": 1})[:2], fin=False)
        unfinished.send(PING)
        return unharmed(target, other, "half an upgrade, and a message that never ends")


CHECKS: Final[tuple[Check[Target], ...]] = (
    Check(
        name="half",
        clauses=("S-29",),
        expected="others are answered beside connections that say nothing, half, or something else",
        look=_half,
        needs="rough",
    ),
    Check(
        name="frames",
        clauses=("S-27",),
        expected="the connection ends, and others go on",
        look=_frames,
        needs="rough",
    ),
    Check(
        name="announced-length",
        clauses=("S-28",),
        expected="a close before the frame has come",
        look=_announced_length,
        needs="rough",
    ),
    Check(
        name="long-data",
        clauses=("W-10",),
        expected="an error, and the server goes on",
        look=_long_data,
        needs="rough",
    ),
    Check(
        name="structs",
        clauses=("W-10",),
        expected="an error, and the server goes on",
        look=_structs,
        needs="rough",
    ),
    Check(
        name="objects",
        clauses=("W-10",),
        expected="an error, and the server goes on",
        look=_objects,
        needs="rough",
    ),
)
"""In the order in which they are made; what may end the process comes last."""
