"""`fleetcache migrate check` says what a site has to change, what is refused, and what will differ; it writes nothing."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from django.test import override_settings
from tests.caches import own_prefix
from tests.test_docs import anchors

from fleetcache import Cache, cli
from fleetcache.django.checks import check_caches
from fleetcache.errors import SettingsError
from fleetcache.inspection.migration import AliasReport, check
from fleetcache.inspection.migration.entries import read_entry
from fleetcache.inspection.migration.origins import BACKENDS, NEW

DJANGO_REDIS = "django_redis.cache.RedisCache"
DJANGO = "django.core.cache.backends.redis.RedisCache"
VALKEY = "django_valkey.cache.ValkeyCache"
REDIS_CACHE = "redis_cache.RedisCache"


def checked(backend: str, location: Any = "redis://127.0.0.1:1/0", names: Any = None, **entry: Any) -> AliasReport:
    """Return the report about one cache; no server is asked unless *entry* says `servers`."""
    servers = entry.pop("servers", False)
    return read_entry("default", {"BACKEND": backend, "LOCATION": location, **entry}, names or {}, servers=servers)


def results(report: AliasReport) -> dict[str, str]:
    return {each.name: each.result for each in report.options}


def texts(report: AliasReport) -> str:
    return "\n".join(each.text for each in (*report.problems, *report.differences))


# --- backends -------------------------------------------------------------------------------------


def test_django_redis():
    """Its one line is changed, and its options are read."""
    report = checked(
        DJANGO_REDIS,
        OPTIONS={
            "CLIENT_CLASS": "django_redis.client.DefaultClient",
            "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
            "SOCKET_TIMEOUT": 3,
            "client_name": "shop",
            "MAX_ENTRIES": 10,
        },
    )

    assert (report.origin, report.state) == ("django-redis", "moves")
    assert report.changes == [f'"BACKEND": "{NEW}",  # was "{DJANGO_REDIS}"']
    assert results(report) == {
        "CLIENT_CLASS": "read",
        "SERIALIZER": "read",
        "SOCKET_TIMEOUT": "read",
        "client_name": "passed on",
        "MAX_ENTRIES": "no effect",
    }
    assert report.problems == []


def test_refused_options():
    """Each option that would be an error is named, with the nearest one; the others are read all the same."""
    report = checked(
        DJANGO_REDIS, OPTIONS={"SOCKETTIMEOUT": 3, "DB": 5, "PICKLE_VERSION": "high", "PASSWORD": "s3cr3t"}
    )

    assert report.state == "refused"
    assert results(report) == {
        "SOCKETTIMEOUT": "refused",
        "DB": "refused",
        "PICKLE_VERSION": "refused",
        "PASSWORD": "read",
    }
    notes = {each.name: each.note for each in report.options}
    assert "Did you mean 'SOCKET_TIMEOUT'" in notes["SOCKETTIMEOUT"]
    assert "It was ignored." in notes["SOCKETTIMEOUT"]
    assert "It was ignored." not in notes["PICKLE_VERSION"]
    assert "s3cr3t" not in str(report)


def test_refused_location():
    """A LOCATION that fleetcache refuses is a problem, without its password."""
    report = checked(DJANGO_REDIS, "127.0.0.1:6379/s3cr3t")

    assert report.state == "refused"
    assert "LOCATION" in texts(report)
    assert "s3cr3t" not in texts(report)


@pytest.mark.parametrize(
    "location",
    [
        "redis://127.0.0.1:1/1",
        ["redis://127.0.0.1:1/1", "redis://127.0.0.1:2/1"],
        "redis://127.0.0.1:1/1,redis://127.0.0.1:2/1",
        "rediss://:password@cache.example.com:6380/0",
        "unix:///run/redis.sock?db=1",
    ],
)
def test_locations(location):
    """Lists of URLs, TLS, unix sockets can move."""
    assert checked(DJANGO_REDIS, location).state == "moves"


def test_django_backend():
    """Django's own options are read."""
    report = checked(DJANGO, OPTIONS={"db": "10", "pool_class": "redis.BlockingConnectionPool"})

    assert (report.origin, report.state) == ("Django", "moves")
    assert set(results(report).values()) <= {"read", "passed on"}


def test_django_valkey():
    """The paths of django-valkey are translated; what has no counterpart is refused."""
    report = checked(
        VALKEY,
        "valkey://127.0.0.1:1/1",
        OPTIONS={
            "CLIENT_CLASS": "django_valkey.client.HerdClient",
            "SERIALIZER": "django_valkey.serializers.pickle.PickleSerializer",
            "COMPRESSOR": "django_valkey.compressors.brotli.BrotliCompressor",
            "BASE_CLIENT_KWARGS": {},
        },
    )

    assert report.origin == "django-valkey"
    assert results(report)["CLIENT_CLASS"] == results(report)["SERIALIZER"] == "translated"
    assert results(report)["COMPRESSOR"] == "refused"
    assert any("\"CLIENT_CLASS\": 'HerdClient'" in change for change in report.changes)
    assert checked(VALKEY, "valkey://127.0.0.1:1/1").state == "moves"


def test_django_redis_cache():
    """An address without a scheme, and the database, become a URL."""
    report = checked(
        REDIS_CACHE, "127.0.0.1:6379", OPTIONS={"DB": 3, "SERIALIZER_CLASS": "redis_cache.serializers.JSONSerializer"}
    )

    assert (report.origin, report.state) == ("django-redis-cache", "moves")
    assert "\"LOCATION\": 'redis://127.0.0.1:6379/3'," in report.changes
    assert any("'json'" in change for change in report.changes)


def test_default_database_of_django_redis_cache():
    """Without DB it uses database 1."""
    assert "\"LOCATION\": 'redis://127.0.0.1:6379/1'," in checked(REDIS_CACHE, "127.0.0.1:6379").changes


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_known_backend(backend):
    """Each backend in the table can move with a plain LOCATION, and something differs."""
    location = "redis+cluster://127.0.0.1:1" if "cluster" in backend else "redis://127.0.0.1:1/0"
    report = checked(backend, location)

    assert (report.state, report.problems) == ("moves", [])
    assert report.differences


def test_other_backends_stay():
    """A backend that is on no server stays."""
    assert checked("django.core.cache.backends.locmem.LocMemCache").state == "other"


def test_done():
    """A cache that is fleetcache's needs nothing; its settings are checked all the same."""
    assert checked(NEW).state == "done"
    assert checked(NEW).problems == []
    assert checked(NEW, OPTIONS={"NEER": True}).problems


def test_a_server_that_is_corrected_no_more_is_nothing_to_do(redis_debian):
    """Redis 7.0 is named, but fleetcache runs on it as the old backend did."""
    report = check({"CACHES": {"default": {"BACKEND": NEW, "LOCATION": redis_debian.tcp_url(9)}}})

    assert "Redis 7.0, which its makers have not corrected since" in texts(report.caches[0])
    assert not report.todo


def test_backend_of_the_site(monkeypatch, tmp_path):
    """A class of the site that is derived from a known backend is told how to be derived anew."""
    (tmp_path / "ownbackend.py").write_text(
        f"from {DJANGO.rpartition('.')[0]} import RedisCache\nclass Own(RedisCache): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    report = checked("ownbackend.Own")

    assert (report.origin, report.state) == ("Django", "moves")
    assert "Derive it from fleetcache.django.RedisCache" in texts(report)
    assert "cannot be imported" in texts(checked("no.such.Backend"))


NAMING = """
from django_redis.cache import RedisCache
from django_redis.client import DefaultClient
from django.core.cache.backends.redis import RedisCache as DjangosCache

class Names:
    def make_key(self, key, version=None, prefix=None): return key

class Backend(Names, RedisCache):
    def make_and_validate_key(self, key, version=None): return key
    def validate_key(self, key): pass

class Client(DefaultClient):
    def make_key(self, key, version=None, prefix=None): return key
    def encode(self, value): return value

class OfDjango(Names, DjangosCache): pass
class Plain(RedisCache):
    def get(self, *args, **kwargs): return super().get(*args, **kwargs)
"""


def test_names_by_classes_of_the_site(monkeypatch, tmp_path):
    """A method of a backend that named no entry, and would from now on, is told with its class; so are a client's."""
    (tmp_path / "ownnames.py").write_text(NAMING)
    monkeypatch.syspath_prepend(tmp_path)

    report = checked("ownnames.Backend", OPTIONS={"CLIENT_CLASS": "ownnames.Client"})
    told = {note.text: note.todo for note in report.problems}

    def todo(method: str, what: str) -> bool:
        (found,) = (todo for text, todo in told.items() if text.startswith(f"ownnames.{method} {what}"))
        return found

    assert todo("Names.make_key", "names every entry. In django-redis a backend's make_key names none: remove it")
    assert todo("Backend.make_and_validate_key", "names every entry. In django-redis")
    assert not todo("Backend.validate_key", "is called with every name.")
    assert not todo("Client.make_key", "names every entry, as before. keys, iter_keys and delete_pattern")
    assert todo("Client.encode", "changes no payload")
    assert all(note.docs for note in report.problems if note.text.startswith("ownnames."))
    assert "make_key" not in texts(checked("ownnames.OfDjango")) + texts(checked("ownnames.Plain"))
    with_client = checked(DJANGO_REDIS, OPTIONS={"CLIENT_CLASS": "ownnames.Client"})
    assert "ownnames.Client.make_key names every entry" in texts(with_client)


@pytest.mark.parametrize(
    "name, advice",
    [
        ("DJANGO_REDIS_IGNORE_EXCEPTION", "Did you mean DJANGO_REDIS_IGNORE_EXCEPTIONS?"),
        ("DJANGO_VALKEY_LOGER", "Did you mean DJANGO_REDIS_LOGGER?"),
        ("DJANGO_REDIS_NONSENSE", "Leave it out."),
    ],
)
def test_a_misspelt_project_setting(name, advice):
    """The report and the system check ask the same question."""
    site = {"default": {"BACKEND": NEW, "LOCATION": "redis://127.0.0.1:1/0"}}
    (note,) = check({"CACHES": site, name: True}, servers=False).settings
    assert (note.text, note.todo) == (f"{name} is not read. {advice}", True)

    if name.startswith("DJANGO_REDIS_"):
        with override_settings(CACHES=site, **{name: True}):
            hints = [found.hint for found in check_caches() if found.id == "fleetcache.W001"]
        assert hints == [advice] * advice.startswith("Did")


# --- settings and differences ---------------------------------------------------------------------


def test_project_settings():
    """Settings that stand in for options are read; those of django-valkey are to be renamed; others are told."""
    names = {"DJANGO_REDIS_LOGGER": "x", "DJANGO_VALKEY_SCAN_ITERSIZE": 5, "DJANGO_REDIS_NONSENSE": 1}
    report = check(
        {"CACHES": {"default": {"BACKEND": DJANGO_REDIS, "LOCATION": "redis://127.0.0.1:1/0"}}, **names}, servers=False
    )

    notes = {each.text: each.todo for each in report.settings}
    assert notes["DJANGO_REDIS_LOGGER is read."] is False
    assert any("Rename DJANGO_VALKEY_SCAN_ITERSIZE to DJANGO_REDIS_SCAN_ITERSIZE" in text for text in notes)
    assert any("DJANGO_REDIS_NONSENSE is not read" in text for text in notes)
    assert "1000 entries in one step" not in texts(report.caches[0])


@pytest.mark.parametrize(
    ("words", "entry", "names"),
    [
        ("clear() removes only", {"KEY_PREFIX": "shop"}, {}),
        ("IGNORE_EXCEPTIONS covers", {"OPTIONS": {"IGNORE_EXCEPTIONS": True}}, {}),
        ("IGNORE_EXCEPTIONS covers", {}, {"DJANGO_REDIS_IGNORE_EXCEPTIONS": True}),
        (
            "Values are read whatever COMPRESSOR",
            {"OPTIONS": {"COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor"}},
            {},
        ),
        ("HerdClient", {"OPTIONS": {"CLIENT_CLASS": "django_redis.client.HerdClient"}}, {}),
    ],
)
def test_differences_that_depend_on_settings(words, entry, names):
    """A difference is told if the settings make it matter, and else not."""
    assert words in texts(checked(DJANGO_REDIS, names=names, **entry))
    assert words not in texts(checked(DJANGO_REDIS))


# --- servers --------------------------------------------------------------------------------------


def test_sample_of_entries(valkey):
    """The formats of the entries are told, and whether the configured serializer reads them; nothing is changed."""
    prefix = own_prefix()
    raw = redis.Redis.from_url(valkey.tcp_url(14))
    raw.flushdb()
    for number in range(10):
        raw.set(f"{prefix}:1:p{number}", pickle.dumps([number]))
    raw.set(f"{prefix}:1:n", 5)
    before = {*raw.scan_iter(count=1000)}

    good = checked(DJANGO_REDIS, valkey.tcp_url(14), KEY_PREFIX=prefix, servers=True)
    bad = checked(
        DJANGO_REDIS,
        valkey.tcp_url(14),
        KEY_PREFIX=prefix,
        servers=True,
        OPTIONS={"SERIALIZER": "django_redis.serializers.json.JSONSerializer"},
    )

    assert good.entries is not None
    assert good.entries["formats"] == {"pickle": 10, "integer": 1}
    assert (good.entries["unreadable"], good.problems) == (0, [])
    assert bad.entries is not None
    assert bad.entries["unreadable"] == 10
    assert "10 of 11 entries" in texts(bad)
    assert {*raw.scan_iter(count=1000)} <= before


def test_rights_that_are_missing(valkey):
    """A user that may do what django-redis needs, and no scripts, is told which right to add."""
    admin = redis.Redis.from_url(valkey.tcp_url())
    admin.acl_setuser(
        "mover", enabled=True, passwords="+pw", keys=["shop:*"], categories=["+@all"], commands=["-eval", "-evalsha"]
    )
    url = valkey.tcp_url().replace("redis://", "redis://mover:pw@")

    report = checked(DJANGO_REDIS, url, KEY_PREFIX="shop", servers=True)

    assert "ACL SETUSER mover +eval +evalsha" in texts(report)
    assert "~fleetcache:*" in texts(report)


def test_server_that_is_away():
    """A server that is away is told, and is nothing to do: it may be out of reach from here."""
    report = check({"CACHES": {"default": {"BACKEND": NEW, "LOCATION": "redis://127.0.0.1:1/0"}}})

    assert "refused" in texts(report.caches[0])
    assert report.caches[0].entries is None
    assert not any(each.todo for each in report.caches[0].problems)


# --- packages -------------------------------------------------------------------------------------


def installed(place: Path, name: str, source: str, requires: str = "") -> None:
    """Install a distribution with one package of the same name."""
    (place / name).mkdir()
    (place / name / "__init__.py").write_text("")
    (place / name / "code.py").write_text(source)
    info = place / f"{name}-1.0.dist-info"
    info.mkdir()
    need = f"Requires-Dist: {requires}\n" if requires else ""
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{need}")
    (info / "top_level.txt").write_text(f"{name}\n")
    (info / "RECORD").write_text(f"{name}/__init__.py,,\n{name}/code.py,,\n")


def packages_of(*apps: str) -> dict[str, bool]:
    caches = {"default": {"BACKEND": NEW, "LOCATION": "memory://migration"}}
    return {
        each.text: each.todo for each in check({"CACHES": caches, "INSTALLED_APPS": list(apps)}, servers=False).packages
    }


def test_packages(monkeypatch, tmp_path):
    """Packages that import django_redis, demand it, or look at BACKEND are named, with the place."""
    installed(tmp_path, "importing_app", "\nfrom django_redis import get_redis_connection\n")
    installed(tmp_path, "demanding_lib", "x = 1\n", requires="django-redis>=5")
    installed(tmp_path, "comparing_app", 'if entry["BACKEND"] == "x": pass\n')
    installed(tmp_path, "harmless_app", "from django.core.cache import cache\n")
    monkeypatch.syspath_prepend(tmp_path)

    found = packages_of("importing_app", "comparing_app", "harmless_app")

    of = {
        name: [text for text in found if name in text] for name in ("importing", "demanding", "comparing", "harmless")
    }
    assert "importing_app/code.py:2" in of["importing"][0]
    assert found[of["importing"][0]]
    assert "requires" in of["demanding"][0]
    assert found[of["demanding"][0]]
    assert not found[of["comparing"][0]]
    assert of["harmless"] == []


def test_code_of_the_site(monkeypatch, tmp_path):
    """The site's own imports are named, to be replaced; its tests and migrations are not read."""
    app = tmp_path / "shopapp"
    (app / "migrations").mkdir(parents=True)
    (app / "__init__.py").write_text("")
    (app / "views.py").write_text("import django_redis\n")
    (app / "migrations" / "old.py").write_text("import django_redis\n")
    monkeypatch.syspath_prepend(tmp_path)

    (text,) = [text for text in packages_of("shopapp") if "shopapp" in text]

    assert "shopapp/views.py:1" in text
    assert "your own code" in text
    assert "migrations" not in text


def test_lines_of_code_are_told_by_what_they_do(monkeypatch, tmp_path):
    """Each sign has its own lines, in order; a raw client that is fleetcache's already is none of them."""
    app = tmp_path / "toldapp"
    app.mkdir()
    (app / "__init__.py").write_text("")
    call = "client = get_redis_connection()\n"
    (app / "old.py").write_text(
        f"\nfrom django_redis import get_redis_connection\n{call}import django_redis.cache\n{call}"
    )
    (app / "new.py").write_text(f"from fleetcache.django import get_redis_connection\n{call}")
    monkeypatch.syspath_prepend(tmp_path)

    (text,) = [text for text in packages_of("toldapp") if "toldapp" in text]

    assert text.startswith(
        "toldapp imports it (toldapp/old.py:2, toldapp/old.py:4), calls get_redis_connection (toldapp/old.py:3, toldapp/old.py:5): your own"
    )


def test_tools_that_are_installed():
    """Tools that watch caches are named if they are installed."""
    caches = {
        "default": {"BACKEND": "django_prometheus.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}
    }
    found = check({"CACHES": caches}, servers=False).tools

    assert any(each.text.startswith("sentry-sdk") for each in found)
    assert any(each.todo and "django_prometheus" in each.text for each in found)
    assert not any(each.text.startswith("newrelic") for each in found)


@pytest.mark.newest
def test_pages_exist():
    """Every page that a note names is there, with its section."""
    here = Path(__file__).parents[2]
    texts = "\n".join(path.read_text() for path in (here / "src/fleetcache/inspection/migration").glob("*.py"))
    for page, section in set(re.findall(r"(docs/[\w-]+\.md)(?:#([\w-]+))?", texts)):
        assert (here / page).exists(), page
        assert not section or section in anchors(here / page), (page, section)


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def module(monkeypatch, tmp_path):
    """Write a module of settings; return its name."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)

    def module(source: str) -> str:
        name = f"settings_{own_prefix()}"
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return module


def test_command(module, capsys):
    """The command prints what to do, or JSON, and exits with 1; 0 if there is nothing."""
    name = module(f'CACHES = {{"default": {{"BACKEND": "{DJANGO_REDIS}", "LOCATION": "redis://127.0.0.1:1/0"}}}}')

    assert cli.main(["migrate", "check", "--settings", name, "--offline"]) == 1
    assert f'"BACKEND": "{NEW}",' in capsys.readouterr().out
    assert cli.main(["migrate", "check", "--settings", name, "--offline", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["caches"][0]["state"] == "moves"

    done = module(f'CACHES = {{"default": {{"BACKEND": "{NEW}", "LOCATION": "memory://x"}}}}')
    assert cli.main(["migrate", "check", "--settings", done, "--offline"]) == 0
    assert "There is nothing to do." in capsys.readouterr().out


def marked(out: str) -> list[str]:
    """Return the lines of a report that are marked."""
    return [line.strip() for line in out.splitlines() if line.startswith("  ! ")]


def test_what_is_to_be_done_is_marked(module, capsys):
    """A line to change is marked, too: the last line of the report says what the mark means."""
    entry = f'"BACKEND": "{DJANGO_REDIS}", "LOCATION": "redis://127.0.0.1:1/0"'
    name = module(f'CACHES = {{"default": {{{entry}}}}}')

    assert cli.main(["migrate", "check", "--settings", name, "--offline"]) == 1

    out = capsys.readouterr().out
    assert "There is something to do (marked !)." in out
    assert [line for line in marked(out) if "BACKEND" in line] == [f'! "BACKEND": "{NEW}",  # was "{DJANGO_REDIS}"']


@pytest.mark.parametrize(
    ("backend", "apps", "todo"),
    [
        (DJANGO_REDIS, ["shop"], True),
        (DJANGO_REDIS, ["shop", "fleetcache.django"], None),
        (DJANGO_REDIS, ["fleetcache.django.apps.FleetcacheConfig"], None),
        (NEW, ["shop"], False),
        ("django.core.cache.backends.locmem.LocMemCache", ["shop"], None),
    ],
)
def test_the_app_is_among_the_lines_to_change(backend, apps, todo):
    """Without it there are no checks and no pages, and nothing is published; a site that has moved may leave it out."""
    caches = {"default": {"BACKEND": backend, "LOCATION": "redis://127.0.0.1:1/0"}}

    notes = check({"CACHES": caches, "INSTALLED_APPS": apps}, servers=False).settings

    assert [note.todo for note in notes if 'add "fleetcache.django"' in note.text] == ([] if todo is None else [todo])


@pytest.mark.parametrize("arguments", [[], ["--settings", "no_such_module"], ["--settings", "json"]])
def test_what_cannot_be_checked(arguments, module, capsys):
    """Without settings, or with a module that has no CACHES, the exit code is 2."""
    assert cli.main(["migrate", "check", *arguments]) == 2
    assert capsys.readouterr().err


def test_alias(module):
    """--alias takes one cache; an unknown one is an error."""
    caches = {name: {"BACKEND": DJANGO, "LOCATION": "redis://127.0.0.1:1/0"} for name in ("default", "other")}

    assert [each.alias for each in check({"CACHES": caches}, alias="other", servers=False).caches] == ["other"]
    with pytest.raises(SettingsError, match="no cache 'third'"):
        check({"CACHES": caches}, alias="third")


@pytest.mark.newest
def test_without_django_and_django_redis(module, tmp_path):
    """Neither has to be installed."""
    name = module(f'CACHES = {{"default": {{"BACKEND": "{DJANGO_REDIS}", "LOCATION": "redis://127.0.0.1:1/0"}}}}')
    code = (
        "import sys; sys.modules['django'] = sys.modules['django_redis'] = None; from fleetcache.cli import main;"
        f"sys.exit(main(['migrate', 'check', '--offline', '--settings', '{name}']))"
    )

    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert ran.returncode == 1, ran.stderr
    assert "can move: change BACKEND" in ran.stdout


def test_entry_written_as_told_works(valkey):
    """A cache with the settings that the report tells works: the report builds the real settings."""
    report = checked(REDIS_CACHE, f"127.0.0.1:{valkey.port}", OPTIONS={"DB": 13})
    url = report.changes[1].partition("'")[2].partition("'")[0]

    cache = Cache(url, {"KEY_PREFIX": own_prefix()})

    assert cache.set("a", [1])
    assert cache.get("a") == [1]
