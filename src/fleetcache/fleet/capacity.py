"""The advice on MAX_BYTES of several processes, as one: the mean of their figures, weighted by their reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from fleetcache.near.advice import ENOUGH, FACTORS, sentence


def mean(several: Iterable[Any]) -> dict[str, Any] | None:
    """Return the mean of *several* advices, in the shape of ``cache.near.advice()``; None if there is none with reads.

    ``reads`` is their sum, and ``workers`` the number of processes that gave advice.  If their sizes differ, because their
    `MAX_BYTES` do, only those with the sizes that have the most reads count.  ``error`` is the mean of the errors: processes
    that were forked from one sample the same names, so their errors need not cancel out.
    """
    known: dict[tuple[float, ...], list[dict[str, Any]]] = {}
    for advice in several:
        if found := clean(advice):
            known.setdefault(tuple(size["max_bytes"] for size in found["sizes"]), []).append(found)
    if not known:
        return None
    usual = max(known.values(), key=lambda alike: sum(each["reads"] for each in alike))
    reads = sum(each["reads"] for each in usual)

    def of(figures: Iterable[float]) -> float:
        return float(sum(figure * each["reads"] for figure, each in zip(figures, usual, strict=True)) / reads)

    sizes = [
        {
            "max_bytes": alike[0]["max_bytes"],
            "hit_ratio": of(size["hit_ratio"] for size in alike),
            "error": of(size["error"] for size in alike),
        }
        for alike in zip(*(each["sizes"] for each in usual), strict=True)
    ]
    enough = all(size["error"] <= ENOUGH for size in sizes)
    return {
        "rate": of(each["rate"] for each in usual),
        "reads": reads,
        "now": of(each["now"] for each in usual),
        "sizes": sizes,
        "enough": enough,
        "text": sentence(sizes, enough=enough),
        "workers": len(usual),
    }


def clean(advice: Any) -> dict[str, Any] | None:
    """Return what a process has published as its *advice*, None if that is none or has no reads yet."""
    if not isinstance(advice, Mapping) or not isinstance(sizes := advice.get("sizes"), list):
        return None
    figures = [advice.get(name) for name in ("rate", "reads", "now")]
    found = [
        [size.get(name) for name in ("max_bytes", "hit_ratio", "error")] for size in sizes if isinstance(size, Mapping)
    ]
    numbers = [*figures, *(number for size in found for number in size)]
    if len(found) != len(FACTORS) or not all(map(_is_count, numbers)) or not figures[1]:
        return None
    return {
        "rate": figures[0],
        "reads": figures[1],
        "now": figures[2],
        "sizes": [dict(zip(("max_bytes", "hit_ratio", "error"), size, strict=True)) for size in found],
        "enough": bool(advice.get("enough")),
        "text": str(advice.get("text", ""))[:LONGEST],
    }


LONGEST = 300
"""The most characters of a text that another process has published."""


def is_number(value: Any) -> bool:
    """Whether *value* is a finite number, and no truth value."""
    return type(value) is int or (type(value) is float and -math.inf < value < math.inf)


def _is_count(value: Any) -> bool:
    return is_number(value) and value >= 0
