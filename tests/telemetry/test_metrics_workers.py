"""Several processes behind one port: under real gunicorn and uWSGI a scrape shows all workers, whichever answers."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import defaultdict
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.caches import own_prefix
from tests.waiting import until

SITE = """
import os
from fleetcache import Cache
from fleetcache.telemetry.prometheus import install
from prometheus_client import CollectorRegistry, generate_latest

settings = {"KEY_PREFIX": os.environ["PREFIX"], "OPTIONS": {"STATS": {"PUBLISH": 0.2}}}
cache = Cache(os.environ["URL"], settings, alias="shop")
fleet, single = CollectorRegistry(auto_describe=True), CollectorRegistry(auto_describe=True)
install(fleet, fleet=cache)
install(single)
if os.environ["USED"]:
    cache.get("users:1")


def site(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/read":
        cache.get("users:1")
        body = str(os.getpid()).encode()
    else:
        body = generate_latest(fleet if path == "/metrics" else single)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
"""

READ = 60


GUNICORN = [
    sys.executable,
    "-m",
    "gunicorn",
    "-w",
    "3",
    "-b",
    "127.0.0.1:{port}",
    "--no-control-socket",
    "site_of_test:site",
]
UWSGI = [
    str(Path(sys.executable).with_name("uwsgi")),
    *(
        "--master",
        "--die-on-term",
        "--processes=3",
        "--need-app",
        "--http-socket=127.0.0.1:{port}",
        "--disable-logging",
    ),
    *("--module=site_of_test:site", "--pythonpath={folder}"),
]
SERVERS = {
    "gunicorn": GUNICORN,
    "gunicorn --preload": [*GUNICORN, "--preload"],
    "uwsgi --enable-threads": [*UWSGI, "--enable-threads"],
    "uwsgi": UWSGI,
}


@contextmanager
def serving(server, folder, url):
    """Run the site under *server* with three workers; yield a function that fetches a path of it, and its log."""
    if importlib.util.find_spec("pyuwsgi" if server.startswith("uwsgi") else "gunicorn") is None:
        pytest.skip(f"{server.split()[0]} is not installed")
    (folder / "site_of_test.py").write_text(SITE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    used = "1" if server.startswith("uwsgi") else ""  # uWSGI's loading process publishes nothing, others may
    log = folder / "log"
    with log.open("wb") as output:
        run = subprocess.Popen(
            [part.format(port=port, folder=folder) for part in SERVERS[server]],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path, "URL": url, "PREFIX": own_prefix() + str(port), "USED": used},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def fetch(path):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.read().decode()

    def answers():
        try:
            return fetch("/single")
        except OSError:
            return None

    try:
        until(answers, 20)
        yield fetch, log
    finally:
        run.terminate()
        with suppress(subprocess.TimeoutExpired):
            run.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


def reads(text):
    """Return the reads in a scrape, by worker; "" where there is no such label."""
    found = defaultdict(int)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "fleetcache_requests_total":
                found[sample.labels.get("worker", "")] += sample.value
    return found


@pytest.mark.timeout(90)
@pytest.mark.parametrize("server", [server for server in SERVERS if server != "uwsgi"])
def test_whichever_worker_answers_a_scrape_shows_all(server, valkey, tmp_path):
    """The sum over workers is what the site has read; no later scrape shows less; a worker alone shows its own share."""
    with serving(server, tmp_path, valkey.tcp_url(6)) as (fetch, _):
        pids = [fetch("/read") for _ in range(READ)]
        until(lambda: sum(reads(fetch("/metrics")).values()) == READ, 20)

        scrapes = [reads(fetch("/metrics")) for _ in range(12)]
        single = [sum(reads(fetch("/single")).values()) for _ in range(12)]

    assert all(sum(scrape.values()) == READ for scrape in scrapes)
    shown = {re.sub(r".*:", "", worker): count for worker, count in scrapes[0].items() if count}
    assert shown == {pid: pids.count(pid) for pid in set(pids)}
    if len(set(pids)) > 1:
        assert max(single) < READ


@pytest.mark.timeout(60)
def test_uwsgi_without_threads_answers_and_says_why_no_worker_is_shown(valkey, tmp_path):
    """A thread there would run only during requests: none begins, and one line of the log says what is missing."""
    with serving("uwsgi", tmp_path, valkey.tcp_url(6)) as (fetch, log):
        for _ in range(30):
            fetch("/read")
        shown = reads(fetch("/metrics"))
        single = sum(reads(fetch("/single")).values())

    said = [
        line for line in log.read_text(errors="replace").splitlines() if "enable-threads" in line and "figures" in line
    ]
    assert len(said) == 1
    assert shown == {}
    assert single > 0
