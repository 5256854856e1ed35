# SPDX-License-Identifier: Apache-2.0
"""Observations at an arm's pace: one, then a pause as long as a chunk is executed, then the next.

In: an address, a way to send, images. Out: milliseconds and bytes of each exchange. What a pause does to a
connection shows only here: back to back it never rests.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import numpy as np

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.data import Observation, UInt8Array
from pi05_websocket.images import resize_with_pad
from pi05_websocket.wire import codec

__all__ = ["WAYS", "Way", "observation", "paced"]

_PATIENCE_S = 60.0
_FIRST = 3
"""Exchanges of each turn that do not count."""

_Timed = tuple[float, int]
"""Milliseconds of an exchange, bytes of its request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How observations are sent."""

    client: Literal["stock", "ours"] = "ours"
    resized: bool = False
    """Whether the robot fits its images into 224 pixels, as OpenPI's examples do."""
    jpeg: bool = False
    keep_warm: bool = True


WAYS: Final[dict[str, Way]] = {
    "stock, raw": Way(client="stock"),
    "stock, resized": Way(client="stock", resized=True),
    "ours, raw, cold": Way(keep_warm=False),
    "ours, raw": Way(),
    "ours, resized, cold": Way(resized=True, keep_warm=False),
    "ours, resized": Way(resized=True),
    "ours, JPEG, cold": Way(jpeg=True, keep_warm=False),
    "ours, JPEG": Way(jpeg=True),
    "ours, resized JPEG": Way(resized=True, jpeg=True),
}
"""Of each client as it is, and ours without its pongs."""


def observation(images: dict[str, UInt8Array], *, resized: bool) -> Observation:
    """Return the simulated arm's observation with these images."""
    sent = {name: resize_with_pad(image, 224, 224) for name, image in images.items()}
    return {
        **{
            f"observation/images/{name}": sent[name] if resized else image
            for name, image in images.items()
        },
        "observation/state": np.zeros(6, np.float32),
        "prompt": "pick up the red cube",
    }


def paced(
    url: str, way: Way, images: dict[str, UInt8Array], *, count: int, every_s: float
) -> list[_Timed]:
    """Return what so many exchanges took, over a connection of their own.

    Args:
        url: The server.
        way: How they are sent.
        images: Camera name to image, `(rows, columns, 3)` uint8.
        count: How many.
        every_s: From one observation to the next.
    """
    found: list[_Timed] = []
    with _client(url, way, observation(images, resized=way.resized)) as exchange:
        due = time.monotonic()
        for _ in range(_FIRST + count):
            time.sleep(max(0.0, due - time.monotonic()))
            found.append(exchange())
            due += every_s
    return found[_FIRST:]


@contextlib.contextmanager
def _client(url: str, way: Way, sent: Observation) -> Iterator[Callable[[], _Timed]]:
    if way.client == "stock":
        yield _stock(url, sent)
        return
    config = ConnectionConfig(
        url=url,
        congestion_control="",  # it is the link's
        keep_warm=way.keep_warm,
        image_transport="jpeg" if way.jpeg else "raw",
        jpeg_quality_floor=90,
        first_request_timeout=_PATIENCE_S,
        hard_timeout=_PATIENCE_S,
    )
    with RemotePolicy(config=config, wait_for_server=_PATIENCE_S) as policy:

        def exchange() -> _Timed:
            began = time.perf_counter()
            asked = policy.submit(sent)
            asked.result(_PATIENCE_S)
            return 1000 * (time.perf_counter() - began), asked.nbytes

        yield exchange


def _stock(url: str, sent: Observation) -> Callable[[], _Timed]:
    from openpi_client.websocket_client_policy import WebsocketClientPolicy

    where = urlsplit(url)
    client: Any = WebsocketClientPolicy(where.hostname, where.port)
    nbytes = len(codec.encode(sent))

    def exchange() -> _Timed:
        began = time.perf_counter()
        client.infer(sent)
        return 1000 * (time.perf_counter() - began), nbytes

    return exchange
