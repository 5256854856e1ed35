# SPDX-License-Identifier: Apache-2.0
"""What tests of robots and policies need, ours and yours: a clock, a policy and a servo bus that do as told.

`EmulatedBus` is six Feetech servos on a serial port. `pi05_websocket.testing.emulated_arm` puts the simulated
arm behind it, and needs the extra `sim`.
"""

from __future__ import annotations

from pi05_websocket.testing.emulated_bus import EmulatedBus
from pi05_websocket.testing.feetech_chain import Faults
from pi05_websocket.testing.scripted import (
    FakeClock,
    ScriptedExchange,
    ScriptedPolicy,
    ScriptedReply,
)

__all__ = [
    "EmulatedBus",
    "FakeClock",
    "Faults",
    "ScriptedExchange",
    "ScriptedPolicy",
    "ScriptedReply",
]
