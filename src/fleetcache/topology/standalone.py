"""One server, or a primary with replicas that may answer reads."""

from __future__ import annotations

from collections.abc import Sequence

from fleetcache.exchange.contract import Command, Server
from fleetcache.forks import chance
from fleetcache.topology.contract import Share, Topology
from fleetcache.topology.replicas import Reader


class Standalone(Topology):
    """The first server is the primary; the others are its replicas.

    Reads go to the servers that *read_from*, ``READ_FROM``, names; without it to a replica if there is one, and to the
    primary only if no replica answers.  *writes_elsewhere* lets a write go to another server when the primary
    cannot be reached, django-redis' ``REPLICA_READ_ONLY = False``.
    """

    def __init__(
        self, servers: Sequence[Server], *, writes_elsewhere: bool = False, read_from: str | None = None
    ) -> None:
        self.servers = servers
        self.primary = self.reader = servers[0]
        self.primaries = servers[:1]
        self.replicas = servers[1:]
        self.writes_elsewhere = writes_elsewhere
        if self.replicas and read_from != "primary":
            nearest = read_from == "nearest"
            self.reader = Reader(self.primary, servers if nearest else self.replicas, nearest=nearest)

    def route(self, command: Command) -> Server:
        return self.reader if command[0].reads else self.primary

    def another(self, command: Command, tried: Server) -> Server | None:
        if tried is self.primary and self.writes_elsewhere and self.replicas and not command[0].reads:
            return chance.choice([server for server in self.replicas if not server.away] or self.replicas)
        return None

    def home(self, name: str) -> Server:
        return self.primary

    def shares(self, names: Sequence[str], reads: bool) -> list[Share]:
        return [(self.reader if reads else self.primary, list(range(len(names))))]
