# SPDX-License-Identifier: Apache-2.0
"""How a policy is asked for several results, and whose an error is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from pi05_websocket.policy import PolicyRequest, batch_key
from pi05_websocket.server.inference import infer_all, takes_batches


@dataclass
class Said:
    """What a robot says, as far as it matters here."""

    leftover: list[int]


ROWS, NO_ROWS = Said([1, 2]), Said([])


def asked(*numbers: int, realtime: Any = None) -> list[PolicyRequest]:
    """Requests with a number each; a negative one is bad."""
    return [
        PolicyRequest(observation={"number": n}, realtime=realtime, queue_ms=1.0) for n in numbers
    ]


def double(observation: dict[str, Any]) -> dict[str, Any]:
    """Answer with twice the number."""
    if observation["number"] < 0:
        raise ValueError(f"{observation['number']} is below 0")
    return {"actions": 2 * observation["number"]}


class One:
    """Takes one observation at a time."""

    def infer(self, observation: dict[str, Any]) -> Any:
        """Double it."""
        return double(observation)


class Batching(One):
    """Takes several; one bad observation spoils the batch."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def infer_batch(self, observations: list[dict[str, Any]]) -> Any:
        """Double all."""
        self.sizes.append(len(observations))
        return [double(observation) for observation in observations]


class Knowing(One):
    """Knows of sessions, and says itself which request was bad."""

    def infer_requests(self, requests: Sequence[PolicyRequest]) -> list[Any]:
        """Double all, or say what is wrong with each."""
        return [
            double(request.observation)
            if request.observation["number"] >= 0
            else ValueError(f"{request.observation['number']} is below 0")
            for request in requests
        ]


class Broken(One):
    """Returns what it was told instead."""

    def __init__(self, returned: Any) -> None:
        self.returned = returned

    def infer_requests(self, requests: Sequence[PolicyRequest]) -> Any:
        """Return it; fail where it is an error."""
        if isinstance(self.returned, BaseException):
            raise self.returned
        return self.returned


def told(answers: list[Any]) -> list[Any]:
    """Actions, and the text of errors."""
    return [str(a) if isinstance(a, BaseException) else a["actions"] for a in answers]


@pytest.mark.parametrize("policy", [One(), Batching(), Knowing()])
def test_a_bad_request_fails_alone(policy: Any) -> None:
    """Each has its own result, in its own place, however the policy is made."""
    assert told(infer_all(policy, asked(1, -7, 3)).answers) == [2, "-7 is below 0", 6]
    assert told(infer_all(policy, asked(-7)).answers) == ["-7 is below 0"]
    assert told(infer_all(policy, asked(5)).answers) == [10]


def test_a_batch_that_fails_as_a_whole_is_asked_for_one_by_one() -> None:
    """Also where the policy should have said itself whose the error is."""

    class Careless(One):
        def infer_requests(self, requests: Sequence[PolicyRequest]) -> list[Any]:
            return [double(request.observation) for request in requests]

    assert told(infer_all(Careless(), asked(1, -7, 3)).answers) == [2, "-7 is below 0", 6]


def test_what_the_time_of_a_batch_says() -> None:
    """A bad request is found quickly and does not count; one that spoils a batch leaves nothing to measure."""

    class TooMany(One):
        def infer_batch(self, observations: list[dict[str, Any]]) -> Any:
            raise MemoryError(len(observations))

    assert infer_all(Batching(), asked(1, 2, 3)).measured == 3
    assert infer_all(Batching(), asked(1, -7, 3)).measured == 0
    assert infer_all(TooMany(), asked(1, 2, 3)).measured == 3
    assert infer_all(Knowing(), asked(1, -7, 3)).measured == 2
    assert infer_all(One(), asked(1, -7, 3)).measured == 2
    assert infer_all(One(), asked(-7)).measured == 0
    assert infer_all(Knowing(), asked(-7)).measured == 0


def test_several_are_asked_for_at_once() -> None:
    """And again one by one after a batch that failed; a single one needs no batch."""
    policy = Batching()
    infer_all(policy, asked(1, 2, 3))
    infer_all(policy, asked(1))
    infer_all(policy, asked(1, -1))
    assert policy.sizes == [3, 2]
    assert [takes_batches(p) for p in (One(), policy, Knowing())] == [False, True, True]


def test_who_follows_a_chunk_is_not_put_into_a_plain_batch() -> None:
    """`infer_batch` knows nothing of it. Where it cannot follow, or there are no rows, nothing changes."""

    class BatchingAndFollowing(Batching):
        def infer_realtime(self, observation: Any, realtime: Any, queue_ms: float) -> Any:
            return double(observation)

    policy, following = Batching(), BatchingAndFollowing()
    for realtime in (ROWS, NO_ROWS):
        assert told(infer_all(policy, asked(1, 2, realtime=realtime)).answers) == [2, 4]
        assert told(infer_all(following, asked(1, 2, realtime=realtime)).answers) == [2, 4]
    assert (policy.sizes, following.sizes) == ([2, 2], [2])
    with_rows, without = asked(1, realtime=ROWS) + asked(1, realtime=NO_ROWS)
    assert [batch_key(policy, request) for request in (with_rows, without)] == [False, False]
    assert [batch_key(following, request) for request in (with_rows, without)] == [True, False]


def test_following_a_chunk() -> None:
    """`infer_realtime` gets what the robot said, and how long it waited."""

    class Following(One):
        def infer_realtime(self, observation: Any, realtime: Any, queue_ms: float) -> Any:
            return {"actions": (observation["number"], realtime, queue_ms)}

    assert told(infer_all(Following(), asked(1, realtime=ROWS)).answers) == [(1, ROWS, 1.0)]
    assert told(infer_all(Following(), asked(1)).answers) == [2]


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ([], "Broken.infer_requests was given 1 and returned 0, expected a list with one result"),
        ({"actions": 1}, "Broken.infer_requests was given 1 and returned 1, expected a list"),
        (iter([]), "Broken.infer_requests was given 1 and returned list_iterator"),
        ([[1]], "Broken.infer_requests returned list, expected a dict such as"),
        (SystemExit("enough"), "enough"),
    ],
)
def test_a_policy_that_returns_something_else(returned: Any, said: str) -> None:
    """The request fails with words that name the method; nothing ends the thread."""
    (answer,) = told(infer_all(Broken(returned), asked(1)).answers)
    assert answer.startswith(said)


def test_a_batch_of_another_size_is_asked_for_again() -> None:
    """Nobody may get another robot's actions."""

    class Short(One):
        def infer_batch(self, observations: list[Any]) -> Any:
            return [double(observations[0])]

    assert told(infer_all(Short(), asked(1, 2)).answers) == [2, 4]
