"""What does a hit cost?  Beside Django's ``LocMemCache``, which is no copy of anything, and the near caches of the peers.

A contender takes part in a contest only if the server sees nothing of its calls.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import redis

from benchmarks import growth
from benchmarks.contenders import FLOOR
from benchmarks.contest import Contest, Pace, Table, Turn, hold, micros, not_run, reason, times
from benchmarks.near.caches import CACHES, LOCMEM, MANY, NearCache, check, close_at_end
from fleetcache.testing.servers import EmbeddedServer

BLOCKING_LOCMEM = f"{LOCMEM}, blocking"
AGET = "aget, str"
THREADS = (1, 4)

HITS: Mapping[str, tuple[str, Any]] = {
    "get, str": ("get", "str"),
    "get, int": ("get", "int"),
    "get, small dict": ("get", "small"),
    "get_many(100), small dicts": ("get_many", list(MANY)),
    "has_key": ("has_key", "str"),
}
"""What is done -> the method and its argument."""


@dataclass
class Hits:
    """Contests: by operation, of one task, and of threads."""

    contests: dict[str, Contest] = field(default_factory=dict)
    awaiting: Contest = field(default_factory=Contest)
    threads: Contest = field(default_factory=Contest)
    absent: dict[str, str] = field(default_factory=dict)


def measure(pace: Pace) -> Hits:
    """Hold the contests."""
    found = Hits()
    with ExitStack() as stack:
        # Tracking does not know databases, so that each contender gets a server of its own.
        servers = {name: stack.enter_context(EmbeddedServer(port=True)) for name in CACHES}
        caches: dict[str, NearCache] = {}
        for name, make in CACHES.items():
            try:
                caches[name] = make(servers[name].tcp_url())
                check(caches[name])
                close_at_end(caches[name], stack)
            except Exception as error:  # any failure of a peer is a line in the table
                caches.pop(name, None)
                found.absent[name] = reason(error)
        for operation, (method, argument) in HITS.items():
            turns, absent = {}, dict(found.absent)
            for name, cache in caches.items():
                turn = calling(getattr(cache, method), argument)
                if _remembers(servers[name], turn):
                    turns[name] = turn
                else:
                    absent[name] = f"it asks the server ({operation})"
            found.contests[operation] = hold(turns, pace)
            found.contests[operation].absent |= absent
        near = {name: cache for name, cache in caches.items() if name in found.contests["get, str"].costs}
        found.threads = _threads(near, pace, stack)
        found.awaiting = _awaiting(caches, servers, pace, stack)
    return found


def calling(method: Callable[[Any], Any], argument: Any) -> Turn:
    """Return a turn of nothing but calls; a lambda more would be a fifth of a hit."""

    def turn(count: int) -> int:
        for _ in range(count):
            method(argument)
        return count

    return turn


def acalling(runner: asyncio.Runner, method: Callable[[Any], Awaitable[Any]], argument: Any) -> Turn:
    """Return a turn in which one task awaits *method* again and again."""

    async def calls(count: int) -> None:
        for _ in range(count):
            await method(argument)

    def turn(count: int) -> int:
        runner.run(calls(count))
        return count

    return turn


def _remembers(server: EmbeddedServer, turn: Turn, patience: float = 3) -> bool:
    """Whether the server comes to see nothing of the calls in *turn*."""
    with redis.Redis.from_url(server.url()) as client:
        end = time.monotonic() + patience
        while time.monotonic() < end:
            before = client.info("stats")["total_commands_processed"]
            turn(200)
            # Signs of life, such as PINGs, are no calls.
            if client.info("stats")["total_commands_processed"] - before < 20:
                return True
    return False


def _threads(caches: Mapping[str, NearCache], pace: Pace, stack: ExitStack) -> Contest:
    """Let threads call ``get`` of a str: the rate of all of them together."""
    pools = {threads: stack.enter_context(ThreadPoolExecutor(threads)) for threads in THREADS}
    turns = {
        f"{name}, {threads}": growth.crowd(pool, cache, threads, "str")
        for name, cache in caches.items()
        for threads, pool in pools.items()
    }
    return hold(turns, Pace(pace.rounds, pace.turn * 3))


def _awaiting(
    caches: Mapping[str, NearCache], servers: Mapping[str, EmbeddedServer], pace: Pace, stack: ExitStack
) -> Contest:
    """Let one task call ``aget`` of a str; LocMemCache's blocking ``get`` is there to compare with."""
    turns, absent = {}, {}
    for name, cache in caches.items():
        if hasattr(cache, "aget"):
            runner = stack.enter_context(asyncio.Runner())
            turn = acalling(runner, cache.aget, "str")
            if _remembers(servers[name], turn):
                turns[name] = turn
            else:
                absent[name] = f"it asks the server ({AGET})"
        else:
            absent[name] = f"it has no near cache in async code ({AGET})"
    absent.pop(FLOOR, None)
    if LOCMEM in caches:
        turns[BLOCKING_LOCMEM] = calling(caches[LOCMEM].get, "str")
    contest = hold(turns, pace)
    contest.absent |= absent
    return contest


def kept(contest: Contest, name: str) -> float | None:
    """Return the rate of the most threads divided by the rate of one."""
    return contest.ratio(f"{name}, {THREADS[0]}", f"{name}, {THREADS[-1]}")


def tables(found: Hits) -> list[Table]:
    """Write a table for each contest."""
    written = [_table(operation, contest, LOCMEM) for operation, contest in found.contests.items()]
    return [*written, _table(AGET, found.awaiting, BLOCKING_LOCMEM), _by_threads(found.threads)]


def _table(operation: str, contest: Contest, reference: str) -> Table:
    names = sorted(contest.costs, key=lambda name: contest.ratio(name, reference) or 0)
    rows = [
        (name, times(contest.ratio(name, reference)), micros(contest.cost(name)), micros(contest.cost(name, "cpu")))
        for name in names
    ]
    return Table(f"Near hit: {operation}", ("", f"/ {reference}", "µs", "CPU µs"), rows, not_run(contest.absent))


def _by_threads(contest: Contest) -> Table:
    rows = []
    for name in CACHES:
        costs = [contest.cost(f"{name}, {threads}") for threads in THREADS]
        if None not in costs:
            rows.append((name, *(times(cost and 1e-3 / cost) for cost in costs), times(kept(contest, name))))
    columns = ("", *(f"{threads} thread{'s' * (threads > 1)}" for threads in THREADS), "ratio")
    return Table("Near hit: thousand get/s of all threads, str", columns, rows, not_run(contest.absent))
