"""The load of one process: threads and tasks that call `get_or_set`, read, change the database and invalidate."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from math import inf, isfinite
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError
from tests.coherence.database import FOREIGN, Database, Journal
from tests.coherence.loadmutants import install
from tests.coherence.loads import (
    CANCELLED,
    CLEAR,
    DONE,
    DOUBTFUL,
    ERROR,
    EVERYTHING,
    FAILED,
    GET,
    GET_OR_SET,
    LOOKUP,
    LOSS,
    QUIT,
    RAISED,
    SET,
    SKIPPED,
    TAG,
    THROTTLED,
    TIMED_OUT,
    Terms,
)
from tests.faces import AWAITING, BLOCKING, Face

from fleetcache import Cache
from fleetcache.errors import LoadFailed
from fleetcache.loading.load import current_load
from fleetcache.policy import Policy
from fleetcache.twin import complete

THREADS, TASKS, BOTH = "threads", "tasks", "both"
CRASHED = "crashed"


class Broken(Exception):
    """What a loader raises."""


class Quit(BaseException):
    """What ends a loader and its caller, such as `SystemExit`."""


@dataclass(frozen=True)
class Workload:
    """The settings of the load of one process."""

    seed: int
    directory: Path = Path()
    """Where its journal is, and the database."""
    face: str = BOTH
    process: str = "a"
    url: str = ""
    prefix: str = "loads"
    near: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    timeout: float = 2.0
    terms: Terms = Terms()
    workers: int = 3
    """In threads, and as many in tasks."""
    keys: int = 3
    pause: float = 0.01
    """Seconds between two operations of a worker, on average."""
    shortest: float = 0.002
    longest: float = 0.1
    """Seconds that a load takes."""
    kinds: tuple[str, ...] = ()
    """The kinds of invalidations, of which each is as likely as the others."""
    lives: tuple[float, ...] = (inf, 0.2, 0.05, 0.05)
    """The lives of values that are set."""
    invalidates: float = 0.03
    """The part of the operations that invalidate."""
    reads: float = 0.15
    """The part of the operations that only read."""
    many: float = 0.1
    """The part of the loads that are of several keys."""
    tagged: bool = True
    refreshes: float = 0.0
    fails: float = 0.0
    skips: float = 0.0
    renew: str = "caller"
    quits: float = 0.0
    kills: float = 0.0
    cancels: float = 0.0
    mutant: str | None = None

    @property
    def names(self) -> list[str]:
        """The keys."""
        return [f"k{number}" for number in range(self.keys)]

    def tags(self, key: str) -> tuple[str, ...]:
        """Return the tags of *key*: every second key has some."""
        return () if not self.tagged or int(key[1:]) % 2 == 0 else ("all", f"t{key[1:]}")

    @property
    def policy(self) -> Policy:
        """The policy of all loads."""
        terms = self.terms
        return Policy(
            timeout=terms.timeout if isfinite(terms.timeout) else None,
            stale_while_revalidate=terms.stale_while_revalidate,
            stale_if_error=terms.stale_if_error,
            early=terms.early,
            jitter=terms.jitter,
            lease=terms.lease,
            wait=terms.wait,
            retry_after=terms.retry_after,
            soft_timeout=terms.soft_timeout if isfinite(terms.soft_timeout) else None,
            hard_timeout=terms.hard_timeout if isfinite(terms.hard_timeout) else None,
            renew=self.renew,
        )


class Process:
    """The load of one process."""

    def __init__(self, load: Workload) -> None:
        self.load = load
        params = {"KEY_PREFIX": load.prefix, "TIMEOUT": None}
        options = {"socket_timeout": load.timeout, "socket_connect_timeout": load.timeout, "NEAR": load.near}
        if load.url.startswith("memory:"):
            options = {}
        self.cache = Cache(load.url, {**params, "OPTIONS": {**options, **load.options}})
        self.database = Database(load.directory / "database", load.names)
        self.journal = Journal(load.directory / load.process)
        self.policy = load.policy
        self.numbers = count(1)
        self.keys: dict[str, str] = {}
        """The keys of the loads."""
        self.stopping = threading.Event()
        self.threads: list[threading.Thread] = []

    def number(self) -> str:
        """Return a name that no other operation has."""
        return f"{self.load.process}.{next(self.numbers)}"

    def mine(self, key: str, loads: str) -> str:
        """Return which of *loads*, all of which failed together, was of *key*."""
        return next((load for load in loads.split() if self.keys.get(load) == key), loads)

    def warm(self) -> None:
        """Wait until copies are served, if they ever are."""
        deadline, near = time.monotonic() + 3, self.cache.near
        while near is not None and near.state not in {"live", "off"} and time.monotonic() < deadline:
            with suppress(RedisError):
                self.cache.get_many([f"warm{number}" for number in range(20)])
            time.sleep(0.005)
        with suppress(RedisError):
            self.cache.get("warm")

    def start(self) -> None:
        """Let the workers work."""
        if self.load.face in {THREADS, BOTH}:
            face = Face(self.cache, BLOCKING)
            self.threads = [
                threading.Thread(target=lambda number=number: complete(self.work(face, number)), name=f"thread{number}")
                for number in range(self.load.workers)
            ]
        if self.load.face in {TASKS, BOTH}:
            self.threads.append(threading.Thread(target=self.loop, name="loop"))
        for thread in self.threads:
            thread.daemon = True
            thread.start()

    def stop(self) -> None:
        """Wait until they have stopped; what has not is in the journal as a call without an end."""
        self.stopping.set()
        limit = time.monotonic() + self.load.terms.wait + self.load.longest + 4
        for thread in self.threads:
            thread.join(max(0.0, limit - time.monotonic()))

    def loop(self) -> None:
        async def all_of_them() -> None:
            face, workers = Face(self.cache, AWAITING), self.load.workers
            async with asyncio.TaskGroup() as group:
                for number in range(workers, 2 * workers):
                    group.create_task(self.work(face, number))

        with asyncio.Runner(debug=False) as runner:
            runner.run(all_of_them())

    async def work(self, cache: Face, number: int) -> None:
        """Do one operation after the other."""
        caller = Caller(self, cache, number)
        sleep = asyncio.sleep if cache.face == AWAITING else _sleep
        while not self.stopping.is_set():
            await caller.step()
            await sleep(2 * self.load.pause * caller.chance.random())


async def _sleep(seconds: float) -> None:
    time.sleep(seconds)


class Caller:
    """One thread's or task's share of the load."""

    def __init__(self, process: Process, cache: Face, number: int) -> None:
        self.process, self.load, self.cache = process, process.load, cache
        self.chance = random.Random(f"{self.load.seed} {self.load.process} {number}")

    async def step(self) -> None:
        """Do one operation."""
        chance, load = self.chance, self.load
        if load.kinds and chance.random() < load.invalidates:
            await self.invalidate(chance.choice(load.kinds))
        elif chance.random() < load.reads:
            await self.read(chance.choice(load.names))
        elif chance.random() < load.many:
            # A value that another call loads with other tags would be loaded again.
            tags = load.tags(chance.choice(load.names))
            alike = [name for name in load.names if load.tags(name) == tags]
            await self.get_many(chance.sample(alike, min(2, len(alike))))
        else:
            await self.get(chance.choice(load.names))

    # --- calls ----------------------------------------------------------------------------------------

    async def call(
        self, keys: list[str], kind: str, ask: Callable[[dict[str, str]], Awaitable[Any]], **more: Any
    ) -> None:
        """Note a call of *keys*: *ask* gets the name of each one's call, and returns the found values."""
        journal, mine = self.process.journal, Fate()
        names = {key: self.process.number() for key in keys}
        facts = more.pop("refresh", False), more.pop("fenced", False), len(keys) > 1
        invoked = time.monotonic()
        for key, name in names.items():
            journal.note("call", name, key, kind, invoked, *facts)

        async def asking() -> None:
            try:
                mine.found = await ask(names)
                mine.outcome = DONE
            except BaseException as error:
                mine.outcome, mine.origin, mine.detail = _fate(error)
            finally:
                mine.returned = time.monotonic()

        if self.cache.face == AWAITING and self.chance.random() < self.load.cancels:
            task = asyncio.ensure_future(asking())
            await asyncio.wait([task], timeout=self.load.longest * self.chance.random() ** 2)
            mine.cancelled = not task.done()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        else:
            await asking()
        for key, name in names.items():
            origin, stale = mine.origin, None
            if mine.outcome == RAISED:
                origin = self.process.mine(key, origin)
            if mine.outcome == DONE:
                origin, stale = _origin(mine.found.get(key))
            journal.note("end", name, mine.returned, mine.outcome, origin, mine.cancelled, stale, mine.detail)

    async def get(self, key: str) -> None:
        refresh = self.chance.random() < self.load.refreshes
        more: dict[str, Any] = {"tags": self.load.tags(key)} if self.load.tags(key) else {}
        if refresh:
            more["refresh"] = True

        async def ask(names: dict[str, str]) -> dict[str, Any]:
            loader = self.loader(key, names[key])
            return {key: await self.cache.get_or_set(key, loader, self.process.policy, **more)}

        await self.call([key], GET_OR_SET, ask, refresh=refresh)

    async def get_many(self, keys: list[str]) -> None:
        tags = self.load.tags(keys[0])
        more: dict[str, Any] = {"tags": tags} if tags else {}

        async def ask(names: dict[str, str]) -> dict[str, Any]:
            load_many = self.batch(names, tags)
            found: dict[str, Any] = await self.cache.get_or_set_many(keys, load_many, self.process.policy, **more)
            return found

        await self.call(keys, GET_OR_SET, ask)

    async def read(self, key: str) -> None:
        chance, cache = self.chance, self.cache
        fresh, way = chance.random() < 0.3, chance.randrange(4)

        async def ask(names: dict[str, str]) -> Any:
            if way == 0:
                return await cache.get_many([key])
            return {key: await (cache.lookup(key) if way == 1 else cache.get(key, fresh=fresh))}

        await self.call([key], LOOKUP if way == 1 else GET, ask, fenced=fresh and way > 1)

    # --- loaders --------------------------------------------------------------------------------------

    def loader(self, key: str, call: str) -> Callable[[], Any]:
        """Return a loader of *key* for the call of that name."""
        tags = self.load.tags(key)
        begin, end, seconds = self.begun, self.ended, self.seconds()

        async def aload() -> Any:
            run = begin({key: call}, tags)
            with run:
                await asyncio.sleep(seconds * 0.5)
                run.read()
                await asyncio.sleep(seconds * 0.5)
                end(run)
            return run.values[key]

        def load() -> Any:
            run = begin({key: call}, tags)
            with run:
                time.sleep(seconds * 0.5)
                run.read()
                time.sleep(seconds * 0.5)
                end(run)
            return run.values[key]

        return aload if self.cache.face == AWAITING else load

    def batch(self, calls: dict[str, str], tags: tuple[str, ...]) -> Callable[[list[str]], Any]:
        """Return a loader of several keys, of which each has its call."""
        begin, end, seconds = self.begun, self.ended, self.seconds()

        async def aload(keys: list[str]) -> Any:
            run = begin({key: calls[key] for key in keys}, tags)
            with run:
                run.read()
                await asyncio.sleep(seconds)
                end(run)
            return run.values

        def load(keys: list[str]) -> Any:
            run = begin({key: calls[key] for key in keys}, tags)
            with run:
                run.read()
                time.sleep(seconds)
                end(run)
            return run.values

        return aload if self.cache.face == AWAITING else load

    def seconds(self) -> float:
        return self.load.shortest * (self.load.longest / self.load.shortest) ** self.chance.random()

    def begun(self, calls: dict[str, str], tags: tuple[str, ...]) -> Running:
        return Running(self.process, calls, tags)

    def ended(self, run: Running) -> None:
        """End a loader as chance will have it."""
        point = self.chance.random()
        load = self.load
        if point < load.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        elif point < load.kills + load.fails:
            raise Broken(" ".join(run.loads.values()))
        elif point < load.kills + load.fails + load.quits and self.cache.face == BLOCKING:
            raise Quit
        elif self.chance.random() < load.skips:
            current_load().skip()
            run.outcome = SKIPPED

    # --- invalidations --------------------------------------------------------------------------------

    async def invalidate(self, kind: str) -> None:
        """Change the database, and then invalidate."""
        process, chance, cache = self.process, self.chance, self.cache
        name, key, life = process.number(), chance.choice(self.load.names), inf
        tagged = [each for each in self.load.names if self.load.tags(each)]
        keys = {TAG: tagged, CLEAR: self.load.names}.get(kind, [key])
        if kind == TAG:
            key = chance.choice(("all", *self.load.tags(chance.choice(tagged))))
        tags: tuple[str, ...] = ()
        if kind in {SET, FOREIGN}:
            # Of another program's value nobody learns that it is gone before the load ends.
            life = inf if kind == FOREIGN else chance.choice(self.load.lives)
            tags = self.load.tags(key) if kind == SET and chance.random() < 0.5 else ()
        version = process.database.write(*keys)
        place = EVERYTHING if kind == CLEAR else key
        process.journal.note(kind, name, place, kind, time.monotonic(), life, version, tags)
        outcome, value = DOUBTFUL, {"origin": name, "key": key, "version": version}
        try:
            match kind:
                case "delete":
                    await self.delete(key)
                case "set":
                    if not await self.set(key, value, life, tags):
                        outcome = FAILED
                        return
                case "foreign":
                    self.set_raw(key, value, life)
                case "soft":
                    await cache.invalidate(key, soft=True)
                case "tag":
                    await cache.invalidate_tags(key)
                case _:
                    await cache.clear()
            outcome = DONE
        except (RedisError, OSError):
            pass
        except Exception:
            outcome = CRASHED
            process.journal.note("call", f"{name}!", keys[0], kind, 0.0, False, False, False)
            process.journal.note("end", f"{name}!", 0.0, CRASHED, "", False, None, traceback.format_exc())
        finally:
            process.journal.note("end", name, time.monotonic(), outcome)

    async def delete(self, key: str) -> None:
        """Delete in one of the ways that there are."""
        match self.chance.randrange(4):
            case 0:
                await self.cache.delete_many([key])
            case 1:
                pipe = self.cache.pipeline()
                pipe.whole.delete(key)
                await pipe.execute()
            case 2 if self.chance.random() < 0.3:
                # It cannot find what is only being loaded, so nothing that is being loaded anywhere is stored.
                loss, note = self.process.number(), self.process.journal.note
                note(LOSS, loss, EVERYTHING, LOSS, time.monotonic(), inf, 0, ())
                await self.cache.delete_pattern(f"{key}*")
                note("end", loss, time.monotonic(), DONE)
            case _:
                await self.cache.delete(key)

    async def set(self, key: str, value: Any, life: float, tags: tuple[str, ...]) -> bool:
        """Store in one of the ways that there are; return whether it was stored."""
        timeout = life if life < inf else None
        more: dict[str, Any] = {"tags": tags} if tags else {}
        match self.chance.randrange(5):
            case 0 if not tags:
                return bool(await self.cache.add(key, value, timeout))
            case 1 if not tags:
                pipe = self.cache.pipeline()
                pipe.whole.set(key, value, timeout)
                await pipe.execute()
            case 2:
                await self.cache.set_many({key: value}, timeout, **more)
            case _:
                await self.cache.set(key, value, timeout, **more)
        return True

    def set_raw(self, key: str, value: Any, life: float) -> None:
        """Store a value as another program would."""
        cache = self.cache.whole
        payload = cache.encode(value)
        cache.get_client().set(cache.make_key(key), payload, px=int(life * 1000) if life < inf else None)


@dataclass
class Fate:
    """What became of a call."""

    returned: float = inf
    outcome: str = ERROR
    origin: str = ""
    detail: str = ""
    cancelled: bool = False
    found: Any = None


class Running:
    """One run of a loader, of one key or several: noted as a load of each."""

    def __init__(self, process: Process, calls: dict[str, str], tags: tuple[str, ...]) -> None:
        self.process = process
        self.loads = {key: process.number() for key in calls}
        self.values: dict[str, Any] = {}
        self.outcome = DONE
        began = time.monotonic()
        process.keys.update({load: key for key, load in self.loads.items()})
        for key, call in calls.items():
            process.journal.note("load", self.loads[key], key, call, began, tags)

    def read(self) -> None:
        """Read the database."""
        for key, load in self.loads.items():
            version = self.process.database.read(key)
            self.values[key] = {"origin": load, "key": key, "version": version, "padding": "." * (version % 300)}

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        outcome = self.outcome
        if kind is not None:
            outcome = {Broken: FAILED, asyncio.CancelledError: CANCELLED}.get(kind, QUIT)
        ended = time.monotonic()
        for key, load in self.loads.items():
            version = self.values.get(key, {}).get("version", 0)
            self.process.journal.note("end", load, ended, outcome, version)


def _origin(found: Any) -> tuple[str, bool | None]:
    """Return the origin of a value, and whether the caller was told that it is stale."""
    stale = None
    if found is not None and not isinstance(found, dict):
        stale = None if found.state == "missing" else found.state == "stale"
        found = None if found.state == "missing" else found.value
    if found is None:
        return "", None
    if not isinstance(found, dict):
        return "torn", stale
    return str(found.get("origin", "torn")), stale


def _fate(error: BaseException) -> tuple[str, str, str]:
    """Return the outcome of a call that raised *error*, the load whose exception it is, and details."""
    match error:
        case Broken():
            return RAISED, str(error), ""
        case LoadFailed():
            return THROTTLED, "", str(error)
        case RedisError() | ConnectionError():
            return ERROR, "", f"{type(error).__name__}: {error}"
        case TimeoutError():
            return TIMED_OUT, "", ""
        case asyncio.CancelledError():
            return CANCELLED, "", ""
        case Quit():
            return QUIT, "", ""
    return CRASHED, "", "".join(traceback.format_exception(error))


# --- the process itself -------------------------------------------------------------------------------


def main(load: Workload, orders: Connection) -> None:
    """Do what the parent orders."""
    # Dangerous moments are short; more of them are hit if threads change places more often.
    sys.setswitchinterval(0.0005)
    warnings.simplefilter("ignore", DeprecationWarning)
    logging.disable(logging.CRITICAL)  # that servers are away is known
    install(load.mutant)
    process = Process(load)
    while True:
        try:
            order = orders.recv()
        except EOFError:
            os._exit(0)
        match order:
            case "warm":
                process.warm()
            case "start":
                process.start()
            case "stop":
                process.stop()
                orders.send("done")
                # Its threads have nothing to say any more.
                os._exit(0)
        orders.send("done")
