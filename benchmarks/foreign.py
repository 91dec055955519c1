"""Other processes: writers that know nothing of a near cache, and measurements that need a process to themselves."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

import redis

P = ParamSpec("P")
T = TypeVar("T")

BATCHES = 200
"""How often in a second a flood sends what is due."""


def alone(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return the result of *function* in a process that has done nothing else."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *args, **kwargs).result()


@dataclass(frozen=True)
class Other:
    """Another process, which has started and waits for work."""

    process: ProcessPoolExecutor

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Let it work."""
        return self.process.submit(function, *args, **kwargs)


@contextmanager
def another() -> Iterator[Other]:
    """Start another process, and end it in the end."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        process.submit(int).result()
        yield Other(process)


def flood(url: str, names: list[str], rate: int, seconds: float) -> int:
    """Set *names* in turn, *rate* times a second and evenly; return how many writes were acknowledged."""
    with redis.Redis.from_url(url) as client:
        done, started = 0, time.monotonic()
        while (now := time.monotonic() - started) < seconds:
            due = int(rate * now) + 1
            with client.pipeline(transaction=False) as batch:
                for number in range(done, due):
                    batch.set(names[number % len(names)], number)
                batch.execute()
            done = due
            time.sleep(1 / BATCHES)
    return done


def versions(url: str, name: str, count: int, pause: tuple[float, float]) -> list[int]:
    """Set *name* to 1, 2, 3 …, with random pauses between; return when each write was acknowledged.

    The times are nanoseconds of the monotonic clock, which is one for all processes of a machine.
    """
    acknowledged = []
    with redis.Redis.from_url(url) as client:
        for version in range(1, count + 1):
            client.set(name, version)
            acknowledged.append(time.monotonic_ns())
            time.sleep(random.uniform(*pause))
    return acknowledged
