"""A site under real uWSGI and gunicorn, its cache used while it loads, serves every request its own data.

A few seconds of it; with ``FLEETCACHE_PREFORK=1`` every server, 10,000 reads each, as ``python -m tests.prefork`` does.
"""

from __future__ import annotations

import importlib.util
import os
import signal

import pytest
from tests.prefork import SERVERS, site

FEW = [
    ("uwsgi", "valkey", True),
    ("uwsgi --enable-threads", "valkey_cluster", True),
    ("gunicorn --preload", "valkey", True),
]
ALL = [(server, place, near) for server in SERVERS for place in ("valkey", "valkey_cluster") for near in (False, True)]
WHOLE = os.environ.get("FLEETCACHE_PREFORK") == "1"

pytestmark = [pytest.mark.timeout(120), pytest.mark.few(2)]


@pytest.mark.few(2)
@pytest.mark.parametrize(("server", "place", "near"), ALL if WHOLE else FEW)
def test_every_request_has_its_own_data(server, place, near, request):
    """No read brings another process's value, the near cache is live in every worker, and a fence does not hang."""
    if importlib.util.find_spec("pyuwsgi" if server.startswith("uwsgi") else "gunicorn") is None:
        pytest.skip(f"{server.split()[0]} is not installed")
    running = request.getfixturevalue(place)
    url = running.url() if place == "valkey_cluster" else running.tcp_url(7)

    with site(server, url, near=near) as visited:
        seen = visited.visit(10_000 if WHOLE else 600)
        if server == "uwsgi" and near:
            visited.process.send_signal(signal.SIGHUP)
            visited.wait_until_others_answer(seen.workers)
            again = visited.visit(200)
            assert again.wrong == 0
            assert again.live == again.workers
        log = visited.log.read_text(errors="replace")

    assert seen.wrong == 0
    assert seen.live == (seen.workers if near else set())
    assert seen.fence < 2
    assert not [line for line in log.splitlines() if "Traceback" in line or "Segmentation" in line or "DAMN" in line]
