"""Objects that stand for "no value", where None could be one."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from enum import Enum
from typing import Final, Literal, TypeAlias


class Mark(Enum):
    """Objects that stand for "no value"."""

    DEFAULT_TIMEOUT = "the cache's own timeout, as against None, which is for ever"
    MISSING = "nothing is there, where None could be"

    def __repr__(self) -> str:
        return self.name


DEFAULT_TIMEOUT: Final = Mark.DEFAULT_TIMEOUT
MISSING: Final = Mark.MISSING
Timeout: TypeAlias = float | Decimal | timedelta | Literal[Mark.DEFAULT_TIMEOUT] | None
"""For how long an entry lives: seconds, a ``timedelta``, None for ever, or the cache's own timeout."""
