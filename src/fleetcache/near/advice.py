"""Advice on MAX_BYTES: which hit ratio would the near cache have with fewer bytes, and with more?

The answer comes from live traffic.  `minisim` simulates stores of several sizes with a sample of the names; this module
chooses the sample, brings every read of it to the simulations, and turns their misses into hit ratios.

*The sample* are the names whose hash is below a limit.  It is Python's own hash, whose secret differs between
processes: each process has another sample, so the mean over a fleet is better than each part.  A hash that is the same
in all processes would be needed only to join their streams.  The high bits decide, because the low bits select the cells of
ghosts and doorkeepers.  When the simulations have `MOST` copies, or when their `Credit` of CPU time is used up, half of the sample
is left out.

*Reads.*  A hit is counted by its copy, as ever.  The simulations read that counter when they inspect a copy, so the hits on a name
that has a copy in every simulated store need no report.  If a store lacks the name, its real copy is watched: the next hit takes
the slow way and is reported.  So the cost follows the misses of the smallest store, not the hits, and names outside of the
sample pay nothing.

*Misses* of a size are those of the real store, which are counted exactly, plus what the sample shows as the difference, see `estimate`.
The hottest names, of which the sample has too many or too few, are hits in both and cancel out, and so do misses with
reasons that no size changes, such as writes.

*Sizes.*  The less a simulated store holds, the more chance decides whether its sample has the large and hot entries.  The bytes
of a simulation are therefore not the rate's part of its size, but the part that the sample has of the hottest copies of the real
store that would fill this size, see `Advisor.rank`: as in stratified sampling, what is known of all names corrects what is known of some.
(SHARDS-adj corrects the number of reads in the same way: Waldspurger, Park, Garthwaite, Ahmad: "Efficient MRC Construction with
SHARDS", FAST 2015.)

Events wait in a queue, and the thread that gets the lock works them off; nobody waits for it.  Each is worked off at once: with 16 at a time
the simulations would learn of hits too late, and a quarter of the size would seem better by two points.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, hypot, inf, log2, sqrt
from statistics import stdev
from time import process_time, thread_time
from typing import Any, Final

from fleetcache.forks import Guard
from fleetcache.interrupts import let_pass
from fleetcache.near.clock import clock
from fleetcache.near.counts import Counts
from fleetcache.near.credit import SAVED, SHARE, Credit
from fleetcache.near.minisim import SHIFTS, Mini, Sampled, Simulated, limit_of, weight_of
from fleetcache.near.store import NOWHERE, Entry, Payload, Store, watch

FACTORS: Final = (1 / 4, 1 / 2, 1, 2, 4)
"""The simulated sizes, as multiples of MAX_BYTES."""

COARSER: Final = (0, 1, 1, 1, 1)
"""How often the rate is halved for each of these sizes, in rising order: a large store has enough copies with fewer names.

The fewer copies a simulation has, the more it errs; below 50 by several points.
"""

LEAST: Final = SHIFTS - COARSER[-1]
"""The smallest rate is 2 to the power of minus this number."""

MOST: Final = 2500
"""How many simulated copies there are at most, in all sizes together; about 300 bytes each."""

LARGE: Final = 4000
"""The bytes of a copy, from which the first rate is guessed: more than usual, because a rate is sooner lowered than raised."""

TIMED: Final = 31
"""One event in so many is timed.  It is a prime, because events may come in turns."""

CHARGED: Final = 0.0003
"""The most seconds that are charged for a timed event: a garbage collection may fall into it by chance."""

ALL: Final = 2.1
"""What an event costs the process, as a multiple of what is timed: also its caller, the removal of copies, and the memory caches that it disturbs.

Measured by two caches that read the same names in turns, one of them without advice.
"""

WINDOW: Final = 600.0
"""The figures are those of the last one to two windows, in seconds."""

UPKEEP: Final = 1000
"""Copies are ranked, and expired ones are removed, when the process has used this many times what it took the last time."""

GROWS: Final = 8
"""At the end of a window the rate is doubled if this many times as many names would still be few and cheap enough."""

TURN: Final = 2.0
"""The seconds between two looks at what is due."""

GROUPS: Final = 8
"""The sample is counted in this number of groups, whose differences show the error of the sum."""

AT_ONCE: Final = 64
"""How many events one caller works off, at most."""

FULL: Final = 0.8
"""A store is said to hold without evictions what takes this part of its bytes: the tables of another size differ a little."""

ENOUGH: Final = 0.01
"""The greatest standard error, about, of hit ratios that are good enough."""

NO_COPIES: Final = [(None,) * sizes for sizes in range(len(FACTORS) + 1)]
"""The simulated copies of a name that has none, by the number of sizes that simulate it."""

log = logging.getLogger("fleetcache.near")

Event = tuple[Callable[..., object], tuple[Any, ...]]


@dataclass
class Span:
    """What was counted since a moment."""

    hits: int
    """The real hits until then."""
    misses: int
    """The real misses until then."""
    evicted: int
    """The copies that were removed for want of room until then."""
    held: int = 0
    """The most bytes that the real store was seen to take."""
    missed: list[list[int]] = field(default_factory=lambda: [[0] * GROUPS for _ in FACTORS])
    """The misses of each size in each group of its sample, each as often as there are names for which one of the sample stands."""
    sampled: list[list[int]] = field(default_factory=lambda: [[0] * GROUPS for _ in range(len(FACTORS) + 1)])
    """The same of the real store, by the number of sizes that simulate a name."""


class Advisor:
    """Simulates stores of several sizes beside *store*, of which it is the watcher; *counts* has the misses.

    Copies live *max_ttl* seconds at most.  With *shift*, 2 ** -*shift* of the names are simulated, whatever that costs.
    """

    def __init__(self, store: Store, counts: Counts, max_ttl: float, shift: int | None = None) -> None:
        self.store = store
        self.counts = counts
        self.max_bytes = store.max_bytes
        self.max_ttl = max_ttl
        self.door = store.door is not None
        store.watcher = self
        self.fixed = shift is not None
        """Whether the rate stays as it is."""
        self.first = shift if shift is not None else first_shift(self.max_bytes)
        self.guard = Guard()
        self.known: dict[str, Sampled] = {}
        """The sampled names that have a simulated copy.  Never replaced by another dict."""
        self.started()

    def started(self) -> None:
        """Begin with the first rate, in the process or in a child of it."""
        self.busy = False
        """Whether a thread works off the queue."""
        self.events: deque[Event] = deque()
        self.number = 0
        """How many events were worked off."""
        self.credit = Credit()
        self.due = 0.0
        """The seconds that the process has used when the next upkeep is due."""
        self.turned = self.rotated = clock()
        self.before = (0.0, process_time())
        """When the window began: the seconds that were taken here, and those that the process had used."""
        self.begin(self.first, (0, 0, 0))

    def counted(self) -> tuple[int, int, int]:
        """Return the hits, the misses and the evictions of the store until now; this reads every copy."""
        return self.store.hits, self.counts.misses, self.store.evictions["size"] + self.store.evictions["too large"]

    def begin(self, shift: int, counted: tuple[int, int, int]) -> None:
        """Begin anew, with 2 ** -*shift* of the names; *counted* is what `counted` returns."""
        self._sample(shift)
        self.known.clear()
        self.minis = [
            Mini(self.max_bytes, factor, shift + coarser, at, self._gone, door=self.door)
            for at, (factor, coarser) in enumerate(zip(FACTORS, COARSER, strict=True))
        ]
        self.span = Span(*counted)
        self.spans = [self.span]

    def _sample(self, shift: int) -> None:
        self.shift = shift
        self.weight = 1 << shift
        """The number of names for which each name of the sample stands."""
        self.limit = limit_of(shift)
        self.limits = [-limit_of(shift + coarser) for coarser in COARSER]
        """The limits of all sizes; negative, so that they rise."""

    def _sizes(self, hashed: int) -> int:
        """Return how many sizes, the first ones, simulate a name with this hash."""
        return bisect_left(self.limits, -hashed)

    # --- what happens to the real store; each may be called by any thread -------------------------

    def missed(self, name: str, value: Any, payload: Payload, left: Any, *, kept: bool) -> None:
        """Note a read from a server; *kept*: it may leave a copy.  *left* is the reply to PTTL or None."""
        now = clock()
        ends = now + left / 1000 if type(left) is int and left >= 0 else inf
        self._tell(self._missed, name, value, payload, kept, ends, now)

    def hit(self, entry: Entry) -> None:
        """Note a hit on a watched copy, which is about to count it."""
        if hash(entry.name) < self.limit:
            self._tell(self._hit, entry, clock())

    # The next two wait for no lock either.  Another thread may be in the middle of a simulation; then a hit may be counted twice or
    # not at all, which changes no figure.

    def filled(self, entry: Entry) -> None:
        """Note a new copy."""
        sampled = self.known.get(entry.name)
        if sampled is None:
            watch(entry, self.hit)
        else:
            sampled.join(entry)
            self._watch(sampled)

    def removed(self, entry: Entry) -> None:
        """Note that a copy was removed."""
        sampled = self.known.get(entry.name)
        if sampled is not None and sampled.copy is entry:
            sampled.part()

    def changed(self, name: str) -> None:
        """Note that the entry called *name* was changed."""
        self._tell(self._changed, name)

    def forgotten(self) -> None:
        """Note that every copy was given up."""
        self._tell(self._forgotten)

    # --- the queue --------------------------------------------------------------------------------

    def _tell(self, event: Callable[..., object], *arguments: Any) -> None:
        self.events.append((event, arguments))
        self._alone(self._work)

    def _alone(self, change: Callable[..., object], *arguments: Any) -> None:
        """Make *change*, unless a thread is making one: that may be this one too, interrupted by a signal's handler."""
        lock = self.guard.lock
        if not lock.acquire(False):
            return
        try:
            if not self.busy:
                self.busy = True
                try:
                    change(*arguments)
                finally:
                    self.busy = False
        finally:
            lock.release()

    def _work(self) -> None:
        events = self.events
        try:
            for _ in range(min(len(events), AT_ONCE)):
                event, arguments = events.popleft()
                self.number += 1
                if self.number % TIMED:
                    event(*arguments)
                else:
                    began = thread_time()
                    event(*arguments)
                    self._pay(thread_time() - began)
        except BaseException as error:
            events.clear()
            self.begin(self.shift, self.counted())  # the simulations may be in the middle of a change
            let_pass(error)
            log.exception("the advice on MAX_BYTES failed, and starts anew")

    def _pay(self, seconds: float) -> None:
        """Take what a timed event took, and as much for those that are not timed; halve the rate if it is too high."""
        began = thread_time()
        self.credit.take(ALL * TIMED * min(seconds, CHARGED))
        if not self.fixed and self.shift < LEAST and (self.held > MOST or self.credit.is_used_up()):
            self._lower()
        self.credit.take(thread_time() - began)

    @property
    def held(self) -> int:
        """The number of simulated copies."""
        return sum(mini.entries for mini in self.minis)

    def _missed(self, name: str, value: Any, payload: Payload, kept: bool, ends: float, now: float) -> None:
        hashed, sampled = hash(name), self.known.get(name)
        if sampled is None:
            copies: Sequence[Simulated | None] = NO_COPIES[self._sizes(hashed)]
        else:
            copies = sampled.copies
            sampled.ends = ends
            sampled.past += 1
        self.span.sampled[len(copies)][hashed % GROUPS] += self.weight
        admitting = self._admitting(name, hashed, copies, now)
        if admitting and kept:
            if sampled is None:
                sampled = Sampled(name, ends, len(copies))
            self._keep(admitting, sampled, weight_of(name, value, payload), now)
        if sampled is not None:
            self._watch(sampled)

    def _hit(self, entry: Entry, now: float) -> None:
        name = entry.name
        sampled = self.known.get(name)
        if sampled is None:
            sampled = Sampled(name, entry.deadline, self._sizes(hash(name)))
        if sampled.copy is not entry and entry.before is not NOWHERE:
            sampled.join(entry)
        admitting = self._admitting(name, sampled.hashed, sampled.copies, now)
        if admitting:
            # The copy counts this hit in a moment; what is simulated by it begins after it.
            sampled.past += 1
            self._keep(admitting, sampled, entry.weight, now)
            sampled.past -= 1
        self._watch(sampled)

    def _admitting(self, name: str, hashed: int, copies: Sequence[Simulated | None], now: float) -> list[Mini]:
        """Count a read of *name* as a miss of the sizes that have no copy; return those that would let it have one now."""
        admitting, group, weight = [], hashed % GROUPS, self.weight
        for mini, copy, missed in zip(self.minis, copies, self.span.missed, strict=False):
            if copy is None or now >= copy[3]:
                missed[group] += weight
                door = mini.door
                if door is None or door.knows(name):
                    admitting.append(mini)
        return admitting

    def _keep(self, minis: Iterable[Mini], sampled: Sampled, weight: int, now: float) -> None:
        deadline = min(now + self.max_ttl, sampled.ends)
        for mini in minis:
            mini.keep(sampled, weight, deadline)
        if sampled.count:
            self.known[sampled.name] = sampled

    def _watch(self, sampled: Sampled) -> None:
        """Have the next hit on the real copy reported if a size lacks a simulated one that it should have."""
        copy = sampled.copy
        if copy is not None and sampled.count < len(sampled.copies):
            watch(copy, self.hit)

    def _gone(self, sampled: Sampled) -> None:
        if not sampled.count:
            self.known.pop(sampled.name, None)
        if sampled.copy is not None:
            watch(sampled.copy, self.hit)

    def _changed(self, name: str) -> None:
        sampled = self.known.get(name)
        if sampled is not None:
            for mini, _ in zip(self.minis, sampled.copies, strict=False):
                mini.change(sampled)

    def _forgotten(self) -> None:
        for mini in self.minis:
            mini.drop_all(lambda _: True)

    def _lower(self) -> None:
        """Halve the rate."""
        self._sample(self.shift + 1)
        self.due = 0.0  # the next turn finds out which part of the real store the new sample has
        for mini in self.minis:
            mini.lower()
        for sampled in self.known.values():
            del sampled.copies[self._sizes(sampled.hashed) :]

    # --- the listener's thread --------------------------------------------------------------------

    def turn(self, now: float) -> None:
        """Do what is due: look at the cost, rank the copies of the store, remove expired ones here, begin a new window."""
        if now < self.turned + TURN:
            return
        self.turned = now
        self.span.held = max(self.span.held, self.store.bytes)
        self._alone(self.credit.earn)
        # It takes a part of the time that no rate would lower, so it is not taken from the credit.
        if self.credit.used >= self.due:
            began = thread_time()
            self.rank()
            self._alone(self._sweep, now)
            self.due = self.credit.used + UPKEEP * (thread_time() - began)
        if now >= self.rotated + WINDOW:
            self._alone(self._rotate, now, self.counted())  # this reads every copy, before the lock is taken

    def rank(self) -> None:
        """Find out which part of the hottest real copies each sample has, of as many bytes as its size, and suit the simulations to it."""
        limits = self.limits
        every, ours = dict[int, int](), [dict[int, int]() for _ in FACTORS]
        for entry in list(self.store.copies.values()):
            hits, weight = entry.hits, entry.weight
            every[hits] = every.get(hits, 0) + weight
            for mine in ours[: self._sizes(hash(entry.name))]:
                mine[hits] = mine.get(hits, 0) + weight
        parts = [share_of(every, mine, min(factor, 1)) for mine, factor in zip(ours, FACTORS, strict=True)]
        self._alone(self._suit, limits, parts)

    def _suit(self, limits: Sequence[int], parts: Sequence[float]) -> None:
        if limits is self.limits:
            for mini, part in zip(self.minis, parts, strict=True):
                mini.suit(part)

    def _sweep(self, now: float) -> None:
        for mini in self.minis:
            mini.sweep(now)

    def _rotate(self, now: float, counted: tuple[int, int, int]) -> None:
        """Begin a new window; double the rate if that costs little."""
        self.rotated = now
        self.spans = [self.span, Span(*counted)]
        self.span = self.spans[-1]
        (taken, used), self.before = self.before, (self.credit.taken, self.credit.used)
        cheap = (self.credit.taken - taken) * GROWS < SHARE * (self.credit.used - used)
        if not self.fixed and self.shift and self.credit.seconds >= SAVED and cheap and self.held * GROWS <= MOST:
            self.begin(self.shift - 1, counted)

    # --- the answer -------------------------------------------------------------------------------

    def advice(self) -> dict[str, Any]:
        """Return the figures of `Near.advice`."""
        all_hits, all_misses, evicted = self.counted()
        with self.guard.lock:
            spans, shift = list(self.spans), self.shift
            missed = [_sums((span.missed[at] for span in spans), 2**coarser) for at, coarser in enumerate(COARSER)]
            sampled = [
                _sums((row for span in spans for row in span.sampled[at + 1 :]), 2**coarser)
                for at, coarser in enumerate(COARSER)
            ]
        hits, misses = max(all_hits - spans[0].hits, 0), max(all_misses - spans[0].misses, 0)
        reads = hits + misses
        found: dict[str, Any] = {"rate": 1 / (1 << shift), "reads": reads, "now": hits / reads if reads else None}
        if not reads:
            return {**found, "sizes": [], "enough": False, "text": "Nothing has been read yet."}
        estimates = [estimate(misses, there, here) for there, here in zip(missed, sampled, strict=True)]
        # What is simulated of the real size should be what is measured.  If it is not, by more than chance, then the simulations do
        # not see why some reads miss, as after an invalidation by tag, and they do not see it in any size.
        simulated = estimates[FACTORS.index(1)][0]
        wrong = simulated - misses
        if abs(wrong) > ENOUGH * reads and simulated:
            estimates = [(each - wrong * min(1, each / simulated), error) for each, error in estimates]
            wrong = 0.0
        estimates[FACTORS.index(1)] = misses, 0.0
        sizes = [
            {
                "max_bytes": int(self.max_bytes * factor),
                "hit_ratio": min(max(1 - each / reads, 0.0), 1.0),
                "error": hypot(wrong, error) / reads,
            }
            for factor, (each, error) in zip(FACTORS, estimates, strict=True)
        ]
        if evicted == spans[0].evicted:  # whatever the real store holds now and held lately would fit
            room = max(self.store.bytes, *(span.held for span in spans)) / FULL
            for size in sizes:
                if size["max_bytes"] >= room:
                    size |= {"hit_ratio": found["now"], "error": 0.0}
        enough = all(size["error"] <= ENOUGH for size in sizes)
        return {**found, "sizes": sizes, "enough": enough, "text": sentence(sizes, enough=enough)}


def sentence(sizes: Sequence[Mapping[str, Any]], *, enough: bool) -> str:
    """Return *sizes* in words, for people."""
    half, now, twice = (sizes[FACTORS.index(factor)] for factor in (1 / 2, 1, 2))
    percents = [f"{100 * size['hit_ratio']:.0f} %" for size in (half, now, twice)]
    megabytes = [f"{size['max_bytes'] / 1e6:,.3g} MB" for size in (half, now, twice)]
    if len(set(percents)) == 1 and enough and not half["error"]:
        return f"At half and at twice of MAX_BYTES the near hit ratio would be what it is now, at {megabytes[1]}: {percents[1]}."
    said = (
        f"At {megabytes[2]} the near hit ratio would be {percents[2]}, at {megabytes[0]} {percents[0]}; "
        f"now, at {megabytes[1]}, it is {percents[1]}."
    )
    return said if enough else f"{said} This rests on few reads yet."


def _sums(rows: Iterable[Sequence[int]], times: int) -> list[int]:
    return [times * sum(column) for column in zip(*rows, strict=True)]


def estimate(misses: int, there: Sequence[float], here: Sequence[float]) -> tuple[float, float]:
    """Return the misses of a size, and the standard error.

    The real store had *misses*; the groups of the sample show *here* for the real store, and *there* for the other size.
    """
    all_there, all_here = sum(there), sum(here)
    if not all_here:
        return max(all_there, misses), float(misses)
    # Names that are in the sample by chance miss here and there.  The fewer of the misses are left there, the less of
    # the error here is to be corrected there.
    part = min(1, all_there / all_here)
    # The groups differ by chance alone, so their differences show how far the sum may be off.
    error = stdev([one - part * other for one, other in zip(there, here, strict=True)]) * sqrt(len(there))
    return all_there + part * (misses - all_here), error


def first_shift(max_bytes: int) -> int:
    """Return a rate, as a shift, with which stores of *max_bytes* and its multiples need less than `MOST` large copies."""
    copies = sum(max_bytes * factor / LARGE / 2**coarser for factor, coarser in zip(FACTORS, COARSER, strict=True))
    return min(ceil(log2(max(copies / MOST, 1))), LEAST)


def share_of(every: Mapping[int, int], ours: Mapping[int, int], part: float) -> float:
    """Return our share of the hottest copies that take this *part* of all bytes.

    *every* has the bytes of all copies by their hits, *ours* those of our copies.
    """
    room = wanted = part * sum(every.values())
    found = 0.0
    for hits in sorted(every, reverse=True):
        if every[hits] >= room:
            return (found + ours.get(hits, 0) * room / every[hits]) / wanted
        room -= every[hits]
        found += ours.get(hits, 0)
    return 0.0
