# SPDX-License-Identifier: Apache-2.0
"""The server's certificate: loaded, and loaded again when its files change, for connections from then on.

In: the names of PEM files. Out: one `ssl.SSLContext`. Runs on the event loop.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from pi05_websocket.errors import ConfigError
from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.watching import signature

__all__ = ["Certificate"]

logger = logging.getLogger(__name__)


class Certificate:
    """What a server proves itself with. `context` is None for a server without TLS."""

    def __init__(self, config: ServerConfig) -> None:
        """Load the files.

        Raises:
            ConfigError: If one cannot be loaded, or certificate and key do not belong together.
        """
        self.context: ssl.SSLContext | None = None
        self._files = [
            str(Path(name).expanduser()) for name in (config.tls_cert, config.tls_key) if name
        ]
        self._seen = self._signature()
        if self._files:
            self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._load_into(self.context)
            if config.tls_client_ca is not None:
                _demand_certificates(self.context, Path(config.tls_client_ca).expanduser())

    def __repr__(self) -> str:
        return f"<Certificate {self._files[0] if self._files else 'none'}>"

    def look_again(self) -> None:
        """Load the files again if they have changed. What does not load changes nothing."""
        found = self._signature()
        if self.context is None or found == self._seen:
            return
        self._seen = found
        try:
            # First where it hurts nobody: a certificate without its key would spoil the context in use.
            self._load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._load_into(self.context)
        except ConfigError as exc:
            logger.error("the certificate stays as it was: %s", exc)
            return
        logger.info("certificate read again from %s", self._files[0])

    def _load_into(self, context: ssl.SSLContext) -> None:
        certificate, key = self._files
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except (OSError, ssl.SSLError) as exc:
            raise ConfigError(
                f"tls_cert={certificate!r} tls_key={key!r}: cannot be loaded: {exc}. Expected a "
                "certificate with those above it, and its private key, in PEM."
            ) from exc

    def _signature(self) -> tuple[tuple[int, ...] | None, ...]:
        return signature(*map(Path, self._files))


def _demand_certificates(context: ssl.SSLContext, authorities: Path) -> None:
    """Let in who has a certificate of these authorities, and nobody else."""
    try:
        context.load_verify_locations(authorities)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"tls_client_ca={str(authorities)!r}: cannot be loaded: {exc}") from exc
    context.verify_mode = ssl.CERT_REQUIRED


def _no_password() -> str:
    """Fail instead of asking on the terminal, where nobody may be."""
    raise ConfigError("the private key is encrypted; give it without a password, mode 0600")
