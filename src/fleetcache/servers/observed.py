"""A server that stands for another and reports each exchange with it.

Only caches that are made while there is a listener, or one is expected, use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

from fleetcache.exchange.contract import Command, Reply, Server
from fleetcache.stats.exchanges import Exchange, hears, is_heard, tell

Told: TypeAlias = tuple[float, Sequence[Command], Any]


class Observed(Server):
    """Passes every call on to *server*, and reports each exchange when it is over.

    It is not used for the connections beside those of callers: a breaker's probe, a question to a Sentinel, and the
    near cache's announcements and canaries.
    """

    def __init__(self, server: Server, *, in_cluster: bool = False) -> None:
        self.server = server
        self.in_cluster = in_cluster
        self.address = server.address

    @property
    def away(self) -> bool:
        return self.server.away

    @property
    def remote(self) -> Any:
        return self.server.remote

    def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        if not hears():
            return self.server.exchange(commands)
        return self._heard(perf_counter(), commands, self.server.exchange, commands)

    def tell(self, commands: Sequence[Command]) -> Told:
        began = perf_counter()
        try:
            return began, commands, self.server.tell(commands)
        except BaseException as error:
            self._tell(began, commands, None, error)
            raise

    def hear(self, told: Told) -> list[Reply]:
        began, commands, sent = told
        return self._heard(began, commands, self.server.hear, sent)

    def drop(self, told: Told) -> None:
        self.server.drop(told[2])  # not reported: an interrupt ended the exchange, which says nothing about the server

    async def aexchange(self, commands: Sequence[Command]) -> list[Reply]:
        if not hears():
            return await self.server.aexchange(commands)
        began = perf_counter()
        try:
            replies = await self.server.aexchange(commands)
        except BaseException as error:
            self._tell(began, commands, None, error)
            raise
        self._tell(began, commands, replies)
        return replies

    def client(self) -> Any:
        return self.server.client()

    def close_idle(self) -> None:
        self.server.close_idle()

    async def aclose_idle(self) -> None:
        await self.server.aclose_idle()

    def _heard(self, began: float, commands: Sequence[Command], action: Any, argument: Any) -> list[Reply]:
        """Return the result of *action*, and report the exchange."""
        try:
            replies: list[Reply] = action(argument)
        except BaseException as error:
            self._tell(began, commands, None, error)
            raise
        self._tell(began, commands, replies)
        return replies

    def _tell(self, began: float, commands: Sequence[Command], replies: Any, error: Any = None) -> None:
        if hears():
            tell(Exchange(self.address, commands, replies, perf_counter() - began, error, self.in_cluster))


_observed: WeakValueDictionary[Server, Observed] = WeakValueDictionary()
"""One for each server, so that near caches of different configurations still share a listener."""


def observed(server: Server, *, in_cluster: bool = False) -> Server:
    """Return *server* itself or, while there is a listener, the `Observed` that stands for it."""
    return _observed.setdefault(server, Observed(server, in_cluster=in_cluster)) if is_heard() else server
