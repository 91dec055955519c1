"""Which server is asked: the only thing a topology knows.

Nothing above knows how many servers there are; nothing here knows what a key means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

from fleetcache.exchange.contract import Command, Server
from fleetcache.exchange.runtime import Runtime
from fleetcache.stats.figures import Figures

Share: TypeAlias = tuple[Server, list[int]]
"""A server, and the places of the commands or names that are its."""

SERVERS = Figures(
    "servers",
    address="Where the server is: host and port or path, and database.",
    away="Whether its circuit breaker is open, so that calls fail at once.",
)

REDIRECTS = Figures(
    "",
    redirects="Of a cluster: commands that were sent again, by reason (`moved`, `ask`, `tryagain`, `away`), and maps `learnt`.",
)


class Topology:
    """The servers of a cache, and how work is divided among them."""

    servers: Sequence[Server]
    """Every server."""

    primaries: Sequence[Server]
    """The servers that between them hold every key, as far as they are known."""

    redirects: Mapping[str, int] = MappingProxyType({})
    """How often a command was sent again, by reason, and how often the map of a cluster was ``learnt``."""

    moves = False
    """Whether the primaries may change, and what each holds; then `watch` tells."""

    splits = False
    """Whether names of one server may still not be together, so that each is asked about by itself."""

    def route(self, command: Command) -> Server:
        """Return the server to ask."""
        raise NotImplementedError

    def another(self, command: Command, tried: Server) -> Server | None:
        """Return whom to ask when *tried* is away, or None."""
        return None

    def home(self, name: str) -> Server:
        """Return the primary that holds *name*."""
        raise NotImplementedError

    def together(self, names: Sequence[str]) -> bool:
        """Whether one command, or one transaction, may be about all of *names*."""
        return len({id(self.home(name)) for name in names}) <= 1

    def shares(self, names: Sequence[str], reads: bool) -> list[Share]:
        """Divide *names* among the servers that hold them."""
        raise NotImplementedError

    async def survey(self, runtime: Runtime, tried: Server | None = None) -> Sequence[Server]:
        """Return the primaries, after finding out who they are now: not from *tried*."""
        return self.primaries

    def close_idle(self) -> None:
        """Close the connections to each server that nobody is using."""
        for server in self.servers:
            server.close_idle()

    async def aclose_idle(self) -> None:
        """Close the connections to each server that nobody is using, and the running loop's."""
        for server in self.servers:
            await server.aclose_idle()

    def watch(self, moved: Callable[[Iterable[Server]], None]) -> None:
        """From now on call *moved* with the servers that hold less than before, as soon as others do."""

    def unwatch(self, moved: Callable[[Iterable[Server]], None]) -> None:
        """Call *moved* no more."""
