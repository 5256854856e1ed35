# SPDX-License-Identifier: Apache-2.0
"""What is asked of a machine of the cluster: its addresses, and what Ray found in its environment.

Runs in any process that has imported Ray, on the machine that it is about; `psutil` comes with Ray.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from pi05_websocket.engine_ray.environment import NEEDED

__all__ = ["Machine", "own_addresses", "this_machine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine of the cluster."""

    addresses: tuple[str, ...]
    """IPv4, of all its interfaces: Ray's HAProxy listens at no others."""

    environment: dict[str, str]
    """What of `NEEDED` is set."""


def this_machine() -> Machine:
    """Look at the machine on which this runs."""
    found = {name: os.environ[name] for name in NEEDED if name in os.environ}
    return Machine(addresses=own_addresses(), environment=found)


def own_addresses() -> tuple[str, ...]:
    """Return this machine's IPv4 addresses."""
    import ray  # noqa: F401  # brings psutil

    import psutil  # isort: skip

    return tuple(
        each.address
        for addresses in psutil.net_if_addrs().values()
        for each in addresses
        if each.family == socket.AF_INET
    )
