"""The protocol with one primary: its announcements, and until when copies may be served.  It does no I/O.

The server is told to announce every key that changes under some prefixes (``CLIENT TRACKING ON BCAST``), whichever
client changed it.  Bytes, the time, and the reads and writes of the caches come in by methods; bytes to send are put
into ``outgoing``; ``epoch.until`` is the end of the time for which copies may be served.  Nothing here waits, locks
or reads a clock, so threads, event loops, the tests' simulations and a forked child drive the same code.  The caller
holds the near cache's lock.

Why a copy can be trusted:

*Lease.*  A server queues the announcement of a write before the reply to its writer leaves, and TCP
keeps order.  So when a question sent at *s* has been answered, every write acknowledged to any client
before *s* has been applied here, and copies are served until *s* + ``t_live``.  No clocks are compared.
The question is ``SET name "" XX`` for a name that is never stored: it writes nothing, and only a primary accepts it.

*Journal.*  The value of a read is kept only if nothing happened to its name since before the read was sent: no
announcement, no write of this process, no other read with another value.  See `journal`.

*Epoch.*  A copy belongs to the epoch in which it was read.  When the connection is lost, everything is
flushed, or the server turns out to be another one, the epoch ends, and with it every copy, in one step.

*Canary.*  The server's OK to tracking proves nothing.  A key of this process is written over the ordinary
connections; if its announcement has not arrived before a later answer, no announcement can be expected.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis.exceptions import AskError, MovedError, NoPermissionError, ReadOnlyError

from fleetcache.exchange.contract import Command
from fleetcache.exchange.wire import NEED_DATA, Push, facts_in, new_parser, pack
from fleetcache.masking import with_article
from fleetcache.near.audience import Audience
from fleetcache.near.counts import Events
from fleetcache.near.journal import Journal
from fleetcache.near.reads import NEVER, Reads
from fleetcache.near.refusals import IN_ORDER, NO_WRITES, PRIMARY, Refused, insist, too_old
from fleetcache.near.stages import FOLLOWERS, Stage, State
from fleetcache.near.store import ENDED, Epoch
from fleetcache.near.touching import Touching
from fleetcache.settings import NearOptions

log = logging.getLogger("fleetcache.near")

FOREVER = float("inf")

FRESH = 0.001
"""A reader drains the socket before it is served, if no thread has done so for this many seconds."""

LOOKING = 0.05
"""A reader that drains the socket may lose the GIL.  So long, in seconds, others trust the lease; then they drain it too."""

OUTSTANDING = 3
"""The most questions without an answer: a stopped server gets no more."""

PATIENCE = 3.0
"""A connection is given up after this many seconds, or times ``t_live``, without an answer."""

CANARY = "~near:"
"""Stands after the prefix in the name of a canary, where the name of a key has its version."""

TRIES = 100_000
"""How many names are tried to find one in a slot of this primary."""

CANARY_LIFE = 100
"""The time to live of a canary, in milliseconds."""

FEW = 4
"""Near caches that are all looked into for a name: to find the right ones would take longer."""

DOUBT = 1.0
"""The seconds between canaries until one has been announced."""


@dataclass
class Canary:
    """A write of our own that must be announced."""

    name: str
    sent: float
    acknowledged: float | None = None


class Tracking:
    """The state of one primary, for all near caches that read from it."""

    def __init__(self, server: Any = None, holds: Callable[[str], bool] | None = None) -> None:
        self.server = server
        """The server that answers the reads."""
        self.can_move = holds is not None
        """Whether names may move from this primary to another, as in a cluster."""
        self.holds = holds or (lambda _: True)
        """Returns whether this primary holds a name."""
        self.address = server.address if server is not None else ""
        self.counts = Events()
        self.epoch = Epoch()
        self.journal = Journal()
        self.readers: list[Reads] = []
        """The reads of the near caches to which announcements are passed on."""
        self._suit_readers()
        self.ended = State.CONNECTING
        """Why there is no connection, while there is none."""
        self.why = ""
        """The reason why the state is not live."""
        self.said = State.CONNECTING
        """The last state that was logged, or passed over as unimportant."""
        self.told = ""
        """The last reason that was logged; "" if the state was live."""
        self.lived = False
        """Whether this connection or the last one was live."""
        self.last_met = ""
        """The run id of the last server."""
        self.news: deque[tuple[int, State, str]] = deque(maxlen=100)
        self.waiters: list[tuple[float, Callable[[], object]]] = []
        self.stage = Stage.GREETING
        self._names = 0
        self._name_itself()
        self._forget_connection()

    def _forget_connection(self) -> None:
        self.outgoing = bytearray()
        self.reader = new_parser(encoding="utf-8", errors="replace")
        self._expected: deque[tuple[Callable[[Any, float, float], None], float]] = deque()
        self.asked: tuple[str, ...] = ()
        """The prefixes that the server was asked to announce."""
        self.announced: tuple[str, ...] = ()
        """The prefixes that the server has agreed to announce."""
        self._asking: tuple[tuple[str, ...], ...] = ()
        self._barred: tuple[str, ...] = ()
        """Prefixes under which the user may not write, or not read."""
        self.run_id = ""
        self._enter(Stage.GREETING)
        self.answered = NEVER
        """When the newest answered question was sent."""
        self._asked = NEVER
        self._fencing = False
        self.silent = False
        """Whether a fence has waited in vain for an answer, and no answer has come since."""
        self._drained = NEVER
        self._canary: Canary | None = None
        self._next_canary = NEVER
        self.touching = Touching(self)
        for reads in self.readers:
            self._admit(reads)

    # --- the stage --------------------------------------------------------------------------------

    def _enter(self, stage: Stage) -> None:
        """Go on to *stage*, if the stage of now may lead to it."""
        if stage is Stage.GREETING or stage in FOLLOWERS[self.stage]:
            self.stage = stage

    @property
    def state(self) -> State:
        """How far copies can be trusted."""
        return self.stage.state or self.ended

    @property
    def agreed(self) -> bool:
        """Whether only `arm` is missing."""
        return self.stage is Stage.AGREED

    # --- the near caches --------------------------------------------------------------------------

    def join(self, reads: Reads, now: float) -> None:
        """Pass announcements on to *reads* from now on."""
        self.readers = [*self.readers, reads]
        self._suit_readers()
        if self.state is State.OFF:
            self._do_without()
        self._admit(reads)
        if self.asked and not self.outgrown:
            self._ask_for(tuple(each for each in self.audience.prefixes if not each.startswith(self.asked)), now)

    def leave(self, reads: Reads) -> None:
        """Pass no more announcements on to *reads*."""
        if reads in self.readers:
            self.readers = [each for each in self.readers if each is not reads]
            self._suit_readers()
            reads.leave()

    def _suit_readers(self) -> None:
        """Index the reads by their prefixes, and use the strictest of their options."""
        self.audience = Audience(self.readers)
        asked = [reads.options for reads in self.readers] or [NearOptions()]
        self.options = NearOptions(
            t_live=min(options.t_live for options in asked),
            t_topo=min(options.t_topo for options in asked),
            canary=min(options.canary for options in asked),
            max_ttl=max(options.max_ttl for options in asked),
            touch=min((options.touch for options in asked if options.touch), default=None),
        )

    def _admit(self, reads: Reads) -> None:
        """Decide whether *reads* may leave copies, and how long these live."""
        if self.stage is Stage.UNTRACKED:
            reads.longest = reads.options.untracked_ttl
            reads.covered = reads.longest > 0
        else:
            reads.longest = reads.options.max_ttl
            reads.covered = all(prefix.startswith(self.announced) for prefix in reads.prefixes)

    def knows(self, name: str) -> bool:
        """Whether there is a copy of *name* from here, or may be one soon.  Needs no lock."""
        if name in self.journal.recent or name in self.journal.older:
            return True
        readers = self.readers if len(self.readers) < FEW else self.audience.of(name)
        for reads in readers:  # noqa: SIM110 - any() would take twice as long
            if name in reads.copies or name in reads.sampled:
                return True
        return False

    @property
    def outgrown(self) -> bool:
        """Whether the near caches need prefixes that only a new connection can announce."""
        return self.audience.outgrows(self.asked)

    # --- the connection ---------------------------------------------------------------------------

    def connected(self, now: float, name: str) -> None:
        """Begin on a new connection: ask the server to announce changes.  *name* is one that no cache uses, for questions."""
        if self.stage is Stage.UNTRACKED:
            self.end_epoch("connected")
        self._forget_connection()
        self.lived = False
        self._question = ("SET", name, "", "XX")
        self._ask_for(self.audience.prefixes, now)
        self.send((b"INFO", "server"), self._named, now)
        self.send((b"INFO", "replication"), self._ranked, now)
        self.send((b"PTTL", name), self._timed, now)
        self._ask(now)

    def _ask_for(self, prefixes: tuple[str, ...], now: float) -> None:
        """Ask the server to announce names that begin with *prefixes* as well."""
        if prefixes:  # with none it would announce everything
            self.asked += prefixes
            self._asking = (*self._asking, prefixes)
            parts = [part for prefix in prefixes for part in ("PREFIX", prefix)]
            self.send(("CLIENT", "TRACKING", "ON", "BCAST", *parts), self._subscribed, now)

    def received(self, data: Any, now: float) -> None:
        """Apply bytes from the server, in any pieces."""
        self.reader.feed(data)
        while (reply := self.reader.gets()) is not NEED_DATA:
            if type(reply) is Push:
                self._announced(reply, now)
            elif self._expected:
                then, sent = self._expected.popleft()
                then(reply, sent, now)
            else:
                raise ConnectionError("the server sent a reply to no command")

    def drain_begins(self, now: float) -> None:
        """Note that a reader begins to drain the socket; until it ends, the lease alone decides for other readers."""
        if self.leased(now):
            self.epoch.until = min(self.answered + self.options.t_live, now + LOOKING)

    def drained(self, now: float) -> None:
        """Note that the socket held no more bytes at *now*."""
        self._drained = now
        self._extend()
        if self.stage is not Stage.LIVE and self.leased(now):
            self.lived = True
            self._step(Stage.LIVE, "")

    def lost(self, reason: str, state: State = State.DEAD, why: str = "") -> None:
        """Note that the connection is lost or useless, and give up all copies."""
        was_of_use = self.stage not in {Stage.GREETING, Stage.AGREED}
        self._forget_connection()
        if was_of_use:
            self.end_epoch(reason)
        self.ended = state
        self._step(Stage.GREETING, why or reason, news=reason == "failure")
        self._release_fences()

    def after_fork(self) -> None:
        """In a child, start empty: waiting fences and counters belong to the parent."""
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
        """Note that the server does not announce changes: keep no copies, or copies that live for a short time."""
        self.lost("refused", State.OFF, why)
        self._do_without()

    def _do_without(self) -> None:
        if any(reads.options.untracked_ttl for reads in self.readers):
            self._enter(Stage.UNTRACKED)
        for reads in self.readers:
            self._admit(reads)
        self._extend()

    def tick(self, now: float) -> float:
        """Do what is due, and return when to call again."""
        if self._expected and now - self._expected[0][1] > max(PATIENCE, PATIENCE * self.options.t_live):
            raise TimeoutError("no answer on the tracking connection")
        self.pulse(now)
        if self.stage is Stage.LIVE and not self.leased(now):
            self._step(Stage.LATE, "the server does not answer in time")
        return max(self._asked + self.options.t_live / 3, now + self.options.t_live / 12)

    def pulse(self, now: float) -> None:
        """Ask for a new lease if it is due."""
        unanswered = len(self._expected) - self.touching.unanswered
        if now >= self._asked + self.options.t_live / 3 and unanswered < OUTSTANDING:
            self._ask(now)

    def send(self, command: Command, then: Callable[[Any, float, float], None], now: float) -> None:
        """Send *command*; call *then* with its reply, the time of sending, and the time of the reply."""
        self.outgoing += pack(command)
        self._expected.append((then, now))

    # --- replies and pushes -----------------------------------------------------------------------

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
            raise ConnectionError("this server is a replica")  # it, or another server, may be promoted at any moment

    def _timed(self, reply: Any, sent: float, now: float) -> None:
        if self.can_move and isinstance(reply, (MovedError, AskError)):
            raise reply  # the slot of this name has just moved: the next attempt takes another name
        if isinstance(reply, NoPermissionError):
            self._bar("PTTL", reply)
            self.send((b"PTTL", self._question[1]), self._timed, now)
            return
        insist("PTTL", reply)
        self._enter(Stage.AGREED)

    def _bar(self, command: str, reply: Exception) -> None:
        """Use another prefix, since the user may not send *command* under this one; raise `Refused` if none is left."""
        self._barred += tuple(prefix for prefix in self._free() if self._question[1].startswith(prefix))
        if not self._free():
            insist(command, reply)
        self._question = ("SET", self.own_name(), "", "XX")

    def arm(self, now: float) -> None:
        """Let reads leave copies: the server announces changes, and ordinary connections lead to it."""
        self._next_canary = now
        self._step(Stage.ARMED, "no canary has been seen yet")

    def _announced(self, push: Any, now: float) -> None:
        """Apply *push*: ``invalidate`` and a list of changed names, or None for all names."""
        if push[:1] != ["invalidate"]:
            return
        names = push[1] if len(push) > 1 else None
        if names is None:
            self.flushed()
            return
        if not isinstance(names, list):
            raise ConnectionError(f"the server announced {with_article(type(names).__name__)} in place of names")
        self.counts.pushes += len(names)
        for name in names:
            if type(name) is not str:
                raise ConnectionError(f"the server announced {with_article(type(name).__name__)} in place of a name")
            if self.knows(name):
                self.invalidated(name)
            if CANARY in name:
                self._heard(name, now)

    def invalidated(self, name: str) -> None:
        """Note that the entry called *name* was changed, by any client."""
        self.journal.write(name)
        for reads in self.audience.of(name):
            reads.drop(name, "push")

    def wrote(self, name: str) -> None:
        """Note that this process writes *name*, or has written it: older copies may not be served any more."""
        self.journal.write(name)
        for reads in self.audience.of(name):
            reads.drop(name, "own write")

    def flushed(self) -> None:
        """Note that every entry was removed.  A method of its own, so that a test can replace it."""
        self.end_epoch("flush")

    def _ask(self, now: float) -> None:
        self._asked = now
        self.send(self._question, self._answered, now)

    def _answered(self, reply: Any, sent: float, now: float) -> None:
        if isinstance(reply, NoPermissionError):
            self._bar("SET", reply)
            self._ask(now)
            return
        if isinstance(reply, (MovedError, ReadOnlyError)):
            raise ConnectionError("another server is the primary now")
        if isinstance(reply, Exception) and not (isinstance(reply, IN_ORDER) or str(reply).startswith(NO_WRITES)):
            # The server is loading, or busy with a script; announcements of acknowledged writes may still be to come.
            if self.waiters:
                self.distrust()
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
        """Return the time before which every acknowledged write is known here, after the answer to a question of *sent*.

        A method of its own, so that a test can replace it.
        """
        return sent

    # --- trust ------------------------------------------------------------------------------------

    def leased(self, now: float) -> bool:
        """Whether the lease lasts, and no fence has failed since."""
        return self.stage.proven and not self.silent and now < self.answered + self.options.t_live

    def vouches(self, epoch: Epoch, now: float) -> bool:
        """Whether a copy of *epoch* may be served although ``until`` is over, because another thread is draining the socket."""
        return epoch is self.epoch and self.leased(now)

    def _extend(self) -> None:
        if self.stage is Stage.UNTRACKED:
            self.epoch.until = FOREVER
        elif self.stage.proven and not self.silent:
            self.epoch.until = min(self.answered + self.options.t_live, self._drained + FRESH)

    def end_epoch(self, reason: str) -> None:
        """Give up every copy, and every read that is under way."""
        self.void()
        self.journal.end()
        for reads in self.readers:
            reads.forget()
        self.counts.epochs[reason] += 1
        self._extend()

    def void(self) -> None:
        """End the epoch; the change that is being made does the rest."""
        self.epoch.until = ENDED
        self.epoch = Epoch()

    def _step(self, stage: Stage, why: str, *, news: bool = False) -> None:
        """Change the stage, and log a new state; with *news* also a new reason for the same state."""
        self._enter(stage)
        state, known, self.why = self.state, self.said, why
        if known is state and not (news and why != self.told):
            return
        quiet = state in {State.CONNECTING, State.ARMED, State.ASLEEP} or (known is State.ASLEEP and why == self.told)
        self.said = state
        level = logging.DEBUG if quiet else logging.INFO if state is State.LIVE else logging.WARNING
        self.told = self.told if quiet else why
        self.news.append((level, state, why))

    def speak(self) -> None:
        """Log the changes of state.  Not within a change: a log handler may use the cache."""
        with suppress(IndexError):  # that was all
            while True:
                level, state, why = self.news.popleft()
                log.log(level, "%s: near cache %s%s%s", self.address, state, why and ": ", why, extra={"event": "near"})

    # --- canary -----------------------------------------------------------------------------------

    def canary_due(self, now: float) -> bool:
        """Whether a canary is due."""
        return (self.stage.keeps or self.stage is Stage.DEAF) and now >= self._next_canary

    def own_name(self) -> str:
        """Return a new name that no cache uses, under one of the prefixes, and in a slot of this primary."""
        prefixes = self._free()
        for _ in range(TRIES if prefixes else 0):
            self._names += 1
            name = f"{prefixes[self._names % len(prefixes)]}{CANARY}{self._me}:{self._names}"
            if self.holds(name):
                return name
        raise Refused("no name that begins with the prefixes is in a slot of this server")

    def _free(self) -> list[str]:
        """Return the announced prefixes under which the user may write."""
        return [prefix for prefix in self.announced or self.audience.prefixes if prefix not in self._barred]

    def new_canary(self, name: str, now: float) -> None:
        """Note that *name* is about to be written over the ordinary connections."""
        self._canary = Canary(name, now)
        self._next_canary = now + (self.options.canary if self.stage.proven else min(DOUBT, self.options.canary))

    def canary_written(self, name: str, now: float) -> None:
        """Note that the server has acknowledged the write of *name*."""
        if self._canary is not None and self._canary.name == name:
            self._canary.acknowledged = now
            if self.stage is not Stage.LIVE:
                self._ask(now)

    def canary_refused(self, why: Exception) -> None:
        """Note that the server refused the canary."""
        if self._canary is not None and isinstance(why, NoPermissionError):
            barred = tuple(prefix for prefix in self._free() if self._canary.name.startswith(prefix))
            self._barred += barred if len(barred) < len(self._free()) else ()
        self._canary = None
        if not self.stage.proven:
            self._step(Stage.MUTE, f"no canary can be written: {why}")

    def _heard(self, name: str, now: float) -> None:
        """Note that a canary was announced, of this process or another: so not each process of a fleet writes one."""
        if self._canary is not None and name == self._canary.name:
            self._seen(self._canary, now)
        elif self.stage.proven and self._canary is None and self._me not in name:
            self._next_canary = now + self._spread * self.options.canary

    def _seen(self, canary: Canary, now: float) -> None:
        self.counts.canaries += 1
        self.counts.canary_took(now - canary.sent)
        self._canary = None
        self._enter(Stage.PROVEN)
        self._extend()

    def _unheard(self) -> None:
        """Note that an answer has come before the canary's announcement, which should have come first."""
        self._canary = None
        self._enter(Stage.DEAF)  # first: reads from now on must leave no copies either
        self.end_epoch("canary")
        self._step(Stage.DEAF, "the server's announcements do not arrive (a proxy that drops them?)")

    def is_same_server(self, run_id: str, role: str = "") -> bool:
        """Whether the server *run_id*, to which ordinary connections lead, is this one."""
        return not run_id or not self.run_id or (run_id == self.run_id and role in PRIMARY)

    # --- fences -----------------------------------------------------------------------------------

    def fence(self, now: float, then: Callable[[], object]) -> bool:
        """Call *then* as soon as every write acknowledged before *now* is known; return whether to wait for it."""
        if not self.leased(now):
            self._end_for_fence()
            return False
        self.waiters.append((now, then))
        if not self._fencing:
            self._fencing = True
            self._ask(now)
        return True

    def distrust(self) -> None:
        """Note that the server has not answered a fence in time; until it answers, no copy is served, and no fence waits."""
        self.silent = True
        self._end_for_fence()

    def _end_for_fence(self) -> None:
        """Give up all copies instead of waiting: later reads ask the server, and so reflect every acknowledged write."""
        if self.stage.keeps:
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
            self._ask(now)  # one question for all fences that began while the last was under way

    def _release_fences(self) -> None:
        waiters, self.waiters, self._fencing = self.waiters, [], False
        for _, then in waiters:
            then()
