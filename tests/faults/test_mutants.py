"""A near cache that breaks one of its rules is caught: a checker that notices nothing proves nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.coherence.mutants import MUTANTS
from tests.coherence.runs import run
from tests.coherence.scenarios import SCENARIOS

pytestmark = [pytest.mark.timeout(120), pytest.mark.few(1), pytest.mark.alone, pytest.mark.newest]

SEEDS = 8
"""The number of runs in which each mutant must be noticed."""

CLUSTERED = {
    "SharedLease",
    "WrongNode",
    "KeptAcrossMoves",
    "NoLookAround",
    "KeptAcrossPromotions",
    "FillsOnTheWay",
    "AbsentCopies",
}
"""What is no rule of one server."""

EXPOSED_BY = {
    "NoToken": ("overtaken", {"monotonic", "stale", "own write"}),
    "NoOwnWriteDrop": ("own_writes", {"own write"}),
    "NoCompletedReadRule": ("unordered", {"monotonic"}),
    "NoEpochOnReconnect": ("away", {"stale"}),
    "NoLease": ("deaf", {"stale"}),
    "LeaseFromReceipt": ("lagging", {"stale"}),
    "PongFirst": ("fenced", {"stale"}),
    "NoRunId": ("moved_in_use", {"stale"}),
    "NoCanary": ("pushless", {"stale"}),
    "EndlessCopies": ("expiring", {"expired"}),
    "NoFlush": ("flushed", {"stale"}),
    "SharedLease": ("deaf", {"stale"}),
    "WrongNode": ("deaf", {"stale"}),
    "KeptAcrossMoves": ("taken", {"stale"}),
    "NoLookAround": ("isolated", {"stale"}),
    "KeptAcrossPromotions": ("promoted", {"stale"}),
    "FillsOnTheWay": ("on_its_way", {"stale"}),
    "AbsentCopies": ("on_its_way", {"stale"}),
}


PAIRS = [tuple(EXPOSED_BY)[place : place + 2] for place in range(0, len(MUTANTS), 2)]
assert set(EXPOSED_BY) == set(MUTANTS)


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_a_broken_rule_is_noticed(pair):
    """In the scenario that the rule is made for, by the promise that it keeps; two at a time, because they mostly wait."""
    with ThreadPoolExecutor(2) as pool:
        noticed = dict(zip(pair, pool.map(notice, pair), strict=True))

    for mutant, seed in noticed.items():
        assert seed, f"{mutant} does what it likes in {SEEDS} runs of {EXPOSED_BY[mutant][0]}"


def notice(mutant):
    """Return the first seed with which *mutant* is noticed, 0 if none is."""
    scenario, promises = EXPOSED_BY[mutant]
    for seed in range(1, SEEDS + 1):
        report = run(SCENARIOS[scenario], seed, topology="cluster" if mutant in CLUSTERED else "one", mutant=mutant)
        if promises & {violation.promise for violation in report.violations}:
            return seed
    return 0
