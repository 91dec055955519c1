"""Which reads of one near cache leave copies: `leaves_copy` has the rules, and `Reads` applies them.

A read takes the journal's number along, and when its reply is in, the `Journal` says whether anything has
overtaken it.  The caller holds the near cache's lock, except for `depart` and `knows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fleetcache.keys import MAX_LENGTH, doubtful
from fleetcache.near.counts import Counts
from fleetcache.near.stages import State
from fleetcache.near.store import PACKED, Entry, Store
from fleetcache.settings import NearOptions

if TYPE_CHECKING:
    from fleetcache.near.listener import Listener

NEVER = float("-inf")

BATCH = 32
"""Reads that are decided on together, which takes a third of the time that it takes one by one."""

LARGE = 16_384
"""Payloads of more bytes than this are decided on at once."""

SCALARS = frozenset((str, bytes, int, float, bool))
"""Types of values that cannot be changed, so that every caller is given the same object.  (A stored None is PACKED.)"""

PAID = 10
"""Hits of a copy after which the server is told of its use once (TOUCH), which takes a tenth of the time of a read."""


class Read:
    """One read of a name: sent at *sent*, when the journal's *number* was that; number 0 if no copy can come of it."""

    __slots__ = ("digest", "left", "name", "number", "payload", "reads", "sent", "value")

    digest: int
    left: Any
    payload: bytes | None
    value: Any

    def __init__(self, reads: Reads, name: str, number: int, sent: float) -> None:
        self.reads = reads
        self.name = name
        self.number = number
        self.sent = sent

    @property
    def server(self) -> Any:
        """The primary that has to answer; None if it is not known."""
        return self.reads.server

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

    def __init__(
        self,
        listener: Listener,
        prefixes: Sequence[str],
        options: NearOptions,
        store: Store,
        counts: Counts,
        *,
        warns: bool = False,
    ) -> None:
        self.listener = listener
        self.tracking = tracking = listener.tracking
        self.server = tracking.server
        self.prefixes = tuple(prefixes)
        self.options = options
        self.store = store
        self.counts = counts
        self.door = store.door
        """Says which names were read before; None if a first read leaves a copy."""
        self.warns = warns
        """Whether a name that other caches would refuse is warned of whenever it is used, and so must not be found near."""
        self.pending: dict[str, Read] = {}
        """Reads that have completed, and are still to be decided on."""
        self.covered = False
        """Whether the server announces all that begins with the prefixes, or copies are kept although it does not."""
        self.longest = options.max_ttl
        """For how many seconds a copy may be kept."""
        self.used = NEVER

    def depart(self, name: str, now: float) -> Read | None:
        """Return a read of *name* that is about to be sent; None if no near cache has copies of such names."""
        self.used = now
        self.counts.misses += 1
        if not name.startswith(self.prefixes):
            return None
        tracking, number = self.tracking, 0
        if self.covered and tracking.stage.keeps and (self.door is None or self.door.knows(name)):
            number = tracking.journal.depart(name)
        return Read(self, name, number, now)

    def depart_many(self, names: Sequence[str], now: float) -> dict[str, Read]:
        """Return reads of those of *names* that copies may come of, by name."""
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
        """The same of any of *names*."""
        journal = self.tracking.journal
        return not all(
            known.keys().isdisjoint(names)
            for known in (self.store.copies, self.pending, journal.recent, journal.older)
            if known
        )

    def arrive(self, read: Read, value: Any, payload: bytes | None, left: Any) -> None:
        """Note that *read* brought *payload*, which holds *value* and has *left* milliseconds to live.

        Without an int in *left* no copy is left.  What the read means is worked out by `settle`, at once only if
        there is a copy, which the read might contradict.
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
        """Keep a copy if nothing has overtaken the read, or else give up a copy that the read contradicts."""
        tracking = self.tracking
        if tracking.journal.read(read.name, read.number, read.digest) and leaves_copy(read, self):
            lifetime = self.longest if read.left < 0 else min(self.longest, read.left / 1000)
            if self.store.put(read.name, read.value, read.payload, read.sent + lifetime, tracking.epoch):
                self.counts.filled += 1
            return
        self.counts.refused += read.number > 0
        copy = self.store.copies.get(read.name)
        if copy is not None and not copy.holds(read.value, read.payload):
            # It is not known which of the two is newer.
            self.drop(read.name, "overtaken")

    def drop(self, name: str, cause: str) -> None:
        """Give up the copy of *name*, if there is one; the next read leaves another."""
        if self.store.drop(name):
            self.counts.invalidations[cause] += 1
            if self.door is not None:
                self.door.knows(name)

    def forget(self) -> None:
        """Give up the reads that are under way, and the copies, whose epoch has ended."""
        self.pending.clear()
        self.store.forget()

    def leave(self) -> None:
        """Give up everything: announcements do not come here any more."""
        self.covered = False
        self.pending.clear()
        self.store.rid(self.tracking.epoch)

    @property
    def state(self) -> State:
        """How far the copies can be trusted."""
        state = self.tracking.state
        return State.CONNECTING if state in {State.LIVE, State.ARMED} and not self.covered else state

    def after_fork(self) -> None:
        """Begin with nothing, in a child, whatever the parent was in the middle of."""
        self.covered = False
        self.pending = {}
        self.store.clear()

    def warm(self) -> list[Entry]:
        """Return the copies that were hit so often since the server was told that it is to be told again.  Needs no lock."""
        return self.store.warm(self.tracking.epoch, PAID) if self.options.touch else []


def leaves_copy(read: Read, reads: Reads) -> bool:
    """Whether a read leaves a copy if nothing has overtaken it: every rule of the near cache, which a new one joins."""
    absent = read.value is PACKED and read.payload is None
    if not reads.covered:
        return False  # nothing would end the copy
    if type(read.left) is not int or (read.left == -2 and not absent):
        return False  # the primary did not say how long the entry lives, or it has just expired
    if absent and not reads.options.absent:
        return False
    tracking = reads.tracking
    if tracking.can_move and (absent or not tracking.holds(read.name)):
        return False  # while a slot moves, another primary announces the entries that come to be in it
    # A name that is warned of whenever it is used must not be found near.
    return not reads.warns or (len(read.name) <= MAX_LENGTH and not doubtful(read.name))
