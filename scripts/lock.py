# SPDX-License-Identifier: Apache-2.0
"""Renew constraints.txt: the newest versions that fit together, for every platform and extra.

In: pyproject.toml. Out: constraints.txt, names and versions only.
uv.lock is not kept: it holds the addresses of the index it was made with.
"""

from __future__ import annotations

import re
import subprocess

from environment import PYTHON_VERSION, ROOT, find_uv

LOCK = ROOT / "uv.lock"
CONSTRAINTS = ROOT / "constraints.txt"
PIN = re.compile(r"[a-z0-9][a-z0-9._-]*==[0-9][a-z0-9.+!]*( ; .+)?")


def main() -> None:
    """Resolve, export, check, and remove the lock file."""
    uv = find_uv()
    try:
        subprocess.run([uv, "lock", "--upgrade", "--python", PYTHON_VERSION], cwd=ROOT, check=True)
        exported = subprocess.run(
            [uv, "export", "-q", "--frozen", "--python", PYTHON_VERSION, "--all-extras", "--all-groups",
             "--no-hashes", "--no-emit-project", "--no-header", "--no-annotate"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
    finally:
        LOCK.unlink(missing_ok=True)
    strange = [line for line in exported.splitlines() if not PIN.fullmatch(line)]
    if strange:
        # An address or a local path would tie everybody to the machine this ran on.
        raise SystemExit(f"make lock: not a plain pin, constraints.txt left as it is: {strange}")
    CONSTRAINTS.write_text(exported)
    print(f"lock: {len(exported.splitlines())} pins in constraints.txt; now run 'make setup test'")


if __name__ == "__main__":
    main()
