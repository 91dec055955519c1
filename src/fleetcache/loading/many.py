"""get_or_set_many: read many values, and load those that are missing, together.

What is there is read at once.  For each missing name the caller opens a flight, or joins the one that another caller
leads, as `get_or_set` does.  For all flights that he leads he asks for the leases in one write, and calls the loader
*once* for all names that were granted, **before** he waits for any other caller or process: so two batches that need
names of each other both load what they have, and neither waits for the other with empty hands.  Then he looks at the
leases that others hold, all in one write each time, and last he waits for the flights that he joined.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, TypeAlias, Unpack

from fleetcache.core import MISSING
from fleetcache.failsafe import TROUBLE
from fleetcache.interrupts import interruption
from fleetcache.loading.flights import (
    Failed,
    Flight,
    Found,
    Gone,
    Made,
    Outcome,
    Together,
    begin_to_wait,
    is_own,
    pause_all,
    waited,
)
from fleetcache.loading.get_or_set import Loading, Wish, keep, pause_after
from fleetcache.loading.leases import ENTRY_CHANGED, STORED, Standing
from fleetcache.loading.load import CURRENT, LoadOfMany, loads_here
from fleetcache.loading.many_leases import Claim, Filling, LeasesOfMany
from fleetcache.loading.renewing import quietly
from fleetcache.marks import DEFAULT_TIMEOUT, Timeout
from fleetcache.policy import LEASE, Policy, PolicyOptions
from fleetcache.tagging import checked
from fleetcache.twin import blocking, complete

TagsOf: TypeAlias = Iterable[str] | Callable[[Any], Iterable[str]]
"""The tags of all values, or a callable that returns those of the value of one key."""

LoadMany: TypeAlias = Callable[[list[Any]], Any]


@dataclass(slots=True, eq=False)
class Batch:
    """One call of `get_or_set_many`."""

    load_many: LoadMany
    policy: Policy
    version: Any
    wishes: dict[str, Wish]
    """The values that are still wanted, by their names."""
    found: dict[Any, Any] = field(default_factory=dict)
    """The values that there are, by their keys."""

    def answer(self, wish: Wish, value: Any) -> None:
        """Note the value that *wish* is about; MISSING if the loader said that there is none."""
        self.wishes.pop(wish.name, None)
        if value is not MISSING:
            self.found[wish.key] = value


@dataclass(slots=True, eq=False)
class Trip:
    """A flight that this caller leads, and what it is for."""

    wish: Wish
    flight: Flight

    @property
    def claim(self) -> Claim:
        return Claim(self.wish.name, self.wish.judged, self.flight.holder)


class Batches(LeasesOfMany, Loading):
    """Operations that make and store many values where there are none."""

    async def aget_or_set_many(
        self,
        /,
        keys: Iterable[Any],
        load_many: LoadMany,
        timeout: Timeout | Policy = DEFAULT_TIMEOUT,
        version: Any = None,
        *,
        tags: TagsOf = (),
        refresh: bool = False,
        **policy: Unpack[PolicyOptions],
    ) -> dict[Any, Any]:
        """Return the values of *keys*; those that are missing are loaded by one call of *load_many*, and stored.

        *load_many* gets a list of keys, and returns a mapping.  A key that is not in it has no value, and is not in the
        result either; keys that were not asked for are ignored.  For the a-method it may be a coroutine function.
        While it runs, no other caller in the fleet loads these keys.  Keys that another caller is loading are waited
        for; if they do not come, *load_many* is called for them as well.

        *tags* are those of all values, or a callable that returns the tags of the value of one key.  With *refresh* all
        keys are loaded.
        """
        if not callable(load_many):
            raise TypeError(
                f"load_many has to be a function that takes a list of keys and returns a mapping, not {type(load_many).__name__}"
            )
        if self.runtime.records:
            return await self._simply_many(keys, load_many, timeout, version)
        keys = list(keys)
        if not keys:
            return {}
        named = dict(zip(self.names(keys, version), keys, strict=True))
        found = {} if refresh else await self._there(named)
        if len(found) == len(named):
            return found
        batch = Batch(load_many, self.policy_of(timeout, policy), version, {}, found)
        self._wish_all(batch, {name: key for name, key in named.items() if key not in found}, tags, refresh=refresh)
        await self._fulfil_all(batch)
        return {key: batch.found[key] for key in named.values() if key in batch.found}

    get_or_set_many = blocking(aget_or_set_many)

    async def _there(self, named: Mapping[str, Any], *, fresh: bool = False) -> dict[Any, Any]:
        """Return the values that are there and need no renewal, as `read_many` does."""
        found = await self.read_many(named, fresh=fresh)
        if self.softens:
            return found
        opened = {key: self._opened(value) for key, value in found.items()}
        return {key: value for key, value in opened.items() if value is not MISSING}

    def _wish_all(self, batch: Batch, named: Mapping[str, Any], tags: TagsOf, *, refresh: bool) -> None:
        """Have *batch* want the values that are called *named*."""
        began = monotonic()
        common = () if callable(tags) else checked(tags)
        for name, key in named.items():
            own = checked(tags(key)) if callable(tags) else common
            make = partial(batch.load_many, [key])
            wish = Wish(key, str(name), make, batch.policy, batch.version, own, began, refresh)
            batch.wishes[wish.name] = wish

    async def _simply_many(
        self, keys: Iterable[Any], load_many: LoadMany, timeout: Timeout | Policy, version: Any
    ) -> dict[Any, Any]:
        """Read, load and store, without flights and leases, in a pipeline."""
        await self.runtime.alone()
        keys = list(dict.fromkeys(keys))
        found = await self.aget_many(keys, version)
        missing = [key for key in keys if key not in found]
        if missing:
            made = mapped(await self.runtime.produce(partial(load_many, missing)), load_many, missing)
            new = {key: made[key] for key in missing if key in made}
            await self.aset_many(new, self.policy_of(timeout, {}).timeout, version)
            found |= new
        return {key: found[key] for key in keys if key in found}

    # --- one caller -------------------------------------------------------------------------------

    async def _fulfil_all(self, batch: Batch) -> None:
        """Find or load all that *batch* wants."""
        looked = False
        while batch.wishes:
            if looked:  # who had to look again may find what was stored meanwhile
                named = {name: wish.key for name, wish in batch.wishes.items()}
                seen = await self._there(named, fresh=True)
                for wish in [wish for wish in batch.wishes.values() if wish.key in seen]:
                    batch.answer(wish, seen[wish.key])
            looked = True
            here = loads_here()
            own = [wish for name, wish in batch.wishes.items() if is_own(here, name)]
            if own:  # within their own loader
                await self._load_beside(batch, own)
            if batch.wishes:
                await self._fly_all(batch, here)

    async def _load_beside(self, batch: Batch, wishes: Sequence[Wish]) -> None:
        keys = [wish.key for wish in wishes]
        made = mapped(await self.runtime.produce(partial(batch.load_many, keys)), batch.load_many, keys)
        for wish in wishes:
            batch.answer(wish, made.get(wish.key, MISSING))

    async def _fly_all(self, batch: Batch, here: list[Flight]) -> None:
        """Lead the flights that nobody leads, then wait for those that were joined."""
        led: list[Trip] = []
        joined: list[tuple[Flight, Wish]] = []
        mine: list[Together] = []
        try:
            for name, wish in batch.wishes.items():
                new = Together(name, frozenset(wish.tags))
                new.others = mine
                mine.append(new)
                if wish.impatient:
                    new.hurry()
                flight = self.flights.open(new)
                if flight is new:
                    led.append(Trip(wish, new))
                elif self._waits_for(flight, here):
                    joined.append((flight, wish))
                else:  # waiting would never end
                    new.hurry()
                    new.detached = True
                    led.append(Trip(wish, new))
            mine[:] = [trip.flight for trip in led if isinstance(trip.flight, Together)]
            if led:
                await self._start_all(led, batch, here)
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
            for trip in led:
                if trip.flight.task is None:
                    self.flights.close(trip.flight)  # its leader was here, and is not any more

    async def _start_all(self, led: Sequence[Trip], batch: Batch, here: list[Flight]) -> None:
        """Lead the flights of *led*: here, or in a task of their own; answer what they brought."""
        if self.runtime.blocks:
            await self._lead_all(led, batch)
        else:
            task = asyncio.get_running_loop().create_task(self._lead_all(led, batch), name="fleetcache load")
            for trip in led:
                trip.flight.task = task
            keep(task)
            flights = self.flights

            def ended(task: asyncio.Task[None]) -> None:
                error = None if task.cancelled() else task.exception()  # retrieved, or asyncio complains
                for trip in led:
                    flights.close(trip.flight, Gone(error))

            task.add_done_callback(ended)
            await self._await_all([trip.flight for trip in led], here)
        errors = []
        for trip in led:
            try:
                value = self._result(trip.flight, trip.wish, own=True)
            except Exception as error:  # noqa: BLE001 - raised below, when all values are known
                errors.append(error)
                continue
            if value is not MISSING or isinstance(trip.flight.outcome, Absent):
                batch.answer(trip.wish, value)
        if errors:
            raise errors[0]

    async def _await_all(self, flights: Sequence[Flight], here: list[Flight]) -> None:
        """Wait for the task that leads *flights* on behalf of the caller."""
        waker = self.runtime.waker()
        for flight in flights:
            flight.waiting.add(waker)
            begin_to_wait(here, flight)
        try:
            while any(flight.outcome is None for flight in flights):
                await waker.wait(LEASE)
        finally:
            for flight in flights:
                waited(here, flight)
                self.flights.leave(flight, waker)

    # --- leading ----------------------------------------------------------------------------------

    async def _lead_all(self, led: Sequence[Trip], batch: Batch) -> None:
        """Take the leases, load, store, publish, and free the names."""
        outcome: Outcome = Gone()
        try:
            await self._led_all(led, batch)
        except BaseException as error:
            outcome = Gone(error)
            self._release_all_later([trip for trip in led if trip.flight.outcome is None])
            if not isinstance(error, Exception):
                raise
        finally:
            for trip in led:
                self.flights.close(trip.flight, outcome)

    async def _led_all(self, led: Sequence[Trip], batch: Batch) -> None:
        policy, waits = batch.policy, False
        began = led[0].wish.began
        until = began + policy.patience
        while led:
            asked = monotonic()
            if asked >= until:
                for trip in led:
                    trip.flight.hurry()
            granted: list[Trip] = []
            held: list[Trip] = []
            again: list[Trip] = []
            for trip, standing in zip(led, await self._take_all(led, batch), strict=True):
                trip.flight.asked = asked
                await self._sorted(trip, standing, granted, held, again)
            if granted:
                await self._load_all(granted, batch)
            led = [*again, *held]
            if held and not again:
                self.stats.waited += 0 if waits else len(held)
                waits = True
                now = monotonic()
                pause = min(pause_after(now - began), max(until - now, 0))
                await pause_all([trip.flight for trip in held], self.runtime.waker(), pause)

    async def _take_all(self, led: Sequence[Trip], batch: Batch) -> list[Standing]:
        """Ask for the leases of all flights in *led*, with the versions of what gives up their values."""
        guards = {trip.wish.name: self.guards_of(trip.wish.tags, batch.version) for trip in led}
        every = list(dict.fromkeys(guard for own in guards.values() for guard in own))
        for trip in led:
            trip.flight.asks = True
        claims = [trip.claim for trip in led]
        standings = await self.take_all(claims, batch.policy.lease, every, self._guarded_life(batch.policy))
        for trip, standing in zip(led, standings, strict=True):
            versions = standing.guards
            trip.flight.generation = standing.generation
            trip.flight.guards = versions and {guard: versions[guard] for guard in guards[trip.wish.name]}
        return standings

    async def _sorted(
        self, trip: Trip, standing: Standing, granted: list[Trip], held: list[Trip], again: list[Trip]
    ) -> None:
        """Put *trip* into the list where it belongs, or end it with what was found."""
        wish, flight = trip.wish, trip.flight
        match standing.word:
            case "entry":
                value = await self._judged(wish, standing)
                if value is MISSING:
                    again.append(trip)
                else:
                    self.flights.close(flight, Found(value, standing.payload, flight.asked))
            case "gone":
                wish.see(None)
                again.append(trip)
            case "failed":
                self.flights.close(flight, self._refused(wish, standing))
            case "held" if flight.impatient_since is None:
                held.append(trip)
            case _:
                granted.append(trip)

    async def _load_all(self, granted: Sequence[Trip], batch: Batch) -> None:
        """Call the loader once for all of *granted*; store, publish and end each."""
        self.stats.loads += 1
        keys = [trip.wish.key for trip in granted]
        old = {trip.wish.key: trip.wish.old for trip in granted if trip.wish.old is not MISSING}
        load = LoadOfMany(keys, batch.policy.timeout, old, [trip.flight for trip in granted])
        began = monotonic()
        for trip in granted:
            trip.flight.loading_since = began
        packed: list[tuple[Trip, Any, bytes | int, int | None]] = []
        try:
            CURRENT.set(load)
            made = mapped(await self.runtime.produce(partial(batch.load_many, keys)), batch.load_many, keys)
            cost = monotonic() - began
            for trip in granted:
                if trip.wish.key in made:
                    value = made[trip.wish.key]
                    payload, life = await self._packed(trip.wish, trip.flight, load, value, cost)
                    packed.append((trip, value, payload, life))
        except Exception as error:
            if interruption(error) is not None:
                raise  # it is this caller's own
            self.stats.load_errors += 1
            await self._let_all_go(granted, batch.policy.retry_after)
            for trip in granted:
                self.flights.close(trip.flight, Failed(error, error.__traceback__))
            return
        finally:
            CURRENT.set(load.outer)
        await self._publish_all(granted, packed, skipped=load.skipped)

    async def _publish_all(
        self,
        granted: Sequence[Trip],
        packed: Sequence[tuple[Trip, Any, bytes | int, int | None]],
        *,
        skipped: bool,
    ) -> None:
        """Store what was loaded, then end each flight; those without a value have none to store."""
        outcomes: dict[Trip, Outcome] = {trip: Absent() for trip in granted}
        outcomes |= {trip: Made(value, payload) for trip, value, payload, _ in packed}
        storing = [] if skipped else [each for each in packed if each[3] is None or each[3] > 0]
        stored = await self._store_all([(trip, payload, life) for trip, _, payload, life in storing])
        winners = await self._winners([trip for trip, found in stored.items() if found == ENTRY_CHANGED])
        await self._let_all_go([trip for trip in granted if stored.get(trip) != STORED])
        for trip in granted:
            self.flights.close(trip.flight, winners.get(trip, outcomes[trip]))

    async def _store_all(self, packed: Sequence[tuple[Trip, bytes | int, int | None]]) -> dict[Trip, int | None]:
        """Store the payloads, and return what came of each; whatever happens, the values were made."""
        fillings: dict[Trip, Filling] = {}
        for trip, payload, life in packed:
            wish, flight = trip.wish, trip.flight
            if flight.guards is not None and (flight.generation is not None or not self.flights.leases):
                fillings[trip] = Filling(wish.name, flight.generation, wish.judged, payload, life, flight.guards)
        if not fillings:
            return {}
        try:
            found = await self.fill_all(list(fillings.values()))
        except TROUBLE as error:
            self._say_unstored(next(iter(fillings)).wish, error)
            return {}
        self.stats.fills_refused += sum(each is not None and each != STORED for each in found)
        return dict(zip(fillings, found, strict=True))

    async def _winners(self, trips: Sequence[Trip]) -> dict[Trip, Outcome]:
        """Return what others have stored meanwhile for *trips*, which everybody gets in place of what was made here."""
        if not trips:
            return {}
        moment = monotonic()
        try:
            found = await self._there({trip.wish.name: trip for trip in trips}, fresh=True)
        except TROUBLE:
            return {}
        return {trip: Found(value, None, moment) for trip, value in found.items()}

    async def _let_all_go(self, trips: Sequence[Trip], pause: float = 0.0) -> None:
        with suppress(*TROUBLE):  # else they end by themselves
            await self.let_go_all([trip.claim for trip in trips if trip.flight.asks], pause)

    def _release_all_later(self, trips: Sequence[Trip]) -> None:
        """Release the leases of a leader who was interrupted, without holding the interrupt up."""
        if self.runtime.blocks:
            quietly(lambda: complete(self._let_all_go(trips)))
            return
        keep(asyncio.get_running_loop().create_task(self._let_all_go(trips)))


class Absent(Gone):
    """The loader of many has no value for this key; whoever joined looks again, and asks his own loader."""


def mapped(made: Any, load_many: Callable[..., Any], keys: Sequence[Any]) -> Mapping[Any, Any]:
    """Return *made*, the result of *load_many* for *keys*, if it is a mapping of these keys."""
    name = getattr(load_many, "__qualname__", None) or type(load_many).__qualname__
    if not isinstance(made, Mapping):
        raise TypeError(
            f"{name}() has to return a mapping of keys to values, not {type(made).__name__}: a dict without the keys that "
            f"have no value"
        )
    if made and not any(key in made for key in keys):
        kinds = f"{type(next(iter(made))).__name__}, not {type(keys[0]).__name__}"
        raise ValueError(
            f"{name}() returned values, but for none of the keys that it was given; its keys are of type {kinds}"
        )
    return made
