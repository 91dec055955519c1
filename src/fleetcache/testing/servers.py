"""Servers for tests, each on a unix socket and a free port of 127.0.0.1."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fleetcache import commands as c
from fleetcache.errors import ServerNotFound, SettingsError
from fleetcache.forks import OURS, in_children, own
from fleetcache.servers.embedded import PATIENCE, ServerProcess, StrPath
from fleetcache.servers.memory import MEMORY

# Below every system's ephemeral range, so that no outgoing connection takes the port during a
# restart, and low enough for a cluster bus, which listens 10000 higher.
LOWEST_PORT, PORTS = 10_000, 10_000


def free_ports(count: int) -> list[int]:
    """Return free even ports whose ports for the cluster bus, 10000 higher, are free as well."""
    found: list[int] = []
    while len(found) < count:
        port = LOWEST_PORT + 2 * secrets.randbelow(PORTS // 2)
        with suppress(OSError), socket.socket() as one, socket.socket() as bus:
            one.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + PORTS))
            found.append(port)
    return found


class EmbeddedServer(ServerProcess):
    """A server of this process alone, running from its construction until :meth:`stop`.

    It runs in *directory*, or in a temporary one, listens on a unix socket there and, if *port*
    is given, on that port of 127.0.0.1 (True: on a free one).  Its data end with it, unless
    *data* names a file to load from and save to.  *arguments* are passed to the server program,
    such as ``["--maxmemory", "64mb"]``.
    """

    def __init__(
        self,
        directory: StrPath | None = None,
        *,
        port: bool | int = False,
        data: StrPath | None = None,
        binary: StrPath | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        super().__init__(directory, data, binary, arguments)
        self.port = free_ports(1)[0] if port is True else int(port)
        self._begin()
        in_children(self._disown)

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def runs(self) -> bool:
        """Whether the server has not ended."""
        if not OURS:
            own()
        return self._warden.poll() is None

    def tcp_url(self, db: int = 0) -> str:
        """Return the URL of the TCP port."""
        if not self.port:
            raise SettingsError("this server has no TCP port; start it with port=True")
        return f"redis://127.0.0.1:{self.port}/{db}"

    def stop(self) -> None:
        """End the server; with a data file, after it has saved."""
        # A paused server must go on to receive the first signal.
        self._end(*((signal.SIGTERM, signal.SIGCONT) if self.data else (signal.SIGKILL,)))

    def kill(self) -> None:
        """End the server as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the server if it runs, and start it on the same socket and port."""
        self.stop()
        self._begin()

    def pause(self) -> None:
        """Freeze the server: connections stay open and are accepted, but no command is answered."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue a paused server."""
        self._send(signal.SIGCONT)

    def _listening(self) -> list[str]:
        return ["--bind", "127.0.0.1", "--port", str(self.port)]

    def _begin(self) -> None:
        self._warden = self._launch(*os.pipe(), *self._listening())

    def _send(self, *signals: int) -> None:
        # The warden reaps the server just before its own end, so until then the pid is still the server's.
        with suppress(ProcessLookupError, FileNotFoundError):
            for number in signals if self.runs else ():
                os.kill(self.pid, number)

    def _end(self, *signals: int) -> None:
        self._send(*signals)
        try:
            self._warden.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._send(signal.SIGKILL)
            self._warden.wait(PATIENCE)
        self._lifeline()

    def _disown(self) -> None:
        """In a forked child: leave the server to the parent; for the child it has ended."""
        self._lifeline()
        self._warden.returncode = 0


def empty_memory() -> None:
    """Empty every ``memory://`` server of this process."""
    for server in list(MEMORY.values()):
        server.exchange(((c.FLUSHDB,),))


def valkey_server(**options: Any) -> EmbeddedServer:
    """Run the same server as ``embedded://``; *options* are those of ``EmbeddedServer``."""
    return EmbeddedServer(**{"port": True, **options})


@contextmanager
def redis_server(**options: Any) -> Iterator[EmbeddedServer]:
    """Run the ``redis-server`` on PATH; *options* are those of ``EmbeddedServer``."""
    with valkey_server(**{"binary": program("redis-server"), **options}) as server:
        yield server


@contextmanager
def tls_server(**options: Any) -> Iterator[TLSServer]:
    """Run the ``redis-server`` on PATH with TLS; *options* are those of ``EmbeddedServer``.

    Its certificate is for ``localhost`` and 127.0.0.1.  With the arguments
    ``["--tls-auth-clients", "yes"]`` it demands a certificate of each client; its own is accepted.
    """
    with tempfile.TemporaryDirectory(prefix="fleetcache-tls-") as directory:
        certificates = certify(Path(directory))
        binary = program("redis-server")
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
        """Return a URL that also names the authority to trust."""
        return f"rediss://127.0.0.1:{self.tls_port}/{db}?ssl_ca_certs={quote(str(self.ca))}"

    def _listening(self) -> list[str]:
        files = ["--tls-ca-cert-file", str(self.ca), "--tls-cert-file", str(self.certificate)]
        files += ["--tls-key-file", str(self.key), "--tls-auth-clients", "no"]
        return [*super()._listening(), "--tls-port", str(self.tls_port), *files]


def program(name: str) -> Path:
    if found := shutil.which(name):
        return Path(found)
    raise ServerNotFound(f"{name} is not on PATH. On Debian: apt install {name}")


def certify(directory: Path) -> Path:
    """Write an authority (``ca``) and a certificate signed by it (``server``) into *directory*."""
    openssl = str(program("openssl"))
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
