# SPDX-License-Identifier: Apache-2.0
"""The text of a request that was not let through, both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.wire.refusals import KINDS, REFUSED, Refusal, read_refusal, refusal_text


def test_what_is_sent() -> None:
    """The docstring's example: readable by a person who has only this line."""
    refusal = Refusal(kind="busy", text="40 requests wait", retry_after_s=0.25)
    assert refusal_text(refusal) == "RequestRefused: busy retry_after_s=0.250: 40 requests wait"
    assert refusal_text(Refusal(kind="late", text="x")) == "RequestRefused: late: x"


@given(
    st.builds(
        Refusal,
        kind=st.sampled_from(KINDS),
        text=st.text(),
        retry_after_s=st.none() | st.integers(0, 3_600_000).map(lambda ms: ms / 1000),
    )
)
def test_there_and_back(refusal: Refusal) -> None:
    """Whatever is refused is understood as it was meant, to the millisecond."""
    assert read_refusal(refusal_text(refusal)) == refusal


@pytest.mark.parametrize(("asked", "said"), [(-1.0, 0.0), (1e9, 3600.0), (float("inf"), 3600.0)])
def test_no_robot_waits_for_ever(asked: float, said: float) -> None:
    """What is sent and what is read lies between nothing and an hour."""
    text = refusal_text(Refusal(kind="rate", text="", retry_after_s=asked))
    assert read_refusal(text) == Refusal(kind="rate", text="", retry_after_s=said)
    assert read_refusal(f"{REFUSED}busy retry_after_s=999999: x") == Refusal(
        kind="busy", text="x", retry_after_s=3600.0
    )


@given(st.text() | st.text().map(lambda text: REFUSED + text))
def test_any_other_text_is_none(text: str) -> None:
    """It never raises, and it finds nothing where no kind of ours is named."""
    refusal = read_refusal(text)
    assert refusal is None or text.startswith(tuple(f"{REFUSED}{kind}" for kind in KINDS))
