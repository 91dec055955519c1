"""Questions to servers, each with a bound: no page may wait for a server for long, or let a server work for long.

A server that is away, or refuses a command, is an answer like any other: pages show it and go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from fleetcache.errors import FleetcacheError
from fleetcache.exchange.contract import Command, Reply, Server
from fleetcache.exchange.runtime import BLOCKING
from fleetcache.twin import complete

TROUBLE = (FleetcacheError, RedisError, OSError)
"""Errors of a server or a connection, which pages show in place of figures."""


@dataclass(frozen=True)
class Trouble:
    """The reason why there is no answer."""

    text: str
    refused: bool = False
    """Whether the server is there, and refuses the command."""
    denied: bool = False
    """Whether it refuses the command to this user."""

    @classmethod
    def of(cls, error: BaseException) -> Trouble:
        """Return what a page says of *error*."""
        refused = isinstance(error, ResponseError)
        return cls(f"{type(error).__name__}: {error}", refused, isinstance(error, NoPermissionError))


class Budget:
    """How long one page may take altogether; what does not fit into it is left out, and the page says so."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.began = monotonic()

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return monotonic() - self.began >= self.seconds


def primaries(cache: Any) -> Sequence[Server] | Trouble:
    """Return the servers that between them hold every entry of *cache*."""
    try:
        found: Sequence[Server] = complete(cache.topology.survey(BLOCKING))
    except TROUBLE as error:
        return cache.topology.primaries or Trouble.of(error)
    return found


def ask(server: Server, *commands: Command) -> list[Reply] | Trouble:
    """Return the replies of *server* to *commands*, a `Trouble` for each that it refuses; one for all if it is away."""
    try:
        replies = server.exchange(commands)
    except TROUBLE as error:
        return Trouble.of(error)
    return [Trouble.of(reply) if isinstance(reply, Exception) else reply for reply in replies]
