# SPDX-License-Identifier: Apache-2.0
"""What Ray's errors mean for a request."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

import pytest

from pi05_websocket.engine_ray import environment
from pi05_websocket.engine_ray.link import Busy, ReplicaLost


@pytest.fixture(scope="module")
def meaning() -> Callable[[Exception], Exception]:
    """The function; Ray is imported with it."""
    environment.prepare(os.environ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pi05_websocket.engine_ray import calls
    return calls.meaning


def error_of_ray(name: str) -> Exception:
    """Make one of Ray's errors, or of gRPC's by its code."""
    import grpc
    from ray import exceptions
    from ray.serve import exceptions as of_serve

    made = {
        "died": exceptions.ActorDiedError,
        "unavailable": lambda: exceptions.ActorUnavailableError("gone", None),
        "task cancelled": exceptions.TaskCancelledError,
        "request cancelled": lambda: of_serve.RequestCancelledError("id"),
        "backpressure": lambda: of_serve.BackPressureError(5, 4),
    }
    if name in made:
        return made[name]()
    code = grpc.StatusCode[name]
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "why")


@pytest.mark.parametrize(
    "name",
    ["died", "unavailable", "task cancelled", "request cancelled", "UNAVAILABLE", "CANCELLED"],
)
def test_a_replica_that_is_gone(meaning: Callable[[Exception], Exception], name: str) -> None:
    """Another one may be asked."""
    assert isinstance(meaning(error_of_ray(name)), ReplicaLost)


def test_a_call_that_ended_before_it_began(meaning: Callable[[Exception], Exception]) -> None:
    """Ray says so in words only."""
    error = RuntimeError("Unexpected error (StatusCode.UNKNOWN): Stream removed.")
    assert isinstance(meaning(error), ReplicaLost)


def test_too_many_wait(meaning: Callable[[Exception], Exception]) -> None:
    """The robot is told that it is busy."""
    assert isinstance(meaning(error_of_ray("backpressure")), Busy)


def test_what_another_replica_would_say_too(meaning: Callable[[Exception], Exception]) -> None:
    """It is not asked for again: an error of the code, or a message larger than gRPC takes."""
    for error in (ValueError("x"), RuntimeError("y"), error_of_ray("RESOURCE_EXHAUSTED")):
        assert meaning(error) is error
