"""What may be configured: dataclasses that read a ``CACHES`` entry, a URL or the environment.

Both dialects are understood: django-redis' upper-case options with their dotted paths, and
Django's own lower-case ones.  A name that nobody knows is refused with the nearest that exists.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
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
WATCHED = ("redis+sentinel", "rediss+sentinel", "valkey+sentinel", "valkeys+sentinel")
NETWORKED = ("redis", "rediss", "valkey", "valkeys", *CLUSTERED, *WATCHED)
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


SWITCHES = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off", ""), False)


def flag(value: Any) -> bool:
    """Return a switch, which a URL spells as text."""
    if isinstance(value, str) and value.lower() in SWITCHES:
        return SWITCHES[value.lower()]
    if not isinstance(value, (bool, int)):
        raise TypeError("a switch is True or False")
    return bool(value)


def seconds(value: Any) -> float | None:
    """Return a number of seconds, None for None."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool):
        raise TypeError("a number of seconds is expected")
    return None if value is None else float(value)


def limit(value: Any) -> float | None:
    """Return a limit in seconds; None and 0 mean none."""
    return seconds(value) or None


def lifetime(value: Any) -> float | None:
    """Return how long entries live, in seconds; None means for ever."""
    number = None if value == "None" else seconds(value)
    return int(number) if number is not None and number.is_integer() else number


def at_least(least: float) -> Callable[[Any], float]:
    """Return what reads a number of seconds of *least* or more."""

    def read(value: Any) -> float:
        number = seconds(value)
        if number is None or not math.isfinite(number):
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
    if type(value) is int:
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMG]I?)?B)?\s*", value.upper()) if isinstance(value, str) else None
    if not found:
        raise ValueError("a size is a number of bytes, or text such as '64MB' or '64MiB'")
    return int(float(found[1]) * UNITS[found[2] or ""])


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a dict of further options."""
    if not isinstance(value, Mapping):
        raise TypeError("a dict is expected")
    return value


def one_of(*words: str | None) -> Callable[[Any], Any]:
    """Return what reads a choice among *words*."""

    def read(value: Any) -> Any:
        if value not in words:
            raise ValueError(f"one of {', '.join(map(repr, words))} is expected")
        return value

    return read


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a question after the one of *known* that *name* may stand for, or nothing."""
    first = {other.lower(): other for other in reversed([*known])}
    close = difflib.get_close_matches(name.lower(), first, 1)
    return f" Did you mean {first[close[0]]!r}?" if close else ""


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


def _globs(value: Any) -> tuple[str, ...]:
    """Return globs of keys."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(glob, str) for glob in value):
        raise TypeError("a list of texts is expected, such as ['login:*']")
    return tuple(value)


SMALLEST_NEAR = 16_000


def _near_size(value: Any) -> int:
    found = size(value)
    if found < SMALLEST_NEAR:
        raise ValueError(f"{SMALLEST_NEAR} bytes or more are expected: less may not hold a single entry")
    return found


def option(default: Any, read: Callable[[Any], Any], *also: str, setting: str = "", shown: bool = True) -> Any:
    """A setting: how it is read, what it is called besides its own name in capitals, what stands in for it.

    docs/settings.md has the text that stands under it.
    """
    metadata = {"read": read, "also": also, "setting": setting}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata, repr=False)
    return field(default=default, metadata=metadata, repr=shown)


def names(described: Field[Any]) -> tuple[str, ...]:
    """Return what a setting is called; nothing if nobody can set it."""
    return (described.name.upper(), *described.metadata["also"]) if described.metadata else ()


def table(kind: Any) -> dict[str, Field[Any]]:
    """Return the settings of a class by their names."""
    return {name: described for described in fields(kind) for name in names(described)}


def _as_is(value: Any) -> Any:
    return value


# --- the settings ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class NearOptions:
    """``OPTIONS["NEAR"]``: how the near cache keeps copies of values in the process."""

    prefixes: tuple[str, ...] = option((), _prefixes)
    """Entries whose names on the server begin with one of these are kept near. None begins with another. Left
    out: what KEY_PREFIX makes of names."""
    max_bytes: int = option(64_000_000, _near_size)
    """How much memory the copies of one process may take: bytes, or text such as `"512kB"`, `"64MB"`, `"1GB"`
    (powers of 1000) or `"64MiB"` (of 1024)."""
    max_ttl: float = option(60.0, more_than_none)
    """No copy lives for more seconds than this, nor longer than its entry."""
    t_live: float = option(1.0, at_least(0.05))
    """How many seconds a copy may be out of date at most. A copy that the server has not vouched for within
    them is not used. At least 0.05."""
    canary: float = option(10.0, more_than_none)
    """Every so many seconds a small entry is written, whose announcement has to come back."""
    t_topo: float = option(15.0, more_than_none)
    """Every so many seconds it is asked, of another server where there is one, who the primary is, and which slots
    it holds."""
    absent: bool = option(True, flag)
    """Also remember which entries are missing; on a cluster that is not done."""
    untracked_ttl: float = option(0.0, at_least(0))
    """For how many seconds a copy may be used where the server cannot announce changes; other processes' writes
    are seen that late. 0: no copies are kept there."""

    @classmethod
    def read(cls, value: Any) -> NearOptions | None:
        """Return the options that *value* stands for: a switch, a size, or a dict of fields; None if it is off."""
        if value is None or (isinstance(value, (bool, int, str)) and str(value).lower() in SWITCHES):
            return cls() if value is not None and flag(value) else None
        known = table(cls)
        if not isinstance(value, Mapping):
            try:
                return cls(**_read("", "MAX_BYTES", known["MAX_BYTES"], value))
            except SettingsError as error:
                raise ValueError(f"True, a size such as '64MB', or a dict is expected. {error}") from error
        found: dict[str, Any] = {}
        for name, written in value.items():
            if (setting := known.get(str(name).upper())) is None:
                raise SettingsError(f"unknown name {name!r}.{nearest(str(name), known)} Known: {', '.join(known)}")
            found |= _read("", name, setting, written)
        return cls(**found)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The ``OPTIONS`` of a cache.

    What is no option of fleetcache, but a keyword argument of redis-py's connections (``db``,
    ``ssl_ca_certs``, ``credential_provider``, ``client_name``, …), is passed on to them.
    """

    client_class: Any = option("fleetcache.client.DefaultClient", imported)
    """Which client: `DefaultClient`, `SentinelClient`, `ClusterClient`, `ShardClient`, `HerdClient`, or one
    derived from them."""
    serializer: Any = option("fleetcache.codec.serializers.PickleSerializer", imported, "serializer")
    """What turns values into bytes. Under the lower-case name a class is made without arguments, as Django does."""
    compressor: Any = option("fleetcache.codec.compressors.IdentityCompressor", imported, "compressor")
    """What makes the bytes fewer. Values in any known format stay readable whatever stands here."""
    compress_min_length: int | None = option(None, int)
    """Payloads of so many bytes or fewer stay as they are (15; xz: 100)."""
    compress_level: int | None = option(None, int)
    """The compressor's level or preset."""
    max_value_bytes: int | None = option(None, int)
    """A payload that decompresses to more is unreadable (default 256 MiB)."""
    pickle_version: Any = option(None, _as_is)
    """The pickle protocol written; -1 is the highest. Any protocol is read."""
    msgspec_type: Any = option(None, imported)
    """The type that `MsgspecSerializer` decodes into and validates."""
    unreadable: str = option("miss", one_of("miss", "raise"))
    """What a payload that cannot be read is: a `"miss"`, counted and logged, or `"raise"`: an `UnreadableValue`."""
    ignore_exceptions: bool = option(False, flag, setting="DJANGO_REDIS_IGNORE_EXCEPTIONS")
    """While the server is away or refuses, methods return what they return for a missing key."""
    log_ignored_exceptions: bool = option(False, flag, setting="DJANGO_REDIS_LOG_IGNORED_EXCEPTIONS")
    """Log each failure that is ignored as an error, with its traceback. Outages are always logged, once each,
    by `fleetcache.server`."""
    raise_for: tuple[str, ...] = option((), _globs)
    """Failures that concern a key that one of these globs matches are raised in spite of IGNORE_EXCEPTIONS:
    `["login:*", "lock:*"]`. See [Outages](outages.md#what-must-not-fail-open)."""
    logger: str = option("fleetcache", str, setting="DJANGO_REDIS_LOGGER")
    """The logger for ignored failures."""
    read_from: str | None = option(None, one_of(None, "primary", "replica", "nearest"))
    """Who answers reads: the `"primary"`, any `"replica"`, or the `"nearest"` of all; see [Replicas](replicas.md).
    Left out: replicas if LOCATION names some, or with `SentinelClient`; else primaries."""
    replica_read_only: bool = option(True, flag)
    """False lets writes go to another server when the primary is away."""
    scan_itersize: int = option(1000, int, setting="DJANGO_REDIS_SCAN_ITERSIZE")
    """How many entries the server looks at in one step of `scan`, `keys`, `iter_keys`, `delete_pattern`, `clear`."""
    clear: str = option("auto", one_of("auto", "database", "prefix"))
    """What `clear()` removes: the whole `database`, or all versions under KEY_PREFIX. `auto`: by prefix if
    there is one."""
    close_connection: bool = option(False, flag, setting="DJANGO_REDIS_CLOSE_CONNECTION")
    """Close idle connections at the end of each request. Connections in use are never closed."""
    herd_timeout: int = option(60, int, setting="CACHE_HERD_TIMEOUT")
    """For how many seconds `HerdClient` keeps an entry beyond its timeout while callers renew it."""
    username: str | None = option(None, str, "username")
    """The ACL user. The URL's has precedence."""
    password: str | None = option(None, str, "password", shown=False)
    """Its password. The URL's has precedence."""
    socket_timeout: float | None = option(5.0, limit, "socket_timeout")
    """Seconds for one exchange. None or 0: no limit."""
    socket_connect_timeout: float | None = option(5.0, limit, "socket_connect_timeout")
    """Seconds for connecting."""
    max_connections: int | None = option(None, int, "max_connections")
    """How many connections blocking callers of one process may use at once; more get a `TooManyConnections`,
    unless the pool class is `redis.BlockingConnectionPool`. Tasks share one per event loop."""
    breaker_failures: int = option(3, int)
    """After this many failures in a row calls fail at once, without being tried."""
    breaker_cooldown: float = option(1.0, float)
    """Then one call is let through every so many seconds."""
    connection_factory: Any = option(None, imported, setting="DJANGO_REDIS_CONNECTION_FACTORY")
    """What makes connection pools: a class derived from `fleetcache.pool.ConnectionFactory`."""
    connection_pool_class: Any = option(None, imported, "pool_class")
    """A redis-py pool class."""
    connection_pool_kwargs: Mapping[str, Any] = option({}, mapping)
    """Further arguments of the pool and its connections."""
    redis_client_class: Any = option("redis.Redis", imported)
    """The class of raw clients (`get_redis_connection`)."""
    redis_client_kwargs: Mapping[str, Any] = option({}, mapping)
    """Further arguments of raw clients."""
    parser_class: Any = option(None, imported, "parser_class")
    """redis-py's parser for the handshake and for raw clients; the cache itself parses with hiredis."""
    sentinels: Sequence[tuple[str, int]] = option((), _as_is, "sentinels")
    """`(host, port)` of the Sentinels, for `SentinelClient`."""
    sentinel_kwargs: Mapping[str, Any] | None = option(None, _as_is, "sentinel_kwargs", shown=False)
    """Arguments of the connections to the Sentinels."""
    address_remap: Any = option(None, imported, "address_remap")
    """For a cluster whose nodes are reached at other addresses than they announce: a function of `(host, port)`,
    or its path, that returns where to connect."""
    allow_embedded: bool = option(False, flag)
    """Start an `embedded://` server even where Django's DEBUG is off."""
    near: NearOptions | None = option(None, NearOptions.read, "near")
    """Keep copies in the process, which the server's announcements keep current. True, a size such as `"64MB"`,
    or a dict: see [below](#the-near-cache)."""
    connection: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Whatever else redis-py's connections take, by its own name."""
    given: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The options as they were written, for classes of yours."""

    @classmethod
    def read(cls, where: str, written: Mapping[str, Any], defaults: Mapping[str, Any]) -> Options:
        """Return the options *written*; *defaults* are Django settings that stand in for absent ones."""
        known = table(cls)
        values: dict[str, Any] = {}
        connection: dict[str, Any] = {}
        for name, value in written.items():
            if name in known:
                values.update(_read(where, name, known[name], value))
            elif name in connection_options():
                connection[name] = value
            elif name not in IGNORED:
                near = nearest(name, [*known, *connection_options()])
                raise SettingsError(f"{where}: unknown option {name!r}.{near} Options are listed in docs/settings.md")
        for described in known.values():
            if described.name in values:
                continue
            if (setting := described.metadata["setting"]) in defaults:
                values.update(_read(setting, setting, described, defaults[setting]))
            elif isinstance(described.default, str) and described.metadata["read"] is imported:
                values[described.name] = imported(described.default)
        options = cls(**values, connection=connection, given=dict(written))
        if options.near and not options.replica_read_only:
            raise SettingsError(
                f"{where}: NEAR needs REPLICA_READ_ONLY. The primary never announces a write that went to another "
                f"server, so copies would stay as they were. Leave out one of the two"
            )
        return options


IGNORED = {"MAX_ENTRIES", "CULL_FREQUENCY"}  # Django's, for caches that have to be culled


@cache
def connection_options() -> frozenset[str]:
    """Return the keyword arguments of redis-py's connections that may be passed on to them."""
    own = {"host", "port", "path", "parser_class", "command_packer", "event_dispatcher"}
    kinds = (Connection, SSLConnection, UnixDomainSocketConnection)
    names = frozenset().union(*(parameters(kind) for kind in kinds))
    return frozenset(name for name in names - own if not name.startswith(("maint", "orig", "oss", "himport")))


def _read(where: str, name: str, described: Field[Any], value: Any) -> dict[str, Any]:
    """Return the field of a setting with what *value* stands for, or say that *name* cannot be that."""
    place = f"{where}: {name}" if where else name
    try:
        return {described.name: described.metadata["read"](value)}
    except SettingsError as error:
        raise SettingsError(f"{place}: {error}") from error
    except (TypeError, ValueError) as error:
        shown = "a wrong value" if "PASSWORD" in name.upper() else repr(value)
        raise SettingsError(f"{place} cannot be {shown}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One entry of ``CACHES``."""

    location: tuple[str, ...] = field(repr=False)
    """The URL of the server; several, with commas or in a list, for replicas, or nodes of a cluster."""
    timeout: float | None = option(300, lifetime)
    """Seconds that entries live by default; None: for ever."""
    key_prefix: str = option("", _as_is)
    """Put before every key."""
    version: Any = option(1, _as_is)
    """The default version of keys."""
    key_function: KeyFunction = option(default_key_function, lambda path: imported(path or default_key_function))
    """Makes the name of (key, prefix, version); a function or its path."""
    reverse_key_function: Callable[[str], str] | None = option(None, lambda path: imported(path or None))
    """Makes the key of a name, for `keys()`."""
    options: Options
    """See below."""

    @classmethod
    def read(
        cls, location: Any, params: Mapping[str, Any], *, alias: str = "", defaults: Mapping[str, Any] | None = None
    ) -> Settings:
        """Return the settings of a ``CACHES`` entry, given as Django hands it to a backend."""
        where = f"CACHES[{alias!r}]" if alias else "cache settings"
        known, apart = table(cls), ("LOCATION", "OPTIONS")
        found: dict[str, Any] = {}
        for name, value in params.items():
            if (setting := known.get(name.upper())) is not None:
                found.update(_read(where, setting.name.upper(), setting, value))
            elif name.upper() not in apart and name != "BACKEND":
                is_option = f" It is an option: {{'OPTIONS': {{{name!r}: …}}}}" if name in table(Options) else ""
                raise SettingsError(f"{where}: unknown setting {name!r}.{is_option or nearest(name, [*known, *apart])}")
        options = next((value for name, value in params.items() if name.upper() == "OPTIONS"), None)
        return cls(
            location=servers(where, location),
            options=Options.read(f"{where}['OPTIONS']", options or {}, defaults or {}),
            **found,
        )


separator = re.compile(r"[;,]\s*(?=[a-z][a-z0-9+.-]*://)")


def servers(where: str, location: Any) -> tuple[str, ...]:
    """Return the URLs in *location*, each of a scheme that exists."""
    # Only before the next URL does a comma separate; elsewhere it may be part of a password.
    urls = separator.split(location) if isinstance(location, str) else list(location or ())
    urls = [node for url in urls if url and url.strip() for node in _hosts(url.strip(), CLUSTERED)]
    if not urls:
        raise SettingsError(f"{where}: LOCATION is empty. Give the server's URL, such as 'redis://127.0.0.1:6379/1'")
    for url in urls:
        scheme, found, _ = url.partition("://")
        if not found or scheme not in SCHEMES:
            what = f"unknown URL scheme {scheme!r}" if found else f"{masked_url(url)!r} is no URL"
            near = nearest(scheme, SCHEMES) if found else ""
            raise SettingsError(f"{where}: LOCATION: {what}.{near} Known: {', '.join(f'{s}://' for s in SCHEMES)}")
        for one in _hosts(url) if scheme in NETWORKED else ():
            if fault := _fault(one):
                raise SettingsError(f"{where}: LOCATION {masked_url(url)!r}: {fault}")
    if 0 < sum(clustered([url]) for url in urls) < len(urls):
        raise SettingsError(f"{where}: LOCATION: either all URLs are of a cluster's nodes, or none")
    return tuple(urls)


def clustered(urls: Iterable[str]) -> bool:
    """Whether *urls* are those of a cluster's nodes."""
    return all(url.partition("://")[0] in CLUSTERED for url in urls)


def watched(url: str) -> bool:
    """Whether *url* names a service, and the Sentinels that know where it is."""
    return url.partition("://")[0] in WATCHED


def _hosts(url: str, schemes: Iterable[str] = (*CLUSTERED, *WATCHED)) -> list[str]:
    """Return a URL for each of the hosts in *url*, between which commas may stand under these *schemes*."""
    scheme, _, rest = url.partition("://")
    if scheme not in schemes:
        return [url]
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
    if "+" in place.scheme and (not place.hostname or re.search(",.*:.*@", place.netloc)):
        return "a host is missing, or stands before the @; in a password , is written %2C"
    database = place.path.strip("/")
    if watched(url):
        service, _, database = place.path.removeprefix("/").partition("/")
        if not service:
            return "the service is missing: redis+sentinel://host1:26379,host2:26379/service/0"
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
    own = {name.lower() for name in table(Settings)}
    options = {name.lower(): name for name in table(Options)}
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
