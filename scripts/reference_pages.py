# SPDX-License-Identifier: Apache-2.0
"""The reference pages that follow from the code.

In: the sources. Out: Markdown, one text for each page. Settings are read from the syntax tree and the command
line's help from a process of its own: nothing heavy is imported here.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pi05_websocket import errors
from pi05_websocket.cli import COMMANDS
from pi05_websocket.doctor.catalogue import MISTAKES
from pi05_websocket.doctor.catalogue import markdown_table as mistakes_table
from pi05_websocket.presets import PRESETS, describe, markdown_table

__all__ = ["PAGES", "POLICY_CONFIG", "command_help", "field_names", "installed_commands"]

ROOT = Path(__file__).resolve().parent.parent
POLICY_CONFIG = (
    "src/lerobot_policy_pi05_websocket/configuration_pi05_websocket.py",
    "PI05WebSocketConfig",
)


def presets_page() -> str:
    """Return the page of all key maps."""
    details = "\n\n".join(f"```text\n{describe(key_map)}\n```" for key_map in PRESETS.values())
    return (
        "# Key map presets\n\n"
        "Choose one with `--policy.keymap=NAME`, in Python with `preset(NAME)`. "
        "Sizes are rows x columns. Why there are so many: "
        "[topics/keymaps.md](../topics/keymaps.md); how to use your own cameras: "
        "[howto/cameras.md](../howto/cameras.md).\n\n"
        f"{markdown_table()}\n## In detail\n\n{details}\n"
    )


def errors_page() -> str:
    """Return the page of the error tree."""
    tree = (errors.__doc__ or "").split("\n\n")[1]
    page = (
        "# Errors\n\n"
        "By what you see instead of by name: [troubleshooting](../howto/troubleshooting.md).\n"
        f"Every error this project raises on purpose:\n\n```text\n{tree}\n```\n"
    )
    for name in sorted(errors.__all__):
        kind = getattr(errors, name)
        retry = "can succeed later as it is" if kind.retryable else "needs a change first"
        page += f"\n## {name}\n\n{plain(kind.__doc__ or '')}\n\nThe same call {retry}.\n"
    return page


def doctor_page() -> str:
    """Return the page of what the doctor finds."""
    caught = sum(mistake.verdict in ("refused", "look") for mistake in MISTAKES.values())
    return (
        "# What the doctor finds\n\n"
        "`pi05-websocket doctor` ends each check in one of five ways:\n\n"
        "| in the table | in `--json` | meaning |\n|---|---|---|\n"
        "| ok | passed | nothing to say |\n"
        "| WRONG | refused | the arm must not move before it is mended |\n"
        "| LOOK | look | only a person can tell: a picture on the contact sheet, or figures |\n"
        "| NEEDS DATA | needs dataset | neither server nor settings say it; only the policy's data set can |\n"
        "| skipped | skipped | what the check needs is not there; it says what |\n\n"
        "Exit code 0: nothing is wrong (look at what is marked LOOK); 1: something is; 2: the words make no "
        "sense. The robot is read and never commanded; its torque stays as it is "
        "([how to use it](../howto/real-arm.md#check-before-anything-moves)).\n\n"
        "At the start of every run, `preflight` looks at what is exchanged anyway: the metadata, the first "
        "pictures and prompt, the first answer, the first error. `refuse` ends a run whose server states "
        "another robot or rate (width, joint names, keys, control rate) before anything moves; `warn` only "
        "says it; `off` does not look. What else it sees is said in the log.\n\n"
        f"{len(MISTAKES)} mistakes, each of them made on purpose in a test; {caught} are refused or put before "
        f"a person before anything moves:\n\n{mistakes_table()}"
    )


def plain(docstring: str) -> str:
    """Return a docstring's text with its attributes as a list."""
    text, _, attributes = docstring.strip().partition("Attributes:")
    text = "\n".join(line.strip() for line in text.strip().splitlines())
    listed = re.sub(r"^\s*(\w+): ", r"- `\1`: ", attributes.strip(), flags=re.MULTILINE)
    return f"{text}\n\n{listed}" if listed else text


def commands_page() -> str:
    """Return the page of the command line: each command's own help."""
    page = (
        "# The command line\n\n"
        "`pi05-websocket` comes with the package. "
        "How to write a policy for it: [howto/serve-a-policy.md](../howto/serve-a-policy.md).\n"
    )
    for words in ((), *((name,) for name in installed_commands())):
        page += (
            f"\n## {' '.join(('pi05-websocket', *words))}\n\n```text\n{command_help(*words)}\n```\n"
        )
    return page


def installed_commands() -> list[str]:
    """Return the commands whose module is there."""
    return [
        name
        for name, command in sorted(COMMANDS.items())
        if importlib.util.find_spec(command.module)
    ]


@functools.cache
def command_help(*words: str) -> str:
    """Return what a command prints for `--help`, 100 characters wide and without colours."""
    program = "import sys; from pi05_websocket.cli import main; sys.exit(main(sys.argv[1:]))"
    # Colours, and a display that the demo's defaults would ask for, differ from machine to machine.
    differ = {"FORCE_COLOR", "CLICOLOR_FORCE", "PY_COLORS", "DISPLAY", "WAYLAND_DISPLAY"}
    env = {name: value for name, value in os.environ.items() if name not in differ}
    done = subprocess.run(
        [sys.executable, "-c", program, *words, "--help"],
        env=env | {"COLUMNS": "100", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def settings_page(title: str, intro: str, *sources: tuple[str, str]) -> Callable[[], str]:
    """Return a function that makes a page of the fields of some settings classes."""

    def page() -> str:
        text = f"# {title}\n\n{intro}\n"
        for path, name in sources:
            text += f"\n## {name}\n\nIn `{path}`.\n\n{fields_table(ROOT / path, name)}"
        return text

    return page


def fields_of(path: Path, name: str) -> list[tuple[ast.AnnAssign, str]]:
    """Return a dataclass's fields, each with the string below it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (cls,) = (
        node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name
    )
    return [
        (field, " ".join(str(ast.literal_eval(doc.value)).split()))
        for field, doc in zip(cls.body, cls.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr)
    ]


def field_names(path: str, name: str) -> set[str]:
    """Return the names of a dataclass's documented fields."""
    return {ast.unparse(field.target) for field, _ in fields_of(ROOT / path, name)}


def fields_table(path: Path, name: str) -> str:
    """Return a table of a dataclass's fields: name, type, default and the string below it."""
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for field, meaning in fields_of(path, name):
        cells = (
            f"`{ast.unparse(field.target)}`",
            f"`{ast.unparse(field.annotation)}`",
            f"`{default_of(field)}`" if field.value else "required",
            meaning,
        )
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def default_of(field: ast.AnnAssign) -> str:
    """Return a field's default as people write it."""
    text = ast.unparse(field.value) if field.value else ""
    factory = re.search(r"default_factory=(\w+)", text)
    return {"dict": "{}", "list": "[]"}.get(factory[1], factory[1]) if factory else text


PAGES: dict[str, Callable[[], str]] = {
    "presets.md": presets_page,
    "errors.md": errors_page,
    "command-line.md": commands_page,
    "doctor.md": doctor_page,
    "policy-settings.md": settings_page(
        "Settings of the LeRobot policy",
        "Each is a flag of LeRobot's tools, `--policy.NAME=VALUE`, and a field in Python. "
        "Secrets are never among them: LeRobot prints and saves its settings.",
        POLICY_CONFIG,
    ),
    "simulated-arm-settings.md": settings_page(
        "Settings of the simulated arm",
        "Each is a flag of LeRobot's tools, `--robot.NAME=VALUE` with `--robot.type=so101_sim`. "
        "A camera of the emulated arm has its own, beside LeRobot's `width`, `height` and `fps`: "
        "`--robot.cameras='{NAME: {type: so101_sim, ...}}'` with `--robot.type=so101_follower`, as "
        "`pi05-websocket emulate` prints it.",
        ("src/lerobot_policy_pi05_websocket/robot_so101_sim.py", "SO101SimConfig"),
        ("src/lerobot_policy_pi05_websocket/camera_so101_sim.py", "SO101SimCameraConfig"),
    ),
    "server-settings.md": settings_page(
        "Settings of the server",
        "Each is a flag of `pi05-websocket serve`, with dashes for underscores, and a field of the "
        "`config` that `WebsocketPolicyServer` takes ([serve a policy](../howto/serve-a-policy.md)); those of "
        "`GatewayConfig` are for servers behind it ([how](../howto/gateway.md)), those of `OpsConfig` for the "
        "operations port ([see how a server is](../howto/monitor.md)).",
        ("src/pi05_websocket/server/config.py", "ServerConfig"),
        ("src/pi05_websocket/gateway/config.py", "GatewayConfig"),
        ("src/pi05_websocket/ops/config.py", "OpsConfig"),
    ),
    "ray-settings.md": settings_page(
        "Settings on Ray Serve",
        "`RayOptions` are flags of `pi05-websocket serve --engine ray`, `LinkSettings` with `--link.` before. "
        "In a Serve config file, such as `integrations/ray/serve.yaml`, `PolicySettings` are the `args` of the "
        "policy application, `IngressSettings` the `user_config` of the ingress.",
        ("src/pi05_websocket/engine_ray/config.py", "RayOptions"),
        ("src/pi05_websocket/engine_ray/config.py", "LinkSettings"),
        ("src/pi05_websocket/engine_ray/config.py", "PolicySettings"),
        ("src/pi05_websocket/engine_ray/config.py", "IngressSettings"),
    ),
    "library-settings.md": settings_page(
        "Settings of the library",
        "For programs without LeRobot ([how to write one](../howto/without-lerobot.md)). "
        "All durations are seconds.",
        ("src/pi05_websocket/client/config.py", "ConnectionConfig"),
        ("src/pi05_websocket/robot/player.py", "PlayerConfig"),
        ("src/pi05_websocket/chunks/config.py", "SchedulerConfig"),
        ("src/pi05_websocket/chunks/hold.py", "HoldConfig"),
        ("src/pi05_websocket/chunks/resume.py", "ResumeConfig"),
        ("src/pi05_websocket/robot/limits.py", "LimitsConfig"),
        ("src/pi05_websocket/keymap.py", "KeyMap"),
        ("src/pi05_websocket/camera_map.py", "CameraMap"),
        ("src/pi05_websocket/keymap.py", "StatePart"),
    ),
}
