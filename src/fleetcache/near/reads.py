"""Which reads of one near cache leave copies: `leaves_copy` has the rules, and `Reads` applies them.

A read takes the journal's number along, and when its reply is in, the `Journal` says whether anything has
overtaken it.  The caller holds the near cache's lock, except for `depart` and `knows`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fleetcache.keys import MAX_LENGTH, doubtful
from fleetcache.near.stages import State
from fleetcache.near.store import PACKED, Bound, Entry

if TYPE_CHECKING:
    from fleetcache.near.listener import Listener
    from fleetcache.near.near import Near

NEVER = float("-inf")

BATCH = 32
"""How many reads are decided on together, which takes a third of the time of one by one."""

LARGE = 16_384
"""A read with a larger payload, in bytes, is decided on at once."""

SCALARS = frozenset((str, bytes, int, float, bool))
"""Types of immutable values, of which every caller gets the same object.  (A stored None is PACKED.)"""


class Read:
    """One read of a name, sent at the time *sent* and the journal's *number*; 0 if it leaves no copy."""

    __slots__ = ("digest", "left", "name", "number", "payload", "reads", "sent", "server", "tags", "value")

    digest: int
    left: Any
    payload: bytes | None
    value: Any

    def __init__(self, reads: Reads, name: str, number: int, sent: float) -> None:
        self.reads = reads
        self.name = name
        self.number = number
        self.sent = sent
        self.server = reads.server
        """The primary that must answer; None if it is not known."""
        self.tags: tuple[Entry, ...] = ()
        """The copies of the versions of the entry's tags, without which its own copy is not served."""

    def arrived(self, value: Any, payload: bytes | None, left: Any) -> None:
        """Note the reply: the value and payload that a copy would hold, and the milliseconds that it may live."""
        self.digest = hash(payload)
        self.left = left
        if payload is None or type(value) not in SCALARS:
            # Decoded anew for each caller; this one's object is its own, and dies with it.
            self.value, self.payload = PACKED, payload
        else:
            self.value, self.payload = value, None


class Reads:
    """The reads of a near cache, of the primary that *listener* listens to."""

    def __init__(self, listener: Listener, near: Near) -> None:
        # Not *near* itself: a listener must not keep a near cache that no cache has any more.
        self.listener = listener
        self.tracking = tracking = listener.tracking
        self.server = tracking.server
        self.prefixes, self.options, self.store, self.counts = near.prefixes, near.options, near.store, near.counts
        self.door = near.store.door
        """The doorkeeper; None if a first read leaves a copy."""
        self.warns = near.warns
        """Whether each use of a name that memcached would refuse must warn.  A hit would not, so such names get no copies."""
        self.copies = near.store.copies
        watcher = near.store.watcher
        self.sampled: Mapping[str, Any] = {} if watcher is None else watcher.known
        """Names of which not only the store wants to know the changes."""
        self.auditor = near.auditor
        self.audited: Mapping[str, Any] = {} if near.auditor is None else near.auditor.rings
        """Names of which the audit notes what happens."""
        self.pending: dict[str, Read] = {}
        """Completed reads that are not decided on yet."""
        self.covered = False
        """Whether the server announces all names with the prefixes, or copies are kept without that."""
        self.longest = near.options.max_ttl
        """The longest life of a copy, in seconds."""
        self.used = NEVER

    def depart(self, name: str, now: float) -> Read | None:
        """Return a new read of *name*; None if *name* has none of the prefixes."""
        self.used = now
        self.counts.misses += 1
        if not name.startswith(self.prefixes):
            return None
        tracking, number = self.tracking, 0
        if self.covered and tracking.stage.keeps and (self.door is None or self.door.knows(name)):
            number = tracking.journal.depart(name)
        return Read(self, name, number, now)

    def depart_many(self, names: Sequence[str], now: float) -> dict[str, Read]:
        """Return new reads of those of *names* that may get copies, by name."""
        self.used = now
        self.counts.misses += len(names)
        tracking = self.tracking
        if not (self.covered and tracking.stage.keeps):
            return {}
        known = names if self.door is None else self.door.known(names)
        depart, prefixes = tracking.journal.depart, self.prefixes
        return {name: Read(self, name, depart(name), now) for name in known if name.startswith(prefixes)}

    def knows(self, name: str) -> bool:
        """Whether a read of *name* may contradict a copy, or another read that may leave one.  Needs no lock."""
        journal = self.tracking.journal
        return name in self.store.copies or name in self.pending or name in journal.recent or name in journal.older

    def knows_any(self, names: Sequence[str]) -> bool:
        """The same for any of *names*."""
        journal = self.tracking.journal
        return not all(
            known.keys().isdisjoint(names)
            for known in (self.store.copies, self.pending, journal.recent, journal.older)
            if known
        )

    def arrive(self, read: Read, value: Any, payload: bytes | None, left: Any) -> None:
        """Note that *read* brought *payload*, which holds *value* and has *left* milliseconds to live.

        If *left* is no int, the read leaves no copy.  `settle` decides on the read: at once if there is a copy,
        which the read might contradict, otherwise later.
        """
        read.arrived(value, payload, left)
        known = read.name in self.store.copies or read.name in self.pending
        large = payload is not None and len(payload) > LARGE
        if known or large or len(self.pending) >= BATCH:
            self.settle()
            self.judge(read)
        elif read.number:
            self.pending[read.name] = read
        else:
            self.tracking.journal.read(read.name, 0, read.digest)

    def settle(self) -> None:
        """Decide on the reads that have completed."""
        while self.pending:
            self.judge(self.pending.popitem()[1])

    def judge(self, read: Read) -> None:
        """Keep a copy if nothing has overtaken the read; otherwise give up a copy that the read contradicts."""
        tracking = self.tracking
        if tracking.journal.read(read.name, read.number, read.digest) and leaves_copy(read, self):
            lifetime = self.longest if read.left < 0 else min(self.longest, read.left / 1000)
            deadline, epoch = read.sent + lifetime, tracking.epoch
            if read.tags:
                deadline, epoch = min(deadline, *[tag.deadline for tag in read.tags]), Bound(epoch, read.tags)
            if self.store.put(read.name, read.value, read.payload, deadline, epoch):
                self.counts.filled += 1
            if read.name in self.audited:
                self._note(read.name, "read from the server, and kept")
            return
        self.counts.refused += read.number > 0
        if read.name in self.audited:
            self._note(read.name, "read from the server, and not kept")
        copy = self.store.copies.get(read.name)
        if copy is not None and not copy.holds(read.value, read.payload):
            # It is not known which of the two is newer.
            self.drop(read.name, "overtaken")

    def drop(self, name: str, cause: str) -> None:
        """Give up the copy of *name*, if there is one; the next read leaves another."""
        if name in self.audited:
            self._note(name, cause)
        if self.store.drop(name):
            self.counts.invalidations[cause] += 1
            if self.door is not None:
                self.door.knows(name)
        if name in self.sampled and (watcher := self.store.watcher) is not None:
            watcher.changed(name)

    def _note(self, name: str, what: str) -> None:
        if self.auditor is not None:
            self.auditor.note(name, what)

    def missed(self, name: str, value: Any, payload: bytes | None, left: Any) -> None:
        """Tell the store's watcher of a read of *name*, which it knows or samples; the rest as with `arrive`."""
        watcher = self.store.watcher
        if watcher is None:
            return
        absent = payload is None
        kept = self.covered and self.tracking.stage.keeps and (self.options.absent if absent else left != -2)
        if absent or type(value) not in SCALARS:
            watcher.missed(name, PACKED, payload, left, kept=kept)
        else:
            watcher.missed(name, value, None, left, kept=kept)

    def forget(self) -> None:
        """Give up the reads that are under way, and the copies, whose epoch has ended."""
        self.pending.clear()
        self.store.forget()
        self._forgotten()

    def _forgotten(self) -> None:
        if self.audited and self.auditor is not None:
            self.auditor.note_all("every copy given up")
        if self.store.watcher is not None:
            self.store.watcher.forgotten()

    def leave(self) -> None:
        """Give up everything, because announcements do not come here any more."""
        self.covered = False
        self.pending.clear()
        self.store.rid(self.tracking.epoch)
        self._forgotten()

    @property
    def state(self) -> State:
        """How far the copies can be trusted."""
        state = self.tracking.state
        return State.CONNECTING if state in {State.LIVE, State.ARMED} and not self.covered else state

    def after_fork(self) -> None:
        """In a child, start empty; the parent may have been in the middle of a change."""
        self.covered = False
        self.pending = {}
        self.store.clear()


def leaves_copy(read: Read, reads: Reads) -> bool:
    """Whether a read leaves a copy if nothing has overtaken it: the rules of the near cache; add new ones here.

    Three are elsewhere, because they are known earlier or later: `Reads.depart` does not ask for the lifetime of a
    name that is read for the first time, `reading` not to keep a value that cannot be read, and `Store.put` refuses
    one that is too large.
    """
    absent = read.value is PACKED and read.payload is None
    if not reads.covered:
        return False  # nothing would end the copy
    if type(read.left) is not int or (read.left == -2 and not absent):
        return False  # the primary did not say how long the entry lives, or it has just expired
    if absent and not reads.options.absent:
        return False
    tracking = reads.tracking
    if tracking.can_move and (absent or not tracking.holds(read.name)):
        return False  # while a slot moves, the entry may be created on another primary, which announces it
    # Each use of such a name must warn, and a hit would not.
    return not reads.warns or (len(read.name) <= MAX_LENGTH and not doubtful(read.name))
