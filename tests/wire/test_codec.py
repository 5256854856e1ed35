# SPDX-License-Identifier: Apache-2.0
"""The codec against recorded vectors: OpenPI's flavour, its dialects, refusals and hostile bytes."""

from __future__ import annotations

import enum
import struct
import tracemalloc
from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest

from pi05_websocket.conformance.vectors import read_vectors
from pi05_websocket.errors import ConfigError, DecodeError, EncodeError
from pi05_websocket.wire import codec
from pi05_websocket.wire.codec import DecodeLimits

VECTORS = read_vectors()
OPENPI = [v for v in VECTORS if v["flavour"] in ("openpi", "additions")]
WRITTEN_BY_OPENPI = [v for v in OPENPI if v["name"] != "dialect_marker_false"]
HOSTILE = [v for v in VECTORS if v["flavour"] == "hostile"]

ARRAY = b"\x84\xc4\x0b__ndarray__\xc3\xc4\x04data"  # what every OpenPI array begins with


def by_name(vector: dict[str, Any]) -> str:
    """Name a test case after its vector."""
    return str(vector["name"])


def revived(value: Any) -> Any:
    """Turn a vector's JSON description into the Python value it describes."""
    if isinstance(value, list):
        return [revived(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$ndarray" in value:
        spec = value["$ndarray"]
        return np.array(spec["values"], spec["dtype"]).reshape(spec["shape"])
    if "$npgeneric" in value:
        return np.dtype(value["$npgeneric"]["dtype"]).type(value["$npgeneric"]["value"])
    if "$bytes" in value:
        return bytes.fromhex(value["$bytes"])
    if "$float" in value:
        return float(value["$float"])
    return {key.removesuffix(" (bytes key)"): revived(item) for key, item in value.items()}


def assert_same(actual: Any, expected: Any) -> None:
    """Compare values with arrays in them, types and dtypes included."""
    assert type(actual) is type(expected)
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key in expected:
            assert_same(actual[key], expected[key])
    elif isinstance(expected, list):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            assert_same(a, e)
    elif isinstance(expected, (np.ndarray, np.generic)):
        assert actual.dtype.str == expected.dtype.str
        np.testing.assert_array_equal(actual, expected, strict=True)
    else:
        np.testing.assert_equal(actual, expected)


def vector_named(name: str) -> bytes:
    """Return a vector's message."""
    return bytes.fromhex(next(v for v in VECTORS if v["name"] == name)["hex"])


# ---------------------------------------------------------------------------- what OpenPI writes and reads


@pytest.mark.parametrize("vector", WRITTEN_BY_OPENPI, ids=by_name)
def test_encoding_is_openpis_byte_for_byte(vector: dict[str, Any]) -> None:
    """What OpenPI's packer wrote for a value is what we write for it."""
    assert codec.encode(revived(vector["decoded_by_openpi"])).hex() == vector["hex"]


@pytest.mark.parametrize("vector", OPENPI, ids=by_name)
def test_decoding_is_openpis(vector: dict[str, Any]) -> None:
    """What OpenPI's decoder reads is what we read, types and dtypes included."""
    expected = revived(vector["decoded_by_openpi"])
    assert_same(codec.decode(bytes.fromhex(vector["hex"])), expected)


@pytest.mark.parametrize(
    "name",
    ["array", "str_keys", "raw_bytes_map_keys", "dtype_name"],
)
def test_dialects_decode_to_the_same_array(name: str) -> None:
    """PyPI's msgpack-numpy, str marker keys, bytes map keys and dtype names all mean one array."""
    vector = {
        "array": "dialect_pypi_msgpack_numpy_array",
        "str_keys": "dialect_str_keys",
        "raw_bytes_map_keys": "dialect_raw_bytes_map_keys",
        "dtype_name": "dialect_dtype_name",
    }[name]
    actual = codec.decode(vector_named(vector))
    assert_same(actual, {"actions": np.arange(24, dtype=np.float32).reshape(4, 6) / 4})


def test_pypi_scalar() -> None:
    """A PyPI msgpack-numpy scalar is rebuilt from its raw bytes."""
    actual = codec.decode(vector_named("dialect_pypi_msgpack_numpy_scalar"))
    assert_same(actual, {"x": np.float32(1.5)})


@pytest.mark.parametrize("kind", [b"f", "f", b"", None])
def test_pypi_kind_may_be_absent_empty_or_true(kind: Any) -> None:
    """vllm-omni writes the dtype's own kind where PyPI leaves it empty."""
    entries: dict[Any, Any] = {b"nd": True, b"type": b"<f4", b"shape": [1], b"data": bytes(4)}
    if kind is not None:
        entries[b"kind"] = kind
    assert_same(codec.decode(codec.encode(entries)), np.zeros(1, np.float32))


@pytest.mark.parametrize(
    "entries",
    [
        {"nd": 3},
        {"nd": True, "type": "<f4"},
        {"nd": [1], "type": "a", "data": b"", "shape": []},
        {"nd": np.zeros(2), "type": "a", "data": b"", "shape": []},
        {"nd": True, "type": "<f4", "data": b"", "shape": [0], "colour": "red"},
    ],
)
def test_a_map_that_merely_has_an_nd_entry_stays_a_map(entries: dict[str, Any]) -> None:
    """Only PyPI's complete set of entries makes an array."""
    assert_same(codec.decode(codec.encode(entries)), entries)


@pytest.mark.parametrize(
    ("kind", "text"), [(b"V", "'V'"), (7, "7"), (np.zeros(2), "an array of float64 and shape .2,.")]
)
def test_pypi_flavour_of_another_kind_is_refused(kind: Any, text: str) -> None:
    """A kind that is not the dtype's announces a pickle or a struct."""
    entries = {b"nd": True, b"type": "<f4", b"kind": kind, b"shape": [1], b"data": bytes(4)}
    with pytest.raises(DecodeError, match=f"kind {text} is not allowed"):
        codec.decode(codec.encode(entries))


def test_a_pypi_text_that_cannot_be_sent_again_is_refused() -> None:
    """Half of a surrogate pair is no character: nobody can print it, and we could not send it."""
    entries = {b"nd": False, b"type": "<U2", b"data": b"a\0\0\0\0\xd8\0\0"}
    with pytest.raises(DecodeError, match="code points beyond Unicode"):
        codec.decode(codec.encode(entries))


# ------------------------------------------------------------------------------------------- what is sent


class Colour(str, enum.Enum):  # noqa: UP042 - the older spelling is the one whose str() differs
    RED = "red"


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, (2,)), [1, [2]]),
        (Point(1, 2), [1, 2]),
        (np.float64(0.1), 0.1),
        (np.str_("grüß"), "grüß"),
        (np.bytes_(b"raw"), b"raw"),
        (bytearray(b"raw"), b"raw"),
        (memoryview(b"raw"), b"raw"),
        (Colour.RED, "red"),
        (enum.IntEnum("Gear", {"ONE": 1}).ONE, 1),  # type: ignore[attr-defined]
        (OrderedDict(a=1), {"a": 1}),
        ({np.str_("key"): 1}, {"key": 1}),
        ({b"key": {b"inner": 1}}, {"key": {"inner": 1}}),
        (2**64 - 1, 2**64 - 1),
        (-(2**63), -(2**63)),
        (np.arange(6).reshape(2, 3)[:, ::-1], np.array([[2, 1, 0], [5, 4, 3]])),
        (np.asfortranarray(np.eye(3, 2)), np.eye(3, 2)),
        (np.zeros((0, 6), np.float32), np.zeros((0, 6), np.float32)),
        (np.array(["ab", "c"]), np.array(["ab", "c"])),
        (np.array(["ab"], ">U2"), np.array(["ab"], ">U2")),
        (np.array([b"ab", b"c"]), np.array([b"ab", b"c"])),
        (np.array("a prompt"), np.array("a prompt")),
        (np.array([0.5], ">f8"), np.array([0.5], ">f8")),
        (np.float32("nan"), np.float32("nan")),
        (np.float16("inf"), np.float16("inf")),
        (np.zeros((1,) * 6), np.zeros((1,) * 6)),
        (np.zeros(70_000, np.uint8), np.zeros(70_000, np.uint8)),
        (np.zeros((300, 70_000), bool)[:1], np.zeros((1, 70_000), bool)),
        ({"x" * 40: "y" * 300, "z": "w" * 70_000}, {"x" * 40: "y" * 300, "z": "w" * 70_000}),
        (list(range(-200, 70_000, 4999)), list(range(-200, 70_000, 4999))),
        ([2**31, -(2**31), 2**33, -(2**33)], [2**31, -(2**31), 2**33, -(2**33)]),
        ([[]] * 20, [[]] * 20),
        ([b"a" * 300, b"b" * 70_000], [b"a" * 300, b"b" * 70_000]),
        ({str(i): i for i in range(20)}, {str(i): i for i in range(20)}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_round_trip(value: Any, expected: Any) -> None:
    """What is sent arrives, in the plain type that OpenPI gives it."""
    assert_same(codec.decode(codec.encode(value)), expected)


def test_large_containers_round_trip() -> None:
    """Lists and maps beyond 65 535 entries use msgpack's 32-bit headers."""
    value = {"list": [None] * 70_000, "map": {f"{i}": True for i in range(66_000)}}
    assert codec.decode(codec.encode(value)) == value


def test_float32_of_other_packers() -> None:
    """A single-precision float, which Python packers never write, is read as a float."""
    assert codec.decode(b"\xca" + struct.pack(">f", 1.5)) == 1.5


class Tensor:
    """Looks like torch's: has `__array__` and is no numpy array."""

    def __array__(self) -> Any:
        raise AssertionError("never asked")


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"observation/state": np.array([object()])}, "observation/state: numpy dtype object"),
        ({"observation/state": np.zeros(1, "f4,f4")}, "observation/state: numpy dtype"),
        ({"a": {"b": [0, np.complex64(1)]}}, r"a/b\[1\]: numpy dtype complex64"),
        ({"a": np.zeros(2, "V2")}, r"a: numpy dtype \|V2"),
        ({"a": np.array(["2026-01-01"], "M8[D]")}, "a: numpy dtype datetime64"),
        ({"a": np.zeros(2, np.longdouble)}, "a: numpy dtype"),
        ({"a": np.ndarray(2, "S0")}, "a: numpy dtype"),
        ({"a": np.ma.masked_array([1], [True])}, "a: it is a masked array"),
        ({"a": {1, 2}}, "a: a value of type set cannot travel; send numbers"),
        ({"a": 1j}, "a: a value of type complex"),
        ({"a": Tensor()}, r"Tensor cannot travel; convert it with numpy.asarray\(...\)"),
        (2**64, "this value: an integer of 65 bits"),
        ([-(2**63) - 1], r"\[0\]: an integer of 64 bits"),
        ({"a": {1: 2}}, "a: its key 1 is of type int"),
        ({"a": "\ud800"}, "a: the text .* is not valid Unicode"),
        ({"\ud800": 1}, "the text .* is not valid Unicode"),
        ({b"a": 1j}, "b'a': a value of type complex"),
        (CYCLE, r"^cannot send (\[0\]){32}: it is nested deeper than 32 levels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_encode_refuses_with_the_key(value: Any, message: str) -> None:
    """What OpenPI's wire cannot carry is refused before a byte is written, naming its place."""
    with pytest.raises(EncodeError, match=message):
        codec.encode(value)


def test_a_map_too_deep_is_refused() -> None:
    """Maps count as levels, as lists do."""
    value: Any = 1
    for _ in range(33):
        value = {"a": value}
    with pytest.raises(EncodeError, match="nested deeper"):
        codec.encode(value)


def test_encode_into_keeps_head_room_and_sets_the_length() -> None:
    """The message follows the head-room, and the buffer ends where the message ends."""
    for offset in (0, 3, 64, 258):
        for length in (0, 1000):
            buffer = bytearray(length)
            codec.encode_into({"a": 1}, buffer, offset)
            assert bytes(buffer[offset:]) == codec.encode({"a": 1})


@pytest.mark.parametrize("offset", [-1, 1, 2, 259])
def test_encode_into_has_no_other_offsets(offset: int) -> None:
    """Head-room is written in a form that only these sizes have."""
    with pytest.raises(ValueError, match=f"offset must be 0 or from 3 to 258, got {offset}"):
        codec.encode_into({}, bytearray(), offset)


def test_encode_into_leaves_the_buffer_alone_after_a_refusal() -> None:
    """A refused value costs no byte of the buffer."""
    buffer = bytearray(b"before")
    with pytest.raises(EncodeError):
        codec.encode_into({"a": {1}}, buffer)
    assert buffer == b"before"


# ------------------------------------------------------------------------------------------ memory of arrays


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_large_uint8_arrays_are_read_only_views(wrap: type) -> None:
    """An image shares the message's memory, whatever kind of buffer that is."""
    message = wrap(codec.encode({"image": np.ones((64, 64, 3), np.uint8)}))
    image = codec.decode(message)["image"]
    assert not image.flags.writeable
    assert np.shares_memory(image, np.frombuffer(message, np.uint8))


def test_a_view_keeps_its_buffer_from_being_resized() -> None:
    """While an image lives, the bytearray it was received in cannot be taken from under it."""
    message = bytearray(codec.encode({"image": np.ones((64, 64, 3), np.uint8)}))
    image = codec.decode(message)["image"]
    with pytest.raises(BufferError):
        message.clear()
    del image
    message.clear()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint16])
def test_wider_arrays_are_aligned_copies(dtype: type) -> None:
    """Arrays with an alignment are copied: inside a message they stand anywhere."""
    message = codec.encode({"pad": "x", "state": np.arange(4096, dtype=dtype)})
    state = codec.decode(message)["state"]
    assert state.flags.aligned
    assert state.flags.writeable
    assert not np.shares_memory(state, np.frombuffer(message, np.uint8))


def test_small_uint8_arrays_are_copies() -> None:
    """A few bytes do not keep a whole message alive."""
    state = codec.decode(codec.encode(np.arange(12, dtype=np.uint8)))
    assert state.flags.writeable


def test_a_float_buffer_is_read_as_bytes() -> None:
    """A memoryview of another format is the same message."""
    message = codec.encode("eleven char")
    assert codec.decode(memoryview(np.frombuffer(message, np.float32))) == "eleven char"


# ----------------------------------------------------------------------------------------------- hostile bytes


@pytest.mark.parametrize("vector", HOSTILE, ids=by_name)
def test_hostile_vectors_are_refused(vector: dict[str, Any]) -> None:
    """Pickles, object arrays, wrong lengths, huge shapes: each ends in a DecodeError."""
    with pytest.raises(DecodeError):
        codec.decode(bytes.fromhex(vector["hex"]))


def openpi_array(data: bytes = bytes(4), dtype: Any = "<f4", shape: Any = (1,)) -> bytes:
    """Return a message with one array map, right or wrong."""
    entries = {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}
    return codec.encode({"x": entries})


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b"", "ends after 0 bytes"),
        (b"\x81\xa1a", "announced|ends after"),
        (b"\xc0\xc0", "1 bytes follow the end"),
        (b"\xc1", "an unused tag"),
        (b"\xd4\x01\x00", "an extension type"),
        (b"\xc7\x01\x05\x00", "an extension type"),
        (b"\xd9\x05ab", "5 bytes announced, only 2 follow"),
        (b"\xa2\xff\xfe", "not UTF-8"),
        (b"\xdd\xff\xff\xff\xff", "4294967295 entries announced, only 0 bytes follow"),
        (b"\xdf\xff\xff\xff\xff\xa0", "4294967295 entries announced"),
        (b"\xc6\xff\xff\xff\xff", "4294967295 bytes announced"),
        (b"\x91" * 33 + b"\xc0", "nested deeper than 32 levels"),
        (b"\x91" * 5000 + b"\xc0", "nested deeper than 32 levels"),
        (b"\x81\xa1a" * 33 + b"\xc0", "nested deeper than 32 levels"),
        (b"\x82\xa1a\xc0\xa1a\xc0", "a: this key occurs twice"),
        (b"\x82\xa1a\xc0\xc4\x01a\xc0", "a: this key occurs twice"),
        (b"\x81\x01\xc0", "map keys must be text, got a number"),
        (b"\x81\xc0\xc0", "map keys must be text, got nil"),
        (b"\x81\xc2\xc0", "map keys must be text, got a bool"),
        (b"\x81\x90\xc0", "map keys must be text, got a list or map"),
        (b"\x81\xc4\x01\xff\xc0", "binary map key is not UTF-8"),
        (openpi_array(dtype="<c8", data=bytes(8)), "x: dtype '<c8' is not allowed"),
        (openpi_array(dtype="O"), "x: dtype 'O' is not allowed"),
        (openpi_array(dtype="<f16", data=bytes(16)), "x: dtype '<f16' is not allowed"),
        (openpi_array(dtype="f4,f4", data=bytes(8)), "dtype 'f4,f4' is not allowed"),
        (openpi_array(dtype="(1000,1000)f4"), "is not allowed"),
        (openpi_array(dtype="<U0", data=b""), "dtype '<U0' is not allowed"),
        (openpi_array(dtype="<M8[s]", data=bytes(8)), "is not allowed"),
        (openpi_array(dtype="x" * 500), r"dtype 'x{50,58}\.\.\. is not allowed"),
        (openpi_array(dtype=7), "dtype 7 is not allowed"),
        (openpi_array(dtype=[["x", "<f4"]]), "is not allowed"),
        (openpi_array(data=bytes(3)), r"shape \[1\] of float32 needs 4 data bytes, got 3"),
        (openpi_array(data=bytes(5)), r"needs 4 data bytes, got 5"),
        (openpi_array(shape=(2**62, 2**62)), "data bytes, got 4"),
        (openpi_array(shape=(-1,)), "integers >= 0, got -1"),
        (openpi_array(shape=(-1, -1)), "integers >= 0, got -1"),
        (openpi_array(shape=(True,)), "integers >= 0, got True"),
        (openpi_array(shape=(1.0,)), "integers >= 0, got 1.0"),
        (openpi_array(shape=4), "shape must be a list, got int"),
        (openpi_array(shape=(1,) * 33), "33 dimensions; at most 32"),
        (openpi_array(shape=(0, 2**62, 2**62), data=b""), "too large for a message"),
        (openpi_array(data="text"), "array data must be binary, got str"),  # type: ignore[arg-type]
        (openpi_array(dtype="|b1", data=b"\x02"), "bytes other than 0 and 1"),
        (openpi_array(dtype="<U1", data=b"\xff\xff\xff\xff"), "beyond Unicode"),
        (openpi_array(dtype=">U1", data=b"\xff\x00\x00\x00"), "beyond Unicode"),
        (ARRAY + b"\xc4\x04\x00", "4 bytes announced, only 1 follow"),
        (codec.encode({b"__ndarray__": True}), "needs the keys"),
        (codec.encode({"__ndarray__": 1, "data": b"", "dtype": "<f4", "shape": [0], "order": "F"}), "order"),
        (codec.encode({b"__npgeneric__": True, b"data": 1}), "needs the keys"),
    ],
)  # fmt: skip
def test_illegal_messages_say_what_is_wrong(message: bytes, text: str) -> None:
    """Each rule that bytes can break is named in the error."""
    with pytest.raises(DecodeError, match=text):
        codec.decode(message)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("|u1", 256),
        ("|i1", -129),
        ("<u8", -1),
        ("<f2", 70000.0),
        ("<f4", 1e300),
        ("<f2", 2**63),
        ("|b1", 1),
        ("<i4", True),
        ("<i4", 1.5),
        ("<f4", "1"),
        ("<U1", "a"),
    ],
)
def test_scalars_must_fit_their_dtype(dtype: str, value: Any) -> None:
    """A numpy scalar that would be rounded to infinity, wrapped or converted is refused."""
    message = codec.encode({"x": {b"__npgeneric__": True, b"data": value, b"dtype": dtype}})
    with pytest.raises(DecodeError, match=r"^x: .*(does not fit|cannot be made)"):
        codec.decode(message)


def test_a_float_scalar_may_be_written_as_an_integer() -> None:
    """Packers of other languages write 1.0 as 1."""
    message = codec.encode({b"__npgeneric__": True, b"data": 1, b"dtype": "float32"})
    assert_same(codec.decode(message), np.float32(1))


def test_the_layout_of_an_array_map_does_not_matter() -> None:
    """Entries in another order, or laid out otherwise after the data, mean the same array."""
    entries = {b"__ndarray__": True, b"data": bytes(8), b"shape": (1, 2), b"dtype": "<f4"}
    assert_same(codec.decode(codec.encode(entries)), np.zeros((1, 2), np.float32))


@pytest.mark.parametrize(
    ("limits", "value", "text"),
    [
        (DecodeLimits(max_message_bytes=10), "x" * 10, "has 11 bytes; at most 10"),
        (DecodeLimits(max_depth=2), [[[]]], r"^\[0\]\[0\]: nested deeper than 2"),
        (DecodeLimits(max_items=10), {"a": [0] * 10}, "more than 10 values; send numbers as arr"),
        (DecodeLimits(max_array_dims=1), {"a": np.zeros((1, 1))}, "a: .*2 dimensions; at most 1"),
    ],
)
def test_limits(limits: DecodeLimits, value: Any, text: str) -> None:
    """Each limit is kept, and named when it is passed."""
    with pytest.raises(DecodeError, match=text):
        codec.decode(codec.encode(value), limits)


def test_limits_refuse_nonsense() -> None:
    """A limit below one would refuse every message."""
    with pytest.raises(ConfigError, match="max_depth must be at least 1, got 0"):
        DecodeLimits(max_depth=0)


def test_error_texts_stay_short_and_printable() -> None:
    """A peer's key cannot flood or break a log line."""
    with pytest.raises(DecodeError) as caught:
        codec.decode(codec.encode({"a\n" * 100_000: {"b": {b"__ndarray__": True}}}))
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "entry",
    [
        "x" * 2**21,
        b"\xff" * 2**21,
        ["\xff" * 2**20, "\xff" * 2**20],
        [[[[["\xff" * 2**21]]]]],
        {"\xff" * 2**20: b"\xff" * 2**20},
        np.full(2, "x" * 2**18),
    ],
)
def test_an_error_text_costs_no_more_than_the_message(entry: Any) -> None:
    """What stands in the place of a dtype may be as long as a message may be; it is quoted in part only."""
    message = codec.encode(
        {"x": {b"__ndarray__": True, b"data": b"", b"dtype": entry, b"shape": []}}
    )
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match=r"x: dtype .{1,70} is not allowed"):
            codec.decode(message)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * len(message)
