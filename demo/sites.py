"""The demo's sites: the atlas under gunicorn, on one backend with some OPTIONS each."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from socket import create_server
from typing import Any

from load import WrongPageError, fetch

HERE = Path(__file__).parent
PROC = Path("/proc")
WORKERS = 2

BEFORE, AFTER = "django_redis.cache.RedisCache", "fleetcache.django.RedisCache"


class DemoError(Exception):
    """A scene cannot be played; says why."""


class Site:
    """The atlas on one backend: gunicorn with two worker processes on a free port of 127.0.0.1.

    With *threads*, each worker answers that many requests at a time.
    """

    def __init__(
        self, name: str, backend: str, location: str, folder: Path, options: Mapping[str, Any], *, threads: int = 0
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        settings = {
            "DJANGO_SETTINGS_MODULE": "atlas.settings",
            "ATLAS_BACKEND": backend,
            "ATLAS_LOCATION": location,
            "ATLAS_OPTIONS": json.dumps(options),
            "ATLAS_DATABASE": str(folder / "names.sqlite3"),
            "ATLAS_NAME": name,
        }
        # gunicorn inherits the listening socket, so nobody else can take the port meanwhile.
        with create_server(("127.0.0.1", 0), backlog=64) as listener, self.log.open("wb") as log:
            self.port: int = listener.getsockname()[1]
            self.master = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gunicorn", "django.core.wsgi:get_wsgi_application()"),
                    *("--bind", f"fd://{listener.fileno()}", "--workers", str(WORKERS)),
                    *(("--threads", str(threads), "--keep-alive", "0") if threads else ()),
                    *("--chdir", HERE, "--preload", "--log-level", "warning", "--no-control-socket"),
                    *("--config", HERE / "lifeline.py"),
                ],
                env=os.environ | settings,
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,  # see lifeline
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C is for this process, which then stops the others
            )

    def wait_until_ready(self) -> None:
        """Wait for the first page; raise DemoError with what the site complains of if there is none."""
        try:
            fetch(self.port, "/")
        except (OSError, WrongPageError) as error:
            raise DemoError(f"the site {self.name} does not start: {error}\n{self.complaints()}") from error

    def complaints(self) -> str:
        """Return the end of what the workers printed."""
        return self.log.read_text(errors="replace")[-3000:]

    def workers(self) -> list[str]:
        """Return the process ids of the workers."""
        master = str(self.master.pid)
        return (PROC / master / "task" / master / "children").read_text().split()

    def cpu(self) -> float:
        """Return the CPU seconds that the present workers have used, as far as Linux tells; else NaN."""
        if not PROC.exists():
            return math.nan
        return sum(_cpu(PROC / worker) for worker in self.workers())

    def stop(self) -> None:
        """End the master and its workers, which have nothing to save: by force, since they may be waiting for a server."""
        with suppress(ProcessLookupError):
            os.killpg(self.master.pid, signal.SIGKILL)
        self.master.communicate()


def _cpu(process: Path) -> float:
    """Return the CPU seconds of a process: of all its threads to the nanosecond, or else to a tick of the clock."""
    try:
        nanoseconds = sum(int(path.read_text().split()[0]) for path in process.glob("task/*/schedstat"))
    except OSError:
        nanoseconds = 0
    if nanoseconds:
        return nanoseconds / 1e9
    # The fields after the name, which is in brackets and may hold anything.
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
