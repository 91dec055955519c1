"""What does a near cache cost beside the calls?  CPU when idle and under foreign writes, memory, the time to the first hit."""

from __future__ import annotations

import gc
import itertools
import time
import tracemalloc
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.contenders import SMALL, TIMEOUT
from benchmarks.contest import QUICK, Pace, Table, micros, times
from benchmarks.foreign import alone, another, flood
from benchmarks.near.caches import PREFIX, announced, ours, wait_until_live
from fleetcache.testing.servers import EmbeddedServer

RATES = (100, 1_000, 10_000)
"""Foreign writes a second."""
WEIGHED: Mapping[str, Any] = {
    "int": 4711,
    "str, 20 characters": "abcdefghijklmnopqrst",
    "small dict": SMALL,
    "str, 1,000 characters": "x" * 1_000,
    "str, 4,000 characters": "x" * 4_000,
}
WEIGHED_AT_ONCE = 3 * 4096


@dataclass
class Costs:
    """What a process pays for a near cache that nobody asks."""

    idle: float
    """CPU seconds in a second."""
    invalidations: dict[int, tuple[float, float, float]] = field(default_factory=dict)
    """Writes asked for in a second -> writes done, invalidations counted, CPU seconds; each in a second."""
    weights: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Value -> bytes that Python allocated for an entry, and those counted."""
    startup: list[float] = field(default_factory=list)
    """Seconds from the first call until hits are served."""


def measure(pace: Pace) -> Costs:
    """Measure, each in a process of its own."""
    seconds = 1.0 if pace == QUICK else 3.0
    with EmbeddedServer(port=True) as server:
        url = server.tcp_url()
        costs = Costs(alone(_idle, url, seconds))
        for rate in RATES:
            costs.invalidations[rate] = alone(_applied, url, rate, seconds)
        for what, value in WEIGHED.items():
            costs.weights[what] = alone(_weigh, url, value)
        costs.startup = [alone(_start, url) for _ in range(max(3, pace.rounds // 2))]
    return costs


def _idle(url: str, seconds: float) -> float:
    wait_until_live(ours(url))
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    time.sleep(seconds)
    return (time.process_time() - cpu) / (time.perf_counter() - wall)


def _applied(url: str, rate: int, seconds: float) -> tuple[float, float, float]:
    cache = ours(url)
    names = [f"{PREFIX}flood:{at}" for at in range(1000)]
    with another() as writer:
        wait_until_live(cache)
        before = announced(cache)
        cpu, wall = time.process_time(), time.perf_counter()
        writing = writer.start(flood, url, names, rate, seconds)
        time.sleep(seconds)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        writes = writing.result()
        time.sleep(0.05)
        return writes / seconds, (announced(cache) - before) / seconds, cpu / wall


def _weigh(url: str, value: Any) -> tuple[float, float]:
    """Return what an entry takes once all that does not grow with them is there."""
    from fleetcache import Cache

    batches = [[f"weighed:{at}" for at in range(start, start + 1024)] for start in range(0, 2 * WEIGHED_AT_ONCE, 1024)]
    writer = Cache(url, {})
    for batch in batches:
        writer.set_many(dict.fromkeys(batch, value), timeout=TIMEOUT)
    names = list(itertools.chain(*batches))
    cache = Cache(url, {"OPTIONS": {"NEAR": "1GB"}})
    wait_until_live(cache)
    tracemalloc.start()

    def sizes(names: list[str]) -> tuple[int, int]:
        for name in names:
            cache.get(name)
        gc.collect()
        return tracemalloc.get_traced_memory()[0], cache.near.stats()["bytes"]

    before, after = sizes(names[:WEIGHED_AT_ONCE]), sizes(names[WEIGHED_AT_ONCE:])
    traced, counted = ((b - a) / WEIGHED_AT_ONCE for a, b in zip(before, after, strict=True))
    return traced, counted


def _start(url: str) -> float:
    return wait_until_live(ours(url))


def tables(costs: Costs) -> list[Table]:
    """Write tables of what a process pays for a near cache that nobody asks."""
    rates = [
        (f"{rate:,}", f"{done:,.0f}", f"{applied:,.0f}", f"{cpu:.2%}", micros(max(0, cpu - costs.idle) / applied))
        for rate, (done, applied, cpu) in costs.invalidations.items()
    ]
    weights = [
        (what, f"{traced:,.0f}", f"{counted:,.0f}", times(counted / traced))
        for what, (traced, counted) in costs.weights.items()
    ]
    others = [
        ("CPU of an idle process, of one core", f"{costs.idle:.3%}"),
        ("from the first call to the first hit, median, ms", times(median(costs.startup) * 1e3)),
        ("the same, longest", times(max(costs.startup) * 1e3)),
    ]
    columns = ("foreign writes/s", "done/s", "invalidations/s", "CPU, of one core", "CPU µs each")
    return [
        Table("Near: foreign writes, in a process that reads nothing", columns, rates),
        Table("Near: bytes of an entry", ("", "allocated", "counted", "counted / allocated"), weights),
        Table("Near: the rest", ("", ""), others),
    ]
