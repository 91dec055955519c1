"""What does a cluster cost, and what does it bring?

One caller on a cluster of three primaries, beside the same on one server and beside redis-py's own cluster client;
then several processes on one, two and three primaries.  Calls go through a hundred names in turn, so through all nodes.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache, partial
from statistics import median
from typing import Any

import redis
import redis.asyncio

from benchmarks.awaiting import crowd
from benchmarks.contenders import FLEETCACHE, OURS, SMALL, TIMEOUT, Floor
from benchmarks.contest import (
    Contest,
    Cost,
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
from benchmarks.foreign import Other, another
from benchmarks.near.misses import advancing
from fleetcache.testing import ServerCluster, cluster
from fleetcache.testing.servers import EmbeddedServer
from fleetcache.topology.cluster import slot_of

SINGLE = f"{OURS}, one server"
REDIS_PY = "redis-py"
AGET = "aget, 100 tasks"
TASKS = 100
MANY = {f"many:{at}": SMALL | {"id": at} for at in range(100)}
NAMES = list(MANY)
PRIMARIES = (1, 2, 3)
CLIENTS = 4


class RedisPy:
    """redis-py's cluster client, with pickle."""

    def __init__(self, url: str) -> None:
        self.client = redis.RedisCluster.from_url(_first(url))

    def get(self, key: str) -> Any:
        return pickle.loads(self.client.get(key))

    def set(self, key: str, value: Any, timeout: int) -> Any:
        return self.client.set(key, pickle.dumps(value), px=timeout * 1000)

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        keys = list(keys)
        return {key: pickle.loads(value) for key, value in zip(keys, self.client.mget_nonatomic(keys), strict=True)}

    def set_many(self, data: dict[str, Any], timeout: int) -> Any:
        with self.client.pipeline() as pipeline:  # mset_nonatomic knows no timeout
            for key, value in data.items():
                pipeline.set(key, pickle.dumps(value), px=timeout * 1000)
            pipeline.execute()


class RedisAsyncio:
    """redis-py's asyncio cluster client, with pickle."""

    def __init__(self, url: str) -> None:
        self.client = redis.asyncio.RedisCluster.from_url(_first(url))

    async def aget(self, key: str) -> Any:
        return pickle.loads(await self.client.get(key))


def _first(url: str) -> str:
    """Return a URL as redis-py reads it: of the first node alone."""
    return url.replace("redis+cluster://", "redis://").partition(",")[0]


@dataclass
class Load:
    """What several processes did: calls in a second, and CPU seconds of clients and of servers for each."""

    rates: list[float] = field(default_factory=list)
    clients: list[float] = field(default_factory=list)
    servers: list[float] = field(default_factory=list)


@dataclass
class Outcome:
    """One caller's contests by operation; loads by operation, contender and number of primaries."""

    contests: dict[str, Contest] = field(default_factory=dict)
    floors: Contest = field(default_factory=Contest)
    """Gets over bare sockets: to one server, and to whom of three has the name."""
    loads: dict[tuple[str, str, int], Load] = field(default_factory=dict)


def measure(server: EmbeddedServer, pace: Pace) -> Outcome:
    """Hold the contests of one caller, then let several processes at clusters of each size."""
    outcome = Outcome()
    with ExitStack() as stack:
        clusters = {size: stack.enter_context(cluster(primaries=size, replicas=0)) for size in PRIMARIES}
        _alone(outcome, server.tcp_url(), clusters[max(PRIMARIES)], stack, pace)
        others = [stack.enter_context(another()) for _ in range(CLIENTS)]
        _together(outcome, others, clusters, pace)
    return outcome


def _alone(outcome: Outcome, single: str, servers: ServerCluster, stack: ExitStack, pace: Pace) -> None:
    url = servers.url()
    entered = {SINGLE: (FLEETCACHE, single), OURS: (FLEETCACHE, url), REDIS_PY: (RedisPy, url)}
    caches: dict[str, Any] = {}
    absent: dict[str, str] = {}
    for name, (make, where) in entered.items():
        try:
            caches[name] = make(where)
            caches[name].set_many(MANY, timeout=TIMEOUT)
            if caches[name].get_many(NAMES) != MANY or caches[name].get(NAMES[0]) != MANY[NAMES[0]]:
                raise ValueError("gave back another value than it was given")
        except Exception as error:  # any failure of a peer is a line in the table
            caches.pop(name, None)
            absent[name] = reason(error)
    operations: Mapping[str, Callable[[Any], Turn]] = {
        "get": lambda cache: advancing(cache.get, itertools.cycle(NAMES)),
        "set": lambda cache: advancing(partial(cache.set, value=SMALL, timeout=TIMEOUT), itertools.cycle(NAMES)),
        "get_many(100)": lambda cache: repeat(partial(cache.get_many, NAMES)),
        "set_many(100)": lambda cache: repeat(partial(cache.set_many, MANY, timeout=TIMEOUT)),
    }
    for operation, prepare in operations.items():
        outcome.contests[operation] = hold({name: prepare(cache) for name, cache in caches.items()}, pace)
    floor, turns = Floor(single), {}
    for name, floors in {SINGLE: dict.fromkeys(NAMES, floor), OURS: scattered(servers)}.items():
        for key, value in MANY.items():
            floors[key].set(key, value, TIMEOUT)
        turns[name] = advancing(lambda place: place[1].get(place[0]), itertools.cycle(floors.items()))
    outcome.floors = hold(turns, pace)
    turns = {}
    for name in caches:
        make, where = entered[name]
        runner = stack.enter_context(asyncio.Runner())
        turns[name] = _awaited(runner, RedisAsyncio if name == REDIS_PY else make, where)
    outcome.contests[AGET] = hold(turns, Pace(pace.rounds, pace.turn * 3))
    for contest in outcome.contests.values():
        contest.absent |= absent


def scattered(servers: ServerCluster) -> dict[str, Floor]:
    """Return a bare socket for each name, to the primary that has it."""
    floors = {node: Floor(node.tcp_url()) for node in servers.primaries}
    return {name: floors[servers.owner(slot_of(name))] for name in NAMES}


def _awaited(runner: asyncio.Runner, make: Callable[[str], Any], url: str) -> Turn:
    names = itertools.cycle(NAMES)

    async def made() -> Any:
        client = make(url)
        # redis-py's first call alone: of 100 first calls at once some fail.
        if await client.aget(NAMES[0]) != MANY[NAMES[0]]:
            raise ValueError("gave back another value than it was given")
        return client

    client = runner.run(made())
    return crowd(runner, lambda: client.aget(next(names)), TASKS)


# --- several processes ----------------------------------------------------------------------------

CONTENDERS: Mapping[str, Mapping[str, Callable[[str], Any]]] = {
    "get": {OURS: FLEETCACHE, REDIS_PY: RedisPy},
    AGET: {OURS: FLEETCACHE, REDIS_PY: RedisAsyncio},
}


def _together(outcome: Outcome, others: Sequence[Other], clusters: Mapping[int, ServerCluster], pace: Pace) -> None:
    """Let all contenders, sizes and operations take turns, in a new random order each round."""
    combinations = list(itertools.product(CONTENDERS, (OURS, REDIS_PY), PRIMARIES))
    order = random.Random(len(combinations))
    seconds = pace.turn * 8
    for size, make in itertools.product(clusters, (FLEETCACHE, RedisPy)):
        make(clusters[size].url()).set_many(MANY, timeout=TIMEOUT)
    for turn in range(pace.rounds // 2 + 2):
        for operation, name, size in order.sample(combinations, len(combinations)):
            before = _server_cpu(clusters[size])
            work = [other.start(drive, operation, name, clusters[size].url(), seconds) for other in others]
            done = [each.result() for each in work]
            spent = _server_cpu(clusters[size]) - before
            if turn == 0:
                continue  # connections were made
            load = outcome.loads.setdefault((operation, name, size), Load())
            calls = sum(calls for calls, _ in done)
            load.rates.append(sum(calls / cost.wall for calls, cost in done))
            load.clients.append(sum(cost.cpu for _, cost in done) / calls)
            load.servers.append(spent / calls)


def drive(operation: str, name: str, url: str, seconds: float) -> tuple[int, Cost]:
    """Do one operation for *seconds*; return how often it was done, and the seconds it took."""
    turn = _turn(operation, name, url)
    count, calls = 100, 0
    cpu, wall = time.process_time(), time.perf_counter()
    while time.perf_counter() - wall < seconds:
        calls += turn(count)
    return calls, Cost(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)


@cache
def _turn(operation: str, name: str, url: str) -> Turn:
    """Return the turn of this process."""
    make = CONTENDERS[operation][name]
    if operation == "get":
        return advancing(make(url).get, itertools.cycle(NAMES))
    return _awaited(asyncio.Runner(), make, url)


def _server_cpu(servers: ServerCluster) -> float:
    """Return the CPU seconds that all nodes have spent."""
    return sum(cpu_of(node) for node in servers.nodes)


def cpu_of(server: EmbeddedServer) -> float:
    """Return the CPU seconds that *server* has spent."""
    with redis.Redis.from_url(server.url()) as client:
        spent = client.info("cpu")
    return float(spent["used_cpu_user"] + spent["used_cpu_sys"])


# --- tables ---------------------------------------------------------------------------------------


def tables(outcome: Outcome) -> list[Table]:
    """Write what one caller sees, then what several processes reach."""
    contests = outcome.contests
    rows = [
        (
            operation,
            times(contest.ratio(OURS, SINGLE)),
            times(contest.ratio(OURS, SINGLE, "cpu")),
            times(contest.ratio(OURS, REDIS_PY)),
            times(contest.ratio(OURS, REDIS_PY, "cpu")),
            *(micros(contest.cost(name)) for name in (OURS, SINGLE, REDIS_PY)),
        )
        for operation, contest in contests.items()
    ]
    columns = (
        "", "/ one server", "the same, CPU", "/ redis-py", "the same, CPU", "µs", "µs, one server", "µs, redis-py"
    )  # fmt: skip
    note = "redis-py: `RedisCluster` and `redis.asyncio.RedisCluster` with pickle, `mget_nonatomic`, and a pipeline for `set_many`."
    floors = outcome.floors.ratio(OURS, SINGLE), outcome.floors.ratio(OURS, SINGLE, "cpu")
    bare = (
        f"What three servers instead of one cost the machine: a get over bare sockets takes {times(floors[0])} "
        f"of the time, {times(floors[1])} of the CPU."
    )
    absent = not_run(*(contest.absent for contest in contests.values()))
    alone = Table("Cluster: one caller, three primaries", columns, rows, [note, bare, *absent])
    return once([alone, *(_loads(operation, outcome) for operation in CONTENDERS if outcome.loads)])


def _loads(operation: str, outcome: Outcome) -> Table:
    rows = []
    for (done, name, size), load in sorted(outcome.loads.items()):
        if done == operation:
            peer = outcome.loads[operation, REDIS_PY, size]
            ratio = median(mine / theirs for mine, theirs in zip(load.rates, peer.rates, strict=True))
            rows.append(
                (
                    f"{name}, {size} primar{'y' if size == 1 else 'ies'}",
                    times(median(load.rates) / 1000),
                    times(ratio),
                    micros(median(load.clients)),
                    micros(median(load.servers)),
                )
            )
    columns = ("", "thousand/s", "/ redis-py", "client CPU µs each", "server CPU µs each")
    note = f"{CLIENTS} client processes; they and the servers share the machine's {os.cpu_count()} cores."
    return Table(f"Cluster: {operation} of several processes", columns, rows, [note])


if __name__ == "__main__":
    show(lambda server, pace: tables(measure(server, pace)), __doc__)
