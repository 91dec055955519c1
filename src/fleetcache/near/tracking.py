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
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import (
    AskError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from fleetcache.exchange.contract import Command
from fleetcache.exchange.wire import NEED_DATA, Push, facts_in, new_reader, pack
from fleetcache.near.journal import Journal
from fleetcache.near.reads import NEVER, Reads, State
from fleetcache.near.store import ENDED, Entry, Epoch
from fleetcache.settings import NearOptions

log = logging.getLogger("fleetcache.near")

FOREVER = float("inf")

FRESH = 0.001
"""Seconds after which a reader looks at the socket again before it is served."""

LOOKING = 0.05
"""Seconds for which one that looks may be held up, waiting for the interpreter, before others look as well."""

SPARE = 16
"""Prefixes that may be announced for nobody, if no more are announced for somebody."""

TOUCHES = 5000
"""Copies that the server is told of at a time."""

OUTSTANDING = 3
"""So many unanswered questions are enough: a server that is stopped must not be sent more and more."""

PATIENCE = 3.0
"""Seconds, or as many times ``t_live``, without an answer after which a connection is given up."""

NOBODY: list[Reads] = []

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


@dataclass
class Events:
    """What happened on the connections to one primary since the process began."""

    pushes: int = 0
    """Names that were announced, copied here or not."""
    epochs: dict[str, int] = field(default_factory=dict)
    """How often every copy was given up, by reason."""
    connects: int = 0
    """How often it was tried to listen."""
    canaries: int = 0
    lags: list[int] = field(default_factory=lambda: [0] * 24)
    """How many canaries took less than 2, 4, 8, … microseconds from being sent to being heard of."""

    touched: int = 0
    """Names that the server was told to be in use."""

    def lag(self, seconds: float) -> None:
        """Count a canary's round trip."""
        bucket = min(max(int(seconds * 1e6), 1).bit_length() - 1, len(self.lags) - 1)
        self.lags[bucket] += 1

    def add(self, other: Events) -> None:
        """Count what happened at another primary as well."""
        for name, count in other.epochs.items():
            self.epochs[name] = self.epochs.get(name, 0) + count
        self.pushes += other.pushes
        self.connects += other.connects
        self.canaries += other.canaries
        self.touched += other.touched
        self.lags = [mine + its for mine, its in zip(self.lags, other.lags, strict=True)]


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


def shortest(prefixes: Iterable[str]) -> tuple[str, ...]:
    """Return those of *prefixes* that begin with no other."""
    found: list[str] = []
    for prefix in sorted(prefixes):  # what begins with another comes after it
        if not (found and prefix.startswith(found[-1])):
            found.append(prefix)
    return tuple(found)


class Tracking:
    """What is known of one primary, for all near caches that read it."""

    holds: Callable[[str], bool] | None = None
    """Says whether this primary is the one that holds a name, where that can change."""

    def __init__(self, server: Any = None) -> None:
        self.server = server
        """Whom reads are sent to."""
        self.address = server.address if server is not None else ""
        self.counts = Events()
        self.epoch = Epoch()
        self.journal = Journal()
        self.readers: list[Reads] = []
        """The near caches that are told what is announced."""
        self._suit_readers()
        self.state = State.CONNECTING
        self.why = ""
        """Why it is not live."""
        self.told = ""
        """Which reason was logged last; that it is live has none."""
        self.lived = False
        """Whether this connection, or the last, has been live."""
        self.last_met = ""
        """The run id of the server that was talked to last."""
        self.news: deque[tuple[int, State, str]] = deque(maxlen=100)
        self.waiters: list[tuple[float, Callable[[], object]]] = []
        self._names = 0
        self._name_itself()
        self._forget_connection()

    def _forget_connection(self) -> None:
        self.outgoing = bytearray()
        self.reader = new_reader(encoding="utf-8", errors="replace")
        self._expected: deque[tuple[Callable[[Any, float, float], None], float]] = deque()
        self.asked: tuple[str, ...] = ()
        """The prefixes that the server was told to announce, and of these those"""
        self.announced: tuple[str, ...] = ()
        """that it has agreed to."""
        self._asking: tuple[tuple[str, ...], ...] = ()
        self._barred: tuple[str, ...] = ()
        """Prefixes under which the user may not write, or not look."""
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
        self._touching = 0
        """Unanswered commands that tell of copies in use."""
        self.touches = True
        """Whether the server takes them."""
        self.next_touch = NEVER
        for reads in self.readers:
            self._admit(reads)

    # --- the near caches --------------------------------------------------------------------------

    def join(self, reads: Reads, now: float) -> None:
        """From now on tell *reads* what is announced."""
        self.readers = [*self.readers, reads]
        self._suit_readers()
        if self.state is State.OFF:
            self._do_without()
        self._admit(reads)
        if self.asked and not self.outgrown:
            self._ask_for(tuple(each for each in self.prefixes if not each.startswith(self.asked)), now)

    def leave(self, reads: Reads) -> None:
        """Tell *reads* no more."""
        if reads in self.readers:
            self.readers = [each for each in self.readers if each is not reads]
            self._suit_readers()
            reads.leave()

    def _suit_readers(self) -> None:
        """Find out for whom is what, and take the strictest that any of them asks for."""
        self.prefixes = shortest(prefix for reads in self.readers for prefix in reads.prefixes)
        audience: dict[str, list[Reads]] = {}
        for reads in self.readers:
            for prefix in reads.prefixes:
                audience.setdefault(prefix, []).append(reads)
        self._audience = audience
        self._lengths = sorted({len(prefix) for prefix in audience})
        asked = [reads.options for reads in self.readers] or [NearOptions()]
        self.options = NearOptions(
            t_live=min(options.t_live for options in asked),
            t_topo=min(options.t_topo for options in asked),
            canary=min(options.canary for options in asked),
            max_ttl=max(options.max_ttl for options in asked),
            touch=min((options.touch for options in asked if options.touch), default=None),
        )

    def _admit(self, reads: Reads) -> None:
        """See whether reads may leave copies, and how long these live."""
        options = reads.options
        reads.longest = options.untracked_ttl if self.untracked else options.max_ttl
        reads.covered = (
            options.untracked_ttl > 0
            if self.untracked
            else all(prefix.startswith(self.announced) for prefix in reads.prefixes)
        )

    def audience(self, name: str) -> list[Reads]:
        """Return the reads that may have left a copy of *name*."""
        if len(self._lengths) == 1:  # written out: all that is announced comes by here
            return self._audience.get(name[: self._lengths[0]], NOBODY)
        return [reads for length in self._lengths for reads in self._audience.get(name[:length], NOBODY)]

    def tells_of(self, name: str) -> bool:
        """Whether there may be copies of *name*, from here."""
        for length in self._lengths:
            if name[:length] in self._audience:
                return self.holds is None or self.holds(name)
        return False

    @property
    def outgrown(self) -> bool:
        """Whether the connection announces too little, or far too much, which only a new one can change.

        Servers refuse a prefix that another begins with, or that begins with another, and take none back; and they
        compare each name that is written with all of them.
        """
        if any(each.startswith(self.prefixes) and each not in self.prefixes for each in self.asked):
            return True
        unused = sum(not any(prefix.startswith(each) for prefix in self.prefixes) for each in self.asked)
        return unused > max(SPARE, len(self.asked) - unused)

    # --- the connection ---------------------------------------------------------------------------

    def connected(self, now: float, name: str) -> None:
        """A connection to the server is there: ask it to announce changes.  *name* is for questions about nothing."""
        if self.untracked:
            self.end_epoch("connected")
        self._forget_connection()
        self.lived = False
        self._question = ("SET", name, "", "XX")
        self._ask_for(self.prefixes, now)
        self._send((b"INFO", "server"), self._named, now)
        self._send((b"INFO", "replication"), self._ranked, now)
        self._send((b"PTTL", name), self._timed, now)
        self._ask(now)

    def _ask_for(self, prefixes: tuple[str, ...], now: float) -> None:
        """Ask the server to announce what begins with *prefixes* as well."""
        if prefixes:  # with none it would announce everything
            self.asked += prefixes
            self._asking = (*self._asking, prefixes)
            parts = [part for prefix in prefixes for part in ("PREFIX", prefix)]
            self._send(("CLIENT", "TRACKING", "ON", "BCAST", *parts), self._subscribed, now)

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
        self._become(state, why or reason, news=reason == "failure")
        self._release_fences()

    def after_fork(self) -> None:
        """Begin with nothing, in a child; what waits, and what was counted, is the parent's."""
        self.waiters = []
        self.news.clear()
        self.counts = Events()
        readers, self.readers = self.readers, []
        for reads in readers:
            reads.after_fork()
        self._suit_readers()
        self._name_itself()
        self.lost("fork", State.CONNECTING)

    def _name_itself(self) -> None:
        self._me = secrets.token_hex(6)
        self._spread = 0.5 + secrets.randbelow(512) / 1024

    def refuse(self, why: str) -> None:
        """The server does not announce changes: do without copies, or with those that live shortly."""
        self.lost("refused", State.OFF, why)
        self._do_without()

    def _do_without(self) -> None:
        self.untracked = self.armed = any(reads.options.untracked_ttl for reads in self.readers)
        for reads in self.readers:
            self._admit(reads)
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
        if now >= self._asked + self.options.t_live / 3 and len(self._expected) - self._touching < OUTSTANDING:
            self._ask(now)

    def _send(self, command: Command, then: Callable[[Any, float, float], None], now: float) -> None:
        self.outgoing += pack(command)
        self._expected.append((then, now))

    # --- what the server says ---------------------------------------------------------------------

    def _subscribed(self, reply: Any, sent: float, now: float) -> None:
        insist("CLIENT TRACKING", reply)
        (agreed, *rest) = self._asking
        self.announced, self._asking = self.announced + agreed, (*rest,)
        for reads in self.readers:
            self._admit(reads)

    def _named(self, reply: Any, sent: float, now: float) -> None:
        facts = facts_in(insist("INFO", reply))
        run_id, version = facts.get("run_id", ""), facts.get("redis_version", "")
        if not run_id:
            raise Refused("INFO does not tell the server's run id, by which a fail-over is noticed")
        if too_old(version):
            raise Refused(f"Redis {version} mixes invalidations into other replies; 7.0 or later is needed")
        self.run_id = self.last_met = run_id

    def _ranked(self, reply: Any, sent: float, now: float) -> None:
        if facts_in(insist("INFO", reply)).get("role", "") not in PRIMARY:
            raise ConnectionError(
                "this server is a replica"
            )  # it may be promoted, or another take its place, any moment

    def _timed(self, reply: Any, sent: float, now: float) -> None:
        if self.holds is not None and isinstance(reply, (MovedError, AskError)):
            raise reply  # the slot of this name has just moved, and with another name it will do
        if isinstance(reply, NoPermissionError):
            self._bar("PTTL", reply)
            self._send((b"PTTL", self._question[1]), self._timed, now)
            return
        insist("PTTL", reply)
        self.introduced = True

    def _bar(self, command: str, reply: Exception) -> None:
        """Ask about names under another prefix, since the user may not do *command* under this one; or say that no other is left."""
        self._barred += tuple(prefix for prefix in self._free() if self._question[1].startswith(prefix))
        if not self._free():
            insist(command, reply)
        self._question = ("SET", self.own_name(), "", "XX")

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
        for reads in self.audience(name):
            reads.drop(name, "push")

    def wrote(self, name: str) -> None:
        """Note that this process writes *name*, or has done so: no copy of before may be seen after."""
        self.journal.write(name)
        for reads in self.audience(name):
            reads.drop(name, "own write")

    def flushed(self) -> None:
        """Everything was removed."""
        self.end_epoch("flush")

    def _ask(self, now: float) -> None:
        self._asked = now
        self._send(self._question, self._answered, now)

    def _answered(self, reply: Any, sent: float, now: float) -> None:
        if isinstance(reply, NoPermissionError):
            self._bar("SET", reply)
            self._ask(now)
            return
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
        for reads in self.readers:
            reads.forget()
        self.counts.epochs[reason] = self.counts.epochs.get(reason, 0) + 1
        self._extend()

    def void(self) -> None:
        """End the epoch, and leave the rest of that to whoever is in the middle of a change."""
        self.epoch.until = ENDED
        self.epoch = Epoch()

    def _become(self, state: State, why: str, *, news: bool = False) -> None:
        """Change the state; with *news* another reason for the same state is logged, too."""
        known, self.why = self.state, why
        if known is state and not (news and why != self.told):
            return
        quiet = state in {State.CONNECTING, State.ARMED, State.ASLEEP} or (known is State.ASLEEP and why == self.told)
        self.state = state
        level = logging.DEBUG if quiet else logging.INFO if state is State.LIVE else logging.WARNING
        self.told = self.told if quiet else why
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
        prefixes = self._free()
        for _ in range(TRIES if prefixes else 0):
            self._names += 1
            name = f"{prefixes[self._names % len(prefixes)]}{CANARY}{self._me}:{self._names}"
            if self.holds is None or self.holds(name):
                return name
        raise Refused("no name that begins with the prefixes is in a slot of this server")

    def _free(self) -> list[str]:
        """Return the prefixes of names that are announced, and that the user may write."""
        return [prefix for prefix in self.announced or self.prefixes if prefix not in self._barred]

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

    def canary_refused(self, why: Exception) -> None:
        """The server did not take the canary."""
        if self._canary is not None and isinstance(why, NoPermissionError):
            barred = tuple(prefix for prefix in self._free() if self._canary.name.startswith(prefix))
            self._barred += barred if len(barred) < len(self._free()) else ()
        self._canary = None
        if not self.proven:
            self._become(State.SUSPECT, f"no canary can be written: {why}")

    # --- what is in use ---------------------------------------------------------------------------

    @property
    def touching(self) -> bool:
        """Whether the server is told which entries are in use although it is not asked for them."""
        return (
            self.options.touch is not None
            and self.touches
            and self.state is State.LIVE
            and any(reads.store.copies for reads in self.readers)
        )

    def warm(self) -> list[Entry]:
        """Return the copies that it is to be told of.  Needs no lock."""
        return [entry for reads in self.readers for entry in reads.warm()][:TOUCHES]

    def touch(self, entries: Sequence[Entry], now: float) -> None:
        """Tell the server that *entries* are in use, so that others are evicted before them.  TOUCH is announced to nobody."""
        for entry in entries:
            entry.told = entry.hits
        names = [entry.name for entry in entries]
        size = len(names) if self.holds is None else 1  # each is in a slot of its own
        for first in range(0, len(names), size or 1):
            self._touching += 1
            self._send((b"TOUCH", *names[first : first + size]), self._touched, now)
        self.counts.touched += len(names)

    def _touched(self, reply: Any, sent: float, now: float) -> None:
        self._touching -= 1
        if isinstance(reply, ResponseError) and not isinstance(reply, (MovedError, AskError)) and self.touches:
            self.touches = str(reply).startswith(PASSING)
            if not self.touches:
                self.news.append((logging.DEBUG, self.state, f"its server cannot be told what is in use: {reply}"))

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
