"""What loading promises holds for crowds in several processes, while everything goes wrong that can be made to.

Each run is one seed of a scenario; ``python -m tests.coherence.crowds`` goes on with more of them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.coherence.acts import ACTS, perform
from tests.coherence.callers import BOTH, TASKS, THREADS
from tests.coherence.crowds import SCENARIOS, Grounds, run

pytestmark = [pytest.mark.timeout(120), pytest.mark.alone, pytest.mark.newest]

# Each face, each place that a scenario is for, near caches and each number of processes have their turn.
RUNS = [
    (name, scenario.places[number % len(scenario.places)], (BOTH, THREADS, TASKS)[number % 3], (4, 4, 1)[number % 3], number % 4 == 1)
    for number, (name, scenario) in enumerate(SCENARIOS.items())
]  # fmt: skip
PAIRS = list(zip(RUNS[::2], [*RUNS[1::2], None], strict=False))


@pytest.fixture(scope="module")
def lanes():
    """Servers for two runs at a time."""
    with Grounds() as one, Grounds() as other:
        yield one, other


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "pair", PAIRS, ids=["+".join(f"{name}-{place}" for name, place, *_ in filter(None, pair)) for pair in PAIRS]
)
def test_promises_hold(pair, lanes, redis_debian):
    """No call returned what it must not, none loaded without need, and none hung; two runs at a time, as they mostly wait."""
    with ThreadPoolExecutor(2) as pool:
        reports = [report for report in pool.map(happen, pair, lanes) if report]

    for report in reports:
        assert not report.violations, str(report)
        assert report.loads, f"nothing was loaded, so nothing was shown: {report.command}"


def happen(chosen, grounds):
    if chosen is None:
        return None
    scenario, place, face, processes, near = chosen
    return run(SCENARIOS[scenario], 1, grounds, place=place, face=face, processes=processes, near=near)


@pytest.mark.few(len(ACTS))
@pytest.mark.parametrize("act", ACTS)
def test_acts(act, valkey):
    """What happens in one order only is right as well."""
    assert perform(act, valkey.tcp_url(0)) is None
