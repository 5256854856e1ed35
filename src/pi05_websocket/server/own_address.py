# SPDX-License-Identifier: Apache-2.0
"""By which address other computers find a server that listens on every interface.

In: the address to listen on. Out: what stands in its place in a URL. Looks up a route; sends nothing.
"""

from __future__ import annotations

import socket

__all__ = ["host_for_robots", "host_on_this_machine", "routed_address"]

_NOWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""Reserved for documentation: only the route is looked up."""

_EVERY_INTERFACE = {"": socket.AF_INET, "0.0.0.0": socket.AF_INET, "::": socket.AF_INET6}

_LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def host_for_robots(host: str) -> str:
    """Return a host for URLs that works from other computers, as far as they can reach `host`.

    An address that is not every interface is returned as it is, an IPv6 one in brackets.
    """
    family = _EVERY_INTERFACE.get(host)
    return _in_a_url(host if family is None else routed_address(family) or _LOOPBACK[family])


def host_on_this_machine(host: str) -> str:
    """Return a host for URLs that works on this machine."""
    family = _EVERY_INTERFACE.get(host)
    return _in_a_url(host if family is None else _LOOPBACK[family])


def _in_a_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def routed_address(family: socket.AddressFamily) -> str | None:
    """Return this machine's address of a family on the way to others; None: there is no way."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((_NOWHERE[family], 9))
            return str(probe.getsockname()[0])
    except OSError:  # no route, or no such family
        return None
