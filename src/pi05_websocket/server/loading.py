# SPDX-License-Identifier: Apache-2.0
"""From the words of a command line to a policy: `module:factory`, `replay:FILE`, `lerobot:PATH`, `expert`.

Imports what is named and nothing else, so that serving an OpenPI model needs nothing but that model's code.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

from pi05_websocket.errors import ConfigError
from pi05_websocket.extras import how_to_install
from pi05_websocket.policy import Policy
from pi05_websocket.server.recorded import is_recording, load_recorded
from pi05_websocket.server.replay import load_replay

__all__ = ["load_object", "load_policy"]

_FORMS = (
    "module:factory (a function, a class or an object with infer), lerobot:PATH (a checkpoint), "
    "replay:FILE (.npy, .npz, a recording) or expert"
)

_EXPERT = "pi05_websocket.sim.expert:ExpertPolicy"

_SERVING = "lerobot_policy_pi05_websocket.serving_checkpoint"


def load_policy(spec: str) -> Policy:
    """Return the policy that `spec` names.

    - `module:factory`: `factory` may be a function or class, which is called without arguments, or an object
      that already is a policy. Dots go into attributes. The current directory is searched first.
    - `replay:FILE`: recorded actions, see `replay`; or a recording's answers, see `recorded`.
    - `lerobot:PATH`: a LeRobot checkpoint, see `lerobot_policy_pi05_websocket.serving_checkpoint`.
    - `expert`: the simulator's own policy.

    Raises:
        ConfigError: If nothing of that name is there, or it is no policy. An error inside the module or the
            factory is raised as it is, except for a missing module, which becomes the cause.
    """
    if spec == "expert":
        return _load_expert()
    module_name, separator, attribute = spec.partition(":")
    if not (separator and module_name and attribute):
        raise ConfigError(f"policy {spec!r}: expected {_FORMS}")
    if module_name == "replay":
        return load_recorded(attribute) if is_recording(attribute) else load_replay(attribute)
    if module_name == "lerobot":
        return _load_checkpoint(attribute)
    return _as_policy(load_object(spec), spec)


def load_object(spec: str, *, kind: str = "policy") -> Any:
    """Return what `module:attribute` names; the current directory is searched first.

    Args:
        spec: Dots go into attributes.
        kind: What error messages call it.

    Raises:
        ConfigError: If nothing of that name is there. An error inside the module is raised as it is.
    """
    module_name, separator, attribute = spec.partition(":")
    if not (separator and module_name and attribute):
        raise ConfigError(f"{kind} {spec!r}: expected module:factory")
    said = f"{kind} {spec!r}"
    return _attribute(_module(module_name, said, attribute), attribute, said)


def _load_expert() -> Policy:
    module_name, _, attribute = _EXPERT.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as exc:
        raise ConfigError(
            f"policy 'expert' needs {exc.name or exc}. Install the simulator: {how_to_install('sim')}"
        ) from exc
    return _as_policy(getattr(module, attribute), "expert")


def _load_checkpoint(spec: str) -> Policy:
    try:
        # By name only: the library must not need LeRobot.
        serving = importlib.import_module(_SERVING)
    except ImportError as exc:
        raise ConfigError(
            f"policy 'lerobot:' needs {exc.name or exc}. Install LeRobot: {how_to_install('serve')} "
            "(Python 3.12)"
        ) from exc
    policy: Policy = serving.load_checkpoint(spec)
    return policy


def _module(name: str, said: str, attribute: str) -> ModuleType:
    if name.endswith(".py") or "/" in name:
        dotted = name.removesuffix(".py").strip("./").replace("/", ".")
        raise ConfigError(
            f"{said}: expected a module's name, got a file; write {dotted}:{attribute}"
        )
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and f"{name}.".startswith(f"{exc.name}."):
            raise ConfigError(
                f"{said}: there is no module {exc.name!r}, neither installed nor in {os.getcwd()}"
            ) from exc
        raise ConfigError(
            f"{said}: module {name!r} is there, but needs {exc.name!r}, which is not installed"
        ) from exc


def _attribute(module: ModuleType, path: str, said: str) -> Any:
    found: Any = module
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            where = getattr(found, "__name__", type(found).__name__)
            public = ", ".join(n for n in dir(found) if not n.startswith("_")) or "nothing public"
            raise ConfigError(f"{said}: {where} has no {name!r}; it has {public[:300]}") from None
    return found


def _as_policy(found: Any, spec: str) -> Policy:
    """Call factories and classes; take objects that can infer as they are."""
    is_policy = callable(getattr(found, "infer", None)) and not isinstance(found, type)
    policy = found if is_policy or not callable(found) else found()
    if not callable(getattr(policy, "infer", None)):
        got = (
            f"{type(policy).__name__}"
            if policy is found
            else f"a factory of {type(policy).__name__}"
        )
        raise ConfigError(f"policy {spec!r}: expected something with infer(observation), got {got}")
    return policy  # type: ignore[no-any-return]  # it has `infer`, which is all that a Policy is
