# SPDX-License-Identifier: Apache-2.0
"""The codec against everything Hypothesis can think of: OpenPI's own codec, and any bytes at all."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pi05_websocket.errors import DecodeError
from pi05_websocket.wire import codec

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
KEYS = TEXT.filter(lambda key: key not in ("__ndarray__", "__npgeneric__", "nd"))  # not markers

DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    hnp.byte_string_dtypes(endianness="?", min_len=1, max_len=5),
    hnp.unicode_string_dtypes(endianness="?", min_len=1, max_len=5),
)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Draw arrays of every kind that travels, 0-d to 4-d, contiguous or not."""
    dtype = draw(DTYPES)
    elements = {}
    if dtype.kind == "U":
        characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
        elements["elements"] = st.text(characters, max_size=dtype.itemsize // 4)
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    array = draw(hnp.arrays(dtype, shape, **elements))
    view = draw(st.sampled_from(["plain", "reversed", "transposed", "fortran", "strided"]))
    if view == "reversed" and array.ndim:
        return array[::-1]
    if view == "strided" and array.ndim:
        return array[..., ::2]
    if view == "transposed":
        return array.T
    return np.asfortranarray(array) if view == "fortran" else array


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    TEXT,
    st.binary(max_size=12),
    st.floats(width=32).map(np.float32),
    st.floats(width=16).map(np.float16),
    st.floats().map(np.float64),
    st.integers(-(2**31), 2**31 - 1).map(np.int32),
    st.integers(0, 255).map(np.uint8),
    st.booleans().map(np.bool_),
    TEXT.map(np.str_),
    st.binary(max_size=5).map(np.bytes_),
)
VALUES = st.recursive(
    st.one_of(SCALARS, arrays()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
    ),
    max_leaves=12,
)
OBSERVATIONS = st.dictionaries(KEYS, VALUES, max_size=6)


def same(actual: Any, expected: Any) -> bool:
    """Compare by the bytes OpenPI writes: exact, NaN and types included."""
    return codec.encode(actual) == codec.encode(expected)


def decode_or_error(data: bytes) -> Any:
    """Decode; a DecodeError is a fine answer, anything else propagates."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return codec.decode(data)
        except DecodeError as error:
            return error


def assert_harmless(value: Any) -> None:
    """Check that no array in a decoded value could run foreign code or crash when it is read."""
    if isinstance(value, dict):
        assert all(isinstance(key, str) for key in value)
        for item in value.values():
            assert_harmless(item)
    elif isinstance(value, list):
        for item in value:
            assert_harmless(item)
    elif isinstance(value, (np.ndarray, np.generic)):
        assert value.dtype.kind in "biufUS"
        value.tolist()


@pytest.mark.openpi
@given(OBSERVATIONS)
def test_bytes_are_those_of_openpis_packer(observation: dict[str, Any]) -> None:
    """Whatever the observation, our bytes are those of OpenPI's `packb`."""
    from openpi_client import msgpack_numpy

    assert codec.encode(observation) == msgpack_numpy.packb(observation)


@pytest.mark.openpi
@given(OBSERVATIONS)
def test_values_are_those_of_openpis_unpacker(observation: dict[str, Any]) -> None:
    """What OpenPI's `unpackb` makes of a message, we make of it too."""
    from openpi_client import msgpack_numpy

    message = msgpack_numpy.packb(observation)
    assert same(codec.decode(message), msgpack_numpy.unpackb(message))


@given(OBSERVATIONS)
def test_round_trip(observation: dict[str, Any]) -> None:
    """Decoding gives back what was encoded, as OpenPI's plain types."""
    assert same(codec.decode(codec.encode(observation)), observation)


@given(OBSERVATIONS, st.just(0) | st.integers(3, 258))
def test_encode_into_is_encode(observation: dict[str, Any], offset: int) -> None:
    """A reused buffer holds the same bytes behind its head-room."""
    buffer = bytearray(100)
    codec.encode_into(observation, buffer, offset)
    assert bytes(buffer[offset:]) == codec.encode(observation)


@given(arrays(), st.permutations(["__ndarray__", "data", "dtype", "shape"]), st.booleans())
def test_any_layout_of_an_array_map_is_the_same_array(
    array: np.ndarray[Any, Any], order: list[str], as_bytes: bool
) -> None:
    """Order and kind of the keys do not matter, so the fast path for OpenPI's layout hides nothing."""
    entries = {
        "__ndarray__": True,
        "data": array.tobytes(),
        "dtype": array.dtype.str,
        "shape": array.shape,
    }
    message = codec.encode({key.encode() if as_bytes else key: entries[key] for key in order})
    assert same(codec.decode(message), codec.decode(codec.encode(array)))


@given(st.binary(max_size=300))
def test_any_bytes_end_in_a_value_or_a_decode_error(data: bytes) -> None:
    """No bytes crash the decoder, warn, or yield an array that is not what it says."""
    assert_harmless(decode_or_error(data))


@settings(max_examples=300)
@given(OBSERVATIONS, st.data())
def test_damaged_messages_end_in_a_value_or_a_decode_error(
    observation: dict[str, Any], data: st.DataObject
) -> None:
    """Flipped, removed and inserted bytes in real messages do no harm."""
    message = bytearray(codec.encode(observation))
    assume(len(message) > 1)
    for _ in range(data.draw(st.integers(1, 4), label="damages")):
        at = data.draw(st.integers(0, len(message) - 1), label="at")
        length = data.draw(st.integers(0, 3), label="removed")
        message[at : at + length] = data.draw(st.binary(max_size=3), label="inserted")
        assume(message)
    assert_harmless(decode_or_error(bytes(message)))


@given(OBSERVATIONS, st.data())
def test_truncated_messages_are_refused(observation: dict[str, Any], data: st.DataObject) -> None:
    """A message cut anywhere is an error, never a shorter value."""
    message = codec.encode(observation)
    cut = data.draw(st.integers(0, len(message) - 1))
    assert isinstance(decode_or_error(message[:cut]), DecodeError)
