# SPDX-License-Identifier: Apache-2.0
"""All targets, by name."""

from __future__ import annotations

from fuzz.target import Target
from fuzz.targets import conformance, control, files, headers, messages, servers, wire

__all__ = ["TARGETS"]

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (wire, messages, servers, headers, files, control, conformance)
    for target in module.TARGETS
}
