"""The work of a leader of many flights: take the leases, call the loader once, store the values, publish them.

The loader is called for all names whose leases were granted before the leader waits for anybody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import Any, TypeAlias

from fleetcache.core import MISSING
from fleetcache.failsafe import TROUBLE
from fleetcache.interrupts import interruption
from fleetcache.keys import unique
from fleetcache.loading.flights import HOLDERS, Failed, Found, Gone, Made, Outcome, Together, pause_all
from fleetcache.loading.joining import Joining
from fleetcache.loading.leading import keep, pause_after
from fleetcache.loading.leases import STORED, Standing, overtaken
from fleetcache.loading.load import CURRENT, LoadOfMany
from fleetcache.loading.many_leases import Claim, Filling, LeasesOfMany
from fleetcache.loading.renewing import quietly
from fleetcache.loading.wishes import Wish
from fleetcache.policy import Policy
from fleetcache.twin import carried, complete

LoadMany: TypeAlias = Callable[[list[Any]], Any]


@dataclass(slots=True, eq=False)
class Batch:
    """One call of `get_or_set_many`."""

    load_many: LoadMany
    policy: Policy
    version: Any
    began: float
    found: dict[Any, Any]
    """The values that there are, by their keys."""
    wishes: dict[str, Wish] = field(default_factory=dict)
    """The values that are still wanted, by their names."""
    renewals: dict[str, Wish] = field(default_factory=dict)
    """The values that are there, and are to be renewed."""
    stale: set[str] = field(default_factory=set)
    """The names of those values in `found` that are stale."""

    def answer(self, wish: Wish, value: Any) -> None:
        """Note the value that *wish* is about; MISSING if the loader said that there is none."""
        self.wishes.pop(wish.name, None)
        if value is not MISSING:
            self.found[wish.key] = value


@dataclass(slots=True, eq=False)
class Trip:
    """A flight that this caller leads, and what it is for."""

    wish: Wish
    flight: Together

    @property
    def claim(self) -> Claim:
        """The lease that is wanted for it."""
        return Claim(self.wish.name, self.wish.judged, self.flight.holder)


Packed: TypeAlias = tuple[Trip, Made, int | None]
"""A value that was made, and for how many milliseconds it is kept."""


class Absent(Gone):
    """The loader of many has no value for this key; whoever joined looks again, and asks his own loader."""


class LeadingMany(LeasesOfMany, Joining):
    """Leads many flights at once."""

    def _start_all(self, led: Sequence[Trip], batch: Batch) -> asyncio.Task[None]:
        """Lead the flights of *led* in a task of their own."""
        task = asyncio.get_running_loop().create_task(self._lead_all(led, batch), name="fleetcache load")
        for trip in led:
            trip.flight.task = task
        keep(task)
        flights = self._flights

        def ended(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()  # retrieved, or asyncio complains
            for trip in led:
                flights.close(trip.flight, Gone(error))

        task.add_done_callback(ended)
        return task

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
                self._flights.close(trip.flight, outcome)

    async def _led_all(self, led: Sequence[Trip], batch: Batch) -> None:
        until, waits = batch.began + batch.policy.patience, False
        while led:
            if monotonic() >= until:
                for trip in led:
                    trip.flight.hurry()
            order = {trip: place for place, trip in enumerate(led)}
            granted: list[Trip] = []
            held: list[Trip] = []
            while led:  # who found another entry than he had seen asks once more, so that one call loads all
                led = await self._ask_for(led, batch, granted, held)
            if granted:
                await self._load_all(sorted(granted, key=order.__getitem__), batch)
            led = held
            if held:
                self.stats.waited += 0 if waits else len(held)
                waits = True
                now = monotonic()
                pause = min(pause_after(now - batch.began), max(until - now, 0))
                await pause_all([trip.flight for trip in held], self._runtime.waker(), pause)

    async def _ask_for(self, led: Sequence[Trip], batch: Batch, granted: list[Trip], held: list[Trip]) -> list[Trip]:
        """Ask for the leases of *led*; return those that are to be asked for again, because there is another entry."""
        again: list[Trip] = []
        asked = monotonic()
        for trip, standing in zip(led, await self._take_all(led, batch), strict=True):
            trip.flight.asked = asked
            await self._sorted(trip, standing, granted, held, again)
        return again

    async def _take_all(self, led: Sequence[Trip], batch: Batch) -> list[Standing]:
        """Ask for the leases of all flights in *led*, with the versions of what gives up their values."""
        guards = {}
        for trip in led:
            trip.flight.asks, HOLDERS[trip.flight.holder.encode()] = True, trip.flight
            tags = unique((*trip.wish.tags, *self._flights.expected(trip.wish.name)))
            guards[trip.wish.name] = self._guards_of(tags, batch.version)
        every = unique([guard for own in guards.values() for guard in own])
        claims = [trip.claim for trip in led]
        standings = await self._take_leases(claims, batch.policy.lease, every, self._guarded_life(batch.policy))
        for trip, standing in zip(led, standings, strict=True):
            versions = standing.guards
            trip.flight.generation = standing.generation
            # Without leases there is no epoch among them.
            own = guards[trip.wish.name]
            trip.flight.guards = versions and {guard: versions[guard] for guard in own if guard in versions}
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
                    self._flights.close(flight, Found(value, standing.payload, flight.asked))
            case "gone":
                wish.see(None)
                again.append(trip)
            case "failed":
                self._flights.close(flight, self._refused(wish, standing))
            case "held" if flight.renews:
                self._flights.close(flight)  # another process renews the value
            case "held" if flight.impatient_since is None and not self._blocks(standing.holder):
                held.append(trip)
            case _:
                granted.append(trip)

    # --- loading ----------------------------------------------------------------------------------

    async def _load_all(self, granted: Sequence[Trip], batch: Batch) -> None:
        """Call the loader once for all of *granted*; store, publish and end each."""
        self.stats.loads += 1
        self.stats.early += sum(trip.wish.early for trip in granted)
        keys = [trip.wish.key for trip in granted]
        old = {trip.wish.key: trip.wish.old for trip in granted if trip.wish.old is not MISSING}
        load = LoadOfMany(keys, batch.policy.timeout, old, [trip.flight for trip in granted])
        began = monotonic()
        for trip in granted:
            self._note_outage(trip.flight)
            trip.flight.loading_since = began
        try:
            CURRENT.set(load)
            made = await self._made(batch, keys)
            for trip in granted:
                if trip.wish.key in made:
                    trip.flight.made = Made(made[trip.wish.key], None)
            took = monotonic() - began
            packed = await self._packed_all(granted, load, took)
            self._count_load([trip.wish for trip in granted], took)
        except BaseException as error:
            if not isinstance(error, Exception) or interruption(error) is not None:
                self._count_load([trip.wish for trip in granted], monotonic() - began)
                raise  # it is this caller's own
            self._count_load([trip.wish for trip in granted], monotonic() - began, failed=True)
            await self._failed(granted, batch, error)
            return
        finally:
            CURRENT.set(load.outer)
        await self._publish_all(granted, packed, skipped=load.skipped)

    async def _made(self, batch: Batch, keys: list[Any]) -> Mapping[Any, Any]:
        """Return what the loader makes for *keys*."""
        return mapped(await self._runtime.produce(partial(batch.load_many, keys)), batch.load_many, keys)

    async def _packed_all(self, granted: Sequence[Trip], load: LoadOfMany, cost: float) -> list[Packed]:
        """Return the payloads of the values that *load* has made, in *cost* seconds."""
        packed: list[Packed] = []
        for trip in granted:
            made = trip.flight.made
            if made is not None:
                payload, life = await self._packed(trip.wish, trip.flight, load, made.value, cost)
                trip.flight.made = made = replace(made, payload=payload)
                packed.append((trip, made, life))
        return packed

    async def _failed(self, granted: Sequence[Trip], batch: Batch, error: Exception) -> None:
        """End all of *granted* with the error of the loader."""
        self.stats.load_errors += 1
        await self._let_all_go(granted, batch.policy.retry_after)
        if all(trip.flight.renews for trip in granted):
            self._say_not_renewed(granted[0].wish, carried(error))
        outcome = Failed.of(carried(error))
        for trip in granted:
            self._flights.close(trip.flight, outcome)

    # --- storing ----------------------------------------------------------------------------------

    async def _publish_all(self, granted: Sequence[Trip], packed: Sequence[Packed], *, skipped: bool) -> None:
        """Store what was loaded, then end each flight; those without a value have none to store."""
        outcomes: dict[Trip, Outcome] = {trip: Absent() for trip in granted}
        outcomes |= {trip: made for trip, made, _ in packed}
        stored = {} if skipped else await self._store_all([each for each in packed if each[2] is None or each[2] > 0])
        changed = [
            trip for trip, found in stored.items() if overtaken(found, trip.wish.judged) and not trip.wish.refresh
        ]
        winners = await self._winners(changed) if changed else {}
        await self._let_all_go([trip for trip in granted if stored.get(trip) != STORED])
        for trip in granted:
            self._flights.close(trip.flight, winners.get(trip, outcomes[trip]))

    async def _store_all(self, packed: Sequence[Packed]) -> dict[Trip, int | None]:
        """Store the payloads, and return what came of each; whatever happens, the values were made."""
        fillings: dict[Trip, Filling] = {}
        for trip, made, life in packed:
            wish, flight = trip.wish, trip.flight
            if not self._began_away(flight):
                assert made.payload is not None and flight.guards is not None
                fillings[trip] = Filling(wish.name, flight.generation, wish.judged, made.payload, life, flight.guards)
        found: list[int | None] = []
        if fillings:
            try:
                found = await self._fill_entries(list(fillings.values()))
            except TROUBLE as error:
                self._say_unstored(next(iter(fillings)).wish, error)
                return {}
        stored = dict(zip(fillings, found, strict=True))
        self.stats.fills_refused += sum(each is not None and each != STORED for each in found)
        for trip, made, _ in packed:
            if self.tally is not None and stored.get(trip) == STORED:
                self.tally.wrote(trip.wish.name, made.payload)
            if stored.get(trip) is None:  # its server is away, or was when the load began
                self._keep_in_outage(trip.flight, made)
        return stored

    async def _winners(self, trips: Sequence[Trip]) -> dict[Trip, Outcome]:
        """Return what others have stored meanwhile for *trips*, which everybody gets in place of what was made here."""
        moment = monotonic()
        try:
            found = await self._read_many({trip.wish.name: trip for trip in trips}, fresh=True, counted=False)
        except TROUBLE:
            return {}
        opened = {trip: self._opened(value) for trip, value in found.items()}
        return {trip: Found(value, None, moment) for trip, value in opened.items() if value is not MISSING}

    async def _let_all_go(self, trips: Iterable[Trip], pause: float = 0.0) -> None:
        """Release the leases of *trips*; if the server is away, they end by themselves."""
        with suppress(*TROUBLE):
            await self._free_leases([trip.claim for trip in trips if trip.flight.asks], pause)

    def _release_all_later(self, trips: Sequence[Trip]) -> None:
        """Release the leases of a leader who was interrupted, without holding the interrupt up."""
        if self._runtime.blocks:
            quietly(lambda: complete(self._let_all_go(trips)))
            return
        with suppress(RuntimeError):  # the loop ends
            keep(asyncio.get_running_loop().create_task(self._let_all_go(trips)))


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
