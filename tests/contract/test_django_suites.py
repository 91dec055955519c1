"""Django's own tests pass on fleetcache as they do on Django's own Redis backend."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from threading import Condition

import pytest
from tests.elsewhere import ON
from tests.nearby import EVERYWHERE

from fleetcache.testing import cluster

from .run import Outcome
from .sdist import django_tests
from .suites import SUITES

pytestmark = [pytest.mark.also(near=True), pytest.mark.also(on="cluster"), pytest.mark.also(on="sentinel")]

ROOT = Path(__file__).parents[2]

# They sleep more than they work, but what sleeps for a second must not come late by another.
AT_ONCE = 4

Outcomes = dict[str, "Future[Outcome]"]
Stores = Callable[[int], AbstractContextManager[list[str]]]


def run_apart(name: str, locations: list[str], folder: Path) -> Outcome:
    """Run a suite in a process of its own."""
    report = folder / f"{name}.json"
    command = [sys.executable, "-m", "tests.contract.run", name, *locations, "--json", str(report)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if not report.exists():
        pytest.fail(f"{' '.join(command)} ended early:\n{done.stdout}{done.stderr}")
    return Outcome(**json.loads(report.read_text()))


class Pool:
    """Stores that suites use in turn, each of them by one suite at a time."""

    def __init__(self, locations: Iterable[str]) -> None:
        self.idle = list(locations)
        self.given_back = Condition()

    @contextmanager
    def some(self, count: int) -> Iterator[list[str]]:
        """Wait until there are enough stores."""
        with self.given_back:
            self.given_back.wait_for(lambda: len(self.idle) >= count)
            taken, self.idle = self.idle[:count], self.idle[count:]
        try:
            yield taken
        finally:
            with self.given_back:
                self.idle += taken
                self.given_back.notify_all()


@pytest.fixture(scope="module")
def stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    """What lends the locations of stores: databases of a server, or clusters, which have one database each."""
    with ExitStack() as stack:
        if ON == "cluster":
            locations = [stack.enter_context(cluster(replicas=0)).url() for _ in range(AT_ONCE)]
        else:
            url = request.getfixturevalue("watched_servers" if ON else "valkey").url
            locations = [url(number) for number in range(sum(suite.stores for suite in SUITES.values()))]
        yield Pool(locations).some


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, stores: Stores, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outcomes]:
    """The outcomes of the suites that were selected, which run side by side."""
    selected = {
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == request.path
    }
    folder = tmp_path_factory.mktemp("outcomes")
    django_tests()

    def run_on_some(name: str) -> Outcome:
        with stores(SUITES[name].stores) as locations:
            return run_apart(name, locations, folder)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(run_on_some, name) for name in SUITES if name in selected}


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
