"""get_or_set: read a value, or load it: once in the process, and once in the fleet.

A caller who finds no value joins the flight of its name in this process, or opens one and leads it.  The leader takes
the lease, and waits if another process has it; then he calls the loader, stores the value, publishes it to those who
joined, and frees the name, in this order.  While he waits or loads, the others wait for his outcome; each of them waits
no longer than his own policy says, and takes nothing that may be older than what he could have read himself.

A caller who finds an old value that he may return does not wait: it is renewed beside him, or by him if he gets the
lease and his code blocks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from time import monotonic, perf_counter
from types import CoroutineType
from typing import Any, TypeVar, Unpack, overload

from fleetcache import commands as c
from fleetcache.codec.metadata import Described, Metadata
from fleetcache.core import DEFAULT_TIMEOUT, MISSING, Timeout
from fleetcache.failsafe import TROUBLE
from fleetcache.keys import Key, Version
from fleetcache.loading.flights import Flight, Found, Gone, Made, waited
from fleetcache.loading.joining import Joining
from fleetcache.loading.leading import keep, pause_after
from fleetcache.loading.load import loads_here
from fleetcache.loading.renewing import submit
from fleetcache.loading.wishes import Wish
from fleetcache.near.near import PACKED, clock
from fleetcache.near.store import Bound, Entry, bound_of
from fleetcache.policy import Decision, Policy, PolicyOptions
from fleetcache.reading import Found as Seen
from fleetcache.tagging import checked
from fleetcache.twin import complete

__all__ = ["Loading", "Wish", "keep", "pause_after"]

T = TypeVar("T")

BUILT_ON = ("aget", "aset", "aadd")
"""Operations that a client class of a site may override.  Both faces are built on them; on `get` neither is."""

ORDINARY = Policy()

MOST_POLICIES = 1000

ARGUMENTS = ("key", "keys", "default", "load_many", "timeout", "version", "tags", "refresh")
"""Those of `get_or_set` and `get_or_set_many` that are no fields of a policy."""

NEAR = Metadata()
"""Stands for the metadata of a copy, which is not known, but was looked at when the copy was made."""


class Loading(Joining):
    """Operations that make and store a value where there is none."""

    _herds = False
    """Whether stored values say when some callers are told that they are old: see `HerdClient`."""

    shares_loads = True
    """Whether callers load together.  If a class overrides an operation on values, `get_or_set` calls that instead, unless
    the class says that this is not necessary: ``shares_loads = True``."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        owners = [next(kind for kind in cls.__mro__ if name in vars(kind)) for name in BUILT_ON]
        cls.shares_loads = all(
            owner.__module__.startswith("fleetcache.") or vars(owner).get("shares_loads") for owner in owners
        )

    @overload
    async def aget_or_set(
        self,
        key: Key,
        default: Coroutine[Any, Any, T],
        timeout: Timeout | Policy = DEFAULT_TIMEOUT,
        version: Version = None,
        *,
        tags: Iterable[str] = (),
        refresh: bool = False,
        **policy: Unpack[PolicyOptions],
    ) -> T: ...
    @overload
    async def aget_or_set(
        self,
        key: Key,
        default: Callable[[], Awaitable[T]],
        timeout: Timeout | Policy = DEFAULT_TIMEOUT,
        version: Version = None,
        *,
        tags: Iterable[str] = (),
        refresh: bool = False,
        **policy: Unpack[PolicyOptions],
    ) -> T: ...
    @overload
    async def aget_or_set(
        self,
        key: Key,
        default: Callable[[], T],
        timeout: Timeout | Policy = DEFAULT_TIMEOUT,
        version: Version = None,
        *,
        tags: Iterable[str] = (),
        refresh: bool = False,
        **policy: Unpack[PolicyOptions],
    ) -> T: ...
    @overload
    async def aget_or_set(
        self,
        key: Key,
        default: T,
        timeout: Timeout | Policy = DEFAULT_TIMEOUT,
        version: Version = None,
        *,
        tags: Iterable[str] = (),
        refresh: bool = False,
        **policy: Unpack[PolicyOptions],
    ) -> T: ...
    async def aget_or_set(
        self,
        key: Key,
        default: Any,
        timeout: Timeout | Policy = DEFAULT_TIMEOUT,
        version: Version = None,
        *,
        tags: Iterable[str] = (),
        refresh: bool = False,
        **policy: Unpack[PolicyOptions],
    ) -> Any:
        """Return the value of *key*; if there is none, store *default*, or its result if it is callable.

        A callable, the *loader*, is called once for all callers that ask at the same time, in this process and in the
        fleet, and all of them get its value.  For the a-method it may be a coroutine function, or a coroutine, which runs
        only if there is no value.  *timeout* may be a `Policy`; *policy* are fields of one, such as
        ``stale_while_revalidate=60``.  The value gets *tags*, by which `invalidate_tags` gives it up.  With *refresh* it
        is loaded in any case.
        """
        started = type(default) is CoroutineType  # isinstance() would evaluate a lazy object
        try:
            if self._runtime.records or not self.shares_loads or not (started or tags or callable(default)):
                lasting = self._policy_of(timeout, policy).timeout
                return await self._simply(key, default, lasting, version, tags, refresh=refresh)
            if policy:
                self._policy_of(timeout, policy)  # what is wrong with it is said on a hit too
            name, began, seen = self.name(key, version), monotonic(), None
            if not (refresh or tags or self._herds):  # written out, as in `_read`: a hit takes as long as with `get`
                near = self.near
                if near is not None:
                    # A copy of "missing" serves no load, so it is not counted as hit.
                    if (copy := near.copy(name)) is not None and _holds_value(copy):
                        value = self._served(copy, MISSING)
                        if value is not MISSING:
                            return value
                elif not self._is_hasty(timeout, policy):
                    payload = await self.ask((c.GET, name), None)
                    value = MISSING if payload is None else self._entry(payload, name)
                    if type(value) is not Described and value is not MISSING:
                        if self.tally is not None:
                            self.tally.known[name].read("server", payload)
                        return value
                    seen = await self._seen(name, value, payload, exact=True, fresh=False)
            make = partial(_itself, default) if started or not callable(default) else default
            chosen, wanted = self._policy_of(timeout, policy), checked(tags) if tags else ()
            return await self._fulfil(Wish(key, str(name), make, chosen, version, wanted, began, refresh), seen)
        finally:
            if started:
                default.close()  # or Python warns that it was never awaited

    @overload
    def get_or_set(
        self,
        /,
        key: Key,
        default: Callable[[], T],
        timeout: Timeout | Policy = DEFAULT_TIMEOUT,
        version: Version = None,
        *,
        tags: Iterable[str] = (),
        refresh: bool = False,
        **policy: Unpack[PolicyOptions],
    ) -> T: ...
    @overload
    def get_or_set(
        self,
        /,
        key: Key,
        default: T,
        timeout: Timeout | Policy = DEFAULT_TIMEOUT,
        version: Version = None,
        *,
        tags: Iterable[str] = (),
        refresh: bool = False,
        **policy: Unpack[PolicyOptions],
    ) -> T: ...
    def get_or_set(
        self,
        /,
        key: Key,
        default: Any,
        timeout: Timeout | Policy = DEFAULT_TIMEOUT,
        version: Version = None,
        *,
        tags: Iterable[str] = (),
        refresh: bool = False,
        **policy: Unpack[PolicyOptions],
    ) -> Any:
        # By hand, as `get`: a near hit takes less time than creating a coroutine.
        if self._head is not None and type(key) is str and version is None and not refresh and self.shares_loads:
            near: Any = self.near
            copy = near.copies.get(self._head + key)
            if copy is not None and (not tags or type(copy.epoch) is Bound):
                now = clock()
                if now < copy.deadline and now < copy.epoch.until and type(default) is not CoroutineType:
                    if copy.value is not PACKED:
                        copy.hits += 1
                        return copy.value
                    if copy.payload is not None and not self._herds:
                        value = self._served(copy, MISSING)
                        if value is not MISSING:
                            return value
        call = Loading.aget_or_set(
            self._still or self, key, default, timeout, version, tags=tags, refresh=refresh, **policy
        )
        return complete(call)

    get_or_set.__doc__ = aget_or_set.__doc__

    def _policy_of(self, timeout: Timeout | Policy, options: PolicyOptions) -> Policy:
        """Return the policy of a call with these arguments; the settings have the defaults."""
        policies, key = self._flights.policies, (timeout, *options.items())
        try:
            if (known := policies.get(key)) is not None:
                return known
        except TypeError:  # an argument cannot be hashed
            key = ()
        usual = self.settings.options.loading or ORDINARY
        standard = type(timeout) is not Policy and any(timeout is mark for mark in self._default_marks)
        chosen = Policy.of(DEFAULT_TIMEOUT if standard else timeout, usual, options, ARGUMENTS)
        if key and len(policies) < MOST_POLICIES and not callable(options.get("renew")):  # it may refer to anything
            policies[key] = chosen  # most calls of a program are of a few kinds, and a policy takes 10 µs to make
        return chosen

    def _is_hasty(self, timeout: Timeout | Policy, options: PolicyOptions) -> bool:
        """Whether a caller with these arguments waits for the server no longer than for a load; blocking code has to."""
        if self._runtime.blocks or not (options or type(timeout) is Policy or self.settings.options.loading):
            return False
        return self._policy_of(timeout, options).hard_timeout is not None

    async def _simply(
        self, key: Any, default: Any, timeout: Timeout, version: Any, tags: Iterable[str], *, refresh: bool
    ) -> Any:
        """Read, make and add, without flights and leases: for a constant, in a pipeline, or for a client with operations of its own."""
        await self._runtime.alone()
        value = MISSING if refresh else await self.aget(key, MISSING, version)
        if value is not MISSING:
            return value
        make = partial(_itself, default) if type(default) is CoroutineType else default
        made = await self._produced(key, make, version) if callable(make) else make
        tagged: dict[str, Any] = {"tags": tags} if tags else {}
        if refresh:
            await self.aset(key, made, timeout, version, **tagged)
            return made
        adding = (
            self.aset(key, made, timeout, version, nx=True, **tagged)
            if tags
            else self.aadd(key, made, timeout, version)
        )
        if await adding:
            return made
        # Another caller was first, or the server is away, or the timeout is 0 or less.  This read has been counted.
        return await (self if self.tally is None else self._face(tally=None)).aget(key, made, version, fresh=True)

    async def _produced(self, key: Any, make: Callable[[], Any], version: Any) -> Any:
        """Return what the loader *make* of a simple load makes, and count this load by group."""
        began = perf_counter()
        made = await self._runtime.produce(make)
        if self.tally is not None:
            self.tally.loaded((self.name(key, version),), perf_counter() - began)
        return made

    # --- one caller -------------------------------------------------------------------------------

    async def _fulfil(self, wish: Wish, seen: Seen | None = None) -> Any:
        """Return the value that *wish* is about: what is there, or what is loaded; the caller has *seen* it already."""
        looked = False
        while True:
            found = None if looked else seen
            if found is None:
                found = await self._in_time(self._look(wish, fresh=looked or wish.refresh), wish.hard_until)
            if found is None:
                self._count(wish, "missed")
                return self._spared(wish, self._late(wish))
            if found.metadata is None and found.value is not MISSING and not (wish.refresh or wish.tags):
                self._count_found(wish, found)
                return found.value  # as nearly always
            match wish.weigh(found):
                case Decision.SERVE if found.metadata is NEAR or self._carries(found.metadata, wish.tags):
                    self._count_found(wish, found)
                    return found.value
                case Decision.RENEW:
                    self._count_found(wish, found)
                    return await self._renewed(wish, found)
            if self._flights.kept and (made := self._kept_in_outage(wish)) is not None:
                self._count(wish, "near")
                return self._copy(made)
            if not looked:
                self._count(wish, "missed", found.payload)
            looked = True
            here = loads_here()
            if self._flights.is_own(here, wish.name):
                return await self._runtime.produce(wish.make)  # within its own loader
            value = await self._fly(wish, here)
            if value is not MISSING:
                return value

    def _count_found(self, wish: Wish, found: Seen) -> None:
        """Count the read of a caller who gets the value that was *found*: at once, or after another has loaded it."""
        if wish.counted:
            self._count_joined(wish)
        elif found.metadata is not NEAR:  # the copy has counted its hit
            self._count(wish, "stale" if found.left is not None and found.left <= 0 else "server", found.payload)

    async def _fly(self, wish: Wish, here: list[Flight]) -> Any:
        """Join the flight, or lead one; return its value, or MISSING if the caller has to look again."""
        mine = Flight(wish.name, frozenset(wish.tags))
        if wish.impatient:
            mine.hurry()
        try:
            flight = self._flights.open(mine)
            if flight is not mine:
                if self._waits_for(flight, here):
                    try:
                        return await self._join(flight, wish)
                    finally:
                        waited(here, flight)
                mine.hurry()  # waiting would never end, so he loads beside the others
                mine.detached = True
            await self._start(mine, wish)
            if mine.task is not None:
                return await self._await(mine, wish, here)
            return self._result(mine, wish, own=True)
        finally:
            if mine.task is None:
                self._flights.close(mine)  # its leader was here, and is not any more

    async def _look(self, wish: Wish, *, fresh: bool) -> Seen:
        """Return what is there."""
        near = self.near
        copy = None if near is None or fresh else near.copy(wish.name)
        if copy is not None and _holds_value(copy) and (not wish.tags or bound_of(copy) is not None):
            # A copy without versions of tags is known to lack them.
            value = self._opened(self._served(copy, MISSING))
            if value is not MISSING:
                return Seen(value, metadata=NEAR)
            copy.hits -= 1  # it is a copy of "missing", or to be renewed
        return self._told(await self._find(wish.name, fresh=fresh))

    def _told(self, found: Seen) -> Seen:
        """Return what this caller is told of the entry that was *found*: with HerdClient some are told that it is old."""
        return found

    # --- renewing ---------------------------------------------------------------------------------

    async def _renewed(self, wish: Wish, found: Seen) -> Any:
        """Return the old value at once, and have it renewed; or the new one, if this caller has renewed it himself."""
        flights = self._flights
        if wish.name in flights.running or flights.is_postponed(wish.name) or flights.is_own(loads_here(), wish.name):
            pass  # it is being renewed, or was tried to be a moment ago
        elif self._runtime.blocks and wish.policy.renew != "caller":
            self._submit(wish)
        else:
            match (await self._renew(wish)).outcome:
                case Made(value) | Found(value):
                    self._count(wish, "missed")  # he has waited for the new one
                    return value
                case Gone(error) if error is not None and not isinstance(error, TROUBLE):
                    raise error  # it interrupted this caller
        self.stats.stale_served += found.left is not None and found.left <= 0
        return found.value

    async def _renew(self, wish: Wish) -> Flight:
        """Lead a flight that renews the value, unless there is a flight; in asyncio this only begins it."""
        mine = Flight(wish.name, frozenset(wish.tags), renews=True)
        try:
            if self._flights.open(mine) is mine:
                await self._start(mine, wish)
        finally:
            if mine.task is None:
                self._flights.close(mine)
        return mine

    def _submit(self, wish: Wish) -> None:
        """Have the value renewed by something else than this caller, unless that is under way."""
        self._flights.postpone(wish.name, wish.policy.lease)

        def work() -> None:
            try:
                complete(self._renew(wish))
            finally:
                self._flights.submitted.pop(wish.name, None)

        if not submit(work, wish.policy.renew):
            work()


def _holds_value(copy: Entry) -> bool:
    return copy.value is not PACKED or copy.payload is not None


def _itself(value: Any) -> Any:
    return value
