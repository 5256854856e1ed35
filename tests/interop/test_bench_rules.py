# SPDX-License-Identifier: Apache-2.0
"""The benchmark's rule for OpenPI against OpenPI's own broker."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pi05_websocket.bench.rules import AskAndWait


@pytest.mark.parametrize(("horizon", "rows"), [(3, 10), (10, 10), (1, 4)])
def test_the_broker_executes_the_same_rows(horizon: int, rows: int):
    """The same row of the same chunk at every step, and an inference at the same steps."""
    from openpi_client.action_chunk_broker import ActionChunkBroker
    from openpi_client.base_policy import BasePolicy

    class Numbered(BasePolicy):  # type: ignore[misc]
        calls = 0

        def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
            self.calls += 1
            return {"actions": (100 * self.calls + np.arange(rows, dtype=np.float32))[:, None]}

    inner = Numbered()
    broker = ActionChunkBroker(inner, horizon)
    rule = AskAndWait(horizon)
    for tick in range(3 * horizon + 2):
        theirs = float(broker.infer({})["actions"][0])
        if rule.wants(tick):
            rule.asked(inner.calls, tick)
            values = (100 * inner.calls + np.arange(rows, dtype=np.float32))[:, None]
            rule.arrived(inner.calls, values, tick, 0.0)
        ours = rule.play(tick)

        assert ours is not None
        assert float(ours.values[0]) == theirs
