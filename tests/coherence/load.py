"""What one process does with its cache: workers in threads, in tasks, or both, that record each operation.

It is not the load of `tests.load`, where one worker owns a key and knows what a read of it may return.  Here several
processes write the same keys, so no worker can judge a reply: all operations are recorded with the times of their
beginning and end, and the checker judges the history of all processes at the end.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError
from tests.coherence import keys
from tests.coherence.checker import (
    DELETE,
    EVERY_KEY,
    FAILED,
    LOSS,
    NOTHING,
    READ,
    SOMETHING,
    TOUCH,
    WRITE,
    Operation,
    Recorder,
)
from tests.coherence.mutants import install
from tests.faces import AWAITING, BLOCKING, Face

from fleetcache import Cache
from fleetcache.near import audit
from fleetcache.twin import complete

THREADS, TASKS, BOTH = "threads", "tasks", "both"


@dataclass(frozen=True)
class Workload:
    """The settings of the load of one process."""

    seed: int
    face: str = BOTH
    process: str = "a"
    url: str = ""
    near: dict[str, Any] | None = None
    timeout: float = 2.0
    workers: int = 4
    """In threads, and as many in tasks."""
    loops: int = 1
    """Event loops that share the tasks."""
    shared: int = 3
    """How many keys everybody writes."""
    expiring: int = 1
    zipf: bool = False
    writes: float = 0.05
    """The part of the operations that write."""
    counts: float = 0.5
    """The part of the writes that increment shared keys."""
    pause: float = 0.001
    """Seconds between two operations of a worker, on average."""
    fenced: bool = False
    """Whether every read has a fence of its own."""
    direct: float = 0.2
    """The part of the reads that ask the server in any case; each of them also mends what is wrong with a copy."""
    cancels: float = 0.0
    clears: float = 0.0
    mutant: str | None = None
    audit: int = 0
    """One of so many hits is audited."""


@dataclass
class Outcome:
    """What one process did."""

    history: list[Operation]
    stats: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    crashes: list[str] = field(default_factory=list)


class Process:
    """The load of one process."""

    def __init__(self, load: Workload) -> None:
        self.load = load
        params = {"KEY_PREFIX": keys.PREFIX, "TIMEOUT": None}
        options = {"socket_timeout": load.timeout, "socket_connect_timeout": load.timeout, "NEAR": load.near}
        options["STATS"] = {"AUDIT": load.audit}
        self.cache = Cache(load.url, {**params, "OPTIONS": options})
        self.begin(load.process)

    def begin(self, process: str) -> None:
        """Begin as *process*, which may be a forked one."""
        self.recorder = Recorder(process)
        self.errors: dict[str, int] = {}
        self.crashes: list[str] = []
        self.stopping = threading.Event()
        self.own = {number: f"s{process}.{number}" for number in range(2 * self.load.workers)}
        self.readable = [f"n{number}" for number in range(self.load.shared)]
        self.popular = [1 / (rank + 1) for rank in range(self.load.shared)] if self.load.zipf else None
        self.others = [f"x{number}" for number in range(self.load.expiring)]
        self.others += [*self.own.values(), *(f"s{other}.{number}" for other in "ab" for number in (0, 1))]
        self.threads: list[threading.Thread] = []

    # --- running ----------------------------------------------------------------------------------

    def warm(self) -> None:
        """Wait until copies are served, if they ever are, and read everything once."""
        everywhere = [f"warm{number}" for number in range(20)]
        deadline = time.monotonic() + 3
        near = self.cache.near
        while True:
            with suppress(RedisError):
                self.cache.get_many(everywhere)
            if near is None or near.state in {"live", "off"} or time.monotonic() > deadline:
                break
            time.sleep(0.005)
        with suppress(RedisError):
            self.cache.get_many(self.readable)

    def start(self) -> None:
        """Let the workers work."""
        if self.load.face in {THREADS, BOTH}:
            face = Face(self.cache, BLOCKING)
            self.threads = [
                threading.Thread(target=lambda number=number: complete(self.work(face, number)), name=f"thread{number}")
                for number in range(self.load.workers)
            ]
        if self.load.face in {TASKS, BOTH}:
            self.threads += [
                threading.Thread(target=self.loop, args=(number,), name=f"loop{number}")
                for number in range(self.load.loops)
            ]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """Wait until they have stopped."""
        self.stopping.set()
        for thread in self.threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in self.threads), "a call never returned"

    def look(self, names: list[str]) -> None:
        """Read what there is in the end."""
        for key in names:
            with suppress(RedisError), self.recorder.noting(READ, key) as read:
                read.version = keys.version(self.cache.get(key))

    def outcome(self) -> Outcome:
        """Return what happened."""
        near = self.cache.near
        stats = {} if near is None else {**near.stats(), "audit": near.audit()}
        return Outcome(self.recorder.history, stats, self.errors, self.crashes)

    def loop(self, first: int) -> None:
        async def some_of_them() -> None:
            face, count = Face(self.cache, AWAITING), self.load.workers
            async with asyncio.TaskGroup() as group:
                for number in range(count + first, 2 * count, self.load.loops):
                    group.create_task(self.work(face, number))

        with asyncio.Runner(debug=False) as runner:
            runner.run(some_of_them())

    async def work(self, cache: Face, number: int) -> None:
        """Do one operation after the other."""
        worker = Worker(self, cache, number)
        sleep = asyncio.sleep if cache.face == AWAITING else _sleep
        while not self.stopping.is_set():
            try:
                await worker.step()
            except (RedisError, OSError) as error:
                kind = type(error).__name__
                self.errors[kind] = self.errors.get(kind, 0) + 1
                await sleep(0.005)
            except Exception:
                self.crashes.append(traceback.format_exc())
                return
            await sleep(2 * self.load.pause * worker.chance.random())


async def _sleep(seconds: float) -> None:
    time.sleep(seconds)


class Worker:
    """One thread's or task's share of the load."""

    def __init__(self, process: Process, cache: Face, number: int) -> None:
        self.process = process
        self.load = process.load
        self.cache = cache
        self.number = number
        self.task = f"{'task' if cache.face == AWAITING else 'thread'}{number}"
        self.chance = random.Random(f"{self.load.seed} {process.recorder.process} {number}")
        self.version = 0
        self.there = False
        self.lives = 0
        """How many keys of its own it has given up."""

    def noting(self, kind: str, *names: str, **more: Any) -> Any:
        return self.process.recorder.noting(kind, *names, task=self.task, **more)

    async def step(self) -> None:
        """Do one operation."""
        chance, load = self.chance, self.load
        point = chance.random()
        if point < load.clears:
            step = self.clear
        elif point < load.clears + load.writes:
            step = self.count if chance.random() < load.counts else self.write
        else:
            step = self.read
        if self.cache.face == AWAITING and chance.random() < load.cancels:
            await self.cancelled(step)
        else:
            await step()

    async def cancelled(self, step: Callable[[], Awaitable[None]]) -> None:
        """Begin an operation, and give it up."""
        task = asyncio.ensure_future(step())
        await asyncio.sleep(0.002 * self.chance.random() ** 2)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    # --- reads ------------------------------------------------------------------------------------

    def any_key(self) -> str:
        process, chance = self.process, self.chance
        if chance.random() < 0.3:
            return chance.choice(process.others)
        if process.popular:
            return chance.choices(process.readable, process.popular)[0]
        return chance.choice(process.readable)

    async def read(self) -> None:
        key, cache = self.any_key(), self.cache
        if self.load.fenced:
            with self.noting(READ, key, delta=0.0) as read:
                await cache.fence()
                read.version = keys.version(await cache.get(key))
            return
        if self.chance.random() < self.load.direct:
            await self.read_directly(key)
            return
        match self.chance.randrange(10):
            case 0:
                names = list({key, *(self.any_key() for _ in range(3))})
                with self.noting(READ, *names) as read:
                    found = await cache.get_many(names)
                    read.versions = {each: keys.version(found.get(each)) for each in names}
            case 1:
                with self.noting(READ, key) as read:
                    read.version = SOMETHING if await cache.has_key(key) else NOTHING
            case _:
                with self.noting(READ, key) as read:
                    read.version = keys.version(await cache.get(key))

    async def read_directly(self, key: str) -> None:
        cache = self.cache
        match self.chance.randrange(6):
            case 0:
                with self.noting(READ, key, delta=0.0) as read:
                    read.version = keys.version(await cache.get(key, fresh=True))
            case 1:
                with self.noting(READ, key, delta=0.0) as read:
                    found = await cache.get_many([key], fresh=True)
                    read.version = keys.version(found.get(key))
            case 2:
                with self.noting(READ, key) as read:
                    read.version = keys.version((await cache.get_with_ttl(key))[0])
            case 3:
                with self.noting(READ, key) as read:
                    pipe = cache.pipeline()
                    pipe.whole.get(key)
                    (found,) = await pipe.execute()
                    read.version = keys.version(found)
            case 4:
                with self.noting(READ, key, delta=0.0) as read:
                    read.version = SOMETHING if await cache.has_key(key, fresh=True) else NOTHING
            case _:
                with self.noting(READ, key, delta=0.0) as read:
                    await cache.fence()
                    read.version = keys.version(await cache.get(key))

    # --- writes -----------------------------------------------------------------------------------

    async def count(self) -> None:
        key = self.chance.choice(self.process.readable)
        with self.noting(WRITE, key) as write:
            try:
                write.version = int(await self.cache.incr(key))
            except ValueError:
                write.outcome = FAILED

    async def write(self) -> None:
        """Write one's own key; after a write of unknown fate another one, as that may still be on its way."""
        try:
            await self.own_write()
        except BaseException:
            own = self.process.own
            self.lives += 1
            own[self.number] = f"s{self.process.recorder.process}.{self.number}.{self.lives}"
            self.process.others.append(own[self.number])
            self.version, self.there = 0, False
            raise

    async def own_write(self) -> None:
        key, cache, chance = self.process.own[self.number], self.cache, self.chance
        next_one = self.version + 1
        point = chance.randrange(10) if self.there else 0
        self.version = next_one
        if point < 4:
            lifetime = chance.choice((None, None, 0.05, 0.2, 60))
            with self.noting(WRITE, key, version=next_one, lifetime=lifetime):
                if point < 3:
                    await cache.set(key, keys.make(key, next_one), timeout=lifetime)
                else:
                    await cache.set_many({key: keys.make(key, next_one)}, timeout=lifetime)
            self.there = lifetime is None or lifetime > 1
        elif point < 7:
            with self.noting(DELETE, key, version=next_one):
                if point < 6:
                    await cache.delete(key)
                else:
                    await cache.delete_many([key])
            self.there = False
        else:
            self.version = next_one - 1
            lifetime = chance.choice((None, 0.05, 0.2, 60))
            with self.noting(TOUCH, key, version=self.version, lifetime=lifetime) as touch:
                if point < 9 or lifetime is None:
                    done = await cache.touch(key, lifetime)
                else:
                    done = await cache.pexpire(key, int(lifetime * 1000))
                if not done and lifetime is not None:
                    touch.outcome = FAILED
            self.there = lifetime is None or lifetime > 1

    async def clear(self) -> None:
        with self.noting(LOSS, EVERY_KEY):
            await self.cache.clear()
        # What this worker wrote itself is gone too, and nothing was lost that it must not write again.
        self.there = False


# --- the process itself -----------------------------------------------------------------------------


def main(load: Workload, orders: Connection) -> None:
    """Do what the parent orders, and send it the outcome at the end."""
    # Dangerous moments are short; more of them are hit if threads change places more often.
    sys.setswitchinterval(0.0002)
    warnings.simplefilter("ignore", DeprecationWarning)
    install(load.mutant)
    audit.PAUSE = 0.01  # a run is short
    process = Process(load)
    children: list[tuple[int, Path]] = []
    while True:
        match orders.recv():
            case "warm", _:
                process.warm()
            case "start", _:
                process.start()
            case "fork", path:
                child = load.process + "'" * (len(children) + 1)
                children.append((fork(process, child, path, seconds=1.0), path))
            case "stop", _:
                process.stop()
            case "look", names:
                process.look(names)
            case "end", _:
                outcome = process.outcome()
                for pid, path in children:
                    os.waitpid(pid, 0)
                    child = pickle.loads(path.read_bytes())
                    outcome.history += child.history
                    outcome.crashes += child.crashes
                orders.send(outcome)
                orders.close()
                # Its threads have nothing to say any more.
                os._exit(0)
        orders.send("done")


def fork(process: Process, child: str, path: Path, seconds: float) -> int:
    """Fork a *child* that goes on with the same cache; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        process.load = replace(process.load, seed=process.load.seed + 1)
        process.begin(child)
        process.start()
        time.sleep(seconds)
        process.stop()
        path.write_bytes(pickle.dumps(process.outcome()))
    finally:
        os._exit(0)
