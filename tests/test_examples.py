"""Each program in examples/ does what its text says, on a real server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fleetcache import Cache

pytestmark = pytest.mark.newest

HOME = Path(__file__).resolve().parent.parent
EXAMPLES = HOME / "examples"
DATABASE = 11

SAID = {
    "expensive_function": "20 callers, 1 call, all got {'shop': 7, 'sold': 42}\nafter the invalidation: 2 calls\n",
    "tenants": "acme: None None\nglobex: ['home', 'orders'] {'apple': 3}\n",
    "rate_limit": "[True, True, True, True, True, False, False]\n",
    "warm_up": "1000 profiles, 2 queries\n",
    "script": "4950 {'name': 'Ada'}\n",
    "fastapi_app": "50 answers {'number': 7, 'price': 3}, 1 query\n",
    "django_page": "4 pages Dracula, made 2 times\n",
}
"""What each program prints."""

LONGEST = 45
"""Lines."""


@pytest.fixture
def url(valkey):
    found = valkey.tcp_url(DATABASE)
    Cache(found).clear()
    return found


def ran(url: str, *command: str) -> str:
    """Return what a Python with these arguments prints."""
    variables = {"FLEETCACHE_URL": url, "PYTHONPATH": f"{HOME}/src:{HOME}", "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(
        [sys.executable, "-W", "error", *command], cwd=HOME, env=variables, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.parametrize("name", SAID)
def test_a_program_says_what_it_should(name, url):
    """The numbers are those of one load, whatever the machine is doing."""
    assert ran(url, f"examples/{name}.py") == SAID[name]


def test_every_example_is_tested_and_short():
    """And each says in its first lines how it is started."""
    here = {path.stem: path.read_text() for path in EXAMPLES.glob("*.py")}

    assert here.keys() == SAID.keys() | {"celery_tasks", "drf_throttle", "faults_in_tests"}
    assert {name: text.count("\n") for name, text in here.items() if text.count("\n") > LONGEST} == {}
    assert all(name in text.partition('"""\n\n')[0] for name, text in here.items())


def test_faults_in_tests():
    """It is a test itself."""
    assert "1 passed" in ran("memory://", "-m", "pytest", "-q", "-p", "no:cacheprovider", "examples/faults_in_tests.py")


def test_celery_tasks(url):
    """A real worker renews what this process reads."""
    program = """
from celery.contrib.testing.worker import start_worker
from examples.celery_tasks import app, ranking, renew_ranking

with start_worker(app, perform_ping_check=False, pool="solo"):
    renew_ranking.delay(7).get(timeout=20)
"""
    ran(url, "-W", "default", "-c", program)  # in a process of its own: Celery takes over its logging

    found = Cache(url).lookup("ranking:7")
    assert found.value == ["product 7-0", "product 7-1", "product 7-2"]


def test_drf_throttle(url):
    """Five requests pass, the sixth does not, and none while the server is away."""
    program = """
import django, sys
from django.conf import settings
url = sys.argv[1]
settings.configure(CACHES={
    "default": {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": url, "OPTIONS": {"IGNORE_EXCEPTIONS": True}}})
django.setup()
from django.test import RequestFactory
from rest_framework.request import Request
from examples.drf_throttle import StrictThrottle
request = Request(RequestFactory().get("/"))
print([StrictThrottle().allow_request(request, None) for _ in range(6)])
"""
    assert ran(url, "-c", program, url) == "[True, True, True, True, True, False]\n"
    assert ran(url, "-c", program, "redis://127.0.0.1:1/0") == f"{[False] * 6}\n"
