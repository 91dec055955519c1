"""Waiting for a load of this process: who takes its value, who has to look again, and who waits no longer.

A caller who came after a load had begun asks the server whether that load still stands: something may have given up the
entry in between, by a write of another process, of which nobody hears here.
"""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import Any

from fleetcache.codec.metadata import alone
from fleetcache.errors import UnreadableValue
from fleetcache.exchange.wakers import running_loop
from fleetcache.failsafe import TROUBLE
from fleetcache.loading.flights import Failed, Flight, Found, Gone, Made, begin_to_wait, waited
from fleetcache.loading.guards import RENEWALS
from fleetcache.loading.leading import Leading
from fleetcache.loading.leases import UNKNOWN
from fleetcache.loading.wishes import Wish
from fleetcache.marks import MISSING
from fleetcache.near.reads import SCALARS
from fleetcache.twin import passable


class Joining(Leading):
    """Waits for flights."""

    def _waits_for(self, flight: Flight, here: list[Flight]) -> bool:
        """Whether the caller can wait for *flight*; if so, it is noted that the loaders that he is part of do."""
        if self._runtime.blocks and flight.loop is not None and flight.loop is running_loop():
            return False  # its leader runs in this thread when the caller does not
        return begin_to_wait(here, flight)

    async def _await(self, flight: Flight, wish: Wish, here: list[Flight]) -> Any:
        """Wait for the task that leads *flight* on behalf of the caller."""
        begin_to_wait(here, flight)
        try:
            return await self._wait(flight, wish, own=True)
        finally:
            waited(here, flight)

    async def _join(self, flight: Flight, wish: Wish) -> Any:
        """Wait for a flight that another caller leads; return its value, or MISSING if the caller has to look again."""
        self.stats.joined += 1
        if not flight.tags.issuperset(wish.tags):
            self._warn_of_tags(wish)
        return await self._wait(flight, wish, own=False)

    async def _wait(self, flight: Flight, wish: Wish, *, own: bool) -> Any:
        """Return the value of *flight*, or the caller's old value, or MISSING if he has to look again."""
        waker, checked = self._runtime.waker(), own
        flight.waiting.add(waker)
        try:
            while flight.outcome is None:
                if not checked and flight.loading_since is not None and wish.began > flight.asked:
                    found = await self._check(flight, wish)
                    if found is not flight:
                        return found
                    checked = True
                patience = inf if own else flight.patience(wish.began, wish.policy.patience, wish.policy.lease)
                if await flight.wait(waker, min(patience, wish.soft_until, wish.hard_until)) is not None:
                    break
                now = monotonic()
                if now >= wish.soft_until or now >= wish.hard_until:
                    flight.stays = True  # it may end for the next caller
                    if checked or wish.began <= flight.asked:
                        # Its loader may have blocked the loop, so that this caller hears of its own end only now.
                        value = self._result(flight, wish, own=own)
                        if value is not MISSING:
                            return value
                    return self._spared(wish, self._late(wish))
                if not own and self._loses_patience(flight, wish):
                    return MISSING
                if flight.lost:
                    self._flights.close(flight)
                    await self._let_go(flight, wish)
        finally:
            self._flights.leave(flight, waker)
        if isinstance(flight.outcome, Made) and not checked and wish.began > flight.asked:
            found = await self._check(flight, wish)
            if found is not flight:
                return found
        return self._result(flight, wish, own=own)

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
        self._flights.detach(flight)
        return True

    async def _check(self, flight: Flight, wish: Wish) -> Any:
        """Return *flight* if what it brings is new enough for a caller who came after its load began.

        Otherwise let nobody else join it, and return the value that is there by now, or MISSING.
        """
        standing = await self._in_time(self._look_at_lease(wish.name, wish.judged), wish.hard_until) or UNKNOWN
        if standing.word == "entry":
            value = await self._judged(wish, standing)
            if value is not MISSING:
                self._count_joined(wish)
                return value
        elif standing.word == "unknown" or not self._flights.leases:
            return flight  # the server is away, or there are no leases, which would say more
        elif standing.word in {"held", "mine"} and standing.generation == flight.generation:
            if await self._guards_hold(flight):
                return flight
            await self._let_go(flight, wish)  # what it brings will not be stored
        self._flights.detach(flight)
        return MISSING

    async def _guards_hold(self, flight: Flight) -> bool:
        """Whether nothing has given up the tags, or the entry with others, since the load began."""
        for _ in range(RENEWALS):
            guards = flight.guards
            if not guards or await self._hold(guards):
                return True
            if not (spared := await self._spared_guards({flight.name: guards})):
                return False
            flight.guards = spared[flight.name]
        return False

    # --- what comes of it -------------------------------------------------------------------------

    def _result(self, flight: Flight, wish: Wish, *, own: bool) -> Any:
        """Return the value that *flight* has brought, or raise its error; MISSING if the caller has to look again."""
        outcome = flight.outcome or flight.made
        match outcome:
            case Failed() if not own and self._is_older(flight, wish):
                return MISSING
            case Failed():
                return self._spared(wish, outcome.again(own=own))
            case Gone(error) if own and isinstance(error, TROUBLE):
                return self._spared(wish, error)
            case Gone(error) if own and error is not None:
                raise error
            case Found(moment=moment) if wish.began > moment or (wish.refresh and not own):
                return MISSING
            case Made(payload=None) if not own:
                return MISSING  # no copy can be made of it yet
            case Made() if not own and (not flight.tags.issuperset(wish.tags) or self._is_older(flight, wish)):
                return MISSING
            case Made() | Found():
                if not own or (flight.made is None and isinstance(outcome, Found)):
                    self._count_joined(wish)
                return outcome.value if own else self._copy(outcome)
            case _:
                return MISSING

    def _is_older(self, flight: Flight, wish: Wish) -> bool:
        """Whether the caller wants a value that is loaded from now on, and the load had begun before."""
        return wish.refresh and wish.began > flight.asked

    def _late(self, wish: Wish) -> TimeoutError:
        """Return the error of a caller whose time is over."""
        return TimeoutError(f"{self._masked(wish.name)}: not loaded in time")

    def _spared(self, wish: Wish, error: Exception) -> Any:
        """Return the old value if the caller takes it in place of *error*; else raise that."""
        value = wish.spare
        if value is MISSING:
            raise passable(error) if self._runtime.blocks else error
        self.stats.stale_served += 1
        self._count(wish, "stale")
        return value

    def _copy(self, outcome: Made | Found) -> Any:
        """Return the value for one more caller: of his own, unless nobody can change it."""
        value, payload = outcome.value, outcome.payload
        if type(value) in SCALARS or value is None or type(payload) is not bytes:
            return value
        try:
            copied = self._opened(alone(self.codec.decode(payload)))
        except UnreadableValue:
            return value  # it can be stored, but not be read: he gets it nevertheless
        return value if copied is MISSING else copied

    def _warn_of_tags(self, wish: Wish) -> None:
        """Say once a minute that one key is loaded with tags that differ from call to call."""
        self._say(wish, "loaded with changing tags", ValueError(f"{', '.join(wish.tags)} and others"))
