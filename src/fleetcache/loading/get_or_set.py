"""get_or_set: read a value, or load it: once in the process, and once in the fleet.

A caller who finds no value joins the flight of its name in this process, or opens one and leads it.  The leader takes
the lease, and waits if another process has it; then he calls the loader, stores the value, publishes it to those who
joined, and frees the name, in this order.  While he waits or loads, the others wait for his outcome; each of them waits
no longer than his own policy says, and takes nothing that may be older than what he could have read himself.

The blocking leader works in his own thread.  The awaiting one works in a task of its own, so that the first caller
may be cancelled like any other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from types import CoroutineType
from typing import Any

from fleetcache.codec.metadata import Described
from fleetcache.core import DEFAULT_TIMEOUT, MISSING, Timeout
from fleetcache.errors import LoadFailed
from fleetcache.failsafe import TROUBLE
from fleetcache.interrupts import interruption
from fleetcache.judging import mark
from fleetcache.loading.flights import Failed, Flight, Found, Gone, Made, Outcome, begin_to_wait, is_own, waited
from fleetcache.loading.leases import ENTRY_CHANGED, MISSING_ENTRY, STORED, Leases, Mark, Standing
from fleetcache.loading.load import CURRENT, Load, loads_here
from fleetcache.loading.renewing import quietly
from fleetcache.near.reads import SCALARS
from fleetcache.policy import LEASE, Policy
from fleetcache.twin import blocking, complete

log = logging.getLogger("fleetcache.loading")

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.25
"""Between two looks at another process' lease, in seconds; the pauses grow with the time that was waited."""


TASKS: set[asyncio.Task[None]] = set()
"""The tasks that lead: an event loop alone would not keep them alive."""


def pause_after(waited: float) -> float:
    """Return how long a leader who has *waited* pauses before his next look at another process' lease."""
    return min(max(FIRST_PAUSE, waited / 20), LONGEST_PAUSE)


@dataclass(slots=True, eq=False)
class Wish:
    """What one caller wants, and what he has seen of the entry so far."""

    key: Any
    name: str
    make: Callable[[], Any]
    policy: Policy
    version: Any
    tags: tuple[str, ...]
    began: float
    """When he began: an entry that he is given has to be as new."""
    refresh: bool = False
    impatient: bool = False
    """Whether he has waited long enough for others."""
    judged: Mark = MISSING_ENTRY
    """The entry that he has seen, which is to be replaced."""
    old: Any = MISSING
    """Its value."""

    def see(self, payload: bytes | None, old: Any = MISSING) -> None:
        """Note that the entry is *payload* now, whose value *old* is to be replaced."""
        self.judged, self.old = mark(payload), old


class Loading(Leases):
    """Operations that make and store a value where there is none."""

    async def aget_or_set(self, key: Any, default: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None) -> Any:
        """Return the value of *key*; if there is none, store *default*, or its result if it is callable.

        A callable is called once for all callers that ask at the same time, in this process and in the fleet, and all
        of them get its value.  For the a-method *default* may be a coroutine function, or a coroutine, which runs only
        if there is no value.
        """
        started = type(default) is CoroutineType  # isinstance() would evaluate a lazy object
        make = (lambda: default) if started else default
        try:
            if self.runtime.records or not callable(make):
                return await self._simply(key, make, timeout, version)
            wish = Wish(key, str(self.name(key, version)), make, Policy(timeout=timeout), version, (), monotonic())
            return await self._fulfil(wish)
        finally:
            if started:
                default.close()  # or Python warns that it was never awaited

    get_or_set = blocking(aget_or_set)

    async def _simply(self, key: Any, make: Any, timeout: Timeout, version: Any) -> Any:
        """Read, make and add, without flights and leases: for a constant, and in a pipeline."""
        await self.runtime.alone()
        value = await self.aget(key, MISSING, version)
        if value is not MISSING:
            return value
        made = await self.runtime.produce(make) if callable(make) else make
        if await self.aadd(key, made, timeout, version):
            return made
        # Another caller was first, or the server is away, or the timeout is 0 or less.
        return await self.aget(key, made, version, fresh=True)

    # --- one caller -------------------------------------------------------------------------------

    async def _fulfil(self, wish: Wish) -> Any:
        """Return the value that *wish* is about: what is there, or what is loaded."""
        looked = False
        while True:
            value = await self._look(wish, fresh=looked)
            if value is not MISSING:
                return value
            looked = True
            here = loads_here()
            if is_own(here, wish.name):
                return await self.runtime.produce(wish.make)  # within its own loader
            value = await self._fly(wish, here)
            if value is not MISSING:
                return value

    async def _look(self, wish: Wish, *, fresh: bool) -> Any:
        """Return the value that is there, MISSING if none may be returned."""
        return await self.read(wish.name, fresh=fresh)

    async def _fly(self, wish: Wish, here: list[Flight]) -> Any:
        """Join the flight, or lead one; return its value, or MISSING if the caller has to look again."""
        mine = Flight(wish.name, frozenset(wish.tags))
        if wish.impatient:
            mine.hurry()
        try:
            flight = self.flights.open(mine)
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
                self.flights.close(mine)  # its leader was here, and is not any more

    def _waits_for(self, flight: Flight, here: list[Flight]) -> bool:
        """Whether the caller can wait for *flight*; if so, it is noted that the loaders that he is part of do."""
        if self.runtime.blocks and flight.loop is not None and flight.loop is self._loop():
            return False  # its leader runs in this thread when the caller does not
        return begin_to_wait(here, flight)

    def _loop(self) -> Any:
        """Return the event loop whose thread this is."""
        return asyncio._get_running_loop()

    async def _start(self, flight: Flight, wish: Wish) -> None:
        """Lead *flight*: here, or in a task of its own."""
        if self.runtime.blocks:
            await self._lead(flight, wish)
            return
        flight.task = task = asyncio.get_running_loop().create_task(self._lead(flight, wish), name="fleetcache load")
        flights = self.flights
        keep(task)

        def ended(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()  # retrieved, or asyncio complains
            flights.close(flight, Gone(error))

        task.add_done_callback(ended)

    # --- waiting ----------------------------------------------------------------------------------

    async def _await(self, flight: Flight, wish: Wish, here: list[Flight]) -> Any:
        """Wait for the task that leads *flight* on behalf of the caller."""
        waker = self.runtime.waker()
        flight.waiting.add(waker)
        begin_to_wait(here, flight)
        try:
            while flight.outcome is None:
                await flight.wait(waker, monotonic() + LEASE)
        finally:
            waited(here, flight)
            self.flights.leave(flight, waker)
        return self._result(flight, wish, own=True)

    async def _join(self, flight: Flight, wish: Wish) -> Any:
        """Wait for a flight that another caller leads; return its value, or MISSING if the caller has to look again."""
        waker = self.runtime.waker()
        self.stats.joined += 1
        checked = False
        flight.waiting.add(waker)
        try:
            while flight.outcome is None:
                if not checked and flight.loading_since is not None and wish.began > flight.asked:
                    found = await self._check(flight, wish)
                    if found is not flight:
                        return found
                    checked = True
                until = flight.patience(wish.began, wish.policy.patience, wish.policy.lease)
                if await flight.wait(waker, until) is None and self._loses_patience(flight, wish):
                    return MISSING
                if flight.lost:
                    self.flights.close(flight)
                    await self._let_go(flight, wish)
        finally:
            self.flights.leave(flight, waker)
        if isinstance(flight.outcome, Made) and not checked and wish.began > flight.asked:
            found = await self._check(flight, wish)
            if found is not flight:
                return found
        return self._result(flight, wish, own=False)

    def _loses_patience(self, flight: Flight, wish: Wish) -> bool:
        """Have the callers who lose patience load together; return whether they need another flight for it."""
        # While the caller waited, the leader may have lost patience too, and now loads for both.
        until = flight.patience(wish.began, wish.policy.patience, wish.policy.lease)
        if flight.outcome is not None or monotonic() < until:
            return False
        if flight.loading_since is None and flight.impatient_since is None:
            flight.hurry()  # its leader waits for another process
            return False
        wish.impatient = True
        self.flights.detach(flight)
        return True

    async def _check(self, flight: Flight, wish: Wish) -> Any:
        """Return *flight* if what it brings is new enough for a caller who came after its load began.

        Otherwise let nobody else join it, and return the value that is there by now, or MISSING.
        """
        standing = await self.look(wish.name, wish.judged)
        if standing.word == "entry":
            value = await self._judged(wish, standing)
            if value is not MISSING:
                return value
        elif standing.word == "unknown" or not self.flights.leases:
            return flight  # the server is away, or there are no leases, which would say more
        elif standing.word == "held" and standing.generation == flight.generation and await self._guards_hold(flight):
            return flight
        self.flights.detach(flight)
        return MISSING

    async def _guards_hold(self, flight: Flight) -> bool:
        return not flight.guards or await self._hold(flight.guards)

    def _result(self, flight: Flight, wish: Wish, *, own: bool) -> Any:
        """Return the value that *flight* has brought, or raise its error; MISSING if the caller has to look again."""
        outcome = flight.outcome
        match outcome:
            case Failed():
                raise outcome.again()
            case Gone(error) if own and error is not None:
                raise error
            case Found(moment=moment) if wish.began > moment:
                return MISSING
            case Made() | Found():
                return outcome.value if own else self._copy(outcome)
            case _:
                return MISSING

    def _copy(self, outcome: Made | Found) -> Any:
        """Return the value for one more caller: of his own, unless nobody can change it."""
        value, payload = outcome.value, outcome.payload
        if type(value) in SCALARS or value is None or type(payload) is not bytes:
            return value
        return self._shown(self.codec.decode(payload))

    def _shown(self, value: Any) -> Any:
        """Return what a caller gets of a decoded value."""
        return value.value if type(value) is Described else value

    # --- leading ----------------------------------------------------------------------------------

    async def _lead(self, flight: Flight, wish: Wish) -> None:
        """Take the lease, load, store, publish, and free the name."""
        outcome: Outcome = Gone()
        try:
            outcome = await self._led(flight, wish)
        except BaseException as error:
            outcome = Gone(error)
            self._release_later(flight, wish)
            if not isinstance(error, Exception):
                raise
        finally:
            self.flights.close(flight, outcome)

    async def _led(self, flight: Flight, wish: Wish) -> Outcome:
        """Return the outcome of the load."""
        found = await self._lease(flight, wish)
        if found is not None:
            return found
        self.stats.loads += 1
        load = Load(wish.key, wish.policy.timeout, wish.old, flight)
        began = flight.loading_since = monotonic()
        try:
            CURRENT.set(load)
            value = await self.runtime.produce(wish.make)
            cost = monotonic() - began
            payload, life = await self._packed(wish, flight, load, value, cost)
        except Exception as error:
            if interruption(error) is not None:
                raise  # it is this caller's own
            self.stats.load_errors += 1
            await self._let_go(flight, wish, wish.policy.retry_after)
            return Failed(error, error.__traceback__)
        finally:
            CURRENT.set(load.outer)
        if (
            not load.skipped
            and (life is None or life > 0)
            and (winner := await self._store_loaded(flight, wish, payload, life))
        ):
            return winner
        if load.skipped or not (life is None or life > 0):
            await self._let_go(flight, wish)
        return Made(value, payload)

    async def _lease(self, flight: Flight, wish: Wish) -> Outcome | None:
        """Wait until this flight may load, and return None; or what was found, or why it may not."""
        guards = self.guards_of(wish.tags, wish.version)
        life = self._guarded_life(wish.policy)
        until, waited = wish.began + wish.policy.patience, False
        while True:
            asked = monotonic()
            if asked >= until:
                flight.hurry()
            flight.asks = True
            standing = await self.take(wish.name, wish.judged, flight.holder, wish.policy.lease, guards, life)
            flight.asked, flight.generation, flight.guards = asked, standing.generation, standing.guards
            match standing.word:
                case "entry":
                    value = await self._judged(wish, standing)
                    if value is not MISSING:
                        return Found(value, standing.payload, asked)
                case "gone":
                    wish.see(None)
                case "failed":
                    return self._refused(wish, standing)
                case "held" if flight.impatient_since is None:
                    self.stats.waited += not waited
                    waited = True
                    await flight.pause(self.runtime.waker(), min(pause_after(asked - wish.began), until - asked))
                case _:
                    return None

    async def _judged(self, wish: Wish, standing: Standing) -> Any:
        """Return the value of the entry that was found, MISSING if it may not be returned; then it is to be replaced."""
        payload = standing.payload
        value = self.value(payload, wish.name, MISSING)
        if value is MISSING:
            wish.see(payload)
        return value

    def _refused(self, wish: Wish, standing: Standing) -> Outcome:
        """Return the failure of a load that no process shall try again yet."""
        left = standing.left
        error = LoadFailed(
            f"{self.masked(wish.name)}: a load failed a moment ago, and is not tried again for {left:.1f} s", left
        )
        return Failed(error, None)

    # --- storing ----------------------------------------------------------------------------------

    def _guarded_life(self, policy: Policy) -> int | None:
        """Return for how many milliseconds its guards are needed, from before the load of an entry until its end."""
        life = self._life(policy)
        return None if life is None else life + self.lease_life

    def _life(self, policy: Policy) -> int | None:
        """Return for how many milliseconds an entry is kept; None for ever."""
        life = self.milliseconds(policy.timeout)
        return None if life is None else life + round(policy.stale * 1000)

    async def _packed(
        self, wish: Wish, flight: Flight, load: Load, value: Any, cost: float
    ) -> tuple[bytes | int, int | None]:
        """Return the payload to store, and for how many milliseconds it is kept."""
        (payload,) = await self.encoded((value,))
        return payload, self._life(wish.policy)

    async def _store_loaded(self, flight: Flight, wish: Wish, payload: bytes | int, life: int | None) -> Outcome | None:
        """Store the payload; return what another writer has stored meanwhile, if that is to be returned instead."""
        if flight.guards is None or (flight.generation is None and self.flights.leases):
            return None  # the server was away when the load began, so nobody knows what has changed since
        try:
            stored = await self.fill(wish.name, flight.generation, wish.judged, payload, life, flight.guards)
            if stored == STORED:
                return None
            self.stats.fills_refused += 1
            await self._let_go(flight, wish)
            if stored == ENTRY_CHANGED:
                moment = monotonic()
                value = await self.read(wish.name, fresh=True)
                return None if value is MISSING else Found(value, None, moment)
        except TROUBLE as error:
            self._say_unstored(wish, error)
        return None

    def _say_unstored(self, wish: Wish, error: Exception) -> None:
        """Log, once a minute for each entry, that a value could not be stored."""
        if self.stats.said.is_new(f"unstored {wish.name}"):
            log.warning("%s: loaded, but not stored: %s", self.masked(wish.name), error, extra={"event": "unstored"})

    async def _let_go(self, flight: Flight, wish: Wish, pause: float = 0.0) -> None:
        """Release the lease; if the server is away, it ends by itself."""
        if not flight.asks:
            return
        try:
            await self.let_go(wish.name, flight.holder, pause)
        except TROUBLE:
            log.debug("%s: the lease was not released", self.masked(wish.name))

    def _release_later(self, flight: Flight, wish: Wish) -> None:
        """Release the lease of a flight whose leader was interrupted, without holding the interrupt up."""
        if not flight.asks:
            return
        if self.runtime.blocks:
            quietly(lambda: complete(self._let_go(flight, wish)))
            return
        with suppress(RuntimeError):  # the loop ends
            keep(asyncio.get_running_loop().create_task(self._let_go(flight, wish)))


def keep(task: asyncio.Task[None]) -> None:
    """Keep *task* alive until it has ended."""
    TASKS.add(task)
    task.add_done_callback(TASKS.discard)
