"""Names of entries on the server, ``prefix:version:key`` as in Django and django-redis; how logs mask them."""

from __future__ import annotations

import re
from binascii import crc_hqx
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date
from decimal import Decimal
from enum import Enum
from functools import cache
from hashlib import blake2b
from pathlib import PurePath
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

from redis.exceptions import DataError

from fleetcache.errors import InvalidKey
from fleetcache.masking import with_article

KeyFunction: TypeAlias = Callable[[Any, str, Any], str]

Key: TypeAlias = str | float | Decimal | UUID | date | PurePath | Enum
"""What type checkers accept as a key: objects whose text is a useful name.  Of any other, such as a lazy string, pass ``str(key)``."""

K = TypeVar("K", bound=Key)

MARK = "\ue000"
"""A key to try a key function with: where it appears in the name, keys stand, if the function leaves it unchanged."""

Version: TypeAlias = int | str | None
"""The version of an entry; None for that of the cache."""

MAX_LENGTH = 250  # memcached's limit, so Django warns of longer names


def doubtful(name: str) -> bool:
    """Whether *name* may hold characters that memcached refuses: white space or control characters."""
    return " " in name or not name.isprintable()


special = re.compile(r"([*?\[\]\\])")


class CacheKey(str):
    """A complete name: every method uses it unchanged, without prefix and version."""

    __slots__ = ()


def default_key_function(key: Any, prefix: str, version: Any) -> str:
    """Return the name of *key*."""
    return f"{prefix}:{version}:{key}"


def escaped(text: str) -> str:
    """Return *text* as a glob pattern that matches only this text."""
    return special.sub(r"\\\1", text)


def check(key: Any) -> None:
    """Refuse a key whose ``str()`` would be no useful name.

    Numbers, UUIDs, paths and lazy strings are accepted: Django puts the text of any object into the
    name, and sites rely on that.  None, bytes or a mutable container as a key is a mistake, and the
    text of an object without ``__str__`` holds its address in memory.
    """
    kind: Any = type(key)
    nameless = kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__
    if key is None or nameless or isinstance(key, (bytes, bytearray, memoryview, Mapping, AbstractSet, list)):
        advice = "Use str(key), or bytes.decode() for bytes"
        if key is None:
            advice = "A key of None is nearly always a missing value: look where it comes from"
        raise InvalidKey(f"a key must be a string, not {kind.__name__}: {_shown(key)}. {advice}")


def check_mapping(data: Any, method: str, what: str) -> None:
    """Refuse *data*, from which *method* takes *what*, if it is no mapping."""
    if not isinstance(data, Mapping) and not (hasattr(data, "keys") and hasattr(data, "values")):
        raise TypeError(f"{method} takes a mapping of {what}, not {with_article(type(data).__name__)}")


def in_utf8(name: str) -> bytes:
    """Return *name* in the bytes that the server knows."""
    try:
        return name.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"a name cannot be sent: {error}") from error


def _shown(key: Any) -> str:
    text = repr(key)
    return text if len(text) <= 24 else f"{text[:20]}…"


def masked(name: str | bytes, prefix: str | None = None) -> str:
    """Return *name* for a log: it tells entries apart, but does not show whose data they hold.

    Where the key begins is known only in a name that `default_key_function` made with this *prefix*.
    """
    text = name.decode(errors="replace") if isinstance(name, bytes) else name
    digest = blake2b(text.encode(errors="replace"), digest_size=4).hexdigest()
    place = re.match(rf"{re.escape(prefix)}:[^:]*:", text) if prefix is not None else None
    beginning = place.end() if place else 0
    return f"{text[: beginning + 3]}…#{digest}"


def default_reverse(name: str) -> str:
    """Return the key within *name*, whose prefix holds no colon."""
    return name.split(":", 2)[2]


def frame(function: KeyFunction, prefix: str, version: Any) -> tuple[str, str] | None:
    """Return what *function* puts before and after each key; None if its names do not show the key."""
    try:
        name = function(MARK, prefix, version)
    except Exception:  # noqa: BLE001 - a site's function, which is reported where a name is needed
        return None
    head, found, tail = name.partition(MARK) if isinstance(name, str) else ("", "", "")
    return (head, tail) if found and MARK not in tail else None


def key_within(name: str, prefix: str, version: Any) -> str:
    """Return the key, or the glob, in *name* after *prefix* and any version; without that prefix, *name* itself."""
    for head in (f"{prefix}:", f"{escaped(prefix)}:"):
        if name.startswith(head):
            rest = name.removeprefix(head)
            for own in (f"{version}:", f"{escaped(str(version))}:"):
                if rest.startswith(own):
                    return rest.removeprefix(own)
            return rest.partition(":")[2] or rest
    return name


# --- the library's own names ----------------------------------------------------------------------

TAG = "~tag:"
"""The beginning of the key under which a tag's version is stored, in its cache's prefix and version."""

SLOTS = 16384
BRACED = re.compile(r"\{[^}]+\}")
"""The part of a name that alone decides its slot in a cluster: the text between the first brace and the next closing one."""


def lease_name(name: str) -> str:
    """Return the name of the lease of the entry called *name*, in the same slot of a cluster."""
    if "}" not in name and name:
        return f"fleetcache:lease:{{{name}}}"
    opened = name.find("{")
    tag = BRACED.match(name, opened) if opened >= 0 else None
    text = tag[0] if tag is not None else f"{{{_text_in(crc_hqx(in_utf8(name), 0) % SLOTS)}}}"
    return f"fleetcache:lease:{text}{name}"


@cache
def _halves() -> tuple[dict[int, str], dict[int, str]]:
    """Return the halves of texts, by their parts of the slot: CRC16 is linear, so that XOR combines the parts."""
    letters = "@ABCDEFGHIJKLMNO"
    pairs = [one + other for one in letters for other in letters]
    beginnings = {crc_hqx(f"{pair}@@".encode(), 0) % SLOTS: pair for pair in pairs}
    ends = {(crc_hqx(f"@@{pair}".encode(), 0) ^ crc_hqx(b"@@@@", 0)) % SLOTS: pair for pair in pairs}
    return beginnings, ends


@cache
def _text_in(slot: int) -> str:
    """Return a text of four letters in *slot*."""
    beginnings, ends = _halves()
    return next(beginnings[slot ^ part] + end for part, end in ends.items() if slot ^ part in beginnings)


LAST_NUMBER = "fleetcache:token"
"""The name under which the number of the last lock's token is stored; in a cluster one for each slot."""


def last_number(name: str) -> str:
    """Return the name under which the number of the last token is stored in the slot of the lock called *name*."""
    opened = name.find("{")
    tag = BRACED.match(name, opened) if opened >= 0 else None
    return f"{LAST_NUMBER}:{{{_text_in(crc_hqx(in_utf8(tag[0][1:-1] if tag else name), 0) % SLOTS)}}}"


EPOCH = "fleetcache:epoch:"
"""The beginning of the name under which an epoch is stored."""


def epoch_name(prefix: str) -> str:
    """Return the name under which the epoch of all entries with *prefix* is stored: `clear` ends it."""
    return EPOCH + prefix


def gone_name(prefix: str) -> str:
    """Return the name of the list of what `delete_pattern` has deleted under *prefix*, in the slot of its epoch."""
    return lease_name(epoch_name(prefix)).replace(":lease:", ":gone:", 1)


def unique(names: Sequence[str]) -> list[str]:
    """Return *names* without repetitions, in order."""
    return list(dict.fromkeys(names))
