"""Does giving up a tag cost more, the more entries have it?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any

import redis

from benchmarks.contenders import TIMEOUT, Backend
from benchmarks.contest import QUICK, Pace, Table, micros, not_run, reason, times
from fleetcache.testing.servers import EmbeddedServer

TAG = "everything"
SIZES = (1, 10_000, 1_000_000)
BATCH = 10_000
ROUNDS, FEW = 101, 21
PEER_ROUNDS = 5
VALUE = {"id": 4711}


@dataclass
class Tags:
    """Seconds of each invalidation, by contender and by the number of entries."""

    seconds: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def cost(self, name: str, size: int) -> float | None:
        return median(self.seconds[name, size]) if (name, size) in self.seconds else None

    def steepness(self, name: str) -> float | None:
        """Return the cost with the most entries as a multiple of the cost with one."""
        sizes = [size for contender, size in self.seconds if contender == name]
        most, one = self.cost(name, max(sizes, default=0)), self.cost(name, 1)
        return most / one if most and one else None


class Ours:
    """A cache with as many tagged entries as wanted."""

    def __init__(self, url: str, size: int) -> None:
        self.cache = Backend("fleetcache.django.RedisCache")(url)
        self.client = redis.Redis.from_url(url)
        self.last = f"entry:{size - 1}"
        self.cache.set("entry:0", VALUE, TIMEOUT, tags=[TAG])
        name = self.cache.make_key("entry:0")
        payload = self.client.get(name)
        # All have the same bytes, which is fast to write, and what a loader would have left.
        with self.client.pipeline(transaction=False) as pipeline:
            for start in range(0, size, BATCH):
                for number in range(start, min(size, start + BATCH)):
                    pipeline.set(self.cache.make_key(f"entry:{number}"), payload, ex=TIMEOUT)
                pipeline.execute()
        names = list(self.client.scan_iter(match=f"*{TAG}*", count=100_000))
        self.versions = {each: self.client.get(each) for each in names}

    def restore(self) -> None:
        """Make all entries valid again, and see that they are."""
        for name, version in self.versions.items():
            self.client.set(name, version, ex=TIMEOUT)
        if self.cache.get(self.last) != VALUE:
            raise AssertionError("an entry with the tag's version is not valid")

    def invalidate(self) -> None:
        self.cache.invalidate_tags(TAG)

    def check(self) -> None:
        """Raise if an entry is still served."""
        if self.cache.get(self.last) is not None:
            raise AssertionError("an invalidated entry is served")


class Cashews:
    """cashews keeps a set of the keys of each tag, and deletes them."""

    def __init__(self, url: str, size: int, runner: asyncio.Runner) -> None:
        from cashews import Cache

        self.cache = Cache()
        self.cache.setup(url)
        self.size = size
        self.runner = runner
        self.cache.register_tag(TAG, "entry:{number}")

    def restore(self) -> None:
        async def fill() -> None:
            for number in range(self.size):
                await self.cache.set(f"entry:{number}", VALUE, expire=TIMEOUT, tags=[TAG])

        self.runner.run(fill())

    def invalidate(self) -> None:
        self.runner.run(self.cache.delete_tags(TAG))

    def check(self) -> None:
        if self.runner.run(self.cache.get(f"entry:{self.size - 1}")) is not None:
            raise AssertionError("an invalidated entry is served")


OURS, CASHEWS = "fleetcache.invalidate_tags", "cashews.delete_tags"


def measure(pace: Pace) -> Tags:
    """Fill the servers, then invalidate over each number of entries in turn."""
    found = Tags()
    sizes = SIZES[:2] if pace == QUICK else SIZES
    with EmbeddedServer(port=True) as server, ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        urls = (server.tcp_url(database) for database in range(1, 16))
        rounds = FEW if pace == QUICK else ROUNDS
        _hold(found, OURS, {size: lambda url, size=size: Ours(url, size) for size in sizes}, urls, rounds)
        peers = {size: lambda url, size=size: Cashews(url, size, runner) for size in SIZES[:2]}
        _hold(found, CASHEWS, peers, urls, PEER_ROUNDS)
    return found


def _hold(found: Tags, name: str, made: dict[int, Callable[[str], Any]], urls: Any, rounds: int) -> None:
    try:
        caches = {size: make(next(urls)) for size, make in made.items()}
        for _ in range(rounds):
            for size, cache in caches.items():
                cache.restore()
                started = perf_counter()
                cache.invalidate()
                found.seconds.setdefault((name, size), []).append(perf_counter() - started)
                cache._check_reply()
    except Exception as error:  # any failure is a line in the table
        found.absent[name] = reason(error)
        for key in [key for key in found.seconds if key[0] == name]:
            del found.seconds[key]


def tables(found: Tags) -> list[Table]:
    """Write one table."""
    rows = [
        (name, *(micros(found.cost(name, size)) for size in SIZES), times(found.steepness(name)))
        for name in dict.fromkeys(name for name, _ in found.seconds)
    ]
    columns = ("µs", *(f"{size:,} entr{'y' if size == 1 else 'ies'}" for size in SIZES), "most / one")
    return [Table("Tags: invalidating one over many entries", columns, rows, not_run(found.absent))]
