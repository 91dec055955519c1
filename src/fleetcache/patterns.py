"""Globs by which the server finds a cache's entries, also where a KEY_FUNCTION of the site names them.

Of such a function only the results are known.  So each glob is tried on sample names before it is used: it must match
the names of this cache and, for `clear`, none of another cache's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import product
from os.path import commonprefix
from typing import Any

from fleetcache.errors import SettingsError
from fleetcache.interrupts import let_pass
from fleetcache.keys import KeyFunction, default_key_function, escaped, special
from fleetcache.servers.arguments import glob

KEY, VERSION = "k7e1y", 70413
"""A key and a version that are easy to find in a name."""
KEYS = ("a", "Z", "0", "user:1", "a b/c%d", KEY)
VERSIONS = (1, 23, VERSION)


def pattern_of(function: KeyFunction, pattern: str, prefix: str, version: Any) -> str:
    """Return the glob for the names of the keys that match *pattern*."""
    if function is default_key_function:
        return function(pattern, escaped(prefix), escaped(str(version)))
    wanted = special.findall(pattern)
    if not wanted:
        return escaped(_text(function(pattern, prefix, version)))
    text = str(version)
    quoted = escaped(prefix), escaped(text) if special.search(text) else version  # a number may be formatted as one
    found, fixed = _text(function(pattern, *quoted)), function(KEY, *quoted)
    if fixed != escaped(function(KEY, prefix, version)) or len(special.findall(found)) != len(wanted) + len(
        special.findall(fixed)
    ):
        raise SettingsError(
            f"KEY_FUNCTION, or make_key(), does not leave the special characters of the pattern {pattern!r}, or of the KEY_PREFIX, as they are, so "
            f"no glob for the server can be made of it. Pass the glob of names itself, as a fleetcache.keys.CacheKey"
        )
    return found


def _text(name: Any) -> str:
    """Return *name*, the result of a KEY_FUNCTION, or raise if it is no text."""
    if not isinstance(name, str):
        raise SettingsError(f"KEY_FUNCTION has to return text, not {type(name).__name__}")
    return name


def try_function(function: KeyFunction, prefix: str, version: Any) -> None:
    """Refuse a KEY_FUNCTION that returns no text; if it raises, that is for the callers of operations to see."""
    try:
        name = function(KEY, prefix, version)
    except Exception as error:  # noqa: BLE001 - see above
        let_pass(error)
    else:
        _text(name)


def pattern_of_all(function: KeyFunction, prefix: str) -> str:
    """Return the glob for all names under *prefix*, in every version, and none under another."""
    if function is default_key_function:
        return function("*", escaped(prefix), "*")
    own = [_text(function(key, prefix, version)) for key, version in product(KEYS, VERSIONS)]
    others = [function(KEY, other, 1) for other in (f"{prefix}x", f"x{prefix}", "x")]
    for found in _candidates(function, prefix, own):
        matches = glob(found.encode()).fullmatch
        if all(matches(name.encode()) for name in own) and not any(matches(name.encode()) for name in others):
            return found
    raise SettingsError(
        f"clear: KEY_FUNCTION, or make_key(), makes names by which the entries under the KEY_PREFIX {prefix!r} cannot be told from others, so "
        f"nothing was removed. Set OPTIONS['CLEAR'] = 'database' to empty the whole database instead, or let all names begin with the prefix"
    )


MATCHED = re.compile(rb"\\(.)|(\*+|\[.*)|(\?)|(.)", re.DOTALL)


@lru_cache(maxsize=256)
def _broadly(pattern: bytes) -> re.Pattern[bytes]:
    """Return a regular expression for all that the glob *pattern* may match: a bracket, and what follows it, counts as any text."""
    parts = [b""]
    for quoted, several, one, plain in MATCHED.findall(pattern):
        if several:
            parts.append(b"")
        else:
            parts[-1] += b"." if one else re.escape(quoted or plain)
    first, *between = parts
    # The first place of each part will do, so that nothing is tried twice.
    middle = b"".join(b"(?>.*?%s)" % part for part in between[:-1])
    return re.compile(first + middle + (b".*" + between[-1] if between else b""), re.DOTALL)


def may_match(pattern: bytes, name: bytes) -> bool:
    """Whether the server may find *name* with the glob *pattern*."""
    return _broadly(pattern).fullmatch(name) is not None


def _candidates(function: KeyFunction, prefix: str, own: list[str]) -> Iterator[str]:
    with suppress(TypeError, ValueError):  # the function may insist that a version is a number
        yield function("*", escaped(prefix), "*")
    # The function may change its arguments, as quote() does, but not this key and this version.
    yield function(KEY, escaped(prefix), VERSION).replace(KEY, "*").replace(str(VERSION), "*")
    yield f"{escaped(commonprefix(own))}*"  # noqa: RUF071 - of strings
