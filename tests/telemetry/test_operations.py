"""Watchers of operations see what a program calls, in both faces, and what came of it."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import inspect
import threading
from collections.abc import Iterator
from contextlib import suppress
from inspect import Parameter
from typing import Any

import pytest
from tests.caches import own_prefix
from tests.faces import AWAITING, FACES, Face

from fleetcache import Cache
from fleetcache.client import HerdClient
from fleetcache.stats import Facts, Operation, operations, watch
from fleetcache.stats.operations import is_watched
from fleetcache.stats.payloads import Said
from fleetcache.twin import blocking
from fleetcache.watching import Noting, _operations


class Eye:
    """Keeps what it sees: (name, keys, level, hit), or the name of the error in place of the last two."""

    def __init__(self) -> None:
        self.seen: list[tuple[Operation, Any, BaseException | None, Facts]] = []
        self.begun: list[str] = []

    def __call__(self, operation: Operation) -> Any:
        self.begun.append(operation.name)
        return lambda result, error, facts: self.seen.append((operation, result, error, facts))

    def names(self) -> list[str]:
        names = [operation.name for operation, *_ in self.seen]
        self.seen.clear()
        return names

    def take(self) -> list[tuple[Any, ...]]:
        """Return what was seen since the last call."""
        taken = [
            (each.name, each.keys, *((type(error).__name__,) if error is not None else facts[:2]))
            for each, _, error, facts in self.seen
        ]
        self.seen.clear()
        return taken


@pytest.fixture
def eye() -> Iterator[Eye]:
    """A watcher, for the caches that the test makes."""
    eye = Eye()
    end = watch(eye)
    yield eye
    end()


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def watched(eye: Eye, face: str) -> Face:
    """A cache that is watched, in both faces."""
    return Face(Cache(f"memory://{own_prefix()}"), face)


async def test_operations_and_their_facts(watched, eye, face):
    """Each operation is reported once, with its keys, and whether it found a value: a stored None is one."""
    await watched.set("a", 1)
    await watched.set("none", None)
    await watched.get("a")
    await watched.get("none")
    await watched.get("no")
    await watched.get_many(["a", "no"])
    await watched.get_many(["no"])
    await watched.has_key("a")
    await watched.lookup("a")
    await watched.get_with_ttl("a")
    await watched.incr("a")
    await watched.delete_many(["a", "b"])
    await watched.clear()

    assert {operation.awaited for operation, *_ in eye.seen} == {face == AWAITING}
    assert eye.take() == [
        ("set", ("a",), None, None),
        ("set", ("none",), None, None),
        ("get", ("a",), "server", True),
        ("get", ("none",), "server", True),
        ("get", ("no",), "server", False),
        ("get_many", ("a", "no"), "server", True),
        ("get_many", ("no",), "server", False),
        ("has_key", ("a",), "server", True),
        ("lookup", ("a",), "server", True),
        ("get_with_ttl", ("a",), "server", True),
        ("incr", ("a",), None, None),
        ("delete_many", ("a", "b"), None, None),
        ("clear", (), None, None),
    ]


OVERRIDDEN = [name for name, made in vars(Noting).items() if inspect.isfunction(made) and name != "__init__"]


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_what_is_noted_takes_the_same_arguments(name):
    """A method that notes something accepts whatever the method that it overrides does, by place and by name."""
    plain, noting = (inspect.signature(getattr(kind, name)).parameters.values() for kind in (Cache, Noting))
    kinds = {each.kind for each in noting}
    assert Parameter.VAR_KEYWORD in kinds or {each.name for each in plain} == {each.name for each in noting}
    assert inspect.iscoroutinefunction(getattr(Cache, name)) == inspect.iscoroutinefunction(getattr(Noting, name))


async def test_a_timeout_that_deletes(watched, eye):
    """`add` with a timeout of 0 asks whether there is an entry, and stores none."""
    await watched.set("old", 1)

    assert await watched.add("old", 2, 0) is False
    assert await watched.add("new", 2, 0) is True
    assert await watched.has_key("new") is False
    assert eye.names() == ["set", "add", "add", "has_key"]


async def test_what_an_operation_calls_is_not_reported(watched, eye):
    """A constant is read and added, a version is moved by several steps: all that is one operation."""
    await watched.get_or_set("a", 5)
    await watched.get_or_set("a", 5)
    await watched.keys("*")
    await watched.incr_version("a")

    assert eye.take() == [
        ("get_or_set", ("a",), "server", False),
        ("get_or_set", ("a",), "server", True),
        ("keys", (), None, None),
        ("incr_version", ("a",), None, None),
    ]


async def test_operations_of_a_loader_are_the_programs_own(watched, eye, face):
    """A loader's operations are reported, before the one that called the loader ends; a hit calls none."""

    def load() -> Any:
        return watched.whole.get("inner", 1)

    async def aload() -> Any:
        return await watched.whole.aget("inner", 1)

    for _ in range(2):
        await watched.get_or_set("outer", aload if face == AWAITING else load, 60)

    assert eye.begun == ["get_or_set", "get", "get_or_set"]
    assert eye.take() == [
        ("get", ("inner",), "server", False),
        ("get_or_set", ("outer",), "loaded", False),
        ("get_or_set", ("outer",), "server", True),
    ]


async def test_many_are_loaded(watched, eye, face):
    """Of `get_or_set_many` it is told whether any value was there, and whether a loader ran."""

    def load(keys: list[str]) -> dict[str, int]:
        return dict.fromkeys(keys, 1)

    await watched.get_or_set_many(["a"], load)
    await watched.get_or_set_many(["a", "b"], load)
    await watched.get_or_set_many(["a", "b"], load)

    assert [found[2:] for found in eye.take()] == [("loaded", False), ("loaded", True), ("server", True)]


async def test_stale_values(watched, eye):
    """A value that is returned while it is renewed is a hit, and stale."""
    policy: dict[str, Any] = {"timeout": 0.001, "stale_while_revalidate": 60, "renew": "thread"}
    await watched.get_or_set("a", lambda: 1, **policy)
    eye.take()
    await asyncio.sleep(0.05)
    await watched.get_or_set("a", lambda: 2, **policy)

    assert ("get_or_set", ("a",), "stale", True) in eye.take()


async def test_a_stale_value_that_was_asked_for(watched, eye):
    """`get` returns a stale value only to those who ask for one, and to them it is a hit."""
    await watched.get_or_set("a", lambda: 1, timeout=0.001, stale_while_revalidate=60)
    await asyncio.sleep(0.05)
    eye.take()

    assert (await watched.get("a"), await watched.get("a", stale=True)) == (None, 1)
    assert eye.take() == [("get", ("a",), "server", False), ("get", ("a",), "stale", True)]


async def test_joined_loads(eye):
    """All who wait for one load get what was loaded."""
    cache = Cache(f"memory://{own_prefix()}")

    async def load() -> int:
        await asyncio.sleep(0.01)
        return 1

    await asyncio.gather(*(cache.aget_or_set("a", load, 60) for _ in range(3)))

    assert eye.take() == [("get_or_set", ("a",), "loaded", False)] * 3


async def test_bytes_are_those_of_payloads(watched, eye):
    """The bytes are those that are stored, not of the value's text."""
    await watched.set("a", "x" * 100)
    await watched.get("a")
    await watched.set_many({"b": 10, "c": "y" * 50})
    await watched.get_many(["b", "c"])
    await watched.get("no")
    payload = watched.encode("x" * 100)
    both = 2 + len(watched.encode("y" * 50))

    assert [facts.bytes for *_, facts in eye.seen] == [len(payload), len(payload), both, both, None]


async def test_bytes_of_compressed_payloads(face, eye):
    """A payload is counted once, also if several methods of the codec have a part in it."""
    cache = Face(Cache(f"memory://{own_prefix()}", {"OPTIONS": {"COMPRESSOR": "zlib"}}), face)
    data = {"b": "x" * 5000, "c": "y" * 5000}
    await cache.set_many(data)
    await cache.get_many(["b", "c"])
    size = sum(len(cache.encode(value)) for value in data.values())

    assert [facts.bytes for *_, facts in eye.seen] == [size, size]


async def test_near_hits(valkey, face, eye):
    """A hit in this process is reported as such, by every read; of several keys, if no other was found on the server."""
    cache = Face(Cache(valkey.url(), {"KEY_PREFIX": own_prefix(), "OPTIONS": {"NEAR": True}}), face)
    await cache.set("a", {"k": 1})
    await cache.set("s", "text")
    await cache.set("z", 1)
    for _ in range(2000):
        await cache.get_many(["a", "s"])
        eye.take()
        if cache.near.stats()["hits"]:
            break
    for key in "as":
        await cache.get(key)
    await cache.get_many(["a", "nothing"])
    await cache.get_many(["a", "z"])
    await cache.has_key("a")
    await cache.get_or_set("s", lambda: 1)
    await cache.lookup("s")
    await cache.get("a", fresh=True)

    assert [(name, level, hit) for name, _, level, hit in eye.take()] == [
        ("get", "near", True),
        ("get", "near", True),
        ("get_many", "near", True),
        ("get_many", "server", True),
        ("has_key", "near", True),
        ("get_or_set", "near", True),
        ("lookup", "near", True),
        ("get", "server", True),
    ]


async def test_pipelines_are_one_operation(watched, eye):
    """A pipeline is reported when it runs, with the names of its operations, of which none is reported itself."""
    async with watched.pipeline() as pipe:
        pipe.whole.set("a", 1).get("a").get_or_set("b", lambda: 2)
        assert await pipe.execute() == [True, 1, 2]

    ((operation, result, error, _),) = eye.seen
    assert (operation.name, operation.parts, operation.keys) == ("pipeline", ("set", "get", "get_or_set"), ())
    assert (list(result), error) == ([True, 1, 2], None)


async def test_locks(watched, eye):
    """A lock's methods are operations, also if ``with`` calls them; it is watched like its cache."""
    async with watched.lock("a", timeout=5) as lock:
        await watched.get("a")
        assert await lock.owned()
    with pytest.raises(Exception, match="Cannot release"):
        await lock.release()

    assert [(name, *outcome) for name, _, *outcome in eye.take()] == [
        ("lock.acquire", None, None),
        ("get", "server", False),
        ("lock.owned", None, None),
        ("lock.release", None, None),
        ("lock.release", "LockError"),
    ]


async def test_iterators_end_at_their_end(watched, eye):
    """An iteration is one operation; what the program does between its items is reported as its own."""
    await watched.set_many({"a": 1, "b": 2})
    eye.names()
    async for key in watched.iter_keys("*"):
        await watched.get(key)

    assert eye.names() == ["get", "get", "iter_keys"]
    assert eye.begun[-3:] == ["iter_keys", "get", "get"]
    items = watched.whole.aiter_keys("*") if watched.face == AWAITING else watched.whole.iter_keys("*")
    if watched.face == AWAITING:
        await anext(items)
        await items.aclose()
    else:
        next(items)
        items.close()
    ((operation, _, error, _),) = eye.seen
    assert (operation.name, operation.iterates, error) == ("iter_keys", True, None)
    eye.seen.clear()
    await watched.get("a")
    assert eye.names() == ["get"]


async def test_an_iteration_that_is_left_has_no_error(watched, eye):
    """Not if the task that closes it is cancelled, either, as when the loop ends after a `break`."""
    await watched.set_many({"a": 1, "b": 2})
    eye.names()
    items = watched.whole.aiter_keys("*")
    await anext(items)

    with suppress(asyncio.CancelledError):
        items.aclose().throw(asyncio.CancelledError())

    ((operation, _, error, _),) = eye.seen
    assert (operation.name, error) == ("iter_keys", None)
    eye.seen.clear()


async def test_errors(watched, eye):
    """An operation that raises is reported with its error."""
    with pytest.raises(ValueError, match="not found"):
        await watched.incr("no")

    assert eye.take() == [("incr", ("no",), "ValueError")]


async def test_an_iterator_of_keys_is_still_read(watched, eye):
    """Keys that can be read only once reach the operation and the watcher."""
    await watched.set_many({"a": 1, "b": 2})
    eye.take()

    assert await watched.get_many(iter("ab")) == {"a": 1, "b": 2}
    assert await watched.get_many(keys=(key for key in "ab")) == {"a": 1, "b": 2}
    assert eye.take() == [("get_many", ("a", "b"), "server", True)] * 2


async def test_clients_and_copies(watched, eye):
    """What is made of a watched cache is watched: its client, its strict face, a copy."""
    cache = watched.whole
    for each in (cache, cache.client, cache.strict, copy.copy(cache), copy.deepcopy(cache)):
        await Face(each, watched.face).get("a")

    assert eye.names() == ["get"] * 5
    assert type(cache.client).__name__ == "Cache"


class Loud(Cache):
    """A client class of a site."""

    async def aget(self, key: Any, *args: Any, **kwargs: Any) -> Any:
        return await super().aget(key, *args, **kwargs)

    get = blocking(aget)

    async def adouble(self, key: Any) -> Any:
        return 2 * await self.aget(key)

    double = blocking(adouble)


async def test_client_classes_of_a_site(face, eye):
    """Overridden operations are reported once, and so are a site's own; what they say of shared loads holds."""
    cache = Face(Loud(f"memory://{own_prefix()}"), face)
    await cache.set("a", 1)
    await cache.get("a")
    await cache.double("a")

    assert eye.take() == [
        ("set", ("a",), None, None),
        ("get", ("a",), "server", True),
        ("double", ("a",), None, None),
    ]
    assert isinstance(cache.whole, Loud)
    assert (cache.whole.shares_loads, Loud.shares_loads) == (False, False)


async def test_what_follows_a_loader_is_no_operation(face, eye):
    """A client class with operations of its own loads by them: they are parts of the operation, after the loader too."""
    cache = Face(Loud(f"memory://{own_prefix()}"), face)
    await cache.get_or_set("a", lambda: 1, 60)

    assert eye.take() == [("get_or_set", ("a",), "loaded", False)]


class Quiet(Cache):
    """A client class of a site that overrides nothing."""


async def test_shared_loads_are_still_shared(eye):
    """Whether callers load together is a matter of the site's class, not of the watched one."""
    for kind in (Quiet, Loud):
        watched = type(kind(f"memory://{own_prefix()}"))
        assert watched is not kind
        assert (watched.shares_loads, watched._shares_batches) == (kind.shares_loads, kind._shares_batches)
    assert Quiet.shares_loads


async def test_herds(face, eye):
    """To a caller who is to renew a herded value it is a miss; else a hit, also if it is None."""
    cache = Face(HerdClient(f"memory://{own_prefix()}"), face)
    await cache.set("a", None, 60)
    await cache.get("a")
    await cache.get("no")

    assert [found[2:] for found in eye.take()] == [(None, None), ("server", True), ("server", False)]


async def test_nobody_watches(face):
    """Without watchers a cache is of the class itself; one that ended sees no more, and earlier caches are not watched."""
    assert not is_watched()
    before, eye = Face(Cache(url := f"memory://{own_prefix()}"), face), Eye()
    end = watch(eye)
    during = Face(Cache(url), face)
    await before.get("a")
    await during.get("a")
    end()
    end()
    await during.get("a")

    assert eye.names() == ["get"]
    assert type(Cache(url)) is type(before.whole) is Cache
    assert type(during.whole) is not Cache
    assert during.whole.near is before.whole.near
    assert during.whole._common is before.whole._common


async def test_watched_methods_look_as_before(eye):
    """Tools that ask what a method is get the same answer."""
    cache = Cache(f"memory://{own_prefix()}")
    for name in _operations(Cache):
        for each in (name, f"a{name}"):
            plain, wrapped = getattr(Cache, each), getattr(cache, each)
            assert inspect.iscoroutinefunction(plain) == inspect.iscoroutinefunction(wrapped)
            assert inspect.isasyncgenfunction(plain) == inspect.isasyncgenfunction(wrapped)
            assert wrapped.__name__ == plain.__name__
            assert wrapped.__doc__ == plain.__doc__
            assert str(inspect.signature(wrapped)) == str(inspect.signature(plain.__get__(cache)))
    assert {"get", "get_or_set", "iter_keys", "sscan_iter", "zadd", "clear", "fence"} <= set(_operations(Cache))
    assert not {"close", "lock", "pipeline", "info"} & set(_operations(Cache))


async def test_watchers_that_fail(watched, eye, caplog, monkeypatch):
    """An exception of a watcher, at the begin or at the end, is logged once a minute; nobody else notices it."""
    monkeypatch.setattr(operations, "_said", Said())

    def early(operation: Operation) -> Any:
        raise KeyError(operation)

    def late(operation: Operation) -> Any:
        return lambda result, error, facts: 1 / 0

    ends = [watch(early), watch(late)]
    await watched.set("a", 1)
    assert await watched.get("a") == 1
    for end in ends:
        end()

    assert eye.names() == ["set", "get"]
    assert len([each for each in caplog.records if each.name == "fleetcache.stats"]) == 2


async def test_a_watcher_that_uses_a_cache_is_not_called_for_that(watched, eye):
    """Such a use is none of the program's, and would never end."""
    end = watch(lambda operation: watched.whole.get("b") and None)
    await watched.get("a")
    end()

    assert eye.names() == ["get"]


async def test_threads_and_tasks_are_apart(watched, eye):
    """Operations that run at the same time in threads and tasks are all reported."""

    def work() -> None:
        for _ in range(50):
            watched.whole.get("a")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    await asyncio.gather(*(watched.whole.aget("a") for _ in range(50)))
    for thread in threads:
        thread.join()

    assert eye.names() == ["get"] * 250


async def test_a_task_of_a_loader_is_the_programs_own(eye):
    """A task that a loader begins, and that goes on after it, is not taken for a part of the operation."""
    cache = Cache(f"memory://{own_prefix()}")
    later: list[asyncio.Task[Any]] = []

    async def load() -> int:
        later.append(asyncio.create_task(cache.aget("b")))
        return 1

    await cache.aget_or_set("a", load, 60)
    await later[0]

    assert sorted(eye.names()) == ["get", "get_or_set"]


async def test_a_context_is_left_as_it_was(watched, eye):
    """After an operation, and after one that was cancelled, the next in the same context is reported."""
    context = contextvars.copy_context()
    if watched.face == AWAITING:

        async def wait() -> None:
            await watched.whole.aget_or_set("slow", lambda: asyncio.sleep(60), 60)

        task = asyncio.create_task(wait())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert eye.take() == [("get_or_set", ("slow",), "CancelledError")]
    await watched.get("a")
    await watched.get("a")

    assert eye.names() == ["get", "get"]
    assert [variable for variable in contextvars.copy_context() if variable not in context] in (
        [],
        [operations._current],
    )


@pytest.mark.parametrize(
    "watcher, fault",
    [(3, "a function is expected, not int"), (test_errors, "a coroutine function would never be awaited")],
    ids=["number", "coroutine function"],
)
def test_what_cannot_watch(watcher: Any, fault: str) -> None:
    """What cannot be called, or would have to be awaited, is refused at once."""
    with pytest.raises(TypeError, match=fault):
        watch(watcher)

    assert not is_watched()
