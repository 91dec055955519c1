"""Many operations in one round trip.

An operation is a coroutine that asks and then makes a value of the reply.  A pipeline starts each
of them over a runtime that only takes the question down, sends all questions together, and lets
the coroutines go on with their replies.  So every operation of the cache works in a pipeline, and
none is written again.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Coroutine, Generator, Sequence
from functools import cache
from typing import Any, Self

from redis.exceptions import RedisError

from fleetcache import commands as c
from fleetcache.core import Core
from fleetcache.exchange import Command, Reply, Server
from fleetcache.exchange.runtime import AWAITING, BLOCKING, Plan
from fleetcache.interrupts import let_pass
from fleetcache.topology.replicas import Reader
from fleetcache.twin import Twinned, blocking


class Recording:
    """A runtime that hands every question to whoever drives the coroutine, and waits for the replies."""

    blocks = False
    records = True

    @types.coroutine
    def exchange(self, server: Server, commands: Sequence[Command]) -> Generator[Plan, list[list[Reply]], list[Reply]]:
        (replies,) = yield [(server, commands)]
        return replies

    @types.coroutine
    def exchange_all(self, plan: Plan) -> Generator[Plan, list[list[Reply]], list[list[Reply]]]:
        return (yield plan)

    async def sleep(self, seconds: float) -> None:
        raise TypeError("an operation that waits cannot stand in a pipeline")

    async def produce(self, make: Callable[[], Any]) -> Any:
        return make()


RECORDING = Recording()


@cache
def operations(cls: Any) -> frozenset[str]:
    """Return the operations of a cache that can stand in a pipeline: those with two faces."""
    pairs = ((name, getattr(cls, f"a{name}", None)) for name in dir(cls) if not name.startswith("_"))
    return frozenset(name for name, awaiting in pairs if inspect.iscoroutinefunction(awaiting) and name != "lock")


class Pipeline(Twinned):
    """Collects operations, each called as on the cache, and runs them together.

    ::

        with cache.pipeline() as pipe:
            pipe.set("a", 1).incr("b", default=0).get("c")
            stored, count, value = pipe.execute()

    With *transaction* nobody else's command runs in between; then every operation must be of one
    step, and all of one server, or one slot of a cluster.
    """

    def __init__(self, of: Core, *, transaction: bool) -> None:
        self.recorder: Core = of.face(runtime=RECORDING)
        self.transaction = transaction
        self.operations: list[Coroutine[Any, Any, Any]] = []
        self.wait_by(AWAITING, BLOCKING)

    def __getattr__(self, name: str) -> Callable[..., Pipeline]:
        recorder = self.__dict__.get("recorder")
        if recorder is None or name not in operations(recorder.__class__):
            raise AttributeError(f"a pipeline has no operation {name!r}")
        operation = getattr(recorder, f"a{name}")

        def collect(*args: Any, **kwargs: Any) -> Pipeline:
            self.operations.append(operation(*args, **kwargs))
            return self

        return collect

    def __len__(self) -> int:
        return len(self.operations)

    def __bool__(self) -> bool:
        return True

    async def aexecute(self, *, raise_on_error: bool = True) -> list[Any]:
        """Run what was collected, and return the results in order.

        The first error is raised when all have run; without *raise_on_error* errors are results.
        """
        operations = list(self.operations)
        self.operations.clear()
        results: list[Any] = [None] * len(operations)
        asking: dict[int, Plan] = {}
        for place, operation in enumerate(operations):
            self._step(place, operation.send, None, results, asking)
        while asking:
            asked, asking = asking, {}
            try:
                answers = await self._ask(asked)
            except BaseException:
                for operation in operations:
                    operation.close()  # now: what it does at its end must not wait for the garbage collector
                raise
            for place, answer in answers.items():
                operation = operations[place]
                step = operation.throw if isinstance(answer, Exception) else operation.send
                self._step(place, step, answer, results, asking)
            if asking and self.transaction:
                raise TypeError("a transaction takes only operations of one step")
        if raise_on_error:
            for result in results:
                if isinstance(result, Exception):
                    raise result
        return results

    execute = blocking(aexecute)

    @staticmethod
    def _step(
        place: int, step: Callable[[Any], Plan], answer: Any, results: list[Any], asking: dict[int, Plan]
    ) -> None:
        """Let one operation go on until it asks again, or ends."""
        try:
            asking[place] = step(answer)
        except StopIteration as finished:
            results[place] = finished.value
        except Exception as error:  # noqa: BLE001 - it is this operation's result
            let_pass(error)
            results[place] = error

    async def _ask(self, asked: dict[int, Plan]) -> dict[int, list[list[Reply]] | Exception]:
        """Send all questions, one write per server, and return each operation's replies, or error."""
        reads = all(command[0].reads for plan in asked.values() for _, commands in plan for command in commands)
        batches: dict[Server, list[Command]] = {}
        spans: dict[int, list[tuple[Server, slice]]] = {}
        for place, plan in asked.items():
            spans[place] = []
            for server, commands in plan:
                if isinstance(server, Reader) and not reads:
                    server = server.primary  # noqa: PLW2901 - a replica would not know what is written here
                batch = batches.setdefault(server, [])
                spans[place].append((server, slice(len(batch), len(batch) + len(commands))))
                batch.extend(commands)
        exchange = self._exchange_whole if self.transaction else self._exchange
        outcomes = dict(zip(batches, await exchange(list(batches.items())), strict=True))
        answers: dict[int, list[list[Reply]] | Exception] = {}
        for place, own in spans.items():
            failed = [outcome for server, _ in own if isinstance(outcome := outcomes[server], Exception)]
            answers[place] = failed[0] if failed else [outcomes[server][span] for server, span in own]
        return answers

    async def _exchange(self, batches: list[tuple[Server, list[Command]]]) -> list[Any]:
        """Return what each server replies, or the error with which it fails."""
        try:
            return list(await self.runtime.exchange_all(batches))
        except (RedisError, OSError) as error:
            return [error] * len(batches)

    async def _exchange_whole(self, batches: list[tuple[Server, list[Command]]]) -> list[Any]:
        """Return what the server replies to a transaction, as if each command stood alone."""
        names = [part[part[0].key] for _, commands in batches for part in commands if part[0].key]
        self.recorder.together(names, "a transaction")
        if len(batches) > 1:
            raise TypeError("a transaction takes only operations that are of one server")
        ((server, commands),) = batches
        # EVALSHA may miss its script, and then half of the transaction would have run.
        whole = [(c.EVAL, part[1].lua, *part[2:]) if part[0] is c.EVALSHA else part for part in commands]
        inside = [part for part in whole if part[0] is not c.MULTI and part[0] is not c.EXEC]
        (outcome,) = await self._exchange([(server, [(c.MULTI,), *inside, (c.EXEC,)])])
        if isinstance(outcome, Exception):
            return [outcome]
        replies = outcome[-1]
        return [_nested(commands, replies) if isinstance(replies, list) else [replies] * len(commands)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._discard()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._discard()

    def _discard(self) -> None:
        """Close what was collected and never executed."""
        for operation in self.operations:
            operation.close()
        self.operations.clear()


def _nested(commands: Sequence[Command], replies: Sequence[Reply]) -> list[Reply]:
    """Return *replies* as *commands* expect them, some of which brought a transaction of their own."""
    left = iter(replies)
    answers: list[Reply] = []
    inner: list[Reply] | None = None
    for command in commands:
        if command[0] is c.MULTI:
            inner = []
            answers.append(b"OK")
        elif command[0] is c.EXEC:
            answers.append(inner)
            inner = None
        elif inner is None:
            answers.append(next(left))
        else:
            inner.append(next(left))
            answers.append(b"QUEUED")
    return answers
