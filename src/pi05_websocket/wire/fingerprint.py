# SPDX-License-Identifier: Apache-2.0
"""By what two servers of the same policy are known, from what they announce. Pure.

In: a server's metadata, untrusted. Out: a short text, equal for equal policies, or None: nothing is proved.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from pi05_websocket.wire import codec

__all__ = ["digest", "fingerprint_of"]


def fingerprint_of(metadata: Mapping[str, Any]) -> str | None:
    """Return a text that stands for the policy a server announces; None where it announces none, as stock."""
    said = metadata.get("fingerprint")
    # Any kind of value may stand there; an array is neither true nor false.
    empty = said is None or (isinstance(said, str | bytes | Mapping | list) and not said)
    return None if empty else digest(said)


def digest(value: Any) -> str:
    """Return 16 hexadecimal digits, the same for maps that differ in nothing but their order."""
    return blake2b(codec.encode(_in_order(value)), digest_size=8).hexdigest()


def _in_order(value: Any) -> Any:
    if isinstance(value, Mapping):
        # A stranger's keys may be of any kind, and ours are texts.
        return {str(key): _in_order(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list):
        return [_in_order(item) for item in value]
    return value
