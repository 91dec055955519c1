"""A fleet: processes of which each has all contenders' caches, and in which many callers ask for one key.

All callers of all processes begin at one moment of the monotonic clock, which is one for all processes of a machine.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis

from benchmarks.foreign import Other, another
from benchmarks.loading.peers import AWAITING, BLOCKING, NAMES, NEARS, Life, Work
from fleetcache.testing.servers import EmbeddedServer

PROCESSES = 4
BEAT = 0.005
"""Seconds between two pings of a thread that only pings."""
LEAD = 0.15
"""Seconds from the order to begin to the beginning: time for all processes to make their callers."""


@dataclass(frozen=True)
class Task:
    """What the callers of one process are to do."""

    name: str
    url: str
    life: Life
    cost: float
    callers: int
    key: str
    begin: int
    """When the first calls begin, in nanoseconds of the monotonic clock."""
    seconds: float = 0.0
    """For how long they call again and again; 0: once."""
    pause: float = 0.0
    """The mean of the pauses between two calls of a caller, in seconds."""


@dataclass
class Seen:
    """What callers saw.  Moments are nanoseconds of the monotonic clock."""

    loads: list[int] = field(default_factory=list)
    """When each load began."""
    calls: list[tuple[int, int, int]] = field(default_factory=list)
    """When each call began and ended, and when the value was made that it returned."""
    errors: list[str] = field(default_factory=list)
    waits: list[tuple[int, int]] = field(default_factory=list)
    """When each call began and ended that took more than half of a load's time, delays of the machine taken off."""

    def add(self, other: Seen) -> None:
        self.loads += other.loads
        self.calls += other.calls
        self.errors += other.errors
        self.waits += other.waits


class Watch(threading.Thread):
    """A thread that only pings the server: what delays it are the machine and other work, and no cache."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.client = redis.Redis.from_url(url)
        self.client.ping()
        self.done = threading.Event()
        self.delays: list[tuple[int, int]] = []
        """From when to when a ping was late."""

    def run(self) -> None:
        before = time.monotonic_ns()
        while not self.done.wait(BEAT):
            self.client.ping()
            now = time.monotonic_ns()
            if now - before > 4 * BEAT * 1e9:
                self.delays.append((before, now))
            before = now
        self.client.close()

    def taken_off(self, began: int, ended: int) -> int:
        """Return how many nanoseconds of the time from *began* to *ended* were no delay."""
        return ended - began - sum(max(0, min(ended, end) - max(began, start)) for start, end in self.delays)


class Member:
    """One contender in one process: its cache, its loader, and its loop if it has one."""

    def __init__(self, name: str, url: str, life: Life, cost: float) -> None:
        self.work = Work(cost)
        self.runner: asyncio.Runner | None = None
        if name in BLOCKING:
            self.read: Any = BLOCKING[name](url, life, self.work)
        else:
            self.runner = asyncio.Runner()
            self.read = self.runner.run(self.made(name, url, life))

    async def made(self, name: str, url: str, life: Life) -> Any:
        return AWAITING[name](url, life, self.work)

    def meet(self, task: Task) -> Seen:
        """Let the callers begin together; return what they saw."""
        seen = Seen()
        self.work.loads.clear()
        watch = Watch(task.url)
        watch.start()
        if self.runner:
            self.runner.run(self.arrived(task, seen))
        else:
            self.threads(task, seen)
        watch.done.set()
        watch.join()
        long = [(began, ended) for began, ended, _ in seen.calls if ended - began > task.cost / 2 * 1e9]
        seen.waits = [wait for wait in long if watch.taken_off(*wait) > task.cost / 2 * 1e9]
        seen.loads += self.work.loads
        return seen

    def threads(self, task: Task, seen: Seen) -> None:
        start = threading.Event()

        def caller() -> None:
            start.wait()
            end = task.begin + task.seconds * 1e9
            while True:
                began = time.monotonic_ns()
                try:
                    note(seen, task, began, self.read(task.key))
                except Exception as error:
                    seen.errors.append(f"{type(error).__name__}: {error}")
                if time.monotonic_ns() >= end:
                    return
                time.sleep(random.uniform(0, 2 * task.pause))

        callers = [threading.Thread(target=caller) for _ in range(task.callers)]
        for each in callers:
            each.start()
        time.sleep(max(0, task.begin - time.monotonic_ns()) / 1e9)
        start.set()
        for each in callers:
            each.join()

    async def arrived(self, task: Task, seen: Seen) -> None:
        start = asyncio.Event()

        async def caller() -> None:
            await start.wait()
            end = task.begin + task.seconds * 1e9
            while True:
                began = time.monotonic_ns()
                try:
                    note(seen, task, began, await self.read(task.key))
                except Exception as error:
                    seen.errors.append(f"{type(error).__name__}: {error}")
                if time.monotonic_ns() >= end:
                    return
                await asyncio.sleep(random.uniform(0, 2 * task.pause))

        async with asyncio.TaskGroup() as group:
            for _ in range(task.callers):
                group.create_task(caller())
            await asyncio.sleep(max(0, task.begin - time.monotonic_ns()) / 1e9)
            start.set()


def note(seen: Seen, task: Task, began: int, value: Any) -> None:
    """Take in a call that ends now, or raise if its value is not the key's."""
    ended = time.monotonic_ns()
    if value["key"] != task.key:
        raise ValueError("returned the value of another key")
    seen.calls.append((began, ended, value["made"]))


_members: dict[tuple[str, Life], Member] = {}
"""The contenders of this process."""


def meet(task: Task) -> Seen:
    """Do *task* in this process, with the cache that it has already if there is one."""
    member = _members.get((task.name, task.life))
    if member is None:
        member = _members[task.name, task.life] = Member(task.name, task.url, task.life, task.cost)
    return member.meet(task)


@dataclass
class Fleet:
    """The processes, and where each contender has its data."""

    others: list[Other]
    urls: dict[str, str]

    def meet(self, name: str, life: Life, cost: float, key: str, callers: int, **more: Any) -> tuple[int, Seen]:
        """Let the callers of all processes begin together; return when that was, and what they saw."""
        begin = time.monotonic_ns() + int(LEAD * 1e9)
        task = Task(name, self.urls[name], life, cost, callers, key, begin, **more)
        seen, results = Seen(), [other.start(meet, task) for other in self.others]
        for result in results:
            seen.add(result.result())
        return begin, seen

    def commands(self, name: str) -> int:
        """Return how many commands the contender's server has carried out."""
        with redis.Redis.from_url(self.urls[name]) as client:
            return int(client.info("stats")["total_commands_processed"])

    def alone(self, name: str, life: Life, cost: float, key: str) -> Seen:
        """Let one caller of one process call once."""
        task = Task(name, self.urls[name], life, cost, 1, key, time.monotonic_ns())
        result: Future[Seen] = self.others[0].start(meet, task)
        return result.result()


@contextmanager
def fleet() -> Iterator[Fleet]:
    """Start the servers and the processes, and end them in the end."""
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedServer(port=True))
        urls = {}
        for database, name in enumerate(NAMES, start=1):
            if name in NEARS:
                urls[name] = stack.enter_context(EmbeddedServer(port=True)).tcp_url()
            else:
                urls[name] = server.tcp_url(database)
        yield Fleet([stack.enter_context(another()) for _ in range(PROCESSES)], urls)
