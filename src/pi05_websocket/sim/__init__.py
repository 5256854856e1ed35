# SPDX-License-Identifier: Apache-2.0
"""A simulated SO-101 on a real clock, its tasks, and a policy that solves them from pixels.

The pure parts (`arm`, `camera`, `vision`, `expert`, `episodes`, `tasks`, `stats`) need numpy only; `so101` and
what it stands on need the `sim` extra. Nothing is imported here, so that the expert starts without a simulator.
"""
