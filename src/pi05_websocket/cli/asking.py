# SPDX-License-Identifier: Apache-2.0
"""Who answers recorded observations: another server, or a policy in this process.

In: an address or a policy's name. Out: a function from an observation to actions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pi05_websocket.cli.server_access import ServerAccess
from pi05_websocket.client import RemotePolicy
from pi05_websocket.data import Float32Array, Observation
from pi05_websocket.errors import PolicyError
from pi05_websocket.policy import PolicyRequest, Result, requests_inference
from pi05_websocket.recording.observations import stock
from pi05_websocket.recording.quality import Ask
from pi05_websocket.server.loading import load_policy
from pi05_websocket.wire.encoded_images import reads_jpeg
from pi05_websocket.wire.messages import read_actions
from pi05_websocket.wire.realtime import REALTIME_KEY, realtime_support

__all__ = ["ask_policy", "connect", "for_server"]


@contextlib.contextmanager
def connect(url: str, access: ServerAccess) -> Iterator[RemotePolicy]:
    """Connect to a server that shall be asked; images are sent as they are given.

    Raises:
        Pi05WebsocketError: It cannot be reached.
    """
    config = access.connection(url, image_transport="raw")
    with RemotePolicy(config=config, wait_for_server=30.0) as policy:
        yield policy


def for_server(observation: Observation, metadata: object) -> Observation:
    """Return a recorded observation as a server can read it: our additions only where it announces them."""
    if reads_jpeg(metadata):
        if realtime_support(metadata) is not None:
            return observation
        return {key: value for key, value in observation.items() if key != REALTIME_KEY}
    plain = stock(observation)
    if realtime_support(metadata) is not None and REALTIME_KEY in observation:
        plain[REALTIME_KEY] = observation[REALTIME_KEY]
    return plain


def ask_policy(spec: str) -> Ask:
    """Load a policy; return what asks it, with the same seed for the same observation where it takes one.

    Raises:
        ConfigError: There is no such policy.
    """
    policy = load_policy(spec)
    infer_requests = requests_inference(policy)

    def infer(observation: Observation, number: int) -> Result:
        if infer_requests is None:
            return policy.infer(observation)
        (result,) = infer_requests([PolicyRequest(observation=observation, seed=number)])
        if isinstance(result, Exception):
            raise result
        return result

    def ask(observation: Observation, number: int) -> Float32Array:
        try:
            result = infer(observation, number)
        except Exception as exc:  # as a server would tell it
            raise PolicyError(f"the policy failed: {type(exc).__name__}: {exc}") from exc
        return read_actions(result)

    return ask
