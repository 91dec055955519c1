"""Gathering: what all processes of a fleet have published, read in bounded steps, and added up."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from redis.exceptions import RedisError

from fleetcache.errors import FleetcacheError, fault_of
from fleetcache.exchange.contract import Command, Server
from fleetcache.fleet import entries, figures, places
from fleetcache.fleet.checking import checked
from fleetcache.fleet.publishing import PUBLISHING, Publisher, digest, digests, host, installed
from fleetcache.telemetry.metrics import Fleets
from fleetcache.twin import complete

MOST = 1000
"""The most processes that are read; those whose entries expire first are left out."""

PAGE = 50
"""How many entries are read together: 800 kB at most."""

LONGEST = 300
"""Names of entries, and reasons why they cannot be read, are cut to this number of characters."""

SETTINGS = 100
"""The most settings of a process that are read."""

TROUBLE = (RedisError, FleetcacheError)
SPOILT = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError)
"""What reading an entry raises that was not written by fleetcache."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One process, as it described itself."""

    name: str
    """The name of its entry; empty for this process if it publishes none."""
    host: str
    pid: int
    version: str
    """The version of fleetcache that it runs."""
    digest: str
    """Equal for processes with equal settings."""
    started: float
    """When it began to count: seconds since 1970, by its clock."""
    at: float
    """When it wrote the entry, by its clock."""
    interval: float
    """How often it writes, in seconds."""
    published: Mapping[str, Any] = field(repr=False)
    """What it has published of ``cache.snapshot()``, as far as it may be trusted: anything may be missing."""
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    """By name a digest of each setting and option that is not its default; empty if it did not say."""
    alias: str = ""
    """The alias of the cache there; empty if it has none, or if a version before 0.3 has published it."""
    cut: str = ""
    """What of the snapshot was left out because the entry would have been too large, in words."""
    own: bool = False
    """Whether it is this process: then the figures are those of now."""

    @cached_property
    def snapshot(self) -> dict[str, Any]:
        """What ``cache.snapshot()`` returned there."""
        return dict(self.published) if self.own else figures.restored(self.published)

    def part(self, name: str) -> Any:
        """Return one part of `snapshot`, such as ``near``, for less work than all of it; None if it has no such part."""
        known = vars(self)
        if self.own or "snapshot" in known:
            return self.snapshot.get(name)
        parts = known.setdefault("_parts", {})
        if name not in parts:
            parts[name] = figures.PARTS[name](self.published.get(name)) if self.published else None
        return parts[name]


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """All processes that use a cache, and their sums."""

    workers: list[Worker]
    """By host and process id."""
    totals: dict[str, Any]
    """The sum, in the shape of a snapshot; `{}` if there are no workers."""
    missing: list[str]
    """What could not be read, in words; empty if nothing is missing."""
    at: float
    """When it was read: seconds since 1970."""
    error: Exception | None = None
    """The first error of a server that kept something from being read."""


@dataclass
class Lost:
    """What could not be read."""

    texts: list[str] = field(default_factory=list)
    error: Exception | None = None

    def note(self, text: str, reply: Any = None) -> None:
        """Add *text*; *reply* is what a server replied instead."""
        self.texts.append(text)
        if self.error is None and isinstance(reply, Exception):
            self.error = reply


def gather(cache: Any, *, live: bool = True) -> Fleet:
    """Return what all processes that use *cache* have published, and the figures of this process as they are now.

    It never raises in an outage: `Fleet.missing` says what could not be read.  At most 1,000 processes are read.
    Not *live*: this process is shown as it has published itself, too, so that every process sees the same.
    """
    return complete(_gather(cache._still or cache, live))


async def agather(cache: Any, *, live: bool = True) -> Fleet:
    """Return what `gather` returns."""
    return await _gather(cache, live)


async def _gather(cache: Any, live: bool) -> Fleet:
    lost = Lost()
    prefix = cache.settings.key_prefix
    found: list[Worker] = []
    parts = await _parts(cache, prefix, lost)
    listed = sum(len(names) for names, _ in parts.values())
    left = MOST
    for part, (names, server) in parts.items():
        quota = min(left, len(names) if listed <= MOST else MOST * len(names) // listed + 1)
        found += await _workers(cache, part, server, names[:quota], lost)
        left -= quota
    if listed > MOST:
        lost.note(f"{listed - MOST} or more of {listed} processes are left out: at most {MOST} are read")
    workers = _with_own(cache, found) if live else found
    workers.sort(key=lambda worker: (worker.host, worker.pid, worker.name))
    totals = figures.total(worker.published for worker in workers)
    return Fleet(workers=workers, totals=totals, missing=lost.texts, at=time.time(), error=lost.error)


async def _parts(cache: Any, prefix: str, lost: Lost) -> dict[int, tuple[list[bytes], Server]]:
    """Return the names of the entries in each part, those that expire last first, and the server that holds them."""
    homes: dict[Server, list[int]] = {}
    for part in range(places.PARTS):
        homes.setdefault(cache.topology.home(places.list_name(part, prefix)), []).append(part)
    found: dict[int, tuple[list[bytes], Server]] = {}
    for server, parts in homes.items():
        commands: list[Command] = [(places.MEMBERS, places.list_name(part, prefix), 0, MOST - 1) for part in parts]
        failed: dict[str, tuple[list[int], Any]] = {}
        for part, reply in zip(parts, await _replies(cache, server, commands), strict=True):
            if isinstance(reply, list):
                found[part] = [name for name in reply if isinstance(name, bytes)], server
            else:
                failed.setdefault(_why(reply), ([], reply))[0].append(part)
        for why, (numbers, reply) in failed.items():
            whose = _whose([places.list_name(number, prefix) for number in numbers])
            lost.note(f"{whose} cannot be read: {places.named_once(server.address, why)}", reply)
    return found


def _whose(lists: Sequence[str]) -> str:
    """Return in words what is missing if these *lists* of processes cannot be read."""
    if len(lists) == places.PARTS:
        return "what the processes have published"
    where = f", listed in {lists[0]}," if len(lists) == 1 else ""
    return f"what about {len(lists)} in {places.PARTS} of the processes{where} have published"


async def _workers(cache: Any, part: int, server: Server, names: Sequence[bytes], lost: Lost) -> list[Worker]:
    found: list[Worker] = []
    for begin in range(0, len(names), PAGE):
        page = names[begin : begin + PAGE]
        (reply,) = await _replies(cache, server, [(places.READ, *page)])
        if not isinstance(reply, list) or len(reply) != len(page):
            why = places.named_once(server.address, _why(reply))
            lost.note(f"what {len(names) - begin} processes have published cannot be read: {why}", reply)
            break
        for name, data in zip(page, reply, strict=True):
            if data is None:
                continue  # it has expired
            text = name.decode(errors="replace")
            try:
                worker, wrong = _worker(text, entries.unpacked(data))
            except SPOILT as error:
                spoilt = f"it has no {error}" if isinstance(error, KeyError) else str(error)
                lost.note(f"the entry {text[:LONGEST]} cannot be read: {spoilt[:LONGEST]}")
                continue
            found.append(worker)
            if wrong:
                parts = ", ".join(dict.fromkeys(wrong))
                lost.note(f"the entry {text[:LONGEST]} has parts that fleetcache does not write so: {parts[:LONGEST]}")
    return found


async def _replies(cache: Any, server: Server, commands: Sequence[Command]) -> list[Any]:
    """Return the replies of *server*; its error in place of each if it did not answer."""
    try:
        replies: list[Any] = await cache._runtime.exchange(server, commands)
    except TROUBLE as error:
        return [error] * len(commands)
    return replies


def _why(reply: Any) -> str:
    return (
        fault_of(reply) or type(reply).__name__
        if isinstance(reply, Exception)
        else f"a reply of {type(reply).__name__}"
    )


def _worker(name: str, entry: dict[str, Any]) -> tuple[Worker, list[str]]:
    """Return the process that wrote *entry*, and the names of what it cannot have written."""
    published, spoilt = checked(entry["snapshot"])
    if not published:
        raise entries.Unreadable("it has no figures")
    worker = Worker(
        name=name,
        host=_text(entry["host"]),
        pid=int(entry["pid"]),
        version=_text(entry["version"]),
        digest=_text(entry["digest"]),
        started=float(entry["started"]),
        at=float(entry["at"]),
        interval=float(entry["interval"]),
        published=published,
        settings=_settings(entry.get("settings")),
        alias=_text(entry.get("alias", "")),
        cut=_text(entry.get("cut", "")),
    )
    return worker, spoilt


def _text(value: Any) -> str:
    """Return *value* as a text of bounded length that can be written in UTF-8."""
    return str(value)[:LONGEST].encode(errors="replace").decode()


def _settings(given: Any) -> dict[str, str]:
    """Return the digests of settings in an entry; at most `SETTINGS`."""
    listed = list(given.items())[:SETTINGS] if isinstance(given, dict) else ()
    return {_text(name): _text(value) for name, value in listed}


def _with_own(cache: Any, found: list[Worker]) -> list[Worker]:
    """Return *found* with the figures of this process as they are now, whether it has published them or not."""
    source = cache._common
    if source.tally is None:
        return found
    snapshot = source.tally.snapshot()
    publisher: Publisher | None = PUBLISHING.of(source)
    name = publisher.name if publisher is not None and publisher.written else ""
    now = time.time()
    own = Worker(
        name=name,
        host=host(),
        pid=os.getpid(),
        version=installed(),
        digest=digest(source.settings),
        started=snapshot.get("since", now),
        at=now,
        interval=publisher.interval if publisher is not None else 0.0,
        published=snapshot,
        settings=digests(source.settings),
        alias=source.tally.alias,
        own=True,
    )
    return [*(worker for worker in found if not name or worker.name != name), own]


def here() -> str:
    """Return how this process is named in tables and labels."""
    return f"{host()}:{os.getpid()}"


Fleets.gather, Fleets.here = gather, here
