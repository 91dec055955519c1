"""Locks that redis-py's ``Lock`` understands: a key that holds its holder's random token.

So old django-redis workers and new ones exclude each other.  The key expires by itself after
*timeout*; a holder that was slower than that finds out when it releases.  (The single-server
algorithm of https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/.)
"""

from __future__ import annotations

import threading
from contextlib import suppress
from time import monotonic
from types import SimpleNamespace
from typing import Any, Self
from uuid import uuid4

from redis.exceptions import LockError, LockNotOwnedError

from fleetcache import commands as c
from fleetcache.core import Core
from fleetcache.exchange import Reply
from fleetcache.exchange.runtime import AWAITING, BLOCKING
from fleetcache.twin import Twinned, blocking


class Lock(Twinned):
    """A lock that at most one holder has, across processes and machines.

    It is released on exit, or *timeout* seconds after it was acquired, whichever is first; without
    a timeout a crashed holder blocks the others for ever.  The other arguments are those of `Cache.lock`.
    """

    def __init__(
        self,
        cache: Core,
        name: str,
        timeout: Any,
        sleep: float,
        blocking: bool,
        blocking_timeout: float | None,
        client: Any,
        thread_local: bool,
    ) -> None:
        self.cache = cache
        self.name = name
        self.timeout = timeout
        self.lifetime = max(1, cache.milliseconds(timeout) or 0) if timeout else None
        self.sleep = sleep
        self.blocking = blocking
        self.blocking_timeout = blocking_timeout
        self.client = client
        self.local: Any = threading.local() if thread_local else SimpleNamespace()
        self.wait_by(AWAITING, BLOCKING)

    def _cache(self) -> Core:
        """The face of the cache that waits as this face does."""
        return self.cache if self.still is not None else self.cache.still or self.cache

    @property
    def token(self) -> bytes | None:
        """What the key holds while this lock is held, by this thread if locks are thread-local."""
        return getattr(self.local, "token", None)

    async def aacquire(
        self,
        sleep: float | None = None,
        blocking: bool | None = None,
        blocking_timeout: float | None = None,
        token: str | bytes | None = None,
    ) -> bool:
        """Return whether the lock is held now; arguments left out are those of the constructor.

        It is tried every *sleep* seconds, for *blocking_timeout* seconds at most.
        """
        sleep = self.sleep if sleep is None else sleep
        blocking = self.blocking if blocking is None else blocking
        patience = self.blocking_timeout if blocking_timeout is None else blocking_timeout
        mine = uuid4().hex.encode() if token is None else token.encode() if isinstance(token, str) else token
        give_up = None if patience is None else monotonic() + patience
        lifetime = () if self.lifetime is None else ("PX", self.lifetime)
        while True:
            try:
                taken = await self._cache().ask((c.ACQUIRE, self.name, mine, *lifetime, "NX"), False, self.client)
            except BaseException as error:
                # Cancelled while the server may have given it: a lock that nobody knows of would stay for ever.
                if not isinstance(error, (Exception, GeneratorExit)):
                    with suppress(Exception):
                        await self._cache().run(c.RELEASE, self.name, mine, instead=0, client=self.client)
                raise
            if taken:
                self.local.token = mine
                return True
            # False is said for an outage that is ignored, None for a lock that is held.
            if taken is False or not blocking or (give_up is not None and monotonic() + sleep > give_up):
                return False
            await self.runtime.sleep(sleep)

    acquire = blocking(aacquire)

    async def arelease(self) -> None:
        """Give the lock up, or raise if it is no longer held."""
        token = self.token
        if token is None:
            raise LockError("Cannot release a lock that's not owned or is already unlocked.", self.name)
        self.local.token = None
        if not await self._cache().run(c.RELEASE, self.name, token, instead=1, client=self.client):
            raise LockNotOwnedError("Cannot release a lock that's no longer owned", self.name)

    release = blocking(arelease)

    async def aextend(self, additional_time: float, replace_ttl: bool = False) -> bool:
        """Hold the lock *additional_time* seconds longer, or from now on if *replace_ttl*."""
        return await self._renew("extend", int(additional_time * 1000), replace_ttl)

    extend = blocking(aextend)

    async def areacquire(self) -> bool:
        """Begin the timeout anew."""
        return await self._renew("reacquire", self.lifetime, replace=True)

    reacquire = blocking(areacquire)

    async def _renew(self, what: str, milliseconds: int | None, replace: bool) -> bool:
        if self.token is None:
            raise LockError(f"Cannot {what} an unlocked lock", self.name)
        if self.lifetime is None:
            raise LockError(f"Cannot {what} a lock with no timeout", self.name)
        arguments = (self.token, milliseconds, int(replace))
        if not await self._cache().run(c.EXTEND, self.name, *arguments, instead=0, client=self.client):
            raise LockNotOwnedError(f"Cannot {what} a lock that's no longer owned", self.name)
        return True

    async def _holder(self) -> Reply:
        return await self._cache().ask((c.GET_NOW, self.name), None, self.client)

    async def alocked(self) -> bool:
        """Return whether anybody holds the lock."""
        return await self._holder() is not None

    locked = blocking(alocked)

    async def aowned(self) -> bool:
        """Return whether this lock is held by its caller."""
        return self.token is not None and await self._holder() == self.token

    owned = blocking(aowned)

    def __enter__(self) -> Self:
        if self.acquire():
            return self
        raise LockError("Unable to acquire lock within the time specified", self.name)

    def __exit__(self, *_: object) -> None:
        self.release()

    async def __aenter__(self) -> Self:
        if await self.aacquire():
            return self
        raise LockError("Unable to acquire lock within the time specified", self.name)

    async def __aexit__(self, *_: object) -> None:
        await self.arelease()
