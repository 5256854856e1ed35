# SPDX-License-Identifier: Apache-2.0
"""Who can reach an ingress on Ray, and whether it is fit: the plain server's rule, for a cluster. Pure.

In: where Ray's HAProxy listens, the settings, the addresses of the machines. Out: what is wrong, or None. The
same for the command line and for a Serve config file.

Ray's HAProxy speaks HTTP only, and the ingress replicas listen where it does. It asks those of its own machine
at 127.0.0.1 and those of others at their addresses: so on one machine there is 127.0.0.1, and else 0.0.0.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.exposure import is_loopback, is_private

__all__ = ["EVERYWHERE", "listens_everywhere", "why_not_on_ray"]

EVERYWHERE = "0.0.0.0"
_HERE = ("127.0.0.1", "localhost")


def listens_everywhere(host: str | None) -> bool:
    """Whether an address stands for all of a machine's; Ray's own words for it count too."""
    return host in (None, "", EVERYWHERE)


def why_not_on_ray(
    host: str | None, config: ServerConfig, machines: Mapping[str, Sequence[str]]
) -> str | None:
    """Say why robots may not be served so; None: they may.

    Args:
        host: Where Ray's HAProxy listens on each machine.
        config: Of the ingress.
        machines: The IPv4 addresses of those machines that are known, by a name for each.
    """
    if config.encrypted or config.tls_client_ca:
        return (
            "Ray has no TLS: its HAProxy speaks HTTP only. Put a proxy before it that ends TLS, and say "
            "--behind-proxy (behind_proxy: true) instead of tls."
        )
    everywhere = listens_everywhere(host)
    if not everywhere and host not in _HERE:
        return (
            f"host: expected 127.0.0.1 or 0.0.0.0, got {host}. Ray's HAProxy asks the ingress of its own "
            "machine at 127.0.0.1 and those of others at their addresses: no other host is a way to both."
        )
    if not everywhere and len(machines) > 1:
        return (
            f"host: {host} is each machine's own, and there are {len(machines)}: the HAProxy of one does not "
            "reach the ingress of another. Start Ray Serve at 0.0.0.0 (--host 0.0.0.0; host in http_options)."
        )
    if config.insecure:
        return None
    return _why_not_safe(host, config) or _reached_around(config, machines, everywhere)


def _why_not_safe(host: str | None, config: ServerConfig) -> str | None:
    everywhere = listens_everywhere(host)
    if not everywhere and not config.behind_proxy:
        return None
    missing = []
    if config.keys is None:
        missing.append("keys (--keys FILE, made with pi05-websocket keys add NAME)")
    if not config.behind_proxy:
        missing.append("proxy that ends TLS (--behind-proxy, once there is one)")
    if not missing:
        return None
    where = "every address of its machines" if everywhere else f"{host} through its proxy"
    return (
        f"other computers can reach {where}, and the ingress has no {' and no '.join(missing)}. On a network "
        "you trust, say --insecure. A config file has keys, behind_proxy and insecure in the ingress's server."
    )


def _reached_around(
    config: ServerConfig, machines: Mapping[str, Sequence[str]], everywhere: bool
) -> str | None:
    if not config.behind_proxy or not everywhere:
        return None
    for machine, addresses in machines.items():
        for address in addresses:
            if not is_loopback(address) and not is_private(address):
                return (
                    f"--behind-proxy: {machine} has the address {address}, at which the ingress can be reached "
                    "around the proxy. Keep the cluster on private addresses; or close its ports to all but "
                    "the proxy, and say --insecure."
                )
    return None
