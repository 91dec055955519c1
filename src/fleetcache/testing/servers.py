"""Servers for tests, each on a unix socket and a free port of 127.0.0.1."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fleetcache.errors import ServerNotFound
from fleetcache.servers.embedded import EmbeddedServer


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
