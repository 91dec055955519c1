"""The audit of hits in production finds near caches that break a rule, and finds nothing in the right one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.coherence.runs import T_LIVE, run
from tests.coherence.scenarios import SCENARIOS

pytestmark = [pytest.mark.timeout(120), pytest.mark.few(1), pytest.mark.alone, pytest.mark.newest]

SEEDS = 5
"""The number of runs in which each mutant must be found."""

FOUND_IN = {
    "NoEpochOnReconnect": "away",
    "NoLease": "deaf",
    "LeaseFromReceipt": "lagging",
    "NoRunId": "moved_in_use",
    "NoCanary": "pushless",
    "EndlessCopies": "expiring",
    "NoFlush": "flushed",
    "SharedLease": "deaf",
    "KeptAcrossMoves": "taken",
    "KeptAcrossPromotions": "promoted",
}
"""The broken rules that leave copies which are too old.

The others break promises about the order of reads and writes (`NoOwnWriteDrop`, `NoCompletedReadRule`), or for
some milliseconds (`NoToken` and `PongFirst` here), or within the bounds of a change of the primary.
"""

CLUSTERED = {"SharedLease", "KeptAcrossMoves", "KeptAcrossPromotions"}

BOUNDED = [name for name, each in SCENARIOS.items() if each.delta <= T_LIVE and "one" in each.topologies]
"""The scenarios in which the bound is promised."""


@pytest.mark.parametrize("mutant", FOUND_IN)
def test_a_broken_rule_is_found(mutant: str) -> None:
    """Of a near cache that breaks a rule, the audit finds copies that are too old."""
    scenario = SCENARIOS[FOUND_IN[mutant]]
    # A read that asks the server in any case mends what is wrong with a copy.
    scenario = replace(scenario, load=scenario.load | {"direct": 0.0})
    topology = "cluster" if mutant in CLUSTERED else "one"
    found = (
        run(scenario, seed, topology=topology, mutant=mutant, audit=1).audited("violations")
        for seed in range(1, SEEDS + 1)
    )

    assert any(found)


@pytest.mark.parametrize("scenario", BOUNDED)
def test_the_right_one_is_right(scenario: str) -> None:
    """Whatever happens, no hit is said to be wrong that is not."""
    report = run(SCENARIOS[scenario], 1, audit=1)

    assert report.audited("violations") == 0, [each.stats["audit"]["events"] for each in report.outcomes]


def test_hits_are_compared_under_load() -> None:
    """While others write, many hits are compared, and all are right."""
    report = run(SCENARIOS["busy"], 1, audit=1, processes=2)

    assert report.audited("compared") > 50
    assert report.audited("violations") == 0
