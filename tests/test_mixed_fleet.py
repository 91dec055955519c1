"""django-redis and fleetcache at work on one server, on the same keys and at the same time.

``FLEET_SECONDS=60`` makes the rounds longer; ``FLEET_SEED`` takes the seed that a failure printed.
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
from django.utils.module_loading import import_string
from redis import Redis
from tests.django_settings import configure
from tests.faces import BLOCKING, Face
from tests.fleet.keyspaces import OURS, THEIRS, Difference, Entry, Keyspace, call, text_of
from tests.fleet.softly import MISSING, SHARED, Softspace, whole
from tests.fleet.workers import BACKENDS, FLEET, PATIENCE, Channels, Report, Round, Tally, work

from fleetcache.testing.servers import EmbeddedServer
from fleetcache.twin import complete

pytestmark = pytest.mark.alone

SECONDS = float(os.environ.get("FLEET_SECONDS", "6"))
ROUNDS = {"pickle": 0.5, "zlib": 0.25, "json": 0.25}
"""The share of the time for each serializer and compressor."""

KEYSPACES = 24


def test_mixed_fleet(valkey: EmbeddedServer) -> None:
    """Processes of django-redis and of fleetcache on the same keys find no difference."""
    pytest.importorskip("django_redis")
    configure()
    seed = os.environ.get("FLEET_SEED") or str(secrets.randbelow(10**9))
    rounds = [
        Round(valkey.url(14), f"fleet-{variant}-{seed}", variant, seed, SECONDS * share)
        for variant, share in ROUNDS.items()
    ]
    print(f"\nFLEET_SEED={seed}, {SECONDS:g} s")

    with Fleet(rounds) as fleet:
        for each in rounds:
            caches = {package: each.cache(package) for package in BACKENDS}
            caches[THEIRS].set_many({"c0": 0, "c1": 0, "c2": 0, "locked": 0, "holder": "nobody"})
            keyspaces = [
                Keyspace(f"e{number}", each.variant, Random(f"{seed}/{number}")) for number in range(KEYSPACES)
            ]

            reports, keyspaces = fleet.run(each, keyspaces)

            for package, cache in caches.items():
                check_keyspaces(package, cache, keyspaces)
                check_shared_keys(cache, [tally for report in reports for tally in report.tallies.values()])
            caches[OURS].clear()
            said = ", ".join(f"{report.kind.name} {report.calls} calls {report.turns} turns" for report in reports)
            print(f"{each.variant}, {each.seconds:g} s: {said}")


def test_soft_lives_and_tags_among_workers_of_django_redis(valkey: EmbeddedServer) -> None:
    """Workers of django-redis read what those of fleetcache store with soft lives and tags; so do all, after the way back."""
    pytest.importorskip("django_redis")
    configure()
    seed = os.environ.get("FLEET_SEED") or str(secrets.randbelow(10**9))
    round_ = Round(valkey.url(14), f"softly-{seed}", "pickle", seed, SECONDS, softly=True)
    print(f"\nFLEET_SEED={seed}, {SECONDS:g} s")

    with Fleet([round_]) as fleet:
        spaces = [Softspace(f"s{number}", Random(f"{seed}/{number}")) for number in range(KEYSPACES)]
        reports, spaces = fleet.run(round_, spaces)

    said = ", ".join(f"{report.kind.name} {report.calls} calls {report.turns} turns" for report in reports)
    print(f"softly, {SECONDS:g} s: {said}")
    expected = {key: entry.value for space in spaces for key, entry in space.entries.items()}
    assert len({entry.state for space in spaces for entry in space.entries.values()}) == 3, "the test lacks a case"
    with Redis.from_url(round_.url) as client:
        names = [name.decode() for name in client.scan_iter(f"{round_.prefix}:1:*")]
    keys = {name.removeprefix(f"{round_.prefix}:1:") for name in names if "~tag:" not in name}
    assert keys - {*SHARED} == {*expected}
    for backend in (BACKENDS[THEIRS], "django.core.cache.backends.redis.RedisCache"):
        cache = import_string(backend)(round_.url, {"KEY_PREFIX": round_.prefix})
        for key in keys:
            if key in expected:
                assert text_of(cache.get(key, MISSING)) == text_of(expected[key])
            else:
                assert whole(key, cache.get(key))
    round_.cache(OURS).clear()


def test_a_difference_is_found_and_explained() -> None:
    """A value changed behind the model's back fails with the history of its key, and of no other."""
    configure()
    cache = Round("memory://fleet", "fleet", "pickle", "0", 0).cache(OURS)
    keyspace = Keyspace("e0", "pickle", Random(0), package=OURS)
    for key in "e0:s0", "e0:s1":
        keyspace.entries[key, 1] = Entry("value", 5)
        keyspace.record(call("set", key, 5), cache.set(key, 5))
    cache.set("e0:s1", True)

    with pytest.raises(Difference) as found:
        complete(keyspace.run(Face(cache, BLOCKING), keyspace.comparing("e0:s1", {})))

    assert str(found.value).splitlines() == [
        "e0, after 0 turns: expected 5, found True",
        "fleetcache: set('e0:s1', 5) -> True",
        "fleetcache: get('e0:s1', 'missing') -> True",
    ]


# --- the processes --------------------------------------------------------------------------------


class Fleet:
    """The processes with the workers."""

    def __init__(self, rounds: list[Round]) -> None:
        context = multiprocessing.get_context("spawn")
        self.keyspaces = {package: context.Queue() for package in (THEIRS, OURS)}
        self.reports = context.Queue()
        self.channels = Channels(self.keyspaces, self.reports, context.Barrier(len(FLEET) + 1), context.Event())
        self.processes = [context.Process(target=work, args=(kind, rounds, self.channels)) for kind in FLEET]

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
        for each in (*self.keyspaces.values(), self.reports):
            each.close()
            each.cancel_join_thread()

    def run(self, round_: Round, keyspaces: list[Keyspace]) -> tuple[list[Report], list[Keyspace]]:
        """Run a round; return the report of each process, and the keyspaces as the workers left them."""
        queues = list(self.keyspaces.values())
        for place, keyspace in enumerate(keyspaces):
            queues[place % 2].put(keyspace)
        with suppress(BrokenBarrierError):  # the process that broke it reports the reason
            self.channels.ready.wait(PATIENCE)
        reports = [self.reports.get(timeout=round_.seconds + 2 * PATIENCE) for _ in FLEET]
        failures = [report.failure for report in reports if report.failure]
        if failures:
            pytest.fail("\n\n".join([f"FLEET_SEED={round_.seed} {round_.variant}", *failures]), pytrace=False)
        return reports, drained(queues, len(keyspaces))


def drained(queues: list[Any], count: int) -> list[Any]:
    """Return the *count* things that are in *queues*, or on their way there."""
    found: list[Any] = []
    deadline = time.monotonic() + PATIENCE
    while len(found) < count:
        assert time.monotonic() < deadline, f"{count - len(found)} keyspaces got lost"
        for each in queues:
            try:
                found.append(each.get(timeout=0.01))
            except queue.Empty:
                pass
    return found


# --- the end --------------------------------------------------------------------------------------


def check_keyspaces(package: str, cache: Any, keyspaces: list[Keyspace]) -> None:
    """Compare all keyspaces with their models once more."""
    for keyspace in keyspaces:
        keyspace.package = package
        complete(keyspace.run(Face(cache, BLOCKING), keyspace.check_all()))


def check_shared_keys(cache: Any, tallies: list[Tally]) -> None:
    """Compare the shared keys with what all workers did to them."""

    def of_all(part: Callable[[Tally], Iterable[str]]) -> list[str]:
        return [each for tally in tallies for each in part(tally)]

    counted = sum((tally.counted for tally in tallies), Counter())
    assert {key: cache.get(key) for key in ("c0", "c1", "c2")} == {key: counted[key] for key in ("c0", "c1", "c2")}

    tried = {*of_all(lambda tally: tally.tried)}
    added = {key: {"by": value} for tally in tallies for key, value in tally.added.items()}
    assert len(of_all(lambda tally: tally.added)) == len(tried) == len(added)
    assert cache.get_many(tried) == added

    made = {*of_all(lambda tally: tally.made)}
    for tally in tallies:
        assert cache.get_many(tally.made) == tally.made
    assert len(made) > 1

    assert cache.get("locked") == sum(tally.locked for tally in tallies)

    members, removed = of_all(lambda tally: tally.members_added), of_all(lambda tally: tally.members_removed)
    assert cache.smembers("members") == {*members} - {*removed}

    pushed, popped = of_all(lambda tally: tally.pushed), of_all(lambda tally: tally.popped)
    assert sorted([*popped, *cache.smembers("pool")]) == sorted(pushed)

    scored = sum((tally.scored for tally in tallies), Counter())
    assert dict(cache.zrange("scores", 0, -1, withscores=True)) == {key: float(total) for key, total in scored.items()}
