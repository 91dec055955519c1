"""What does a near cache cost, and what does it save?

Hits beside Django's ``LocMemCache``, which is no copy of anything, and beside the near caches of the peers, which are;
then what is paid for them: misses, writes, invalidations, idle time, memory, and the time until the first hit.

A contender takes part in a contest only if the server sees nothing of its calls.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import pickle
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any, Protocol

import redis
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection

from benchmarks import growth
from benchmarks.awaiting import crowd
from benchmarks.contenders import FLOOR, OURS, SMALL, TIMEOUT, VCACHE, Backend
from benchmarks.contest import (
    QUICK,
    Contest,
    Pace,
    Table,
    Turn,
    hold,
    micros,
    not_run,
    once,
    reason,
    repeat,
    show,
    times,
)
from benchmarks.foreign import alone, another, flood
from fleetcache.servers.embedded import EmbeddedServer

LOCMEM = "LocMemCache"
BLOCKING_LOCMEM = "LocMemCache, blocking"
NEAR_OFF = f"{OURS}, near off"
PREFIX = ":1:"
"""What the names of all keys start with, where nothing else is set."""

MANY = {f"many:{at}": SMALL | {"id": at} for at in range(100)}
VALUES: Mapping[str, Any] = {"str": "abcdefghijklmnopqrst", "int": 4711, "small": SMALL, **MANY}

AGET = "aget, str"
MISS = "near miss"
MISSES = ("cold get", "cold aget, 1 task", "cold aget, 100 tasks")
THREADS = (1, 4)
COLD_KEYS = 60_000
COLD_BYTES = "1MB"
"""Room for a few thousand entries: who goes through `COLD_KEYS` in turn hardly ever finds one again."""
WARM = 0.01
"""Hits for each miss above which calls are not cold."""

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


class NearCache(Protocol):
    """The part of Django's cache API that is timed."""

    def get(self, key: str) -> Any: ...
    def set(self, key: str, value: Any, timeout: int) -> Any: ...
    def get_many(self, keys: Iterable[str]) -> dict[str, Any]: ...
    def has_key(self, key: str) -> Any: ...


class Memory:
    """The least that could answer from memory: a dict, a clock, and pickle for what a caller could change."""

    def __init__(self, _url: str) -> None:
        self.entries: dict[str, tuple[float, bool, Any]] = {}

    def set(self, key: str, value: Any, timeout: int) -> None:
        scalar = type(value) in {str, int}
        self.entries[key] = time.monotonic() + timeout, scalar, value if scalar else pickle.dumps(value)

    def get(self, key: str) -> Any:
        deadline, scalar, value = self.entries[key]
        if time.monotonic() < deadline:
            return value if scalar else pickle.loads(value)

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        now, found = time.monotonic(), {}
        for key in keys:
            deadline, scalar, value = self.entries[key]
            if now < deadline:
                found[key] = value if scalar else pickle.loads(value)
        return found

    def has_key(self, key: str) -> bool:
        return time.monotonic() < self.entries[key][0]


class RedisPy:
    """redis-py's client-side cache, with pickle."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url, protocol=3, cache_config=CacheConfig())
        with redis.Redis.from_url(url) as client:
            # It goes by the name and refuses Valkey, which it works with.
            CacheProxyConnection.DEFAULT_SERVER_NAME = client.info("server").get("server_name", "redis")

    def set(self, key: str, value: Any, timeout: int) -> Any:
        return self.client.set(key, pickle.dumps(value), px=timeout * 1000)

    def get(self, key: str) -> Any:
        return pickle.loads(self.client.get(key))

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        keys = list(keys)
        return {key: pickle.loads(value) for key, value in zip(keys, self.client.mget(keys), strict=True)}

    def has_key(self, key: str) -> Any:
        return self.client.exists(key)


def _locmem(_url: str) -> Any:
    return Backend("django.core.cache.backends.locmem.LocMemCache")("benchmark")


def _ours(url: str) -> Any:
    from fleetcache import Cache

    return Cache(url, {"OPTIONS": {"NEAR": True}})


DJANGO_OURS = Backend("fleetcache.django.RedisCache", options={"NEAR": True})

CACHES: Mapping[str, Callable[[str], NearCache]] = {
    FLOOR: Memory,
    LOCMEM: _locmem,
    "django-vcache": Backend(VCACHE.path, options={"CLIENT_SIDE_CACHE": {"ENABLED": True}}),
    "redis-py": RedisPy,
    OURS: DJANGO_OURS,
    "fleetcache.Cache": _ours,
}
"""Each makes a cache that answers from memory."""

HITS: Mapping[str, tuple[str, Any]] = {
    "get, str": ("get", "str"),
    "get, int": ("get", "int"),
    "get, small dict": ("get", "small"),
    "get_many(100), small dicts": ("get_many", list(MANY)),
    "has_key": ("has_key", "str"),
}
"""What is done -> the method and its argument."""


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


@dataclass
class Outcome:
    """Contests by what was done; and what was measured in processes of their own."""

    hits: dict[str, Contest] = field(default_factory=dict)
    awaiting: Contest = field(default_factory=Contest)
    threads: Contest = field(default_factory=Contest)
    paid: dict[str, Contest] = field(default_factory=dict)
    trips: dict[str, float] = field(default_factory=dict)
    """Operation -> times that the server read from a socket, for each."""
    costs: Costs | None = None
    absent: dict[str, str] = field(default_factory=dict)


def measure(server: EmbeddedServer, pace: Pace) -> Outcome:
    """Hold all contests, then measure in processes of their own."""
    outcome = Outcome()
    with ExitStack() as stack:
        # Tracking does not know databases, so that each contender gets a server of its own.
        servers = {name: stack.enter_context(EmbeddedServer(port=True)) for name in CACHES}
        caches: dict[str, NearCache] = {}
        for name, make in CACHES.items():
            try:
                caches[name] = make(servers[name].tcp_url())
                _check(caches[name])
                _close(caches[name], stack)
            except Exception as error:  # any failure of a peer is a line in the table
                caches.pop(name, None)
                outcome.absent[name] = reason(error)
        for operation, (method, argument) in HITS.items():
            turns, absent = {}, dict(outcome.absent)
            for name, cache in caches.items():
                turn = calling(getattr(cache, method), argument)
                if _remembers(servers[name], turn):
                    turns[name] = turn
                else:
                    absent[name] = f"it asks the server ({operation})"
            outcome.hits[operation] = hold(turns, pace)
            outcome.hits[operation].absent |= absent
        near = {name: cache for name, cache in caches.items() if name in outcome.hits["get, str"].costs}
        outcome.threads = _threads(near, pace, stack)
        outcome.awaiting = _awaiting(caches, servers, pace, stack)
    try:
        _pay(outcome, server, pace)
        outcome.costs = _costs(pace)
    except Exception as error:
        outcome.absent[OURS] = reason(error)
    return outcome


def _close(cache: Any, stack: ExitStack) -> None:
    """See to it that nobody listens any longer when the server ends."""
    if near := getattr(cache, "near", None):
        stack.callback(near.close)


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


def _check(cache: NearCache) -> None:
    """Raise unless *cache* gives back what it was given."""
    for key, value in VALUES.items():
        cache.set(key, value, timeout=TIMEOUT)
    for _ in range(2):
        if any(cache.get(key) != value for key, value in VALUES.items()) or cache.get_many(list(MANY)) != MANY:
            raise ValueError("gave back another value than it was given")
    if not cache.has_key("str"):
        raise ValueError("does not have a key that it was given")


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


# --- what is paid ---------------------------------------------------------------------------------


def _pay(outcome: Outcome, server: EmbeddedServer, pace: Pace) -> None:
    """Hold the contests of calls that the near cache can only make dearer: on against off."""
    with EmbeddedServer(port=True) as plain, ExitStack() as stack:
        caches = {
            OURS: (cold(server.tcp_url(), stack), server),
            NEAR_OFF: (cold(plain.tcp_url(), stack, near=False), plain),
        }
        on = caches[OURS][0]
        for operation, turns in dearer(caches, stack).items():
            before = on.near.stats()
            outcome.paid[operation] = hold(turns, Pace(pace.rounds, pace.turn * 2))
            hits, misses = (on.near.stats()[what] - before[what] for what in ("hits", "misses"))
            if operation.startswith("cold") and hits > WARM * misses:
                raise ValueError(f"{operation}: {hits} hits and {misses} misses, where there must be misses only")
            for name, (_, where) in caches.items():
                outcome.trips[f"{operation}, {name}"] = _trips(where, turns[name])


def cold(url: str, stack: ExitStack, *, near: bool = True) -> Any:
    """Return a cache of more entries than it can keep near."""
    cache = Backend(DJANGO_OURS.path, options={"NEAR": {"MAX_BYTES": COLD_BYTES}} if near else {})(url)
    for start in range(0, COLD_KEYS, 1000):
        cache.set_many({f"cold:{at}": SMALL for at in range(start, start + 1000)}, timeout=TIMEOUT)
    if near:
        _close(cache, stack)
        wait_until_live(cache)
    return cache


def dearer(caches: Mapping[str, tuple[Any, EmbeddedServer]], stack: ExitStack) -> dict[str, dict[str, Turn]]:
    """Return the turns of calls that cannot be answered from memory, by operation and contender."""
    turns: dict[str, dict[str, Turn]] = {}
    names = [f"cold:{at}" for at in range(COLD_KEYS)]
    for name, (cache, _) in caches.items():
        runner = stack.enter_context(asyncio.Runner())
        one = itertools.cycle(names)
        batches = itertools.cycle([names[start : start + 100] for start in range(0, len(names), 100)])
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


def _trips(server: EmbeddedServer, turn: Turn) -> float:
    """Return how often the server reads from a socket for each operation; a round trip is one."""
    with redis.Redis.from_url(server.url()) as client:
        before = client.info("stats")["total_reads_processed"]
        done = turn(1000)
        return (client.info("stats")["total_reads_processed"] - before - 1) / done


# --- processes of their own -----------------------------------------------------------------------


def wait_until_live(cache: Any, patience: float = 10) -> float:
    """Ask until hits are served, and return how many seconds that took."""
    started = time.perf_counter()
    cache.get("str")
    while cache.near.state != "live":
        if time.perf_counter() - started > patience:
            raise TimeoutError(f"the near cache is still {cache.near.state} after {patience} s")
        time.sleep(0.0001)
    return time.perf_counter() - started


def _costs(pace: Pace) -> Costs:
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
    wait_until_live(_ours(url))
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    time.sleep(seconds)
    return (time.process_time() - cpu) / (time.perf_counter() - wall)


def _applied(url: str, rate: int, seconds: float) -> tuple[float, float, float]:
    cache = _ours(url)
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


def announced(cache: Any) -> int:
    """Return how many names the server has announced as changed, copied here or not."""
    return int(cache.near.stats()["pushes"])


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
    return wait_until_live(_ours(url))


# --- tables ---------------------------------------------------------------------------------------


def tables(outcome: Outcome) -> list[Table]:
    """Write hits first, then what is paid for them."""
    written = [_hits(operation, contest, LOCMEM) for operation, contest in outcome.hits.items()]
    written.append(_hits(AGET, outcome.awaiting, BLOCKING_LOCMEM))
    written.append(_by_threads(outcome.threads))
    rows = [
        (
            operation,
            times(contest.ratio(OURS, NEAR_OFF)),
            times(contest.ratio(OURS, NEAR_OFF, "cpu")),
            micros(contest.cost(OURS)),
            micros(contest.cost(NEAR_OFF)),
            times(outcome.trips.get(f"{operation}, {OURS}")),
            times(outcome.trips.get(f"{operation}, {NEAR_OFF}")),
        )
        for operation, contest in outcome.paid.items()
    ]
    columns = ("", "near on / off", "the same, CPU", "µs on", "µs off", "reads on", "reads off")
    note = (
        "The store is full, so that each miss also evicts. Reads: how often the server read from a socket for each; "
        "a round trip is one, tasks share them."
    )
    written.append(Table("Near: calls that it cannot answer", columns, rows, [note, *not_run(outcome.absent)]))
    return once([*written, *(_written(outcome.costs) if outcome.costs else ())])


def _hits(operation: str, contest: Contest, reference: str) -> Table:
    names = sorted(contest.costs, key=lambda name: contest.ratio(name, reference) or 0)
    rows = [
        (name, times(contest.ratio(name, reference)), micros(contest.cost(name)), micros(contest.cost(name, "cpu")))
        for name in names
    ]
    return Table(f"Near hit: {operation}", ("", f"/ {reference}", "µs", "CPU µs"), rows, not_run(contest.absent))


def kept(contest: Contest, name: str) -> float | None:
    """Return the rate of the most threads divided by the rate of one."""
    return contest.ratio(f"{name}, {THREADS[0]}", f"{name}, {THREADS[-1]}")


def _by_threads(contest: Contest) -> Table:
    rows = []
    for name in CACHES:
        costs = [contest.cost(f"{name}, {threads}") for threads in THREADS]
        if None not in costs:
            rows.append((name, *(times(cost and 1e-3 / cost) for cost in costs), times(kept(contest, name))))
    columns = ("", *(f"{threads} thread{'s' * (threads > 1)}" for threads in THREADS), "ratio")
    return Table("Near hit: thousand get/s of all threads, str", columns, rows, not_run(contest.absent))


def _written(costs: Costs) -> list[Table]:
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


if __name__ == "__main__":
    show(lambda server, pace: tables(measure(server, pace)), __doc__)
