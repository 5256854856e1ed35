# SPDX-License-Identifier: Apache-2.0
"""The plugin in somebody else's pytest: items for a server, the fixture for a client, nothing when unused."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from documents import ROOT, named_block
from mutant_servers import GoodServer, changed

from pi05_websocket.wire import codec

PLUGIN = "pi05_websocket.conformance.pytest_plugin"


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a folder with the plugin and no other."""
    env = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-p", PLUGIN, "-p", "no:cacheprovider", *words]
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=55, check=False
    )


@pytest.fixture
def good_server():
    """A server that keeps every clause."""
    server = GoodServer()
    yield server
    server.close()


def test_a_server_is_checked_beside_the_tests_there_are(
    good_server: GoodServer, tmp_path: Path
) -> None:
    """Its checks are items of their own, by name and clause."""
    (tmp_path / "test_own.py").write_text("def test_own(): pass\n")
    done = run(tmp_path, "-v", "--pi05-websocket-url", good_server.url)
    assert done.returncode == 0, done.stdout
    assert "test_own.py::test_own PASSED" in done.stdout
    assert "pi05-websocket::error[S-10] PASSED" in done.stdout
    assert "pi05-websocket::keys[S-23] SKIPPED" in done.stdout
    assert "objects" not in done.stdout


def test_a_broken_must_fails_and_a_should_does_not(tmp_path: Path) -> None:
    """The clause, what was expected and what came, without a traceback."""

    def answer(self, protocol, asked):
        return codec.encode({"action": [1, 2]})

    server = changed("answer", answer)()
    try:
        words = ("-m", "pi05_websocket", "-k", "actions or timing", "-rx")
        done = run(tmp_path, *words, "--pi05-websocket-url", server.url)
    finally:
        server.close()
    assert done.returncode == 1
    assert "S-7 (must): expected actions: finite numbers" in done.stdout
    assert "1 failed" in done.stdout
    assert "1 xfailed" in done.stdout
    assert "Traceback" not in done.stdout


def test_nobody_listening_is_a_failure(tmp_path: Path, good_server: GoodServer) -> None:
    """What could not be judged is not taken for kept."""
    good_server.close()
    done = run(tmp_path, "-k", "ping", "--pi05-websocket-url", good_server.url)
    assert done.returncode == 1
    assert "could not be judged" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--pi05-websocket-dialect", "latin"), "dialect='latin'"),
        (("--pi05-websocket-dialect", "auto"), "name one, not auto"),
        (("--pi05-websocket-keymap", "nobody"), "nobody"),
        (("--pi05-websocket-skip", "X-1"), "X-1: no check"),
        (("--pi05-websocket-observation", "none.msgpack"), "none.msgpack"),
    ],
)
def test_wrong_words_are_a_usage_error(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    """Before anything runs."""
    done = run(tmp_path, "--pi05-websocket-url", "ws://127.0.0.1:1", *words)
    assert done.returncode == 4
    assert said in done.stderr


def test_the_documents_client_test_passes(tmp_path: Path) -> None:
    """What readers copy from the page runs as it stands; here with shorter waits."""
    page = ROOT / "docs" / "howto" / "conformance.md"
    (tmp_path / "test_my_client.py").write_text(named_block(page, "test_my_client.py"))
    (tmp_path / "conftest.py").write_text(
        "import pytest\n"
        "from pi05_websocket.conformance.visit import ClientSettings\n"
        "@pytest.fixture\n"
        "def conformance_settings():\n"
        "    return ClientSettings(patience_s=3.0, hold_s=0.2, late_s=0.3, quiet_s=0.05)\n"
    )
    done = run(tmp_path, "-q")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_a_client_that_does_not_come_fails_at_the_end(tmp_path: Path) -> None:
    """With the table."""
    (tmp_path / "test_client.py").write_text(
        "import pytest\n"
        "from pi05_websocket.conformance.visit import ClientSettings\n"
        "@pytest.fixture\n"
        "def conformance_settings():\n"
        "    return ClientSettings(patience_s=0.05)\n"
        "def test_client(conformance_server):\n"
        "    pass\n"
    )
    done = run(tmp_path, "-q")
    assert done.returncode == 1
    assert "Not everything could be judged." in done.stdout


def test_unused_it_imports_nothing(tmp_path: Path) -> None:
    """Somebody's other tests pay for one small module."""
    (tmp_path / "test_own.py").write_text(
        "import sys\n"
        "def test_own():\n"
        "    names = {'numpy', 'msgspec', 'picows', 'PIL'}\n"
        "    ours = {name for name in sys.modules if name.startswith('pi05_websocket')}\n"
        "    assert not names & set(sys.modules)\n"
        "    assert ours == {'pi05_websocket', 'pi05_websocket.conformance',\n"
        "                    'pi05_websocket.conformance.pytest_plugin'}\n"
    )
    done = run(tmp_path, "-q")
    assert done.returncode == 0, done.stdout


def test_installed_it_is_found_by_pytest_itself(tmp_path: Path) -> None:
    """And naming it besides is no mistake."""
    installed = tmp_path / "installed" / "pi05_example-1.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: pi05_example\nVersion: 1\n")
    (installed / "entry_points.txt").write_text(f"[pytest11]\n{PLUGIN} = {PLUGIN}\n")
    path = os.pathsep.join([str(installed.parent), os.environ.get("PYTHONPATH", "")])
    for words in ([], ["-p", PLUGIN]):
        command = [sys.executable, "-m", "pytest", *words, "--help"]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=55,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "--pi05-websocket-url" in done.stdout


def test_it_is_registered_under_pytests_name() -> None:
    """The package names the module, so that pytest loads it by itself."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert pyproject["project"]["entry-points"]["pytest11"] == {PLUGIN: PLUGIN}
