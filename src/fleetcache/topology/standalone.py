"""One primary, and replicas that may answer reads."""

from __future__ import annotations

from collections.abc import Sequence
from random import choice

from fleetcache.exchange import Command, Server
from fleetcache.topology import Share


class Standalone:
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
        if self.replicas and command[0].reads:
            return choice(self.replicas)
        return self.primary

    def another(self, command: Command, tried: Server) -> Server | None:
        if command[0].reads:
            others = [server for server in self.replicas if server is not tried]
            return others[0] if len(others) > 1 else self.primary if tried is not self.primary else None
        if self.writes_elsewhere and tried is self.primary and self.replicas:
            return choice(self.replicas)
        return None

    def home(self, name: str) -> Server:
        return self.primary

    def shares(self, names: Sequence[str], reads: bool) -> list[Share]:
        server = choice(self.replicas) if reads and self.replicas else self.primary
        return [(server, list(range(len(names))))]
