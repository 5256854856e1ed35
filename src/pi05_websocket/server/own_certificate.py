# SPDX-License-Identifier: Apache-2.0
"""`--tls auto`: a certificate of the server's own, made at its first start and renewed before it is over.

In: a folder, the address to listen on, the time. Out: PEM files for `tls`, and the fingerprint of the server's
public key. Blocks for as long as a disk does; what the certificates say is `certificates`.

    ca.pem  ca.key          a small authority, for clients that want a `ca_file`; ten years
    server.pem  server.key  the certificate and the authority's; 90 days, renewed 30 days before

`server.key` is made once: a renewed certificate is for the same key, so the fingerprint stays.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import ipaddress
import logging
import os
import socket
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from pi05_websocket.errors import ConfigError
from pi05_websocket.extras import how_to_install
from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.own_address import routed_address
from pi05_websocket.server.private_files import alone_in, replace

__all__ = [
    "OwnCertificate",
    "check_can_make_certificates",
    "default_folder",
    "names_of",
    "with_its_files",
]

logger = logging.getLogger(__name__)

_MOST_NAMES = 64
_EVERYWHERE = ("", "0.0.0.0", "::")


def default_folder() -> Path:
    """Return where keys and certificates are kept when nobody says."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "pi05-websocket" / "tls"


def check_can_make_certificates() -> None:
    """Look for what certificates are made with; nothing is made.

    Raises:
        ConfigError: If it is not installed.
    """
    if importlib.util.find_spec("cryptography") is None:
        raise ConfigError(
            "--tls auto makes certificates with the package cryptography, which is not installed: "
            f"{how_to_install('tls')}. Or give --tls-cert and --tls-key."
        )


def names_of(host: str, found: Iterable[str]) -> list[str]:
    """Return what a certificate for a server at `host` is for: names and addresses, each once, in order.

    Args:
        host: What it listens on.
        found: Names and addresses that this machine has.
    """
    mine = ["localhost", "127.0.0.1", "::1", *found]
    if host not in _EVERYWHERE:
        mine.append(host)
    return list(dict.fromkeys(_plain(name) for name in mine if name.isascii()))


def _plain(name: str) -> str:
    """Return a name, or an address without its zone, as certificates write it."""
    try:
        return str(ipaddress.ip_address(name.partition("%")[0]))
    except ValueError:
        return name.lower()


class OwnCertificate:
    """The files of one server; they are there once this is made."""

    def __init__(self, folder: Path | None, host: str) -> None:
        """Make what is not there, and renew what is due.

        Args:
            folder: Where; None: see `default_folder`.
            host: The address to listen on.

        Raises:
            ConfigError: If it cannot be made, or what is there is no certificate of ours.
        """
        check_can_make_certificates()
        self._folder = (folder or default_folder()).expanduser()
        self._host = host
        self.certificate = self._folder / "server.pem"
        self.key = self._folder / "server.key"
        self.authority = self._folder / "ca.pem"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise ConfigError(f"tls_folder={str(self._folder)!r}: {exc.strerror or exc}") from exc
        self.fingerprint = ""
        """Of the public key: what robots are told."""
        self.renew_if_due(datetime.now(UTC))

    def __repr__(self) -> str:
        return f"<OwnCertificate {self._folder} {self.fingerprint}>"

    def renew_if_due(self, now: datetime) -> bool:
        """Make the certificate anew if it ends soon, or lacks a name of this machine; say whether it was made.

        Raises:
            ConfigError: If it cannot be made.
        """
        try:
            with alone_in(self._folder):  # two servers may start at once
                return self._renew_if_due(now)
        except (OSError, ValueError) as exc:
            raise ConfigError(
                f"tls_folder={str(self._folder)!r}: expected the keys and certificates of --tls auto, or "
                f"nothing: {exc}. Move them away to have new ones made; robots then need the new fingerprint."
            ) from exc

    def _renew_if_due(self, now: datetime) -> bool:
        from pi05_websocket.server import certificates  # needs the extra

        key = certificates.read_key(self._key_in(self.key))
        self.fingerprint = certificates.fingerprint(key)
        names = names_of(self._host, _own_names())
        there = certificates.read_certificate(_content(self.certificate))
        if there is not None and not certificates.is_due(there, key, names, now):
            return False
        if (
            there is not None
        ):  # two servers with other names do not take each other's away, turn by turn
            names = list(dict.fromkeys([*names, *certificates.names_in(there)]))[:_MOST_NAMES]
        authority = certificates.Authority(
            certificates.read_key(self._key_in(self._folder / "ca.key")),
            certificates.read_certificate(_content(self.authority)),
            now,
        )
        made = authority.issue(key, names, now)
        replace(self.authority, authority.pem)
        replace(self.certificate, made + authority.pem)
        logger.info("made a certificate for %s in %s", ", ".join(names), self._folder)
        return True

    def _key_in(self, path: Path) -> bytes:
        """Return a private key's file; a new one if there is none."""
        from pi05_websocket.server import certificates

        if not path.exists():
            replace(path, certificates.new_key())
        return path.read_bytes()


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _own_names() -> list[str]:
    """Return this machine's name and the addresses by which others reach it; sends nothing."""
    found = []
    name = socket.gethostname()
    if name.isascii():
        found += [name, f"{name}.local"] if "." not in name else [name]
    routed = (routed_address(family) for family in (socket.AF_INET, socket.AF_INET6))
    return found + [address for address in routed if address is not None]


def with_its_files(config: ServerConfig, host: str) -> tuple[ServerConfig, OwnCertificate | None]:
    """Return the settings with the files of `tls=auto` named in them, and what renews those.

    Raises:
        ConfigError: If they cannot be made.
    """
    if config.tls != "auto":
        return config, None
    own = OwnCertificate(None if config.tls_folder is None else Path(config.tls_folder), host)
    with_files = dataclasses.replace(
        config,
        tls="files",
        tls_folder=None,
        tls_cert=str(own.certificate),
        tls_key=str(own.key),
    )
    return with_files, own
