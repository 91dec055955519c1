"""The client classes that ``CLIENT_CLASS`` may name; a site derives its own from one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from time import time
from typing import Any

from fleetcache import commands as c
from fleetcache.cache import Cache, Shared
from fleetcache.codec.herding import Herded, HerdSerializer
from fleetcache.codec.metadata import Metadata
from fleetcache.codec.payloads import Codec
from fleetcache.core import DEFAULT_TIMEOUT, MISSING, Timeout
from fleetcache.errors import SettingsError
from fleetcache.forks import chance
from fleetcache.judging import Standing
from fleetcache.keys import K, Key, Version, check_mapping
from fleetcache.policy import Policy, PolicyOptions
from fleetcache.reading import Found
from fleetcache.servers.observed import observed
from fleetcache.settings import Settings
from fleetcache.topology.contract import Topology
from fleetcache.topology.opening import open_cluster, open_servers, open_service, standalone
from fleetcache.topology.shards import Shards
from fleetcache.twin import blocking
from fleetcache.values import Lookup

__all__ = ["ClusterClient", "DefaultClient", "HerdClient", "SentinelClient", "ShardClient"]

DefaultClient = Cache

OLD = Metadata()
"""Stands for the metadata of an entry that a HerdClient takes for old."""


class SentinelClient(DefaultClient):
    """A cache whose primary is named by Sentinels, before the first command and after each fail-over.

    LOCATION is ``redis+sentinel://host1,host2/service/db``, or with SENTINELS ``redis://service/db``;
    reads go to its replicas.
    """

    @classmethod
    def make_topology(cls, settings: Settings) -> Topology:
        options = settings.options
        locations = settings.location if len(settings.location) > 1 else settings.location[0].in_both_roles
        return standalone([observed(open_service(location, options)) for location in locations], options)


class ClusterClient(DefaultClient):
    """A cache on a cluster; the URLs of its nodes may have any scheme."""

    @classmethod
    def make_topology(cls, settings: Settings) -> Topology:
        return open_cluster(settings.location, settings.options)


class ShardClient(DefaultClient):
    """A cache over independent servers; each key is on the server where django-redis would put it."""

    @classmethod
    def make_topology(cls, settings: Settings) -> Topology:
        if settings.options.read_from not in {None, "primary"}:
            raise SettingsError(
                "READ_FROM has no meaning for a ShardClient, whose servers have no replicas. Leave it out"
            )
        urls = (location.url for location in settings.location)  # by which django-redis places keys
        return Shards(dict(zip(urls, open_servers(settings.location, settings.options), strict=True)))

    def get_server_name(self, key: Key) -> str:
        """Return which of LOCATION's servers holds the name *key*."""
        assert isinstance(self.topology, Shards)
        return self.topology.place(str(key))

    def get_server(self, key: Key) -> Any:
        """Return a raw client to the server that holds the name *key*."""
        return self.topology.home(str(key)).client()

    def get_client(self, write: bool = True, tried: Any = None) -> Any:
        """Refuse: a ShardClient has several servers.  Use `get_server`."""
        raise NotImplementedError("a ShardClient has several servers; use get_server(cache.make_key(key))")


def ignored(policy: Policy) -> str:
    """Return what is wrong with *policy* for a HerdClient, which has its own way to keep old values; "" if nothing is."""
    named = [name for name in ("stale_while_revalidate", "early") if getattr(policy, name)]
    if not named:
        return ""
    return (
        f"HerdClient takes no {' and no '.join(named)}: it keeps each value for HERD_TIMEOUT (CACHE_HERD_TIMEOUT) seconds after "
        f"its timeout. Leave this out, or use DefaultClient"
    )


class HerdClient(DefaultClient):
    """A cache in which some callers renew an entry shortly after it expired, while others still read it.

    Values live HERD_TIMEOUT seconds longer than asked.  In that time a read returns the default with
    growing probability, so that a few callers compute the value again, not a herd.  `get_or_set` lets one
    caller of the fleet do so, and returns the old value to the others.
    """

    _softens = False

    @classmethod
    def _shared(cls, settings: Settings) -> Shared:
        policy = settings.options.loading
        if policy is not None and (refused := ignored(policy)):
            raise SettingsError(f"LOADING: {refused}")
        return super()._shared(settings)

    @classmethod
    def make_codec(cls, settings: Settings) -> Codec:
        plain = super().make_codec(settings)
        return Codec(HerdSerializer(plain.serializer), plain.compressor, settings.options)

    def _herded(self, value: Any, timeout: Timeout) -> tuple[Any, Timeout]:
        """Return the value to store in place of *value*, and its timeout."""
        expiry = self.milliseconds(timeout)
        if expiry is None or expiry <= 0:
            return value, timeout
        lifetime: Any = expiry / 1000
        if isinstance(timeout, (int, float)):
            lifetime = timeout  # the number itself, as django-redis writes it
        elif timeout in self._default_marks:
            lifetime = self.default_timeout
        return Herded(value, lifetime + int(time())), lifetime + self.settings.options.herd_timeout

    def _fresh(self, value: Any, stale: Any) -> Any:
        """Return the stored value, or *stale* if this caller should renew it."""
        if type(value) is not Herded:
            return value
        late = int(time()) - value.soft_expiry
        limit = self.settings.options.herd_timeout
        if late > 0 and (late >= limit or late + chance.randint(1, limit) >= limit):
            return stale
        return value.value

    # --- loading ----------------------------------------------------------------------------------

    _herds = True

    def _policy_of(self, timeout: Timeout | Policy, options: PolicyOptions) -> Policy:
        """Return the policy of a call: HERD_TIMEOUT stands for ``stale_while_revalidate``."""
        policy = super()._policy_of(timeout, options)
        if refused := ignored(policy):
            raise ValueError(refused)
        return replace(policy, stale_while_revalidate=float(self.settings.options.herd_timeout))

    def _told(self, found: Found) -> Found:
        herded = found.value
        if type(herded) is not Herded:
            return found
        value = self._opened(herded)
        if value is not MISSING:
            return replace(found, value=value)
        late = max(int(time() - herded.soft_expiry), 0)
        metadata = found.metadata or OLD
        return replace(found, value=herded.value, metadata=metadata, standing=Standing.STALE, milliseconds=-1000 * late)

    def _opened(self, value: Any) -> Any:
        return self._fresh(value, MISSING)

    def _wrapped(self, value: Any, life: int | None, timeout: Timeout) -> tuple[Any, int | None]:
        lifetime = timeout if life == self.milliseconds(timeout) else None if life is None else life / 1000
        herded, kept = self._herded(value, lifetime)
        return herded, self.milliseconds(kept)

    def _life(self, policy: Policy) -> int | None:
        life = self.milliseconds(policy.timeout)
        return None if life is None else life + self.settings.options.herd_timeout * 1000

    # --- operations -------------------------------------------------------------------------------

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
        return self._fresh(
            await super().aget(key, default, version, client, fresh=fresh, stale=stale, tags=tags), default
        )

    get = blocking(aget)  # type: ignore[assignment]  # mypy compares it with one overload only

    async def aget_with_ttl(self, key: Key, default: Any = None, version: Version = None) -> tuple[Any, float | None]:
        """Return the value of *key* and its seconds to live, without HERD_TIMEOUT."""
        value, left = await super().aget_with_ttl(key, default, version)
        if type(value) is Herded and left is not None:
            left = max(0.0, left - self.settings.options.herd_timeout)
        return self._fresh(value, default), left

    get_with_ttl = blocking(aget_with_ttl)  # type: ignore[assignment]  # as `get`

    async def alookup(self, key: Key, version: Version = None, client: Any = None, *, fresh: bool = False) -> Lookup:
        """Return what is known of *key*, whether or not this caller should renew it."""
        found = await super().alookup(key, version, client, fresh=fresh)
        return replace(found, value=found.value.value) if type(found.value) is Herded else found

    lookup = blocking(alookup)

    async def aget_many(
        self, keys: Iterable[K], version: Version = None, client: Any = None, *, fresh: bool = False
    ) -> dict[K, Any]:
        """Return the values of those *keys* that have one, None for those this caller should renew."""
        found = await super().aget_many(keys, version, client, fresh=fresh)
        return {key: self._fresh(value, None) for key, value in found.items()}

    get_many = blocking(aget_many)

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
        value, timeout = self._herded(value, timeout)
        return await super().aset(key, value, timeout, version, client, nx, xx, tags=tags)

    set = blocking(aset)

    async def aset_many(
        self,
        data: Mapping[K, Any],
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: Version = None,
        client: Any = None,
        herd: bool = True,
        *,
        tags: Iterable[str] = (),
    ) -> list[K]:
        """Store all of *data*; without *herd* for the plain timeout, as plain values."""
        if herd and data:
            check_mapping(data, "set_many", "keys and their values")
            lifetime = timeout
            packed: dict[K, Any] = {}
            for key, value in data.items():
                packed[key], lifetime = self._herded(value, timeout)
            data, timeout = packed, lifetime
        return await super().aset_many(data, timeout, version, client, tags=tags)

    set_many = blocking(aset_many)

    async def aincr(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: a herded value is no number."""
        raise NotImplementedError("HerdClient cannot count")

    adecr = aincr
    incr = decr = blocking(aincr)  # type: ignore[assignment]  # it takes anything, and refuses

    async def atouch(
        self, key: Key, timeout: Timeout = DEFAULT_TIMEOUT, version: Version = None, client: Any = None
    ) -> bool:
        """Store the value again, for *timeout* seconds; return whether there was one."""
        await self._runtime.alone()
        name = self.name(key, version)
        payload = await self.ask((c.GET_NOW, name), None, client)
        seen = await self._through(client)._examine(name, payload)
        value = self._fresh(seen.served(), MISSING)
        if value is MISSING:
            return False
        tags = () if seen.metadata is None else [tag for tag, _ in seen.metadata.tags]
        return await self.aset(key, value, timeout, version, client, tags=tags)

    touch = blocking(atouch)
