"""Which server is asked: the only thing a topology knows.

Nothing above knows how many servers there are; nothing here knows what a key means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from fleetcache.exchange import Command, Server

Share: TypeAlias = tuple[Server, list[int]]
"""A server, and the places of the commands or names that are its."""


class Topology(Protocol):
    """The servers of a cache, and how work is divided among them."""

    @property
    def servers(self) -> Sequence[Server]:
        """Every server."""

    @property
    def primaries(self) -> Sequence[Server]:
        """The servers that between them hold every key."""

    def route(self, command: Command) -> Server:
        """Return the server to ask."""

    def another(self, command: Command, tried: Server) -> Server | None:
        """Return whom to ask when *tried* is away, or None."""

    def home(self, name: str) -> Server:
        """Return the primary that holds *name*."""

    def shares(self, names: Sequence[str], reads: bool) -> list[Share]:
        """Divide *names* among the servers that hold them."""
