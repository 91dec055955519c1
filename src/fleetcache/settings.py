"""What may be configured: dataclasses that read a ``CACHES`` entry, a URL or the environment.

Both dialects are understood: django-redis' upper-case options with their dotted paths, and
Django's own lower-case ones.  A name that nobody knows is refused with the nearest that exists.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from functools import cache
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

from fleetcache.errors import SettingsError
from fleetcache.exchange.connecting import parameters
from fleetcache.keys import KeyFunction, default_key_function

NETWORKED = ("redis", "rediss", "valkey", "valkeys")
SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix", "memory", "embedded")

PATHS = {
    "django_redis.cache.RedisCache": "fleetcache.django.RedisCache",
    "django_redis.client.DefaultClient": "fleetcache.client.DefaultClient",
    "django_redis.client.default.DefaultClient": "fleetcache.client.DefaultClient",
    "django_redis.client.ShardClient": "fleetcache.client.ShardClient",
    "django_redis.client.sharded.ShardClient": "fleetcache.client.ShardClient",
    "django_redis.client.HerdClient": "fleetcache.client.HerdClient",
    "django_redis.client.herd.HerdClient": "fleetcache.client.HerdClient",
    "django_redis.client.SentinelClient": "fleetcache.client.SentinelClient",
    "django_redis.client.sentinel.SentinelClient": "fleetcache.client.SentinelClient",
    "django_redis.serializers.base.BaseSerializer": "fleetcache.codec.serializers.BaseSerializer",
    "django_redis.serializers.pickle.PickleSerializer": "fleetcache.codec.serializers.PickleSerializer",
    "django_redis.serializers.json.JSONSerializer": "fleetcache.codec.serializers.JSONSerializer",
    "django_redis.serializers.msgpack.MSGPackSerializer": "fleetcache.codec.serializers.MSGPackSerializer",
    "django_redis.compressors.base.BaseCompressor": "fleetcache.codec.compressors.BaseCompressor",
    "django_redis.compressors.identity.IdentityCompressor": "fleetcache.codec.compressors.IdentityCompressor",
    "django_redis.compressors.zlib.ZlibCompressor": "fleetcache.codec.compressors.ZlibCompressor",
    "django_redis.compressors.gzip.GzipCompressor": "fleetcache.codec.compressors.GzipCompressor",
    "django_redis.compressors.lzma.LzmaCompressor": "fleetcache.codec.compressors.LzmaCompressor",
    "django_redis.compressors.lz4.Lz4Compressor": "fleetcache.codec.compressors.Lz4Compressor",
    "django_redis.compressors.zstd.ZStdCompressor": "fleetcache.codec.compressors.ZStdCompressor",
    "django_redis.pool.ConnectionFactory": "fleetcache.pool.ConnectionFactory",
    "django_redis.pool.SentinelConnectionFactory": "fleetcache.pool.SentinelConnectionFactory",
    "django_redis.util.default_reverse_key": "fleetcache.keys.default_reverse",
}
"""django-redis' dotted paths, and what stands for them here; django-redis need not be installed."""

# --- kinds of value -------------------------------------------------------------------------------


def imported(path: Any) -> Any:
    """Return what a dotted path names; anything but a string is returned as it is."""
    if not isinstance(path, str):
        return path
    path = PATHS.get(path, path)
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        near = nearest(path, [*PATHS, *PATHS.values()])
        raise SettingsError(f"{path!r} cannot be imported{'.' + near if near else f': {error}'}") from error


def flag(value: Any) -> bool:
    """Return a switch, which a URL spells as text."""
    if isinstance(value, str) and value.lower() in {"1", "true", "yes", "on", "0", "false", "no", "off", ""}:
        return value.lower() in {"1", "true", "yes", "on"}
    if not isinstance(value, (bool, int)):
        raise TypeError("a switch is True or False")
    return bool(value)


def seconds(value: Any) -> float | None:
    """Return a limit in seconds; None and 0 mean none."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool):
        raise TypeError("a number of seconds is expected")
    return float(value) or None if value is not None else None


def lifetime(value: Any) -> float | None:
    """Return how long entries live, in seconds; None means for ever."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if value is None or value == "None":
        return None
    if isinstance(value, bool):
        raise TypeError("a number of seconds is expected")
    number = float(value)
    return int(number) if number.is_integer() else number


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a dict of further options."""
    if not isinstance(value, Mapping):
        raise TypeError("a dict is expected")
    return value


def one_of(*words: str) -> Callable[[Any], str]:
    """Return what reads a choice among *words*."""

    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(f"one of {', '.join(map(repr, words))} is expected")
        return str(value)

    return read


def nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1, 0.6) or difflib.get_close_matches(
        name.lower(), [other.lower() for other in known], 1, 0.6
    )
    if not close:
        return ""
    return f" Did you mean {next(other for other in known if other.lower() == close[0].lower())!r}?"


def _option(default: Any, read: Callable[[Any], Any], *names: str, setting: str = "", doc: str) -> Any:
    """A field of `Options`: how it is read, and under which names."""
    metadata = {"read": read, "names": names, "setting": setting, "doc": doc}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata, repr=False)
    secret = any(name in {"PASSWORD", "SENTINEL_KWARGS"} for name in names)
    return field(default=default, metadata=metadata, repr=not secret)


def _as_is(value: Any) -> Any:
    return value


# --- the settings ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Options:
    """The ``OPTIONS`` of a cache.

    What is no option of fleetcache, but a keyword argument of redis-py's connections (``db``,
    ``ssl_ca_certs``, ``credential_provider``, ``client_name``, …), is passed on to them.
    """

    client_class: Any = _option(
        "fleetcache.client.DefaultClient", imported, "CLIENT_CLASS",
        doc="Which client: `DefaultClient`, `SentinelClient`, `ShardClient`, `HerdClient`, or one derived from them.",
    )  # fmt: skip
    serializer: Any = _option(
        "fleetcache.codec.serializers.PickleSerializer", imported, "SERIALIZER", "serializer",
        doc="What turns values into bytes. Under the lower-case name a class is made without arguments, as Django does.",
    )  # fmt: skip
    compressor: Any = _option(
        "fleetcache.codec.compressors.IdentityCompressor", imported, "COMPRESSOR", "compressor",
        doc="What makes the bytes fewer. Values in any known format stay readable whatever stands here.",
    )  # fmt: skip
    compress_min_length: int | None = _option(
        None, int, "COMPRESS_MIN_LENGTH", doc="Payloads of so many bytes or fewer stay as they are (15; xz: 100)."
    )
    compress_level: int | None = _option(None, int, "COMPRESS_LEVEL", doc="The compressor's level or preset.")
    max_value_bytes: int | None = _option(
        None, int, "MAX_VALUE_BYTES", doc="A payload that decompresses to more is unreadable (default 256 MiB)."
    )
    pickle_version: Any = _option(
        None, _as_is, "PICKLE_VERSION", doc="The pickle protocol written; -1 is the highest. Any protocol is read."
    )
    msgspec_type: Any = _option(
        None, imported, "MSGSPEC_TYPE", doc="The type that `MsgspecSerializer` decodes into and validates."
    )
    unreadable: str = _option(
        "miss", one_of("miss", "raise"), "UNREADABLE",
        doc='What a payload that cannot be read is: a `"miss"`, counted and logged, or `"raise"`: an `UnreadableValue`.',
    )  # fmt: skip
    ignore_exceptions: bool = _option(
        False, flag, "IGNORE_EXCEPTIONS", setting="DJANGO_REDIS_IGNORE_EXCEPTIONS",
        doc="While the server is away or refuses, methods return what they return for a missing key.",
    )  # fmt: skip
    log_ignored_exceptions: bool = _option(
        False, flag, "LOG_IGNORED_EXCEPTIONS", setting="DJANGO_REDIS_LOG_IGNORED_EXCEPTIONS",
        doc="Log each refusal that is ignored. Outages are always logged, once each, by `fleetcache.server`.",
    )  # fmt: skip
    logger: str = _option(
        "fleetcache", str, "LOGGER", setting="DJANGO_REDIS_LOGGER", doc="The logger for ignored refusals."
    )
    replica_read_only: bool = _option(
        True, flag, "REPLICA_READ_ONLY", doc="False lets writes go to another server when the primary is away."
    )
    scan_itersize: int = _option(
        1000, int, "SCAN_ITERSIZE", setting="DJANGO_REDIS_SCAN_ITERSIZE",
        doc="How many entries the server looks at in one step of `scan`, `keys`, `iter_keys`, `delete_pattern`, `clear`.",
    )  # fmt: skip
    clear: str = _option(
        "auto", one_of("auto", "database", "prefix"), "CLEAR",
        doc="What `clear()` removes: the whole `database`, or all versions under KEY_PREFIX. "
        "`auto`: by prefix if there is one.",
    )  # fmt: skip
    close_connection: bool = _option(
        False, flag, "CLOSE_CONNECTION", setting="DJANGO_REDIS_CLOSE_CONNECTION",
        doc="Close idle connections at the end of each request. Connections in use are never closed.",
    )  # fmt: skip
    herd_timeout: int = _option(
        60, int, "HERD_TIMEOUT", setting="CACHE_HERD_TIMEOUT",
        doc="For how many seconds `HerdClient` keeps an entry beyond its timeout while callers renew it.",
    )  # fmt: skip
    username: str | None = _option(None, str, "USERNAME", "username", doc="The ACL user. The URL's has precedence.")
    password: str | None = _option(None, str, "PASSWORD", "password", doc="Its password. The URL's has precedence.")
    socket_timeout: float | None = _option(
        5.0, seconds, "SOCKET_TIMEOUT", "socket_timeout", doc="Seconds for one exchange. None or 0: no limit."
    )
    socket_connect_timeout: float | None = _option(
        5.0, seconds, "SOCKET_CONNECT_TIMEOUT", "socket_connect_timeout", doc="Seconds for connecting."
    )
    max_connections: int | None = _option(
        None, int, "MAX_CONNECTIONS", "max_connections",
        doc="How many connections blocking callers of one process may use at once; more get a `TooManyConnections`, "
        "unless the pool class is `redis.BlockingConnectionPool`. Tasks share one per event loop.",
    )  # fmt: skip
    breaker_failures: int = _option(
        3, int, "BREAKER_FAILURES", doc="After this many failures in a row calls fail at once, without being tried."
    )
    breaker_cooldown: float = _option(
        1.0, float, "BREAKER_COOLDOWN", doc="Then one call is let through every so many seconds."
    )
    connection_factory: Any = _option(
        None, imported, "CONNECTION_FACTORY", setting="DJANGO_REDIS_CONNECTION_FACTORY",
        doc="What makes connection pools: a class derived from `fleetcache.pool.ConnectionFactory`.",
    )  # fmt: skip
    connection_pool_class: Any = _option(
        None, imported, "CONNECTION_POOL_CLASS", "pool_class", doc="A redis-py pool class."
    )
    connection_pool_kwargs: Mapping[str, Any] = _option(
        {}, mapping, "CONNECTION_POOL_KWARGS", doc="Further arguments of the pool and its connections."
    )
    redis_client_class: Any = _option(
        "redis.Redis", imported, "REDIS_CLIENT_CLASS", doc="The class of raw clients (`get_redis_connection`)."
    )
    redis_client_kwargs: Mapping[str, Any] = _option(
        {}, mapping, "REDIS_CLIENT_KWARGS", doc="Further arguments of raw clients."
    )
    parser_class: Any = _option(
        None, imported, "PARSER_CLASS", "parser_class",
        doc="redis-py's parser for the handshake and for raw clients; the cache itself parses with hiredis.",
    )  # fmt: skip
    sentinels: Sequence[tuple[str, int]] = _option(
        (), _as_is, "SENTINELS", "sentinels", doc="`(host, port)` of the Sentinels, for `SentinelClient`."
    )
    sentinel_kwargs: Mapping[str, Any] | None = _option(
        None, _as_is, "SENTINEL_KWARGS", "sentinel_kwargs", doc="Arguments of the connections to the Sentinels."
    )
    allow_embedded: bool = _option(
        False, flag, "ALLOW_EMBEDDED", doc="Start an `embedded://` server even where Django's DEBUG is off."
    )
    connection: Mapping[str, Any] = field(
        default_factory=dict,
        repr=False,
        metadata={"names": (), "doc": "Whatever else redis-py's connections take, by its own name."},
    )
    given: Mapping[str, Any] = field(
        default_factory=dict,
        repr=False,
        metadata={"names": (), "doc": "The options as they were written, for classes of yours."},
    )

    @classmethod
    def read(cls, where: str, written: Mapping[str, Any], defaults: Mapping[str, Any]) -> Options:
        """Return the options *written*; *defaults* are Django settings that stand in for absent ones."""
        table = _names()
        values: dict[str, Any] = {}
        connection: dict[str, Any] = {}
        for name, value in written.items():
            if name in table:
                option = table[name]
                values[option.name] = _read(where, name, option.metadata["read"], value)
            elif name in connection_options():
                connection[name] = value
            elif name not in IGNORED:
                near = nearest(name, [*table, *connection_options()])
                raise SettingsError(f"{where}: unknown option {name!r}.{near} Options are listed in docs/settings.md")
        for option in fields(cls):
            setting = option.metadata.get("setting")
            if setting and option.name not in values and setting in defaults:
                values[option.name] = _read(setting, setting, option.metadata["read"], defaults[setting])
            elif isinstance(option.default, str) and option.metadata.get("read") is imported:
                values.setdefault(option.name, imported(option.default))
        return cls(**values, connection=connection, given=dict(written))


IGNORED = {"MAX_ENTRIES", "CULL_FREQUENCY"}  # Django's, for caches that have to be culled


@cache
def _names() -> dict[str, Any]:
    return {name: option for option in fields(Options) for name in option.metadata["names"]}


@cache
def connection_options() -> frozenset[str]:
    """Return the keyword arguments of redis-py's connections that may be passed on to them."""
    own = {"host", "port", "path", "parser_class", "command_packer", "event_dispatcher"}
    kinds = (Connection, SSLConnection, UnixDomainSocketConnection)
    names = frozenset().union(*(parameters(kind) for kind in kinds))
    return frozenset(name for name in names - own if not name.startswith(("maint", "orig", "oss", "himport")))


def _read(where: str, name: str, read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except SettingsError as error:
        raise SettingsError(f"{where}: {name}: {error}") from error
    except (TypeError, ValueError) as error:
        shown = "a wrong value" if "PASSWORD" in name.upper() else repr(value)
        raise SettingsError(f"{where}: {name} cannot be {shown}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One entry of ``CACHES``."""

    location: tuple[str, ...] = field(
        repr=False,
        metadata={"name": "LOCATION", "doc": "The URL of the server; several, with commas or in a list, for replicas."},
    )
    timeout: float | None = field(
        default=300, metadata={"name": "TIMEOUT", "doc": "Seconds that entries live by default; None: for ever."}
    )
    key_prefix: str = field(default="", metadata={"name": "KEY_PREFIX", "doc": "Put before every key."})
    version: Any = field(default=1, metadata={"name": "VERSION", "doc": "The default version of keys."})
    key_function: KeyFunction = field(
        default=default_key_function,
        metadata={"name": "KEY_FUNCTION", "doc": "Makes the name of (key, prefix, version); a function or its path."},
    )
    reverse_key_function: Callable[[str], str] | None = field(
        default=None, metadata={"name": "REVERSE_KEY_FUNCTION", "doc": "Makes the key of a name, for `keys()`."}
    )
    options: Options = field(metadata={"name": "OPTIONS", "doc": "See below."})

    @classmethod
    def read(
        cls, location: Any, params: Mapping[str, Any], *, alias: str = "", defaults: Mapping[str, Any] | None = None
    ) -> Settings:
        """Return the settings of a ``CACHES`` entry, given as Django hands it to a backend."""
        where = f"CACHES[{alias!r}]" if alias else "cache settings"
        known = {option.metadata["name"] for option in fields(cls)}
        for name in params:
            if name not in known and name.upper() not in known and name != "BACKEND":
                hint = f" It is an option: {{'OPTIONS': {{{name!r}: …}}}}" if name in _names() else nearest(name, known)
                raise SettingsError(f"{where}: unknown setting {name!r}.{hint}")
        found = {name.upper(): value for name, value in params.items()}
        return cls(
            location=servers(where, location),
            timeout=_read(where, "TIMEOUT", lifetime, found.get("TIMEOUT", 300)),
            key_prefix=found.get("KEY_PREFIX", ""),
            version=found.get("VERSION", 1),
            key_function=_read(where, "KEY_FUNCTION", imported, found.get("KEY_FUNCTION") or default_key_function),
            reverse_key_function=_read(
                where, "REVERSE_KEY_FUNCTION", imported, found.get("REVERSE_KEY_FUNCTION") or None
            ),
            options=Options.read(f"{where}['OPTIONS']", found.get("OPTIONS") or {}, defaults or {}),
        )


separator = re.compile(r"[;,]\s*(?=[a-z][a-z0-9+.-]*://)")


def servers(where: str, location: Any) -> tuple[str, ...]:
    """Return the URLs in *location*, each of a scheme that exists."""
    # Only before the next URL does a comma separate; elsewhere it may be part of a password.
    urls = separator.split(location) if isinstance(location, str) else list(location or ())
    urls = [url.strip() for url in urls if url and url.strip()]
    if not urls:
        raise SettingsError(f"{where}: LOCATION is empty. Give the server's URL, such as 'redis://127.0.0.1:6379/1'")
    for url in urls:
        scheme, found, _ = url.partition("://")
        if not found or scheme not in SCHEMES:
            what = f"unknown URL scheme {scheme!r}" if found else f"{masked_url(url)!r} is no URL"
            near = nearest(scheme, SCHEMES) if found else ""
            raise SettingsError(f"{where}: LOCATION: {what}.{near} Known: {', '.join(f'{s}://' for s in SCHEMES)}")
        if scheme in NETWORKED and (fault := _fault(url)):
            raise SettingsError(f"{where}: LOCATION {masked_url(url)!r}: {fault}")
    return tuple(urls)


def _fault(url: str) -> str:
    """Return what redis-py would silently read differently from what was meant."""
    try:
        place = urlsplit(url)
        place.port  # noqa: B018 - looking may raise
    except ValueError:  # whose text may quote a password
        return "the port is no number; in a password / # ? @ are written %2F %23 %3F %40"
    if place.fragment:
        return "a '#' ends a URL; in a password it is written %23"
    if any(char.isspace() for char in place.netloc):
        return "there is white space in the host"
    database = place.path.strip("/")
    if database and not database.isdigit():
        return f"the database must be a whole number, not {database!r}"
    return ""


def masked_url(url: str) -> str:
    """Return *url* without the secrets in it."""
    head, at, tail = url.rpartition("@")
    if at:
        scheme, _, rest = head.rpartition("://")
        user = rest.partition(":")[0]
        url = f"{scheme}://{user}:***@{tail}" if scheme else f"***@{tail}"
    place, mark, query = url.partition("?")
    if mark:
        query = "&".join(
            f"{name}=***" if "pass" in name.lower() else f"{name}={value}" for name, value in parse_qsl(query)
        )
    return f"{place}{mark}{query}"


def from_url(url: str) -> tuple[str, dict[str, Any]]:
    """Return the location and the params in *url*, whose query may hold any setting in lower case."""
    own = {option.metadata["name"].lower() for option in fields(Settings)} - {"location", "options"}
    options = {name.lower(): name for name in _names()}
    params: dict[str, Any] = {"OPTIONS": {}}
    passed: list[tuple[str, str]] = []
    for name, value in parse_qsl(url.partition("?")[2], keep_blank_values=True):
        if name in own:
            params[name.upper()] = int(value) if name == "version" and value.isdecimal() else value
        elif name in options and name not in connection_options():
            params["OPTIONS"][options[name]] = value
        elif name in connection_options() or name == "db":
            passed.append((name, value))
        else:
            raise SettingsError(f"{masked_url(url)}: unknown parameter {name!r}.{nearest(name, [*own, *options])}")
    location = url.partition("?")[0]
    return f"{location}?{urlencode(passed)}" if passed else location, params
