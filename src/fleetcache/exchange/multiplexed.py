"""The awaiting exchange: all tasks of an event loop share one connection.

All commands of one turn of the loop leave in one write.  The server answers in order, so its
replies resolve the waiting futures in order.  A task that is cancelled leaves its place in the
queue: its reply is read and thrown away, and no other task can receive it.

The loop only reports when the socket can be read or written.  The bytes do not pass through a transport
of asyncio: there, an exception that a signal's handler raises between ``recv`` and our parser would
lose bytes.  Here such an exception ends the connection, and no task receives the reply of another.
"""

from __future__ import annotations

import asyncio
import select
import ssl
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from time import monotonic
from typing import TypeAlias

from fleetcache.errors import ConnectionInterrupted, ConnectionLost, NeverSent, ServerGone, ServerTimeout
from fleetcache.exchange.blocking import Conversation
from fleetcache.exchange.contract import Command, Reply
from fleetcache.exchange.repeating import harmless
from fleetcache.exchange.wire import NEED_DATA, NO_REPLY, Push, ends, packed
from fleetcache.interrupts import interruption

BUSY = 0.05
"""If a timer is this many seconds late, the loop was blocked; the server then gets a second chance."""

TICK = 0.25
"""How often, in seconds, the watchdog checks the time limits while a task waits."""

TURNS = 8
"""How many full buffers are read before the loop's other work has its turn."""

PORTION = 65536
"""The largest write, in bytes, after the kernel did not take all at once; larger than a TLS record."""

AT_ONCE = 4
"""How many large commands of one loop may be under way at the same time."""

BLIND: tuple[type[asyncio.AbstractEventLoop], ...] = tuple(filter(None, [getattr(asyncio, "ProactorEventLoop", None)]))
"""Event loops that cannot report when a socket can be read: the default loop of Windows."""

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

Waiter: TypeAlias = tuple[asyncio.Future[list[Reply]], int, float, Sequence[Command]]
"""A waiting call: its future, the number of its replies, the time it began, and its commands."""


class Overtaken(Exception):
    """Another call's reply blocks this connection; `aexchange` may send the command again on a new one."""

    def __init__(self, since: float) -> None:
        self.since = since


class Multiplexed:
    """One connection that any number of tasks of one event loop use at the same time.

    Only the loop keeps it alive, and all other references are weak.  So a loop that is no longer used
    can be collected, and its connection is closed with it.
    """

    def __init__(self, conversation: Conversation) -> None:
        self.connection = conversation.connection
        self.transport = conversation.sock
        """The socket, with or without TLS."""
        self.parser = conversation.parser
        self.buffer = memoryview(conversation.buffer)
        self.timeout = conversation.timeout
        self.address = conversation.address
        self.loop = asyncio.get_running_loop()
        self.error: ConnectionInterrupted | None = None
        self.outgoing: list[bytes] = []
        """The packed commands of this turn of the loop."""
        self.unsent: deque[bytes | memoryview] = deque()
        """The bytes that the kernel did not take yet, one piece for each waiter."""
        self.begun = 0
        """How many of these pieces may have left in part."""
        self.waiting: deque[Waiter] = deque()
        self.replies: list[Reply] = []
        self.retired = False
        """Whether new callers are refused."""
        self.due = 0.0
        """When the watchdog checks next."""
        self.excused = False
        self.heard = 0.0
        self.writable: asyncio.Future[None] | None = None
        self.room = asyncio.Semaphore(AT_ONCE)
        self.spares: list[Multiplexed] = []
        """Idle connections for large commands; they are closed with this one."""
        self.transport.setblocking(False)
        self.secured = isinstance(self.transport, ssl.SSLSocket)
        # Close the socket when this object is collected, or the socket's own finalizer would warn.
        weakref.finalize(self, self.transport.close)
        self.loop.add_reader(self.transport.fileno(), self._readable)

    def ask(self, data: bytes, commands: Sequence[Command], since: float | None = None) -> asyncio.Future[list[Reply]]:
        """Queue *data*, which holds *commands*, and return the future of their replies."""
        if self.error is not None:
            raise NeverSent(*self.error.args)
        loop = self.loop
        now = monotonic()
        future: asyncio.Future[list[Reply]] = asyncio.Future(loop=loop)
        try:
            self.waiting.append((future, len(commands), now if since is None else since, commands))
            if not self.outgoing:
                loop.call_soon(self._flush)
            self.outgoing.append(data)
            if now > self.due and self.timeout is not None:
                self._watch_at(now + min(TICK, self.timeout))
        except BaseException:
            future.cancel()  # no task will read its error
            self._interrupted()
            raise
        return future

    def is_stale(self) -> bool:
        """Whether the server closed this idle connection, and the loop has had no time to notice."""
        if self.retired or self.waiting or not hasattr(select, "poll"):
            return False
        poll = select.poll()
        poll.register(self.transport.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def spare(self) -> Multiplexed | None:
        """Return an idle connection for a large command, None if there is none."""
        if self.retired:
            raise NeverSent(f"{self.address}: the connection of this event loop has ended")
        while self.spares:
            spare = self.spares.pop()
            if not spare.retired and not spare.is_stale():
                return spare
            spare.close()
        return None

    def keep(self, spare: Multiplexed) -> None:
        """Keep *spare*, which is new or has carried a large command, for the next one."""
        if self.retired or spare.retired or spare.waiting:
            spare.close()
        else:
            self.spares.append(spare)

    async def may_write(self) -> None:
        """Wait while the server takes no more bytes: a crowd of tasks must not fill our memory."""
        while self.writable is not None:
            await asyncio.shield(self.writable)

    # --- called by the loop ---------------------------------------------------------------------------

    def _flush(self) -> None:
        """Write the commands of this turn of the loop."""
        if self.error is not None or not self.outgoing:
            return
        try:
            pieces, self.outgoing = self.outgoing, []
            if self.unsent:
                self.unsent.extend(pieces)
                return
            data = b"".join(pieces)
            if len(data) <= PORTION:  # the common case, written out
                size = self._send(data, len(pieces))
                if size == len(data):
                    self.begun = 0
                    return
                self.unsent.extend(pieces)
                self._drop(size)
            else:
                self.unsent.extend(pieces)
            if not self._write():
                self.writable = asyncio.Future(loop=self.loop)
                self.loop.add_writer(self.transport.fileno(), self._go_on)
        except OSError as error:
            self._broken(error)
        except BaseException:
            self._interrupted()
            raise

    def _go_on(self) -> None:
        """Write more of the bytes that the kernel did not take."""
        try:
            if self.error is None and self._write():
                self.loop.remove_writer(self.transport.fileno())
                self._resume()
        except OSError as error:
            self._broken(error)
        except BaseException:
            self._interrupted()
            raise

    def _write(self) -> bool:
        """Write the unsent bytes, and return whether all have left."""
        unsent = self.unsent
        while unsent:
            count, size = 0, 0
            for piece in unsent:
                count += 1
                size += len(piece)
                if size >= PORTION:
                    break
            size = self._send(unsent[0] if count == 1 else b"".join(islice(unsent, count)), count)
            if not size:
                return False
            self._drop(size)
        return True

    def _send(self, portion: bytes | memoryview, count: int) -> int:
        """Write *portion*, which holds *count* pieces, and return how many of its bytes have left."""
        if self.secured:
            # After a refusal OpenSSL must be given the same bytes again, or more: a part of them may have left.
            self.begun = max(self.begun, count)
        try:
            size: int = self.transport.send(portion)
        except WOULD_BLOCK:
            return 0
        return size

    def _drop(self, size: int) -> None:
        """Remove the first *size* of the unsent bytes."""
        unsent = self.unsent
        while unsent and len(unsent[0]) <= size:
            size -= len(unsent.popleft())
            self.begun = max(self.begun - 1, 0)
        if size:
            unsent[0] = memoryview(unsent[0])[size:]
            self.begun = max(self.begun, 1)

    def _broken(self, error: OSError) -> None:
        """End the connection, or at least its writing half, since nothing more can be written."""
        if interruption(error) is not None:
            self._interrupted()
            raise error
        if not isinstance(error, (BrokenPipeError, ConnectionResetError)):
            self._hung_up(str(error))
            return
        # Read on until the end: the server may have sent a last reply that names the reason.
        self.retired = True
        self.loop.remove_writer(self.transport.fileno())

    def _readable(self) -> None:
        """Read the bytes that have arrived, and give the replies to the waiting calls."""
        if self.error is not None:
            self.fail(self.error)  # again, since an interrupt may have prevented it
            return
        try:
            for _ in range(TURNS):
                size = self.transport.recv_into(self.buffer)
                if not size:
                    self._hung_up("the server closed the connection")
                    return
                self.heard = monotonic()
                self.parser.feed(self.buffer[:size])
                self._hand_out()
                if self.error is not None or (
                    size < len(self.buffer) and not (self.secured and self.transport.pending())
                ):
                    return
            self.loop.call_soon(self._readable)
        except WOULD_BLOCK:
            return
        except NO_REPLY as error:
            if interruption(error) is not None:
                self._interrupted()
                raise
            self.fail(ServerGone(f"{self.address}: sent bytes that are no valid reply: {error}"))
        except OSError as error:
            if interruption(error) is not None:
                self._interrupted()
                raise
            self._hung_up(str(error))
        except BaseException:
            self._interrupted()
            raise

    def _hung_up(self, why: str) -> None:
        if self.waiting and ends(self.replies, self.waiting[0][1]):
            future = self.waiting.popleft()[0]
            if not future.done():
                future.set_result(self.replies)
        self.fail(self._lost(why))

    def _hand_out(self) -> None:
        take, waiting, replies = self.parser.gets, self.waiting, self.replies
        while (reply := take()) is not NEED_DATA:
            if type(reply) is Push:
                continue
            future, count, _, _ = waiting[0]
            replies.append(reply)
            if len(replies) == count:
                if not future.done():
                    future.set_result(replies)
                waiting.popleft()  # only now: if an interrupt comes before, fail() must still find this waiter
                replies = self.replies = []
        if not waiting and (self.retired or self.parser.has_data()):
            self.close()

    def _watch_at(self, moment: float) -> None:
        self.due = moment
        # A weak reference, so that the timer does not keep a closed connection alive.
        self.loop.call_later(moment - monotonic(), watch, weakref.ref(self))

    def _watch(self) -> None:
        """End calls whose time limit is over.  Then new callers are refused, and the last reply ends the connection."""
        now, timeout = monotonic(), self.timeout
        if self.error is not None or timeout is None or not self.waiting:
            return
        self._flush()  # an interrupt may have prevented the scheduled flush
        if now - self.due > BUSY and not self.excused:
            # The loop was blocked and could neither send nor receive: extend the time limit once.
            self.excused = True
            self._watch_at(now + min(now - self.due, timeout))
            return
        self.excused = False
        # A server whose reply is still arriving is not away.
        flowing = now - self.heard < timeout / 2
        waiting = [waiter for waiter in self.waiting if not waiter[0].done()]
        late = [waiter for waiter in waiting if now >= waiter[2] + timeout]
        for place, (future, _, _, commands) in enumerate(late):
            slow = f"the reply to {verb(commands)} was still arriving after" if flowing else "no reply within"
            error = ServerTimeout(f"{self.address}: {slow} {timeout} s")
            error.counted = flowing or place > 0  # the breaker counts one for all
            future.set_exception(error)
            self.retired = True
        for future, _, since, commands in waiting if late and flowing else ():
            if not future.done() and harmless(commands):
                future.set_exception(Overtaken(since))
        left = [since for future, _, since, _ in waiting if not future.done()]
        # The replies to cancelled calls are awaited for the same time as others.
        if left or not (self.retired or now >= self.waiting[-1][2] + timeout):
            self._watch_at(min([now + TICK, *(since + timeout for since in left)]))
        else:
            self.close()

    # --- the end --------------------------------------------------------------------------------------

    def _resume(self) -> None:
        if self.writable is not None and not self.writable.done():
            self.writable.set_result(None)
        self.writable = None

    def _lost(self, why: str) -> ConnectionLost:
        """Return the error for the loss of this connection; it names the command that the server read last."""
        told = ""
        if self.waiting:
            commands = self.waiting[0][3]
            told = f" to {verb(commands)} ({len(packed(commands))} bytes)"
        return ConnectionLost(f"{self.address}: {why} before it replied{told}")

    def _interrupted(self) -> None:
        """End the connection after an exception came in the middle of its work; the breaker does not count this."""
        self.fail(
            ConnectionLost(f"{self.address}: dropped, because an exception interrupted the event loop"), blameless=True
        )

    def fail(self, error: ConnectionInterrupted, *, blameless: bool = False) -> None:
        """Close the connection, and raise *error* in every waiting call."""
        if self.error is None:
            self.error = error
        self.retired = True
        if self.transport.fileno() >= 0:
            self.loop.remove_reader(self.transport.fileno())
            self.loop.remove_writer(self.transport.fileno())
            self.transport.close()
        # Nothing of the last calls in the queue has left: those behind number *sent*.
        sent = len(self.waiting) - len(self.outgoing) - len(self.unsent) + self.begun
        counted = blameless
        for place, (future, _, _, _) in enumerate(self.waiting):
            if not future.done():
                # A new exception for each: a shared one would collect every waiter's traceback.
                kind = type(error) if place < sent else NeverSent
                failure = kind(*error.args)
                failure.counted = counted  # the breaker counts one for all
                counted = True
                future.set_exception(failure)
        self.waiting.clear()
        self.outgoing.clear()
        self.unsent.clear()
        self._resume()
        self._dismiss()

    def _dismiss(self) -> None:
        while self.spares:
            self.spares.pop().close()

    def retire(self) -> None:
        """Refuse new callers, and close the connection as soon as the waiting calls have their replies."""
        self.retired = True
        self._dismiss()
        if not self.waiting:
            self.close()

    def close(self) -> None:
        """Close the connection; called in the loop's thread."""
        self.fail(ServerGone(f"{self.address}: this cache was closed"))

    def abandon(self) -> None:
        """Close this process's copy of the socket, in a forked child: connection and loop belong to the parent."""
        self.error = ServerGone(f"{self.address}: the event loop of this connection is gone")
        self.retired = True
        self.transport.close()
        for spare in self.spares:
            spare.abandon()


def no_line() -> None:
    """Stand for the reference to a connection that there is not."""


class Lines:
    """The connection of each event loop; only the loop keeps it alive."""

    def __init__(self) -> None:
        self.known: dict[int, Callable[[], Multiplexed | None]] = {}
        """By the ``id`` of the loop, which stays unique as long as its connection lives."""

    def get(self, loop: asyncio.AbstractEventLoop) -> Multiplexed | None:
        """Return the connection of *loop*, None if it has none."""
        return self.known.get(id(loop), no_line)()

    def add(self, line: Multiplexed) -> None:
        """Make *line* the connection of its loop."""
        self.known[id(line.loop)] = weakref.ref(line)
        for place, known in list(self.known.items()):
            if known() is None:
                self.known.pop(place, None)

    def values(self) -> list[Multiplexed]:
        """Return the connections that accept new callers."""
        lines = [known() for known in list(self.known.values())]
        return [line for line in lines if line is not None and not line.retired]


def watch(line: weakref.ref[Multiplexed]) -> None:
    """Let the watchdog of *line* check its time limits, if *line* still exists."""
    watched = line()
    if watched is not None:
        watched._watch()


def verb(commands: Sequence[Command]) -> str:
    """Return the names of *commands* for a message, without any key or value."""
    if not commands:
        return "the greeting"
    names = list(dict.fromkeys(command[0].decode() for command in islice(commands, 100)))
    return " ".join(names[:3]) + " …" * (len(names) > 3)
