"""A world of a few lines: a server with one entry, readers, writers, and a clock, around the near cache's real protocol."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf
from types import SimpleNamespace
from typing import Any

import hiredis

from fleetcache.exchange.wire import NEED_DATA, refusal
from fleetcache.near.audience import Audience
from fleetcache.near.counts import Counts, Events
from fleetcache.near.journal import Journal
from fleetcache.near.near import PACKED, Near
from fleetcache.near.reads import Read, Reads
from fleetcache.near.stages import Stage, State
from fleetcache.near.store import Epoch, Store
from fleetcache.near.tracking import Tracking
from fleetcache.settings import NearOptions

NAME, PREFIX, OTHER, QUESTION = "p:a", "p:", "q:", "p:~near:q"
OPTIONS = NearOptions()
STEP = 0.6 * OPTIONS.t_live
"""How far the clock goes at a time."""

MOMENT = 1e-5
"""How far it goes where it must be seen what came before and what after."""

OK, NOTHING, GONE = b"+OK\r\n", b"_\r\n", b":-2\r\n"
FLUSHED = b">2\r\n$10\r\ninvalidate\r\n_\r\n"


def announcement(name: str) -> bytes:
    return f">2\r\n$10\r\ninvalidate\r\n*1\r\n${len(name)}\r\n{name}\r\n".encode()


def text(content: str) -> bytes:
    return f"${len(content)}\r\n{content}\r\n".encode()


REPLIES = {
    ("CLIENT", "TRACKING"): OK,
    ("INFO", "server"): text("run_id:1\r\nredis_version:7.2.4\r\n"),
    ("INFO", "replication"): text("role:master\r\n"),
    ("PTTL", QUESTION): GONE,
    ("SET", QUESTION): NOTHING,
}


class Broken(Exception):
    """A promise of the near cache does not hold."""


@dataclass(frozen=True)
class Scope:
    """How often each thing may happen, and how many steps there are together."""

    steps: int
    readers: int = 2
    reads: int = 2
    foreign: int = 0
    flushes: int = 0
    own: str = ""
    """What this process writes: ``set`` or ``flush``."""
    waits: int = 0
    fences: int = 0
    losses: int = 0
    halves: int = 0
    """How often half of an announcement or reply arrives, and the other half later."""
    begins: str = "cold"
    """With no copy, ``warm`` with one, or ``armed``, when nothing is proven yet."""
    lifetime: float = inf
    """That of the value at the beginning."""
    joins: int = 0
    """How often the near cache joins another one, on whose connection it is told nothing before, and leaves it."""
    deaf: bool = False
    """Whether announcements get lost, from the beginning on."""
    door: bool = False
    """Whether a first read leaves no copy."""


@dataclass(frozen=True)
class Reading:
    """A read that is under way."""

    departed: int
    sent: float
    version: int = 0
    """What the server had when it came to it; 0: it has not come to it yet."""
    payload: bytes | None = None
    left: int = 0


class Door:
    """Knows the one name."""

    bytes = 0
    max_bytes = 0

    def __init__(self, *, known: bool = False) -> None:
        self.known = known

    def knows(self, name: str) -> bool:
        known, self.known = self.known, True
        return known


def near(prefix: str, store: Store) -> Any:
    """Return what `Reads` need of a near cache."""
    return SimpleNamespace(prefixes=(prefix,), options=OPTIONS, store=store, counts=Counts(), warns=False, auditor=None)


class World:
    """A server with one entry, whose values are the numbers of its versions, and a process that keeps it near."""

    def __init__(self, scope: Scope, kind: type[Tracking | Reads]) -> None:
        self.scope = scope
        self.now = 0.0
        self.version = 1
        self.present = True
        self.absent = 0
        """The version that was the entry's absence; there is one at most."""
        self.lives: dict[int, float] = {1: scope.lifetime}
        """When versions expire."""
        self.sent = b""
        """What the server has not read yet."""
        self.queue: tuple[tuple[bytes, int], ...] = ()
        """What is under way from the server, with the version that each part announces."""
        self.fed = b""
        """The first half of something."""
        self.connected = False
        self.announces: tuple[str, ...] = ()
        """The prefixes of what the server announces."""
        self.readers: tuple[Reading | None, ...] = (None,) * scope.readers
        self.reads = self.foreign = self.flushes = self.waits = self.fences = self.losses = self.halves = self.joins = 0
        """How often these things have happened."""
        self.writing = 0
        """How far the own writer has come."""
        self.written = 0
        self.seen = self.owned = self.announced = 0
        """The newest versions that a read returned, that this process wrote, that were announced to it."""
        self.served = False
        """Whether a hit returns something now."""
        self.acknowledged: tuple[tuple[float, int], ...] = ()
        self.canary = ""
        self.demanded = self.fenced = 0
        """The newest version that was acknowledged before the fence, and the same when it is passed."""
        self.waiting = False
        self.tracking: Any = (kind if issubclass(kind, Tracking) else Tracking)()
        self.tracking._me = "me"
        listener: Any = SimpleNamespace(tracking=self.tracking, look=lambda now: None)
        reader = kind if issubclass(kind, Reads) else Reads
        store = Store(OPTIONS.max_bytes, Door() if scope.door else None)
        self.reader = reader(listener, near(PREFIX, store))
        if scope.joins:
            self.tracking.join(reader(listener, near(OTHER, Store(OPTIONS.max_bytes))), self.now)
        else:
            self.tracking.join(self.reader, self.now)
        self.do("connect")
        self.prove(until=State.ARMED if scope.begins == "armed" else State.LIVE)
        if not scope.losses and scope.begins != "armed":
            self.tracking._next_canary = inf
        if scope.begins == "warm":
            self.read()

    # --- what can happen --------------------------------------------------------------------------

    def moves(self) -> Iterator[tuple[str, int]]:
        """Yield what can happen next."""
        scope, tracking = self.scope, self.tracking
        if self.reads < scope.reads and None in self.readers:
            yield "depart", self.readers.index(None)
        for number, reading in enumerate(self.readers):
            if reading is not None:
                yield "arrive" if reading.version else "execute", number
        if self.reader.pending:
            yield "settle", 0
        if self.foreign < scope.foreign:
            yield "write", 0
        if self.reader in tracking.readers:
            if scope.joins:
                yield "leave", 0
        elif self.joins < scope.joins:
            yield "join", 0
        if self.flushes < scope.flushes:
            yield "flush", 0
        if scope.own and self.writing < 3:
            yield "write_own", 0
        if self.waits < scope.waits:
            yield "wait", 0
        if self.fences < scope.fences and not self.waiting:
            yield "begin_fence", 0
        if self.waiting:
            yield "give_up_fence", 0
        if not self.connected:
            yield "connect", 0
            return
        if self.losses < scope.losses:
            yield "lose", 0
        if self.sent:
            yield "serve", 0
        if self.queue:
            yield "deliver", 1
            if self.halves < scope.halves and not self.fed:
                yield "deliver", 0
            if len(self.queue) > 1:
                yield "deliver", len(self.queue)
        if tracking.agreed:
            yield "arm", 0
        if self.canary:
            yield "acknowledge_canary", 0
        elif tracking.canary_due(self.now):
            yield "write_canary", 0
        if self.waits and self.now >= tracking._asked + OPTIONS.t_live / 3:
            yield "tick", 0

    def after(self, move: tuple[str, int]) -> World:
        """Return the state that follows; raise Broken if it is a wrong one."""
        world = self.clone()
        world.do(*move)
        world.check()
        return world

    def do(self, what: str, number: int = 0) -> None:
        getattr(self, what)(number)
        tracking = self.tracking
        if tracking.outgoing:
            if self.connected:
                self.sent += bytes(tracking.outgoing)
            tracking.outgoing = bytearray()

    # The readers.

    def depart(self, number: int) -> None:
        self.reads += 1
        self._reads(number, Reading(self.reader.depart(NAME, self.now).number, self.now))

    def execute(self, number: int) -> None:
        if self.now >= self.lives[self.version]:
            self._change(present=False)
        ends = self.lives[self.version]
        left = -2 if not self.present else -1 if ends == inf else round((ends - self.now) * 1000)
        payload = b"%d" % self.version if self.present else None
        self._reads(number, replace(self.readers[number], version=self.version, payload=payload, left=left))

    def arrive(self, number: int) -> None:
        read = self.readers[number]
        value = None if read.payload is None else read.version
        if read.departed or self.reader.knows(NAME):
            self.reader.arrive(Read(self.reader, NAME, read.departed, read.sent), value, read.payload, read.left)
        self.seen = max(self.seen, read.version)
        self._reads(number, None)

    def settle(self, number: int = 0) -> None:
        self.reader.settle()

    def join(self, number: int = 0) -> None:
        self.joins += 1
        self.tracking.join(self.reader, self.now)

    def leave(self, number: int = 0) -> None:
        self.tracking.leave(self.reader)

    def _reads(self, number: int, reading: Reading | None) -> None:
        self.readers = (*self.readers[:number], reading, *self.readers[number + 1 :])

    # The writers.

    def write(self, number: int = 0) -> None:
        self.foreign += 1
        self._change(present=True)

    def flush(self, number: int = 0) -> None:
        self.flushes += 1
        self._change(present=False, flush=True)

    def write_own(self, number: int = 0) -> None:
        if self.writing == 1:
            self._change(present=self.scope.own == "set", flush=self.scope.own == "flush", acknowledged=False)
            self.written = self.version
        elif self.scope.own == "set":
            self.tracking.wrote(NAME)
        else:
            self.tracking.end_epoch("own flush")
        if self.writing == 2:
            self.owned = self.written
            self._acknowledge(self.owned)
        self.writing += 1

    def _change(self, *, present: bool, flush: bool = False, acknowledged: bool = True) -> None:
        self.version += 1
        self.present = present
        if not present:
            self.absent = self.version
        self.lives = self.lives | {self.version: inf}
        if PREFIX in self.announces and not self.scope.deaf:
            self.queue += ((FLUSHED if flush else announcement(NAME), self.version),)
        if acknowledged:
            self._acknowledge(self.version)

    def _acknowledge(self, version: int) -> None:
        self.acknowledged += ((self.now, version),)

    # Time, and fences.

    def wait(self, number: int = 0) -> None:
        self.waits += 1
        self.now = round(self.now + STEP, 6)

    def tick(self, number: int = 0) -> None:
        try:
            self.tracking.tick(self.now)
        except TimeoutError:
            self.lose()

    def begin_fence(self, number: int = 0) -> None:
        self.fences += 1
        self.now += MOMENT
        self.demanded = max((version for _, version in self.acknowledged), default=0)
        self.waiting = True
        if not self.tracking.fence(self.now, self.pass_fence):
            self.pass_fence()

    def give_up_fence(self, number: int = 0) -> None:
        self.tracking.distrust()
        self.pass_fence()

    def pass_fence(self) -> None:
        self.waiting, self.fenced = False, self.demanded

    # The connection.

    def lose(self, number: int = 0) -> None:
        self.losses += 1
        self.connected, self.announces = False, ()
        self.queue, self.sent, self.fed, self.canary = (), b"", b"", ""
        self.tracking.lost("connection")

    def connect(self, number: int = 0) -> None:
        self.connected = True
        self.tracking.connected(self.now, QUESTION)

    def serve(self, number: int = 0) -> None:
        """The server answers whatever it was sent."""
        for command in commands(self.sent):
            if command[1:2] == ("TRACKING",):
                self.announces += command[5::2]
            self.queue += ((REPLIES[command[:2]], 0),)
        self.sent = b""

    def deliver(self, count: int) -> None:
        """So many parts reach the process, or half of one."""
        if count == 0:
            self.halves += 1
            (part, version), *others = self.queue
            half = len(part) // 2
            self.queue = ((part[half:], version), *others)
            data = self.fed = part[:half]
        else:
            parts, self.queue = self.queue[:count], self.queue[count:]
            data, self.fed = b"".join(part for part, _ in parts), b""
            self.announced = max(self.announced, *(version for _, version in parts))
        self.tracking.received(data, self.now)
        self.tracking.drained(self.now)

    def arm(self, number: int = 0) -> None:
        self.tracking.arm(self.now)

    def write_canary(self, number: int = 0) -> None:
        self.canary = self.tracking.own_name()
        self.tracking.new_canary(self.canary, self.now)
        if self.canary.startswith(self.announces) and not self.scope.deaf:
            self.queue += ((announcement(self.canary), 0),)

    def acknowledge_canary(self, number: int = 0) -> None:
        name, self.canary = self.canary, ""
        self.now += MOMENT
        self.tracking.canary_written(name, self.now)

    # --- in a row ---------------------------------------------------------------------------------

    def prove(self, until: State = State.LIVE) -> None:
        """Let everything go well for a while, until copies are served."""
        for _ in range(8):
            for what in ("tick", "serve"):
                self.do(what)
            if self.queue:
                self.do("deliver", len(self.queue))
            self.tracking.drained(self.now)
            if self.tracking.state is until:
                return
            if self.tracking.agreed:
                self.do("arm")
            if not self.canary and self.tracking.canary_due(self.now):
                self.do("write_canary")
            if self.canary:
                self.do("acknowledge_canary")
            if self.losses or self.waits:
                self.now += OPTIONS.t_live / 2

    def read(self) -> None:
        for what in ("depart", "execute", "arrive", "settle"):
            self.do(what)

    def recover(self) -> None:
        """End what is going on, and read: in the end there is a copy, and it is served."""
        while 0 < self.writing < 3:
            self.do("write_own")
        for number, reading in enumerate(self.readers):
            if reading is not None:
                if not reading.version:
                    self.do("execute", number)
                self.do("arrive", number)
        self.settle()
        if not self.connected:
            self.do("connect")
        if self.reader not in self.tracking.readers:
            self.do("join")
        # What was sent before may be answered now, and what is announced may end copies.
        self.waits = max(self.waits, 1)
        self.prove()
        self.prove()
        self.read()
        if self.scope.door:
            self.read()
        if self.hit() != self.version:
            raise Broken(f"served: no copy of the current version is, the near cache is {self.tracking.state}")

    # --- what is promised -------------------------------------------------------------------------

    def hit(self) -> int | None:
        """Return the version that a hit returns now, None if no copy is served."""
        TIME[0] = self.now
        near = NEAR
        near.copies, near.sole = self.reader.store.copies, self.reader
        entry = near.copy(NAME)
        return None if entry is None else self.version_of(entry)

    def version_of(self, entry: Any) -> int:
        return self.absent if entry.value is PACKED else entry.value

    def check(self) -> None:
        """Compare with the promises what can be served now, and what is kept."""
        tracking = self.tracking
        entry = self.reader.store.copies.get(NAME)
        self.served = False
        if entry is None:
            return
        kept = self.version_of(entry)
        if entry.epoch is tracking.epoch and not self.scope.deaf:
            if kept < self.announced:
                raise Broken(f"G6: version {kept} is kept, and {self.announced} was announced")
            if kept < self.version and not any(version > kept for _, version in self.queue):
                raise Broken(f"G6: version {kept} is kept, and nothing will tell of {self.version}")
        if NAME in self.reader.pending:
            return  # a hit would settle it: another step
        found = self.hit()
        self.served = found is not None
        if found is None:
            return
        due = max((version for when, version in self.acknowledged if when < self.now - OPTIONS.t_live), default=0)
        for promise, least in ("G2", self.owned), ("G3", self.seen), ("G4", due), ("G5", self.fenced):
            if found < least:
                raise Broken(f"{promise}: a hit returns version {found} after {least}")
        if self.now > self.lives[found]:
            raise Broken(f"expired: a hit returns version {found}")
        self.seen = max(self.seen, found)

    # --- states -----------------------------------------------------------------------------------

    def clone(self) -> World:
        world, known = object.__new__(World), self.tracking
        vars(world).update(vars(self))
        world.tracking = tracking = object.__new__(type(known))
        vars(tracking).update(vars(known))
        tracking.outgoing = bytearray()
        tracking.epoch = Epoch(known.epoch.until)
        tracking.counts = Events()
        world.reader = self._clone_reader(known, tracking)
        tracking.readers = [world.reader if each is self.reader else each for each in known.readers]
        tracking.audience = Audience(each for each in tracking.readers if each is world.reader)
        tracking.journal = type(known.journal)()
        for part in Journal.__slots__:
            of_its = getattr(known.journal, part)
            setattr(tracking.journal, part, of_its.copy() if isinstance(of_its, dict) else of_its)
        tracking.reader = hiredis.Reader(
            encoding="utf-8", errors="replace", replyError=refusal, notEnoughData=NEED_DATA
        )
        tracking.reader.feed(world.fed)
        tracking._expected = deque((getattr(tracking, then.__name__), sent) for then, sent in known._expected)
        tracking.waiters = [(since, world.pass_fence) for since, _ in known.waiters]
        tracking._canary = known._canary and replace(known._canary)
        return world

    def _clone_reader(self, known: Any, tracking: Any) -> Any:
        reader = object.__new__(type(self.reader))
        vars(reader).update(vars(self.reader))
        reader.tracking, reader.counts = tracking, Counts()
        reader.listener = SimpleNamespace(tracking=tracking, look=lambda now: None)
        reader.pending = self.reader.pending.copy()
        reader.door = self.reader.door and Door(known=self.reader.door.known)
        reader.store = Store(OPTIONS.max_bytes)
        for entry in self.reader.store.copies.values():
            epoch = tracking.epoch if entry.epoch is known.epoch else entry.epoch
            reader.store.put(entry.name, entry.value, entry.payload, entry.deadline, epoch)
        return reader

    def fingerprint(self) -> object:
        """Return what tells this state from others that can become different."""
        tracking, journal = self.tracking, self.tracking.journal
        entry = self.reader.store.copies.get(NAME)
        pending = self.reader.pending.get(NAME)
        written, read, known = journal.recent.get(NAME) or (0, 0, 0)
        # Of the journal's numbers only the order matters.
        numbers = {0, journal.now, journal._floor, written, read, pending.number if pending else 0}
        numbers.update(reading.departed for reading in self.readers if reading)
        rank = {number: place for place, number in enumerate(sorted(numbers))}
        canary = tracking._canary
        return (
            tuple(
                value
                for name, value in vars(self).items()
                if name not in {"readers", "reader", "scope", "tracking", "lives"}
            ),
            # All readers are the same.
            tuple(sorted((rank[each.departed], each.sent, each.version, each.left) for each in self.readers if each)),
            (rank[journal.now], rank[journal._floor], rank[written], rank[read], known if read > written else 0),
            (NAME in journal.recent, self.reader.door is not None and self.reader.door.known),
            (self.reader.covered, self.reader in tracking.readers),
            entry and (self.version_of(entry), entry.deadline, entry.epoch is tracking.epoch),
            pending and (rank[pending.number], pending.value, pending.payload, pending.left, pending.sent),
            tuple(value for value in vars(tracking).values() if isinstance(value, (bool, float, str, tuple, Stage))),
            (tracking.epoch.until, canary and (canary.name, canary.acknowledged)),
            tuple(sent for _, sent in tracking._expected),
            tuple(since for since, _ in tracking.waiters),
        )


def commands(sent: bytes) -> Iterator[tuple[str, ...]]:
    reader = hiredis.Reader(encoding="utf-8", notEnoughData=NEED_DATA)
    reader.feed(sent)
    while (command := reader.gets()) is not NEED_DATA:
        yield tuple(command)


TIME = [0.0]
NEAR: Any = Near.__new__(Near)
"""The code of a hit, with whatever a state has; that another thread holds the lock, and hits go by the lease, is the worst case."""
NEAR.gate = SimpleNamespace(run=lambda action, *args, **how: action(*args))
