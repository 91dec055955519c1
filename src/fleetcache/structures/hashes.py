"""Hashes: entries of named fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, TypeVar, overload

from redis.exceptions import DataError

from fleetcache import commands as c
from fleetcache.core import MISSING, Core
from fleetcache.keys import Key, Version, check_mapping
from fleetcache.structures.steps import number, pairs
from fleetcache.twin import blocking

D = TypeVar("D")

Field: TypeAlias = str | bytes | float
"""The name of a field; numbers are sent as their text."""


class Hashes(Core):
    """Hashes: an entry of named fields."""

    async def ahset(
        self,
        key: Key,
        field: Field | None = None,
        value: Any = None,
        mapping: Mapping[Any, Any] | None = None,
        version: Version = None,
        client: Any = None,
    ) -> int:
        """Set *field*, or all fields of *mapping*; return how many are new."""
        fields = {} if field is None else {field: value}
        try:
            fields.update(mapping or {})
        except (TypeError, ValueError):
            check_mapping(mapping, "hset", "fields and their values")
            raise
        if not fields:
            raise DataError("hset needs a field and its value, or a mapping of some")
        payloads = await self.encoded(fields.values())
        pairs = [part for pair in zip(fields, payloads, strict=True) for part in pair]
        return int(await self.ask((c.HSET, self.name(key, version), *pairs), 0, client))

    hset = blocking(ahset)

    async def ahsetnx(self, key: Key, field: Field, value: Any, version: Version = None, client: Any = None) -> bool:
        """Set *field* if there is none of that name; return whether it was set."""
        (payload,) = await self.encoded((value,))
        return bool(await self.ask((c.HSETNX, self.name(key, version), field, payload), False, client))

    hsetnx = blocking(ahsetnx)

    @overload
    async def ahget(
        self, key: Key, field: Field, default: None = None, version: Version = None, client: Any = None
    ) -> Any | None: ...
    @overload
    async def ahget(
        self, key: Key, field: Field, default: D, version: Version = None, client: Any = None
    ) -> Any | D: ...
    async def ahget(
        self, key: Key, field: Field, default: Any = None, version: Version = None, client: Any = None
    ) -> Any:
        """Return the value of *field*, or *default*."""
        name = self.name(key, version)
        return self._value(await self.ask((c.HGET, name, field), None, client), name, default)

    hget = blocking(ahget)

    async def ahmget(self, key: Key, fields: Iterable[Field], version: Version = None, client: Any = None) -> list[Any]:
        """Return the values of *fields* in their order, None for each missing one."""
        name, fields = self.name(key, version), list(fields)
        if not fields:
            return []
        payloads = await self.ask((c.HMGET, name, *fields), [None] * len(fields), client)
        return [self._value(payload, name) for payload in payloads]

    hmget = blocking(ahmget)

    async def ahgetall(self, key: Key, version: Version = None, client: Any = None) -> dict[str, Any]:
        """Return all fields with their values."""
        name = self.name(key, version)
        reply = await self.ask((c.HGETALL, name), {}, client)
        items = reply.items() if isinstance(reply, dict) else pairs(reply)
        values = {field.decode(errors="replace"): self.decoded(payload, name) for field, payload in items}
        return {field: value for field, value in values.items() if value is not MISSING}

    hgetall = blocking(ahgetall)

    async def ahvals(self, key: Key, version: Version = None, client: Any = None) -> list[Any]:
        """Return the values of all fields."""
        name = self.name(key, version)
        return self._decoded_all(await self.ask((c.HVALS, name), [], client), name)

    hvals = blocking(ahvals)

    async def ahkeys(self, key: Key, version: Version = None, client: Any = None) -> list[str]:
        """Return the names of all fields."""
        return [
            field.decode(errors="replace") for field in await self.ask((c.HKEYS, self.name(key, version)), [], client)
        ]

    hkeys = blocking(ahkeys)

    async def ahlen(self, key: Key, version: Version = None, client: Any = None) -> int | None:
        """Return how many fields there are."""
        return number(await self.ask((c.HLEN, self.name(key, version)), None, client))

    hlen = blocking(ahlen)

    async def ahexists(self, key: Key, field: Field, version: Version = None, client: Any = None) -> bool:
        """Return whether *field* is there."""
        return bool(await self.ask((c.HEXISTS, self.name(key, version), field), False, client))

    hexists = blocking(ahexists)

    async def ahdel(
        self, key: Key, field: Field | list[Field] | tuple[Field, ...], version: Version = None, client: Any = None
    ) -> int:
        """Remove *field*, or a list of fields, and return how many existed."""
        fields = field if isinstance(field, (list, tuple)) else (field,)
        return int(await self.ask((c.HDEL, self.name(key, version), *fields), 0, client))

    hdel = blocking(ahdel)

    async def ahincrby(
        self, key: Key, field: Field, amount: int = 1, version: Version = None, client: Any = None
    ) -> int | None:
        """Add *amount* to the integer in *field*, which counts as 0 if it is missing; return the sum."""
        return number(await self.ask((c.HINCRBY, self.name(key, version), field, amount), None, client))

    hincrby = blocking(ahincrby)
