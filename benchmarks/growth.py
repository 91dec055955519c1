"""How does the cost grow with values, batches, tasks and threads?

fleetcache beside the floor and django-redis.  (Tasks: ``benchmarks.awaiting``.)
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from threading import Barrier
from typing import Any

from benchmarks.contenders import FLOOR, OURS, SMALL, TIMEOUT, BlockingCache, connections, enter
from benchmarks.contest import Contest, Pace, Table, Turn, hold, micros, not_run, once, repeat, show, times
from fleetcache.testing.servers import EmbeddedServer

REFERENCE = "django-redis"
SIZES = {"10 B": 10, "100 B": 100, "1 kB": 1_000, "10 kB": 10_000, "100 kB": 100_000, "1 MB": 1_000_000}
BATCHES = (1, 10, 100, 1000)
THREADS = (1, 2, 4, 8)
BY_THREADS = "get by threads"


@dataclass
class Outcome:
    """Contests by what was done and then by how much, and the connections that threads took."""

    contests: dict[str, dict[str, Contest]] = field(default_factory=dict)
    connections: dict[str, list[int]] = field(default_factory=dict)


def measure(server: EmbeddedServer, pace: Pace) -> Outcome:
    """Hold a contest for each operation and amount, on a server nobody else has used."""
    outcome = Outcome()
    caches: dict[str, BlockingCache] = {}
    absent: dict[str, str] = {}
    with ExitStack() as stack:
        pools = {threads: stack.enter_context(ThreadPoolExecutor(threads)) for threads in THREADS}
        for name in (FLOOR, REFERENCE, OURS):
            before = connections(server.url())
            entered, excuses = enter(server.tcp_url, [name])
            caches |= entered
            absent |= excuses
            if name in entered and name != FLOOR:  # whose one socket threads cannot share
                outcome.connections[name] = []
                for threads, pool in pools.items():
                    crowd(pool, entered[name], threads)(500 * threads)
                    outcome.connections[name].append(connections(server.url()) - before)
        for (operation, amount), turns in _events(caches, pools).items():
            contest = hold(turns, Pace(rounds=pace.rounds // 3 + 2, turn=pace.turn))
            contest.absent |= absent
            outcome.contests.setdefault(operation, {})[amount] = contest
    return outcome


def _events(
    caches: Mapping[str, BlockingCache], pools: Mapping[int, ThreadPoolExecutor]
) -> dict[tuple[str, str], dict[str, Turn]]:
    """Return the turns of every contest, by operation and amount."""
    events: dict[tuple[str, str], dict[str, Turn]] = {}
    for name, cache in caches.items():
        for label, size in SIZES.items():
            store = partial(cache.set, f"size:{size}", "x" * size, timeout=TIMEOUT)
            store()
            events.setdefault(("set by size", label), {})[name] = repeat(store)
            events.setdefault(("get by size", label), {})[name] = repeat(partial(cache.get, f"size:{size}"))
        for batch in BATCHES:
            data = {f"batch:{at}": SMALL for at in range(batch)}
            store = partial(cache.set_many, data, timeout=TIMEOUT)
            store()
            events.setdefault(("set_many by keys", f"{batch}"), {})[name] = repeat(store)
            events.setdefault(("get_many by keys", f"{batch}"), {})[name] = repeat(partial(cache.get_many, list(data)))
        for threads, pool in pools.items() if name != FLOOR else ():
            events.setdefault((BY_THREADS, f"{threads}"), {})[name] = crowd(pool, cache, threads)
    return events


def crowd(pool: ThreadPoolExecutor, cache: Any, threads: int, key: str = "small") -> Turn:
    """Return a turn in which all *threads* of the pool call ``get`` again and again."""

    def one(barrier: Barrier, calls: int) -> None:
        barrier.wait(timeout=30)
        for _ in range(calls):
            cache.get(key)

    def turn(count: int) -> int:
        calls = max(1, round(count / threads))
        barrier = Barrier(threads)
        for job in [pool.submit(one, barrier, calls) for _ in range(threads)]:
            job.result()
        return calls * threads

    return turn


def tables(outcome: Outcome) -> list[Table]:
    """Write one table for each operation, the smallest amount first."""
    written = []
    for operation, contests in sorted(outcome.contests.items()):
        if operation == BY_THREADS:
            continue
        rows = [
            (
                amount,
                times(contest.ratio(OURS, FLOOR)),
                times(contest.ratio(REFERENCE, FLOOR)),
                times(contest.ratio(OURS, REFERENCE)),
                times(contest.ratio(OURS, REFERENCE, "cpu")),
                micros(contest.cost(OURS)),
            )
            for amount, contest in contests.items()
        ]
        columns = (
            "",
            f"{OURS} / floor",
            f"{REFERENCE} / floor",
            f"{OURS} / {REFERENCE}",
            "the same, CPU",
            f"{OURS} µs",
        )
        absent = not_run(*(contest.absent for contest in contests.values()))
        written.append(Table(f"Growth: {operation}", columns, rows, absent))
    return once([*written, _threads(outcome)])


def _threads(outcome: Outcome) -> Table:
    contests = outcome.contests[BY_THREADS]
    rows = []
    for name, used in sorted(outcome.connections.items()):
        costs = [contests[f"{threads}"].cost(name) for threads in THREADS]
        rows.append((f"{name}, thousand get/s", *(times(cost and 1e-3 / cost) for cost in costs)))
        rows.append((f"{name}, connections", *map(str, used)))
    ratios = [times(contests[f"{threads}"].ratio(OURS, REFERENCE)) for threads in THREADS]
    rows.insert(0, (f"time, {OURS} / {REFERENCE}", *ratios))
    columns = ("", *(f"{threads} thread{'s' * (threads > 1)}" for threads in THREADS))
    return Table(f"Growth: {BY_THREADS}", columns, rows, not_run(*(contest.absent for contest in contests.values())))


if __name__ == "__main__":
    show(lambda server, pace: tables(measure(server, pace)), __doc__)
