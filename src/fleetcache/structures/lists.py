"""Lists: values in the order they were pushed."""

from __future__ import annotations

from typing import Any, overload

from fleetcache import commands as c
from fleetcache.exchange.contract import Verb
from fleetcache.keys import Key, Version
from fleetcache.structures.steps import Structure, number
from fleetcache.twin import blocking


class Lists(Structure):
    """Lists: values in the order they were pushed."""

    async def _push(self, verb: Verb, key: Any, values: tuple[Any, ...], version: Any, client: Any) -> int | None:
        """Push *values*, and return the new length."""
        payloads = await self.encoded(values)
        return number(await self.ask((verb, self.name(key, version), *payloads), None, client))

    async def alpush(self, key: Key, *values: Any, version: Version = None, client: Any = None) -> int | None:
        """Push *values* at the head, one after another, and return the new length."""
        return await self._push(c.LPUSH, key, values, version, client)

    lpush = blocking(alpush)

    async def arpush(self, key: Key, *values: Any, version: Version = None, client: Any = None) -> int | None:
        """Push *values* at the tail, one after another, and return the new length."""
        return await self._push(c.RPUSH, key, values, version, client)

    rpush = blocking(arpush)

    @overload
    async def alpop(self, key: Key, count: None = None, version: Version = None, client: Any = None) -> Any | None: ...
    @overload
    async def alpop(self, key: Key, count: int, version: Version = None, client: Any = None) -> list[Any]: ...
    async def alpop(self, key: Key, count: int | None = None, version: Version = None, client: Any = None) -> Any:
        """Remove and return the value at the head, None if there is none; with *count* a list."""
        return await self._take(c.LPOP, key, count, version, client)

    lpop = blocking(alpop)

    @overload
    async def arpop(self, key: Key, count: None = None, version: Version = None, client: Any = None) -> Any | None: ...
    @overload
    async def arpop(self, key: Key, count: int, version: Version = None, client: Any = None) -> list[Any]: ...
    async def arpop(self, key: Key, count: int | None = None, version: Version = None, client: Any = None) -> Any:
        """Remove and return the value at the tail, None if there is none; with *count* a list."""
        return await self._take(c.RPOP, key, count, version, client)

    rpop = blocking(arpop)

    async def allen(self, key: Key, version: Version = None, client: Any = None) -> int | None:
        """Return the length."""
        return number(await self.ask((c.LLEN, self.name(key, version)), None, client))

    llen = blocking(allen)

    async def alrange(self, key: Key, start: int, end: int, version: Version = None, client: Any = None) -> list[Any]:
        """Return the values from *start* to *end*, both included; -1 is the last."""
        name = self.name(key, version)
        return self._decoded_all(await self.ask((c.LRANGE, name, start, end), [], client), name)

    lrange = blocking(alrange)

    async def alindex(self, key: Key, index: int, version: Version = None, client: Any = None) -> Any | None:
        """Return the value at *index*, or None."""
        name = self.name(key, version)
        return self._value(await self.ask((c.LINDEX, name, index), None, client), name)

    lindex = blocking(alindex)

    async def alset(self, key: Key, index: int, value: Any, version: Version = None, client: Any = None) -> bool:
        """Replace the value at *index*, which must be there."""
        (payload,) = await self.encoded((value,))
        return bool(await self.ask((c.LSET, self.name(key, version), index, payload), False, client))

    lset = blocking(alset)

    async def alrem(self, key: Key, count: int, value: Any, version: Version = None, client: Any = None) -> int:
        """Remove *count* occurrences of *value*, from the tail if negative, all if 0; return how many were removed."""
        (payload,) = await self.encoded((value,))
        return int(await self.ask((c.LREM, self.name(key, version), count, payload), 0, client))

    lrem = blocking(alrem)

    async def altrim(self, key: Key, start: int, end: int, version: Version = None, client: Any = None) -> bool:
        """Keep only the values from *start* to *end*."""
        return bool(await self.ask((c.LTRIM, self.name(key, version), start, end), False, client))

    ltrim = blocking(altrim)
