"""One primary, and replicas that may answer reads."""

from __future__ import annotations

from collections.abc import Sequence
from random import choice

from fleetcache.exchange import Command, Server
from fleetcache.topology import Share, Topology


class Standalone(Topology):
    """The first server is the primary; the others are its replicas.

    With replicas, reads go to a random one and never to the primary, unless no replica answers.
    *writes_elsewhere* lets a write go to another server when the primary cannot be reached,
    django-redis' ``REPLICA_READ_ONLY = False``.
    """

    def __init__(self, servers: Sequence[Server], *, writes_elsewhere: bool = False) -> None:
        self.servers = servers
        self.primary = servers[0]
        self.primaries = servers[:1]
        self.replicas = servers[1:]
        self.writes_elsewhere = writes_elsewhere

    def route(self, command: Command) -> Server:
        return self._replica() if self.replicas and command[0].reads else self.primary

    def _replica(self) -> Server:
        """Return a replica, one that answered last time if there is any."""
        return choice([server for server in self.replicas if not server.away] or self.replicas)

    def another(self, command: Command, tried: Server) -> Server | None:
        if tried in self.replicas:
            return self.primary
        if tried is self.primary and self.writes_elsewhere and self.replicas and not command[0].reads:
            return self._replica()
        return None

    def home(self, name: str) -> Server:
        return self.primary

    def shares(self, names: Sequence[str], reads: bool) -> list[Share]:
        server = self._replica() if reads and self.replicas else self.primary
        return [(server, list(range(len(names))))]
