# SPDX-License-Identifier: Apache-2.0
"""A request on its way through the gateway: what it was sent as, and who has failed it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from pi05_websocket.gateway.skimming import Skimmed
from pi05_websocket.server.requests import Request

__all__ = ["Ticket"]


@dataclass(slots=True, eq=False, kw_only=True)
class Ticket:
    """One request and the forms in which it can be sent."""

    request: Request

    skimmed: Skimmed | None = None
    """The message and its top; None: nothing in it concerns a gateway, it goes as it came."""

    arrays: Skimmed | None = None
    """The same with arrays in the place of encoded images; None until somebody needs it."""

    images: bool = False
    """Whether it holds encoded images."""

    attempts: int = 0
    """How often it was sent in vain."""

    failed_by: set[int] = field(default_factory=set)

    def message_for(
        self, *, reads_jpeg: bool, reads_realtime: bool, waited_s: float, way_s: float
    ) -> bytes | bytearray | None:
        """Return what to send to an upstream; None: its images have to be decoded first.

        The observation's age grows by the way to the upstream and by half of the wait: a server takes the way
        back to be as long as the way here, so that half is counted twice, as the whole wait should be. With
        that its deadline comes right, and the rows it pins.

        Args:
            reads_jpeg: Whether the upstream does.
            reads_realtime: Whether it reads `_rt`.
            waited_s: How long the request has waited here.
            way_s: How long a message takes to it.
        """
        form = self.skimmed
        if self.images and not reads_jpeg:
            form = self.arrays
            if form is None:
                return None
        if form is None:
            assert isinstance(self.request.payload, bytearray)
            return self.request.payload
        said = self.request.realtime
        if said is None:
            return form.message
        if not reads_realtime:
            return form.without_realtime()
        return form.aged(said, said.age_ms + 1000 * (waited_s / 2 + way_s))
