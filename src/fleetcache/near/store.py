"""The copies the near cache holds, within a number of bytes: S3-FIFO, weighted by what each copy takes in memory.

Most names are asked for once and never again, so what a bounded store needs most is to be rid of those soon.  A new copy
enters a *small* queue that has a tenth of the bytes.  At its front it is looked at: one that was hit meanwhile moves on to
the *main* queue, any other leaves, and only its name is remembered, as a hash, in a *ghost* table.  A name that comes back
while it is remembered enters the main queue at once.  The main queue gives a copy at its front another round for each of
up to three hits since it was last looked at.  A hit therefore moves nothing and needs no lock: it adds one to a counter.
(Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction", SOSP 2023.)

Unlike the paper's, this ghost table forgets by chance instead of in order: a hash lives in the one cell its bits name until
another falls there.  That takes 8 bytes where a queue and a set of hashes take a hundred, at the same hit ratio within 0.3
points; and of a loop larger than the store some part stays (benchmarks/eviction.py).
"""

from __future__ import annotations

from array import array
from enum import Enum
from math import inf
from sys import getsizeof
from typing import Any, Final, TypeAlias

ENDED: Final = -inf
"""``Epoch.until`` of one that has ended for good."""


class Mark(Enum):
    """What a copy may have in place of a value."""

    PACKED = "the payload holds the value, to be decoded for each caller; no payload: the name is absent"


PACKED: Final = Mark.PACKED

Payload: TypeAlias = bytes | None

LARGEST: Final = 4
"""A copy that takes more than this part of the store (a quarter) is refused: too many would have to leave for it."""
SMALL: Final = 10
"""The part of the store (a tenth) that the small queue has; the paper's choice."""
CREDIT: Final = 3
"""Hits since the last look that count, as in the paper."""
LOOKS: Final = 100
"""Copies that one eviction spares at most.  Where all were hit, a put would otherwise look at every one three times."""
GHOSTS: Final = 64
"""Cells of the ghost table of a store that is almost empty."""

ENTRY: Final = 128 + 32
"""Bytes of an Entry's object and of its deadline, in the units of 16 that memory is given out in.

What that rounding adds to names and values, 8 bytes on average, is not counted: the sum is a little more than was asked
for and a little less than was given.
"""
NUMBER: Final = 32
"""Bytes of a weight, which is an object of its own if it is above 256."""
TEXT: Final = getsizeof("abc") - 3
PAYLOAD: Final = getsizeof(b"")
CELL: Final = 8
OWN: Final = 1200
"""Bytes of an empty store without its dict and its ghosts."""


def _table(bits: int) -> int:
    """Return the bytes of a dict of strings with 2 ** *bits* slots: an index, and a key and a value for two thirds."""
    slots = 1 << max(bits, 4)
    width = 1 if bits < 8 else 2 if bits < 16 else 4 if bits < 32 else 8
    return 96 + slots * width + slots * 2 // 3 * 16


TABLES: Final = tuple(map(_table, range(64)))
"""What ``copies`` takes when it has grown, by ``(3 * its length).bit_length()``: a dict makes room for three times as many."""

EMPTY: Final = frozenset({str, bytes, tuple})


def weigh(value: Any) -> int:
    """Return the bytes that a value takes, with what it holds if it is a tuple or a frozenset.

    Other containers are not opened: they can change, so copies of them are PACKED.
    """
    # Names and most values; getsizeof() takes twice as long.
    if type(value) is str and value.isascii():
        return TEXT + len(value)
    weight = 0
    values = [value]
    while values:
        value = values.pop()
        kind = type(value)
        if value is None or kind is bool or (kind is int and -5 <= value <= 256) or (kind in EMPTY and not value):
            continue  # there is one of each in the process
        weight += getsizeof(value)
        if kind is tuple or kind is frozenset:
            values += value
    return weight


class Epoch:
    """How long the copies made in it may be served: until a moment, that is moved on while all is well.

    It begins with a moment that is long past; with ``until = ENDED`` its copies are of no use any more.
    """

    __slots__ = ("until",)

    def __init__(self, until: float = 0.0) -> None:
        self.until = until


class Entry:
    """One copy, and its place in a queue.

    What a reader needs never changes, not even when the copy is dropped, since readers hold no lock.
    """

    __slots__ = (
        "after", "before", "deadline", "epoch", "hits", "name", "payload", "queue", "seen", "told", "value", "weight",
    )  # fmt: skip

    before: Entry
    after: Entry
    queue: Queue

    def __init__(self, name: str, value: Any, payload: Payload, deadline: float, epoch: Epoch, weight: int) -> None:
        self.name = name
        self.value = value
        self.payload = payload
        self.deadline = deadline
        self.epoch = epoch
        self.weight = weight
        self.hits = 0
        self.seen = 0  # the hits that evictions have taken into account
        self.told = 0  # the hits that the server has been told of

    def holds(self, value: Any, payload: Payload) -> bool:
        """Whether this is a copy of the same value."""
        return type(self.value) is type(value) and bool(self.value == value) and self.payload == payload


class Queue(Entry):
    """The head of a queue, that sits in the ring before its first copy; its weight is that of all of them."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("", PACKED, None, inf, Epoch(inf), 0)


NOWHERE: Final = Queue()
"""Stands beside an entry that was taken out of the ring."""


class Store:
    """Copies by name, of at most *max_bytes* together with everything it takes to keep them.

    Whoever changes it holds a lock; anyone may look into ``copies`` at any time, and count a hit.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.copies: dict[str, Entry] = {}
        """The same object for ever: every cache on this store holds a reference to it."""
        self.evicted = dict.fromkeys(("size", "expired", "ended", "too large"), 0)
        self.retired_hits = 0
        """The hits of copies that are gone."""
        self._largest = max_bytes // LARGEST
        self._tenth = max_bytes // SMALL
        self._empty()

    def _empty(self) -> None:
        # One ring of all copies: those that are of no use, the main queue, the small queue.  Each queue
        # is what follows its head up to the next head, the front first.
        self._gone, self._main, self._small = heads = Queue(), Queue(), Queue()
        for at, head in enumerate(heads):
            head.before, head.after = heads[at - 1], heads[(at + 1) % len(heads)]
        self._hand: Entry = self._gone  # where the sweep goes on
        self._held = OWN
        self._table = TABLES[0]  # what the dict takes at most, now or after the next put
        self._ghosts = array("q", bytes(CELL * GHOSTS))

    def put(self, name: str, value: Any, payload: Payload, deadline: float, epoch: Epoch) -> bool:
        """Keep a copy, in place of any of this name; return False if it is too large, and then none is kept."""
        copies = self.copies
        queue = self._small
        if name in copies:
            if copies[name].queue is self._main:
                queue = self._main
            self.drop(name)
        weight = ENTRY + weigh(name)
        if payload is not None:
            weight += PAYLOAD + len(payload)
        if value is not PACKED:
            weight += weigh(value)
        if weight > 256:
            weight += NUMBER
        if weight > self._largest or not self._make_room(weight):
            self.evicted["too large"] += 1
            return False

        ghosts = self._ghosts
        hashed = hash(name)
        cell = hashed & (len(ghosts) - 1)
        if ghosts[cell] == hashed:
            ghosts[cell] = 0
            queue = self._main
        entry = Entry(name, value, payload, deadline, epoch, weight)
        self._held += weight
        self._append(entry, queue)
        copies[name] = entry
        return True

    def drop(self, name: str) -> bool:
        """Remove a copy; return whether there was one."""
        entry = self.copies.pop(name, None)
        if entry is None:
            return False
        self._remove(entry)
        return True

    def forget(self) -> None:
        """Give up every copy, since their epochs ended.

        They take bytes until a sweep or a want of room removes them.
        """
        # The heads of the main and the small queue move behind all copies, which makes those the first queue's.
        # They are new heads, because each copy subtracts its weight from the one it knows when it is removed.
        for head in (self._main, self._small):
            self._unlink(head)
            head.before = head.after = NOWHERE
        self._main, self._small = Queue(), Queue()
        for head in (self._main, self._small):
            self._link(head, self._gone)

    def sweep(self, now: float, limit: int = 1000) -> bool:
        """Remove copies that are of no use, looking at about *limit*; return False when all have had their turn."""
        self._table = getsizeof(self.copies)
        gone, main = self._gone, self._main
        while gone.after is not main:
            if limit <= 0:
                return True
            self._evict(gone.after, "ended")
            limit -= 1
        hand = self._hand
        if hand is gone:
            hand = gone.after
        while limit > 0 and hand is not gone:
            entry, hand = hand, hand.after
            if entry.epoch.until == ENDED:
                self._evict(entry, "ended")
            elif entry.deadline <= now:
                self._evict(entry, "expired")
            limit -= 1
        self._hand = hand
        return hand is not gone

    def rid(self, epoch: Epoch) -> None:
        """Remove every copy of *epoch*, and those that are of no use."""
        for entry in list(self.copies.values()):
            if entry.epoch is epoch or entry.epoch.until == ENDED:
                self._evict(entry, "ended")

    def warm(self, epoch: Epoch, hits: int) -> list[Entry]:
        """Return the copies of *epoch* that were hit *hits* times or more since the server was told.  Needs no lock."""
        return [
            entry
            for entry in list(self.copies.values())
            if entry.hits - entry.told >= hits
            and entry.epoch is epoch
            and not (entry.value is PACKED and entry.payload is None)
        ]

    def clear(self) -> None:
        """Empty everything at once and count from zero, as a forked child must, whatever its parent was doing."""
        for entry in (*self.copies.values(), self._gone, self._main, self._small):
            # A ring would wait for the garbage collector, which may have been told to spare it (gc.freeze).
            entry.before = entry.after = NOWHERE
        self.copies.clear()
        self.evicted.update(dict.fromkeys(self.evicted, 0))
        self.retired_hits = 0
        self._empty()

    @property
    def entries(self) -> int:
        """The number of copies, those included that are still to be swept."""
        return len(self.copies)

    @property
    def bytes(self) -> int:
        """What all this takes in memory; only the hit counts that are above 256 are left out (32 bytes each)."""
        return self._held + getsizeof(self.copies) + CELL * len(self._ghosts)

    @property
    def hits(self) -> int:
        """The hits of all copies, living and gone; it looks at every one."""
        return self.retired_hits + sum(entry.hits for entry in list(self.copies.values()))

    def _make_room(self, weight: int) -> bool:
        """Evict until a copy of this weight fits, and the larger dict it may call for; return whether it does."""
        copies = self.copies
        room = self.max_bytes - weight
        while True:
            # A dict keeps its size until it is full, and then takes that for its length at the time.
            table = TABLES[(3 * len(copies)).bit_length()]
            if table > self._table:  # noqa: PLR1730 max() is dearer
                self._table = table
            if self._held + self._table + CELL * len(self._ghosts) <= room:
                return True
            if not copies:
                return False
            self._evict_one()

    def _evict_one(self) -> None:
        """Remove the copy that is least worth its bytes."""
        gone, main, small = self._gone, self._main, self._small
        if gone.after is not main:
            self._evict(gone.after, "ended")
            return
        for look in range(LOOKS, -1, -1):
            if small.weight > self._tenth or main.after is small:
                entry = small.after
                if not look or entry.hits <= entry.seen:
                    self._remember(entry.name)
                    break
                entry.seen = entry.hits
            else:
                entry = main.after
                credit = min(entry.hits - entry.seen, CREDIT)
                if not look or credit <= 0:
                    break
                entry.seen = entry.hits - credit + 1
            # To the back of the main queue.
            self._unlink(entry)
            entry.queue.weight -= entry.weight
            self._append(entry, main)
        self._evict(entry, "size")

    def _remember(self, name: str) -> None:
        """Note that this name was evicted before it was hit, in one of about as many cells as there are copies."""
        ghosts = self._ghosts
        if len(ghosts) < len(self.copies):
            # The bits that name a cell are now one more, whose value is not known: each hash stands in both cells.
            self._ghosts = ghosts = ghosts + ghosts
        elif len(ghosts) > max(4 * len(self.copies), GHOSTS):
            self._ghosts = ghosts = ghosts[: len(ghosts) // 2]
        hashed = hash(name)
        ghosts[hashed & (len(ghosts) - 1)] = hashed

    def _evict(self, entry: Entry, reason: str) -> None:
        self.copies.pop(entry.name, None)
        self._remove(entry)
        self.evicted[reason] += 1

    def _remove(self, entry: Entry) -> None:
        """Take a copy that is no longer in ``copies`` out of everything else."""
        # What _unlink does, but an invalidation calls as little as possible.
        before, after, weight = entry.before, entry.after, entry.weight
        before.after = after
        after.before = before
        if entry is self._hand:
            self._hand = after
        # A reader may hold the entry for long, which is not to keep its neighbours, and theirs in turn.
        entry.before = entry.after = NOWHERE
        entry.queue.weight -= weight
        self._held -= weight
        self.retired_hits += entry.hits

    def _append(self, entry: Entry, queue: Queue) -> None:
        """Put a copy at the back of a queue, where the next one's head is."""
        entry.queue = queue
        queue.weight += entry.weight
        self._link(entry, self._small if queue is self._main else self._gone)

    def _link(self, entry: Entry, after: Entry) -> None:
        """Put an entry, or a head, before another."""
        before = after.before
        entry.before = before
        entry.after = after
        before.after = after.before = entry

    def _unlink(self, entry: Entry) -> None:
        before, after = entry.before, entry.after
        before.after = after
        after.before = before
        if entry is self._hand:
            self._hand = after
