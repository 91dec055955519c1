"""Guards: what gives up a value that is being loaded, though its entry is not there: tags, and the epoch of the whole cache.

`delete_pattern` and `clear` end the epoch, because a load of an entry that is missing leaves no name that they could
find.  Before that they note their globs in a list, each with the epoch that it ended.  So a load whose epoch has ended can
tell whether it is meant: if its epoch is in the list, and no glob from there on may match its name, it goes on in the
epoch of now.  The epoch of now is read in the same step as the list; a glob that is noted later ends it again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from fleetcache import commands as c
from fleetcache.codec.metadata import VERSION
from fleetcache.keys import epoch_name, gone_name, in_utf8
from fleetcache.loading.flights import Flights
from fleetcache.patterns import may_match
from fleetcache.values import Values

Guards: TypeAlias = Mapping[str, bytes]
"""What gives up a value, each with its version before the load."""

RENEWALS = 30
"""How often a load whose epoch ends goes on in the next one, before its value is not stored."""


class Guarding(Values):
    """Knows whether guards still have their versions."""

    _flights: Flights

    def _guards_of(self, tags: Sequence[str], version: object) -> list[str]:
        """Return the names of what gives up an entry with *tags*: their versions, and the cache's epoch."""
        names = [self._tag_name(tag, version) for tag in tags]
        return [*names, self._epoch]

    @property
    def _epoch(self) -> str:
        """The name of the epoch that `clear` and `delete_pattern` end: they cannot find what is only being loaded."""
        return epoch_name(self.key_prefix)

    async def _hold(self, guards: Guards) -> bool:
        """Whether each of *guards* has its version."""
        names = list(guards)
        for places, reply in await self._ask_many(c.MGET_NOW, names, None):
            if reply is None or any(guards[names[place]] != found for place, found in zip(places, reply, strict=False)):
                return False
        return True

    async def _spared_guards(self, ended: Mapping[str, Guards]) -> dict[str, Guards]:
        """Return the guards of now of those entries in *ended* of which only the epoch has ended, and not because of them."""
        if not self._flights.scripts:
            return {}
        epoch = self._epoch
        command = (c.NOTES, c.NOTED, 2, epoch, gone_name(self.key_prefix), os.urandom(VERSION), self._lease_life)
        ((reply,),) = await self._ask_all([(self.topology.home(epoch), [command])], None, scripts=True)
        if type(reply) is not list:
            return {}  # an outage, or this user has no right to read the list
        now, *notes = reply
        places = {note[:VERSION]: place for place, note in reversed([*enumerate(notes)])}
        found: dict[str, Guards] = {}
        for name, guards in ended.items():
            place = places.get(guards.get(epoch, b""))
            if place is not None:
                text = in_utf8(name)
                if not any(may_match(note[VERSION:], text) for note in notes[: place + 1]):
                    found[name] = {**guards, epoch: now}
        return found
