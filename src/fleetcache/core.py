"""The steps of every operation: make the name, encode the value, ask the server, check and decode the reply."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import repeat
from time import monotonic
from typing import Any, Self

from redis.exceptions import ConnectionError, NoPermissionError, NoScriptError, RedisError

from fleetcache import commands as c
from fleetcache.codec.metadata import Described, Metadata, alone
from fleetcache.codec.payloads import Codec
from fleetcache.errors import CrossServer, FleetcacheError, ServerGone, UnreadableValue
from fleetcache.exchange.contract import Command, Redirected, Reply, Script, Server, Verb
from fleetcache.exchange.repeating import elsewhere
from fleetcache.exchange.runtime import Plan
from fleetcache.failsafe import TROUBLE, Failsafe, explained
from fleetcache.interrupts import let_pass
from fleetcache.keys import (
    MARK,
    default_key_function,
    frame,
    key_within,
    lease_name,
    masked,
)
from fleetcache.marks import DEFAULT_TIMEOUT, MISSING, Timeout
from fleetcache.masking import with_article
from fleetcache.naming import Naming
from fleetcache.near.near import Bypassed, Copyless, Near
from fleetcache.policy import LEASE
from fleetcache.servers.borrowed import TAKEN, CallersPipeline, server_of
from fleetcache.settings import Settings
from fleetcache.stats.payloads import MINUTE, Stats
from fleetcache.stats.tally import Tally
from fleetcache.times import LARGEST, milliseconds
from fleetcache.topology.contract import Topology
from fleetcache.topology.standalone import Standalone

__all__ = ["DEFAULT_TIMEOUT", "MISSING", "Core", "Timeout"]

log = logging.getLogger("fleetcache.codec")

LEASES = 10
"""How many times the permission to load an entry outlives the time for which the fleet waits for that load."""


class Core(Naming):
    """The methods that operations use; the operations themselves are in its subclasses."""

    settings: Settings
    """The settings, as they were read; ``settings.options`` has those of ``OPTIONS``."""
    topology: Topology
    """The servers, and which of them is asked."""
    codec: Codec
    """Turns values into bytes and back: ``codec.serializer``, ``codec.compressor``."""
    _failsafe: Failsafe
    default_timeout: float | None
    """TIMEOUT: the seconds that entries live without a timeout of their own, None for ever; may be set."""
    logger: logging.Logger | None
    """Where each ignored error is logged; None without LOG_IGNORED_EXCEPTIONS."""
    stats: Stats
    """The counters of this configuration in this process that `info` shows, and ``stats.unreadable``."""
    tally: Tally | None = None
    """What `snapshot` shows; None if ``OPTIONS["STATS"]`` is off."""
    near: Near | Copyless | None = None
    """The near cache, with ``near.stats()``, ``near.advice()`` and ``near.audit()``; None without ``OPTIONS["NEAR"]``."""

    operations: frozenset[str] = frozenset()
    """The methods that a pipeline accepts; a class with operations of its own adds their names."""

    _lease_life = int(LEASE * LEASES * 1000)
    """Whatever lives for fewer milliseconds may end before a load that began before it: storing it voids the lease.

    It is how long a lease is there at most, of the length in the settings.
    """

    _default_marks: tuple[object, ...] = (DEFAULT_TIMEOUT,)
    """Objects that stand for the cache's own timeout; Django has another one."""

    @property
    def runtime(self) -> Any:
        """What this face waits by; operations that ask a server several times begin with ``await self.runtime.alone()``."""
        return self._runtime

    @property
    def strict(self) -> Self:
        """The cache with every exception raised."""
        raise NotImplementedError

    def __deepcopy__(self, memo: Any) -> Self:
        """Return a separate object on the same connections."""
        return self.__copy__()

    # --- times ------------------------------------------------------------------------------------

    def milliseconds(self, timeout: Timeout, unit: int = 1000) -> int | None:
        """Return *timeout* in milliseconds, None for ever; numbers count *unit* milliseconds each."""
        if type(timeout) is int and -LARGEST <= (found := timeout * unit) <= LARGEST:
            return found
        if timeout is None:
            return None
        if any(timeout is mark for mark in self._default_marks):
            return self.milliseconds(self.default_timeout)
        return milliseconds(timeout, unit)

    # --- values -----------------------------------------------------------------------------------

    async def encoded(
        self, values: Collection[Any], *, integers: bool = True, metadata: Collection[Metadata] | None = None
    ) -> list[bytes | int]:
        """Return the payloads of *values*, each with its *metadata* if that is given.

        A coroutine, because lazy values under Django may need a thread.
        """
        return self.codec.encode_all(values, integers=integers, metadata=metadata)

    def decoded(self, payload: bytes, name: str, *, member: bool = False) -> Any:
        """Return the value in *payload*, or MISSING if it cannot be read and UNREADABLE is "miss".

        *member*: the payload is a member of a sorted set.
        """
        try:
            return self.codec.decode_member(payload) if member else alone(self.codec.decode(payload))
        except UnreadableValue as error:
            self._note_unreadable(error, name)
            return MISSING

    def _entry(self, payload: bytes, name: str) -> Any:
        """Return the value in *payload*, `Described` if it has metadata; MISSING as from `decoded`."""
        try:
            return self.codec.decode(payload)
        except UnreadableValue as error:
            self._note_unreadable(error, name)
            return MISSING

    def _note_unreadable(self, error: UnreadableValue, name: str) -> None:
        """Count an unreadable payload, and log it once a minute; or raise *error*, if UNREADABLE is "raise"."""
        if self.settings.options.unreadable == "raise":
            raise error
        self.stats.unreadable += 1
        if self.stats.said.is_new(name):
            log.warning(
                "%s: unreadable, taken as missing: %s", self._masked(name), error, extra={"event": "unreadable"}
            )

    def _masked(self, name: str) -> str:
        """Return *name* for a message."""
        return masked(name, self.key_prefix if self._namer is default_key_function else None)

    def _value(self, payload: bytes | None, name: str, default: Any = None) -> Any:
        """Return the value in *payload*, or *default* if there is none."""
        if payload is None:
            return default
        try:  # written out, as in `decoded`: it saves a tenth of a microsecond of each `get`
            value = self.codec.decode(payload)
        except UnreadableValue as error:
            self._note_unreadable(error, name)
            return default
        return value.value if type(value) is Described else value

    def _entries(self, payloads: Collection[bytes], names: Iterable[str]) -> list[Any]:
        """Return what `_entry` returns for each of *payloads*."""
        try:
            return self.codec.decode_all(payloads)
        except UnreadableValue:  # one by one, to say which
            return [self._entry(payload, name) for payload, name in zip(payloads, names, strict=False)]

    def _decoded_all(self, payloads: Collection[bytes], name: str) -> list[Any]:
        """Return the values in *payloads*, the parts of the entry called *name*, that can be read."""
        return [alone(value) for value in self._entries(payloads, repeat(name)) if value is not MISSING]

    # --- asking -----------------------------------------------------------------------------------

    def _through(self, client: Any) -> Self:
        """Return a face of this cache that asks only *client*, the argument ``client=`` of an operation; itself for None.

        Its reads use no copies, and leave none.
        """
        if client is None:
            return self
        topology = Standalone([server_of(client)])
        topology.one_by_one = self.topology.one_by_one  # the client may be one of a cluster's nodes
        return self._face(topology=topology, near=self.near and Bypassed(self.near))

    async def ask(self, command: Command, instead: Any, client: Any = None) -> Reply:
        """Return the reply to *command*, or *instead* in an outage that may be ignored."""
        if client is not None:
            self = self._through(client)
        near = self.near if command[0].writes else None
        if near is not None:
            names = c.written_by(command)
            near.wrote(names)
        tally, began = self.tally, 0.0
        if tally is not None:
            calls = tally.calls.get(command[0]) or tally.called(command[0])
            calls.left -= 1
            if calls.left <= 0:
                began = calls.start()
        try:
            server = self.topology.route(command)
            try:
                if self._runtime.blocks:  # written out: it saves every blocking call a coroutine
                    (reply,) = server.exchange((command,))
                else:
                    (reply,) = await self._runtime.exchange(server, (command,))
            except ConnectionError as error:
                server = self._another(server, (command,), error)
                (reply,) = await self._runtime.exchange(server, (command,))
            if type(reply) not in command[0].answers:
                if isinstance(reply, NoScriptError) and command[0] == b"EVALSHA":
                    # A script is sent whole only to a server that does not know it yet.
                    (reply,) = await self._runtime.exchange(server, (self._whole(command),))
                self._check_reply(reply, command)
        except TROUBLE as error:
            return self._instead(error, instead, (command,))
        finally:
            if near is not None:
                near.wrote(names)  # once more: a read that was sent meanwhile may bring the old value
        if began and tally is not None:
            tally.answered(calls, began, command, ((command, reply),), timed=not self._runtime.records)
        return reply

    async def _ask_beside(self, command: Command, glimpse: Command, instead: Any) -> tuple[Reply, Reply]:
        """Return the replies to *command* and to *glimpse*, a read of the same entry, which is sent before it.

        In an outage that may be ignored they are *instead* and None.
        """
        near = self.near if command[0].writes else None
        if near is not None:
            near.wrote((command[1],))
        commands = (glimpse, command)
        tally = self.tally
        began = 0.0 if tally is None else tally.asks(((None, commands),))
        try:
            server = self.topology.route(command)
            try:
                if self._runtime.blocks:  # written out, as in `ask`
                    shown, reply = server.exchange(commands)
                else:
                    shown, reply = await self._runtime.exchange(server, commands)
            except ConnectionError as error:
                server = self._another(server, commands, error)
                shown, reply = await self._runtime.exchange(server, commands)
            if type(reply) not in command[0].answers:
                self._check_reply(reply, command)
            if type(shown) not in glimpse[0].answers:
                self._check_reply(shown, glimpse)
        except TROUBLE as error:
            return self._instead(error, instead, (command,), commands), None
        finally:
            if near is not None:
                near.wrote((command[1],))  # as in `ask`
        if began and tally is not None:
            tally.answered(tally.together, began, command, (), timed=not self._runtime.records)
        return reply, shown

    def _another(self, tried: Server, commands: Sequence[Command], error: Exception) -> Server:
        """Return the server to ask in place of *tried*, which failed with *error*; raise *error* if there is none."""
        other = self.topology.another(commands[0], tried) if elsewhere(commands, error) else None
        if other is None:
            raise error
        return other

    async def _ask_several(self, commands: Sequence[Command], instead: Any) -> list[Reply]:
        """Return the replies to *commands*, sent together to the server of the first."""
        (replies,) = await self._ask_all([(self.topology.route(commands[0]), commands)], instead)
        return replies

    async def _ask_many(self, verb: Verb, names: Sequence[str], instead: Any) -> list[tuple[list[int], Reply]]:
        """Send *verb* to all servers that hold *names*; return each reply with the places of its names."""
        shares = self.topology.shares(names, verb.reads)
        plan = [(server, self._batch(verb, [names[place] for place in places])) for server, places in shares]
        answers = await self._ask_all(plan, instead)
        return [(places, self._merged(verb, replies)) for (_, places), replies in zip(shares, answers, strict=True)]

    def _batch(self, verb: Verb, names: Sequence[str | bytes]) -> Sequence[Command]:
        """Return the commands for one server with *verb* and *names*: one, if a command may have several names."""
        return [(verb, name) for name in names] if self.topology.one_by_one else ((verb, *names),)

    def _merged(self, verb: Verb, replies: Sequence[Reply]) -> Reply:
        """Return the *replies* to the commands of `_batch` as one: a list, or a sum; None if a part is not known."""
        if not self.topology.one_by_one:
            return replies[0]
        if verb == b"MGET":
            return [payload for reply in replies for payload in reply or (None,)]
        return None if None in replies else sum(replies)

    async def _ask_all(self, plan: Plan, instead: Any, *, scripts: bool = False) -> list[list[Reply]]:
        """Return the replies of several servers, asked together; *instead* for each reply of one that is away.

        With *scripts* some of the commands may be EVALSHA.
        """
        near = self.near
        names = [] if near is None else c.written(command for _, commands in plan for command in commands)
        if near is None or names == []:
            return await self._exchange_all(plan, instead, scripts=scripts)
        near.wrote(names)
        try:
            return await self._exchange_all(plan, instead, scripts=scripts)
        finally:
            near.wrote(names)  # as in `ask`

    async def _exchange_all(self, plan: Plan, instead: Any, *, scripts: bool) -> list[list[Reply]]:
        if not plan:
            return []
        answers: list[list[Reply] | Exception]
        tally = self.tally
        began = 0.0 if tally is None else tally.asks(plan)
        try:
            try:
                answers = await self._runtime.exchange_all(plan)
            except ConnectionError as error:
                if len(plan) > 1:
                    raise
                ((server, commands),) = plan
                answers = [await self._runtime.exchange(self._another(server, commands, error), commands)]
            if began and tally is not None:
                self._note_answered(tally, plan, answers, began)
            if scripts:
                await self._tell_scripts(plan, answers)
        except TROUBLE as error:
            answers = [error] * len(plan)
        return [self._settled(answer, commands, instead) for answer, (_, commands) in zip(answers, plan, strict=True)]

    def _note_answered(
        self, tally: Tally, plan: Plan, answers: Sequence[list[Reply] | Exception], began: float
    ) -> None:
        """Note an exchange with all servers of *plan* that began at *began*, and has brought *answers*."""
        replied = [
            pair
            for (_, commands), answer in zip(plan, answers, strict=True)
            if commands
            and not isinstance(answer, Exception)
            and commands[-1][0] is not c.EXEC  # its reply has the others
            for pair in zip(commands, answer, strict=False)
        ]
        for command in () if isinstance(answers[0], Exception) else plan[0][1]:
            if command[0] is not c.MULTI and command[0] is not c.VOID:  # what the caller has asked for comes after them
                timed = not self._runtime.records
                tally.answered(tally.together, began, command, replied, timed=timed)
                return

    def _whole(self, command: Command) -> Command:
        """Return *command* with the whole script, which a server does not know; it is counted."""
        if self.tally is not None:
            self.tally.called(c.EVAL).others += 1
        return (c.EVAL, command[1].lua, *command[2:])

    async def _tell_scripts(self, plan: Plan, answers: list[list[Reply] | Exception]) -> None:
        """Send the scripts whole that a server did not know, and put the replies into *answers*."""
        for place, (server, commands) in enumerate(plan):
            answer = answers[place]
            if isinstance(answer, Exception):
                continue
            unknown = [at for at, reply in enumerate(answer) if isinstance(reply, NoScriptError)]
            if unknown:
                whole = [self._whole(commands[at]) for at in unknown]
                for at, reply in zip(unknown, await self._runtime.exchange(server, whole), strict=True):
                    answer[at] = reply

    def _settled(self, answer: list[Reply] | Exception, commands: Sequence[Command], instead: Any) -> list[Reply]:
        """Return the replies in one server's *answer*; raise its error, or return *instead* for each if ignored."""
        try:
            if isinstance(answer, Exception):
                raise answer
            if commands[-1][0] is c.EXEC:
                began = next(at for at, command in enumerate(commands) if command[0] is c.MULTI)
                self._check_all(answer[:began], commands[:began])
                self._check_transaction(answer[began:], commands[began:])
            else:
                self._check_all(answer, commands)
        except TROUBLE as error:
            return [self._instead(error, instead, commands)] * len(commands)
        return answer

    def _check_transaction(self, replies: Sequence[Reply], commands: Sequence[Command]) -> None:
        """Raise the first refusal among the replies to a transaction, or an error if they do not fit *commands*."""
        inside, results = commands[1:-1], replies[-1]
        if type(results) is not list or replies.count(b"QUEUED") != len(inside):
            for command, reply in zip(commands, replies, strict=False):
                if reply != b"QUEUED":
                    self._check_reply(reply, command)
        if results is not None:  # the reply to EXEC holds the refusals of single commands
            if len(results) != len(inside):
                raise ServerGone(f"the server replied to {len(inside)} commands with {len(results)} replies")
            self._check_all(results, inside)

    def _check_all(self, replies: Sequence[Reply], commands: Sequence[Command]) -> None:
        for command, reply in zip(commands, replies, strict=False):
            if type(reply) not in command[0].answers:
                self._check_reply(reply, command)

    def _check_reply(self, reply: Reply, command: Command) -> None:
        """Raise *reply* if it is a refusal, and ServerGone if it does not fit *command*."""
        if isinstance(reply, RedisError):
            if command[0] is c.VOID and isinstance(reply, NoPermissionError):
                self.stats.denied = monotonic()  # a user who may not touch leases has none
                return
            if self.tally is not None:
                self.tally.called(command[0]).errors += 1
            raise self._refusal(reply, command)
        verb = command[0]
        suits = type(reply) in verb.answers or (verb.suits(reply, command) if verb.suits else not verb.answers)
        if not suits and reply is not TAKEN:  # a pipeline of redis-py has no reply yet
            raise ServerGone(
                f"the server replied to {verb.decode()} with {with_article(type(reply).__name__)}, which is no valid reply to it"
            )

    def _goes_on(self, pages: c.Round, cursor: int) -> bool:
        """Whether a scan goes on to *cursor*; not if the server repeats cursors, and that error may be ignored."""
        try:
            pages.step(cursor)
        except ServerGone as error:
            return bool(self._instead(error, False, ()))
        return True

    def _refusal(self, reply: RedisError, command: Command) -> RedisError:
        """Return the refusal of *command* with what servers do not say: the entry, the server, and what to do."""
        asked = command[1].name if len(command) > 1 and isinstance(command[1], Script) else command[0].decode()
        if named := c.named(command)[:3]:
            asked += f" of {', '.join(self._masked(str(name)) for name in named)}"
        elif str(reply).startswith("WRONGTYPE"):
            return reply
        try:
            server = self.topology.route(command)
        except (FleetcacheError, RedisError):  # it is known no more where the entry is
            server = None
        return explained(reply, asked, server)

    def _instead(
        self, error: Exception, instead: Any, commands: Iterable[Command], sent: Sequence[Command] | None = None
    ) -> Any:
        """Return *instead*, the result of *commands*, if *error* may be ignored; else raise *error*.

        *sent* are all that were sent with them, if others were.
        """
        if self.tally is not None:
            commands = list(commands)
            self.tally.failed(error, commands if sent is None else sent)
        return self._failsafe.instead(error, instead, partial(self._keys_in, commands))

    def _keys_in(self, commands: Iterable[Command]) -> Iterator[str | None]:
        """Yield the keys, or globs of keys, in *commands*; None for a name that does not show its key."""
        for command in commands:
            for name in c.named(command):
                yield self._key_of(name if isinstance(name, str) else name.decode(errors="replace"))

    def _key_of(self, name: str) -> str | None:
        """Return the key in *name*, of any version; None if the names do not show it, or the site's function cannot tell."""
        if self.settings.reverse_key_function is not None:
            try:
                return self.settings.reverse_key_function(name)
            except Exception as error:  # noqa: BLE001 - whatever a function of the site raises
                let_pass(error)
                return None
        if self._namer is default_key_function:
            return key_within(name, self.key_prefix, self.version)
        head, tail = frame(self._namer, self.key_prefix, self.version) or (name, MARK)
        if not (name.startswith(head) and name.endswith(tail)):
            return None
        return name[len(head) : len(name) - len(tail)]

    # --- leases -----------------------------------------------------------------------------------

    def _voids(self, names: Iterable[str | bytes]) -> list[Command]:
        """Return the commands that end the permissions to store what is being loaded for *names*."""
        if isinstance(self.topology.servers[0], CallersPipeline):
            return []  # its caller counts on one result for each call
        if monotonic() < self.stats.denied + MINUTE:
            return []  # the server logs each refusal
        leases = [lease_name(name if isinstance(name, str) else name.decode(errors="replace")) for name in names]
        return [(c.VOID, lease) for lease in leases] if self.topology.one_by_one else [(c.VOID, *leases)]

    async def _ask_voiding(self, command: Command, lifetime: int | None, instead: Any, client: Any = None) -> Reply:
        """Ask as `ask` does; before, in the same exchange, void the leases of the entries that *command* changes.

        *lifetime* is how many milliseconds the entry then lives at most, None for ever.  If that is longer than any
        lease, there is nothing to void: what a load brings is not stored as long as there is an entry.
        """
        if lifetime is None or lifetime >= self._lease_life:
            return await self.ask(command, instead, client)
        if client is not None:
            self = self._through(client)
        near, names = self.near, c.written_by(command) or ()
        commands = (*self._voids(names), command)
        tally = self.tally
        began = 0.0 if tally is None else tally.asks(((None, commands),))
        if near is not None:
            near.wrote(names)
        try:
            server = self.topology.route(command)
            try:
                if self._runtime.blocks:  # written out, as in `ask`
                    replies = server.exchange(commands)
                else:
                    replies = await self._runtime.exchange(server, commands)
            except ConnectionError as error:
                server = self._another(server, commands, error)
                replies = await self._runtime.exchange(server, commands)
            reply = replies[-1]
            if type(reply) not in command[0].answers:
                if isinstance(reply, NoScriptError) and command[0] == b"EVALSHA":
                    (reply,) = await self._runtime.exchange(server, (self._whole(command),))
                self._check_reply(reply, command)
            if type(replies[0]) is not int:
                self._check_all(replies[:-1], commands)
        except TROUBLE as error:
            return self._instead(error, instead, (command,), commands)
        finally:
            if near is not None:
                near.wrote(names)
        if began and tally is not None:
            tally.answered(tally.together, began, command, (), timed=not self._runtime.records)
        if command[0] is c.DEL and isinstance(replies, Redirected):
            # While a slot moves, the entry may have been deleted before its lease, and stored in between.
            reply += await self.ask(command, 0)
        return reply

    async def _unlink_names(self, shares: Sequence[tuple[Server, Sequence[str | bytes]]]) -> list[int | None]:
        """Delete the names that each server holds, with their leases; return how many there were, None for one that is away."""
        plan, counts = [], list[int | None]()
        for server, names in shares:
            plan.append((server, [*self._voids(names), *self._batch(c.UNLINK, names)]))
        for (_, commands), replies in zip(plan, await self._ask_all(plan, None), strict=True):
            found = [reply for command, reply in zip(commands, replies, strict=True) if command[0] is c.UNLINK]
            counts.append(self._merged(c.UNLINK, found))
        if self.tally is not None:
            for (_, names), count in zip(shares, counts, strict=True):
                if count is not None:
                    self.tally.deleted(names)
        return counts

    async def _run(self, script: Script, name: str, *arguments: Any, instead: Any, client: Any = None) -> Reply:
        """Run *script* on the entry called *name*."""
        return await self.ask((c.EVALSHA, script, 1, name, *arguments), instead, client)

    def _together(self, names: Sequence[str], operation: str) -> None:
        """Refuse an operation whose names are on different servers or slots."""
        if not self.topology.together(names):
            raise CrossServer(
                f"{operation}: {', '.join(map(self._masked, names))} are on different servers or slots. "
                f"Give them a common part in braces, such as {{user:1}}: this part alone decides the place"
            )
