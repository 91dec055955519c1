"""The contract of a topology, which only knows which server to ask.

The code above does not know how many servers there are; the code here does not know what a key means.  A new
topology derives from `Topology`.  One that LOCATION selects is opened in `opening`, and `fleetcache.urls` has its
schemes; one that CLIENT_CLASS selects is made by its class in `fleetcache.client`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

from fleetcache.exchange.contract import Command, Server
from fleetcache.exchange.runtime import Runtime
from fleetcache.stats.figures import Figures

Share: TypeAlias = tuple[Server, list[int]]
"""A server, and the places of the names that it holds, in the list that was divided."""

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

    can_move = False
    """Whether the primaries, and the names that each holds, may change; `watch` then reports it."""

    one_by_one = False
    """Whether each name needs a command of its own, because names on one server may be in different slots."""

    def route(self, command: Command) -> Server:
        """Return the server to ask."""
        raise NotImplementedError

    def another(self, command: Command, tried: Server) -> Server | None:
        """Return the server to ask when *tried* is away, or None."""
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
        """Return the primaries of now, after asking the servers for them, but not *tried*."""
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
        """From now on call *moved* with the servers that have lost names to others, as soon as that is known."""

    def unwatch(self, moved: Callable[[Iterable[Server]], None]) -> None:
        """Stop calling *moved*."""
