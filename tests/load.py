"""Load on a cache: threads and tasks that use keys of their own, check every reply, and note every failure.

One worker writes a key, so the worker knows which values a read of the key may return.  `tests/coherence` has a
load of another kind: there everybody writes the same keys, and a checker judges the history of all processes.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import Any, Self

from redis.exceptions import RedisError
from tests.faces import AWAITING, BLOCKING, Face

from fleetcache import Cache
from fleetcache.errors import CircuitOpen
from fleetcache.twin import complete

NOTHING, RECENT, EVERYTHING = "nothing", "recent writes", "everything"
"""What a server may lose: RECENT writes if a replica takes over, EVERYTHING if it starts again empty."""

CROWDS: dict[str, dict[str, Any]] = {
    BLOCKING: {"threads": 8, "tasks": 0, "keys": 1, "pause": 0.005, "counts": True},
    AWAITING: {"threads": 0, "tasks": 200, "keys": 1, "pause": 0.04, "counts": True},
}
"""Arguments of a `Load` in one face, of workers that count too and leave the machine some time."""

_loads = count()


@dataclass
class Ledger:
    """The values that a read of one key may return."""

    key: str
    loses: str
    last: int | None = None
    """The number that was written last."""
    others: set[int | None] = field(default_factory=set)
    """What may be there in its place: a write that failed may be done later, and one that succeeded may be lost."""
    written: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.loses != NOTHING:
            self.others.add(None)

    def begin(self, number: int) -> None:
        """Note that the write of *number* begins."""
        self.written.add(number)
        self.others.add(number)

    def end(self, number: int) -> None:
        """Note that the write of *number* succeeded."""
        self.last = number
        if self.loses != RECENT:
            self.others.discard(number)

    def value(self, number: int) -> list[Any]:
        """Return the value that stands for *number*, and shows which key it belongs to."""
        return [self.key, number]

    def allows(self, value: Any) -> bool:
        """Return whether the writer of the key may read *value* now."""
        number = self._number(value)
        return number == self.last or number in self.others

    def knows(self, value: Any) -> bool:
        """Return whether a reader that is not the writer may read *value*: any number that was written, or nothing."""
        return value is None or self._number(value) in self.written

    def _number(self, value: Any) -> int | None:
        match value:
            case None:
                return None
            case [key, int(number)] if key == self.key:
                return number
        return -1


@dataclass
class Worker:
    """One thread or task, and its keys."""

    name: str
    face: Face
    ledgers: list[Ledger]
    counter: str
    counted: int = 0
    perhaps: int = 0
    """How many increments failed that may have been done."""
    numbers: count[int] = field(default_factory=count)
    succeeded: float = 0.0
    """When the last call that succeeded began."""


class Load:
    """Workers that write, read and, with *counts*, increment until the ``with`` ends; it begins when all have succeeded.

    Each has *keys* keys, and rests for up to *pause* seconds between two calls.  ``wrong`` lists each reply that
    cannot be right, given what the servers may lose (*loses*); ``failures`` each error, and when it was raised.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        threads: int = 2,
        tasks: int = 4,
        keys: int = 16,
        pause: float = 0.0,
        counts: bool = False,
        loses: str = NOTHING,
    ) -> None:
        self.cache = cache
        self.pause = pause
        self.loses = loses
        self.wrong: list[str] = []
        self.failures: list[tuple[float, Exception]] = []
        self.calls = 0
        self.slowest = 0.0
        self.lag = 0.0
        """How much later than it asked for a sleeper was woken, at worst, because the machine was busy."""
        self.over = threading.Event()
        self.steps = [self._write, self._read, self._read, self._read_many, *([self._count] if counts else [])]
        self.workers: list[Worker] = []
        name = f"load{next(_loads)}"
        blocking = [self._worker(f"{name}:thread{number}", BLOCKING, keys) for number in range(threads)]
        awaiting = [self._worker(f"{name}:task{number}", AWAITING, keys) for number in range(tasks)]
        self._threads = [threading.Thread(target=complete, args=(self._work(worker),)) for worker in blocking]
        if blocking:
            self._threads.append(threading.Thread(target=complete, args=(self._pulse(BLOCKING),)))
        if awaiting:
            self._threads.append(threading.Thread(target=self._loop, args=(awaiting,)))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        try:
            self.wait_for_success(time.monotonic())
        except AssertionError:
            self.over.set()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join(20)
        if kind is None:
            assert not any(thread.is_alive() for thread in self._threads), "a call never returned"

    def some_keys(self, number: int) -> list[str]:
        """Return the first keys of the first thread and of the first task, *number* of each."""
        firsts = [next(worker for worker in self.workers if worker.face.face == face) for face in (AWAITING, BLOCKING)]
        return [ledger.key for worker in firsts for ledger in worker.ledgers[:number]]

    def wait_for_success(self, since: float, within: float = 5.0) -> float:
        """Wait until each worker has begun a call after *since* that succeeded; return how long after, at most."""
        deadline = time.monotonic() + within
        while min(worker.succeeded for worker in self.workers) < since:
            assert time.monotonic() < deadline, f"no recovery within {within} s: {self.failures[-3:]} {self.wrong}"
            time.sleep(0.005)
        return max(worker.succeeded for worker in self.workers) - since

    def last_failure(self, since: float) -> float:
        """Return how long after *since* a call failed for the last time, 0 if none did."""
        return max((moment - since for moment, _ in list(self.failures)), default=0.0)

    # --- workers ----------------------------------------------------------------------------------

    def _worker(self, name: str, face: str, keys: int) -> Worker:
        ledgers = [Ledger(f"{name}:{number}", self.loses) for number in range(keys)]
        worker = Worker(name, Face(self.cache, face), ledgers, f"{name}:count")
        self.workers.append(worker)
        return worker

    def _loop(self, workers: list[Worker]) -> None:
        async def work() -> None:
            async with asyncio.TaskGroup() as group:
                for each in (self._pulse(AWAITING), *map(self._work, workers)):
                    group.create_task(each)

        # Development mode would switch on the loop's own, which is ten times slower.
        with asyncio.Runner(debug=False) as runner:
            runner.run(work())

    async def _pulse(self, face: str) -> None:
        while not self.over.is_set():
            started = time.monotonic()
            await _sleep(face, 0.02)
            self.lag = max(self.lag, time.monotonic() - started - 0.02)

    async def _work(self, worker: Worker) -> None:
        chance = random.Random(worker.name)
        try:
            while not self.over.is_set():
                ledger, step = chance.choice(worker.ledgers), chance.choice(self.steps)
                succeeded = await self._timed(worker, step(worker, ledger))
                pause = self.pause if succeeded else max(5 * self.pause, 0.02)
                await _sleep(worker.face.face, pause * chance.random())
        except Exception as error:
            self.wrong.append(f"{worker.name}: {error!r}")

    async def _timed(self, worker: Worker, step: Coroutine[Any, Any, None]) -> bool:
        """Take a step, note its outcome, and return whether it succeeded."""
        started, succeeded = time.monotonic(), False
        try:
            await step
        except RedisError as error:
            self.failures.append((time.monotonic(), error))
        else:
            worker.succeeded, succeeded = started, True
        self.slowest = max(self.slowest, time.monotonic() - started)
        self.calls += 1
        return succeeded

    # --- steps ------------------------------------------------------------------------------------

    async def _write(self, worker: Worker, ledger: Ledger) -> None:
        number = next(worker.numbers)
        ledger.begin(number)
        if await worker.face.set(ledger.key, ledger.value(number)) is not True:
            self.wrong.append(f"{ledger.key}: set() was not True")
        ledger.end(number)

    async def _read(self, worker: Worker, ledger: Ledger) -> None:
        self._check(ledger, await worker.face.get(ledger.key))

    async def _read_many(self, worker: Worker, ledger: Ledger) -> None:
        other = random.choice(random.choice(self.workers).ledgers)
        found = await worker.face.get_many([each.key for each in (*worker.ledgers, other)])
        for each in worker.ledgers:
            self._check(each, found.get(each.key))
        if not other.knows(found.get(other.key)):
            self.wrong.append(f"{other.key}: {found[other.key]}")

    async def _count(self, worker: Worker, _: Ledger) -> None:
        # Only a command that was refused before it was sent is known not to have run.
        try:
            total = await worker.face.incr(worker.counter, default=0)
        except CircuitOpen:
            raise
        except RedisError:
            worker.perhaps += 1
            raise
        worker.counted += 1
        least = worker.counted if self.loses == NOTHING else 1
        if not least <= total <= worker.counted + worker.perhaps:
            self.wrong.append(f"{worker.counter}: {total} after {worker.counted} + {worker.perhaps}")

    def _check(self, ledger: Ledger, value: Any) -> None:
        if not ledger.allows(value):
            self.wrong.append(f"{ledger.key}: {value}, not {ledger.last} or {ledger.others}")


async def _sleep(face: str, seconds: float) -> None:
    if face == AWAITING:
        await asyncio.sleep(seconds)
    else:
        time.sleep(seconds)
