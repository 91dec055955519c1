"""The runtimes: two ways to wait, blocking and awaiting, for coroutines that are written once."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Sequence
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, NoReturn, Protocol, TypeAlias

from redis.exceptions import RedisError

from fleetcache.exchange.contract import Command, Reply, Server
from fleetcache.exchange.wakers import TaskWaker, ThreadWaker, Waker
from fleetcache.stats.operations import come_back, leave
from fleetcache.twin import Stopped

Plan: TypeAlias = Sequence[tuple[Server, Sequence[Command]]]


class Runtime(Protocol):
    """The methods that an operation's coroutine may await."""

    blocks: bool
    """Whether its coroutines run to their end without suspending."""

    once: bool = False
    """Whether an operation may send commands only once, as in a transaction."""

    records: bool = False
    """Whether it is a pipeline's, which sends commands later."""

    async def alone(self) -> None:
        """Wait until all operations before this one have ended; those after it wait for its end.

        An operation that sends commands more than once calls this first; otherwise a pipeline could not keep its order.
        """
        return

    def exchange(self, server: Server, commands: Sequence[Command]) -> Awaitable[list[Reply]]:
        """Return the server's replies to *commands*."""

    async def exchange_all(self, plan: Plan) -> list[list[Reply] | Exception]:
        """Ask several servers at the same time; return the replies of each, or its error if it is one of several."""

    async def sleep(self, seconds: float) -> None:
        """Wait for *seconds*."""

    def waker(self) -> Waker:
        """Return a `Waker` for the caller."""
        raise NotImplementedError

    async def produce(self, make: Callable[[], Any], refusal: Exception | None = None) -> Any:
        """Return the result of a user's function; raise *refusal* if it must be awaited and this runtime cannot."""


class Blocking(Runtime):
    """Waits by blocking the thread; coroutines on it never suspend."""

    blocks = True

    async def exchange(self, server: Server, commands: Sequence[Command]) -> list[Reply]:
        return server.exchange(commands)

    async def exchange_all(self, plan: Plan) -> list[list[Reply] | Exception]:
        if len(plan) == 1:
            ((server, commands),) = plan
            return [server.exchange(commands)]
        # Send to all, then read from all: the servers work at the same time, without threads.
        told: list[Any] = []
        answers: list[Any] = []
        try:
            for server, commands in plan:
                told.append(attempt(server.tell, commands))
            for (server, _), found in zip(plan, told, strict=True):
                answers.append(found if isinstance(found, Exception) else attempt(server.hear, found))
        except BaseException:
            # An interrupt: no other call may read the replies that were not read here.
            hearing = len(told) == len(plan)  # then one server's `hear` was running, and has dropped its own
            for (server, _), found in list(zip(plan, told, strict=False))[len(answers) + hearing :]:
                if not isinstance(found, Exception):
                    server.drop(found)
            raise
        return answers

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - this is the blocking runtime

    def waker(self) -> Waker:
        return ThreadWaker()

    async def produce(self, make: Callable[[], Any], refusal: Exception | None = None) -> Any:
        away = leave()
        try:
            made = make()
        except StopIteration as error:
            raise Stopped(error) from None
        finally:
            come_back(away)
        if inspect.iscoroutine(made):
            made.close()
            raise refusal or TypeError(
                f"{made.__qualname__} is a coroutine function; a blocking call cannot await it: use the a-method"
            )
        return made if type(made) not in READ_ONCE else refuse(made)


READ_ONCE = frozenset((CoroutineType, GeneratorType, AsyncGeneratorType))
"""Types of results that only one caller could use."""


def refuse(made: Any) -> NoReturn:
    """Raise the error for *made*, the result of a user's function, which only one caller could use."""
    kind = type(made).__name__.replace("_", " ")
    if type(made) is CoroutineType:
        made.close()  # or Python warns that it was never awaited
        raise TypeError(f"the function returned a coroutine, {made.__qualname__}, that it should have awaited")
    raise TypeError(
        f"the function returned the {kind} {made.__qualname__}, which only one caller could read: return a list of its items"
    )


def attempt(action: Callable[[Any], Any], argument: Any) -> Any:
    """Return the result of *action*, or the error of the server, which is raised when all have been read."""
    try:
        return action(argument)
    except RedisError as error:
        return error


class Awaiting(Runtime):
    """Waits by awaiting, so that other tasks of the running loop go on."""

    blocks = False

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

    def waker(self) -> Waker:
        return TaskWaker()

    async def produce(self, make: Callable[[], Any], refusal: Exception | None = None) -> Any:
        away = leave()
        try:
            made = make()
            if inspect.isawaitable(made):
                made = await made
        finally:
            come_back(away)
        return made if type(made) not in READ_ONCE else refuse(made)


BLOCKING = Blocking()
AWAITING = Awaiting()
