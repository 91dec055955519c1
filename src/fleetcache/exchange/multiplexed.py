"""The awaiting exchange: every task of a loop talks over one connection.

Commands issued in one turn of the loop leave in one write; the server answers in order, so the
replies resolve the waiting futures in order.  A task that stops waiting leaves its place in the
queue behind: its reply is read and thrown away, and nobody else can be given it.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

from redis.exceptions import InvalidResponse

from fleetcache.errors import ConnectionLost, NeverSent, ServerGone, ServerTimeout
from fleetcache.exchange import Reply
from fleetcache.exchange.connecting import close_raw, let_go, take_transport
from fleetcache.exchange.wire import NEED_DATA, Push, new_reader

BUSY = 0.05
"""A timer that comes this many seconds late speaks of the loop rather than of the server."""


class Multiplexed(asyncio.Protocol):
    """One connection that any number of tasks of one loop use at once."""

    def __init__(self, connection: Any, timeout: float | None, address: str) -> None:
        self.connection = connection
        self.timeout = timeout
        self.address = address
        self.loop = asyncio.get_running_loop()
        self.reader = new_reader()
        self.error: Exception | None = None
        self.outgoing: list[bytes] = []
        self.waiting: deque[tuple[asyncio.Future[list[Reply]], int, float]] = deque()
        self.replies: list[Reply] = []
        self.retired = False
        self.farewell: AsyncGenerator[None, None] | None = None
        self.watchdog: asyncio.TimerHandle | None = None
        self.excused: asyncio.Future[list[Reply]] | None = None
        self.writable: asyncio.Future[None] | None = None
        self.transport = take_transport(connection, self)

    @property
    def closed(self) -> bool:
        """Whether no further command can be sent."""
        return self.error is not None or self.transport.is_closing()

    def ask(self, data: bytes, count: int) -> asyncio.Future[list[Reply]]:
        """Queue *data*, which holds *count* commands, and return the future of their replies."""
        if self.error is not None:
            raise NeverSent(*self.error.args)
        future: asyncio.Future[list[Reply]] = self.loop.create_future()
        if not self.outgoing:
            self.loop.call_soon(self._flush)
        self.outgoing.append(data)
        now = self.loop.time()
        self.waiting.append((future, count, now))
        if self.watchdog is None and self.timeout is not None:
            self.watchdog = self.loop.call_at(now + self.timeout, self._watch)
        return future

    def is_stale(self) -> bool:
        """Whether the server hung up while nobody waited, and the loop has had no time to notice."""
        if self.closed or self.waiting or not hasattr(select, "poll"):
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    async def may_write(self) -> None:
        """Wait while the server takes no more bytes; a crowd must not fill our memory."""
        while self.writable is not None:
            await asyncio.shield(self.writable)

    def _flush(self) -> None:
        # What cannot be written any more stays, so that `fail` knows it was never sent.
        if self.outgoing and not self.closed:
            self.transport.write(b"".join(self.outgoing))
            self.outgoing.clear()

    def _watch(self) -> None:
        """Replies come in order, so the oldest waiter alone tells whether the server is late."""
        self.watchdog = None
        if not self.waiting or self.timeout is None:
            return
        now, due = self.loop.time(), self.waiting[0][2] + self.timeout
        if now - due > BUSY and self.excused is not self.waiting[0][0]:
            # The loop was busy elsewhere, and could neither send nor hear: it gets once what it missed.
            self.excused = self.waiting[0][0]
            self.watchdog = self.loop.call_at(now + min(now - due, self.timeout), self._watch)
        elif now >= due:
            self.fail(ServerTimeout(f"{self.address}: no reply within {self.timeout} s"))
        else:
            self.watchdog = self.loop.call_at(due, self._watch)

    # asyncio calls the rest.

    def data_received(self, data: bytes) -> None:
        take, waiting, replies = self.reader.gets, self.waiting, self.replies
        try:
            self.reader.feed(data)
            while (reply := take()) is not NEED_DATA:
                if type(reply) is Push:
                    continue
                future, count, _ = waiting[0]
                replies.append(reply)
                if len(replies) == count:
                    waiting.popleft()
                    if not future.done():
                        future.set_result(replies)
                    replies = self.replies = []
            if self.retired and not waiting:
                self.close()
        except (InvalidResponse, IndexError) as error:
            self.fail(ServerGone(f"{self.address}: sent something that is no reply: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        self.fail(ConnectionLost(f"{self.address}: the server closed the connection before it replied"))
        let_go(self.connection)

    def pause_writing(self) -> None:
        self.writable = self.loop.create_future()

    def resume_writing(self) -> None:
        if self.writable is not None:
            self.writable.set_result(None)
            self.writable = None

    def fail(self, error: Exception) -> None:
        """Hang up, and let *error* be everybody's answer."""
        if self.error is None:
            self.error = error
        if self.watchdog is not None:
            self.watchdog.cancel()
            self.watchdog = None
        sent = len(self.waiting) - len(self.outgoing)
        self.outgoing.clear()
        for place, (future, _, _) in enumerate(self.waiting):
            if not future.done():
                # One exception each: a shared one would collect every waiter's traceback.
                kind = type(error) if place < sent else NeverSent
                failure = kind(*error.args)
                failure.noted = place > 0  # type: ignore[attr-defined]  # the breaker counts one for all
                future.set_exception(failure)
        self.waiting.clear()
        self.resume_writing()
        self.transport.abort()

    def retire(self) -> None:
        """Hang up as soon as those who wait have their replies."""
        self.retired = True
        if not self.waiting:
            self.close()

    def close(self) -> None:
        """Hang up, from the loop itself."""
        self.fail(ServerGone(f"{self.address}: this cache was closed"))

    def abandon(self) -> None:
        """Hang up from outside: the loop is closed, or belongs to the parent of this process."""
        self.error = ServerGone(f"{self.address}: the event loop of this connection is gone")
        self.waiting.clear()
        close_raw(self.transport)
        let_go(self.connection)
