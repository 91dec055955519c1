"""redis-py's connection pools, one for each configuration and process; connection factories of sites.

fleetcache's own exchange uses a pool as an address book; the raw clients of ``get_redis_connection`` use it as redis-py
does.  A site that derives from `ConnectionFactory` overrides the same methods as of django-redis' class.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import redis
from redis.connection import AbstractConnection
from redis.exceptions import RedisError
from redis.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedSSLConnection

from fleetcache.errors import SettingsError
from fleetcache.exchange.connecting import arguments
from fleetcache.exchange.wire import PACKER
from fleetcache.kinds import flag, imported
from fleetcache.masking import hide, masked_url, quoted, shown, without_frames
from fleetcache.servers.credentials import Credentials
from fleetcache.settings import Options, passed_on, unknown_in_location
from fleetcache.sharing import frozen
from fleetcache.signatures import DEADLINE, connection_options, parameters
from fleetcache.urls import Location

_pools: dict[Hashable, Any] = {}
_credentials: dict[int, Credentials] = {}


def credentials(provider: Any) -> Credentials:
    """Return the `Credentials` of *provider*, an object or its dotted path: one for each provider, so that pools are shared."""
    if not isinstance(provider, str) or "." in provider:  # other text is no path, and may be a password
        provider = imported(provider)
    if isinstance(provider, type) or not hasattr(provider, "get_credentials"):
        what = (
            f"the class {provider.__name__}" if isinstance(provider, type) else shown("credential_provider", provider)
        )
        raise SettingsError(f"credential_provider must be an object with get_credentials(), not {what}")
    made = Credentials(provider)
    known = _credentials.setdefault(id(provider), made)  # one step, so all threads get the same object
    if known is made:
        made.listen()
    return known


def check_query(url: str) -> None:
    """Refuse a parameter in *url* that no redis-py connection takes, and a `max_connections` that is no number."""
    known = {*connection_options(), "db", "max_connections", "is_master"}
    location = Location.of(url)
    for name, value in location.parameters.items():
        if value and name not in known:
            raise SettingsError(f"LOCATION {location.masked!r}: {unknown_in_location(location.query, name, known)}")
        if value and name == "max_connections":
            passed_on(f"LOCATION {location.masked!r}", {name: value})


def check_class(connection_class: Any) -> None:
    """Refuse a class whose connections have no socket that fleetcache could use."""
    kinds = getattr(connection_class, "__mro__", (connection_class,))
    if any(str(getattr(kind, "__module__", "")).partition(".")[0] == "fakeredis" for kind in kinds):
        raise SettingsError(
            "connection_class: fakeredis leads to no server that fleetcache could talk to. For tests without a server "
            "write memory:// in LOCATION"
        )
    if not (isinstance(connection_class, type) and issubclass(connection_class, AbstractConnection)):
        raise SettingsError(
            f"connection_class must be derived from redis.Connection: {type(connection_class).__name__}"
        )


def check_secured(url: str, connection_class: type, params: Mapping[str, Any]) -> None:
    """Refuse TLS options without TLS, and `ssl_check_hostname` where the certificate is not checked."""
    said = {name: value for name, value in params.items() if name == "ssl" or name.startswith("ssl_")}
    if said and not issubclass(connection_class, redis.SSLConnection):
        raise SettingsError(
            f"{min(said)} is for TLS, and {Location.of(url).scheme}:// is not encrypted. Write rediss:// in LOCATION, or leave the option out"
        )
    if said.get("ssl_check_hostname") and unchecked(params):
        raise SettingsError(
            "ssl_check_hostname needs a certificate that is checked. Leave it out, or leave ssl_cert_reqs out"
        )


def unchecked(params: Mapping[str, Any]) -> bool:
    """Whether *params* say that no certificate is checked."""
    found = params.get("ssl_cert_reqs", "required")
    return found == "none" or not (found or found == "")


class ConnectionFactory:
    """Makes redis-py clients and pools from the ``OPTIONS`` of a cache.

    *options* is the mapping as it stands in ``CACHES``, or what was read of it.
    """

    def __init__(self, options: Options | Mapping[str, Any]) -> None:
        read = options if isinstance(options, Options) else Options.read("OPTIONS", options, {})
        self.settings, self.options = read, read.given

    def make_connection_params(self, url: str) -> dict[str, Any]:
        """Return the arguments of the pool for *url*."""
        settings = self.settings
        location = Location.of(url).plain
        ours = {
            "username": settings.username,
            "password": settings.password,
            "max_connections": settings.max_connections,
            "parser_class": settings.parser_class,
        }
        params: dict[str, Any] = {
            **settings.connection,
            "url": location.url,
            **{name: value for name, value in ours.items() if value is not None},
            **self._limits(),
            **settings.connection_pool_kwargs,
        }
        if (location.scheme == "rediss" or params.get("ssl")) and not unchecked({**params, **location.parameters}):
            params.setdefault("ssl_check_hostname", True)  # redis-py's own default only since 6.0
        if params.get("credential_provider") is not None:
            params["credential_provider"] = credentials(params["credential_provider"])
        return params

    def _limits(self) -> dict[str, float | None]:
        """Return the time limits that the site has set, None for no limit; otherwise raw clients have redis-py's own limits."""
        names = ("socket_timeout", "socket_connect_timeout")
        given = self.settings.given.keys()
        return {name: getattr(self.settings, name) for name in names if not given.isdisjoint((name, name.upper()))}

    def connect(self, url: str) -> Any:
        """Return a raw client for *url*; nothing is sent yet."""
        return self.get_connection(self.make_connection_params(url))

    def disconnect(self, connection: Any) -> None:
        """Close the idle connections of a raw client's pool."""
        connection.connection_pool.disconnect(inuse_connections=False)

    def get_connection(self, params: dict[str, Any]) -> Any:
        """Return a raw client over the pool of *params*."""
        pool = self.get_or_create_connection_pool(params)
        kind = self.settings.redis_client_class
        try:
            raw = kind(connection_pool=pool, **self.settings.redis_client_kwargs)
        except (ValueError, TypeError, RedisError) as error:
            raise SettingsError(f"REDIS_CLIENT_KWARGS: {error}") from without_frames(error)
        if getattr(raw, "connection_pool", None) is None:
            raise SettingsError(f"REDIS_CLIENT_CLASS: {quoted(kind)} makes no clients like redis.Redis")
        return raw

    def get_or_create_connection_pool(self, params: dict[str, Any]) -> Any:
        """Return the process's pool for *params*; two aliases share a pool only if all their parameters agree."""
        identity = {**params, "sentinels": self.settings.sentinels, "sentinel_kwargs": self.settings.sentinel_kwargs}
        key = (type(self), frozen(identity), self.settings.connection_pool_class)
        if key not in _pools:
            # No lock is held while a site's classes are called, so two threads may make a pool each; both get the
            # first one, and nothing has connected yet.  *identity* is kept: objects in it are told apart by their
            # addresses, which could be used again if they were freed.
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
            kind = pool.connection_class
            check_class(kind)
            pool.connection_kwargs.update(passed_on("", pool.connection_kwargs))
            hide(pool.connection_kwargs)
            check_secured(url, kind, pool.connection_kwargs)
            if "command_packer" in parameters(kind):
                pool.connection_kwargs.setdefault("command_packer", PACKER)  # of raw clients, too
            # Nothing connects here, but arguments that a connection refuses are reported now, not at the first use.
            kind(**arguments(pool, kind))
        except (ValueError, TypeError, ArithmeticError, AttributeError, RedisError) as error:
            # The causes of *error* quote the text that they could not read; the local variables of its frames hold
            # the password.
            raise SettingsError(f"LOCATION {masked_url(url)!r}: {error}") from None
        return pool


class SentinelConnectionFactory(ConnectionFactory):
    """Makes pools that ask Sentinels where the service named by the URL's host lives."""

    def __init__(self, options: Options | Mapping[str, Any]) -> None:
        super().__init__(options)
        sentinels = self.settings.sentinels
        if not sentinels:
            raise SettingsError("SENTINELS must be a list of (host, port), such as [('10.0.0.1', 26379)]")
        shared = self.make_connection_params("redis://")
        for name in ("url", "max_connections"):
            shared.pop(name, None)
        # Each gets its part of the time, so that all can be asked even if some do not answer.
        limits = {
            name: limit and limit / len(sentinels)
            for name in ("socket_timeout", "socket_connect_timeout")
            for limit in (shared.get(name, DEADLINE),)
        }
        own = {**limits, **(self.settings.sentinel_kwargs or {})}
        if own.get("ssl") and not unchecked(own):
            own.setdefault("ssl_check_hostname", True)
        hide(own)
        hide(shared)
        self._sentinel = Sentinel(list(sentinels), sentinel_kwargs=own, **shared)  # type: ignore[no-untyped-call]  # redis-py's

    def get_connection_pool(self, params: dict[str, Any]) -> Any:
        location = Location.of(params["url"])
        query = location.parameters
        is_primary = flag(query.pop("is_master", "1"))
        ((name, _),) = location.addresses  # in small letters
        service = query.pop("service_name", name)
        arguments = {
            **params,
            "url": replace(location, query=urlencode(query)).url,
            "service_name": service,
            "sentinel_manager": self._sentinel,
            "is_master": is_primary,
        }
        if location.scheme == "rediss":  # without this redis-py would choose a class that asks no Sentinel
            arguments.setdefault("connection_class", SentinelManagedSSLConnection)
        return self.make_pool(SentinelConnectionPool, arguments)
