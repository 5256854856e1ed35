# SPDX-License-Identifier: Apache-2.0
"""What counts as a policy, and its optional parts."""

from __future__ import annotations

from typing import Any

import pytest

from pi05_websocket.policy import Policy, policy_metadata, reset_policy


class Plain:
    """A policy with nothing but `infer`."""

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Return the observation."""
        return observation


class Episodic(Plain):
    """A policy that notes its episodes."""

    episodes = 0

    def reset(self) -> None:
        """Count."""
        self.episodes += 1


def test_infer_makes_a_policy() -> None:
    """Nothing has to be inherited."""
    assert isinstance(Plain(), Policy)
    assert not isinstance(object(), Policy)


def test_reset_reaches_policies_that_have_it() -> None:
    """Others are left alone."""
    episodic = Episodic()
    reset_policy(episodic)
    reset_policy(Plain())
    assert episodic.episodes == 1


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [({"a": 1}, {"a": 1}), (lambda: {"b": 2}, {"b": 2}), (None, {}), ("text", {})],
)
def test_metadata_is_an_attribute_or_a_method(metadata: Any, expected: dict[str, Any]) -> None:
    """Both forms are read; anything that is no map counts as nothing said."""
    policy = Plain()
    policy.metadata = metadata  # type: ignore[attr-defined]
    assert policy_metadata(policy) == expected


def test_metadata_may_be_missing() -> None:
    """Stock servers send an empty map for such a policy."""
    assert policy_metadata(Plain()) == {}
