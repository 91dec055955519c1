"""Every setting: dataclasses that read a ``CACHES`` entry, a URL or the environment.

Both dialects are understood: django-redis' upper-case options with their dotted paths, and Django's own lower-case
options.  The error for an unknown name quotes the nearest known name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fleetcache import kinds
from fleetcache.errors import SettingsError
from fleetcache.keys import KeyFunction, default_key_function
from fleetcache.masking import masked_url, quoted, shown, with_article
from fleetcache.policy import FIELDS, Policy, words_in
from fleetcache.sharing import Sharing, frozen
from fleetcache.signatures import DEADLINE, connection_options, says_none
from fleetcache.urls import ESCAPES, Location, locations


def option(
    default: Any, read: Callable[[Any], Any], *also: str, setting: str = "", none: bool = False, secret: bool = False
) -> Any:
    """Declare a setting: its default, the function that reads it, its further names, the Django setting that stands in for it.

    None means that the setting was left out, unless *none* says that None has a meaning of its own.
    The string below a setting is its text in docs/settings.md.
    """
    metadata = {"read": read, "also": also, "setting": setting, "none": none}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata, repr=False)
    return field(default=default, metadata=metadata, repr=not secret)


def spellings(described: Field[Any]) -> tuple[str, ...]:
    """Return the names under which a setting may be written; none for a field that is no setting."""
    return (described.name.upper(), *described.metadata["also"]) if described.metadata else ()


def by_name(kind: Any) -> dict[str, Field[Any]]:
    """Return the settings of a class, each under all its names."""
    return {name: described for described in fields(kind) for name in spellings(described)}


# --- the settings ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class NearOptions:
    """``OPTIONS["NEAR"]``: how the near cache keeps copies of values in the process."""

    prefixes: tuple[str, ...] = option((), kinds.prefix_list)
    """A list: entries whose names on the server begin with one of these prefixes are kept near. No prefix may begin with
    another one. Left out: the beginning that KEY_PREFIX gives to all names of the cache."""
    max_bytes: int = option(64_000_000, kinds.sized(16_000, ": less may not hold a single entry"))
    """How much memory the copies in one process may take: a number of bytes, or text such as `"512kB"`, `"64MB"`, `"1GB"`
    (powers of 1000) or `"64MiB"` (powers of 1024)."""
    max_ttl: float = option(60.0, kinds.more_than_none)
    """How many seconds a copy lives at most. A copy never lives longer than its entry."""
    t_live: float = option(1.0, kinds.at_least(0.05))
    """How many seconds a copy may be out of date at most. A copy is served only if the server confirmed within this
    time that it announced every change. At least 0.05."""
    canary: float = option(10.0, kinds.pause)
    """How often, in seconds, a small entry is written, whose announcement has to arrive: the proof that changes are still
    announced."""
    t_topo: float = option(15.0, kinds.pause)
    """How often, in seconds, another server is asked which server is the primary and which slots it holds."""
    touch: float | None = option(0.25, kinds.limit, none=True)
    """How often, in seconds, the server is told which entries were read near, so that it evicts other entries (`TOUCH`). An
    entry is named at most once within this time, and once for ten hits. 0 or None: never."""
    absent: bool = option(True, kinds.flag)
    """Whether to remember also which entries are missing. On a cluster they are not remembered."""
    doorkeeper: bool = option(True, kinds.flag)
    """Whether only the second read of an entry leaves a copy. Most entries are read once, and a copy of such an entry
    costs more than it saves. False: the first read leaves a copy."""
    untracked_ttl: float = option(0.0, kinds.at_least(0))
    """For how many seconds a copy may be served if the server cannot announce changes. The writes of other processes
    are seen that late. 0: no copies are kept of the entries of such a server."""

    @classmethod
    def read(cls, value: Any) -> NearOptions | None:
        """Return the options that *value* stands for: a switch, a size, or fields; None if NEAR is off.

        Fields are a dict, or a text such as ``max_bytes:64MB,t_live:2``.
        """
        if value is None or (isinstance(value, (bool, int, str)) and str(value).lower() in kinds.SWITCHES):
            return cls() if value is not None and kinds.flag(value) else None
        if isinstance(value, str) and ":" in value:
            value = in_text(value, "a size", "max_bytes:64MB,t_live:2", {"PREFIXES": list})
        if not isinstance(value, Mapping):
            try:
                return cls(**read_setting("", "MAX_BYTES", by_name(cls)["MAX_BYTES"], value))
            except SettingsError as error:
                raise ValueError(f"True, a size such as '64MB', or a dict is expected. {error}") from error
        return cls(**read_fields(cls, value))


@dataclass(frozen=True, kw_only=True)
class StatsOptions:
    """``OPTIONS["STATS"]``: what a process counts of its cache."""

    groups: Mapping[str, str] = option({}, kinds.group_names)
    """Which keys are counted together: a dict from globs of keys to names, such as `{"user:*": "users"}`. The first glob that
    matches decides, and other keys are counted as `other`. Left out: the part of a key before its first `:` is its group."""
    publish: float | None = option(None, kinds.at_least(0))
    """How often, in seconds, the process writes its figures into a small entry that expires, so that the admin and
    `fleetcache top` show all processes. 0: never. Left out: 10 with `fleetcache.django` in INSTALLED_APPS, else never."""
    advise: bool = option(True, kinds.flag)
    """Whether to estimate, with NEAR, which hit ratio other values of MAX_BYTES would have."""
    audit: int = option(1_000_000, kinds.whole(0))
    """With NEAR, one of this many hits is compared with the entry on the server, at most 64 in a second. 0: none."""

    @classmethod
    def read(cls, value: Any) -> StatsOptions | None:
        """Return the options that *value* stands for: a switch, or fields; None if STATS is off.

        Fields are a dict, or a text such as ``publish:5,groups:user:*=users``.
        """
        if isinstance(value, str) and value.lower() not in kinds.SWITCHES:
            value = in_text(value, "a switch", "publish:5,audit:1000", {"GROUPS": kinds.named_globs})
        if isinstance(value, Mapping):
            return cls(**read_fields(cls, value))
        return cls() if kinds.flag(value) else None


@dataclass(frozen=True, kw_only=True)
class Options:
    """The ``OPTIONS`` of a cache.

    A name that is no option of fleetcache, but a keyword argument of redis-py's connections (``db``,
    ``ssl_ca_certs``, ``credential_provider``, ``client_name``, …), is passed on to the connections.
    """

    client_class: Any = option("fleetcache.client.DefaultClient", kinds.client_kind)
    """The client class: `"DefaultClient"`, `"SentinelClient"`, `"ClusterClient"`, `"ShardClient"`, `"HerdClient"`, or a
    class derived from one of them, or the dotted path of such a class."""
    serializer: Any = option(
        kinds.SERIALIZERS["pickle"], kinds.built_in(kinds.SERIALIZERS, "dumps", "loads"), "serializer"
    )
    """Turns values into bytes: `"pickle"`, `"json"`, `"msgpack"`, `"msgspec"`, `"msgspec-json"`, or a class, or its dotted path.
    Under the option name `serializer`, your class is called without arguments, as Django calls it."""
    compressor: Any = option(
        kinds.COMPRESSORS["identity"], kinds.built_in(kinds.COMPRESSORS, "compress", "decompress"), "compressor"
    )
    """Makes these bytes fewer: `"zlib"`, `"zstd"`, `"lz4"`, `"gzip"`, `"lzma"`, `"identity"`, or a class, or its dotted path.
    Whichever is chosen, values in all these formats stay readable."""
    compress_min_length: int | None = option(None, kinds.whole(0))
    """Payloads of this many bytes or fewer are not compressed. Left out: 15; for `"lzma"` 100."""
    compress_level: int | None = option(None, kinds.whole(-(2**31)))
    """The compressor's level or preset."""
    max_value_bytes: int | None = option(None, kinds.sized(1))
    """A payload that decompresses to more than this is unreadable: a number of bytes, or text such as `"64MB"`. Left out:
    256 MiB."""
    pickle_version: int | None = option(None, kinds.whole(-1))
    """The protocol in which pickle writes; -1 is the highest. Every protocol is read. Left out: Python's default."""
    msgspec_type: Any = option(None, kinds.imported)
    """The type, or its dotted path, that `MsgspecSerializer` decodes into, and against which it checks values."""
    unreadable: str = option("miss", kinds.one_of("miss", "raise"))
    """The result of a payload that cannot be read: `"miss"` counts and logs it, and the key is missing; `"raise"` raises
    `UnreadableValue`."""
    ignore_exceptions: bool = option(False, kinds.flag, setting="DJANGO_REDIS_IGNORE_EXCEPTIONS")
    """While the server is away or refuses commands, methods return the fallback values that
    [Outages](outages.md#ignore_exceptions) lists."""
    log_ignored_exceptions: bool = option(False, kinds.flag, setting="DJANGO_REDIS_LOG_IGNORED_EXCEPTIONS")
    """Log each ignored failure as an error, with its traceback. The logger `fleetcache.server` reports every outage once,
    whatever this setting says."""
    raise_for: tuple[str, ...] = option((), kinds.globs)
    """Globs of keys, such as `["login:*", "lock:*"]`. A failure that concerns a matching key is raised in spite of
    IGNORE_EXCEPTIONS. See [Outages](outages.md#what-must-not-fail-open). In the query of a URL: `?raise_for=login:*,lock:*`."""
    logger: str = option("fleetcache", kinds.text_of, setting="DJANGO_REDIS_LOGGER")
    """The logger for ignored failures."""
    read_from: str | None = option(None, kinds.one_of(None, "primary", "replica", "nearest"))
    """Which servers answer reads: the `"primary"`, any `"replica"`, or the `"nearest"` of all; see [Replicas](replicas.md).
    Left out: replicas if LOCATION names any, and with `SentinelClient`; else primaries."""
    replica_read_only: bool = option(True, kinds.flag)
    """False lets writes go to another server of LOCATION while the primary is away."""
    scan_itersize: int = option(1000, kinds.whole(1), setting="DJANGO_REDIS_SCAN_ITERSIZE")
    """How many entries the server looks at in one step (`SCAN … COUNT`) of `scan`, `keys`, `iter_keys`, `delete_pattern`, `clear`."""
    clear: str = option("auto", kinds.one_of("auto", "database", "prefix"))
    """The extent of `clear()`: the whole `"database"`, or with `"prefix"` all versions of all keys under KEY_PREFIX. `"auto"` is
    `"prefix"` if there is a KEY_PREFIX, else `"database"`. Prefixes of which one lies within another, such as `shop` and
    `shop:1`, need databases of their own."""
    close_connection: bool = option(False, kinds.flag, setting="DJANGO_REDIS_CLOSE_CONNECTION")
    """Close idle connections at the end of each request. Connections in use are never closed."""
    herd_timeout: int = option(60, kinds.whole(1), setting="CACHE_HERD_TIMEOUT")
    """For how many seconds `HerdClient` keeps an entry beyond its timeout while callers renew it."""
    username: str | None = option(None, kinds.text_of, "username", secret=True)
    """The ACL user. A user in the URL has precedence."""
    password: str | None = option(None, kinds.text_of, "password", secret=True)
    """The password of this user. A password in the URL has precedence."""
    socket_timeout: float | None = option(DEADLINE, kinds.limit, "socket_timeout", none=True)
    """How many seconds one exchange of commands and replies may take. None or 0: no limit. Raw clients have redis-py's own
    limit unless this is set."""
    socket_connect_timeout: float | None = option(DEADLINE, kinds.limit, "socket_connect_timeout", none=True)
    """How many seconds connecting may take; all addresses of a host name share this time. For raw clients as above."""
    max_connections: int | None = option(None, kinds.whole(1), "max_connections")
    """How many connections the blocking callers of one process may use at once. Further callers get `TooManyConnections`, or
    wait if the pool class is `redis.BlockingConnectionPool`. Tasks share one connection for each event loop."""
    breaker_failures: int = option(3, kinds.whole(1))
    """After this many failures in a row, or one time-out, calls fail at once and nothing is sent. See
    [Outages](outages.md#the-breaker)."""
    breaker_cooldown: float = option(1.0, kinds.at_least(0))
    """After such failures: how often, in seconds, a background thread asks whether the server is back."""
    connection_factory: Any = option(
        None, kinds.made_by("a class like ConnectionFactory", "connect"), setting="DJANGO_REDIS_CONNECTION_FACTORY"
    )
    """Makes the connection pools: a class derived from `fleetcache.pool.ConnectionFactory`."""
    connection_pool_class: Any = option(None, kinds.made_by("a class of redis-py's pools", "from_url"), "pool_class")
    """A redis-py pool class."""
    connection_pool_kwargs: Mapping[str, Any] = option({}, kinds.mapping)
    """Further arguments of the pool and its connections, for both faces. A `connection_class` has to be one of redis-py's
    blocking classes, or derived from one."""
    redis_client_class: Any = option("redis.Redis", kinds.made_by("a class"))
    """The class of raw clients (`get_redis_connection`)."""
    redis_client_kwargs: Mapping[str, Any] = option({}, kinds.mapping)
    """Further arguments of raw clients."""
    parser_class: Any = option(None, kinds.made_by("a class"), "parser_class")
    """redis-py's parser, for the handshake and for raw clients. The cache itself parses with hiredis."""
    sentinels: Sequence[tuple[str, int]] = option((), kinds.sentinels, "sentinels")
    """The Sentinels that `SentinelClient` asks: a list of `(host, port)`, or of texts such as `"10.0.0.1:26379"`. Clients that
    ask no Sentinel refuse this setting."""
    sentinel_kwargs: Mapping[str, Any] | None = option(None, kinds.mapping, "sentinel_kwargs", secret=True)
    """Arguments of the connections to the Sentinels."""
    address_remap: Any = option(None, kinds.made_by("a function", takes=("address",)), "address_remap")
    """For a cluster, or a service under Sentinels, whose servers announce other addresses than those at which they can be
    reached: a function, or its dotted path, that takes `(host, port)` and returns the `(host, port)` to connect to. Raw
    clients of a service do not use it."""
    allow_embedded: bool = option(False, kinds.flag)
    """Start an `embedded://` server even if Django's DEBUG is off."""
    stats: StatsOptions | None = option(StatsOptions(), StatsOptions.read)
    """Count hits, misses, loads, bytes and times, by group of keys. False: nothing is counted. A dict: see
    [below](#statistics). In the query of a URL: `?stats=publish:5,groups:user:*=users`."""
    near: NearOptions | None = option(None, NearOptions.read, "near")
    """Keep copies of values in the process; the server announces every change, which keeps them current. True, a size such
    as `"64MB"`, or a dict: see [below](#the-near-cache). In the query of a URL: `?near=64MB`, or `?near=max_bytes:64MB,t_live:2`."""
    loading: Policy | None = option(None, Policy.read)
    """How `get_or_set`, `get_or_set_many` and `@cached` load, unless a call says otherwise: a `Policy`, or a dict of its fields in
    upper case, such as `{"STALE_WHILE_REVALIDATE": 60, "JITTER": 0.1}`. In the query of a URL: `?loading=early:1,jitter:0.1`."""
    outage_ttl: float = option(0.0, kinds.at_least(0))
    """With IGNORE_EXCEPTIONS: for how many seconds a process keeps what it loads while the server is away, so that an outage of
    the cache does not become one of the database. 0: it is loaded anew for each call."""
    connection: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Further keyword arguments of redis-py's connections."""
    given: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The options under the names that were written, for classes of the site's own."""

    @classmethod
    def of(cls, options: Options | Mapping[str, Any]) -> Options:
        """Return *options*, read if they are a mapping, as a site's class passes it on; other names are that class's own."""
        if isinstance(options, Options):
            return options
        known = by_name(cls)
        found: dict[str, Any] = {}
        for name, value in options.items():
            if name in known:
                found |= read_setting("", name, known[name], value)
        return cls(**found, given=options)

    def make(self, setting: str, kind: Any) -> Any:
        """Return an object of the class *kind*, which the option *setting* names.

        Our classes take these options, a site's class the mapping, as in django-redis.
        """
        return kinds.made(setting, kind, self if str(kind.__module__).startswith("fleetcache.") else self.given)

    @classmethod
    def read(cls, where: str, written: Mapping[str, Any], defaults: Mapping[str, Any]) -> Options:
        """Return the options *written*; *defaults* are Django settings that stand in for absent ones."""
        known = by_name(cls)
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
                near = beside(name) or hint(name) or kinds.nearest(str(name), [*known, *connection_options()])
                raise SettingsError(
                    f"{where}: unknown option {quoted(name)}.{near} `fleetcache docs settings` lists all options"
                )
        for described in known.values():
            if described.name in values:
                continue
            if (setting := described.metadata["setting"]) in defaults:
                values |= read_setting(setting, setting, described, defaults[setting])
            if described.name not in values and isinstance(described.default, str) and described.name in IMPORTED:
                values[described.name] = kinds.imported(described.default)
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


def in_text(text: str, kind: str, example: str, several: Mapping[str, Callable[[list[str]], Any]]) -> dict[str, Any]:
    """Return the fields in *text*, as `words_in` does; those in *several* may be there more than once, and are made of all values."""
    found: dict[str, Any] = {}
    lists: dict[str, list[str]] = {}
    for name, value in words_in(text, kind, example):
        if name.upper() in several:
            lists.setdefault(name.upper(), []).append(value)
        else:
            found[name] = None if value == "None" else value
    return found | {name: several[name](values) for name, values in lists.items()}


def read_fields(kind: Any, written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the dataclass *kind* that the dict *written* holds."""
    known, found = by_name(kind), dict[str, Any]()
    for name, value in written.items():
        if (setting := known.get(str(name).upper())) is None:
            raise SettingsError(
                f"unknown name {quoted(name)}.{kinds.nearest(str(name), known)} Known: {', '.join(known)}"
            )
        found |= read_setting("", name, setting, value)
    return found


LOADING_FIELDS = frozenset(name.upper() for name in FIELDS - {"timeout"})
HINTS = {"ssl": " For TLS write rediss:// in LOCATION instead."}
"""Corrections for some names that are no options."""


def hint(name: Any, *, of_url: bool = False) -> str:
    """Return a correction for *name*, which is no option; "" if none is known.  *of_url*: it was a parameter of a URL."""
    meant = str(name).upper()
    fields_of = {"NEAR": by_name(NearOptions), "STATS": by_name(StatsOptions), "LOADING": LOADING_FIELDS}
    for option, known in fields_of.items():
        if meant in known:
            what = "a field" if option == "LOADING" else "an option"
            place = f"{{'OPTIONS': {{{option!r}: {{{meant!r}: …}}}}}}"
            return f" It is {what} of {option}: {f'{option}={meant}:…'.lower() if of_url else place}."
    return HINTS.get(str(name).lower(), "")


def beside(name: Any) -> str:
    """Return where *name* belongs, a setting that was written in OPTIONS; "" if it is no setting."""
    meant = str(name).upper()
    if meant == "OPTIONS":
        return " Write its options into the outer OPTIONS."
    if meant in by_name(Settings) or meant in APART:
        return f" {meant} stands beside OPTIONS, not in it: {{{meant!r}: …, 'OPTIONS': {{…}}}}."
    return f" fleetcache has nothing to cull. Leave {meant} out." if meant in IGNORED else ""


def within(name: Any) -> str:
    """Return where *name* belongs, an option that was written beside OPTIONS; "" if it is no option."""
    known, meant = by_name(Options), str(name).upper()
    option = name if name in known or name in connection_options() else meant
    if option in known or option in connection_options():
        return f" It is an option: {{'OPTIONS': {{{option!r}: …}}}}"
    return f" fleetcache has nothing to cull. Leave {meant} out." if meant in IGNORED else ""


def argument_meant(name: str) -> str:
    """Return where *name* belongs, which was given to a cache as an argument of its own; "" if it is no setting."""
    meant = name.upper()
    if meant == "OPTIONS" or meant in by_name(Settings):
        place = f"{{{meant!r}: …}}"
    elif (option := name if name in connection_options() else meant) in by_name(Options).keys() | connection_options():
        place = f"{{'OPTIONS': {{{option!r}: …}}}}"
    else:
        return hint(name)
    return (
        f" Settings are the second argument, a dict: Cache(url, {place}), or parameters of a URL: Cache.from_url(url)"
    )


STAND_INS = tuple(dict.fromkeys(name for each in fields(Options) if (name := each.metadata.get("setting"))))
"""The project's settings that stand in for absent OPTIONS, such as DJANGO_REDIS_LOGGER."""


def stand_in_meant(name: str) -> str:
    """Return the question "Did you mean …?" with the one among STAND_INS that is most like *name*; "" if none is like it."""
    ends = {each.removeprefix("DJANGO_REDIS_"): each for each in STAND_INS}
    close = get_close_matches(name.removeprefix("DJANGO_REDIS_"), ends, 1)
    return f"Did you mean {ends[close[0]]}?" if close else ""


APART = ("LOCATION", "OPTIONS", "BACKEND")
"""The names in an entry of ``CACHES`` that no field of `Settings` reads."""
IGNORED = {"MAX_ENTRIES", "CULL_FREQUENCY"}  # Django's, for caches that have to be culled
IMPORTED = {"client_class", "serializer", "compressor", "redis_client_class"}
FOR_CODECS = {"compress_level", "compress_min_length", "max_value_bytes", "pickle_version", "msgspec_type"}
"""The options that a site's serializer or compressor finds in the mapping as they were read: numbers as numbers."""


def passed_on(where: str, written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments for redis-py's connections in *written*, without each None that means nothing to redis-py."""
    found: dict[str, Any] = {}
    for name, value in written.items():
        if value is None and not says_none(name):
            continue
        read = CHECKED.get(name)
        found |= read_setting(where, name, read, value) if read is not None else {name: value}
    return found


def read_setting(where: str, name: str, described: Field[Any], value: Any) -> dict[str, Any]:
    """Return the field of a setting with the value that *value* stands for, or raise an error that says why *name* cannot be it."""
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
    """Arguments of redis-py's connections that are no options of ours, and that redis-py does not check."""

    port: int = option(6379, kinds.whole(1, 65535))
    protocol: int = option(3, kinds.whole(2, 3))
    db: int = option(0, kinds.whole(0))
    timeout: float | None = option(20.0, lambda value: None if value is None else kinds.at_least(0)(value), none=True)
    health_check_interval: float = option(0, kinds.at_least(0))
    ssl_cert_reqs: str = option("required", kinds.cert_reqs, none=True)


CHECKED = {
    **{each.name: each for each in fields(Options) if each.name in connection_options() | {"max_connections"}},
    **{each.name: each for each in fields(_Connection)},
}
"""The arguments for redis-py's connections that are checked, wherever they are written."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One entry of ``CACHES``."""

    location: tuple[Location, ...]
    """The URL of the server, or several URLs, separated by commas or in a list: of a primary and its replicas, or of nodes of a cluster."""
    timeout: float | None = option(300, kinds.lifetime, none=True)
    """How many seconds entries live by default; None: for ever."""
    key_prefix: str = option("", kinds.prefix, none=True)
    """Put before every key."""
    version: Any = option(1, kinds.version, none=True)
    """The default version of keys."""
    key_function: KeyFunction = option(
        default_key_function,
        lambda path: kinds.made_by("a function", takes=("key", "prefix", "version"))(path or default_key_function),
    )
    """Makes the name on the server from (key, prefix, version): a function, or its dotted path."""
    reverse_key_function: Callable[[str], str] | None = option(
        None, lambda path: kinds.made_by("a function", takes=("name",))(path) if path else None
    )
    """Makes the key from the name on the server, for `keys()`: a function, or its dotted path."""
    options: Options
    """See below."""
    made_of: tuple[Any, ...] = field(default=(), repr=False, compare=False)
    """The arguments of `shared`: kept alive, because some of their parts are identified by their addresses."""

    @classmethod
    def shared(
        cls, location: Any, params: Mapping[str, Any], *, alias: str = "", defaults: Mapping[str, Any] | None = None
    ) -> Settings:
        """Return the settings that `read` returns: one object, read once, for all caches of equal arguments."""
        key = (frozen(location), frozen(params), frozen(defaults))
        found = _shared.get(key)
        if found is None:
            # No lock is held, because a site's modules are imported here: they may make caches themselves, and wait
            # for another thread that imports them and makes a cache.
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
        known = by_name(cls)
        found: dict[str, Any] = {}
        for name, value in params.items():
            if (setting := known.get(str(name).upper())) is not None:
                found |= read_setting(where, setting.name.upper(), setting, value)
            elif str(name).upper() not in APART[:2] and name != "BACKEND":
                near = within(name) or hint(name) or kinds.nearest(str(name), [*known, *APART])
                raise SettingsError(f"{where}: unknown setting {quoted(name)}.{near}")
        options = next((value for name, value in params.items() if str(name).upper() == "OPTIONS"), None)
        if not isinstance(options or {}, Mapping):
            raise SettingsError(f"{where}: OPTIONS must be a dict, not {with_article(type(options).__name__)}")
        return cls(
            location=locations(where, location),
            options=Options.read(f"{where}['OPTIONS']", options or {}, defaults or {}),
            **found,
        )


_shared: Sharing[Settings] = Sharing()


def located(error: SettingsError, where: str) -> SettingsError:
    """Return *error* with the place *where* in front of its text, unless the text names a place already."""
    text = str(error)
    if text.startswith("cache settings"):
        text = text.replace("cache settings", where, 1)
    elif not text.startswith(("CACHES[", "DJANGO_REDIS_", "CACHE_HERD")):
        text = f"{where}: {text}"
    return SettingsError(text)


DICTS = frozenset(("CONNECTION_POOL_KWARGS", "REDIS_CLIENT_KWARGS", "SENTINEL_KWARGS"))
"""The options that no URL can hold."""


def from_url(url: Any) -> tuple[str, dict[str, Any]]:
    """Return the location and the params in *url*, whose query may hold any setting in lower case."""
    try:
        url = kinds.text_of(url)
    except TypeError:
        raise SettingsError(f"a URL is expected, not {shown('URL', type(url).__name__)}") from None
    own = {name.lower() for name in by_name(Settings)}
    options = {name.lower(): name for name in by_name(Options)}
    params: dict[str, Any] = {"OPTIONS": {}}
    passed: list[tuple[str, str]] = []
    place, _, query = url.partition("?")
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in own:
            written = int(value) if name == "version" and value.isdecimal() else value
            params[name.upper()] = None if value == "None" else written
        elif value == "None" and name in options.keys() | connection_options():
            params["OPTIONS"][options.get(name, name)] = None
        elif name.upper() in DICTS:
            raise SettingsError(f"{masked_url(url)}: {name.upper()} is a dict of any values, which a URL cannot hold")
        elif name in options and name not in connection_options():
            params["OPTIONS"][options[name]] = value.split(",") if name == "raise_for" else value
        elif name in connection_options() or name == "db":
            passed.append((name, value))
        else:
            raise SettingsError(f"{masked_url(url)}: {unknown_parameter(query, name, [*own, *options])}")
    return f"{place}?{urlencode(passed)}" if passed else place, params


def unknown_parameter(query: str, name: str, known: Iterable[str]) -> str:
    """Return what is wrong with the parameter *name* of a URL with this *query*."""
    if "@" in query:
        return f"a password ends at a '?'; {ESCAPES}"
    if f"{name}=" not in query:
        return "a parameter without a value."
    return f"unknown parameter {quoted(name)}.{in_url(name) or hint(name, of_url=True) or kinds.nearest(name, known)}"


def in_url(name: str) -> str:
    """Return what to do with a parameter that names a part of an entry of ``CACHES`` which a URL does not have."""
    match name.upper():
        case "LOCATION":
            return " The URL itself is the LOCATION."
        case "OPTIONS":
            return " Write each option as a parameter: ignore_exceptions=yes."
        case "BACKEND" | "MAX_ENTRIES" | "CULL_FREQUENCY" as meant:
            return f" A URL has no {meant}. Leave it out."
    return ""


def unknown_in_location(query: str, name: str, known: Iterable[str]) -> str:
    """Return what is wrong with the parameter *name* of a LOCATION with this *query*, which may hold only connection options."""
    meant = name.upper()
    is_setting = meant in by_name(Settings)
    if "@" in query or not (is_setting or meant in by_name(Options)):
        return unknown_parameter(query, name, known)
    place = f"{{{meant!r}: …}}" if is_setting else f"{{'OPTIONS': {{{meant!r}: …}}}}"
    which = "setting, which stands beside LOCATION" if is_setting else "option, which stands in OPTIONS"
    return (
        f"unknown parameter {quoted(name)}. {meant} is a{'n' * (not is_setting)} {which}: {place}; or use Cache.from_url, "
        f"which reads all settings from the URL"
    )
