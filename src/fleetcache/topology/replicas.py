"""Who answers a read: one of a primary's replicas, or whichever server is nearest.

A replica is behind its primary.  One that cannot answer is left alone for a while; then a single
read tries it again, and all do when that was answered.

The nearest server is found by timing a few reads, which are sent to all servers in turn.  Besides the
way, a time holds what the command took, and what the interpreter did meanwhile; so of each server the
shortest counts, and is forgotten little by little.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

from redis import exceptions as redis

from fleetcache.exchange.contract import Command, Reply, Server
from fleetcache.exchange.repeating import is_at_fault, reads_elsewhere
from fleetcache.exchange.runtime import AWAITING, BLOCKING, Runtime, attempt
from fleetcache.forks import chance
from fleetcache.twin import complete

UNABLE = frozenset((redis.ClusterDownError, redis.MasterDownError, redis.BusyLoadingError, redis.ReadOnlyError))
"""Refusals of a server that is there, and cannot answer now."""

REST = 1.0
"""Seconds for which a server that could not answer is left alone."""
TIMED = 64
"""One read of so many is timed, and the first few of each server."""
FIRST = 4
ALIKE, SLACK = 1.5, 0.0001
"""Servers are equally near up to so many times the shortest time, and so many seconds more.

A server's time grows by no more at once, so a single late reply changes nothing.
"""


class Reader(Server):
    """Answers reads for *primary* and its replicas: one of *servers* is asked, and another if that one cannot.

    With *nearest* the nearest is, else any.  In the end the primary is asked.
    """

    signs = UNABLE

    def __init__(self, primary: Server, servers: Sequence[Server], *, nearest: bool) -> None:
        self._primary = primary
        self.servers = self.preferred = list(servers)
        self.address = primary.address
        self.nearest = nearest
        self.resting: dict[Server, float] = {}
        self.times: dict[Server, float] = {}
        self.turn = 0

    @property
    def primary(self) -> Server:
        return self._primary

    def client(self) -> Any:
        return self._choose()[0].client()

    def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        server, began = self._choose()
        return self._settled(server, began, commands, attempt(server.exchange, commands))

    def tell(self, commands: Sequence[Command]) -> Any:
        server, began = self._choose()
        return server, began, commands, attempt(server.tell, commands)

    def hear(self, told: Any) -> list[Reply]:
        server, began, commands, found = told
        if not isinstance(found, Exception):
            found = attempt(server.hear, found)
        return self._settled(server, began, commands, found)

    def drop(self, told: Any) -> None:
        server, _, _, found = told
        if not isinstance(found, Exception):
            server.drop(found)

    def _settled(self, server: Server, began: float, commands: Sequence[Command], found: Any) -> list[Reply]:
        """Return *found*, what *server* was found to say, if that is an answer; else another server's."""
        if self._answers(server, began, found):
            return found  # type: ignore[no-any-return]  # no exception: the replies
        return complete(self._elsewhere(BLOCKING, server, commands, found))

    async def aexchange(self, commands: Sequence[Command]) -> list[Reply]:
        server, began = self._choose()
        found = await self._asked(AWAITING, server, commands)
        if self._answers(server, began, found):
            return found  # type: ignore[no-any-return]  # no exception: the replies
        return await self._elsewhere(AWAITING, server, commands, found)

    async def _asked(self, runtime: Runtime, server: Server, commands: Sequence[Command]) -> Any:
        """Return the replies of *server*, or what it failed with."""
        try:
            return await runtime.exchange(server, commands)
        except redis.RedisError as error:
            return error

    def _answers(self, server: Server, began: float, found: Any) -> bool:
        """Whether *found* is an answer; if so, *server* is well, and as near as that."""
        if isinstance(found, Exception):
            return False
        for reply in found:  # as `Node.exchange` does: every read comes by here
            if type(reply) in self.signs:
                return False
        if began:
            self._time(server, monotonic() - began)
        if self.resting:
            self.resting.pop(server, None)
        return True

    async def _elsewhere(self, runtime: Runtime, tried: Server, commands: Sequence[Command], found: Any) -> list[Reply]:
        """Return what another server replies to *commands*, which *tried* did not answer: *found* is why."""
        others = [server for server in self.servers if server is not tried and server not in self.resting]
        for other in (*chance.sample(others, len(others)), self.primary):
            if is_at_fault(found):
                self.resting[tried] = monotonic() + REST
            if not reads_elsewhere(found):
                break
            tried, found = other, await self._asked(runtime, other, commands)
            if self._answers(tried, 0.0, found):
                break
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[no-any-return]  # no exception: the replies

    def _choose(self) -> tuple[Server, float]:
        """Return whom to ask, and the time if the answer is to be timed."""
        if self.resting:
            now = monotonic()
            for server, until in list(self.resting.items()):
                if now >= until:
                    self.resting[server] = now + REST  # the others wait for what this caller hears
                    return server, 0.0
            for servers in (self.preferred, self.servers):
                if well := [server for server in servers if server not in self.resting]:
                    return chance.choice(well), 0.0
            return self.primary, 0.0
        if self.nearest:
            self.turn += 1
            at, later = divmod(self.turn, TIMED)
            if self.turn <= FIRST * len(self.servers) or not later:
                return self.servers[(at or later) % len(self.servers)], monotonic()
        return chance.choice(self.preferred), 0.0

    def _time(self, server: Server, took: float) -> None:
        times = self.times
        times[server] = min(took, times.get(server, took) * ALIKE)
        limit = ALIKE * min(times[each] for each in self.servers if each in times) + SLACK
        self.preferred = [each for each in self.servers if times.get(each, limit + 1) <= limit]
