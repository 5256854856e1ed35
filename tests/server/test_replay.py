# SPDX-License-Identifier: Apache-2.0
"""Recorded actions come back chunk by chunk, and a file that is no recording is told so."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pi05_websocket.errors import ConfigError
from pi05_websocket.server.replay import ReplayOptions, ReplayPolicy, load_replay

ROWS = np.arange(5, dtype=np.float64)[:, None] * np.ones(2)  # row i is (i, i)
CHUNKS = np.stack([ROWS[:3], ROWS[2:]])


def played(policy: ReplayPolicy, replies: int) -> list[list[int]]:
    """Return the row numbers of the next replies."""
    return [[int(row[0]) for row in policy.infer({})["actions"]] for _ in range(replies)]


@pytest.mark.parametrize(
    ("recording", "options", "expected"),
    [
        (ROWS, ReplayOptions(action_horizon=3, advance=2), [[0, 1, 2], [2, 3, 4], [4, 4, 4]]),
        (ROWS, ReplayOptions(action_horizon=3, advance=2, loop=True), [[0, 1, 2], [2, 3, 4], [4, 0, 1]]),
        (ROWS, ReplayOptions(action_horizon=3), [[0, 1, 2], [3, 4, 4], [4, 4, 4]]),
        (ROWS, ReplayOptions(action_horizon=3, loop=True), [[0, 1, 2], [3, 4, 0], [1, 2, 3]]),
        (ROWS[:1], ReplayOptions(action_horizon=2), [[0, 0], [0, 0]]),
        (CHUNKS, ReplayOptions(), [[0, 1, 2], [2, 3, 4], [4, 4, 4], [4, 4, 4]]),
        (CHUNKS, ReplayOptions(loop=True), [[0, 1, 2], [2, 3, 4], [0, 1, 2]]),
    ],
)  # fmt: skip
def test_rows_played(recording: Any, options: ReplayOptions, expected: list[list[int]]) -> None:
    """Each reply holds the rows that follow; at the end the last row is held, or all begins again."""
    assert played(ReplayPolicy(recording, options), len(expected)) == expected


def test_replies_are_float32_of_their_own() -> None:
    """What a client does to its reply does not change the recording."""
    for recording in (ROWS, CHUNKS):
        policy = ReplayPolicy(recording, ReplayOptions(action_horizon=3))
        policy.infer({})["actions"][:] = 9
        policy.reset()
        actions = policy.infer({})["actions"]
        np.testing.assert_array_equal(actions, ROWS[:3].astype(np.float32), strict=True)
    assert repr(policy) == "<ReplayPolicy actions shape=(2, 3, 2) next=1>"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [[0, 1, 2, 3, 4] + [4] * 45]),
        ("?action_horizon=2", [[0, 1], [2, 3]]),
        ("?action_horizon=2&advance=1&loop=false", [[0, 1], [1, 2]]),
        ("?loop&action_horizon=3", [[0, 1, 2], [3, 4, 0]]),
        ("?loop=TRUE&action_horizon=3", [[0, 1, 2], [3, 4, 0]]),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_files_and_options(
    tmp_path: Path, suffix: str, query: str, expected: list[list[int]]
) -> None:
    """Both of numpy's formats, and each option in the words of the command line."""
    path = tmp_path / f"wave{suffix}"
    if suffix == ".npy":
        np.save(path, ROWS)
    else:
        np.savez(path, actions=ROWS, note="left alone")
    assert played(load_replay(f"{path}{query}"), len(expected)) == expected


@pytest.mark.parametrize(
    ("recording", "message"),
    [
        (np.zeros(3), r"expected shape \(ticks, action_dim\) or .*, not empty, got \(3,\)"),
        (np.zeros((0, 6)), r"not empty, got \(0, 6\)"),
        (np.zeros((1, 1, 1, 1)), r"got \(1, 1, 1, 1\)"),
        (np.array([["a"]]), "expected numbers, got dtype <U1"),
        (np.array([[1.0, 2.0], [3.0, np.nan]]), r"expected finite numbers, got nan at \(1, 1\)"),
        (np.array([[1.0, 1e300]]), r"expected finite numbers, got 1e\+300 at \(0, 1\)"),
    ],
)
def test_what_is_no_recording(recording: Any, message: str) -> None:
    """Shape, kind and finiteness are checked before an arm moves."""
    with pytest.raises(ConfigError, match=message):
        ReplayPolicy(recording)


def test_unreadable_files(tmp_path: Path) -> None:
    """Each way a file can be wrong is told with what to do."""
    wrong_key, text, pickled, broken = (
        tmp_path / name for name in ("key.npz", "text.npy", "pickled.npy", "broken.npz")
    )
    np.savez(wrong_key, action=ROWS)
    text.write_text("1, 2, 3")
    np.save(pickled, np.array([object()]), allow_pickle=True)
    broken.write_bytes(b"PK\x03\x04 and then nothing")
    empty = tmp_path / "empty.npy"
    empty.touch()
    header = tmp_path / "header.npy"
    header.write_bytes(b"\x93NUMPY\x01\x00\x08\x00{'a': \0\n")
    packed = tmp_path / "packed.npz"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("actions.npy", bytes(1000))
    stream = bytearray(packed.read_bytes())
    stream[stream.index(b"actions.npy") + len(b"actions.npy")] ^= 0xFF
    packed.write_bytes(stream)
    for path, message in {
        tmp_path / "none.npy": "cannot be read: No such file or directory",
        tmp_path: "cannot be read: Is a directory",
        wrong_key: "expected the key 'actions', got the keys: action",
        text: r"expected a \.npy or \.npz file of numbers",
        pickled: r"expected a \.npy or \.npz file of numbers",
        broken: r"expected a \.npy or \.npz file of numbers",
        empty: r"expected a \.npy or \.npz file of numbers",
        header: r"expected a \.npy or \.npz file of numbers",
        packed: r"expected a \.npy or \.npz file of numbers",
    }.items():
        with pytest.raises(ConfigError, match=message):
            load_replay(str(path))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("speed=2", "unknown option 'speed'; known are action_horizon, advance, loop"),
        ("action_horizon=two", "expected a whole number for action_horizon, got 'two'"),
        ("loop=maybe", "expected loop, loop=true or loop=false, got 'maybe'"),
        ("action_horizon=0", "got action_horizon=0 advance=0"),
        ("advance=-1", "got action_horizon=50 advance=-1"),
        ("action_horizon=10001", "got action_horizon=10001 advance=0"),
        ("advance=99999999999999999999", "got action_horizon=50 advance=99999999999999999999"),
    ],
)
def test_wrong_options(tmp_path: Path, query: str, message: str) -> None:
    """An option that means nothing is not silently ignored."""
    np.save(tmp_path / "wave.npy", ROWS)
    with pytest.raises(ConfigError, match=message):
        load_replay(f"{tmp_path / 'wave.npy'}?{query}")
