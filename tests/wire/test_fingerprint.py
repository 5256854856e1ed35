# SPDX-License-Identifier: Apache-2.0
"""Two servers of the same policy are known by what they announce, or not at all."""

from __future__ import annotations

import numpy as np

from pi05_websocket.wire.fingerprint import fingerprint_of


def test_order_does_not_matter() -> None:
    """The same weights and statistics in another order are the same policy."""
    one = {"fingerprint": {"weights": "a", "parts": [{"x": 1, "y": 2}]}, "name": "one"}
    other = {"fingerprint": {"parts": [{"y": 2, "x": 1}], "weights": "a"}, "name": "other"}
    assert fingerprint_of(one) == fingerprint_of(other) is not None


def test_another_statistic_is_another_policy() -> None:
    """Whatever differs in it counts, and in a list also where it stands."""
    assert fingerprint_of({"fingerprint": {"w": "a"}}) != fingerprint_of(
        {"fingerprint": {"w": "b"}}
    )
    assert fingerprint_of({"fingerprint": [1, 2]}) != fingerprint_of({"fingerprint": [2, 1]})


def test_stock_metadata_prove_nothing() -> None:
    """No fingerprint, or an empty one, is none; keys of any kind do no harm."""
    assert fingerprint_of({}) is None
    assert fingerprint_of({"fingerprint": {}}) is None
    assert fingerprint_of({"fingerprint": {1: "a", "b": 2}}) is not None


def test_an_array_may_stand_there_too() -> None:
    """It is neither true nor false, and two of them are told apart."""
    ones, twos = (fingerprint_of({"fingerprint": np.full(2, value)}) for value in (1, 2))
    assert None not in (ones, twos)
    assert ones != twos
