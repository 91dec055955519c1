"""Workers of fleetcache that use soft lives and tags, and workers of django-redis that know nothing of these.

A keyspace goes from one package to the other, with a model of what each of them has to find: django-redis reads the
value of every entry that the server has; fleetcache does not serve it after its fresh life or after its tag was given up.
On the shared keys all work at once, and each value read is one that was written under that key.
"""

from __future__ import annotations

import datetime as dt
import queue
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID
from zlib import crc32

from tests.faces import Face
from tests.fleet.keyspaces import OURS, TIMEOUT, Difference, pause, text_of
from tests.fleet.workers import OTHER, Worker

MISSING = "missing"
TAGS = [f"tag{number}" for number in range(6)]
"""Of each keyspace; the tags of the shared keys have other names."""
SHARED = [f"shared{number}" for number in range(12)]
SHARED_TAGS = ["all", "few"]
STALE = {"stale_while_revalidate": TIMEOUT, "stale_if_error": TIMEOUT}
BRIEFLY, LATER = 0.03, 0.06
"""The fresh life of some entries, in seconds, and how long a worker waits for its end."""

FRESH, OLD, GIVEN_UP = "fresh", "old", "given up"


@dataclass
class Entry:
    """An entry of the server: its value, its tags, and what fleetcache makes of it."""

    value: Any
    tags: tuple[str, ...] = ()
    state: str = FRESH
    renewable: bool = False
    """Whether it has a stale life, so that it can be given up softly."""


@dataclass
class Softspace:
    """Some keys, the entries that they have to have, and the last calls."""

    name: str
    random: Random
    entries: dict[str, Entry] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    turns: int = 0
    package: str = ""

    def key(self) -> str:
        return f"{self.name}:{self.random.randrange(8)}"

    def tags(self) -> tuple[str, ...]:
        return tuple(f"{self.name}:{tag}" for tag in self.random.sample(TAGS, self.random.randrange(4)))

    def value(self) -> Any:
        """Return a value of one of many types; a bare int is stored as digits, unless with a soft life or tags."""
        chance = self.random
        number = chance.randrange(-(10**6), 10**6)
        return chance.choice(
            [
                number, chance.random(), None, True, f"text {number}", "", f"{number} ".encode() * 3, Decimal(number) / 7,
                [number, {"nested": (number, None)}], {number}, UUID(int=abs(number)), dt.timedelta(seconds=number),
                dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "long " * 5000, {f"key {each}": each for each in range(50)},
            ]
        )  # fmt: skip

    async def call(self, cache: Face, method: str, *args: Any, **kwargs: Any) -> Any:
        result = await cache.perform(method, *args, **kwargs)
        self.history.append(f"{self.package}: {method}(*{args!r:.80}, **{kwargs!r:.120}) -> {result!r:.60}")
        return result

    def same(self, found: Any, expected: Any) -> None:
        if text_of(found) != text_of(expected):
            calls = "\n".join(self.history[-60:])
            raise Difference(f"{self.name}: expected {expected!r:.200}, found {found!r:.200}\n{calls}")

    def served(self, entry: Entry | None) -> bool:
        """Return whether a plain read of the package has to find the entry."""
        return entry is not None and (self.package != OURS or entry.state == FRESH)

    # --- checks -----------------------------------------------------------------------------------

    async def check_all(self, cache: Face) -> None:
        """Compare all keys with the model, one by one and together."""
        keys = [f"{self.name}:{number}" for number in range(8)]
        expected = {key: self.entries[key].value for key in keys if self.served(self.entries.get(key))}
        self.same(await self.call(cache, "get_many", keys), expected)
        for key in keys:
            await self.check(cache, key)

    async def check(self, cache: Face, key: str) -> None:
        entry = self.entries.get(key)
        there = self.served(entry)
        self.same(await self.call(cache, "get", key, MISSING), entry.value if there else MISSING)
        self.same(bool(await self.call(cache, "has_key", key)), there)
        if self.package == OURS:
            stale = entry is not None and entry.state != GIVEN_UP
            self.same(await self.call(cache, "get", key, MISSING, stale=True), entry.value if stale else MISSING)
        elif there:
            self.same(0 < await self.call(cache, "ttl", key), True)

    # --- what either package does -----------------------------------------------------------------

    async def read(self, cache: Face) -> None:
        await self.check(cache, self.key())

    async def set(self, cache: Face) -> None:
        key, value = self.key(), self.value()
        await self.call(cache, "set", key, value, TIMEOUT)
        self.entries[key] = Entry(value)

    async def set_many(self, cache: Face) -> None:
        values = {self.key(): self.value() for _ in range(3)}
        await self.call(cache, "set_many", values, TIMEOUT)
        self.entries |= {key: Entry(value) for key, value in values.items()}

    async def delete(self, cache: Face) -> None:
        key = self.key()
        await self.call(cache, "delete", key)
        self.entries.pop(key, None)

    async def add(self, cache: Face) -> None:
        key, value = self.key(), self.value()
        there = self.served(self.entries.get(key))
        self.same(bool(await self.call(cache, "add", key, value, TIMEOUT)), not there)
        if not there:
            self.entries[key] = Entry(value)

    async def get_or_set(self, cache: Face) -> None:
        key, value = self.key(), self.value()
        entry = self.entries.get(key)
        there = self.served(entry)
        self.same(await self.call(cache, "get_or_set", key, lambda: value, TIMEOUT), entry.value if there else value)
        if not there:
            self.entries[key] = Entry(value)

    # --- what only fleetcache does ----------------------------------------------------------------

    async def set_tagged(self, cache: Face) -> None:
        key, value, tags = self.key(), self.value(), self.tags()
        await self.call(cache, "set", key, value, TIMEOUT, tags=tags)
        self.entries[key] = Entry(value, tags)

    async def load_tagged(self, cache: Face) -> None:
        """Load a value with a soft life and tags, whatever is there."""
        key, value, tags = self.key(), self.value(), self.tags()
        found = await self.call(cache, "get_or_set", key, lambda: value, TIMEOUT, tags=tags, refresh=True, **STALE)
        self.same(found, value)
        self.entries[key] = Entry(value, tags, renewable=True)

    async def load_briefly(self, cache: Face) -> None:
        """Load a value, and wait until its fresh life has ended."""
        key, value = self.key(), self.value()
        found = await self.call(cache, "get_or_set", key, lambda: value, BRIEFLY, refresh=True, **STALE)
        self.same(found, value)
        await pause(cache.face, LATER)
        self.entries[key] = Entry(value, state=OLD, renewable=True)
        await self.check(cache, key)

    async def invalidate_tag(self, cache: Face) -> None:
        tag = f"{self.name}:{self.random.choice(TAGS)}"
        await self.call(cache, "invalidate_tags", tag)
        for entry in self.entries.values():
            if tag in entry.tags:
                entry.state = GIVEN_UP

    async def invalidate_softly(self, cache: Face) -> None:
        key = self.key()
        entry = self.entries.get(key)
        if entry is not None and entry.renewable and entry.state == FRESH:
            await self.call(cache, "invalidate", key, soft=True)
            entry.state = OLD
            await self.check(cache, key)

    async def fail(self, cache: Face) -> None:
        """A stale value is the answer if loading another fails; in asyncio that load begins a moment later."""
        key = self.key()
        entry = self.entries.get(key)
        if entry is not None and entry.renewable and entry.state != GIVEN_UP:
            failed = []

            def load() -> Any:
                failed.append(key)
                raise ConnectionError("the database is away")

            found = await self.call(cache, "get_or_set", key, load, TIMEOUT, tags=entry.tags, **STALE)
            self.same(found, entry.value)
            for _ in range(1000):
                if failed or entry.state == FRESH:
                    break
                await pause(cache.face, 0.005)  # whoever joined a load that has not begun would share its failure
            self.same(bool(failed), entry.state == OLD)


def whole(key: str, found: Any) -> bool:
    """Return whether *found* is a value that a worker made for the shared *key*."""
    return found["key"] == key and crc32(found["body"].encode()) == found["sum"]


BOTH: list[Callable[[Softspace, Face], Coroutine[Any, Any, None]]] = [
    Softspace.read, Softspace.set, Softspace.set_many, Softspace.delete, Softspace.add, Softspace.get_or_set,
]  # fmt: skip
ONLY_OURS = [
    Softspace.set_tagged, Softspace.load_tagged, Softspace.load_tagged, Softspace.load_briefly,
    Softspace.invalidate_tag, Softspace.invalidate_softly, Softspace.fail,
]  # fmt: skip


class SoftWorker(Worker):
    """A worker of either package; those of fleetcache use soft lives and tags."""

    async def run(self) -> None:
        """Work until the round is over."""
        spaces = self.process.channels.keyspaces
        while self.process.goes_on():
            try:
                space = spaces[self.package].get_nowait()
            except queue.Empty:
                await pause(self.cache.face, 0.001)
            else:
                await self.work_on_softly(space)
                spaces[OTHER[self.package]].put(space)
            for _ in range(10):
                await self.share()

    async def work_on_softly(self, space: Softspace) -> None:
        """Check what the worker before left, and do some operations."""
        space.package = self.package
        space.turns += 1
        space.history = [*space.history[-100:], f"--- {self.name}"]
        await space.check_all(self.cache)
        operations = [*BOTH, *ONLY_OURS * 2] if self.package == OURS else BOTH
        for _ in range(space.random.randint(10, 30)):
            await space.random.choice(operations)(space, self.cache)
        self.turns += 1

    async def share(self) -> None:
        """Do something with keys that all workers use."""
        key = self.chance.choice(SHARED)
        what = self.chance.random()
        if what < 0.5:
            self.right(key, await self.cache.perform("get", key))
            for name, value in (await self.cache.perform("get_many", SHARED)).items():
                self.right(name, value)
        elif what < 0.6:
            await self.cache.perform("set", key, self.made(key), TIMEOUT)
        elif what < 0.65:
            await self.cache.perform("delete", key)
        elif self.package != OURS:
            found = await self.cache.perform("get_or_set", key, lambda: self.made(key), TIMEOUT)
            self.right(key, found)
        elif what < 0.95:
            timeout = self.chance.choice([BRIEFLY, TIMEOUT])
            load = {"tags": SHARED_TAGS, "early": 1.0, **STALE}
            found = await self.cache.perform("get_or_set", key, lambda: self.made(key), timeout, **load)
            self.check(found is not None, f"{key}: get_or_set returned None")
            self.right(key, found)
        else:
            await self.cache.perform("invalidate_tags", self.chance.choice(SHARED_TAGS))

    def made(self, key: str) -> dict[str, Any]:
        body = f"{key} by {self.unique()} " * self.chance.choice([1, 10, 400])
        return {"key": key, "body": body, "sum": crc32(body.encode())}

    def right(self, key: str, found: Any) -> None:
        self.check(found is None or whole(key, found), f"{key}: {found!r:.300}")
