"""Loading that breaks one rule each.  A checker that does not notice proves nothing."""

from __future__ import annotations

from collections.abc import Callable

MUTANTS: dict[str, Callable[[], None]] = {}


def install(mutant: str | None) -> None:
    """From now on loading in this process is such a mutant."""
    if mutant is not None:
        MUTANTS[mutant]()
