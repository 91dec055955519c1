"""One Redis or Valkey server: its connections in both faces, and the end of each.

Connections belong to the process, and the awaiting ones to their loop.  Idle ones wait in a deque,
from which a thread takes one in an atomic step, so borrowing takes no lock.  A forked child closes its copies
of the sockets and sends nothing to the server, because the connections are its parent's.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from time import monotonic
from typing import Any, TypeAlias

from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.sentinel import SentinelConnectionPool

from fleetcache import errors
from fleetcache.exchange.blocking import Conversation
from fleetcache.exchange.breaker import Breaker
from fleetcache.exchange.connecting import Way, address_of, connect, time_to_connect
from fleetcache.exchange.contract import Command, Reply, Server
from fleetcache.exchange.multiplexed import BLIND, Lines, Multiplexed, Overtaken, no_line
from fleetcache.exchange.probing import Prober
from fleetcache.exchange.repeating import ENDED, after_loss, after_refusal, harmless
from fleetcache.exchange.runtime import AWAITING, BLOCKING, Runtime
from fleetcache.exchange.seats import Seat, Seats, give_back
from fleetcache.exchange.sentinels import Place, Remap, Sentinel, Sentinels
from fleetcache.exchange.wire import ABOUT, PING, facts_in, pack, packed, place_in
from fleetcache.forks import OURS, in_children, keep, own
from fleetcache.signatures import DEADLINE
from fleetcache.stats.beginnings import connected, connecting
from fleetcache.threads import begun
from fleetcache.twin import complete

Told: TypeAlias = tuple[Conversation, Sequence[Command], int]
"""A connection with unread replies, the commands that were sent on it, and the breaker's era at that time."""

log = logging.getLogger("fleetcache.server")

MOMENT = 0.05
"""How long, in seconds, a caller whose old connection timed out waits for the result of a probe."""

REFUSED = (AuthenticationError, ResponseError, errors.UnsupportedServer, errors.SettingsError)
"""Errors of a new connection that are not outages: the server refuses it, or the settings are wrong."""

APART = errors.LARGE_REQUEST
"""Commands that are sent together and have more bytes than this get an awaiting connection of their own."""


class RemoteServer(Server):
    """A server at the other end of connections, which are made as the pool of *raw*, a redis-py client, says.

    With a pool that asks Sentinels, each new connection may lead to another server than the last one.
    """

    def __init__(
        self,
        raw: Any,
        breaker: Breaker | None = None,
        *,
        max_connections: int | None = None,
        patience: float | None = 0.0,
        greeting: bytes = b"",
        remap: Remap | None = None,
        of_sentinel: bool = False,
    ) -> None:
        self.raw = raw
        self.pool = raw.connection_pool
        self.way = Way(self.pool, of_sentinel=of_sentinel)
        self.address = address_of(self.pool)
        self.timeout: float | None = self.pool.connection_kwargs.get("socket_timeout", DEADLINE)
        self.breaker = breaker or Breaker(self.address)
        self.breaker.address = self.address
        self.max_connections = max_connections
        self.patience = patience
        self.refused = ""
        self.watchers: list[Callable[[str], None]] = []
        self.run_id = ""
        self.greeting = greeting
        """A packed command that every connection begins with."""
        self.sentinels = self._sentinels(remap) if isinstance(self.pool, SentinelConnectionPool) else None
        self._start_afresh()
        SERVERS.add(self)
        in_children(self.after_fork)

    def _sentinels(self, remap: Remap | None) -> Sentinels:
        known = [Sentinel(RemoteServer(raw, of_sentinel=True)) for raw in self.pool.sentinel_manager.sentinels]
        return Sentinels(self.address, self.pool.service_name, self.pool.is_master, known, remap)

    def _start_afresh(self) -> None:
        self.seats = Seats(self.max_connections) if self.max_connections else None
        self._open_counter()
        self.open: set[weakref.ref[Conversation]] = set()
        self.lines = Lines()
        self.connecting: weakref.WeakValueDictionary[int, asyncio.Future[Multiplexed]] = weakref.WeakValueDictionary()
        self.breaker.prober = Prober(weakref.WeakMethod(self.probe))
        if self.sentinels is not None:
            self.sentinels.turn = threading.RLock()

    def _open_counter(self) -> None:
        """From now on let callers give connections back to a new deque of idle ones."""
        self.idle: deque[Conversation] = deque()
        self.give_back: Callable[[Conversation], None] = self.idle.append
        if self.seats is not None and self.patience != 0:
            self.give_back = partial(give_back, self.idle, self.seats)

    @property
    def away(self) -> bool:
        return self.breaker.open

    @property
    def remote(self) -> RemoteServer:
        return self

    # --- blocking ---------------------------------------------------------------------------------

    def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        """Return the replies to *commands*, blocking the thread until they are here: `tell` and `hear`.

        The common case is written out: an idle connection, and commands that may run twice.
        """
        breaker, single = self.breaker, len(commands) == 1
        repeats = commands[0][0].harmless if single else harmless(commands)
        if not (OURS and self.idle and repeats) or breaker.failed:
            return self.hear(self.tell(commands))
        era = breaker.era
        data = pack(commands[0]) if single else packed(commands)  # first: if it fails, no connection is lost
        try:
            conversation = self.idle.pop()
        except IndexError:  # another thread was faster
            return self.hear(self.tell(commands))
        try:
            replies = conversation.ask(data, len(commands))
        except BaseException as error:
            told = (conversation, commands, era)
            if not (conversation.replaceable and after_loss(commands, error)):
                self._give_up(told, error)
                raise
            return self.hear(self._tell_anew(told))
        for reply in replies:
            if type(reply) in ENDED:
                return self.hear(self._tell_anew((conversation, commands, era)))
        conversation.give_back(conversation)
        return replies

    def exchange_apart(self, commands: Sequence[Command]) -> list[Reply]:
        """Return the replies to *commands*, over a new connection that MAX_CONNECTIONS does not count."""
        own()
        conversation = self._connect()
        try:
            return conversation.ask(packed(commands), len(commands))
        finally:
            self._hang_up(conversation)

    def converse(self, within: float) -> Conversation:
        """Return a new connection that MAX_CONNECTIONS does not count, and that the caller closes.

        Each exchange takes *within* seconds at most, and connecting too, unless the settings have a limit for it.
        """
        own()
        conversation = self._open(within)
        conversation.hasten(min(within, self.timeout or within))
        return conversation

    def tell(self, commands: Sequence[Command]) -> Told:
        """Send *commands* on an idle connection, or on a new one."""
        if not OURS:
            own()
        if self.breaker.failed:
            self.breaker.admit()
        era = self.breaker.era
        data = packed(commands)
        conversation = self._borrow(era, cautious=not harmless(commands))
        told = (conversation, commands, era)
        try:
            conversation.tell(data)
        except BaseException as error:
            if not (conversation.replaceable and after_loss(commands, error)):
                self._give_up(told, error)
                raise
            return self._tell_anew(told)
        return told

    def _tell_anew(self, told: Told) -> Told:
        """Send *told* on a new connection, in place of an idle one that had died, or leads to no primary any more.

        `repeating` has allowed it.  The other idle connections are closed, as they are no better.
        """
        conversation, commands, era = told
        seat, conversation.seat = conversation.seat, None
        self._hang_up(conversation)
        self.close_idle()
        try:
            conversation = self._connect(seat)
            conversation.replaceable = False
            conversation.tell(packed(commands))
        except BaseException as error:
            conversation.seat = seat
            self._give_up((conversation, commands, era), error)
            raise
        return conversation, commands, era

    def hear(self, told: Told) -> list[Reply]:
        """Return the replies to the commands of *told*."""
        conversation, commands, era = told
        try:
            replies = conversation.hear(len(commands))
        except BaseException as error:
            if not (conversation.replaceable and after_loss(commands, error)):
                self._give_up(told, error)
                raise
            return self.hear(self._tell_anew(told))
        if ENDED.isdisjoint(map(type, replies)):
            conversation.replaceable = True
            conversation.give_back(conversation)
        elif conversation.replaceable and after_refusal(commands, replies):
            return self.hear(self._tell_anew(told))
        else:
            # Still a replica, or some commands ran: return the refusals.  The next call connects anew.
            self._hang_up(conversation)
            self.close_idle()
        if self.breaker.failed:
            self.breaker.success(era)
        return replies

    def drop(self, told: Told) -> None:
        self._hang_up(told[0])  # an interrupt: it says nothing about the server

    def _borrow(self, era: int, *, cautious: bool) -> Conversation:
        """Return an idle connection or a new one; *cautious* checks first, with a system call, that an idle one still lives."""
        until = None if self.patience is None else monotonic() + self.patience
        while True:
            while (conversation := self._idle()) is not None:
                if not ((cautious or conversation.rested) and conversation.is_stale()):
                    return conversation
                self._hang_up(conversation)
            seat = None
            if self.seats is None or (seat := self.seats.take()) is not None:
                break
            if until is not None and monotonic() >= until:
                raise errors.TooManyConnections(
                    f"{self.address}: all {self.max_connections} connections are in use. "
                    f"Raise max_connections, or let callers wait with redis.BlockingConnectionPool"
                )
            self.seats.wait(until)
        try:
            return self._connect(seat)
        except BaseException as error:
            if self.seats is not None:
                self.seats.leave(seat)
            self._note(error, era)
            raise

    def _give_up(self, told: Told, error: BaseException) -> None:
        """Close the connection on which *told* failed with *error*, and tell the breaker."""
        conversation, commands, era = told
        if isinstance(error, errors.ConnectionLost):
            error.doubt_size(len(packed(commands)))
        self._hang_up(conversation)
        if isinstance(error, errors.ServerTimeout):
            self.close_idle()  # a load balancer that dropped one silently has dropped those that were idle for longer
        self._note(error, era)
        if conversation.replaceable and isinstance(error, errors.ServerTimeout):
            complete(self._second_opinion(BLOCKING))

    def connect_apart(self) -> Any:
        """Return a new connection of redis-py's to the server, which MAX_CONNECTIONS does not count."""
        own()
        return connect(self.way) if self.sentinels is None else self._open().connection

    def _connect(self, seat: Seat | None = None) -> Conversation:
        conversation = self._open()
        # A new connection, too, may lead to a primary that is about to be a replica.
        conversation.replaceable = self.sentinels is not None
        conversation.seat = seat
        # Weakly: a connection that its caller lost by an interrupt is closed when it is collected.
        self.open.add(weakref.ref(conversation, self.open.discard))
        conversation.give_back = self.give_back  # only now: `reached` may have begun a new place
        return conversation

    def _hang_up(self, conversation: Conversation) -> None:
        self.open.discard(weakref.ref(conversation))
        try:
            conversation.close()
        finally:
            if self.seats is not None:
                self.seats.leave(conversation.seat)
                self.seats.ring()

    def _note(self, error: BaseException, era: int) -> None:
        """Tell the breaker of an outage, once; log a refusal, once."""
        if errors.is_outage(error) and not isinstance(error, errors.TooManyConnections):
            if isinstance(error, errors.ConnectionInterrupted):
                if error.counted:
                    return
                error.counted = True
            known = self.breaker.era
            self.breaker.failure(error, era)
            if self.sentinels is not None and self.breaker.era != known:
                self.replace_connections()  # idle connections lead where this one led
        elif isinstance(error, REFUSED) and str(error) != self.refused:
            self.refused = str(error)
            log.error("%s", error, extra={"event": "refused"})  # once: every new connection will be refused alike

    def probe(self) -> None:
        """Send a PING over a new connection, and tell the breaker whether the server is back."""
        era = self.breaker.era
        try:
            # With a limit in any case: a probe that hangs for ever would be the last one.
            conversation = self._open(DEADLINE)
            try:
                conversation.hasten(self.timeout or DEADLINE)
                conversation.ask(PING, 1)
            finally:
                conversation.close()
        except Exception as error:  # noqa: BLE001 - whatever it is, callers will meet it
            self._note(error, era)
            if errors.is_outage(error):
                return
        self.breaker.success(era)  # a server that refuses the connection is there

    async def _second_opinion(self, runtime: Runtime) -> None:
        """Wait a moment for a probe, after a time-out on an old connection: perhaps only that connection is dead."""
        until = monotonic() + MOMENT
        while self.breaker.open and monotonic() < until:
            await runtime.sleep(MOMENT / 20)

    def close_idle(self) -> None:
        own()
        while (conversation := self._idle()) is not None:
            self._hang_up(conversation)

    def _idle(self) -> Conversation | None:
        """Take the connection that was used last, or None if there is none."""
        try:
            return self.idle.pop()
        except IndexError:
            return None

    # --- awaiting ---------------------------------------------------------------------------------

    async def aexchange(self, commands: Sequence[Command]) -> list[Reply]:
        """Return the replies to *commands*, letting other tasks run until they are here."""
        if not OURS:
            own()
        if self.breaker.failed:
            self.breaker.admit()
        era = self.breaker.era
        data, loop = packed(commands), asyncio.get_running_loop()
        old, tries = True, 0
        since: float | None = None
        try:
            while True:
                line = self.lines.known.get(id(loop), no_line)()  # `get`, written out
                # A new connection that dies is an outage; an old one may have been dead for long.
                last = tries == 1
                if line is not None and not line.waiting and not harmless(commands) and line.is_stale():
                    line.close()
                if line is None or line.retired:
                    if isinstance(loop, BLIND):
                        return await asyncio.to_thread(self.exchange, commands)
                    old = False
                    line = await self._line()
                    last = last or self.sentinels is None
                if line.writable is not None:
                    await line.may_write()
                try:
                    large = len(data) > APART
                    replies = await (self._apart(line, data, commands) if large else line.ask(data, commands, since))
                except Overtaken as overtaken:
                    since = overtaken.since
                    continue
                except errors.ServerGone as error:
                    if last or not after_loss(commands, error):
                        raise
                    tries += 1
                    continue
                if type(replies[0]) not in ENDED and (len(replies) == 1 or ENDED.isdisjoint(map(type, replies))):
                    break
                line.retire()
                if last or not after_refusal(commands, replies):
                    break
                tries += 1
        except BaseException as error:
            self._note(error, era)
            if old and isinstance(error, errors.ServerTimeout):
                await self._second_opinion(AWAITING)
            raise
        if self.breaker.failed:
            self.breaker.success(era)
        return replies

    async def _line(self) -> Multiplexed:
        """Return the loop's connection; calls that come while it is being made wait for the same one."""
        loop = asyncio.get_running_loop()
        line = self.lines.get(loop)
        if line is not None and not line.retired:
            return line
        making = self.connecting.get(id(loop))
        if making is None or making.done():
            making = self.connecting[id(loop)] = self._aconnect(loop, self._begin)
        return await self._arrival(making)

    def _begin(self, line: Multiplexed) -> None:
        self.lines.add(line)  # read now: `replace_connections` may have replaced it

    async def _apart(self, line: Multiplexed, data: bytes, commands: Sequence[Command]) -> list[Reply]:
        """Return the replies to large commands, which get a connection of their own beside *line*.

        There they delay no other call, and if the server closes the connection because of their size, no other call
        fails.
        """
        try:
            async with line.room:
                while (own := line.spare()) is None:
                    await self._arrival(self._aconnect(line.loop, line.keep))
                try:
                    return await own.ask(data, commands)
                except errors.ConnectionLost as error:
                    error.doubt_size(len(data))
                    raise
                finally:
                    line.keep(own)
        except (RedisError, asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException:
            line.retire()  # an interrupt may have lost a permit of the semaphore `room`
            raise

    def _aconnect(
        self, loop: asyncio.AbstractEventLoop, keep: Callable[[Multiplexed], None]
    ) -> asyncio.Future[Multiplexed]:
        """Begin to make a connection for *loop*, pass it to *keep*, and return its future.

        A thread makes it in the same way as for the blocking face.  Handlers of signals run in the main thread, and so
        cannot interrupt it.
        """
        making: asyncio.Future[Multiplexed] = asyncio.Future(loop=loop)

        def connect() -> None:
            made: Conversation | BaseException
            try:
                made = self._open()
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                made = error
            try:
                loop.call_soon_threadsafe(arrive, made)
            except RuntimeError:  # the loop was closed
                if isinstance(made, Conversation):
                    made.close()

        def arrive(made: Conversation | BaseException) -> None:
            line = None
            try:
                if isinstance(made, Conversation):
                    line = Multiplexed(made)
                    keep(line)
                    making.set_result(line)
            except BaseException as error:  # an interrupt: the loop may watch a connection that is not in `lines`
                if line is not None:
                    line.close()
                elif isinstance(made, Conversation):
                    loop.remove_reader(made.sock.fileno())
                    made.close()
                made = error
                raise
            finally:
                if isinstance(made, BaseException) and not making.done():
                    making.set_exception(made)
                    making.exception()  # else asyncio complains of it when no call waits any more

        if begun("connects", connect) is None:  # there can be no more threads, or the interpreter ends
            connect()
        return making

    async def _arrival(self, making: asyncio.Future[Multiplexed]) -> Multiplexed:
        """Return the connection that is being made; wait with a limit, as an interrupt may have lost the result."""
        limit = time_to_connect(self.pool)
        done, _ = await asyncio.wait((making,), timeout=limit and limit + DEADLINE)
        if not done:
            self.connecting.pop(id(making.get_loop()), None)
            raise errors.ServerTimeout(f"{self.address}: no answer while connecting")
        return making.result()

    async def aclose_idle(self) -> None:
        self.close_idle()
        line = self.lines.get(asyncio.get_running_loop())
        if line is not None:
            line.retire()

    def client(self) -> Any:
        """Return the raw redis-py client."""
        return self.raw

    # --- new connections --------------------------------------------------------------------------

    def _open(self, patience: float | None = None) -> Conversation:
        """Return a new connection to the right server; *patience* is the limit where the settings have none."""
        connecting()
        limit = time_to_connect(self.pool) or patience
        until = inf if limit is None else monotonic() + limit
        try:
            if self.sentinels is None:
                return self._reach(until)
            return self.sentinels.lead(partial(self._reach, until), until)
        finally:
            connected()

    def _reach(self, until: float, place: Place | None = None) -> Conversation:
        made = Conversation(connect(self.way, place, until), self.timeout, self.address)
        if words := [self.greeting] * bool(self.greeting) + [ABOUT] * self.inquires:
            try:
                if until < inf:
                    made.hasten(until - monotonic())
                self._check_identity(made.ask(b"".join(words), len(words))[-1])
                made.hasten(self.timeout)
            except BaseException:
                made.close()
                raise
        return made

    def watch(self, met: Callable[[str], None]) -> None:
        """From now on call *met* with the run id of the server of each new connection."""
        if met not in self.watchers:
            self.watchers.append(met)

    def unwatch(self, met: Callable[[str], None]) -> None:
        """Stop calling *met*."""
        with suppress(ValueError):
            self.watchers.remove(met)

    @property
    def inquires(self) -> bool:
        """Whether a new connection begins with INFO, which tells the server's run id and role."""
        return bool(self.watchers) or (self.sentinels is not None and self.sentinels.primary)

    def _check_identity(self, about: Reply) -> None:
        facts = facts_in(about)
        if self.sentinels is not None and self.sentinels.primary and facts.get("role") == "slave":
            primary = None
            with suppress(KeyError, ValueError):
                primary = place_in(facts["master_host"], facts["master_port"])
            raise errors.NotPrimary(
                f"{self.address}: the server that a Sentinel names for it is a replica", primary=primary
            )
        self.reached(facts.get("run_id", ""))

    def reached(self, run_id: str) -> None:
        """Note that a new connection leads to the server *run_id*; close the connections to any other server."""
        if run_id and run_id != self.run_id:
            self.run_id = run_id
            try:
                self.replace_connections()
                for met in list(self.watchers):
                    met(run_id)
            except BaseException:
                self.run_id = ""  # an interrupt: the next connection tells
                raise

    def replace_connections(self) -> None:
        """Close all connections: those in use, as soon as they have their replies."""
        own()
        idle = self.idle
        self._open_counter()
        for known in list(self.open):
            if (conversation := known()) is not None:
                conversation.give_back = self._hang_up
        while idle:
            with suppress(IndexError):
                self._hang_up(idle.pop())
        lines, self.lines = self.lines, Lines()
        for line in lines.values():
            with suppress(RuntimeError):  # the loop is closed, and its connection with it
                line.loop.call_soon_threadsafe(line.retire)

    # --- processes --------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """Forget the parent's connections and send nothing to the server; the parent goes on using them."""
        conversations = [conversation for known in list(self.open) if (conversation := known()) is not None]
        lines = self.lines.values()
        keep(conversations, lines, self.connecting, self.breaker.prober)
        self._start_afresh()
        for conversation in conversations:
            conversation.abandon()
        for line in lines:
            line.abandon()


SERVERS: weakref.WeakSet[RemoteServer] = weakref.WeakSet()
