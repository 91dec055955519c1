"""What near caches promise holds under load, while everything goes wrong that can be made to.

Each run is another seed of the scenario; ``python -m tests.soak`` goes on with more of them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.coherence.load import BOTH, TASKS, THREADS
from tests.coherence.runs import run
from tests.coherence.scenarios import SCENARIOS

pytestmark = pytest.mark.timeout(120)

# Each face, each server and each number of processes has its turn; a soak combines them all.
FACES = (THREADS, TASKS, BOTH)
RUNS = [
    (name, FACES[number % 3], ("valkey", "redis")[number % 2], 4 if number % 5 == 0 else 1)
    for number, name in enumerate(SCENARIOS)
]
PAIRS = list(zip(RUNS[::2], RUNS[1::2], strict=True))


@pytest.mark.parametrize("pair", PAIRS, ids=[f"{one[0]}+{other[0]}" for one, other in PAIRS])
def test_promises_hold(pair, redis_debian):
    """No read returned what it must not, and copies were served; two at a time, because they mostly wait."""
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(happen, pair))

    for report in reports:
        assert not report.violations, str(report)
        assert report.hits > report.reads * 0.02, f"hardly a copy was served, so nothing was shown: {report.command}"


def happen(chosen):
    scenario, face, server, processes = chosen
    return run(SCENARIOS[scenario], seed=1, face=face, server=server, processes=processes)
