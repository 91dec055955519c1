"""The commands of ``memory://``, on keys and values in dicts.

Each command is a small method of `Database` with the command's name; `scripts` has the Python equivalents of
our Lua scripts.  Only the commands of `fleetcache.commands` are here, and only in the forms that the cache
sends.  Replies have the shapes that hiredis gives them in RESP3, with a list for a set.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, KeysView, Sequence
from functools import cache, partial, partialmethod
from typing import Any, TypeAlias, TypeVar

from redis.exceptions import NoScriptError, ResponseError

from fleetcache.exchange.contract import Reply
from fleetcache.forks import chance
from fleetcache.servers import arguments as a
from fleetcache.servers.scripts import SCRIPTS


class Hash(dict[bytes, bytes]):
    """The value of a hash key."""


class Scores(dict[bytes, float]):
    """The value of a sorted set: the score of each member."""

    def ranked(self, *, reverse: bool) -> list[tuple[bytes, float]]:
        """Return members and scores, ordered by score, and by member if scores are equal."""
        return sorted(self.items(), key=lambda item: (item[1], item[0]), reverse=reverse)


Container: TypeAlias = list[bytes] | set[bytes] | Hash | Scores
Value: TypeAlias = bytes | Container
V = TypeVar("V", bound=Value)

KINDS = {bytes: b"string", list: b"list", set: b"set", Hash: b"hash", Scores: b"zset", type(None): b"none"}
"""The reply to TYPE for each value."""


class Database:
    """Keys, their values and deadlines, and the commands that read and change them.

    ``now`` is the time in milliseconds; the caller sets it before it runs commands.
    """

    def __init__(self) -> None:
        self.now = 0
        self._values: dict[bytes, Value] = {}
        self._deadlines: dict[bytes, int] = {}

    def prepare(self, words: Sequence[bytes]) -> Callable[[], Reply]:
        """Return the command *words* as a function to call; refuse an unknown one, or a wrong number of arguments."""
        name, *arguments = words
        run = COMMANDS.get(name)
        if run is None:
            raise ResponseError(f"unknown command '{name.decode(errors='replace')}'")
        try:
            signature(run).bind(self, *arguments)
        except TypeError:
            raise ResponseError(f"wrong number of arguments for '{name.decode().lower()}' command") from None
        return partial(run, self, *arguments)

    def _alive(self, key: bytes) -> Value | None:
        if self._deadlines.get(key, math.inf) <= self.now:
            self._drop(key)
        return self._values.get(key)

    def _find(self, key: bytes, kind: type[V]) -> V | None:
        value = self._alive(key)
        if value is None or isinstance(value, kind):
            return value
        raise ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")

    def _open(self, key: bytes, kind: type[V]) -> V:
        """Return the value of *key*, or an empty one that is not stored yet."""
        value = self._find(key, kind)
        return kind() if value is None else value

    def _keep(self, key: bytes, value: Value) -> None:
        """Store *value*, and keep the deadline of *key*; only a string may be empty."""
        if value or isinstance(value, bytes):
            self._values[key] = value
        else:
            self._drop(key)

    def _replace(self, key: bytes, value: Value, deadline: int | None = None) -> None:
        self._deadlines.pop(key, None)
        self._keep(key, value)
        if deadline is not None and key in self._values:
            self._deadlines[key] = deadline

    def _drop(self, key: bytes) -> bool:
        self._deadlines.pop(key, None)
        return self._values.pop(key, None) is not None

    def _keys(self) -> KeysView[bytes]:
        """Return the keys that have not expired."""
        for key in [key for key, deadline in self._deadlines.items() if deadline <= self.now]:
            self._drop(key)
        return self._values.keys()

    def _deadline(self, amount: int, name: str, *, unit: int = 1, absolute: bool = False) -> int:
        deadline = amount * unit + (0 if absolute else self.now)
        if amount * unit < a.SMALLEST or deadline > a.LARGEST:
            raise ResponseError(f"invalid expire time in '{name}' command")
        return deadline

    # The server

    def FLUSHDB(self) -> Reply:
        self._values.clear()
        self._deadlines.clear()
        return b"OK"

    def TIME(self) -> Reply:
        return [b"%d" % part for part in (self.now // 1000, self.now % 1000 * 1000)]

    def DBSIZE(self) -> Reply:
        return len(self._keys())

    def SCAN(self, cursor: bytes, *words: bytes) -> Reply:
        after, names = a.page(self._keys(), cursor, words, TYPE=1)
        (kind,) = a.options(words, MATCH=1, COUNT=1, TYPE=1).get("TYPE", [b""])
        return [after, [name for name in names if self.TYPE(name) == kind] if kind else names]

    def EVAL(self, script: bytes, count: bytes, key: bytes, *arguments: bytes) -> Reply:
        run = SCRIPTS.get(script.decode(errors="replace"))
        if run is None:
            raise NoScriptError("No matching script.")
        keys = (key, *arguments[: int(count) - 1])
        return run(self, keys, *arguments[int(count) - 1 :])

    EVALSHA = EVAL

    # Keys

    def EXISTS(self, key: bytes) -> Reply:
        return int(self._alive(key) is not None)

    def DEL(self, key: bytes, *more: bytes) -> Reply:
        return sum(self._alive(each) is not None and self._drop(each) for each in (key, *more))

    UNLINK = DEL

    def TYPE(self, key: bytes) -> Reply:
        return KINDS[type(self._alive(key))]

    def RENAME(self, key: bytes, target: bytes) -> Reply:
        value = self._alive(key)
        if value is None:
            raise ResponseError("no such key")
        deadline = self._deadlines.get(key)
        self._drop(key)
        self._replace(target, value, deadline)
        return b"OK"

    def PTTL(self, key: bytes, *, unit: int = 1) -> Reply:
        if self._alive(key) is None:
            return -2
        if key not in self._deadlines:
            return -1
        return (self._deadlines[key] - self.now + unit // 2) // unit

    TTL = partialmethod(PTTL, unit=1000)

    def _expire(self, key: bytes, amount: bytes, **meaning: Any) -> Reply:
        deadline = self._deadline(a.integer(amount), **meaning)
        if self._alive(key) is None:
            return 0
        self._deadlines[key] = deadline
        return 1

    PEXPIRE = partialmethod(_expire, name="pexpire")
    EXPIREAT = partialmethod(_expire, name="expireat", unit=1000, absolute=True)
    PEXPIREAT = partialmethod(_expire, name="pexpireat", absolute=True)

    def PERSIST(self, key: bytes) -> Reply:
        return int(self._alive(key) is not None and self._deadlines.pop(key, None) is not None)

    # Strings

    def GET(self, key: bytes) -> Reply:
        return self._find(key, bytes)

    def STRLEN(self, key: bytes) -> Reply:
        return len(self._find(key, bytes) or b"")

    def GETRANGE(self, key: bytes, start: bytes, stop: bytes) -> Reply:
        ends = a.integer(start), a.integer(stop)
        value = self._find(key, bytes) or b""
        first, last = (max(end + len(value), 0) if end < 0 else end for end in ends)
        return b"" if ends[1] < ends[0] < 0 else value[first : last + 1]

    def MGET(self, key: bytes, *more: bytes) -> Reply:
        values = map(self._alive, (key, *more))
        return [value if isinstance(value, bytes) else None for value in values]

    def SET(self, key: bytes, value: bytes, *words: bytes) -> Reply:
        found = a.options(words, NX=0, XX=0, GET=0, KEEPTTL=0, PX=1)
        deadline = None
        if "PX" in found:
            (amount,) = map(a.integer, found["PX"])
            # Unlike PEXPIRE, SET refuses a time of 0 or less.
            if amount <= 0:
                raise ResponseError("invalid expire time in 'set' command")
            deadline = self._deadline(amount, "set")
        before = self.GET(key) if "GET" in found else None
        exists = self._alive(key) is not None
        if ("NX" in found and exists) or ("XX" in found and not exists):
            return before
        if "KEEPTTL" in found:
            self._keep(key, value)
        else:
            self._replace(key, value, deadline)
        return before if "GET" in found else b"OK"

    def INCRBY(self, key: bytes, delta: bytes) -> Reply:
        step, before = a.integer(delta), self._find(key, bytes)
        after = a.added(b"0" if before is None else before, step)
        self._keep(key, b"%d" % after)
        return after

    # Hashes

    def HSET(self, key: bytes, field: bytes, value: bytes, *more: bytes) -> Reply:
        fields = self._open(key, Hash)
        before = len(fields)
        fields.update(zip((field, *more[::2]), (value, *more[1::2]), strict=True))
        self._keep(key, fields)
        return len(fields) - before

    def HSETNX(self, key: bytes, field: bytes, value: bytes) -> Reply:
        return 0 if field in self._open(key, Hash) else self.HSET(key, field, value)

    def HINCRBY(self, key: bytes, field: bytes, delta: bytes) -> Reply:
        step, fields = a.integer(delta), self._open(key, Hash)
        after = a.added(fields.get(field, b"0"), step, "hash value is not an integer")
        self.HSET(key, field, b"%d" % after)
        return after

    # Shared by hashes, sets, sorted sets and lists

    def _show(self, key: bytes, *, kind: type[Container], shown: Callable[[Container], Reply]) -> Reply:
        return shown(self._open(key, kind))

    HLEN = partialmethod(_show, kind=Hash, shown=len)
    LLEN = partialmethod(_show, kind=list, shown=len)
    SCARD = partialmethod(_show, kind=set, shown=len)
    ZCARD = partialmethod(_show, kind=Scores, shown=len)
    HGETALL = partialmethod(_show, kind=Hash, shown=dict)
    HKEYS = partialmethod(_show, kind=Hash, shown=list)
    HVALS = partialmethod(_show, kind=Hash, shown=lambda fields: [*fields.values()])
    SMEMBERS = partialmethod(_show, kind=set, shown=list)

    def _holds(self, key: bytes, name: bytes, *, kind: type[Hash | set[bytes]]) -> Reply:
        return int(name in self._open(key, kind))

    def HSCAN(self, key: bytes, cursor: bytes, *words: bytes) -> Reply:
        fields = self._open(key, Hash)
        after, names = a.page(fields, cursor, words)
        return [after, [part for name in names for part in (name, fields[name])]]

    HEXISTS = partialmethod(_holds, kind=Hash)
    SISMEMBER = partialmethod(_holds, kind=set)

    def _look_up(self, key: bytes, name: bytes, *, kind: type[Hash | Scores]) -> Reply:
        return self._open(key, kind).get(name)

    HGET = partialmethod(_look_up, kind=Hash)
    ZSCORE = partialmethod(_look_up, kind=Scores)

    def HMGET(self, key: bytes, field: bytes, *more: bytes) -> Reply:
        return [*map(self._open(key, Hash).get, (field, *more))]

    def _remove(self, key: bytes, name: bytes, *more: bytes, kind: type[Hash | set[bytes] | Scores]) -> Reply:
        held = self._open(key, kind)
        gone = {name, *more} & set(held)
        for each in gone:
            held.remove(each) if isinstance(held, set) else held.pop(each)
        self._keep(key, held)
        return len(gone)

    HDEL = partialmethod(_remove, kind=Hash)
    SREM = partialmethod(_remove, kind=set)
    ZREM = partialmethod(_remove, kind=Scores)

    # Lists

    def LPUSH(self, key: bytes, element: bytes, *more: bytes, left: bool = True) -> Reply:
        elements = self._open(key, list)
        where = 0 if left else len(elements)
        elements[where:where] = (element, *more)[:: -1 if left else 1]
        self._keep(key, elements)
        return len(elements)

    RPUSH = partialmethod(LPUSH, left=False)

    def LPOP(self, key: bytes, count: bytes | None = None, *, left: bool = True) -> Reply:
        size = 1 if count is None else a.natural(count)
        elements = self._open(key, list)
        taken = elements[:size] if left else elements[::-1][:size]
        self._keep(key, elements[size:] if left else elements[: max(len(elements) - size, 0)])
        return a.some(taken, count) if elements else None

    RPOP = partialmethod(LPOP, left=False)

    def LRANGE(self, key: bytes, start: bytes, stop: bytes) -> Reply:
        ends = a.integer(start), a.integer(stop)
        return a.within(self._open(key, list), *ends)

    def LTRIM(self, key: bytes, start: bytes, stop: bytes) -> Reply:
        self._keep(key, self.LRANGE(key, start, stop))
        return b"OK"

    def LINDEX(self, key: bytes, index: bytes) -> Reply:
        elements = self._open(key, list)
        return elements[place] if elements and -len(elements) <= (place := a.integer(index)) < len(elements) else None

    def LSET(self, key: bytes, index: bytes, element: bytes) -> Reply:
        elements = self._open(key, list)
        if not elements:
            raise ResponseError("no such key")
        if not -len(elements) <= (place := a.integer(index)) < len(elements):
            raise ResponseError("index out of range")
        elements[place] = element
        return b"OK"

    def LREM(self, key: bytes, count: bytes, element: bytes) -> Reply:
        limit, elements = a.integer(count), self._open(key, list)
        places = [place for place, each in enumerate(elements) if each == element]
        gone = set((places[::-1] if limit < 0 else places)[: abs(limit) or None])
        self._keep(key, [each for place, each in enumerate(elements) if place not in gone])
        return len(gone)

    # Sets

    def SADD(self, key: bytes, member: bytes, *more: bytes) -> Reply:
        members = self._open(key, set)
        before = len(members)
        members.update((member, *more))
        self._keep(key, members)
        return len(members) - before

    def _combined(self, key: bytes, *more: bytes, combine: Callable[..., set[bytes]]) -> Reply:
        return list(combine(*(self._open(each, set) for each in (key, *more))))

    SDIFF = partialmethod(_combined, combine=set.difference)
    SINTER = partialmethod(_combined, combine=set.intersection)
    SUNION = partialmethod(_combined, combine=set.union)

    def _store(self, target: bytes, key: bytes, *more: bytes, combine: Callable[..., set[bytes]]) -> Reply:
        members = set(self._combined(key, *more, combine=combine))
        self._replace(target, members)
        return len(members)

    SDIFFSTORE = partialmethod(_store, combine=set.difference)
    SINTERSTORE = partialmethod(_store, combine=set.intersection)
    SUNIONSTORE = partialmethod(_store, combine=set.union)

    def SSCAN(self, key: bytes, cursor: bytes, *words: bytes) -> Reply:
        return a.page(self._open(key, set), cursor, words)

    def SMISMEMBER(self, key: bytes, member: bytes, *more: bytes) -> Reply:
        members = self._open(key, set)
        return [int(each in members) for each in (member, *more)]

    def SMOVE(self, source: bytes, target: bytes, member: bytes) -> Reply:
        members = self._find(source, set)
        if members is None:
            return 0
        self._find(target, set)
        moved = int(member in members)
        if moved and source != target:
            self.SREM(source, member)
            self.SADD(target, member)
        return moved

    def SPOP(self, key: bytes, count: bytes | None = None) -> Reply:
        size = 1 if count is None else a.natural(count)
        members = self._open(key, set)
        taken = chance.sample([*members], min(size, len(members)))
        self._keep(key, members.difference(taken))
        return a.some(taken, count)

    def SRANDMEMBER(self, key: bytes, count: bytes | None = None) -> Reply:
        size = 1 if count is None else a.integer(count)
        members = [*self._open(key, set)]
        if size < 0:
            taken = chance.choices(members, k=-size) if members else []
        else:
            taken = chance.sample(members, min(size, len(members)))
        return a.some(taken, count)

    # Sorted sets

    def ZADD(self, key: bytes, score: bytes, member: bytes, *more: bytes) -> Reply:
        words = (score, member, *more)
        flags: set[bytes] = set()
        while words[0] in {b"NX", b"XX", b"GT", b"LT", b"CH", b"INCR"}:
            flags.add(words[0])
            words = words[1:]
        wanted = [(name, a.real(number)) for number, name in zip(words[::2], words[1::2], strict=True)]
        scores = self._open(key, Scores)
        new = changed = 0
        after = None
        for name, number in wanted:
            before = scores.get(name)
            if (b"XX" if before is None else b"NX") in flags:
                continue
            after = number + (before or 0.0) if b"INCR" in flags else number
            if math.isnan(after):
                raise ResponseError("resulting score is not a number (NaN)")
            if before is not None and ((b"GT" in flags and after <= before) or (b"LT" in flags and after >= before)):
                after = None
                continue
            scores[name] = after
            new += before is None
            changed += before not in (None, after)
        self._keep(key, scores)
        if b"INCR" in flags:
            return after
        return new + changed if b"CH" in flags else new

    def ZINCRBY(self, key: bytes, delta: bytes, member: bytes) -> Reply:
        return self.ZADD(key, b"INCR", delta, member)

    def ZCOUNT(self, key: bytes, low: bytes, high: bytes) -> Reply:
        return sum(map(a.between(low, high), self._open(key, Scores).values()))

    def ZRANK(self, key: bytes, member: bytes, *words: bytes, reverse: bool = False) -> Reply:
        found = a.options(words, WITHSCORE=0)
        scores = self._open(key, Scores)
        if member not in scores:
            return None
        rank = scores.ranked(reverse=reverse).index((member, scores[member]))
        return [rank, scores[member]] if found else rank

    ZREVRANK = partialmethod(ZRANK, reverse=True)

    def ZRANGE(self, key: bytes, start: bytes, stop: bytes, *words: bytes, reverse: bool = False) -> Reply:
        found, ends = a.options(words, WITHSCORES=0), (a.integer(start), a.integer(stop))
        return a.listed(a.within(self._open(key, Scores).ranked(reverse=reverse), *ends), scores=bool(found))

    ZREVRANGE = partialmethod(ZRANGE, reverse=True)

    def ZRANGEBYSCORE(self, key: bytes, start: bytes, stop: bytes, *words: bytes, reverse: bool = False) -> Reply:
        found = a.options(words, WITHSCORES=0, LIMIT=2)
        offset, count = map(a.integer, found.get("LIMIT", (b"0", b"-1")))
        fits = a.between(*(stop, start) if reverse else (start, stop))
        ranked = self._open(key, Scores).ranked(reverse=reverse)
        fitting = [pair for pair in ranked if fits(pair[1])][offset:] if offset >= 0 else []
        return a.listed(fitting[:count] if count >= 0 else fitting, scores="WITHSCORES" in found)

    ZREVRANGEBYSCORE = partialmethod(ZRANGEBYSCORE, reverse=True)

    def _zremrange(self, key: bytes, start: bytes, stop: bytes, *, find: Callable[..., Reply]) -> Reply:
        members = find(self, key, start, stop)
        return self.ZREM(key, *members) if members else 0

    ZREMRANGEBYRANK = partialmethod(_zremrange, find=ZRANGE)
    ZREMRANGEBYSCORE = partialmethod(_zremrange, find=ZRANGEBYSCORE)

    def ZPOPMIN(self, key: bytes, count: bytes | None = None, *, reverse: bool = False) -> Reply:
        size = 1 if count is None else a.natural(count)
        scores = self._open(key, Scores)
        taken = scores.ranked(reverse=reverse)[:size]
        if taken:
            self.ZREM(key, *(member for member, _ in taken))
        return a.listed(taken, scores=True) if count is not None else [*taken[0]] if taken else []

    ZPOPMAX = partialmethod(ZPOPMIN, reverse=True)


COMMANDS = {name.encode(): getattr(Database, name) for name in vars(Database) if name.isupper()}

signature = cache(inspect.signature)
