# SPDX-License-Identifier: Apache-2.0
"""Ray for a command: one of its own, or a cluster that runs; whose that is, and what its machines are.

Runs on the main thread; Ray is imported here, after its environment is set.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

import ray
from ray import serve  # noqa: F401  # its log has its level from the import
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pi05_websocket.engine_ray import environment
from pi05_websocket.engine_ray.machines import this_machine
from pi05_websocket.errors import ConfigError

__all__ = ["join", "look_at_machines", "start"]

_ENDS_WITH = "pi05-websocket-serve-"
"""Name of a resource of a Ray that a command has started: by it other commands see that it is not theirs."""


def start(cpus: int) -> None:
    """Start a Ray of this command's own, with so many CPUs."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    ray.init(
        address="local",
        num_cpus=cpus,
        resources={f"{_ENDS_WITH}{os.getpid()}": 1},
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
    )


def join(address: str) -> None:
    """Connect to a Ray that runs.

    Raises:
        ConfigError: It was started by another command, and would end with that.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    resources: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    for name in resources:
        if name.startswith(_ENDS_WITH):
            process = name[len(_ENDS_WITH) :]
            raise ConfigError(
                f"this Ray was started by another pi05-websocket serve (process {process}) and ends with that. "
                "To deploy on one that stays, start it with ray start --head, and let every command use it: "
                "--ray-address auto."
            )


def look_at_machines() -> dict[str, tuple[str, ...]]:
    """Ask every machine of the cluster what it is; return their addresses, by a name for each.

    Raises:
        ConfigError: One was started without what is needed.
    """
    look = ray.remote(num_cpus=0)(this_machine)
    machines = {}
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            found = ray.get(look.options(scheduling_strategy=there).remote())
            environment.check(found.environment, node["NodeManagerAddress"])
            machines[f"the machine {node['NodeManagerAddress']}"] = found.addresses
    return machines
