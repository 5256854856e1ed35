# SPDX-License-Identifier: Apache-2.0
"""Plain words for a person, one word for a counter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.ops.words import closing_reason, error_type, in_plain_words, percent
from pi05_websocket.server.records import DISCONNECTED
from pi05_websocket.wire.refusals import KINDS


@pytest.mark.parametrize(
    ("why", "expected"),
    [
        ("KeyError: 'image'", "the policy looks for 'image' and the observation has no such key"),
        ("DecodeError: _rt.seq: expected", "what it sent does not fit: _rt.seq: expected"),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried",
            "no memory is left for the policy: CUDA out of memory. Tried",
        ),
        ("RuntimeError: size mismatch", "the policy failed: RuntimeError: size mismatch"),
        ("TimeoutError: the request waited", "it waited too long: the request waited"),
        ("ValueError", "the policy failed: ValueError"),
        ("", "the policy failed: "),
    ],
)
def test_failures(why: str, expected: str) -> None:
    """What an exception's line means for who looks at the page."""
    assert in_plain_words("failed", why) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_every_refusal_has_words(kind: str) -> None:
    """Of the wire's own kinds none is shown raw; of a kind nobody knows yet, the kind."""
    assert kind not in in_plain_words("refused", kind).split(": ")[-1].split(" ")[0]
    assert in_plain_words("refused", "new") == "refused: new"


@pytest.mark.parametrize(
    ("why", "expected"),
    [
        ("KeyError: 'x'", "KeyError"),
        ("torch.OutOfMemoryError: CUDA", "OutOfMemoryError"),
        ("SystemExit", "SystemExit"),
        ("what a stranger says: x", "other"),
        ("", "other"),
    ],
)
def test_error_types(why: str, expected: str) -> None:
    """The exception's own name, without its module; anything else is one word."""
    assert error_type(why) == expected


@given(st.text())
def test_an_error_type_is_always_one_short_word(why: str) -> None:
    """It becomes a label: whatever a client sent, it is a name."""
    assert error_type(why).isidentifier()
    assert len(error_type(why)) <= 64


@pytest.mark.parametrize(
    ("why", "expected"),
    [
        ("1000 by the client", "goodbye"),
        ("1001 by the client", "goodbye"),
        ("1001 the server is stopping", "stopping"),
        (f"1001 {DISCONNECTED}", "operator"),
        ("1002 a continuation of no message", "protocol"),
        ("1008 the key arm was revoked or replaced, or has expired", "key"),
        ("1008 a message that took longer than 60 s to come", "bounds"),
        ("1009 a message of more than 5 bytes", "too_big"),
        ("1011 KeyError: 'x'", "failed"),
        ("lost: no goodbye", "lost"),
        ("4000 by the client", "other"),
    ],
)
def test_closing_reasons(why: str, expected: str) -> None:
    """Why a connection ended, in a word."""
    assert closing_reason(why) == expected


@pytest.mark.parametrize(
    ("part", "expected"), [(0, "0 %"), (1, "less than 1 %"), (5, "2 %"), (300, "100 %")]
)
def test_percent(part: int, expected: str) -> None:
    """What is little is not nothing."""
    assert percent(part, 300) == expected
