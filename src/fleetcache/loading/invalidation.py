"""invalidate_tags, invalidate: give up values, those that are just being loaded too."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from fleetcache import commands as c
from fleetcache.codec.metadata import Described, new_stamp
from fleetcache.failsafe import RAISE
from fleetcache.keys import Key, Version
from fleetcache.owed import OWED, PASSING
from fleetcache.tagging import checked
from fleetcache.twin import blocking, complete
from fleetcache.values import Values


class Invalidation(Values):
    """Operations that give up entries before their time."""

    async def ainvalidate_tags(self, *tags: str, version: Version = None, later: bool = False) -> int:
        """Give up every entry that has one of *tags*, stored or being loaded; return how many of the tags were in use.

        It takes as long for a million entries as for one.  If a server does not get it, this raises, also with
        IGNORE_EXCEPTIONS: or else old values would be served as if nothing had happened.  With *later* the tags are
        invalid in this process at once, and everywhere as soon as the server is back.
        """
        names = [self._tag_name(tag, version) for tag in checked(tags, most=None)]
        if not names:
            return 0
        try:
            found = await self._give_up(names)
        except PASSING:
            still = (self._still or self)._face(_failsafe=RAISE)
            if not later or not still._runtime.blocks:  # in a pipeline: its caller can try again
                raise
            if not OWED.add(names, lambda owed: complete(still._give_up(list(owed)))):
                raise
            return 0
        if OWED.names:
            OWED.settle(names)
        return found

    invalidate_tags = blocking(ainvalidate_tags)

    async def _give_up(self, names: Collection[str]) -> int:
        """Delete the versions under *names*, and return how many there were; no error is ignored."""
        strict = self._face(_failsafe=RAISE)
        return sum([int(reply) for _, reply in await strict._ask_many(c.GIVE_UP, list(names), None)])

    async def ainvalidate(self, key: Key, version: Version = None, *, soft: bool = False) -> bool:
        """Give up the entry of *key*, also if it is just being loaded; return whether there was one.

        With *soft* it only becomes stale: loading calls with `stale_while_revalidate` or `stale_if_error` may still
        return it while it is loaded anew.  An entry that was stored without a stale life is deleted.
        """
        if not soft:
            return await self.adelete(key, version)
        await self._runtime.alone()
        name = self.name(key, version)
        while True:
            plan = [(self.topology.home(name), ((c.GET_NOW, name), (c.TIME,)))]
            ((payload, now),) = await self._ask_all(plan, None)
            found = None if payload is None else self._entry(payload, name)
            if now is None or type(found) is not Described or not found.metadata.stale:
                return await self.adelete(key, version)
            # The time itself, and no guess, which may be ahead.  Clocks of readers are not behind the server's, but for
            # the two parts of a millisecond that are cut off when they are set and read.
            ends = min(found.metadata.fresh_until, int(self._shown_by(now)) - 2)
            metadata = replace(found.metadata, fresh_until=ends, stamp=new_stamp())
            (new,) = await self.encoded((found.value,), metadata=[metadata])
            command = (c.EVALSHA, c.SWAP, 1, name, payload, new, "KEEPTTL")
            swapped = await self._ask_voiding(command, 0, None)
            if swapped != 0:
                return bool(swapped)

    invalidate = blocking(ainvalidate)
