"""The figures of ``cache.info()``: each has a name, one sentence, and an attribute that is read when somebody asks.

Code that counts adds to plain integers, and registers them beside the class that has them::

    COUNTED = Figures("near", misses="Reads that found no copy here.")
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

MEANINGS: dict[str, str] = {}
"""The sentence of every figure, by its path in ``info()``; docs/observing.md shows them."""


class Figures:
    """The figures of one subject; in ``info()`` they stand under *part*."""

    def __init__(self, part: str, /, **meanings: str) -> None:
        self.names = tuple(meanings)
        MEANINGS.update({f"{part}.{name}".lstrip("."): meaning for name, meaning in meanings.items()})

    def of(self, counting: Any) -> dict[str, Any]:
        """Return the figures of *counting*, which has an attribute for each."""
        found = {name: getattr(counting, name) for name in self.names}
        return {name: _plain(figure) for name, figure in found.items()}


def _plain(figure: Any) -> Any:
    """Return *figure* as it may be kept, or written as JSON: what counts goes on counting."""
    if isinstance(figure, Mapping):
        return dict(figure)
    return figure.value if isinstance(figure, Enum) else figure
