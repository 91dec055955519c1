"""Publishing: every few seconds one thread of the process writes what each of its caches has counted.

`enlist` notes the shared parts of a cache; the thread begins when the process first connects to a server, in a forked child
anew.  It holds no cache, no call waits for it, and it never raises: while the server is away, or does not let this user
write keys that begin with ``fleetcache:``, it says so once in the log and tries again at longer and longer intervals.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import socket
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from functools import cache, partial
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from time import monotonic
from typing import Any, Protocol

from redis.exceptions import ResponseError

from fleetcache import commands as c
from fleetcache.errors import CircuitOpen, NeverSent, is_outage
from fleetcache.exchange.contract import Command
from fleetcache.fleet import figures, places
from fleetcache.fleet.entries import packed
from fleetcache.fleet.history import increments
from fleetcache.fleet.means import Means
from fleetcache.forks import Guard, chance, in_children, keep, own
from fleetcache.interrupts import let_pass
from fleetcache.settings import Settings
from fleetcache.sharing import tidy
from fleetcache.stats.beginnings import BEGINNINGS, PROCESS
from fleetcache.stats.exchanges import unheard
from fleetcache.threads import Bell, begun, living
from fleetcache.topology.contract import Topology
from fleetcache.urls import Location

log = logging.getLogger("fleetcache.fleet")

LIVES = 3
"""After how many intervals an entry expires that is not written again."""

EVERY = 6
"""With one of this many entries, what was counted since the last such one is added to the history."""

PATIENCE = 300.0
"""The longest pause, in seconds, after failures; each is twice as long as the one before."""

KEPT = 60.0
"""How many seconds after its expiry a process is removed from the list: its clock may count, if the server's may not be read."""

LONGEST_REST = 60.0

THREADLESS = "the figures of this process are not published: uWSGI runs no threads between requests without its option enable-threads"

UNTOLD = (
    "the history of the fleet does not get the figures of this process, whose own entry is published. It is tried again, "
    "and nothing more is logged until it succeeds. %s: %s"
)


class Source(Protocol):
    """The parts that all caches of one configuration share."""

    settings: Settings
    topology: Topology
    tally: Any
    """A `Tally`; None if nothing is counted."""


class Usual:
    """How often, in seconds, is published where PUBLISH is left out; 0: never."""

    seconds = 0.0


USUAL = Usual()


class Publisher:
    """Writes what the caches of one configuration have counted, every `interval` seconds."""

    def __init__(self, source: Source) -> None:
        self.source = weakref.ref(source)
        stats = source.settings.options.stats
        self.given = None if stats is None else stats.publish
        self.counts = source.tally is not None
        self.prefix = source.settings.key_prefix
        self.digest = digest(source.settings)
        self.digests = digests(source.settings)
        self._start_afresh()
        in_children(self._start_afresh)

    def _start_afresh(self) -> None:
        self.part = chance.randrange(places.PARTS)
        self.mark = secrets.token_hex(4)
        self.started = time.time()
        self.due = monotonic() + self.interval * chance.uniform(0.1, 1)  # processes start together
        self.turns = 0
        self.told: dict[str, Any] = {}
        """The figures that the history has."""
        self.means = Means()
        self.failures = 0
        self.trouble = ""
        self.is_refused = False
        """Whether the server has refused to write the history, and nothing else."""
        self.written = 0

    @property
    def interval(self) -> float:
        """Seconds between two entries; 0: none is written."""
        if not self.counts:
            return 0.0
        return USUAL.seconds if self.given is None else self.given

    @property
    def name(self) -> str:
        """The name of the entry."""
        return places.worker_name(self.part, self.prefix, host(), os.getpid(), self.mark)

    def facts(self, now: float, alias: str) -> dict[str, Any]:
        """Return what the entry says of the process, and of its cache *alias*, at the time *now*."""
        return {
            "alias": alias,
            "host": host(),
            "pid": os.getpid(),
            "version": installed(),
            "digest": self.digest,
            "settings": self.digests,
            "started": self.started,
            "at": now,
            "interval": self.interval,
        }

    def publish(self) -> None:
        """Write the entry, and sometimes the history; set when to do so next."""
        source = self.source()
        if source is None:
            return
        try:
            if self.turns % EVERY == 0 or not self.means.asked.issuperset(source.tally.groups):
                self._learn(source.topology, source.tally)
            self._write(source.topology, source.tally.alias, source.tally.snapshot())
            self._went_well()
        except Exception as error:  # noqa: BLE001 - what is counted must never end the thread that tells it
            let_pass(error)
            self._failed(error)
        pause = min(self.interval * 2**self.failures, max(PATIENCE, self.interval))
        self.due = monotonic() + pause * chance.uniform(0.9, 1.1)

    def _learn(self, topology: Topology, tally: Any) -> None:
        """Let *tally* know what a load takes in the fleet, and the fleet what it took here."""
        name = places.loads_name(self.prefix)
        with suppress(ResponseError):  # the entry may be written, with other rights
            tally.means = self.means.exchanged(tally.groups.copy(), name, partial(self._send, topology, name))

    def _write(self, topology: Topology, alias: str, snapshot: dict[str, Any]) -> None:
        now, life = time.time(), self.interval * LIVES
        lists = places.list_name(self.part, self.prefix)
        there = self._time_there(topology, lists)
        expires, gone = int((there + life) * 1000), int((there - KEPT) * 1000)
        entry = packed(self.facts(now, alias), snapshot)
        self.written = len(entry)
        self._send(
            topology,
            lists,
            [
                (places.ENTER, self.name, entry, "PX", max(int(life * 1000), 1)),
                (places.LIST, lists, expires, self.name),
                (places.UNLIST, lists, "-inf", gone),
                (places.LIVE_ON, lists, int(max(life, 3600) * 1000)),
            ],
        )
        self.turns += 1
        if self.turns % EVERY == 1:
            try:
                self._tell_history(topology, snapshot, now)
                self.is_refused = False
            except ResponseError as error:  # the entry was written, with other rights
                if not self.is_refused:
                    log.warning(UNTOLD, type(error).__name__, error, extra={"event": "unpublished"})
                self.is_refused = True

    def _time_there(self, topology: Topology, lists: str) -> float:
        """Return the time by the clock of the server with *lists*, so that the clocks of workers need not agree; ours if it keeps silent."""
        with unheard():
            (reply,) = topology.home(lists).exchange([(c.TIME,)])
        return time.time() if isinstance(reply, Exception) else int(reply[0]) + int(reply[1]) / 1e6

    def farewell(self) -> None:
        """Tell the history what it does not have yet: the process ends.  Nothing is tried while the server is away."""
        source = self.source()
        if source is None or self.failures or self.is_refused:
            return
        try:
            self._learn(source.topology, source.tally)
            self._tell_history(source.topology, source.tally.snapshot(), time.time())
        except Exception as error:  # noqa: BLE001 - nobody is there any more who would read it
            let_pass(error)

    def _tell_history(self, topology: Topology, snapshot: dict[str, Any], now: float) -> None:
        name = places.history_name(int(now) // places.PERIOD, self.prefix)
        more = figures.gained(snapshot, self.told)
        for group, gained in more.get("groups", {}).items():
            before = self.told.get("groups", {}).get(group, {})
            gained["saved"] = figures.saved(snapshot["groups"][group], before)
        if not increments(more):
            return
        known: int = places.fits(self._send(topology, name, [(places.SIZE, name)])[0], int)
        fields = increments(more, known)
        adding: list[Command] = [(places.ADD, name, field, count) for field, count in fields.items()]
        try:
            self._send(topology, name, [*adding, (places.LIVE_ON, name, (places.DAY + places.PERIOD) * 1000)])
        except (CircuitOpen, NeverSent):
            raise  # all is told the next time
        except Exception:
            self.told = snapshot  # perhaps it was added: it is not told twice
            raise
        self.told = snapshot

    def _send(self, topology: Topology, name: str, commands: Sequence[Command]) -> list[Any]:
        """Return the replies to *commands*, which are about names in the slot of *name*."""
        with unheard():
            replies = topology.home(name).exchange(commands)
        places.all_fit(replies)
        return replies

    def _went_well(self) -> None:
        if self.trouble:
            log.info("the figures of this process are published again", extra={"event": "published"})
        self.failures, self.trouble = 0, ""

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        if not self.trouble:
            outage = is_outage(error)  # the server's breaker has logged it already
            log.log(
                logging.INFO if outage else logging.WARNING,
                "the figures of this process are not published, so pages of the fleet do not show it. It is tried again, and "
                "nothing more is logged until it succeeds. %s: %s",
                type(error).__name__,
                error,
                extra={"event": "unpublished"},
            )
        self.trouble = str(error) or type(error).__name__


class Publishing:
    """All publishers of this process, and the thread that lets each publish when it is due."""

    def __init__(self) -> None:
        self.guard = Guard()
        self.publishers: weakref.WeakKeyDictionary[Any, Publisher] = weakref.WeakKeyDictionary()
        self.thread: Any = None
        self.ending = self.told = self.withheld = False
        self._start_afresh()
        in_children(self._start_afresh)

    def _start_afresh(self) -> None:
        keep(self.thread)
        self.thread = None
        self.wake = Bell()

    def enlist(self, source: Source) -> None:
        """Publish the figures of *source*, as its settings say, once this process has connected to a server."""
        stats = source.settings.options.stats
        if source.tally is None or stats is None or stats.publish == 0:
            return
        with self.guard.lock:
            if source in self.publishers:
                return
            self.publishers[source] = Publisher(source)
        # A server in this process is never connected to.
        inside = stats.publish and all(location.kind == "memory" for location in source.settings.location)
        if inside or PROCESS.connects or self.thread is not None:
            self.begin()

    def usually(self, seconds: float) -> None:
        """Publish every so many *seconds* where PUBLISH is left out."""
        USUAL.seconds = seconds
        if PROCESS.connects or self.thread is not None:
            self.begin()

    def withhold(self) -> None:
        """Publish nothing from now on, whatever settings say: this process is a command, and no worker of the site."""
        self.withheld = True
        self.wake.ring()

    def of(self, source: Any) -> Publisher | None:
        """Return the publisher of *source*; None if it never publishes."""
        return self.publishers.get(source)

    def begin(self) -> None:
        """Start the thread if there is anything to publish, or wake it, because something may be due; it never raises."""
        if self.thread is not None:
            self.wake.ring()
            return
        if self.ending or self.withheld or not self.publishers:
            return
        own()
        with self.guard.lock:
            if self.thread is not None or self.next_due() is None:
                return
            if threads_run():
                self.thread = begun("publishes", self._run)
            elif not self.told:
                self.told = True
                log.warning(THREADLESS, extra={"event": "unpublished"})

    def next_due(self) -> float | None:
        """Return when the next publisher is due, by the monotonic clock; None if there is none."""
        return min((each.due for each in self._active()), default=None)

    def _active(self) -> list[Publisher]:
        if self.withheld:
            return []
        found = [self.publishers.get(source) for source in living(self.publishers)]
        return [each for each in found if each is not None and each.interval and each.source() is not None]

    def _run(self) -> None:
        while True:
            for publisher in self._active():
                if publisher.due <= monotonic():
                    publisher.publish()
            tidy()
            with self.guard.lock:
                due = self.next_due()
                if due is None or self.ending:
                    self.thread = None
                    break
            self.wake.wait(min(due - monotonic(), LONGEST_REST))
        for publisher in self._active() if self.ending else ():
            publisher.farewell()

    def end(self) -> None:
        """Let the thread tell the history the last figures, and end: the process ends, and waits for it a moment only."""
        own()
        self.ending = True
        self.wake.ring()


def digest(settings: Settings) -> str:
    """Return a short text that is the same in processes with equal settings; it tells nothing about passwords."""
    return blake2b(repr(_plain(settings)).encode(errors="replace"), digest_size=6).hexdigest()


def digests(settings: Settings) -> dict[str, str]:
    """Return a short text for each setting and option that is not its default, so that others can tell which ones differ."""
    found = {}
    for part in (settings, settings.options):
        for each in fields(part):
            value = getattr(part, each.name)
            usual = each.default_factory() if each.default_factory is not MISSING else each.default
            if each.repr and each.name != "options" and value != usual:
                text = repr(_plain(value)).encode(errors="replace")
                found[each.name.upper()] = blake2b(text, digest_size=3).hexdigest()
    return found


def _plain(value: Any) -> Any:
    """Return *value* as text and numbers that do not depend on the process; parts that may be secret are left out."""
    if isinstance(value, Location):
        return value.masked
    if is_dataclass(value):
        return [(each.name, _plain(getattr(value, each.name))) for each in fields(value) if each.repr]
    if isinstance(value, Mapping):
        return sorted((str(name), _plain(item)) for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return list(map(_plain, value))
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return getattr(value, "__qualname__", type(value).__qualname__)


def host() -> str:
    """Return the name of this machine, without characters that separate the parts of a name."""
    return "".join("-" if each in ":{}" else each for each in socket.gethostname())[:64]


@cache
def installed() -> str:
    """Return the version of fleetcache."""
    try:
        return version("fleetcache")
    except PackageNotFoundError:  # it runs from its sources
        return ""


def threads_run() -> bool:
    """Whether threads run between requests: under uWSGI only with ``enable-threads`` or ``threads``."""
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None or not hasattr(uwsgi, "worker_id"):
        return True
    options = {name.decode() if isinstance(name, bytes) else name for name in getattr(uwsgi, "opt", ())}
    return not options.isdisjoint({"enable-threads", "threads", "single-interpreter-threads"})


PUBLISHING = Publishing()
BEGINNINGS.append(PUBLISHING.begin)
atexit.register(PUBLISHING.end)
