"""Loading that breaks one of its rules is caught: a checker that notices nothing proves nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.coherence.acts import perform
from tests.coherence.callers import BOTH, TASKS
from tests.coherence.crowds import SCENARIOS, Grounds, run
from tests.coherence.loadmutants import MUTANTS

pytestmark = [pytest.mark.timeout(120), pytest.mark.few(1), pytest.mark.alone, pytest.mark.newest]

SEEDS = 8
"""The number of runs in which each mutant must be noticed."""

CROWDS = {
    "no_look_after_the_lease": ("slow replies", {"loaded twice", "not stored"}),
    "fill_without_comparison": ("delete while loading", {"given up"}),
    "fill_over_foreign_set": ("foreign set while loading", {"given up"}),
    "delete_leaves_leases": ("delete while loading", {"given up"}),
    "short_set_leaves_leases": ("short set while loading", {"given up"}),
    "release_before_store": ("slow replies", {"loaded twice"}),
    "join_without_generation": ("delete while loading", {"given up"}),
    "join_without_tags": ("tag while loading", {"given up"}),
    "unshielded_wait": ("cancelled", {"cancellation"}),
    "stale_without_limit": ("seldom", {"too stale"}),
    "versions_that_count": ("tag while loading", {"given up"}),
    "missing_version_is_valid": ("tag while loading", {"given up"}),
    "captured_after_loading": ("tag while loading", {"given up"}),
}
"""The scenario that notices, and the promises that it sees broken."""

ACTS = {
    "release_by_generation": "relieved_and_failed",
    "takeover_with_a_new_generation": "slower_than_its_lease",
    "impatience_of_each": "one_flight_for_the_impatient",
    "failure_is_kept": "no_failure_is_kept",
    "removed_by_another": "detached_and_replaced",
    "fallback_after_delete": "nothing_deleted_is_a_fallback",
    "soft_leaves_leases": "softened_while_loading",
    "early_for_each_hit": "early_renewals",
}
"""The act that notices."""

PAIRS = [tuple(CROWDS)[place : place + 2] for place in range(0, len(CROWDS), 2)]


def test_each_mutant_has_its_judge():
    assert CROWDS.keys() | ACTS.keys() == MUTANTS.keys()


@pytest.fixture(scope="module")
def lanes():
    """Servers for two runs at a time."""
    with Grounds() as one, Grounds() as other:
        yield one, other


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_a_broken_rule_is_noticed_in_a_crowd(pair, lanes):
    """In the scenario that the rule is made for, by the promise that it keeps; two at a time, because they mostly wait."""
    with ThreadPoolExecutor(2) as pool:
        noticed = dict(zip(pair, pool.map(notice, pair, lanes), strict=False))

    for mutant, seed in noticed.items():
        assert seed, f"{mutant} does what it likes in {SEEDS} runs of {CROWDS[mutant][0]}"


def notice(mutant, grounds):
    """Return the first seed with which *mutant* is noticed, 0 if none is."""
    scenario, promises = CROWDS[mutant]
    face = TASKS if scenario == "cancelled" else BOTH
    for seed in range(1, SEEDS + 1):
        report = run(SCENARIOS[scenario], seed, grounds, face=face, mutant=mutant)
        if promises & {violation.promise for violation in report.violations}:
            return seed
    return 0


@pytest.mark.parametrize("mutant", ACTS)
def test_a_broken_rule_is_noticed_in_an_act(mutant, valkey):
    """What needs a certain order of events is noticed in it."""
    assert perform(ACTS[mutant], valkey.tcp_url(0)) is None, "it is wrong without the mutant too"
    assert perform(ACTS[mutant], valkey.tcp_url(0), mutant) is not None
