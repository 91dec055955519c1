"""The lock, compatible with redis-py's: the value of its key is the token of the holder.

So workers with django-redis and workers with fleetcache exclude each other.  The key expires after
*timeout*; a holder that is slower learns it when it releases, or renews the lock.  (The single-server
algorithm of https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/.)
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from time import monotonic
from types import SimpleNamespace
from typing import Any, Generic, Self, TypeVar

from redis.exceptions import DataError, LockError, LockNotOwnedError, RedisError, ResponseError

from fleetcache import commands as c
from fleetcache import twin
from fleetcache.codec.payloads import TOKEN
from fleetcache.core import Core, Timeout
from fleetcache.errors import (
    AccessDenied,
    CircuitOpen,
    InvalidTimeout,
    NeverSent,
    TooManyConnections,
    UnsupportedServer,
)
from fleetcache.exchange.contract import Reply, Script
from fleetcache.exchange.runtime import AWAITING, BLOCKING
from fleetcache.failsafe import TROUBLE
from fleetcache.locks.leftovers import LEFTOVERS, Leftover
from fleetcache.locks.renewing import Renewal, renew
from fleetcache.locks.tokens import end_of_token, take
from fleetcache.times import seconds
from fleetcache.twin import Twinned, complete

T = TypeVar("T")

OVERWRITTEN = ". Its entry holds a value, no token of a lock: give the lock a key that no value has"
"""The cause where a lock and a value have the same key."""

NEVER_RAN = (ResponseError, DataError, NeverSent, CircuitOpen, TooManyConnections, AccessDenied, UnsupportedServer)
"""Errors after which the server cannot have stored a token."""

MOMENT = 0.25
"""For how many seconds a lock is released before an interrupt goes on."""


@dataclass(eq=False)
class Holder:
    """The process, and unless threads may share the lock the task, that acquired a lock with *token*."""

    token: bytes
    process: int
    task: Callable[[], asyncio.Task[Any] | None] | None
    passing: bool = False
    """Whether the task did nothing but acquire: ``asyncio.wait_for(lock.aacquire(), 5)`` may run such a task."""
    renewal: Renewal | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether the caller is a forked process, or another task while the holder's task still runs."""
        task = self.task and self.task()
        return self.process != os.getpid() or not (task is None or task.done() or task is running_task())

    @property
    def ended(self) -> bool:
        """Whether the task that acquired the lock, and was to do more, has ended."""
        task = self.task and self.task()
        return self.task is not None and not self.passing and (task is None or task.done())


def acquires_only(task: asyncio.Task[Any]) -> bool:
    """Whether *task* runs nothing but `Lock.aacquire`."""
    running = task.get_coro()
    if getattr(running, "cr_code", None) in {Lock.aacquire.__code__, Lock.__aenter__.__code__}:
        return True
    return getattr(running, "__qualname__", "") == Lock.aacquire.__qualname__  # that of a watched lock


def running_task() -> asyncio.Task[Any] | None:
    """Return the task that this code runs in, if any."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


class Leaving(Generic[T]):
    """A method that ends a ``with`` block, and releases the lock even if an interrupt comes before its first line.

    An exception between the call of *leave* and its first line would leave the lock held for ever.  Python then
    drops this bound method, and with it a guard: a generator that is closed as it is dropped, and releases the lock.
    """

    def __init__(self, leave: Callable[..., T]) -> None:
        self.leave: Callable[..., Any] = leave
        self.awaited = inspect.iscoroutinefunction(leave)

    def __get__(self, lock: Any, owner: Any = None) -> Callable[..., T]:
        if lock is None:
            return self
        guard = self._guard(lock if self.awaited else lock._still or lock)
        next(guard)
        leave: Callable[..., Any] = self._aleave if self.awaited else self._leave
        return partial(leave, lock, guard)

    def __call__(self, lock: Any, *exception: object) -> Any:
        return self.leave(lock, *exception)

    def _leave(self, lock: Any, guard: Iterator[None], *exception: object) -> None:
        self.leave(lock, *exception)
        next(guard, None)

    async def _aleave(self, lock: Any, guard: Iterator[None], *exception: object) -> None:
        await self.leave(lock, *exception)
        next(guard, None)

    @staticmethod
    def _guard(lock: Any) -> Iterator[None]:
        try:
            yield
        except GeneratorExit as end:
            lock._let_go(end)


class Lock(Twinned):
    """A lock that at most one holder has, across processes and machines.

    It is released on exit, or *timeout* seconds after it was acquired, whichever is first; without
    a timeout a crashed holder blocks the others for ever.  With *renew* it renews itself while it is held.
    ``lock.token`` grows with every holder, for stores that can refuse a late writer.  The other arguments are those
    of `Cache.lock`.

    A lock is held by the thread that acquired it, unless *thread_local* is false, and in a task by that task
    for as long as it runs.  A forked child does not hold its parent's locks.
    """

    cache: Core
    """The cache that made this lock."""
    name: str
    """The name of its entry on the server."""
    timeout: Timeout
    """For how long it lives after it was acquired."""
    _lifetime: int | None
    """The timeout in milliseconds."""
    renew: bool
    """Whether it renews itself while it is held."""
    sleep: float | timedelta
    """How long, in seconds, `acquire` waits before it asks again."""
    blocking: bool
    """Whether `acquire` waits at all."""
    blocking_timeout: float | timedelta | None
    """For how long, in seconds, `acquire` waits; None for ever."""
    client: Any
    """The redis-py client that is asked, if one was given; else None."""
    thread_local: bool
    """Whether each thread that uses this object holds the lock for itself."""
    local: Any
    """Has the token of the caller's thread as ``token``, as in redis-py."""

    def __init__(
        self,
        cache: Core,
        name: str,
        timeout: Timeout,
        sleep: float | timedelta,
        blocking: bool,
        blocking_timeout: float | timedelta | None,
        client: Any,
        thread_local: bool,
        renew: bool = False,
    ) -> None:
        lifetime = cache.milliseconds(timeout or None)  # 0 means for ever too, as in redis-py
        if lifetime is not None and lifetime < 1:
            raise InvalidTimeout(f"a lock lives for a millisecond or longer, or for ever (None), not {timeout!r} s")
        if renew and lifetime is None:
            raise InvalidTimeout(
                "lock(…, renew=True) needs a timeout: the lock is renewed whenever a third of it has passed, and is free "
                "that long after its process died. Give a timeout of some seconds, or leave renew out"
            )
        self._begin_with(
            cache=cache,
            name=name,
            timeout=timeout,
            _lifetime=lifetime,
            renew=renew,
            sleep=sleep,
            blocking=blocking,
            blocking_timeout=blocking_timeout,
            client=client,
            thread_local=thread_local,
            local=threading.local() if thread_local else SimpleNamespace(),
        )
        self._wait_by(AWAITING, BLOCKING)

    def _waiting(self) -> Core:
        """Return the face of the cache that waits as this face of the lock does."""
        return self.cache if self._still is not None else self.cache._still or self.cache

    @property
    def token(self) -> bytes | None:
        """The value of the key while the caller holds this lock.

        It grows with every holder, compared as bytes, and so does ``int(lock.token[:16], 16)``; not if `acquire` was
        given a token, and not beside holders of redis-py or django-redis, whose tokens are random.
        """
        holder = self._holder()
        return None if holder is not None and holder.elsewhere else getattr(self.local, "token", None)

    def _holder(self) -> Holder | None:
        """Return the holder, if `acquire` of this object made it: other code may have set ``local.token``."""
        holder: Holder | None = getattr(self.local, "holder", None)
        return holder if holder is not None and holder.token == getattr(self.local, "token", None) else None

    @property
    def lost(self) -> bool:
        """Whether the lock was lost although it is renewed: other code deleted it, or the server was away too long.

        The caller may hold this lock still, or have held it last.  Always False without ``renew=True``.
        """
        renewal = self._renewal()
        return renewal is not None and renewal.lost

    def _renewal(self) -> Renewal | None:
        """Return the renewal of what the caller holds, or held last."""
        holder: Holder | None = getattr(self.local, "holder", None)
        return None if holder is None or holder.elsewhere else holder.renewal

    def _hold(self, token: bytes, since: float) -> None:
        """Note that the caller holds the lock with *token*, for which the server was asked at *since*."""
        task = running_task() if self.thread_local else None
        holder = Holder(token, os.getpid(), weakref.ref(task) if task is not None else None)
        if not self.renew:
            self.local.holder, self.local.token = holder, token
            return
        self._drop()
        holder.passing = task is not None and acquires_only(task)
        renewal = holder.renewal = self._renewing(token, since)
        renewal.holder = weakref.ref(holder, renewal.abandon)  # it ends with the thread, and with the lock object
        self.local.holder, self.local.token = holder, token
        renew(renewal, self._waiting()._through(self.client).topology.home(self.name).address)

    def _renewing(self, token: bytes, since: float) -> Renewal:
        """Return what renews the lock with *token*."""
        cache = self.cache._still or self.cache
        name, client, lifetime = self.name, self.client, self._lifetime or 0

        def extend() -> Any:
            return complete(cache.strict._run(c.EXTEND, name, token, lifetime, 2, instead=None, client=client))

        return Renewal(extend, lifetime / 1000, since, cache._masked(name))

    def _drop(self) -> None:
        """Note that the caller holds the lock no more."""
        if self.renew and (renewal := self._renewal()) is not None:
            renewal.release()
        self.local.token = None

    async def aacquire(
        self,
        sleep: float | timedelta | None = None,
        blocking: bool | None = None,
        blocking_timeout: float | timedelta | None = None,
        token: str | bytes | None = None,
    ) -> bool:
        """Acquire the lock, and return whether it is held now; arguments left out are those of the constructor.

        The server is asked every *sleep* seconds, for *blocking_timeout* seconds at most.  If this raises, the lock
        is not held: a token that the server may have stored is released as soon as the server answers.
        """
        sleep = seconds(self.sleep if sleep is None else sleep)
        blocking = self.blocking if blocking is None else blocking
        patience = self.blocking_timeout if blocking_timeout is None else blocking_timeout
        give_up = None if patience is None else monotonic() + seconds(patience)
        mine = token.encode() if isinstance(token, str) else token
        end = end_of_token()
        if mine is not None:
            LEFTOVERS.forget(mine)
        asked, self.local.trouble = False, ""
        try:
            while True:
                asked, since = True, monotonic()
                taken = await take(self._waiting(), self.name, mine, end, self._lifetime, self.client)
                if taken is not None:
                    self._hold(taken, since)
                    return True
                asked = False
                if not blocking or (give_up is not None and monotonic() + sleep > give_up):
                    return False
                await self._runtime.sleep(sleep)
        except BaseException as error:
            if asked and not isinstance(error, NEVER_RAN):
                if mine is not None:
                    await self._give_back(mine, error)
                else:
                    await self._give_back(end.encode(), error, c.RELEASE_ENDING)
            if isinstance(error, TROUBLE):
                ignored = bool(self._waiting()._instead(error, False, ((c.ACQUIRE, self.name),)))
                self.local.trouble = str(error)
                return ignored
            raise

    def acquire(
        self,
        sleep: float | timedelta | None = None,
        blocking: bool | None = None,
        blocking_timeout: float | timedelta | None = None,
        token: str | bytes | None = None,
    ) -> bool:
        held = self.token
        try:
            return complete((self._still or self).aacquire(sleep, blocking, blocking_timeout, token))
        except BaseException as error:
            (self._still or self)._let_go(error, but=held)  # the interrupt may have come after the reply
            raise

    acquire.__doc__ = aacquire.__doc__

    async def arelease(self) -> None:
        """Release the lock, or raise if it is no longer held.

        If the server is away this raises too, and the lock is released as soon as the server answers.
        """
        token = self.token
        if token is None:
            raise LockError(f"Cannot release a lock that's not owned or is already unlocked: {self._shown}", self.name)
        lost = self.renew and self.lost
        try:
            self._drop()
            released = await self._waiting().strict._run(c.RELEASE, self.name, token, instead=None, client=self.client)
        except BaseException as error:
            await self._give_back(token, error)
            if isinstance(error, TROUBLE):
                if lost:
                    raise LockNotOwnedError(
                        f"Cannot release a lock that's no longer owned: {self._shown}", self.name
                    ) from error
                self._waiting()._instead(error, None, ((c.ACQUIRE, self.name),))
                return
            raise
        if lost or not released:
            raise LockNotOwnedError(await self._with_cause("Cannot release a lock that's no longer owned"), self.name)

    def release(self) -> None:
        try:
            complete((self._still or self).arelease())
        except BaseException as error:
            (self._still or self)._let_go(error)
            raise

    release.__doc__ = arelease.__doc__

    async def _give_back(self, token: bytes, error: BaseException, script: Script = c.RELEASE) -> None:
        """Release *token* by *script* if it holds the lock, after an exchange about it that ended in *error*."""
        held = getattr(self.local, "token", None)
        if held is not None and (held == token or (script is c.RELEASE_ENDING and held.endswith(token))):
            self._drop()
        if self._runtime.blocks or isinstance(error, (GeneratorExit, RedisError)):
            self._entrust(token, error, script)
            return
        released = False
        try:
            async with asyncio.timeout(MOMENT):  # sent after the `SET … NX`, on the same connection
                released = await self._waiting().strict._run(script, self.name, token, instead=None, client=self.client)
        except (RedisError, TimeoutError):
            pass
        finally:
            if not released:
                self._entrust(token, error, script)

    def _let_go(self, error: BaseException, but: bytes | None = None) -> None:
        """Release the token that the caller holds, unless it is *but*; *error* ended the caller's call."""
        token = self.token
        if token is not None and token != but:
            self._drop()
            self._entrust(token, error)

    def _entrust(self, token: bytes, error: BaseException, script: Script = c.RELEASE) -> None:
        """Have *token* released by the thread of `LEFTOVERS`; after an interrupt wait a moment for that."""
        cache = self.cache._still or self.cache
        name, client = self.name, self.client  # not the lock itself: the thread that it belongs to may end

        def release() -> Any:
            return complete(cache.strict._run(script, name, token, instead=None, client=client))

        leftover = Leftover(token, release, self._lifetime and self._lifetime / 1000)
        LEFTOVERS.add(leftover)
        if self._runtime.blocks and not isinstance(error, RedisError):
            leftover.tried.wait(MOMENT)

    async def aextend(self, additional_time: float | timedelta, replace_ttl: bool = False) -> bool:
        """Hold the lock *additional_time* seconds longer; with *replace_ttl* for that long from now on."""
        milliseconds = self.cache.milliseconds(additional_time)
        if milliseconds is None:
            raise InvalidTimeout("a lock is extended by a number of seconds, not for ever (None)")
        return await self._extend("extend", milliseconds, replace_ttl)

    extend = twin.blocking(aextend)

    async def areacquire(self) -> bool:
        """Start the timeout again."""
        return await self._extend("reacquire", self._lifetime, replace=True)

    reacquire = twin.blocking(areacquire)

    async def _extend(self, what: str, milliseconds: int | None, replace: bool) -> bool:
        if self.token is None:
            raise LockError(f"Cannot {what} an unlocked lock: {self._shown}", self.name)
        if self._lifetime is None:
            raise LockError(f"Cannot {what} a lock with no timeout: {self._shown}", self.name)
        arguments, since = (self.token, milliseconds, int(replace)), monotonic()
        if not await self._waiting()._run(c.EXTEND, self.name, *arguments, instead=0, client=self.client):
            raise LockNotOwnedError(await self._with_cause(f"Cannot {what} a lock that's no longer owned"), self.name)
        renewal = self._renewal()
        if renewal is not None and milliseconds is not None:
            renewal.extended(since, milliseconds / 1000, replace=replace)
        return True

    async def _held_by(self, cache: Core | None = None) -> Reply:
        return await (cache or self._waiting()).ask((c.GET_NOW, self.name), None, self.client)

    async def alocked(self) -> bool:
        """Return whether the lock is held, by any caller."""
        return await self._held_by() is not None

    locked = twin.blocking(alocked)

    async def aowned(self) -> bool:
        """Return whether the caller holds this lock."""
        return self.token is not None and await self._held_by() == self.token

    owned = twin.blocking(aowned)

    async def _not_acquired(self) -> LockError:
        """Return the error of a ``with`` whose lock is not held: another caller has it, or the server is away."""
        trouble: str = getattr(self.local, "trouble", "")
        if trouble:
            return LockError(
                f"The lock {self._shown} is not held, because the server is away or refused: {trouble}", self.name
            )
        return LockError(await self._with_cause("Unable to acquire lock within the time specified"), self.name)

    @property
    def _shown(self) -> str:
        """The name of the lock, for a message."""
        return self.cache._masked(self.name)

    async def _with_cause(self, text: str) -> str:
        """Return *text* with the name of the lock, and with what its entry holds now, which is the cause."""
        try:
            found = await self._held_by(self._waiting().strict)
        except RedisError as error:
            return f"{text}: {self._shown}{OVERWRITTEN if str(error).startswith('WRONGTYPE') else ''}"
        if not isinstance(found, bytes):
            return f"{text}: {self._shown}. It has expired, or was deleted"
        return f"{text}: {self._shown}{'. Another caller holds it' if TOKEN.fullmatch(found) else OVERWRITTEN}"

    def __enter__(self) -> Self:
        if self.acquire():
            return self
        raise complete((self._still or self)._not_acquired())

    @Leaving
    def __exit__(self, *_: object) -> None:
        if not self._inherited():
            self.release()

    async def __aenter__(self) -> Self:
        if await self.aacquire():
            return self
        raise await self._not_acquired()

    @Leaving
    async def __aexit__(self, *_: object) -> None:
        if not self._inherited():
            await self.arelease()

    def _inherited(self) -> bool:
        """Whether the parent process acquired the lock, and this process was forked from it."""
        holder = self._holder()
        return holder is not None and holder.process != os.getpid()
