"""What the tests of the command line share: a site, and ways to run commands."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.caches import own_prefix

from fleetcache import Cache, cli

SECRET = "s3cr3t"


class Said(NamedTuple):
    """What came of a command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON document that it wrote, which is all that it wrote."""
        assert self.err == ""
        return json.loads(self.out)


@pytest.fixture
def say(capsys, monkeypatch) -> Callable[..., Said]:
    """Run a command in this process."""
    monkeypatch.delenv("FLEETCACHE_URL", raising=False)
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)

    def say(*arguments: str) -> Said:
        code = cli.main(arguments)
        written = capsys.readouterr()
        return Said(code, written.out, written.err)

    return say


class Site(NamedTuple):
    """A cache with a prefix of its own, and its URL for commands."""

    cache: Cache
    url: str
    server: Any

    def run(self, *arguments: str) -> list[str]:
        """Return the words of a command line with ``--url``."""
        return [*arguments, "--url", self.url]


@pytest.fixture
def site(valkey) -> Site:
    """A cache on a Valkey."""
    url = f"{valkey.tcp_url(12)}?key_prefix={own_prefix()}"
    return Site(Cache.from_url(url), url, valkey)


@pytest.fixture
def shell(tmp_path) -> Callable[..., Any]:
    """Run a command line as a process of its own, in an empty directory."""

    def shell(*arguments: str, env: dict[str, str] | None = None, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", "-m", "fleetcache", *arguments]
        kwargs = {"capture_output": True, "text": True, "timeout": 60, "check": False, "cwd": tmp_path, **kwargs}
        return subprocess.run(command, env=environment(**(env or {})), **kwargs)

    return shell


def unused_port() -> int:
    """Return a port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port: int = unused.getsockname()[1]
        return port


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a command: without the variables that name a cache, and with *more*."""
    source = str(Path(cli.__file__).parent.parent.parent)
    path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
    named = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLEETCACHE_", "DJANGO_", "COLUMNS", "LINES"))
    }
    return {**named, "PYTHONPATH": path, **more}


@pytest.fixture
def module(tmp_path, monkeypatch) -> Iterator[Callable[[str, str], Path]]:
    """Write a module of a site, which commands may import."""
    written: list[str] = []

    def module(name: str, text: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        written.append(name)
        return path

    monkeypatch.syspath_prepend(tmp_path)
    yield module
    for name in written:
        sys.modules.pop(name, None)


@pytest.fixture(params=["valkey", "redis_debian", "cluster", "sentinel", "tls", "unix"])
def anywhere(request) -> Site:
    """A cache on each kind of server, under each topology, over each transport."""
    ask = request.getfixturevalue
    url = {
        "valkey": lambda: ask("valkey").tcp_url(12),
        "redis_debian": lambda: ask("redis_debian").tcp_url(12),
        "cluster": lambda: ask("valkey_cluster").url(),
        "sentinel": lambda: ask("watched_servers").url(),
        "tls": lambda: ask("tls").tls_url(),
        "unix": lambda: ask("valkey").url(12),
    }[request.param]()
    url = f"{url}{'&' if '?' in url else '?'}key_prefix={own_prefix()}"
    return Site(Cache.from_url(url), url, None)
