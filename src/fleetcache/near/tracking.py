"""What one primary announces, and what that means for the copies in this process: a protocol without I/O.

The server is told to name every key that changes under some prefixes (``CLIENT TRACKING ON BCAST``),
to whoever changed it.  Bytes, the time and what the caches do come in by methods; bytes to send stand
in ``outgoing``; whether copies may be served stands in ``epoch.until``.  Nothing here waits, locks or
looks at a clock, so threads, event loops, the tests' simulations and a forked child drive the same
code.  Whoever calls holds the near cache's lock.

Why a copy can be trusted:

*Lease.*  A server queues the announcement of a write before the reply to its writer leaves, and TCP
keeps order.  So when a question sent at *s* has been answered, every write acknowledged to anybody
before *s* has been applied here, and copies are served until *s* + ``t_live``.  No clocks are compared.
The question is to overwrite an entry that there is not: it changes nothing, and only a primary takes it.

*Journal.*  What a read brings is kept only if nothing has come between since before it was sent: no
announcement, no write of our own, no other read that brought something else.  See `journal`.

*Epoch.*  A copy is of the epoch in which it was read.  When the connection is lost, everything is
flushed, or the server turns out to be another one, the epoch ends, and with it every copy, in one step.

*Canary.*  That the server said OK to tracking proves nothing.  A key of our own is written over the
ordinary connections, and unless its announcement has come before a later answer, none may be expected.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from redis.exceptions import AskError, MovedError, NoPermissionError, OutOfMemoryError, ReadOnlyError

from fleetcache.exchange.wire import NEED_DATA, Push, facts_in, new_reader, pack
from fleetcache.keys import MAX_LENGTH, doubtful
from fleetcache.near.journal import Journal
from fleetcache.near.store import ENDED, PACKED, Epoch, Store
from fleetcache.settings import NearOptions

log = logging.getLogger("fleetcache.near")

NEVER, FOREVER = float("-inf"), float("inf")

FRESH = 0.001
"""Seconds after which a reader looks at the socket again before it is served."""

LOOKING = 0.05
"""Seconds for which one that looks may be held up, waiting for the interpreter, before others look as well."""

OUTSTANDING = 3
"""So many unanswered questions are enough: a server that is stopped must not be sent more and more."""

PATIENCE = 3.0
"""Seconds, or as many times ``t_live``, without an answer after which a connection is given up."""

CANARY = "~near:"
"""What a canary's name has after the prefix: no key's name with a version."""

TRIES = 100_000
"""So many names are tried at most until one is found that a primary of a cluster holds."""

CANARY_LIFE = 100
"""Milliseconds after which a canary expires."""

DOUBT = 1.0
"""Seconds between canaries until one has been seen."""

PRIMARY = {"", "master"}
"""What INFO calls a server that takes writes, if it says so at all."""

OLDEST = 7
"""Redis before 7.0 puts announcements into the middle of other replies."""

BATCH = 32
"""Reads that are decided on together: so many at a time take a third of what they take one by one."""

LARGE = 16_384
"""Bytes from which on a payload does not wait for others."""

SCALARS = frozenset((str, bytes, int, float, bool))
"""What is handed out as it is, because nobody can change it.  (None is told apart from nothing by its payload.)"""


class State(StrEnum):
    """How far a primary's copies can be trusted; the best comes first."""

    LIVE = "live"
    ARMED = "armed"
    CONNECTING = "connecting"
    ASLEEP = "asleep"
    SUSPECT = "suspect"
    ASIDE = "aside"
    DEAD = "dead"
    OFF = "off"


@dataclass
class Counts:
    """What happened since the process began."""

    misses: int = 0
    filled: int = 0
    refused: int = 0
    """Values that were read, and not kept because something came between."""
    invalidations: dict[str, int] = field(default_factory=lambda: {"push": 0, "own write": 0, "overtaken": 0})
    """Copies dropped, by cause."""
    pushes: int = 0
    """Names that were announced, copied here or not."""
    epochs: dict[str, int] = field(default_factory=dict)
    """How often every copy was given up, by reason."""
    connects: int = 0
    """How often it was tried to listen."""
    canaries: int = 0
    lags: list[int] = field(default_factory=lambda: [0] * 24)
    """How many canaries took less than 2, 4, 8, … microseconds from being sent to being heard of."""

    def lag(self, seconds: float) -> None:
        """Count a canary's round trip."""
        bucket = min(max(int(seconds * 1e6), 1).bit_length() - 1, len(self.lags) - 1)
        self.lags[bucket] += 1


@dataclass
class Canary:
    """A write of our own that must be announced."""

    name: str
    sent: float
    acknowledged: float | None = None


def too_old(version: str) -> bool:
    """Whether a server of this ``redis_version`` puts announcements where they cannot be told apart."""
    major = version.partition(".")[0]
    return major.isdigit() and int(major) < OLDEST


class Tracking:
    """What is known of one primary."""

    server: Any = None
    """Whom reads are sent to."""

    holds: Callable[[str], bool] | None = None
    """Says whether this primary is the one that holds a name, where that can change."""

    warns = False
    """Whether a name that other caches would refuse is warned of whenever it is used, and so must not be found near."""

    def __init__(
        self, address: str, prefixes: Sequence[str], options: NearOptions, store: Store, counts: Counts
    ) -> None:
        self.address = address
        self.prefixes = tuple(prefixes)
        self.options = options
        self.store = store
        self.counts = counts
        self.epoch = Epoch()
        self.journal = Journal()
        self.pending: dict[str, tuple[int, Any, bytes | None, int, Any, float]] = {}
        """Reads that have completed, and are still to be decided on."""
        self.state = State.CONNECTING
        self.why = ""
        """Why it is not live."""
        self.lived = False
        """Whether this connection, or the last, has been live."""
        self.used = NEVER
        self.news: deque[tuple[int, State, str]] = deque(maxlen=100)
        self.waiters: list[tuple[float, Callable[[], object]]] = []
        self._names = 0
        self._name_itself()
        self._forget_connection()

    def _forget_connection(self) -> None:
        self.outgoing = bytearray()
        self.reader = new_reader(encoding="utf-8", errors="replace")
        self._expected: deque[tuple[Callable[[Any, float, float], None], float]] = deque()
        self.longest = self.options.max_ttl
        """For how many seconds a copy may be kept."""
        self.run_id = ""
        self.untracked = False
        """Whether copies are served that nobody vouches for."""
        self.introduced = False
        """Whether the server has agreed, and said who it is."""
        self.armed = False
        """Whether the server announces what changes, so that reads may leave copies."""
        self.proven = False
        """Whether a canary has shown that it does."""
        self.deaf = False
        """Whether a canary has shown that it does not, and none since that it does again."""
        self.answered = NEVER
        """When the newest question that was answered had been sent."""
        self._asked = NEVER
        self._fencing = False
        self.silent = False
        """Whether a fence has waited for an answer in vain, and none has come since."""
        self._caught_up = NEVER
        self._canary: Canary | None = None
        self._next_canary = NEVER

    # --- the connection ---------------------------------------------------------------------------

    def connected(self, now: float, name: str) -> None:
        """A connection to the server is there: ask it to announce changes.  *name* is for questions about nothing."""
        if self.untracked:
            self.end_epoch("connected")
        self._forget_connection()
        self.lived = False
        self._question = ("SET", name, "", "XX")
        prefixes = [part for prefix in self.prefixes for part in ("PREFIX", prefix)]
        self._send(("CLIENT", "TRACKING", "ON", "BCAST", *prefixes), self._subscribed, now)
        self._send(("INFO", "server"), self._named, now)
        self._send(("INFO", "replication"), self._ranked, now)
        self._send(("PTTL", name), self._timed, now)
        self._ask(now)

    def received(self, data: Any, now: float) -> None:
        """Take in bytes from the server, as they come."""
        self.reader.feed(data)
        while (reply := self.reader.gets()) is not NEED_DATA:
            if type(reply) is Push:
                self._announced(reply, now)
            elif self._expected:
                then, sent = self._expected.popleft()
                then(reply, sent, now)
            else:
                raise ConnectionError("the server sent a reply that nobody asked for")

    def looking(self, now: float) -> None:
        """Somebody is about to read what has come; until that is done, others are served by the lease alone."""
        if self.leased(now):
            self.epoch.until = min(self.answered + self.options.t_live, now + LOOKING)

    def caught_up(self, now: float) -> None:
        """There was nothing more to read at *now*."""
        self._caught_up = now
        self._extend()
        if self.state is not State.LIVE and self.leased(now):
            self.lived = True
            self._become(State.LIVE, "")

    def lost(self, reason: str, state: State = State.DEAD, why: str = "") -> None:
        """The connection is gone, or of no use: so are all copies."""
        was_of_use = self.armed or self.deaf
        self._forget_connection()
        if was_of_use:
            self.end_epoch(reason)
        self._become(state, why or reason)
        self._release_fences()

    def after_fork(self) -> None:
        """Begin with nothing, in a child; what waits, and what was counted, is the parent's."""
        self.waiters = []
        self.news.clear()
        self._name_itself()
        self.lost("fork", State.CONNECTING)

    def _name_itself(self) -> None:
        self._me = secrets.token_hex(6)
        self._spread = 0.5 + secrets.randbelow(512) / 1024

    def refuse(self, why: str) -> None:
        """The server does not announce changes: do without copies, or with those that live shortly."""
        self.lost("refused", State.OFF, why)
        if self.options.untracked_ttl:
            self.armed = True
            self.longest = self.options.untracked_ttl
            self.untracked = True
            self._extend()

    def tick(self, now: float) -> float:
        """Do what is due, and return when to call again."""
        if self._expected and now - self._expected[0][1] > max(PATIENCE, PATIENCE * self.options.t_live):
            raise TimeoutError("no answer on the tracking connection")
        self.pulse(now)
        if self.state is State.LIVE and not self.leased(now):
            self._become(State.SUSPECT, "the server does not answer in time")
        return max(self._asked + self.options.t_live / 3, now + self.options.t_live / 12)

    def pulse(self, now: float) -> None:
        """Ask for a new lease if it is time to."""
        if now >= self._asked + self.options.t_live / 3 and len(self._expected) < OUTSTANDING:
            self._ask(now)

    def _send(self, command: tuple[str, ...], then: Callable[[Any, float, float], None], now: float) -> None:
        self.outgoing += pack(command)
        self._expected.append((then, now))

    # --- what the server says ---------------------------------------------------------------------

    def _subscribed(self, reply: Any, sent: float, now: float) -> None:
        insist("CLIENT TRACKING", reply)

    def _named(self, reply: Any, sent: float, now: float) -> None:
        facts = facts_in(insist("INFO", reply))
        run_id, version = facts.get("run_id", ""), facts.get("redis_version", "")
        if not run_id:
            raise Refused("INFO does not tell the server's run id, by which a fail-over is noticed")
        if too_old(version):
            raise Refused(f"Redis {version} mixes invalidations into other replies; 7.0 or later is needed")
        self.run_id = run_id

    def _ranked(self, reply: Any, sent: float, now: float) -> None:
        if facts_in(insist("INFO", reply)).get("role", "") not in PRIMARY:
            raise ConnectionError(
                "this server is a replica"
            )  # it may be promoted, or another take its place, any moment

    def _timed(self, reply: Any, sent: float, now: float) -> None:
        if self.holds is not None and isinstance(reply, (MovedError, AskError)):
            raise reply  # the slot of this name has just moved, and with another name it will do
        insist("PTTL", reply)
        self.introduced = True

    @property
    def agreed(self) -> bool:
        """Whether all that is missing is to `arm`."""
        return self.introduced and not (self.armed or self.deaf)

    def arm(self, now: float) -> None:
        """From now on reads may leave copies: the server announces, and ordinary connections lead to it."""
        self.armed = True
        self._next_canary = now
        self._become(State.ARMED, "no canary has been seen yet")

    def _announced(self, push: Any, now: float) -> None:
        """Something changed: *push* is ``invalidate`` and a list of names, or None for all."""
        if push[:1] != ["invalidate"]:
            return
        names = push[1] if len(push) > 1 else None
        if names is None:
            self.flushed()
            return
        if not isinstance(names, list):
            raise ConnectionError(f"the server announced a {type(names).__name__} in place of names")
        for name in names:
            if type(name) is not str:
                raise ConnectionError(f"the server announced a {type(name).__name__} in place of a name")
            self.counts.pushes += 1
            self.invalidated(name)
            if CANARY in name:
                self._heard(name, now)

    def invalidated(self, name: str) -> None:
        """The entry called *name* was changed, by whomever."""
        self.journal.write(name)
        if self.store.drop(name):
            self.counts.invalidations["push"] += 1

    def flushed(self) -> None:
        """Everything was removed."""
        self.end_epoch("flush")

    def _ask(self, now: float) -> None:
        self._asked = now
        self._send(self._question, self._answered, now)

    def _answered(self, reply: Any, sent: float, now: float) -> None:
        if isinstance(reply, NoPermissionError):
            insist("SET", reply)
        if isinstance(reply, (MovedError, ReadOnlyError)):
            raise ConnectionError("another server is the primary now")
        if isinstance(reply, Exception) and not (isinstance(reply, IN_ORDER) or str(reply).startswith(NO_WRITES)):
            # It is loading, or busy with a script; what has been acknowledged before may still be to come.
            if self.waiters:
                self.unfence()
                self._release_fences()
            return
        self.silent = False
        canary = self._canary
        if canary is not None and canary.acknowledged is not None and sent >= canary.acknowledged:
            self._unheard()
        self.answered = max(self.answered, self.vouched(sent, now))
        self._extend()
        self._pass_fences(now)

    def vouched(self, sent: float, now: float) -> float:
        """Return before when a write must have been acknowledged to be known here, by an answer."""
        return sent

    # --- trust ------------------------------------------------------------------------------------

    def leased(self, now: float) -> bool:
        """Whether the server has answered lately enough, and nothing speaks against it."""
        return self.proven and not self.silent and now < self.answered + self.options.t_live

    def vouches(self, epoch: Epoch, now: float) -> bool:
        """Whether a copy of *epoch* may be served although ``until`` is over: others are reading the socket."""
        return epoch is self.epoch and self.leased(now)

    def _extend(self) -> None:
        if self.untracked:
            self.epoch.until = FOREVER
        elif self.proven and not self.silent:
            self.epoch.until = min(self.answered + self.options.t_live, self._caught_up + FRESH)

    def end_epoch(self, reason: str) -> None:
        """Give up every copy, and every read that is under way."""
        self.void()
        self.journal.end()
        self.pending.clear()
        self.store.forget()
        self.counts.epochs[reason] = self.counts.epochs.get(reason, 0) + 1
        self._extend()

    def void(self) -> None:
        """End the epoch, and leave the rest of that to whoever is in the middle of a change."""
        self.epoch.until = ENDED
        self.epoch = Epoch()

    def _become(self, state: State, why: str) -> None:
        known, self.why = self.state, why
        if known is state:
            return
        quiet = state in {State.CONNECTING, State.ARMED, State.ASLEEP} or known is State.ASLEEP
        self.state = state
        level = logging.DEBUG if quiet else logging.INFO if state is State.LIVE else logging.WARNING
        self.news.append((level, state, why))

    def speak(self) -> None:
        """Log what has happened.  No change: a log's handler may use the cache, and wait for one."""
        with suppress(IndexError):  # that was all
            while True:
                level, state, why = self.news.popleft()
                log.log(level, "%s: near cache %s%s%s", self.address, state, why and ": ", why, extra={"event": "near"})

    # --- canary -----------------------------------------------------------------------------------

    def canary_due(self, now: float) -> bool:
        """Whether it is time to write one."""
        return (self.armed or self.deaf) and now >= self._next_canary

    def own_name(self) -> str:
        """Return a new name that no cache uses, under one of the prefixes, and of an entry that would be here."""
        for _ in range(TRIES):
            self._names += 1
            name = f"{self.prefixes[self._names % len(self.prefixes)]}{CANARY}{self._me}:{self._names}"
            if self.holds is None or self.holds(name):
                return name
        raise Refused("no name that begins with the prefixes is in a slot of this server")

    def new_canary(self, name: str, now: float) -> None:
        """Note that *name* is about to be written over the ordinary connections."""
        self._canary = Canary(name, now)
        self._next_canary = now + (self.options.canary if self.proven else min(DOUBT, self.options.canary))

    def canary_written(self, name: str, now: float) -> None:
        """The server has acknowledged the write of *name*."""
        if self._canary is not None and self._canary.name == name:
            self._canary.acknowledged = now
            if not self.proven or self.state is not State.LIVE:
                self._ask(now)

    def canary_refused(self, why: str) -> None:
        """The server did not take the canary."""
        self._canary = None
        if not self.proven:
            self._become(State.SUSPECT, f"no canary can be written: {why}")

    def _heard(self, name: str, now: float) -> None:
        """A canary was announced; another process's serves as well, so that a fleet does not write one each."""
        if self._canary is not None and name == self._canary.name:
            self._seen(self._canary, now)
        elif self.proven and self._canary is None and self._me not in name:
            self._next_canary = now + self._spread * self.options.canary

    def _seen(self, canary: Canary, now: float) -> None:
        self.counts.canaries += 1
        self.counts.lag(now - canary.sent)
        self._canary = None
        self.proven = True
        if self.deaf:
            self.deaf, self.armed = False, True
        self._extend()

    def _unheard(self) -> None:
        """An answer has come that the canary's announcement should have come before."""
        self._canary = None
        # What is read from now on may miss what is announced, so it must not be kept either.
        self.proven, self.armed, self.deaf = False, False, True
        self.end_epoch("canary")
        self._become(State.SUSPECT, "the server's announcements do not arrive (a proxy that drops them?)")

    def met(self, run_id: str, role: str = "") -> bool:
        """The ordinary connections lead to the server *run_id*; return whether that is this one."""
        return not run_id or not self.run_id or (run_id == self.run_id and role in PRIMARY)

    # --- fences -----------------------------------------------------------------------------------

    def fence(self, now: float, then: Callable[[], object]) -> bool:
        """Call *then* as soon as every write acknowledged before *now* is known; return whether to wait for it."""
        if not self.leased(now):
            self._unfenced()
            return False
        self.waiters.append((now, then))
        if not self._fencing:
            self._fencing = True
            self._ask(now)
        return True

    def unfence(self) -> None:
        """Note that the server has not answered in time; until it does, nothing is served, and no fence waits."""
        self.silent = True
        self._unfenced()

    def _unfenced(self) -> None:
        """Give up all copies instead: whatever is read from now on was written, or not, before it was read."""
        if self.armed:
            self.end_epoch("fence")

    def _pass_fences(self, now: float) -> None:
        if not self.waiters:
            self._fencing = False
            return
        passed = [then for since, then in self.waiters if since <= self.answered]
        self.waiters = [waiter for waiter in self.waiters if waiter[0] > self.answered]
        for then in passed:
            then()
        self._fencing = bool(self.waiters)
        if self._fencing:
            self._ask(now)  # one for all who came while the last was under way

    def _release_fences(self) -> None:
        waiters, self.waiters, self._fencing = self.waiters, [], False
        for _, then in waiters:
            then()

    # --- what the caches do -----------------------------------------------------------------------

    def depart(self, name: str, now: float) -> int:
        """Note that a read of *name* is about to be sent; return what `arrive` is to be told, 0 if no copy can come of it."""
        self.used = now
        self.counts.misses += 1
        return self.journal.now if self.armed and name.startswith(self.prefixes) else 0

    def arrive(self, name: str, departed: int, value: Any, payload: bytes | None, left: Any, sent: float) -> None:
        """Note that a read of *name*, sent at *sent*, brought *payload*, with *left* milliseconds to live.

        *value* is what the payload holds.  With -2 left nothing is kept.  What this means is worked out
        by `settle`, at once only if there is a copy, which it might contradict.
        """
        digest, large = hash(payload), payload is not None and len(payload) > LARGE
        if payload is None or type(value) not in SCALARS:
            value = PACKED  # decoded anew for each caller; this one's object is its own, and dies with it
        else:
            payload = None
        known = name in self.store.copies or name in self.pending
        if known or large or len(self.pending) >= BATCH:
            self.settle()
            self.judge(name, departed, value, payload, digest, left, sent)
        elif departed:
            self.pending[name] = (departed, value, payload, digest, left, sent)
        else:
            self.journal.read(name, 0, digest)

    def settle(self) -> None:
        """Decide on the reads that have completed."""
        while self.pending:
            name, arrival = self.pending.popitem()
            self.judge(name, *arrival)

    def judge(
        self, name: str, departed: int, value: Any, payload: bytes | None, digest: int, left: Any, sent: float
    ) -> None:
        """Keep a copy of what was read if nothing came between, or else give up the copy that it contradicts."""
        keep = self.journal.read(name, departed, digest)
        absent = value is PACKED and payload is None
        if type(left) is not int or (left == -2 and not absent):
            keep = False
        elif self.holds is not None and (absent or not self.holds(name)):
            keep = False  # while a slot is on its way, what comes to be there is announced by another server
        elif absent and not self.options.absent:
            keep = False
        if self.warns and keep:
            keep = len(name) <= MAX_LENGTH and not doubtful(name)
        if keep:
            deadline = sent + (self.longest if left < 0 else min(self.longest, left / 1000))
            if self.store.put(name, value, payload, deadline, self.epoch):
                self.counts.filled += 1
            return
        self.counts.refused += departed > 0
        copy = self.store.copies.get(name)
        if copy is not None and not copy.holds(value, payload):
            # Nobody knows which is newer.
            self.store.drop(name)
            self.counts.invalidations["overtaken"] += 1

    def wrote(self, name: str) -> None:
        """Note that this process writes *name*, or has done so: no copy of before may be seen after."""
        self.journal.write(name)
        if self.store.drop(name):
            self.counts.invalidations["own write"] += 1


def insist(command: str, reply: Any) -> Any:
    """Return the reply to *command*, or say why there will be none."""
    if not isinstance(reply, Exception):
        return reply
    if str(reply).startswith(PASSING):
        raise reply
    raise Refused(f"{command} is refused: {reply}")


IN_ORDER = (AskError, OutOfMemoryError)
NO_WRITES = ("MISCONF", "NOREPLICAS")
"""Answers as good as any: that the slot is on its way, or that nothing can be written just now."""

PASSING = (
    *("BUSY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "NOAUTH", "WRONGPASS", "DENIED"),
    *("OOM", "MISCONF", "NOREPLICAS", "INPROG", "UNKILLABLE"),
)
"""How refusals begin that are no last word: what is in the way passes."""


class Refused(Exception):
    """The server does not offer what a near cache needs."""
