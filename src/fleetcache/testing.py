"""Servers and faults for tests: yours, and fleetcache's own.

Each server runs on a unix socket and a free port of 127.0.0.1, so that any number of test runs can
go on side by side, and is gone when the test process is, however that ends::

    with valkey_server() as server, FaultProxy(server.socket) as proxy:
        cache = Cache(proxy.url())
        proxy.hold()
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from fleetcache.errors import ServerNotFound
from fleetcache.topology.embedded import EmbeddedServer, StrPath

__all__ = ["FaultProxy", "TLSServer", "redis_server", "tls_server", "valkey_server"]

Address = tuple[str, int] | StrPath


@contextmanager
def valkey_server(**options: Any) -> Iterator[EmbeddedServer]:
    """Run the server that ``embedded://`` would; *options* are those of ``EmbeddedServer``."""
    with EmbeddedServer(**{"port": True, **options}) as server:
        yield server


@contextmanager
def redis_server(**options: Any) -> Iterator[EmbeddedServer]:
    """Run the ``redis-server`` on PATH; *options* are those of ``EmbeddedServer``."""
    with EmbeddedServer(**{"port": True, "binary": _program("redis-server"), **options}) as server:
        yield server


@contextmanager
def tls_server(**options: Any) -> Iterator[TLSServer]:
    """Run the ``redis-server`` on PATH with TLS; *options* are those of ``EmbeddedServer``.

    Its certificate is for ``localhost`` and 127.0.0.1.  With the arguments
    ``["--tls-auth-clients", "yes"]`` it wants one of its clients too; its own will do.
    """
    with tempfile.TemporaryDirectory(prefix="fleetcache-tls-") as directory:
        certificates = _certify(Path(directory))
        binary = _program("redis-server")
        with TLSServer(certificates, **{"port": True, "binary": binary, **options}) as server:
            yield server


class TLSServer(EmbeddedServer):
    """A server that also speaks TLS, on the port after its plain one."""

    def __init__(self, certificates: Path, **options: Any) -> None:
        self.ca = certificates / "ca.pem"
        self.certificate = certificates / "server.pem"
        self.key = certificates / "server.key"
        super().__init__(**options)

    @property
    def tls_port(self) -> int:
        """The port that speaks TLS."""
        return self.port + 1

    def tls_url(self, db: int = 0) -> str:
        """Return a URL that also says which authority to trust."""
        return f"rediss://127.0.0.1:{self.tls_port}/{db}?ssl_ca_certs={quote(str(self.ca))}"

    def _listening(self) -> list[str]:
        files = ["--tls-ca-cert-file", str(self.ca), "--tls-cert-file", str(self.certificate)]
        files += ["--tls-key-file", str(self.key), "--tls-auth-clients", "no"]
        return [*super()._listening(), "--tls-port", str(self.tls_port), *files]


def _program(name: str) -> Path:
    if found := shutil.which(name):
        return Path(found)
    raise ServerNotFound(f"{name} is not on PATH. On Debian: apt install {name}")


def _certify(directory: Path) -> Path:
    """Make an authority (``ca``) and a certificate signed by it (``server``) in *directory*."""
    openssl = str(_program("openssl"))
    new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    (directory / "names").write_text(
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    for command in (
        f"req -x509 {new_key} -keyout ca.key -out ca.pem -days 30 -subj /CN=fleetcache-tests"
        " -addext keyUsage=critical,keyCertSign",
        f"req {new_key} -keyout server.key -out server.csr -subj /CN=localhost",
        "x509 -req -in server.csr -out server.pem -days 30 -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names",
    ):
        subprocess.run([openssl, *command.split()], cwd=directory, check=True, capture_output=True)
    return directory


class FaultProxy:
    """A port of 127.0.0.1 that forwards to *upstream*, as badly as a test wants.

    *upstream* is ``(host, port)`` or the path of a unix socket.  A fault has taken effect when the
    method that orders it returns, and lasts until :meth:`heal` unless it says otherwise.
    """

    def __init__(self, upstream: Address) -> None:
        self.upstream = upstream
        self.port = 0
        self.accepted = 0
        """How many connections have been made so far."""
        self._delay = 0.0
        self._blackhole = False
        self._left: int | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

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

    def delay(self, seconds: float) -> None:
        """Let each portion of a reply wait for *seconds*."""
        self._order(lambda: setattr(self, "_delay", seconds))

    def hold(self) -> None:
        """Forward nothing in either direction; all connections stay open."""
        self._order(self._flowing.clear)

    def blackhole(self) -> None:
        """Accept new connections and read nothing from them; older ones go on."""
        self._order(lambda: setattr(self, "_blackhole", True))

    def reset(self) -> None:
        """Reset all connections, once: their clients get ECONNRESET."""
        self._order(self._reset_all)

    def cut_after(self, count: int) -> None:
        """Pass *count* more bytes of replies, then close the connection they came on, once."""
        self._order(lambda: setattr(self, "_left", count))

    def heal(self) -> None:
        """Forward everything from now on, and what was held; blackholed connections stay so."""
        self._delay, self._left, self._blackhole = 0.0, None, False
        self._order(self._flowing.set)

    def _order(self, action: Callable[[], object]) -> None:
        async def act() -> None:
            action()
            await asyncio.sleep(0)  # an aborted transport closes its socket one turn later

        asyncio.run_coroutine_threadsafe(act(), self._loop).result(10)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing, self._flowing = asyncio.Event(), asyncio.Event()
        self._flowing.set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        async with server:
            await self._closing.wait()
            for client in self._clients:
                client.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._clients.add(client)
        with suppress(OSError, asyncio.CancelledError):
            if self._blackhole:
                await self._closing.wait()
            replies, server = await self._dial()
            ways = [self._forward(reader, server), self._forward(replies, client, replies=True)]
            tasks = [asyncio.create_task(way) for way in ways]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                server.transport.abort()
                for task in tasks:
                    task.cancel()
        self._clients.discard(client)
        client.close()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.upstream, tuple):
            return await asyncio.open_connection(*self.upstream)
        return await asyncio.open_unix_connection(self.upstream)

    async def _forward(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, replies: bool = False
    ) -> None:
        with suppress(OSError):
            while portion := await source.read(65_536):
                if replies:
                    await asyncio.sleep(self._delay)
                await self._flowing.wait()
                if not replies or self._left is None:
                    sink.write(portion)
                elif len(portion) < self._left:
                    self._left -= len(portion)
                    sink.write(portion)
                else:
                    sink.write(portion[: self._left])
                    self._left = None
                    return
                await sink.drain()

    def _reset_all(self) -> None:
        for client in self._clients:
            # Closing a socket that must not linger sends RST instead of FIN.
            connection = client.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.transport.abort()
