"""Output that is written as it is found: lines for people, or the members of a list in one JSON document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

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
            self.call.write(f"{self._beginning() if self.number == 1 else ','}\n{json.dumps(document, default=str)}")
        else:
            self.call.say(line)

    def end(self, facts: dict[str, Any]) -> None:
        """End the JSON document with *facts*."""
        if self.call.json:
            rest = json.dumps(facts, default=str)[1:]
            self.call.say(f"{'' if self.number else self._beginning()}\n], {rest}")
        self.call.listing = None

    def _beginning(self) -> str:
        return f'{{"{self.name}": ['
