# SPDX-License-Identifier: Apache-2.0
"""Write the reference pages that follow from the code, and check every link of the documentation.

In: the sources and the Markdown files. Out: docs/reference/*.md, or with `--check` exit code 1 where
one is stale. Settings are read from the syntax tree: nothing heavy is imported.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from pi05_websocket import errors
from pi05_websocket.presets import PRESETS, describe, markdown_table

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
MARK = (
    "<!-- Written by scripts/docs.py from the code: change it there, then run `make docs`. -->\n\n"
)

LINK = re.compile(
    r"(?<!\\)!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|(?:src|href|srcset)=\"([^\"]+)\""
)
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
PATH_IN_TEXT = re.compile(r"`((?:src|docs|examples|tests|scripts|benchmarks)/[\w./-]+)`")


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
    page = f"# Errors\n\nEvery error this project raises on purpose:\n\n```text\n{tree}\n```\n"
    for name in sorted(errors.__all__):
        kind = getattr(errors, name)
        retry = "can succeed later as it is" if kind.retryable else "needs a change first"
        page += f"\n## {name}\n\n{plain(kind.__doc__ or '')}\n\nThe same call {retry}.\n"
    return page


def plain(docstring: str) -> str:
    """Return a docstring's text with its sections as a list."""
    lines = [line.strip() for line in docstring.strip().splitlines()]
    text = "\n".join(lines)
    return re.sub(
        r"^(\w+): (?=[A-Z])", r"- `\1`: ", text.replace("Attributes:", ""), flags=re.MULTILINE
    )


def settings_page(title: str, intro: str, *sources: tuple[str, str]) -> Callable[[], str]:
    """Return a function that makes a page of the fields of some settings classes."""

    def page() -> str:
        text = f"# {title}\n\n{intro}\n"
        for path, name in sources:
            text += f"\n## {name}\n\nIn `{path}`.\n\n{fields_table(ROOT / path, name)}"
        return text

    return page


def fields_table(path: Path, name: str) -> str:
    """Return a table of a dataclass's fields: name, type, default and the string below it."""
    tree = ast.parse(path.read_text())
    (cls,) = (
        node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name
    )
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for field, doc in zip(cls.body, cls.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr):
            cells = (
                f"`{ast.unparse(field.target)}`",
                f"`{ast.unparse(field.annotation)}`",
                f"`{default_of(field)}`" if field.value else "required",
                " ".join(str(ast.literal_eval(doc.value)).split()),
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
    "policy-settings.md": settings_page(
        "Settings of the LeRobot policy",
        "Each is a flag of LeRobot's tools, `--policy.NAME=VALUE`, and a field in Python. "
        "Secrets are never among them: LeRobot prints and saves its settings.",
        (
            "src/lerobot_policy_pi05_websocket/configuration_pi05_websocket.py",
            "PI05WebSocketConfig",
        ),
    ),
    "library-settings.md": settings_page(
        "Settings of the library",
        "For programs without LeRobot. All durations are seconds.",
        ("src/pi05_websocket/client/config.py", "ConnectionConfig"),
        ("src/pi05_websocket/robot/player.py", "PlayerConfig"),
        ("src/pi05_websocket/chunks/scheduler.py", "SchedulerConfig"),
        ("src/pi05_websocket/keymap.py", "KeyMap"),
        ("src/pi05_websocket/camera_map.py", "CameraMap"),
        ("src/pi05_websocket/keymap.py", "StatePart"),
    ),
}


def stale_pages() -> Iterator[str]:
    """Yield the generated pages that differ from what the code says."""
    for name, page in PAGES.items():
        path = REFERENCE / name
        if not path.exists() or path.read_text() != MARK + page():
            yield str(path.relative_to(ROOT))


def documents() -> list[Path]:
    """Return every Markdown file of the project."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def anchors(path: Path) -> set[str]:
    """Return the anchors GitHub gives a document's headings."""
    text = FENCE.sub("", path.read_text())
    slugs = (re.sub(r"[^\w\- ]", "", heading[1].lower()) for heading in HEADING.finditer(text))
    return {slug.replace(" ", "-") for slug in slugs}


def broken_links(path: Path) -> Iterator[str]:
    """Yield what a document points to and is not there. The web is not asked."""
    text = FENCE.sub("", path.read_text())
    for match in LINK.finditer(text):
        target = match[1] or match[2]
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        if not linked.exists():
            yield f"{path.relative_to(ROOT)}: no such file: {target}"
        elif anchor and linked.suffix == ".md" and anchor not in anchors(linked):
            yield f"{path.relative_to(ROOT)}: no such heading: {target}"
    for match in PATH_IN_TEXT.finditer(text):
        if not (ROOT / match[1]).exists():
            yield f"{path.relative_to(ROOT)}: no such path: {match[1]}"


def main() -> None:
    """Write the pages, or check that they are up to date; then check the links."""
    problems = []
    if "--check" in sys.argv[1:]:
        problems += [f"{page}: stale, run 'make docs' and commit" for page in stale_pages()]
    else:
        REFERENCE.mkdir(parents=True, exist_ok=True)
        for name, page in PAGES.items():
            (REFERENCE / name).write_text(MARK + page())
    problems += [problem for path in documents() for problem in broken_links(path)]
    if problems:
        raise SystemExit("\n".join(problems))
    print(f"docs: {len(documents())} documents, all links lead somewhere")


if __name__ == "__main__":
    main()
