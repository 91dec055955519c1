"""The kinds of settings: each function reads one kind of value, as Python, a URL or the environment spells it.

The functions raise TypeError or ValueError with the value that is expected; `settings.read_setting` adds the value that
was found, and its place.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from importlib import import_module
from itertools import pairwise
from typing import Any

from fleetcache.errors import SettingsError
from fleetcache.interrupts import let_pass
from fleetcache.masking import quoted

SERIALIZERS = {
    "pickle": "fleetcache.codec.serializers.PickleSerializer",
    "json": "fleetcache.codec.serializers.JSONSerializer",
    "msgpack": "fleetcache.codec.serializers.MSGPackSerializer",
    "msgspec": "fleetcache.codec.serializers.MsgspecSerializer",
    "msgspec-json": "fleetcache.codec.serializers.MsgspecJSONSerializer",
}
COMPRESSORS = {
    "identity": "fleetcache.codec.compressors.IdentityCompressor",
    "zlib": "fleetcache.codec.compressors.ZlibCompressor",
    "gzip": "fleetcache.codec.compressors.GzipCompressor",
    "lzma": "fleetcache.codec.compressors.LzmaCompressor",
    "xz": "fleetcache.codec.compressors.LzmaCompressor",
    "lz4": "fleetcache.codec.compressors.Lz4Compressor",
    "zstd": "fleetcache.codec.compressors.ZStdCompressor",
}
CLIENTS = {
    name: f"fleetcache.client.{name}"
    for name in ("DefaultClient", "SentinelClient", "ClusterClient", "ShardClient", "HerdClient")
}
"""The short names that SERIALIZER, COMPRESSOR and CLIENT_CLASS accept in place of a dotted path."""

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
"""django-redis' dotted paths, each with the path that replaces it here.  django-redis need not be installed."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the question "Did you mean …?" with the name among *known* that is most like *name*; "" if none is like it."""
    first = {other.lower(): other for other in reversed([*known])}
    close = difflib.get_close_matches(name.lower(), first, 1)
    return f" Did you mean {first[close[0]]!r}?" if close else ""


def is_lazy(value: Any) -> bool:
    """Whether *value* is one of Django's lazy texts, which are made when they are read, as translations are."""
    django = sys.modules.get("django.utils.functional")  # if Django is not imported, there are no lazy texts
    return django is not None and isinstance(value, django.Promise)


def text_of(value: Any) -> str:
    """Return the text of *value*: of a string, a lazy one, bytes, a path, a number, or an object that is a URL or a secret."""
    if isinstance(value, (str, bytes, bytearray)):
        try:
            return value.encode().decode() if isinstance(value, str) else value.decode()
        except UnicodeError:
            raise TypeError("text of UTF-8 is expected") from None  # the cause would quote the value
    for method in ("get_secret_value", "geturl"):  # of pydantic's secrets, and of the result of urllib.parse.urlsplit
        if callable(found := getattr(value, method, None)):
            return text_of(found())
    kind: Any = type(value)
    nameless = kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__
    if nameless or value is None or isinstance(value, (bool, type, Mapping, list, tuple, set, frozenset)):
        raise TypeError("text is expected")
    return str(value)


def imported(path: Any) -> Any:
    """Return the object at a dotted path, ``module.name`` or ``module:name``; anything but a string is returned as it is."""
    if not isinstance(path, str):
        return path
    if quoted(path) != repr(path):
        raise SettingsError(f"{quoted(path)} cannot be imported")
    path = PATHS.get(path, path)
    module, _, name = path.replace(":", ".").rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        known = [*PATHS, *PATHS.values()]
        near = "" if path in known else nearest(path, known)
        raise SettingsError(f"{path!r} cannot be imported{'.' + near if near else f': {error}'}") from error


def made_by(what: str, method: str = "__call__", takes: tuple[str, ...] = ()) -> Callable[[Any], Any]:
    """Return a function that reads *what*: a class or function with *method* that *takes* these arguments, or its dotted path."""

    def read(value: Any) -> Any:
        found = imported(value)
        if not (callable(found) and callable(getattr(found, method, None))):
            raise TypeError(f"{what}, or its dotted path, is expected")
        if takes and not can_take(found, *takes):
            raise TypeError(f"it has to take ({', '.join(takes)})")
        return found

    return read


def built_in(names: Mapping[str, str], *methods: str) -> Callable[[Any], Any]:
    """Return a function that reads a built-in class by its short name, any class by its dotted path, or an object."""
    known = f"Built in are {', '.join(map(repr, names))}"
    paths = {name.lower(): path for name, path in names.items()}
    wanted = f"a class with {' and '.join(methods)}" if methods else "a class"

    def read(value: Any) -> Any:
        if isinstance(value, str) and "." not in value:
            if value.lower() not in paths:
                raise SettingsError(f"{quoted(value)} is unknown.{nearest(value, names)} {known}")
            value = paths[value.lower()]
        try:
            found = imported(value)
        except SettingsError as error:
            end = "" if str(error).endswith("?") else "."
            raise SettingsError(f"{error}{end} {known}") from error.__cause__
        if not (callable(found) or (methods and all(callable(getattr(found, method, None)) for method in methods))):
            raise TypeError(f"{wanted}, or its dotted path, is expected. {known}")
        return found

    return read


def can_take(function: Callable[..., Any], *arguments: Any) -> bool:
    """Whether *function* can be called with *arguments*, as far as its signature tells."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of some functions in C it is not known
        return True
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def short_name(kind: Any) -> str:
    """Return by what name a setting would name the class or object *kind*: its short name, or its dotted path."""
    named = kind if hasattr(kind, "__qualname__") else type(kind)
    path = f"{named.__module__}.{named.__qualname__}"
    return next((short for short, known in {**SERIALIZERS, **COMPRESSORS}.items() if known == path), path)


def made(setting: str, kind: Any, *arguments: Any) -> Any:
    """Return what *kind*, the value of the option *setting*, makes of *arguments*; an error names the option."""
    place = f"cache settings['OPTIONS']: {setting} {short_name(kind)!r}"
    try:
        return kind(*arguments)
    except SettingsError as error:
        raise SettingsError(f"{place}: {error}") from error
    except Exception as error:
        let_pass(error)
        if isinstance(error, TypeError) and not can_take(kind, *arguments):
            wanted = "one argument, the OPTIONS: __init__(self, options)" if arguments else "no argument"
            raise SettingsError(f"{place}: {error}. It is called with {wanted}") from error
        error.add_note(f"{place} was called")  # its class stays as it is: the site raised it
        raise


def check_methods(setting: str, found: Any, **methods: str) -> None:
    """Refuse *found*, of the option *setting*, if it has not all *methods*, given with their arguments."""
    for method, argument in methods.items():
        if not callable(getattr(found, method, None)):
            raise SettingsError(
                f"cache settings['OPTIONS']: {setting} {short_name(found)!r} has no {method}({argument}). "
                f"It needs {' and '.join(methods)}"
            )


def client_kind(value: Any) -> Any:
    """Return the client class that *value* is, or that it names by a short name or a dotted path."""
    found = built_in(CLIENTS)(value)
    if not hasattr(found, "make_topology"):  # a method of Cache, which cannot be imported from this low layer
        raise SettingsError(
            f"{quoted(value)} is not derived from fleetcache.client.DefaultClient. "
            f"`fleetcache docs migration` says how a client written for django-redis is carried over"
        )
    return found


SWITCHES = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off", ""), False)


def flag(value: Any) -> bool:
    """Return a switch as True or False; a URL spells it as text."""
    if isinstance(value, str) and value.lower() in SWITCHES:
        return SWITCHES[value.lower()]
    if not isinstance(value, (bool, int)):
        raise TypeError("a switch is True or False")
    return bool(value)


def whole(least: int, most: int = 2**31 - 1) -> Callable[[Any], int]:
    """Return a function that reads a whole number from *least* to *most*."""

    def read(value: Any) -> int:
        try:
            number = None if isinstance(value, bool) else int(value)
        except (TypeError, ValueError, ArithmeticError):
            number = None
        if number is None or (number != value and not isinstance(value, str)) or not least <= number <= most:
            raise ValueError(f"a whole number from {least} to {most} is expected")
        return number

    return read


LONGEST_WAIT = 2_000_000.0
"""The longest wait, in seconds: calls of the operating system take milliseconds of 31 bits."""

LONGEST_LIFE = 9e15
"""The longest life, in seconds: the server adds it to its clock, in milliseconds of 63 bits."""


def seconds(value: Any) -> float | None:
    """Return a number of seconds, None for None."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    try:
        number = math.nan if isinstance(value, bool) else float(math.nan if value is None else value)
    except (TypeError, ValueError, ArithmeticError):
        number = math.nan
    if value is not None and not math.isfinite(number):
        raise TypeError("a number of seconds is expected")
    return None if value is None else number


def limit(value: Any) -> float | None:
    """Return a time limit in seconds; None and 0 mean no limit."""
    number = seconds(value)
    if number is not None and not 0 <= number <= LONGEST_WAIT:
        raise ValueError(f"0 to {LONGEST_WAIT:.0f} seconds are expected; None is no limit")
    return number or None


def lifetime(value: Any) -> float | None:
    """Return how long entries live, in seconds; None means for ever, and 0 or less, as in Django, not at all."""
    number = None if value == "None" else seconds(value)
    if number is not None and abs(number) > LONGEST_LIFE:
        raise ValueError(f"{LONGEST_LIFE:g} seconds at most are expected; None is for ever")
    return int(number) if number is not None and number.is_integer() else number


def at_least(least: float, most: float = LONGEST_WAIT) -> Callable[[Any], float]:
    """Return a function that reads a number of seconds from *least* to *most*."""

    def read(value: Any) -> float:
        number = seconds(value)
        if number is None:
            raise TypeError("a number of seconds is expected")
        if number < least:
            raise ValueError(f"{least:g} seconds or more are expected")
        if number > most:
            raise ValueError(f"{most:.0f} seconds or fewer are expected")
        return number

    return read


def more_than_none(value: Any) -> float:
    """Return a number of seconds above 0."""
    number = at_least(0)(value)
    if not number:
        raise ValueError("more than 0 seconds are expected")
    return number


def pause(value: Any) -> float:
    """Return the seconds between two repetitions of something."""
    return at_least(0.05)(more_than_none(value))


UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "KI": 1024, "MI": 1024**2, "GI": 1024**3}


def size(value: Any) -> int:
    """Return a number of bytes; text may give it as ``64MB`` (of 1000 kB each) or ``64MiB`` (of 1024 KiB each)."""
    if type(value) is int:
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMG]I?)?B)?\s*", value.upper()) if isinstance(value, str) else None
    if not found:
        raise ValueError("a size is a number of bytes, or text such as '64MB' or '64MiB'")
    return int(float(found[1]) * UNITS[found[2] or ""])


def sized(least: int, why: str = "") -> Callable[[Any], int]:
    """Return a function that reads a size of at least *least* bytes; *why* says in its error why not fewer."""

    def read(value: Any) -> int:
        found = size(value)
        if found < least:
            raise ValueError(f"{least} bytes or more are expected{why}")
        if found > LARGEST_SIZE:
            raise ValueError(f"{LARGEST_SIZE} bytes or fewer are expected")
        return found

    return read


LARGEST_SIZE = 2**50


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a dict of further options."""
    if not isinstance(value, Mapping):
        raise TypeError("a dict is expected")
    return value


def group_names(value: Any) -> dict[str, str]:
    """Return a dict from globs of keys to the names of groups."""
    if not isinstance(value, Mapping) or not all(isinstance(text, str) and text for text in (*value, *value.values())):
        raise TypeError("a dict from globs of keys to names of groups is expected, such as {'user:*': 'users'}")
    return dict(value)


def named_globs(values: list[str]) -> dict[str, str]:
    """Return the groups in texts such as ``user:*=users``, as a URL has them, for `group_names`."""
    pairs = [text.rpartition("=") for text in values]
    if not all(glob and name for glob, _, name in pairs):
        raise ValueError("each group is written groups:GLOB=NAME, such as groups:user:*=users")
    return {glob: name for glob, _, name in pairs}


def one_of(*words: str | None) -> Callable[[Any], Any]:
    """Return a function that reads one of *words*."""

    def read(value: Any) -> Any:
        if value not in words:
            raise ValueError(f"one of {', '.join(map(repr, words))} is expected")
        return value

    return read


def prefix_list(value: Any) -> tuple[str, ...]:
    """Return a list of prefixes of names; none of them begins with another one."""
    if isinstance(value, str):
        raise TypeError(f"a list is expected: [{value!r}]")
    if not isinstance(value, (list, tuple)) or not all(isinstance(prefix, str) for prefix in value):
        raise TypeError("a list of texts is expected")
    if "" in value:
        raise ValueError(
            "the server would announce every key of every application. Name the prefixes, or leave PREFIXES out"
        )
    # To overlapping prefixes servers reply once too often, or they announce a key twice.
    for before, after in pairwise(sorted(value)):
        if before == after:
            raise ValueError(f"{before!r} is there twice. Keep one")
        if after.startswith(before):
            raise ValueError(f"{after!r} begins with {before!r}. Keep {before!r}, which covers both")
    return tuple(value)


def globs(value: Any) -> tuple[str, ...]:
    """Return globs of keys."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(glob, str) for glob in value):
        raise TypeError("a list of texts is expected, such as ['login:*']")
    return tuple(value)


def prefix(value: Any) -> str:
    """Return the text of a prefix, as Django puts it into names: also the text of None."""
    if value is None:
        return "None"
    if isinstance(value, (bytes, bytearray)):
        raise TypeError("text is expected")
    return text_of(value)


def version(value: Any) -> Any:
    """Return a version as it is: a number, a text, or None, as Django puts it into names."""
    if isinstance(value, (bytes, bytearray, bool, Mapping, list, tuple, set, frozenset)):
        raise TypeError("a whole number is expected")
    return value


def sentinels(value: Any) -> tuple[tuple[str, int], ...]:
    """Return the ``(host, port)`` of each Sentinel; each, or the whole list, may be written as text."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, (list, tuple)):
        raise TypeError(SENTINELS_WANTED)
    return tuple(_sentinel(each) for each in value)


SENTINELS_WANTED = "a list such as [('10.0.0.1', 26379), ('10.0.0.2', 26379)] is expected"
SENTINEL_PORT = 26379


def _sentinel(value: Any) -> tuple[str, int]:
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(?:\[([\w:.%]+)\]|([^\s:@/\[\]]+))(?::(\d+))?\s*", value)
        if not found:
            raise ValueError(f"{SENTINELS_WANTED}; a password belongs in SENTINEL_KWARGS")
        value = (found[1] or found[2], found[3] or SENTINEL_PORT)
    if not (isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], str) and value[0]):
        raise TypeError(SENTINELS_WANTED)
    if "@" in value[0]:
        raise ValueError(f"{SENTINELS_WANTED}; a password belongs in SENTINEL_KWARGS")
    return value[0], whole(1, 65535)(value[1])


def cert_reqs(value: Any) -> str:
    """Return how strictly certificates are checked, in redis-py's words: not all its releases take the numbers of `ssl`."""
    if value is True:
        value = "required"
    if not isinstance(value, str):
        value = {None: "none", 0: "none", 1: "optional", 2: "required"}.get(value)
    return str(one_of("none", "optional", "required")(value))
