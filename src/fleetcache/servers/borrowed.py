"""A client of the caller as a server: the argument ``client=`` of django-redis' methods."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import isawaitable
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import ResponseError

from fleetcache.exchange.connecting import address_of, wanted
from fleetcache.exchange.contract import Command, Reply, Server
from fleetcache.exchange.wire import packed, words
from fleetcache.twin import complete


class Taken(int):
    """Stands for the reply to a write whose real reply comes later; every operation can convert it to its result."""


TAKEN = Taken(1)


class CallersPipeline(Server):
    """A redis-py pipeline as a server: it collects commands, and the caller gets the replies on executing it."""

    address = "a pipeline"

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline

    def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        if not all(command[0].writes for command in commands):
            raise TypeError(
                "a redis-py pipeline cannot answer now: pass client= only to writes, or use cache.pipeline()"
            )
        for command in commands:
            # Converted to bytes, because redis-py may pass numbers to hiredis: see `pack`.
            verb, *parts = words(command)
            if verb == b"EVALSHA":
                # Sent whole, because it could not be sent again if the server did not know the digest.
                self.pipeline.execute_command("EVAL", command[1].lua, *parts[1:])
            else:
                # With its name as text, by which redis-py converts the reply as its caller expects.
                self.pipeline.execute_command(verb.decode(), *parts)
        return [TAKEN] * len(commands)

    async def aexchange(self, commands: Sequence[Command]) -> list[Reply]:
        return self.exchange(commands)

    def client(self) -> Any:
        return self.pipeline


class BorrowedServer(Server):
    """A server reached over the connections of a ``redis.Redis`` or ``redis.asyncio.Redis``."""

    def __init__(self, client: Any) -> None:
        self.raw = client
        self.pool: Any = client.connection_pool
        self.address = address_of(self.pool)

    def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        if not isinstance(self.pool, redis.ConnectionPool):
            raise TypeError("client= is a redis.asyncio client: use the a-method")
        return complete(self.aexchange(commands))

    async def aexchange(self, commands: Sequence[Command]) -> list[Reply]:
        connection = await awaited(self.pool.get_connection(*wanted(self.pool)))
        try:
            await awaited(connection.send_packed_command([packed(commands)]))
            return [await self._reply(connection) for _ in commands]
        except BaseException:
            await awaited(connection.disconnect())
            raise
        finally:
            await awaited(self.pool.release(connection))

    def client(self) -> Any:
        return self.raw

    @staticmethod
    async def _reply(connection: Any) -> Reply:
        try:
            return await awaited(connection.read_response(disable_decoding=True))
        except ResponseError as refusal:
            return refusal


async def awaited(found: Any) -> Any:
    """Return the result of a method of redis-py, awaited if the client is an asynchronous one."""
    return await found if isawaitable(found) else found


def is_pipeline(client: Any) -> bool:
    """Whether *client* is a pipeline of redis-py, whose replies come later, and only to its caller."""
    return isinstance(client, (redis.client.Pipeline, redis.asyncio.client.Pipeline))


def server_of(client: Any) -> CallersPipeline | BorrowedServer:
    """Return *client*, an argument ``client=``, as a server."""
    if is_pipeline(client):
        return CallersPipeline(client)
    if isinstance(getattr(client, "connection_pool", None), (redis.ConnectionPool, redis.asyncio.ConnectionPool)):
        return BorrowedServer(client)
    raise TypeError(
        f"client= takes a redis.Redis, a redis.asyncio.Redis or a pipeline of one, not {type(client).__name__}. "
        f"On a cluster leave it out: the cache asks the nodes itself"
    )
