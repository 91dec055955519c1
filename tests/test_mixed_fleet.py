"""django-redis and fleetcache at work on one server, on the same keys and at the same time.

``FLEET_SECONDS=60`` lets the fleet work longer; ``FLEET_SEED`` repeats what a failure printed.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from random import Random
from threading import BrokenBarrierError
from typing import Any, Self

import pytest
from tests.django_settings import configure
from tests.fleet.estates import OURS, THEIRS, Difference, Entry, Estate, call
from tests.fleet.workers import BACKENDS, FLEET, PATIENCE, Driver, Ledger, Mission, Report, Roads, work

from fleetcache.servers.embedded import EmbeddedServer
from fleetcache.twin import complete

pytestmark = pytest.mark.alone

SECONDS = float(os.environ.get("FLEET_SECONDS", "6"))
ROUNDS = {"pickle": 0.5, "zlib": 0.25, "json": 0.25}
"""Which part of the time the fleet works with each serializer and compressor."""

ESTATES = 24


def test_mixed_fleet(valkey: EmbeddedServer) -> None:
    """Processes of django-redis and of fleetcache on the same keys find no difference."""
    pytest.importorskip("django_redis")
    configure()
    seed = os.environ.get("FLEET_SEED") or str(secrets.randbelow(10**9))
    missions = [
        Mission(valkey.url(14), f"fleet-{variant}-{seed}", variant, seed, SECONDS * share)
        for variant, share in ROUNDS.items()
    ]
    print(f"\nFLEET_SEED={seed}, {SECONDS:g} s")

    with Fleet(missions) as fleet:
        for mission in missions:
            caches = {package: mission.cache(package) for package in BACKENDS}
            caches[THEIRS].set_many({"c0": 0, "c1": 0, "c2": 0, "guarded": 0, "inside": "nobody"})
            estates = [Estate(f"e{number}", mission.variant, Random(f"{seed}/{number}")) for number in range(ESTATES)]

            reports, estates = fleet.dispatch(mission, estates)

            for package, cache in caches.items():
                survey(package, cache, estates)
                reckon(cache, [ledger for report in reports for ledger in report.ledgers.values()])
            caches[OURS].clear()
            told = ", ".join(f"{report.post.name} {report.calls} calls {report.visits} visits" for report in reports)
            print(f"{mission.variant}, {mission.seconds:g} s: {told}")


def test_a_difference_is_found_and_told() -> None:
    """A value changed behind the model's back fails with the story of its key, and of no other."""
    configure()
    cache = Mission("memory://fleet", "fleet", "pickle", "0", 0).cache(OURS)
    driver, estate = Driver(cache, awaiting=False), Estate("e0", "pickle", Random(0), visitor=OURS)
    for key in "e0:s0", "e0:s1":
        estate.entries[key, 1] = Entry("value", 5)
        estate.tell(call("set", key, 5), cache.set(key, 5))
    cache.set("e0:s1", True)

    with pytest.raises(Difference) as found:
        complete(driver.run(estate, estate.comparing("e0:s1", {})))

    assert str(found.value).splitlines() == [
        "e0, after 0 visits: expected 5, found True",
        "fleetcache: set('e0:s1', 5) -> True",
        "fleetcache: get('e0:s1', 'missing') -> True",
    ]


# --- the processes --------------------------------------------------------------------------------


class Fleet:
    """The worker processes."""

    def __init__(self, missions: list[Mission]) -> None:
        context = multiprocessing.get_context("spawn")
        self.queues = {name: context.Queue() for name in (THEIRS, OURS, "reports")}
        self.inboxes = [self.queues[THEIRS], self.queues[OURS]]
        self.roads = Roads(self.queues, self.queues["reports"], context.Barrier(len(FLEET) + 1), context.Event())
        self.processes = [context.Process(target=work, args=(post, missions, self.roads)) for post in FLEET]

    def __enter__(self) -> Self:
        for process in self.processes:
            process.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for process in self.processes:
            process.join(PATIENCE if kind is None else 0)
            process.kill()
            process.join()
            process.close()
        for each in self.queues.values():
            each.close()
            each.cancel_join_thread()

    def dispatch(self, mission: Mission, estates: list[Estate]) -> tuple[list[Report], list[Estate]]:
        """Let the fleet work; return what each process reports, and the estates as it left them."""
        for place, estate in enumerate(estates):
            self.inboxes[place % 2].put(estate)
        with suppress(BrokenBarrierError):  # whoever broke it reports
            self.roads.ready.wait(PATIENCE)
        reports = [self.roads.reports.get(timeout=mission.seconds + 2 * PATIENCE) for _ in FLEET]
        failures = [report.failure for report in reports if report.failure]
        if failures:
            pytest.fail("\n\n".join([f"FLEET_SEED={mission.seed} {mission.variant}", *failures]), pytrace=False)
        return reports, drained(self.inboxes, len(estates))


def drained(inboxes: list[Any], count: int) -> list[Any]:
    """Return the *count* things that are in *inboxes*, or on their way there."""
    found: list[Any] = []
    deadline = time.monotonic() + PATIENCE
    while len(found) < count:
        assert time.monotonic() < deadline, f"{count - len(found)} estates got lost"
        for inbox in inboxes:
            try:
                found.append(inbox.get(timeout=0.01))
            except queue.Empty:
                pass
    return found


# --- the end --------------------------------------------------------------------------------------


def survey(package: str, cache: Any, estates: list[Estate]) -> None:
    """Compare all estates with their models once more."""
    driver = Driver(cache, awaiting=False)
    for estate in estates:
        estate.visitor = package
        complete(driver.run(estate, estate.survey()))


def reckon(cache: Any, ledgers: list[Ledger]) -> None:
    """Compare what is in the commons with what all did to it."""

    def of_all(part: Callable[[Ledger], Iterable[str]]) -> list[str]:
        return [each for ledger in ledgers for each in part(ledger)]

    counted = sum((ledger.counted for ledger in ledgers), Counter())
    assert {key: cache.get(key) for key in ("c0", "c1", "c2")} == {key: counted[key] for key in ("c0", "c1", "c2")}

    contested = {*of_all(lambda ledger: ledger.contested)}
    winners = {key: {"by": me} for ledger in ledgers for key, me in ledger.won.items()}
    assert len(of_all(lambda ledger: ledger.won)) == len(contested) == len(winners)
    assert cache.get_many(contested) == winners

    made = {*of_all(lambda ledger: ledger.made)}
    for ledger in ledgers:
        assert cache.get_many(ledger.made) == ledger.made
    assert len(made) > 1

    assert cache.get("guarded") == sum(ledger.guarded for ledger in ledgers)

    added, removed = of_all(lambda ledger: ledger.added), of_all(lambda ledger: ledger.removed)
    assert cache.smembers("members") == {*added} - {*removed}

    pooled, drawn = of_all(lambda ledger: ledger.pooled), of_all(lambda ledger: ledger.drawn)
    assert sorted([*drawn, *cache.smembers("pool")]) == sorted(pooled)

    scored = sum((ledger.scored for ledger in ledgers), Counter())
    assert dict(cache.zrange("scores", 0, -1, withscores=True)) == {key: float(total) for key, total in scored.items()}
