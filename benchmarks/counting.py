"""What does counting cost?

The same calls with ``OPTIONS["STATS"]``, which counts by group of keys, and without: one thread over TCP, reads that
are served from copies in the process, and `aget` by 100 tasks on one loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.awaiting import crowd
from benchmarks.contenders import SMALL, TIMEOUT
from benchmarks.contest import Contest, Pace, Table, hold, micros, repeat, show, times
from fleetcache import Cache
from fleetcache.testing.servers import EmbeddedServer

BOTH = COUNTED, NOT_COUNTED = "counted", "not counted"
MANY = {f"many:{at}": SMALL | {"id": at} for at in range(100)}
NAMES = list(MANY)
MIXED = {f"group{at % 10}:{at}": SMALL | {"id": at} for at in range(100)}
MIXED_NAMES = list(MIXED)
AGET = "aget, 100 tasks"
PATIENCE = 5.0

REMOTE: Mapping[str, Callable[[Any], Callable[[], Any]]] = {
    "get": lambda cache: lambda: cache.get("user:1"),
    "get of a missing key": lambda cache: lambda: cache.get("user:2"),
    "set": lambda cache: lambda: cache.set("user:3", SMALL, timeout=TIMEOUT),
    "get_or_set": lambda cache: lambda: cache.get_or_set("user:1", dict),
    "get_many(100)": lambda cache: lambda: cache.get_many(NAMES),
    "get_many(100), 10 groups": lambda cache: lambda: cache.get_many(MIXED_NAMES),
    "set_many(100)": lambda cache: lambda: cache.set_many(MANY, timeout=TIMEOUT),
}
NEAR: Mapping[str, Callable[[Any], Callable[[], Any]]] = {
    "near get, str": lambda cache: lambda: cache.get("text:1"),
    "near get, dict": lambda cache: lambda: cache.get("user:1"),
    "near get_or_set, str": lambda cache: lambda: cache.get_or_set("text:1", str),
    "near get_many(100)": lambda cache: lambda: cache.get_many(NAMES),
}


def measure(server: EmbeddedServer, pace: Pace) -> dict[str, Contest]:
    """Hold one contest for each operation."""
    pace = replace(pace, rounds=3 * pace.rounds)  # the differences are small
    contests = {}
    with ExitStack() as stack:
        far = {name: made(server, name == COUNTED) for name in BOTH}
        for operation, prepare in REMOTE.items():
            contests[operation] = hold({name: repeat(prepare(cache)) for name, cache in far.items()}, pace)
        near = {name: made(server, name == COUNTED, NEAR=True) for name in BOTH}
        for cache in near.values():
            fill(cache)
            stack.callback(cache.near.close)
        for operation, prepare in NEAR.items():
            contests[operation] = hold({name: repeat(prepare(cache)) for name, cache in near.items()}, pace)
        turns = {}
        for name, cache in far.items():
            runner = stack.enter_context(asyncio.Runner())
            turns[name] = crowd(runner, partial(cache.aget, "user:1"), 100)
            turns[name](100)
        contests[AGET] = hold(turns, Pace(rounds=pace.rounds // 2 + 1, turn=pace.turn * 3))
    return contests


def made(server: EmbeddedServer, counted: bool, **options: Any) -> Any:
    """Return a cache with entries, which counts or does not."""
    prefix = f"{'counted' if counted else 'plain'}{'near' if options else ''}"
    cache = Cache(server.tcp_url(1), {"KEY_PREFIX": prefix, "OPTIONS": {"STATS": counted, **options}})
    cache.set_many({"user:1": SMALL, "text:1": "abcdefghijklmnopqrst", **MANY, **MIXED}, timeout=TIMEOUT)
    assert cache.get("user:1") == SMALL
    return cache


def fill(cache: Any) -> None:
    """Wait until all entries are served from copies."""
    until = time.monotonic() + PATIENCE
    names = [*NAMES, "user:1", "text:1"]
    while time.monotonic() < until:
        before = cache.info()["near"]["hits"]
        cache.get_many(names)
        if cache.info()["near"]["hits"] == before + len(names):
            return
        time.sleep(0.01)
    raise RuntimeError(f"the near cache is {cache.near.state}: {cache.near.why}")


def tables(contests: Mapping[str, Contest]) -> list[Table]:
    """Write what each operation costs with and without counting."""
    rows = []
    for operation, contest in contests.items():
        costs = [contest.cost(name) for name in (NOT_COUNTED, COUNTED)]
        wall, cpu = contest.ratio(COUNTED, NOT_COUNTED), contest.ratio(COUNTED, NOT_COUNTED, "cpu")
        rows.append((operation, percent(wall), percent(cpu), added(contest), *map(micros, costs)))
    columns = ("", "wall", "CPU", "CPU, added ns", "not counted, µs", "counted, µs")
    return [Table("Counting: what it adds", columns, rows)]


def added(contest: Contest) -> str:
    """Write the CPU that counting adds to one operation, in nanoseconds."""
    costs = [contest.cost(name, "cpu") for name in (NOT_COUNTED, COUNTED)]
    if costs[0] is None or costs[1] is None:
        return "-"
    return f"{(costs[1] - costs[0]) * 1e9:.0f}"


def percent(ratio: float | None) -> str:
    """Write how much more than 1 *ratio* is."""
    return times(None) if ratio is None else f"{ratio - 1:+.1%}"


if __name__ == "__main__":
    show(lambda server, pace: tables(measure(server, pace)), __doc__)
