"""The steps that operations on structures share."""

from __future__ import annotations

from typing import Any

from fleetcache.core import Core
from fleetcache.exchange.contract import Verb


class Structure(Core):
    """The steps that operations on sets and lists share."""

    async def _give(self, verb: Verb, key: Any, values: tuple[Any, ...], version: Any, client: Any) -> int:
        """Send *verb* with the name and *values*, and return the count that the server answers."""
        payloads = await self.encoded(values)
        return int(await self.ask((verb, self.name(key, version), *payloads), 0, client))

    async def _take(self, verb: Verb, key: Any, count: int | None, version: Any, client: Any) -> Any:
        """Return one value, None if there is none; with *count* a list of at most *count* values."""
        name = self.name(key, version)
        if count is not None:
            return self._decoded_all(await self.ask((verb, name, count), None, client) or (), name)
        return self._value(await self.ask((verb, name), None, client), name)


def number(reply: Any) -> int | None:
    """Return *reply* as a number; None, in an outage, stays None, so that no caller takes it for 0."""
    return None if reply is None else int(reply)


def score(reply: Any) -> float | None:
    """Return a score as a number; RESP2 sends it as text."""
    return None if reply is None else float(reply)


def pairs(flat: Any) -> list[tuple[Any, Any]]:
    """Return the items of a flat reply in pairs."""
    items = iter(flat)
    return list(zip(items, items, strict=True))
