"""Names on the server: as text that can be read back, by pattern, and masked.

A name is bytes, and other clients may store names that are no text.  `shown` writes any name as text without control
characters, and `meant` reads it back, so that every name can stand in a link or a command line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import Any, Final

from fleetcache.cache import Cache
from fleetcache.inspection.blame import told
from fleetcache.interrupts import let_pass
from fleetcache.keys import LAST_NUMBER, CacheKey, default_key_function, escaped
from fleetcache.near.near import CANARY
from fleetcache.patterns import pattern_of_all
from fleetcache.servers.arguments import glob
from fleetcache.stats.groups import usual_group

LONGEST_PATTERN, MOST_STARS = 500, 10
"""Bounds of a pattern: the server tries each name against it."""

LIBRARY = re.compile(rb"fleetcache:(?:(?:lease|token|epoch|gone|workers?|history):|token\Z)")
"""How the library's own names begin, except those of tags and canaries, which begin like entries."""

LEASE = re.compile(rb"fleetcache:(?:lease|gone):\{([^}]*)\}(.*)", re.DOTALL)
"""The name of a lease: that of its entry stands in the braces, or behind them; see `fleetcache.keys.lease_name`."""

OF_PREFIX = rb"fleetcache:(?:epoch:%(p)s|(?:workers|history):\{\d+\}:%(p)s|worker:\{\d+\}:%(p)s:[^:]*:\d+:[^:]*)"
"""The library's other names for the caches with a prefix."""


class Versions(Enum):
    """Stands for a version."""

    ALL = "entries of every version"


ALL: Final = Versions.ALL


# --- as text --------------------------------------------------------------------------------------

ESCAPE = re.compile(rb"\\(?:(\\)|x([0-9a-fA-F]{2}))")


def shown(name: bytes | str) -> str:
    r"""Return *name* as text that shows every byte: a byte that is no printable text as ``\xff``, a backslash as ``\\``."""
    text = name.decode(errors="surrogateescape") if isinstance(name, bytes) else name
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_shown(letter) for letter in text)


def _shown(letter: str) -> str:
    if letter == "\\":
        return "\\\\"
    if letter.isprintable():
        return letter
    return "".join(f"\\x{byte:02x}" for byte in letter.encode(errors="surrogateescape"))


def meant(text: str) -> bytes:
    r"""Return the name that `shown` wrote as *text*; a backslash that begins no escape stands for itself."""
    raw = text.encode(errors="surrogateescape")
    return ESCAPE.sub(lambda found: found[1] or bytes([int(found[2], 16)]), raw)


def as_text(name: bytes) -> CacheKey | None:
    """Return *name* as operations of a cache take it; None if it is no text, so that no cache can have stored it."""
    try:
        return CacheKey(name.decode())
    except UnicodeDecodeError:
        return None


def name_of(cache: Cache, key: Any, version: Any = None) -> bytes:
    """Return the name of *key*: bytes and a CacheKey are names already, anything else is a key of the cache."""
    return key if isinstance(key, bytes) else cache.name(key, version).encode()


def masked_key(key: str | bytes) -> str:
    """Return *key* for a display: its usual group, if it has one, and a short digest of the whole.

    ``users:1:name`` becomes ``users:…3f2a90c1``, so that keys can be told apart, but not whose data they hold.
    """
    raw = key if isinstance(key, bytes) else key.encode(errors="surrogatepass")
    group = usual_group(shown(raw))
    # Of 10,000 keys two have the same eight digits with a chance of 1 %.
    digest = blake2b(raw, digest_size=4).hexdigest()
    return f"…{digest}" if group is None else f"{group}:…{digest}"


# --- the parts of a name, and patterns ------------------------------------------------------------


def parts(cache: Cache, name: bytes) -> tuple[str, str]:
    """Return the version and the key in *name*, as text; "" and the whole name if it is none of the cache's entries."""
    version, key, _ = named(cache, name)
    return version, key


def named(cache: Cache, name: bytes) -> tuple[str, str, str]:
    """Return the same, and why a function of the site cannot tell the key; "" if it can, or need not."""
    begins = f"{cache.key_prefix}:".encode()
    if cache._namer is default_key_function and name.startswith(begins):
        version, colon, key = name[len(begins) :].partition(b":")
        if colon:
            return shown(version), shown(key), ""
    elif cache._namer is not default_key_function and (text := as_text(name)) is not None:
        try:
            return "", shown(cache.reverse_key(text)), ""
        except Exception as error:  # noqa: BLE001 - whatever a function of the site raises
            let_pass(error)
            # A name of the library's own is not of its making.
            return "", shown(name), "" if is_library(cache, name) else told(error, cache)
    return "", shown(name), ""


def is_library(cache: Cache, name: bytes) -> bool:
    """Whether *name* is one of the library's own: of a lease, a lock's number, an epoch, a worker, a tag or a canary."""
    return LIBRARY.match(name) is not None or cache._is_tag(name) or CANARY.encode() in name


@dataclass(frozen=True)
class Wanted:
    """Which names are meant: those that the server finds by ``pattern``, and that ``has`` accepts."""

    cache: Cache
    pattern: str
    exactly: re.Pattern[bytes] | None
    """If it is given, a name that is meant matches this too: the server's glob finds others as well."""
    library: bool
    without: str = ""
    """Names that contain this text are not meant."""

    def has(self, name: bytes) -> bool:
        """Whether *name* is meant."""
        if self.exactly is not None and not self.exactly.fullmatch(name):
            return False
        if self.without and self.without.encode() in name:
            return False
        return self.library or not is_library(self.cache, name)


def wanted(cache: Cache, pattern: str, version: Any = None, *, library: bool = False) -> Wanted:
    """Return which names the glob *pattern* of keys means, in *version*, that of the cache by default, or in `ALL`.

    A CacheKey is a glob of whole names.  The library's own names are meant only with *library*.  Raise ValueError for a
    pattern that is too long, or has too many stars.
    """
    whole = isinstance(pattern, CacheKey)
    pattern = re.sub(r"\*{2,}", "*", pattern) if "\\" not in pattern else str(pattern)
    if len(pattern) > LONGEST_PATTERN or pattern.count("*") > MOST_STARS:
        raise ValueError(f"a pattern has at most {LONGEST_PATTERN} characters and {MOST_STARS} stars")
    if whole:
        return Wanted(cache, pattern, None, library)
    if version is not ALL:
        return Wanted(cache, cache.make_pattern(pattern, version), None, library)
    if cache._namer is not default_key_function:
        if pattern != "*":
            raise ValueError("with a KEY_FUNCTION, a pattern finds the entries of one version only")
        return Wanted(cache, pattern_of_all(cache._namer, cache.key_prefix), None, library)
    begins, ends = escaped(f"{cache.key_prefix}:"), f":{pattern}"
    # The star for the version may match a part of the key too.
    exactly = glob(begins.encode()).pattern + b"[^:]*" + glob(ends.encode(errors="surrogatepass")).pattern
    return Wanted(cache, f"{begins}*{ends}", re.compile(exactly, re.DOTALL), library)


def library_pattern(cache: Cache) -> CacheKey:
    """Return the glob of the names that the library keeps for the entries of *cache*, except tags."""
    return CacheKey(f"fleetcache:*{escaped(cache.key_prefix)}*")


def belongs(cache: Cache, name: bytes) -> bool:
    """Whether *name* may be one of the entries of *cache*, or one that the library keeps for them; others are not its own."""
    prefix = cache.key_prefix.encode()
    if (lease := LEASE.fullmatch(name)) is not None:
        return belongs(cache, lease[2] or lease[1])
    if LIBRARY.match(name) is not None:
        if not prefix and name.startswith(LAST_NUMBER.encode()):
            return True
        return re.fullmatch(OF_PREFIX % {b"p": re.escape(prefix)}, name, re.DOTALL) is not None
    if cache._namer is default_key_function:
        return name.startswith(prefix + b":") and b":" in name[len(prefix) + 1 :]
    return glob(pattern_of_all(cache._namer, cache.key_prefix).encode()).fullmatch(name) is not None
