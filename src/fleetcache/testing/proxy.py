"""A proxy for tests that fails on order, as networks, proxies and fail-overs do; it understands just enough RESP."""

from __future__ import annotations

import asyncio
import math
import random
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self, TypeAlias

import hiredis

from fleetcache.exchange.wire import NEED_DATA
from fleetcache.servers.embedded import StrPath

Address: TypeAlias = tuple[str, int] | StrPath
Which: TypeAlias = "Callable[[Link], bool]"

Line: TypeAlias = "asyncio.Queue[tuple[float, bytes]]"

QUEUE = 64
"""How many portions of replies wait in the proxy for a client that does not read; the server keeps the others."""


def every(link: Link) -> bool:
    """Choose all connections."""
    return True


def nobody(link: Link) -> bool:
    """Choose no connection."""
    return False


def clients(link: Link) -> bool:
    """Choose the connections of clients, not those of replicas and Sentinels."""
    return not link.peer


def tracked(link: Link) -> bool:
    """Choose the connections on which `CLIENT TRACKING` was sent."""
    return link.tracked


def untracked(link: Link) -> bool:
    """Choose the connections on which `CLIENT TRACKING` was not sent."""
    return not link.tracked


class FaultProxy:
    """A port of 127.0.0.1 that forwards to *upstream*, with the faults that a test orders.

    *upstream* is ``(host, port)`` or the path of a unix socket.  A fault has taken effect when its
    method returns, and lasts until :meth:`heal` unless the method says otherwise.  With *only* it
    affects the connections of that kind, such as ``tracked``, old and new.
    """

    def __init__(self, upstream: Address) -> None:
        self.upstream = upstream
        self.port = 0
        self.accepted = 0
        """The number of connections accepted so far."""
        self._do_no_harm()
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _do_no_harm(self) -> None:
        self._delays: list[tuple[float, float, Which]] = []
        self._held: Which = nobody
        self._pushless: Which = nobody
        self._blackhole = False
        self._left = math.inf  # the bytes of replies that still pass before a connection is closed
        self._rewritten: list[tuple[list[bytes], list[bytes]]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._listening.wait(10):
            raise RuntimeError("the proxy did not start")
        return self

    def __exit__(self, *exception: object) -> None:
        self._order(self._closing.set)
        self._thread.join(10)

    def url(self, db: int = 0) -> str:
        """Return the URL by which a client reaches the server through this proxy."""
        return f"redis://127.0.0.1:{self.port}/{db}"

    def count(self, which: Which = every) -> int:
        """Return the number of open connections of a kind."""
        return sum(map(which, list(self._links)))

    def delay(self, seconds: float, *, jitter: float = 0.0, only: Which = every) -> None:
        """Delay each portion of a reply by *seconds* and a random part of *jitter*.

        If several delays apply to one connection, the last one ordered counts.
        """
        self._delays.insert(0, (seconds, jitter, only))

    def hold(self, only: Which = every) -> None:
        """Forward nothing in either direction; all connections stay open."""
        self._order(self._flowing.clear)
        self._held = only

    def drop_pushes(self, only: Which = every) -> None:
        """Forward replies but drop pushes, like a proxy that knows only RESP2."""
        self._pushless = only

    def blackhole(self) -> None:
        """Accept new connections but read nothing from them; older connections work as before."""
        self._blackhole = True

    def reset(self, only: Which = every) -> None:
        """Reset the present connections: their clients get ECONNRESET."""
        self._befall(only, Link.reset)

    def half_close(self, only: Which = every) -> None:
        """Close the replying half of the present connections; the clients' commands are still forwarded."""
        self._befall(only, Link.end_replies)

    def cut_after(self, count: int) -> None:
        """Forward *count* more bytes of replies, then close the connection that reached this number."""
        self._left = count

    def rewrite(self, command: str, instead: str) -> None:
        """In commands that begin with the words *command*, replace these by *instead*.

        ``rewrite("HELLO 3", "HELLO 2")`` simulates a server without RESP3,
        ``rewrite("CLIENT TRACKING", "CLIENT NOTHING")`` one that refuses to track.
        """
        self._rewritten.append((command.upper().encode().split(), instead.encode().split()))

    def repoint(self, upstream: Address, *, keep: Which | None = None) -> None:
        """Forward new connections to *upstream*, for good; reset the old ones, except those to *keep*.

        With ``keep=tracked`` this simulates a fail-over by DNS that the listener does not notice: the old
        server lives on and answers the listener, and all other connections reach the new one.
        """
        self.upstream = upstream
        self.reset(lambda link: keep is None or not keep(link))

    def heal(self) -> None:
        """End all faults, and forward what was held; blackholed connections stay silent."""
        self._do_no_harm()
        self._order(self._flowing.set)

    def _order(self, action: Callable[[], object]) -> None:
        async def act() -> None:
            action()
            await asyncio.sleep(0)  # an aborted transport closes its socket one turn later

        asyncio.run_coroutine_threadsafe(act(), self._loop).result(10)

    def _befall(self, which: Which, fault: Callable[[Link], None]) -> None:
        def strike() -> None:
            for link in filter(which, list(self._links)):
                fault(link)

        self._order(strike)

    def _run(self) -> None:
        # Python's development mode would switch on asyncio's debug mode, which is ten times slower.
        with asyncio.Runner(debug=False, loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing, self._flowing = asyncio.Event(), asyncio.Event()
        self._flowing.set()
        # This is no ``asyncio.start_server``, which never closes a connection that it accepted just before its own end.
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            self.port = listener.getsockname()[1]
            self._loop.add_reader(listener, self._accept, listener)
            self._listening.set()
            await self._closing.wait()
            self._loop.remove_reader(listener)
        await asyncio.sleep(0)  # a task that is cancelled before it began would leave its connection open
        for link in self._links:
            link.client.transport.abort()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # the client may have left again
            client, _ = listener.accept()
            self.accepted += 1
            task = asyncio.create_task(self._connected(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connected(self, accepted: socket.socket) -> None:
        reader, client = await asyncio.open_connection(sock=accepted)
        link = Link(client, asyncio.current_task())
        self._links.add(link)
        with suppress(OSError, asyncio.CancelledError):
            await (self._closing.wait() if self._blackhole else self._forward(link, reader))
        client.close()
        with suppress(OSError):
            await client.wait_closed()
        self._links.discard(link)

    async def _forward(self, link: Link, reader: asyncio.StreamReader) -> None:
        """Forward what the client and the server send, until one of them ends it."""
        replies, server = await self._dial()
        line: Line = asyncio.Queue(QUEUE)
        ways = [self._ask(link, reader, server), self._give(link, line), self._take(link, replies, line)]
        tasks = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
        finally:
            server.transport.abort()
            for task in tasks:
                task.cancel()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.upstream, tuple):
            return await asyncio.open_connection(*self.upstream)
        return await asyncio.open_unix_connection(self.upstream)

    async def _ask(self, link: Link, source: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while portion := await source.read(65_536):
                # First parse the commands: their kind decides whether the connection is held.
                commands = link.commands(portion, self._rewritten)
                await self._open(link)
                server.write(commands)
                await server.drain()

    async def _take(self, link: Link, source: asyncio.StreamReader, line: Line) -> None:
        """Read replies from the server, and note when each is due."""
        with suppress(OSError):
            while portion := await source.read(65_536):
                await line.put((asyncio.get_running_loop().time() + self._lag(link), portion))
        await line.put((0.0, b""))

    def _lag(self, link: Link) -> float:
        for seconds, jitter, slow in self._delays:
            if slow(link):
                return seconds + jitter * random.random()
        return 0.0

    async def _give(self, link: Link, line: Line) -> None:
        """Forward replies to the client, in their order."""
        with suppress(OSError):
            while (taken := await line.get())[1]:
                due, portion = taken
                if (wait := due - asyncio.get_running_loop().time()) > 0:
                    await asyncio.sleep(wait)
                await self._open(link)
                portion = link.replies(portion, pushes=not self._pushless(link))
                if len(portion) >= self._left:
                    link.send(portion[: int(self._left)])
                    self._left = math.inf
                    return
                self._left -= len(portion)
                link.send(portion)
                await link.client.drain()

    async def _open(self, link: Link) -> None:
        """Wait until *link* is not held."""
        while self._held(link):
            await self._flowing.wait()


class Link:
    """One client's connection, and its state."""

    def __init__(self, client: asyncio.StreamWriter, task: asyncio.Task[Any] | None) -> None:
        self.client = client
        self.task = task
        self.tracked = False
        """Whether `CLIENT TRACKING` was sent on it."""
        self.peer = False
        """Whether it belongs to a replica or a Sentinel, not to a client."""
        self._requests: Any = None
        self._answers = hiredis.Reader(notEnoughData=NEED_DATA)
        self._pushing: bool | None = None  # whether the value at hand is a push; None between values
        self._ended = False

    def commands(self, portion: bytes, rewritten: list[tuple[list[bytes], list[bytes]]]) -> bytes:
        """Return the commands that are complete now, rewritten; TLS and the stream to a replica pass unchanged."""
        if self._requests is None:
            self._requests = hiredis.Reader() if portion[:1] == b"*" else False
        if not self._requests:
            return portion
        self._requests.feed(portion)
        whole = []
        while command := self._requests.gets():
            self.tracked |= _begins(command, [b"CLIENT", b"TRACKING"])
            migrates = _begins(command, [b"CLUSTER", b"SYNCSLOTS"])
            self.peer |= migrates or _begins(command, [b"REPLCONF"])
            self.peer |= _begins(command, [b"CLIENT", b"SETNAME"]) and command[2].startswith(b"sentinel-")
            for old, new in rewritten:
                if _begins(command, old):
                    command = [*new, *command[len(old) :]]
                    break
            whole.append(hiredis.pack_command(tuple(command)))
            if migrates or _begins(command, [b"PSYNC"]):
                self._requests = False  # what follows is the stream to a replica, not a sequence of replies
                break
        return b"".join(whole)

    def replies(self, portion: bytes, *, pushes: bool) -> bytes:
        """Return the replies in *portion*, with or without the pushes between them."""
        if not self._requests:
            return portion
        passed = []
        for line in portion.splitlines(keepends=True):  # a value ends where a line does
            if self._pushing is None:
                self._pushing = line.startswith(b">")
            if pushes or not self._pushing:
                passed.append(line)
            self._answers.feed(line)
            if self._answers.gets() is not NEED_DATA:
                self._pushing = None
        return b"".join(passed)

    def send(self, portion: bytes) -> None:
        """Send *portion* to the client, unless its replies have ended."""
        if portion and not self._ended:
            self.client.write(portion)

    def end_replies(self) -> None:
        """Close the replying half of the connection."""
        self._ended = True
        self.client.write_eof()

    def reset(self) -> None:
        """Reset the connection, so that the client gets ECONNRESET."""
        # Closing a socket with SO_LINGER of 0 sends RST instead of FIN.
        connection = self.client.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.transport.abort()
        if self.task is not None:
            self.task.cancel()


def _begins(command: list[bytes], words: list[bytes]) -> bool:
    return [word.upper() for word in command[: len(words)]] == words
