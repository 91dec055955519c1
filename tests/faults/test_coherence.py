"""What near caches promise holds under load, while everything goes wrong that can be made to.

Each run is another seed of the scenario; ``python -m tests.soak`` goes on with more of them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.coherence.load import BOTH, TASKS, THREADS
from tests.coherence.runs import run
from tests.coherence.scenarios import SCENARIOS

pytestmark = [pytest.mark.timeout(120), pytest.mark.few(1), pytest.mark.alone, pytest.mark.newest]

# Each face, each server and each number of processes has its turn; a soak combines them all.
FACES = (THREADS, TASKS, BOTH)
ONE = [
    (name, FACES[number % 3], ("valkey", "redis")[number % 2], 4 if number % 5 == 0 else 1, "one")
    for number, name in enumerate(name for name in SCENARIOS if "one" in SCENARIOS[name].topologies)
]
# Of those that also befall one server what is different elsewhere, and in pairs those that take equally long.
SEVERAL = [
    *(("deaf", THREADS, "valkey", 2, "cluster"), ("flushed", TASKS, "redis", 1, "cluster")),
    *(("taken", THREADS, "valkey", 2, "cluster"), ("added", TASKS, "valkey", 1, "cluster")),
    *(("promoted", TASKS, "redis", 1, "cluster"), ("revived", BOTH, "valkey", 1, "cluster")),
    *(("isolated", BOTH, "valkey", 1, "cluster"), ("switched", THREADS, "valkey", 1, "sentinel")),
]
RUNS = [*ONE, *SEVERAL]
PAIRS = list(zip(RUNS[::2], RUNS[1::2], strict=True))


@pytest.mark.parametrize(
    "pair", PAIRS, ids=["+".join(f"{name}-{topology}" for name, *_, topology in pair) for pair in PAIRS]
)
def test_promises_hold(pair, redis_debian):
    """No read returned what it must not, and copies were served; two at a time, because they mostly wait."""
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(happen, pair))

    for report in reports:
        assert not report.violations, str(report)
        assert report.hits > report.reads * 0.02, f"hardly a copy was served, so nothing was shown: {report.command}"


def happen(chosen):
    scenario, face, server, processes, topology = chosen
    return run(SCENARIOS[scenario], seed=1, face=face, server=server, processes=processes, topology=topology)
