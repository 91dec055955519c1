"""Django's own tests pass on fleetcache as they do on Django's own Redis backend."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
from tests.nearby import EVERYWHERE

from .run import Outcome
from .sdist import django_tests
from .suites import SUITES

ROOT = Path(__file__).parents[2]

# They sleep more than they work, but what sleeps for a second must not come late by another.
AT_ONCE = 4

Outcomes = dict[str, "Future[Outcome]"]


def run_apart(name: str, locations: list[str], folder: Path) -> Outcome:
    """Run a suite in a process of its own."""
    report = folder / f"{name}.json"
    command = [sys.executable, "-m", "tests.contract.run", name, *locations, "--json", str(report)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if not report.exists():
        pytest.fail(f"{' '.join(command)} ended early:\n{done.stdout}{done.stderr}")
    return Outcome(**json.loads(report.read_text()))


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, valkey: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outcomes]:
    """The outcomes of the suites that were selected, which run side by side."""
    selected = {
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == request.path
    }
    folder = tmp_path_factory.mktemp("outcomes")
    databases = count()
    django_tests()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        started = {}
        for name in (name for name in SUITES if name in selected):
            locations = [valkey.url(number) for number in islice(databases, SUITES[name].stores)]
            started[name] = pool.submit(run_apart, name, locations, folder)
        yield started


@pytest.mark.parametrize("name", SUITES)
def test_django_suite(name: str, outcomes: Outcomes) -> None:
    """Nothing fails, nothing is skipped but what Django's own backend skips, nothing is lost."""
    suite = SUITES[name]

    outcome = outcomes[name].result()

    print(outcome)
    if outcome.failed:
        pytest.fail(outcome.details(), pytrace=False)
    assert outcome.skipped.keys() == suite.skipped.keys()
    assert outcome.run >= suite.floor
    assert outcome.hits >= suite.hits * EVERYWHERE
    if suite.awaited:
        assert (outcome.loops == 1) is suite.under_loop
