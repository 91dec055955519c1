"""The entries of a cache: found page by page, described one by one, changed and deleted.

Each function has an awaiting twin whose name begins with ``a``.  A *key* is one of the cache; bytes, or a
`fleetcache.keys.CacheKey`, are a whole name on the server.  All of them raise the errors of the servers, also where the
cache ignores them; one server of several that is away is named in the result instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from fleetcache import commands as c
from fleetcache.cache import Cache
from fleetcache.exchange.contract import Server
from fleetcache.failsafe import TROUBLE
from fleetcache.inspection.describing import LIMIT, About, Description, Member, Tag, adescribe
from fleetcache.inspection.erasing import EntryChanged, Progress, adelete, adelete_pattern, aset_ttl
from fleetcache.inspection.names import ALL, masked_key, meant, named, shown, wanted
from fleetcache.inspection.previews import Preview
from fleetcache.inspection.scanning import BUDGET, Walk
from fleetcache.twin import complete

__all__ = [
    "ALL",
    "KINDS",
    "About",
    "Description",
    "EntryChanged",
    "Member",
    "Page",
    "Preview",
    "Progress",
    "Row",
    "Tag",
    "adelete",
    "adelete_pattern",
    "adescribe",
    "apage",
    "aset_ttl",
    "delete",
    "delete_pattern",
    "describe",
    "masked_key",
    "meant",
    "page",
    "set_ttl",
    "shown",
]

KINDS = ("string", "hash", "list", "set", "zset", "stream")
"""The types of entries by which a page can be filtered."""


@dataclass(frozen=True)
class Row:
    """One entry in a page."""

    name: bytes
    """Its name on the server."""
    version: str
    """Its version in the cache, "" if the name does not show one."""
    key: str
    """Its key as `shown`, or the whole name if it is none of the cache's entries."""
    kind: str
    """What the server says it is, such as ``string``; "" if that is not known."""
    ttl: float | None
    """Its seconds to live, None for ever."""
    size: int | None
    """How many bytes it takes on the server, or if the server does not tell, the length of a string; None if not known."""
    server: str
    """The address of the server that has it."""
    problem: str = ""
    """Why a part is not known."""
    unnamed: str = ""
    """Why the key is not known, so that the whole name stands for it; "" if it is known."""

    @property
    def shown(self) -> str:
        """Its name as text, which `meant` reads back."""
        return shown(self.name)


@dataclass(frozen=True)
class Page:
    """Some entries, and how far the walk through all names has come."""

    entries: list[Row]
    cursor: str | None
    """Where the next page begins; None if there is none."""
    scanned: int
    """How many names, of any kind, have been passed since the first page, about."""
    total: int
    """How many names there are on the servers that answered, of whatever cache."""
    away: list[str] = field(default_factory=list)
    """The addresses of servers that did not answer: what they hold is missing here."""
    restarted: bool = False
    """Whether the walk began anew, because the cluster's primaries are others than those that gave the cursor."""

    @property
    def complete(self) -> bool:
        """Whether all names have been passed, and no server was away."""
        return self.cursor is None and not self.away


async def apage(
    cache: Cache,
    pattern: str = "*",
    *,
    version: Any = None,
    kind: str | None = None,
    cursor: str | None = None,
    count: int = 100,
    budget: float = BUDGET,
    library: bool = False,
    without: str = "",
) -> Page:
    """Return a page of about *count* entries whose keys match the glob *pattern*; *cursor* is that of the page before.

    It looks for entries for *budget* seconds at most: then the page has fewer, or none, and a cursor to go on from.
    *version* is the cache's own by default, `ALL` for those of every version; *kind* is one of `KINDS`.  With a CacheKey
    as *pattern* whole names are matched.  The names of the library itself, of tags, leases and the like, are left out
    unless *library* is set; so are names that contain the text *without*, if it is given.  Raise ValueError for a pattern or a cursor that cannot be used.
    """
    seeks = replace(wanted(cache, pattern, version, library=library), without=without)
    walk = await Walk.begin(cache, seeks, kind or None, cursor, budget)
    found: list[tuple[Server, bytes]] = []
    seen: set[bytes] = set()
    while not walk.complete and len(found) < count:
        server, names = await walk.step(count - len(found))
        found += [(server, name) for name in dict.fromkeys(names) if name not in seen]
        seen.update(names)
        if not walk.in_time:
            break
    rows = await _rows(cache, found)
    scanned = walk.total if walk.complete and not walk.away else min(walk.scanned, walk.total)
    return Page(sorted(rows, key=lambda row: row.name), walk.cursor, scanned, walk.total, walk.away, walk.restarted)


def page(
    cache: Cache,
    pattern: str = "*",
    *,
    version: Any = None,
    kind: str | None = None,
    cursor: str | None = None,
    count: int = 100,
    budget: float = BUDGET,
    library: bool = False,
    without: str = "",
) -> Page:
    """Return a page of entries; see `apage`."""
    options: dict[str, Any] = {"version": version, "kind": kind, "cursor": cursor, "count": count}
    return complete(apage(_still(cache), pattern, **options, budget=budget, library=library, without=without))


def describe(cache: Cache, key: Any, *, version: Any = None, unpickle: bool = False, limit: int = LIMIT) -> Description:
    """Return what is known of *key*; see `adescribe`."""
    return complete(adescribe(_still(cache), key, version=version, unpickle=unpickle, limit=limit))


def set_ttl(cache: Cache, key: Any, seconds: float | None, *, version: Any = None, digest: str | None = None) -> bool:
    """Let *key* live for *seconds*, None for ever, and return whether it is there; see `aset_ttl`."""
    return complete(aset_ttl(_still(cache), key, seconds, version=version, digest=digest))


def delete(cache: Cache, keys: Iterable[Any], *, version: Any = None, digest: str | None = None) -> int:
    """Delete *keys*, and return how many there were; see `adelete`."""
    return complete(adelete(_still(cache), keys, version=version, digest=digest))


def delete_pattern(
    cache: Cache,
    pattern: str,
    *,
    dry_run: bool,
    version: Any = None,
    budget: float = BUDGET,
    cursor: str | None = None,
    without: str = "",
) -> Iterator[Progress]:
    """Delete the entries that match *pattern*, or count them, and yield after each step; see `adelete_pattern`."""
    options: dict[str, Any] = {"version": version, "budget": budget, "cursor": cursor, "without": without}
    steps = adelete_pattern(_still(cache), pattern, dry_run=dry_run, **options)
    with suppress(StopAsyncIteration):
        while True:
            yield complete(anext(steps))  # type: ignore[arg-type]  # as good as a coroutine


def _still(cache: Cache) -> Cache:
    """Return the blocking face of *cache*."""
    return cache._still or cache


# --- what stands in a row -------------------------------------------------------------------------


async def _rows(cache: Cache, found: list[tuple[Server, bytes]]) -> list[Row]:
    """Return a row for each name that is still there."""
    shares: dict[Server, list[bytes]] = {}
    for server, name in found:
        shares.setdefault(server, []).append(name)
    rows = []
    for server, names in shares.items():
        rows += await _rows_of(cache, server, names)
    return rows


async def _rows_of(cache: Cache, server: Server, names: list[bytes]) -> list[Row]:
    asks = [command for name in names for command in ((c.TYPE, name), (c.PTTL, name), (c.MEMORY, "USAGE", name))]
    try:
        replies = await cache._runtime.exchange(server, asks)
    except TROUBLE as error:
        replies = [error] * len(asks)
    kinds, lefts, sizes = replies[::3], replies[1::3], replies[2::3]
    sizes = await _lengths(cache, server, names, kinds, sizes)
    rows = []
    for name, kind, left, size in zip(names, kinds, lefts, sizes, strict=True):
        if kind == b"none" or left == -2:
            continue  # it has expired meanwhile
        wrong = next((str(reply) for reply in (kind, left) if isinstance(reply, Exception)), "")
        version, key, unnamed = named(cache, name)
        rows.append(
            Row(
                name,
                version,
                key,
                kind=kind.decode() if isinstance(kind, bytes) else "",
                ttl=left / 1000 if type(left) is int and left >= 0 else None,
                size=size if type(size) is int else None,
                server=server.address,
                problem=wrong,
                unnamed=unnamed,
            )
        )
    return rows


async def _lengths(cache: Cache, server: Server, names: list[bytes], kinds: list[Any], sizes: list[Any]) -> list[Any]:
    """Return *sizes*; where the server refused to tell, which it may, the lengths of strings."""
    unknown = [at for at, size in enumerate(sizes) if isinstance(size, Exception) and kinds[at] == b"string"]
    if unknown:
        try:
            lengths = await cache._runtime.exchange(server, [(c.STRLEN, names[at]) for at in unknown])
        except TROUBLE:
            return sizes
        sizes = list(sizes)
        for at, length in zip(unknown, lengths, strict=True):
            sizes[at] = length
    return sizes
