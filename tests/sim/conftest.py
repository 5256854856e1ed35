# SPDX-License-Identifier: Apache-2.0
"""One simulated arm on a virtual clock for a whole test module: building it takes a second."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sim_bench import Bench, make_bench


@pytest.fixture(scope="module")
def shared_bench() -> Iterator[Bench]:
    """Build one arm for the module."""
    bench = make_bench()
    yield bench
    bench.sim.close()


@pytest.fixture
def bench(shared_bench: Bench) -> Bench:
    """Return the module's arm, at home, with seed 0 and no events."""
    shared_bench.sim.reset(0)
    shared_bench.events.clear()
    return shared_bench
