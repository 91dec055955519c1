"""Caches whose copies are live, and ways to see what their server is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from tests.caches import own_prefix, params
from tests.faces import BLOCKING, Face
from tests.nearby import wait_until_live
from tests.waiting import PATIENCE, until

from fleetcache import Cache
from fleetcache.near.listener import Listener
from fleetcache.servers.remote import RemoteServer

READS = {"get", "mget", "exists", "pttl"}

one_face = pytest.mark.parametrize("face", [BLOCKING])
"""Marks a test of what has no faces."""


class Copies:
    """Makes caches with a near cache, which listen until the test ends."""

    def __init__(self, server: Any, face: str) -> None:
        self.server = server
        self.face = face
        self.made: list[Any] = []

    def __call__(
        self,
        url: Any = None,
        near: Any = True,
        *,
        kind: Any = Cache,
        prefix: str = "",
        live: bool = True,
        **options: Any,
    ) -> Face:
        if near is True or isinstance(near, dict):  # unless it says otherwise, a first read leaves a copy
            near = {"DOORKEEPER": False, **({} if near is True else near)}
        cache = kind(url or self.server.url(9), params({**options, "KEY_PREFIX": prefix + own_prefix(), "NEAR": near}))
        if cache.near is not None:
            self.made.append(cache.near)
            if live:
                wait_until_live(cache.near)
                assert cache.near.state == "live", cache.near.why
        return Face(cache, self.face)

    def close(self) -> None:
        for near in self.made:
            near.close()
        for listener in [reads.listener for near in self.made for reads in near.reads.values()]:
            until(lambda: listener.thread is None or listener.tracking.readers)


@pytest.fixture
def copies(valkey: Any, face: str) -> Iterator[Copies]:
    """Make caches, in both faces, that are live: ``copies(url, near, **options)``."""
    copies = Copies(valkey, face)
    yield copies
    copies.close()


@pytest.fixture
def near(copies: Copies) -> Face:
    """A cache on a Valkey, with a near cache that is live."""
    return copies()


@pytest.fixture
def raw(valkey: Any) -> Iterator[redis.Redis]:
    """A client of another program, in the database of `near`."""
    with redis.Redis.from_url(valkey.url(9)) as client:
        yield client


@pytest.fixture
def asked(raw: redis.Redis) -> Callable[[], int]:
    """Count the reads that the server has answered since this was last called."""
    seen = 0

    def asked() -> int:
        nonlocal seen
        known, seen = seen, sum(calls(raw, name) for name in READS)
        return seen - known

    asked()
    return asked


def calls(client: redis.Redis, command: str) -> int:
    """Return how often *command* was called on a server."""
    found: Any = client.info("commandstats").get(f"cmdstat_{command}", {})
    return int(found.get("calls", 0))


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Note the commands of each exchange that the test itself has with a server."""
    trips: list[list[str]] = []
    test = threading.get_ident()

    def noted(method: Any) -> Any:
        def exchange(self: Any, commands: Any) -> Any:
            if threading.get_ident() == test:
                trips.append([command[0].decode() for command in commands])
            return method(self, commands)

        return exchange

    for name in ("exchange", "tell", "aexchange"):
        monkeypatch.setattr(RemoteServer, name, noted(getattr(RemoteServer, name)))
    # An exchange of the usual kind may pass on to `tell`.
    monkeypatch.setattr(RemoteServer, "exchange", lambda self, commands: self.hear(self.tell(commands)))
    return trips


async def copied(cache: Face, key: Any, version: Any = None, *, deaf: bool = False) -> Any:
    """Read *key* so that there is a copy of it, and return its value."""
    name = str(cache.make_key(key, version))
    if not deaf:
        await cache.fence()  # the announcement of what was written last would end the copy

    deadline = time.monotonic() + PATIENCE
    while True:
        value = await cache.get(key, version=version)
        if copy(cache, name) is not None:
            return value
        assert time.monotonic() < deadline, cache.near.stats()


def copy(cache: Face, name: str) -> Any:
    """Return the copy of *name*, whether or not it may be served."""
    near = cache.near
    with near.lock:
        near.reads_of(name).settle()
    return near.copies.get(name)


def listeners(near: Any) -> list[Listener]:
    return list(near.listeners.values())
