"""A read: from a copy in this process, or from a server, whose reply may leave a copy.

Only this module decides between the two.  It uses three methods of the near cache: `copy`, and if there is none,
`depart` before a server is asked and `arrive` when it has replied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, compress
from math import inf
from typing import Any

from fleetcache import commands as c
from fleetcache.codec.metadata import GLIMPSE, Described, Metadata
from fleetcache.core import MISSING
from fleetcache.errors import UnreadableValue, is_outage
from fleetcache.exchange.contract import Command, Redirected, Reply, Server, Verb
from fleetcache.failsafe import TROUBLE
from fleetcache.judging import NOTHING, NOWHERE, Judgement, Judging, Standing, Versions, drawn
from fleetcache.near.near import PACKED, Copyless, Near
from fleetcache.near.reads import Read
from fleetcache.near.store import Entry
from fleetcache.owed import OWED
from fleetcache.policy import early_by
from fleetcache.stats.tally import Tally
from fleetcache.tagging import Hint


@dataclass(slots=True)
class Found:
    """An entry as a read found it on the server."""

    value: Any = MISSING
    """Its value, fresh or stale; MISSING if there is none, or none that may be served."""
    payload: bytes | None = None
    """Its payload, also if it was given up or cannot be read: see `mark`."""
    metadata: Metadata | None = None
    standing: Standing | None = None
    """None for an entry without metadata, or none at all."""
    milliseconds: int | None = None
    """Its fresh life, 0 or less if that has ended; None if it is as long as the entry lives."""

    def served(self, *, stale: bool = False) -> Any:
        """Return the value if it is fresh, or with *stale* in any case; else MISSING."""
        return MISSING if self.standing is Standing.STALE and not stale else self.value

    @property
    def left(self) -> float | None:
        """Its seconds of fresh life, as `decide` takes them: negative if it is stale, None if it is missing."""
        if self.value is MISSING:
            return None
        return inf if self.milliseconds is None else self.milliseconds / 1000


class Reading(Judging):
    """The reads of plain values that operations use: of one name, or of several."""

    async def _read(
        self, name: str, client: Any = None, fresh: bool = False, stale: bool = False, hint: Hint | None = None
    ) -> Any:
        """Return the value called *name*, MISSING if there is none; with *fresh* from the primary, without a copy.

        With *stale* also a value whose fresh life has ended.  *hint* has the tags that the entry is said to have.
        """
        if client is not None:
            self = self._through(client)
        near = self.near
        if near is None:
            if hint is not None or (self._hints.recent and (hint := self._hints.of(name)) is not None):
                return await self._read_hinted(name, hint, fresh=fresh, stale=stale)
            payload = await self.ask((c.GET_NOW if fresh else c.GET, name), None)
            tally = self.tally
            if payload is None:
                if tally is not None:
                    (tally.seen.get(name) or tally.known[name]).missed += 1
                return MISSING
            try:  # written out, as in `decoded`: it saves a tenth of a microsecond of each `get`
                value = self.codec.decode(payload)
            except UnreadableValue as error:
                return self._unread(error, name, payload)
            if type(value) is Described:
                metadata = value.metadata
                judged = self._prompt(name, metadata, exact=stale)
                judged = judged or await self._judgement(name, metadata, exact=stale, fresh=fresh)
                if metadata.tags:
                    self._note_tags(name, metadata, payload)
                served = value.value if judged.serves(stale=stale) else MISSING
                return self._counted(name, served, payload, judged.standing)
            if tally is not None:
                (tally.seen.get(name) or tally.known[name]).sizes.append(len(payload))
            return value
        if not fresh and (copy := near.copy(name)) is not None:
            return self._served(copy, MISSING)
        return await self._fetch(near, name, fresh=fresh, stale=stale)

    def _counted(self, name: str, value: Any, payload: bytes | None, standing: Standing | None = None) -> Any:
        """Count a read that found *payload*, and return *value*, which its caller gets; MISSING if there is none."""
        if self.tally is not None:
            level = "missed" if value is MISSING else "stale" if standing is Standing.STALE else "server"
            self.tally.known[name].read(level, payload)
        return value

    def _unread(self, error: UnreadableValue, name: str, payload: bytes) -> Any:
        """Count a read that found a *payload* that cannot be read; return MISSING, or raise if UNREADABLE says so."""
        self._note_unreadable(error, name)
        return self._counted(name, MISSING, payload)

    async def _find(self, name: str, client: Any = None, *, fresh: bool = False) -> Found:
        """Return the entry called *name* as it is on the server, and leave a copy as `_read` does; *fresh* as with `_read`.

        This read is not counted; if it is a user's, the caller counts what comes of it.
        """
        if client is not None:
            self = self._through(client)
        near = self.near
        if near is None:
            hint, known = self._hints.of(name), NOTHING
            if hint is None:
                payload = await self.ask((c.GET_NOW if fresh else c.GET, name), None)
            else:
                payload, *versions = await self._payloads(c.MGET_NOW if fresh else c.MGET, [name, *hint.names])
                known = self._owing(hint, dict(zip(hint.tags, versions, strict=True)))
            return await self._far(name, payload, hint, known, exact=True, fresh=fresh)
        found: Found = await self._fetch(near, name, fresh=fresh, look=True)
        return found

    async def _read_hinted(self, name: str, hint: Hint, *, fresh: bool, stale: bool) -> Any:
        """Return what `_read` returns without a near cache; the versions of the tags in *hint* are asked for with the entry."""
        if hint.command is None or fresh:
            payload, *versions = await self._payloads(c.MGET_NOW if fresh else c.MGET, [name, *hint.names])
        else:
            payload, *versions = await self.ask(hint.command, None) or (None, *hint.names)
        if payload is None:
            return self._counted(name, MISSING, None)
        if hint.head and versions == hint.versions and payload.startswith(hint.head) and not OWED.names:
            try:  # the same entry as before, so that its metadata need not be decoded
                return self._counted(name, self.codec.behind(payload, hint.begins), payload)
            except UnreadableValue as error:
                return self._unread(error, name, payload)
        known = self._owing(hint, dict(zip(hint.tags, versions, strict=True)))
        seen = await self._far(name, payload, hint, known, exact=stale, fresh=fresh)
        return self._counted(name, seen.served(stale=stale), payload, seen.standing)

    async def _far(
        self, name: str, payload: bytes | None, hint: Hint | None, known: Versions, *, exact: bool, fresh: bool
    ) -> Found:
        """Return the entry called *name*, read without a near cache; *known* are versions of the tags in *hint*."""
        value = MISSING if payload is None else self._entry(payload, name)
        if type(value) is not Described:
            if hint is not None and payload is not None:
                self._hints.forget(name)
            return Found(value, payload)
        metadata = value.metadata
        if metadata.tags:
            self._note_tags(name, metadata, payload)
        if hint is None or hint.scope != metadata.scope:
            known = NOTHING
        judged = self._prompt(name, metadata, known, exact=exact)
        return _found(value, payload, judged or await self._judgement(name, metadata, known, exact=exact, fresh=fresh))

    async def _examine(self, name: str, payload: bytes | None, *, exact: bool = True) -> Found:
        """Return the entry called *name* whose *payload*, None for none, was read; *exact* as with `_judgement`."""
        value = MISSING if payload is None else self._entry(payload, name)
        return await self._seen(name, value, payload, exact=exact, fresh=True)

    async def _seen(self, name: str, value: Any, payload: bytes | None, *, exact: bool, fresh: bool) -> Found:
        """Return the entry called *name* with *value*, which may be `Described`."""
        if type(value) is not Described:
            return Found(value, payload)
        metadata = value.metadata
        judged = self._prompt(name, metadata, exact=exact)
        judged = judged or await self._judgement(name, metadata, exact=exact, fresh=fresh)
        return _found(value, payload, judged)

    async def _read_many(
        self,
        named: Mapping[str, Any],
        client: Any = None,
        *,
        fresh: bool = False,
        looked: dict[str, Found] | None = None,
        counted: bool = True,
    ) -> dict[Any, Any]:
        """Return a dict from key to value, without the missing ones; *fresh* as with `_read`.

        *named* maps each name to its key.  The values that are not near are read in one round trip.  *looked* gets the
        entries with metadata as they were found, also those that are not fresh.  The reads are *counted* if they are a
        user's.
        """
        if client is not None:
            self = self._through(client)
        near, names = self.near, list(named)
        tally = self.tally if counted else None
        if near is None:
            payloads, known = await self._payloads_tagged(c.MGET_NOW if fresh else c.MGET, names)
            values = self._values(named.values(), names, payloads)
            if Described in map(type, values.values()):
                found = {name: values[key] for name, key in named.items() if key in values}
                paid, exact = dict(zip(names, payloads, strict=True)), looked is not None
                seen = await self._settle(found, paid, known, exact=exact, fresh=fresh)
                for name, each in seen.items():
                    if each.metadata is not None:
                        self._note_tags(name, each.metadata)
                if looked is not None:
                    looked.update(seen)
                values = {named[name]: value for name, value in found.items()}
            if tally is not None:
                tally.read_all(names, named.values(), payloads, values)
            return values
        copies = {} if fresh else near.copies_of(names)
        found = {name: self._served(copy, MISSING) for name, copy in copies.items()}
        if len(copies) < len(names):
            left = [name for name in names if name not in copies]
            found |= await self._fetch_many(near, left, looked, tally, fresh=fresh)
        return {key: found[name] for name, key in named.items() if found.get(name, MISSING) is not MISSING}

    async def _is_there(self, name: str, client: Any = None, *, fresh: bool = False, counted: bool = True) -> bool:
        """Return whether there is an entry called *name*, of any kind, that is not stale.

        *fresh* as with `_read`; this read is *counted* if it is a user's.
        """
        if client is not None:
            self = self._through(client)
        near = self.near
        if near is not None and not fresh and (copy := near.copy(name)) is not None:
            copy.hits += 1
            return copy.value is not PACKED or copy.payload is not None
        primary = fresh or near is not None
        exists = (c.EXISTS_NOW if primary else c.EXISTS, name)
        found, shown = await self._ask_beside(exists, self._glimpse(name, primary=primary), False)
        if near is not None:
            self._overtake(name)
        there = bool(found)
        if not self.codec.is_plain(shown) and (metadata := await self._shown(name, shown, primary=primary)) is not None:
            there = (await self._judgement(name, metadata, exact=False, fresh=fresh)).standing is Standing.FRESH
        if counted:
            self._counted(name, there or MISSING, None)
        return there

    def _glimpse(self, name: str, *, primary: bool) -> Command:
        """Return the command that shows whether the entry called *name* has metadata, in the exchange of another one."""
        if self.codec.compresses:
            return (c.GLANCE_NOW if primary else c.GLANCE, name)
        return (c.GLIMPSE_NOW if primary else c.GLIMPSE, name, 0, GLIMPSE - 1)

    async def _shown(self, name: str, reply: Reply, *, primary: bool) -> Metadata | None:
        """Return the metadata of the entry called *name*; None if it has none.

        *reply* is that to `_glimpse`: the beginning of a payload, or none of an entry of another kind or in an ignored outage.
        """
        if self.codec.is_plain(reply):
            return None
        try:
            return self.codec.metadata(reply)
        except UnreadableValue:
            if self.codec.compresses:
                return None  # unreadable, and an entry
        # Its metadata is longer than usual, or was compressed by a compressor that is not configured any more.
        payload = await self.ask((c.GET_NOW if primary else c.GET, name), None)
        with suppress(UnreadableValue):
            return None if payload is None else self.codec.metadata(payload)
        return None

    def _overtake(self, name: str) -> None:
        """Give up the copy of *name*: the caller has read past it, and may have seen a newer value."""
        if self.near is not None:
            self.near.forget((name,))

    def _served(self, copy: Entry, default: Any) -> Any:
        """Return the value of a copy that may be served, *default* if it is a copy of "missing"."""
        copy.hits += 1
        if copy.value is not PACKED:
            return copy.value
        return self._value(copy.payload, copy.name, default)

    # --- from a server ----------------------------------------------------------------------------

    async def _fetch(
        self, near: Near | Copyless, name: str, *, fresh: bool, stale: bool = False, look: bool = False
    ) -> Any:
        """Return the value called *name*, MISSING if there is none, or with *look* a `Found`; leave a copy for the next reader.

        *fresh* and *stale* as with `_read`.
        """
        name = str(name)  # a CacheKey becomes a plain text, with which the store is faster
        read = near.depart(name)
        if read is None:
            payload = await self.ask((c.GET_NOW if fresh else c.GET, name), None)
            self._overtake(name)
            entry = MISSING if payload is None else self._entry(payload, name)
            seen = await self._seen(name, entry, payload, exact=look or stale, fresh=fresh)
            return seen if look else self._counted(name, seen.served(stale=stale), payload, seen.standing)
        server = read.server or self.topology.home(name)  # always the primary: a replica may be older than a copy
        commands = ((c.GET_NOW, name), (c.PTTL_NOW, name)) if read.number else ((c.GET_NOW, name),)
        left = None  # the time to live, only if the primary itself has replied
        tally = self.tally
        began = 0.0 if tally is None else tally.asks(((server, commands),))
        try:
            if self._runtime.blocks:  # written out, as in `ask`
                replies = server.exchange(commands)
            else:
                replies = await self._runtime.exchange(server, commands)
            payload = replies[0]
            if type(payload) not in c.GET_NOW.answers:
                self._check_reply(payload, commands[0])
            if read.number and not isinstance(replies, Redirected) and type(replies[1]) is int:
                left = replies[1]
            if began and tally is not None:
                self._note_answered(tally, ((server, commands),), (replies,), began)
        except TROUBLE as error:
            if not is_outage(error) or self.topology.route((c.GET, name)) is server:
                nothing = self._instead(error, Found(MISSING) if look else MISSING, ((c.GET, name),))
                return nothing if look else self._counted(name, nothing, None)
            payload = await self.ask((c.GET, name), None)  # a replica answers
        value: Any = MISSING
        if payload is not None:
            try:
                value = self.codec.decode(payload)
            except UnreadableValue as error:
                self._note_unreadable(error, name)
                left = None
        if look or type(value) is Described:
            seen = await self._seen(name, value, payload, exact=look or stale, fresh=fresh)
            self._arrive(near, read, seen, left)
            return seen if look else self._counted(name, seen.served(stale=stale), payload, seen.standing)
        near.arrive(read, value, payload, left)
        return self._counted(name, value, payload)

    def _arrive(self, near: Near | Copyless, read: Read, seen: Found, left: Any) -> None:
        """Leave a copy of what *read* brought, if it may have one; *left* as with `Near.arrive`."""
        life = left if seen.metadata is None else self._copy_life(near, read, seen, left)
        if life is None and seen.metadata is not None:
            near.forget((read.name,))
        elif seen.payload is None or seen.metadata is None:
            near.arrive(read, seen.value, seen.payload, life)
        else:
            near.arrive(read, seen.value, self.codec.bare(seen.payload), life)

    def _copy_life(self, near: Near | Copyless, read: Read | None, seen: Found, left: Any) -> int | None:
        """Return `_life`; None also for an entry with tags if there are not copies of all their versions."""
        life, metadata = _life(seen, left), seen.metadata
        if life is not None and metadata is not None and metadata.tags and not self._bind(near, read, metadata):
            return None
        return life

    async def _fetch_many(
        self,
        near: Near | Copyless,
        names: Sequence[str],
        looked: dict[str, Found] | None,
        tally: Tally | None,
        *,
        fresh: bool,
    ) -> dict[str, Any]:
        """Return the values of those *names* that have one; leave copies; *looked* as with `_read_many`."""
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
            plan.append((asked, [*self._batch(c.MGET_NOW, share), *times]))
        values: dict[str, Any] = {}
        for (_, share), (_, commands), replies in zip(shares, plan, await self._ask_all(plan, None), strict=True):
            timed = [command[1] for command in commands if command[0] is c.PTTL_NOW] if reads else []
            count = len(commands) - len(timed)
            payloads = self._merged(c.MGET_NOW, replies[:count])
            if payloads is None:  # an ignored outage
                if tally is not None:
                    tally.read_all(share, share, [None] * len(share), ())
                continue
            found, read = self._values(share, share, payloads), (share, share, payloads)
            # Another server than the primary does not know how long a copy may live.
            lefts = dict(zip(timed, () if isinstance(replies, Redirected) else replies[count:], strict=False))
            if Described in map(type, found.values()):
                paid, exact = dict(zip(share, payloads, strict=True)), looked is not None
                described = await self._settle(found, paid, exact=exact, fresh=fresh)
                if looked is not None:
                    looked.update(described)
                share, payloads = self._arrive_described(near, described, reads, share, payloads, lefts)  # noqa: PLW2901 - without them
            if tally is not None:
                tally.read_all(*read, found)
            near.arrive_many(share, reads, found, payloads, lefts)
            values = {**values, **found} if values else found
        return values

    def _arrive_described(
        self,
        near: Near | Copyless,
        described: Mapping[str, Found],
        reads: Mapping[str, Read],
        names: Sequence[str],
        payloads: Sequence[bytes | None],
        lefts: dict[str, Any],
    ) -> tuple[list[str], list[bytes | None]]:
        """Put into *lefts* how long copies of the *described* entries may live.

        Return those of *names* that may have copies, and the *payloads* to keep in them.
        """
        kept = dict(zip(names, payloads, strict=True))
        for name, seen in described.items():
            life = self._copy_life(near, reads.get(name), seen, lefts.get(name))
            payload = kept.pop(name)
            if life is None or payload is None:
                near.forget((name,))
            else:
                kept[name], lefts[name] = self.codec.bare(payload), life
        return list(kept), list(kept.values())

    async def _settle(
        self,
        values: dict[str, Any],
        payloads: Mapping[str, bytes | None],
        known: Mapping[str, Versions] = NOWHERE,
        *,
        exact: bool,
        fresh: bool,
    ) -> dict[str, Found]:
        """Put into *values* what the `Described` ones are worth, or take them out; return these as they were found.

        *exact* and *fresh* as with `_judgement`, *known* as with `_judgements`.
        """
        described = {name: value for name, value in values.items() if type(value) is Described}
        entries = [(name, value.metadata) for name, value in described.items()]
        judged = await self._judgements(entries, known, exact=exact, fresh=fresh)
        found = {}
        for (name, value), judgement in zip(described.items(), judged, strict=True):
            found[name] = seen = _found(value, payloads.get(name), judgement)
            values[name] = seen.served()
            if values[name] is MISSING:
                del values[name]
        return found

    async def _payloads_tagged(self, verb: Verb, names: list[str]) -> tuple[list[bytes | None], Mapping[str, Versions]]:
        """Return what `_payloads` returns, and the versions of the tags that the entries had when they were read last."""
        known_before = self._hints
        hints = [hint for name in names if (hint := known_before.of(name)) is not None] if known_before.recent else []
        if not hints:
            return await self._payloads(verb, names), NOWHERE
        asked = list(dict.fromkeys(chain.from_iterable([hint.names for hint in hints])))
        payloads = await self._payloads(verb, [*names, *asked])
        versions = dict(zip(asked, payloads[len(names) :], strict=True))
        known: dict[str, dict[str, bytes | None]] = {}
        for hint in hints:
            found = {tag: versions[name] for tag, name in zip(hint.tags, hint.names, strict=True)}
            known.setdefault(hint.scope, {}).update(self._owing(hint, found))
        return payloads[: len(names)], known

    async def _payloads(self, verb: Verb, names: list[str]) -> list[bytes | None]:
        """Return the payload of each of *names*, None if there is none or its server is away."""
        answers = await self._ask_many(verb, names, None)
        if len(answers) == 1 and len(answers[0][1] or ()) == len(names):
            payloads: list[bytes | None] = answers[0][1]
            return payloads
        payloads = [None] * len(names)
        for places, reply in answers:
            for place, payload in zip(places, reply or (), strict=False):
                payloads[place] = payload
        return payloads

    def _values(self, keys: Iterable[Any], names: Iterable[str], payloads: list[Reply]) -> dict[Any, Any]:
        """Return the values in those of *payloads* that hold one, by their *keys*; they may be `Described`."""
        if None in payloads:
            there = [payload is not None for payload in payloads]
            keys, names, payloads = compress(keys, there), compress(names, there), list(compress(payloads, there))
        values = zip(keys, self._entries(payloads, names), strict=True)
        return {key: value for key, value in values if value is not MISSING}


def _found(described: Described, payload: bytes | None, judgement: Judgement) -> Found:
    standing, left = judgement
    value = MISSING if standing is Standing.GIVEN_UP else described.value
    return Found(value, payload, described.metadata, standing, left)


def _life(seen: Found, left: Any) -> int | None:
    """Return the milliseconds that a copy of *seen* may live, -1 for ever; None if there may be none.

    *left* is the reply to PTTL.  If the entry is to be renewed early, the copy ends at the moment that is drawn for
    it here, so a hit draws nothing, and a value that is always near is renewed as well.
    """
    metadata = seen.metadata
    if metadata is None or type(left) is not int or left == -2 or seen.standing is not Standing.FRESH:
        return None
    ends = [end for end in (left, seen.milliseconds) if end is not None and end >= 0]
    if not ends:
        return -1
    life = min(ends)
    if metadata.early:
        life -= int(early_by(metadata.cost, metadata.early, drawn(metadata.stamp)))
    return life if life > 0 else None
