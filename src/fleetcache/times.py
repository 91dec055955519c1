"""Timeouts and moments of any type, as whole milliseconds or seconds for the server."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from numbers import Integral, Rational, Real
from operator import index
from typing import Any

from fleetcache.errors import InvalidTimeout

LARGEST = 2**63 - 1
"""The largest integer of a server."""


def milliseconds(timeout: Any, unit: int = 1000) -> int:
    """Return *timeout*, a ``timedelta`` or a number of *unit* milliseconds each."""
    if isinstance(timeout, timedelta):
        timeout, unit = timeout.total_seconds(), 1000
    return _whole(timeout, unit, "a timeout is a number of seconds, a timedelta, or None for ever")


def seconds(wait: Any) -> float:
    """Return *wait*, a ``timedelta`` or a number, as seconds; infinity is for ever."""
    if type(wait) is float and wait == wait:  # noqa: PLR0124 - only NaN is not equal to itself
        return wait
    return milliseconds(wait) / 1000


def moment(when: Any, unit: int = 1) -> int:
    """Return *when*, a ``datetime`` or a number since 1970; *unit* 1 counts seconds, 1000 milliseconds."""
    text = "a moment is a datetime, or a number of seconds (or milliseconds) since 1970"
    if not isinstance(when, datetime):
        return _whole(when, 1, text)
    try:
        return _whole(when.timestamp(), unit, text)
    except (OverflowError, OSError, ValueError) as error:
        raise InvalidTimeout(f"{text}, not {when!r}") from error


def _whole(number: Any, unit: int, text: str) -> int:
    found = None
    try:
        # Converted to Python's own numbers first: numpy's overflow.
        if isinstance(number, Integral):
            found = index(number) * unit
        elif isinstance(number, (Rational, Decimal)):
            product: Any = number * unit
            found = int(product)
        elif isinstance(number, Real):
            found = int(float(number) * unit)
    except (ArithmeticError, ValueError):
        pass  # NaN, infinite, or too large
    if found is None:
        raise InvalidTimeout(f"{text}, not {_shown(number)} ({type(number).__name__})")
    if not -LARGEST <= found <= LARGEST:
        raise InvalidTimeout(f"{text}; {_shown(number)} is more than a server can count")
    return found


def _shown(number: Any) -> str:
    try:
        text = repr(number)
    except ValueError:  # Python does not print integers of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 40 else f"{text[:36]}…"
