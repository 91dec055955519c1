"""The audit: in production, one hit of very many is compared with the entry on the server.

What is wrong is defined by docs/guarantees.md.  The server's value is read after the hit.  If it differs from the copy, that alone
proves nothing: the entry may have been changed a moment ago.  A violation is one of these:

*Fence* (G5).  The other value was read, then a fence was passed, and the same copy may be served still.  The write was
announced before the value was read, so before the fence was passed.

*Bound* (G4).  The other value was read, and ``T_LIVE`` later the same copy may be served still.

An entry that ends before its copy counts as another value.  Violations are found with the copy itself: an entry that is changed meanwhile, or whose copy is dropped, expires or is not trusted any
more, raises no false alarm.  If the server that answers is not the one that announces, as while a slot of a cluster moves,
the bound is longer by twice ``T_TOPO``, within which a change of the primary is noticed.  What the audit cannot see: that a hit was too old whose copy
was dropped before the comparison, and the promises G2 and G3 about the order of reads and writes in this process.

*Which hits.*  The listener's thread draws copies, each with the weight of its hits, and has them watched: the next hit is
noted, which takes microseconds, and a thread of the library compares it.  Other hits cost what they always cost.  There is one
draw in a second, or fewer where there are many copies, and each has `WAITING` copies at most, so that however many hits are
to be compared, they are no more than that, and one of each copy.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections import deque
from dataclasses import dataclass
from itertools import accumulate
from math import floor
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError

from fleetcache import commands as c
from fleetcache.codec.metadata import Described
from fleetcache.codec.payloads import Codec
from fleetcache.errors import UnreadableValue
from fleetcache.exchange.contract import Command, Redirected
from fleetcache.exchange.wire import facts_in
from fleetcache.forks import chance, keep
from fleetcache.interrupts import let_pass
from fleetcache.keys import masked
from fleetcache.near.clock import clock
from fleetcache.near.stages import Stage
from fleetcache.near.store import PACKED, Entry, watch
from fleetcache.threads import Bell, begun

if TYPE_CHECKING:
    from fleetcache.near.near import Near
    from fleetcache.near.reads import Reads

log = logging.getLogger("fleetcache.near")

WAITING: Final = 64
"""How many copies are watched, and how many hits wait for their comparison, at most."""

KEPT: Final = 32
"""How many events of a name, and how many violations, are kept."""

PAUSE: Final = 1.0
"""The seconds between two draws."""

PATIENCE: Final = 1000
"""A draw reads every copy, so the next comes after this many times as long as it took."""

FEW: Final = 30
"""Of fewer comparisons without a violation nothing is concluded."""

MOST_NINES: Final = 7
"""How many digits behind the point a percentage has at most."""

ROUNDING: Final = 0.002
"""How many seconds longer than its entry a copy may seem to live, because the server counts milliseconds."""

GRACE: Final = 1.1
"""After this many times ``T_LIVE`` a copy is certainly too old."""


@dataclass
class Suspect:
    """A copy that differs from the server, and when it must not be served any more."""

    entry: Entry
    due: float
    found: str


class Auditor:
    """Compares one of *every* hits of *near* with the server; *codec* reads the server's entry."""

    def __init__(self, near: Near, codec: Codec, every: int) -> None:
        self.near = weakref.ref(near)
        self.codec = codec
        self.every = every
        self.pause = PAUSE
        self.thread: Any = None
        self.rings: dict[str, deque[tuple[float, str, str]]] = {}
        """The last events of each watched name: the time, what happened, and a hash of the value."""
        self.started()

    def started(self) -> None:
        """Begin to count, in the process or in a child of it."""
        keep(self.thread)
        self.compared = self.changed = self.violations = self.unanswered = 0
        self.events: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self.queue: deque[Entry] = deque(maxlen=WAITING)
        self.thread = None
        self.bell = Bell()
        self.due = float("-inf")
        self.hits: int | None = None
        self.owing = 0.0
        self.rings.clear()

    def report(self) -> dict[str, Any]:
        """Return the figures of `Near.audit`."""
        compared, violations = self.compared, self.violations
        # The rule of three: what did not happen in n cases has a probability of less than 3 / n, with 95 % confidence.
        sure = 1 - 3 / compared if compared >= FEW and not violations else None
        return {
            "every": self.every,
            "compared": compared,
            "violations": violations,
            "changed": self.changed,
            "unanswered": self.unanswered,
            "better_than": sure,
            "text": _sentence(compared, violations, sure),
            "events": list(self.events),
        }

    def note(self, name: str, what: str, value: str = "") -> None:
        """Note an event of a watched name."""
        ring = self.rings.get(name)
        if ring is not None:
            ring.append((time.time(), what, value))

    def note_all(self, what: str) -> None:
        """Note an event of every name."""
        for name in list(self.rings):
            self.note(name, what)

    def hit(self, entry: Entry) -> None:
        """Note a hit on a watched copy."""
        self.note(entry.name, "hit", _hash(entry.value, entry.payload))
        self.queue.append(entry)
        self.bell.ring()

    # --- the listener's thread --------------------------------------------------------------------

    def turn(self, now: float) -> None:
        """Draw the copies of which a hit is to be compared, and let waiting hits be compared."""
        if self.queue and (self.thread is None or not self.thread.is_alive()):
            self.thread = begun("audit", self._work)
        near = self.near()
        if now < self.due or near is None:
            return
        began = time.thread_time()
        entries = list(near.copies.values())
        hits = [entry.hits for entry in entries]
        total = near.store.retired_hits + sum(hits)
        if self.hits is not None:
            self.owing = min(self.owing + max(total - self.hits, 0) / self.every, WAITING)
        self.hits = total
        count = min(int(self.owing), WAITING - len(self.queue))
        if count > 0 and any(hits):
            self.owing -= count
            for entry in {*chance.choices(entries, cum_weights=list(accumulate(hits)), k=count)}:
                self._watch(entry)
        self.due = now + max(self.pause, PATIENCE * (time.thread_time() - began))

    def _watch(self, entry: Entry) -> None:
        name, rings = entry.name, self.rings
        if name not in rings:
            while len(rings) >= WAITING:
                rings.pop(next(iter(rings)))
            rings[name] = deque(maxlen=KEPT)
        if watch(entry, self.hit):
            self.note(name, "watched", _hash(entry.value, entry.payload))

    # --- the thread that compares -----------------------------------------------------------------

    def _work(self) -> None:
        suspects: list[Suspect] = []
        try:
            while (near := self.near()) is not None and not near.closed:
                if suspects and suspects[0].due <= clock():
                    self._judge(near, suspects.pop(0))
                elif self.queue:
                    self._compare(near, self.queue.popleft(), suspects)
                elif suspects:
                    del near  # while this thread waits, it keeps no near cache
                    self.bell.wait(suspects[0].due - clock())
                else:
                    return
        except Exception as error:
            let_pass(error)
            log.exception("the audit of the near cache failed; it goes on with the next hit")

    def _compare(self, near: Near, entry: Entry, suspects: list[Suspect]) -> None:
        """Compare a copy that was hit with the server."""
        reads = near.reads_of(entry.name)
        if reads.tracking.stage is Stage.UNTRACKED:
            return  # nothing is promised of such a copy
        if any(suspect.entry is entry for suspect in suspects):
            return
        found, _ = self._read(entry, reads)
        if found is None:
            self.compared += 1
            return
        if not found:
            self.unanswered += 1
            return
        # Once more, together with the question which server answers.
        found, facts = self._read(entry, reads, (c.INFO, "server"), (c.INFO, "replication"))
        if found == "":
            self.unanswered += 1
            return
        read, bound = clock(), near.options.t_live
        if facts is None or not reads.tracking.is_same_server(facts.get("run_id", ""), facts.get("role", "")):
            bound += 2 * near.options.t_topo
        elif found is not None and self._passes_fence(reads) and _is_served(near, entry):
            self._violated(near, entry, found, "fence")
            return
        if found is None or not _is_served(near, entry):
            self._fine(entry)
        else:
            suspects.append(Suspect(entry, read + GRACE * bound, found))
            suspects.sort(key=attrgetter("due"))

    def _read(self, entry: Entry, reads: Reads, *more: Command) -> tuple[str | None, dict[str, str] | None]:
        """Return a hash of the server's value, None if it is the copy's, "" if it is not known; and what *more* told.

        The latter is None if another node of the cluster replied, because the slot of the name has moved, or is being moved.
        """
        if reads.server is None:
            return "", {}
        try:
            commands = [(c.GET_NOW, entry.name), (c.PTTL_NOW, entry.name), *more]
            payload, left, *told = replies = reads.server.exchange(commands)
            if not (payload is None or type(payload) is bytes):
                return "", {}
            outlives = type(left) is int and left >= 0 and entry.deadline > clock() + left / 1000 + ROUNDING
            same = holds(entry, payload, self.codec) and not outlives
        except (RedisError, OSError, UnreadableValue):
            return "", {}
        facts: dict[str, str] = {}
        for reply in told:
            facts |= facts_in(reply)
        found = _hash(PACKED, payload)
        what = "the same" if same else "a shorter life" if outlives else "another value"
        self.note(entry.name, f"on the server: {what}", found)
        return None if same else found, None if isinstance(replies, Redirected) else facts

    def _passes_fence(self, reads: Reads) -> bool:
        """Whether a fence was passed; unlike `Near.fence`, it never gives up copies."""
        now, passed, listener = clock(), Bell(), reads.listener
        if not (reads.tracking.leased(now) and listener.fence(now, passed.ring)):
            return False
        if not passed.wait(reads.options.t_live):
            return False
        self.note_all("fence passed")
        return True

    def _judge(self, near: Near, suspect: Suspect) -> None:
        if _is_served(near, suspect.entry):
            self._violated(near, suspect.entry, suspect.found, "bound")
        else:
            self._fine(suspect.entry)

    def _fine(self, entry: Entry) -> None:
        self.compared += 1
        self.changed += 1
        self.note(entry.name, "given up in time")

    def _violated(self, near: Near, entry: Entry, found: str, promise: str) -> None:
        name = entry.name
        self.note(name, f"violation: {promise}")
        events, at = list(self.rings.get(name, ())), time.time()
        history = [{"at": when, "what": what, "value": value} for when, what, value in events]
        copied = _hash(entry.value, entry.payload)
        self.events.append(
            {"at": at, "key": name, "promise": promise, "copy": copied, "server": found, "history": history}
        )
        log.error(
            "near cache: the copy of %s is older than promised (%s); it has been given up, and %s",
            masked(name),
            promise,
            "; ".join(f"{when - at:+.3f} s {what} {value}".rstrip() for when, what, value in events),
            extra={"event": "audit"},
        )
        near.forget((name,))
        self.violations += 1
        self.compared += 1


def _is_served(near: Near, entry: Entry) -> bool:
    """Whether a hit would still be served from this very copy."""
    return near.copy(entry.name) is entry


def holds(entry: Entry, payload: bytes | None, codec: Codec) -> bool:
    """Whether the copy has the value in *payload*, None for no entry; raise UnreadableValue if it cannot be read."""
    if payload is None or (entry.value is PACKED and entry.payload is None):
        return payload is None and entry.value is PACKED and entry.payload is None
    if entry.value is PACKED:
        return payload == entry.payload or (
            codec.metadata(payload) is not None and codec.bare(payload) == entry.payload
        )
    if entry.value == payload:
        return True  # the version of a tag, which no serializer has written
    value = codec.decode(payload)
    if type(value) is Described:
        value = value.value
    return type(value) is type(entry.value) and bool(value == entry.value)


def _hash(value: Any, payload: bytes | None) -> str:
    """Return a few digits that tell values apart; the value itself is nobody's business."""
    if value is PACKED:
        return "none" if payload is None else f"{hash(payload) & 0xFFFFFFFF:08x}"
    return f"{hash(value) & 0xFFFFFFFF:08x} ({type(value).__name__})"


def _sentence(compared: int, violations: int, sure: float | None) -> str:
    """Return the figures in words, for people."""
    if violations:
        return f"{violations:,} of {compared:,} compared hits were older than promised."
    if not compared:
        return "No hit has been compared yet."
    if sure is None:
        return f"0 of {compared:,} compared: too few to say more."
    return f"0 of {compared:,} compared: better than {_percent(sure)} with 95 % confidence."


def _percent(part: float) -> str:
    """Return *part* in percent, rounded down to its nines."""
    digits, rest = 0, 100 * (1 - part)
    while digits < MOST_NINES and rest * 10 ** (digits + 1) <= 1 + 1e-6:
        digits += 1
    return f"{floor(part * 100 * 10**digits + 1e-6) / 10**digits:.{digits}f} %"


def auditor_of(near: Near, codec: Codec | None, every: int) -> Auditor | None:
    """Return the auditor of *near*; None if no hit is to be compared."""
    return Auditor(near, codec, every) if codec is not None and every else None
