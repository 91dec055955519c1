"""Workers: processes that look after estates in turn, and use the commons at the same time."""

from __future__ import annotations

import asyncio
import inspect
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
from tests.fleet.estates import OURS, THEIRS, TIMEOUT, VARIANTS, Call, Difference, Estate, Operation, call

from fleetcache.twin import complete

PATIENCE = 60
"""Seconds for all processes to start, and for all to end."""

OTHER = {THEIRS: OURS, OURS: THEIRS}
BACKENDS = {THEIRS: "django_redis.cache.RedisCache", OURS: "fleetcache.django.RedisCache"}


@dataclass(frozen=True)
class Post:
    """What a worker process is to be."""

    name: str
    package: str
    awaiting: bool
    lanes: int
    """How many threads, or tasks, are at work in it."""


FLEET = (
    Post("theirs-1", THEIRS, awaiting=False, lanes=2),
    Post("theirs-2", THEIRS, awaiting=False, lanes=2),
    Post("ours-blocking", OURS, awaiting=False, lanes=2),
    Post("ours-awaiting", OURS, awaiting=True, lanes=6),
)


@dataclass(frozen=True)
class Mission:
    """What all workers have in common in one round."""

    url: str
    prefix: str
    variant: str
    seed: str
    seconds: float
    """How long to be at work."""

    def cache(self, package: str) -> Any:
        """Return a cache of its own for one lane."""
        from django.utils.module_loading import import_string

        params = {"KEY_PREFIX": self.prefix, "TIMEOUT": TIMEOUT, "OPTIONS": dict(VARIANTS[self.variant])}
        return import_string(BACKENDS[package])(self.url, params)


@dataclass(frozen=True)
class Roads:
    """What lies between the processes."""

    inboxes: dict[str, Any]
    """The estates that wait for a visit of each package."""
    reports: Any
    ready: Any
    """A barrier that opens when all workers are, and the round is prepared."""
    halt: Any
    """An event: something differed."""


@dataclass
class Ledger:
    """What one lane did to the commons, for the reckoning."""

    counted: Counter[str] = field(default_factory=Counter)
    won: dict[str, str] = field(default_factory=dict)
    contested: set[str] = field(default_factory=set)
    made: dict[str, str] = field(default_factory=dict)
    guarded: int = 0
    added: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    pooled: set[str] = field(default_factory=set)
    drawn: list[str] = field(default_factory=list)
    scored: Counter[str] = field(default_factory=Counter)
    written: int = 0
    seen: Counter[str] = field(default_factory=Counter)


@dataclass
class Report:
    """What a worker says in the end."""

    post: Post
    calls: int = 0
    visits: int = 0
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    failure: str = ""


class Driver:
    """Runs operations on one cache, blocking or awaiting."""

    def __init__(self, cache: Any, *, awaiting: bool) -> None:
        self.cache = cache
        self.awaiting = awaiting
        self.calls = 0

    async def do(self, asked: Call) -> Any:
        """Return what a call returns."""
        if asked.method == "pause":
            return await self.pause(*asked.args)
        self.calls += 1
        method = getattr(asked.on or self.cache, f"a{asked.method}" if self.awaiting else asked.method)
        found = method(*asked.args, **asked.kwargs)
        if inspect.isasyncgen(found):
            return [each async for each in found]
        if inspect.isgenerator(found):
            return list(found)
        return await found if self.awaiting else found

    async def pause(self, seconds: float) -> None:
        if self.awaiting:
            await asyncio.sleep(seconds)
        else:
            time.sleep(seconds)

    async def run(self, estate: Estate, operation: Operation) -> None:
        """Run one operation on *estate* to its end; raise with its story if something differs."""
        asked, outcome = call("nothing"), None
        try:
            while True:
                asked = operation.send(outcome)
                estate.asked = time.time()
                try:
                    outcome = await self.do(asked)
                except Exception as error:
                    outcome = error
                estate.answered = time.time()
                estate.tell(asked, outcome)
        except StopIteration:
            return
        except Exception as error:
            raise Difference(estate.telling(error, asked)) from error


class Lane:
    """One thread or task of a worker: visits estates, and between visits uses the commons."""

    def __init__(self, worker: Worker, number: int) -> None:
        self.worker = worker
        self.mission = worker.mission
        self.name = f"{worker.post.name}.{number}"
        self.driver = Driver(self.mission.cache(worker.post.package), awaiting=worker.post.awaiting)
        self.chance = Random(f"{self.mission.seed}/{self.name}")
        self.ledger = Ledger()
        self.visits = 0
        self.numbers = 0

    async def run(self) -> None:
        while self.worker.goes_on():
            try:
                estate = self.worker.roads.inboxes[self.worker.post.package].get_nowait()
            except queue.Empty:
                await self.driver.pause(0.001)
            else:
                await self.visit(estate)
            for _ in range(10):
                await self.chance.choice(COMMONS)(self)

    async def visit(self, estate: Estate) -> None:
        """Check what was left there, do a few things, and hand the estate to the other package."""
        estate.visitor = self.worker.post.package
        estate.visits += 1
        estate.asked = estate.answered = time.time()
        estate.story.append(f"--- {self.name}")
        await self.driver.run(estate, estate.survey())
        for _ in range(estate.random.randint(10, 40)):
            await self.driver.run(estate, estate.draw())
        self.visits += 1
        self.worker.roads.inboxes[OTHER[self.worker.post.package]].put(estate)

    # --- the commons ------------------------------------------------------------------------------

    async def do(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        return await self.driver.do(Call(method, args, kwargs))

    def check(self, right: bool, what: str) -> None:
        if not right:
            raise Difference(f"{self.name}: {what}")

    def mine(self) -> str:
        """Return a text that nobody else has."""
        self.numbers += 1
        return f"{self.name}/{self.numbers}"

    def current(self, what: str) -> str:
        """Return a key that all lanes are at just now."""
        return f"{what}{int(time.time() * 40)}"

    async def count(self) -> None:
        """Every increment counts, and a counter that only grows is never seen to shrink."""
        key, delta = self.chance.choice(["c0", "c1", "c2"]), self.chance.choice([1, 1, 7, 1000])
        self.ledger.counted[key] += delta
        total = await self.do("incr", key, delta)
        self.check(type(total) is int and total >= self.ledger.counted[key], f"incr said {total!r}")
        seen = await self.do("get", key)
        self.check(type(seen) is int and seen >= total, f"{seen!r} after {total}")

    async def elect(self) -> None:
        """One of those who add is told that it did, and all read its value."""
        key, me = self.current("elected"), self.mine()
        self.ledger.contested.add(key)
        if await self.do("add", key, {"by": me}):
            self.check(key not in self.ledger.won, f"won {key} twice")
            self.ledger.won[key] = me
        found = await self.do("get", key)
        self.check(
            isinstance(found, dict) and found["by"] == self.ledger.won.get(key, found["by"]), f"{key}: {found!r}"
        )

    async def make(self) -> None:
        """All who get or set are given the same value."""
        key, me = self.current("made"), self.mine()
        found = await self.do("get_or_set", key, lambda: me)
        self.check(self.ledger.made.setdefault(key, found) == found, f"{key}: {found!r}")

    async def guard(self) -> None:
        """Of all processes one is inside, so what it reads and writes is as if nobody else did."""
        lock = await self.do("lock", "guard", timeout=2 * PATIENCE, sleep=0.002, blocking_timeout=PATIENCE)
        self.check(await self.driver.do(Call("acquire", (), {}, lock)), "waited too long for the lock")
        count = await self.do("get", "guarded")
        self.check(await self.do("get", "inside") == "nobody", "somebody is inside")
        await self.do("set", "inside", self.name)
        await self.driver.pause(0.0005)
        await self.do("set", "guarded", count + 1)
        self.check(await self.do("get", "inside") == self.name, "somebody came inside")
        await self.do("set", "inside", "nobody")
        await self.driver.do(Call("release", (), {}, lock))
        self.ledger.guarded += 1

    async def gather(self) -> None:
        """A set has what was added and not removed."""
        member = self.mine()
        self.ledger.added.add(member)
        self.check(await self.do("sadd", "members", member) == 1, f"{member} was there")
        if self.chance.random() < 0.3:
            self.ledger.removed.add(member)
            self.check(await self.do("srem", "members", member) == 1, f"{member} was not there")

    async def draw(self) -> None:
        """A member is popped once."""
        item = self.mine()
        self.ledger.pooled.add(item)
        await self.do("sadd", "pool", item)
        drawn = await self.do("spop", "pool")
        if drawn is not None:
            self.ledger.drawn.append(drawn)

    async def score(self) -> None:
        """Scores add up."""
        member, delta = self.chance.choice(["a", "b"]), self.chance.randrange(1, 9)
        self.ledger.scored[member] += delta
        total = await self.do("zincrby", "scores", delta, member)
        self.check(type(total) is float and total >= self.ledger.scored[member], f"zincrby said {total!r}")

    async def write(self) -> None:
        """Store a value that shows whether it is whole, where one writer or all of them do."""
        self.ledger.written += 1
        body = f"{self.name} {self.ledger.written} " * self.chance.choice([1, 10, 400])
        value = {"by": self.name, "number": self.ledger.written, "body": body, "sum": crc32(body.encode())}
        await self.do("set_many", {f"by-{self.name}": value, "by-all": value, f"by-{self.name}-too": value})
        await self.do("hset", "fields", self.name, self.ledger.written)

    async def read(self) -> None:
        """Every value read is one that was written, whole, and a writer's values come in their order."""
        writer = self.chance.choice(self.worker.lanes)
        keys = [f"by-{writer}", f"by-{writer}-too", "by-all"]
        found = await self.do("get_many", keys)
        for key, value in found.items():
            self.check(type(value) is dict and crc32(value["body"].encode()) == value["sum"], f"{key}: {value!r}")
            self.check(value["body"].startswith(f"{value['by']} {value['number']} "), f"{key}: {value!r}")
        own = [found[key]["number"] for key in keys[:2] if key in found]
        self.check(len({*own}) <= 1, f"half of a transaction: {own}")
        for number in own:
            self.check(number >= self.ledger.seen[writer], f"{writer}: {number} after {self.ledger.seen[writer]}")
            self.ledger.seen[writer] = number


COMMONS: list[Callable[[Lane], Coroutine[Any, Any, None]]] = [
    *(Lane.count, Lane.elect, Lane.make, Lane.guard, Lane.gather, Lane.draw, Lane.score, Lane.write, Lane.read),
]


class Worker:
    """One process at its post."""

    def __init__(self, post: Post, mission: Mission, roads: Roads) -> None:
        self.post = post
        self.mission = mission
        self.roads = roads
        self.lanes = [f"{each.name}.{number}" for each in FLEET for number in range(each.lanes)]
        self.failures: list[str] = []
        self.end = 0.0

    def goes_on(self) -> bool:
        return time.monotonic() < self.end and not self.roads.halt.is_set()

    def run(self) -> Report:
        lanes = [Lane(self, number) for number in range(self.post.lanes)]
        self.roads.ready.wait(PATIENCE)
        self.end = time.monotonic() + self.mission.seconds
        if self.post.awaiting:
            # Python's development mode would switch on the loop's, which is ten times slower.
            with asyncio.Runner(debug=False) as runner:
                runner.run(self.all(lanes))
        else:
            threads = [threading.Thread(target=complete, args=(self.one(lane),)) for lane in lanes]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return Report(
            self.post,
            calls=sum(lane.driver.calls for lane in lanes),
            visits=sum(lane.visits for lane in lanes),
            ledgers={lane.name: lane.ledger for lane in lanes},
            failure="\n\n".join(self.failures),
        )

    async def all(self, lanes: list[Lane]) -> None:
        await asyncio.gather(*map(self.one, lanes))

    async def one(self, lane: Lane) -> None:
        try:
            await lane.run()
        except Difference as error:
            self.failures.append(str(error))
            self.roads.halt.set()
        except BaseException:
            self.failures.append(f"{lane.name}: {traceback.format_exc()}")
            self.roads.halt.set()


def work(post: Post, missions: list[Mission], roads: Roads) -> None:
    """Be a worker: the main function of its process."""
    warnings.simplefilter("error")
    configure()
    try:
        for mission in missions:
            roads.reports.put(Worker(post, mission, roads).run())
    except BaseException:
        roads.reports.put(Report(post, failure=f"{post.name}: {traceback.format_exc()}"))
        roads.halt.set()
        roads.ready.abort()
