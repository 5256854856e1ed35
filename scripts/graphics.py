# SPDX-License-Identifier: Apache-2.0
"""Say whether MuJoCo can render without a display here, and what to install if not.

In: nothing. Out: exit code 0, or 1 and one line. Run it with `.venv/bin/python`.
"""

from __future__ import annotations

import os
import sys

REMEDY = (
    "headless OpenGL is missing, the simulated arm cannot render ({cause}). Install it: "
    "sudo apt-get install -y --no-install-recommends libegl1 libopengl0 libgl1-mesa-dri"
)


def main() -> None:
    """Open a tiny EGL context, as the simulator will; other systems bring their own OpenGL."""
    if not sys.platform.startswith("linux"):
        return
    os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        import mujoco

        context = mujoco.GLContext(16, 16)
        context.make_current()
        context.free()
    except Exception as exc:
        # MuJoCo and PyOpenGL raise a dozen kinds, AttributeError among them, for a missing library.
        sys.exit(REMEDY.format(cause=f"{type(exc).__name__}: {exc}".splitlines()[0]))


if __name__ == "__main__":
    main()
