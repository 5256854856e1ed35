# SPDX-License-Identifier: Apache-2.0
"""What a policy is: anything with `infer(observation) -> result`.

An OpenPI `BasePolicy` object is one, `RemotePolicy` is one, the simulator's expert is one.
The optional parts (`reset`, `metadata`, `infer_realtime`, `infer_batch`, `infer_requests`, `warm_up`) are
looked up here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol, runtime_checkable

__all__ = [
    "BatchInference",
    "Policy",
    "PolicyRequest",
    "RealtimeInference",
    "RequestsInference",
    "Result",
    "batch_inference",
    "batch_key",
    "policy_metadata",
    "realtime_inference",
    "requests_inference",
    "reset_policy",
    "session_seed",
    "warm_up_policy",
]

Result = dict[str, Any]
"""What a policy returns: at least `actions`, `(action_horizon, action_dim)` in policy units."""

RealtimeInference = Callable[[dict[str, Any], Any, float], Result]
"""`infer_realtime(observation, request, queue_ms)`: like `infer`, but joins the chunk to the running one.

`request` is a `wire.realtime.RealtimeRequest`, `queue_ms` how long it waited. The result says under `_rt` what
was really pinned (`wire.realtime.with_realtime_reply`).
"""

BatchInference = Callable[[list[dict[str, Any]]], Sequence[Result]]
"""`infer_batch(observations)`: the results of several observations, in their order, in less time than one by
one. If it raises, each observation is tried alone, so that a bad one fails alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRequest:
    """One observation of one robot, with all that a server knows about it."""

    observation: dict[str, Any]

    realtime: Any = None
    """A `wire.realtime.RealtimeRequest`, what the robot says of itself; None: a stock client."""

    queue_ms: float = 0.0
    """How long it waited for the policy."""

    seed: int = 0
    """For what the policy draws at random: the same for the same server seed, session and request, whatever
    else is in the batch. See `session_seed`."""

    state: dict[str, Any] = field(default_factory=dict)
    """The session's own: what the policy puts here it finds again with the next request of the same
    connection, and nobody else does. Gone when the connection ends."""

    @property
    def follows(self) -> bool:
        """Whether there are rows still to be executed that the chunk is to follow."""
        return self.realtime is not None and len(self.realtime.leftover) > 0


RequestsInference = Callable[[Sequence[PolicyRequest]], Sequence[Result | Exception]]
"""`infer_requests(requests)`: one result for each request, in their order; an exception in the place of a
result fails that request alone."""


@runtime_checkable
class Policy(Protocol):
    """Maps one observation to one action chunk."""

    def infer(self, observation: dict[str, Any], /) -> Result:
        """Return `{"actions": (action_horizon, action_dim), ...}` for one observation.

        The caller owns the result and may add keys to a copy of it; it must not write into it.
        """
        ...


def reset_policy(policy: object) -> None:
    """Begin a new episode, if the policy has a notion of one."""
    reset = getattr(policy, "reset", None)
    if callable(reset):
        reset()


def policy_metadata(policy: Policy) -> dict[str, Any]:
    """Return what the policy says about itself; `{}` when it says nothing (OpenPI's usual case).

    Looks at `metadata`, an attribute or a method without arguments (openpi's `Policy.metadata` is a property).
    """
    metadata = getattr(policy, "metadata", None)
    if callable(metadata):
        metadata = metadata()
    return dict(metadata) if isinstance(metadata, Mapping) else {}


def realtime_inference(policy: Policy) -> RealtimeInference | None:
    """Return the policy's `infer_realtime`; None when it cannot condition on a running chunk."""
    infer = getattr(policy, "infer_realtime", None)
    return infer if callable(infer) else None


def batch_inference(policy: Policy) -> BatchInference | None:
    """Return the policy's `infer_batch`; None when it takes one observation at a time."""
    infer = getattr(policy, "infer_batch", None)
    return infer if callable(infer) else None


def requests_inference(policy: Policy) -> RequestsInference | None:
    """Return the policy's `infer_requests`; None when it knows nothing of sessions."""
    infer = getattr(policy, "infer_requests", None)
    return infer if callable(infer) else None


def batch_key(policy: Policy, request: PolicyRequest) -> Hashable:
    """Return what the requests of one batch have in common, by the policy's `batch_key(request)`.

    The server calls it where it calls the rest of the policy, on one thread, between inferences.

    Without one, a request that follows a running chunk shares no batch with one that does not, where the policy
    can follow at all.
    """
    key = getattr(policy, "batch_key", None)
    if callable(key):
        found: Hashable = key(request)
        return found
    return request.follows and realtime_inference(policy) is not None


def warm_up_policy(policy: Policy, batch_sizes: Sequence[int]) -> bool:
    """Have the policy infer once for each batch size, if it knows how: `warm_up(batch_sizes)`.

    Returns:
        Whether it did.
    """
    warm_up = getattr(policy, "warm_up", None)
    if not callable(warm_up):
        return False
    warm_up(batch_sizes)
    return True


def session_seed(server_seed: int, session: int, request: int) -> int:
    """Return the seed of one request: 63 bits that no other session or request of this server has.

    The same on every machine; it depends on nothing but these three, so a batch changes nothing.

    Args:
        server_seed: The server's, any integer from 0 to 2^63 - 1.
        session: Number of the connection, from 1.
        request: Number of the request on it, from 1.
    """
    said = b"".join(number.to_bytes(8, "little") for number in (server_seed, session, request))
    return int.from_bytes(blake2b(said, digest_size=8).digest(), "little") >> 1
