"""What does a blocking call cost?

One thread, one call at a time, over TCP (and ``get`` over a unix socket): the time a caller waits,
and the CPU this process spends, which is what a busy site pays for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.contenders import FLOOR, SMALL, TIMEOUT, BlockingCache, enter
from benchmarks.contest import Contest, Pace, Table, hold, micros, not_run, once, repeat, show, times
from fleetcache.testing.servers import EmbeddedServer

MANY = {f"many:{at}": SMALL | {"id": at} for at in range(100)}
NAMES = list(MANY)

OPERATIONS: Mapping[str, Callable[[BlockingCache], Callable[[], Any]]] = {
    "get": lambda cache: lambda: cache.get("small"),
    "set": lambda cache: lambda: cache.set("small", SMALL, timeout=TIMEOUT),
    "get_many(100)": lambda cache: lambda: cache.get_many(NAMES),
    "set_many(100)": lambda cache: lambda: cache.set_many(MANY, timeout=TIMEOUT),
}
UNIX = "get, unix socket"


def measure(server: EmbeddedServer, pace: Pace) -> dict[str, Contest]:
    """Hold one contest for each operation."""
    contests = {}
    caches, absent = enter(server.tcp_url)
    for operation, prepare in OPERATIONS.items():
        contests[operation] = hold({name: repeat(prepare(cache)) for name, cache in caches.items()}, pace)
        contests[operation].absent |= absent
    caches, absent = enter(server.url)
    contests[UNIX] = hold({name: repeat(OPERATIONS["get"](cache)) for name, cache in caches.items()}, pace)
    contests[UNIX].absent |= absent
    return contests


def tables(contests: Mapping[str, Contest]) -> list[Table]:
    """Write one table for each operation, the fastest contender first."""
    return once(table(operation, contest) for operation, contest in contests.items())


def table(operation: str, contest: Contest) -> Table:
    rows = [
        (
            name,
            times(contest.ratio(name, FLOOR)),
            times(contest.ratio(name, FLOOR, "cpu")),
            times(contest.ratio(name, "django-redis")),
            times(contest.ratio(name, "django-redis", "cpu")),
            micros(contest.cost(name)),
            micros(contest.cost(name, "cpu")),
        )
        for name in sorted(contest.costs, key=lambda name: contest.ratio(name, FLOOR) or 0)
    ]
    columns = ("", "wall / floor", "CPU / floor", "wall / django-redis", "CPU / django-redis", "wall µs", "CPU µs")
    return Table(f"Blocking: {operation}", columns, rows, not_run(contest.absent))


if __name__ == "__main__":
    show(lambda server, pace: tables(measure(server, pace)), __doc__)
