"""What do calls cost that a near cache cannot answer?  The same calls with NEAR and without."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import redis

from benchmarks.awaiting import crowd
from benchmarks.contenders import OURS, SMALL, TIMEOUT, Backend
from benchmarks.contest import Contest, Pace, Table, Turn, hold, micros, not_run, reason, repeat, times
from benchmarks.near.caches import DJANGO_OURS, close_at_end, wait_until_live
from fleetcache.testing.servers import EmbeddedServer

NEAR_OFF = f"{OURS}, near off"
ON = "with NEAR"
LIMITS = {
    "cold get": 1.15,
    "cold get_many(100)": 1.5,
    "cold aget, 1 task": 1.15,
    "cold aget, 100 tasks": 1.3,
    "set": 1.2,
}
"""What each operation may cost with NEAR, as a multiple of its cost without."""
COLD_KEYS = 60_000
COLD_BYTES = "1MB"
"""Room for a few thousand entries: a caller that asks for `COLD_KEYS` in turn hardly ever finds one again."""
WARM = 0.01
"""Hits for each miss above which calls are not cold."""


@dataclass
class Misses:
    """Contests by operation."""

    contests: dict[str, Contest] = field(default_factory=dict)
    trips: dict[str, float] = field(default_factory=dict)
    """Operation -> times that the server read from a socket, for each."""
    absent: dict[str, str] = field(default_factory=dict)


def measure(server: EmbeddedServer, pace: Pace) -> Misses:
    """Hold the contests; one that fails ends them, and is told in the table."""
    found = Misses()
    try:
        _hold_all(found, server, pace)
    except Exception as error:
        found.absent[OURS] = reason(error)
    return found


def _hold_all(found: Misses, server: EmbeddedServer, pace: Pace) -> None:
    """Hold the contests: on against off."""
    with EmbeddedServer(port=True) as plain, ExitStack() as stack:
        caches = {
            OURS: (cold(server.tcp_url(), stack), server),
            NEAR_OFF: (cold(plain.tcp_url(), stack, near=False), plain),
        }
        on = caches[OURS][0]
        for operation, turns in dearer(caches, stack).items():
            before = on.near.stats()
            contest = hold(turns, Pace(pace.rounds, pace.turn * 2))
            hits, misses = (on.near.stats()[what] - before[what] for what in ("hits", "misses"))
            if operation.startswith("cold") and hits > WARM * misses:
                found.absent[operation] = f"there were {hits} hits and {misses} misses, where there must be misses only"
                continue
            found.contests[operation] = contest
            for name, (_, where) in caches.items():
                found.trips[f"{operation}, {name}"] = trips(where, turns[name])


def cold(url: str, stack: ExitStack, *, near: bool = True) -> Any:
    """Return a cache of more entries than it can keep near."""
    cache = Backend(DJANGO_OURS.path, options={"NEAR": {"MAX_BYTES": COLD_BYTES}} if near else {})(url)
    for start in range(0, COLD_KEYS, 1000):
        cache.set_many({f"cold:{at}": SMALL for at in range(start, start + 1000)}, timeout=TIMEOUT)
    if near:
        close_at_end(cache, stack)
        wait_until_live(cache)
    return cache


def dearer(caches: Mapping[str, tuple[Any, EmbeddedServer]], stack: ExitStack) -> dict[str, dict[str, Turn]]:
    """Return the turns of calls that cannot be answered from memory, by operation and contender."""
    turns: dict[str, dict[str, Turn]] = {}
    names = [f"cold:{at}" for at in range(COLD_KEYS)]
    for name, (cache, _) in caches.items():
        runner = stack.enter_context(asyncio.Runner())
        one = itertools.cycle(names)
        # All take the next names of one circle: names that another operation has just read would be hits.
        batches = iter(lambda: list(itertools.islice(one, 100)), None)
        for operation, turn in {
            "cold get": advancing(cache.get, one),
            "cold get_many(100)": advancing(cache.get_many, batches),
            "cold aget, 1 task": aadvancing(runner, cache.aget, one, 1),
            "cold aget, 100 tasks": aadvancing(runner, cache.aget, one, 100),
            "set": repeat(partial(cache.set, "written", SMALL, timeout=TIMEOUT)),
        }.items():
            turns.setdefault(operation, {})[name] = turn
    return turns


def advancing(method: Callable[[Any], Any], arguments: Iterable[Any]) -> Turn:
    """Return a turn in which each call has the next argument."""
    following = iter(arguments)

    def turn(count: int) -> int:
        for argument in itertools.islice(following, count):
            method(argument)
        return count

    return turn


def aadvancing(
    runner: asyncio.Runner, method: Callable[[Any], Awaitable[Any]], arguments: Iterable[Any], tasks: int
) -> Turn:
    """Return a turn in which *tasks* tasks share the arguments."""
    following = iter(arguments)
    return crowd(runner, lambda: method(next(following)), tasks)


def trips(server: EmbeddedServer, turn: Turn) -> float:
    """Return how often the server reads from a socket for each operation; a round trip is one."""
    with redis.Redis.from_url(server.url()) as client:
        before = client.info("stats")["total_reads_processed"]
        done = turn(1000)
        return (client.info("stats")["total_reads_processed"] - before - 1) / done


def tables(found: Misses) -> list[Table]:
    """Write one table of all calls."""
    rows = [
        (
            operation,
            times(contest.ratio(OURS, NEAR_OFF)),
            times(contest.ratio(OURS, NEAR_OFF, "cpu")),
            micros(contest.cost(OURS)),
            micros(contest.cost(NEAR_OFF)),
            times(found.trips.get(f"{operation}, {OURS}")),
            times(found.trips.get(f"{operation}, {NEAR_OFF}")),
        )
        for operation, contest in found.contests.items()
    ]
    columns = ("", "near on / off", "the same, CPU", "µs on", "µs off", "reads on", "reads off")
    note = (
        "The store is full, so that each miss also evicts. Reads: how often the server read from a socket for each; "
        "a round trip is one, tasks share them."
    )
    return [Table("Near: calls that it cannot answer", columns, rows, [note, *not_run(found.absent)])]
