"""A server in a dict: every feature of the cache works, and is tested, without a server.

It keeps no socket, file or thread.  Everything a batch does happens at one moment and under one
lock, so a batch is atomic here where a real server only promises that of MULTI; a transaction
must begin and end in one batch, as there is no connection to remember it between two.  Replies
have the shapes that hiredis gives them in RESP3, with a list for a set.

A command is a small method of `Database`, entered in `COMMANDS` under the names it serves; the
Lua scripts of this package have their Python equivalents in `SCRIPTS`.
"""

from __future__ import annotations

import heapq
import inspect
import math
import operator
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, KeysView, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache, partial
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from redis.exceptions import ExecAbortError, NoScriptError, ResponseError

from fleetcache.exchange import Command, Reply, Script


class List(list[bytes]):
    """The value of a list key."""


class Set(set[bytes]):
    """The value of a set key."""


class Hash(dict[bytes, bytes]):
    """The value of a hash key."""


class Scores(dict[bytes, float]):
    """The value of a sorted set: the score of each member."""

    def ranked(self, *, reverse: bool) -> list[tuple[bytes, float]]:
        """Return members and scores by score, and by member where scores are equal."""
        return sorted(self.items(), key=lambda item: (item[1], item[0]), reverse=reverse)


Container: TypeAlias = List | Set | Hash | Scores
Value: TypeAlias = bytes | Container
V = TypeVar("V", bound=Value)
Function = TypeVar("Function", bound=Callable[..., Reply])
Found: TypeAlias = dict[str, Sequence[bytes]]

TYPES = {bytes: b"string", List: b"list", Set: b"set", Hash: b"hash", Scores: b"zset"}

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
NOT_AN_INTEGER = "value is not an integer or out of range"
NOT_A_FLOAT = "value is not a valid float"
NOT_POSITIVE = "value is out of range, must be positive"
SYNTAX = "syntax error"

SMALLEST, LARGEST = -(2**63), 2**63 - 1


# What words say ---------------------------------------------------------------------------------


def packed(part: object) -> bytes:
    """Return *part* as it would be on the wire, a script as its name."""
    match part:
        case bytes():
            return part
        case Script():
            return part.name.encode()
        case str():
            return part.encode()
        case int() if not isinstance(part, bool):
            return b"%d" % part
        case float():
            return repr(part).encode()
    raise TypeError(f"A command part must be str, int, float or bytes, not {type(part).__name__}.")


def whole(word: bytes, refusal: str = NOT_AN_INTEGER) -> int:
    """Return the integer that *word* writes in the only way a server accepts."""
    if not re.fullmatch(rb"0|-?[1-9][0-9]{0,18}", word) or not SMALLEST <= int(word) <= LARGEST:
        raise ResponseError(refusal)
    return int(word)


def natural(word: bytes, refusal: str = NOT_POSITIVE) -> int:
    number = whole(word, refusal)
    if number < 0:
        raise ResponseError(refusal)
    return number


def real(word: bytes, refusal: str = NOT_A_FLOAT) -> float:
    number = rb"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|inf(inity)?)"
    if not re.fullmatch(number, word, re.IGNORECASE):
        raise ResponseError(refusal)
    return float(word)


def added(number: bytes, delta: int, refusal: str = NOT_AN_INTEGER) -> int:
    after = whole(number, refusal) + delta
    return whole(b"%d" % after, "increment or decrement would overflow")


def added_in_decimal(number: bytes, delta: bytes, refusal: str = NOT_A_FLOAT) -> bytes:
    """Return the sum as a server writes it: no exponent, at most 17 digits behind the point."""
    if not math.isfinite(real(number, refusal) + real(delta)):
        raise ResponseError("increment would produce NaN or Infinity")
    after = Decimal(number.decode()) + Decimal(delta.decode())
    written = f"{after:.17f}".rstrip("0").rstrip(".")
    return b"0" if written == "-0" else written.encode()


def options(words: Sequence[bytes], **lengths: int) -> Found:
    """Return the arguments of each option among *words*; *lengths* says how many each takes."""
    found: Found = {}
    rest = iter(words)
    for word in rest:
        name = word.upper().decode("latin-1")
        found[name] = arguments = tuple(islice(rest, lengths.get(name, 0)))
        if name not in lengths or len(arguments) < lengths[name]:
            raise ResponseError(SYNTAX)
    return found


def pairs(words: Sequence[bytes], command: str) -> list[tuple[bytes, bytes]]:
    if len(words) % 2:
        raise ResponseError(f"wrong number of arguments for '{command}' command")
    return list(zip(words[::2], words[1::2], strict=True))


def span(start: bytes, stop: bytes) -> Callable[[int], slice]:
    """Return which of so many elements lie from *start* to *stop*, both included."""
    ends = whole(start), whole(stop)

    def of(size: int) -> slice:
        first, last = (end + size if end < 0 else end for end in ends)
        return slice(max(first, 0), max(last + 1, 0))

    return of


def between(low: bytes, high: bytes) -> Callable[[float], bool]:
    """Return whether a score lies from *low* to *high*; "(" leaves the end itself out."""
    refusal = "min or max is not a float"
    least, most = real(low.removeprefix(b"("), refusal), real(high.removeprefix(b"("), refusal)
    above = operator.gt if low.startswith(b"(") else operator.ge
    below = operator.lt if high.startswith(b"(") else operator.le
    return lambda score: bool(above(score, least) and below(score, most))


def listed(found: Iterable[tuple[bytes, float]], *, scores: bool) -> Reply:
    return [[member, score] if scores else member for member, score in found]


TOKEN = re.compile(rb"\\(.)|\[(\^?)((?:\\.|[^\]]-.|[^\]])*)\]?|(\*+)|(\?)|(.)", re.DOTALL)
IN_BRACKETS = re.compile(rb"\\(.)|(.)-(.)|(.)", re.DOTALL)


@lru_cache(maxsize=256)
def glob(pattern: bytes) -> re.Pattern[bytes]:
    """Return the regular expression that fully matches what the glob *pattern* matches."""

    def one_of(inside: bytes) -> bytes:
        expression = b""
        for escaped, *ends, plain in IN_BRACKETS.findall(inside):
            expression += re.escape(escaped + plain) or b"-".join(map(re.escape, sorted(ends)))
        return expression

    def translated(token: re.Match[bytes]) -> bytes:
        escaped, negated, inside, stars, question, plain = token.groups()
        if stars:
            return b".*"
        if question:
            return b"."
        if inside is None:
            return re.escape(escaped or plain)
        if not inside:
            return b"." if negated else b"(?!)"
        return b"[" + negated + one_of(inside) + b"]"

    return re.compile(TOKEN.sub(translated, pattern), re.DOTALL)


def page(names: Iterable[bytes], cursor: bytes, found: Found) -> tuple[bytes, list[bytes]]:
    """Return the cursor after *cursor* and the names between the two.

    Names are visited in the order of their hashes, which nothing that happens between two pages
    can change, so a name that stays is always seen.
    """
    if not cursor.isdigit():
        raise ResponseError("invalid cursor")
    (count,) = map(whole, found.get("COUNT", [b"10"]))
    if count < 1:
        raise ResponseError(SYNTAX)
    start = int(cursor)
    places = ((hash(name) & LARGEST, name) for name in names)
    batch = heapq.nsmallest(count + 1, (place for place in places if place[0] >= start))
    after = batch[count][0] if len(batch) > count else 0
    (pattern,) = found.get("MATCH", [b"*"])
    matches = glob(pattern).fullmatch
    return str(after).encode(), [name for _, name in batch[:count] if matches(name)]


# What a server does -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Handler:
    """The method behind a command, and how many arguments it takes."""

    run: Callable[..., Reply]
    least: int
    most: float


COMMANDS: dict[bytes, Handler] = {}


def command(name: str, /, **fixed: Any) -> Callable[[Function], Function]:
    """Enter a method in `COMMANDS` under *name*, its keyword arguments *fixed*."""

    def enter(method: Function) -> Function:
        _, *parameters = inspect.signature(method).parameters.values()
        single = [one for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
        endless = any(one.kind is one.VAR_POSITIONAL for one in parameters)
        COMMANDS[name.encode()] = Handler(
            run=partial(method, **fixed),
            least=sum(one.default is one.empty for one in single),
            most=math.inf if endless else len(single),
        )
        return method

    return enter


class Database:
    """Keys, their values and deadlines, and the commands on them.

    ``now`` is the time in milliseconds; whoever runs commands sets it before.
    """

    def __init__(self) -> None:
        self.now = 0
        self._values: dict[bytes, Value] = {}
        self._deadlines: dict[bytes, int] = {}

    def prepare(self, words: Sequence[bytes]) -> Callable[[], Reply]:
        """Return the command *words* ready to be run; refuse one that nobody could run."""
        name, *arguments = words
        handler = COMMANDS.get(name.upper())
        if handler is None:
            raise ResponseError(f"unknown command '{name.decode(errors='replace')}'")
        if not handler.least <= len(arguments) <= handler.most:
            raise ResponseError(f"wrong number of arguments for '{name.decode().lower()}' command")
        return partial(handler.run, self, *arguments)

    def call(self, *parts: object) -> Reply:
        """Run one command for a script; a refusal is raised."""
        return self.prepare([packed(part) for part in parts])()

    def _alive(self, key: bytes) -> Value | None:
        if self._deadlines.get(key, math.inf) <= self.now:
            self._drop(key)
        return self._values.get(key)

    def _find(self, key: bytes, kind: type[V]) -> V | None:
        value = self._alive(key)
        if value is None or isinstance(value, kind):
            return value
        raise ResponseError(WRONG_TYPE)

    def _open(self, key: bytes, kind: type[V]) -> V:
        """Return the value of *key*, or an empty one that is not stored yet."""
        value = self._find(key, kind)
        return kind() if value is None else value

    def _keep(self, key: bytes, value: Value) -> None:
        """Store *value* under the deadline that *key* has; only a string may be empty."""
        if value or isinstance(value, bytes):
            self._values[key] = value
        else:
            self._drop(key)

    def _replace(self, key: bytes, value: Value, deadline: int | None = None) -> None:
        self._deadlines.pop(key, None)
        self._keep(key, value)
        self._limit(key, deadline)

    def _limit(self, key: bytes, deadline: int | None) -> None:
        if deadline is not None and key in self._values:
            self._deadlines[key] = deadline
            self._alive(key)

    def _drop(self, key: bytes) -> bool:
        self._deadlines.pop(key, None)
        return self._values.pop(key, None) is not None

    def _keys(self) -> KeysView[bytes]:
        """Return the keys there are, without those whose time is over."""
        for key in [key for key, deadline in self._deadlines.items() if deadline <= self.now]:
            self._drop(key)
        return self._values.keys()

    # The server

    @command("PING")
    def _ping(self, message: bytes = b"PONG") -> Reply:
        return message

    @command("ECHO")
    def _echo(self, message: bytes) -> Reply:
        return message

    @command("DBSIZE")
    def _dbsize(self) -> Reply:
        return len(self._keys())

    @command("FLUSHDB")
    def _flushdb(self, *how: bytes) -> Reply:
        options(how, ASYNC=0, SYNC=0)
        self._values.clear()
        self._deadlines.clear()
        return b"OK"

    @command("EVAL")
    @command("EVALSHA")
    def _eval(self, script: bytes, count: bytes, *rest: bytes) -> Reply:
        run = SCRIPTS.get(script.decode(errors="replace"))
        if run is None:
            raise NoScriptError("No matching script.")
        size = natural(count)
        return run(self, rest[:size], rest[size:])

    # Keys

    @command("TYPE")
    def _type(self, key: bytes) -> Reply:
        value = self._alive(key)
        return b"none" if value is None else TYPES[type(value)]

    @command("KEYS")
    def _matching(self, pattern: bytes) -> Reply:
        return list(filter(glob(pattern).fullmatch, self._keys()))

    @command("SCAN")
    def _scan(self, cursor: bytes, *words: bytes) -> Reply:
        found = options(words, MATCH=1, COUNT=1, TYPE=1)
        after, keys = page(self._keys(), cursor, found)
        for kind in found.get("TYPE", ()):
            keys = [key for key in keys if self._type(key) == kind.lower()]
        return [after, keys]

    @command("EXISTS")
    def _exists(self, key: bytes, *more: bytes) -> Reply:
        return sum(self._alive(each) is not None for each in (key, *more))

    @command("DEL")
    @command("UNLINK")
    def _del(self, key: bytes, *more: bytes) -> Reply:
        return sum(self._alive(each) is not None and self._drop(each) for each in (key, *more))

    @command("RENAME")
    def _rename(self, key: bytes, target: bytes) -> Reply:
        value = self._alive(key)
        if value is None:
            raise ResponseError("no such key")
        deadline = self._deadlines.get(key)
        self._drop(key)
        self._replace(target, value, deadline)
        return b"OK"

    @command("TTL", unit=1000)
    @command("PTTL", unit=1)
    def _ttl(self, key: bytes, *, unit: int) -> Reply:
        if self._alive(key) is None:
            return -2
        if key not in self._deadlines:
            return -1
        return (self._deadlines[key] - self.now + unit // 2) // unit

    @command("EXPIRE", name="expire", unit=1000)
    @command("PEXPIRE", name="pexpire", unit=1)
    @command("EXPIREAT", name="expireat", unit=1000, absolute=True)
    @command("PEXPIREAT", name="pexpireat", unit=1, absolute=True)
    def _expire(self, key: bytes, amount: bytes, *words: bytes, name: str, unit: int, absolute: bool = False) -> Reply:
        flags = {word.upper(): word for word in words}
        for word in flags.keys() - {b"NX", b"XX", b"GT", b"LT"}:
            raise ResponseError(f"Unsupported option {flags[word].decode(errors='replace')}")
        if b"NX" in flags and len(flags) > 1:
            raise ResponseError("NX and XX, GT or LT options at the same time are not compatible")
        if {b"GT", b"LT"} <= flags.keys():
            raise ResponseError("GT and LT options at the same time are not compatible")
        deadline = self._deadline(whole(amount), name, unit=unit, absolute=absolute)
        if self._alive(key) is None:
            return 0
        before = self._deadlines.get(key)
        if (
            (b"NX" in flags and before is not None)
            or (b"XX" in flags and before is None)
            or (b"GT" in flags and (before is None or deadline <= before))
            or (b"LT" in flags and before is not None and deadline >= before)
        ):
            return 0
        self._limit(key, deadline)
        return 1

    @command("PERSIST")
    def _persist(self, key: bytes) -> Reply:
        return int(self._alive(key) is not None and self._deadlines.pop(key, None) is not None)

    def _deadline(self, amount: int, name: str, *, unit: int, absolute: bool) -> int:
        deadline = amount * unit + (0 if absolute else self.now)
        if amount * unit < SMALLEST or deadline > LARGEST:
            raise ResponseError(f"invalid expire time in '{name}' command")
        return deadline

    def _deadline_among(self, found: Found, name: str) -> int | None:
        """Return the deadline that the options of SET or GETEX ask for."""
        for option, unit in (("EX", 1000), ("PX", 1), ("EXAT", 1000), ("PXAT", 1)):
            for word in found.get(option, ()):
                # Unlike EXPIRE, these do not delete by a time that is no time.
                if (amount := whole(word)) <= 0:
                    raise ResponseError(f"invalid expire time in '{name}' command")
                return self._deadline(amount, name, unit=unit, absolute=option.endswith("AT"))
        return None

    # Strings

    @command("GET")
    def _get(self, key: bytes) -> Reply:
        return self._find(key, bytes)

    @command("SET")
    def _set(self, key: bytes, value: bytes, *words: bytes) -> Reply:
        found = options(words, NX=0, XX=0, GET=0, KEEPTTL=0, EX=1, PX=1, EXAT=1, PXAT=1)
        times = found.keys() - {"NX", "XX", "GET"}
        if {"NX", "XX"} <= found.keys() or len(times) > 1:
            raise ResponseError(SYNTAX)
        deadline = self._deadline_among(found, "set")
        before = self._find(key, bytes) if "GET" in found else None
        exists = self._alive(key) is not None
        if ("NX" in found and exists) or ("XX" in found and not exists):
            return before
        if "KEEPTTL" in found:
            self._keep(key, value)
        else:
            self._replace(key, value, deadline)
        return before if "GET" in found else b"OK"

    @command("GETDEL")
    def _getdel(self, key: bytes) -> Reply:
        value = self._find(key, bytes)
        self._drop(key)
        return value

    @command("GETEX")
    def _getex(self, key: bytes, *words: bytes) -> Reply:
        found = options(words, PERSIST=0, EX=1, PX=1, EXAT=1, PXAT=1)
        if len(found) > 1:
            raise ResponseError(SYNTAX)
        deadline = self._deadline_among(found, "getex")
        value = self._find(key, bytes)
        if "PERSIST" in found:
            self._deadlines.pop(key, None)
        self._limit(key, deadline)
        return value

    @command("MGET")
    def _mget(self, key: bytes, *more: bytes) -> Reply:
        values = map(self._alive, (key, *more))
        return [value if isinstance(value, bytes) else None for value in values]

    @command("MSET")
    def _mset(self, key: bytes, value: bytes, *more: bytes) -> Reply:
        for each, what in pairs((key, value, *more), "mset"):
            self._replace(each, what)
        return b"OK"

    @command("STRLEN")
    def _strlen(self, key: bytes) -> Reply:
        return len(self._open(key, bytes))

    @command("APPEND")
    def _append(self, key: bytes, value: bytes) -> Reply:
        self._keep(key, self._open(key, bytes) + value)
        return self._strlen(key)

    @command("INCRBY")
    def _incrby(self, key: bytes, delta: bytes) -> Reply:
        step = whole(delta)
        after = added(self._number(key), step)
        self._keep(key, b"%d" % after)
        return after

    @command("INCRBYFLOAT")
    def _incrbyfloat(self, key: bytes, delta: bytes) -> Reply:
        after = added_in_decimal(self._number(key), delta)
        self._keep(key, after)
        return after

    def _number(self, key: bytes) -> bytes:
        value = self._find(key, bytes)
        return b"0" if value is None else value

    # Hashes

    @command("HSET")
    def _hset(self, key: bytes, field: bytes, value: bytes, *more: bytes) -> Reply:
        changes = dict(pairs((field, value, *more), "hset"))
        fields = self._open(key, Hash)
        before = len(fields)
        fields.update(changes)
        self._keep(key, fields)
        return len(fields) - before

    @command("HSETNX")
    def _hsetnx(self, key: bytes, field: bytes, value: bytes) -> Reply:
        return 0 if field in self._open(key, Hash) else self._hset(key, field, value)

    @command("HGETALL")
    def _hgetall(self, key: bytes) -> Reply:
        return dict(self._open(key, Hash))

    @command("HVALS")
    def _hvals(self, key: bytes) -> Reply:
        return list(self._open(key, Hash).values())

    @command("HINCRBY")
    def _hincrby(self, key: bytes, field: bytes, delta: bytes) -> Reply:
        step = whole(delta)
        before = self._open(key, Hash).get(field, b"0")
        after = added(before, step, "hash value is not an integer")
        self._hset(key, field, b"%d" % after)
        return after

    @command("HINCRBYFLOAT")
    def _hincrbyfloat(self, key: bytes, field: bytes, delta: bytes) -> Reply:
        if not math.isfinite(real(delta)):
            raise ResponseError("value is NaN or Infinity")
        before = self._open(key, Hash).get(field, b"0")
        after = added_in_decimal(before, delta, "hash value is not a float")
        self._hset(key, field, after)
        return after

    # What hashes, sets, sorted sets and lists have in common

    @command("HLEN", kind=Hash)
    @command("LLEN", kind=List)
    @command("SCARD", kind=Set)
    @command("ZCARD", kind=Scores)
    def _size(self, key: bytes, *, kind: type[Container]) -> Reply:
        return len(self._open(key, kind))

    @command("HKEYS", kind=Hash)
    @command("SMEMBERS", kind=Set)
    def _names(self, key: bytes, *, kind: type[Hash | Set]) -> Reply:
        return list(self._open(key, kind))

    @command("HEXISTS", kind=Hash)
    @command("SISMEMBER", kind=Set)
    def _holds(self, key: bytes, name: bytes, *, kind: type[Hash | Set]) -> Reply:
        return int(name in self._open(key, kind))

    @command("HGET", kind=Hash)
    @command("ZSCORE", kind=Scores)
    def _look_up(self, key: bytes, name: bytes, *, kind: type[Hash | Scores]) -> Reply:
        return self._open(key, kind).get(name)

    @command("HMGET", kind=Hash)
    @command("ZMSCORE", kind=Scores)
    def _look_up_many(self, key: bytes, name: bytes, *more: bytes, kind: type[Hash | Scores]) -> Reply:
        held = self._open(key, kind)
        return [held.get(each) for each in (name, *more)]

    @command("HDEL", kind=Hash)
    @command("SREM", kind=Set)
    @command("ZREM", kind=Scores)
    def _remove(self, key: bytes, name: bytes, *more: bytes, kind: type[Hash | Set | Scores]) -> Reply:
        held = self._open(key, kind)
        gone = {name, *more} & set(held)
        for each in gone:
            held.remove(each) if isinstance(held, Set) else held.pop(each)
        self._keep(key, held)
        return len(gone)

    @command("HSCAN", kind=Hash)
    @command("SSCAN", kind=Set)
    @command("ZSCAN", kind=Scores)
    def _scan_within(self, key: bytes, cursor: bytes, *words: bytes, kind: type[Hash | Set | Scores]) -> Reply:
        held = self._open(key, kind)
        after, names = page(held, cursor, options(words, MATCH=1, COUNT=1))
        if isinstance(held, Set):
            return [after, names]
        values = (packed(held[name]).removesuffix(b".0") for name in names)
        return [after, [part for item in zip(names, values, strict=True) for part in item]]

    # Lists

    @command("LPUSH", left=True)
    @command("RPUSH", left=False)
    @command("LPUSHX", left=True, onto_nothing=False)
    @command("RPUSHX", left=False, onto_nothing=False)
    def _push(self, key: bytes, element: bytes, *more: bytes, left: bool, onto_nothing: bool = True) -> Reply:
        elements = self._open(key, List)
        if elements or onto_nothing:
            where = 0 if left else len(elements)
            elements[where:where] = (element, *more)[:: -1 if left else 1]
            self._keep(key, elements)
        return len(elements)

    @command("LPOP", left=True)
    @command("RPOP", left=False)
    def _pop(self, key: bytes, count: bytes | None = None, *, left: bool) -> Reply:
        size = 1 if count is None else natural(count)
        elements = self._open(key, List)
        if not elements:
            return None
        taken = elements[:size] if left else elements[::-1][:size]
        self._keep(key, List(elements[size:] if left else elements[: max(len(elements) - size, 0)]))
        return taken[0] if count is None else taken

    @command("LRANGE")
    def _lrange(self, key: bytes, start: bytes, stop: bytes) -> Reply:
        inside, elements = span(start, stop), self._open(key, List)
        return elements[inside(len(elements))]

    @command("LTRIM")
    def _ltrim(self, key: bytes, start: bytes, stop: bytes) -> Reply:
        self._keep(key, List(self._lrange(key, start, stop)))
        return b"OK"

    @command("LINDEX")
    def _lindex(self, key: bytes, index: bytes) -> Reply:
        elements = self._find(key, List)
        if elements is None or not -len(elements) <= (place := whole(index)) < len(elements):
            return None
        return elements[place]

    @command("LSET")
    def _lset(self, key: bytes, index: bytes, element: bytes) -> Reply:
        elements = self._open(key, List)
        if not elements:
            raise ResponseError("no such key")
        place = whole(index)
        if not -len(elements) <= place < len(elements):
            raise ResponseError("index out of range")
        elements[place] = element
        return b"OK"

    @command("LREM")
    def _lrem(self, key: bytes, count: bytes, element: bytes) -> Reply:
        limit, elements = whole(count), self._open(key, List)
        places = [place for place, each in enumerate(elements) if each == element]
        gone = set((places[::-1] if limit < 0 else places)[: abs(limit) or None])
        self._keep(key, List(each for place, each in enumerate(elements) if place not in gone))
        return len(gone)

    @command("LINSERT")
    def _linsert(self, key: bytes, where: bytes, pivot: bytes, element: bytes) -> Reply:
        after = {b"BEFORE": 0, b"AFTER": 1}.get(where.upper())
        if after is None:
            raise ResponseError(SYNTAX)
        elements = self._open(key, List)
        if pivot not in elements:
            return -1 if elements else 0
        elements.insert(elements.index(pivot) + after, element)
        return len(elements)

    @command("LPOS")
    def _lpos(self, key: bytes, element: bytes, *words: bytes) -> Reply:
        found = options(words, RANK=1, COUNT=1, MAXLEN=1)
        (rank,) = map(whole, found.get("RANK", [b"1"]))
        if rank == 0:
            raise ResponseError(
                "RANK can't be zero: use 1 to start from the first match, 2 from the second ... "
                "or use negative to start from the end of the list"
            )
        count, longest = (
            natural(found.get(name, [default])[0], f"{name} can't be negative")
            for name, default in (("COUNT", b"1"), ("MAXLEN", b"0"))
        )
        elements = self._open(key, List)
        places = range(len(elements))[:: 1 if rank > 0 else -1][: longest or None]
        matches = [place for place in places if elements[place] == element][abs(rank) - 1 :]
        if "COUNT" in found:
            return matches[: count or None]
        return matches[0] if matches else None

    @command("LMOVE")
    def _lmove(self, source: bytes, target: bytes, out: bytes, into: bytes) -> Reply:
        left = {b"LEFT": True, b"RIGHT": False}
        if not {out.upper(), into.upper()} <= left.keys():
            raise ResponseError(SYNTAX)
        if self._find(source, List) is None:
            return None
        self._find(target, List)
        element = self._pop(source, left=left[out.upper()])
        self._push(target, element, left=left[into.upper()])
        return element

    # Sets

    @command("SADD")
    def _sadd(self, key: bytes, member: bytes, *more: bytes) -> Reply:
        members = self._open(key, Set)
        before = len(members)
        members.update((member, *more))
        self._keep(key, members)
        return len(members) - before

    @command("SDIFF", combine=set.difference)
    @command("SINTER", combine=set.intersection)
    @command("SUNION", combine=set.union)
    def _combined(self, key: bytes, *more: bytes, combine: Callable[..., set[bytes]]) -> Reply:
        return list(combine(*(self._open(each, Set) for each in (key, *more))))

    @command("SDIFFSTORE", combine=set.difference)
    @command("SINTERSTORE", combine=set.intersection)
    @command("SUNIONSTORE", combine=set.union)
    def _store(self, target: bytes, key: bytes, *more: bytes, combine: Callable[..., set[bytes]]) -> Reply:
        members = Set(self._combined(key, *more, combine=combine))
        self._replace(target, members)
        return len(members)

    @command("SMISMEMBER")
    def _smismember(self, key: bytes, member: bytes, *more: bytes) -> Reply:
        members = self._open(key, Set)
        return [int(each in members) for each in (member, *more)]

    @command("SMOVE")
    def _smove(self, source: bytes, target: bytes, member: bytes) -> Reply:
        members = self._find(source, Set)
        if members is None:
            return 0
        self._find(target, Set)
        if member not in members:
            return 0
        self._remove(source, member, kind=Set)
        self._sadd(target, member)
        return 1

    @command("SPOP")
    def _spop(self, key: bytes, count: bytes | None = None) -> Reply:
        size = 1 if count is None else natural(count)
        members = self._open(key, Set)
        taken = random.sample([*members], min(size, len(members)))
        self._keep(key, Set(members.difference(taken)))
        return taken if count is not None else taken[0] if taken else None

    @command("SRANDMEMBER")
    def _srandmember(self, key: bytes, count: bytes | None = None) -> Reply:
        size = 1 if count is None else whole(count)
        members = [*self._open(key, Set)]
        if size < 0:
            taken = random.choices(members, k=-size) if members else []
        else:
            taken = random.sample(members, min(size, len(members)))
        return taken if count is not None else taken[0] if taken else None

    # Sorted sets

    @command("ZADD")
    def _zadd(self, key: bytes, score: bytes, member: bytes, *more: bytes) -> Reply:
        words = (score, member, *more)
        flags: set[bytes] = set()
        while words and words[0].upper() in {b"NX", b"XX", b"GT", b"LT", b"CH", b"INCR"}:
            flags.add(words[0].upper())
            words = words[1:]
        if not words or len(words) % 2:
            raise ResponseError(SYNTAX)
        if {b"NX", b"XX"} <= flags:
            raise ResponseError("XX and NX options at the same time are not compatible")
        if len(flags & {b"GT", b"LT", b"NX"}) > 1:
            raise ResponseError("GT, LT, and/or NX options at the same time are not compatible")
        if b"INCR" in flags and len(words) > 2:
            raise ResponseError("INCR option supports a single increment-element pair")
        wanted = [(name, real(number)) for number, name in pairs(words, "zadd")]
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

    @command("ZINCRBY")
    def _zincrby(self, key: bytes, delta: bytes, member: bytes) -> Reply:
        return self._zadd(key, b"INCR", delta, member)

    @command("ZCOUNT")
    def _zcount(self, key: bytes, low: bytes, high: bytes) -> Reply:
        return sum(map(between(low, high), self._open(key, Scores).values()))

    @command("ZRANK", reverse=False)
    @command("ZREVRANK", reverse=True)
    def _zrank(self, key: bytes, member: bytes, *words: bytes, reverse: bool) -> Reply:
        found = options(words, WITHSCORE=0)
        scores = self._open(key, Scores)
        if member not in scores:
            return None
        rank = scores.ranked(reverse=reverse).index((member, scores[member]))
        return [rank, scores[member]] if found else rank

    @command("ZRANGE")
    @command("ZREVRANGE", implied=(b"REV",))
    @command("ZRANGEBYSCORE", implied=(b"BYSCORE",))
    @command("ZREVRANGEBYSCORE", implied=(b"BYSCORE", b"REV"))
    def _zrange(self, key: bytes, start: bytes, stop: bytes, *words: bytes, implied: Sequence[bytes] = ()) -> Reply:
        found = options((*implied, *words), REV=0, BYSCORE=0, LIMIT=2, WITHSCORES=0)
        reverse = "REV" in found
        offset, count = map(whole, found.get("LIMIT", (b"0", b"-1")))
        if "BYSCORE" in found:
            fits = between(*(stop, start) if reverse else (start, stop))
            ranked = self._open(key, Scores).ranked(reverse=reverse)
            range_ = [pair for pair in ranked if fits(pair[1])][offset:] if offset >= 0 else []
            range_ = range_[:count] if count >= 0 else range_
        elif count != -1:
            raise ResponseError("syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX")
        else:
            inside = span(start, stop)
            ranked = self._open(key, Scores).ranked(reverse=reverse)
            range_ = ranked[inside(len(ranked))]
        return listed(range_, scores="WITHSCORES" in found)

    @command("ZREMRANGEBYSCORE", by=(b"BYSCORE",))
    @command("ZREMRANGEBYRANK")
    def _zremrange(self, key: bytes, start: bytes, stop: bytes, *, by: Sequence[bytes] = ()) -> Reply:
        members = self._zrange(key, start, stop, implied=by)
        return self._remove(key, *members, kind=Scores) if members else 0

    @command("ZPOPMIN", reverse=False)
    @command("ZPOPMAX", reverse=True)
    def _zpop(self, key: bytes, count: bytes | None = None, *, reverse: bool) -> Reply:
        size = 1 if count is None else natural(count)
        scores = self._open(key, Scores)
        taken = scores.ranked(reverse=reverse)[:size]
        for member, _ in taken:
            del scores[member]
        self._keep(key, scores)
        return listed(taken, scores=True) if count is not None else [*taken[0]] if taken else []


# The package's Lua scripts, in Python -----------------------------------------------------------

Equivalent: TypeAlias = Callable[[Database, Sequence[bytes], Sequence[bytes]], Reply]

SCRIPTS: dict[str, Equivalent] = {}


def equivalent(name: str) -> Callable[[Equivalent], Equivalent]:
    def enter(function: Equivalent) -> Equivalent:
        SCRIPTS[name] = function
        return function

    return enter


@equivalent("incr")
def incr(database: Database, keys: Sequence[bytes], args: Sequence[bytes]) -> Reply:
    (key,), (delta, default, milliseconds) = keys, args
    if not database.call("EXISTS", key):
        if not default:
            return None
        database.call("SET", key, default, *(("PX", milliseconds) if milliseconds else ()))
    database.call("INCRBY", key, delta)
    return database.call("GET", key)


@equivalent("swap")
def swap(database: Database, keys: Sequence[bytes], args: Sequence[bytes]) -> Reply:
    (key,), (old, new) = keys, args
    if database.call("GET", key) != old:
        return 0
    database.call("SET", key, new, "KEEPTTL")
    return 1


@equivalent("release")
def release(database: Database, keys: Sequence[bytes], args: Sequence[bytes]) -> Reply:
    (key,), (token,) = keys, args
    return database.call("DEL", key) if database.call("GET", key) == token else 0


@equivalent("extend")
def extend(database: Database, keys: Sequence[bytes], args: Sequence[bytes]) -> Reply:
    (key,), (token, milliseconds, replace) = keys, args
    if database.call("GET", key) != token:
        return 0
    left = max(database.call("PTTL", key), 0) if replace == b"0" else 0
    return database.call("PEXPIRE", key, left + int(milliseconds))


# The server -------------------------------------------------------------------------------------


def attempt(run: Callable[..., Reply], *arguments: object) -> Reply:
    """Return what *run* returns, or the refusal it raises."""
    try:
        return run(*arguments)
    except ResponseError as refusal:
        # The traceback would keep every reply of the batch alive.
        return refusal.with_traceback(None)


class Conversation:
    """The commands of one batch: run as they come, or held back from MULTI to EXEC."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: list[Callable[[], Reply]] | None = None
        self._spoiled = False

    def take(self, words: Sequence[bytes]) -> Reply:
        match words[0].upper(), self._queue:
            case b"MULTI", None:
                self._queue, self._spoiled = [], False
                return b"OK"
            case b"MULTI", _:
                self._spoiled = True
                raise ResponseError("Command 'multi' not allowed inside a transaction")
            case (b"EXEC" | b"DISCARD") as name, None:
                raise ResponseError(f"{name.decode()} without MULTI")
            case b"DISCARD", _:
                self._queue = None
                return b"OK"
            case b"EXEC", list(queue):
                self._queue = None
                if self._spoiled:
                    raise ExecAbortError("Transaction discarded because of previous errors.")
                return [attempt(call) for call in queue]
            case _, None:
                return self._database.prepare(words)()
            case _, list(queue):
                queue.append(self._prepared(words))
        return b"QUEUED"

    def _prepared(self, words: Sequence[bytes]) -> Callable[[], Reply]:
        try:
            return self._database.prepare(words)
        except ResponseError:
            self._spoiled = True
            raise


class MemoryServer:
    """One database of a server that lives in this process, and dies with it.

    *clock* tells the time in seconds; it stands still while a batch runs.
    """

    def __init__(self, name: str = "", *, clock: Callable[[], float] = time.time) -> None:
        self.address = f"memory://{name}"
        self._clock = clock
        self._lock = threading.Lock()
        self._database = Database()

    def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        batch = [[packed(part) for part in command] for command in commands]
        with self._lock:
            self._database.now = round(self._clock() * 1000)
            conversation = Conversation(self._database)
            return [attempt(conversation.take, words) for words in batch]

    tell = exchange

    def hear(self, told: list[Reply]) -> list[Reply]:
        return told

    async def aexchange(self, commands: Sequence[Command]) -> list[Reply]:
        return self.exchange(commands)

    def client(self) -> Any:
        raise NotImplementedError(
            f"{self.address}: a server in memory has no redis-py client. Use embedded:// for "
            f"a real server that nobody has to start."
        )


_servers: dict[str, MemoryServer] = {}


def memory_server(name: str) -> MemoryServer:
    """Return this process's server called *name*, the same one each time."""
    # setdefault() is one step, so two threads cannot get two servers.
    return _servers.setdefault(name, MemoryServer(name))
