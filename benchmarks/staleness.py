"""How long after a foreign write does a near cache still answer with what was there before?

Another process sets one key to 1, 2, 3 … with a plain client, and notes when each write was acknowledged.  A
process with a near cache reads that key all the while.  The staleness of a write is the time from its
acknowledgement to the *start* of the last read that returned an older version; 0 if no such read began after it.

What nobody reads is not stale: hence readers without a pause, and readers at random moments.  For a process in
which nobody reads, the lag is measured: the time until the announcement of the write has been applied there.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import redis

from benchmarks.contenders import OURS
from benchmarks.contest import QUICK, Pace, Table, not_run, reason, show, times
from benchmarks.foreign import alone, another, versions
from benchmarks.near.caches import CACHES, PREFIX, RedisPy, announced, wait_until_live
from fleetcache.testing.servers import EmbeddedServer

KEY = "version"
NAME = PREFIX + KEY
WRITES, FEW = 10_000, 1_000
PAUSE = 0.0005, 0.0025
"""Seconds between two writes: time enough for a copy to be made and read."""
NAP = 0.0, 0.001
"""Seconds between two reads at random moments."""
TASKS = 20


class Log:
    """What was read, and when."""

    def __init__(self) -> None:
        self.last: dict[int, int] = {}
        """Version -> when the last read began that returned it, by the monotonic clock in nanoseconds."""
        self.latest = 0
        self.reads = 0
        self.backwards = 0
        """Reads that returned an older version than a read that had ended before they began."""

    def note(self, began: int, known: int, version: int) -> None:
        """Take in a read of *version*, which began when *known* was the latest that had been read."""
        self.reads += 1
        self.backwards += version < known
        self.latest = max(self.latest, version)
        self.last[version] = max(began, self.last.get(version, 0))


@dataclass
class Seen:
    """Seconds of staleness for each write, and what else was seen."""

    staleness: list[float]
    reads: int = 0
    backwards: int = 0
    hits: int | None = None

    def percentile(self, share: float) -> float:
        ordered = sorted(self.staleness)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass
class Outcome:
    """What was seen, by who read how."""

    seen: dict[str, Seen] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


class RedisPyVersions(RedisPy):
    """Reads numbers, as the writer writes them."""

    def get(self, key: str) -> int:
        return int(self.client.get(PREFIX + key))


def without_pause(cache: Any, log: Log, writing: Future[list[int]]) -> None:
    while not writing.done():
        _read(cache, log)


def at_random(cache: Any, log: Log, writing: Future[list[int]]) -> None:
    while not writing.done():
        _read(cache, log)
        time.sleep(random.uniform(*NAP))


def beside_a_busy_thread(cache: Any, log: Log, writing: Future[list[int]]) -> None:
    def compute() -> None:
        while not writing.done():
            sum(range(1000))

    busy = threading.Thread(target=compute)
    busy.start()
    at_random(cache, log, writing)
    busy.join()


def one_task(cache: Any, log: Log, writing: Future[list[int]]) -> None:
    asyncio.run(_task(cache, log, writing))


def many_tasks(cache: Any, log: Log, writing: Future[list[int]]) -> None:
    async def all_of_them() -> None:
        await asyncio.gather(*(_task(cache, log, writing) for _ in range(TASKS)))

    asyncio.run(all_of_them())


async def _task(cache: Any, log: Log, writing: Future[list[int]]) -> None:
    while not writing.done():
        known, began = log.latest, time.monotonic_ns()
        log.note(began, known, await cache.aget(KEY))
        await asyncio.sleep(random.uniform(*NAP))


def _read(cache: Any, log: Log) -> None:
    known, began = log.latest, time.monotonic_ns()
    log.note(began, known, cache.get(KEY))


READERS: Mapping[str, Callable[[Any, Log, Future[list[int]]], None]] = {
    "reads without pause": without_pause,
    "idle: reads at random moments": at_random,
    "the same beside a thread that computes": beside_a_busy_thread,
    "a task that reads at random moments": one_task,
    f"{TASKS} such tasks": many_tasks,
}
IDLE = "idle: reads at random moments"
NOBODY = "nobody reads: lag until applied"
PEERS: Mapping[str, Callable[[str], Any]] = {"django-vcache": CACHES["django-vcache"], "redis-py": RedisPyVersions}


def measure(_server: EmbeddedServer, pace: Pace) -> Outcome:
    """Let each kind of reader read in a process of its own."""
    writes = FEW if pace == QUICK else WRITES
    outcome = Outcome()
    with EmbeddedServer(port=True) as server:
        url = server.tcp_url()
        for how in READERS:
            _try(outcome, how, _watch, url, OURS, how, writes)
        _try(outcome, NOBODY, _wait, url, writes)
        for name in PEERS:
            _try(outcome, f"{name}, {IDLE}", _watch, url, name, IDLE, FEW)
    return outcome


def _try(outcome: Outcome, what: str, function: Callable[..., Seen], *args: Any) -> None:
    try:
        outcome.seen[what] = alone(function, *args)
    except Exception as error:  # any failure of a peer is a line in the table
        outcome.absent[what] = reason(error)


def _watch(url: str, name: str, how: str, writes: int) -> Seen:
    """Read one key while another process writes it."""
    with redis.Redis.from_url(url) as client:
        client.set(NAME, 0)
    cache, log, hits = (PEERS.get(name) or CACHES[name])(url), Log(), None
    if name == OURS:
        wait_until_live(cache)
        hits = -cache.near.stats()["hits"]
    with another() as writer:
        writing = writer.start(versions, url, NAME, writes, PAUSE)
        READERS[how](cache, log, writing)
        acknowledged = writing.result()
    if name == OURS:
        hits += cache.near.stats()["hits"]
    return Seen(_staleness(acknowledged, log.last), log.reads, log.backwards, hits)


def _staleness(acknowledged: list[int], last: Mapping[int, int]) -> list[float]:
    """Return for each version how long after its acknowledgement the last read of an older one began, in seconds."""
    older = accumulate((last.get(version, 0) for version in range(len(acknowledged))), max)
    return [max(0, began - when) / 1e9 for began, when in zip(older, acknowledged, strict=True)]


def _wait(url: str, writes: int) -> Seen:
    """Look at nothing but how many announcements have been applied."""
    from fleetcache import Cache

    cache = Cache(url, {"OPTIONS": {"NEAR": {"CANARY": 10_000}}})  # none comes between
    wait_until_live(cache)
    time.sleep(0.5)
    before = announced(cache)
    applied: list[int] = []
    with another() as writer:
        writing = writer.start(versions, url, NAME, writes, PAUSE)
        while len(applied) < writes and not writing.done():
            count = announced(cache) - before
            now = time.monotonic_ns()
            applied.extend([now] * (count - len(applied)))
            time.sleep(0.00005)
        acknowledged = writing.result()
    if len(applied) != writes:
        raise ValueError(f"{len(applied)} announcements were applied for {writes} writes")
    return Seen([max(0, then - when) / 1e9 for then, when in zip(applied, acknowledged, strict=True)])


def tables(outcome: Outcome) -> list[Table]:
    """Write milliseconds, our readers first."""
    rows = [
        (
            how,
            f"{len(seen.staleness):,}",
            _milliseconds(seen.percentile(0.5)),
            _milliseconds(seen.percentile(0.99)),
            _milliseconds(max(seen.staleness)),
            f"{seen.reads:,}" if seen.reads else "-",
            "-" if seen.hits is None else f"{seen.hits / seen.reads:.1%}",
            f"{seen.backwards:,}" if seen.reads else "-",
        )
        for how, seen in outcome.seen.items()
    ]
    columns = ("", "writes", "median, ms", "p99, ms", "max, ms", "reads", "near hits", "backwards")
    notes = [
        "Staleness: from the acknowledgement of a foreign write to the start of the last read that returned an older "
        "version. Backwards: reads of an older version than one that had been read before they began.",
        *not_run(outcome.absent),
    ]
    return [Table("Near: staleness after a foreign write", columns, rows, notes)]


def _milliseconds(seconds: float) -> str:
    return "0" if seconds == 0 else times(seconds * 1e3)


if __name__ == "__main__":
    show(lambda server, pace: tables(measure(server, pace)), __doc__)
