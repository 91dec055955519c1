"""The keys under load, and how the versions of each are made.

* ``n…`` are counters that everybody increments, and foreigners also set and delete: the server
  draws each version.
* ``x…`` are set by one foreign writer, to expire soon.
* ``s…`` belong to one worker each, which counts their versions itself; the value is the version
  or a dict that tells whether it is whole.
"""

from __future__ import annotations

from typing import Any

from tests.coherence.checker import NOTHING, TORN

PREFIX = "near"


def name(key: str) -> str:
    """Return what the cache of these tests calls *key* on the server."""
    return f"{PREFIX}:1:{key}"


def floor(key: str) -> str:
    """Return where a foreigner's writes note their version: in the slot of *key*, where the cache's prefix does not reach."""
    return f"floor:{{{name(key)}}}"


def make(key: str, version: int) -> Any:
    """Return the value of a version: now a number, now something that has to be decoded."""
    if key[0] != "s" or version % 3 == 0:
        return version
    if version % 3 == 1:
        return {"version": version, "padding": "." * (version % 500), "again": version}
    return f"{version} {version}"


def version(value: Any) -> int:
    """Return the version that *value* is."""
    match value:
        case None:
            return NOTHING
        case int():
            return value
        case {"version": one, "padding": padding, "again": other} if one == other and len(padding) == one % 500:
            return one
        case str():
            one, _, other = value.partition(" ")
            if one == other and one.isdigit():
                return int(one)
    return TORN
