"""The class `Cache`: all operations together, with the servers, the codec and the near cache that they use.

A client class of a site's own overrides the coroutine of an operation, and its blocking face with it::

    class Loud(DefaultClient):
        async def aget(self, key, *args, **kwargs):
            print(key)
            return await super().aget(key, *args, **kwargs)

        get = blocking(aget)
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from types import GenericAlias, MappingProxyType
from typing import Any, Self
from weakref import WeakMethod

from fleetcache import commands as c
from fleetcache import kinds
from fleetcache.codec.metadata import alone
from fleetcache.codec.payloads import Codec
from fleetcache.codec.serializers import BaseSerializer
from fleetcache.core import LEASES, Core, Timeout
from fleetcache.errors import SettingsError
from fleetcache.exchange.runtime import AWAITING, BLOCKING
from fleetcache.failsafe import RAISE, Failsafe
from fleetcache.fleet.publishing import PUBLISHING
from fleetcache.keys import TAG, CacheKey, Key, KeyFunction, Version, default_key_function, frame, key_within
from fleetcache.keyspace import Keyspace
from fleetcache.loading.flights import PROTECTION, Flights
from fleetcache.loading.invalidation import Invalidation
from fleetcache.loading.many import Batches
from fleetcache.locks.lock import Lock
from fleetcache.naming import MADE, Following, Naming, adopt, following, named_by_make_key
from fleetcache.near.near import Near, announced, open_near
from fleetcache.owed import OWED, OWING
from fleetcache.patterns import try_function
from fleetcache.pipeline import OPERATIONS, Pipeline
from fleetcache.policy import LEASE
from fleetcache.servers.arguments import glob
from fleetcache.settings import Settings, argument_meant, from_url, located
from fleetcache.sharing import Sharing
from fleetcache.stats.exchanges import is_heard
from fleetcache.stats.groups import Grouping
from fleetcache.stats.payloads import LOADS, PAYLOADS, Stats
from fleetcache.stats.tally import Tally
from fleetcache.structures import Hashes, Lists, Sets, SortedSets
from fleetcache.tagging import Hints
from fleetcache.telemetry.tracing import notice
from fleetcache.topology.contract import REDIRECTS, SERVERS, Topology
from fleetcache.topology.opening import open_topology
from fleetcache.twin import join
from fleetcache.watching import alike, plain, watched_if

FOLLOWED = frozenset({**Naming.__annotations__, **Core.__annotations__}) - {"_failsafe"}
"""Attributes that, set on a cache, are set on its client as well."""


ARGUMENTS = frozenset(("location", "params", "alias", "defaults", "near"))
"""The names of the arguments of `Cache`."""


@dataclass(eq=False)
class Shared:
    """The parts that all caches of one configuration in this process share."""

    settings: Settings
    topology: Topology
    codec: Codec
    stats: Stats
    near: Near | None
    tally: Tally | None = None
    """What is counted; None if OPTIONS["STATS"] is off."""
    flights: Flights = field(default_factory=Flights)
    hints: Hints = field(default_factory=Hints)

    def __post_init__(self) -> None:
        if self.tally is not None:
            self.tally.parts = WeakMethod(self.parts)

    def parts(self) -> dict[str, Any]:
        """Return the parts of `Cache.snapshot` that are not counted by the tally, and where it finds the copies."""
        info = info_of(self, self.flights)
        parts = {part: info[part] for part in ("near", "loading", "servers")}
        if (near := self.near) is None:
            return {**parts, "copies": None}
        return {**parts, "copies": near, "advice": near.advice() or None, "audit": near.audit() or None}


_shared: Sharing[Shared] = Sharing()


def info_of(parts: Any, flights: Flights) -> dict[str, Any]:
    """Return what `Cache.info` returns; *parts* is a cache, or what caches share, and *flights* are its loads."""
    off = {"state": "off", "why": "OPTIONS['NEAR'] is not set"}
    if parts.settings.options.near is not None:
        off["why"] = "memory:// is in this process already"
    return {
        "servers": [SERVERS.of(server) for server in parts.topology.servers],
        "near": off if parts.near is None else parts.near.stats(),
        "loading": {**LOADS.of(parts.stats), **PROTECTION.of(flights), **OWING.of(OWED)},
        **REDIRECTS.of(parts.topology),
        **PAYLOADS.of(parts.stats),
    }


def tally_of(settings: Settings, namer: KeyFunction) -> Tally | None:
    """Return a new tally for the caches of *settings*, named by *namer*; None if these say that nothing is counted."""
    options = settings.options.stats
    if options is None:
        return None
    return Tally(
        Grouping(key_reader(settings, namer), group_by(options.groups), partial(is_own, settings.key_prefix)), options
    )


def key_reader(settings: Settings, namer: KeyFunction) -> Callable[[str], str]:
    """Return the function that returns the key within a name; of a name that does not show the key, the name itself."""
    prefix, version = settings.key_prefix, settings.version
    if settings.reverse_key_function is not None:
        return settings.reverse_key_function
    if namer is default_key_function:
        begins = f"{prefix}:{version}:"
        at = len(begins)
        # Nearly all names; the others have another version.
        return lambda name: name[at:] if name.startswith(begins) else key_within(name, prefix, version)
    head, tail = frame(namer, prefix, version) or ("", "")
    return lambda name: name.removeprefix(head).removesuffix(tail)


def named_by(face: Any, kind: Any) -> dict[str, Any]:
    """Return the attributes by which a client of the class *kind* takes its names from *face*; none if it has its own."""
    return {"_named_by": face} if issubclass(kind, Following) else {}


def is_own(prefix: str, name: str, key: str) -> bool:
    """Whether *name* is one of the library's own: the version of a tag, a lease, and the like."""
    return key.startswith(TAG) or (name.startswith("fleetcache:") and not (prefix and name.startswith(f"{prefix}:")))


def group_by(groups: Mapping[str, str]) -> Callable[[str], str | None] | None:
    """Return the function that maps a key to the group of the first of the globs *groups* that matches; None without any."""
    if not groups:
        return None
    rules = [(glob(pattern.encode(errors="replace")).fullmatch, name) for pattern, name in groups.items()]

    def group_of(key: str) -> str | None:
        text = key.encode(errors="replace")
        return next((name for matches, name in rules if matches(text)), None)

    return group_of


class Cache(Batches, Invalidation, Keyspace, Hashes, Sets, SortedSets, Lists):
    """A cache on one server, and replicas of it.

    A cache object is light: connections, codec and counters belong to the process, and all objects with
    the same settings share them.  Creating one sends nothing.

    *location* is the URL of the server, or several URLs: what LOCATION may be.  *params* is a mapping of all other
    settings of the cache, such as ``{"KEY_PREFIX": "shop", "OPTIONS": {"NEAR": True}}``; the page "Settings" lists
    them.  *near* is short for ``OPTIONS["NEAR"]``.  *alias* is the name of the cache in errors and metrics.
    *defaults* holds values of the ``DJANGO_REDIS_…`` settings, which stand in for options that *params* leaves out.
    """

    near: Near | None = None
    operations = OPERATIONS
    __class_getitem__: Any = classmethod(GenericAlias)
    """django-redis' clients and backend are generic."""

    _own = Batches._own | {"_raising"}
    _raising: Mapping[str, Self] = MappingProxyType({})
    """`client` and `strict` of this face, once they were asked for."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if kwargs and cls.__init__ is Cache.__init__ and (wrong := kwargs.keys() - ARGUMENTS):
            raise TypeError(f"{cls.__name__}() takes no argument {min(wrong)!r}.{argument_meant(min(wrong))}")
        notice()
        return super().__new__(watched_if(cls))

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
        common = self._common = self._shared(Settings.shared(location, params, alias=alias, defaults=defaults))
        self.settings, self.topology, self.codec = common.settings, common.topology, common.codec
        self.stats, self.near, self._flights = common.stats, common.near, common.flights
        self._hints, self.tally = common.hints, common.tally
        if self.tally is not None and alias:
            self.tally.alias = self.tally.alias or alias
        self.key_prefix = self.settings.key_prefix
        self.version = self.settings.version
        self.key_func = self.settings.key_function
        self.default_timeout = self.settings.timeout
        options = self.settings.options
        if options.loading is not None and options.loading.lease > LEASE:
            self._lease_life = int(options.loading.lease * LEASES * 1000)
        self.logger = logging.getLogger(options.logger) if options.log_ignored_exceptions else None
        self._failsafe = Failsafe(options.ignore_exceptions, self.logger, options.raise_for)
        self._wait_by(AWAITING, BLOCKING)

    @classmethod
    def _shared(cls, settings: Settings) -> Shared:
        """Return the parts that all caches of *settings* in this process share; the first call creates them."""
        key = (plain(cls), id(settings), is_heard())
        found = _shared.get(key)
        if found is None:
            # No lock is held while a site's classes are called: see `Settings.shared`.
            try:
                if settings.key_function is not default_key_function:
                    try_function(settings.key_function, settings.key_prefix, settings.version)
                topology, codec = cls.make_topology(settings), cls.make_codec(settings)
            except SettingsError as error:
                raise located(error, "cache settings") from error
            namer = cls._namer_of(settings)
            tally = tally_of(settings, namer)
            groups = None if tally is None else tally.known
            near = open_near(settings, announced(settings, namer), topology, cls._warns, groups, codec)
            found = _shared.put(key, Shared(settings, topology, codec, Stats(), near, tally))
            PUBLISHING.enlist(found)
        return found

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return the cache at *url*, whose query may hold any setting in lower case."""
        return cls(*from_url(url))

    @classmethod
    def make_topology(cls, settings: Settings) -> Topology:
        """Return the servers of *settings*, not yet connected; client classes override this."""
        return open_topology(settings.location, settings.options)

    @classmethod
    def _namer_of(cls, settings: Settings) -> KeyFunction:
        """Return what names entries of *settings*, before there is a cache: of a class that does it, an object with nothing else."""
        if not cls._names_itself:
            return settings.key_function
        bare = join(object.__new__(cls))
        bare._begin_with(
            settings=settings,
            key_prefix=settings.key_prefix,
            version=settings.version,
            key_func=settings.key_function,
            default_timeout=settings.timeout,
            _runtime=BLOCKING,
        )
        namer: KeyFunction = bare._name_as
        return namer

    @classmethod
    def make_codec(cls, settings: Settings) -> Codec:
        """Return the codec of *settings*."""
        options = settings.options
        serializer = options.serializer
        takes_options = isinstance(serializer, type) and issubclass(serializer, BaseSerializer)
        if "serializer" in options.given and callable(serializer) and not takes_options:
            serializer = kinds.made("serializer", serializer)  # Django's dialect: a class or a function
        return Codec(serializer, options.compressor, options)

    def __repr__(self) -> str:
        if "topology" not in self.__dict__:  # the settings were refused, and a debugger looks
            return f"<{type(self).__name__}>"
        servers = ", ".join(server.address for server in self.topology.primaries or self.topology.servers)
        return f"<{type(self).__name__} {servers}>"

    def pipeline(self, transaction: bool = False) -> Pipeline:
        """Return a `Pipeline`, which collects operations and runs them together."""
        return alike(Pipeline, self)(self, transaction=transaction)

    # --- locks ------------------------------------------------------------------------------------

    def lock(
        self,
        key: Key,
        version: Version = None,
        timeout: Timeout = None,
        sleep: float | timedelta = 0.1,
        blocking: bool = True,
        blocking_timeout: float | timedelta | None = None,
        client: Any = None,
        thread_local: bool = True,
        *,
        renew: bool = False,
    ) -> Lock:
        """Return a `Lock` named *key*, for ``with`` and ``async with``.

        `acquire` tries every *sleep* seconds, for *blocking_timeout* seconds at most, or once if not *blocking*.  With
        *renew* the lock does not expire while it is held: a thread renews it whenever a third of *timeout* has passed.
        """
        name = self.name(key, version)
        kind = alike(Lock, self)
        return kind(self, name, timeout, sleep, blocking, blocking_timeout, client, thread_local, renew)

    async def alock(
        self,
        key: Key,
        version: Version = None,
        timeout: Timeout = None,
        sleep: float | timedelta = 0.1,
        blocking: bool = True,
        blocking_timeout: float | timedelta | None = None,
        client: Any = None,
        thread_local: bool = True,
        *,
        renew: bool = False,
    ) -> Lock:
        """Return a `Lock`: the same as `lock`, for code that awaits every method."""
        return self.lock(key, version, timeout, sleep, blocking, blocking_timeout, client, thread_local, renew=renew)

    # --- the near cache ---------------------------------------------------------------------------

    def fence(self) -> None:
        """Wait until this process knows of every write that was acknowledged to any client before now.

        Reads that begin afterwards reflect them all.  It takes one round trip, or nothing without a near
        cache.  It never raises: while the server does not answer, reads go to the server.
        """
        if self.near is not None:
            self.near.fence()

    async def afence(self) -> None:
        """Wait until this process knows of every write that was acknowledged to any client before now."""
        if self.near is not None:
            await self.near.afence()

    def info(self) -> dict[str, Any]:
        """Return the state of this cache in this process: its servers, its near cache, its counters.

        Nothing is sent.
        """
        return info_of(self, self._flights)

    def snapshot(self) -> dict[str, Any]:
        """Return what this process has counted of the caches of this configuration, in a form for JSON.

        Nothing is sent.  An empty dict if ``OPTIONS["STATS"]`` is off.  docs/observing.md explains the figures.
        """
        return {} if self.tally is None else self.tally.snapshot()

    # --- underneath -------------------------------------------------------------------------------

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        adopt(cls, "make_key", Cache.make_key, named_by_make_key)
        own = vars(cls)
        text = ""
        if "make_key" in own and "name" not in own and cls.name not in MADE:
            text = (
                f"{cls.__qualname__}.make_key() names no entry, because {cls.name.__qualname__}() does. Override that"
            )
        for method in ("encode", "decode"):
            if any(
                method in vars(each) for each in (cls, *cls.__bases__) if each is cls or not issubclass(each, Cache)
            ):
                text = (
                    f"{cls.__qualname__}.{method}() changes no payload. Name a SERIALIZER or a COMPRESSOR of your own, or "
                    f"override make_codec(settings)"
                )
        if text:
            warnings.warn(text, RuntimeWarning, stacklevel=2)

    def make_key(self, key: Key, version: Version = None, prefix: str | None = None) -> CacheKey:
        """Return the name of *key* on the server; methods accept it in place of a key, unchanged.

        A class that overrides this method names its entries by it.  KEY_FUNCTION does so without a class.
        """
        name = self._keyed(key, version, prefix) if self._makes_keys else self.name(key, version, prefix)
        return name if type(name) is CacheKey else CacheKey(name)

    def encode(self, value: Any, *, allow_int: bool = True) -> bytes | int:
        """Return the payload of *value*."""
        return self.codec.encode(value, integers=allow_int)

    def decode(self, value: bytes | int) -> Any:
        """Return the value in the payload *value*."""
        return value if isinstance(value, int) else alone(self.codec.decode(value))

    @property
    def client(self) -> Any:
        """The cache with every exception raised: django-redis' ``cache.client``.

        It is a separate object, of the client class.  Methods that a backend overrides, or that a tool
        replaces on the cache, are free to call those of the client.  Attributes that names depend on are set on both.
        """
        if "client" in self._raising:
            return self._raising["client"]
        kind = self._client_kind()
        if self._names_itself:
            kind = following(kind, plain(type(self)))
        kind = alike(kind, self)
        if self._failsafe is RAISE and type(self) is kind:
            raise AttributeError(
                "a client has no client: it raises by itself. Call its own methods, or those of super()"
            )
        return self._raise_as("client", kind)

    @property
    def strict(self) -> Self:
        """The cache with every exception raised, for limiters and other code that must not fail open in an outage."""
        if "strict" in self._raising:
            return self._raising["strict"]
        return self if self._failsafe is RAISE else self._raise_as("strict", type(self))

    def _client_kind(self) -> Any:
        """Return the class of `client`: the nearest that is the library's, or that CLIENT_CLASS names."""
        named = self.settings.options.client_class
        return next(
            kind for kind in plain(type(self)).__mro__ if kind is named or kind.__module__.startswith("fleetcache.")
        )

    def _raise_as(self, what: str, kind: Any) -> Any:
        """Make both faces of `client` or `strict`, of the class *kind*; return that of this face."""
        faces = self._sharers("_failsafe")
        made = [face._face(kind, _failsafe=RAISE, **named_by(face, kind)) for face in faces]
        join(*made)
        for face, raising in zip(faces, made, strict=True):
            object.__setattr__(face, "_raising", {**face._raising, what: raising})
        return self._raising[what]

    def _sharers(self, name: str) -> list[Self]:
        if name not in FOLLOWED:
            return super()._sharers(name)
        faces = self._faces or [self]
        return faces + [raising for face in faces for raising in face._raising.values()]

    def get_client(self, write: bool = True, tried: Any = None) -> Any:
        """Return a raw ``redis.Redis`` to the primary, or for reading to a replica."""
        return self.topology.route((c.SET if write else c.GET, "")).client()

    def close(self, **kwargs: Any) -> None:
        """Close idle connections if CLOSE_CONNECTION is set; those in use are never closed."""
        if self.settings.options.close_connection:
            self.topology.close_idle()

    async def aclose(self, **kwargs: Any) -> None:
        """Close idle connections, and the running loop's, if CLOSE_CONNECTION is set."""
        if self.settings.options.close_connection:
            await self.topology.aclose_idle()
