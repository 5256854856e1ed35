# SPDX-License-Identifier: Apache-2.0
"""Settings of the applications: what a config file may say, and what is wrong with it otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from pi05_websocket.engine_ray.config import (
    IngressSettings,
    LinkSettings,
    PolicySettings,
    RayOptions,
    settings_from,
)
from pi05_websocket.errors import ConfigError
from pi05_websocket.server import ServerConfig


def test_maps_become_settings() -> None:
    """Nested, as YAML has them; an integer will do for a number."""
    said = {
        "paths": {"/": "policy", "/pick": "policy-pick"},
        "server": {"keys": "keys.json", "max_queue_s": 1},
        "link": {"deadline_s": 2},
    }
    assert settings_from(IngressSettings, said, "ingress") == IngressSettings(
        paths={"/": "policy", "/pick": "policy-pick"},
        server=ServerConfig(keys="keys.json", max_queue_s=1.0),
        link=LinkSettings(deadline_s=2.0),
    )
    assert settings_from(PolicySettings, {"policy": "m:f"}, "p") == PolicySettings(policy="m:f")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            {"police": "m:f"},
            "policy: there is no setting police; there are hang_s, log_level, policy, "
            "server, warm_up",
        ),
        (
            {"policy": "m:f", "server": {"max_bach": 1}},
            "policy.server: there is no setting max_bach",
        ),
        ({"policy": 3}, "policy: Expected `str`, got `int`"),
        ({}, "policy: Object missing required field `policy`"),
        ({"policy": "m:f", "hang_s": 0}, "policy: hang_s must be above 0"),
        ({"policy": "m:f", "server": {"max_batch": 0}}, "policy: max_batch must be at least 1"),
    ],
)
def test_mistakes_are_named(said: dict[str, Any], why: str) -> None:
    """Where, what, and what there is instead."""
    with pytest.raises(ConfigError) as caught:
        settings_from(PolicySettings, said, "policy")
    assert str(caught.value).startswith(why)


@pytest.mark.parametrize(
    ("paths", "path", "application"),
    [
        ({"/": "policy"}, "/anything?x=1", "policy"),
        ({"/": "policy", "/pick": "other"}, "/pick?x=1", "other"),
        ({"/": "policy", "/pick": "other"}, "/", "policy"),
        ({"/": "policy", "/pick": "other"}, "/pik", None),
    ],
)
def test_whose_a_path_is(paths: dict[str, str], path: str, application: str | None) -> None:
    """With one policy every path is its; with several a wrong one is nobody's."""
    assert IngressSettings(paths=paths).application(path) == application


@pytest.mark.parametrize("paths", [{}, {"pick": "x"}, {"/pick?a": "x"}])
def test_paths_that_are_none(paths: dict[str, str]) -> None:
    """One at least, from the root, without a query."""
    with pytest.raises(ConfigError, match="paths: expected"):
        IngressSettings(paths=paths)


@pytest.mark.parametrize("name", ["deadline_s", "first_deadline_s", "retries", "eject_s"])
def test_numbers_below_the_least(name: str) -> None:
    """Nothing negative, nothing that never waits."""
    with pytest.raises(ConfigError, match=f"{name} must be at least"):
        LinkSettings(**{name: -1})


@pytest.mark.parametrize(
    "wrong",
    [
        {"replicas": 0},
        {"ingress_replicas": 0},
        {"autoscale": (0, 2)},
        {"autoscale": (3, 2)},
        {"also": ("pick=m:f",)},
        {"also": ("/pick",)},
        {"also": ("/pick=",)},
        {"also": ("/=m:f",)},
        {"replicas": 3, "autoscale": (1, 4)},
        {"requests_per_replica": 5.0},
    ],
)
def test_options_that_cannot_be(wrong: dict[str, Any]) -> None:
    """Said before anything is started."""
    with pytest.raises(ConfigError):
        RayOptions(**wrong)


def test_a_path_has_one_policy() -> None:
    """Else the last one would answer, and nobody would say so."""
    with pytest.raises(ConfigError, match="several for /cube"):
        RayOptions(also=("/cube=m:f", "/pick=m:f", "/cube=m:g"))


def test_sizes_and_paths() -> None:
    """A fixed number, or between two; further checkpoints by path, whose words may contain `=`."""
    assert RayOptions(replicas=3).scale == {"num_replicas": 3}
    scale = RayOptions(autoscale=(1, 4), requests_per_replica=5.0).scale
    assert scale == {
        "autoscaling_config": {
            "min_replicas": 1,
            "max_replicas": 4,
            "target_ongoing_requests": 5.0,
        }
    }
    assert RayOptions(also=("/pick=replay:a.npz?n=1",)).more == {"/pick": "replay:a.npz?n=1"}
