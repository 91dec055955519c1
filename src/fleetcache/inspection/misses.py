"""Why does a cache not return a value?

Two questions.  `why` tells, of an entry that is there, why the cache does not return it.  `search` tells, of one that is not
there, where the same key is instead: under another version or prefix, in another database of the same server, with other
capitals, or as a whole name.  It walks through the names on the servers in small steps, and ends in bounded time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError, ResponseError

from fleetcache import commands as c
from fleetcache.cache import Cache
from fleetcache.errors import FleetcacheError
from fleetcache.exchange.wire import facts_in
from fleetcache.failsafe import TROUBLE
from fleetcache.inspection.advice import Commands
from fleetcache.inspection.describing import Description, server_of
from fleetcache.inspection.doctor.asking import line_to
from fleetcache.inspection.names import Wanted, as_text, is_library, meant, name_of, parts, shown
from fleetcache.inspection.scanning import MOST, Walk
from fleetcache.interrupts import let_pass
from fleetcache.keys import default_key_function, escaped
from fleetcache.patterns import KEY, VERSION
from fleetcache.servers.arguments import glob
from fleetcache.twin import complete

BUDGET = 2.0
"""For how many seconds the names on the servers are searched."""

FOR_HEADS = 0.5
"""For how many seconds the beginnings of names are looked at."""

ENOUGH = 10
"""How many similar names are shown."""

LONGEST = 120
"""A longer key is searched for with its own capitals only: the server tries a pattern against every name."""


@dataclass(frozen=True)
class Alike:
    """Another place where the same key is, or nearly the same."""

    name: str
    """The name on the server, as text."""
    how: str
    """In what it differs from the name that was asked for."""
    advice: str
    """What to do to read it."""


@dataclass
class Search:
    """What was found in place of an entry that is not there."""

    name: str
    """The name that was asked for, as text."""
    prefix: str | None
    """The parts of the name; None if it is a whole name that was given."""
    version: str | None
    key: str
    server: str
    """The address of the server that would hold it."""
    alike: list[Alike] = field(default_factory=list)
    scanned: int = 0
    """How many names were looked through, about."""
    total: int = 0
    complete: bool = True
    """Whether all names were looked through, and no server was away."""
    away: list[str] = field(default_factory=list)
    refused: str = ""
    """Why the user may not search."""
    perhaps: list[str] = field(default_factory=list)
    """What else may be the cause, each a sentence."""
    facts: list[str] = field(default_factory=list)
    """What is known and rules a cause out, each a sentence."""
    hidden: bool = False
    """Whether the names do not show the key, so that it could not be looked for under other versions and prefixes."""


# --- an entry that is there -----------------------------------------------------------------------


def why(cache: Cache, found: Description) -> str:
    """Return why `cache.get` does not return the value of *found*, which is there; "" if it does."""
    if found.unreadable:
        return found.unreadable
    if found.kind != "string":
        return f"get() reads strings, and this is a {found.kind}: read it with the operations of its type."
    about = found.about
    if about is None or about.standing == "fresh" or not about.standing:
        return ""
    if about.standing == "stale":
        return "Stale: its fresh life has ended. get_or_set() and @cached return it while it is renewed; get() only with stale=True."
    gone = [tag.name for tag in about.tags if tag.valid is False]
    if gone:
        tags = ", ".join(map(repr, gone))
        return f"Given up: invalidate_tags() was called for {tags} after the value was made. The cache treats it as a miss."
    return "Given up: its stale life has ended too. The cache treats it as a miss."


# --- an entry that is not there -------------------------------------------------------------------


def search(
    cache: Cache,
    key: Any,
    *,
    version: Any = None,
    others: Mapping[str, Any] | None = None,
    budget: float = BUDGET,
    commands: Commands | None = None,
) -> Search:
    """Return where *key* is instead, a key of the cache, or a whole name as bytes; *others* are more caches, by alias.

    The advice names commands, which *commands* writes.

    The names are searched for *budget* seconds at most, not at all if that is 0.  Raise the server's error if it is away.
    """
    still, commands = (cache._still or cache).strict, commands or Commands()
    name = name_of(still, key, version)
    server = complete(server_of(still, name))
    plain = isinstance(key, str)
    text = str(key) if plain else parts(still, name)[1]
    found = Search(shown(name), None, None, text, server.address)
    if plain:
        found.prefix, found.version = still.key_prefix, str(still.version if version is None else version)
    found.alike += _in_databases(still, name, server)
    for alias, other in (others or {}).items():
        found.alike += _in_other(still, alias, other, key, name, commands)
    try:
        if budget:
            _scan(still, found, key, name, budget, commands)
            if plain and not found.alike and still._namer is default_key_function:
                found.perhaps += _own(still, found)
    except ResponseError as error:
        found.refused, found.complete = str(error), False
    found.alike = list({each.name + each.how: each for each in found.alike}.values())[:ENOUGH]
    _add_causes(found, still, server)
    return found


def _own(cache: Cache, found: Search) -> Iterator[str]:
    """Yield that the cache has no entry at all, if that is so: its prefix, its version or its database may be wrong."""
    begins = heads(cache, "*")
    mine = f"{found.prefix}:{found.version}:"
    if begins.complete and mine not in begins.counts:
        others = f"Names there begin with {begins}." if begins.counts else "The database is empty."
        yield f"KEY_PREFIX, VERSION or the database may be another one: no name there begins with {mine!r}. {others}"


@dataclass
class Heads:
    """How names begin: ``prefix:version:``, or "" for names that have neither."""

    counts: Counter[str]
    complete: bool

    def __str__(self) -> str:
        shown = [
            f"{head!r} ({count})" if head else f"neither prefix nor version ({count})"
            for head, count in self.counts.most_common(5)
        ]
        return ", ".join(shown)


def heads(cache: Cache, pattern: str, budget: float = FOR_HEADS) -> Heads:
    """Return how names begin whose keys match the glob *pattern*, whatever their prefix and version.

    The names are searched for *budget* seconds at most.  Raise the server's error if it is away.
    """
    still = (cache._still or cache).strict
    matches = glob(pattern.encode(errors="surrogateescape")).fullmatch
    walk = complete(Walk.begin(still, Wanted(still, f"*{pattern}", None, library=False), None, None, budget))
    found: Counter[str] = Counter()
    while not walk.complete:
        _, page = complete(walk.step(MOST))
        for name in page:
            apart = HEAD.match(name)
            if apart is not None and matches(apart[2]):
                found[shown(apart[1])] += 1
            elif matches(name):
                found[""] += 1
        if not walk.in_time:
            break
    return Heads(found, walk.complete and not walk.away)


HEAD = re.compile(rb"(.*?:\d+:|:\d+:)(.*)", re.DOTALL)
"""A name in its prefix and version, and its key."""


def _scan(cache: Cache, found: Search, key: Any, name: bytes, budget: float, commands: Commands) -> None:
    """Walk through the names on all servers, and note those that end in the key."""
    tail = key.encode() if isinstance(key, str) else meant(parts(cache, name)[1])
    text = as_text(tail)
    if text is None:  # no cache can have stored it
        return
    exactly, own = re.compile(b"(.*:)?(?i:" + re.escape(tail) + b")", re.DOTALL), None
    pattern = f"*{_any_case(text)}"
    if cache._namer is not default_key_function:
        own = own_names(cache, tail, name) if isinstance(key, str) else None
        if own is None:
            found.hidden = True
            found.facts.append(HIDDEN)
        else:
            exactly, pattern = re.compile(own.pattern + b"|(?i:" + re.escape(tail) + b")", re.DOTALL), f"{pattern}*"
    walk = complete(Walk.begin(cache, Wanted(cache, pattern, exactly, library=True), None, None, budget))
    names: dict[bytes, None] = {}
    while not walk.complete and len(names) < ENOUGH:
        _, page = complete(walk.step(MOST))
        names |= dict.fromkeys(each for each in page if each != name and not is_library(cache, each))
        if not walk.in_time:
            break
    found.total, found.away = walk.total, list(walk.away)
    found.scanned = walk.total if walk.complete and not walk.away else min(walk.scanned, walk.total)
    found.complete = walk.complete and not walk.away
    ordered = sorted(names, key=lambda each: (len(each), each))
    if own is not None:
        found.alike += [_compared_own(own, each, tail, name, commands) for each in ordered]
    else:
        found.alike += [_compared(cache, found, each, tail, commands) for each in ordered]


# --- names that a function of the site makes ------------------------------------------------------

PREFIX = "p7r1x"
"""A prefix that is easy to find in a name, as `KEY` and `VERSION` are."""

HIDDEN = (
    "KEY_FUNCTION, or make_key(), is your own, and its names do not show the key: "
    "other versions and prefixes were not looked for."
)


def own_names(cache: Cache, tail: bytes, asked: bytes) -> re.Pattern[bytes] | None:
    """Return what matches the names of the key *tail* in all versions and under all prefixes, and of longer keys.

    None if the site's own function hides the key, so that the name *asked* does not match.
    """
    namer = cache._namer
    try:
        name = namer(KEY, PREFIX, VERSION)
        prefix = PREFIX if PREFIX in name else cache.key_prefix  # it may be hashed, or left out
        version = VERSION if str(VERSION) in name else cache.version
        name = namer(KEY, prefix, version)
    except Exception as error:  # noqa: BLE001 - a site's function, which may insist on its own prefixes and versions
        let_pass(error)
        return None
    groups = {
        KEY.encode(): rb"(?P<more>(?:.*\W)?)(?P<key>(?i:%s))" % re.escape(tail),
        PREFIX.encode(): b"(?P<prefix>.*?)",
        str(VERSION).encode(): b"(?P<version>.*?)",
    }
    pattern = b""
    for part in re.split(f"({KEY}|{PREFIX}|{VERSION})".encode(), name.encode()):
        pattern += groups.get(part, re.escape(part))
        if part in groups:
            groups[part] = b".*?"  # a group has one place
    found = re.compile(pattern, re.DOTALL) if b"(?P<key>" in pattern else None
    return found if found is not None and found.fullmatch(asked) else None


def _compared_own(own: re.Pattern[bytes], name: bytes, tail: bytes, asked: bytes, commands: Commands) -> Alike:
    """Return in what *name* differs from the name *asked*, of the key *tail*; both are of the site's function."""
    text = shown(name)
    by_name = commands("get", text, options=["--name"])
    there, here = own.fullmatch(name), own.fullmatch(asked)
    assert here is not None
    if there is None:
        begins = asked[: here.start("key")]
        if begins and name.startswith(begins):
            return Alike(text, "what you gave is a whole name, not a key", by_name)
        return Alike(text, "without prefix and version: another program wrote it", by_name)
    capitals = "" if there["key"] == tail else " and with other capitals"
    others = {group: shown(part) for group, part in there.groupdict().items() if part != here[group]}
    version, typed = others.get("version"), as_text(there["more"] + there["key"]) or text
    if "prefix" in others:
        differs = "" if version is None else f" and in version {version}"
        how = f"under the prefix {others['prefix']!r}{differs}{capitals}"
        return Alike(text, how, f"set KEY_PREFIX to {others['prefix']!r} if this is the same site; {by_name}")
    if version is not None:
        number = str(int(version)) if version.isdecimal() else version
        command = commands("get", typed, options=["--version", number])
        advice = f"read it with version={number}, or change VERSION; {command}"
        return Alike(text, f"in version {number}{capitals}", advice)
    how = f"a longer key{capitals}" if there["more"] else "with other capitals"
    return Alike(text, how, commands("get", typed, options=[]))


def _any_case(text: str) -> str:
    """Return a glob that matches *text* in capital and small letters."""
    if len(text) > LONGEST:
        return escaped(text)
    return "".join(
        f"[{letter.lower()}{letter.upper()}]" if letter.isascii() and letter.isalpha() else escaped(letter)
        for letter in text
    )


def _compared(cache: Cache, found: Search, name: bytes, tail: bytes, commands: Commands) -> Alike:
    """Return in what *name*, which ends in the key *tail*, differs from the name that was asked for."""
    begins, text, ends = shown(name[: -len(tail)]), shown(name), name[-len(tail) :]
    capitals = "" if ends == tail else " and with other capitals"
    by_name = commands("get", text, options=["--name"])

    def by_key(key: bytes, version: str, *, usual: str = str(cache.version)) -> str:
        typed = as_text(key)
        if typed is None or shown(key) != typed:
            return by_name  # nobody can type such a key
        return commands("get", typed, options=["--version", version] if version != usual else [])

    if not begins and found.prefix and text.startswith(f"{found.prefix}:"):
        return Alike(text, "what you gave is a whole name, not a key", by_name)
    if not begins:
        return Alike(text, f"without prefix and version{capitals}: another program wrote it", by_name)
    prefix, colon, version = begins[:-1].rpartition(":")
    own = cache.key_prefix
    if found.version is None and cache._namer is default_key_function and prefix == own:
        return Alike(text, f"a key of the cache{capitals}, not a whole name: leave out --name", by_key(ends, version))
    if colon and (prefix, version) == (own, found.version):
        return Alike(text, "with other capitals", by_key(ends, version))
    if colon and prefix == own:
        advice = f"read it with version={version}, or change VERSION; {by_key(ends, version, usual='')}"
        return Alike(text, f"in version {version}{capitals}", advice)
    if begins.startswith(f"{own}:{found.version}:"):
        longer = name.removeprefix(f"{own}:{found.version}:".encode())
        return Alike(text, f"a longer key{capitals}", by_key(longer, str(found.version)))
    if colon and version.isdigit():
        differs = "" if version == found.version or found.version is None else f" and in version {version}"
        return Alike(
            text,
            f"under the prefix {prefix!r}{differs}{capitals}",
            f"set KEY_PREFIX to {prefix!r} if this is the same site; {by_name}",
        )
    return Alike(text, f"another name that ends like it{capitals}", by_name)


# --- in other places ------------------------------------------------------------------------------


def _in_databases(cache: Cache, name: bytes, server: Any) -> Iterator[Alike]:
    """Yield the other databases of the server that hold the name."""
    if cache.topology.can_move or getattr(server, "remote", None) is None:
        return  # a cluster has one database; a server in this process is asked through its own object
    with suppress(*TROUBLE, RedisError, FleetcacheError, OSError), line_to(server.remote) as line:
        (info,) = line.ask(("INFO", "keyspace"))
        own = _database(server.address)
        for database in [] if isinstance(info, Exception) else facts_in(info):
            number = database.removeprefix("db")
            if database == number or not number.isdigit() or number == own:
                continue
            chosen, there = line.ask(("SELECT", number), ("EXISTS", name))
            if not isinstance(chosen, Exception) and there == 1:
                advice = f"let the server's URL (LOCATION) end in /{number} if the value belongs to this cache"
                yield Alike(shown(name), f"in database {number} of the same server", advice)


def _database(address: str) -> str:
    """Return the number of the database in the address of a server."""
    _, slash, number = address.rpartition("/")
    return number if slash and number.isdigit() else "0"


def _in_other(cache: Cache, alias: str, other: Any, key: Any, name: bytes, commands: Commands) -> Iterator[Alike]:
    """Yield the entry of the same key in the cache *other*, if there is one."""
    with suppress(Exception):  # whatever is wrong with the other cache, such as a KEY_FUNCTION that raises
        still = (other._still or other).strict
        there = name_of(still, key)
        text = as_text(there)
        if text is None or (there == name and still.topology.home(text).address == cache.topology.home(text).address):
            return
        if complete(_exists(still, there)):
            same = commands.of(alias)
            whole = isinstance(key, bytes)
            command = same("get", shown(there), options=["--name"]) if whole else same("get", str(key))
            yield Alike(shown(there), f"in the cache {alias!r}", f"use caches[{alias!r}]; {command}")


async def _exists(cache: Cache, name: bytes) -> bool:
    server = await server_of(cache, name)
    (found,) = await cache._runtime.exchange(server, ((c.EXISTS_NOW, name),))
    return bool(found == 1)


def _add_causes(found: Search, cache: Cache, server: Any) -> None:
    """Add what else may have happened to an entry that nobody finds, and what has not."""
    timeout = cache.settings.timeout
    if timeout is not None:
        found.perhaps.append(
            f"It may have expired: an entry lives for {timeout:g} s (TIMEOUT) unless its writer says otherwise."
        )
    if getattr(server, "remote", None) is not None:
        with suppress(*TROUBLE, RedisError, FleetcacheError, OSError), line_to(server.remote) as line:
            stats, memory = line.ask(("INFO", "stats"), ("INFO", "memory"))
            if not isinstance(stats, Exception) and not isinstance(memory, Exception):
                _add_evictions(found, facts_in(stats), facts_in(memory))
    found.perhaps.append("It may have been deleted, also by clear(), or was perhaps never stored.")


def _add_evictions(found: Search, stats: Mapping[str, str], memory: Mapping[str, str]) -> None:
    evicted = int(stats.get("evicted_keys", "0") or 0)
    if not evicted:
        found.facts.append("The server has evicted no entry since it started.")
        return
    policy = memory.get("maxmemory_policy", "")
    found.perhaps.append(
        f"It may have been evicted: the server has evicted {evicted:,} entries since it started, because maxmemory is reached ({policy})."
    )
