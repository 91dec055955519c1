"""The leader's work: take the lease, call the loader, store the value, publish it, and free the name.

A blocking leader does it in his own thread.  For an awaiting one it is done in a task of its own, so that the first
caller may be cancelled like any other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from time import monotonic
from traceback import format_exception_only
from typing import Any, TypeVar

from fleetcache import commands as c
from fleetcache.codec.metadata import VERSION, Metadata
from fleetcache.errors import LoadFailed, UnstorableValue
from fleetcache.exchange.contract import Command
from fleetcache.exchange.wakers import running_loop
from fleetcache.failsafe import TROUBLE
from fleetcache.forks import chance
from fleetcache.interrupts import interruption
from fleetcache.judging import Standing as Worth
from fleetcache.keys import EPOCH, unique
from fleetcache.loading.flights import HOLDERS, Failed, Flight, Found, Gone, Made, Outcome
from fleetcache.loading.leases import STORED, Leases, Standing, overtaken, times_of
from fleetcache.loading.load import CURRENT, Load, loads_here
from fleetcache.loading.renewing import quietly
from fleetcache.loading.wishes import Wish
from fleetcache.marks import MISSING, Timeout
from fleetcache.policy import Decision, Policy
from fleetcache.twin import carried, complete

log = logging.getLogger("fleetcache.loading")

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.25
"""Between two looks at another process' lease, in seconds; the pauses grow with the time that was waited."""

TASKS: set[asyncio.Task[None]] = set()
"""The tasks that lead: an event loop alone would not keep them alive."""


def pause_after(waited: float) -> float:
    """Return how long a leader who has *waited* pauses before his next look at another process' lease."""
    return min(max(FIRST_PAUSE, waited / 20), LONGEST_PAUSE)


def keep(task: asyncio.Task[None]) -> None:
    """Keep *task* alive until it has ended."""
    TASKS.add(task)
    task.add_done_callback(TASKS.discard)


class Leading(Leases):
    """Leads flights."""

    _softens = True
    """Whether what a policy says of old values is written into the entry; HerdClient has its own way to write it."""

    async def _start(self, flight: Flight, wish: Wish) -> None:
        """Lead *flight*: here, or in a task of its own."""
        if self._runtime.blocks:
            await self._lead(flight, wish)
            return
        flight.task = task = asyncio.get_running_loop().create_task(self._lead(flight, wish), name="fleetcache load")
        keep(task)
        flights = self._flights

        def ended(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()  # retrieved, or asyncio complains
            flights.close(flight, Gone(error))

        task.add_done_callback(ended)

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
            self._flights.close(flight, outcome)

    async def _led(self, flight: Flight, wish: Wish) -> Outcome:
        """Return the outcome of the load."""
        found = await self._lease(flight, wish)
        if found is not None:
            return found
        self.stats.loads += 1
        self.stats.early += wish.early
        load = Load(wish.key, wish.policy.timeout, wish.old, flight)
        self._note_outage(flight)
        began = flight.loading_since = monotonic()
        try:
            CURRENT.set(load)
            value = await self._runtime.produce(wish.make)
            value = load.stale if load.kept else value
            flight.made = made = Made(value, None)
            took = made.moment - began
            payload, life = await self._packed(wish, flight, load, value, took)
            self._count_load((wish,), took)
        except BaseException as error:
            if not isinstance(error, Exception) or interruption(error) is not None:
                self._count_load((wish,), monotonic() - began)
                raise  # it is this caller's own
            self.stats.load_errors += 1
            self._count_load((wish,), monotonic() - began, failed=True)
            await self._let_go(flight, wish, wish.policy.retry_after)
            if flight.renews:
                self._say_not_renewed(wish, carried(error))
            return Failed.of(carried(error))
        finally:
            CURRENT.set(load.outer)
        if load.skipped or (life is not None and life <= 0):
            await self._let_go(flight, wish)
            return replace(made, payload=payload)
        flight.made = made = replace(made, payload=payload)
        return await self._store_loaded(flight, wish, made, life) or made

    async def _lease(self, flight: Flight, wish: Wish) -> Outcome | None:
        """Wait until this flight may load, and return None; or what was found, or why it may not."""
        guards = self._guards_of(unique((*wish.tags, *self._flights.expected(wish.name))), wish.version)
        life = self._guarded_life(wish.policy)
        until, waited = wish.began + wish.policy.patience, False
        while True:
            asked = monotonic()
            if asked >= until:
                flight.hurry()
            flight.asks, HOLDERS[flight.holder.encode()] = True, flight
            standing = await self._take_lease(wish.name, wish.judged, flight.holder, wish.policy.lease, guards, life)
            flight.asked, flight.generation, flight.guards = asked, standing.generation, standing.guards
            match standing.word:
                case "entry":
                    value = await self._judged(wish, standing)
                    if value is not MISSING:
                        return Found(value, standing.payload, asked)
                case "gone":
                    wish.see(None)
                case "failed":
                    self._flights.postpone(wish.name, standing.left)
                    return self._refused(wish, standing)
                case "held" if flight.renews:
                    self._flights.postpone(wish.name, LONGEST_PAUSE)
                    return Gone()  # another process renews the value
                case "held" if flight.impatient_since is None and not self._blocks(standing.holder):
                    self.stats.waited += not waited
                    waited = True
                    await flight.pause(self._runtime.waker(), min(pause_after(asked - wish.began), until - asked))
                case _:
                    return None

    def _blocks(self, holder: bytes) -> bool:
        """Whether the holder of a lease cannot go on while the caller waits.

        It is a load that he is part of, in a cache of another configuration, or a task of the loop in his thread.
        """
        flight = HOLDERS.get(holder)
        if flight is None or flight in loads_here():
            return flight is not None
        return self._runtime.blocks and flight.loop is not None and flight.loop is running_loop()

    async def _in_time(self, look: Coroutine[Any, Any, T], until: float) -> T | None:
        """Return what *look* returns; None if it does not until that moment.  Blocking code cannot leave it."""
        if until == inf or self._runtime.blocks:
            return await look
        try:
            async with asyncio.timeout(until - monotonic()) as limit:
                return await look
        except TimeoutError:
            if not limit.expired():
                raise
            return None

    async def _judged(self, wish: Wish, standing: Standing) -> Any:
        """Return the value of the entry that was found, MISSING if it may not be returned; then it is to be replaced."""
        found = await self._examine(wish.name, standing.payload)
        fresh = found.standing in {None, Worth.FRESH} and self._carries(found.metadata, wish.tags)
        value = self._opened(found.value) if fresh and not wish.refresh else MISSING
        if value is MISSING and wish.weigh(found) is Decision.SERVE:
            wish.see(standing.payload)
        return value

    def _carries(self, metadata: Metadata | None, tags: tuple[str, ...]) -> bool:
        """Whether an entry with *metadata* has all of *tags*."""
        return not tags or (metadata is not None and {tag for tag, _ in metadata.tags}.issuperset(tags))

    def _opened(self, value: Any) -> Any:
        """Return what a caller gets of a stored value, MISSING if he should renew it: HerdClient stores more than it."""
        return value

    def _wrapped(self, value: Any, life: int | None, timeout: Timeout) -> tuple[Any, int | None]:
        """Return what is stored of *value*, and for how many milliseconds, if it is fresh for *life* of them.

        That is *timeout*, or follows from it.
        """
        return value, life

    def _refused(self, wish: Wish, standing: Standing) -> Outcome:
        """Return the failure of a load that no process shall try again yet."""
        left = standing.left
        error = LoadFailed(
            f"{self._masked(wish.name)}: a load failed a moment ago, and is not tried again for {left:.1f} s", left
        )
        return Failed.of(error)

    # --- storing ----------------------------------------------------------------------------------

    def _guarded_life(self, policy: Policy) -> int | None:
        """Return for how many milliseconds its guards are needed, from before the load of an entry until its end."""
        life = self._life(policy)
        return None if life is None else life + times_of(policy.lease)[1]

    def _life(self, policy: Policy) -> int | None:
        """Return for how many milliseconds an entry is kept at most; None for ever."""
        life = self.milliseconds(policy.timeout)
        return None if life is None else life + round(policy.stale * 1000)

    def _fresh_life(self, policy: Policy, timeout: Timeout, value: Any) -> int | None:
        """Return for how many milliseconds *value* is fresh; None for ever."""
        life = self.milliseconds(timeout if value is not None or policy.absent_for is None else policy.absent_for)
        if life is not None and policy.jitter:
            life -= int(life * policy.jitter * chance.random())
        return life

    async def _packed(
        self, wish: Wish, flight: Flight, load: Load, value: Any, cost: float
    ) -> tuple[bytes | int, int | None]:
        """Return the payload to store, and for how many milliseconds it is kept, 0 if it is not."""
        try:
            return await self._encoded(wish, flight, load, value, cost)
        except UnstorableValue as error:  # its callers get it nevertheless
            self._say_unstored(wish, error)
            return 0, 0

    async def _encoded(
        self, wish: Wish, flight: Flight, load: Load, value: Any, cost: float
    ) -> tuple[bytes | int, int | None]:
        policy = wish.policy
        life = self._fresh_life(policy, load.timeout, value)
        tags = unique((*wish.tags, *load.tags))
        self._flights.expect(wish.name, load.tags)
        soft = self._softens and policy.soft and life is not None
        value, kept = self._wrapped(value, life, load.timeout)
        if not (soft or tags):
            (payload,) = await self.encoded((value,))
            return payload, kept
        names = {tag: self._tag_name(tag, wish.version) for tag in tags}
        versions, now = flight.guards or {}, await self._now(wish.name) if soft else 0
        unnoted = [tag for tag, name in names.items() if name not in versions]
        away = self._began_away(flight)
        if away:
            now = 0  # it is not stored, but may be kept in the process
        elif now is None or unnoted:
            now, life = 0, 0  # nobody knows how long it would be fresh, or whether that tag was invalidated meanwhile
        if unnoted and not away and not load.skipped:
            self.stats.fills_refused += 1
            self._say_unnoted(wish, unnoted)
        metadata = Metadata(
            fresh_until=now + life if soft and life else 0,
            stale=round(policy.kept(cost) * 1000) if soft else 0,
            cost=round(cost * 1000),
            tags=tuple((tag, versions.get(name, bytes(VERSION))) for tag, name in names.items()),
            early=policy.early,
            scope=self._scope(wish.version),
            made=now and now - round(cost * 1000),
        )
        (payload,) = await self.encoded((value,), metadata=[metadata])
        if life is not None and life <= 0:
            return payload, 0  # a stale life needs a fresh one before it
        kept = kept and kept + metadata.stale
        await self._outlast(wish, load, tags, kept)
        return payload, kept

    async def _outlast(self, wish: Wish, load: Load, tags: Sequence[str], life: int | None) -> None:
        """Let the versions of *tags* live as long as an entry whose loader has given it more than the call's timeout."""
        expected = self._guarded_life(wish.policy)
        short = [tag for tag in tags if tag not in load.lasting]
        if not short or expected is None or (life is not None and life <= expected):
            return
        load.lasting.update(short)
        with suppress(*TROUBLE):
            await self._capture(short, life, wish.version)

    async def _now(self, name: str) -> int | None:
        """Return the time of the server that holds *name*, None if it is away: a value that was made is returned all the same."""
        try:
            return await self._moment(self.topology.home(name))
        except TROUBLE:
            return None

    async def _store_loaded(self, flight: Flight, wish: Wish, made: Made, life: int | None) -> Outcome | None:
        """Store what was made; return what another writer has stored meanwhile, if that is to be returned instead."""
        if self._began_away(flight):
            self._keep_in_outage(flight, made)
            return None
        assert made.payload is not None and flight.guards is not None
        try:
            stored = await self._fill_entry(
                wish.name, flight.generation, wish.judged, made.payload, life, flight.guards
            )
            if stored == STORED:
                if self.tally is not None:
                    self.tally.wrote(wish.name, made.payload)
                return None
            if stored is None:
                self._keep_in_outage(flight, made)
                return None
            self.stats.fills_refused += 1
            await self._let_go(flight, wish)
            if overtaken(stored, wish.judged) and not wish.refresh:
                moment = monotonic()
                value = self._opened((await self._find(wish.name, fresh=True)).served())
                return None if value is MISSING else Found(value, None, moment)
        except TROUBLE as error:
            self._say_unstored(wish, error)
        return None

    # --- counting ---------------------------------------------------------------------------------

    def _count(self, wish: Wish, level: str, payload: bytes | None = None) -> None:
        """Count the read of the caller of *wish* at *level*, in place of the level at which it was counted before."""
        if self.tally is None or wish.refresh:
            return
        group = self.tally.known[wish.name]
        if wish.counted:
            group.move(wish.counted, level)
        else:
            group.read(level, payload)
        wish.counted = level

    def _count_joined(self, wish: Wish) -> None:
        """Count that the caller of *wish* got a value that another caller, or process, has loaded meanwhile."""
        if self.tally is not None:
            self.tally.known[wish.name].joined += 1

    def _count_load(self, wishes: Sequence[Wish], seconds: float, *, failed: bool = False) -> None:
        """Count a call of a loader for *wishes*."""
        if self.tally is not None:
            self.tally.loaded([wish.name for wish in wishes], seconds, failed=failed)

    # --- in an outage -----------------------------------------------------------------------------

    def _outage(self, name: str) -> Any:
        """Return what stands for the outage in which the server of *name* is now; None if there is none."""
        try:
            remote = self.topology.home(name).remote
        except TROUBLE:
            return self.topology  # a cluster of which nothing is known
        if remote is None or not remote.breaker.failed:
            return None
        return remote, remote.breaker.era

    def _began_away(self, flight: Flight) -> bool:
        """Whether the server was away when the load began, so that nobody knows what has changed since."""
        return flight.guards is None or (flight.generation is None and self._flights.leases)

    def _note_outage(self, flight: Flight) -> None:
        """Note in which outage the loader of *flight* is called, if what it makes may be kept."""
        if self.settings.options.outage_ttl and self._failsafe.ignore:
            flight.outage = self._outage(flight.name)

    def _keep_in_outage(self, flight: Flight, made: Made) -> None:
        """Keep what was loaded for OUTAGE_TTL seconds from when it was made, or until the server is back.

        It must have been loaded within this outage: only a server knows of writes before it.
        """
        outage = flight.outage
        if outage is not None and not flight.given_up and outage == self._outage(flight.name):
            self._flights.keep(flight.name, made, made.moment + self.settings.options.outage_ttl, outage)

    def _kept_in_outage(self, wish: Wish) -> Made | None:
        """Return what was loaded in the outage that there is, if it may be returned."""
        made, until, outage = self._flights.kept.get(wish.name, (None, 0.0, None))
        if made is None or wish.refresh or not self._failsafe.ignore:
            return None
        if monotonic() < until and outage == self._outage(wish.name):
            return made
        self._flights.drop((wish.name,))
        return None

    def _instead(
        self, error: Exception, instead: Any, commands: Iterable[Command], sent: Sequence[Command] | None = None
    ) -> Any:
        """As in `Core`; a write that failed gives up what was kept of its entries, or is being loaded."""
        flights = self._flights
        if flights.kept or flights.running:
            commands = list(commands)
            writes = [command for command in commands if command[0] is not c.STORE]  # a load's own
            flights.give_up(None if any(map(_gives_up_many, commands)) else c.written(writes))
        return super()._instead(error, instead, commands, sent)

    # --- afterwards -------------------------------------------------------------------------------

    def _say_unstored(self, wish: Wish, error: Exception) -> None:
        """Log, once a minute for each entry, that a value could not be stored."""
        self._say(wish, "loaded, but not stored", error)

    def _say_unnoted(self, wish: Wish, tags: list[str]) -> None:
        """Log, once a minute for each entry, that the loader has added *tags* that nobody had expected."""
        if self.stats.said.is_new(f"unnoted {wish.name}"):
            log.info(
                "%s: loaded, but not stored: the loader added the tags %s, which may have been invalidated during the load. "
                "The next load of this process notes them before it begins; name them in tags= if they are known earlier",
                self._masked(wish.name),
                ", ".join(tags),
                extra={"event": "unnoted"},
            )

    def _say_not_renewed(self, wish: Wish, error: Exception) -> None:
        """Log, once a minute for each entry, what its loader raised."""
        self._say(wish, "not renewed", "".join(format_exception_only(error)).strip())

    def _say(self, wish: Wish, what: str, error: object) -> None:
        """Log *what* has happened to an entry because of *error*, once a minute."""
        if self.stats.said.is_new(f"{what} {wish.name}"):
            event = what.rpartition(" ")[2]
            log.warning("%s: %s: %s", self._masked(wish.name), what, error, extra={"event": event})

    async def _let_go(self, flight: Flight, wish: Wish, pause: float = 0.0) -> None:
        """Release the lease; if the server is away, it ends by itself."""
        if not flight.asks:
            return
        try:
            await self._free_lease(wish.name, flight.holder, pause)
        except TROUBLE:
            log.debug("%s: the lease was not released", self._masked(wish.name))

    def _release_later(self, flight: Flight, wish: Wish) -> None:
        """Release the lease of a flight whose leader was interrupted, without holding the interrupt up."""
        if not flight.asks:
            return
        if self._runtime.blocks:
            quietly(lambda: complete(self._let_go(flight, wish)))
            return
        with suppress(RuntimeError):  # the loop ends
            keep(asyncio.get_running_loop().create_task(self._let_go(flight, wish)))


def _gives_up_many(command: Command) -> bool:
    """Whether *command* gives up entries that it does not name, as those of tags, `clear` and `delete_pattern` do."""
    if command[0] is c.GIVE_UP:
        return True
    return command[1] == c.ENDING if command[0] is c.FREE else command[0] is c.VOID and command[1].startswith(EPOCH)
