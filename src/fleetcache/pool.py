"""Where connections come from: redis-py's pools, one per configuration and process.

The pools serve as address books for fleetcache's own exchange, and as they are for the raw
clients of ``get_redis_connection``.  A site that derives from `ConnectionFactory`, as it did from
django-redis', overrides the same methods.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from redis.exceptions import RedisError
from redis.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedSSLConnection

from fleetcache.errors import SettingsError
from fleetcache.exchange.connecting import arguments, parameters
from fleetcache.exchange.credentials import Credentials
from fleetcache.exchange.wire import PACKER
from fleetcache.settings import Options, connection_options, flag, imported, masked_url, nearest

TRANSLATED = {"valkey": "redis", "valkeys": "rediss"}

_pools: dict[Hashable, Any] = {}
_credentials: dict[int, Credentials] = {}


def frozen(value: Any) -> Hashable:
    """Return *value* as something that equals another exactly if it means the same."""
    if isinstance(value, Mapping):
        return tuple(sorted((str(name), frozen(item)) for name, item in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(frozen(item) for item in value)
    if isinstance(value, (str, bytes, int, float, type(None))):
        return (type(value).__name__, value)
    return ("object", id(value))


def credentials(provider: Any) -> Credentials:
    """Return what asks *provider*, an object or its dotted path: the same for the same one, so that pools are shared."""
    provider = imported(provider)
    if isinstance(provider, type) or not hasattr(provider, "get_credentials"):
        what = f"the class {provider.__name__}" if isinstance(provider, type) else f"a {type(provider).__name__}"
        raise SettingsError(f"credential_provider must be an object with get_credentials(), not {what}")
    made = Credentials(provider)
    known = _credentials.setdefault(id(provider), made)  # one step, so all threads have the same
    if known is made:
        made.listen()
    return known


def check_query(url: str) -> None:
    """Refuse a parameter in *url* that no redis-py connection takes."""
    known = {*connection_options(), "db", "max_connections", "is_master"}
    for name, _ in parse_qsl(urlsplit(url).query):
        if name not in known:
            raise SettingsError(
                f"LOCATION {masked_url(url)!r}: unknown parameter {name!r}.{nearest(name, known)} "
                f"What is no connection option belongs in OPTIONS"
            )


class ConnectionFactory:
    """Makes redis-py clients and pools from the ``OPTIONS`` of a cache.

    *options* is the mapping as it stands in ``CACHES``.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options
        self.settings = Options.read("OPTIONS", options, {})

    def make_connection_params(self, url: str) -> dict[str, Any]:
        """Return the arguments of the pool for *url*."""
        settings = self.settings
        scheme, mark, rest = url.partition("://")
        params: dict[str, Any] = {
            **settings.connection,
            "url": f"{TRANSLATED.get(scheme, scheme)}{mark}{rest}",
            "username": settings.username,
            "password": settings.password,
            "socket_timeout": settings.socket_timeout,
            "socket_connect_timeout": settings.socket_connect_timeout,
            "max_connections": settings.max_connections,
            "parser_class": settings.parser_class,
            **settings.connection_pool_kwargs,
        }
        if params.get("credential_provider") is not None:
            params["credential_provider"] = credentials(params["credential_provider"])
        # None as a limit, or as a name, is said, or redis-py puts in its own; other absent values are left out.
        said = ("timeout", "driver_info")
        return {name: value for name, value in params.items() if value is not None or name.endswith(said)}

    def connect(self, url: str) -> Any:
        """Return a raw client for *url*; nothing is sent yet."""
        return self.get_connection(self.make_connection_params(url))

    def disconnect(self, connection: Any) -> None:
        """Close the idle connections of a raw client's pool."""
        connection.connection_pool.disconnect(inuse_connections=False)

    def get_connection(self, params: dict[str, Any]) -> Any:
        """Return a raw client over the pool of *params*."""
        pool = self.get_or_create_connection_pool(params)
        return self.settings.redis_client_class(connection_pool=pool, **self.settings.redis_client_kwargs)

    def get_or_create_connection_pool(self, params: dict[str, Any]) -> Any:
        """Return the process's pool for *params*, all of them: two aliases share one only if all agree."""
        identity = {**params, "sentinels": self.settings.sentinels, "sentinel_kwargs": self.settings.sentinel_kwargs}
        key = (type(self), frozen(identity), self.settings.connection_pool_class)
        if key not in _pools:
            # Two threads may make one each, unconnected, and have the first: no lock is held while a site's
            # classes are called.  What was identified by its address must not be freed: it could be reused.
            _pools.setdefault(key, (self.get_connection_pool(params), identity))
        return _pools[key][0]

    def get_connection_pool(self, params: dict[str, Any]) -> Any:
        """Return a new pool."""
        return self.make_pool(redis.ConnectionPool, params)

    def make_pool(self, usual: type, params: dict[str, Any]) -> Any:
        """Return a new pool, of the class *usual* unless the settings name one."""
        pool_class: Any = self.settings.connection_pool_class or usual
        url = params["url"]
        if self.settings.connection_pool_class is None:
            check_query(url)
        try:
            pool = pool_class.from_url(**params)
            if "command_packer" in parameters(pool.connection_class):
                pool.connection_kwargs.setdefault("command_packer", PACKER)  # of raw clients, too
            # Not connected: but what the connection would refuse is heard of now, not at the first use.
            pool.connection_class(**arguments(pool, pool.connection_class))
        except (ValueError, TypeError, RedisError) as error:
            raise SettingsError(f"LOCATION {masked_url(url)}: {error}") from error
        return pool


class SentinelConnectionFactory(ConnectionFactory):
    """Makes pools that ask Sentinels where the service named by the URL's host lives."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        sentinels = self.settings.sentinels
        if not sentinels:
            raise SettingsError("SENTINELS must be a list of (host, port), such as [('10.0.0.1', 26379)]")
        shared = self.make_connection_params("redis://")
        for name in ("url", "max_connections"):
            shared.pop(name, None)
        # Some may hang, and all can still be asked in time.
        limits = {
            name: shared[name] and shared[name] / len(sentinels)
            for name in ("socket_timeout", "socket_connect_timeout")
        }
        own = {**limits, **(self.settings.sentinel_kwargs or {})}
        self._sentinel = Sentinel(list(sentinels), sentinel_kwargs=own, **shared)  # type: ignore[no-untyped-call]

    def get_connection_pool(self, params: dict[str, Any]) -> Any:
        place = urlsplit(params["url"])
        query = dict(parse_qsl(place.query, keep_blank_values=True))
        is_primary = flag(query.pop("is_master", "1"))
        service = query.pop("service_name", place.hostname)  # hostname is in small letters
        arguments = {
            **params,
            "url": place._replace(query=urlencode(query)).geturl(),
            "service_name": service,
            "sentinel_manager": self._sentinel,
            "is_master": is_primary,
        }
        if place.scheme == "rediss":  # which redis-py would take for another class
            arguments.setdefault("connection_class", SentinelManagedSSLConnection)
        return self.make_pool(SentinelConnectionPool, arguments)
