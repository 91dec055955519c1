"""Caches with a near cache, made so that tests of any cache say something about it.

A near cache is live before its cache is used, and each read is done twice: the second answer, which has to be the
first's, comes from a copy if there is one.  With ``FLEETCACHE_NEAR=1`` fleetcache's side of Django's suites and of the
differential tests is made so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.waiting import PATIENCE

from fleetcache import Cache
from fleetcache.django import RedisCache
from fleetcache.near.near import NEARS, Near
from fleetcache.near.stages import State
from fleetcache.pipeline import Recording

EVERYWHERE = os.environ.get("FLEETCACHE_NEAR") == "1"

NEAR = {"MAX_TTL": 2, "DOORKEEPER": False}
"""``OPTIONS["NEAR"]``: who is not read for two seconds does not listen, so that hundreds of configurations do no harm.
First reads leave copies, so that second ones come from them."""

CANARY = "~near:"
"""Stands in the names of what a near cache writes once in a while, for a tenth of a second."""

HOPELESS = {State.DEAD, State.OFF}


class ReadTwice:
    """A cache whose reads are done twice: a class of cache and not a `Face`, because Django's settings name a class."""

    shares_loads = True

    def __init__(self, location: Any, params: Any = None, **kwargs: Any) -> None:
        params = params or {}
        super().__init__(location, {**params, "OPTIONS": {"NEAR": NEAR, **(params.get("OPTIONS") or {})}}, **kwargs)
        if self.near is not None:
            wait_until_live(self.near)

    def get(self, key: Any, *args: Any, **kwargs: Any) -> Any:
        return self._twice(super().get, key, *args, **kwargs)

    async def aget(self, key: Any, *args: Any, **kwargs: Any) -> Any:
        return await self._atwice(super().aget, key, *args, **kwargs)

    def get_many(self, keys: Any, *args: Any, **kwargs: Any) -> Any:
        return self._twice(super().get_many, again(keys), *args, **kwargs)

    async def aget_many(self, keys: Any, *args: Any, **kwargs: Any) -> Any:
        return await self._atwice(super().aget_many, again(keys), *args, **kwargs)

    def has_key(self, key: Any, *args: Any, **kwargs: Any) -> Any:
        return self._twice(super().has_key, key, *args, **kwargs)

    async def ahas_key(self, key: Any, *args: Any, **kwargs: Any) -> Any:
        return await self._atwice(super().ahas_key, key, *args, **kwargs)

    def _twice(self, read: Any, *args: Any, **kwargs: Any) -> Any:
        return same(read(*args, **kwargs), read(*args, **kwargs))

    async def _atwice(self, read: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self.runtime, Recording):  # a pipeline's
            return await read(*args, **kwargs)
        return same(await read(*args, **kwargs), await read(*args, **kwargs))


class NearCache(ReadTwice, Cache):
    """A cache with a near cache."""


class NearRedisCache(ReadTwice, RedisCache):
    """Django's, with a near cache."""


def wait_until_live(near: Near, patience: float = PATIENCE) -> None:
    """Return when copies are kept and may be served, or if there is nobody to say so."""
    deadline = time.monotonic() + patience
    for reads in list(near.reads.values()):
        while reads.state is not State.LIVE and reads.state not in HOPELESS:
            assert time.monotonic() < deadline, reads.tracking.why
            reads.listener.serve(reads)
            time.sleep(0.0005)


def again(keys: Any) -> Any:
    """Return *keys*, which can be gone through twice."""
    return list(keys) if isinstance(keys, Iterator) else keys


def same(first: Any, second: Any) -> Any:
    """Return the second of two answers, which has to be the first."""
    assert type(first) is type(second), (first, second)
    assert first == second or repr(first) == repr(second), (first, second)
    return second


def stop_listening() -> None:
    """Leave the servers before they end, which would be worth a warning."""
    for near in list(NEARS):
        near.close()


@contextmanager
def at_rest() -> Iterator[None]:
    """Let nobody listen who did, so that no thread wakes up meanwhile; new near caches may."""
    nears = [near for near in NEARS if any(each.thread is not None for each in near.listeners.values())]
    listeners = [each for near in nears for each in near.listeners.values()]
    for near in nears:
        near.close()
    while any(each.thread is not None for each in listeners):
        time.sleep(0.001)
    yield
    for near in nears:
        near.closed = False


def hits() -> int:
    """Return how many reads of this process were answered from copies."""
    return sum(near.store.hits for near in NEARS)
