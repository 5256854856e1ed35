# SPDX-License-Identifier: Apache-2.0
"""What a policy is: anything with `infer(observation) -> result`.

An OpenPI `BasePolicy` object is one, `RemotePolicy` is one, the simulator's expert is one.
The optional parts (`reset`, `metadata`, `infer_realtime`) are looked up here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

__all__ = [
    "Policy",
    "RealtimeInference",
    "Result",
    "policy_metadata",
    "realtime_inference",
    "reset_policy",
]

Result = dict[str, Any]
"""What a policy returns: at least `actions`, `(action_horizon, action_dim)` in policy units."""

RealtimeInference = Callable[[dict[str, Any], Any, float], Result]
"""`infer_realtime(observation, request, queue_ms)`: like `infer`, but joins the chunk to the running one.

`request` is a `wire.realtime.RealtimeRequest`, `queue_ms` how long it waited. The result says under `_rt` what
was really pinned (`wire.realtime.with_realtime_reply`).
"""


@runtime_checkable
class Policy(Protocol):
    """Maps one observation to one action chunk."""

    def infer(self, observation: dict[str, Any], /) -> Result:
        """Return `{"actions": (action_horizon, action_dim), ...}` for one observation.

        The caller owns the result and may add keys to a copy of it; it must not write into it.
        """
        ...


def reset_policy(policy: Policy) -> None:
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
