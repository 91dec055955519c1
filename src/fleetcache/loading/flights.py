"""Flights: the loads that run in this process, which later callers join.

A flight has one leader, who makes the value, and callers who wait for it: threads and tasks, of any event loop.  It
is *open* as long as it stands in the table under its name, so that callers find it; *detached* if it was taken from
there before its end, because its value may be outdated for those who come later.  It ends with an `Outcome`.

No lock is held while a leader tells his outcome, or while a caller waits: first the outcome is set, then the waiting
callers are woken; each of them first puts its waker down, then looks for the outcome.  So neither can miss the other,
and an interrupt at any place leaves nothing locked.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from types import TracebackType
from typing import Any, Self
from weakref import WeakValueDictionary

from fleetcache.exchange.wakers import Waker, running_loop
from fleetcache.forks import Guard, in_children
from fleetcache.loading.errors import copied
from fleetcache.policy import LEASE, PATIENCE, Policy
from fleetcache.stats.figures import Figures

PROTECTION = Figures(
    "loading",
    protection="`full`; `partial` if the user may run no scripts; `none` if he may not write keys that begin with `fleetcache:`.",
)

LOOK = 1.0
"""After how many seconds at most a waiting caller looks by itself, in case an interrupt hit the one who should wake it."""


MOST_KEPT = 1000
"""Of how many entries what was loaded in an outage is kept."""

MOST_NAMED = 10_000
"""Of how many entries the tags are remembered that loaders added."""


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """The loader has made *value*."""

    value: Any
    payload: bytes | int | None
    """What was stored, or should have been; None if nothing can be."""
    moment: float = field(default_factory=monotonic)
    """When it was made."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The leader found *value* in the cache, when it looked at *moment*."""

    value: Any
    payload: bytes | int | None
    moment: float


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    """The loader has raised *error*."""

    error: Exception
    traceback: TracebackType | None
    copy: Exception | None
    """A copy as the error was then: whoever gets the error itself may add notes to it, for example."""

    @classmethod
    def of(cls, error: Exception) -> Self:
        """Return the outcome of a load that has failed with *error*."""
        return cls(error, error.__traceback__, copied(error))

    def again(self, *, own: bool) -> Exception:
        """Return the error for one caller: itself for the leader, a copy for anybody else if one can be made.

        It has the traceback that it had, since each raise adds to it.
        """
        another = None if own or self.copy is None else copied(self.copy)
        return (another or self.error).with_traceback(self.traceback)


@dataclass(frozen=True, slots=True, eq=False)
class Gone:
    """The leader has given up; *error* is what ended it, which concerns nobody else."""

    error: BaseException | None = None


Outcome = Made | Found | Failed | Gone


class Flight:
    """One running load."""

    def __init__(self, name: str, tags: frozenset[str] = frozenset(), *, renews: bool = False) -> None:
        self.name = name
        self.tags = tags
        """The tags that its value gets."""
        self.renews = renews
        """Whether it renews a value that may still be served, so that nobody needs to wait for it."""
        self.holder = os.urandom(8).hex()
        """By what the lease knows this flight."""
        self.generation: bytes | None = None
        """The lease under which it loads, its own or that of another flight; None without leases."""
        self.guards: Mapping[str, bytes] | None = {}
        """What gives up its value, each with its version before the load; None if that is not known."""
        self.asks = False
        """Whether its leader has asked for a lease, which has to be released then."""
        self.asked = inf
        """When the lease and the versions were asked for: what is loaded is at least as new."""
        self.loading_since: float | None = None
        """When the loader was called."""
        self.impatient_since: float | None = None
        """Since when its leader does not wait, or not any more, for another process to load."""
        self.outcome: Outcome | None = None
        self.made: Made | None = None
        """What was made, while it is being stored."""
        self.detached = False
        self.given_up = False
        """Whether this process has given up its value, by a write that no server received."""
        self.outage: Any = None
        """The outage in which its loader was called."""
        self.loop = running_loop()
        """The loop on which the leader runs; its thread must not wait for it."""
        self.task: Any = None
        """The task of a leader that runs in one."""
        self.stays = renews
        """Whether the task goes on if nobody waits for it."""
        self._leader: Waker | None = None
        self.waiting: set[Waker] = set()
        self.waits_for: dict[Flight, int] = {}
        """The flights for which this flight's loader waits, and how often."""
        self.table: Flights | None = None
        """Where it was opened: another cache may have an entry of the same name."""

    @property
    def lost(self) -> bool:
        """Whether its leader's loop was closed before its end."""
        return self.task is not None and self.loop is not None and self.loop.is_closed()

    def patience(self, began: float, wait: float, lease: float = LEASE) -> float:
        """Return until when a caller waits who *began* then and waits for *wait* seconds.

        The flight that impatient callers have begun is theirs together, even if they lose patience one after another.
        """
        if self.impatient_since is not None:
            return self.impatient_since + max(wait, lease + PATIENCE)
        return began + wait

    def hurry(self) -> None:
        """Have the leader load now, who waits for another process: one of those who joined has lost patience."""
        if self.impatient_since is None:
            self.impatient_since = monotonic()
            if self._leader is not None:
                self._leader.ring()

    async def pause(self, waker: Waker, seconds: float) -> None:
        """Let the leader wait for *seconds*, or until he shall hurry."""
        self._leader = waker
        if self.impatient_since is None:
            await waker.wait(seconds)

    async def wait(self, waker: Waker, until: float) -> Outcome | None:
        """Return the outcome; None if the flight has none at the moment *until*, or its leader is lost."""
        while self.outcome is None and not self.lost and (left := until - monotonic()) > 0:
            await waker.wait(min(left, LOOK))
        return self.outcome

    def end(self, outcome: Outcome) -> None:
        """Set the outcome, unless there is one already, and wake those who wait."""
        if self.outcome is None:
            self.outcome = outcome
        self.wake()

    def wake(self) -> None:
        """Let everybody look at the flight who waits for it."""
        for waker in list(self.waiting):
            waker.ring()

    def abandon(self) -> None:
        """Cancel the leader's task, because nobody waits for the value."""
        if self.task is None or self.stays or self.outcome is not None:
            return
        if running_loop() is self.loop:
            self.task.cancel()
        elif self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.task.cancel)


class Together(Flight):
    """One of several flights that one leader leads at once, such as those of a batch."""

    others: Sequence[Flight] = ()
    """All of them."""

    def abandon(self) -> None:
        """Cancel the leader's task, unless another of its flights is still wanted."""
        if not any((each.waiting or each.stays) and each.outcome is None for each in self.others):
            super().abandon()


async def pause_all(flights: Iterable[Flight], waker: Waker, seconds: float) -> None:
    """Let the leader of *flights* wait for *seconds*, or until he shall hurry with one of them."""
    flights = list(flights)
    for flight in flights:
        flight._leader = waker
    if all(flight.impatient_since is None for flight in flights):
        await waker.wait(seconds)


HOLDERS: WeakValueDictionary[bytes, Flight] = WeakValueDictionary()
"""The flights of this process, of all its caches, that have asked for leases, by the holders that stand there."""

_waits = Guard()
"""Held while a caller notes for what it waits, so that two cannot begin to wait for each other."""


class Flights:
    """The open flights of one configuration in this process, by the names of their entries."""

    def __init__(self) -> None:
        self.running: dict[str, Flight] = {}
        self.guard = Guard()
        self.scripts = True
        """Whether the servers run scripts for this user, as far as is known."""
        self.leases = True
        """Whether the user may write leases."""
        self.named: dict[str, tuple[str, ...]] = {}
        """The tags that loaders named themselves, by the name of the entry: the next load captures them before it begins."""
        self.kept: dict[str, tuple[Made, float, Any]] = {}
        """What was loaded in an outage, until when it is kept, and in which outage."""
        self.policies: dict[Any, Policy] = {}
        """The policies of calls, by their arguments."""
        self.submitted: dict[str, float] = {}
        """Until when renewals are left to others: to threads and the like, or to another process."""
        in_children(self.after_fork)

    def expected(self, name: str) -> tuple[str, ...]:
        """Return the tags that the last loader of *name* has added."""
        return self.named.get(name, ())

    def expect(self, name: str, tags: tuple[str, ...]) -> None:
        """Note that the loader of *name* has added *tags*."""
        if tags:
            if len(self.named) >= MOST_NAMED:
                self.named.clear()
            self.named[name] = tags
        elif self.named:
            self.named.pop(name, None)

    def postpone(self, name: str, seconds: float) -> None:
        """Let nobody try to renew *name* for so long: another process does, or nobody shall."""
        if len(self.submitted) >= MOST_NAMED:
            self.submitted.clear()
        self.submitted[name] = monotonic() + seconds

    def is_postponed(self, name: str) -> bool:
        """Whether the renewal of *name* is under way elsewhere."""
        return bool(self.submitted) and monotonic() < self.submitted.get(name, 0.0)

    def keep(self, name: str, made: Made, until: float, outage: Any) -> None:
        """Keep what was loaded while the server is away."""
        if len(self.kept) >= MOST_KEPT:
            self.kept.clear()
        self.kept[name] = (made, until, outage)

    def drop(self, names: Iterable[str] | None) -> None:
        """Forget what was kept of *names*, None for all."""
        if names is None:
            self.kept.clear()
            return
        for name in names:
            self.kept.pop(name, None)

    def give_up(self, names: Iterable[str] | None) -> None:
        """Give up what was kept, and what is being loaded, of *names*, None for all."""
        self.drop(names)
        running = self.running
        for flight in list(running.values()) if names is None else list(map(running.get, names)):
            if flight is not None:
                flight.given_up = True
                self.detach(flight)

    @property
    def protection(self) -> str:
        """How loads are protected from those of other processes, as far as is known."""
        return "full" if self.scripts else "partial" if self.leases else "none"

    def open(self, flight: Flight) -> Flight:
        """Return the open flight of this name, or open *flight*."""
        flight.table = self
        return self.running.setdefault(flight.name, flight)  # one step, so two threads cannot both lead

    def is_own(self, flights: Iterable[Flight], name: str) -> bool:
        """Whether one of *flights*, within whose loaders the caller runs, loads the entry called *name* of this cache."""
        return any(flight.name == name and flight.table is self for flight in flights)

    def detach(self, flight: Flight) -> None:
        """Let those who come from now on not find *flight*; a later flight of its name stays."""
        flight.detached = True
        with self.guard.lock:
            if self.running.get(flight.name) is flight:
                del self.running[flight.name]

    def close(self, flight: Flight, outcome: Outcome | None = None) -> None:
        """End *flight*, with `Gone` if it has no other outcome: first everybody can see that, then the name is free."""
        flight.end(outcome or Gone())
        self.detach(flight)
        flight.wake()  # once more, for those who came in between

    def leave(self, flight: Flight, waker: Waker) -> None:
        """Let a caller go who has waited; the last one takes the load along, if it runs in a task."""
        flight.waiting.discard(waker)
        if not flight.waiting and flight.outcome is None and flight.task is not None and not flight.stays:
            self.detach(flight)  # first, so that nobody joins a flight that is being cancelled
            if flight.waiting:
                return  # somebody came in between; the flight is his
            flight.abandon()

    def after_fork(self) -> None:
        """In a child, start empty: the leaders are in the parent."""
        self.running = {}
        self.submitted = {}
        self.kept = {}


def begin_to_wait(waiting: Iterable[Flight], flight: Flight) -> bool:
    """Note that the loaders of the flights *waiting* wait for *flight*; return False if it waits for one of them."""
    waiting = list(waiting)
    if not waiting:
        return True
    with _waits.lock:
        if _reaches(flight, set(waiting)):
            return False
        for each in waiting:
            each.waits_for[flight] = each.waits_for.get(flight, 0) + 1
    return True


def waited(waiting: Iterable[Flight], flight: Flight) -> None:
    """Note that the loaders of the flights *waiting* do not wait for *flight* any more."""
    with _waits.lock:
        for each in waiting:
            count = each.waits_for.pop(flight, 0) - 1
            if count > 0:
                each.waits_for[flight] = count


def _reaches(flight: Flight, targets: set[Flight]) -> bool:
    """Whether *flight* is one of *targets*, or waits for one, itself or through others."""
    seen: set[Flight] = set()
    next_ones = [flight]
    while next_ones:
        each = next_ones.pop()
        if each in targets:
            return True
        if each not in seen:
            seen.add(each)
            next_ones += each.waits_for
    return False
