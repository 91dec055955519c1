"""Which server answers a read: one of a primary's replicas, or the nearest server.

A replica is behind its primary.  A replica that cannot answer is not asked for a while; then a single
read tries it again, and if that is answered, it takes part again.

The nearest server is found by timing a few reads, which are sent to all servers in turn.  Besides the
network, a time includes the command itself and what the interpreter did meanwhile; so the shortest time of each server
counts, and its weight is reduced little by little.
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
"""Refusals of a server that runs, and cannot answer now."""

REST = 1.0
"""For how many seconds a server that could not answer is not asked."""
TIMED = 64
"""One read of this many is timed, and the first `FIRST` of each server."""
FIRST = 4
ALIKE, SLACK = 1.5, 0.0001
"""Servers are equally near up to `ALIKE` times the shortest time, plus `SLACK` seconds.

A server's time grows by no more at once, so a single late reply changes nothing.
"""


class Reader(Server):
    """Answers reads for *primary* and its replicas: asks one of *servers*, and another if that one cannot answer.

    With *nearest* it asks the nearest first, else any; and the primary if no other answers.
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
        """Return *found*, the replies or the error of *server*, if it is an answer; else the replies of another server."""
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
        """Return the replies of *server*, or its error."""
        try:
            return await runtime.exchange(server, commands)
        except redis.RedisError as error:
            return error

    def _answers(self, server: Server, began: float, found: Any) -> bool:
        """Whether *found* is an answer; if so, note that *server* is well, and its time."""
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
        """Return the server to ask, and the time now if the read is to be timed, else 0."""
        if self.resting:
            now = monotonic()
            for server, until in list(self.resting.items()):
                if now >= until:
                    self.resting[server] = now + REST  # the others wait for the result of this read
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
