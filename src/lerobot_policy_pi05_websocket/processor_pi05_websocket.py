# SPDX-License-Identifier: Apache-2.0
"""LeRobot's processor pipelines around the remote policy: rename, batch, device; no normaliser.

The server normalises with the statistics its policy was trained with, so nothing is normalised here.
"""

from __future__ import annotations

from typing import Any

from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    PolicyProcessorPipeline,
    RenameObservationsProcessorStep,
    make_policy_processor_pipelines,
)

from lerobot_policy_pi05_websocket.configuration_pi05_websocket import PI05WebSocketConfig

__all__ = ["make_pi05_websocket_pre_post_processors"]


def make_pi05_websocket_pre_post_processors(
    config: PI05WebSocketConfig,
    dataset_stats: dict[str, dict[str, Any]] | None = None,
    dataset_meta: Any = None,
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
    """Return the pre- and the postprocessor.

    The steps' names are load-bearing: LeRobot overrides `rename_observations_processor` (for
    `--rename_map`) and `device_processor` by name when it loads a saved pair.

    Args:
        dataset_stats: Not used: see the module's docstring. LeRobot passes it to every policy.
        dataset_meta: Not used, likewise.
    """
    return make_policy_processor_pipelines(
        input_steps=[
            RenameObservationsProcessorStep(rename_map={}),
            AddBatchDimensionProcessorStep(),
            DeviceProcessorStep(device=config.device),
        ],
        output_steps=[DeviceProcessorStep(device="cpu")],
    )
