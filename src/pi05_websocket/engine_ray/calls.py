# SPDX-License-Identifier: Apache-2.0
"""Calls of an ingress to a policy application through Ray Serve, and what Ray's errors mean for a request.

On the event loop of the ingress; Ray is asked for the application beside it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from ray import serve
from ray.exceptions import RayActorError, TaskCancelledError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    RequestCancelledError,
)

from pi05_websocket.engine_ray.config import POLICY_DEPLOYMENT
from pi05_websocket.engine_ray.link import Busy, ReplicaLost
from pi05_websocket.engine_ray.tickets import Ticket, issue, withdraw

__all__ = ["ServeCalls", "meaning"]

logger = logging.getLogger(__name__)

_GONE = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
)


@dataclass(slots=True, eq=False)
class ServeCalls:
    """Asks one application, by its name; found when first needed, and again after it was taken away."""

    application: str
    _handle: Any = None

    async def ask(self, payload: bytes | str, said: dict[str, Any], ticket: Ticket) -> Any:
        """Ask one replica.

        Raises:
            ReplicaLost: It is gone.
            Busy: Too many requests wait.
        """
        issue(ticket)
        try:
            handle = await self._found()
            return await handle.ask.remote(payload, said | {"ticket": ticket.number})
        except Exception as exc:
            raise self._told(exc) from exc
        finally:
            withdraw(ticket)

    async def describe(self) -> Mapping[str, Any]:
        """Ask any replica what the application is."""
        try:
            handle = await self._found()
            found: Mapping[str, Any] = await handle.describe.remote()
        except Exception as exc:
            raise self._told(exc) from exc
        return found

    async def _found(self) -> Any:
        if self._handle is None:
            self._handle = await asyncio.to_thread(
                serve.get_deployment_handle, POLICY_DEPLOYMENT, self.application
            )
        return self._handle

    def _told(self, error: Exception) -> Exception:
        if isinstance(error, DeploymentUnavailableError | RayServeException) and not isinstance(
            error, BackPressureError | RequestCancelledError
        ):
            self._handle = None  # it may have been deployed anew, under other names
        return meaning(error)


def meaning(error: Exception) -> Exception:
    """Return what an error of Ray means for the request: its replica is gone, all are full, or what it says."""
    if isinstance(error, BackPressureError):
        return Busy(str(error))
    gone = isinstance(
        error,
        RayActorError | TaskCancelledError | RequestCancelledError | DeploymentUnavailableError,
    )
    if isinstance(error, grpc.aio.AioRpcError):
        gone = error.code() in _GONE
    # Ray's own wording for a call that ended before the replica said anything.
    if isinstance(error, RuntimeError) and str(error).startswith("Unexpected error (StatusCode"):
        gone = True
    return ReplicaLost(f"{type(error).__name__}: {error}".splitlines()[0]) if gone else error
