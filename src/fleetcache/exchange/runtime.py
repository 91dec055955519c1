"""The two ways to wait that an operation, written once, can be run on."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeAlias

from redis.exceptions import RedisError

from fleetcache.exchange.contract import Command, Reply, Server

Plan: TypeAlias = Sequence[tuple[Server, Sequence[Command]]]


class Runtime(Protocol):
    """What a coroutine of the core may await."""

    blocks: bool
    """Whether its coroutines run to their end in one step."""

    once: bool
    """Whether no second question can be asked."""

    async def alone(self) -> None:
        """Let everything that was asked before end, and let nothing else be asked until the operation has ended.

        Whoever asks more than once says so before it asks, or a pipeline could not keep its order.
        """

    def exchange(self, server: Server, commands: Sequence[Command]) -> Awaitable[list[Reply]]:
        """Return the server's replies to *commands*."""

    async def exchange_all(self, plan: Plan) -> list[list[Reply] | Exception]:
        """Ask several servers at once, and return each one's replies, or what it failed with if it is not alone."""

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""

    async def produce(self, make: Callable[[], Any], refusal: Exception | None = None) -> Any:
        """Return what a user's function makes; raise *refusal* if that has to be awaited, and cannot be."""


class Blocking:
    """Waits by blocking the thread; its coroutines never suspend."""

    blocks = True
    once = False

    async def alone(self) -> None:
        pass

    async def exchange(self, server: Server, commands: Sequence[Command]) -> list[Reply]:
        return server.exchange(commands)

    async def exchange_all(self, plan: Plan) -> list[list[Reply] | Exception]:
        if len(plan) == 1:
            ((server, commands),) = plan
            return [server.exchange(commands)]
        # Send to all, then read from all: concurrent without threads.
        told: list[Any] = []
        answers: list[Any] = []
        try:
            for server, commands in plan:
                told.append(attempt(server.tell, commands))
            for (server, _), found in zip(plan, told, strict=True):
                answers.append(found if isinstance(found, Exception) else attempt(server.hear, found))
        except BaseException:
            # An interrupt: the replies that were not read must not be read by others.
            hearing = len(told) == len(plan)  # then one of them was being read, and has let go itself
            for (server, _), found in list(zip(plan, told, strict=False))[len(answers) + hearing :]:
                if not isinstance(found, Exception):
                    server.drop(found)
            raise
        return answers

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - this is the blocking runtime

    async def produce(self, make: Callable[[], Any], refusal: Exception | None = None) -> Any:
        made = make()
        if inspect.iscoroutine(made):
            made.close()
            raise refusal or TypeError(
                f"{made.__qualname__} is a coroutine function; a blocking call cannot await it: use the a-method"
            )
        return made


def attempt(action: Callable[[Any], Any], argument: Any) -> Any:
    """Return what *action* returns, or what a server raises, to be raised when all have been read."""
    try:
        return action(argument)
    except RedisError as error:
        return error


class Awaiting:
    """Waits by giving way to the other tasks of the running loop."""

    blocks = False
    once = False

    async def alone(self) -> None:
        pass

    def exchange(self, server: Server, commands: Sequence[Command]) -> Awaitable[list[Reply]]:
        return server.aexchange(commands)

    async def exchange_all(self, plan: Plan) -> list[list[Reply] | Exception]:
        if len(plan) == 1:
            ((server, commands),) = plan
            return [await server.aexchange(commands)]
        asking = (server.aexchange(commands) for server, commands in plan)
        answers: list[list[Reply] | Exception] = []
        for answer in await asyncio.gather(*asking, return_exceptions=True):
            if isinstance(answer, BaseException) and not isinstance(answer, Exception):
                raise answer
            answers.append(answer)
        return answers

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def produce(self, make: Callable[[], Any], refusal: Exception | None = None) -> Any:
        made = make()
        return await made if inspect.isawaitable(made) else made


BLOCKING = Blocking()
AWAITING = Awaiting()
