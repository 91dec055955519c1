"""The entry of a process: JSON, compressed, at most 16 kB, read without trust.

What does not fit is cut: first the keys of ``top``, then groups, the least read of which are added to ``other``.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

from fleetcache.fleet import figures
from fleetcache.masking import with_article
from fleetcache.stats.groups import OTHER
from fleetcache.stats.latency import brief

LARGEST = 16_000
"""The most bytes of an entry."""

UNPACKED = 2_000_000
"""The most bytes that an entry may have before compression; one with more was not written by fleetcache."""

DIGITS = 20
"""The most digits of a number in an entry; a larger number was not counted."""

FORMAT = 1
"""The number of the form in which entries are written; readers say of entries in a later form that they cannot read them."""

CUTS = ((20, 100, 20), (10, 100, 10), (5, 50, 0), (0, 50, 0), (0, 20, 0), (0, 5, 0))
"""How many keys of each list of ``top``, groups and events of the audit are kept: the first that makes an entry fit."""

LEVEL = 6


class Unreadable(ValueError):
    """The bytes are no entry of a process; the message says why."""


def packed(facts: Mapping[str, Any], snapshot: Mapping[str, Any]) -> bytes:
    """Return the entry of a process: *facts* about it, and its *snapshot*, cut to what fits."""
    data = b""
    for keys, groups, events in CUTS:
        whole = {"format": FORMAT, **facts, **_cut(snapshot, keys, groups, events)}
        data = zlib.compress(json.dumps(whole, separators=(",", ":"), default=str).encode(), LEVEL)
        if len(data) <= LARGEST:
            return data
    whole = {"format": FORMAT, **facts, "snapshot": {"since": snapshot.get("since", 0.0)}, "cut": "everything"}
    return zlib.compress(json.dumps(whole, separators=(",", ":"), default=str).encode(), LEVEL)


def unpacked(data: Any) -> dict[str, Any]:
    """Return what `packed` wrote as *data*, or raise `Unreadable`."""
    if not isinstance(data, bytes):
        raise Unreadable(f"it is no text, but {with_article(type(data).__name__)}")
    try:
        unpacking = zlib.decompressobj()
        text = unpacking.decompress(data, UNPACKED)
        if unpacking.unconsumed_tail:
            raise Unreadable(f"it has more than {UNPACKED} bytes")
        found = (WATCHING if _may_be_large(text) else USUAL).decode(text.decode())
        if SURROGATE in text:  # half of a pair cannot be written in UTF-8
            found = json.loads(json.dumps(found, ensure_ascii=False).encode(errors="replace"))
    except (zlib.error, ValueError, RecursionError) as error:
        raise Unreadable(str(error)) from None
    if not isinstance(found, dict) or not isinstance(found.get("snapshot"), dict):
        raise Unreadable("it is not the entry of a process")
    if found.get("format") != FORMAT:
        version = str(found.get("version"))[:40]
        raise Unreadable(f"it was written by version {version!r} of fleetcache in another form")
    if not found["snapshot"]:
        raise Unreadable("it has no figures")
    return found


def _may_be_large(text: bytes) -> bool:
    """Whether a number in *text* may have more than `DIGITS` digits.  Most texts show without a parser that none has."""
    digits = text.translate(ALIKE)
    if LONG not in digits and not any(mark in digits for mark in POWERS):
        return False
    return LARGE.search(text) is not None


SURROGATE = b"\\ud"
"""Begins each half of a pair of surrogates in JSON, as fleetcache writes it."""
ALIKE = bytes.maketrans(b"123456789E", b"000000000e")
LONG, POWERS = b"0" * (DIGITS + 1), (b"0e0", b"0e+")
LARGE = re.compile(rb"[:\[,\s]-?(?:[0-9]{%d}|[0-9.]+[eE][+0-9])" % (DIGITS + 1))
"""A number, outside of any text, that is or may be too large."""


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise Unreadable(f"it has a number of {len(digits)} digits")
    return int(digits)


def _number(text: str) -> float:
    """Return the number, bounded so that sums of a whole fleet's numbers are finite."""
    number = float(text)
    if abs(number) >= 10.0**DIGITS:
        raise Unreadable(f"it has the number {text[:20]}")
    return number


def _nothing(_: str) -> None:
    """Return None in place of "NaN" and "Infinity": no figure."""
    return


USUAL = json.JSONDecoder(parse_constant=_nothing)
WATCHING = json.JSONDecoder(parse_int=_whole, parse_float=_number, parse_constant=_nothing)
"""Reads every number with care, which takes twice as long."""


def _cut(snapshot: Mapping[str, Any], keys: int, groups: int, events: int) -> dict[str, Any]:
    """Return *snapshot* with at most so many *keys*, *groups* and *events*, and what was cut, in words."""
    cut = []
    kept = dict(snapshot)
    top = snapshot.get("top") or {}
    if any(len(listed) > keys for listed in top.values()):
        kept["top"] = {name: listed[:keys] for name, listed in top.items()}
        cut.append(f"all but {keys} of the most used keys")
    found = snapshot.get("groups") or {}
    if len(found) > groups:
        cut.append(f"{len(found) - groups} of {len(found)} groups, which are counted as {OTHER!r}")
    kept["groups"] = {name: _without_zeros(group) for name, group in figures.fewer(found, groups).items()}
    kept["commands"] = {
        name: {**each, "latency": _brief(each.get("latency"))}
        for name, each in (snapshot.get("commands") or {}).items()
    }
    kept["loads"] = {"latency": _brief((snapshot.get("loads") or {}).get("latency"))}
    audit = snapshot.get("audit")
    if audit and len(audit.get("events") or ()) > events:
        kept["audit"] = {**audit, "events": audit["events"][-events:] if events else []}
        cut.append("events of the audit")
    return {"snapshot": kept, "cut": "; ".join(cut)}


def _without_zeros(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(figure, 6) if isinstance(figure, float) else figure for name, figure in group.items() if figure}


def _brief(latency: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return only the counts and the sum: all else can be had from them."""
    return brief(latency or {"buckets": []})
