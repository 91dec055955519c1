"""A site of several gunicorn workers makes a page once, and renews it when a response was sent."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(importlib.util.find_spec("gunicorn") is None, reason="gunicorn is not installed"),
]

SITE = """
import os, time
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="not secret", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    INSTALLED_APPS=["fleetcache.django"],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    CACHES={"default": {
        "BACKEND": "fleetcache.django.RedisCache", "LOCATION": os.environ["SITE_URL"], "KEY_PREFIX": "django-fleet",
    }},
)
django.setup()

from django.core.cache import cache
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.template import engines
from django.urls import path
from fleetcache.django import cache_page

MADE = os.environ["SITE_MADE"]

def made(what):
    with open(MADE, "a") as file:
        file.write(f"{what}\\n")
    time.sleep(0.4)
    return f"{what} by {os.getpid()} at {time.monotonic()}"

@cache_page(600, tags=["pages"])
def page(request):
    return HttpResponse(made("page"))

@cache_page(600, tags=["pages"])
def varied(request):
    return HttpResponse(made("varied"), headers={"Vary": "Accept"})

@cache_page(600, tags=lambda request: ["pages"])
def tagged(request):
    return HttpResponse(made("tagged"))

@cache_page(600, tags=["pages"])
def private(request):
    return HttpResponse(made("private"), headers={"Cache-Control": "private"})

def fragment(request):
    text = '{% load fleetcache %}{% cached 600 "part" tags="pages" %}{{ made }}{% endcached %}'
    return HttpResponse(engines["django"].from_string(text).render({"made": lambda: made("fragment")}))

@cache_page(0.2, stale_while_revalidate=600, renew="response", headers=True)
def renewed(request):
    return HttpResponse(made("renewed"))

def invalidate(request):
    return HttpResponse(str(cache.invalidate_tags("pages")))

urlpatterns = [
    path("page", page), path("varied", varied), path("tagged", tagged), path("private", private), path("fragment", fragment),
    path("renewed", renewed), path("invalidate", invalidate),
    path("up", lambda request: HttpResponse("up")),
]
application = get_wsgi_application()
"""

KEPT = ("page", "varied", "tagged", "fragment")
"""The paths whose pages are kept."""

Ask = Callable[[str], str]


@contextmanager
def site(url: str, directory: Path) -> Iterator[Ask]:
    """Run the site with three workers of two threads each."""
    (directory / "site_under_test.py").write_text(SITE)
    (directory / "made").write_text("")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        port = listening.getsockname()[1]
        command = [
            *(sys.executable, "-m", "gunicorn", f"--bind=fd://{listening.fileno()}", "--workers=3", "--threads=2"),
            *(f"--pythonpath={directory}", "--no-control-socket", "site_under_test:application"),
        ]
        environment = {
            **os.environ,
            "SITE_URL": url,
            "SITE_MADE": str(directory / "made"),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=directory, pass_fds=[listening.fileno()],
                start_new_session=True,
            )  # fmt: skip

    def ask(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=20) as reply:
            content: bytes = reply.read()
            return content.decode() + str(reply.headers.get("Cache-Status", ""))

    try:
        until_it_answers(ask, process, directory / "log")
        yield ask
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until_it_answers(ask: Ask, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            ask("up")
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(log.read_text(errors="replace")[-4000:]) from None
            time.sleep(0.05)
        else:
            return


def test_workers_make_pages_and_fragments_once(valkey, tmp_path):
    """However many ask at once, in each process; and again after an invalidation."""
    with site(valkey.tcp_url(12), tmp_path) as ask, ThreadPoolExecutor(12) as pool:
        for path in KEPT:
            first = list(pool.map(ask, [path] * 12))
            assert len(set(first)) == 1, (tmp_path / "log").read_text()
            ask("invalidate")
            second = list(pool.map(ask, [path] * 12))
            assert len({*first, *second}) == 2

    assert (tmp_path / "made").read_text().split() == [path for path in KEPT for _ in range(2)]


def test_nobody_waits_for_what_is_not_kept(valkey, tmp_path):
    """Visitors who wait while a private page is made have their own made side by side, and not one after another."""
    with site(valkey.tcp_url(12), tmp_path) as ask, ThreadPoolExecutor(6) as pool:
        began = time.monotonic()
        contents = list(pool.map(ask, ["private"] * 6))
        took = time.monotonic() - began

    assert len(set(contents)) == 6
    assert took < 2, "each takes 0.4 s"


def test_a_page_is_renewed_after_the_response(valkey, tmp_path):
    """Nobody waits for it: the visitor who finds it stale gets it at once, and later ones get the new one."""
    with site(valkey.tcp_url(12), tmp_path) as ask:
        first = ask("renewed")
        time.sleep(0.3)
        began = time.monotonic()
        stale = ask("renewed")
        took = time.monotonic() - began
        deadline = time.monotonic() + 10
        while (now := ask("renewed").partition("fleetcache")[0]) == stale.partition("fleetcache")[0]:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.01)

    assert "hit; ttl=" in stale
    assert stale.startswith(first.partition("fleetcache")[0])
    assert took < 0.35
    assert now.startswith("renewed by")
