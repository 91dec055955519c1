"""Operations on values: get, set, add, delete, incr, of one key and of many.

Each is a coroutine with its blocking face below it, ``get = blocking(aget)``.  If it may stand in a pipeline, its name
is in ``OPERATIONS`` of `fleetcache.pipeline`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from decimal import Decimal
from numbers import Number
from typing import Any, Literal, TypeVar, overload

from redis.exceptions import DataError, ResponseError

from fleetcache import commands as c
from fleetcache.codec.metadata import Metadata, new_stamp
from fleetcache.core import DEFAULT_TIMEOUT, MISSING, Timeout
from fleetcache.errors import UnreadableValue
from fleetcache.judging import Standing
from fleetcache.keys import K, Key, Version, check_mapping, unique
from fleetcache.near.near import PACKED, clock
from fleetcache.near.store import Entry
from fleetcache.reading import Found, Reading
from fleetcache.servers.borrowed import is_pipeline
from fleetcache.twin import blocking, complete

D = TypeVar("D")


@dataclass(frozen=True, slots=True)
class Lookup:
    """What is known of an entry; times are in seconds.

    - ``value``: the value, also a stale one; None if it is missing.
    - ``state``: ``near``: there is a copy in this process, which `get` returns; ``fresh``; ``stale``: only who asks for a
      stale value gets it; ``missing``.
    - ``age``: how long ago its load began; None if that is not known.
    - ``left``: how long the entry stays fresh, or stale, None for ever; a near copy may end earlier.
    - ``tags``: its tags.
    - ``cost``: how long its load took; None if that is not known.
    """

    value: Any = None
    state: Literal["near", "fresh", "stale", "missing"] = "missing"
    age: float | None = None
    left: float | None = 0.0
    tags: tuple[str, ...] = ()
    cost: float | None = None


class Values(Reading):
    """Operations on plain values."""

    # For type checkers a value is Any, since nobody knows what is stored; what is returned if there is none is added to it.

    @overload
    async def aget(
        self,
        key: Key,
        default: None = None,
        version: Version = None,
        client: Any = None,
        *,
        fresh: bool = False,
        stale: bool = False,
        tags: Iterable[str] | None = None,
    ) -> Any | None: ...
    @overload
    async def aget(
        self,
        key: Key,
        default: D,
        version: Version = None,
        client: Any = None,
        *,
        fresh: bool = False,
        stale: bool = False,
        tags: Iterable[str] | None = None,
    ) -> Any | D: ...
    async def aget(
        self,
        key: Key,
        default: Any = None,
        version: Version = None,
        client: Any = None,
        *,
        fresh: bool = False,
        stale: bool = False,
        tags: Iterable[str] | None = None,
    ) -> Any:
        """Return the value of *key*, or *default* if there is none.  A stored None is a value.

        With *fresh* the primary is asked, even if there is a copy, or replicas answer reads.  With *stale* a value
        whose fresh life has ended is returned too, as long as it is kept.

        A process that reads an entry with tags for the first time needs two round trips: one for the entry, and one
        for the versions of its tags.  If the caller names these *tags*, it is one.  The argument does not change which
        tags the entry has.
        """
        name = self.name(key, version)
        hint = None if tags is None else self._hint(name, tags, version)
        value = await self._read(name, client, fresh, stale, hint)
        return default if value is MISSING else value

    @overload
    def get(
        self,
        /,
        key: Key,
        default: None = None,
        version: Version = None,
        client: Any = None,
        *,
        fresh: bool = False,
        stale: bool = False,
        tags: Iterable[str] | None = None,
    ) -> Any | None: ...
    @overload
    def get(
        self,
        /,
        key: Key,
        default: D,
        version: Version = None,
        client: Any = None,
        *,
        fresh: bool = False,
        stale: bool = False,
        tags: Iterable[str] | None = None,
    ) -> Any | D: ...
    def get(
        self,
        /,
        key: Key,
        default: Any = None,
        version: Version = None,
        client: Any = None,
        fresh: bool = False,
        stale: bool = False,
        tags: Iterable[str] | None = None,
    ) -> Any:
        # Written by hand: a near hit takes less time than creating a coroutine.  See `Near.copy`.  The last three are not
        # keyword-only, as those of `aget` are: CPython looks up the default of each such argument in a dict.
        if self._head is not None and type(key) is str and version is client is None and not fresh:
            name = self._head + key
            near: Any = self.near
            copy = near.copies.get(name)
            if copy is not None:
                now = clock()
                if now < copy.deadline and now < copy.epoch.until:
                    if copy.value is PACKED:
                        return self._served(copy, default)
                    copy.hits += 1
                    return copy.value
            if self._warns:
                self._warn(name)
        else:
            name = self.name(key, version)
        hint = None if tags is None else self._hint(name, tags, version)
        value = complete((self._still or self)._read(name, client, fresh, stale, hint))
        return default if value is MISSING else value

    get.__doc__ = aget.__doc__

    async def aset(
        self,
        key: Key,
        value: Any,
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: Version = None,
        client: Any = None,
        nx: bool = False,
        xx: bool = False,
        *,
        tags: Iterable[str] = (),
    ) -> bool:
        """Store *value* for *timeout* seconds, None for ever; return whether it was stored.

        With *nx* the value is stored only if the key has none, as with `add`; with *xx* only if there is an entry,
        fresh or stale.  A timeout of 0 or less deletes the entry instead, and the result says whether there was one.
        *tags* are up to 16 texts: `invalidate_tags` with any of them gives the entry up.
        """
        name = self.name(key, version)
        expiry = self.milliseconds(timeout)
        if expiry is not None and expiry <= 0:
            if nx:
                return not await self._is_there(name, client, fresh=True, counted=False)
            return self._deleted(name, await self._ask_voiding((c.DEL, name), 0, None, client))
        if tags:
            found = await self._tagged((value,), tags, expiry, version, client)
            if found is None:
                return nx and self._added_in_outage(key)
            (payload,) = found
        elif self._runtime.blocks:  # written out: it saves each `set` a coroutine
            payload = self.codec.encode(value)
        else:
            (payload,) = await self.encoded((value,))
        if not (nx or xx):  # written out: every `set` comes by here
            if expiry is None:
                stored = await self.ask((c.SET, name, payload), False, client)
            elif expiry >= self._lease_life:
                stored = await self.ask((c.SET, name, payload, "PX", expiry), False, client)
            else:
                stored = await self._ask_voiding((c.SET, name, payload, "PX", expiry), expiry, False, client)
            if stored and self.tally is not None:
                self.tally.wrote(name, payload)
            return bool(stored)
        if nx and xx:
            raise DataError("nx and xx exclude each other")
        if nx:
            return await self._set_new(name, payload, expiry, self._added_in_outage(key), client)
        lifetime = () if expiry is None else ("PX", expiry)
        command = (c.SET_IF, name, payload, *lifetime, "XX")
        return self._wrote(name, payload, await self._ask_voiding(command, expiry, False, client))

    def set(
        self,
        /,
        key: Key,
        value: Any,
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: Version = None,
        client: Any = None,
        nx: bool = False,
        xx: bool = False,
        *,
        tags: Iterable[str] = (),
    ) -> bool:
        # By hand: `blocking` passes on any arguments, which takes 0.4 µs longer.
        if tags:
            return complete(Values.aset(self._still or self, key, value, timeout, version, client, nx, xx, tags=tags))
        return complete(Values.aset(self._still or self, key, value, timeout, version, client, nx, xx))

    set.__doc__ = aset.__doc__  # noqa: A003 - the method is meant

    def _deleted(self, name: str, found: Any) -> bool:
        """Count that the entry called *name* was to be deleted; return whether it was *found*, None if nobody knows."""
        if found is not None and self.tally is not None:
            self.tally.deleted((name,))
        return bool(found)

    def _wrote(self, name: str, payload: bytes | int | None, stored: Any) -> bool:
        """Count the entry called *name* if it was *stored*; return whether it was."""
        if stored and self.tally is not None:
            self.tally.wrote(name, payload)
        return bool(stored)

    async def _set_new(self, name: str, payload: bytes | int, expiry: int | None, instead: bool, client: Any) -> bool:
        """Store *payload* if there is no entry that can be read and is not stale; return whether it was stored.

        Within a transaction, and on a pipeline of the caller's, any entry counts.
        """
        lifetime = () if expiry is None else ("PX", expiry)
        if self._runtime.once or is_pipeline(client):
            command = (c.SET_IF, name, payload, *lifetime, "NX")
            stored = await self._ask_voiding(command, expiry, MISSING, client)
            return instead if stored is MISSING else self._wrote(name, payload, stored)
        self = self._through(client)
        while True:
            try:
                command = (c.ADD, name, payload, *lifetime, "NX", "GET")
                there = await self._ask_voiding(command, expiry, MISSING)
            except ResponseError as error:
                if "WRONGTYPE" not in str(error):
                    raise
                return False  # an entry of another kind, such as a hash
            if there is MISSING or there is None:
                return instead if there is MISSING else self._wrote(name, payload, stored=True)
            try:
                if (await self._examine(name, there)).served() is not MISSING:
                    return False
            except UnreadableValue:
                return False  # with UNREADABLE = "raise" it is there for everybody
            stored = await self._run(c.SWAP, name, there, payload, *lifetime, instead=MISSING)
            if stored:
                return instead if stored is MISSING else self._wrote(name, payload, stored=True)

    def _added_in_outage(self, key: Any) -> bool:
        """Return the result of `add` in an ignored outage."""
        return False

    async def aadd(
        self, key: Key, value: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: Version = None, client: Any = None
    ) -> bool:
        """Store *value* if the key has no value that is fresh and can be read; return whether it was stored.

        In a transaction nothing is stored over any entry, even if it is stale or cannot be read.
        """
        return await self.aset(key, value, timeout, version, client, nx=True)

    add = blocking(aadd)

    @overload
    async def aget_many(
        self, keys: Iterable[K], version: Version = None, client: Any = None, *, fresh: bool = False
    ) -> dict[K, Any]: ...
    @overload
    async def aget_many(  # type: ignore[overload-cannot-match]  # it does: mypy joins the kinds of keys in a list to object
        self, keys: Iterable[Key], version: Version = None, client: Any = None, *, fresh: bool = False
    ) -> dict[Key, Any]: ...
    async def aget_many(
        self, keys: Iterable[Any], version: Version = None, client: Any = None, *, fresh: bool = False
    ) -> dict[Any, Any]:
        """Return the values of those *keys* that have one, in one round trip; *fresh* as with `aget`."""
        keys = list(keys or ())
        if not keys:
            return {}
        named = dict(zip(self._names(keys, version), keys, strict=True))
        return await self._read_many(named, client, fresh=fresh)

    get_many = blocking(aget_many)

    async def aset_many(
        self,
        data: Mapping[K, Any],
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: Version = None,
        client: Any = None,
        *,
        tags: Iterable[str] = (),
    ) -> list[K]:
        """Store all of *data*, and return the keys that failed.

        It is one transaction for each server; on a cluster it is none.  Each entry gets all of *tags*.
        """
        if not data:
            return []
        if type(data) is not dict:
            check_mapping(data, "set_many", "keys and their values")
        expiry = self.milliseconds(timeout)
        names = self._names(data, version)
        writes: list[tuple[Any, ...]]
        payloads: list[bytes | int] | None = []
        if expiry is not None and expiry <= 0:
            writes = [(c.DEL, name) for name in names]
        else:
            payloads = await (
                self._tagged(data.values(), tags, expiry, version, client) if tags else self.encoded(data.values())
            )
            if payloads is None:
                return list(data)
            pairs = zip(names, payloads, strict=True)
            if expiry is None:
                writes = [(c.SET, name, payload) for name, payload in pairs]
            else:
                writes = [(c.SET, name, payload, "PX", expiry) for name, payload in pairs]
        # A transaction cannot concern several slots; the caller's own client gets plain commands.
        whole = client is None and not self.topology.one_by_one
        first, last = (((c.MULTI,),), ((c.EXEC,),)) if whole else ((), ())
        self = self._through(client)
        shares = self.topology.shares(names, reads=False)
        plan = []
        for server, places in shares:
            short = expiry is not None and expiry < self._lease_life
            voids = self._voids([names[place] for place in places]) if short else ()
            plan.append((server, [*voids, *first, *[writes[place] for place in places], *last]))
        answers = zip(shares, await self._ask_all(plan, None), strict=True)
        failed = {place for (_, places), replies in answers if replies[-1] is None for place in places}
        if self.tally is not None:
            self._count_writes(names, payloads or (), failed)
        return [key for place, key in enumerate(data) if place in failed] if failed else []

    set_many = blocking(aset_many)

    def _count_writes(self, names: Sequence[str], payloads: Sequence[bytes | int], failed: AbstractSet[int]) -> None:
        """Count entries that were stored together, or deleted if there are no *payloads*, except those at the places *failed*."""
        assert self.tally is not None
        if failed:
            left = [place for place in range(len(names)) if place not in failed]
            names, payloads = [names[place] for place in left], payloads and [payloads[place] for place in left]
        if payloads:
            self.tally.wrote_all(names, payloads)
        else:
            self.tally.deleted(names)

    async def adelete(self, key: Key, version: Version = None, prefix: str | None = None, client: Any = None) -> bool:
        """Delete *key*, and return whether there was an entry."""
        name = self.name(key, version, prefix)
        return self._deleted(name, await self._ask_voiding((c.DEL, name), 0, None, client))

    delete = blocking(adelete)

    async def adelete_many(self, keys: Iterable[Key], version: Version = None, client: Any = None) -> int | None:
        """Delete *keys* and return how many entries there were; None if *keys* is empty, as in Django."""
        names = unique(self._names(keys, version))
        if not names:
            return None
        self = self._through(client)
        shares = self.topology.shares(names, reads=False)
        counts = await self._unlink_names([(server, [names[place] for place in places]) for server, places in shares])
        return None if None in counts else sum(count or 0 for count in counts)

    delete_many = blocking(adelete_many)

    async def ahas_key(self, key: Key, version: Version = None, client: Any = None, *, fresh: bool = False) -> bool:
        """Return whether there is an entry for *key* that is not stale; *fresh* as with `aget`.

        The value is not sent, only its beginning; with a COMPRESSOR it is, because its beginning shows nothing.
        """
        return await self._is_there(self.name(key, version), client, fresh=fresh)

    has_key = blocking(ahas_key)

    def __contains__(self, key: Any) -> bool:
        return self.has_key(key)

    async def alookup(self, key: Key, version: Version = None, client: Any = None, *, fresh: bool = False) -> Lookup:
        """Return what is known of *key*: its value, whether it is near, fresh, stale or missing, and for how long.

        The server is asked in any case.  With *fresh* it does not matter whether there is a copy.
        """
        name, self = self.name(key, version), self._through(client)
        copy = None if self.near is None or fresh else self.near.copy(name)
        payload, left = await self._ask_several([(c.GET_NOW, name), (c.PTTL_NOW, name)], MISSING)
        if payload is MISSING:  # an ignored outage
            value = MISSING if copy is None else self._served(copy, MISSING)
            if copy is None:
                self._counted(name, MISSING, None)
            return Lookup() if copy is None or value is MISSING else Lookup(value, "near", left=_left(copy))
        seen = await self._examine(name, payload)
        self._counted(name, seen.value, payload, seen.standing)
        near = copy is not None and self._is_copied(copy, seen)
        if not near:
            self._overtake(name)
        if seen.value is MISSING:
            return Lookup()
        state: Literal["near", "fresh", "stale"] = "stale" if seen.standing is Standing.STALE else "fresh"
        metadata, ends = seen.metadata or Metadata(), [] if left == -1 else [left]
        if seen.milliseconds is not None:
            ends.append(seen.milliseconds + (metadata.stale if state == "stale" else 0))
        loaded = metadata.made > 0
        return Lookup(
            seen.value,
            "near" if near and state == "fresh" else state,
            age=await self._age(name, metadata) if loaded else None,
            left=max(min(ends), 0) / 1000 if ends else None,
            tags=tuple(tag for tag, _ in metadata.tags),
            cost=metadata.cost / 1000 if loaded else None,
        )

    def _is_copied(self, copy: Entry, seen: Found) -> bool:
        """Whether *copy* has the value of the entry that was *seen*."""
        if copy.value is not PACKED:
            return type(copy.value) is type(seen.value) and bool(copy.value == seen.value)
        bare = seen.payload if seen.payload is None or seen.metadata is None else self.codec.bare(seen.payload)
        return copy.payload == bare

    async def _age(self, name: str, metadata: Metadata) -> float | None:
        now = await self._moment(self.topology.home(name))
        return None if now is None else max(now - metadata.made, 0) / 1000

    lookup = blocking(alookup)

    # --- counters ---------------------------------------------------------------------------------

    async def aincr(
        self,
        key: Key,
        delta: float | Decimal = 1,
        version: Version = None,
        client: Any = None,
        ignore_key_check: bool = False,
        *,
        default: float | Decimal | None = None,
        timeout: Timeout = None,
    ) -> int | Any:
        """Add *delta* to the number under *key*, and return the sum; its timeout stays as it is.

        If there is no number, *default* is stored first, for *timeout* seconds, in the same
        atomic step; without *default* this raises ValueError.  *ignore_key_check* means a default of 0.
        Numbers that are no 64-bit integers are added in Python, and the sum is stored only if no
        other caller has stored meanwhile.  The same holds for entries with tags or a stale life, which the entry keeps.
        A number whose fresh life has ended counts as missing.
        """
        name = self.name(key, version)
        if ignore_key_check and default is None:
            default = 0
        if default is not None:
            _number("default", default)
        expiry = self.milliseconds(timeout)
        start = 0 if default is None else default
        if type(delta) is type(start) is int and abs(delta) < 2**63 and abs(start) < 2**63:
            first = ("" if default is None else default, "" if expiry is None else expiry)
            try:
                command = (c.EVALSHA, c.INCR, 1, name, delta, *first)
                total = await self._ask_voiding(command, None if default is None else expiry, MISSING, client)
            except ResponseError as error:
                if "not an integer or out of range" not in str(error) and "overflow" not in str(error):
                    raise
            else:
                if total is None:
                    raise ValueError(f"Key {name!r} not found")
                if total is MISSING:
                    return None
                self._wrote(name, None, stored=True)
                return int(total)
        return await self._add(name, _number("delta", delta), default, expiry, client)

    incr = blocking(aincr)

    async def _add(self, name: str, delta: Any, default: Any, expiry: int | None, client: Any) -> Any:
        await self._runtime.alone()
        while True:
            payload = await self.ask((c.GET_NOW, name), MISSING, client)
            if payload is MISSING:
                return None  # an ignored outage
            seen = await self._examine(name, payload)
            value, kept = seen.served(), seen.metadata
            missing = value is MISSING
            if missing and default is None:
                raise ValueError(f"Key {name!r} not found")
            value = default if missing else value
            try:
                total = value + delta
            except TypeError as error:
                found, wanted = type(value).__name__, type(delta).__name__
                raise TypeError(f"the value is of type {found}, to which no {wanted} can be added") from error
            metadata = None if missing or kept is None else [replace(kept, stamp=new_stamp())]
            (new,) = await self.encoded((total,), metadata=metadata)
            lifetime = () if expiry is None else ("PX", expiry)
            if payload is None:
                stored = await self._ask_voiding((c.SET_IF, name, new, *lifetime, "NX"), expiry, MISSING, client)
            else:
                words = lifetime if missing else ("KEEPTTL",)
                stored = await self._run(c.SWAP, name, payload, new, *words, instead=MISSING, client=client)
            if stored:
                if stored is MISSING:
                    return None
                self._wrote(name, new, stored=True)
                return total

    async def adecr(
        self, key: Key, delta: float | Decimal = 1, version: Version = None, client: Any = None
    ) -> int | Any:
        """Subtract *delta* from the number under *key*, and return the difference."""
        return await self.aincr(key, -_number("delta", delta), version, client)

    decr = blocking(adecr)


def _left(copy: Entry) -> float:
    """Return for how many seconds *copy* may be served yet."""
    return max(copy.deadline - clock(), 0.0)


def _number(what: str, value: Any) -> Any:
    """Return *value*, the argument *what* of `incr`, if it is a number of any kind."""
    if not isinstance(value, Number):
        raise TypeError(f"{what} has to be a number, not {type(value).__name__}")
    return value
