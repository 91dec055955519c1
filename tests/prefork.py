"""A WSGI site that uses its cache while it loads, under servers that fork workers afterwards.

As a program it asks every server in every way for as many reads as wanted, and prints what it saw::

    python -m tests.prefork --reads 10000
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleetcache.testing import cluster, valkey_server

WORKERS = 3
NAMES = 50
EACH = 20
"""Rounds of one request; each reads twice."""

SITE = """
import json, os, time
from urllib.parse import parse_qs
from fleetcache import Cache

NEAR = os.environ["SITE_NEAR"] == "1"
cache = Cache(os.environ["SITE_URL"], {"KEY_PREFIX": "site"}, near=NEAR)
loaded_by = os.getpid()
cache.set_many({f"user:{number}": f"user:{number}" for number in range(NAMES)}, None)
assert all(cache.get(f"user:{number}") == f"user:{number}" for number in range(NAMES))
cache.fence()
cache.set("loaded", "loaded")  # what is announced now is heard while workers are forked

def rounds(count):
    wrong = 0
    me = os.getpid()
    for number in range(count):
        mine = f"{me}-{number}-{time.monotonic_ns()}"
        cache.set(mine, mine, 60)
        wrong += cache.get(mine) != mine
        name = f"user:{number * 7 % NAMES}"
        wrong += cache.get(name) != name
    return wrong

def application(environ, start_response):
    count = int(parse_qs(environ["QUERY_STRING"])["rounds"][0])
    wrong = rounds(count)
    began = time.monotonic()
    cache.fence()
    fenced = time.monotonic() - began
    near = cache.near
    if near is not None:
        deadline = time.monotonic() + 2
        while near.state != "live" and time.monotonic() < deadline:
            cache.get("user:1")
            time.sleep(0.002)
    said = {
        "pid": os.getpid(), "loaded_by": loaded_by, "wrong": wrong, "reads": 2 * count, "fence": fenced,
        "near": str(near.state) if near is not None else "off", "hits": near.store.hits if near is not None else 0,
        "why": near.why if near is not None else "",
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(said).encode()]
""".replace("NAMES", str(NAMES))


@dataclass
class Outcome:
    """What the workers of one site said."""

    reads: int = 0
    wrong: int = 0
    workers: set[int] = field(default_factory=set)
    live: set[int] = field(default_factory=set)
    hits: int = 0
    fence: float = 0.0
    """The longest."""
    why: Counter[str] = field(default_factory=Counter)
    loaded_by: set[int] = field(default_factory=set)

    def add(self, said: dict[str, Any]) -> None:
        self.reads += said["reads"]
        self.wrong += said["wrong"]
        self.workers.add(said["pid"])
        self.loaded_by.add(said["loaded_by"])
        self.hits += said["hits"]
        self.fence = max(self.fence, said["fence"])
        if said["near"] == "live":
            self.live.add(said["pid"])
        else:
            self.why[said["near"], said["why"]] += 1


def uwsgi(*arguments: str) -> list[str]:
    return [
        str(Path(sys.executable).with_name("uwsgi")),
        "--master",
        "--die-on-term",
        f"--processes={WORKERS}",
        "--need-app",
        "--http-socket=127.0.0.1:{port}",
        "--listen=64",
        "--module=site_under_test:application",
        "--pythonpath={directory}",
        "--disable-logging",
        *arguments,
    ]


def gunicorn(*arguments: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "gunicorn",
        f"--workers={WORKERS}",
        "--bind=127.0.0.1:{port}",
        "--pythonpath={directory}",
        "--no-control-socket",
        "site_under_test:application",
        *arguments,
    ]


SERVERS = {
    "uwsgi": uwsgi(),
    "uwsgi --enable-threads": uwsgi("--enable-threads"),
    "uwsgi --threads=4": uwsgi("--threads=4"),
    "uwsgi --lazy-apps": uwsgi("--lazy-apps"),
    "uwsgi --py-call-uwsgi-fork-hooks": uwsgi("--py-call-uwsgi-fork-hooks"),
    "gunicorn --preload": gunicorn("--preload"),
    "gunicorn --preload --threads=4": gunicorn("--preload", "--threads=4"),
}


class Site:
    """A site that runs."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.port = port
        self.process = process
        self.log = log

    def ask(self, rounds: int = EACH, timeout: float = 20.0) -> dict[str, Any]:
        """Let some worker read twice as often as *rounds*."""
        url = f"http://127.0.0.1:{self.port}/?rounds={rounds}"
        with urllib.request.urlopen(url, timeout=timeout) as reply:
            found: dict[str, Any] = json.load(reply)
        return found

    def visit(self, reads: int, clients: int = 6) -> Outcome:
        """Let all workers read at once until there have been as many *reads*."""
        outcome, lock = Outcome(), threading.Lock()
        deadline = time.monotonic() + 60

        def client() -> None:
            while outcome.reads < reads or len(outcome.workers) < WORKERS:
                assert time.monotonic() < deadline, outcome
                said = self.ask()
                with lock:
                    outcome.add(said)

        with ThreadPoolExecutor(clients) as pool:
            for visit in [pool.submit(client) for _ in range(clients)]:
                visit.result()
        return outcome

    def wait_until_others_answer(self, workers: set[int]) -> None:
        """Return when none of *workers* can answer any more: the site was told to reload."""
        deadline, calm = time.monotonic() + 20, 0
        while calm < 10:
            assert time.monotonic() < deadline
            try:
                calm = calm + 1 if self.ask(1)["pid"] not in workers else 0
            except OSError:
                calm = 0
                time.sleep(0.05)


@contextmanager
def site(server: str, url: str, *, near: bool) -> Iterator[Site]:
    """Run the site under *server*, its cache at *url*."""
    with tempfile.TemporaryDirectory() as directory, socket.socket() as taken:
        Path(directory, "site_under_test.py").write_text(SITE)
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.close()
        command = [part.format(port=port, directory=directory) for part in SERVERS[server]]
        environment = {**os.environ, "SITE_URL": url, "SITE_NEAR": str(int(near)), "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)  # to reload, uWSGI runs Python without its environment
        log = Path(directory, "log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=directory,
                start_new_session=True,
            )  # fmt: skip
        running = Site(port, process, log)
        try:
            _wait_until_it_answers(running)
            yield running
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _wait_until_it_answers(running: Site) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            running.ask(1)
        except OSError:
            ended = running.process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise AssertionError(running.log.read_text(errors="replace")[-4000:]) from None
            time.sleep(0.05)
        else:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reads", type=int, default=10_000)
    parser.add_argument("--server", action="append", choices=SERVERS)
    options = parser.parse_args()
    failed = False
    with valkey_server() as single, cluster(replicas=0) as nodes:
        for server in options.server or SERVERS:
            for kind, url in {"one server": single.tcp_url(), "cluster": nodes.url()}.items():
                for near in (False, True):
                    began = time.monotonic()
                    try:
                        with site(server, url, near=near) as running:
                            seen = running.visit(options.reads)
                            log = running.log.read_text(errors="replace")
                    except Exception as error:
                        print(
                            f"{server:34} {kind:10} {'NEAR' if near else '':4} FAILED: {type(error).__name__}: {str(error)[-600:]}",
                            flush=True,
                        )
                        failed = True
                        continue
                    took = time.monotonic() - began
                    failed |= bool(seen.wrong) or (near and seen.live != seen.workers) or "Traceback" in log
                    print(
                        f"{server:34} {kind:10} {'NEAR' if near else '':4} {seen.wrong} wrong of {seen.reads} reads, "
                        f"{len(seen.workers)} workers, near live in {len(seen.live)}, {seen.hits} hits, longest fence "
                        f"{seen.fence * 1000:.0f} ms, {took:.1f} s {dict(seen.why) if near else ''}",
                        flush=True,
                    )
                    if "Traceback" in log:
                        print(log[-2000:])
    sys.exit(failed)


if __name__ == "__main__":
    main()
