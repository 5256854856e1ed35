# SPDX-License-Identifier: Apache-2.0
"""Who can reach a server at an address, and whether it is fit for them. Pure; no name is looked up.

In: the address to listen on, or a peer's, and the settings. Out: yes, no, or what to do.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from pi05_websocket.server.config import ServerConfig

__all__ = [
    "forwarded_for",
    "is_loopback",
    "is_private",
    "not_behind_a_proxy",
    "shows_tracebacks",
    "why_not_safe",
]

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_loopback(host: str) -> bool:
    """Whether only this machine is there. A name other than `localhost` counts as no."""
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def is_private(host: str) -> bool:
    """Whether it is one address of a network that the internet does not route to; `0.0.0.0` is all, not one."""
    address = _address(host)
    return address is not None and address.is_private and not address.is_unspecified


def why_not_safe(host: str, config: ServerConfig) -> str | None:
    """Say what is missing for listening at an address that others can reach; None: nothing.

    They must be known, by a key or a certificate, and what travels must be encrypted, here or by a proxy.
    """
    if is_loopback(host) and not config.behind_proxy:
        return None
    missing = []
    if config.keys is None and config.tls_client_ca is None:
        missing.append("keys (--keys FILE, made with pi05-websocket keys add NAME)")
    if not config.encrypted and not config.behind_proxy:
        missing.append("TLS (--tls auto, --tls-cert FILE --tls-key FILE, or --behind-proxy)")
    if not missing:
        return None
    where = f"{host} through its proxy" if is_loopback(host) else host or "every interface"
    return (
        f"other computers can reach {where}, and the server has no "
        f"{' and no '.join(missing)}. On a network you trust, say --insecure."
    )


def not_behind_a_proxy(host: str, config: ServerConfig) -> str | None:
    """Say why no proxy can be alone before this address; None: it can, or nobody said so."""
    if not config.behind_proxy or is_loopback(host) or is_private(host):
        return None
    return (
        f"--behind-proxy: {host or 'every interface'} can be reached around the proxy. Listen on 127.0.0.1, "
        "or on the one private address that the proxy knows."
    )


def shows_tracebacks(peer: str, config: ServerConfig) -> bool:
    """Whether a client may see where in our code its request failed: on this machine, or with `debug`."""
    return config.debug or (is_loopback(peer) and not config.behind_proxy)


def forwarded_for(headers: Sequence[str]) -> str | None:
    """Return the address that the nearest proxy saw, by the request's `X-Forwarded-For` headers.

    It is the last one: those before it are what the client, or a proxy farther away, said.
    """
    last = headers[-1].rpartition(",")[2].strip() if headers else ""
    address = _address(
        last.partition("%")[0]
    )  # a zone may be any text, and this is written to logs
    return None if address is None else str(address)


def _address(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
