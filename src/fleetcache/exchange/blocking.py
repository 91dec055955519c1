"""The blocking exchange: one caller, one socket, one write, as few reads as possible."""

from __future__ import annotations

import select
import signal
import socket
import ssl
import struct
from _signal import getsignal  # type: ignore[import-not-found]  # see interrupts.py
from collections.abc import Callable
from time import monotonic
from typing import Any

from fleetcache.errors import ConnectionLost, ServerGone, ServerTimeout
from fleetcache.exchange.connecting import socket_of
from fleetcache.exchange.contract import Reply
from fleetcache.exchange.wire import NEED_DATA, NO_REPLY, Push, ends, new_parser
from fleetcache.interrupts import interruption

CHUNK = 65536
RESTED = 0.001
"""A connection that was idle for this many seconds is checked before its next use, by one system call."""
TICK = int(getattr(signal, "SIGALRM", 0))
KERNEL_TIMEOUTS = TICK > 0 and hasattr(socket, "SO_RCVTIMEO") and hasattr(socket, "AF_UNIX") and hasattr(select, "poll")


def ticks() -> bool:
    """Whether a timer of this process will send a signal, perhaps periodically."""
    return bool(getsignal(TICK)) and signal.getitimer(signal.ITIMER_REAL)[0] > 0


class Conversation:
    """One connected socket, for one caller at a time, which gives it back when it has its replies.

    A conversation that raised must be closed: a reply may still be on its way.
    """

    def __init__(self, connection: Any, timeout: float | None, address: str) -> None:
        self.connection = connection
        self.address = address
        self.timeout = timeout
        self.replaceable = False
        """Whether a new connection may replace it when it fails: it was idle, so it may have been dead for long."""
        self.give_back: Callable[[Conversation], None]
        """Called with the conversation when its caller has the replies; an attribute, because a method is slower."""
        self.seat: Any = None
        """Its seat under MAX_CONNECTIONS."""
        self.told = monotonic()
        """When it was last used."""
        self.sock = socket_of(connection)
        self.parser = new_parser()
        self.buffer = bytearray(CHUNK)
        # A Python timeout costs a poll() before each send and recv; the kernel's own costs nothing.
        # It is not used under TLS, whose reads would spin on it, nor under gevent: both have other socket classes.
        self.kernel = KERNEL_TIMEOUTS and type(self.sock).__module__ == "socket"
        self.poll: Any = None
        if self.kernel:
            self.sock.settimeout(None)
        if self.kernel or (KERNEL_TIMEOUTS and type(self.sock).__module__ == "ssl"):
            self.poll = select.poll()
            self.poll.register(self.sock, select.POLLIN)
        self._limit(timeout)

    def ask(self, data: bytes, count: int) -> list[Reply]:
        """Send *count* commands and return their replies: `tell` and `hear` for the common case of a single read."""
        started = monotonic()
        if started - self.told > RESTED and self.is_stale():
            raise ConnectionLost(f"{self.address}: the server closed the connection while it was idle")
        self.told = started
        if self.kernel and getsignal(TICK) and ticks():  # first the cheap test: nearly always there is no handler
            self._count_by_python()
        parser = self.parser
        replies: list[Reply] = []
        try:
            if len(data) > CHUNK:
                self._send(data)
            else:
                self.sock.sendall(data)
            size = self.sock.recv_into(self.buffer)
            parser.feed(self.buffer, 0, size)
            if count == 1:  # the common case, written out
                reply = parser.gets()
                if reply is not NEED_DATA and type(reply) is not Push and not parser.has_data():
                    return [reply]
                if reply is not NEED_DATA and type(reply) is not Push:
                    replies.append(reply)
            if self._take(replies, count, size):
                return replies
        except (OSError, *NO_REPLY) as error:
            raise self._explained(error) from error
        return self.hear(count, replies)

    def _count_by_python(self) -> None:
        """Let Python keep the time limit from now on: the kernel would restart the time after each signal."""
        self.kernel = False
        self._limit(self.timeout)

    def hasten(self, timeout: float | None) -> None:
        """Limit each exchange from now on to *timeout* seconds."""
        if timeout is not None and timeout <= 0:
            raise ServerTimeout(f"{self.address}: no answer while connecting")
        self.timeout = timeout
        self._limit(timeout)

    def tell(self, data: bytes) -> None:
        """Send *data*, which holds whole commands."""
        self.told = monotonic()
        if self.kernel and ticks():
            self._count_by_python()
        try:
            self._send(data)
        except OSError as error:
            raise self._explained(error) from error

    def _send(self, data: bytes) -> None:
        """Send *data* within one time limit; the kernel would apply the whole limit to each part."""
        try:
            if not self.kernel or self.timeout is None or len(data) <= CHUNK:
                self.sock.sendall(data)
                return
            left = memoryview(data)
            while left := left[self.sock.send(left) :]:
                self._hurry()
        except (BrokenPipeError, ConnectionResetError) as error:
            # Read on: the server may have sent a last reply that names the reason.
            if self._interrupts(error):
                raise
        self._relax()

    def hear(self, count: int, replies: list[Reply] | None = None) -> list[Reply]:
        """Return the next *count* replies; *replies* have been read already."""
        replies = [] if replies is None else replies
        size = 0
        if self.timeout is not None:
            # The time may have passed while other servers were read; to read bytes that have arrived takes a moment.
            self.told = max(self.told, monotonic() - 0.9 * self.timeout)
        while not self._take(replies, count, size):
            try:
                size = self.receive()
            except ConnectionLost:
                if not ends(replies, count):
                    raise
        self._relax()
        return replies

    def receive(self) -> int:
        """Wait for the next bytes, feed them to the parser, and return their number."""
        try:
            self._hurry()
            size: int = self.sock.recv_into(self.buffer)
            self.parser.feed(self.buffer, 0, size)
        except (OSError, *NO_REPLY) as error:
            raise self._explained(error) from error
        if not size:
            raise ConnectionLost(f"{self.address}: the server closed the connection before it replied")
        return size

    def _take(self, replies: list[Reply], count: int, size: int) -> bool:
        """Move the parsed replies to *replies*, and return whether these are *count*; the last read had *size* bytes.

        A reply after the last one belongs to no command.  Then the others may be the replies to other commands too.
        """
        take = self.parser.gets
        try:
            while (reply := take()) is not NEED_DATA:
                if type(reply) is not Push:
                    replies.append(reply)
        except NO_REPLY as error:
            raise self._explained(error) from error
        if len(replies) < count:
            return False
        if len(replies) > count or (self.parser.has_data() and not self._pushed(size)):
            raise ServerGone(f"{self.address}: sent more replies than it got commands")
        return True

    def _pushed(self, size: int) -> bool:
        """Whether the bytes after the last reply, among the last *size*, can be the beginning of a push."""
        return self.buffer.find(b"\r\n>", 0, size) >= 0

    def _interrupts(self, error: Exception) -> bool:
        """Whether *error* is an interrupt: neither the socket nor the parser has raised it."""
        if interruption(error) is not None:
            return True
        if not isinstance(error, TimeoutError) or error.errno is not None:
            return False
        # gevent's limit on a whole block has the same class as the socket's, but is due at another time.
        return self.timeout is None or monotonic() - self.told < 0.9 * self.timeout

    def _explained(self, error: Exception) -> Exception:
        """Return an error of the socket or the parser as one of fleetcache's; raise *error* itself if it is an interrupt."""
        if self._interrupts(error):
            try:
                raise error
            finally:
                del error  # as in `let_pass`
        if isinstance(error, (TimeoutError, BlockingIOError)):
            return ServerTimeout(f"{self.address}: no reply within {self.timeout} s")
        if isinstance(error, NO_REPLY):
            return ServerGone(f"{self.address}: sent bytes that are no valid reply: {error}")
        return ConnectionLost(f"{self.address}: {error}")

    @property
    def rested(self) -> bool:
        """Whether it has been idle for so long that it must be checked before its next use."""
        return monotonic() - self.told > RESTED

    def is_stale(self) -> bool:
        """Whether the server closed the connection, or sent an unexpected message, since the last reply."""
        if self.poll is not None and not self.poll.poll(0):
            return False
        if self.kernel:
            return True
        self.sock.settimeout(0)
        try:
            self.sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError as error:
            if self._interrupts(error):
                raise
        finally:
            self._limit(self.timeout)
        return True

    def close(self) -> None:
        """Close the connection."""
        self.connection.disconnect()

    def abandon(self) -> None:
        """Close this process's copy of the socket; the connection belongs to the parent."""
        self.sock.close()

    def _hurry(self) -> None:
        """Lower the kernel's limit to the time that is left: each piece of a slow reply must not get it all."""
        if self.timeout is None:
            return
        left = self.told + self.timeout - monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        if left <= 0.9 * self.timeout:
            self._limit(left)

    def _relax(self) -> None:
        if self.limit != self.timeout:
            self._limit(self.timeout)

    def _limit(self, seconds: float | None) -> None:
        self.limit = seconds
        if not self.kernel:
            self.sock.settimeout(seconds)
            return
        whole, part = divmod(seconds or 0, 1)
        # Zero would mean no limit at all.
        limit = struct.pack("ll", int(whole), max(1, int(part * 1e6)) if seconds else 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
