# SPDX-License-Identifier: Apache-2.0
"""Write what follows from the code and the figures into the documentation, and check what it says.

In: the sources, docs/figures and the Markdown files. Out: docs/reference and the generated blocks of some
documents, or with `--check` exit code 1 where one is stale. Either way every link, path and flag that a
document names is looked up, and whether the figures are of a program that a commit has.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from figures import BLOCKS, changed_checkouts
from reference_pages import PAGES, POLICY_CONFIG, command_help, field_names, installed_commands

from pi05_websocket.presets import PRESETS

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
WITH_BLOCKS = (
    ROOT / "README.md",
    ROOT / "docs" / "howto" / "benchmark.md",
    ROOT / "docs" / "topics" / "many-robots.md",
    ROOT / "docs" / "howto" / "serve-a-policy.md",
    ROOT / "docs" / "howto" / "monitor.md",
    ROOT / "docs" / "howto" / "gateway.md",
    ROOT / "docs" / "howto" / "several-servers.md",
    ROOT / "docs" / "howto" / "scale-out.md",
    ROOT / "docs" / "topics" / "distance.md",
    ROOT / "docs" / "topics" / "images.md",
    ROOT / "docs" / "reference" / "protocol.md",
    ROOT / "docs" / "topics" / "soak.md",
)
"""Documents with generated blocks among what people wrote."""
MARK = (
    "<!-- Written by scripts/docs.py from the code: change it there, then run `make docs`. -->\n\n"
)

BLOCK = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[\w ]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL
)
LINK = re.compile(
    r"(?<!\\)!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|(?:src|href|srcset)=\"([^\"]+)\""
)
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
PATH_IN_TEXT = re.compile(
    r"`((?:src|docs|examples|tests|scripts|benchmarks|integrations)/[\w./-]+)`"
)

POLICY_FLAG = re.compile(r"--policy\.([a-z_]+)")
KEYMAP_CHOICE = re.compile(r"--policy\.keymap=([a-z]\w*)")
COMMAND = re.compile(r"^ *pi05-websocket ([a-z]+)((?: .*?(?:\\\n)?)*)$", re.MULTILINE)
COMMAND_FLAG = re.compile(r"(?<=\s)(--[a-z][a-z-]*)")
OTHERS_FLAGS = {"type", "path", "device", "dtype", "use_amp", "config", "dir"}
"""Of every LeRobot policy, and of OpenPI's own `serve_policy.py`."""


def generated_pages() -> Iterator[tuple[Path, str]]:
    """Yield each generated page and what it should be."""
    for name, page in PAGES.items():
        yield REFERENCE / name, MARK + page()
    for path in WITH_BLOCKS:
        yield path, with_blocks(path.read_text(encoding="utf-8"))


def with_blocks(text: str) -> str:
    """Return a document with its generated blocks renewed."""

    def renewed(match: re.Match[str]) -> str:
        content = BLOCKS[match["name"]]()
        return (
            f"{match['begin']}\n{content}\n\n{match['end']}"
            if content
            else match["begin"] + match["end"]
        )

    return BLOCK.sub(renewed, text)


def stale_pages() -> Iterator[str]:
    """Yield the generated pages that differ from what the code and the figures say."""
    for path, content in generated_pages():
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            yield f"{path.relative_to(ROOT)}: stale, run 'make docs' and commit"


def documents() -> list[Path]:
    """Return every Markdown file of the project."""
    return sorted(
        [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("integrations/**/*.md")]
    )


def anchors(path: Path) -> set[str]:
    """Return the anchors GitHub gives a document's headings."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    slugs = (re.sub(r"[^\w\- ]", "", heading[1].lower()) for heading in HEADING.finditer(text))
    return {slug.replace(" ", "-") for slug in slugs}


def broken_links(path: Path) -> Iterator[str]:
    """Yield what a document points to and is not there. The web is not asked."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    for match in LINK.finditer(text):
        target = match[1] or match[2]
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        if not linked.exists():
            yield f"no such file: {target}"
        elif anchor and linked.suffix == ".md" and anchor not in anchors(linked):
            yield f"no such heading: {target}"
    for match in PATH_IN_TEXT.finditer(text):
        if not (ROOT / match[1]).exists():
            yield f"no such path: {match[1]}"


def unknown_flags(path: Path) -> Iterator[str]:
    """Yield the flags and presets a document names and nobody knows."""
    text = path.read_text(encoding="utf-8")
    for name in sorted(set(POLICY_FLAG.findall(text)) - field_names(*POLICY_CONFIG) - OTHERS_FLAGS):
        yield f"no such setting: --policy.{name}"
    for name in sorted(set(KEYMAP_CHOICE.findall(text)) - set(PRESETS)):
        yield f"no such preset: {name}"
    for command, arguments in COMMAND.findall(text):
        if command not in installed_commands():
            continue
        known = command_help(command)
        for flag in COMMAND_FLAG.findall(arguments):
            if flag not in known:
                yield f"no such flag: pi05-websocket {command} {flag}"


def problems() -> Iterator[str]:
    """Yield what is wrong in any document."""
    for path in documents():
        if not path.read_text(encoding="utf-8").strip():
            yield f"{path.relative_to(ROOT)}: empty"
        for problem in (*broken_links(path), *unknown_flags(path)):
            yield f"{path.relative_to(ROOT)}: {problem}"
    yield from changed_checkouts()


def main() -> None:
    """Write the pages, or check that they are up to date; then check what all documents name."""
    stale: list[str] = []
    if "--check" in sys.argv[1:]:
        stale = list(stale_pages())
    else:
        REFERENCE.mkdir(parents=True, exist_ok=True)
        for path, content in list(generated_pages()):
            path.write_text(content, encoding="utf-8")
    wrong = [*stale, *problems()]
    if wrong:
        raise SystemExit("\n".join(wrong))
    print(f"docs: {len(documents())} documents, every link, path and flag in them exists")


if __name__ == "__main__":
    main()
