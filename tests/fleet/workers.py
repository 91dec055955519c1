"""Workers: the threads and tasks of several processes, which work on keyspaces in turn and on shared keys at once."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any
from zlib import crc32

from tests.django_settings import configure
from tests.faces import AWAITING, BLOCKING, Face
from tests.fleet.keyspaces import OURS, THEIRS, TIMEOUT, VARIANTS, Difference, Keyspace, pause

from fleetcache.twin import complete

PATIENCE = 60
"""Seconds for all processes to start, and for all to end."""

OTHER = {THEIRS: OURS, OURS: THEIRS}
BACKENDS = {THEIRS: "django_redis.cache.RedisCache", OURS: "fleetcache.django.RedisCache"}


@dataclass(frozen=True)
class Kind:
    """A kind of process: which package it uses, in which face, and by how many workers."""

    name: str
    package: str
    face: str
    workers: int


FLEET = (
    Kind("theirs-1", THEIRS, BLOCKING, workers=2),
    Kind("theirs-2", THEIRS, BLOCKING, workers=2),
    Kind("ours-blocking", OURS, BLOCKING, workers=2),
    Kind("ours-awaiting", OURS, AWAITING, workers=6),
)
"""One process of each kind is started."""


@dataclass(frozen=True)
class Round:
    """A time during which all processes work with the same settings."""

    url: str
    prefix: str
    variant: str
    seed: str
    seconds: float
    softly: bool = False
    """Whether the workers of fleetcache use soft lives and tags."""

    def cache(self, package: str) -> Any:
        """Return a new cache, for one worker."""
        from django.utils.module_loading import import_string

        params = {"KEY_PREFIX": self.prefix, "TIMEOUT": TIMEOUT, "OPTIONS": dict(VARIANTS[self.variant])}
        return import_string(BACKENDS[package])(self.url, params)


@dataclass(frozen=True)
class Channels:
    """What the processes share: queues, a barrier and an event of `multiprocessing`."""

    keyspaces: dict[str, Any]
    """For each package, the queue of the keyspaces that it is to work on next."""
    reports: Any
    ready: Any
    """A barrier that opens when all processes have started, and the round is prepared."""
    stop: Any
    """An event, set after a difference was found."""


@dataclass
class Tally:
    """What one worker did to the shared keys, to be compared with their contents at the end."""

    counted: Counter[str] = field(default_factory=Counter)
    added: dict[str, str] = field(default_factory=dict)
    """The keys that the worker's ADD created, with their values."""
    tried: set[str] = field(default_factory=set)
    """The keys that the worker tried to ADD."""
    made: dict[str, str] = field(default_factory=dict)
    locked: int = 0
    members_added: set[str] = field(default_factory=set)
    members_removed: set[str] = field(default_factory=set)
    pushed: set[str] = field(default_factory=set)
    popped: list[str] = field(default_factory=list)
    scored: Counter[str] = field(default_factory=Counter)
    written: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    """The greatest number that the worker has read of each other worker."""


@dataclass
class Report:
    """What a process sends to the test at the end of a round."""

    kind: Kind
    calls: int = 0
    turns: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)
    failure: str = ""


class CountedFace(Face):
    """Counts the calls of a cache."""

    calls = 0

    async def perform(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return await super().perform(name, *args, **kwargs)


class Worker:
    """One thread or task of a process: works on a keyspace, then on the shared keys, then on another keyspace."""

    def __init__(self, process: Process, number: int) -> None:
        self.process = process
        self.package = process.kind.package
        self.name = f"{process.kind.name}.{number}"
        self.cache = CountedFace(process.round.cache(self.package), process.kind.face)
        self.chance = Random(f"{process.round.seed}/{self.name}")
        self.tally = Tally()
        self.turns = 0
        self.texts = 0

    async def run(self) -> None:
        """Work until the round is over."""
        keyspaces = self.process.channels.keyspaces
        while self.process.goes_on():
            try:
                keyspace = keyspaces[self.package].get_nowait()
            except queue.Empty:
                await pause(self.cache.face, 0.001)
            else:
                await self.work_on(keyspace)
                keyspaces[OTHER[self.package]].put(keyspace)
            for _ in range(10):
                await self.chance.choice(SHARED)(self)

    async def work_on(self, keyspace: Keyspace) -> None:
        """Check what the worker before left in a keyspace, and do some operations."""
        keyspace.package = self.package
        keyspace.turns += 1
        keyspace.asked = keyspace.answered = time.time()
        keyspace.history.append(f"--- {self.name}")
        await keyspace.run(self.cache, keyspace.check_all())
        for _ in range(keyspace.random.randint(10, 40)):
            await keyspace.run(self.cache, keyspace.choose())
        self.turns += 1

    # --- the shared keys --------------------------------------------------------------------------

    def check(self, right: bool, found: str) -> None:
        if not right:
            raise Difference(f"{self.name}: {found}")

    def unique(self) -> str:
        """Return a text that no other worker has, nor this one again."""
        self.texts += 1
        return f"{self.name}/{self.texts}"

    def current(self, prefix: str) -> str:
        """Return the key that all workers use for the next 25 ms."""
        return f"{prefix}{int(time.time() * 40)}"

    async def count(self) -> None:
        """Every increment counts, and a counter that only grows is never seen to shrink."""
        key, delta = self.chance.choice(["c0", "c1", "c2"]), self.chance.choice([1, 1, 7, 1000])
        self.tally.counted[key] += delta
        total = await self.cache.perform("incr", key, delta)
        self.check(type(total) is int and total >= self.tally.counted[key], f"incr said {total!r}")
        seen = await self.cache.perform("get", key)
        self.check(type(seen) is int and seen >= total, f"{seen!r} after {total}")

    async def add(self) -> None:
        """Of all workers that ADD a key one is told that it did, and all read the value of that one."""
        key, value = self.current("added"), self.unique()
        self.tally.tried.add(key)
        if await self.cache.perform("add", key, {"by": value}):
            self.check(key not in self.tally.added, f"added {key} twice")
            self.tally.added[key] = value
        found = await self.cache.perform("get", key)
        expected = self.tally.added.get(key)
        right = isinstance(found, dict) and (expected is None or found["by"] == expected)
        self.check(right, f"{key}: {found!r}")

    async def get_or_set(self) -> None:
        """All workers that call get_or_set() are given the same value."""
        key, value = self.current("made"), self.unique()
        found = await self.cache.perform("get_or_set", key, lambda: value)
        self.check(self.tally.made.setdefault(key, found) == found, f"{key}: {found!r}")

    async def lock(self) -> None:
        """Of all workers one holds the lock, so no other reads or writes between its read and its write."""
        lock = await self.cache.perform("lock", "lock", timeout=2 * PATIENCE, sleep=0.002, blocking_timeout=PATIENCE)
        self.check(await lock.perform("acquire"), "waited too long for the lock")
        count = await self.cache.perform("get", "locked")
        self.check(await self.cache.perform("get", "holder") == "nobody", "another worker holds the lock")
        await self.cache.perform("set", "holder", self.name)
        await pause(self.cache.face, 0.0005)
        await self.cache.perform("set", "locked", count + 1)
        self.check(await self.cache.perform("get", "holder") == self.name, "another worker took the lock")
        await self.cache.perform("set", "holder", "nobody")
        await lock.perform("release")
        self.tally.locked += 1

    async def add_member(self) -> None:
        """A set has the members that were added and not removed."""
        member = self.unique()
        self.tally.members_added.add(member)
        self.check(await self.cache.perform("sadd", "members", member) == 1, f"{member} was there")
        if self.chance.random() < 0.3:
            self.tally.members_removed.add(member)
            self.check(await self.cache.perform("srem", "members", member) == 1, f"{member} was not there")

    async def pop_member(self) -> None:
        """A member is popped once."""
        item = self.unique()
        self.tally.pushed.add(item)
        await self.cache.perform("sadd", "pool", item)
        popped = await self.cache.perform("spop", "pool")
        if popped is not None:
            self.tally.popped.append(popped)

    async def score(self) -> None:
        """Scores add up."""
        member, delta = self.chance.choice(["a", "b"]), self.chance.randrange(1, 9)
        self.tally.scored[member] += delta
        total = await self.cache.perform("zincrby", "scores", delta, member)
        self.check(type(total) is float and total >= self.tally.scored[member], f"zincrby said {total!r}")

    async def write(self) -> None:
        """Store a value with a checksum: under keys of this worker, and under one key of all workers."""
        self.tally.written += 1
        body = f"{self.name} {self.tally.written} " * self.chance.choice([1, 10, 400])
        value = {"by": self.name, "number": self.tally.written, "body": body, "sum": crc32(body.encode())}
        await self.cache.perform("set_many", {f"by-{self.name}": value, "by-all": value, f"by-{self.name}-too": value})
        await self.cache.perform("hset", "fields", self.name, self.tally.written)

    async def read(self) -> None:
        """Every value read was written as it is, and the values of one writer are read in the order of its writes."""
        writer = self.chance.choice(self.process.all_workers)
        keys = [f"by-{writer}", f"by-{writer}-too", "by-all"]
        found = await self.cache.perform("get_many", keys)
        for key, value in found.items():
            self.check(type(value) is dict and crc32(value["body"].encode()) == value["sum"], f"{key}: {value!r}")
            self.check(value["body"].startswith(f"{value['by']} {value['number']} "), f"{key}: {value!r}")
        own = [found[key]["number"] for key in keys[:2] if key in found]
        self.check(len({*own}) <= 1, f"half of a transaction: {own}")
        for number in own:
            self.check(number >= self.tally.seen[writer], f"{writer}: {number} after {self.tally.seen[writer]}")
            self.tally.seen[writer] = number


SHARED: list[Callable[[Worker], Coroutine[Any, Any, None]]] = [
    Worker.count,
    Worker.add,
    Worker.get_or_set,
    Worker.lock,
    Worker.add_member,
    Worker.pop_member,
    Worker.score,
    Worker.write,
    Worker.read,
]
"""What a worker does to the shared keys."""


class Process:
    """The workers of this process, in one round."""

    def __init__(self, kind: Kind, round_: Round, channels: Channels) -> None:
        self.kind = kind
        self.round = round_
        self.channels = channels
        self.all_workers = [f"{each.name}.{number}" for each in FLEET for number in range(each.workers)]
        """The names of the workers of every process."""
        self.failures: list[str] = []
        self.end = 0.0

    def goes_on(self) -> bool:
        return time.monotonic() < self.end and not self.channels.stop.is_set()

    def run(self) -> Report:
        """Run the workers until the end of the round, and report what they did."""
        make = Worker
        if self.round.softly:
            from tests.fleet.softly import SoftWorker as make

        workers = [make(self, number) for number in range(self.kind.workers)]
        self.channels.ready.wait(PATIENCE)
        self.end = time.monotonic() + self.round.seconds
        if self.kind.face == AWAITING:
            # Python's development mode would switch on the loop's, which is ten times slower.
            with asyncio.Runner(debug=False) as runner:
                runner.run(self.run_tasks(workers))
        else:
            threads = [threading.Thread(target=complete, args=(self.run_worker(worker),)) for worker in workers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return Report(
            self.kind,
            calls=sum(worker.cache.calls for worker in workers),
            turns=sum(worker.turns for worker in workers),
            tallies={worker.name: worker.tally for worker in workers},
            failure="\n\n".join(self.failures),
        )

    async def run_tasks(self, workers: list[Worker]) -> None:
        await asyncio.gather(*map(self.run_worker, workers))

    async def run_worker(self, worker: Worker) -> None:
        try:
            await worker.run()
        except Difference as error:
            self.failures.append(str(error))
            self.channels.stop.set()
        except BaseException:
            self.failures.append(f"{worker.name}: {traceback.format_exc()}")
            self.channels.stop.set()


def work(kind: Kind, rounds: list[Round], channels: Channels) -> None:
    """Run one process of the fleet: the main function of that process."""
    warnings.simplefilter("error")
    configure()
    try:
        for each in rounds:
            channels.reports.put(Process(kind, each, channels).run())
    except BaseException:
        channels.reports.put(Report(kind, failure=f"{kind.name}: {traceback.format_exc()}"))
        channels.stop.set()
        channels.ready.abort()
