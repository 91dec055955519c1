"""Load that checks every reply, in threads or in tasks, and notes how long each call took."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from redis.exceptions import ConnectionError, TimeoutError
from tests.faces import AWAITING, Face

from fleetcache import Cache
from fleetcache.errors import CircuitOpen
from fleetcache.twin import complete

LIMIT = 0.4
"""Seconds for connecting, and again for an operation."""

SLACK = 0.4
"""What a busy machine may add to a deadline."""

HASTY = {"socket_timeout": LIMIT, "socket_connect_timeout": LIMIT}
PATIENT = {"socket_timeout": 10, "socket_connect_timeout": 10}
"""For tests that are not about deadlines, and run on busy machines."""
WORKERS = {"blocking": 8, "awaiting": 200}


def wait_until_admitted(cache: Any, limit: float = 2.0) -> float:
    """Wait until a probe has found the server of *cache* well again; return how many seconds that took."""
    started = time.monotonic()
    while cache.topology.primaries[0].away:
        assert time.monotonic() - started < limit, "callers are still refused"
        time.sleep(0.002)
    return time.monotonic() - started


@dataclass
class Ledger:
    """What may be read back from one worker's keys."""

    key: str
    written: int = 0
    certain: int | None = None
    doubtful: set[int] = field(default_factory=set)
    counted: int = 0
    perhaps: int = 0


class Load:
    """Workers that write, read and count under keys of their own until the ``with`` ends.

    ``wrong`` lists each reply that cannot be right.  With *forgetful* the server may have lost
    everything, and then nothing is a right answer too.
    """

    def __init__(self, cache: Cache, face: str, *, forgetful: bool = False, pause: float = 0.02) -> None:
        self.cache = Face(cache, face)
        self.face = face
        self.forgetful = forgetful
        self.pause = pause
        self.wrong: list[str] = []
        self.failures: list[tuple[float, Exception]] = []
        self.slowest = 0.0
        self.lag = 0.0
        """How late a busy machine woke somebody up who asked for it, at worst."""
        self.calls = 0
        self.fresh: dict[int, float] = {}
        """When each worker last succeeded."""
        self.ledgers = [Ledger(f"key{number}") for number in range(WORKERS[face])]
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        if self.face == AWAITING:
            self._threads = [threading.Thread(target=self._run)]
        else:
            self._threads = [
                threading.Thread(target=complete, args=(self._work(number),)) for number in range(len(self.ledgers))
            ]
            self._threads.append(threading.Thread(target=complete, args=(self._pulse(),)))
        for thread in self._threads:
            thread.start()
        self.wait_for_success(time.monotonic())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
        if kind is None:
            assert not any(thread.is_alive() for thread in self._threads), "a call never returned"

    def wait_for_success(self, since: float, within: float = 5.0) -> float:
        """Wait until every worker succeeded after *since*; return how long after that the last one did."""
        deadline = time.monotonic() + within
        while len(self.fresh) < len(self.ledgers) or min(self.fresh.values()) < since:
            assert time.monotonic() < deadline, f"no recovery within {within} s: {self.failures[-3:]}"
            time.sleep(0.005)
        return max(self.fresh.values()) - since

    def last_failure(self, since: float) -> float:
        """Return how long after *since* a call failed for the last time, 0 if none did."""
        return max((moment - since for moment, _ in list(self.failures)), default=0.0)

    def _run(self) -> None:
        # Development mode would switch on the loop's own, which is ten times slower.
        with asyncio.Runner(debug=False) as runner:
            runner.run(self._all())

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pulse())
            for number in range(len(self.ledgers)):
                group.create_task(self._work(number))

    async def _sleep(self, seconds: float) -> None:
        if self.face == AWAITING:
            await asyncio.sleep(seconds)
        else:
            time.sleep(seconds)

    async def _pulse(self) -> None:
        while not self._stop.is_set():
            started = time.monotonic()
            await self._sleep(0.02)
            self.lag = max(self.lag, time.monotonic() - started - 0.02)

    async def _work(self, number: int) -> None:
        ledger, chance = self.ledgers[number], random.Random(number)
        try:
            while not self._stop.is_set():
                step = chance.choice((self._write, self._read, self._read, self._read_two, self._count))
                succeeded = await self._timed(number, step(ledger))
                pause = (self.pause if succeeded else 5 * self.pause) * chance.random()
                await self._sleep(2 * pause if self.face == AWAITING else pause / 4)
        except Exception as error:
            self.wrong.append(f"{ledger.key}: {error!r}")

    async def _timed(self, number: int, step: Coroutine[Any, Any, None]) -> bool:
        """Take a step, note what came of it, and return whether it succeeded."""
        started, succeeded = time.monotonic(), False
        try:
            await step
        except (ConnectionError, TimeoutError) as error:
            self.failures.append((time.monotonic(), error))
        else:
            self.fresh[number], succeeded = started, True
        self.slowest = max(self.slowest, time.monotonic() - started)
        self.calls += 1
        return succeeded

    async def _write(self, ledger: Ledger) -> None:
        ledger.written += 1
        number = ledger.written
        ledger.doubtful.add(number)
        if await self.cache.set(ledger.key, [ledger.key, number]) is not True:
            self.wrong.append(f"{ledger.key}: set() was not True")
        ledger.doubtful.discard(number)
        ledger.certain = number

    async def _read(self, ledger: Ledger) -> None:
        self._check(ledger, await self.cache.get(ledger.key))

    async def _read_two(self, ledger: Ledger) -> None:
        other = random.choice(self.ledgers)
        found = await self.cache.get_many([ledger.key, other.key])
        self._check(ledger, found.get(ledger.key))
        value = found.get(other.key)
        if value is not None and (value[0] != other.key or not 0 < value[1] <= other.written):
            self.wrong.append(f"{other.key}: {value}")

    async def _count(self, ledger: Ledger) -> None:
        # Only a command that was refused before it was sent is known not to have run.
        try:
            total = await self.cache.incr(f"count-{ledger.key}", default=0)
        except CircuitOpen:
            raise
        except (ConnectionError, TimeoutError):
            ledger.perhaps += 1
            raise
        ledger.counted += 1
        least = 1 if self.forgetful else ledger.counted
        if not least <= total <= ledger.counted + ledger.perhaps:
            self.wrong.append(f"{ledger.key}: counted {total} after {ledger.counted} + {ledger.perhaps}")

    def _check(self, ledger: Ledger, value: Any) -> None:
        if value is None:
            if ledger.certain is not None and not self.forgetful:
                self.wrong.append(f"{ledger.key}: lost {ledger.certain}")
        elif value[0] != ledger.key or (value[1] != ledger.certain and value[1] not in ledger.doubtful):
            self.wrong.append(f"{ledger.key}: {value}, not {ledger.certain} or {ledger.doubtful}")
