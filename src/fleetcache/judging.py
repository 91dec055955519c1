"""Is an entry fresh, stale, or given up?  By the server's clock, and by the versions that its tags have now.

A process knows a server's clock as its own clock, which never jumps, and the difference between the two, which it
takes from a reply of that server: of any script that returns the time, else of `TIME`, and anew after a minute,
because the server's clock may be set.  So no wall clocks of two machines are compared.  The server read its clock after
the command was sent, so the time here is never behind the server's, and at most one round trip ahead: an
entry may be taken as stale that much too early, but not too late.  After a fail-over the error is what the clocks of the
two servers differ by, for a minute at most.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import Enum
from hashlib import blake2b, sha1
from math import ceil, log
from time import time_ns
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from redis.exceptions import NoPermissionError

from fleetcache import commands as c
from fleetcache.codec.metadata import Described, Metadata, opened, stamped
from fleetcache.errors import UnreadableValue
from fleetcache.exchange.contract import Reply, Server
from fleetcache.forks import in_children
from fleetcache.near.near import clock
from fleetcache.tagging import Tagging

logger = logging.getLogger("fleetcache.loading")

RENEWED = 60.0
"""For how many seconds the difference between two clocks is used."""

UNKNOWN = (0.0, 0.0)

Versions: TypeAlias = Mapping[str, bytes | None]
"""The version of each tag, None if it has none."""

NOTHING: Versions = MappingProxyType({})
NOWHERE: Mapping[str, Versions] = MappingProxyType({})

_clocks: WeakKeyDictionary[Server, tuple[float, float]] = WeakKeyDictionary()
"""For each server: how many milliseconds its clock is ahead of ours, and until when this is used."""


class Standing(Enum):
    """What an entry with metadata is worth now."""

    FRESH = "its fresh life has not ended, and its tags have their versions"
    STALE = "its fresh life has ended"
    GIVEN_UP = "one of its tags was invalidated, or its stale life has ended too"


class Judgement(NamedTuple):
    """What was found about an entry."""

    standing: Standing
    left: int | None
    """Its milliseconds of fresh life, 0 or less if that has ended; None if it is as long as the entry lives."""

    def serves(self, *, stale: bool = False) -> bool:
        """Whether the value may be served, to a caller who takes a *stale* one or not."""
        return self.standing is Standing.FRESH or (stale and self.standing is Standing.STALE)


class Judging(Tagging):
    """Tells whether entries with metadata may be served."""

    def _note_time(self, server: Server, now: float, asked: float) -> None:
        """Note that the clock of *server* showed *now*, in milliseconds since 1970; it was asked at *asked*, by our clock."""
        if server.remote is not None:  # the time of a server in this process may stand still, in tests
            _clocks[server] = (now - asked * 1000, asked + RENEWED)

    async def _moment(self, server: Server) -> int | None:
        """Return the time of *server* in milliseconds since 1970; None in an ignored outage."""
        now = clock()
        ahead, until = _clocks.get(server, UNKNOWN)
        if now < until:
            return ceil(now * 1000 + ahead)
        ((reply,),) = await self._ask_all([(server, ((c.TIME,),))], None)
        if reply is None:
            return None
        shown = self._shown_by(reply)
        self._note_time(server, shown, now)
        return ceil(shown)

    def _shown_by(self, reply: Reply) -> float:
        """Return the time in a reply to `TIME`, in milliseconds since 1970; for a user who may not ask, that of this machine."""
        if isinstance(reply, NoPermissionError):
            if self.stats.said.is_new("TIME"):
                logger.warning("the clock of this machine stands for the server's: %s", reply, extra={"event": "time"})
            return time_ns() / 1e6
        seconds, microseconds = reply
        return int(seconds) * 1000 + int(microseconds) / 1000

    async def _judge(self, name: str, described: Described, known: Versions | None = None) -> Standing:
        """Return the standing of the entry called *name*; *known* are versions that some of its tags have now."""
        return (await self._judgement(name, described.metadata, known or NOTHING)).standing

    async def _judgement(
        self,
        name: str,
        metadata: Metadata,
        known: Versions = NOTHING,
        *,
        exact: bool = True,
        fresh: bool = True,
    ) -> Judgement:
        """Return the standing of the entry called *name*, and its fresh life; *known* as with `_judge`.

        If not *exact*, the tags of a stale entry are not looked at, which is then not said to be given up.  With *fresh*
        the primaries are asked for the versions of tags, even if there are copies, or replicas answer reads.  They are
        asked also before an entry is given up: see `_doubts`.
        """
        now = await self._moment(self.topology.home(name)) if metadata.fresh_until else None
        found = verdict(metadata, now, known, exact=exact)
        if found is None:
            unknown = [tag for tag, _ in metadata.tags if tag not in known]
            known = {**known, **await self._versions(unknown, self._version_in(metadata.scope), fresh=fresh)}
            found = verdict(metadata, now, known, exact=exact)
            assert found is not None
            if self._doubts(found, metadata, fresh=fresh):
                return await self._judgement(name, metadata, exact=exact, fresh=True)
        return found

    def _doubts(self, found: Judgement, metadata: Metadata, *, fresh: bool) -> bool:
        """Whether the primaries are to be asked about an entry that was found to be given up.

        A copy of a tag's version, or a replica, may be older than the entry, which was loaded after that invalidation.
        Without the question it would be loaded once more.
        """
        behind = self.near is not None or len(self.topology.servers) > len(self.topology.primaries)
        return behind and not fresh and found.standing is Standing.GIVEN_UP and bool(metadata.tags)

    def _prompt(self, name: str, metadata: Metadata, known: Versions = NOTHING, *, exact: bool) -> Judgement | None:
        """Return what `_judgement` returns, if nobody has to be asked for it; else None."""
        if not metadata.fresh_until:
            return verdict(metadata, None, known, exact=exact)
        now = clock()
        ahead, until = _clocks.get(self.topology.home(name), UNKNOWN)
        return verdict(metadata, ceil(now * 1000 + ahead), known, exact=exact) if now < until else None

    async def _judgements(
        self,
        entries: Sequence[tuple[str, Metadata]],
        known: Mapping[str, Versions] = NOWHERE,
        *,
        exact: bool = True,
        fresh: bool = True,
    ) -> list[Judgement]:
        """Return what `_judgement` returns for each name with its metadata; the versions of all tags are asked for at once.

        Those in *known*, which has them by scope and tag, are not asked for.
        """
        versions = {scope: dict(found) for scope, found in known.items()}
        wanted: dict[str, dict[str, None]] = {}
        for _, metadata in entries:
            if metadata.tags:
                there = versions.setdefault(metadata.scope, {})
                unknown = [tag for tag, _ in metadata.tags if tag not in there]
                if unknown:
                    wanted.setdefault(metadata.scope, {}).update(dict.fromkeys(unknown))
        for scope, tags in wanted.items():
            versions[scope] |= await self._versions(tags, self._version_in(scope), fresh=fresh)
        judged = []
        for name, metadata in entries:
            found = versions.get(metadata.scope, NOTHING)
            prompt = self._prompt(name, metadata, found, exact=exact)
            judged.append(prompt or await self._judgement(name, metadata, found, exact=exact, fresh=fresh))
        doubted = [at for at, (_, metadata) in enumerate(entries) if self._doubts(judged[at], metadata, fresh=fresh)]
        if doubted:
            anew = await self._judgements([entries[at] for at in doubted], exact=exact, fresh=True)
            for at, found_anew in zip(doubted, anew, strict=True):
                judged[at] = found_anew
        return judged

    def _scope(self, version: Any) -> str:
        """Return the scope of metadata for an entry in *version*, None for the cache's own."""
        return str(self.version if version is None else version)


def verdict(metadata: Metadata, now: int | None, known: Versions, *, exact: bool) -> Judgement | None:
    """Return what an entry with *metadata* is worth *now*; None if a version of a tag is not in *known*, and counts.

    Without the time it is not known to be fresh.  *exact* as with `Judging.judgement`.
    """
    left, stale = None, False
    if metadata.fresh_until:
        left = 0 if now is None else metadata.fresh_until - now
        stale = left <= 0
        # An old worker or a raw client may have let the entry live longer than that.
        if now is not None and left <= -metadata.stale:
            return Judgement(Standing.GIVEN_UP, left)
    if metadata.tags and (exact or not stale):
        for tag, version in metadata.tags:
            if tag not in known:
                return None
            if known[tag] != version:
                return Judgement(Standing.GIVEN_UP, left)
    return Judgement(Standing.STALE if stale else Standing.FRESH, left)


def mark(payload: bytes | None) -> tuple[str, bytes]:
    """Return how a script can tell whether an entry still is the one with *payload*, None for none: a mode, and a mark.

    ``""``: there was none; ``"head"``: the payload begins with the mark, in which is the stamp of its metadata;
    ``"sha1"``: its digest, in hexadecimal digits, is the mark.
    """
    if payload is None:
        return "", b""
    with suppress(UnreadableValue):
        if opened(payload) is not None:
            return "head", stamped(payload)
    return "sha1", sha1(payload).hexdigest().encode()  # noqa: S324 - the server's choice


MOST_DRAWN = 45.0
"""More than `drawn` ever returns."""


def drawn(stamp: bytes) -> float:
    """Return a number drawn from an exponential distribution with the mean 1 for the entry with this *stamp*.

    In one process it is always the same: the moment at which an entry is renewed early is drawn once, however often it is
    read, and another process draws another one.
    """
    random = int.from_bytes(blake2b(stamp, digest_size=8, key=_seed).digest()) + 1
    return -log(random / 2**64)


def _renew() -> None:
    global _seed  # noqa: PLW0603 - of this process
    _seed = os.urandom(16)


_seed = os.urandom(16)
in_children(_renew)
