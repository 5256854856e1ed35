# SPDX-License-Identifier: Apache-2.0
"""The settings of a served checkpoint, and how they are written after a `?`."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.lerobot

from lerobot_policy_pi05_websocket.serving_config import (  # noqa: E402
    ServingConfig,
    serving_config,
)
from pi05_websocket.errors import ConfigError  # noqa: E402


def test_every_option_can_be_written() -> None:
    """Text becomes what the setting is made of."""
    written = (
        "device=cuda&dtype=bfloat16&max_batch=16&rtc=false&guidance_weight=8"
        "&observation.images.front=observation/image"
    )
    assert serving_config(written) == ServingConfig(
        device="cuda",
        dtype="bfloat16",
        max_batch=16,
        rtc=False,
        guidance_weight=8.0,
        keys={"observation.images.front": "observation/image"},
    )


def test_nothing_written_is_the_defaults() -> None:
    """All of them: what the checkpoint says."""
    assert serving_config("") == ServingConfig()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            "beta=3",
            "unknown option 'beta'; known are device, dtype, max_batch, rtc, guidance_weight",
        ),
        ("rtc=maybe", "expected rtc=true or rtc=false, got 'maybe'"),
        ("guidance_weight=much", "expected a number for guidance_weight, got 'much'"),
        ("guidance_weight=-1", "guidance_weight=-1.0: must be above 0"),
        ("guidance_weight=nan", "must be above 0"),
        ("dtype=int8", "dtype='int8': expected one of float32, bfloat16, float16"),
        ("max_batch=0", "max_batch=0: must be 1 or more"),
        ("max_batch=many", "expected a whole number for max_batch, got 'many'"),
        ("max_batch=-1", "expected a whole number for max_batch, got '-1'"),
    ],
)
def test_what_cannot_be_is_told(written: str, said: str) -> None:
    """The error says what was expected and what came."""
    with pytest.raises(ConfigError) as told:
        serving_config(written)
    assert said in str(told.value)
