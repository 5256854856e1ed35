# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from pi05_websocket.sim.episodes import (
    EpisodeEvent,
    EpisodeKeeper,
    EpisodeRules,
    NextEpisode,
    Phase,
)


def running(rule: NextEpisode) -> EpisodeKeeper:
    """Return a keeper whose episode 0 began at 1.0 s."""
    keeper = EpisodeKeeper(EpisodeRules(next_episode=rule))
    keeper.commanded(1.0, moves=True)
    return keeper


def kinds(events: list[EpisodeEvent]) -> list[tuple[str, int]]:
    """Return what happened to which episode."""
    return [(event.kind, event.episode) for event in events]


def test_holding_still_begins_nothing() -> None:
    """Time does not count while commands only hold the arm, however long a server warms up."""
    keeper = EpisodeKeeper(EpisodeRules())

    keeper.commanded(1.0, moves=False)

    assert keeper.observed(100.0, lifted=False) == []
    assert keeper.phase is Phase.WAITING


def test_first_motion_begins_the_episode() -> None:
    """A command that moves the arm begins the episode, once."""
    keeper = EpisodeKeeper(EpisodeRules())

    assert kinds(keeper.commanded(1.0, moves=True)) == [("began", 0)]
    assert keeper.commanded(1.1, moves=True) == []


def test_somebody_moves_the_cube_once() -> None:
    """So many seconds after the first motion, in each episode anew."""
    keeper = EpisodeKeeper(EpisodeRules(), nudge_after_s=lambda episode: 0.5 + episode)
    keeper.commanded(1.0, moves=True)

    assert keeper.observed(1.4, lifted=False) == []
    assert kinds(keeper.observed(1.5, lifted=False)) == [("moved", 0)]
    assert keeper.observed(3.0, lifted=False) == []

    keeper.begin_next(4.0)
    assert keeper.observed(5.4, lifted=False) == []
    assert kinds(keeper.observed(5.5, lifted=False)) == [("moved", 1)]


def test_a_lifted_cube_is_not_moved() -> None:
    """Nobody takes it out of the jaws."""
    keeper = EpisodeKeeper(EpisodeRules(), nudge_after_s=lambda _: 0.5)
    keeper.commanded(1.0, moves=True)

    assert kinds(keeper.observed(1.6, lifted=True)) == [("succeeded", 0)]
    assert keeper.observed(1.7, lifted=False) == []


def test_success_is_told_once_and_kept() -> None:
    """A lifted cube is a success, with the time it took, even if it is dropped afterwards."""
    keeper = running("never")

    (told,) = keeper.observed(3.5, lifted=True)

    assert (told.kind, told.success, told.duration_s) == ("succeeded", True, 2.5)
    assert keeper.observed(3.6, lifted=False) == []
    assert keeper.succeeded


def test_a_success_ends_after_its_settling_time() -> None:
    """The end reports the time to success, not to the end."""
    keeper = running("never")
    keeper.observed(3.5, lifted=True)

    (ended,) = keeper.observed(4.5, lifted=True)

    assert (ended.kind, ended.success, ended.duration_s) == ("ended", True, 2.5)


def test_time_up_is_a_failure() -> None:
    """An episode without success ends at its time limit."""
    keeper = running("never")

    (ended,) = keeper.observed(11.0, lifted=False)

    assert (ended.kind, ended.success, ended.duration_s) == ("ended", False, 10.0)
    assert keeper.observed(12.0, lifted=True) == []


def test_done_goes_on_at_once() -> None:
    """With the rule `done` the next episode begins with the next cube."""
    keeper = running("done")

    events = keeper.observed(11.0, lifted=False)

    assert kinds(events) == [("ended", 0), ("next", 1), ("began", 1)]
    assert not keeper.succeeded


def test_idle_waits_for_rest() -> None:
    """With the rule `idle` the next cube comes half a second after the last command, and waits for motion."""
    keeper = running("idle")
    keeper.commanded(2.9, moves=True)
    keeper.observed(3.0, lifted=True)
    keeper.commanded(5.0, moves=True)

    assert kinds(keeper.observed(5.4, lifted=False)) == [("ended", 0)]
    assert kinds(keeper.observed(5.5, lifted=False)) == [("next", 1)]
    assert keeper.phase is Phase.WAITING
    assert keeper.observed(60.0, lifted=False) == []


def test_idle_ends_an_episode_that_was_given_up() -> None:
    """Rest before success or time limit counts as the end, without success."""
    keeper = running("idle")

    events = keeper.observed(1.5, lifted=False)

    assert kinds(events) == [("ended", 0), ("next", 1)]
    assert not events[0].success


@pytest.mark.parametrize("phase_s", [2.0, 12.0])
def test_never_waits_for_the_caller(phase_s: float) -> None:
    """With the rule `never` only `begin_next` goes on, from any phase."""
    keeper = running("never")
    keeper.observed(phase_s, lifted=False)

    events = keeper.begin_next(phase_s + 1)

    assert kinds(events)[-1] == ("next", 1)
    assert keeper.phase is Phase.WAITING


def test_repr_shows_where_it_stands() -> None:
    """One line for the log."""
    assert repr(running("done")) == "<EpisodeKeeper episode=0 running>"
