"""Old and new workers on one server: the calls of each case fall to django-redis and fleetcache in turn.

What comes of them has to be what comes of them with django-redis alone.
"""

from __future__ import annotations

import pytest

from .sides import Case, Setup, agreeing
from .test_cases import CASES, RUNS
from .test_codecs import COMBINATIONS, PROTOCOLS, VALUED

pytestmark = [pytest.mark.also(near=True), pytest.mark.newest]

MEMBERS_IN_GZIP = {
    # The entry "gzip" of MENDED: their members are other bytes at any other time, and so than ours.
    "adding_scores",
    "asking_for_scores",
    "combining_sets",
    "members_of_every_kind",
    "moving_members",
    "scored_members_of_every_kind",
    "sets",
    "storing_combined_sets",
}
NAMING = {
    # A name that one package made is an ordinary string to the other.
    "deleting_by_pattern_under_another_prefix",
    "deleting_under_another_prefix",
    "moving_by_name",
    "names",
    "names_instead_of_keys",
    "patterns",
}
TURNS = [run for run in RUNS if run.values[0] in {"default", "herd", "shard"} and run.values[1].name not in NAMING]
CODED = [
    pytest.param(name, case, id=f"{name}-{case.name}")
    for name in (*COMBINATIONS, *PROTOCOLS)
    for case in VALUED
    if not (name.endswith("/gzip") and case.name in MEMBERS_IN_GZIP)
]


@pytest.mark.parametrize("first", ["theirs", "ours"])
@pytest.mark.parametrize(("name", "case"), TURNS)
def test_taking_turns(name: str, case: Case, first: str, setups, expected) -> None:
    """Each reads what the other wrote, in every method of every client."""
    take_turns(setups[name], case, first, expected)


@pytest.mark.parametrize(("name", "case"), CODED)
def test_taking_turns_with_every_codec(name: str, case: Case, setups, expected) -> None:
    """Each reads what the other wrote, in every format."""
    take_turns(setups[name], case, "ours" if len(case.name) % 2 else "theirs", expected)


def take_turns(setup: Setup, case: Case, first: str, expected) -> None:
    theirs = expected.of(setup, case)
    backends = [setup.theirs(), setup.ours()]

    mixed = setup.run(case.script, *(backends if first == "theirs" else reversed(backends)))

    agreeing(theirs, mixed, mixed=True)


def test_every_case_is_mixed() -> None:
    """No case of the default client is left out without a reason."""
    assert {run.values[1].name for run in TURNS} | NAMING == {case.name for case in CASES}
