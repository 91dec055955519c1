"""The store of the near cache's copies, and their eviction: S3-FIFO within a number of bytes.

Most names are read once and never again, so a bounded store must above all evict those soon.  A new copy enters a
*small* queue, which has a tenth of the bytes.  When a copy reaches the front of that queue, it moves to the *main*
queue if it was hit meanwhile; otherwise it is evicted, and a *ghost* table keeps the hash of its name.  A name that
returns while its hash is in the ghost table enters the main queue at once.  At the front of the main queue, a copy
gets one more round for each of up to three hits since its last inspection.  A hit therefore moves nothing and needs
no lock: it adds one to a counter. (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction",
SOSP 2023.)

Unlike the paper's ghost queue, this table forgets by chance instead of in order: the bits of a hash name its one
cell, and the hash stays there until another takes the cell.  This costs 8 bytes, where a queue and a set of hashes
cost a hundred, at the same hit ratio within 0.3 points; and if a program reads more names than fit, again and
again in the same order, some of their copies survive (benchmarks/eviction.py).
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from heapq import nlargest
from math import inf
from operator import attrgetter
from sys import getsizeof
from typing import Any, Final, Protocol, TypeAlias

from fleetcache.near.door import Doorkeeper
from fleetcache.stats.figures import Figures
from fleetcache.stats.groups import Group, Groups

ENDED: Final = -inf
"""``Epoch.until`` of an epoch that has ended for good."""

GONE: Final = 0.0
"""``Epoch.until`` of a copy that lacks the copy of a tag's version, which may come back."""


class Mark(Enum):
    """Stands in a copy in place of a value."""

    PACKED = "the payload holds the value, to be decoded for each caller; no payload: the name is absent"


PACKED: Final = Mark.PACKED

Payload: TypeAlias = bytes | None

LARGEST: Final = 4
"""A copy larger than this part of the store (a quarter) is refused: too many others would be evicted for it."""
SMALL: Final = 10
"""The small queue's part of the store (a tenth), as in the paper."""
CREDIT: Final = 3
"""How many hits since the last inspection count at most, as in the paper."""
LOOKS: Final = 100
"""How many copies one eviction spares at most.  If all were hit, a put would inspect each three times."""
HOT: Final = 32
"""A removed copy with as many hits is noted among the keys that are read most."""
GHOSTS: Final = 64
"""The number of cells of the smallest ghost table."""

ENTRY: Final = 144 + 32
"""Bytes of an `Entry` and of its deadline, rounded up to the allocator's units of 16 bytes.

The rounding of names and values, 8 bytes on average, is not counted: the sum is a little more than the bytes requested
and a little less than the bytes allocated.
"""
NUMBER: Final = 32
"""Bytes of a weight: an int above 256 is an object of its own."""
TEXT: Final = getsizeof("abc") - 3
PAYLOAD: Final = getsizeof(b"")
CELL: Final = 8
BOUND: Final = 64
"""Bytes of a `Bound`, rounded up as those of an `Entry`."""
OWN: Final = 1200
"""Bytes of an empty store without its dict and its ghosts."""


def _table(bits: int) -> int:
    """Return the bytes of a dict of strings with 2 ** *bits* slots: an index, and key and value for two thirds."""
    slots = 1 << max(bits, 4)
    width = 1 if bits < 8 else 2 if bits < 16 else 4 if bits < 32 else 8
    return 96 + slots * width + slots * 2 // 3 * 16


TABLES: Final = tuple(map(_table, range(64)))
"""The bytes of the dict ``copies``, by ``(3 * its length).bit_length()``: a dict grows to three times its length."""

EMPTY: Final = frozenset({str, bytes, tuple})


def weigh(value: Any) -> int:
    """Return the bytes of a value; those of a tuple or a frozenset include its members.

    Other containers are not opened: they can change, so copies of them are PACKED.
    """
    # Names and most values are ASCII text; getsizeof() takes twice as long.
    if type(value) is str and value.isascii():
        return TEXT + len(value)
    weight = 0
    values = [value]
    while values:
        value = values.pop()
        kind = type(value)
        if value is None or kind is bool or (kind is int and -5 <= value <= 256) or (kind in EMPTY and not value):
            continue  # the interpreter shares one object of each
        weight += getsizeof(value)
        if kind is tuple or kind is frozenset:
            values += value
    return weight


class Epoch:
    """How long the copies made in it may be served: ``until`` a moment, which the lease moves on while all is well.

    A new epoch begins with a moment that is long past.  ``until = ENDED`` makes its copies useless for good.
    """

    __slots__ = ("until",)

    def __init__(self, until: float = 0.0) -> None:
        self.until = until


class Bound(Epoch):
    """The epoch of a copy whose entry has tags: it lasts as long as *epoch* and the copies of all the tags' versions.

    So a hit on such a copy is like any other hit.  A tag that is invalidated ends all copies with the tag in one step, as its
    own copy is dropped; nothing has to look for them.
    """

    __slots__ = ("epoch", "others", "tags")

    def __init__(self, epoch: Epoch, tags: tuple[Entry, ...]) -> None:
        self.epoch = epoch
        self.tags = tags
        self.others = tuple({unwatched(tag) for tag in tags} - {epoch})
        """The epochs of tags on other primaries; none on one server."""

    @property
    def until(self) -> float:  # type: ignore[override]  # a slot is read alike
        """The moment until which the copy may be served."""
        for tag in self.tags:
            if tag.before is NOWHERE:
                return GONE
        if self.others:
            return min(self.epoch.until, *[epoch.until for epoch in self.others])
        return self.epoch.until

    def spare(self) -> None:
        """Let the next eviction spare the copies of the tags' versions, as it spares this copy."""
        for tag in self.tags:
            tag.seen -= 1

    def touch(self, hits: int) -> None:
        """Report the versions of the tags to their servers, as *hits* of this copy are being reported."""
        for tag in self.tags:
            tag.told = min(tag.told, tag.hits - hits)

    @property
    def weight(self) -> int:
        """The bytes of this object."""
        return BOUND + getsizeof(self.tags) + (getsizeof(self.others) if self.others else 0)


class Watched(Epoch):
    """The epoch of a copy in place of *first*, its own one: the next hit takes the slow way, and *hit* is called with the copy.

    Only that hit pays for it: `Near.copy` puts *first* back before it calls *hit*.  Other hits cost what they always cost.
    """

    __slots__ = ("first", "hit")

    def __init__(self, first: Epoch, hit: Callable[[Entry], object]) -> None:
        self.first = first
        self.hit = hit

    @property
    def until(self) -> float:  # type: ignore[override]  # a slot is read alike
        """A moment that is long past, as no hit may be served by the quick way."""
        return ENDED if self.first.until == ENDED else GONE


class Entry:
    """One copy, and its place in a queue.

    Readers hold no lock, so the fields that they read never change, not even when the copy is dropped.
    """

    __slots__ = (
        "after", "before", "deadline", "epoch", "group", "hits", "name", "payload", "queue", "seen", "told", "value",
        "weight",
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
        self.group: Group | None = None
        """The group in which its hits are counted."""
        self.hits = 0
        self.seen = 0  # the hits that evictions have counted
        self.told = 0  # the hits that TOUCH has reported to the server

    def holds(self, value: Any, payload: Payload) -> bool:
        """Whether this is a copy of the same value."""
        return type(self.value) is type(value) and bool(self.value == value) and self.payload == payload


def unwatched(entry: Entry) -> Epoch:
    """Return the entry's own epoch, whether or not its next hit is reported."""
    epoch = entry.epoch
    while type(epoch) is Watched:
        epoch = epoch.first
    return epoch


def bound_of(entry: Entry) -> Bound | None:
    """Return the entry's epoch if the entry has tags, else None."""
    epoch = unwatched(entry)
    return epoch if type(epoch) is Bound else None


def epoch_of(entry: Entry) -> Epoch:
    """Return the epoch of the primary that holds the entry."""
    epoch = unwatched(entry)
    return epoch.epoch if type(epoch) is Bound else epoch


def watch(entry: Entry, hit: Callable[[Entry], object]) -> bool:
    """Let *hit* be called at the next hit of *entry*, once; return False if it was to be called already."""
    epoch = entry.epoch
    while type(epoch) is Watched:
        if epoch.hit == hit:
            return False
        epoch = epoch.first
    entry.epoch = Watched(entry.epoch, hit)
    return True


class Watch(Protocol):
    """Is told of the copies of names whose hash is less than ``limit``, and keeps those that it knows in ``known``."""

    @property
    def limit(self) -> int:
        """See above."""

    @property
    def known(self) -> Mapping[str, Any]:
        """See above."""

    def missed(self, name: str, value: Any, payload: Payload, left: Any, *, kept: bool) -> None:
        """Note a read from a server; *kept*: it may leave a copy.  *left* is the reply to PTTL or None."""

    def changed(self, name: str) -> None:
        """Note that the entry called *name* was changed."""

    def forgotten(self) -> None:
        """Note that every copy was given up."""

    def turn(self, now: float) -> None:
        """Do what is due; the listener's thread calls this now and then."""

    def filled(self, entry: Entry) -> None:
        """Note a new copy."""

    def removed(self, entry: Entry) -> None:
        """Note that a copy was removed."""


class Queue(Entry):
    """The head of a queue: it stands in the ring before the first copy, and its weight is the sum of theirs."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("", PACKED, None, inf, Epoch(inf), 0)


NOWHERE: Final = Queue()
"""The neighbour of an entry that was taken out of the ring."""


COPIES = Figures(
    "near",
    entries="Copies that are held now.",
    bytes="The memory that the copies take now, with their names and tables.",
    max_bytes="The most that they may take, `MAX_BYTES`.",
    evictions="Copies removed without a change: `size`, others needed the room; `expired`; `ended`, with all copies of their time; `too large`, never kept.",
)


class Store:
    """Copies by name, within *max_bytes*, which include the memory of the store itself.

    Changes are made under a lock; ``copies`` may be read, and hits counted, without one.
    """

    tables = TABLES
    least_ghosts = GHOSTS
    watcher: Watch | None = None
    """Is told of some of the copies; see `Watch`."""

    def __init__(self, max_bytes: int, door: Doorkeeper | None = None, groups: Groups | None = None) -> None:
        self.max_bytes = max_bytes
        self.door = door
        self.groups = groups
        """The group of each name, if hits are counted by group."""
        self.copies: dict[str, Entry] = {}
        """Never replaced by another dict: every cache on this store holds a reference to it."""
        self.evictions = dict.fromkeys(("size", "expired", "ended", "too large"), 0)
        self.retired_hits = 0
        """The hits of copies that have been removed."""
        self._room = max_bytes - (door.max_bytes if door is not None else 0)
        """The bytes for everything but the doorkeeper's table, which may grow at any time."""
        self._largest = max_bytes // LARGEST
        self._tenth = max_bytes // SMALL
        self._empty()

    def _empty(self) -> None:
        # All copies form one ring: the useless ones, the main queue, the small queue.  Each queue
        # reaches from its head to the next head, its front first.
        self._gone, self._main, self._small = heads = Queue(), Queue(), Queue()
        for at, head in enumerate(heads):
            head.before, head.after = heads[at - 1], heads[(at + 1) % len(heads)]
        self._hand: Entry = self._gone  # where the next sweep continues
        self._held = OWN
        self._table = TABLES[0]  # the bytes of the dict at most, now or after the next put
        self._ghosts = array("q", bytes(CELL * GHOSTS))

    def put(self, name: str, value: Any, payload: Payload, deadline: float, epoch: Epoch) -> bool:
        """Keep a copy in place of an older one of this name; return False, and keep neither, if it is too large."""
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
        if type(epoch) is Bound:
            weight += epoch.weight
            epoch.spare()
        if weight > 256:
            weight += NUMBER
        if weight > self._largest or not self._make_room(weight):
            self.evictions["too large"] += 1
            return False

        ghosts = self._ghosts
        hashed = hash(name)
        cell = hashed & (len(ghosts) - 1)
        if ghosts[cell] == hashed:
            ghosts[cell] = 0
            queue = self._main
        entry = Entry(name, value, payload, deadline, epoch, weight)
        if self.groups is not None:
            entry.group = self.groups[name]
        self._held += weight
        self._append(entry, queue)
        copies[name] = entry
        watcher = self.watcher
        if watcher is not None and hashed < watcher.limit:
            watcher.filled(entry)
        return True

    def drop(self, name: str) -> bool:
        """Remove a copy; return whether there was one."""
        entry = self.copies.pop(name, None)
        if entry is None:
            return False
        self._remove(entry)
        return True

    def forget(self) -> None:
        """Give up every copy, because their epochs ended.

        The copies keep their memory until a sweep or an eviction removes them.
        """
        # The heads of the main and the small queue move behind all copies, so that these follow the first head.
        # The heads are new objects: a copy that is removed subtracts its weight from the head that it knew.
        for head in (self._main, self._small):
            self._unlink(head)
            head.before = head.after = NOWHERE
        self._main, self._small = Queue(), Queue()
        for head in (self._main, self._small):
            self._link(head, self._gone)

    def sweep(self, now: float, limit: int = 1000) -> bool:
        """Inspect about *limit* copies and remove the useless ones; return False when all have been inspected."""
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
        """Remove every copy of *epoch*, and the useless ones of other epochs."""
        for entry in list(self.copies.values()):
            if epoch_of(entry) is epoch or entry.epoch.until == ENDED:
                self._evict(entry, "ended")

    def warm(self, epoch: Epoch, hits: int) -> list[Entry]:
        """Return the copies of *epoch* with *hits* hits or more since TOUCH last reported them.  Needs no lock.

        The versions of their tags follow with the next report.
        """
        return [
            entry
            for entry in list(self.copies.values())
            if entry.hits - entry.told >= hits
            and epoch_of(entry) is epoch
            and not (entry.value is PACKED and entry.payload is None)
        ]

    def clear(self) -> None:
        """Empty the store at once and count from zero: for a forked child, whose parent may have been at work on it."""
        for entry in (*self.copies.values(), self._gone, self._main, self._small):
            # Only the garbage collector could free a ring, and gc.freeze may have exempted this one.
            entry.before = entry.after = NOWHERE
        self.copies.clear()
        self.evictions.update(dict.fromkeys(self.evictions, 0))
        self.retired_hits = 0
        self._empty()

    @property
    def entries(self) -> int:
        """The number of copies, including useless ones that no sweep has removed yet."""
        return len(self.copies)

    @property
    def held(self) -> int:
        """The bytes of the copies alone."""
        return self._held - OWN

    @property
    def bytes(self) -> int:
        """The memory of the store and its copies; only hit counts above 256 are left out (32 bytes each)."""
        door = self.door.bytes if self.door is not None else 0
        return door + self._held + getsizeof(self.copies) + CELL * len(self._ghosts)

    @property
    def hits(self) -> int:
        """The hits of all copies, present and removed; this reads every copy."""
        return self.retired_hits + sum(entry.hits for entry in list(self.copies.values()))

    def hits_by_group(
        self, present: Iterable[Entry], count: int
    ) -> tuple[list[tuple[Group, int, int]], list[tuple[str, int]]]:
        """Return the hits of *present* copies: by group, of values and of "missing"; and the *count* names with the most."""
        near: Counter[Group] = Counter()
        missed: Counter[Group] = Counter()
        used = [entry for entry in present if entry.hits and entry.group is not None]
        for entry in used:
            sums = missed if entry.value is PACKED and entry.payload is None else near
            sums[entry.group] += entry.hits  # type: ignore[index]  # not None
        largest = nlargest(count, used, key=attrgetter("hits"))
        own = None if self.groups is None else self.groups.own
        sums_of = [(group, near[group], missed[group]) for group in near.keys() | missed.keys()]
        return sums_of, [(entry.name, entry.hits) for entry in largest if entry.group is not own]

    def _make_room(self, weight: int) -> bool:
        """Evict until a copy of this weight fits, with a larger dict if it needs one; return whether it fits."""
        copies = self.copies
        room = self._room - weight
        while True:
            # A dict keeps its size until it is full; its next size depends on its length at that time.
            table = self.tables[(3 * len(copies)).bit_length()]
            if table > self._table:  # noqa: PLR1730 - max() is slower
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
                if type(entry.epoch) is not Epoch and (bound := bound_of(entry)) is not None:
                    bound.spare()
            else:
                entry = main.after
                credit = min(entry.hits - entry.seen, CREDIT)
                if not look or credit <= 0:
                    break
                entry.seen = entry.hits - credit + 1
                if type(entry.epoch) is not Epoch and (bound := bound_of(entry)) is not None:
                    bound.spare()
            # To the back of the main queue.
            self._unlink(entry)
            entry.queue.weight -= entry.weight
            self._append(entry, main)
        self._evict(entry, "size")

    def _remember(self, name: str) -> None:
        """Keep the hash of a name that was evicted without a hit; there are about as many cells as copies."""
        ghosts = self._ghosts
        if len(ghosts) < len(self.copies):
            # The table doubles, so the number of a cell gains a bit, which is not known here: each hash goes into both cells.
            self._ghosts = ghosts = ghosts + ghosts
        elif len(ghosts) > max(4 * len(self.copies), self.least_ghosts):
            self._ghosts = ghosts = ghosts[: len(ghosts) // 2]
        hashed = hash(name)
        ghosts[hashed & (len(ghosts) - 1)] = hashed

    def _evict(self, entry: Entry, reason: str) -> None:
        self.copies.pop(entry.name, None)
        self._remove(entry)
        self.evictions[reason] += 1

    def _remove(self, entry: Entry) -> None:
        """Take a copy that has left ``copies`` out of its queue and out of the sums."""
        # The lines of _unlink, written out: an invalidation makes as few calls as possible.
        before, after, weight = entry.before, entry.after, entry.weight
        before.after = after
        after.before = before
        if entry is self._hand:
            self._hand = after
        # A reader may hold this entry for long; it must not keep its neighbours, and theirs in turn, in memory.
        entry.before = entry.after = NOWHERE
        entry.queue.weight -= weight
        self._held -= weight
        watcher = self.watcher
        if watcher is not None and hash(entry.name) < watcher.limit:
            watcher.removed(entry)
        if entry.hits:
            self._retire(entry)

    def _retire(self, entry: Entry) -> None:
        """Add the hits of a copy that is removed to the sums."""
        hits, group, groups = entry.hits, entry.group, self.groups
        self.retired_hits += hits
        if group is None or groups is None:
            return
        if entry.value is PACKED and entry.payload is None:
            group.missed += hits
            return
        group.near += hits
        if hits >= HOT and group is not groups.own:
            groups.hits.add(groups.grouping.key(entry.name), hits)

    def _append(self, entry: Entry, queue: Queue) -> None:
        """Put a copy at the back of a queue, which is before the head of the next queue."""
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
