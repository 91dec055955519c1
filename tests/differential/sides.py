"""Running one case on both backends, and comparing what came of it.

A case calls its cache as a site would.  The `Cache` it is given passes each call on to a backend,
writes down what was returned or raised, and goes on after exceptions.  Afterwards everything on
the server is read with a plain client: type, bytes and time to live of each key.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Self

import redis
from django_redis.cache import RedisCache as TheirCache
from tests.elsewhere import ON, RedisCacheElsewhere
from tests.faces import AWAITING, BLOCKING, Face
from tests.nearby import CANARY, EVERYWHERE, NearRedisCache

from fleetcache.django import RedisCache
from fleetcache.keys import LAST_NUMBER
from fleetcache.twin import complete

from .mended import INSTEAD, STANDS_FOR
from .outcomes import Left, Raised, is_lock, outcome_of, shape, timeless

OurCache = NearRedisCache if EVERYWHERE else RedisCacheElsewhere if ON else RedisCache


def agree(name: str, theirs: Any, ours: Any, *, mixed: bool = False) -> bool:
    """Return whether a caller that relied on *theirs* is served by *ours*, which if *mixed* may be theirs too."""
    if isinstance(theirs, Raised) and isinstance(ours, Raised):
        if isinstance(theirs.error, STANDS_FOR.get(type(ours.error), ())):
            return True
        refused = type(theirs.error) is redis.ResponseError
        return isinstance(ours.error, type(theirs.error)) and (not refused or theirs.word == ours.word)
    return ours == INSTEAD.get((name, repr(theirs)), theirs) or (mixed and ours == theirs)


# --- running --------------------------------------------------------------------------------------


@dataclass
class Entry:
    """One call, and its outcome."""

    name: str
    said: str
    outcome: Any

    def __str__(self) -> str:
        return f"{self.said} -> {self.outcome!r}"


@dataclass
class Result:
    """All calls of a case, and what they left on the server."""

    calls: list[Entry] = field(default_factory=list)
    left: dict[Any, Any] = field(default_factory=dict)


class Cache:
    """What a case calls: passes calls on to a backend and takes down their outcomes.

    ``raw`` is the backend's raw client, behind whose writes every call is fenced from then on; ``note`` takes down
    something else.
    """

    _fencing = False

    def __init__(self, backends: Callable[[], Any], face: Callable[..., Any], result: Result, settle: Any) -> None:
        self._backends = backends
        self._face = face
        self._result = result
        self._settle = settle
        self._path = "cache"

    def _through(self, target: Any, path: str) -> Cache:
        other = Cache(lambda: target, self._face, self._result, self._settle)
        other._path = path
        other._fencing = self._fencing
        return other

    @property
    def backend(self) -> Any:
        """The backend itself, whose calls are not taken down."""
        return self._backends()

    @property
    def raw(self) -> Any:
        """The raw client of the backend."""
        self._fencing = True
        return self._backends().client.get_client()

    @property
    def client(self) -> Cache:
        """The methods of ``cache.client``."""
        return self._through(self._backends().client, "cache.client")

    def note(self, value: Any) -> None:
        """Take down *value* as an outcome."""
        self._result.calls.append(Entry("note", "note", shape(value)))

    def attempt(self, action: Callable[[], Any]) -> None:
        """Take down what *action* returns or raises."""
        try:
            self.note(action())
        except Exception as error:
            self._result.calls.append(Entry("attempt", "attempt", Raised(error)))

    def __contains__(self, key: Any) -> bool:
        return bool(self._call("__contains__", (key,), {}))

    def __enter__(self) -> Self:
        self._call("__enter__", (), {})
        return self

    def __exit__(self, *exception: object) -> None:
        self._call("__exit__", exception, {})

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self._call(name, args, kwargs)

    def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        words = [*map(short, args), *(f"{key}={short(value)}" for key, value in kwargs.items())]
        said = f"{self._path}.{name}({', '.join(words)})"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ShardClient's of client=, redis-py's of deprecations
            backend = self._backends()
            if self._fencing:
                fence(backend)
            try:
                value = self._face(backend, name, args, kwargs)
            except Exception as error:
                self._result.calls.append(Entry(name, said, Raised(error)))
                return None
            finally:
                self._settle()
        if name.startswith("__"):  # Python makes a bool of the one, and cases make nothing of the others
            value = bool(value) if name == "__contains__" else None
        outcome = outcome_of(name, value)
        self._result.calls.append(Entry(name, said, outcome))
        return self._through(value, said) if is_lock(value) else value


def fence(backend: Any) -> None:
    """Let a near cache know what has been written by others."""
    if isinstance(backend, RedisCache):
        backend.fence()


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:76]}…"


def plainly(target: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a method as it is, and exhaust what it yields."""
    return itself(complete(Face(target, BLOCKING).perform(name, *args, **kwargs)))


class Awaiting:
    """Calls the a-methods, each awaited on one event loop."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()

    def __call__(self, target: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return itself(self.runner.run(Face(target, AWAITING).perform(name, *args, **kwargs)))

    def close(self) -> None:
        self.runner.close()


def itself(found: Any) -> Any:
    """Return the object that a call returned, as a lock, without its face."""
    return found.whole if isinstance(found, Face) else found


# --- setups ---------------------------------------------------------------------------------------


@dataclass
class Setup:
    """An entry of ``CACHES``, the same for both backends, and the databases it writes to."""

    name: str
    location: Any
    params: dict[str, Any]
    databases: list[redis.Redis]
    settle: Callable[[], None] = lambda: None
    """Waits until replicas have what was written."""
    nodes: list[redis.Redis] = field(default_factory=list)
    """The nodes of the cluster that fleetcache writes to instead, if it does."""

    def theirs(self) -> Any:
        return TheirCache(deepcopy(self.location), deepcopy(self.params))

    def ours(self) -> Any:
        return OurCache(self.location, self.params)

    def run(self, script: Callable[..., None], *backends: Any, face: Callable[..., Any] = plainly) -> Result:
        """Run a case on one backend, or on several in turn, and say what came of it."""
        clustered = bool(self.nodes) and isinstance(backends[0], RedisCache)
        databases = self.nodes if clustered else self.databases
        for database in databases:
            database.flushdb()
        self.settle()
        for backend in backends:
            fence(backend)
        result, count = Result(), 0

        def next_backend() -> Any:
            nonlocal count
            count += 1
            backend = backends[(count - 1) % len(backends)]
            if len(backends) > 1:
                fence(backend)
            return backend

        script(Cache(next_backend, face, result, self.settle))
        result.left = {
            (0 if clustered else number, name): held
            for number, database in enumerate(databases)
            for name, held in contents(database).items()
            if not name.startswith("fleetcache:")  # of loads
        }
        return result


READ = {
    b"string": lambda pipeline, name: pipeline.get(name),
    b"hash": lambda pipeline, name: pipeline.hgetall(name),
    b"set": lambda pipeline, name: pipeline.smembers(name),
    b"zset": lambda pipeline, name: pipeline.zrange(name, 0, -1, withscores=True),
}


def contents(database: redis.Redis) -> dict[str, Any]:
    """Return type, content and time to live of all keys but fleetcache's own."""
    ours = CANARY.encode(), LAST_NUMBER.encode()
    names = sorted(name for name in database.keys("*") if not any(own in name for own in ours))
    if not names:
        return {}
    with database.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.type(name).pttl(name)
        facts = pipeline.execute()
        kinds, left = facts[::2], facts[1::2]
        for name, kind in zip(names, kinds, strict=True):
            READ[kind](pipeline, name)
        held = pipeline.execute()
    return {
        name.decode(): (kind.decode(), plain(content), None if rest < 0 else Left(rest / 1000))
        for name, kind, content, rest in zip(names, kinds, held, left, strict=True)
    }


def plain(content: Any) -> Any:
    """Return what a key holds, whose order says nothing, in comparable form."""
    match content:
        case bytes():
            return timeless(content)
        case dict():
            return {field: timeless(value) for field, value in content.items()}
        case set():
            return {timeless(member) for member in content}
    return {timeless(member): score for member, score in content}


def differences(theirs: Result, ours: Result, *, mixed: bool = False) -> list[str]:
    """Return where two runs of a case differ, fit to be printed."""
    lines = []
    for one, other in zip_longest(theirs.calls, ours.calls):
        if one is None or other is None:
            lines.append(f"called by one side only: {one or other}")
        elif not agree(one.name, one.outcome, other.outcome, mixed=mixed):
            lines.append(f"{one.said}\n    theirs: {one.outcome!r}\n    ours:   {other.outcome!r}")
    for place in sorted({*theirs.left, *ours.left}):
        one, other = theirs.left.get(place), ours.left.get(place)
        if one != other:
            lines.append(f"left on the server, {place}\n    theirs: {one!r}\n    ours:   {other!r}")
    return lines


def agreeing(theirs: Result, ours: Result, *, mixed: bool = False) -> None:
    """Fail if two runs of a case differ."""
    found = differences(theirs, ours, mixed=mixed)
    assert not found, "\n".join(["fleetcache differs from django-redis:", *found])


# --- cases ----------------------------------------------------------------------------------------

Script = Callable[[Cache], None]


@dataclass(frozen=True)
class Case:
    """A function that calls a cache; *but* names the entry of MENDED for setups in which it differs."""

    script: Script
    but: dict[str, str]

    @property
    def name(self) -> str:
        return self.script.__name__


class Cases(list[Case]):
    """The cases of a module, in the order in which they stand there."""

    def __call__(self, script: Script | None = None, /, **but: str) -> Any:
        """Add *script*; ``shard="…"`` leaves it out for that setup and says which entry of MENDED tells why."""
        if script is None:
            return lambda script: self(script, **but)
        self.append(Case(script, but))
        return script


def names(cases: Iterable[Case]) -> list[str]:
    return [case.name for case in cases]
