# SPDX-License-Identifier: Apache-2.0
"""The joints between chunks: what they promise for any chunks, and by example."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.chunks.seam import SeamConfig, blend, ensemble, join, quintic
from pi05_websocket.errors import ConfigError

BLEND = SeamConfig(kind="blend")
finite = st.floats(-90, 90, width=32)


def column(*values: float) -> npt.NDArray[np.float32]:
    """Return values as a chunk of one joint."""
    return np.array(values, np.float32)[:, None]


@given(p=finite, v=finite, a=finite, ticks=st.integers(1, 30))
def test_quintic_begins_and_ends_smoothly(p: float, v: float, a: float, ticks: int):
    """Position, velocity and acceleration are the given ones at the seam, and zero where the blend ends."""
    offset = (np.array([p]), np.array([v]), np.array([a]))
    scale = 1 + abs(p) + abs(v) * ticks + abs(a) * ticks**2
    s = np.arange(1, 7) / 6  # six ticks of a blend stretched to last six, in shares of it
    stretch = ticks / 6
    values = quintic((offset[0], offset[1] * stretch, offset[2] * stretch**2), 6)[:, 0]

    c0, c1, c2, c3, c4, c5 = np.linalg.solve(np.vander(s, 6, increasing=True), values)

    assert [c0, c1, 2 * c2] == pytest.approx([p, v * ticks, a * ticks**2], abs=1e-6 * scale)
    assert c0 + c1 + c2 + c3 + c4 + c5 == pytest.approx(0, abs=1e-6 * scale)
    assert c1 + 2 * c2 + 3 * c3 + 4 * c4 + 5 * c5 == pytest.approx(0, abs=1e-6 * scale)
    assert 2 * c2 + 6 * c3 + 12 * c4 + 20 * c5 == pytest.approx(0, abs=1e-6 * scale)


@given(
    old=st.lists(finite, min_size=1, max_size=3),
    new=st.lists(finite, min_size=2, max_size=40),
    data=st.data(),
)
def test_blend_changes_only_the_rows_after_the_seam(
    old: list[float], new: list[float], data: st.DataObject
):
    """Rows before the takeover and behind the blend are the policy's own; nothing becomes NaN."""
    row = data.draw(st.integers(0, len(new) - 1))
    rows = column(*new)

    joined = blend(rows, row, column(*old), BLEND)

    assert np.isfinite(joined).all()
    assert np.array_equal(joined[:row], rows[:row])
    assert np.array_equal(joined[row + 15 :], rows[row + 15 :])
    assert np.array_equal(rows, column(*new))


def test_a_plan_that_fits_is_left_alone():
    """Two chunks of one motion are joined without a change."""
    line = column(*np.arange(20))

    joined = blend(line, 4, line[1:4], BLEND)

    assert np.allclose(joined, line)


def test_blend_has_no_velocity_step():
    """The commands leave the old course with its speed and arrive at the new one with the new speed."""
    rows = column(*(100 - 2.0 * np.arange(40)))
    recent = column(50, 51, 52)

    joined = blend(rows, 5, recent, SeamConfig(kind="blend", max_velocity=(8.0,)))

    commands = np.concatenate([recent, joined[5:]])[:, 0]
    steps = np.diff(commands)
    assert np.abs(np.diff(steps)).max() < 2.6
    assert steps[-5:].tolist() == [-2.0] * 5


def test_a_blend_is_as_long_as_the_bounds_ask():
    """Slower joints take longer; the longest blend is the limit."""
    rows = np.zeros((40, 1), np.float32)
    recent = column(10, 10, 10)
    lengths = []
    for velocity in (50.0, 2.5, 0.1):
        config = SeamConfig(kind="blend", max_velocity=(velocity,), max_acceleration=(50.0,))
        lengths.append(int(np.count_nonzero(np.abs(blend(rows, 0, recent, config)) > 1e-6)) + 1)

    assert lengths[0] == 5
    assert 5 < lengths[1] < 15
    assert lengths[2] == 15


def test_a_chunk_shorter_than_the_shortest_blend_is_blended_over_what_it_has():
    """Three rows are three ticks to come over."""
    joined = blend(column(0, 0, 0), 0, column(9, 9, 9), BLEND)

    assert joined[:, 0].tolist() == pytest.approx([7.11, 1.89, 0], abs=0.01)


def test_one_row_is_a_chunk():
    """There is no speed to read from it."""
    assert blend(column(4), 0, column(4), BLEND).tolist() == [[4]]


def test_what_was_conditioned_and_fits_is_left_alone():
    """A chunk of the server's that goes on where the old one was needs no blend."""
    rows = column(*np.arange(20)) + 0.05
    recent = column(1, 2, 3)

    joined, counts = join(
        rows, 4, SeamConfig(kind="rtc"), recent=recent, running=rows, conditioned=True
    )

    assert np.array_equal(joined, rows)
    assert counts == ()


@pytest.mark.parametrize(
    ("kind", "recent"), [("replace", column(1, 2, 3)), ("blend", column()[:, :0].reshape(0, 1))]
)
def test_nothing_to_join(kind: str, recent: npt.NDArray[np.float32]):
    """With `replace`, and before anything was commanded, the chunk stays what it is."""
    rows = column(5, 6, 7)

    assert join(rows, 0, SeamConfig(kind=kind), recent=recent)[0] is rows


def test_ensemble_is_acts():
    """The mean of three chunks weighs them 1, exp(-m), exp(-2m), oldest first, as ACT's code does."""
    m = 0.01
    weights = np.exp(-m * np.arange(3))
    first, second, third = column(1, 1, 1), column(5, 5, 5), column(9, 9, 9)

    two, counts = ensemble(second, 0, first, (1, 1, 1))
    three, counts = ensemble(third, 0, two, counts)

    expected = (weights @ [1, 5, 9]) / weights.sum()
    assert three[:, 0].tolist() == pytest.approx([expected] * 3)
    assert counts == (3, 3, 3)


def test_ensemble_goes_on_alone_where_the_old_chunk_has_ended():
    """Rows that only the new chunk has are its own."""
    rows, counts = ensemble(column(4, 4, 4), 1, column(2), (1,))

    assert rows[:, 0].tolist() == pytest.approx([4, 3, 4], abs=0.01)
    assert counts == (2, 1)


def test_ensemble_is_not_used_over_a_delay():
    """Beyond two ticks the means of plans that differ are no plan: blended instead."""
    rows = column(*[10.0] * 30)
    old = column(*[0.0] * 20)
    config = SeamConfig(kind="ensemble")

    near, _ = join(rows, 2, config, recent=old[:3], old=old)
    far, counts = join(rows, 3, config, recent=old[:3], old=old)

    assert near[6, 0] == pytest.approx(5, abs=0.1)
    assert far[25, 0] == 10
    assert counts == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "smooth"},
        {"min_blend_ticks": 0},
        {"min_blend_ticks": 9, "max_blend_ticks": 8},
        {"max_velocity": ()},
        {"max_acceleration": (1.0, 0.0)},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]):
    """Settings are checked and quoted before anything runs."""
    with pytest.raises(ConfigError):
        SeamConfig(**wrong)
