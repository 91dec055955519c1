"""The cache: each operation once, its blocking face beside it.

What a client class of one's own overrides is the coroutine, and its face with it::

    class Loud(DefaultClient):
        async def aget(self, key, *args, **kwargs):
            print(key)
            return await super().aget(key, *args, **kwargs)

        get = blocking(aget)
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from numbers import Number
from types import GenericAlias, MappingProxyType
from typing import Any, Self

from redis.exceptions import DataError, ResponseError

from fleetcache import commands as c
from fleetcache.codec.payloads import Codec
from fleetcache.codec.serializers import BaseSerializer
from fleetcache.core import DEFAULT_TIMEOUT, MISSING, Core, Timeout
from fleetcache.errors import UnreadableValue
from fleetcache.exchange.contract import Server, Verb
from fleetcache.exchange.runtime import AWAITING, BLOCKING
from fleetcache.failsafe import RAISE, TROUBLE, Failsafe
from fleetcache.keys import CacheKey, default_key_function, unique
from fleetcache.loading.get_or_set import Loading
from fleetcache.locks.lock import Lock
from fleetcache.near.near import CANARY, PACKED, Near, announced, clock, open_near
from fleetcache.patterns import pattern_of, pattern_of_all
from fleetcache.pipeline import OPERATIONS, Pipeline
from fleetcache.pool import frozen
from fleetcache.servers.borrowed import behind, is_pipeline
from fleetcache.settings import Settings, from_url
from fleetcache.sharing import Sharing
from fleetcache.stats import Stats
from fleetcache.structures import Hashes, Lists, Sets, SortedSets
from fleetcache.times import moment
from fleetcache.topology.contract import Topology
from fleetcache.topology.opening import aclose_idle, close_idle, in_both_roles, open_cluster, open_servers
from fleetcache.topology.standalone import Standalone
from fleetcache.twin import blocking, complete, iterating, join
from fleetcache.urls import clustered, watched

FOLLOWED = frozenset(Core.__annotations__) - {"failsafe"}
"""What is set on a cache is set on its client as well."""


@dataclass(eq=False)
class Shared:
    """What all caches of one configuration in this process share."""

    settings: Settings
    topology: Topology
    codec: Codec
    stats: Stats
    near: Near | None
    made_of: tuple[Any, ...]
    """The arguments, because some of their parts are identified by address."""


_shared: Sharing[Shared] = Sharing()


class Cache(Loading, Hashes, Sets, SortedSets, Lists):
    """A cache on one server, and replicas of it.

    It is light: connections, codec and counters belong to the process and are shared by all
    objects with the same settings.  Making one sends nothing.
    """

    operations = OPERATIONS
    __class_getitem__: Any = classmethod(GenericAlias)
    """django-redis' clients and backend are generic."""

    _raising: Mapping[str, Self] = MappingProxyType({})
    """`client` and `strict` of this face, once they were asked for."""

    def __init__(
        self,
        location: Any,
        params: Mapping[str, Any] | None = None,
        *,
        alias: str = "",
        defaults: Mapping[str, Any] | None = None,
        near: Any = None,
    ) -> None:
        params = params or {}
        if near is not None:
            params = {**params, "OPTIONS": {**(params.get("OPTIONS") or {}), "NEAR": near}}
        common = self.common = self.shared(location, params, alias, defaults)
        self.settings, self.topology, self.codec = common.settings, common.topology, common.codec
        self.stats, self.near = common.stats, common.near
        self.key_prefix = self.settings.key_prefix
        self.version = self.settings.version
        self.key_func = self.settings.key_function
        self.default_timeout = self.settings.timeout
        options = self.settings.options
        self.logger = logging.getLogger(options.logger) if options.log_ignored_exceptions else None
        self.failsafe = Failsafe(options.ignore_exceptions, self.logger, options.raise_for)
        self.wait_by(AWAITING, BLOCKING)

    @classmethod
    def shared(
        cls, location: Any, params: Mapping[str, Any], alias: str = "", defaults: Mapping[str, Any] | None = None
    ) -> Shared:
        """Return what all caches of these settings in this process share, made on first use."""
        key = (cls, frozen(location), frozen(params), frozen(defaults))
        found = _shared.get(key)
        if found is None:
            # A site's modules are imported and its classes called without a lock: they may make caches, and wait
            # for a thread that imports them and makes one too.
            settings = Settings.read(location, params, alias=alias, defaults=defaults)
            topology, codec = cls.open(settings), cls.make_codec(settings)
            near = open_near(settings, announced(settings), topology, cls.warns)
            made = Shared(settings, topology, codec, Stats(), near, (cls, location, params, defaults))
            found = _shared.put(key, made)
        return found

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return the cache at *url*, whose query may hold any setting in lower case."""
        return cls(*from_url(url))

    @classmethod
    def open(cls, settings: Settings) -> Topology:
        """Return the servers of *settings*, unconnected; client classes differ here."""
        if clustered(settings.location):
            return open_cluster(settings.location, settings.options)
        urls, options = settings.location, settings.options
        if len(urls) == 1 and watched(urls[0]) and options.read_from not in {None, "primary"}:
            urls = in_both_roles(urls[0])
        servers = open_servers(urls, options)
        return Standalone(servers, writes_elsewhere=not options.replica_read_only, read_from=options.read_from)

    @classmethod
    def make_codec(cls, settings: Settings) -> Codec:
        """Return what turns the values of *settings* into bytes."""
        options = settings.options
        written = options.given
        serializer = options.serializer
        takes_options = isinstance(serializer, type) and issubclass(serializer, BaseSerializer)
        if "serializer" in written and callable(serializer) and not takes_options:
            serializer = serializer()  # Django's dialect: a class or a function
        return Codec(serializer, options.compressor, written)

    def __repr__(self) -> str:
        if "topology" not in self.__dict__:  # the settings were refused, and a debugger looks
            return f"<{type(self).__name__}>"
        servers = ", ".join(server.address for server in self.topology.primaries or self.topology.servers)
        return f"<{type(self).__name__} {servers}>"

    # --- values -----------------------------------------------------------------------------------

    async def aget(
        self, key: Any, default: Any = None, version: Any = None, client: Any = None, *, fresh: bool = False
    ) -> Any:
        """Return the value of *key*, or *default* if there is none.  A stored None is a value.

        With *fresh* the primary is asked, even if there is a copy near, or replicas answer reads.
        """
        name = self.name(key, version)
        near = self.near
        if near is not None and client is None:
            if not (fresh or self.runtime.records) and (copy := near.copy(name)) is not None:
                return self.served(copy, default)
            value = await self.fetch(near, name)
            return default if value is MISSING else value
        payload = await self.ask((c.GET_NOW if fresh else c.GET, name), None, client)
        if near is not None:
            near.forget((name,))  # a copy may be older than what this client was told
        if payload is None:
            return default
        try:
            return self.codec.decode(payload)
        except UnreadableValue as error:
            self.note_unreadable(error, name)
            return default

    def get(
        self, key: Any, default: Any = None, version: Any = None, client: Any = None, *, fresh: bool = False
    ) -> Any:
        # By hand: a near hit takes less time than making a coroutine would.  See `Near.copy`.
        if self.head is not None and type(key) is str and version is client is None and not fresh:
            near: Any = self.near
            name = self.head + key
            copy = near.copies.get(name)
            if copy is not None:
                now = clock()
                if now < copy.deadline and now < copy.epoch.until:
                    if copy.value is PACKED:
                        return self.served(copy, default)
                    copy.hits += 1
                    return copy.value
            elif near.only is not None and name not in near.only.pending:
                if self.warns:
                    self._warn(name)
                value = complete((self.still or self).fetch(near, name))
                return default if value is MISSING else value
        return complete(Cache.aget(self.still or self, key, default, version, client, fresh=fresh))

    get.__doc__ = aget.__doc__

    async def aset(
        self,
        key: Any,
        value: Any,
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: Any = None,
        client: Any = None,
        nx: bool = False,
        xx: bool = False,
    ) -> bool:
        """Store *value* for *timeout* seconds, None for ever; return whether it was stored.

        With *nx* only if there is none, with *xx* only if there is one.  A timeout of 0 or less
        deletes instead, and tells whether there was something to delete.
        """
        name = self.name(key, version)
        expiry = self.milliseconds(timeout)
        if expiry is not None and expiry <= 0:
            if nx:
                missing = not await self.ask((c.EXISTS_NOW, name), False, client)
                if self.near is not None:
                    self.near.forget((name,))  # a copy may be older than this
                return missing
            return bool(await self.ask((c.DEL, name), False, client))
        if self.runtime.blocks:
            payload = self.codec.encode(value)
        else:
            (payload,) = await self.encoded((value,))
        lifetime = () if expiry is None else ("PX", expiry)
        if nx and xx:
            raise DataError("nx and xx exclude each other")
        if nx:
            return await self._set_new(name, payload, lifetime, self.added_in_outage(key), client)
        command = (c.SET_IF, name, payload, *lifetime, "XX") if xx else (c.SET, name, payload, *lifetime)
        return bool(await self.ask(command, False, client))

    set = blocking(aset)

    async def _set_new(
        self, name: str, payload: bytes | int, lifetime: tuple[Any, ...], instead: bool, client: Any
    ) -> bool:
        """Store *payload* if there is nothing that can be read, and return whether it was stored."""
        if self.settings.options.unreadable == "raise" or self.runtime.once or is_pipeline(client):
            return bool(await self.ask((c.SET_IF, name, payload, *lifetime, "NX"), instead, client))
        while True:
            try:
                there = await self.ask((c.ADD, name, payload, *lifetime, "NX", "GET"), MISSING, client)
            except ResponseError as error:
                if "WRONGTYPE" not in str(error):
                    raise
                return False  # it is no value, but it is there
            if there is MISSING or there is None:
                return instead if there is MISSING else True
            if self.decoded(there, name) is not MISSING:
                return False
            stored = await self.run(c.SWAP, name, there, payload, *lifetime, instead=MISSING, client=client)
            if stored:
                return instead if stored is MISSING else True

    def added_in_outage(self, key: Any) -> bool:
        """What `add` returns while the server is away and that is ignored."""
        return False

    async def aadd(
        self, key: Any, value: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None, client: Any = None
    ) -> bool:
        """Store *value* if there is none, or none that can be read, and return whether it was stored."""
        return await self.aset(key, value, timeout, version, client, nx=True)

    add = blocking(aadd)

    async def aget_many(
        self, keys: Iterable[Any], version: Any = None, client: Any = None, *, fresh: bool = False
    ) -> dict[Any, Any]:
        """Return the values of those *keys* that have one, in one round trip; *fresh* as with `aget`."""
        keys = list(keys or ())
        if not keys:
            return {}
        named = dict(zip(self.names(keys, version), keys, strict=True))
        names = list(named)
        if self.near is not None and client is None:
            near_by = await self._get_near(self.near, names, fresh=fresh or self.runtime.records)
            return {named[name]: value for name, value in near_by.items()}
        payloads = await self._payloads(c.MGET_NOW if fresh else c.MGET, names, client)
        found = named
        if None in payloads:
            found = {
                name: key for (name, key), payload in zip(named.items(), payloads, strict=True) if payload is not None
            }
            payloads = [payload for payload in payloads if payload is not None]
        try:
            return dict(zip(found.values(), self.codec.decode_all(payloads), strict=True))
        except UnreadableValue:  # one by one, to say which
            values = [self.decoded(payload, name) for name, payload in zip(found, payloads, strict=True)]
        return {key: value for key, value in zip(found.values(), values, strict=True) if value is not MISSING}

    async def _payloads(self, verb: Verb, names: list[str], client: Any) -> list[Any]:
        """Return the payload of each of *names*, None where there is none, or its server is away."""
        answers = await self.ask_many(verb, names, None, client)
        if len(answers) == 1 and len(answers[0][1] or ()) == len(names):
            payloads: list[Any] = answers[0][1]
            return payloads
        payloads = [None] * len(names)
        for places, reply in answers:
            for place, payload in zip(places, reply or (), strict=False):
                payloads[place] = payload
        return payloads

    get_many = blocking(aget_many)

    async def _get_near(self, near: Near, names: list[str], *, fresh: bool) -> dict[str, Any]:
        """Return the values of those *names* that have one, from their copies where there are some."""
        if fresh:
            return await self.fetch_many(near, names)
        copies = {name: copy for name in names if (copy := near.copy(name)) is not None}
        found = {name: self.served(copy, MISSING) for name, copy in copies.items()}
        if len(copies) < len(names):
            found |= await self.fetch_many(near, [name for name in names if name not in copies])
        return {name: found[name] for name in names if found.get(name, MISSING) is not MISSING}

    async def aset_many(
        self, data: Mapping[Any, Any], timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None, client: Any = None
    ) -> list[Any]:
        """Store all of *data*, in one transaction per server unless that is a cluster; return the keys that were not stored."""
        if not data:
            return []
        expiry = self.milliseconds(timeout)
        names = self.names(data, version)
        writes: list[tuple[Any, ...]]
        if expiry is not None and expiry <= 0:
            writes = [(c.DEL, name) for name in names]
        else:
            payloads = await self.encoded(data.values())
            pairs = zip(names, payloads, strict=True)
            if expiry is None:
                writes = [(c.SET, name, payload) for name, payload in pairs]
            else:
                writes = [(c.SET, name, payload, "PX", expiry) for name, payload in pairs]
        if client is not None:
            return list(data) if None in await self.ask_several(writes, None, client) else []
        # No transaction could be about several slots, and one for each key would be none.
        first, last = ((), ()) if self.topology.splits else (((c.MULTI,),), ((c.EXEC,),))
        shares = self.topology.shares(names, reads=False)
        plan = [(server, [*first, *[writes[place] for place in places], *last]) for server, places in shares]
        answers = zip(shares, await self.ask_all(plan, None), strict=True)
        failed = {place for (_, places), replies in answers if replies[-1] is None for place in places}
        return [key for place, key in enumerate(data) if place in failed] if failed else []

    set_many = blocking(aset_many)

    async def adelete(self, key: Any, version: Any = None, prefix: str | None = None, client: Any = None) -> bool:
        """Delete *key*, and return whether there was something to delete."""
        return bool(await self.ask((c.DEL, self.name(key, version, prefix)), False, client))

    delete = blocking(adelete)

    async def adelete_many(self, keys: Iterable[Any], version: Any = None, client: Any = None) -> int | None:
        """Delete *keys* and return how many there were; None if *keys* is empty, as Django has it."""
        names = unique(self.names(keys, version))
        if not names:
            return None
        counts = [reply for _, reply in await self.ask_many(c.UNLINK, names, None, client)]
        return None if None in counts else sum(map(int, counts))

    delete_many = blocking(adelete_many)

    async def ahas_key(self, key: Any, version: Any = None, client: Any = None, *, fresh: bool = False) -> bool:
        """Return whether there is an entry for *key*, which is not read; *fresh* as with `aget`."""
        name = self.name(key, version)
        near = self.near
        if near is None or client is not None:
            return bool(await self.ask((c.EXISTS_NOW if fresh else c.EXISTS, name), False, client))
        if not (fresh or self.runtime.records) and (copy := near.copy(name)) is not None:
            copy.hits += 1
            return copy.value is not PACKED or copy.payload is not None
        found = bool(await self.ask((c.EXISTS_NOW, name), False))
        near.forget((name,))  # a copy may be older than this
        return found

    has_key = blocking(ahas_key)

    def __contains__(self, key: Any) -> bool:
        return self.has_key(key)

    # --- counters ---------------------------------------------------------------------------------

    async def aincr(
        self,
        key: Any,
        delta: Any = 1,
        version: Any = None,
        client: Any = None,
        ignore_key_check: bool = False,
        *,
        default: int | None = None,
        timeout: Timeout = None,
    ) -> Any:
        """Add *delta* to the number under *key*, and return the sum; its timeout stays as it is.

        Without a number there, *default* is stored first, for *timeout* seconds, in the same
        atomic step; without *default* that is a ValueError.  *ignore_key_check* is a default of 0.
        Numbers that are no 64-bit integers are added here, and stored only if nobody else has
        stored in between.
        """
        name = self.name(key, version)
        if ignore_key_check and default is None:
            default = 0
        if not (default is None or isinstance(default, Number)):
            raise TypeError(f"incr: default has to be a number, not {type(default).__name__}")
        expiry = self.milliseconds(timeout)
        start = 0 if default is None else default
        if type(delta) is type(start) is int and abs(delta) < 2**63 and abs(start) < 2**63:
            first = ("" if default is None else default, "" if expiry is None else expiry)
            try:
                total = await self.run(c.INCR, name, delta, *first, instead=MISSING, client=client)
            except ResponseError as error:
                if "not an integer or out of range" not in str(error) and "overflow" not in str(error):
                    raise
            else:
                if total is None:
                    raise ValueError(f"Key {name!r} not found")
                return None if total is MISSING else int(total)
        return await self._add(name, delta, default, expiry, client)

    incr = blocking(aincr)

    async def _add(self, name: str, delta: Any, default: Any, expiry: int | None, client: Any) -> Any:
        await self.runtime.alone()
        while True:
            payload = await self.ask((c.GET_NOW, name), MISSING, client)
            if payload is MISSING:
                return None  # the server is away, and that is ignored
            value = MISSING if payload is None else self.decoded(payload, name)
            if value is MISSING and default is None:
                raise ValueError(f"Key {name!r} not found")
            total = (default if value is MISSING else value) + delta
            (new,) = await self.encoded((total,))
            lifetime = () if expiry is None else ("PX", expiry)
            if payload is None:
                stored = await self.ask((c.SET_IF, name, new, *lifetime, "NX"), MISSING, client)
            else:
                words = lifetime if value is MISSING else ("KEEPTTL",)
                stored = await self.run(c.SWAP, name, payload, new, *words, instead=MISSING, client=client)
            if stored:
                return None if stored is MISSING else total

    async def adecr(self, key: Any, delta: Any = 1, version: Any = None, client: Any = None) -> Any:
        """Subtract *delta* from the number under *key*, and return the difference."""
        return await self.aincr(key, -delta, version, client)

    decr = blocking(adecr)

    async def aincr_version(self, key: Any, delta: int = 1, version: Any = None, client: Any = None) -> Any:
        """Move the value of *key* to a version higher by *delta*, timeout and all; return that version."""
        version = self.version if version is None else version
        old = self.name(key, version)
        if isinstance(key, CacheKey):
            key = self._reversed(key, self.name("", version))  # as a name it would stay where it is
        new = self.name(key, version + delta)
        if client is None and not self.topology.together((old, new)):
            moved = await self._move(old, new)
        else:
            try:
                moved = await self.ask((c.RENAME, old, new), None, client)
            except ResponseError as error:
                if "no such key" not in str(error):
                    raise
                moved = False
        if moved is False:
            raise ValueError(f"Key {old!r} not found")
        return None if moved is None else version + delta

    incr_version = blocking(aincr_version)

    async def _move(self, old: str, new: str) -> bool | None:
        """Move an entry to another server or slot: write there, then delete here."""
        await self.runtime.alone()
        try:
            payload, left = await self.ask_several([(c.GET_NOW, old), (c.PTTL_NOW, old)], None)
        except ResponseError as error:
            if "WRONGTYPE" in str(error):
                self.together((old, new), "moving what is no plain value")
            raise
        if payload is None:
            return None if left is None else False
        lifetime = ("PX", left) if left > 0 else ()
        if not await self.ask((c.SET, new, payload, *lifetime), None):
            return None
        await self.ask((c.DEL, old), None)
        return True

    async def adecr_version(self, key: Any, delta: int = 1, version: Any = None, client: Any = None) -> Any:
        """Move the value of *key* to a version lower by *delta*; return that version."""
        return await self.aincr_version(key, -delta, version, client)

    decr_version = blocking(adecr_version)

    # --- lifetimes --------------------------------------------------------------------------------

    async def atouch(
        self, key: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None, client: Any = None
    ) -> bool:
        """Give *key* a new timeout, and return whether it was there (for None: and had one)."""
        expiry = self.milliseconds(timeout)
        return await self._expire(key, expiry, version, client)

    touch = blocking(atouch)

    async def aget_with_ttl(self, key: Any, default: Any = None, version: Any = None) -> tuple[Any, float | None]:
        """Return the value of *key* and its seconds to live: None for ever, 0 with *default* if missing."""
        name = self.name(key, version)
        if self.near is None:
            payload, left = await self.ask_several([(c.GET, name), (c.PTTL, name)], None)
        else:
            payload, left = await self.ask_several([(c.GET_NOW, name), (c.PTTL_NOW, name)], None)
            self.near.forget((name,))  # a copy may be older than this
        value = MISSING if payload is None else self.decoded(payload, name)
        if value is MISSING:
            return default, 0
        return value, None if left == -1 else max(left, 0) / 1000

    get_with_ttl = blocking(aget_with_ttl)

    async def attl(self, key: Any, version: Any = None, client: Any = None) -> int | None:
        """Return the seconds *key* has to live: None for ever, 0 if it is missing."""
        return _left(await self.ask((c.TTL, self.name(key, version)), -2, client))

    ttl = blocking(attl)

    async def apttl(self, key: Any, version: Any = None, client: Any = None) -> int | None:
        """Return the milliseconds *key* has to live: None for ever, 0 if it is missing."""
        return _left(await self.ask((c.PTTL, self.name(key, version)), -2, client))

    pttl = blocking(apttl)

    async def apersist(self, key: Any, version: Any = None, client: Any = None) -> bool:
        """Let *key* live for ever; return whether it had a timeout."""
        return await self._expire(key, None, version, client)

    persist = blocking(apersist)

    async def aexpire(self, key: Any, timeout: Timeout, version: Any = None, client: Any = None) -> bool:
        """Let *key* live for *timeout* seconds; return whether it was there."""
        return await self._expire(key, self.milliseconds(timeout), version, client)

    expire = blocking(aexpire)

    async def apexpire(self, key: Any, timeout: Timeout, version: Any = None, client: Any = None) -> bool:
        """Let *key* live for *timeout* milliseconds; return whether it was there."""
        return await self._expire(key, self.milliseconds(timeout, unit=1), version, client)

    pexpire = blocking(apexpire)

    async def _expire(self, key: Any, milliseconds: int | None, version: Any, client: Any) -> bool:
        name = self.name(key, version)
        if milliseconds is None:
            return bool(await self.ask((c.PERSIST, name), False, client))
        return bool(await self.ask((c.PEXPIRE, name, milliseconds), False, client))

    async def aexpire_at(self, key: Any, when: datetime | int, version: Any = None, client: Any = None) -> bool:
        """Let *key* live until *when*, a datetime or seconds since 1970; return whether it was there."""
        return bool(await self.ask((c.EXPIREAT, self.name(key, version), moment(when)), False, client))

    expire_at = blocking(aexpire_at)

    async def apexpire_at(self, key: Any, when: datetime | int, version: Any = None, client: Any = None) -> bool:
        """Let *key* live until *when*, a datetime or milliseconds since 1970; return whether it was there."""
        return bool(await self.ask((c.PEXPIREAT, self.name(key, version), moment(when, unit=1000)), False, client))

    pexpire_at = blocking(apexpire_at)

    # --- looking around ---------------------------------------------------------------------------

    async def ascan(
        self, cursor: int = 0, search: str = "*", itersize: int | None = None, version: Any = None, client: Any = None
    ) -> tuple[int, list[str]]:
        """Return the next cursor, 0 at the end, and a page of keys that match the glob *search*.

        A key that is there throughout is returned at least once.
        """
        head = self.name("", version)
        cursor, names = await self._page(cursor, self.make_pattern(search, version), itersize, client)
        # Others may have put names there that are no text.
        found = [name.decode(errors="replace") for name in names or ()]
        if self.key_func is not default_key_function:
            found = [name for name in found if CANARY not in name]  # by the default function no pattern finds them
        return cursor, [self._reversed(name, head) for name in found]

    scan = blocking(ascan)

    async def _page(
        self, cursor: int, pattern: str, itersize: int | None, client: Any
    ) -> tuple[int, list[bytes] | None]:
        """Return the next cursor and a page of names, None of a server that is away.

        A cursor counts through all servers in turn.
        """
        servers = (cursor and client is None and self.topology.primaries) or await self._primaries(client)
        at, place = divmod(cursor, len(servers))
        count = self.settings.options.scan_itersize if itersize is None else itersize
        command = (c.SCAN, at, "MATCH", pattern, "COUNT", count)
        (((at, found),),) = await self.ask_all([(servers[place], (command,))], (0, None))
        place += int(at) == 0
        return (int(at) * len(servers) + place if place < len(servers) else 0), found

    async def _primaries(self, client: Any) -> Sequence[Server]:
        if client is not None:
            return [behind(client)]
        if self.topology.moves:
            await self.runtime.alone()  # who the primaries are is asked first
        try:
            return await self.topology.survey(self.runtime)
        except TROUBLE as error:  # whoever asks the server hears the same
            return self.failsafe.instead(error, self.topology.servers[:1], tuple)

    def _reversed(self, name: str, head: str) -> str:
        """Return the key within *name*, which begins with *head* unless the site names keys its own way."""
        reverse = self.settings.reverse_key_function
        if reverse is not None:
            return reverse(name)
        return name.removeprefix(head)

    def reverse_key(self, name: str) -> str:
        """Return the key within *name*, in the cache's own prefix and version."""
        return self._reversed(name, self.name(""))

    async def akeys(self, search: str, version: Any = None, client: Any = None) -> list[str]:
        """Return all keys that match the glob *search*, each once."""
        await self.runtime.alone()
        return unique([key async for key in self.aiter_keys(search, None, client, version)])

    keys = blocking(akeys)

    async def aiter_keys(
        self, search: str, itersize: int | None = None, client: Any = None, version: Any = None
    ) -> AsyncIterator[str]:
        """Yield the keys that match the glob *search*, page by page; one may come twice."""
        cursor, pages = 0, c.Round()
        while True:
            cursor, page = await self.ascan(cursor, search, itersize, version, client)
            for key in page:
                yield key
            if not cursor or not self.goes_on(pages, cursor):
                return

    iter_keys = iterating(aiter_keys)

    # --- many at once -----------------------------------------------------------------------------

    async def adelete_pattern(
        self,
        pattern: str,
        version: Any = None,
        prefix: str | None = None,
        client: Any = None,
        itersize: int | None = None,
    ) -> int | None:
        """Delete the keys that match the glob *pattern*, page by page, and return how many there were."""
        return await self._unlink(self.make_pattern(pattern, version, prefix), itersize, client)

    delete_pattern = blocking(adelete_pattern)

    async def _unlink(self, pattern: str, itersize: int | None = None, client: Any = None) -> int | None:
        await self.runtime.alone()
        servers = await self._primaries(client)
        cursor, replies, pages = 0, list[Any](), c.Round()
        while True:
            server = servers[cursor % len(servers)]
            cursor, names = await self._page(cursor, pattern, itersize, client)
            if names is None:
                replies.append(None)
            elif names:
                replies += (await self.ask_all([(server, self.about(c.UNLINK, names))], None))[0]
            if cursor and not self.goes_on(pages, cursor):
                return None
            if not cursor:
                return None if None in replies else sum(map(int, replies))

    async def aclear(self, client: Any = None) -> None:
        """Empty the database, or with a KEY_PREFIX remove all that stands under it, in every version."""
        scope = self.settings.options.clear
        if scope == "prefix" or (scope == "auto" and self.key_prefix):
            await self._unlink(pattern_of_all(self.key_func, self.key_prefix), client=client)
        else:
            await self.ask_all([(server, ((c.FLUSHDB,),)) for server in await self._primaries(client)], None)

    clear = blocking(aclear)

    def pipeline(self, transaction: bool = False) -> Pipeline:
        """Return a `Pipeline`, which collects operations and runs them together."""
        return Pipeline(self, transaction=transaction)

    # --- locks ------------------------------------------------------------------------------------

    def lock(
        self,
        key: Any,
        version: Any = None,
        timeout: Timeout = None,
        sleep: float = 0.1,
        blocking: bool = True,
        blocking_timeout: float | None = None,
        client: Any = None,
        thread_local: bool = True,
    ) -> Lock:
        """Return a `Lock` named *key*, for ``with`` and ``async with``.

        It is tried every *sleep* seconds, for *blocking_timeout* seconds at most, or once if not *blocking*.
        """
        return Lock(self, self.name(key, version), timeout, sleep, blocking, blocking_timeout, client, thread_local)

    async def alock(self, *args: Any, **kwargs: Any) -> Lock:
        """Return a `Lock`; the same as `lock`, for those who await by habit."""
        return self.lock(*args, **kwargs)

    # --- the near cache ---------------------------------------------------------------------------

    def fence(self) -> None:
        """Wait until this process knows of every write that was acknowledged to anybody before now.

        Reads that begin afterwards reflect them all.  One round trip; without a near cache nothing is
        to be done.  It never raises: while the server does not answer, reads go to the server.
        """
        if self.near is not None:
            self.near.fence()

    async def afence(self) -> None:
        """Wait until this process knows of every write that was acknowledged to anybody before now."""
        if self.near is not None:
            await self.near.afence()

    def info(self) -> dict[str, Any]:
        """Return the state of this cache in this process: its servers and where they redirected, its near cache, its counters.

        Nothing is sent.
        """
        off = {"state": "off", "why": "OPTIONS['NEAR'] is not set"}
        if self.settings.options.near is not None:
            off["why"] = "memory:// is in this process already"
        return {
            "servers": [{"address": server.address, "away": server.away} for server in self.topology.servers],
            "near": off if self.near is None else self.near.stats(),
            "redirects": dict(self.topology.counts),
            "unreadable": self.stats.unreadable,
        }

    # --- underneath -------------------------------------------------------------------------------

    def make_key(self, key: Any, version: Any = None, prefix: str | None = None) -> CacheKey:
        """Return the name of *key* on the server; methods take it for what it is."""
        return CacheKey(self.name(key, version, prefix))

    def make_pattern(self, pattern: str, version: Any = None, prefix: str | None = None) -> CacheKey:
        """Return a glob for the server; prefix and version stand for themselves."""
        if isinstance(pattern, CacheKey):
            return pattern
        prefix = self.key_prefix if prefix is None else prefix
        version = self.version if version is None else version
        return CacheKey(pattern_of(self.key_func, pattern, prefix, version))

    def encode(self, value: Any, *, allow_int: bool = True) -> bytes | int:
        """Return the payload of *value*."""
        return self.codec.encode(value, integers=allow_int)

    def decode(self, value: bytes | int) -> Any:
        """Return the value in the payload *value*."""
        return value if isinstance(value, int) else self.codec.decode(value)

    @property
    def client(self) -> Any:
        """The cache with every exception raised: django-redis' ``cache.client``.

        It is an object of its own, of the client class.  Methods that a backend overrides, or that a tool
        replaces on the cache, are free to call those of the client.  What names entries is set on both.
        """
        if "client" in self._raising:
            return self._raising["client"]
        kind = self._client_kind()
        if self.failsafe is RAISE and type(self) is kind:
            raise AttributeError(
                "a client has no client, and raises by itself: call its own methods, or those of super()"
            )
        return self._raise_as("client", kind)

    @property
    def strict(self) -> Self:
        """The cache with every exception raised, for limiters and whatever else must not take an outage for a no."""
        if "strict" in self._raising:
            return self._raising["strict"]
        return self if self.failsafe is RAISE else self._raise_as("strict", type(self))

    def _client_kind(self) -> Any:
        """Return the class of `client`: the nearest that is the library's, or that CLIENT_CLASS names."""
        named = self.settings.options.client_class
        return next(kind for kind in type(self).__mro__ if kind is named or kind.__module__.startswith("fleetcache."))

    def _raise_as(self, what: str, kind: Any) -> Any:
        """Make both faces of `client` or `strict`, of the class *kind*; return that of this face."""
        made = [face.face(kind, failsafe=RAISE) for face in self._faces]
        join(*made)
        for face, raising in zip(self._faces, made, strict=True):
            object.__setattr__(face, "_raising", {**face._raising, what: raising})
        return self._raising[what]

    def _sharers(self, name: str) -> list[Self]:
        if name not in FOLLOWED:
            return super()._sharers(name)
        if not self._raising:
            return self._faces
        return self._faces + [raising for face in self._faces for raising in face._raising.values()]

    def get_client(self, write: bool = True, tried: Any = None) -> Any:
        """Return a raw ``redis.Redis`` to the primary, or for reading to a replica."""
        return self.topology.route((c.SET if write else c.GET, "")).client()

    def close(self, **kwargs: Any) -> None:
        """Close idle connections if CLOSE_CONNECTION is set; those in use stay, and are never cut."""
        if self.settings.options.close_connection:
            close_idle(self.topology)

    async def aclose(self, **kwargs: Any) -> None:
        """Close idle connections, and the running loop's, if CLOSE_CONNECTION is set."""
        if self.settings.options.close_connection:
            await aclose_idle(self.topology)


def _left(reply: int) -> int | None:
    """The server says -1 for "for ever" and -2 for "missing"."""
    return None if reply == -1 else max(reply, 0)
