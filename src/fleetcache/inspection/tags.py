"""The tags of a cache: which are in use, and which entries have one.

A tag is in use while its version is on the server; entries with a tag whose version is another one by now, or gone, are
given up.  See `fleetcache.tagging`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Any

from redis.exceptions import RedisError

from fleetcache import commands as c
from fleetcache.cache import Cache
from fleetcache.codec.metadata import Metadata
from fleetcache.errors import UnreadableValue
from fleetcache.exchange.contract import Command, Server
from fleetcache.inspection.names import as_text, parts, wanted
from fleetcache.inspection.scanning import MOST, Walk
from fleetcache.keys import TAG
from fleetcache.tagging import checked
from fleetcache.twin import complete


@dataclass(frozen=True)
class Tag:
    """A tag that is in use."""

    name: str
    version: str
    """The version of the cache's keys in which it is named; "" if the name does not show one."""
    left: float | None
    """The seconds that its version still lives, None for ever; it is longer than that of its entries."""


@dataclass(frozen=True)
class Tagged:
    """An entry with a tag."""

    name: bytes
    key: str
    valid: bool
    """Whether the tag has not been invalidated since the entry was made."""


@dataclass
class Course:
    """How far a walk has come."""

    passed: int = 0
    """How many names have been passed, about."""
    total: int = 0
    """How many names there are on the servers, of whatever cache."""
    away: Sequence[str] = ()
    """The addresses of servers that do not answer: what they hold is missing."""


def walked(
    cache: Cache, pattern: str, course: Course, version: Any, *, tags: bool, kind: str | None = None
) -> Iterator[tuple[Server, list[bytes]]]:
    """Yield names whose keys match the glob *pattern*, server by server and part by part; *course* says how far it came.

    With *tags* the library's own names are among them.  A name may come twice while a server grows or shrinks its table.
    """
    still = cache._still or cache
    walk = complete(Walk.begin(still, wanted(still, pattern, version, library=tags), kind, None, inf))
    course.total, course.away = walk.total, walk.away
    while not walk.complete:
        server, names = complete(walk.step(MOST))
        course.passed = min(walk.scanned, walk.total)
        yield server, list(dict.fromkeys(names))
    course.passed = walk.total


def in_use(cache: Cache, pattern: str, course: Course, version: Any = None) -> Iterator[Tag]:
    """Yield the tags that match the glob *pattern*, in *version*, by default the cache's own, or in `ALL`."""
    still = cache._still or cache
    for server, found in walked(cache, TAG + pattern, course, version, tags=True):
        names = [name for name in found if still._is_tag(name)]
        if not names:
            continue
        lefts = _asked(still, server, [(c.PTTL_NOW, name) for name in names])
        for name, left in zip(names, lefts, strict=True):
            scope, key = parts(still, name)
            if left != -2:
                yield Tag(key.partition(TAG)[2], scope, None if left == -1 else left / 1000)


def state(cache: Cache, tag: str, version: Any = None) -> Tag | None:
    """Return what is known of *tag*; None if it is not in use.  Raise ValueError for what cannot be a tag."""
    still = cache._still or cache
    checked([tag])
    name = still._tag_name(tag, version)
    (left,) = _asked(still, still.topology.home(name), [(c.PTTL_NOW, name)])
    if left == -2:
        return None
    scope = str(still.version if version is None else version)
    return Tag(tag, scope, None if left == -1 else left / 1000)


def entries_with(cache: Cache, tag: str, course: Course, version: Any = None) -> Iterator[Tagged]:
    """Yield the entries that have *tag*; it walks through all entries of the version, and reads the beginning of each."""
    still = (cache._still or cache).strict
    now = complete(still._versions([tag], version, fresh=True))[tag]
    for server, names in walked(cache, "*", course, version, tags=False, kind="string"):
        texts = [text for name in names if (text := as_text(name)) is not None]
        shown = _asked(still, server, [still._glimpse(text, primary=True) for text in texts])
        for text, beginning in zip(texts, shown, strict=True):
            metadata = _metadata(still, text, beginning)
            mine = [made for name, made in metadata.tags if name == tag] if metadata else []
            if mine:
                _, key = parts(still, text.encode())
                yield Tagged(text.encode(), key, mine[0] == now)


def _metadata(cache: Cache, name: str, beginning: Any) -> Metadata | None:
    if cache.codec.is_plain(beginning):
        return None
    with suppress(UnreadableValue):
        return complete(cache._shown(name, beginning, primary=True))
    return None


def _asked(cache: Cache, server: Server, commands: Sequence[Command]) -> list[Any]:
    """Return the replies of *server*; raise a refusal that is among them."""
    replies: list[Any] = complete(_exchange(cache, server, commands)) if commands else []
    for reply in replies:
        if isinstance(reply, RedisError):
            raise reply
    return replies


async def _exchange(cache: Cache, server: Server, commands: Sequence[Command]) -> list[Any]:
    replies: list[Any] = await cache._runtime.exchange(server, commands)
    return replies
