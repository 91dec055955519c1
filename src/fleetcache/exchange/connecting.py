"""redis-py connects; fleetcache talks.

A redis-py pool is used as an address book: its connection class and keyword arguments open,
secure and authenticate a connection, and find a Sentinel's primary.  Then its socket is ours,
for both faces.  What redis-py does not document stands in this module: ``Connection._sock``
and ``._parser``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import redis
from redis import exceptions
from redis.cluster import REDIS_ALLOWED_KEYS
from redis.sentinel import SentinelConnectionPool

from fleetcache.errors import (
    AccessDenied,
    NeverSent,
    NoSuchDatabase,
    ServerGone,
    ServerTimeout,
    SettingsError,
    TooManyConnections,
    UnsupportedServer,
)
from fleetcache.exchange.wire import PACKER
from fleetcache.interrupts import let_pass
from fleetcache.masking import without_frames

OF_CLUSTERS = frozenset(REDIS_ALLOWED_KEYS)
"""What ``redis.RedisCluster`` passes on to its connections; it leaves out all else without a word."""

try:
    VERSION = version("fleetcache")
except PackageNotFoundError:  # it was copied, not installed
    VERSION = "unknown"
LIBRARY: dict[str, Any] = {"lib_name": "fleetcache", "lib_version": VERSION}
if hasattr(redis, "DriverInfo"):  # redis-py 7.2
    LIBRARY = {"driver_info": redis.DriverInfo(name="fleetcache", lib_version=VERSION)}


@cache
def defaults(connection_class: type) -> Mapping[str, Any]:
    """Return the keyword arguments that a redis-py connection class takes, with what stands in for each."""
    found: dict[str, Any] = {}
    for cls in reversed(connection_class.__mro__):
        if "__init__" in vars(cls):
            # Some redis-py releases wrap __init__ in decorators that hide its signature.
            signature = inspect.signature(inspect.unwrap(vars(cls)["__init__"]))
            found |= {name: parameter.default for name, parameter in signature.parameters.items()}
    return {name: default for name, default in found.items() if name not in {"self", "kwargs", "args"}}


def parameters(connection_class: type) -> frozenset[str]:
    """Return the names of the keyword arguments that a redis-py connection class takes."""
    return frozenset(defaults(connection_class))


NEVER_NONE = {"parser_class", "protocol", "retry_on_error", "socket_read_size", "socket_type"}
"""Arguments of redis-py's connections that cannot be None, or mean by it what they mean without it."""


def says_none(name: str) -> bool:
    """Whether None says something to redis-py's connections as the argument *name*, which leaving it out would not."""
    if name.endswith(("_timeout", "driver_info")):
        return True
    return name not in NEVER_NONE and defaults(redis.SSLConnection).get(name) is not None


def wanted(pool: Any) -> tuple[str, ...]:
    """Return what ``get_connection`` of a redis-py pool must be given: before 5.3 a command's name."""
    name = inspect.signature(inspect.unwrap(pool.get_connection)).parameters.get("command_name")
    return ("_",) if name is not None and name.default is name.empty else ()


DEADLINE = 5.0
"""How many seconds connecting, and an exchange, may take where a site says nothing."""


def arguments(pool: Any, connection_class: type) -> dict[str, Any]:
    """Return what *pool* would pass to a connection, without its push-driven maintenance mode."""
    kwargs = {name: value for name, value in pool.connection_kwargs.items() if not name.startswith("maint")}
    # Of ours alone: raw clients block for as long as their commands say, and listen for ever.
    kwargs = {"socket_timeout": DEADLINE, "socket_connect_timeout": DEADLINE, **kwargs}
    # Of ours alone: told to speak RESP3, a raw client of the pool would return other types than sites know.
    kwargs.setdefault("protocol", 3)
    if "command_packer" in parameters(connection_class):
        kwargs.setdefault("command_packer", PACKER)
    if kwargs.keys().isdisjoint(("driver_info", "lib_name", "lib_version")):
        kwargs |= {name: value for name, value in LIBRARY.items() if name in parameters(connection_class)}
    if hasattr(pool, "of_sentinel"):  # the clients that redis-py makes of them try for seconds; there are others to ask
        kwargs.pop("retry", None)
    return kwargs


def address_of(pool: Any) -> str:
    """Return where *pool* leads to, fit for a message: never with a password."""
    kwargs: Mapping[str, Any] = pool.connection_kwargs
    if isinstance(pool, SentinelConnectionPool):
        place = f"{pool.service_name} ({'primary' if pool.is_master else 'replica'})"
    elif "path" in kwargs:
        place = kwargs["path"]
    else:
        place = "{}:{}".format(*place_of(pool))
    return f"{place}/{kwargs.get('db') or 0}"


def place_of(pool: Any) -> tuple[str, int]:
    """Return the host and port that *pool* leads to."""
    kwargs = pool.connection_kwargs
    return kwargs.get("host", "localhost"), int(kwargs.get("port", 6379))


def explained(error: Exception, pool: Any) -> Exception:
    """Return a connecting error as one that says where, and what to do about it."""
    address = address_of(pool)
    where = "OPTIONS['PASSWORD'], OPTIONS['USERNAME'] or the URL"
    if hasattr(pool, "of_sentinel"):
        where = "what a Sentinel wants: OPTIONS['SENTINEL_KWARGS'] = {'username': …, 'password': …}"
    text = str(error)
    if isinstance(error, SettingsError):
        return error
    if isinstance(error, (ImportError, TypeError, ValueError)):
        return SettingsError(f"{address}: redis-py cannot connect with these settings: {text}")
    if isinstance(error, AccessDenied):
        return AccessDenied(f"{address}: {text}")
    if "max number of clients" in text:
        return TooManyConnections(f"{address}: the server serves as many clients as its maxclients allows")
    if isinstance(error, exceptions.AuthenticationError) or "WRONGPASS" in text or "NOAUTH" in text:
        provider = pool.connection_kwargs.get("credential_provider")
        if provider is not None:
            name = getattr(provider, "name", type(provider).__name__)
            return AccessDenied(f"{address}: the server refused, twice, what credential_provider {name} returned")
        user = pool.connection_kwargs.get("username") or "default"
        if pool.connection_kwargs.get("username") and not pool.connection_kwargs.get("password"):
            # Nearly always the password stands in the user's place, so that is not named.
            return AccessDenied(
                f"{address}: the server wants a password, and there is only the name of a user. If that is the "
                f"password, write redis://:password@host, with a colon. Check {where}"
            )
        given = "refused the password" if pool.connection_kwargs.get("password") else "wants a password"
        return AccessDenied(f"{address}: the server {given} of user {user!r}. Check {where}")
    if isinstance(error, exceptions.InvalidResponse):
        return ServerGone(f"{address}: sent something that is no reply: {text}")
    if isinstance(error, exceptions.ResponseError):
        if "DB index" in text or "SELECT is not allowed" in text:
            return NoSuchDatabase(
                f"{address}: the server has no such database ({text}). Choose another number in LOCATION"
            )
        if "HELLO" in text or "NOPROTO" in text or "unknown command" in text:
            return UnsupportedServer(
                f"{address}: the server does not speak RESP3 ({text}). fleetcache is made for Redis 7.0+ and "
                f'Valkey 7.2+; OPTIONS["protocol"] = 2 makes do without RESP3, and without the near cache'
            )
        return error
    if isinstance(error, (exceptions.TimeoutError, TimeoutError)):
        return ServerTimeout(f"{address}: no answer while connecting")
    if isinstance(error, (exceptions.ConnectionError, OSError)):
        return NeverSent(f"{address}: {text or type(error).__name__}")
    if isinstance(error, AttributeError):  # redis-py's, for want of a map in the reply to HELLO
        return UnsupportedServer(f"{address}: the server answers HELLO 3, but not as RESP3 has it ({text})")
    return error


CANNOT_CONNECT = (exceptions.RedisError, OSError, AttributeError, ImportError, TypeError, ValueError)


def connect(pool: Any, place: tuple[str, int] | None = None) -> Any:
    """Return a connected, authenticated ``redis.Connection`` to where *pool* leads, or a Sentinel: to *place*."""
    try:
        connection = pool.connection_class(**arguments(pool, pool.connection_class))
        connect = connection.connect if place is None else partial(connection.connect_to, place)
        try:
            connect()
        except exceptions.ConnectionError as error:  # killed while it was made, or its token has just ended
            let_pass(error)
            connect()
    except CANNOT_CONNECT as error:
        let_pass(error)
        raise explained(error, pool) from without_frames(error)
    return connection


def socket_of(connection: Any) -> Any:
    """Return the connected socket of a ``redis.Connection``, from now on without redis-py's parser.

    The parser refers to itself, and its finalizer would run at a time of the garbage collector's
    choosing: what a signal's handler raises in there is lost.
    """
    parser = connection._parser
    for name, value in vars(parser).items():
        if getattr(value, "__self__", None) is parser:
            setattr(parser, name, None)
    return connection._sock
