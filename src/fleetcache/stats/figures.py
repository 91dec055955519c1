"""The figures of ``cache.info()``: each has a name, one sentence, and an attribute that `info` reads.

To add one, count in a plain attribute of the class that knows, and register its name beside the class::

    COUNTED = Figures("near", misses="Reads that found no copy here.")
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

MEANINGS: dict[str, str] = {}
"""The sentence of every figure, by its path in ``info()``; docs/observing.md shows them."""


class Figures:
    """The figures of one subject, which ``info()`` returns under *part*."""

    def __init__(self, part: str, /, **meanings: str) -> None:
        self.names = tuple(meanings)
        MEANINGS.update({f"{part}.{name}".lstrip("."): meaning for name, meaning in meanings.items()})

    def of(self, counting: Any) -> dict[str, Any]:
        """Return the figures of *counting*, which has an attribute for each."""
        found = {name: getattr(counting, name) for name in self.names}
        return {name: _plain(figure) for name, figure in found.items()}


def _plain(figure: Any) -> Any:
    """Return *figure* as a copy that does not change, and that can be written as JSON."""
    if isinstance(figure, Mapping):
        return dict(figure)
    return figure.value if isinstance(figure, Enum) else figure
