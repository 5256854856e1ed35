# SPDX-License-Identifier: Apache-2.0
"""No reply reaches an arm before it is a finite chunk of the right width."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pi05_websocket.errors import InvalidReply
from pi05_websocket.wire.messages import read_actions, server_infer_ms

SIGNALLING = np.frombuffer(bytes.fromhex("010000000000f07f") * 2, "<f8")
"""NaN that warns where it is converted, which in a test is an error."""


@pytest.mark.parametrize("key", ["actions", "action"])
@pytest.mark.parametrize("dtype", ["<f8", "<f4", ">f4", "<f2", "<i4", "|u1"])
def test_numbers_become_a_float32_chunk(key: str, dtype: str):
    """OpenPI answers float64 as a rule; the arm's chunk is native float32 of its own."""
    sent = np.arange(6).reshape(3, 2).astype(dtype)

    chunk = read_actions({key: sent}, action_dim=2)

    assert chunk.dtype == np.dtype("=f4")
    assert chunk.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert not np.shares_memory(chunk, sent)


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (None, "NoneType"),
        (np.zeros((3, 2)), "ndarray"),
        ({"state": 1}, "state"),
        ({}, "none"),
        ({"actions": [[1, 2]]}, "list"),
        ({"actions": np.array([["a", "b"]])}, "<U1"),
        ({"actions": np.array([[True, False]])}, "b1"),
        ({"actions": np.zeros(2)}, r"\(2,\)"),
        ({"actions": np.zeros((1, 3, 2))}, r"\(1, 3, 2\)"),
        ({"actions": np.zeros((0, 2))}, "at least one row"),
        ({"actions": np.zeros((3, 0))}, "at least one row"),
        ({"actions": np.zeros((3, 7))}, "expected 2 values for each tick, got 7"),
        ({"actions": np.zeros((10_001, 2), np.uint8)}, "at most 10000 rows of 1024"),
        ({"actions": np.zeros((1, 1025), np.uint8)}, "at most 10000 rows of 1024"),
        ({"\x1b[2J": 1}, r"keys: \\x1b\[2J$"),
        ({str(number): 1 for number in range(99)}, r", \.\.\.$"),
        ({"actions": np.array([[0, 0], [np.nan, 0]])}, "nan in row 1, column 0"),
        ({"actions": np.array([[0, np.inf]])}, "inf in row 0, column 1"),
        ({"actions": SIGNALLING.reshape(1, 2)}, "nan in row 0, column 0"),
        ({"actions": np.array([[0, 1e300]])}, r"1e\+300 in row 0"),
    ],
)
def test_everything_else_is_refused_with_its_reason(reply: Any, told: str):
    """What, expected, got."""
    with pytest.raises(InvalidReply, match=told):
        read_actions(reply, action_dim=2)


def test_any_width_where_none_is_known():
    """The first chunk may teach the width."""
    assert read_actions({"actions": np.zeros((3, 7))}).shape == (3, 7)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ({"server_timing": {"infer_ms": 12.5}}, 12.5),
        ({"server_timing": {"infer_ms": 12}}, 12.0),
        ({"server_timing": {"infer_ms": float("nan")}}, None),
        ({"server_timing": {"infer_ms": True}}, None),
        ({"server_timing": {"infer_ms": -1}}, None),
        ({"server_timing": {"infer_ms": 1e300}}, None),
        ({"server_timing": {"infer_ms": "fast"}}, None),
        ({"server_timing": 3}, None),
        ({}, None),
        (None, None),
    ],
)
def test_server_time_is_taken_where_it_is_a_number(reply: Any, expected: float | None):
    """Timings are decoration: never an error."""
    assert server_infer_ms(reply) == expected
