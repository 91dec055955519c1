"""What may be configured: dataclasses that read a ``CACHES`` entry, a URL or the environment.

Both dialects are understood: django-redis' upper-case options with their dotted paths, and
Django's own lower-case ones.  A name that nobody knows is refused with the nearest that exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fleetcache.errors import SettingsError
from fleetcache.keys import KeyFunction, default_key_function
from fleetcache.kinds import (
    COMPRESSORS,
    SERIALIZERS,
    SWITCHES,
    at_least,
    built_in,
    cert_reqs,
    client_kind,
    flag,
    globs,
    imported,
    lifetime,
    limit,
    made_by,
    mapping,
    more_than_none,
    nearest,
    one_of,
    pause,
    prefix,
    prefix_list,
    sentinels,
    sized,
    text_of,
    version,
    whole,
)
from fleetcache.masking import masked_url, quoted, shown
from fleetcache.sharing import Sharing, frozen
from fleetcache.signatures import DEADLINE, connection_options, says_none
from fleetcache.urls import ESCAPES, Location, locations


def option(
    default: Any, read: Callable[[Any], Any], *also: str, setting: str = "", none: bool = False, secret: bool = False
) -> Any:
    """A setting: how it is read, what it is called besides its own name in capitals, what stands in for it.

    None is what was left out, unless *none* says that it has a meaning of its own.
    docs/settings.md has the text that stands under it.
    """
    metadata = {"read": read, "also": also, "setting": setting, "none": none}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata, repr=False)
    return field(default=default, metadata=metadata, repr=not secret)


def names(described: Field[Any]) -> tuple[str, ...]:
    """Return what a setting is called; nothing if nobody can set it."""
    return (described.name.upper(), *described.metadata["also"]) if described.metadata else ()


def table(kind: Any) -> dict[str, Field[Any]]:
    """Return the settings of a class by their names."""
    return {name: described for described in fields(kind) for name in names(described)}


# --- the settings ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class NearOptions:
    """``OPTIONS["NEAR"]``: how the near cache keeps copies of values in the process."""

    prefixes: tuple[str, ...] = option((), prefix_list)
    """Entries whose names on the server begin with one of these are kept near. None begins with another. Left
    out: what KEY_PREFIX makes of names."""
    max_bytes: int = option(64_000_000, sized(16_000, ": less may not hold a single entry"))
    """How much memory the copies of one process may take: bytes, or text such as `"512kB"`, `"64MB"`, `"1GB"`
    (powers of 1000) or `"64MiB"` (of 1024)."""
    max_ttl: float = option(60.0, more_than_none)
    """No copy lives for more seconds than this, nor longer than its entry."""
    t_live: float = option(1.0, at_least(0.05))
    """How many seconds a copy may be out of date at most. A copy that the server has not vouched for within
    them is not used. At least 0.05."""
    canary: float = option(10.0, pause)
    """Every so many seconds a small entry is written, whose announcement has to come back."""
    t_topo: float = option(15.0, pause)
    """Every so many seconds it is asked, of another server where there is one, who the primary is, and which slots
    it holds."""
    touch: float | None = option(0.25, limit, none=True)
    """How often, in seconds, the server is told which entries were read near, so that it evicts others (`TOUCH`). Each is
    named at most once within them, and once for ten hits. 0 or None: never."""
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
                return cls(**read_setting("", "MAX_BYTES", known["MAX_BYTES"], value))
            except SettingsError as error:
                raise ValueError(f"True, a size such as '64MB', or a dict is expected. {error}") from error
        found: dict[str, Any] = {}
        for name, written in value.items():
            if (setting := known.get(str(name).upper())) is None:
                raise SettingsError(
                    f"unknown name {quoted(name)}.{nearest(str(name), known)} Known: {', '.join(known)}"
                )
            found |= read_setting("", name, setting, written)
        return cls(**found)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The ``OPTIONS`` of a cache.

    What is no option of fleetcache, but a keyword argument of redis-py's connections (``db``,
    ``ssl_ca_certs``, ``credential_provider``, ``client_name``, …), is passed on to them.
    """

    client_class: Any = option("fleetcache.client.DefaultClient", client_kind)
    """Which client: `"DefaultClient"`, `"SentinelClient"`, `"ClusterClient"`, `"ShardClient"`, `"HerdClient"`, or a
    class derived from one of them, or its path."""
    serializer: Any = option(SERIALIZERS["pickle"], built_in(SERIALIZERS, "dumps", "loads"), "serializer")
    """What turns values into bytes: `"pickle"`, `"json"`, `"msgpack"`, `"msgspec"`, `"msgspec-json"`, or a class or its path.
    Under the lower-case name a class of yours is made without arguments, as Django does."""
    compressor: Any = option(COMPRESSORS["identity"], built_in(COMPRESSORS, "compress", "decompress"), "compressor")
    """What makes the bytes fewer: `"zlib"`, `"zstd"`, `"lz4"`, `"gzip"`, `"lzma"`, `"identity"`, or a class or its path. Values in any known format stay readable whatever stands here."""
    compress_min_length: int | None = option(None, whole(0))
    """Payloads of so many bytes or fewer stay as they are (15; xz: 100)."""
    compress_level: int | None = option(None, whole(-(2**31)))
    """The compressor's level or preset."""
    max_value_bytes: int | None = option(None, sized(1))
    """A payload that decompresses to more is unreadable (default 256 MiB): bytes, or text such as `"64MB"`."""
    pickle_version: int | None = option(None, whole(-1))
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
    raise_for: tuple[str, ...] = option((), globs)
    """Failures that concern a key that one of these globs matches are raised in spite of IGNORE_EXCEPTIONS:
    `["login:*", "lock:*"]`. See [Outages](outages.md#what-must-not-fail-open)."""
    logger: str = option("fleetcache", text_of, setting="DJANGO_REDIS_LOGGER")
    """The logger for ignored failures."""
    read_from: str | None = option(None, one_of(None, "primary", "replica", "nearest"))
    """Who answers reads: the `"primary"`, any `"replica"`, or the `"nearest"` of all; see [Replicas](replicas.md).
    Left out: replicas if LOCATION names some, or with `SentinelClient`; else primaries."""
    replica_read_only: bool = option(True, flag)
    """False lets writes go to another server when the primary is away."""
    scan_itersize: int = option(1000, whole(1), setting="DJANGO_REDIS_SCAN_ITERSIZE")
    """How many entries the server looks at in one step of `scan`, `keys`, `iter_keys`, `delete_pattern`, `clear`."""
    clear: str = option("auto", one_of("auto", "database", "prefix"))
    """What `clear()` removes: the whole `database`, or all versions under KEY_PREFIX. `auto`: by prefix if
    there is one. Prefixes that
    lie within each other, such as `shop` and `shop:1`, need databases of their own."""
    close_connection: bool = option(False, flag, setting="DJANGO_REDIS_CLOSE_CONNECTION")
    """Close idle connections at the end of each request. Connections in use are never closed."""
    herd_timeout: int = option(60, whole(1), setting="CACHE_HERD_TIMEOUT")
    """For how many seconds `HerdClient` keeps an entry beyond its timeout while callers renew it."""
    username: str | None = option(None, text_of, "username", secret=True)
    """The ACL user. The URL's has precedence."""
    password: str | None = option(None, text_of, "password", secret=True)
    """Its password. The URL's has precedence."""
    socket_timeout: float | None = option(DEADLINE, limit, "socket_timeout", none=True)
    """Seconds for one exchange. None or 0: no limit. Raw clients have redis-py's own limit unless this is set."""
    socket_connect_timeout: float | None = option(DEADLINE, limit, "socket_connect_timeout", none=True)
    """Seconds for connecting, to whichever of a name's addresses; for raw clients as above."""
    max_connections: int | None = option(None, whole(1), "max_connections")
    """How many connections blocking callers of one process may use at once; more get a `TooManyConnections`,
    unless the pool class is `redis.BlockingConnectionPool`. Tasks share one per event loop."""
    breaker_failures: int = option(3, whole(1))
    """After this many failures in a row, or one time-out, calls fail at once, without being tried. See
    [Outages](outages.md#the-breaker)."""
    breaker_cooldown: float = option(1.0, at_least(0))
    """How often, in seconds, the server is then probed in the background, until it answers."""
    connection_factory: Any = option(
        None, made_by("a class like ConnectionFactory", "connect"), setting="DJANGO_REDIS_CONNECTION_FACTORY"
    )
    """What makes connection pools: a class derived from `fleetcache.pool.ConnectionFactory`."""
    connection_pool_class: Any = option(None, made_by("a class of redis-py's pools", "from_url"), "pool_class")
    """A redis-py pool class."""
    connection_pool_kwargs: Mapping[str, Any] = option({}, mapping)
    """Further arguments of the pool and its connections, for both faces; a `connection_class` is a blocking one of
    redis-py's, or derives from one."""
    redis_client_class: Any = option("redis.Redis", made_by("a class"))
    """The class of raw clients (`get_redis_connection`)."""
    redis_client_kwargs: Mapping[str, Any] = option({}, mapping)
    """Further arguments of raw clients."""
    parser_class: Any = option(None, made_by("a class"), "parser_class")
    """redis-py's parser for the handshake and for raw clients; the cache itself parses with hiredis."""
    sentinels: Sequence[tuple[str, int]] = option((), sentinels, "sentinels")
    """`(host, port)` of the Sentinels, for `SentinelClient`; or texts, such as `["10.0.0.1:26379"]`. A client that asks no
    Sentinel refuses them."""
    sentinel_kwargs: Mapping[str, Any] | None = option(None, mapping, "sentinel_kwargs", secret=True)
    """Arguments of the connections to the Sentinels."""
    address_remap: Any = option(None, made_by("a function"), "address_remap")
    """For a cluster, or a service under Sentinels, whose servers are reached at other addresses than they announce: a
    function of `(host, port)`, or its path, that returns where to connect. Raw clients of a service know nothing of it."""
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
    def of(cls, options: Options | Mapping[str, Any]) -> Options:
        """Return *options*, which a class of the site's own passes on as a mapping; names that are unknown here are its own."""
        if isinstance(options, Options):
            return options
        known = table(cls)
        found: dict[str, Any] = {}
        for name, value in options.items():
            if name in known:
                found |= read_setting("", name, known[name], value)
        return cls(**found, given=options)

    def make(self, kind: Any) -> Any:
        """Return an object of the class *kind*: ours take these options, a site's own the mapping, as django-redis gives it."""
        return kind(self if kind.__module__.startswith("fleetcache.") else self.given)

    @classmethod
    def read(cls, where: str, written: Mapping[str, Any], defaults: Mapping[str, Any]) -> Options:
        """Return the options *written*; *defaults* are Django settings that stand in for absent ones."""
        known = table(cls)
        values: dict[str, Any] = {}
        connection: dict[str, Any] = {}
        given: dict[str, Any] = {}
        for name, value in written.items():
            if name in known:
                found = read_setting(where, name, known[name], value)
                values |= found
                if found:
                    given[name] = found[known[name].name] if known[name].name in FOR_CODECS else value
            elif name in connection_options():
                connection[name] = given[name] = value
            elif name not in IGNORED:
                near = HINTS.get(str(name).lower()) or nearest(str(name), [*known, *connection_options()])
                raise SettingsError(
                    f"{where}: unknown option {quoted(name)}.{near} Options are listed in docs/settings.md"
                )
        for described in known.values():
            if described.name in values:
                continue
            if (setting := described.metadata["setting"]) in defaults:
                values |= read_setting(setting, setting, described, defaults[setting])
            if described.name not in values and isinstance(described.default, str) and described.name in IMPORTED:
                values[described.name] = imported(described.default)
        if "connection_pool_kwargs" in values:
            place = f"{where}['CONNECTION_POOL_KWARGS']"
            values["connection_pool_kwargs"] = passed_on(place, values["connection_pool_kwargs"])
        options = cls(**values, connection=passed_on(where, connection), given=given)
        if options.near and not options.replica_read_only:
            raise SettingsError(
                f"{where}: NEAR needs REPLICA_READ_ONLY. The primary never announces a write that went to another "
                f"server, so copies would stay as they were. Leave out one of the two"
            )
        return options


HINTS = {"ssl": " For TLS write rediss:// in LOCATION instead."}
"""What to write instead of a name that is none."""
IGNORED = {"MAX_ENTRIES", "CULL_FREQUENCY"}  # Django's, for caches that have to be culled
IMPORTED = {"client_class", "serializer", "compressor", "redis_client_class"}
FOR_CODECS = {"compress_level", "compress_min_length", "max_value_bytes", "pickle_version", "msgspec_type"}
"""What serializers and compressors take from the options as it was read, not as it was written."""


def passed_on(where: str, written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of redis-py's connections in *written*; None is what was left out, unless redis-py says otherwise."""
    found: dict[str, Any] = {}
    for name, value in written.items():
        if value is None and not says_none(name):
            continue
        read = CHECKED.get(name)
        found |= read_setting(where, name, read, value) if read is not None else {name: value}
    return found


def read_setting(where: str, name: str, described: Field[Any], value: Any) -> dict[str, Any]:
    """Return the field of a setting with what *value* stands for, or say that *name* cannot be that."""
    if value is None and not described.metadata["none"]:
        return {}
    place = f"{where}: {name}" if where else name
    try:
        return {described.name: described.metadata["read"](value)}
    except SettingsError as error:
        raise SettingsError(f"{place}: {error}") from error
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{place} cannot be {shown(name, value)}: {error}") from error


@dataclass
class _Connection:
    """Arguments of redis-py's connections that are no options of ours, and that it does not check itself."""

    port: int = option(6379, whole(1, 65535))
    protocol: int = option(3, whole(2, 3))
    db: int = option(0, whole(0))
    timeout: float | None = option(20.0, lambda value: None if value is None else at_least(0)(value), none=True)
    health_check_interval: float = option(0, at_least(0))
    ssl_cert_reqs: str = option("required", cert_reqs, none=True)


CHECKED = {
    **{each.name: each for each in fields(Options) if each.name in connection_options() | {"max_connections"}},
    **{each.name: each for each in fields(_Connection)},
}
"""What is read of the arguments for redis-py's connections, wherever they are written."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One entry of ``CACHES``."""

    location: tuple[Location, ...]
    """The URL of the server; several, with commas or in a list, for replicas, or nodes of a cluster."""
    timeout: float | None = option(300, lifetime, none=True)
    """Seconds that entries live by default; None: for ever."""
    key_prefix: str = option("", prefix, none=True)
    """Put before every key."""
    version: Any = option(1, version, none=True)
    """The default version of keys."""
    key_function: KeyFunction = option(
        default_key_function, lambda path: made_by("a function")(path or default_key_function)
    )
    """Makes the name of (key, prefix, version); a function or its path."""
    reverse_key_function: Callable[[str], str] | None = option(
        None, lambda path: made_by("a function")(path) if path else None
    )
    """Makes the key of a name, for `keys()`."""
    options: Options
    """See below."""
    made_of: tuple[Any, ...] = field(default=(), repr=False, compare=False)
    """The arguments of `shared`, because some of their parts are identified by address."""

    @classmethod
    def shared(
        cls, location: Any, params: Mapping[str, Any], *, alias: str = "", defaults: Mapping[str, Any] | None = None
    ) -> Settings:
        """Return what `read` returns, read once for all caches of these arguments."""
        key = (frozen(location), frozen(params), frozen(defaults))
        found = _shared.get(key)
        if found is None:
            # No lock is held: a site's modules are imported, which may make caches, and wait for a thread that
            # imports them and makes one too.
            read = cls.read(location, params, alias=alias, defaults=defaults)
            found = _shared.put(key, replace(read, made_of=(location, params, defaults)))
        return found

    @classmethod
    def read(
        cls, location: Any, params: Mapping[str, Any], *, alias: str = "", defaults: Mapping[str, Any] | None = None
    ) -> Settings:
        """Return the settings of a ``CACHES`` entry, given as Django hands it to a backend."""
        where = f"CACHES[{alias!r}]" if alias else "cache settings"
        if not isinstance(params, Mapping):
            raise SettingsError(f"{where}: a dict is expected, not {shown('KWARGS', params)}")
        known, apart = table(cls), ("LOCATION", "OPTIONS")
        found: dict[str, Any] = {}
        for name, value in params.items():
            if (setting := known.get(str(name).upper())) is not None:
                found |= read_setting(where, setting.name.upper(), setting, value)
            elif str(name).upper() not in apart and name != "BACKEND":
                is_option = f" It is an option: {{'OPTIONS': {{{name!r}: …}}}}" if name in table(Options) else ""
                near = is_option or nearest(str(name), [*known, *apart])
                raise SettingsError(f"{where}: unknown setting {quoted(name)}.{near}")
        options = next((value for name, value in params.items() if str(name).upper() == "OPTIONS"), None)
        if not isinstance(options or {}, Mapping):
            raise SettingsError(f"{where}: OPTIONS must be a dict, not a {type(options).__name__}")
        return cls(
            location=locations(where, location),
            options=Options.read(f"{where}['OPTIONS']", options or {}, defaults or {}),
            **found,
        )


_shared: Sharing[Settings] = Sharing()


def located(error: SettingsError, where: str) -> SettingsError:
    """Return *error* as one that says where, if it does not."""
    text = str(error)
    if text.startswith("cache settings"):
        text = text.replace("cache settings", where, 1)
    elif not text.startswith(("CACHES[", "DJANGO_REDIS_", "CACHE_HERD")):
        text = f"{where}: {text}"
    return SettingsError(text)


def from_url(url: Any) -> tuple[str, dict[str, Any]]:
    """Return the location and the params in *url*, whose query may hold any setting in lower case."""
    try:
        url = text_of(url)
    except TypeError:
        raise SettingsError(f"a URL is expected, not {shown('URL', type(url).__name__)}") from None
    own = {name.lower() for name in table(Settings)}
    options = {name.lower(): name for name in table(Options)}
    params: dict[str, Any] = {"OPTIONS": {}}
    passed: list[tuple[str, str]] = []
    place, _, query = url.partition("?")
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in own:
            written = int(value) if name == "version" and value.isdecimal() else value
            params[name.upper()] = None if value == "None" else written
        elif value == "None" and name in options.keys() | connection_options():
            params["OPTIONS"][options.get(name, name)] = None
        elif name in options and name not in connection_options():
            params["OPTIONS"][options[name]] = value
        elif name in connection_options() or name == "db":
            passed.append((name, value))
        else:
            raise SettingsError(f"{masked_url(url)}: {unknown_parameter(query, name, [*own, *options])}")
    return f"{place}?{urlencode(passed)}" if passed else place, params


def unknown_parameter(query: str, name: str, known: Iterable[str]) -> str:
    """Return what is wrong with the parameter *name* of a URL that has this *query*."""
    if "@" in query:
        return f"a password ends at a '?'; {ESCAPES}"
    if f"{name}=" not in query:
        return "a parameter without a value."
    return f"unknown parameter {quoted(name)}.{HINTS.get(name.lower()) or nearest(name, known)}"
