"""Keyspaces: some keys, and a model of their contents that predicts what every operation returns.

An operation is a generator: it yields calls, is sent what they returned or raised, and compares that with the
model.  So it is the same for a blocking cache and for an awaited one.  A keyspace has a random generator of its
own, which goes with it from process to process, and no reply influences what is chosen; so a seed repeats the
operations on a keyspace.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from random import Random
from reprlib import Repr
from typing import Any
from uuid import UUID

from redis.exceptions import ResponseError
from tests.faces import AWAITING, Face

THEIRS, OURS = "django-redis", "fleetcache"

VARIANTS: dict[str, dict[str, Any]] = {
    "pickle": {},
    "zlib": {"COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor"},
    "json": {"SERIALIZER": "django_redis.serializers.json.JSONSerializer"},
}
"""OPTIONS of the caches; both packages understand the same names."""

TIMEOUT = 7200  # of the caches, longer than any test
EXACT = 2**53  # django-redis increments in Lua, which rounds greater integers
SLACK = 0.02  # seconds: the clock of a server stands still while it runs a command

Operation = Generator["Call", Any, None]
Address = tuple[str, int]
Members = dict[Any, float]

_short = Repr()
_short.maxstring = _short.maxother = 60
_short.maxlist = _short.maxdict = _short.maxset = 5


class Difference(AssertionError):
    """A reply that the model did not predict."""


@dataclass(frozen=True)
class Call:
    """A method to call: of the cache, or of the lock *on*."""

    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    on: Any = None

    async def on_face(self, cache: Face) -> Any:
        """Make the call, of *cache* or of the lock."""
        if self.method == "pause":
            return await pause(cache.face, *self.args)
        return await (self.on or cache).perform(self.method, *self.args, **self.kwargs)

    def __str__(self) -> str:
        words = [*map(_short.repr, self.args), *(f"{name}={_short.repr(value)}" for name, value in self.kwargs.items())]
        return f"{'lock.' if self.on is not None else ''}{self.method}({', '.join(words)})"


def call(method: str, /, *args: Any, **kwargs: Any) -> Call:
    return Call(method, args, kwargs)


async def pause(face: str, seconds: float) -> None:
    """Sleep, as a thread or as a task."""
    if face == AWAITING:
        await asyncio.sleep(seconds)
    else:
        time.sleep(seconds)


@dataclass
class Entry:
    """The content of a key, and the two moments between which it will expire; None means never."""

    kind: str
    content: Any
    until: tuple[float, float] | None = None


OPERATIONS: dict[str, int] = {}


def operation(weight: int) -> Callable[[Callable[..., Operation]], Callable[..., Operation]]:
    """Let a method be chosen *weight* times as often as one of weight 1."""

    def enter(method: Callable[..., Operation]) -> Callable[..., Operation]:
        OPERATIONS[method.__name__] = weight
        return method

    return enter


@cache
def reference(variant: str) -> Any:
    """Return a client of django-redis, which encodes and decodes values."""
    from django_redis.cache import RedisCache

    return RedisCache("redis://nowhere", {"OPTIONS": VARIANTS[variant]}).client


def text_of(value: Any) -> str:
    """Return *value* so that equal texts are equal values of equal types."""
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__} of {sorted(map(repr, value))}"
    return repr(value)


@dataclass
class Keyspace:
    """Some keys with a common prefix, the contents that the model has for them, and the history of calls."""

    name: str
    variant: str
    random: Random
    entries: dict[Address, Entry] = field(default_factory=dict)
    history: deque[str] = field(default_factory=lambda: deque(maxlen=400))
    turns: int = 0
    """How often a worker has taken the keyspace to work on it."""
    package: str = ""
    """The package that works on it now."""
    asked: float = 0.0
    answered: float = 0.0
    """When the last call began and ended."""

    # --- running operations -----------------------------------------------------------------------

    async def run(self, cache: Face, operation: Operation) -> None:
        """Run an *operation* of this keyspace on *cache*; raise a `Difference` with its history if a reply is wrong."""
        asked, outcome = call("nothing"), None
        try:
            while True:
                asked = operation.send(outcome)
                self.asked = time.time()
                try:
                    outcome = await asked.on_face(cache)
                except Exception as error:
                    outcome = error
                self.answered = time.time()
                self.record(asked, outcome)
        except StopIteration:
            return
        except Exception as error:
            raise Difference(self.explain(error, asked)) from error

    def choose(self) -> Operation:
        """Return a random operation."""
        (name,) = self.random.choices(list(OPERATIONS), tuple(OPERATIONS.values()))
        chosen: Operation = getattr(self, name)()
        return chosen

    def record(self, asked: Call, outcome: Any) -> None:
        """Add a call to the history."""
        self.history.append(f"{self.package}: {asked} -> {_short.repr(outcome)}")

    def check_all(self) -> Operation:
        """Read every key, and compare it with the model."""
        # A generator of its own, because the number of keys may depend on the member that SPOP chose.
        chance = Random(self.turns)
        found = yield call("keys", f"{self.name}:*")
        self.same(sorted(found), sorted(key for key, version in self.entries if version == 1))
        for version in sorted({version for _, version in self.entries}):
            here = {key: entry for (key, at), entry in self.entries.items() if at == version}
            values = {key: entry.content for key, entry in here.items() if entry.kind == "value"}
            self.same((yield call("get_many", [*values], version=version)), values)
            for key, entry in here.items():
                match entry.kind:
                    case "set":
                        self.same((yield call("smembers", key, version=version)), entry.content)
                    case "zset":
                        found = yield call("zrange", key, 0, -1, withscores=True, version=version)
                        self.same(found, self.ranked(entry.content))
                    case "hash" if self.package == OURS:
                        self.same_items((yield call("hgetall", key, version=version)), entry.content)
                    case "hash":
                        self.same(sorted((yield call("hkeys", key, version=version))), sorted(entry.content))
                if chance.random() < 0.2:
                    self.same_ttl((yield call("pttl", key, version=version)), entry, 1000)

    def explain(self, error: Exception, last: Call) -> str:
        """Return *error* with the history of the keys of the *last* call."""
        keys = [word for word in _words((last.args, last.kwargs)) if word.startswith(f"{self.name}:")]
        about = [*keys, "delete_pattern"] if keys else [""]
        lines = [line for line in self.history if any(word in line for word in about)]
        return "\n".join([f"{self.name}, after {self.turns} turns: {error}", *lines[-40:]])

    # --- comparing with the model -------------------------------------------------------------------------

    def same(self, found: Any, expected: Any) -> None:
        if text_of(found) != text_of(expected):
            raise Difference(f"expected {text_of(expected)[:300]}, found {text_of(found)[:300]}")

    def same_items(self, found: Any, expected: dict[Any, Any]) -> None:
        self.same(sorted(found.items(), key=repr), sorted(expected.items(), key=repr))

    def equal(self, found: Any, expected: Any) -> None:
        """Compare where django-redis says 1 and fleetcache True."""
        if isinstance(found, Exception) or found != expected:
            raise Difference(f"expected {expected!r}, found {found!r}")

    def raises(self, found: Any, kind: type[Exception]) -> None:
        if not isinstance(found, kind):
            raise Difference(f"expected {kind.__name__}, found {text_of(found)[:300]}")

    def holds(self, found: bool, what: str) -> None:
        if not found:
            raise Difference(what)

    def same_ttl(self, found: Any, entry: Entry | None, unit: int) -> None:
        """Compare a time to live, of which *unit* make a second."""
        if entry is None or entry.until is None:
            return self.same(found, 0 if entry is None else None)
        rounded = 0.5 + SLACK if unit == 1 else SLACK
        low, high = entry.until[0] - self.answered - rounded, entry.until[1] - self.asked + rounded
        self.holds(type(found) is int and low <= found / unit <= high, f"{found!r} is not in {low:.3f}..{high:.3f}")

    # --- the model, and random arguments ----------------------------------------------------------------------------

    def key(self, letter: str) -> str:
        return f"{self.name}:{letter}{self.random.randrange(5 if letter == 's' else 2)}"

    def any_key(self) -> str:
        return self.key(self.random.choice("sssshuz"))

    def version(self) -> dict[str, int]:
        return self.random.choice([{}, {}, {"version": 1}, {"version": 2}, {"version": 3}])

    def at(self, key: str, version: dict[str, int]) -> Address:
        return key, version.get("version", 1)

    def find(self, address: Address, kind: str) -> Any:
        """Return the content at *address*, or an empty one."""
        empty: dict[str, Callable[[], Any]] = {"hash": dict, "set": set, "zset": dict}
        return self.entries[address].content if address in self.entries else empty[kind]()

    def keep(self, address: Address, kind: str, content: Any) -> None:
        """Change the content at *address* and leave its lifetime; an empty structure is removed."""
        if not content:
            self.entries.pop(address, None)
        elif address in self.entries:
            self.entries[address].content = content
        else:
            self.entries[address] = Entry(kind, content)

    def put(self, address: Address, content: Any, timeout: Any) -> None:
        """Store a value as `set` would."""
        if timeout is not None and timeout <= 0:
            self.entries.pop(address, None)
        else:
            self.entries[address] = Entry("value", self.stored(content), self.until(timeout))

    def until(self, timeout: float | None) -> tuple[float, float] | None:
        return None if timeout is None else (self.asked + timeout, self.answered + timeout)

    def timeout(self) -> tuple[dict[str, Any], float | None]:
        """Return a timeout as an argument, and in seconds; a positive one ends after the test."""
        chosen = self.random.choice(["default", "default", None, 5000, 4000.5, 9000, 3600.25, 0, -1])
        return ({}, TIMEOUT) if chosen == "default" else ({"timeout": chosen}, chosen)

    def stored(self, value: Any) -> Any:
        """Return *value* as it is read back."""
        coder = reference(self.variant)
        return coder.decode(coder.encode(value))

    def payload(self, member: Any) -> bytes:
        found: bytes = reference(self.variant).encode(member, allow_int=False)
        return found

    def text(self) -> str:
        return "".join(self.random.choices("aZ5 ключ🔑\n\x00", k=self.random.choice([0, 1, 3, 12, 40, 300, 2000])))

    def moment(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.random.randrange(2**31), dt.UTC)

    def some(self, depth: int) -> list[Any]:
        return [self.value(depth + 1) for _ in range(self.random.randrange(4))]

    def value(self, depth: int = 0) -> Any:
        """Return a value of any kind that the serializer has."""
        chance = self.random
        constants: list[Any] = [None, True, False, 0, 1, -1, "", "42", "-7", float("inf"), 2.0, -0.0]
        numbers = [2**63 - 1, -(2**63), 2**70, 2**53, 1.5]
        kinds: list[Callable[[], Any]] = [
            lambda: chance.choice(constants),
            lambda: chance.choice(numbers),
            lambda: chance.randint(-9, 99),
            lambda: chance.randint(-(2**62), 2**62),
            lambda: Decimal(chance.randrange(999)) / 8,
            lambda: dt.timedelta(seconds=chance.randrange(10**6)),
            lambda: UUID(int=chance.getrandbits(128)),
            lambda: self.moment().replace(tzinfo=None),
            lambda: self.moment().date(),
            self.moment,
            self.text,
            chance.random,
        ]
        if self.variant != "json":
            others = [b"", b"5", b"\x78\x9c\x00", b"\x80\x04", {1, 2}, frozenset({3}), dt.time(1, 2, 3), 2j]
            kinds += [lambda: chance.choice(others), lambda: self.text().encode()]
        if depth < 3:
            kinds += [
                lambda: self.some(depth),
                lambda: tuple(self.some(depth)),
                lambda: {str(place): each for place, each in enumerate(self.some(depth))},
            ]
        return chance.choice(kinds)()

    def member(self) -> Any:
        """Return one of few values that are hashable, and all different however they are compared."""
        same = [5, -7, 2**70, "text", "42", 2.5, True, None, "x" * 100, *(f"m{number}" for number in range(6))]
        return self.random.choice(
            same if self.variant == "json" else [*same, b"bytes", (2, "a"), dt.date(2026, 11, 23)]
        )

    def ranked(self, members: Members) -> list[tuple[Any, float]]:
        return sorted(members.items(), key=lambda item: (item[1], self.payload(item[0])))

    def score(self) -> Any:
        return self.random.choice([0, 1, 2, 2.5, -1, -3.25, 10, 1e17, 0.1])

    # --- values -----------------------------------------------------------------------------------

    @operation(12)
    def getting(self) -> Operation:
        key, version = self.any_key() if self.random.random() < 0.1 else self.key("s"), self.version()
        return self.comparing(key, version)

    def comparing(self, key: str, version: dict[str, int]) -> Operation:
        found = yield call("get", key, "missing", **version)
        entry = self.entries.get(self.at(key, version))
        if entry is None:
            self.same(found, "missing")
        elif entry.kind == "value":
            self.same(found, entry.content)
        else:
            self.raises(found, ResponseError)

    @operation(6)
    def getting_many(self) -> Operation:
        keys, version = [f"{self.name}:{rest}" for rest in ("s0", "s3", "s1", "h0", "s2", "none", "s4")], self.version()
        found = yield call("get_many", keys, **version)
        entries = {key: self.entries[self.at(key, version)] for key in keys if self.at(key, version) in self.entries}
        self.same(found, {key: entry.content for key, entry in entries.items() if entry.kind == "value"})

    @operation(14)
    def setting(self) -> Operation:
        key, version, value, (given, timeout) = self.key("s"), self.version(), self.value(), self.timeout()
        condition = self.random.choice([{}, {}, {}, {"nx": True}, {"xx": True}])
        address = self.at(key, version)
        there = address in self.entries
        stored = yield call("set", key, value, **given, **version, **condition)
        deletes = timeout is not None and timeout <= 0
        if "nx" in condition:
            self.equal(stored, not there)
            if there or deletes:
                return
        elif deletes:
            self.equal(stored, there)
        else:
            self.equal(stored, "xx" not in condition or there)
            if not stored:
                return
        self.put(address, value, timeout)

    @operation(6)
    def adding(self) -> Operation:
        key, version, value, (given, timeout) = self.key("s"), self.version(), self.value(), self.timeout()
        address = self.at(key, version)
        there = address in self.entries
        self.equal((yield call("add", key, value, **given, **version)), not there)
        if not there:
            self.put(address, value, timeout)

    @operation(5)
    def getting_or_setting(self) -> Operation:
        key, version, value, (given, timeout) = self.key("s"), self.version(), self.value(), self.timeout()
        address = self.at(key, version)
        entry = self.entries.get(address)
        found = yield call("get_or_set", key, Maker(value), **given, **version)
        if entry is not None:
            return self.same(found, entry.content)
        deletes = timeout is not None and timeout <= 0
        # The caller that made the value is given it as it was made, or as it is read back.
        self.holds(
            text_of(found) in {text_of(value), text_of(self.stored(value))}, f"expected {value!r}, found {found!r}"
        )
        if not deletes:
            self.put(address, value, timeout)

    @operation(5)
    def setting_many(self) -> Operation:
        data, version, (given, timeout) = (
            {self.key("s"): self.value() for _ in range(4)},
            self.version(),
            self.timeout(),
        )
        self.same((yield call("set_many", data, **given, **version)), [] if self.package == OURS else None)
        for key, value in data.items():
            self.put(self.at(key, version), value, timeout)

    @operation(5)
    def deleting(self) -> Operation:
        key, version = self.any_key(), self.version()
        there = self.entries.pop(self.at(key, version), None) is not None
        self.equal((yield call("delete", key, **version)), there)

    @operation(2)
    def deleting_many(self) -> Operation:
        keys, version = dict.fromkeys(self.any_key() for _ in range(4)), self.version()
        gone = [self.entries.pop(self.at(key, version), None) for key in keys]
        self.equal((yield call("delete_many", list(keys), **version)), len(gone) - gone.count(None))

    @operation(1)
    def deleting_pattern(self) -> Operation:
        which, version = self.random.choice(["s", "s[12]", "h", "u", "z"]), self.version()
        letter, numbers = which[0], "12" if "[" in which else "01234"
        gone = {at for at in self.entries if at in {self.at(f"{self.name}:{letter}{n}", version) for n in numbers}}
        found = yield call("delete_pattern", f"{self.name}:{which}*", itersize=self.random.choice([None, 5]), **version)
        # A key that SCAN brings twice is counted twice by django-redis, and deleted once.
        self.holds(
            found == len(gone) or (self.package == THEIRS and found > len(gone)), f"{found} of {len(gone)} deleted"
        )
        for address in gone:
            del self.entries[address]

    @operation(3)
    def checking_keys(self) -> Operation:
        key, version = self.any_key(), self.version()
        self.same((yield call("has_key", key, **version)), self.at(key, version) in self.entries)

    @operation(2)
    def listing_keys(self) -> Operation:
        version, which = self.version(), self.random.choice(["*", "s*", "?0", "[hz]*"])
        found = yield call(self.random.choice(["keys", "iter_keys"]), f"{self.name}:{which}", **version)
        letters = {"*": "shuzlb", "s*": "s", "?0": "shuzlb", "[hz]*": "hz"}[which]
        there = {key for key, at in self.entries if at == version.get("version", 1) and key[-2] in letters}
        self.same(set(found), {key for key in there if which != "?0" or key.endswith("0")})

    # --- counters ---------------------------------------------------------------------------------

    @operation(8)
    def counting(self) -> Operation:
        key, version, delta = self.key("s"), self.version(), self.random.choice([1, 1, 5, -3, 0, 2**40])
        method, address = self.random.choice(["incr", "incr", "decr"]), self.at(key, version)
        anyway = {"ignore_key_check": True} if method == "incr" and self.random.random() < 0.3 else {}
        found = yield call(method, key, delta, **version, **anyway)
        entry = self.entries.get(address)
        change = -delta if method == "decr" else delta
        if entry is None and not anyway:
            return self.raises(found, ValueError)
        try:
            total = (0 if entry is None else entry.content) + change
        except TypeError:
            return self.raises(found, TypeError)
        if abs(total) <= EXACT or self.package == OURS:
            self.same(found, total)
        self.keep_counting(address, total)

    def keep_counting(self, address: Address, total: Any) -> None:
        entry = self.entries.setdefault(address, Entry("value", 0))
        small = type(entry.content) is int and -(2**63) <= total < 2**63 and -(2**63) <= entry.content < 2**63
        entry.content = self.stored(total)
        if not small and entry.until is not None and self.package == THEIRS:
            self.rounded(entry)

    def rounded(self, entry: Entry) -> None:
        """Allow for the way django-redis keeps a lifetime: it reads it in seconds, and sets it anew."""
        if entry.until is not None:
            low, high = entry.until
            entry.until = low - 0.6, high + 0.6 + (self.answered - self.asked)

    # --- versions and lifetimes -------------------------------------------------------------------

    @operation(4)
    def changing_versions(self) -> Operation:
        key, version, delta = self.key("s"), self.version(), self.random.choice([1, 1, 2])
        method, (_, old) = self.random.choice(["incr_version", "decr_version"]), self.at(key, version)
        new = old + delta if method == "incr_version" else old - delta
        found = yield call(method, key, delta, **version)
        entry = self.entries.get((key, old))
        # django-redis moves no stored None to another version.
        if entry is None or (entry.content is None and self.package == THEIRS):
            return self.raises(found, ValueError)
        self.equal(found, new)
        if self.package == THEIRS:
            self.rounded(entry)
        self.entries[key, new] = self.entries.pop((key, old))

    @operation(5)
    def touching(self) -> Operation:
        key, version, (given, timeout) = self.any_key(), self.version(), self.timeout()
        touched = yield call("touch", key, **given, **version)
        self.new_lifetime(touched, self.at(key, version), self.until(timeout))

    @operation(4)
    def changing_lifetimes(self) -> Operation:
        key, version, seconds = self.any_key(), self.version(), self.random.choice([4000, 8000, 0, -1])
        method = self.random.choice(["expire", "pexpire", "expire_at", "pexpire_at"])
        if not method.endswith("_at"):
            found = yield call(method, key, seconds * (1000 if method[0] == "p" else 1), **version)
            return self.new_lifetime(found, self.at(key, version), self.until(seconds))
        moment = int(self.answered) + seconds
        when = dt.datetime.fromtimestamp(moment, dt.UTC)
        number = moment * (1000 if method[0] == "p" else 1)
        found = yield call(method, key, self.random.choice([when, number]), **version)
        self.new_lifetime(found, self.at(key, version), (moment, moment))

    def new_lifetime(self, found: Any, address: Address, until: tuple[float, float] | None) -> None:
        """Let the entry end *until* then, which may be past; compare the reply."""
        entry = self.entries.get(address)
        self.equal(found, entry is not None and (until is not None or entry.until is not None))
        if entry is None:
            return
        if until is not None and until[0] <= self.answered:
            del self.entries[address]
        else:
            entry.until = until

    @operation(2)
    def persisting(self) -> Operation:
        key, version = self.any_key(), self.version()
        self.new_lifetime((yield call("persist", key, **version)), self.at(key, version), None)

    @operation(6)
    def reading_lifetimes(self) -> Operation:
        key, version = self.any_key(), self.version()
        method, unit = self.random.choice([("ttl", 1), ("pttl", 1000)])
        self.same_ttl((yield call(method, key, **version)), self.entries.get(self.at(key, version)), unit)

    @operation(1)
    def expiring_at_once(self) -> Operation:
        """Store a value for 10 ms, and read it after that."""
        key, value = f"{self.name}:b0", self.value()
        self.equal((yield call("set", key, value, 0.01)), True)
        yield call("pause", 0.012)
        self.same((yield call("get", key, "missing")), "missing")
        self.equal((yield call("add", key, value, 0.01)), True)
        yield call("pause", 0.012)
        self.same((yield call("has_key", key)), False)

    # --- hashes -----------------------------------------------------------------------------------

    @operation(8)
    def hashes(self) -> Operation:
        key, version, chance = self.key("h"), self.version(), self.random
        address = self.at(key, version)
        fields = dict(self.find(address, "hash"))
        name = chance.choice(["a", "b", "ключ", "5"])
        match chance.randrange(6):
            case 0:
                # django-redis refuses a None here.
                value = self.value() or "something"
                self.equal((yield call("hset", key, name, value, **version)), int(name not in fields))
                self.keep(address, "hash", fields | {name: self.stored(value)})
            case 1:
                some = {each: self.value() for each in chance.sample(["a", "b", "c", "d"], 2)}
                found = yield call("hset", key, mapping=some, **version)
                self.equal(found, len(some.keys() - fields.keys()))
                self.keep(address, "hash", fields | {each: self.stored(value) for each, value in some.items()})
            case 2:
                self.equal((yield call("hdel", key, name, **version)), int(name in fields))
                self.keep(address, "hash", {each: value for each, value in fields.items() if each != name})
            case 3:
                self.equal((yield call("hlen", key, **version)), len(fields))
            case 4:
                self.equal((yield call("hexists", key, name, **version)), name in fields)
            case _ if self.package == OURS:
                self.same_items((yield call("hgetall", key, **version)), fields)
                self.same((yield call("hget", key, name, **version)), fields.get(name))
            case _:
                self.same(sorted((yield call("hkeys", key, **version))), sorted(fields))

    # --- sets -------------------------------------------------------------------------------------

    @operation(12)
    def sets(self) -> Operation:
        key, other, version, chance = self.key("u"), self.key("u"), self.version(), self.random
        address = self.at(key, version)
        members = set(self.find(address, "set"))
        some = [self.member() for _ in range(3)]
        match chance.randrange(9):
            case 0 | 1:
                self.equal((yield call("sadd", key, *some, **version)), len({*some} - members))
                self.keep(address, "set", members | {*some})
            case 2:
                self.equal((yield call("srem", key, *some, **version)), len({*some} & members))
                self.keep(address, "set", members - {*some})
            case 3:
                self.same((yield call("smembers", key, **version)), members)
                self.equal((yield call("scard", key, **version)), len(members))
            case 4:
                self.same((yield call("sismember", key, some[0], **version)), some[0] in members)
                found = yield call("smismember", key, *some, **version)
                self.same(found, [member in members for member in some])
            case 5:
                found = yield call("spop", key, **version)
                self.holds(found in members if members else found is None, f"{found!r} was popped of {members}")
                self.keep(address, "set", members - {found})
            case 6:
                self.holds({*(yield call("srandmember", key, 2, **version))} <= members, f"not all of {members}")
                found = yield call("sscan", key, **version)
                # django-redis reads one page of it.
                self.holds(found == members or (self.package == THEIRS and found < members), f"{found} of {members}")
            case 7:
                self.same({*(yield call("sscan_iter", key, **version))}, members)
            case _:
                # With a version, django-redis moves to another.
                target = self.at(other, {})
                members, there = set(self.find((key, 1), "set")), set(self.find(target, "set"))
                self.same((yield call("smove", key, other, some[0])), some[0] in members)
                if some[0] in members and key != other:
                    self.keep((key, 1), "set", members - {some[0]})
                    self.keep(target, "set", there | {some[0]})

    @operation(4)
    def combining_sets(self) -> Operation:
        how, chance, version = self.random.choice(["diff", "inter", "union"]), self.random, self.version()
        keys = [self.key("u"), self.key("u")]
        one, two = (set(self.find(self.at(key, version), "set")) for key in keys)
        combined = {"diff": one - two, "inter": one & two, "union": one | two}[how]
        if chance.random() < 0.5:
            return self.same((yield call(f"s{how}", *keys, **version)), combined)
        target = self.key("u")
        versions = {f"version_{of}": number for of in ("dest", "keys") for number in version.values()}
        found = yield call(f"s{how}store", target, *keys, **(versions if how == "diff" else version))
        self.equal(found, len(combined))
        self.entries.pop(self.at(target, version), None)
        self.keep(self.at(target, version), "set", combined)

    # --- sorted sets ------------------------------------------------------------------------------

    @operation(5)
    def adding_scores(self) -> Operation:
        key, version, chance = self.key("z"), self.version(), self.random
        address = self.at(key, version)
        members = dict(self.find(address, "zset"))
        flags = chance.choice(
            ["", "", "", "nx", "xx", "gt", "lt", "ch", "ch xx", "gt ch", "incr", "incr xx", "incr nx"]
        )
        words = dict.fromkeys(flags.split(), True)
        given = {self.member(): self.score() for _ in range(1 if "incr" in words else 3)}
        found = yield call("zadd", key, given, **words, **version)
        new = changed = 0
        total = None
        for member, score in given.items():
            before, after = members.get(member), float(score)
            if "incr" in words:
                after += before or 0.0
            if before is None:
                allowed = "xx" not in words
            else:
                allowed = not (
                    "nx" in words or ("gt" in words and after <= before) or ("lt" in words and after >= before)
                )
            if allowed:
                total = members[member] = after
                new += before is None
                changed += before != after
        self.same(found, total if "incr" in words else changed if "ch" in words else new)
        self.keep(address, "zset", members)

    @operation(10)
    def using_scores(self) -> Operation:
        key, version, chance = self.key("z"), self.version(), self.random
        address, member, score = self.at(key, version), self.member(), self.score()
        members = dict(self.find(address, "zset"))
        ranked = self.ranked(members)
        low, high = sorted([chance.randrange(-3, 6), chance.randrange(-3, 12)])
        within = [pair for pair in ranked if low <= pair[1] <= high]
        match chance.randrange(10):
            case 0:
                members[member] = members.get(member, 0.0) + score
                self.same((yield call("zincrby", key, score, member, **version)), members[member])
            case 1:
                self.equal((yield call("zrem", key, member, "never there", **version)), int(member in members))
                members.pop(member, None)
            case 2:
                lowest = chance.random() < 0.5
                found = yield call("zpopmin" if lowest else "zpopmax", key, **version)
                self.same(found, (ranked[0] if lowest else ranked[-1]) if ranked else None)
                members = dict(ranked[1:] if lowest else ranked[:-1])
            case 3:
                desc, count = chance.random() < 0.5, chance.randrange(4)
                found = yield call("zrange", key, 0, count, desc=desc, withscores=True, **version)
                self.same(found, ranked[:: -1 if desc else 1][: count + 1])
            case 4:
                found = yield call("zrevrange", key, 1, -1, **version)
                self.same(found, [each for each, _ in ranked[::-1][1:]])
            case 5:
                found = yield call("zrangebyscore", key, low, high, withscores=True, **version)
                self.same(found, within)
                found = yield call("zrevrangebyscore", key, high, low, start=1, num=2, **version)
                self.same(found, [each for each, _ in within[::-1][1:3]])
            case 6:
                found = yield call("zrank", key, member, **version)
                self.same(found, [each for each, _ in ranked].index(member) if member in members else None)
            case 7:
                self.equal((yield call("zremrangebyscore", key, low, high, **version)), len(within))
                members = {each: score for each, score in members.items() if not low <= score <= high}
            case 8:
                self.equal(
                    (yield call("zcount", key, low, f"({high}", **version)), sum(pair[1] < high for pair in within)
                )
                self.equal((yield call("zcard", key, **version)), len(members))
            case _:
                self.same((yield call("zscore", key, member, **version)), members.get(member))
        self.keep(address, "zset", members)

    # --- locks ------------------------------------------------------------------------------------

    @operation(4)
    def locking(self) -> Operation:
        """Take a lock, which an earlier worker may have left held, and perhaps leave it held."""
        key, chance = self.key("l"), self.random
        entry = self.entries.get((key, 1))
        lock = yield call("lock", key, timeout=5000, blocking=False)
        self.same((yield Call("locked", (), {}, lock)), entry is not None)
        token = f"token{chance.getrandbits(32)}"
        self.same((yield Call("acquire", (), {"token": token}, lock)), entry is None)
        if entry is None:
            entry = self.entries[key, 1] = Entry("lock", token, self.until(5000))
        else:
            # The holder of a lock is the one that knows its token.
            lock.local.token = entry.content.encode()
        self.same((yield Call("owned", (), {}, lock)), True)
        if chance.random() < 0.3:
            self.same((yield Call("reacquire", (), {}, lock)), True)
            entry.until = self.until(5000)
        if chance.random() < 0.6:
            yield Call("release", (), {}, lock)
            self.same((yield Call("locked", (), {}, lock)), False)
            del self.entries[key, 1]


@dataclass(frozen=True)
class Maker:
    """A callable that makes a value, with a repr for the history."""

    value: Any

    def __call__(self) -> Any:
        return self.value


def _words(found: Any) -> list[str]:
    """Return all strings within *found*."""
    if isinstance(found, str):
        return [found]
    if isinstance(found, dict):
        return _words([*found, *found.values()])
    if isinstance(found, (list, tuple, set)):
        return [word for each in found for word in _words(each)]
    return []
