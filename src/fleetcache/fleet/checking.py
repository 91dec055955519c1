"""What another process has published is checked once, when it is read, so that everything that shows it may trust it.

Any client of the server may write an entry.  A part that has another shape than a snapshot of fleetcache is left out and
named; the others count.  Almost all entries are right, so what is right is returned as it is, after tests of whole dicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from fleetcache.stats.latency import brief

NUMBERS: Final = frozenset((int, float))
LONGEST: Final = 300
"""The most characters of a text."""
WORDS: Final = 50
"""The most words that are counted in one figure, such as the reasons of evictions."""
EVENTS: Final = 50
"""The most events of the audit, and of what happened before one."""
LATEST: Final = 1e11
"""The largest time in seconds since 1970, which a calendar still knows."""


class Spoilt(ValueError):
    """It has not the shape that fleetcache writes."""


Check = Callable[[Any, str, list[str]], Any]
"""Returns a part as it may be trusted.  The arguments are the part, its name, and the list to which names of what is left out
are added.  Raises `Spoilt` if nothing is left."""


def checked(snapshot: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what may be trusted of *snapshot*, which another process has published, and the names of what is left out.

    Parts and figures of later versions that are no numbers are left out without a word.
    """
    spoilt: list[str] = []
    return _fields(snapshot, "", spoilt, PARTS, None), spoilt


def _fields(
    found: Any, where: str, spoilt: list[str], checks: Mapping[str, Check], other: Check | None
) -> dict[str, Any]:
    """Return the dict *found*, each value checked by what stands in *checks* under its name, or by *other*."""
    kept = {}
    for name, value in _mapping(found).items():
        check = checks.get(name, other)
        if check is None:
            continue
        # Most are counts, and a call for each would cost as much as all the rest.
        if check is _count and type(value) in NUMBERS and value >= 0:
            kept[name] = value
            continue
        try:
            kept[name] = check(value, f"{where}.{name}" if where else name, spoilt)
        except Spoilt:
            if check is not _later:
                spoilt.append(f"{where}.{name}"[:LONGEST] if where else name[:LONGEST])
    return kept


def _of(other: Check | None, **checks: Check) -> Check:
    """Return the check of a dict whose values are checked by *checks* under their names, all others by *other*."""
    return lambda found, where, spoilt: _fields(found, where, spoilt, checks, other)


def _or_none(check: Check) -> Check:
    return lambda found, where, spoilt: None if found is None else check(found, where, spoilt)


def _mapping(found: Any) -> dict[str, Any]:
    if type(found) is not dict:
        raise Spoilt
    return found


def _listed(found: Any) -> list[Any]:
    if type(found) is not list:
        raise Spoilt
    return found


def _is_count(found: Any) -> bool:
    return type(found) in NUMBERS and found >= 0


def _number(found: Any, _where: str, _spoilt: list[str]) -> Any:
    if type(found) not in NUMBERS:
        raise Spoilt
    return found


def _count(found: Any, _where: str, _spoilt: list[str]) -> Any:
    if not _is_count(found):
        raise Spoilt
    return found


def _later(found: Any, where: str, spoilt: list[str]) -> Any:
    """Check a figure that this version does not know."""
    return _count(found, where, spoilt)


def _text(found: Any, _where: str, _spoilt: list[str]) -> str:
    if type(found) is not str:
        raise Spoilt
    return found[:LONGEST]


def _truth(found: Any, _where: str, _spoilt: list[str]) -> bool:
    if type(found) is not bool:
        raise Spoilt
    return found


def _time(found: Any, _where: str, _spoilt: list[str]) -> Any:
    if not _is_count(found) or found > LATEST:
        raise Spoilt
    return found


def _counts(found: Any, where: str, spoilt: list[str]) -> dict[str, Any]:
    """Check counts by words, of which there may be many."""
    values = (given := _mapping(found)).values()
    if set(map(type, values)) <= NUMBERS and min(values, default=0) >= 0:
        return given
    return _fields(found, where, spoilt, {}, _count)


def _group(found: Any, where: str, spoilt: list[str]) -> dict[str, Any]:
    """Check the figures of a group; while a read is moved from one to another, one may be less than nothing."""
    if set(map(type, (given := _mapping(found)).values())) <= NUMBERS:
        return given
    return _fields(found, where, spoilt, {}, _number)


def _words(found: Any, where: str, spoilt: list[str]) -> dict[str, Any]:
    """Check counts by words, of which there are few."""
    if len(_mapping(found)) > WORDS:
        raise Spoilt
    return _counts(found, where, spoilt)


def _latency(found: Any, _where: str, _spoilt: list[str]) -> dict[str, Any]:
    """Check a distribution of times, in one of the forms that `fleetcache.stats.latency.parsed` reads."""
    counts = (given := _mapping(found)).get("counts")
    if type(counts) is list and set(map(type, counts)) <= {int} and min(counts, default=0) >= 0:
        first, seconds = found.get("first"), found.get("sum")
        if type(first) is int and first >= 0 and _is_count(seconds):
            return given
        raise Spoilt
    try:
        known = brief(found)
    except (ValueError, ArithmeticError):
        raise Spoilt from None
    if not _is_count(known["sum"]) or min(known["counts"], default=0) < 0:
        raise Spoilt
    return known


def _keys(found: Any, _where: str, _spoilt: list[str]) -> list[list[Any]]:
    """Check a list of keys with their numbers, and the errors of these."""
    for each in (given := _listed(found)):
        if not _listed(each):
            raise Spoilt
        key, *numbers = each
        if type(key) is not str or len(numbers) not in {1, 2} or not all(map(_is_count, numbers)):
            raise Spoilt
    return given


def _each(check: Check) -> Check:
    """Return the check of a list, of which what *check* refuses is left out."""

    def several(found: Any, where: str, spoilt: list[str]) -> list[Any]:
        kept = []
        for each in _listed(found)[-EVENTS:]:
            try:
                kept.append(check(each, where, spoilt))
            except Spoilt:
                spoilt.append(where)
        return kept

    return several


def _advice(found: Any, _where: str, _spoilt: list[str]) -> dict[str, Any]:
    """Check that it is advice; `capacity.clean` checks its figures, where they are used."""
    if (given := _mapping(found)).get("reads"):
        _listed(found.get("sizes"))
    return given


_MOMENT = _of(None, at=_time, what=_text, value=_text)
_EVENT = _of(None, at=_time, key=_text, promise=_text, copy=_text, server=_text, history=_each(_MOMENT))
AUDIT: Final[Mapping[str, Check]] = {
    "compared": _count,
    "violations": _count,
    "better_than": _or_none(_count),
    "text": _text,
    "events": _each(_EVENT),
}
NEAR: Final[Mapping[str, Check]] = {
    **dict.fromkeys(("state", "why"), _text),
    **dict.fromkeys(("hits", "misses", "filled", "refused", "entries", "bytes", "max_bytes"), _count),
    **dict.fromkeys(("pushes", "connects", "canaries", "touched"), _count),
    **dict.fromkeys(("evictions", "invalidations", "epochs", "lag"), _words),
}
PARTS: Final[Mapping[str, Check]] = {
    "since": _time,
    "groups": _of(_group),
    "commands": _of(_of(_later, calls=_count, errors=_count, latency=_latency)),
    "loads": _of(None, latency=_latency),
    "errors": _counts,
    "top": _of(_keys),
    "near": _or_none(lambda found, where, spoilt: _fields(found, where, spoilt, NEAR, _later)),
    "loading": _or_none(_of(_later, protection=_text)),
    "servers": _or_none(_each(_of(None, address=_text, away=_truth))),
    "advice": _or_none(_advice),
    "audit": _or_none(lambda found, where, spoilt: _fields(found, where, spoilt, AUDIT, _later)),
}
"""The parts of a snapshot, and what checks each."""
