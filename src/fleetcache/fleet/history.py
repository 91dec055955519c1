"""The history: what the whole fleet did in each five minutes of the last day.

Each process adds what it counted since it last did so to a hash of the current five minutes, which lives for a day.
Its fields are ``figure:group``, its values whole numbers: of times in microseconds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError

from fleetcache.errors import FleetcacheError, fault_of
from fleetcache.exchange.contract import Command, Server
from fleetcache.fleet import places
from fleetcache.fleet.entries import DIGITS
from fleetcache.stats.groups import OTHER
from fleetcache.twin import complete

COUNTED = ("near", "server", "stale", "missed", "loads", "joined", "load_errors", "writes", "deletes")
TIMED = ("load_seconds", "saved")
"""Figures in seconds."""

GROUPS = 30
"""How many groups a process adds to a hash, those with the most reads; the others are added to ``other``."""

FIELDS = 2000
"""With this many fields in a hash, what comes is added to the group ``other``."""

PAGE = 48
"""How many hashes are read together."""


@dataclass(frozen=True, kw_only=True)
class Period:
    """What the fleet did in one five minutes."""

    at: int
    """When it began: seconds since 1970."""
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    """By group: ``near``, ``server``, ``stale``, ``missed``, ``loads``, ``joined``, ``load_errors``, ``writes``, ``deletes``,
    and in seconds ``load_seconds`` and ``saved``; without those that are 0."""
    errors: int = 0
    """Exchanges with servers that failed."""
    missing: str = ""
    """Why it could not be read; then it has no figures."""
    error: Exception | None = None
    """The server's error, if that is why."""

    def sum(self, figure: str) -> float:
        """Return *figure* of all groups."""
        return sum(group.get(figure, 0) for group in self.groups.values())

    @property
    def hit_ratio(self) -> float | None:
        """The share of reads that found a value, near or on a server, stale ones included; None without reads."""
        found = sum(map(self.sum, ("near", "server", "stale")))
        reads = found + self.sum("missed")
        return found / reads if reads else None


def increments(more: Mapping[str, Any], known: int = 0) -> dict[str, int]:
    """Return what to add to which field, for *more*, the difference of two snapshots; the hash has *known* fields."""
    groups = dict(more.get("groups") or {})
    use = sorted(groups, key=lambda name: -sum(groups[name].get(level, 0) for level in COUNTED))
    kept = {OTHER} if known >= FIELDS else {OTHER, *use[:GROUPS]}
    fields: dict[str, int] = {}
    for name, figures in groups.items():
        group = name if name in kept else OTHER
        for figure in (*COUNTED, *TIMED):
            count = round(figures.get(figure, 0) * (1e6 if figure in TIMED else 1))
            if count:
                text = f"{figure}:{group}"
                fields[text] = fields.get(text, 0) + count
    if errors := sum((more.get("errors") or {}).values()):
        fields["errors"] = int(errors)
    return fields


def history(cache: Any, hours: float = 24) -> list[Period]:
    """Return what the fleet of *cache* did in each five minutes of the last *hours*, at most 24, the oldest first.

    Periods in which nothing was published are there, and empty.  The last one is not over yet.  It never raises in an
    outage: a period that could not be read says so in ``missing``.
    """
    return complete(_history(cache._still or cache, hours))


async def ahistory(cache: Any, hours: float = 24) -> list[Period]:
    """Return what `history` returns."""
    return await _history(cache, hours)


async def _history(cache: Any, hours: float) -> list[Period]:
    now = int(time.time()) // places.PERIOD
    count = min(max(int(hours * 3600 // places.PERIOD), 1), places.DAY // places.PERIOD)
    numbers = range(now - count + 1, now + 1)
    homes: dict[Server, list[int]] = {}
    for number in numbers:
        home = cache.topology.home(places.history_name(number, cache.settings.key_prefix))
        homes.setdefault(home, []).append(number)
    found: dict[int, Period] = {}
    for server, listed in homes.items():
        for begin in range(0, len(listed), PAGE):
            page = listed[begin : begin + PAGE]
            found |= await _page(cache, server, page)
    return [found[number] for number in numbers]


async def _page(cache: Any, server: Server, numbers: list[int]) -> dict[int, Period]:
    commands: list[Command] = [
        (places.SUMS, places.history_name(number, cache.settings.key_prefix)) for number in numbers
    ]
    replies: list[Any]
    try:
        replies = await cache._runtime.exchange(server, commands)
    except (RedisError, FleetcacheError) as error:
        replies = [error] * len(numbers)
    return {number: _period(server, number, reply) for number, reply in zip(numbers, replies, strict=True)}


def _period(server: Server, number: int, reply: Any) -> Period:
    at = number * places.PERIOD
    if isinstance(reply, Exception):
        return Period(at=at, missing=places.named_once(server.address, fault_of(reply)), error=reply)
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=False)
    groups: dict[str, dict[str, float]] = {}
    errors = 0
    for name, count in pairs:
        figure, _, group = name.decode(errors="replace").partition(":")
        if len(count) > DIGITS or not count.removeprefix(b"-").isdigit():
            continue  # written by something else
        if figure == "errors" and not group:
            errors = int(count)
        elif figure in COUNTED or figure in TIMED:
            groups.setdefault(group, {})[figure] = int(count) / 1e6 if figure in TIMED else int(count)
    return Period(at=at, groups=groups, errors=errors)
