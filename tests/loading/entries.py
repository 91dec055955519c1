"""Entries with metadata, stored as a fill stores them, for the tests of everything that reads them."""

from __future__ import annotations

from typing import Any

from tests.faces import AWAITING, Face

from fleetcache import commands as c
from fleetcache.codec.metadata import Metadata
from fleetcache.twin import complete

MINUTE = 60_000


async def called(cache: Face, method: str, *args: Any, **kwargs: Any) -> Any:
    """Return what a coroutine without a blocking face returns, in the face of *cache*."""
    if cache.face == AWAITING:
        return await getattr(cache.whole, method)(*args, **kwargs)
    return complete(getattr(cache.whole._still, method)(*args, **kwargs))


async def now(cache: Face, key: str) -> int:
    """Return the time of the server that holds *key*, in milliseconds."""
    name = cache.name(key)
    await called(cache, "ask", (c.EXISTS, name), False)  # a cluster learns where its names are
    ((seconds, microseconds),) = cache.topology.home(name).exchange(((c.TIME,),))
    return int(seconds) * 1000 + int(microseconds) // 1000


async def put(
    cache: Face, key: str, value: Any, *, fresh: int | None = MINUTE, stale: int = MINUTE, **metadata: Any
) -> Metadata:
    """Store *value* with *fresh* milliseconds of fresh life left, None for no end of its own; return its metadata."""
    written = await called(
        cache, "encoded", (value,), metadata=(found := [await _metadata(cache, key, fresh, stale, metadata)])
    )
    lifetime = () if fresh is None else ("PX", max(fresh + stale, 1))
    assert await called(cache, "ask", (c.SET, cache.name(key), *written, *lifetime), None)
    return found[0]


async def _metadata(cache: Face, key: str, fresh: int | None, stale: int, more: dict[str, Any]) -> Metadata:
    until = 0 if fresh is None else await now(cache, key) + fresh
    return Metadata(fresh_until=until, stale=stale, **more)


async def stored(cache: Face, key: str) -> bytes | None:
    """Return the payload of *key*."""
    found: bytes | None = await called(cache, "ask", (c.GET_NOW, cache.name(key)), None)
    return found
