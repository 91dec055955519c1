"""Sorted sets: members with a score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, overload

from redis.exceptions import DataError

from fleetcache import commands as c
from fleetcache.core import MISSING, Core
from fleetcache.exchange.contract import Command, Reply, Verb
from fleetcache.keys import Key, Version, check_mapping
from fleetcache.structures.steps import number, pairs, score
from fleetcache.twin import blocking

Score: TypeAlias = float | str
"""A score, or a bound: ``"(1"`` excludes 1, ``"-inf"`` and ``"+inf"`` have no end."""

Cast: TypeAlias = Callable[[Any], Any]


class SortedSets(Core):
    """Sets ordered by a score."""

    @overload
    async def azadd(
        self,
        key: Key,
        mapping: Mapping[Any, float],
        nx: bool = False,
        xx: bool = False,
        ch: bool = False,
        incr: Literal[False] = False,
        gt: bool = False,
        lt: bool = False,
        version: Version = None,
        client: Any = None,
    ) -> int: ...
    @overload
    async def azadd(
        self,
        key: Key,
        mapping: Mapping[Any, float],
        nx: bool = False,
        xx: bool = False,
        *,
        incr: Literal[True],
        gt: bool = False,
        lt: bool = False,
        version: Version = None,
        client: Any = None,
    ) -> float | None: ...
    @overload
    async def azadd(
        self,
        key: Key,
        mapping: Mapping[Any, float],
        nx: bool = False,
        xx: bool = False,
        ch: bool = False,
        incr: bool = False,
        gt: bool = False,
        lt: bool = False,
        version: Version = None,
        client: Any = None,
    ) -> Any: ...
    async def azadd(
        self,
        key: Key,
        mapping: Mapping[Any, float],
        nx: bool = False,
        xx: bool = False,
        ch: bool = False,
        incr: bool = False,
        gt: bool = False,
        lt: bool = False,
        version: Version = None,
        client: Any = None,
    ) -> Any:
        """Set the scores of *mapping*, and return how many members are new (with *ch*: or changed).

        *nx*: only new members; *xx*: only existing ones; *gt*, *lt*: only if the score grows or falls.
        *incr*: add to one member's score, and return the sum, or None if another condition forbids it.
        """
        if not mapping:
            raise DataError("zadd needs at least one member with its score")
        if type(mapping) is not dict:
            check_mapping(mapping, "zadd", "members and their scores")
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
        return score(reply) if incr else int(reply)

    zadd = blocking(azadd)

    async def azcard(self, key: Key, version: Version = None, client: Any = None) -> int | None:
        """Return how many members there are."""
        return number(await self.ask((c.ZCARD, self.name(key, version)), None, client))

    zcard = blocking(azcard)

    async def azcount(
        self, key: Key, min: Score, max: Score, version: Version = None, client: Any = None
    ) -> int | None:
        """Return how many scores lie from *min* to *max*; ``"(1"`` excludes 1."""
        return number(await self.ask((c.ZCOUNT, self.name(key, version), min, max), None, client))

    zcount = blocking(azcount)

    async def azincrby(
        self, key: Key, amount: float, value: Any, version: Version = None, client: Any = None
    ) -> float | None:
        """Add *amount* to the score of *value*, and return the sum."""
        (member,) = await self.encoded((value,), integers=False)
        return score(await self.ask((c.ZINCRBY, self.name(key, version), amount, member), None, client))

    zincrby = blocking(azincrby)

    @overload
    async def azpopmax(
        self, key: Key, count: None = None, version: Version = None, client: Any = None
    ) -> tuple[Any, float] | None: ...
    @overload
    async def azpopmax(
        self, key: Key, count: int, version: Version = None, client: Any = None
    ) -> list[tuple[Any, float]]: ...
    async def azpopmax(self, key: Key, count: int | None = None, version: Version = None, client: Any = None) -> Any:
        """Remove and return the member of the highest score, with that score; None if empty; with *count* a list."""
        return await self._pop(c.ZPOPMAX, key, count, version, client)

    zpopmax = blocking(azpopmax)

    @overload
    async def azpopmin(
        self, key: Key, count: None = None, version: Version = None, client: Any = None
    ) -> tuple[Any, float] | None: ...
    @overload
    async def azpopmin(
        self, key: Key, count: int, version: Version = None, client: Any = None
    ) -> list[tuple[Any, float]]: ...
    async def azpopmin(self, key: Key, count: int | None = None, version: Version = None, client: Any = None) -> Any:
        """Remove and return the member of the lowest score, with that score; None if empty; with *count* a list."""
        return await self._pop(c.ZPOPMIN, key, count, version, client)

    zpopmin = blocking(azpopmin)

    async def _pop(self, verb: Verb, key: Any, count: int | None, version: Any, client: Any) -> Any:
        name = self.name(key, version)
        reply = await self.ask((verb, name, *(() if count is None else (count,))), [], client)
        popped = self._scored(reply, name, float)
        return popped if count is not None else popped[0] if popped else None

    @overload
    async def azrange(
        self,
        key: Key,
        start: int,
        end: int,
        desc: bool = False,
        withscores: Literal[False] = False,
        score_cast_func: Cast = float,
        version: Version = None,
        client: Any = None,
    ) -> list[Any]: ...
    @overload
    async def azrange(
        self,
        key: Key,
        start: int,
        end: int,
        desc: bool = False,
        *,
        withscores: Literal[True],
        version: Version = None,
        client: Any = None,
    ) -> list[tuple[Any, float]]: ...
    @overload
    async def azrange(
        self,
        key: Key,
        start: int,
        end: int,
        desc: bool = False,
        withscores: bool = False,
        score_cast_func: Cast = float,
        version: Version = None,
        client: Any = None,
    ) -> list[Any]: ...
    async def azrange(
        self,
        key: Key,
        start: int,
        end: int,
        desc: bool = False,
        withscores: bool = False,
        score_cast_func: Cast = float,
        version: Version = None,
        client: Any = None,
    ) -> list[Any]:
        """Return the members at ranks *start* to *end*, with their scores if *withscores*."""
        command = (c.ZREVRANGE if desc else c.ZRANGE, self.name(key, version), start, end)
        return await self._range(command, withscores, score_cast_func, client)

    zrange = blocking(azrange)

    @overload
    async def azrevrange(
        self,
        key: Key,
        start: int,
        end: int,
        withscores: Literal[False] = False,
        score_cast_func: Cast = float,
        version: Version = None,
        client: Any = None,
    ) -> list[Any]: ...
    @overload
    async def azrevrange(
        self,
        key: Key,
        start: int,
        end: int,
        *,
        withscores: Literal[True],
        version: Version = None,
        client: Any = None,
    ) -> list[tuple[Any, float]]: ...
    @overload
    async def azrevrange(
        self,
        key: Key,
        start: int,
        end: int,
        withscores: bool = False,
        score_cast_func: Cast = float,
        version: Version = None,
        client: Any = None,
    ) -> list[Any]: ...
    async def azrevrange(
        self,
        key: Key,
        start: int,
        end: int,
        withscores: bool = False,
        score_cast_func: Cast = float,
        version: Version = None,
        client: Any = None,
    ) -> list[Any]:
        """Return the members at ranks *start* to *end*, counted from the highest score."""
        return await self.azrange(key, start, end, True, withscores, score_cast_func, version, client)

    zrevrange = blocking(azrevrange)

    @overload
    async def azrangebyscore(
        self,
        key: Key,
        min: Score,
        max: Score,
        start: int | None = None,
        num: int | None = None,
        withscores: Literal[False] = False,
        score_cast_func: Cast = float,
        version: Version = None,
        client: Any = None,
    ) -> list[Any]: ...
    @overload
    async def azrangebyscore(
        self,
        key: Key,
        min: Score,
        max: Score,
        start: int | None = None,
        num: int | None = None,
        *,
        withscores: Literal[True],
        version: Version = None,
        client: Any = None,
    ) -> list[tuple[Any, float]]: ...
    @overload
    async def azrangebyscore(
        self,
        key: Key,
        min: Score,
        max: Score,
        start: int | None = None,
        num: int | None = None,
        withscores: bool = False,
        score_cast_func: Cast = float,
        version: Version = None,
        client: Any = None,
    ) -> list[Any]: ...
    async def azrangebyscore(
        self,
        key: Key,
        min: Score,
        max: Score,
        start: int | None = None,
        num: int | None = None,
        withscores: bool = False,
        score_cast_func: Cast = float,
        version: Version = None,
        client: Any = None,
    ) -> list[Any]:
        """Return the members with scores from *min* to *max*; *num* of them from the *start*-th on."""
        command = (c.ZRANGEBYSCORE, self.name(key, version), min, max, *_limit(start, num))
        return await self._range(command, withscores, score_cast_func, client)

    zrangebyscore = blocking(azrangebyscore)

    @overload
    async def azrevrangebyscore(
        self,
        key: Key,
        max: Score,
        min: Score,
        start: int | None = None,
        num: int | None = None,
        withscores: Literal[False] = False,
        score_cast_func: Cast = float,
        version: Version = None,
        client: Any = None,
    ) -> list[Any]: ...
    @overload
    async def azrevrangebyscore(
        self,
        key: Key,
        max: Score,
        min: Score,
        start: int | None = None,
        num: int | None = None,
        *,
        withscores: Literal[True],
        version: Version = None,
        client: Any = None,
    ) -> list[tuple[Any, float]]: ...
    @overload
    async def azrevrangebyscore(
        self,
        key: Key,
        max: Score,
        min: Score,
        start: int | None = None,
        num: int | None = None,
        withscores: bool = False,
        score_cast_func: Cast = float,
        version: Version = None,
        client: Any = None,
    ) -> list[Any]: ...
    async def azrevrangebyscore(
        self,
        key: Key,
        max: Score,
        min: Score,
        start: int | None = None,
        num: int | None = None,
        withscores: bool = False,
        score_cast_func: Cast = float,
        version: Version = None,
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

    @overload
    async def azrank(
        self, key: Key, value: Any, withscore: Literal[False] = False, version: Version = None, client: Any = None
    ) -> int | None: ...
    @overload
    async def azrank(
        self, key: Key, value: Any, withscore: Literal[True], version: Version = None, client: Any = None
    ) -> list[Any] | None: ...
    @overload
    async def azrank(
        self, key: Key, value: Any, withscore: bool, version: Version = None, client: Any = None
    ) -> Any: ...
    async def azrank(
        self, key: Key, value: Any, withscore: bool = False, version: Version = None, client: Any = None
    ) -> Any:
        """Return the rank of *value*, 0 for the lowest score, or None; with its score if *withscore*."""
        return await self._rank(c.ZRANK, key, value, withscore, version, client)

    zrank = blocking(azrank)

    @overload
    async def azrevrank(
        self, key: Key, value: Any, withscore: Literal[False] = False, version: Version = None, client: Any = None
    ) -> int | None: ...
    @overload
    async def azrevrank(
        self, key: Key, value: Any, withscore: Literal[True], version: Version = None, client: Any = None
    ) -> list[Any] | None: ...
    @overload
    async def azrevrank(
        self, key: Key, value: Any, withscore: bool, version: Version = None, client: Any = None
    ) -> Any: ...
    async def azrevrank(
        self, key: Key, value: Any, withscore: bool = False, version: Version = None, client: Any = None
    ) -> Any:
        """Return the rank of *value*, 0 for the highest score, or None; with its score if *withscore*."""
        return await self._rank(c.ZREVRANK, key, value, withscore, version, client)

    zrevrank = blocking(azrevrank)

    async def _rank(self, verb: Verb, key: Any, value: Any, withscore: bool, version: Any, client: Any) -> Any:
        (member,) = await self.encoded((value,), integers=False)
        scored = ("WITHSCORE",) if withscore else ()
        reply = await self.ask((verb, self.name(key, version), member, *scored), None, client)
        return [reply[0], score(reply[1])] if withscore and reply is not None else reply

    async def azrem(self, key: Key, *values: Any, version: Version = None, client: Any = None) -> int:
        """Remove *values*, and return how many existed."""
        members = await self.encoded(values, integers=False)
        return int(await self.ask((c.ZREM, self.name(key, version), *members), 0, client))

    zrem = blocking(azrem)

    async def azremrangebyscore(
        self, key: Key, min: Score, max: Score, version: Version = None, client: Any = None
    ) -> int:
        """Remove the members with scores from *min* to *max*, and return their number."""
        return int(await self.ask((c.ZREMRANGEBYSCORE, self.name(key, version), min, max), 0, client))

    zremrangebyscore = blocking(azremrangebyscore)

    async def azremrangebyrank(
        self, key: Key, start: int, end: int, version: Version = None, client: Any = None
    ) -> int:
        """Remove the members at ranks *start* to *end*, and return their number."""
        return int(await self.ask((c.ZREMRANGEBYRANK, self.name(key, version), start, end), 0, client))

    zremrangebyrank = blocking(azremrangebyrank)

    async def azscore(self, key: Key, value: Any, version: Version = None, client: Any = None) -> float | None:
        """Return the score of *value*, or None."""
        (member,) = await self.encoded((value,), integers=False)
        return score(await self.ask((c.ZSCORE, self.name(key, version), member), None, client))

    zscore = blocking(azscore)

    def _scored(self, reply: Reply, name: str, cast: Cast) -> list[tuple[Any, Any]]:
        """Return the members in *reply*, each with its score."""
        items = reply if reply and isinstance(reply[0], list) else pairs(reply)
        scored = [(self.decoded(member, name, member=True), cast(score)) for member, score in items]
        return [(member, score) for member, score in scored if member is not MISSING]


def _limit(start: int | None, num: int | None) -> tuple[Any, ...]:
    if (start is None) != (num is None):
        raise DataError("start and num go together")
    return () if start is None else ("LIMIT", start, num)
