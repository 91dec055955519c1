"""Many operations in one round trip.

An operation is a coroutine that asks a server and makes a value of the reply.  A pipeline starts each
of them over a runtime that only records the question, sends all questions together, and resumes the
coroutines with the replies.  So every operation of the cache works in a pipeline as it is written.

The operations take effect in their order.  One that asks more than once says so first (`Recording.alone`): it
starts when all operations before it have ended, and those after it wait for its end.  After the reply to a few
commands (``UNSETTLED``) an operation may have to ask again, which is rare.  Commands that would change the same
entry wait for that reply; commands that only read it are sent at once, and sent again if the entry was changed.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import TYPE_CHECKING, Any, Concatenate, Final, Literal, ParamSpec, Self, TypeAlias

from redis.exceptions import RedisError

from fleetcache import commands as c
from fleetcache.core import Core
from fleetcache.errors import ServerGone
from fleetcache.exchange.contract import EVERYTHING, Command, Reply, Server
from fleetcache.exchange.runtime import AWAITING, BLOCKING, Plan
from fleetcache.interrupts import let_pass
from fleetcache.near.near import Copyless
from fleetcache.twin import Twinned, blocking, carried, passable

OPERATIONS = frozenset(
    (  # noqa: SIM905 - as a list literal they would fill a page
        "get set add get_many set_many delete delete_many has_key get_or_set get_or_set_many get_with_ttl lookup "
        "incr decr incr_version decr_version invalidate_tags invalidate "
        "touch ttl pttl persist expire pexpire expire_at pexpire_at scan keys delete_pattern clear "
        "hset hsetnx hget hmget hgetall hvals hkeys hlen hexists hdel hincrby "
        "sadd srem scard smembers sdiff sinter sunion sdiffstore sinterstore sunionstore "
        "sismember smismember smove spop srandmember sscan "
        "zadd zcard zcount zincrby zpopmax zpopmin zrange zrevrange zrangebyscore zrevrangebyscore "
        "zrank zrevrank zrem zremrangebyscore zremrangebyrank zscore "
        "lpush rpush lpop rpop llen lrange lindex lset lrem ltrim"
    ).split()
)
"""The operations that a pipeline takes."""


class Aside(Enum):
    """Signals that an operation may yield in place of a question."""

    ALONE = "it will ask more than once"


ALONE: Final = Aside.ALONE


class Work:
    """Yielded by an operation that needs the result of a user's function, which the pipeline calls, or awaits."""

    def __init__(self, make: Callable[[], Any], refusal: Exception | None) -> None:
        self.make = make
        self.refusal = refusal
        self.made: Any = None


Question: TypeAlias = Plan | Literal[Aside.ALONE]


class Recording:
    """A runtime that yields every question to the pipeline, which sends the replies back into the coroutine."""

    blocks = False
    records = True

    def __init__(self, *, once: bool) -> None:
        self.once = once

    @types.coroutine
    def alone(self) -> Generator[Question, None, None]:
        yield ALONE

    @types.coroutine
    def exchange(
        self, server: Server, commands: Sequence[Command]
    ) -> Generator[Question, list[list[Reply]], list[Reply]]:
        (replies,) = yield [(server, commands)]
        return replies

    @types.coroutine
    def exchange_all(self, plan: Plan) -> Generator[Question, list[list[Reply]], list[list[Reply]]]:
        return (yield plan)

    async def sleep(self, seconds: float) -> None:
        raise TypeError("an operation that waits cannot stand in a pipeline")

    @types.coroutine
    def produce(self, make: Callable[[], Any], refusal: Exception | None = None) -> Generator[Work, None, Any]:
        work = Work(make, refusal)
        yield work
        return work.made


class Results(list[Any]):
    """The results of a pipeline's operations, in order.

    ``errors`` has the exceptions of the operations that failed, by their place.  The list has them too, but there an
    exception may also be a value: a cache may hold exceptions.
    """

    def __init__(self, count: int) -> None:
        super().__init__([None] * count)
        self.errors: dict[int, Exception] = {}


if (
    TYPE_CHECKING
):  # `Pipeline.__getattr__` is all that runs; type checkers and editors see each operation with its arguments
    from fleetcache.keyspace import Keyspace
    from fleetcache.loading.get_or_set import Loading
    from fleetcache.loading.invalidation import Invalidation
    from fleetcache.loading.many import Batches
    from fleetcache.structures import Hashes, Lists, Sets, SortedSets
    from fleetcache.values import Values

    P = ParamSpec("P")

    def piped(
        method: Callable[Concatenate[Any, P], Coroutine[Any, Any, Any]],
    ) -> Callable[Concatenate[Any, P], Pipeline]:
        """Return the operation *method* of a pipeline, which returns the pipeline."""
        raise NotImplementedError

    class Operations(Twinned):
        """The operations of a pipeline."""

        get = piped(Values.aget)
        set = piped(Values.aset)
        add = piped(Values.aadd)
        get_many = piped(Values.aget_many)
        set_many = piped(Values.aset_many)
        delete = piped(Values.adelete)
        delete_many = piped(Values.adelete_many)
        has_key = piped(Values.ahas_key)
        get_or_set = piped(Loading.aget_or_set)
        get_or_set_many = piped(Batches.aget_or_set_many)
        get_with_ttl = piped(Keyspace.aget_with_ttl)
        lookup = piped(Values.alookup)
        incr = piped(Values.aincr)
        decr = piped(Values.adecr)
        incr_version = piped(Keyspace.aincr_version)
        decr_version = piped(Keyspace.adecr_version)
        invalidate_tags = piped(Invalidation.ainvalidate_tags)
        invalidate = piped(Invalidation.ainvalidate)
        touch = piped(Keyspace.atouch)
        ttl = piped(Keyspace.attl)
        pttl = piped(Keyspace.apttl)
        persist = piped(Keyspace.apersist)
        expire = piped(Keyspace.aexpire)
        pexpire = piped(Keyspace.apexpire)
        expire_at = piped(Keyspace.aexpire_at)
        pexpire_at = piped(Keyspace.apexpire_at)
        scan = piped(Keyspace.ascan)
        keys = piped(Keyspace.akeys)
        delete_pattern = piped(Keyspace.adelete_pattern)
        clear = piped(Keyspace.aclear)
        hset = piped(Hashes.ahset)
        hsetnx = piped(Hashes.ahsetnx)
        hget = piped(Hashes.ahget)
        hmget = piped(Hashes.ahmget)
        hgetall = piped(Hashes.ahgetall)
        hvals = piped(Hashes.ahvals)
        hkeys = piped(Hashes.ahkeys)
        hlen = piped(Hashes.ahlen)
        hexists = piped(Hashes.ahexists)
        hdel = piped(Hashes.ahdel)
        hincrby = piped(Hashes.ahincrby)
        sadd = piped(Sets.asadd)
        srem = piped(Sets.asrem)
        scard = piped(Sets.ascard)
        smembers = piped(Sets.asmembers)
        sdiff = piped(Sets.asdiff)
        sinter = piped(Sets.asinter)
        sunion = piped(Sets.asunion)
        sdiffstore = piped(Sets.asdiffstore)
        sinterstore = piped(Sets.asinterstore)
        sunionstore = piped(Sets.asunionstore)
        sismember = piped(Sets.asismember)
        smismember = piped(Sets.asmismember)
        smove = piped(Sets.asmove)
        spop = piped(Sets.aspop)
        srandmember = piped(Sets.asrandmember)
        sscan = piped(Sets.asscan)
        zadd = piped(SortedSets.azadd)
        zcard = piped(SortedSets.azcard)
        zcount = piped(SortedSets.azcount)
        zincrby = piped(SortedSets.azincrby)
        zpopmax = piped(SortedSets.azpopmax)
        zpopmin = piped(SortedSets.azpopmin)
        zrange = piped(SortedSets.azrange)
        zrevrange = piped(SortedSets.azrevrange)
        zrangebyscore = piped(SortedSets.azrangebyscore)
        zrevrangebyscore = piped(SortedSets.azrevrangebyscore)
        zrank = piped(SortedSets.azrank)
        zrevrank = piped(SortedSets.azrevrank)
        zrem = piped(SortedSets.azrem)
        zremrangebyscore = piped(SortedSets.azremrangebyscore)
        zremrangebyrank = piped(SortedSets.azremrangebyrank)
        zscore = piped(SortedSets.azscore)
        lpush = piped(Lists.alpush)
        rpush = piped(Lists.arpush)
        lpop = piped(Lists.alpop)
        rpop = piped(Lists.arpop)
        llen = piped(Lists.allen)
        lrange = piped(Lists.alrange)
        lindex = piped(Lists.alindex)
        lset = piped(Lists.alset)
        lrem = piped(Lists.alrem)
        ltrim = piped(Lists.altrim)
else:
    Operations = Twinned


class Pipeline(Operations):
    """Collects operations, each called as on the cache, and runs them together.

    ::

        with cache.pipeline() as pipe:
            pipe.set("a", 1).incr("b", default=0).get("c")
            stored, count, value = pipe.execute()

    They take effect in their order; on several servers, in their order on each.  An operation that asks a server
    more than once (`get_or_set`, `get_or_set_many`, `keys`, `delete_pattern`, `clear` with a prefix) has its round trips to itself.

    With *transaction* no other client's command runs in between; then every operation must ask only once,
    and all must ask the same server, or be about one slot of a cluster.
    """

    transaction: bool
    """Whether no other client's command runs in between."""

    def __init__(self, of: Core, *, transaction: bool) -> None:
        # A pipeline does not tell which server has answered.
        near = of.near and Copyless(of.near)
        self._recorder: Core = of._face(_runtime=Recording(once=transaction), _still=None, near=near)
        self.transaction = transaction
        self._collected: list[Coroutine[Any, Any, Any]] = []
        self._wait_by(AWAITING, BLOCKING)

    if not TYPE_CHECKING:  # else every name would be an operation

        def __getattr__(self, name: str) -> Callable[..., Pipeline]:
            return self._collecting(name)

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self._recorder.operations]

    def _collecting(self, name: str) -> Callable[..., Pipeline]:
        """Return the method *name*, which collects an operation."""
        recorder = self.__dict__.get("_recorder")
        if recorder is None or name not in recorder.operations:
            known = recorder is not None and not name.startswith("_") and hasattr(recorder, name)
            hint = f": call cache.{name} itself" if known else ""
            raise AttributeError(f"a pipeline has no operation {name!r}{hint}")
        operation = getattr(recorder, f"a{name}")

        def collect(*args: Any, **kwargs: Any) -> Pipeline:
            self._collected.append(operation(*args, **kwargs))
            return self

        return collect

    def __len__(self) -> int:
        return len(self._collected)

    def __bool__(self) -> bool:
        return True

    async def aexecute(self, *, raise_on_error: bool = True) -> Results:
        """Run the collected operations, and return their results in order.

        The first error is raised when all operations have run; without *raise_on_error* errors are results, and
        the results' ``errors`` has them as well.
        """
        run = Run(self, self._collected)
        self._collected = []
        await run.all()
        if raise_on_error and run.results.errors:
            error = run.results.errors[min(run.results.errors)]
            raise passable(error) if self._runtime.blocks else error
        return run.results

    execute = blocking(aexecute)

    async def _exchange(self, batches: list[tuple[Server, list[Command]]]) -> list[Any]:
        """Return what each server replies, or the error with which it fails."""
        one = not self._recorder.topology.one_by_one  # a slot that has moved is asked of another server
        batches = [(server, _knowing(commands, one=one)) for server, commands in batches]
        try:
            return list(await self._runtime.exchange_all(batches))
        except RedisError as error:
            return [error] * len(batches)

    async def _exchange_whole(self, batches: list[tuple[Server, list[Command]]]) -> list[Any]:
        """Return the server's replies to a transaction, as if each command had been sent alone."""
        names = [name for _, commands in batches for part in commands for name in c.named(part)[:1]]
        self._recorder._together(names, "a transaction")
        if len(batches) > 1:
            raise TypeError("a transaction takes only operations that are of one server")
        ((server, commands),) = batches
        # Leases end before the transaction: a user who may not touch them may still change entries.
        voids = [part for part in commands if part[0] is c.VOID]
        inside = [part for part in commands if not any(part[0] is verb for verb in (c.MULTI, c.EXEC, c.VOID))]
        (outcome,) = await self._exchange([(server, [*voids, (c.MULTI,), *inside, (c.EXEC,)])])
        if isinstance(outcome, Exception):
            return [outcome]
        replies = outcome[-1]
        if isinstance(replies, Exception):
            return [[replies] * len(commands)]
        if not isinstance(replies, list) or len(replies) != len(inside):
            return [ServerGone(f"{server.address}: sent no valid reply to a transaction")]
        return [_nested(commands, replies, outcome)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for operation in self._collected:
            operation.close()
        self._collected.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()


class Run:
    """One execution of a pipeline's operations."""

    def __init__(self, pipeline: Pipeline, operations: Sequence[Coroutine[Any, Any, Any]]) -> None:
        self.pipeline = pipeline
        self.operations = operations
        self.results = Results(len(operations))
        self.asked: dict[int, Plan] = {}
        """Questions to be sent together, by the places of their operations."""
        self.unsettled: set[str] = set()
        """Names of the entries about which one of these operations may ask again."""
        self.wrote = False

    async def all(self) -> None:
        """Run every operation to its end."""
        try:
            for place in range(len(self.operations)):
                await self._begin(place)
            await self._flush()
        finally:
            for operation in self.operations:
                operation.close()  # now, so that its `finally` blocks do not wait for the garbage collector

    async def _begin(self, place: int) -> None:
        question = await self._step(place)
        if question is ALONE:
            if self.pipeline.transaction:
                raise TypeError(
                    f"{self._name(place)} asks the server more than once here, and a transaction takes only operations "
                    f"of one step. Nothing was sent"
                )
            await self._flush()
            await self._finish(place, question)
        elif question is not None:
            if self.unsettled and _waits(question, self.unsettled):
                await self._flush()
            self.asked[place] = question
            if _may_ask_again(question):
                self.unsettled.update(_entries(question))

    async def _flush(self) -> None:
        """Send the questions, and resume the operations in their order."""
        asked, self.asked = self.asked, {}
        self.unsettled.clear()
        if asked:
            await self._resume(asked)

    async def _resume(self, asked: dict[int, Plan]) -> None:
        """Send the questions in *asked*, and resume their operations in order.

        A question that was answered before another operation changed the entry is asked again.
        """
        answers = await self._ask(asked)
        early: dict[int, Plan] = {}
        changed: set[str] = set()
        for place, question in asked.items():
            if changed and _is_repeatable(question) and _touches(question, changed):
                early[place] = question
            elif (following := await self._step(place, answers[place])) is not None:
                if early:
                    await self._resume(early)
                    early = {}
                if await self._finish(place, following):
                    changed.update(_entries(question))
        if early:
            await self._resume(early)

    async def _finish(self, place: int, question: Question | None) -> bool:
        """Let one operation ask until it ends; return whether it has changed entries."""
        wrote = False
        while question is not None:
            if self.pipeline.transaction and (question is ALONE or _writes(question)):
                question = await self._step(
                    place, TypeError(f"{self._name(place)} needed a second step, after the transaction")
                )
            elif question is ALONE:
                question = await self._step(place)
            else:
                # A transaction has run by now; what an entry is worth can be asked afterwards.
                wrote = wrote or _writes(question)
                answers = await self._ask({place: question}, whole=False)
                question = await self._step(place, answers[place])
        return wrote

    def _name(self, place: int) -> str:
        operation: Any = self.operations[place]
        return str(operation.__name__).removeprefix("a")

    async def _step(self, place: int, answer: Any = None) -> Question | None:
        """Resume one operation; return its next question, or None if it has ended."""
        question = self._go_on(place, answer)
        while isinstance(question, Work):
            answer = None
            try:
                question.made = await self.pipeline._runtime.produce(question.make, question.refusal)
            except Exception as error:  # noqa: BLE001 - it is raised within the operation
                let_pass(error)
                answer = error
            question = self._go_on(place, answer)
        return question

    def _go_on(self, place: int, answer: Any) -> Question | Work | None:
        operation = self.operations[place]
        go_on: Callable[[Any], Question | Work] = operation.throw if isinstance(answer, Exception) else operation.send
        try:
            return go_on(answer)
        except StopIteration as finished:
            self.results[place] = finished.value
        except Exception as error:  # noqa: BLE001 - it is this operation's result
            let_pass(error)
            self.results[place] = self.results.errors[place] = carried(error)
        return None

    async def _ask(self, asked: dict[int, Plan], *, whole: bool = True) -> dict[int, list[list[Reply]] | Exception]:
        """Send all questions, with one write to each server; return the replies to each operation, or its error.

        If not *whole*, they are no transaction.
        """
        reads = all(command[0].reads for plan in asked.values() for _, commands in plan for command in commands)
        self.wrote |= not reads
        batches: dict[Server, list[Command]] = {}
        spans: dict[int, list[tuple[Server, slice]]] = {}
        for place, plan in asked.items():
            spans[place] = []
            for server, commands in plan:
                if self.wrote:
                    server = server.primary  # noqa: PLW2901 - a replica may not have these writes yet
                batch = batches.setdefault(server, [])
                spans[place].append((server, slice(len(batch), len(batch) + len(commands))))
                batch.extend(commands)
        pipeline = self.pipeline
        exchange = pipeline._exchange_whole if whole and pipeline.transaction else pipeline._exchange
        outcomes = dict(zip(batches, await exchange(list(batches.items())), strict=True))
        answers: dict[int, list[list[Reply]] | Exception] = {}
        for place, own in spans.items():
            failed = [outcome for server, _ in own if isinstance(outcome := outcomes[server], Exception)]
            answers[place] = failed[0] if failed else [outcomes[server][span] for server, span in own]
        return answers


def _commands(question: Plan) -> Iterable[Command]:
    return (command for _, commands in question for command in commands)


def _writes(question: Plan) -> bool:
    return any(command[0].writes for command in _commands(question))


def _may_ask_again(question: Plan) -> bool:
    return any(command[0] is verb for command in _commands(question) for verb in c.UNSETTLED)


def _entries(question: Plan) -> Iterable[str]:
    """Yield the name of the first entry of each command in *question*."""
    return (str(command[command[0].key]) for command in _commands(question) if command[0].key)


def _touches(question: Plan, names: AbstractSet[str]) -> bool:
    """Whether *question* is about one of *names*, or about every entry."""
    return any(
        command[0].writes == EVERYTHING or not names.isdisjoint(c.named(command)) for command in _commands(question)
    )


def _is_repeatable(question: Plan) -> bool:
    """Whether *question* may be asked too early, and then again: it is about one entry, and changes no value."""
    names = {name for command in _commands(question) for name in c.named(command)}
    return len(names) == 1 and all(
        not command[0].writes or (command[0] is c.PEXPIRE and command[2] > 0) for command in _commands(question)
    )


def _waits(question: Plan, names: AbstractSet[str]) -> bool:
    """Whether *question* must wait for the replies to earlier questions about *names*."""
    # An operation that may ask again first compares the entry with the reply that it had.  (Several `incr` past
    # 2**63 in one exchange return their sums in another order.)
    return not _is_repeatable(question) and not _may_ask_again(question) and _touches(question, names)


def _knowing(commands: Sequence[Command], *, one: bool) -> list[Command]:
    """Return *commands* with the text of each script in place of its digest; for *one* server at its first use only.

    A server that does not know the digest would refuse the script, but run the commands after it.
    """
    sent: set[Any] = set()
    whole: list[Command] = []
    for command in commands:
        if command[0] == b"EVALSHA" and not (one and command[1] in sent):
            sent.add(command[1])
            command = (c.EVAL, command[1].lua, *command[2:])  # noqa: PLW2901 - the same command, with its script
        whole.append(command)
    return whole


def _nested(commands: Sequence[Command], replies: Sequence[Reply], before: Sequence[Reply]) -> list[Reply]:
    """Return *replies* in the form that *commands* expect: some of these were transactions of their own.

    *before* begins with the replies to those that ran before the transaction.
    """
    left, voided = iter(replies), iter(before)
    answers: list[Reply] = []
    inner: list[Reply] | None = None
    for command in commands:
        if command[0] is c.MULTI:
            inner = []
            answers.append(b"OK")
        elif command[0] is c.EXEC:
            answers.append(inner)
            inner = None
        elif command[0] is c.VOID:
            answers.append(next(voided))
        elif inner is None:
            answers.append(next(left))
        else:
            inner.append(next(left))
            answers.append(b"QUEUED")
    return answers
