"""What may be configured: dataclasses that read a ``CACHES`` entry, a URL or the environment.

Both dialects are understood: django-redis' upper-case options with their dotted paths, and
Django's own lower-case ones.  A name that nobody knows is refused with the nearest that exists.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from functools import cache
from importlib import import_module
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

from fleetcache.errors import SettingsError
from fleetcache.exchange.connecting import parameters
from fleetcache.keys import KeyFunction, default_key_function

CLUSTERED = ("redis+cluster", "rediss+cluster", "valkey+cluster", "valkeys+cluster")
NETWORKED = ("redis", "rediss", "valkey", "valkeys", *CLUSTERED)
SCHEMES = (*NETWORKED, "unix", "memory", "embedded")

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


SWITCHES = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off", ""), False),
}


def flag(value: Any) -> bool:
    """Return a switch, which a URL spells as text."""
    if isinstance(value, str) and value.lower() in SWITCHES:
        return SWITCHES[value.lower()]
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


def at_least(least: float) -> Callable[[Any], float]:
    """Return what reads a number of seconds of *least* or more."""

    def read(value: Any) -> float:
        number = seconds(value) or 0.0
        if value is None or not math.isfinite(number):
            raise TypeError("a number of seconds is expected")
        if number < least:
            raise ValueError(f"{least:g} seconds or more are expected")
        return number

    return read


def more_than_none(value: Any) -> float:
    """Return a number of seconds above 0."""
    number = at_least(0)(value)
    if not number:
        raise ValueError("more than 0 seconds are expected")
    return number


UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "KI": 1024, "MI": 1024**2, "GI": 1024**3}


def size(value: Any) -> int:
    """Return a number of bytes, which text may give as ``64MB`` (of 1000 kB each) or ``64MiB`` (of 1024 KiB)."""
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMG]I?)?B)?\s*", value.upper())
        if not found:
            raise ValueError("a size is a number of bytes, or text such as '64MB' or '64MiB'")
        return int(float(found[1]) * UNITS[found[2] or ""])
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("a size is a number of bytes, or text such as '64MB' or '64MiB'")
    return value


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


def _prefixes(value: Any) -> tuple[str, ...]:
    """Return prefixes of names, of which none begins with another."""
    if isinstance(value, str):
        raise TypeError(f"a list is expected: [{value!r}]")
    if not isinstance(value, (list, tuple)) or not all(isinstance(prefix, str) for prefix in value):
        raise TypeError("a list of texts is expected")
    if "" in value:
        raise ValueError(
            "the server would announce every key of every application. Name the prefixes, or leave PREFIXES out"
        )
    # Servers answer overlapping prefixes with one reply too many, or announce a key twice.
    for before, after in pairwise(sorted(value)):
        if before == after:
            raise ValueError(f"{before!r} is there twice. Keep one")
        if after.startswith(before):
            raise ValueError(f"{after!r} begins with {before!r}. Keep {before!r}, which covers both")
    return tuple(value)


SMALLEST_NEAR = 16_000


def _near_size(value: Any) -> int:
    found = size(value)
    if found < SMALLEST_NEAR:
        raise ValueError(f"{SMALLEST_NEAR} bytes or more are expected: less may not hold a single entry")
    return found


def _option(default: Any, read: Callable[[Any], Any], *names: str, setting: str = "", doc: str) -> Any:
    """A field of `Options` or `NearOptions`: how it is read, and under which names."""
    metadata = {"read": read, "names": names, "setting": setting, "doc": doc}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata, repr=False)
    secret = any(name in {"PASSWORD", "SENTINEL_KWARGS"} for name in names)
    return field(default=default, metadata=metadata, repr=not secret)


def _as_is(value: Any) -> Any:
    return value


# --- the settings ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class NearOptions:
    """``OPTIONS["NEAR"]``: how the near cache keeps copies of values in the process."""

    prefixes: tuple[str, ...] = _option(
        (), _prefixes, "PREFIXES",
        doc="Entries whose names on the server begin with one of these are kept near. None begins with another. "
        "Left out: what KEY_PREFIX makes of names.",
    )  # fmt: skip
    max_bytes: int = _option(
        64_000_000, _near_size, "MAX_BYTES",
        doc='How much memory the copies of one process may take: bytes, or text such as `"512kB"`, `"64MB"`, `"1GB"` '
        '(powers of 1000) or `"64MiB"` (of 1024).',
    )  # fmt: skip
    max_ttl: float = _option(
        60.0, more_than_none, "MAX_TTL", doc="No copy lives for more seconds than this, nor longer than its entry."
    )
    t_live: float = _option(
        1.0, at_least(0.05), "T_LIVE",
        doc="How many seconds a copy may be out of date at most. A copy that the server has not vouched for within them "
        "is not used. At least 0.05.",
    )  # fmt: skip
    canary: float = _option(
        10.0, more_than_none, "CANARY",
        doc="Every so many seconds a small entry is written, whose announcement has to come back.",
    )  # fmt: skip
    t_topo: float = _option(
        15.0, more_than_none, "T_TOPO",
        doc="Every so many seconds it is asked, of another server where there is one, who the primary is, and which slots it holds.",
    )  # fmt: skip
    absent: bool = _option(
        True, flag, "ABSENT", doc="Also remember which entries are missing; on a cluster that is not done."
    )
    untracked_ttl: float = _option(
        0.0, at_least(0), "UNTRACKED_TTL",
        doc="For how many seconds a copy may be used where the server cannot announce changes; other processes' writes are "
        "seen that late. 0: no copies are kept there.",
    )  # fmt: skip

    @classmethod
    def read(cls, value: Any) -> NearOptions | None:
        """Return the options that *value* stands for: a switch, a size, or a dict of fields; None if it is off."""
        if isinstance(value, Mapping):
            return cls(**cls._fields(value))
        if value is None or (isinstance(value, (bool, int, str)) and str(value).lower() in SWITCHES):
            return cls() if value is not None and flag(value) else None
        try:
            return cls(**cls._fields({"MAX_BYTES": value}))
        except SettingsError as error:
            raise ValueError(f"True, a size such as '64MB', or a dict is expected. {error}") from error

    @classmethod
    def _fields(cls, written: Mapping[str, Any]) -> dict[str, Any]:
        table = {name: option for option in fields(cls) for name in option.metadata["names"]}
        found = {}
        for name, value in written.items():
            option = table.get(str(name).upper())
            if option is None:
                raise SettingsError(f"unknown name {name!r}.{nearest(str(name), table)} Known: {', '.join(table)}")
            found[option.name] = _read("", name, option.metadata["read"], value)
        return found


@dataclass(frozen=True, kw_only=True)
class Options:
    """The ``OPTIONS`` of a cache.

    What is no option of fleetcache, but a keyword argument of redis-py's connections (``db``,
    ``ssl_ca_certs``, ``credential_provider``, ``client_name``, …), is passed on to them.
    """

    client_class: Any = _option(
        "fleetcache.client.DefaultClient", imported, "CLIENT_CLASS",
        doc="Which client: `DefaultClient`, `SentinelClient`, `ClusterClient`, `ShardClient`, `HerdClient`, or one derived from them.",
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
    near: NearOptions | None = _option(
        None, NearOptions.read, "NEAR", "near",
        doc="Keep copies in the process, which the server's announcements keep current. True, a size such as "
        '`"64MB"`, or a dict: see [below](#the-near-cache).',
    )  # fmt: skip
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
        options = cls(**values, connection=connection, given=dict(written))
        if options.near and not options.replica_read_only:
            raise SettingsError(
                f"{where}: NEAR needs REPLICA_READ_ONLY. The primary never announces a write that went to another "
                f"server, so copies would stay as they were. Leave out one of the two"
            )
        return options


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
    place = f"{where}: {name}" if where else name
    try:
        return read(value)
    except SettingsError as error:
        raise SettingsError(f"{place}: {error}") from error
    except (TypeError, ValueError) as error:
        shown = "a wrong value" if "PASSWORD" in name.upper() else repr(value)
        raise SettingsError(f"{place} cannot be {shown}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One entry of ``CACHES``."""

    location: tuple[str, ...] = field(
        repr=False,
        metadata={
            "name": "LOCATION",
            "doc": "The URL of the server; several, with commas or in a list, for replicas, or nodes of a cluster.",
        },
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
    urls = [node for url in urls if url and url.strip() for node in _nodes(url.strip())]
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
    if 0 < sum(clustered([url]) for url in urls) < len(urls):
        raise SettingsError(f"{where}: LOCATION: either all URLs are of a cluster's nodes, or none")
    return tuple(urls)


def clustered(urls: Iterable[str]) -> bool:
    """Whether *urls* are those of a cluster's nodes."""
    return all(url.partition("://")[0] in CLUSTERED for url in urls)


def _nodes(url: str) -> list[str]:
    """Return a URL for each of the hosts in *url*, between which commas may stand if they are a cluster's."""
    if not clustered([url]):
        return [url]
    scheme, _, rest = url.partition("://")
    netloc, path = re.fullmatch(r"([^/?#]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    user, at, hosts = netloc.rpartition("@")
    return [f"{scheme}://{user}{at}{host.strip()}{path}" for host in hosts.split(",")]


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
    if clustered([url]) and int(database or 0):
        return f"a cluster has only database 0. Leave /{database} out"
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
