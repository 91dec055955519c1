"""Tags: names that entries share, so that all entries of a tag can be given up in one step.

Each tag has a *version*, 8 random bytes under a name of its own, made by the first who needs it.  An entry carries
its tags with the versions that they had before its value was made, and is valid as long as each tag has that version.
A tag without a version makes its entries invalid.  So a tag is invalidated by deleting its version, which takes the
same time for any number of entries, stored or still being loaded, and which a server does even when its memory is full.

(Versions that are counters would begin again when the server evicts one, and revive old entries; clocks differ.)
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from time import monotonic
from typing import Any, NamedTuple, TypeAlias

from redis.exceptions import ResponseError

from fleetcache import commands as c
from fleetcache.codec.metadata import LONG, MAX_TAGS, SHORT, VERSION, Metadata, opened
from fleetcache.core import Core
from fleetcache.exchange.contract import Command, Redirected, Server
from fleetcache.keys import TAG, default_key_function
from fleetcache.near.near import Copyless, Near
from fleetcache.near.reads import Read
from fleetcache.owed import OWED
from fleetcache.stats.payloads import MINUTE
from fleetcache.times import LARGEST

Tags: TypeAlias = tuple[tuple[str, bytes], ...]
"""Tags, each with its version."""

LONGER = 2
"""How many times the life of an entry its tags live, so that they rarely need more: `PEXPIRE` is announced."""

LONGEST = 1000
"""How many letters a tag has at most."""

GENERATION = 4096
"""Of how many entries, at least, the tags are remembered."""

PICKLED = (SHORT, LONG)
"""The first bytes of metadata that is part of a pickle."""

IN_BYTES = TAG.encode()


class Hint(NamedTuple):
    """The tags that an entry had when it was read last, or has by its reader's word."""

    scope: str
    tags: tuple[str, ...]
    names: tuple[str, ...]
    """The names of the tags' versions."""
    command: Command | None = None
    """Asks for the entry and the versions; None if they are on several servers or slots."""
    head: bytes = b""
    """The metadata with which the entry was found, if that says nothing of time: with `_versions` it is fresh."""
    begins: int = 0
    """Where the serializer reads on behind it; a pickle is read from its beginning."""
    versions: Sequence[bytes] = ()


class Hints:
    """The tags last seen of each of many entries, so that a read of one asks for their versions at the same time.

    There are two generations; when the newer is full, the older is dropped.  No lock: a wrong guess costs a round trip.
    """

    def __init__(self) -> None:
        self.recent: dict[str, Hint] = {}
        self.older: dict[str, Hint] = {}

    def of(self, name: str) -> Hint | None:
        """Return the tags of the entry called *name*; None if they are not known."""
        return self.recent.get(name) or self.older.get(name)

    def note(self, name: str, hint: Hint) -> None:
        """Remember the tags of the entry called *name*."""
        if len(self.recent) >= GENERATION:
            self.older, self.recent = self.recent, {}
        self.recent[name] = hint

    def forget(self, name: str) -> None:
        """Forget *name*, which has no tags any more."""
        self.recent.pop(name, None)
        self.older.pop(name, None)


def checked(tags: Any, *, most: int | None = MAX_TAGS) -> tuple[str, ...]:
    """Return *tags*, the argument of an operation, without repetitions; refuse what names no tags, or more than *most*."""
    if not tags and isinstance(tags, (tuple, list)):
        return ()
    if isinstance(tags, (str, bytes)) or not isinstance(tags, Iterable):
        raise TypeError(f"tags takes an iterable of texts, such as a list, not {_shown(tags)}")
    found = list(tags)
    for tag in found:
        if not isinstance(tag, str):
            several = isinstance(tag, (list, tuple, set, frozenset))
            hint = ". Write a star before it, which passes its members" if several else ""
            raise TypeError(f"tags takes texts; {_shown(tag)} is of the type {type(tag).__name__}{hint}")
        if not tag:
            raise ValueError("tags: a tag has to have a letter at least, not be an empty text")
        if len(tag) > LONGEST:
            raise ValueError(f"tags: {_shown(tag)} has {len(tag)} letters; {LONGEST} are the most")
    found = list(dict.fromkeys(map(str, found)))
    if most is not None and len(found) > most:
        raise ValueError(f"tags: an entry has at most {most} tags, not {len(found)}")
    return tuple(found)


def _shown(what: Any) -> str:
    text = repr(what)
    return text if len(text) <= 40 else f"{text[:36]}…"


class Tagging(Core):
    """The versions of tags: what they are now, and which a new entry gets."""

    _hints: Hints
    """The tags of entries that were read without a near cache, in all caches of this configuration."""

    def _tag_name(self, tag: str, version: Any = None) -> str:
        """Return the name under which the version of *tag* is stored."""
        return self.name(TAG + tag, version)

    def _version_in(self, scope: str) -> Any:
        """Return the version that the text *scope* of an entry means: None for the cache's own, else a number if it is one.

        A key function may format versions as numbers.
        """
        if not scope or scope == str(self.version):
            return None
        return int(scope) if scope.isdecimal() and scope == str(int(scope)) else scope

    def _hint(self, name: str, tags: Iterable[str], version: Any = None) -> Hint | None:
        """Return the tags that the entry called *name* had when it was read last, else *tags*, which it is said to have."""
        known = self._hints.of(name)
        if known is not None and not isinstance(tags, str):
            return known
        found = checked(tags)
        scope = str(self.version if version is None else version)
        return Hint(scope, found, tuple(self._tag_name(tag, version) for tag in found)) if found else None

    def _owing(self, hint: Hint, versions: dict[str, bytes | None]) -> dict[str, bytes | None]:
        """Return *versions* of tags, without those whose invalidation the server has not received."""
        if OWED.names:
            owed = OWED.among(hint.names)
            versions.update((tag, None) for tag, name in zip(hint.tags, hint.names, strict=True) if name in owed)
        return versions

    def _note_tags(self, name: str, metadata: Metadata, payload: bytes | None = None) -> None:
        """Remember the tags of the entry called *name*, which was read, and of its *payload* what saves decoding it."""
        known = self._hints.of(name)
        if not metadata.tags:
            if known is not None:
                self._hints.forget(name)
            return
        tags = tuple([tag for tag, _ in metadata.tags])
        same = known is not None and known.tags == tags and known.scope == metadata.scope
        if known is not None and same and (payload is None or (known.head and payload.startswith(known.head))):
            return
        names = tuple([str(self._tag_name(tag, self._version_in(metadata.scope))) for tag in tags])
        hint = Hint(metadata.scope, tags, names)
        if not self.topology.one_by_one and self.topology.together([name, *names]):
            hint = hint._replace(command=(c.MGET, name, *names))
            bare = payload is not None and not metadata.fresh_until and not self.codec.may_be_compressed(payload)
            found = opened(payload) if payload is not None and bare else None
            if payload is not None and found is not None:
                begins = 0 if payload[:1] in PICKLED else found[1]
                versions = [version for _, version in metadata.tags]
                hint = hint._replace(head=payload[: found[1]], begins=begins, versions=versions)
        self._hints.note(name, hint)

    def _is_tag(self, name: str | bytes) -> bool:
        """Whether *name* is that of a tag's version: in any version of this cache, or as its KEY_FUNCTION shows it."""
        if type(name) is bytes:
            if IN_BYTES not in name:
                return False
            name = name.decode(errors="replace")
        name = str(name)
        if TAG not in name:
            return False
        if self._namer is not default_key_function:
            key = self._key_of(name)
            return key is None or key.startswith(TAG)
        begins = f"{self.key_prefix}:"
        return name.startswith(begins) and name[len(begins) :].partition(":")[2].startswith(TAG)

    async def _versions(
        self, tags: Iterable[str], version: Any = None, *, fresh: bool = False
    ) -> dict[str, bytes | None]:
        """Return the version that each of *tags* has now, None if it has none or its server is away.

        With *fresh* the primaries are asked, even if copies of the versions are near.
        """
        tags = list(tags)
        names = [self._tag_name(tag, version) for tag in tags]
        found: dict[str, bytes | None] = dict.fromkeys(names)
        if names:
            near = self.near
            if near is None:
                for places, reply in await self._ask_many(c.MGET_NOW if fresh else c.MGET, names, None):
                    found.update((names[place], each) for place, each in zip(places, reply or (), strict=False))
            else:
                copies = {} if fresh else near.copies_of(names)
                found.update((name, copy.value) for name, copy in copies.items())
                if len(copies) < len(found):
                    found |= await self._fetch_versions(near, [name for name in found if name not in copies])
        if OWED.names:
            found.update(dict.fromkeys(OWED.among(names)))
        return {tag: found[name] for tag, name in zip(tags, names, strict=True)}

    async def _fetch_versions(self, near: Near | Copyless, names: Sequence[str]) -> dict[str, bytes | None]:
        """Return the versions under *names*, asked of their primaries; leave copies, but none of missing ones."""
        names = list(map(str, names))
        reads = near.depart_many(names)
        shares = self.topology.shares(names, reads=False)
        plan: list[tuple[Server, list[Command]]] = []
        for server, places in shares:
            share = [names[place] for place in places]
            plan.append(
                (server, [*self._batch(c.MGET_NOW, share), *((c.PTTL_NOW, name) for name in share if name in reads)])
            )
        found: dict[str, bytes | None] = {}
        for (_, places), (_, commands), replies in zip(shares, plan, await self._ask_all(plan, None), strict=True):
            share = [names[place] for place in places]
            timed = [command[1] for command in commands if command[0] is c.PTTL_NOW]
            count = len(commands) - len(timed)
            versions = self._merged(c.MGET_NOW, replies[:count])
            if versions is None:
                continue  # an ignored outage
            found.update(zip(share, versions, strict=True))
            lefts = {} if isinstance(replies, Redirected) else dict(zip(timed, replies[count:], strict=True))
            there = {name: version for name, version in zip(share, versions, strict=True) if version is not None}
            # Without its time to live nothing is kept: "missing" would be kept after a version has been made.
            near.arrive_many(share, reads, there, versions, {name: lefts.get(name) for name in there})
        return found

    def _bind(self, near: Near | Copyless, read: Read | None, metadata: Metadata) -> bool:
        """Let the copy that *read* leaves depend on the copies of its tags' versions; return whether all are there."""
        wanted = [(self._tag_name(tag, self._version_in(metadata.scope)), version) for tag, version in metadata.tags]
        copies = near.copies_of([name for name, _ in wanted]) if read is not None and read.number else {}
        bound = tuple(copies[name] for name, version in wanted if name in copies and copies[name].value == version)
        if read is None or len(bound) < len(wanted):
            return False
        read.tags = bound
        return True

    async def _tagged(
        self, values: Collection[Any], tags: Iterable[str], lifetime: int | None, version: Any, client: Any
    ) -> list[bytes | int] | None:
        """Return the payloads of *values*, each with all of *tags* as they are now; None in an ignored outage."""
        tags = checked(tags)
        await self._runtime.alone()
        captured = await self._through(client)._capture(tags, lifetime, version)
        if captured is None:
            return None
        scope = str(self.version if version is None else version)
        return await self.encoded(values, metadata=[Metadata(tags=captured, scope=scope) for _ in values])

    async def _capture(self, tags: Sequence[str], lifetime: int | None, version: Any = None) -> Tags | None:
        """Return *tags* with their versions for an entry that is made from now on; None in an ignored outage.

        The versions are made if there are none, and live longer than the entry, which lives for *lifetime*
        milliseconds, or for ever if that is None.
        """
        if not tags:
            return ()
        if monotonic() < self.stats.unscripted + MINUTE:
            return await self._capture_plainly(tags, lifetime, version)
        plan = self._capture_plan(tags, lifetime, version)
        answers = await self._ask_all([(server, commands) for server, _, commands in plan], None, scripts=True)
        found: dict[str, bytes] = {}
        for (_, places, commands), replies in zip(plan, answers, strict=True):
            for command, reply in zip(commands, replies, strict=True):
                if c.refuses_scripts(reply):
                    self.stats.unscripted = monotonic()
                    return await self._capture_plainly(tags, lifetime, version)
                if isinstance(reply, ResponseError):
                    self._instead(self._refusal(reply, command), None, (command,))
                if type(reply) is not list:
                    return None
            found.update(zip([tags[place] for place in places], chain(*replies), strict=True))
        return tuple((tag, found[tag]) for tag in tags)

    def _capture_plan(
        self, tags: Sequence[str], lifetime: int | None, version: Any = None
    ) -> list[tuple[Server, list[int], list[Command]]]:
        """Return for each server the places of the *tags* that it holds, and the commands that capture their versions.

        The replies to the commands of one server, one after another, are the versions at those places.
        """
        names = [self._tag_name(tag, version) for tag in tags]
        return [
            (server, places, self._captures([names[place] for place in places], lifetime))
            for server, places in self.topology.shares(names, reads=False)
        ]

    def _captures(self, names: Sequence[str], lifetime: int | None) -> list[Command]:
        lives = _lives(lifetime)
        groups = [[name] for name in names] if self.topology.one_by_one else [names]
        return [
            (c.CAPTURES, c.CAPTURE, len(group), *group, *lives, *(os.urandom(VERSION) for _ in group))
            for group in groups
        ]

    async def _capture_plainly(self, tags: Sequence[str], lifetime: int | None, version: Any) -> Tags | None:
        """Capture without scripts, which this user may not run."""
        names = [self._tag_name(tag, version) for tag in tags]
        life, longer = _lives(lifetime)
        words = () if life == "" else ("PX", longer)
        shares = self.topology.shares(names, reads=False)
        plan, later = [], []
        made = [os.urandom(VERSION) for _ in tags]
        for server, places in shares:
            adds = [(c.ADD, names[place], made[place], *words, "NX", "GET") for place in places]
            plan.append((server, [*adds, *((c.PTTL_NOW, names[place]) for place in places)]))
        found: list[bytes] = made
        for (server, places), replies in zip(shares, await self._ask_all(plan, None), strict=True):
            if any(type(left) is not int for left in replies[len(places) :]):
                return None
            for place, there, left in zip(places, replies, replies[len(places) :], strict=False):
                found[place] = made[place] if there is None else there
                if left >= 0 and (life == "" or left < life):
                    longer_life: Command = (
                        (c.PERSIST, names[place]) if life == "" else (c.PEXPIRE, names[place], longer)
                    )
                    later.append((server, (longer_life,)))
        if later:
            await self._ask_all(later, None)
        return tuple(zip(tags, found, strict=True))


def _lives(lifetime: int | None) -> tuple[Any, Any]:
    """Return with how many milliseconds left a tag's life is extended, and to how many; two empty texts for ever."""
    if lifetime is None or lifetime * LONGER > LARGEST // LONGER:
        return "", ""
    return max(lifetime, 1), max(lifetime, 1) * LONGER
