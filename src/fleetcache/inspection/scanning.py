"""A walk through all names on a cache's servers, in steps of bounded work, that another request or process can go on.

``SCAN`` returns a cursor of its own with each part of the names, and promises that a name which is there from the first
step to the last is returned.  `Walk` goes through one primary after another; its cursor says in text at which it is, how
far it came there, and how many names it has passed.  A cursor is of use only on the servers that gave it: if a cluster
has other primaries by now, the walk begins anew.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from time import monotonic
from typing import Any, Self

from redis.exceptions import RedisError

from fleetcache import commands as c
from fleetcache.cache import Cache
from fleetcache.exchange.contract import Server
from fleetcache.failsafe import TROUBLE
from fleetcache.inspection.names import Wanted

BUDGET = 0.15
"""For how many seconds a page, or a step of an action, goes on asking."""

LEAST, MOST = 10, 1000
"""How many names one SCAN passes; a thousand take a server about half a millisecond."""

CURSOR = re.compile(r"([0-9a-f]{8})\.(\d{1,9})\.(\d{1,20})\.(\d{1,18})")


class Walk:
    """A walk through the names on all primaries of a cache; begin one by `begin`."""

    def __init__(self, cache: Cache, wanted: Wanted, kind: str | None, servers: Sequence[Server]) -> None:
        self.cache, self.wanted, self.kind = cache, wanted, kind
        self.servers = sorted(servers, key=lambda server: server.address)
        addresses = "\n".join(server.address for server in self.servers)
        self.mark = blake2b(addresses.encode(errors="replace"), digest_size=4).hexdigest()
        self.place, self.at, self.scanned = 0, 0, 0
        self.found = 0
        self.passed = 0
        """How many names this process has passed; `scanned` counts also those before the cursor."""
        self.total = 0
        self.away: list[str] = []
        """Which servers do not answer: their names are missing."""
        self.restarted = False
        self.until = 0.0

    @classmethod
    async def begin(cls, cache: Cache, wanted: Wanted, kind: str | None, cursor: str | None, budget: float) -> Self:
        """Return a walk from *cursor* on, or from the beginning; raise ValueError for what is no cursor."""
        taken = CURSOR.fullmatch(cursor) if cursor else None
        if cursor and taken is None:
            raise ValueError(f"{cursor[:40]!r} is no cursor of a page of keys")
        until = monotonic() + budget
        walk = cls(cache, wanted, kind, await cache.topology.survey(cache._runtime))
        walk.until = until
        if taken is not None:
            mark, *numbers = taken.groups()
            walk.restarted = mark != walk.mark
            if not walk.restarted:
                walk.place, walk.at, walk.scanned = map(int, numbers)
        await walk._count()
        return walk

    async def _count(self) -> None:
        """Find how many names there are, and which servers are away."""
        answers = await self.cache._runtime.exchange_all([(server, ((c.DBSIZE,),)) for server in self.servers])
        for server, answer in zip(self.servers, answers, strict=True):
            if isinstance(answer, Exception):
                self.away.append(server.address)
            elif type(answer[0]) is int:
                self.total += answer[0]

    @property
    def complete(self) -> bool:
        """Whether all names have been passed."""
        return self.place >= len(self.servers)

    @property
    def cursor(self) -> str | None:
        """Where to go on, as text; None at the end."""
        return None if self.complete else f"{self.mark}.{self.place}.{self.at}.{self.scanned}"

    @property
    def in_time(self) -> bool:
        """Whether a further step is within the budget."""
        return monotonic() < self.until

    async def step(self, still: int) -> tuple[Server, list[bytes]]:
        """Return the names that are wanted among the next ones, and their server; *still* are so many to be found."""
        server = self.servers[self.place]
        density = (self.found + 1) / (self.passed + 1)
        count = min(max(int(still / density), LEAST), MOST)
        command: tuple[Any, ...] = (c.SCAN, self.at, "MATCH", self.wanted.pattern, "COUNT", count)
        if self.kind:
            command += ("TYPE", self.kind)
        try:
            (reply,) = await self.cache._runtime.exchange(server, (command,))
            if isinstance(reply, RedisError):
                raise reply
            self.cache._check_reply(reply, command)
        except TROUBLE:
            if server.address not in self.away:
                self.away.append(server.address)
            if len(self.servers) == 1:
                raise
            self._leave()
            return server, []
        self.at, names = int(reply[0]), [name for name in reply[1] if self.wanted.has(name)]
        self.scanned += count
        self.passed += count
        self.found += len(names)
        if not self.at:
            self._leave()
        return server, names

    def _leave(self) -> None:
        self.place, self.at = self.place + 1, 0
