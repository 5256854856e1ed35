# SPDX-License-Identifier: Apache-2.0
"""How Ray Serve chooses a replica for us: by what this ingress knows of them, see `ejection`.

Ray makes one for each handle, in the process of the ingress, on its event loop; from a copy of the class, so
nothing in this module may be shared.
"""

from __future__ import annotations

import time
from typing import Any

from ray.serve.request_router import (
    FIFOMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

from pi05_websocket.engine_ray.tickets import Ticket, chosen, gone, replicas_of, ticket_numbered

__all__ = ["ReplicaRouter"]


class ReplicaRouter(FIFOMixin, RequestRouter):
    """The least busy of those that did not fail a moment ago."""

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Return ranks of one replica each, the best first."""
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True  # where all are full, do not spin
        replicas = replicas_of(self.app_name)
        if replicas is None:  # somebody else's handle
            return [list(candidate_replicas)]
        named = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        said: Any = pending_request.args[1:2] if pending_request is not None else []
        ticket = (ticket_numbered(said[0].get("ticket", 0)) if said else None) or Ticket()
        order = replicas.order(named, time.monotonic(), tried=ticket.tried, before=ticket.before)
        # Where Ray does not know how busy a replica is, it asks, and waits 0.1 s and more for one that is dead.
        for name, replica in named.items():
            self.replica_queue_len_cache.update(replica.replica_id, replicas.unanswered(name))
        return [[named[name]] for name in order]

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Note who was chosen."""
        super().on_send_request(replica_id)
        chosen(self.app_name, replica_id.unique_id)

    def on_replica_actor_unavailable(self, replica_id: ReplicaID) -> None:
        """Leave out a replica that cannot be reached: until Ray knows more, it would be chosen again."""
        super().on_replica_actor_unavailable(replica_id)
        gone(self.app_name, replica_id.unique_id)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Forget replicas that are gone."""
        super().update_replicas(replicas)
        known = replicas_of(self.app_name)
        if known is not None:
            known.keep(replica.replica_id.unique_id for replica in replicas)
