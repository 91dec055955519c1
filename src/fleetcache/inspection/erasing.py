"""Acts on entries that somebody looks at: their lifetimes, and their deletion, one by one or by pattern in steps.

All go through the cache's own operations, so that near caches, leases and tags are kept right.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from redis.exceptions import ConnectionError, TimeoutError

from fleetcache import commands as c
from fleetcache.cache import Cache
from fleetcache.errors import FleetcacheError
from fleetcache.exchange.contract import Server
from fleetcache.inspection.describing import adescribe, server_of
from fleetcache.inspection.names import as_text, masked_key, name_of, shown, wanted
from fleetcache.inspection.scanning import BUDGET, MOST, Walk

SAMPLES = 20
"""How many of the names that match are shown."""

TOGETHER = 200
"""How many names one command deletes: other clients wait for it."""


class EntryChanged(FleetcacheError):
    """An entry is not the one any more that its editor looked at; nothing was done to it."""


async def _same(cache: Cache, name: bytes, digest: str | None) -> None:
    """Raise EntryChanged unless the entry called *name* has *digest*, if that is given."""
    if digest is not None and (found := await adescribe(cache, name)).digest != digest:
        what = "has changed" if found.exists else "is gone"
        raise EntryChanged(f"{masked_key(name)} {what} since it was shown: look at it again")


async def aset_ttl(
    cache: Cache, key: Any, seconds: float | None, *, version: Any = None, digest: str | None = None
) -> bool:
    """Let *key* live for *seconds*, None for ever, and return whether it is there; *key* as with `adescribe`.

    An entry with a stale life is fresh for that time, and stale for as long after it as before; one whose fresh life has
    ended stays as it is, and counts as missing.  With the *digest* of a `Description`, raise EntryChanged if the value is
    another one by now.  That is looked up first, so a change within the millisecond between is not noticed.
    """
    strict = cache.strict
    if seconds is not None and not seconds > 0:
        raise ValueError(f"an entry lives for more than 0 seconds, not {seconds}; to remove it, delete it")
    name = name_of(strict, key, version)
    await _same(strict, name, digest)
    text = as_text(name)
    if text is not None:
        if seconds is not None:
            return await strict.aexpire(text, seconds)
        return await strict.apersist(text) or await strict.attl(text) is None
    server, milliseconds = await server_of(strict, name), strict.milliseconds(seconds)
    command = (c.PERSIST, name) if milliseconds is None else (c.PEXPIRE, name, milliseconds)
    there, _ = await _asked(strict, server, (c.EXISTS_NOW, name), command)
    return bool(there)


async def adelete(cache: Cache, keys: Iterable[Any], *, version: Any = None, digest: str | None = None) -> int:
    """Delete *keys*, each as with `adescribe`, and return how many there were.

    With the *digest* of a `Description` of the one key, raise EntryChanged as `aset_ttl` does.
    """
    strict = cache.strict
    names = list(dict.fromkeys(name_of(strict, key, version) for key in keys))
    if digest is not None:
        (name,) = names
        await _same(strict, name, digest)
    shares: dict[Server, list[bytes]] = {}
    for name in names:
        shares.setdefault(await server_of(strict, name), []).append(name)
    return sum(count or 0 for count in await strict._unlink_names(list(shares.items())))


async def _asked(cache: Cache, server: Server, *commands: Any) -> list[Any]:
    (replies,) = await cache._ask_all([(server, commands)], None)
    return replies


# --- by pattern -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Progress:
    """How far a deletion by pattern has come."""

    cursor: str | None
    """Where it goes on; None at the end."""
    scanned: int
    """How many names have been passed, about; at the end it is the total."""
    total: int
    """How many there were on the servers, of whatever cache, when this call began."""
    matched: int = 0
    """How many entries match, of those passed."""
    deleted: int = 0
    """How many of them were deleted; 0 in a dry run."""
    samples: list[bytes] = field(default_factory=list)
    """The names of some that match."""
    away: list[str] = field(default_factory=list)
    """The addresses of servers that did not answer: what they hold is not deleted."""
    restarted: bool = False
    """Whether the walk began anew, because the cluster has other primaries than before."""

    @property
    def done(self) -> bool:
        """Whether all names have been passed."""
        return self.cursor is None

    @property
    def shown(self) -> list[str]:
        """The samples as text."""
        return [shown(name) for name in self.samples]


async def adelete_pattern(
    cache: Cache,
    pattern: str,
    *,
    dry_run: bool,
    version: Any = None,
    budget: float = BUDGET,
    cursor: str | None = None,
    without: str = "",
) -> AsyncIterator[Progress]:
    """Delete the entries whose keys match the glob *pattern*, or in a dry run only count them; yield after each step.

    A step takes *budget* seconds at most.  The counts are those since this call began; it may begin at the *cursor* of an
    earlier one, also in another process.  *pattern*, *version* and *without* as with `page`.  Values that are being loaded
    when the first step begins are not stored, unless the one server that refuses them is away; entries that somebody stores later may
    remain.  Raise ValueError as `page` does.
    """
    strict = cache.strict
    seeks = replace(wanted(strict, pattern, version), without=without)
    matched = deleted = total = 0
    samples: list[bytes] = []
    rounds = c.Round()
    if not dry_run and cursor is None:
        try:
            await strict._end_loads(seeks.pattern)
        except (ConnectionError, TimeoutError):
            if len(strict.topology.primaries) < 2:
                raise  # else this server of several is away, and what the others hold is deleted all the same
    while True:
        walk = await Walk.begin(strict, seeks, None, cursor, budget)
        while not walk.complete:
            server, names = await walk.step(MOST)
            matched += len(names)
            samples += names[: SAMPLES - len(samples)]
            for at in range(0, 0 if dry_run else len(names), TOGETHER):
                deleted += sum(
                    count or 0 for count in await strict._unlink_names([(server, names[at : at + TOGETHER])])
                )
            if not walk.in_time:
                break
        cursor, total = walk.cursor, max(total, walk.total)
        scanned = total if cursor is None else walk.scanned
        yield Progress(cursor, scanned, total, matched, deleted, samples[:], walk.away, walk.restarted)
        if cursor is None:
            return
        rounds.step(walk.at * len(walk.servers) + walk.place)
