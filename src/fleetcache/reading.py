"""A read: from a copy in this process, or from a server, whose reply may leave a copy.

Only this module decides between the two.  It uses three methods of the near cache: `copy`, and if there is none,
`depart` before a server is asked and `arrive` when it has replied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from typing import Any

from fleetcache import commands as c
from fleetcache.codec.metadata import alone
from fleetcache.core import MISSING
from fleetcache.errors import UnreadableValue, is_outage
from fleetcache.exchange.contract import Command, Redirected, Reply, Server, Verb
from fleetcache.failsafe import TROUBLE
from fleetcache.judging import Judging
from fleetcache.near.near import PACKED, Copyless, Near
from fleetcache.near.store import Entry


class Reading(Judging):
    """The reads of plain values that operations use: of one name, or of several."""

    async def read(self, name: str, client: Any = None, *, fresh: bool = False) -> Any:
        """Return the value called *name*, MISSING if there is none; with *fresh* from the primary, without a copy."""
        if client is not None:
            self = self.through(client)
        near = self.near
        if near is None:
            return self.value(await self.ask((c.GET_NOW if fresh else c.GET, name), None), name, MISSING)
        if not fresh and (copy := near.copy(name)) is not None:
            return self.served(copy, MISSING)
        return await self._fetch(near, name, fresh=fresh)

    async def read_many(self, named: Mapping[str, Any], client: Any = None, *, fresh: bool = False) -> dict[Any, Any]:
        """Return a dict from key to value, without the missing ones; *fresh* as with `read`.

        *named* maps each name to its key.  The values that are not near are read in one round trip.
        """
        if client is not None:
            self = self.through(client)
        near, names = self.near, list(named)
        if near is None:
            payloads = await self._payloads(c.MGET_NOW if fresh else c.MGET, names)
            return self._values(named.values(), names, payloads)
        copies = {} if fresh else near.copies_of(names)
        found = {name: self.served(copy, MISSING) for name, copy in copies.items()}
        if len(copies) < len(names):
            found |= await self._fetch_many(near, [name for name in names if name not in copies])
        return {key: found[name] for name, key in named.items() if found.get(name, MISSING) is not MISSING}

    async def is_there(self, name: str, client: Any = None, *, fresh: bool = False) -> bool:
        """Return whether there is an entry called *name*, of any kind; *fresh* as with `read`."""
        if client is not None:
            self = self.through(client)
        near = self.near
        if near is not None and not fresh and (copy := near.copy(name)) is not None:
            copy.hits += 1
            return copy.value is not PACKED or copy.payload is not None
        found = bool(await self.ask((c.EXISTS if near is None and not fresh else c.EXISTS_NOW, name), False))
        self.overtake(name)
        return found

    def overtake(self, name: str) -> None:
        """Give up the copy of *name*: the caller has read past it, and may have seen a newer value."""
        if self.near is not None:
            self.near.forget((name,))

    def served(self, copy: Entry, default: Any) -> Any:
        """Return the value of a copy that may be served, *default* if it is a copy of "missing"."""
        copy.hits += 1
        if copy.value is not PACKED:
            return copy.value
        return self.value(copy.payload, copy.name, default)

    # --- from a server ----------------------------------------------------------------------------

    async def _fetch(self, near: Near | Copyless, name: str, *, fresh: bool) -> Any:
        """Return the value called *name*, MISSING if there is none; leave a copy for the next reader."""
        name = str(name)  # a CacheKey becomes a plain text, with which the store is faster
        read = near.depart(name)
        if read is None:
            payload = await self.ask((c.GET_NOW if fresh else c.GET, name), None)
            self.overtake(name)
            return self.value(payload, name, MISSING)
        server = read.server or self.topology.home(name)
        # Always from the primary: a replica may be older than a copy that was read before.
        commands = ((c.GET_NOW, name), (c.PTTL_NOW, name)) if read.number else ((c.GET_NOW, name),)
        left = None  # the time to live, only if the primary itself has replied
        try:
            if self.runtime.blocks:  # written out, as in `ask`
                replies = server.exchange(commands)
            else:
                replies = await self.runtime.exchange(server, commands)
            payload = replies[0]
            if type(payload) not in c.GET_NOW.answers:
                self.check(payload, commands[0])
            if read.number and not isinstance(replies, Redirected) and type(replies[1]) is int:
                left = replies[1]
        except TROUBLE as error:
            if not is_outage(error) or self.topology.route((c.GET, name)) is server:
                return self.instead(error, MISSING, ((c.GET, name),))
            payload = await self.ask((c.GET, name), None)  # a replica answers
        value = MISSING
        if payload is not None:
            try:
                value = alone(self.codec.decode(payload))
            except UnreadableValue as error:
                self.note_unreadable(error, name)
                left = None
        near.arrive(read, value, payload, left)
        return value

    async def _fetch_many(self, near: Near | Copyless, names: Sequence[str]) -> dict[str, Any]:
        """Return the values of those *names* that have one; leave copies."""
        names = list(map(str, names))
        reads = near.depart_many(names)
        shares = [
            (server, names if len(places) == len(names) else [names[place] for place in places])
            for server, places in self.topology.shares(names, reads=False)
        ]
        plan: list[tuple[Server, list[Command]]] = []
        for server, share in shares:
            # From its primary, as in `_fetch`, unless that is away.
            asked = self.topology.route((c.GET, share[0])) if server.away else server
            times = [(c.PTTL_NOW, name) for name in share if name in reads] if reads and asked is server else []
            plan.append((asked, [*self.batch(c.MGET_NOW, share), *times]))
        values: dict[str, Any] = {}
        for (_, share), (_, commands), replies in zip(shares, plan, await self.ask_all(plan, None), strict=True):
            timed = [command[1] for command in commands if command[0] is c.PTTL_NOW] if reads else []
            count = len(commands) - len(timed)
            payloads = self.merged(c.MGET_NOW, replies[:count])
            if payloads is None:
                continue  # an ignored outage
            found = self._values(share, share, payloads)
            # Another server than the primary does not know how long a copy may live.
            lefts = dict(zip(timed, () if isinstance(replies, Redirected) else replies[count:], strict=False))
            near.arrive_many(share, reads, found, payloads, lefts)
            values = {**values, **found} if values else found
        return values

    async def _payloads(self, verb: Verb, names: list[str]) -> list[bytes | None]:
        """Return the payload of each of *names*, None if there is none or its server is away."""
        answers = await self.ask_many(verb, names, None)
        if len(answers) == 1 and len(answers[0][1] or ()) == len(names):
            payloads: list[bytes | None] = answers[0][1]
            return payloads
        payloads = [None] * len(names)
        for places, reply in answers:
            for place, payload in zip(places, reply or (), strict=False):
                payloads[place] = payload
        return payloads

    def _values(self, keys: Iterable[Any], names: Iterable[str], payloads: list[Reply]) -> dict[Any, Any]:
        """Return the values in those of *payloads* that hold one, by their *keys*."""
        if None in payloads:
            there = [payload is not None for payload in payloads]
            keys, names, payloads = compress(keys, there), compress(names, there), list(compress(payloads, there))
        values = zip(keys, self.entries(payloads, names), strict=True)
        return {key: alone(value) for key, value in values if value is not MISSING}
