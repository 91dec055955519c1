"""Signals raise in the middle of an event loop that is used again: nobody gets another's value, and nothing is left.

``FLEETCACHE_INTERRUPTS=2000`` makes an ordeal of it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import re
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from types import FrameType
from typing import Any, Self

import pytest
from redis.exceptions import LockError
from tests.caches import TRANSPORTS
from tests.waiting import PATIENCE, until

from fleetcache import Cache
from fleetcache.client import ShardClient
from fleetcache.exchange.contract import Verb
from fleetcache.exchange.multiplexed import AT_ONCE
from fleetcache.locks.lock import Lock
from fleetcache.servers.remote import APART

from .deadlines import PATIENT
from .interrupts import is_finalizing

LIST_CLIENTS = Verb("CLIENT", harmless=True, key=0)

INTERRUPTS = int(os.environ.get("FLEETCACHE_INTERRUPTS", "60"))
TASKS = 12
LARGE = b"l" * (APART + 1)
PLACES = ["valkey-tcp", "valkey-unix", "redis-tls", "shards", "cluster", "sentinel", "near", "capped"]
PLACES += ["near-shards", "near-cluster", "near-sentinel"]
"""Where the caches are; a name that begins with ``near`` or ``capped`` says that the cache has NEAR and MAX_CONNECTIONS."""

pytestmark = [
    pytest.mark.timeout(180 + INTERRUPTS / 4, method="thread"),  # the other method needs the timer
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # redis-py's __del__ is met, too
    pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning"),  # the interrupt came before its first step
]


class TimeLimit(Exception):
    """What a job queue raises in a job that takes too long."""


class Interrupts:
    """A timer that raises *error*, at a random instant of what `run` runs, and notes where each of them was heard."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error
        self.armed = False
        self.raised = 0
        self.heard: set[int] = set()
        """The numbers of the interrupts that left the loop, ended a task, or reached the loop's exception handler."""
        self.finalized: set[int] = set()
        """The numbers of the interrupts in finalizers and callbacks of weak references, where Python loses them."""
        self.stacks: dict[int, list[str]] = {}
        """Where each of them was raised."""

    def __enter__(self) -> Self:
        self.before = signal.signal(signal.SIGALRM, self._raise)
        self.hook, sys.unraisablehook = sys.unraisablehook, lambda told: self._note(told.exc_value, self.finalized)
        return self

    def __exit__(self, *_: object) -> None:
        self.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)
        sys.unraisablehook = self.hook

    @property
    def lost(self) -> list[str]:
        """Where the interrupts were raised that nobody heard."""
        return ["".join(self.stacks[number]) for number in self.stacks.keys() - self.heard - self.finalized]

    def hear(self, error: BaseException | None) -> None:
        """Note which interrupt *error* is, or was made of."""
        self._note(error, self.heard)

    def _raise(self, _: int, frame: FrameType | None) -> None:
        if self.armed:
            self.armed = False
            self.raised += 1
            self.stacks[self.raised] = traceback.format_stack(frame, limit=6)
            if is_finalizing(frame):
                self.finalized.add(self.raised)
            raise self.error("interrupted", self.raised)

    def _note(self, error: BaseException | None, numbers: set[int]) -> None:
        while error is not None:
            if isinstance(error, self.error) and error.args[:1] == ("interrupted",):
                numbers.add(error.args[1])
            error = error.__cause__ or error.__context__

    def run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run *loop* until it is interrupted, or a little longer if the loop catches what was raised."""
        ends = [loop.call_later(seconds, loop.stop) for seconds in (0.006, 0.05)]  # one may be lost
        try:  # until nothing can raise any more
            try:
                self.armed = True
                signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0002, 0.004))
                loop.run_forever()
            except self.error as error:
                self.hear(error)
            self.armed = False
        except self.error as error:
            self.hear(error)
        for end in ends:
            end.cancel()


class Ordeal:
    """Tasks of one loop that check every value, and what became of them after each interrupt."""

    def __init__(self, cache: Cache, error: type[BaseException], *, large: bool = False) -> None:
        self.cache = cache
        self.large = large
        """Whether some tasks store what travels on a connection of its own."""
        self.interrupts = Interrupts(error)
        self.loop = asyncio.new_event_loop()
        self.loop.set_debug(False)  # it is ten times slower
        self.loop.set_exception_handler(lambda loop, context: self.interrupts.hear(context.get("exception")))
        self.wrong: list[Any] = []
        self.hung: list[Any] = []
        self.errors: list[BaseException] = []
        self.lost: list[asyncio.Task[Any]] = []
        """Tasks that asyncio itself never wakes: the exception was raised while it scheduled them."""
        self.reads = 0
        self.locks: dict[int, Lock] = {}
        self.generations = Counter[int]()

    def run(self, interrupts: int) -> None:
        with self.interrupts:
            self.loop.run_until_complete(self._begin())
            while self.interrupts.raised < interrupts:
                tasks = [self.loop.create_task(self._work(number)) for number in range(TASKS)]
                workers = dict(enumerate(tasks))
                self.interrupts.run(self.loop)
                self._finish(tasks)
                # A task that asyncio never wakes may hold its lock for ever.
                self.generations.update(number for number, task in workers.items() if task in self.lost)
                ended = [number for number, task in workers.items() if task not in self.lost]
                self._finish([self.loop.create_task(self._look(ended))])

    def _finish(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Let *tasks* end without further interrupts."""
        started, seen = time.monotonic(), Counter()
        while pending := [task for task in tasks if not task.done()]:
            try:
                self.loop.run_until_complete(asyncio.wait(pending, timeout=0.02))
            except self.interrupts.error as error:  # that of a task is raised again by the one that gathers it
                self.interrupts.hear(error)
            # One that nothing but a turn of the loop is missing to, and that has had many.
            seen.update((task, task._fut_waiter) for task in pending if not task.done() and due(task))
            for task in {task for (task, _), looks in seen.items() if looks > 4 and task in tasks}:
                self.lost.append(task)
                tasks.remove(task)
            if time.monotonic() - started > PATIENCE:
                self.hung += pending
                return
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                self.interrupts.hear(error)
                if not isinstance(error, self.interrupts.error):
                    self.errors.append(error)

    async def _begin(self) -> None:
        await self.cache.aset_many({f"key{number}": value(number) for number in range(TASKS)}, None)

    async def _look(self, ended: list[int]) -> None:
        """Check that nothing is left of an interrupt: values are right, locks and places are free.

        *ended* are the numbers of the tasks that ended.
        """
        self._check([await self.cache.aget(f"key{number}") for number in range(TASKS)], range(TASKS))
        for number in ended:
            if (lock := self.locks.pop(number, None)) is not None:
                await self._free(lock)
        if self.large and not any(task.get_name() == "large" for task in self.lost):
            lines = [line for server in self.cache.topology.primaries for line in server.lines.values()]
            self.wrong += [("place lost", line.room) for line in lines if line.room._value != AT_ONCE]

    async def _free(self, lock: Lock) -> None:
        """Release *lock* if its holder was interrupted, and check that nobody else has it."""
        if getattr(lock.local, "token", None) is not None:
            with suppress(LockError):
                await lock.arelease()
        deadline = time.monotonic() + PATIENCE
        while await lock.alocked():  # what an interrupted acquire left is given back soon
            if time.monotonic() > deadline:
                self.wrong.append(("lock left", lock.name))
                return
            await asyncio.sleep(0.005)

    async def _work(self, number: int) -> None:
        for step in range(2):
            other = (number * 7 + step) % TASKS
            self._check([await self.cache.aget(f"key{number}")], [number])
            found = await self.cache.aget_many([f"key{other}", f"key{number}"])
            self._check([found.get(f"key{other}"), found.get(f"key{number}")], [other, number])
            await self.cache.aset(f"own{number}", [number, step])
            if (await self.cache.aget(f"own{number}", [number]))[0] != number:
                self.wrong.append(("own", number))
            await self.cache.attl(f"key{other}")
        await self._lock(number)
        if self.large and number < 2:
            asyncio.current_task().set_name("large")
            await self.cache.aset(f"large{number}", LARGE)
            if await self.cache.aget(f"large{number}", LARGE) != LARGE:
                self.wrong.append(("large", number))

    async def _lock(self, number: int) -> None:
        lock = self.cache.lock(f"lock{number}-{self.generations[number]}", blocking=False)
        self.locks[number] = lock
        if await lock.aacquire():
            await lock.arelease()
            del self.locks[number]
        else:
            self.wrong.append(("lock taken", number))

    def _check(self, found: list[Any], numbers: Any) -> None:
        self.reads += len(found)
        right = [value(number) for number in numbers]
        if found != right:
            self.wrong.append((found, right))

    def end(self, *steps: Coroutine[Any, Any, Any]) -> None:
        """Take *steps* in the loop, and close it."""
        for step in steps:
            self.loop.run_until_complete(step)
        left = [task for task in asyncio.all_tasks(self.loop) if task not in self.lost and not due(task)]
        self.loop.close()
        assert left == []


def due(task: asyncio.Future[Any]) -> bool:
    """Whether all that *task* waits for has come."""
    waits_for = getattr(task, "_fut_waiter", task)
    children = getattr(waits_for, "_children", None)
    return waits_for is None or waits_for.done() or (children is not None and all(map(due, children)))


def value(number: int) -> list[Any]:
    """Return what key *number* holds: small ones, and some of several segments."""
    return [number, "v" * (20_000 if number == 3 else number)]


@pytest.mark.alone
@pytest.mark.few(3)
@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeLimit, TimeoutError])
@pytest.mark.parametrize("place", PLACES)
def test_an_interrupted_loop(request, place, error):
    """Whatever a signal's handler raises, wherever it does: no task reads another's value, hangs or stays behind."""
    cache = cache_at(place, request)
    ordeal = Ordeal(cache, error, large=place == "capped")

    ordeal.run(INTERRUPTS)

    interrupts = ordeal.interrupts
    print(
        f"{interrupts.raised} interrupts, {len(interrupts.heard)} heard, {len(interrupts.finalized)} in a finalizer, "
        f"{len(interrupts.lost)} lost; {ordeal.reads} reads, {len(ordeal.lost)} tasks that asyncio lost; "
        f"{len(ordeal.wrong)} wrong, {len(ordeal.hung)} hung, {len(ordeal.errors)} ended by another's interrupt",
        *interrupts.lost,
        sep="\n",
    )
    assert ordeal.wrong == []
    assert ordeal.hung == []
    assert [error for error in ordeal.errors if not benign(error)] == []
    ordeal.end(cache.aclose())
    until(lambda: awaiting_connections(cache) == 0)
    assert interrupts.lost == []
    assert len(ordeal.lost) < 0.2 * ordeal.interrupts.raised + 5
    del ordeal
    gc.collect()  # while its complaints are ignored


@pytest.mark.parametrize("step", ["watch", "keep"])
def test_an_interrupt_as_a_connection_arrives(request, monkeypatch, step):
    """The loop does not keep a connection that no caller has; the next caller gets a new one."""
    cache = cache_at("valkey-tcp", request)
    server = cache.topology.primaries[0]
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)
    watched = loop.add_reader

    def interrupted(*arguments: Any) -> None:
        if step == "watch":
            watched(*arguments)
        raise TimeLimit

    monkeypatch.setattr(*((loop, "add_reader") if step == "watch" else (server, "_begin")), interrupted)
    with pytest.raises(TimeLimit):
        loop.run_until_complete(cache.aget("a"))
    monkeypatch.undo()

    until(lambda: awaiting_connections(cache) == 0)
    assert loop.run_until_complete(cache.aget("a")) is None
    loop.run_until_complete(cache.aclose())
    loop.close()


def benign(error: BaseException) -> bool:
    """Whether an interrupted loop may have made this error: of a command that cannot be repeated."""
    return "interrupted the event loop" in str(error)


def cache_at(place: str, request: pytest.FixtureRequest) -> Cache:
    """Return a cache of this test's own, whose connections bear its name."""
    name = f"loops-{random.getrandbits(40):x}"
    options: dict[str, Any] = {**PATIENT, "CLOSE_CONNECTION": True, "client_name": name}
    near, _, kind = place.rpartition("-") if place.startswith("near") else ("", "", place)
    if near or place in {"near", "capped"}:
        options |= {"MAX_CONNECTIONS": 3, "NEAR": place != "capped"}
    place = {"near": "valkey-tcp", "capped": "valkey-tcp"}.get(kind, kind)
    params = {"KEY_PREFIX": name, "OPTIONS": options}
    if place == "shards":
        valkey = request.getfixturevalue("valkey")
        return ShardClient([valkey.tcp_url(11), valkey.tcp_url(12)], params)
    return Cache(TRANSPORTS[place](request.getfixturevalue, 9), params)


def awaiting_connections(cache: Cache) -> int:
    """Return how many connections this cache has, but for those of the blocking face and those that listen."""
    cache.close()
    found = 0
    for server in cache.topology.primaries:
        (known,) = server.exchange([(LIST_CLIENTS, "LIST")])
        ours = [client for client in known.decode().splitlines() if f" name={cache.key_prefix} " in client]
        found += len([client for client in ours if not re.search(r"flags=\w*t|cmd=client\|list", client)])
    return found
