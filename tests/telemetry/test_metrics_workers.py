"""Several processes behind one port: under real gunicorn a scrape shows all workers, whichever answers."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import defaultdict
from contextlib import contextmanager

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


@contextmanager
def gunicorn(folder, url, *options):
    """Run the site under gunicorn with three workers; yield a function that fetches a path of it."""
    (folder / "site_of_test.py").write_text(SITE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    run = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-w", "3", "-b", f"127.0.0.1:{port}", *options, "site_of_test:site"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "URL": url, "PREFIX": own_prefix() + str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
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
        yield fetch
    finally:
        run.send_signal(signal.SIGTERM)
        run.wait(20)


def reads(text):
    """Return the reads in a scrape, by worker; "" where there is no such label."""
    found = defaultdict(int)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "fleetcache_requests_total":
                found[sample.labels.get("worker", "")] += sample.value
    return found


@pytest.mark.timeout(90)
@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])
def test_whichever_worker_answers_a_scrape_shows_all(options, valkey, tmp_path):
    """The sum over workers is what the site has read; no later scrape shows less; a worker alone shows its own share."""
    with gunicorn(tmp_path, valkey.tcp_url(6), *options) as fetch:
        pids = [fetch("/read") for _ in range(READ)]
        until(lambda: sum(reads(fetch("/metrics")).values()) == READ, 20)

        scrapes = [reads(fetch("/metrics")) for _ in range(12)]
        single = [sum(reads(fetch("/single")).values()) for _ in range(12)]

    assert all(sum(scrape.values()) == READ for scrape in scrapes)
    shown = {re.sub(r".*:", "", worker): count for worker, count in scrapes[0].items() if count}
    assert shown == {pid: pids.count(pid) for pid in set(pids)}
    if len(set(pids)) > 1:
        assert max(single) < READ
