"""The audit of hits in production finds near caches that break a rule, and finds nothing in the right one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.coherence.mutants import MUTANTS
from tests.coherence.runs import T_LIVE, Run, run
from tests.coherence.scenarios import SCENARIOS, Scenario, overtaken

pytestmark = [pytest.mark.timeout(120), pytest.mark.few(1), pytest.mark.alone, pytest.mark.newest]

SEEDS = 5
"""The number of runs in which each mutant must be found."""


def still(name: str, *, load: dict[str, Any] | None = None, **changes: Any) -> Scenario:
    """Return the scenario *name* with *changes*, in which no read asks the server in any case, which mends what is wrong with a copy."""
    scenario = SCENARIOS[name]
    return replace(scenario, load=scenario.load | {"direct": 0.0} | (load or {}), **changes)


def then_calm(run: Run) -> None:
    """Announcements overtake replies, and then nothing goes wrong."""
    overtaken(run)
    run.proxy.heal()
    run.sleep(0.5)


SOON = {"T_TOPO": 0.3}
"""Of another server than the one that announces, the audit believes a change only after twice `T_TOPO`."""

FOUND_IN = {
    "NoToken": still("overtaken", script=then_calm),
    "NoEpochOnReconnect": still("away"),
    "NoLease": still("deaf"),
    "LeaseFromReceipt": still("lagging"),
    # Copies are too old for 20 ms, so by chance: the more often, the more is written and compared.
    "PongFirst": still("fenced", rate=30, load={"fenced": False, "writes": 0.0, "workers": 2}),
    "NoRunId": still("moved_in_use"),
    "NoCanary": still("pushless"),
    "EndlessCopies": still("expiring"),
    "NoFlush": still("flushed"),
    "SharedLease": still("deaf", load={"shared": 100}),
    "WrongNode": still("deaf", near=SOON),
    "KeptAcrossMoves": still("taken"),
    "KeptAcrossPromotions": still("promoted"),
    "FillsOnTheWay": still("on_its_way", rate=2, near=SOON, load={"shared": 60}),
    "AbsentCopies": still("on_its_way", rate=2, near=SOON, load={"shared": 60}),
}
"""The broken rules that the audit finds, and where."""

NOT_FOUND = {
    "NoOwnWriteDrop": "The announcement of the write ends the copy.",
    "NoCompletedReadRule": "The announcement of the write that one of the reads has missed ends the copy.",
    "NoLookAround": "The audit asks the primary that the process knows, which has the old value too.",
}
"""The broken rules that it cannot find, and why not: no copy is older than its server allows (docs/capacity.md)."""

assert {*FOUND_IN, *NOT_FOUND} == {*MUTANTS}

CLUSTERED = {"SharedLease", "WrongNode", "KeptAcrossMoves", "KeptAcrossPromotions", "FillsOnTheWay", "AbsentCopies"}

BOUNDED = [name for name, each in SCENARIOS.items() if each.delta <= T_LIVE and "one" in each.topologies]
"""The scenarios in which the bound is promised."""

MOVING = ["resharded", "taken", "on_its_way", "added", "promoted"]
"""Scenarios in which slots change their primaries."""


@pytest.mark.parametrize("mutant", FOUND_IN)
def test_a_broken_rule_is_found(mutant: str) -> None:
    """Of a near cache that breaks a rule, the audit finds copies that are too old."""
    topology = "cluster" if mutant in CLUSTERED else "one"
    found = (
        run(FOUND_IN[mutant], seed, topology=topology, mutant=mutant, audit=1).audited("violations")
        for seed in range(1, SEEDS + 1)
    )

    assert any(found)


@pytest.mark.parametrize("scenario", BOUNDED)
def test_the_right_one_is_right(scenario: str) -> None:
    """Whatever happens, no hit is said to be wrong that is not."""
    report = run(SCENARIOS[scenario], 1, audit=1)

    assert report.audited("violations") == 0, [each.stats["audit"]["events"] for each in report.outcomes]


@pytest.mark.parametrize("scenario", MOVING)
def test_the_right_one_is_right_while_slots_move(scenario: str) -> None:
    """A value that another node of the cluster has is no violation, as long as the copy ends in time."""
    report = run(replace(SCENARIOS[scenario], near=SOON), 1, topology="cluster", audit=1)

    assert report.audited("compared") > 0
    assert report.audited("violations") == 0, [each.stats["audit"]["events"] for each in report.outcomes]


def test_hits_are_compared_under_load() -> None:
    """While others write, many hits are compared, and all are right."""
    report = run(SCENARIOS["busy"], 1, audit=1, processes=2)

    assert report.audited("compared") > 50
    assert report.audited("violations") == 0
