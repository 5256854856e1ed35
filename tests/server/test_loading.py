# SPDX-License-Identifier: Apache-2.0
"""From words to a policy, and what each wrong word is told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pi05_websocket.errors import ConfigError
from pi05_websocket.server.loading import load_policy
from pi05_websocket.server.replay import ReplayPolicy

MODULE = """
class Policy:
    def infer(self, observation):
        return {"actions": [[1.0]]}

def make(): return Policy()
def make_nothing(): return None
def fails(): raise RuntimeError("no GPU")

ready = Policy()
number = 7

class box:
    inner = Policy
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Work in a directory with a module of policies; return the module's name."""
    name = "policies_for_test_loading"
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / "needs_more.py").write_text("import a_module_nobody_has")
    (tmp_path / "broken.py").write_text("1/0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield name
    for module in (name, "needs_more", "broken"):
        sys.modules.pop(module, None)


@pytest.mark.parametrize("attribute", ["Policy", "make", "ready", "box.inner"])
def test_classes_functions_and_objects(here: str, attribute: str) -> None:
    """A class and a function are called, an object is taken; the current directory is searched."""
    assert load_policy(f"{here}:{attribute}").infer({}) == {"actions": [[1.0]]}


def test_replay(tmp_path: Path) -> None:
    """`replay:` takes a file instead of a module."""
    np.save(tmp_path / "wave.npy", np.zeros((3, 6)))
    assert isinstance(load_policy(f"replay:{tmp_path / 'wave.npy'}?loop"), ReplayPolicy)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "expected module:factory"),
        ("nonsense", r"expected module:factory .*, replay:FILE .* or expert"),
        (":make", "expected module:factory"),
        ("{here}:", "expected module:factory"),
        ("replay:", "expected module:factory"),
        ("nowhere_to_be_found:make", "there is no module 'nowhere_to_be_found', neither installed nor in"),
        ("json.nowhere:make", "there is no module 'json.nowhere'"),
        ("needs_more:make", "module 'needs_more' is there, but needs 'a_module_nobody_has'"),
        ("folder/file.py:make", "got a file; write folder.file:make"),
        ("file.py:make", "got a file; write file:make"),
        ("{here}:mak", "{here} has no 'mak'; it has Policy, box, fails, make, make_nothing"),
        ("{here}:box.outer", "box has no 'outer'; it has inner"),
        ("{here}:number", r"expected something with infer\(observation\), got int"),
        ("{here}:make_nothing", r"expected something with infer\(observation\), got a factory of NoneType"),
    ],
)  # fmt: skip
def test_what_is_no_policy(here: str, spec: str, message: str) -> None:
    """Each mistake is told by its name, with what would be right."""
    with pytest.raises(ConfigError, match=message.replace("{here}", here)):
        load_policy(spec.replace("{here}", here))


def test_errors_of_the_users_code_stay_theirs(here: str) -> None:
    """What a module or factory raises is not dressed up: its author needs the traceback."""
    with pytest.raises(RuntimeError, match="no GPU"):
        load_policy(f"{here}:fails")
    with pytest.raises(ZeroDivisionError):
        load_policy("broken:make")


@pytest.mark.sim
def test_expert() -> None:
    """The simulator's policy by its name alone."""
    assert type(load_policy("expert")).__name__ == "ExpertPolicy"


def test_expert_without_the_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy is one line to type."""
    monkeypatch.setitem(sys.modules, "pi05_websocket.sim.expert", None)  # as if it were not there
    with pytest.raises(ConfigError, match=r"pip install .*\[sim\]'"):
        load_policy("expert")
