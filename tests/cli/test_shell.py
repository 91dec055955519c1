"""The command line as a shell sees it: exit codes, pipes, signals, terminals; which cache is meant."""

from __future__ import annotations

import argparse
import json
import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.cli.conftest import SECRET, environment, unused_port
from tests.waiting import until

from fleetcache import Cache, cli
from fleetcache.cli import COMMANDS
from fleetcache.cli.places import opened
from fleetcache.cli.showing import count, duration, share, size, table, visible
from fleetcache.errors import ServerGone
from fleetcache.testing import FaultProxy

FLEETCACHE = [sys.executable, "-W", "error", "-m", "fleetcache"]

DJANGO = """
SECRET_KEY = "not secret"
INSTALLED_APPS = ["fleetcache.django"]
CACHES = {
    "default": {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": "%(url)s", "KEY_PREFIX": "%(prefix)s",
                "KEY_FUNCTION": "%(name)s_keys.upper", "REVERSE_KEY_FUNCTION": "%(name)s_keys.lower",
                "OPTIONS": {"NEAR": True, "IGNORE_EXCEPTIONS": True, "CLIENT_CLASS": "HerdClient"}},
    "second": {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": "%(url)s", "KEY_PREFIX": "%(prefix)s-2"},
    "other": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "memory": {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": "memory://"},
}
"""
KEYS = """
def upper(key, prefix, version): return f"{prefix}/{version}/{key.upper()}"
def lower(name): return name.split("/", 2)[2].lower()
"""
MANAGE = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "%(name)s"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""


@pytest.fixture
def project(site, module, tmp_path):
    """A Django project in the directory in which commands run."""
    url, prefix = site.server.tcp_url(12), site.cache.key_prefix
    names = {"url": url, "prefix": prefix, "name": "project_settings"}
    module("project_settings", DJANGO % names)
    module("project_settings_keys", KEYS)
    module("manage", MANAGE % names)
    module("plain_settings", f"CACHES = {{'default': {{'LOCATION': {url!r}, 'KEY_PREFIX': {prefix!r}}}}}")
    module("leaving_settings", "raise SystemExit(0)")
    module("needing_settings", "import nonsense")
    module("single", f"CACHES = {site.url!r}")
    return tmp_path


def managed(project, *arguments, **kwargs):
    command = [sys.executable, "-W", "error", "manage.py", "fleetcache", *arguments]
    kwargs = {"capture_output": True, "text": True, "timeout": 60, "check": False, **kwargs}
    return subprocess.run(command, cwd=project, env=environment(), **kwargs)


# --- which cache ----------------------------------------------------------------------------------


def test_by_settings(shell, project, site):
    """A module with CACHES, without Django or of a Django project; its own names are used."""
    site.cache.set("a", 1, 300)
    Cache(site.server.tcp_url(12), {"KEY_PREFIX": f"{site.cache.key_prefix}-2"}).set("b", 1, 300)
    from project_settings_keys import upper

    Cache(site.server.tcp_url(12), {"KEY_PREFIX": site.cache.key_prefix, "KEY_FUNCTION": upper}).set("c", 1, 300)

    for words, env, key in (
        (["--settings", "plain_settings"], {}, "a"),
        (["--settings", "single"], {}, "a"),
        ([], {"DJANGO_SETTINGS_MODULE": "plain_settings"}, "a"),
        (["--settings", "project_settings"], {}, "c"),
        (["--settings", "project_settings", "--alias", "second"], {"FLEETCACHE_URL": "redis://nowhere"}, "b"),
        ([], {"FLEETCACHE_URL": site.url, "DJANGO_SETTINGS_MODULE": "nonsense"}, "a"),
        (["--alias", "other"], {"FLEETCACHE_URL": "redis://nowhere", "FLEETCACHE_URL_OTHER": site.url}, "a"),
    ):
        ran = shell("ttl", key, "--json", *words, env=env)
        assert (ran.returncode, ran.stderr) == (0, ""), (words, ran.stdout)
        assert json.loads(ran.stdout)["there"] is True


@pytest.mark.parametrize(
    "words, fault",
    [
        ([], "give the URL of a server or --settings MODULE, or set FLEETCACHE_URL or DJANGO_SETTINGS_MODULE"),
        (
            ["--alias", "other"],
            "give the URL of a server or --settings MODULE, or set FLEETCACHE_URL_OTHER or DJANGO_SETTINGS_MODULE",
        ),
        (
            ["--settings", "nonsense"],
            "nonsense cannot be imported: ModuleNotFoundError: No module named 'nonsense'. "
            "Run the command in the directory of manage.py, or set PYTHONPATH\n",
        ),
        (["--settings", "nonsense.settings"], "'nonsense'. Run the command in the directory of manage.py"),
        (["--settings", "needing_settings"], "ModuleNotFoundError: No module named 'nonsense'\n"),
        (["--settings", "leaving_settings"], "leaving_settings cannot be imported: SystemExit: 0"),
        (["--settings", "json"], "json has no CACHES"),
        (
            ["--settings", "plain_settings", "--alias", "other"],
            "plain_settings has no cache 'other'. Its CACHES are 'default'",
        ),
        (["--settings", "project_settings", "--alias", "x"], "There is no cache 'x'. CACHES has 'default', 'second'"),
        (
            ["--settings", "project_settings", "--alias", "other"],
            "is django.core.cache.backends.locmem.LocMemCache, not fleetcache",
        ),
        (
            ["--settings", "project_settings", "--alias", "memory"],
            "it is a dict of one process, and no other process sees it",
        ),
        (
            ["--settings", "plain_settings", "--url", "redis://host"],
            "give either a URL or --alias and --settings, not both",
        ),
        (["--url", "memory://"], "there is no server to ask"),
        (["--url", f"redsi://:{SECRET}@host"], "Did you mean 'redis'?"),
    ],
)
def test_no_cache(shell, say, project, words, fault):
    """Each says which cache could not be found, in one line, and shows no password."""
    ran = shell("ttl", "a", *words) if "project_settings" in words else say("ttl", "a", *words)

    code, out, err = (ran.returncode, ran.stdout, ran.stderr) if "project_settings" in words else ran
    assert (code, out) == (2, "")
    assert fault in err
    assert err.count("\n") == 1
    assert SECRET not in err


def test_the_cache_of_a_tool():
    """IGNORE_EXCEPTIONS would make a missing server look like an empty cache; a tool is no worker, and keeps no copies."""
    url = "redis://127.0.0.1:1?ignore_exceptions=yes&near=1&version=3"
    cache = opened(argparse.Namespace(url=url), for_tools=True)

    assert (cache.near, cache.tally, cache.version) == (None, None, 3)
    with pytest.raises(ServerGone):
        cache.get("a")
    configured = opened(argparse.Namespace(url=url), for_tools=False)
    assert configured.near is not None
    assert configured.get("a") is None


# --- manage.py ------------------------------------------------------------------------------------


def test_manage(project, site):
    """The same commands, about the project's caches; FLEETCACHE_URL is not needed."""
    from project_settings_keys import upper

    Cache(site.server.tcp_url(12), {"KEY_PREFIX": site.cache.key_prefix, "KEY_FUNCTION": upper}).set("c", 1, 300)

    ran = managed(project, "keys", "--show-keys")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "c\n", "")
    assert managed(project, "ttl", "nothing").returncode == 1
    assert managed(project, "ttl", "c", "--alias", "second", "--json").returncode == 1
    examined = managed(project, "doctor", "--no-probe", "--alias", "second", "--json")
    assert (examined.returncode, examined.stderr) in {(0, ""), (1, "")}
    assert "second" in json.dumps(json.loads(examined.stdout))
    assert managed(project, "--version").stdout == f"{cli.own_version()}\n"


@pytest.mark.few(2)
@pytest.mark.parametrize(
    "words, fault",
    [
        (["ttl", "c", "--alias", "other"], "is django.core.cache.backends.locmem.LocMemCache"),
        (["ttl", "c", "--alias", "memory"], "no other process sees it"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["ttl"], "the following arguments are required: KEY"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_manage_used_wrongly(project, words, fault):
    """One line and the exit code 2, as from ``fleetcache``; in JSON if that was asked for."""
    ran, found = managed(project, *words), managed(project, *words, "--json")

    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert fault in ran.stderr
    assert found.returncode == 2
    if words:
        assert fault in json.loads(found.stdout)["error"]


def test_call_command(valkey):
    """Code may call it; what it writes goes where the caller says, and memory:// can be looked at from within."""
    program = """
import io, django
from django.conf import settings
entry = {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": "memory://x"}
settings.configure(CACHES={"default": entry}, INSTALLED_APPS=["fleetcache.django"])
django.setup()
from django.core.cache import cache
from django.core.management import call_command
cache.set("a", 1, 300)
out = io.StringIO()
call_command("fleetcache", "keys", "--show-keys", stdout=out)
assert out.getvalue() == "a\\n", out.getvalue()
try:
    call_command("fleetcache", "ttl", "nothing", stdout=out)
except SystemExit as error:
    assert error.code == 1
else:
    raise AssertionError
"""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=environment(), capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


# --- pipes and signals ----------------------------------------------------------------------------


def test_a_closed_pipe(site):
    """``| head`` ends it without an error, also while much is still to be written."""
    site.cache.set_many({f"key:{n}": n for n in range(20_000)}, 300)
    command = " ".join([*FLEETCACHE, *site.run("keys", "--show-keys")]).replace("?", "\\?")

    ran = subprocess.run(
        ["bash", "-c", f"{command} | head -2; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(),
    )

    assert ran.stderr == ""
    assert len(ran.stdout.splitlines()) == 3
    assert ran.stdout.endswith("\n0\n")


def test_nobody_reads_at_all(site):
    """A pipe that was closed before the first line, and one with JSON, end it as well."""
    site.cache.set("a", 1, 300)
    for words in (["keys"], ["keys", "--json"], ["ttl", "a"], ["get", "a", "--raw"]):
        with subprocess.Popen(
            [*FLEETCACHE, *site.run(*words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        ) as process:
            process.stdout.close()
            assert process.stderr.read() == ""
            assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("words", "closed", "code"),
    [
        (["keys"], ">&-", 0),
        (["get", "a", "--raw"], ">&-", 0),
        (["ttl", "no"], ">&- 2>&-", 1),
        (["doctor"], ">&-", 1),
        (["no"], "2>&-", 2),
    ],
)
def test_streams_that_were_closed_before(site, words, closed, code):
    """As daemons have them: the exit code is the answer."""
    site.cache.set("a", 1, 300)
    command = " ".join([*FLEETCACHE, *site.run(*words)]).replace("?", "\\?")

    ran = subprocess.run(
        ["bash", "-c", f"{command} {closed}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(),
    )

    assert (ran.returncode, ran.stderr) == (code, "")


@pytest.mark.parametrize("command", ["get", "ttl", "delete"])
def test_a_key_that_is_no_text(say, site, command):
    """Python reads such an argument with surrogates; the message says how such an entry is named."""
    said = say(*site.run(command, "a\udcff"))

    assert said.code == 2
    assert said.err.startswith("fleetcache: a\\xff: a key is text in UTF-8") and "--name" in said.err


@pytest.mark.alone
def test_interrupted(valkey, tmp_path):
    """Ctrl-C ends a command that waits for a server, without a traceback, with the exit code that shells give it."""
    with FaultProxy(("127.0.0.1", valkey.port)) as proxy:
        proxy.hold()
        with subprocess.Popen(
            [sys.executable, "-m", "fleetcache", "ttl", "a", "--url", f"{proxy.url()}?socket_timeout=30"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        ) as process:
            until(lambda: proxy.accepted, 30)
            time.sleep(0.2)  # until it waits
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)

    assert (process.returncode, out, err) == (130, "", "")


# --- terminals ------------------------------------------------------------------------------------


def on_terminal(*words: str, env: dict[str, str] | None = None) -> str:
    """Return what a command writes to a terminal."""
    own, its = pty.openpty()
    process = subprocess.Popen([*FLEETCACHE, *words], stdin=its, stdout=its, stderr=its, env=environment(**(env or {})))
    os.close(its)
    written = b""
    with suppress(OSError):  # the terminal has gone
        while portion := os.read(own, 65536):
            written += portion
    os.close(own)
    process.wait(30)
    return written.decode()


def test_progress(site, tmp_path):
    """What lasts shows a bar on a terminal, and removes it; elsewhere there is none."""
    (tmp_path / "sleepy.py").write_text("import time\ndef nap(number): time.sleep(0.4)\n")
    (tmp_path / "numbers").write_text("1\n2\n3\n4\n5\n")
    env = {"PYTHONPATH": os.pathsep.join((str(tmp_path), environment()["PYTHONPATH"]))}
    words = site.run("warm", "sleepy:nap", "--arguments", str(tmp_path / "numbers"), "--concurrency", "1")

    written = on_terminal(*words, env=env)

    assert "warming [" in written
    assert "of 5" in written
    assert written.splitlines()[-1].rpartition("\x1b[K")[2].startswith("5 called")
    ran = subprocess.run([*FLEETCACHE, *words], env=environment(**env), capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


# --- the parser -----------------------------------------------------------------------------------


def test_version(capsys):
    """``--version`` says the version of the package."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])

    assert caught.value.code == 0
    assert capsys.readouterr().out == f"fleetcache {cli.own_version()}\n"


def test_help_names_every_command(capsys):
    """The help lists the commands."""
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    out = capsys.readouterr().out

    for command in COMMANDS:
        assert f"    {command} " in out


def test_wrong_command_in_json(say):
    """An error of the parser is JSON too, if that was asked for."""
    said = say("keys", "--nonsense", "--json")

    assert said.code == 2
    assert said.document["kind"] == "WrongUse"
    assert "--nonsense" in said.document["error"]


def test_starts_quickly():
    """Commands import neither Django nor optional libraries."""
    program = "import sys; from fleetcache import cli; cli.parser(); print(*sorted({'django', 'asyncio.tasks', 'sentry_sdk'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True)

    assert "django" not in ran.stdout
    assert "sentry" not in ran.stdout


# --- figures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function, given, text",
    [
        (count, (1234567,), "1,234,567"),
        (count, (None,), "-"),
        (share, (1, 3), "33.3 %"),
        (share, (0, 0), "-"),
        (size, (999,), "999 B"),
        (size, (1500,), "1.5 kB"),
        (size, (123456789,), "123 MB"),
        (size, (None,), "-"),
        (duration, (0,), "0"),
        (duration, (0.0000123,), "12.3 µs"),
        (duration, (0.0123,), "12.3 ms"),
        (duration, (12.3,), "12.3 s"),
        (duration, (600,), "10 min"),
        (duration, (161,), "2 min 41 s"),
        (duration, (7384.6,), "2 h 3 min"),
        (duration, (86400,), "1 d"),
        (duration, (93600,), "1 d 2 h"),
        (duration, (8640000,), "100 d"),
        (duration, (None,), "-"),
        (visible, ("a\x1b[2J\u202eb\n",), "a\\x1b[2J\\u202eb\\n"),
    ],
)
def test_figures(function, given, text):
    """Figures are short, and have their unit; text commands no terminal."""
    assert function(*given) == text


def test_table():
    """Text is aligned to the left, figures to the right, whatever colours they have."""
    assert table(("name", "n"), [("a", "1"), ("\x1b[1mbcdef\x1b[0m", "100")]) == (
        "name     n\na        1\n\x1b[1mbcdef\x1b[0m  100"
    )
    assert table(("", ""), [], left=2) == ""


# --- what is no URL -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, said",
    [
        ("notaurl", "no URL was given, but a word of 7 characters without ://. Give redis://HOST:6379/0, or --alias"),
        (SECRET, "no URL was given, but a word of 6 characters"),
        (f"{SECRET} word", "no URL was given, but a text of 11 characters"),
        (f"user:{SECRET}@host", "'***@host' is no URL: redis:// is missing before it"),
        (f"user:{SECRET}", "no URL was given, but a text of 11 characters"),
        ("localhost:6379", "'localhost:6379' is no URL. Give redis://localhost:6379"),
        ("/run/valkey.sock", "'/run/valkey.sock' is no URL. Give unix:///run/valkey.sock"),
        ("pages", "'pages' is no URL, but the name of a cache: give --alias pages"),
    ],
)
@pytest.mark.parametrize("command", [["doctor"], ["stats"], ["get", "a", "--url"]])
def test_what_is_no_url(say, monkeypatch, command, given, said):
    """It is said what was given instead, in one line; a word that may be a password is not repeated."""
    monkeypatch.setenv("FLEETCACHE_URL_PAGES", "redis://127.0.0.1:1/0")

    found = say(*command, given)

    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert said in found.err
    assert SECRET not in found.err


@pytest.mark.parametrize(
    "url, fault",
    [
        ("http://x", "unknown URL scheme 'http'."),
        (f"redis://:{SECRET}@host:port", "'redis://"),
        (f"redis://:{SECRET}@host/1?key_prefx=a", "redis://:***@host/1?key_prefx=***: unknown parameter 'key_prefx'."),
        ("redis://host/1?socket_timeout=soon", "'redis://host/1?socket_timeout=soon': "),
        ("redis://host/1?clear=x", "CLEAR cannot be 'x': "),
    ],
)
def test_a_wrong_url(say, monkeypatch, url, fault):
    """The place where it was written is blamed, and no CACHES, of which there are none."""
    given = say("stats", url)
    monkeypatch.setenv("FLEETCACHE_URL_PAGES", url)
    found = say("stats", "--alias", "pages")

    assert (given.code, found.code, given.out + found.out) == (2, 2, "")
    assert given.err.startswith(f"fleetcache: the URL that was given: {fault}")
    assert found.err.startswith(f"fleetcache: FLEETCACHE_URL_PAGES: {fault}")
    assert SECRET not in given.err + found.err


# --- a server that is away ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["get", "a"],
        ["keys"],
        ["ttl", "a", "5"],
        ["delete", "a", "--yes"],
        ["tags", "list"],
        ["stats"],
        ["top", "--once"],
    ],
    ids=" ".join,
)
def test_a_server_that_is_away_is_said_once(shell, words):
    """The log line about the same outage does not stand beside the error."""
    port = unused_port()

    ran = shell(*words, "--url", f"redis://127.0.0.1:{port}/0")

    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert "Connection refused" in ran.stderr
    assert "lost" not in ran.stderr


def test_an_outage_of_code_of_the_site_is_logged(shell, tmp_path):
    """`warm` runs code that may ignore outages; then only the log tells."""
    text = "from fleetcache import cache\ndef load():\n    return cache.get('a')\n"
    (tmp_path / "loads.py").write_text(text)
    url = f"redis://127.0.0.1:{unused_port()}/0?ignore_exceptions=true"

    ran = shell("warm", "loads:load", "--url", url)

    assert ran.returncode == 0
    assert "lost: " in ran.stderr


@pytest.mark.parametrize("more", [[], ["--json"]], ids=str)
def test_a_full_disk(more):
    """It is said on the error stream, in one line, and by the exit code."""
    command = [sys.executable, "-m", "fleetcache", "docs", *more]
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert ran.returncode == 2
    assert ran.stderr == "fleetcache: the output cannot be written: [Errno 28] No space left on device\n"


# --- a command is no worker -----------------------------------------------------------------------

PUBLISHES = """
import time
from django.apps import AppConfig
from django.core.cache import caches

class Installs(AppConfig):  # as docs/metrics.md lets a site install an exporter
    name = "publishing_app"
    path = "."

    def ready(self):
        caches["default"]

def work():
    for turn in range(5):
        caches["default"].get("a")
        time.sleep(0.1)
"""
PUBLISHING = """
SECRET_KEY = "not secret"
INSTALLED_APPS = ["fleetcache.django", "publishing_app.Installs"]
CACHES = {"default": {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": "%(url)s", "KEY_PREFIX": "%(prefix)s",
                      "OPTIONS": {"STATS": {"PUBLISH": 0.05}}}}
"""


@pytest.mark.parametrize(
    "words", [["warm", "publishing_app:work"], ["top", "--once", "--interval", "0.5"]], ids=lambda words: words[0]
)
def test_no_command_is_counted_as_a_process_of_the_fleet(words, shell, module, site, tmp_path):
    """Neither in a shell nor by manage.py, although the site that it sets up has caches of its own, which publish."""
    names = {"url": site.server.tcp_url(12), "prefix": site.cache.key_prefix, "name": "publishing_settings"}
    module("publishing_app", PUBLISHES)
    module("publishing_settings", PUBLISHING % names)
    module("manage", MANAGE % names)
    python = [sys.executable, "-c", "import django; django.setup(); from publishing_app import work; work()"]

    def found():
        """Return the lists of workers, which live for an hour."""
        return list(site.cache.get_client().scan_iter(f"fleetcache:workers:*:{site.cache.key_prefix}"))

    for ran in (shell(*words, "--settings", "publishing_settings"), managed(tmp_path, *words)):
        assert ran.returncode in {0, 1}, ran.stderr
        assert found() == []

    subprocess.run(python, cwd=tmp_path, env=environment(DJANGO_SETTINGS_MODULE="publishing_settings"), check=True)
    assert found()


# --- errors that cannot be written ----------------------------------------------------------------

ERRORS = (["keys", "--json", "--url", "redis://127.0.0.1:1/0"], ["nonsense", "--json"], ["migrate", "check", "--json"])


@pytest.mark.parametrize("words", ERRORS, ids=str)
@pytest.mark.parametrize("out", ["full", "closed"])
def test_an_error_that_cannot_be_written(words, out):
    """The exit code tells of it, and no traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    with Path("/dev/full").open("w") as full, os.fdopen(writer, "w") as closed:
        stdout = full if out == "full" else closed
        unbuffered = {**environment(), "PYTHONUNBUFFERED": "1"}
        ran = subprocess.run(
            [*FLEETCACHE, *words], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, env=unbuffered
        )

    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr


def test_a_note_that_cannot_be_written():
    """A full error stream changes no exit code."""
    with Path("/dev/full").open("w") as full:
        command = [*FLEETCACHE, "keys", "--url", "redis://127.0.0.1:1/0"]
        ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, check=False, env=environment())

    assert (ran.returncode, ran.stdout) == (2, b"")


def test_interrupted_while_it_is_imported():
    """Ctrl-C shows no traceback of modules."""
    code = """
import sys
class Interrupts:
    def find_spec(name, path=None, target=None):
        if name == "fleetcache.cli":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupts)
from fleetcache.__main__ import main
sys.exit(main())
"""
    ran = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False)

    assert (ran.returncode, ran.stderr) == (130, "")
