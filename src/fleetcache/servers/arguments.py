"""The arguments of commands in ``memory://``: how a server reads the words, and refuses wrong ones."""

from __future__ import annotations

import heapq
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

from redis.exceptions import ResponseError

from fleetcache.exchange.contract import Reply

NOT_AN_INTEGER = "value is not an integer or out of range"
SYNTAX = "syntax error"

SMALLEST, LARGEST = -(2**63), 2**63 - 1


def integer(word: bytes, refusal: str = NOT_AN_INTEGER, *, least: int = SMALLEST) -> int:
    """Return the integer in *word*, in the only form that a server accepts."""
    if not re.fullmatch(rb"0|-?[1-9][0-9]{0,18}", word) or not least <= int(word) <= LARGEST:
        raise ResponseError(refusal)
    return int(word)


def natural(word: bytes) -> int:
    return integer(word, "value is out of range, must be positive", least=0)


def real(word: bytes, refusal: str = "value is not a valid float") -> float:
    number = rb"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|inf(inity)?)"
    if not re.fullmatch(number, word, re.IGNORECASE):
        raise ResponseError(refusal)
    return float(word)


def added(number: bytes, delta: int, refusal: str = NOT_AN_INTEGER) -> int:
    after = integer(number, refusal) + delta
    return integer(b"%d" % after, "increment or decrement would overflow")


def options(words: Sequence[bytes], **lengths: int) -> dict[str, Sequence[bytes]]:
    """Return the arguments of each option among *words*; *lengths* says how many each takes."""
    found: dict[str, Sequence[bytes]] = {}
    rest = iter(words)
    for word in rest:
        name = word.decode("latin-1")
        if name not in lengths:
            raise ResponseError(SYNTAX)
        found[name] = tuple(islice(rest, lengths[name]))
    return found


def within(elements: list[Any], first: int, last: int) -> list[Any]:
    """Return the *elements* from *first* to *last*, both included; -1 is the last one."""
    start, stop = (end + len(elements) if end < 0 else end for end in (first, last))
    return elements[max(start, 0) : max(stop + 1, 0)]


def between(low: bytes, high: bytes) -> Callable[[float], bool]:
    """Return a check that a score lies from *low* to *high*; "(" excludes the end itself."""
    refusal = "min or max is not a float"
    least, most = real(low.removeprefix(b"("), refusal), real(high.removeprefix(b"("), refusal)
    above = operator.gt if low.startswith(b"(") else operator.ge
    below = operator.lt if high.startswith(b"(") else operator.le
    return lambda score: bool(above(score, least) and below(score, most))


def some(taken: list[bytes], count: bytes | None) -> Reply:
    """Return the *taken* elements: a list if the command has a *count*, else one element or None."""
    return taken if count is not None else taken[0] if taken else None


def listed(found: Iterable[tuple[bytes, float]], *, scores: bool) -> list[Any]:
    return [[member, score] if scores else member for member, score in found]


TOKEN = re.compile(rb"\\(.)|\[(\^?)((?:\\.|[^\]]-.|[^\]])*)\]?|(\*+)|(\?)|(.)", re.DOTALL)
IN_BRACKETS = re.compile(rb"\\(.)|(.)-(.)|(.)", re.DOTALL)


@lru_cache(maxsize=256)
def glob(pattern: bytes) -> re.Pattern[bytes]:
    """Return the regular expression for the glob *pattern*."""
    parts = [b""]
    for token in TOKEN.finditer(pattern):
        if token[4]:
            parts.append(b"")
        else:
            parts[-1] += _one(token)
    first, *between = parts
    # Each part has a fixed length, so its first place will do, and nothing is tried twice.
    middle = b"".join(b"(?>.*?%s)" % part for part in between[:-1])
    return re.compile(first + middle + (b".*" + between[-1] if between else b""), re.DOTALL)


def _one(token: re.Match[bytes]) -> bytes:
    """Return the regular expression for a *token* of a glob that matches one character."""
    escaped, negated, inside, _, question, plain = token.groups()
    if inside is None:
        return b"." if question else re.escape(escaped or plain)
    if not inside:
        return b"." if negated else b"(?!)"
    parts = IN_BRACKETS.findall(inside)
    members = (re.escape(one + other) or b"-".join(map(re.escape, sorted(ends))) for one, *ends, other in parts)
    return b"[" + negated + b"".join(members) + b"]"


def page(names: Iterable[bytes], cursor: bytes, words: Sequence[bytes], **others: int) -> list[Any]:
    """Return the cursor after *cursor* and the names between the two; *others* are options that the caller reads.

    Names are visited in the order of their hashes, which no change between two pages
    can affect, so a name that stays is always returned.
    """
    found = options(words, MATCH=1, COUNT=1, **others)
    if not cursor.isdigit():
        raise ResponseError("invalid cursor")
    (count,) = map(integer, found.get("COUNT", [b"10"]))
    if count < 1:
        raise ResponseError(SYNTAX)
    start = int(cursor)
    places = ((hash(name) & LARGEST, name) for name in names)
    batch = heapq.nsmallest(count + 1, (place for place in places if place[0] >= start))
    after = batch[count][0] if len(batch) > count else 0
    (pattern,) = found.get("MATCH", [b"*"])
    matches = glob(pattern).fullmatch
    return [b"%d" % after, [name for _, name in batch[:count] if matches(name)]]
