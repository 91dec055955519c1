"""What tests of a site need: embedded:// under test runners and reloads, and a memory:// that forgets and follows frozen clocks."""

# ruff: noqa: E402 - Django is configured before it is imported

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path
from unittest import mock
from urllib.request import urlopen

import pytest
from freezegun import freeze_time
from tests.django_settings import configure
from tests.faces import Face

configure()

from fleetcache import Cache
from fleetcache.errors import ServerNotStarted, SettingsError
from fleetcache.servers.embedded import SharedServer, check_ours
from fleetcache.testing import empty_memory
from fleetcache.testing.servers import free_ports

SITE = {
    "settings.py": """
        import os
        SECRET_KEY = "not secret"
        DEBUG = os.environ.get("DEBUG") == "1"
        ROOT_URLCONF = "urls"
        ALLOWED_HOSTS = ["*"]
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.db"}}
        CACHES = {"default": {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": "embedded://"}}
        INSTALLED_APPS = os.environ["APPS"].split()
    """,
    "urls.py": """
        from django.core.cache import cache
        from django.http import HttpResponse
        from django.urls import path
        def view(request):
            return HttpResponse(f"{cache.incr('hits', default=0)} {cache.get_client().info('server')['process_id']}")
        urlpatterns = [path("", view)]
    """,
    "manage.py": """
        import os, sys
        from django.core.management import execute_from_command_line
        os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
        execute_from_command_line(sys.argv)
    """,
    "tests/__init__.py": "",
    "tests/test_one.py": """
        from django.core.cache import cache
        from django.test import SimpleTestCase
        class One(SimpleTestCase):
            def test_one(self):
                cache.set("a", 1)
                assert cache.get("a") == 1
    """,
    "tests/test_two.py": """
        from django.core.cache import cache
        from django.test import SimpleTestCase
        class Two(SimpleTestCase):
            def test_two(self):
                cache.set("b", 2)
                assert cache.get("b") == 2
    """,
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A Django site on ``embedded://``."""
    for name, text in SITE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    return tmp_path


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a site's process."""
    return {**os.environ, "DEBUG": "1", "APPS": "fleetcache.django", **variables}


def gone(site: Path, within: float = 10) -> bool:
    """Whether the site's server ends soon."""
    pid = (
        int((site / ".fleetcache" / "server.pid").read_text() or 0)
        if (site / ".fleetcache" / "server.pid").exists()
        else 0
    )
    until = time.monotonic() + within
    while pid and time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return not pid


@pytest.mark.newest
@pytest.mark.parametrize("apps", ["fleetcache.django", "django.contrib.contenttypes"], ids=["app", "no app"])
@pytest.mark.parametrize("arguments", [[], ["--parallel", "2"]], ids=" ".join)
def test_djangos_test_runner(site, apps, arguments):
    """It sets DEBUG to False before anything runs, and that is no production."""
    command = [sys.executable, "manage.py", "test", *arguments]

    done = subprocess.run(command, cwd=site, env=environment(APPS=apps), capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert "Ran 2 tests" in done.stderr
    assert gone(site)


@pytest.mark.newest
def test_production(site):
    """Where DEBUG is False and no tests run it is refused, by the system check."""
    command = [sys.executable, "manage.py", "check"]

    done = subprocess.run(command, cwd=site, env=environment(DEBUG="0"), capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert "embedded:// is for development" in done.stderr
    assert "CACHES['default']" in done.stderr


@pytest.mark.newest
def test_an_autoreload(site):
    """The next process of the autoreloader has a server, and none is left when the site has ended."""
    (port,) = free_ports(1)

    def ask() -> list[int]:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/", timeout=10) as reply:
                return [int(number) for number in reply.read().split()]
            time.sleep(0.05)
        raise AssertionError("the site does not answer")

    command = [sys.executable, "manage.py", "runserver", "--skip-checks", str(port)]
    with subprocess.Popen(
        command,
        cwd=site,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            before = ask()
            (site / "urls.py").write_text((site / "urls.py").read_text().replace("hits", "visits"))
            until = time.monotonic() + 30
            while (after := ask())[0] != 1 and time.monotonic() < until:
                time.sleep(0.05)
            assert before[0] == after[0] == 1  # another counter: the site was loaded anew
        finally:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # or `with` would wait for ever
                raise

    assert gone(site)


# --- .fleetcache --------------------------------------------------------------------------------------


def test_a_directory_that_others_may_write_to(tmp_path):
    """A user that puts a link there must not make us write to its target."""
    directory = tmp_path / ".fleetcache"
    directory.mkdir()
    directory.chmod(0o777)

    with pytest.raises(ServerNotStarted, match=r"may be written to by other users \(mode 777\)"):
        SharedServer(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else(tmp_path):
    """Nor is one used that belongs to another user."""
    os.chown(tmp_path, 12345, -1)

    with pytest.raises(ServerNotStarted, match=r"belongs to another user \(12345\)"):
        check_ours(tmp_path)


@pytest.mark.parametrize("name", ["server.log", "lock"])
def test_a_link_in_the_directory(tmp_path, name):
    """What a link leads to is not written to."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    directory = tmp_path / "of the server"
    directory.mkdir(mode=0o700)
    (directory / name).symlink_to(victim)

    with pytest.raises(ServerNotStarted, match="name a server in LOCATION"):
        SharedServer(directory)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("url", ["embedded://", "embedded:///proc/nowhere/data.rdb"])
def test_a_place_that_cannot_be_written_to(monkeypatch, tmp_path, url):
    """The error names the place, and what to do."""
    if url == "embedded://":
        (tmp_path / ".fleetcache").write_text("a file")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ServerNotStarted, match="embedded:// needs a directory that it may write to"):
        Cache(url).get("a")


def test_an_ignored_directory(monkeypatch, tmp_path):
    """git sees nothing of it, and a .gitignore that is there stays as it is."""
    monkeypatch.chdir(tmp_path)
    Cache("embedded://?db=3").set("a", 1)
    assert (tmp_path / ".fleetcache" / ".gitignore").read_text() == "*\n"
    with pytest.raises(SettingsError, match=r"\?db=1"):
        Cache("embedded://?db=three")


# --- memory:// ----------------------------------------------------------------------------------------


async def test_a_clock_that_freezegun_froze(face):
    """Entries live by the clock of the test."""
    cache = Face(Cache("memory://frozen"), face)
    with freeze_time("2030-01-01") as clock:
        await cache.set("a", 1, 60)
        clock.tick(59)
        assert await cache.get("a") == 1
        assert await cache.ttl("a") == 1
        clock.tick(2)
        assert await cache.get("a") is None


async def test_a_clock_that_is_mocked(face):
    """So they do by a ``time.time`` that was replaced."""
    cache = Face(Cache("memory://frozen"), face)
    now = time.time()
    with mock.patch("time.time", return_value=now):
        await cache.set("b", 1, 60)
    with mock.patch("time.time", return_value=now + 61):
        assert await cache.get("b") is None
    with mock.patch("time.time", lambda: now + 30):
        assert await cache.set("b", 1, 1) is True


async def test_memory_is_emptied(face):
    """Every server of the process, whatever it holds, and for every cache of it."""
    caches = [Face(Cache(f"memory://{name}", {"KEY_PREFIX": "p"}), face) for name in ("one", "two", "one/3")]
    for cache in caches:
        await cache.set("a", 1)
        await cache.sadd("b", 2)

    empty_memory()

    for cache in caches:
        assert await cache.get("a") is None
        assert await cache.smembers("b") == set()
        assert await cache.set("a", 2) is True
