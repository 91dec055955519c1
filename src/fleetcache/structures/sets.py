"""Sets of hashable values."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, overload

from fleetcache import commands as c
from fleetcache.codec.compressors import IdentityCompressor
from fleetcache.exchange.contract import Verb
from fleetcache.keys import Key, Version
from fleetcache.structures.steps import Structure, number
from fleetcache.twin import blocking, iterating


class Sets(Structure):
    """Sets of hashable values."""

    async def asadd(self, key: Key, *values: Any, version: Version = None, client: Any = None) -> int:
        """Add *values*, and return how many are new."""
        return await self._give(c.SADD, key, values, version, client)

    sadd = blocking(asadd)

    async def asrem(self, key: Key, *members: Any, version: Version = None, client: Any = None) -> int:
        """Remove *members*, and return how many existed."""
        return await self._give(c.SREM, key, members, version, client)

    srem = blocking(asrem)

    async def ascard(self, key: Key, version: Version = None, client: Any = None) -> int | None:
        """Return how many members there are."""
        return number(await self.ask((c.SCARD, self.name(key, version)), None, client))

    scard = blocking(ascard)

    async def asmembers(self, key: Key, version: Version = None, client: Any = None) -> set[Any]:
        """Return the set of all members."""
        return await self._combine(c.SMEMBERS, (key,), version, client)

    smembers = blocking(asmembers)

    async def asdiff(self, *keys: Key, version: Version = None, client: Any = None) -> set[Any]:
        """Return the set of the members of the first set that are in no other."""
        return await self._combine(c.SDIFF, keys, version, client)

    sdiff = blocking(asdiff)

    async def asinter(self, *keys: Key, version: Version = None, client: Any = None) -> set[Any]:
        """Return the set of the members that are in every set."""
        return await self._combine(c.SINTER, keys, version, client)

    sinter = blocking(asinter)

    async def asunion(self, *keys: Key, version: Version = None, client: Any = None) -> set[Any]:
        """Return the set of the members that are in any set."""
        return await self._combine(c.SUNION, keys, version, client)

    sunion = blocking(asunion)

    async def _combine(self, verb: Verb, keys: tuple[Any, ...], version: Any, client: Any) -> set[Any]:
        names = self._names(keys, version)
        self._together(names, verb.decode())
        return {*self._decoded_all(await self.ask((verb, *names), (), client), names[0])}

    async def asdiffstore(
        self, dest: Key, *keys: Key, version_dest: Version = None, version_keys: Version = None, client: Any = None
    ) -> int | None:
        """Store the result of `sdiff` as *dest*, and return the number of its members."""
        return await self._store(c.SDIFFSTORE, dest, keys, version_dest, version_keys, client)

    sdiffstore = blocking(asdiffstore)

    async def asinterstore(self, dest: Key, *keys: Key, version: Version = None, client: Any = None) -> int | None:
        """Store the result of `sinter` as *dest*, and return the number of its members."""
        return await self._store(c.SINTERSTORE, dest, keys, version, version, client)

    sinterstore = blocking(asinterstore)

    async def asunionstore(
        self, destination: Key, *keys: Key, version: Version = None, client: Any = None
    ) -> int | None:
        """Store the result of `sunion` as *destination*, and return the number of its members."""
        return await self._store(c.SUNIONSTORE, destination, keys, version, version, client)

    sunionstore = blocking(asunionstore)

    async def _store(
        self, verb: Verb, dest: Any, keys: tuple[Any, ...], version_dest: Any, version_keys: Any, client: Any
    ) -> int | None:
        names = [self.name(dest, version_dest), *self._names(keys, version_keys)]
        self._together(names, verb.decode())
        return number(await self.ask((verb, *names), None, client))

    async def asismember(self, key: Key, member: Any, version: Version = None, client: Any = None) -> bool:
        """Return whether *member* is in the set."""
        return bool(await self._give(c.SISMEMBER, key, (member,), version, client))

    sismember = blocking(asismember)

    async def asmismember(self, key: Key, *members: Any, version: Version = None, client: Any = None) -> list[bool]:
        """Return for each of *members* whether it is in the set."""
        payloads = await self.encoded(members)
        replies = await self.ask((c.SMISMEMBER, self.name(key, version), *payloads), [0] * len(members), client)
        return [bool(reply) for reply in replies]

    smismember = blocking(asmismember)

    async def asmove(
        self, source: Key, destination: Key, member: Any, version: Version = None, client: Any = None
    ) -> bool:
        """Move *member* from one set to another, and return whether it was in the first."""
        names = self._names((source, destination), version)
        self._together(names, "SMOVE")
        (payload,) = await self.encoded((member,))
        return bool(await self.ask((c.SMOVE, *names, payload), False, client))

    smove = blocking(asmove)

    @overload
    async def aspop(self, key: Key, count: None = None, version: Version = None, client: Any = None) -> Any | None: ...
    @overload
    async def aspop(self, key: Key, count: int, version: Version = None, client: Any = None) -> set[Any]: ...
    async def aspop(self, key: Key, count: int | None = None, version: Version = None, client: Any = None) -> Any:
        """Remove and return a random member, None if there is none; with *count* a set of at most that many."""
        values = await self._take(c.SPOP, key, count, version, client)
        return values if count is None else {*values}

    spop = blocking(aspop)

    @overload
    async def asrandmember(
        self, key: Key, count: None = None, version: Version = None, client: Any = None
    ) -> Any | None: ...
    @overload
    async def asrandmember(self, key: Key, count: int, version: Version = None, client: Any = None) -> list[Any]: ...
    async def asrandmember(
        self, key: Key, count: int | None = None, version: Version = None, client: Any = None
    ) -> Any:
        """Return a random member, None if there is none; with *count* a list, as `SRANDMEMBER` returns it."""
        return await self._take(c.SRANDMEMBER, key, count, version, client)

    srandmember = blocking(asrandmember)

    async def asscan(
        self, key: Key, match: str | None = None, count: int | None = 10, version: Version = None, client: Any = None
    ) -> set[Any]:
        """Return the set of all members, read by `SSCAN` in steps of about *count*.

        *match* is encoded as a member is, and then used as a glob pattern.
        """
        await self._runtime.alone()
        return {member async for member in self.asscan_iter(key, match, count, version, client)}

    sscan = blocking(asscan)

    async def asscan_iter(
        self, key: Key, match: str | None = None, count: int | None = 10, version: Version = None, client: Any = None
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
