"""Output that is written as it is found: lines for people, or the members of a list in one JSON document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleetcache.cli.showing import as_json

if TYPE_CHECKING:
    from fleetcache.cli.calls import Call


class Listing:
    """A list that is called *name* in the JSON document."""

    def __init__(self, call: Call, name: str) -> None:
        self.call, self.name = call, name
        self.number = 0
        call.listing = self

    def add(self, document: Any, line: str) -> None:
        """Write one more: *document* as JSON, or *line*."""
        self.number += 1
        if self.call.json:
            self.call.write(f"{self._beginning() if self.number == 1 else ','}\n{as_json(document)}")
        else:
            self.call.say(line)

    def end(self, facts: dict[str, Any]) -> None:
        """End the JSON document with *facts*."""
        if self.call.json:
            rest = as_json(facts)[1:]
            self.call.say(f"{'' if self.number else self._beginning()}\n], {rest}")
        self.call.listing = None

    def _beginning(self) -> str:
        return f'{{"{self.name}": ['
