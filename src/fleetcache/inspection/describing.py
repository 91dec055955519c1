"""All there is to know of one entry, for a bounded price: what it is, how it is stored, what it says of itself, its value."""

from __future__ import annotations

import re
from codecs import utf_8_decode
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import zip_longest
from typing import Any, TypeAlias

from redis.exceptions import RedisError

from fleetcache import commands as c
from fleetcache.cache import Cache
from fleetcache.codec.metadata import Metadata
from fleetcache.exchange.contract import Command, Reply, Server
from fleetcache.failsafe import TROUBLE
from fleetcache.inspection.names import as_text, is_library, name_of, named, parts, shown
from fleetcache.inspection.previews import Preview, printable, taken_apart
from fleetcache.keys import lease_name
from fleetcache.near.near import Near
from fleetcache.topology.shards import Shards

LIMIT = 64 * 1024
"""How many bytes of a value are read."""

LONGEST_UNPICKLED = 1024 * 1024
"""The longest value that is unpickled, in bytes."""

LONGEST_NAME = 500
"""How many bytes of the name of a field are read."""

MEMBERS = 20
"""How many members of a hash, list, set, sorted set or stream are shown."""

LARGEST_MEMBER = 256_000
"""Members are not read if one takes more bytes than this on average."""

LARGE = 4_000_000
"""What takes fewer bytes than this may have members of any size."""

LENGTHS = {"string": c.STRLEN, "hash": c.HLEN, "list": c.LLEN, "set": c.SCARD, "zset": c.ZCARD, "stream": c.XLEN}


@dataclass(frozen=True)
class Tag:
    """A tag of an entry."""

    name: str
    valid: bool | None
    """Whether it has not been invalidated since the entry was made; None if its server is away."""


@dataclass(frozen=True)
class About:
    """What an entry says of itself; times are seconds since 1970 on its server's clock, lengths are seconds."""

    standing: str
    """``fresh``, ``stale`` or ``given up``; "" if that is not known."""
    made: float | None
    """When its load began, None if that is not known."""
    cost: float
    """How long its load took."""
    fresh_until: float | None
    """When its fresh life ends, None if that is when the entry expires."""
    fresh: float | None
    """Its fresh life from now on; None as for `fresh_until`."""
    stale: float
    """How long it is kept after its fresh life."""
    early: float
    """XFetch's β: how much earlier than necessary it is renewed; 0 renews nothing early."""
    scope: str
    """The version in which its tags are named, "" for the cache's own."""
    tags: tuple[Tag, ...]


@dataclass(frozen=True)
class Member:
    """A member of a hash, list, set, sorted set or stream."""

    name: str
    """Its field, its place, or its id in a stream; "" in a set."""
    value: Preview
    score: float | None = None


@dataclass(frozen=True)
class Description:
    """What is known of an entry."""

    name: bytes
    version: str
    key: str
    server: str
    kind: str = "none"
    """Its type on the server; ``none`` if there is no such entry."""
    ttl: float | None = None
    """Its seconds to live, None for ever."""
    size: int | None = None
    """The bytes it takes in the server's memory, None if the server does not tell."""
    length: int | None = None
    """The bytes of a string, or the number of members."""
    encoding: str = ""
    """How the server stores it, such as ``embstr`` or ``listpack``."""
    idle: int | None = None
    """For how many seconds nobody has read it; None if the server does not tell."""
    read: int = 0
    """How many bytes of a string were read to show it."""
    codec: tuple[str, ...] = ()
    """What is around the value of a string, from the outside, such as ``zlib``, ``metadata``, ``pickle 4``."""
    preview: Preview | None = None
    """The value of a string."""
    unreadable: str = ""
    """Why the cache cannot read the value, as a sentence; "" if it can, or if that cannot be told without running code."""
    members: tuple[Member, ...] = ()
    """The first members of anything else."""
    about: About | None = None
    """What it says of itself, None if it has no metadata."""
    near: bool = False
    """Whether this process has a copy that it would serve."""
    hits: int = 0
    """How often that copy was served."""
    loading: float | None = None
    """For how many seconds the lease of its load is still kept; None if nobody loads it."""
    digest: str = ""
    """Tells this value from another one; see `erasing.set_ttl`."""
    problems: tuple[str, ...] = field(default_factory=tuple)
    """What could not be found out, and why."""

    @property
    def exists(self) -> bool:
        """Whether there is such an entry."""
        return self.kind != "none"

    @property
    def fresh(self) -> float | None:
        """For how many seconds it is fresh from now on, 0 if it is not; None for ever.  This is what `set_ttl` sets."""
        about = self.about
        if about is None or (about.standing == "fresh" and about.fresh is None):
            return self.ttl
        return about.fresh if about.standing == "fresh" else 0.0

    @property
    def shown(self) -> str:
        """Its name as text, which `names.meant` reads back."""
        return shown(self.name)


async def adescribe(
    cache: Cache, key: Any, *, version: Any = None, unpickle: bool = False, limit: int = LIMIT
) -> Description:
    """Return what is known of *key*: a key of the cache, or its whole name as bytes or CacheKey.

    At most *limit* bytes of its value are read, or its first `MEMBERS` members.  A pickle is unpickled only with
    *unpickle*, which runs whatever code its writer chose, and only up to a megabyte.  Raise the server's error if it is
    away.
    """
    name = name_of(cache, key, version)
    server = await server_of(cache, name)
    found = await _outline(cache, server, name)
    if not found.exists:
        return found
    if found.kind == "string":
        most = max(limit, LONGEST_UNPICKLED) if unpickle and (found.length or 0) <= LONGEST_UNPICKLED else limit
        found = await _string(cache, server, found, most, unpickle=unpickle)
    elif found.kind in MEMBERS_OF:
        found = await _members(cache, server, found)
    *_, unnamed = named(cache, name)
    return _with_copy(cache, replace(found, problems=(unnamed, *found.problems)) if unnamed else found)


async def server_of(cache: Cache, name: bytes) -> Server:
    """Return the primary that holds *name*."""
    servers = await cache.topology.survey(cache._runtime)
    text = as_text(name)
    if text is not None:
        return cache.topology.home(text)
    if not isinstance(cache.topology, Shards):
        home: Any = cache.topology.home
        return home(name)  # type: ignore[no-any-return]  # of a cluster, which takes bytes too; another has one server
    # Names that are no text have no place among the shards: another client has put it on any of them.
    answers = await cache._runtime.exchange_all([(server, ((c.EXISTS_NOW, name),)) for server in servers])
    there = [server for server, answer in zip(servers, answers, strict=True) if answer == [1]]
    return (there or list(servers))[0]


async def _asked(cache: Cache, server: Server, commands: Sequence[Command]) -> list[Reply]:
    """Return the replies, refusals among them."""
    replies: list[Reply] = await cache._runtime.exchange(server, commands)
    return replies


async def _outline(cache: Cache, server: Server, name: bytes) -> Description:
    """Return what the server says of the entry without its value."""
    text = as_text(name)
    asks: list[Command] = [(c.TYPE, name), (c.PTTL_NOW, name), (c.MEMORY, "USAGE", name)]
    asks += [(c.OBJECT, "ENCODING", name), (c.OBJECT, "IDLETIME", name)]
    if text is not None:
        asks.append((c.PTTL_NOW, lease_name(text)))
    kind, left, size, encoding, idle, *lease = await _asked(cache, server, asks)
    for reply in kind, left:
        if isinstance(reply, RedisError):
            raise reply
    found = Description(name, *parts(cache, name), server=server.address, kind=kind.decode())
    if not found.exists or left == -2:
        return replace(found, kind="none")
    verb = LENGTHS.get(found.kind)
    (length,) = await _asked(cache, server, ((verb, name),)) if verb else (None,)
    return replace(
        found,
        ttl=left / 1000 if left >= 0 else None,
        size=size if type(size) is int else None,
        length=length if type(length) is int else None,
        encoding=encoding.decode() if isinstance(encoding, bytes) else "",
        idle=idle if type(idle) is int else None,
        loading=lease[0] / 1000 if lease and type(lease[0]) is int and lease[0] > 0 else None,
    )


def _with_copy(cache: Cache, found: Description) -> Description:
    text = as_text(found.name)
    if text is None or not isinstance(cache.near, Near):
        return found
    copy = cache.near.copy(text)
    return found if copy is None else replace(found, near=True, hits=copy.hits)


# --- strings --------------------------------------------------------------------------------------


async def _string(cache: Cache, server: Server, found: Description, most: int, *, unpickle: bool) -> Description:
    last = max(most, BEGINNING) - 1
    beginning, end = await _asked(
        cache, server, ((c.GLIMPSE_NOW, found.name, 0, last), (c.GLIMPSE_NOW, found.name, -ENDING, -1))
    )
    if not isinstance(beginning, bytes) or not isinstance(end, bytes):
        refused = next(str(reply) for reply in (beginning, end) if not isinstance(reply, bytes))
        return replace(found, problems=(refused,))
    length = found.length if found.length is not None else len(beginning)
    found = replace(found, digest=digest_of("string", length, beginning[:BEGINNING], end))
    beginning = beginning[:most]
    payload = taken_apart(beginning, cache.codec, whole=len(beginning) >= length, unpickle=unpickle)
    found = replace(found, read=len(beginning), codec=payload.codec, preview=payload.preview)
    if payload.unreadable and not is_library(cache, found.name):
        found = replace(found, unreadable=complaint(cache, beginning, payload.unreadable))
    if payload.metadata is None:
        return found
    about, problems = await _about(cache, found.name, payload.metadata)
    return replace(found, about=about, problems=problems)


def complaint(cache: Cache, payload: bytes, what: str) -> str:
    """Return the sentence that says that *cache* cannot read *payload*, which is *what*."""
    if LOCKS.fullmatch(payload):
        what = "the token of a lock: it is held now"
    serializer = type(cache.codec.serializer).__name__
    then = "raises UnreadableValue" if cache.settings.options.unreadable == "raise" else "treats it as a miss"
    return f"The configured serializer ({serializer}) cannot read this: the cache {then}. Found: {what}."


LOCKS = re.compile(rb"[0-9a-f]{32}")
"""The tokens of locks, those of redis-py too."""

BEGINNING, ENDING = 16 * 1024, 4 * 1024
"""How many bytes of a string tell it from another, besides its length."""


def digest_of(*what: Any) -> str:
    """Return a digest of a value, or of what was read of it."""
    return blake2b(repr(what).encode(), digest_size=12).hexdigest()


async def _about(cache: Cache, name: bytes, metadata: Metadata) -> tuple[About, tuple[str, ...]]:
    """Return what *metadata* says, and what could not be found out about it."""
    strict, text = cache.strict, as_text(name)
    standing, fresh = "", None
    problems: tuple[str, ...] = ()
    tags = tuple(Tag(tag, None) for tag, _ in metadata.tags)
    try:
        judged = await strict._judgement(text or "", metadata)
        standing, left = judged.standing.name.lower().replace("_", " "), judged.left
        fresh = None if left is None else left / 1000
        now = await strict._versions([tag for tag, _ in metadata.tags], strict._version_in(metadata.scope), fresh=True)
        tags = tuple(Tag(tag, now[tag] == version) for tag, version in metadata.tags)
    except TROUBLE as error:
        problems = (f"The server of a tag, or the clock, cannot be asked: {error}",)
    return About(
        standing,
        metadata.made / 1000 or None,
        metadata.cost / 1000,
        metadata.fresh_until / 1000 or None,
        fresh,
        metadata.stale / 1000,
        metadata.early,
        metadata.scope,
        tags,
    ), problems


# --- members --------------------------------------------------------------------------------------


def _pairs(reply: Any) -> list[tuple[Any, Any]]:
    return list(zip(reply[::2], reply[1::2], strict=True))


def _scores(reply: list[Any]) -> list[tuple[Any, Any]]:
    return [tuple(pair) for pair in reply] if reply and isinstance(reply[0], list) else _pairs(reply)


MEMBERS_OF: dict[str, Any] = {
    "hash": lambda name: (c.HSCAN, name, 0, "COUNT", MEMBERS),
    "list": lambda name: (c.LRANGE, name, 0, MEMBERS - 1),
    "set": lambda name: (c.SSCAN, name, 0, "COUNT", MEMBERS),
    "zset": lambda name: (c.ZRANGE, name, 0, MEMBERS - 1, "WITHSCORES"),
    "stream": lambda name: (c.XRANGE, name, "-", "+", "COUNT", MEMBERS),
}
"""The command that returns the first members, at the same price however many there are."""


COMPACT = frozenset(("listpack", "ziplist", "intset", "listpackex"))
"""Encodings in which no member is large."""


async def _members(cache: Cache, server: Server, found: Description) -> Description:
    # Without an encoding, the server is in this process, or this user may not ask for it.
    compact = found.encoding in COMPACT if found.encoding else server.remote is None
    if not compact:
        if found.kind == "hash":
            return await _fields(cache, server, found)
        if await _may_be_large(cache, server, found):
            problem = (
                f"Its members are not read: the first {MEMBERS} may have more than {LARGEST_MEMBER // 1000} kB each."
            )
            return replace(found, problems=(problem,))
        if found.kind == "stream":
            return await _entries(cache, server, found)
        if found.kind in CUT:
            return await _beginnings(cache, server, found)
    return await _whole(cache, server, found)


async def _whole(cache: Cache, server: Server, found: Description) -> Description:
    """Return *found* with its first members, read whole."""
    (reply,) = await _asked(cache, server, (MEMBERS_OF[found.kind](found.name),))
    if isinstance(reply, RedisError):
        return replace(found, problems=(str(reply),))
    members = _shown_members(cache, found.kind, reply)
    return replace(found, members=tuple(members[:MEMBERS]), digest=digest_of(found.kind, found.length, reply))


CUT = frozenset(("list", "set", "zset"))
"""The kinds whose members a script cuts: the sample of their sizes may have missed a large one."""

CUTTING = """
local found = redis.call(ARGV[1], KEYS[1], unpack(ARGV, 4))
if type(found[2]) == 'table' then found = found[2] end
local cut = {}
for at = 1, math.min(#found, tonumber(ARGV[3])) do
  cut[2 * at - 1], cut[2 * at] = #found[at], string.sub(found[at], 1, tonumber(ARGV[2]))
end
return cut
"""

SAMPLED = 1000
"""Of how many members the server knows the sizes when it tells their mean."""


async def _beginnings(cache: Cache, server: Server, found: Description) -> Description:
    """Return *found* with its first members, of each of which a bounded part is read, whatever its size."""
    verb, name, *rest = MEMBERS_OF[found.kind](found.name)
    parts = 2 * MEMBERS if found.kind == "zset" else MEMBERS
    (cut,) = await _asked(cache, server, ((c.BEGINNINGS, CUTTING, 1, name, bytes(verb), LIMIT, parts, *rest),))
    if isinstance(cut, RedisError):
        if found.kind == "set" and (found.length or 0) > SAMPLED:
            problem = f"Its members are not read: one of them may be large, and the script that would cut it is refused: {cut}"
            return replace(found, problems=(problem,))
        return await _whole(cache, server, found)
    lengths, payloads = cut[::2], cut[1::2]
    reply = [b"0", payloads] if found.kind == "set" else payloads
    members = [
        replace(
            member,
            value=replace(member.value, whole=False, problem=f"of {length:,} bytes, the first {LIMIT:,} were read"),
        )
        if length > LIMIT
        else member
        for member, length in zip(
            _shown_members(cache, found.kind, reply), lengths[:: 2 if found.kind == "zset" else 1], strict=True
        )
    ]
    return replace(found, members=tuple(members), digest=digest_of(found.kind, found.length, cut))


async def _may_be_large(cache: Cache, server: Server, found: Description) -> bool:
    """Whether the first members may be large: there is no command for the length of one.

    MEMORY USAGE takes the mean of the first so many members, or of parts of a list, for that of all.  So a large one among
    the first shows in a mean of a few, and one among many small ones in the difference of two means.
    """
    asks = [(c.MEMORY, "USAGE", found.name, "SAMPLES", samples) for samples in (1, MEMBERS, 1000)]
    sizes = [reply for reply in await _asked(cache, server, asks) if type(reply) is int]
    if len(sizes) < len(asks) or not found.length:
        return False  # this user may not ask
    one, few, many = sizes
    if (few if found.kind == "zset" else max(few, many)) / found.length > LARGEST_MEMBER:
        return True
    if found.kind == "set":  # SCAN and the samples take them in different orders
        return many > LARGE and many > 2 * few
    return found.kind != "zset" and max(one, few) > max(LARGE, 2 * min(sizes))


FIELDS = """
local found, again = nil, 1
if ARGV[1] == 'HKEYS' then
  found = redis.call('HKEYS', KEYS[1])
else
  found = redis.pcall('HSCAN', KEYS[1], 0, 'COUNT', ARGV[2], 'NOVALUES')
  if found.err then  -- before Redis 7.4 and Valkey 8
    found, again = redis.call('HRANDFIELD', KEYS[1], ARGV[2]), 0
  else
    found = found[2]
  end
end
local cut = {again}
for at = 1, math.min(#found, tonumber(ARGV[2])) do
  local length = redis.call('HSTRLEN', KEYS[1], found[at])
  local value = length <= tonumber(ARGV[4]) and redis.call('HGET', KEYS[1], found[at])
  cut[#cut + 1], cut[#cut + 2] = #found[at], string.sub(found[at], 1, tonumber(ARGV[3]))
  cut[#cut + 1], cut[#cut + 2] = length, value or ''
end
return cut
"""
"""Returns whether it returns the same fields again, and of each field the length and the beginning of its name, and of its value
the length, and the bytes unless they are too many."""

Field: TypeAlias = tuple[int, bytes, int, bytes]
"""A field of a hash as `FIELDS` returns it."""


async def _fields(cache: Cache, server: Server, found: Description) -> Description:
    """Return *found* with fields of a hash whose values may be large: those that are too large are only named."""
    verb = "HKEYS" if (found.length or 0) <= MEMBERS else "HSCAN"
    (cut,) = await _asked(cache, server, ((c.BEGINNINGS, FIELDS, 1, found.name, verb, MEMBERS, LONGEST_NAME, LIMIT),))
    if isinstance(cut, RedisError):  # this user may run no scripts
        fields, again = await _uncut_fields(cache, server, found)
        if isinstance(fields, RedisError):
            return replace(found, problems=(str(fields),))
    else:
        again, fields = bool(cut[0]), [tuple(cut[at : at + 4]) for at in range(1, len(cut), 4)]
    members = [Member(_name(name, most), _field_value(cache, length, value)) for most, name, length, value in fields]
    digest = digest_of("hash", found.length, sorted(fields) if again else found.size)
    return replace(found, members=tuple(members), digest=digest)


def _field_value(cache: Cache, length: int, value: bytes) -> Preview:
    return _value(cache, value) if length <= LIMIT else Preview("bytes", f"{length:,} bytes, not read", whole=False)


async def _uncut_fields(cache: Cache, server: Server, found: Description) -> tuple[list[Field] | RedisError, bool]:
    """Return what `FIELDS` returns, without a script: names are read whole; or the refusal."""
    names, again = await _names_of_fields(cache, server, found)
    if isinstance(names, RedisError):
        return names, again
    lengths = await _asked(cache, server, [(c.HSTRLEN, found.name, name) for name in names])
    small = [name for name, length in zip(names, lengths, strict=True) if type(length) is int and length <= LIMIT]
    values = dict(zip(small, await _asked(cache, server, [(c.HGET, found.name, name) for name in small]), strict=True))
    there = [
        (len(name), name[:LONGEST_NAME], length, value if isinstance(value, bytes) else b"")
        for name, length, value in zip(names, lengths, map(values.get, names), strict=True)
        if isinstance(value, bytes) or (type(length) is int and length > LIMIT)
    ]
    return there, again


async def _names_of_fields(cache: Cache, server: Server, found: Description) -> tuple[Any, bool]:
    """Return the names of `MEMBERS` fields, without their values, or the refusal; and whether they are the same the next time."""
    if (found.length or 0) <= MEMBERS:
        (names,) = await _asked(cache, server, ((c.HKEYS, found.name),))
        return list(names) if isinstance(names, (list, set)) else names, True
    (reply,) = await _asked(cache, server, ((c.HSCAN, found.name, 0, "COUNT", MEMBERS, "NOVALUES"),))
    if not isinstance(reply, RedisError):
        return reply[1][:MEMBERS], True
    (names,) = await _asked(cache, server, ((c.HRANDFIELD, found.name, MEMBERS),))  # before Redis 7.4 and Valkey 8
    return names, False


# --- streams --------------------------------------------------------------------------------------

ENTRIES = """
local cut = {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[1])) do
  local left, bytes, parts = tonumber(ARGV[3]), 0, {}
  for at, whole in ipairs(entry[2]) do
    bytes = bytes + #whole
    if left > 0 then
      local most = at % 2 == 1 and math.min(tonumber(ARGV[2]), left) or left
      local part = string.sub(whole, 1, most)
      left = left - #part - tonumber(ARGV[4])
      parts[#parts + 1], parts[#parts + 2] = #whole, part
    end
  end
  cut[#cut + 1] = {entry[1], #entry[2], bytes, parts}
end
return cut
"""
"""Returns of each entry of a stream its id, how many names and values it has, and how many bytes they take; then of the first
ones the length and the beginning."""

PART = 16
"""What each name and value counts besides its bytes, so that an entry of many empty ones is cut too."""


async def _entries(cache: Cache, server: Server, found: Description) -> Description:
    """Return *found* with the first entries of a stream, of each of which a bounded part is read."""
    asked = (c.BEGINNINGS, ENTRIES, 1, found.name, MEMBERS, LONGEST_NAME, LIMIT, PART)
    (cut,) = await _asked(cache, server, (asked,))
    if isinstance(cut, RedisError):  # this user may run no scripts
        return await _whole(cache, server, found)
    return replace(found, members=tuple(map(_entry, cut)), digest=digest_of("stream", found.length, cut))


def _cut(entry: tuple[bytes, list[bytes]]) -> tuple[bytes, int, int, list[Any]]:
    """Return what `ENTRIES` returns of *entry*."""
    name, fields = entry
    left, parts = LIMIT, list[Any]()
    for at, whole in enumerate(fields):
        if left > 0:
            part = whole[: left if at % 2 else min(LONGEST_NAME, left)]
            left -= len(part) + PART
            parts += [len(whole), part]
    return name, len(fields), sum(map(len, fields)), parts


def _entry(cut: Any) -> Member:
    """Return an entry of a stream, as `ENTRIES` returns it."""
    name, count, size, parts = cut
    texts = [_name(part, length) for length, part in zip(parts[::2], parts[1::2], strict=True)]
    text = ", ".join(f"{field}={value}" for field, value in zip_longest(texts[::2], texts[1::2], fillvalue="…"))
    text = text if len(texts) == count else f"{text}, …"
    read = sum(map(len, parts[1::2]))
    problem = "" if read == size else f"of {size:,} bytes, {read:,} were read"
    return Member(shown(name), Preview("text", printable(text), whole=not problem, problem=problem))


# --- what is shown --------------------------------------------------------------------------------


def _name(beginning: bytes, length: int) -> str:
    """Return a name of *length* bytes as `shown`, as far as its *beginning* goes."""
    if length <= len(beginning):
        return shown(beginning)
    text, _ = utf_8_decode(beginning, "surrogateescape", False)  # without the half of a last character
    return f"{shown(text)}… ({length:,} bytes)"


def _shown_members(cache: Cache, kind: str, reply: Any) -> list[Member]:
    if kind == "hash":
        return [
            Member(_name(name[:LONGEST_NAME], len(name)), _value(cache, value))
            for name, value in _pairs(reply[1])[:MEMBERS]
        ]
    if kind == "set":
        return [Member("", _value(cache, value)) for value in reply[1][:MEMBERS]]
    if kind == "list":
        return [Member(str(place), _value(cache, value)) for place, value in enumerate(reply)]
    if kind == "zset":
        return [Member("", _value(cache, value), float(score)) for value, score in _scores(reply)]
    return [_entry(_cut(entry)) for entry in reply]


def _value(cache: Cache, payload: bytes) -> Preview:
    """Return what a member shows; a pickle is never unpickled."""
    whole = len(payload) <= LIMIT
    found = taken_apart(payload[:LIMIT], cache.codec, whole=whole, most=LIMIT)
    if found.unreadable and not found.preview.problem:
        return replace(found.preview, problem=complaint(cache, payload, found.unreadable))
    return found.preview
