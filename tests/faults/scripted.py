"""A server whose answers a test writes."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Scripted:
    """A server that greets, and then answers each read with the next of *answers*."""

    def __init__(self, *answers: bytes) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self.sock.getsockname()[1]}/0"
        self.answers = list(answers)
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def answer(self, data: bytes) -> bytes:
        """Return the answer to *data*, which was read at once."""
        return self.answers.pop(0) if self.answers else b""

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.sock.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            while data := connection.recv(65536):
                if b"HELLO" in data:
                    reply = b"%1\r\n+proto\r\n:3\r\n"
                elif b"CLIENT" in data:
                    reply = b"+OK\r\n" * data.count(b"CLIENT")
                else:
                    reply = self.answer(data)
                connection.sendall(reply)
