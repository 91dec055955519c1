"""get_or_set_many: read many values, and load those that are missing, together.

What is there is read at once.  For each missing name the caller opens a flight, or joins the one that another caller
leads, as `get_or_set` does.  For all flights that he leads he asks for the leases in one write, and calls the loader
*once* for all names that were granted, **before** he waits for any other caller or process: so two batches that need
names of each other both load what they have, and neither waits for the other with empty hands.  Then he looks at the
leases that others hold, all in one write each time, and last he waits for the flights that he joined.

Old values that he may return are renewed by the same call of the loader, if there is one, else as `get_or_set` does it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from math import inf
from time import monotonic, perf_counter
from typing import Any, TypeAlias, TypeVar, Unpack

from fleetcache.core import MISSING
from fleetcache.keys import K, Version
from fleetcache.loading.flights import Flight, Made, Together, begin_to_wait, waited
from fleetcache.loading.get_or_set import Loading
from fleetcache.loading.load import loads_here
from fleetcache.loading.many_leading import Absent, Batch, LeadingMany, LoadMany, Trip, mapped
from fleetcache.loading.renewing import submit
from fleetcache.loading.wishes import Wish
from fleetcache.marks import DEFAULT_TIMEOUT, Timeout
from fleetcache.near.store import Entry, bound_of
from fleetcache.policy import LEASE, Decision, Policy, PolicyOptions
from fleetcache.reading import Found
from fleetcache.tagging import checked
from fleetcache.twin import blocking, complete

__all__ = ["Batches", "TagsOf", "mapped", "told_apart"]

T = TypeVar("T")

BUILT_ON = ("aget_many", "aset_many")
"""Operations that a client class of a site may override."""

TagsOf: TypeAlias = Iterable[str] | Callable[[Any], Iterable[str]]
"""The tags of all values, or a callable that returns those of the value of one key."""


class Batches(LeadingMany, Loading):
    """Operations that make and store many values where there are none."""

    _shares_batches = True
    """As `shares_loads`, which a class says of both, for batches and operations on many values."""

    def __init_subclass__(cls) -> None:
        # Before `shares_loads` is computed: here it is what the class says itself.
        owners = [next(owner for owner in cls.__mro__ if name in vars(owner)) for name in BUILT_ON]
        own = all(owner.__module__.startswith("fleetcache.") or _says_so(vars(owner)) for owner in owners)
        super().__init_subclass__()
        cls._shares_batches = own

    async def aget_or_set_many(
        self,
        /,
        keys: Iterable[K],
        load_many: Callable[[list[K]], Mapping[K, T] | Awaitable[Mapping[K, T]]],
        timeout: Timeout | Policy = DEFAULT_TIMEOUT,
        version: Version = None,
        *,
        tags: TagsOf = (),
        refresh: bool = False,
        **policy: Unpack[PolicyOptions],
    ) -> dict[K, T]:
        """Return the values of *keys*; those that are missing are loaded by one call of *load_many*, and stored.

        *load_many* gets a list of keys, and returns a mapping.  A key that is not in it has no value, and is not in the
        result either; keys that were not asked for are ignored.  For the a-method it may be a coroutine function.
        While it runs, no other caller in the fleet loads these keys.  Keys that another caller is loading are waited
        for; if they do not come, *load_many* is called for them as well.

        *timeout*, *refresh* and *policy* are those of `get_or_set`.  *tags* are those of all values, or a callable that
        returns the tags of the value of one key.
        """
        if not callable(load_many):
            raise TypeError(
                f"load_many has to be a function that takes a list of keys and returns a mapping, not {type(load_many).__name__}"
            )
        keys = list(keys)
        if self._runtime.records or not (self.shares_loads and self._shares_batches):
            lasting = self._policy_of(timeout, policy).timeout
            return await self._simply_many(keys, load_many, lasting, version, tags, refresh=refresh)
        if not keys:
            return {}
        began, (placed, named) = monotonic(), told_apart("get_or_set_many()", keys, self._names(keys, version))
        copies = self.near.copies_of(list(named)) if tags and self.near is not None and not refresh else {}
        looked: dict[str, Found] = {}
        if refresh:
            found: dict[Any, Any] = {}
        elif self._is_hasty(timeout, policy):
            limit = self._policy_of(timeout, policy).hard_timeout or 0.0
            found = self._opened_all(await self._read_until(began + limit, named, looked))
        else:
            found = self._opened_all(await self._read_many(named, looked=looked))
        if len(found) == len(named) == len(placed) and not looked and not tags:
            return found
        batch = Batch(load_many, self._policy_of(timeout, policy), version, began, found)
        self._wish_all(batch, named, looked, tags, copies, refresh=refresh)
        if batch.wishes or batch.renewals:
            await self._fulfil_all(batch)
        self.stats.stale_served += len(batch.stale)
        return {key: batch.found[named[name]] for key, name in placed.items() if named[name] in batch.found}

    get_or_set_many = blocking(aget_or_set_many)

    async def _simply_many(
        self,
        keys: Sequence[Any],
        load_many: LoadMany,
        timeout: Timeout,
        version: Any,
        tags: TagsOf,
        *,
        refresh: bool,
    ) -> dict[Any, Any]:
        """Read, load and store, without flights and leases: in a pipeline, or for a client with operations of its own."""
        await self._runtime.alone()
        placed, named = told_apart("get_or_set_many()", keys, self._names(keys, version))
        keys = list(named.values())
        found = {} if refresh else await self.aget_many(keys, version)
        missing = [key for key in keys if key not in found]
        if missing:
            began = perf_counter()
            made = mapped(await self._runtime.produce(partial(load_many, missing)), load_many, missing)
            if self.tally is not None:
                self.tally.loaded(self._names(missing, version), perf_counter() - began)
            new = {key: made[key] for key in missing if key in made}
            if callable(tags):
                for key, value in new.items():
                    await self.aset(key, value, timeout, version, tags=checked(tags(key)))
            else:
                tagged: dict[str, Any] = {"tags": tags} if tags else {}
                await self.aset_many(new, timeout, version, **tagged)
            found |= new
        return {key: found[named[name]] for key, name in placed.items() if named[name] in found}

    async def _read_until(self, until: float, named: Mapping[str, Any], looked: dict[str, Found]) -> dict[Any, Any]:
        """Return the values that are there; raise TimeoutError if they are not read until that moment."""
        found = await self._in_time(self._read_many(named, looked=looked), until)
        if found is None:
            raise TimeoutError(f"{self._masked(next(iter(named)))} and others: not loaded in time")
        return found

    def _opened_all(self, found: dict[Any, Any]) -> dict[Any, Any]:
        """Return *found* as a caller gets it."""
        if self._softens:
            return found
        opened = {key: self._opened(value) for key, value in found.items()}
        return {key: value for key, value in opened.items() if value is not MISSING}

    def _wish_all(
        self,
        batch: Batch,
        named: Mapping[str, Any],
        looked: Mapping[str, Found],
        tags: TagsOf,
        copies: Mapping[str, Entry],
        *,
        refresh: bool,
    ) -> None:
        """Have *batch* want the values that are called *named* and are not there, and note which are to be renewed.

        *copies* are those of entries that shall have tags: only a `Bound` one has tags, and it does not know which.
        """
        common = () if callable(tags) else checked(tags)
        for name, key in named.items():
            seen = looked.get(name)
            own = checked(tags(key)) if callable(tags) else common
            copy = copies.get(name)
            if seen is None and key in batch.found and (not own or (copy is not None and bound_of(copy) is not None)):
                continue
            make = partial(batch.load_many, [key])
            wish = Wish(key, str(name), make, batch.policy, batch.version, own, batch.began, refresh)
            # As `_read_many` has counted it.
            wish.counted = "missed" if key not in batch.found else "server" if copy is None else "near"
            decision = Decision.LOAD if seen is None else wish.weigh(seen)
            if seen is not None and decision is Decision.SERVE and self._carries(seen.metadata, own):
                continue
            if seen is not None and decision is Decision.RENEW:
                is_stale = seen.left is not None and seen.left <= 0
                if is_stale:
                    batch.stale.add(wish.name)
                    self._count(wish, "stale")
                batch.found[key] = self._opened(seen.value)
                self._renew_later(batch, wish)
                continue
            batch.found.pop(key, None)
            if self._flights.kept and (made := self._kept_in_outage(wish)) is not None:
                self._count(wish, "near")
                batch.found[key] = self._copy(made)
            else:
                self._count(wish, "missed")
                batch.wishes[wish.name] = wish

    def _renew_later(self, batch: Batch, wish: Wish) -> None:
        """Note that the value of *wish* is to be renewed, unless that is under way."""
        if wish.name not in self._flights.running and not self._flights.is_own(loads_here(), wish.name):
            batch.renewals[wish.name] = wish

    # --- one caller -------------------------------------------------------------------------------

    async def _fulfil_all(self, batch: Batch) -> None:
        """Find or load all that *batch* wants, and renew what is old."""
        if batch.renewals and (not batch.wishes or (self._runtime.blocks and batch.policy.renew != "caller")):
            await self._renew_all(batch)
        looked = False
        while batch.wishes:
            if looked:  # who had to look again may find what was stored meanwhile
                await self._look_again(batch)
            looked = True
            here = loads_here()
            own = [wish for name, wish in batch.wishes.items() if self._flights.is_own(here, name)]
            if own:  # within their own loader
                made = await self._made(batch, [wish.key for wish in own])
                for wish in own:
                    batch.answer(wish, made.get(wish.key, MISSING))
            if batch.wishes:
                await self._fly_all(batch, here)

    async def _look_again(self, batch: Batch) -> None:
        """Answer those wishes whose values are there by now."""
        named = {name: wish.key for name, wish in batch.wishes.items() if not wish.refresh}
        seen = self._opened_all(await self._read_many(named, fresh=True, counted=False)) if named else {}
        for wish in [wish for wish in batch.wishes.values() if wish.key in seen and not wish.refresh]:
            self._count_joined(wish)
            batch.answer(wish, seen[wish.key])

    async def _fly_all(self, batch: Batch, here: list[Flight]) -> None:
        """Lead the flights that nobody leads, then wait for those that were joined."""
        led: list[Trip] = []
        joined: list[tuple[Flight, Wish]] = []
        try:
            self._open_all(batch, here, led, joined)
            if self._runtime.blocks and led:
                await self._lead_all(led, batch)
            elif led:
                self._start_all(led, batch)
                await self._await_all(led, batch, here)
            self._answer_all(led, batch)
            while joined:
                flight, wish = joined[-1]
                value = await self._join(flight, wish)
                joined.pop()
                waited(here, flight)
                if value is not MISSING:
                    batch.answer(wish, value)
        finally:
            for flight, _ in joined:
                waited(here, flight)
            self._close_unled(led)

    def _open_all(self, batch: Batch, here: list[Flight], led: list[Trip], joined: list[tuple[Flight, Wish]]) -> None:
        """Open the flights that *batch* needs; put into *led* and *joined* who leads them."""
        together: list[Flight] = []
        for name, wish in batch.renewals.items():
            new = Together(name, frozenset(wish.tags), renews=True)
            led.append(Trip(wish, new))
            if self._flights.open(new) is not new:
                led.pop()  # somebody else renews it
        batch.renewals.clear()
        for name, wish in batch.wishes.items():
            new = Together(name, frozenset(wish.tags))
            if wish.impatient:
                new.hurry()
            led.append(Trip(wish, new))  # first, so that an interrupt leaves no open flight
            flight = self._flights.open(new)
            if flight is new:
                continue
            if self._waits_for(flight, here):
                led.pop()
                joined.append((flight, wish))
            else:  # waiting would never end
                new.hurry()
                new.detached = True
        together += [trip.flight for trip in led]
        for trip in led:
            trip.flight.others = together

    def _close_unled(self, led: Sequence[Trip]) -> None:
        """End the flights whose leader was here, and is not any more."""
        for trip in led:
            if trip.flight.task is None:
                self._flights.close(trip.flight)

    async def _await_all(self, led: Sequence[Trip], batch: Batch, here: list[Flight]) -> None:
        """Wait for the task that leads the flights of *led*, those that renew excepted."""
        waker = self._runtime.waker()
        waiting = [trip for trip in led if not trip.flight.renews]
        for trip in waiting:
            trip.flight.waiting.add(waker)
            begin_to_wait(here, trip.flight)
        try:
            while waiting := [trip for trip in waiting if trip.flight.outcome is None]:
                until = min(min(trip.wish.soft_until, trip.wish.hard_until) for trip in waiting)
                now = monotonic()
                if until > now:
                    await waker.wait(min(until - now, LEASE))
                    continue
                late = [trip for trip in waiting if min(trip.wish.soft_until, trip.wish.hard_until) <= now]
                waiting = [trip for trip in waiting if trip not in late]
                for trip in late:
                    trip.flight.stays = True  # it may end for the next caller
                    if trip.flight.made is not None:  # its loader may have blocked the loop
                        batch.answer(trip.wish, trip.flight.made.value)
                        continue
                    error = TimeoutError(f"{self._masked(trip.wish.name)}: not loaded in time")
                    batch.answer(trip.wish, self._spared(trip.wish, error))
        finally:
            for trip in led:
                if not trip.flight.renews:
                    waited(here, trip.flight)
                    self._flights.leave(trip.flight, waker)

    def _answer_all(self, led: Sequence[Trip], batch: Batch) -> None:
        """Answer what the flights of *led* have brought; raise their first error when all is answered."""
        errors = []
        for trip in led:
            flight, wish = trip.flight, trip.wish
            if flight.renews:
                if isinstance(flight.outcome, Made) and wish.key in batch.found:
                    self._count(wish, "missed")  # his caller has waited for the new one
                    batch.found[wish.key] = flight.outcome.value
                    batch.stale.discard(wish.name)
            elif wish.name in batch.wishes:
                try:
                    value = self._result(flight, wish, own=True)
                except Exception as error:  # noqa: BLE001 - raised below
                    errors.append(error)
                    continue
                if value is not MISSING or isinstance(flight.outcome, Absent):
                    batch.answer(wish, value)
        if errors:
            raise errors[0]

    # --- renewing ---------------------------------------------------------------------------------

    async def _renew_all(self, batch: Batch) -> None:
        """Renew the old values, which were answered: here, in a task, or by something else, as the policy says."""
        if not self._runtime.blocks or batch.policy.renew == "caller":
            await self._renew_here(batch)
            return
        submitted, now = self._flights.submitted, monotonic()
        mine = {name: wish for name, wish in batch.renewals.items() if now >= submitted.get(name, -inf)}
        batch.renewals.clear()
        if not mine:
            return
        apart = Batch(batch.load_many, batch.policy, batch.version, batch.began, {}, renewals=mine)
        names = list(mine)  # who renews them takes them out of the batch
        submitted.update(dict.fromkeys(names, now + batch.policy.lease))

        def work() -> None:
            try:
                complete(self._renew_here(apart))
            finally:
                for name in names:
                    submitted.pop(name, None)

        if not submit(work, batch.policy.renew):
            work()

    async def _renew_here(self, batch: Batch) -> None:
        """Lead flights that renew the old values; in asyncio this only begins it."""
        led: list[Trip] = []
        try:
            self._open_all(
                Batch(batch.load_many, batch.policy, batch.version, batch.began, {}, renewals=batch.renewals),
                [],
                led,
                [],
            )
            if led and self._runtime.blocks:
                await self._lead_all(led, batch)
                self._answer_all(led, batch)
            elif led:
                self._start_all(led, batch)
        finally:
            self._close_unled(led)


def told_apart(where: str, items: Sequence[Any], names: Sequence[Any]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Return the name of each item, and the first item of each name; raise ValueError if a dict cannot hold the results.

    True and 1 are equal, so that a dict has one place for both, but they have names of their own.
    """
    placed, named = dict(zip(items, names, strict=True)), dict(zip(names, items, strict=True))
    if len(placed) == len(named) == len(items):
        return placed, named
    placed, named = {}, {}
    for place, (item, name) in enumerate(zip(items, names, strict=True)):
        if placed.setdefault(item, name) != name:
            other = next(at for at, each in enumerate(items) if each == item)
            raise ValueError(
                f"{where}: items {other} ({type(items[other]).__name__}) and {place} ({type(item).__name__}) are equal, so "
                f"that a dict cannot hold the results of both, but their keys differ: ask for them one after another"
            )
        named.setdefault(name, item)
    return placed, named


def _says_so(body: Mapping[str, Any]) -> Any:
    """Whether a class with this *body* says that its operations do not keep callers from loading together."""
    return body.get("_shares_batches", body.get("shares_loads"))
