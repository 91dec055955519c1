"""Reads and writes without pause in both faces, which notice what is wrong, what fails, and what takes long."""

from __future__ import annotations

import asyncio
import threading
from itertools import count
from time import monotonic
from typing import Any, Self

from redis.exceptions import RedisError

_loads = count()


class Load:
    """Threads and tasks that write numbers to keys of their own, and read them back.

    *lossy*: writes may be lost that were acknowledged, as a primary does that dies.
    """

    def __init__(self, cache: Any, threads: int = 2, tasks: int = 4, keys: int = 16, lossy: bool = False) -> None:
        self.cache = cache
        self.name = f"load{next(_loads)}"
        self.lossy = lossy
        self.keys = keys
        self.calls = 0
        self.slowest = 0.0
        self.wrong: list[str] = []
        self.errors: list[tuple[float, Exception]] = []
        self.over = threading.Event()
        self.workers = [threading.Thread(target=self._block, args=(f"thread{each}",)) for each in range(threads)]
        self.workers.append(threading.Thread(target=lambda: asyncio.run(self._await(tasks))))

    def __enter__(self) -> Self:
        for worker in self.workers:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for worker in self.workers:
            worker.join(30)
        assert not any(worker.is_alive() for worker in self.workers)

    def _steps(self, name: str):
        """Yield what to do, as a method and its arguments, and take what came of it."""
        name = f"{self.name}:{name}"
        numbers = {f"{name}:{key}": [None] for key in range(self.keys)}
        for number in range(10**9):
            key = f"{name}:{number % self.keys}"
            stored = yield "set", (key, number)
            # A write that failed may have been done nevertheless.
            numbers[key] = [number] if stored is True and not self.lossy else [*numbers[key], number]
            found = yield "get", (key,)
            if not isinstance(found, Exception) and found not in numbers[key]:
                self.wrong.append(f"{key}: {found} where {numbers[key]} was written")
            if number % self.keys == 0:
                found = yield "get_many", (list(numbers),)
                for key, value in found.items() if isinstance(found, dict) else ():
                    if value not in numbers[key]:
                        self.wrong.append(f"{key}: {value} among many where {numbers[key]} was written")

    def _note(self, began: float, result: Any) -> Any:
        self.calls += 1
        self.slowest = max(self.slowest, monotonic() - began)
        if isinstance(result, Exception):
            self.errors.append((monotonic(), result))
        return result

    def _block(self, name: str) -> None:
        steps = self._steps(name)
        step = next(steps)
        while not self.over.is_set():
            began = monotonic()
            try:
                result = getattr(self.cache, step[0])(*step[1])
            except RedisError as error:
                result = error
                self.over.wait(0.01)
            step = steps.send(self._note(began, result))

    async def _await(self, tasks: int) -> None:
        async def one(name: str) -> None:
            steps = self._steps(name)
            step = next(steps)
            while not self.over.is_set():
                began = monotonic()
                try:
                    result = await getattr(self.cache, f"a{step[0]}")(*step[1])
                except RedisError as error:
                    result = error
                    await asyncio.sleep(0.01)
                step = steps.send(self._note(began, result))

        await asyncio.gather(*(one(f"task{each}") for each in range(tasks)))
