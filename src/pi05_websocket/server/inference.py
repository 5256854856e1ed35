# SPDX-License-Identifier: Apache-2.0
"""Asking a policy for several results, in the best way it offers, so that a bad request fails alone.

In: a policy and the requests of one batch. Out: for each its result, or the exception that belongs to it; and
whether the time it took says anything.
Runs on the policy thread, which alone touches the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pi05_websocket.policy import (
    Policy,
    PolicyRequest,
    Result,
    batch_inference,
    realtime_inference,
    requests_inference,
)

__all__ = ["Inferred", "infer_all", "takes_batches"]

Answer = Result | BaseException

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inferred:
    """What became of a batch."""

    answers: list[Answer]
    """One result or exception for each request, in their order."""

    one_by_one: bool = False
    """Whether they were asked for again, each alone, because together they failed."""

    @property
    def measured(self) -> int:
        """The size of batch whose time was seen; 0: failures were, which say nothing about an inference.

        A bad request is found quickly, so only the others count. Where one has spoilt a batch, the time is that
        of a failure and of others one by one, and will not come again without it. Where each succeeds alone,
        the policy cannot take so many, and the time is what asking for so many costs.
        """
        good = sum(not isinstance(answer, BaseException) for answer in self.answers)
        return 0 if self.one_by_one and good < len(self.answers) else good


def takes_batches(policy: Policy) -> bool:
    """Whether asking for several at once can be quicker than one by one."""
    return requests_inference(policy) is not None or batch_inference(policy) is not None


def infer_all(policy: Policy, requests: Sequence[PolicyRequest]) -> Inferred:
    """Ask for a batch.

    `infer_requests` if the policy has it; else `infer_batch` for several that follow no running chunk; else one
    after the other. A batch that fails as a whole is asked for again one by one: the others must not suffer.
    """
    batched = _batched(policy, requests)
    if batched is not None:
        answers = _try(batched)
        if not isinstance(answers, BaseException):
            return Inferred(answers=answers)
        if len(requests) == 1:
            return Inferred(answers=[answers])
    alone = [_alone(policy, request) for request in requests]
    return Inferred(answers=alone, one_by_one=batched is not None)


def _batched(
    policy: Policy, requests: Sequence[PolicyRequest]
) -> Callable[[], list[Answer]] | None:
    infer_requests = requests_inference(policy)
    if infer_requests is not None:
        return lambda: _checked(policy, "infer_requests", infer_requests(requests), len(requests))
    infer_batch = batch_inference(policy)
    if infer_batch is None or len(requests) == 1:
        return None
    if realtime_inference(policy) is not None and any(request.follows for request in requests):
        return None
    observations = [request.observation for request in requests]
    return lambda: _checked(policy, "infer_batch", infer_batch(observations), len(requests))


def _alone(policy: Policy, request: PolicyRequest) -> Answer:
    infer_requests = requests_inference(policy)
    if infer_requests is not None:
        answers = _try(lambda: _checked(policy, "infer_requests", infer_requests([request]), 1))
        return answers if isinstance(answers, BaseException) else answers[0]
    infer_realtime = realtime_inference(policy)
    if request.realtime is None or infer_realtime is None:
        return _try(lambda: _map(policy, "infer", policy.infer(request.observation)))
    return _try(
        lambda: _map(
            policy,
            "infer_realtime",
            infer_realtime(request.observation, request.realtime, request.queue_ms),
        )
    )


def _try(work: Callable[[], T]) -> T | BaseException:
    try:
        return work()
    except BaseException as exc:  # whatever a policy raises belongs to its request
        return exc


def _checked(policy: Policy, method: str, results: Any, count: int) -> list[Answer]:
    if isinstance(results, Mapping) or not isinstance(results, Sequence) or len(results) != count:
        got = f"{len(results)}" if hasattr(results, "__len__") else type(results).__name__
        raise TypeError(
            f"{type(policy).__name__}.{method} was given {count} and returned {got}, "
            "expected a list with one result for each"
        )
    return [_map_or_error(policy, method, result) for result in results]


def _map_or_error(policy: Policy, method: str, result: Any) -> Answer:
    if isinstance(result, BaseException):
        return result
    try:
        return _map(policy, method, result)
    except TypeError as exc:
        return exc


def _map(policy: Policy, method: str, result: Any) -> Result:
    if not isinstance(result, Mapping):
        raise TypeError(
            f"{type(policy).__name__}.{method} returned {type(result).__name__}, "
            'expected a dict such as {"actions": array of (action_horizon, action_dim)}'
        )
    return result  # type: ignore[return-value]  # any map will do: a copy of it is sent
