"""Advice on MAX_BYTES: which hit ratio would the near cache have with fewer bytes, and with more?

The answer comes from live traffic.  `minisim` simulates stores of several sizes with a sample of the names; this module
chooses the sample, brings every read of it to the simulations, and turns their misses into hit ratios.

*The sample* are the names whose hash is below a limit.  It is Python's own hash, whose secret differs between
processes: each process has another sample, so the mean over a fleet is better than each part.  A hash that is the same
in all processes would be needed only to join their streams.  The high bits decide, because the low bits select the cells of
ghosts and doorkeepers.  When the simulations have `MOST` copies, or when they cost more than `SHARE` of the process's time,
half of the sample is left out.

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

Events wait in a queue, and the thread that gets the lock works them off; nobody waits for it.
"""

from __future__ import annotations

import logging
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
from fleetcache.near.minisim import SHIFTS, Mini, Sampled, limit_of, weight_of
from fleetcache.near.store import Entry, Payload, Store, watch

FACTORS: Final = (1 / 4, 1 / 2, 1, 2, 4)
"""The simulated sizes, as multiples of MAX_BYTES."""

COARSER: Final = (0, 0, 0, 1, 1)
"""How often the rate is halved for each of these sizes: a large store is simulated with as many copies by fewer names.

The fewer copies a simulation has, the more it errs; below 50 by several points.
"""

LEAST: Final = SHIFTS - COARSER[-1]
"""The smallest rate is 2 to the power of minus this number."""

MOST: Final = 4096
"""How many simulated copies there are at most, in all sizes together; about 300 bytes each."""

LARGE: Final = 4000
"""The bytes of a copy, from which the first rate is guessed: more than usual, because a rate is sooner lowered than raised."""

SHARE: Final = 0.01
"""The part of the CPU time of the process that may be spent here; if it is more, the rate is halved."""

TIMED: Final = 16
"""One event in so many is timed."""

WINDOW: Final = 600.0
"""The figures are those of the last one to two windows, in seconds."""

PAUSE: Final = 10.0
"""The seconds between two looks at the cost."""

RANKED: Final = 1000
"""How many times as long as it took to rank the copies, it is not done again."""

GROWS: Final = 8
"""At the end of a window the rate is doubled if this many times as many names would still be few and cheap enough."""

LITTLE: Final = 0.01
"""Seconds for each `PAUSE` that may be spent in any case."""

TURN: Final = 2.0
"""The seconds between two removals of expired copies."""

GROUPS: Final = 8
"""The sample is counted in this number of groups, whose differences show the error of the sum."""

AT_ONCE: Final = 64
"""How many events one caller works off, at most."""

ENOUGH: Final = 0.01
"""The greatest standard error, about, of hit ratios that are good enough."""

log = logging.getLogger("fleetcache.near")

Event = tuple[Callable[..., object], tuple[Any, ...]]


@dataclass
class Span:
    """What was counted since a moment."""

    hits: int
    """The real hits until then."""
    misses: int
    """The real misses until then."""
    missed: list[list[float]] = field(default_factory=lambda: [[0.0] * GROUPS for _ in FACTORS])
    """The misses of each size, estimated from each group of its sample."""
    sampled: list[list[float]] = field(default_factory=lambda: [[0.0] * GROUPS for _ in FACTORS])
    """The misses of the real store, estimated from the same groups."""


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
        self.least = 0
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
        self.spent = 0.0
        """The seconds that were spent here since the cost was last looked at."""
        self.used = process_time()
        """The seconds of the process when the cost was last looked at."""
        self.turned = self.looked = self.rotated = self.ranked = clock()
        self.begin(self.first, (0, 0))

    def counted(self) -> tuple[int, int]:
        """Return the hits and the misses of the store until now; this reads every copy."""
        return self.store.hits, self.counts.misses

    def begin(self, shift: int, counted: tuple[int, int]) -> None:
        """Begin anew, with 2 ** -*shift* of the names; *counted* are the hits and misses until now."""
        self.shift = shift
        self.limit = limit_of(shift)
        self.known.clear()
        self.minis = [
            Mini(self.max_bytes, factor, shift + coarser, at, self._gone, door=self.door)
            for at, (factor, coarser) in enumerate(zip(FACTORS, COARSER, strict=True))
        ]
        self._weigh_all()
        self.spans = [Span(*counted)]

    # --- what happens to the real store; each may be called by any thread -------------------------

    def missed(self, name: str, value: Any, payload: Payload, left: Any, *, kept: bool) -> None:
        """Note a read from a server; *kept*: it may leave a copy.  *left* is the reply to PTTL or None."""
        now = clock()
        ends = now + left / 1000 if type(left) is int and left >= 0 else inf
        self._tell(self._missed, name, weight_of(name, value, payload) if kept else None, ends, now)

    def hit(self, entry: Entry) -> None:
        """Note a hit on a watched copy, which is about to count it."""
        if hash(entry.name) < self.limit:
            self._tell(self._hit, entry, clock())

    def filled(self, entry: Entry) -> None:
        """Note a new copy."""
        self._tell(self._filled, entry)

    def removed(self, entry: Entry) -> None:
        """Note that a copy was removed."""
        self._tell(self._removed, entry)

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
        if lock.acquire(blocking=False):
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
        self.number += 1
        began = thread_time() if self.number % TIMED == 0 else None
        try:
            for _ in range(AT_ONCE):
                if not self.events:
                    break
                event, arguments = self.events.popleft()
                event(*arguments)
        except BaseException as error:
            self.events.clear()
            self.begin(self.shift, self.counted())  # the simulations may be in the middle of a change
            let_pass(error)
            log.exception("the advice on MAX_BYTES failed, and starts anew")
        if began is not None:
            if not self.fixed and self.held > MOST and self.shift < LEAST:
                self._lower()
            self._suit()
            self.spent += TIMED * (thread_time() - began)

    @property
    def held(self) -> int:
        """The number of simulated copies."""
        return sum(len(mini.copies) for mini in self.minis)

    def _missed(self, name: str, weight: int | None, ends: float, now: float) -> None:
        hashed, here = hash(name), self.spans[-1].sampled
        for mini in self.minis:
            if hashed >= mini.limit:
                break
            here[mini.at][hashed % GROUPS] += 1 << mini.shift
        sampled = self.known.get(name) or Sampled(name, len(FACTORS))
        sampled.ends = ends
        sampled.past += 1
        self._read(sampled, weight, now)

    def _hit(self, entry: Entry, now: float) -> None:
        sampled = self.known.get(entry.name)
        if sampled is None:
            sampled = Sampled(entry.name, len(FACTORS))
            sampled.ends = entry.deadline
        if sampled.copy is not entry:
            sampled.join(entry)
        # The copy counts this hit in a moment; what is simulated by it begins after it.
        sampled.past += 1
        self._read(sampled, entry.weight, now)
        sampled.past -= 1

    def _read(self, sampled: Sampled, weight: int | None, now: float) -> None:
        missed, hashed = self.spans[-1].missed, hash(sampled.name)
        deadline = min(now + self.max_ttl, sampled.ends)
        for mini in self.minis:
            if hashed >= mini.limit:
                break
            if not mini.read(sampled, weight, deadline, now):
                missed[mini.at][hashed % GROUPS] += 1 << mini.shift
        if sampled.count:
            self.known[sampled.name] = sampled
        self._watch(sampled)

    def _watch(self, sampled: Sampled) -> None:
        """Have the next hit on the real copy reported if a size lacks a simulated one that it should have."""
        copy = sampled.copy
        if copy is not None and sampled.count < len(FACTORS):
            hashed = hash(sampled.name)
            if sampled.count < sum(hashed < mini.limit for mini in self.minis):
                watch(copy, self.hit)

    def _gone(self, sampled: Sampled) -> None:
        if not sampled.count:
            self.known.pop(sampled.name, None)
        self._watch(sampled)

    def _filled(self, entry: Entry) -> None:
        sampled = self.known.get(entry.name)
        self._weigh(entry, entry.weight)
        if sampled is None:
            watch(entry, self.hit)
        else:
            sampled.join(entry)
            self._watch(sampled)

    def _weigh(self, entry: Entry, weight: int) -> None:
        """Add to the bytes of the real copies of each sample."""
        hashed = hash(entry.name)
        for mini in self.minis:
            if hashed >= mini.limit:
                break
            mini.real += weight

    def _suit(self) -> None:
        """Give each simulation the part of its size that its sample has of the real store."""
        held = self.store.held
        for mini in self.minis:
            mini.suit(held)

    def _removed(self, entry: Entry) -> None:
        self._weigh(entry, -entry.weight)
        sampled = self.known.get(entry.name)
        if sampled is not None and sampled.copy is entry:
            sampled.part()

    def _changed(self, name: str) -> None:
        for mini in self.minis:
            mini.change(name)

    def _forgotten(self) -> None:
        for mini in self.minis:
            mini.clear()

    def _lower(self) -> None:
        """Halve the rate."""
        self.shift += 1
        self.limit = limit_of(self.shift)
        for mini in self.minis:
            mini.lower()
        self._weigh_all()

    def _weigh_all(self) -> None:
        for mini in self.minis:
            mini.real = 0
        for entry in list(self.store.copies.values()):
            if hash(entry.name) < self.limit:
                self._weigh(entry, entry.weight)

    # --- the listener's thread --------------------------------------------------------------------

    def turn(self, now: float) -> None:
        """Do what is due: remove expired copies, rank those of the store, look at the cost, begin a new window."""
        if now < self.turned + TURN:
            return
        self.turned = now
        # Both read every copy, so they are done before the lock is taken.
        counted = self.counted() if now >= self.looked + PAUSE else None
        if now >= self.ranked:
            self.rank()
        self._alone(self._turn, now, counted)

    def rank(self) -> None:
        """Find out which part of the hottest copies the sample has: of as many bytes as each of the smaller sizes."""
        began, limit = thread_time(), self.limit
        every, ours = dict[int, int](), dict[int, int]()
        for entry in list(self.store.copies.values()):
            hits, weight = entry.hits, entry.weight
            every[hits] = every.get(hits, 0) + weight
            if hash(entry.name) < limit:
                ours[hits] = ours.get(hits, 0) + weight
        whole = sum(ours.values()) / max(sum(every.values()), 1)
        if whole:
            self._alone(self._skew, limit, [share_of(every, ours, factor) / whole for factor in FACTORS if factor < 1])
        # It takes a part of the time that no rate would lower, so it is not added to what was spent.
        self.ranked = self.turned + RANKED * (thread_time() - began)

    def _skew(self, limit: int, skews: Sequence[float]) -> None:
        if limit == self.limit:
            for mini, skew in zip(self.minis, skews, strict=False):
                mini.skew = skew
            self._suit()

    def _turn(self, now: float, counted: tuple[int, int] | None) -> None:
        for mini in self.minis:
            mini.sweep(now, MOST)
        if counted is not None:
            self.looked = now
            self._look(now, counted)

    def _look(self, now: float, counted: tuple[int, int]) -> None:
        spent, self.spent = self.spent, 0.0
        used, self.used = self.used, process_time()
        allowed = SHARE * (self.used - used)
        ends = now >= self.rotated + WINDOW
        if ends:
            self.rotated = now
            self.spans = [self.spans[-1], Span(*counted)]
        if self.fixed:
            return
        if spent > max(allowed, LITTLE):
            if self.shift < LEAST:
                self._lower()
                self.least = self.shift
        elif ends and self.held * GROWS <= MOST and spent * GROWS < allowed and self.shift > self.least:
            self.begin(self.shift - 1, counted)

    # --- the answer -------------------------------------------------------------------------------

    def advice(self) -> dict[str, Any]:
        """Return the figures of `Near.advice`."""
        all_hits, all_misses = self.counted()
        with self.guard.lock:
            spans, shift = list(self.spans), self.shift
            missed = [_sums(span.missed[at] for span in spans) for at in range(len(FACTORS))]
            sampled = [_sums(span.sampled[at] for span in spans) for at in range(len(FACTORS))]
        hits, misses = max(all_hits - spans[0].hits, 0), max(all_misses - spans[0].misses, 0)
        reads = hits + misses
        found: dict[str, Any] = {"rate": 1 / (1 << shift), "reads": reads, "now": hits / reads if reads else None}
        if not reads:
            return {**found, "sizes": [], "enough": False, "text": "Nothing has been read yet."}
        estimates = [estimate(misses, there, here) for there, here in zip(missed, sampled, strict=True)]
        # What is simulated of the real size should be what is measured.
        wrong = abs(estimates[FACTORS.index(1)][0] - misses)
        estimates[FACTORS.index(1)] = misses, 0.0
        sizes = [
            {
                "max_bytes": int(self.max_bytes * factor),
                "hit_ratio": min(max(1 - each / reads, 0.0), 1.0),
                "error": hypot(wrong, error) / reads,
            }
            for factor, (each, error) in zip(FACTORS, estimates, strict=True)
        ]
        enough = all(size["error"] <= ENOUGH for size in sizes)
        return {**found, "sizes": sizes, "enough": enough, "text": sentence(sizes, enough=enough)}


def sentence(sizes: Sequence[Mapping[str, Any]], *, enough: bool) -> str:
    """Return *sizes* in words, for people."""
    half, now, twice = (sizes[FACTORS.index(factor)] for factor in (1 / 2, 1, 2))
    percents = [f"{100 * size['hit_ratio']:.0f} %" for size in (half, now, twice)]
    megabytes = [f"{size['max_bytes'] / 1e6:,.3g} MB" for size in (half, now, twice)]
    said = (
        f"At {megabytes[2]} the hit ratio would be {percents[2]}, at {megabytes[0]} {percents[0]}; "
        f"now, at {megabytes[1]}, it is {percents[1]}."
    )
    return said if enough else f"{said} This rests on few reads yet."


def _sums(rows: Iterable[Sequence[float]]) -> list[float]:
    return [sum(column) for column in zip(*rows, strict=True)]


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
