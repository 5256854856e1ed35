# SPDX-License-Identifier: Apache-2.0
"""How to get an extra of this distribution, in words for an error: in a clone it is another command.

In: names of extras. Out: a command. Reads how the distribution was installed.
"""

from __future__ import annotations

import json
import os
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

__all__ = ["how_to_install"]

_NAME = "lerobot_policy_pi05_websocket"


def how_to_install(extras: str) -> str:
    """Return the command that installs extras, `sim` or `lerobot,so101`, beside what is installed here."""
    clone = _clone()
    quote = '"' if os.name == "nt" else "'"
    if clone is None:
        return f"pip install {quote}{_NAME}[{extras}]{quote}"
    return f"pip install -e {quote}{clone}[{extras}]{quote}"


def _clone() -> str | None:
    """Return the folder that is installed in place; None: it is not."""
    try:
        said: Any = json.loads(metadata.distribution(_NAME).read_text("direct_url.json") or "{}")
        if said["dir_info"]["editable"]:
            return url2pathname(urlsplit(said["url"]).path)
    except (metadata.PackageNotFoundError, ValueError, LookupError, TypeError):
        pass
    return None
