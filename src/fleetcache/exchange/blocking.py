"""The blocking exchange: one caller, one socket, one write, as few reads as possible."""

from __future__ import annotations

import socket
import ssl
import struct
from time import monotonic
from typing import Any

from redis.exceptions import InvalidResponse

from fleetcache.errors import ConnectionLost, ServerGone, ServerTimeout
from fleetcache.exchange import Reply
from fleetcache.exchange.connecting import socket_of
from fleetcache.exchange.wire import NEED_DATA, Push, new_reader

CHUNK = 65536
KERNEL_TIMEOUTS = hasattr(socket, "SO_RCVTIMEO") and hasattr(socket, "AF_UNIX")


class Conversation:
    """One connected socket.  Whoever holds it asks and is answered; then it is given back.

    A conversation that raised is of no further use: a reply may still be on its way.
    """

    __slots__ = ("address", "buffer", "connection", "home", "kernel", "reader", "sock", "timeout", "told", "used")

    def __init__(self, connection: Any, timeout: float | None, address: str) -> None:
        self.connection = connection
        self.address = address
        self.timeout = timeout
        self.used = False
        self.home: Any = None
        """Where it is given back to, by ``append``."""
        self.told = 0.0
        self.sock = socket_of(connection)
        self.reader = new_reader()
        self.buffer = bytearray(CHUNK)
        # A Python timeout costs a poll() before each send and recv; the kernel's own costs nothing.
        # Not under TLS, whose reads would spin on it, nor under gevent: both have other socket classes.
        self.kernel = KERNEL_TIMEOUTS and type(self.sock).__module__ == "socket"
        if self.kernel:
            self.sock.settimeout(None)
        self._limit(timeout)

    def ask(self, data: bytes, count: int) -> list[Reply]:
        """Send *count* commands and return their replies: `tell` and `hear` for the usual case, a single read."""
        started = monotonic()
        try:
            if len(data) > CHUNK:
                self._send(data, started)
            else:
                self.sock.sendall(data)
            size = self.sock.recv_into(self.buffer)
            self.reader.feed(self.buffer, 0, size)
            reply = self.reader.gets()
            replies = [reply]
            while len(replies) < count and reply is not NEED_DATA and type(reply) is not Push:
                reply = self.reader.gets()
                replies.append(reply)
        except (OSError, InvalidResponse) as error:
            raise self._explained(error) from error
        if reply is NEED_DATA or type(reply) is Push:
            self.told = started
            replies[-1:] = self.hear(count - len(replies) + 1)
        return replies

    def tell(self, data: bytes) -> None:
        """Send *data*, which holds whole commands."""
        self.told = monotonic()
        try:
            self._send(data, self.told)
        except OSError as error:
            raise self._explained(error) from error

    def _send(self, data: bytes, started: float) -> None:
        """Send *data* within one limit; the kernel would give each part of it the whole."""
        if not self.kernel or self.timeout is None or len(data) <= CHUNK:
            self.sock.sendall(data)
            return
        left, hurried = memoryview(data), False
        while left := left[self.sock.send(left) :]:
            hurried = self._hurry(started) or hurried
        if hurried:
            self._limit(self.timeout)

    def hear(self, count: int) -> list[Reply]:
        """Return the next *count* replies."""
        receive, feed, take, buffer = self.sock.recv_into, self.reader.feed, self.reader.gets, self.buffer
        replies: list[Reply] = []
        try:
            started = self.told
            if self.timeout is not None:
                # Other servers may have been waited for since; to read what has come takes a moment still.
                started = max(started, monotonic() - 0.9 * self.timeout)
            hurried = self._hurry(started)
            while True:
                size = receive(buffer)
                if not size:
                    raise ConnectionLost(f"{self.address}: the server closed the connection before it replied")
                feed(buffer, 0, size)
                while (reply := take()) is not NEED_DATA:
                    if type(reply) is Push:
                        continue
                    replies.append(reply)
                    if len(replies) == count:
                        if hurried:
                            self._limit(self.timeout)
                        return replies
                hurried = self._hurry(started) or hurried
        except (OSError, InvalidResponse) as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> Exception:
        """Return an error of the socket, or of the parser, as ours."""
        if isinstance(error, (TimeoutError, BlockingIOError)):
            return ServerTimeout(f"{self.address}: no reply within {self.timeout} s")
        if isinstance(error, InvalidResponse):
            return ServerGone(f"{self.address}: sent something that is no reply: {error}")
        return ConnectionLost(f"{self.address}: {error}")

    def is_stale(self) -> bool:
        """Whether the server hung up, or said something nobody asked for, since the last reply."""
        if not self.kernel:
            self.sock.settimeout(0)
        try:
            self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT if self.kernel else 0)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        finally:
            if not self.kernel:
                self._limit(self.timeout)
        return True

    def close(self) -> None:
        """Hang up."""
        self.connection.disconnect()

    def abandon(self) -> None:
        """Close this process's copy of the socket; the connection belongs to the parent."""
        self.sock.close()

    def _hurry(self, started: float) -> bool:
        """A reply that trickles in must not have the whole timeout for each of its drops."""
        if self.timeout is None:
            return False
        left = started + self.timeout - monotonic()
        if left <= 0:
            raise TimeoutError
        if left > 0.9 * self.timeout:
            return False
        self._limit(left)
        return True

    def _limit(self, seconds: float | None) -> None:
        if not self.kernel:
            self.sock.settimeout(seconds)
            return
        whole, part = divmod(seconds or 0, 1)
        # Zero would mean no limit at all.
        limit = struct.pack("ll", int(whole), max(1, int(part * 1e6)) if seconds else 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
