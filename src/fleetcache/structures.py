"""Hashes, sets, sorted sets and lists.

Fields of hashes are plain text.  Values and members are encoded as cache values are, integers as
digits.  Members of sorted sets are the exception: they are always serialised, as in django-redis.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

from redis.exceptions import DataError

from fleetcache import commands as c
from fleetcache.codec.compressors import IdentityCompressor
from fleetcache.core import MISSING, Core
from fleetcache.exchange.contract import Command, Reply, Verb
from fleetcache.twin import blocking, iterating

Score = float | int | str
Cast = Callable[[Any], Any]


class Structure(Core):
    """The steps that operations on sets and lists share."""

    async def _give(self, verb: Verb, key: Any, values: tuple[Any, ...], version: Any, client: Any) -> int:
        """Send *verb* with the name and *values*, and return the count that the server answers."""
        payloads = await self.encoded(values)
        return int(await self.ask((verb, self.name(key, version), *payloads), 0, client))

    async def _take(self, verb: Verb, key: Any, count: int | None, version: Any, client: Any) -> Any:
        """Return one value, None if there is none; with *count* a list of at most *count* values."""
        name = self.name(key, version)
        if count is not None:
            return self._decoded_all(await self.ask((verb, name, count), None, client) or (), name)
        return self._value(await self.ask((verb, name), None, client), name)


class Hashes(Core):
    """Hashes: an entry of named fields."""

    async def ahset(
        self,
        key: Any,
        field: Any = None,
        value: Any = None,
        mapping: Mapping[Any, Any] | None = None,
        version: Any = None,
        client: Any = None,
    ) -> int:
        """Set *field*, or all fields of *mapping*; return how many are new."""
        fields = {} if field is None else {field: value}
        fields.update(mapping or {})
        if not fields:
            raise DataError("hset needs a field and its value, or a mapping of some")
        payloads = await self.encoded(fields.values())
        pairs = [part for pair in zip(fields, payloads, strict=True) for part in pair]
        return int(await self.ask((c.HSET, self.name(key, version), *pairs), 0, client))

    hset = blocking(ahset)

    async def ahsetnx(self, key: Any, field: Any, value: Any, version: Any = None, client: Any = None) -> bool:
        """Set *field* if there is none of that name; return whether it was set."""
        (payload,) = await self.encoded((value,))
        return bool(await self.ask((c.HSETNX, self.name(key, version), field, payload), False, client))

    hsetnx = blocking(ahsetnx)

    async def ahget(self, key: Any, field: Any, default: Any = None, version: Any = None, client: Any = None) -> Any:
        """Return the value of *field*, or *default*."""
        name = self.name(key, version)
        return self._value(await self.ask((c.HGET, name, field), None, client), name, default)

    hget = blocking(ahget)

    async def ahmget(self, key: Any, fields: Iterable[Any], version: Any = None, client: Any = None) -> list[Any]:
        """Return the values of *fields* in their order, None for each missing one."""
        name, fields = self.name(key, version), list(fields)
        if not fields:
            return []
        payloads = await self.ask((c.HMGET, name, *fields), [None] * len(fields), client)
        return [self._value(payload, name) for payload in payloads]

    hmget = blocking(ahmget)

    async def ahgetall(self, key: Any, version: Any = None, client: Any = None) -> dict[str, Any]:
        """Return all fields with their values."""
        name = self.name(key, version)
        reply = await self.ask((c.HGETALL, name), {}, client)
        pairs = reply.items() if isinstance(reply, dict) else _pairs(reply)
        values = {field.decode(errors="replace"): self.decoded(payload, name) for field, payload in pairs}
        return {field: value for field, value in values.items() if value is not MISSING}

    hgetall = blocking(ahgetall)

    async def ahvals(self, key: Any, version: Any = None, client: Any = None) -> list[Any]:
        """Return the values of all fields."""
        name = self.name(key, version)
        return self._decoded_all(await self.ask((c.HVALS, name), [], client), name)

    hvals = blocking(ahvals)

    async def ahkeys(self, key: Any, version: Any = None, client: Any = None) -> list[str]:
        """Return the names of all fields."""
        return [
            field.decode(errors="replace") for field in await self.ask((c.HKEYS, self.name(key, version)), [], client)
        ]

    hkeys = blocking(ahkeys)

    async def ahlen(self, key: Any, version: Any = None, client: Any = None) -> int | None:
        """Return how many fields there are."""
        return _number(await self.ask((c.HLEN, self.name(key, version)), None, client))

    hlen = blocking(ahlen)

    async def ahexists(self, key: Any, field: Any, version: Any = None, client: Any = None) -> bool:
        """Return whether *field* is there."""
        return bool(await self.ask((c.HEXISTS, self.name(key, version), field), False, client))

    hexists = blocking(ahexists)

    async def ahdel(self, key: Any, field: Any, version: Any = None, client: Any = None) -> int:
        """Remove *field*, or a list of fields, and return how many existed."""
        fields = field if isinstance(field, (list, tuple)) else (field,)
        return int(await self.ask((c.HDEL, self.name(key, version), *fields), 0, client))

    hdel = blocking(ahdel)

    async def ahincrby(
        self, key: Any, field: Any, amount: int = 1, version: Any = None, client: Any = None
    ) -> int | None:
        """Add *amount* to the integer in *field*, which counts as 0 if it is missing; return the sum."""
        return _number(await self.ask((c.HINCRBY, self.name(key, version), field, amount), None, client))

    hincrby = blocking(ahincrby)


class Sets(Structure):
    """Sets of hashable values."""

    async def asadd(self, key: Any, *values: Any, version: Any = None, client: Any = None) -> int:
        """Add *values*, and return how many are new."""
        return await self._give(c.SADD, key, values, version, client)

    sadd = blocking(asadd)

    async def asrem(self, key: Any, *members: Any, version: Any = None, client: Any = None) -> int:
        """Remove *members*, and return how many existed."""
        return await self._give(c.SREM, key, members, version, client)

    srem = blocking(asrem)

    async def ascard(self, key: Any, version: Any = None, client: Any = None) -> int | None:
        """Return how many members there are."""
        return _number(await self.ask((c.SCARD, self.name(key, version)), None, client))

    scard = blocking(ascard)

    async def asmembers(self, key: Any, version: Any = None, client: Any = None) -> Any:
        """Return the set of all members."""
        return await self._combine(c.SMEMBERS, (key,), version, client)

    smembers = blocking(asmembers)

    async def asdiff(self, *keys: Any, version: Any = None, client: Any = None) -> Any:
        """Return the set of the members of the first set that are in no other."""
        return await self._combine(c.SDIFF, keys, version, client)

    sdiff = blocking(asdiff)

    async def asinter(self, *keys: Any, version: Any = None, client: Any = None) -> Any:
        """Return the set of the members that are in every set."""
        return await self._combine(c.SINTER, keys, version, client)

    sinter = blocking(asinter)

    async def asunion(self, *keys: Any, version: Any = None, client: Any = None) -> Any:
        """Return the set of the members that are in any set."""
        return await self._combine(c.SUNION, keys, version, client)

    sunion = blocking(asunion)

    async def _combine(self, verb: Verb, keys: tuple[Any, ...], version: Any, client: Any) -> Any:
        names = self._names(keys, version)
        self._together(names, verb.decode())
        return {*self._decoded_all(await self.ask((verb, *names), (), client), names[0])}

    async def asdiffstore(
        self, dest: Any, *keys: Any, version_dest: Any = None, version_keys: Any = None, client: Any = None
    ) -> int | None:
        """Store the result of `sdiff` as *dest*, and return the number of its members."""
        return await self._store(c.SDIFFSTORE, dest, keys, version_dest, version_keys, client)

    sdiffstore = blocking(asdiffstore)

    async def asinterstore(self, dest: Any, *keys: Any, version: Any = None, client: Any = None) -> int | None:
        """Store the result of `sinter` as *dest*, and return the number of its members."""
        return await self._store(c.SINTERSTORE, dest, keys, version, version, client)

    sinterstore = blocking(asinterstore)

    async def asunionstore(self, destination: Any, *keys: Any, version: Any = None, client: Any = None) -> int | None:
        """Store the result of `sunion` as *destination*, and return the number of its members."""
        return await self._store(c.SUNIONSTORE, destination, keys, version, version, client)

    sunionstore = blocking(asunionstore)

    async def _store(
        self, verb: Verb, dest: Any, keys: tuple[Any, ...], version_dest: Any, version_keys: Any, client: Any
    ) -> int | None:
        names = [self.name(dest, version_dest), *self._names(keys, version_keys)]
        self._together(names, verb.decode())
        return _number(await self.ask((verb, *names), None, client))

    async def asismember(self, key: Any, member: Any, version: Any = None, client: Any = None) -> bool:
        """Return whether *member* is in the set."""
        return bool(await self._give(c.SISMEMBER, key, (member,), version, client))

    sismember = blocking(asismember)

    async def asmismember(self, key: Any, *members: Any, version: Any = None, client: Any = None) -> list[bool]:
        """Return for each of *members* whether it is in the set."""
        payloads = await self.encoded(members)
        replies = await self.ask((c.SMISMEMBER, self.name(key, version), *payloads), [0] * len(members), client)
        return [bool(reply) for reply in replies]

    smismember = blocking(asmismember)

    async def asmove(self, source: Any, destination: Any, member: Any, version: Any = None, client: Any = None) -> bool:
        """Move *member* from one set to another, and return whether it was in the first."""
        names = self._names((source, destination), version)
        self._together(names, "SMOVE")
        (payload,) = await self.encoded((member,))
        return bool(await self.ask((c.SMOVE, *names, payload), False, client))

    smove = blocking(asmove)

    async def aspop(self, key: Any, count: int | None = None, version: Any = None, client: Any = None) -> Any:
        """Remove and return a random member, None if there is none; with *count* a set of at most that many."""
        values = await self._take(c.SPOP, key, count, version, client)
        return values if count is None else {*values}

    spop = blocking(aspop)

    async def asrandmember(self, key: Any, count: int | None = None, version: Any = None, client: Any = None) -> Any:
        """Return a random member, None if there is none; with *count* a list, as `SRANDMEMBER` returns it."""
        return await self._take(c.SRANDMEMBER, key, count, version, client)

    srandmember = blocking(asrandmember)

    async def asscan(
        self, key: Any, match: str | None = None, count: int | None = 10, version: Any = None, client: Any = None
    ) -> Any:
        """Return the set of all members, read by `SSCAN` in steps of about *count*.

        *match* is encoded as a member is, and then used as a glob pattern.
        """
        await self._runtime.alone()
        return {member async for member in self.asscan_iter(key, match, count, version, client)}

    sscan = blocking(asscan)

    async def asscan_iter(
        self, key: Any, match: str | None = None, count: int | None = 10, version: Any = None, client: Any = None
    ) -> AsyncIterator[Any]:
        """Yield the members, read by `SSCAN` page by page; a member may come twice."""
        if match and not isinstance(self.codec.compressor, IdentityCompressor):
            raise ValueError("Using match with compression is not supported.")
        name = self.name(key, version)
        pattern = ("MATCH", *await self.encoded((match,))) if match else ()
        size = ("COUNT", count) if count is not None else ()
        cursor, pages = 0, c.Round()
        while True:
            at, payloads = await self.ask((c.SSCAN, name, cursor, *pattern, *size), (0, []), client)
            for member in self._decoded_all(payloads, name):
                yield member
            if not (cursor := int(at)) or not self._goes_on(pages, cursor):
                return

    sscan_iter = iterating(asscan_iter)


class SortedSets(Core):
    """Sets ordered by a score."""

    async def azadd(
        self,
        key: Any,
        mapping: Mapping[Any, float],
        nx: bool = False,
        xx: bool = False,
        ch: bool = False,
        incr: bool = False,
        gt: bool = False,
        lt: bool = False,
        version: Any = None,
        client: Any = None,
    ) -> Any:
        """Set the scores of *mapping*, and return how many members are new (with *ch*: or changed).

        *nx*: only new members; *xx*: only existing ones; *gt*, *lt*: only if the score grows or falls.
        *incr*: add to one member's score, and return the sum, or None if another condition forbids it.
        """
        if not mapping:
            raise DataError("zadd needs at least one member with its score")
        if nx and (xx or gt or lt):
            raise DataError("zadd allows 'nx' with none of 'xx', 'gt', 'lt'")
        if gt and lt:
            raise DataError("zadd allows either 'gt' or 'lt'")
        if incr and len(mapping) != 1:
            raise DataError("zadd with incr takes a single member")
        switches = {"NX": nx, "XX": xx, "GT": gt, "LT": lt, "CH": ch, "INCR": incr}
        members = await self.encoded(mapping, integers=False)
        pairs = [part for pair in zip(mapping.values(), members, strict=True) for part in pair]
        command = (c.ZADD, self.name(key, version), *(word for word, on in switches.items() if on), *pairs)
        reply = await self.ask(command, None if incr else 0, client)
        return _score(reply) if incr else int(reply)

    zadd = blocking(azadd)

    async def azcard(self, key: Any, version: Any = None, client: Any = None) -> int | None:
        """Return how many members there are."""
        return _number(await self.ask((c.ZCARD, self.name(key, version)), None, client))

    zcard = blocking(azcard)

    async def azcount(self, key: Any, min: Score, max: Score, version: Any = None, client: Any = None) -> int | None:
        """Return how many scores lie from *min* to *max*; ``"(1"`` excludes 1."""
        return _number(await self.ask((c.ZCOUNT, self.name(key, version), min, max), None, client))

    zcount = blocking(azcount)

    async def azincrby(
        self, key: Any, amount: float, value: Any, version: Any = None, client: Any = None
    ) -> float | None:
        """Add *amount* to the score of *value*, and return the sum."""
        (member,) = await self.encoded((value,), integers=False)
        return _score(await self.ask((c.ZINCRBY, self.name(key, version), amount, member), None, client))

    zincrby = blocking(azincrby)

    async def azpopmax(self, key: Any, count: int | None = None, version: Any = None, client: Any = None) -> Any:
        """Remove and return the member of the highest score, with that score; None if empty; with *count* a list."""
        return await self._pop(c.ZPOPMAX, key, count, version, client)

    zpopmax = blocking(azpopmax)

    async def azpopmin(self, key: Any, count: int | None = None, version: Any = None, client: Any = None) -> Any:
        """Remove and return the member of the lowest score, with that score; None if empty; with *count* a list."""
        return await self._pop(c.ZPOPMIN, key, count, version, client)

    zpopmin = blocking(azpopmin)

    async def _pop(self, verb: Verb, key: Any, count: int | None, version: Any, client: Any) -> Any:
        name = self.name(key, version)
        reply = await self.ask((verb, name, *(() if count is None else (count,))), [], client)
        popped = self._scored(reply, name, float)
        return popped if count is not None else popped[0] if popped else None

    async def azrange(
        self,
        key: Any,
        start: int,
        end: int,
        desc: bool = False,
        withscores: bool = False,
        score_cast_func: Cast = float,
        version: Any = None,
        client: Any = None,
    ) -> list[Any]:
        """Return the members at ranks *start* to *end*, with their scores if *withscores*."""
        command = (c.ZREVRANGE if desc else c.ZRANGE, self.name(key, version), start, end)
        return await self._range(command, withscores, score_cast_func, client)

    zrange = blocking(azrange)

    async def azrevrange(
        self,
        key: Any,
        start: int,
        end: int,
        withscores: bool = False,
        score_cast_func: Cast = float,
        version: Any = None,
        client: Any = None,
    ) -> list[Any]:
        """Return the members at ranks *start* to *end*, counted from the highest score."""
        return await self.azrange(key, start, end, True, withscores, score_cast_func, version, client)

    zrevrange = blocking(azrevrange)

    async def azrangebyscore(
        self,
        key: Any,
        min: Score,
        max: Score,
        start: int | None = None,
        num: int | None = None,
        withscores: bool = False,
        score_cast_func: Cast = float,
        version: Any = None,
        client: Any = None,
    ) -> list[Any]:
        """Return the members with scores from *min* to *max*; *num* of them from the *start*-th on."""
        command = (c.ZRANGEBYSCORE, self.name(key, version), min, max, *_limit(start, num))
        return await self._range(command, withscores, score_cast_func, client)

    zrangebyscore = blocking(azrangebyscore)

    async def azrevrangebyscore(
        self,
        key: Any,
        max: Score,
        min: Score,
        start: int | None = None,
        num: int | None = None,
        withscores: bool = False,
        score_cast_func: Cast = float,
        version: Any = None,
        client: Any = None,
    ) -> list[Any]:
        """Return the members with scores from *max* down to *min*; *num* of them from the *start*-th on."""
        command = (c.ZREVRANGEBYSCORE, self.name(key, version), max, min, *_limit(start, num))
        return await self._range(command, withscores, score_cast_func, client)

    zrevrangebyscore = blocking(azrevrangebyscore)

    async def _range(self, command: Command, withscores: bool, cast: Cast, client: Any) -> list[Any]:
        reply = await self.ask((*command, "WITHSCORES") if withscores else command, [], client)
        if withscores:
            return self._scored(reply, command[1], cast)
        members = [self.decoded(member, command[1], member=True) for member in reply]
        return [member for member in members if member is not MISSING]

    async def azrank(
        self, key: Any, value: Any, withscore: bool = False, version: Any = None, client: Any = None
    ) -> Any:
        """Return the rank of *value*, 0 for the lowest score, or None; with its score if *withscore*."""
        return await self._rank(c.ZRANK, key, value, withscore, version, client)

    zrank = blocking(azrank)

    async def azrevrank(
        self, key: Any, value: Any, withscore: bool = False, version: Any = None, client: Any = None
    ) -> Any:
        """Return the rank of *value*, 0 for the highest score, or None; with its score if *withscore*."""
        return await self._rank(c.ZREVRANK, key, value, withscore, version, client)

    zrevrank = blocking(azrevrank)

    async def _rank(self, verb: Verb, key: Any, value: Any, withscore: bool, version: Any, client: Any) -> Any:
        (member,) = await self.encoded((value,), integers=False)
        scored = ("WITHSCORE",) if withscore else ()
        reply = await self.ask((verb, self.name(key, version), member, *scored), None, client)
        return [reply[0], _score(reply[1])] if withscore and reply is not None else reply

    async def azrem(self, key: Any, *values: Any, version: Any = None, client: Any = None) -> int:
        """Remove *values*, and return how many existed."""
        members = await self.encoded(values, integers=False)
        return int(await self.ask((c.ZREM, self.name(key, version), *members), 0, client))

    zrem = blocking(azrem)

    async def azremrangebyscore(self, key: Any, min: Score, max: Score, version: Any = None, client: Any = None) -> int:
        """Remove the members with scores from *min* to *max*, and return their number."""
        return int(await self.ask((c.ZREMRANGEBYSCORE, self.name(key, version), min, max), 0, client))

    zremrangebyscore = blocking(azremrangebyscore)

    async def azremrangebyrank(self, key: Any, start: int, end: int, version: Any = None, client: Any = None) -> int:
        """Remove the members at ranks *start* to *end*, and return their number."""
        return int(await self.ask((c.ZREMRANGEBYRANK, self.name(key, version), start, end), 0, client))

    zremrangebyrank = blocking(azremrangebyrank)

    async def azscore(self, key: Any, value: Any, version: Any = None, client: Any = None) -> float | None:
        """Return the score of *value*, or None."""
        (member,) = await self.encoded((value,), integers=False)
        return _score(await self.ask((c.ZSCORE, self.name(key, version), member), None, client))

    zscore = blocking(azscore)

    def _scored(self, reply: Reply, name: str, cast: Cast) -> list[tuple[Any, Any]]:
        """Return the members in *reply*, each with its score."""
        pairs = reply if reply and isinstance(reply[0], list) else _pairs(reply)
        scored = [(self.decoded(member, name, member=True), cast(score)) for member, score in pairs]
        return [(member, score) for member, score in scored if member is not MISSING]


class Lists(Structure):
    """Lists: values in the order they were pushed."""

    async def _push(self, verb: Verb, key: Any, values: tuple[Any, ...], version: Any, client: Any) -> int | None:
        """Push *values*, and return the new length."""
        payloads = await self.encoded(values)
        return _number(await self.ask((verb, self.name(key, version), *payloads), None, client))

    async def alpush(self, key: Any, *values: Any, version: Any = None, client: Any = None) -> int | None:
        """Push *values* at the head, one after another, and return the new length."""
        return await self._push(c.LPUSH, key, values, version, client)

    lpush = blocking(alpush)

    async def arpush(self, key: Any, *values: Any, version: Any = None, client: Any = None) -> int | None:
        """Push *values* at the tail, one after another, and return the new length."""
        return await self._push(c.RPUSH, key, values, version, client)

    rpush = blocking(arpush)

    async def alpop(self, key: Any, count: int | None = None, version: Any = None, client: Any = None) -> Any:
        """Remove and return the value at the head, None if there is none; with *count* a list."""
        return await self._take(c.LPOP, key, count, version, client)

    lpop = blocking(alpop)

    async def arpop(self, key: Any, count: int | None = None, version: Any = None, client: Any = None) -> Any:
        """Remove and return the value at the tail, None if there is none; with *count* a list."""
        return await self._take(c.RPOP, key, count, version, client)

    rpop = blocking(arpop)

    async def allen(self, key: Any, version: Any = None, client: Any = None) -> int | None:
        """Return the length."""
        return _number(await self.ask((c.LLEN, self.name(key, version)), None, client))

    llen = blocking(allen)

    async def alrange(self, key: Any, start: int, end: int, version: Any = None, client: Any = None) -> list[Any]:
        """Return the values from *start* to *end*, both included; -1 is the last."""
        name = self.name(key, version)
        return self._decoded_all(await self.ask((c.LRANGE, name, start, end), [], client), name)

    lrange = blocking(alrange)

    async def alindex(self, key: Any, index: int, version: Any = None, client: Any = None) -> Any:
        """Return the value at *index*, or None."""
        name = self.name(key, version)
        return self._value(await self.ask((c.LINDEX, name, index), None, client), name)

    lindex = blocking(alindex)

    async def alset(self, key: Any, index: int, value: Any, version: Any = None, client: Any = None) -> bool:
        """Replace the value at *index*, which must be there."""
        (payload,) = await self.encoded((value,))
        return bool(await self.ask((c.LSET, self.name(key, version), index, payload), False, client))

    lset = blocking(alset)

    async def alrem(self, key: Any, count: int, value: Any, version: Any = None, client: Any = None) -> int:
        """Remove *count* occurrences of *value*, from the tail if negative, all if 0; return how many were removed."""
        (payload,) = await self.encoded((value,))
        return int(await self.ask((c.LREM, self.name(key, version), count, payload), 0, client))

    lrem = blocking(alrem)

    async def altrim(self, key: Any, start: int, end: int, version: Any = None, client: Any = None) -> bool:
        """Keep only the values from *start* to *end*."""
        return bool(await self.ask((c.LTRIM, self.name(key, version), start, end), False, client))

    ltrim = blocking(altrim)


def _limit(start: int | None, num: int | None) -> tuple[Any, ...]:
    if (start is None) != (num is None):
        raise DataError("start and num go together")
    return () if start is None else ("LIMIT", start, num)


def _number(reply: Any) -> int | None:
    """Return *reply* as a number; None, in an outage, stays None, so that no caller takes it for 0."""
    return None if reply is None else int(reply)


def _score(reply: Any) -> float | None:
    """Return a score as a number; RESP2 sends it as text."""
    return None if reply is None else float(reply)


def _pairs(flat: Any) -> list[tuple[Any, Any]]:
    """Return the items of a flat reply in pairs."""
    items = iter(flat)
    return list(zip(items, items, strict=True))
