"""The near cache of one configuration: copies of values in the process, kept current by announcements.

In a process, all caches of one configuration share one store, for both faces, and all near caches on one server
share one listener.  docs/guarantees.md says what is promised; `tracking` how it is kept.

A cache looks into ``copies`` by itself, without a call; everything else goes through `Near`.
"""

from __future__ import annotations

import asyncio
import atexit
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from os.path import commonprefix
from typing import Any, TypeVar

from fleetcache.codec.payloads import Codec
from fleetcache.errors import SettingsError
from fleetcache.exchange.contract import Server
from fleetcache.forks import in_children
from fleetcache.keys import KeyFunction, default_key_function
from fleetcache.near.advice import Advisor
from fleetcache.near.audit import auditor_of
from fleetcache.near.clock import clock
from fleetcache.near.counts import EVENTS, READS, Counts, Events
from fleetcache.near.door import Doorkeeper
from fleetcache.near.listener import GATE, RUNNING, Listener, listener_of
from fleetcache.near.reads import Read, Reads
from fleetcache.near.stages import State
from fleetcache.near.store import COPIES, NOWHERE, PACKED, Bound, Entry, Epoch, Store, Watched, unwatched, watch
from fleetcache.near.tracking import CANARY
from fleetcache.settings import NearOptions, Settings, StatsOptions
from fleetcache.stats.figures import Figures
from fleetcache.stats.groups import Group, Groups
from fleetcache.threads import Bell, living
from fleetcache.topology.contract import Topology

__all__ = ["CANARY", "PACKED", "Near", "announced", "clock", "open_near"]

SAMPLES = ("a", "Z", "0", "user:1")
"""Sample keys: the common beginning of their names is the prefix that KEY_FUNCTION gives to every name."""

T = TypeVar("T")

NEAR = Figures(
    "near",
    state="How far copies can be trusted: `live`, or why not; `off` without a near cache.",
    why="In words, why the state is not `live`.",
)
HITS = Figures("near", hits="Reads that were served from a copy.")


class Near:
    """The near cache of one configuration in this process; near caches on the same server share its listener."""

    reads_class = Reads
    """Tests replace it by classes that break a rule."""

    def __init__(
        self,
        options: NearOptions,
        prefixes: Sequence[str],
        topology: Topology,
        *,
        warns: bool = False,
        groups: Groups | None = None,
        stats: StatsOptions | None = None,
        codec: Codec | None = None,
    ) -> None:
        self.options = options
        self.prefixes = tuple(prefixes)
        self.store = Store(options.max_bytes, Doorkeeper(options.max_bytes) if options.doorkeeper else None, groups)
        self.copies = self.store.copies
        self.counts = Counts()
        self.advisor = Advisor(self.store, self.counts, options.max_ttl) if stats is not None and stats.advise else None
        self.auditor = auditor_of(self, codec, stats.audit) if stats is not None else None
        self.past = Events()
        """The events at servers that are no longer primaries."""
        self.gate = GATE
        self.warns = warns
        self.topology = topology
        self.home = topology.home
        self.closed = False
        self.reads: dict[Server, Reads] = {}
        self.no_listener = self.reads_class(Listener(None, topology), self)
        self.sole: Reads | None = None
        if not topology.can_move:
            for server in topology.primaries:
                self._follow(server)
            if len(self.reads) == 1:
                (self.sole,) = self.reads.values()
        weakref.finalize(self, _leave, self.reads).atexit = False
        NEARS.add(self)
        in_children(self.after_fork)

    def reads_of(self, name: str) -> Reads:
        """Return the reads of the primary that holds *name*; if no primary is known, those of a listener that never starts."""
        if self.sole is not None:
            return self.sole
        server = self.home(name)
        return self.reads.get(server) or self._follow(server)

    def _follow(self, server: Server) -> Reads:
        with self.lock:
            if server in self.topology.primaries and server not in self.reads:
                self._forget_gone()
                self.reads[server] = self.reads_class(listener_of(server, self.topology), self)
            return self.reads.get(server, self.no_listener)

    def _forget_gone(self) -> None:
        for gone in {*self.reads}.difference(self.topology.primaries):
            self.past.add(self.reads.pop(gone).tracking.counts)

    @property
    def listeners(self) -> dict[Server, Listener]:
        """The listeners of the primaries that have been read from."""
        primaries = self.topology.primaries
        return {server: reads.listener for server, reads in list(self.reads.items()) if server in primaries}

    @property
    def lock(self) -> Any:
        """The lock that is held during a change."""
        return self.gate.lock

    # --- reading ----------------------------------------------------------------------------------

    def copy(self, name: str) -> Entry | None:
        """Return the copy of *name* if it may be served."""
        entry = self.copies.get(name)
        if entry is None:
            reads = self.sole or self.reads_of(name)
            if name not in reads.pending:
                return None
            self.gate.run(reads.settle, must=False)
            entry = self.copies.get(name)
            if entry is None:
                return None
        now = clock()
        if now >= entry.deadline:
            return None
        epoch = entry.epoch
        if now < epoch.until:
            return entry
        if type(epoch) is not Epoch:
            if type(epoch) is Watched:
                return self._watched_copy(name, entry, epoch)
            if type(epoch) is Bound:
                return self._bound_copy(name, entry, epoch, now)
        # No thread has drained the socket in the last millisecond.
        reads = self.reads_of(name)
        reads.used = now
        reads.listener.look(now)
        entry = self.copies.get(name)
        if entry is None or now >= entry.deadline:
            return None
        epoch = unwatched(entry)
        return entry if now < epoch.until or reads.tracking.vouches(epoch, now) else None

    def _watched_copy(self, name: str, entry: Entry, watched: Watched) -> Entry | None:
        """Return what `copy` returns, and report the hit, if it is one."""
        entry.epoch = watched.first
        copy = self.copy(name)
        if copy is not None:
            watched.hit(copy)
        elif self.copies.get(name) is entry:  # it may be served again
            watch(entry, watched.hit)
        return copy

    def _bound_copy(self, name: str, entry: Entry, bound: Bound, now: float) -> Entry | None:
        """Return the copy of *name*, an entry with tags, if it may be served: `copy` goes on here."""
        looked = {reads: reads.tracking for reads in map(self.reads_of, [name, *[tag.name for tag in bound.tags]])}
        for reads in looked:
            reads.used = now
            reads.listener.look(now)
        for tag in bound.tags:
            if tag.before is NOWHERE:
                new = self.copies.get(tag.name)
                # As `PEXPIRE` makes it, for one: the same version, read anew.
                if (
                    new is None
                    or new.value != tag.value
                    or unwatched(new) is not unwatched(tag)
                    or new.deadline < entry.deadline
                ):
                    return None
                bound.tags = tuple(new if each is tag else each for each in bound.tags)
        if self.copies.get(name) is not entry or now >= entry.deadline:
            return None
        epochs = (bound.epoch, *bound.others)
        trusted = all(
            now < epoch.until or any(tracking.vouches(epoch, now) for tracking in looked.values()) for epoch in epochs
        )
        # Last, since another thread may have drained a socket meanwhile.
        return entry if trusted and all(tag.before is not NOWHERE for tag in bound.tags) else None

    def copies_of(self, names: Sequence[str]) -> dict[str, Entry]:
        """Return the copies of *names* that may be served, by name."""
        copies, sole = self.copies, self.sole
        if sole is not None and not sole.pending:
            names = [name for name in names if name in copies]
        return {name: copy for name in names if (copy := self.copy(name)) is not None}

    def depart(self, name: str) -> Read | None:
        """Return a new read of *name*, to be passed to `arrive`; None if *name* has none of the prefixes."""
        reads = self.sole or self.reads_of(name)
        read = reads.depart(name, clock())
        if not reads.covered and read is not None:
            self._serve(reads)
        return read

    def depart_many(self, names: Sequence[str]) -> dict[str, Read]:
        """Return new reads of those of *names* that may get copies, by name."""
        if self.sole is not None:
            reads = self.sole.depart_many(names, clock())
            if not self.sole.covered and any(name.startswith(self.prefixes) for name in names):
                self._serve(self.sole)
            return reads
        departed = [self.depart(name) for name in names]
        return {read.name: read for read in departed if read is not None and read.number}

    def _serve(self, reads: Reads) -> None:
        if not self.closed:
            reads.listener.serve(reads)

    def arrive(self, read: Read, value: Any, payload: bytes | None, left: Any) -> None:
        """Note that *read* brought *payload*, which holds *value*; *left* is the reply to PTTL or None."""
        reads = read.reads
        watcher = self.store.watcher
        if watcher is not None and hash(read.name) < watcher.limit:
            reads.missed(read.name, value, payload, left)
        if read.number or reads.knows(read.name):
            self.gate.run(reads.arrive, read, value, payload, left)

    def arrive_many(
        self,
        names: Sequence[str],
        reads: Mapping[str, Read],
        values: Mapping[str, Any],
        payloads: Sequence[bytes | None],
        lefts: Mapping[str, Any],
    ) -> None:
        """The same for reads of *names*, of which *reads* may leave copies; *lefts* has the replies to PTTL, by name."""
        sole = self.sole
        watcher = self.store.watcher
        if watcher is not None:
            limit = watcher.limit
            for name, payload in zip(names, payloads, strict=True):
                if hash(name) < limit:
                    (sole or self.reads_of(name)).missed(name, values.get(name), payload, lefts.get(name))
        if not reads and sole is not None and not sole.knows_any(names):
            return
        arrivals = []
        for name, payload in zip(names, payloads, strict=True):
            read = reads.get(name)
            if read is None:
                of = sole or self.reads_of(name)
                if not of.knows(name):
                    continue
                read = Read(of, name, 0, 0.0)
            left = lefts.get(name) if payload is None or name in values else None  # an unreadable value is not kept
            arrivals.append((read, values.get(name), payload, left))
        if arrivals:
            self.gate.run(_arrive_all, arrivals)

    def wrote(self, names: Iterable[str] | None) -> None:
        """Note that this process writes *names*, None for all names, or has written them."""
        # Caches of other configurations may have copies of the same entries.
        for listener in list(RUNNING):
            listener.wrote(names)

    def forget(self, names: Iterable[str]) -> None:
        """Give up the copies of *names*, and those that reads under way would leave."""
        for name in names:
            if name.startswith(self.prefixes):
                self.gate.run(self.reads_of(name).tracking.wrote, name)

    # --- fences -----------------------------------------------------------------------------------

    def fence(self) -> None:
        """Wait until every write that was acknowledged before now is known here."""
        began = clock()
        passed = {listener: Bell() for listener in self._telling()}
        waits = [listener for listener, bell in passed.items() if listener.fence(began, bell.ring)]
        for listener in waits:  # all servers have been asked before the first wait
            if not passed[listener].wait(began + listener.patience - clock()):
                listener.distrust()

    async def afence(self) -> None:
        """Wait until every write that was acknowledged before now is known here."""
        began, loop = clock(), asyncio.get_running_loop()

        async def pass_one(listener: Listener) -> None:
            passed = loop.create_future()

            def let_pass() -> None:
                if not passed.done():
                    passed.set_result(None)

            def tell() -> None:
                with suppress(RuntimeError):  # the loop is closed, and no task waits any more
                    loop.call_soon_threadsafe(let_pass)

            if listener.fence(began, tell):
                try:
                    await asyncio.wait_for(passed, listener.patience)
                except TimeoutError:
                    listener.distrust()

        await asyncio.gather(*(pass_one(listener) for listener in self._telling()))

    def _telling(self) -> list[Listener]:
        """Return the listeners of which this near cache may have copies."""
        return [reads.listener for reads in list(self.reads.values()) if reads.covered]

    # --- looking at it ----------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """How far copies can be trusted; with several primaries, the worst of their states."""
        order = list(State)
        primaries = self.topology.primaries
        states = [reads.state for server, reads in list(self.reads.items()) if server in primaries]
        return State.ASLEEP if self.closed else max(states, key=order.index, default=State.ASLEEP)

    @property
    def why(self) -> str:
        """Why it is not live, "" if it is."""
        if self.closed:
            return "closed"
        trackings = [listener.tracking for listener in self.listeners.values()]
        return "; ".join(f"{each.address}: {each.why}" for each in trackings if each.why)

    @property
    def events(self) -> Events:
        """The events at all servers since the process began."""
        found = Events()
        for each in (self.past, *(reads.tracking.counts for reads in list(self.reads.values()))):
            found.add(each)
        return found

    def stats(self) -> dict[str, Any]:
        """Return the figures of ``cache.info()["near"]``, which docs/observing.md explains."""
        hits = HITS.of(self)  # without the lock: to add them up takes long
        with self.lock:
            return {**NEAR.of(self), **hits, **COPIES.of(self.store), **READS.of(self.counts), **EVENTS.of(self.events)}

    @property
    def hits(self) -> int:
        """The hits of all copies, present and removed; this reads every copy."""
        store = self.store
        present, removed = self._beside(lambda: store.retired_hits)
        return removed + sum(entry.hits for entry in present)

    def hits_by_group(
        self, count: int, sums: Callable[[], T]
    ) -> tuple[T, list[tuple[Group, int, int]], list[tuple[str, int]]]:
        """Return *sums*, which have the hits of removed copies, and what `Store.hits_by_group` returns of the present ones."""
        present, found = self._beside(sums)
        return found, *self.store.hits_by_group(present, count)

    def _beside(self, sums: Callable[[], T]) -> tuple[list[Entry], T]:
        """Return the present copies and *sums* of the same moment: a copy that is being removed is in one of them."""
        with self.lock:
            return list(self.store.copies.values()), sums()

    def advice(self) -> dict[str, Any]:
        """Return the hit ratio that this process's traffic would have with other values of `MAX_BYTES`; {} if that is off.

        ``rate`` is the part of the names that is simulated, ``reads`` the number of reads on which the figures rest,
        ``now`` their measured hit ratio, and ``sizes`` has for each size its ``max_bytes``, the ``hit_ratio`` (0 to 1, None before
        the first read) and the standard ``error`` of it, about.  ``enough`` says whether all errors are small, and ``text`` is a
        sentence for people.  docs/capacity.md says how exact this is.
        """
        return {} if self.advisor is None else self.advisor.advice()

    def audit(self) -> dict[str, Any]:
        """Return how many hits were compared with the server, and how many were older than promised; {} if none is.

        ``changed`` of the ``compared`` entries had been changed, and their copies were given up in time; ``unanswered``
        could not be compared.  Of 30 comparisons or more without ``violations``, ``better_than`` is a lower bound of the part of right hits,
        with a confidence of 95 %; else it is None.  ``text`` is a sentence for people.  ``events`` has the last violations, each with what happened to its name before.
        """
        return {} if self.auditor is None else self.auditor.report()

    def close(self) -> None:
        """Stop listening for good."""
        self.closed = True
        if self.auditor is not None:
            self.auditor.bell.ring()
        for reads in list(self.reads.values()):
            reads.listener.release(reads)

    def after_fork(self) -> None:
        """In a child: start empty."""
        self.counts.__init__()  # type: ignore[misc]  # the parent's
        self.past = Events()
        self.store.clear()
        if self.advisor is not None:
            self.advisor.started()
        if self.auditor is not None:
            self.auditor.started()


class Copyless:
    """A near cache for callers whose reads find no copies and leave none.

    It passes their reads and writes on to the real near cache, which gives up copies that they contradict.
    """

    def __init__(self, of: Near | Copyless) -> None:
        self.near: Near = of.near if isinstance(of, Copyless) else of
        self.arrive, self.arrive_many = self.near.arrive, self.near.arrive_many
        self.wrote, self.forget = self.near.wrote, self.near.forget
        self.fence, self.afence = self.near.fence, self.near.afence

    def copy(self, name: str) -> None:
        """Return no copy."""

    def copies_of(self, names: Sequence[str]) -> dict[str, Entry]:
        """Return no copies."""
        return {}

    def depart(self, name: str) -> Read | None:
        """Return a new read of *name*, which leaves no copy."""
        read = self.near.depart(name)
        if read is not None:
            read.number = 0
        return read

    def depart_many(self, names: Sequence[str]) -> dict[str, Read]:
        """Return no reads: none may leave copies."""
        self.near.depart_many(names)
        return {}


class Bypassed(Copyless):
    """A near cache for calls that ask another server than the primary: a client of the caller."""

    def depart(self, name: str) -> None:
        """Return no read: the value of another server is never kept."""

    def depart_many(self, names: Sequence[str]) -> dict[str, Read]:
        """Return no reads."""
        return {}


def _arrive_all(arrivals: Sequence[tuple[Read, Any, bytes | None, Any]]) -> None:
    for read, *brought in arrivals:
        read.reads.arrive(read, *brought)


def _leave(followed: dict[Server, Reads]) -> None:
    """Tell the listeners that a near cache is gone; a finalizer calls this at any moment."""
    for reads in list(followed.values()):
        reads.listener.leaving.append(reads)
        reads.listener.wake.ring()


def open_near(
    settings: Settings,
    prefixes: Sequence[str],
    topology: Topology,
    warns: bool = False,
    groups: Groups | None = None,
    codec: Codec | None = None,
) -> Near | None:
    """Return a near cache of the names that begin with *prefixes*, as `announced` returned them; None without any."""
    options = settings.options.near
    if options is None or not prefixes:
        return None
    return Near(options, prefixes, topology, warns=warns, groups=groups, stats=settings.options.stats, codec=codec)


def announced(settings: Settings, namer: KeyFunction) -> tuple[str, ...]:
    """Return the prefixes of the near cache: PREFIXES, or the common beginning of all names that *namer* makes.

    There are none if *settings* ask for no near cache, or need none.
    """
    options = settings.options.near
    if options is None or all(location.kind == "memory" for location in settings.location):
        return ()
    try:
        names = [namer(key, settings.key_prefix, settings.version) for key in SAMPLES]
    except Exception as error:
        if options.prefixes:
            return options.prefixes
        raise SettingsError(
            f"NEAR: no sample of a name could be made: {type(error).__name__}: {error}. Name what all names begin with: "
            f"OPTIONS['NEAR'] = {{'PREFIXES': ['shop:']}}"
        ) from error
    if not all(isinstance(name, str) for name in names):
        raise SettingsError("NEAR: KEY_FUNCTION has to return text; the server announces changes by text")
    plain = namer is default_key_function
    beginning = f"{settings.key_prefix}:" if plain else commonprefix(names)  # noqa: RUF071 - of strings
    if options.prefixes:
        if plain and not any(part.startswith(beginning) or beginning.startswith(part) for part in options.prefixes):
            raise SettingsError(
                f"NEAR: PREFIXES {options.prefixes!r}: no entry's name begins like that. They are names on the server, "
                f"such as {names[-1]!r} for the key {SAMPLES[-1]!r}"
            )
        return options.prefixes
    if not beginning:
        raise SettingsError(
            "NEAR: the names that KEY_FUNCTION, or make_key(), makes have no common beginning, by which the server could tell which "
            "changes to announce. Name some: OPTIONS['NEAR'] = {'PREFIXES': ['shop:']}"
        )
    return (beginning,)


NEARS: weakref.WeakSet[Near] = weakref.WeakSet()
"""Every near cache of the process that a cache uses, or used lately."""


def _at_exit() -> None:
    """Stop listening, so that the threads end; `threads` waits for them."""
    for near in living(NEARS):
        near.close()


atexit.register(_at_exit)
