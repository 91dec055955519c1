"""Messages name the place where the user wrote something, the function that raised, and commands that can be pasted."""

from __future__ import annotations

import pickle
import re
import shlex
import sys
from types import ModuleType

import pytest
import redis
from tests.caches import own_prefix

from fleetcache import Cache, CacheHandler
from fleetcache.errors import NeverSent, advice_of, fault_of
from fleetcache.inspection.advice import Commands, right_lacking
from fleetcache.testing import valkey_server

ADVISED = re.compile(r"fleetcache get .*$", re.MULTILINE)


def advised(text: str) -> list[list[str]]:
    """Return the words of each command that *text* advises."""
    return [shlex.split(each.rstrip("."))[1:] for each in ADVISED.findall(text)]


# --- where something is written -------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["http://x", "redis://x?timeout=abc", "redis://x/y", "redis://x?near=maybe"])
def test_doctor_blames_the_argument(say, wrong):
    """A URL of the command line is no setting: neither CACHES nor LOCATION nor OPTIONS is named."""
    said = say("doctor", wrong)

    assert said.code == 1
    assert "settings-refused: the URL that was given\n" in said.out
    assert not re.search("CACHES|LOCATION|OPTIONS", said.out)


def test_doctor_blames_the_variable(say, monkeypatch):
    """A URL of the environment is named by its variable."""
    monkeypatch.setenv("FLEETCACHE_URL", "http://x")
    monkeypatch.setenv("FLEETCACHE_URL_PAGES", "memory://")

    said = say("doctor")

    assert "settings-refused: FLEETCACHE_URL\n" in said.out
    assert "CACHES" not in said.out


def test_doctor_of_a_server_that_is_away(say, closed_port=1):
    """What is to be corrected is the URL."""
    said = say("doctor", f"redis://127.0.0.1:{closed_port}")

    assert "correct the URL that was given" in said.out
    assert "LOCATION" not in said.out
    assert said.out.casefold().count("start the server") == 1


def test_another_command_at_a_server_that_is_away(say, closed_port=1):
    """The URL is named here too, as what it is."""
    said = say("get", "a", "--url", f"redis://127.0.0.1:{closed_port}")

    assert said.err.endswith("Nothing listens there: start the server, or correct the URL\n")


def test_advice_names_the_url(say):
    """So do other errors of connecting, and a list of what could not be read; what CACHES has is LOCATION."""
    with valkey_server(arguments=["--rename-command", "SELECT", ""]) as server:
        refused = say("get", "a", "--url", server.tcp_url(1))
    away = [say(*words, "--url", "redis://127.0.0.1:1") for words in (["stats"], ["get", "a"])]

    assert refused.err.endswith("so only database 0 can be used. Leave the number out of the URL\n")
    for said in away:
        assert "LOCATION" not in said.err
        assert said.err.count("Nothing listens there: start the server, or correct the URL") == 1


def test_advice_stays_with_an_error():
    """It survives pickling, and the copies of an error for several callers."""
    with pytest.raises(NeverSent) as raised:
        Cache("redis://127.0.0.1:1/3").get("a")

    for error in (raised.value, pickle.loads(pickle.dumps(raised.value)), type(raised.value)(*raised.value.args)):
        assert str(error) == f"{fault_of(error)} {advice_of(error)}"
        assert fault_of(error).endswith("Connection refused.")
        assert advice_of(error, "the URL") == "Nothing listens there: start the server, or correct the URL"


def test_doctor_of_a_url_has_no_alias(say):
    """A URL is no part of a module's settings."""
    said = say("doctor", "redis://x", "--alias", "pages")

    assert (said.code, said.out) == (2, "")
    assert "either a URL or --alias" in said.err


# --- commands that can be pasted ------------------------------------------------------------------


@pytest.mark.parametrize("other", [{"version": 7}, {"prefix": "other"}, {"key": "{:}"}, {"key": "a:{}"}])
def test_advised_commands_work(say, site, other):
    """What a message advises shows the entry, for the cache of the same URL."""
    key = f"key{own_prefix()}"
    there = {"prefix": site.cache.key_prefix, "version": 1, "key": "{}", **other}
    name = there["key"].format(key.upper() if there["key"] == "{:}" else key)
    Cache(site.url.partition("?")[0], {"KEY_PREFIX": there["prefix"]}).set(name, 1, 60, version=there["version"])

    said = say(*site.run("get", key))
    (command,) = advised(said.out)

    assert said.code == 1
    assert command[-2:] == ["--url", site.url]
    assert say(*command).code == 0


def test_advice_in_another_version(say, site):
    """The version that was asked for stays in the advice."""
    key = f"key{own_prefix()}"
    site.cache.set(key.upper(), 1, 60, version=5)

    (command,) = advised(say(*site.run("get", key, "--version", "5")).out)

    assert say(*command).code == 0


def test_advice_without_secrets(say, valkey):
    """A password is masked, and the message says what to do about it."""
    key, user = f"key{own_prefix()}", own_prefix()
    with redis.Redis.from_url(valkey.tcp_url(12)) as raw:
        raw.acl_setuser(user, enabled=True, passwords=["+s3cr3t"], categories=["+@all"], keys=["*"])
        url = valkey.tcp_url(12).replace("://", f"://{user}:s3cr3t@")
        raw.set(f":9:{key}", b"1", ex=60)
        said = say("get", key, "--url", url)
        raw.acl_deluser(user)

    assert "s3cr3t" not in said.out + said.err
    assert f"--url 'redis://{user}:***@" in said.out
    assert "replace each *** by what your URL has there, or set FLEETCACHE_URL" in said.out


def test_advice_about_another_alias(say, valkey, monkeypatch):
    """A cache of the same settings is named by its alias, with the same module."""
    key, module = f"key{own_prefix()}", ModuleType("two_caches")
    module.CACHES = {name: f"{valkey.tcp_url(12)}?key_prefix={own_prefix()}" for name in ("default", "pages")}
    monkeypatch.setitem(sys.modules, "two_caches", module)
    Cache.from_url(module.CACHES["pages"]).set(key, 1, 60)

    commands = advised(say("get", key, "--settings", "two_caches").out)

    assert ["get", key, "--settings", "two_caches", "--alias", "pages"] in commands
    assert [say(*command).code for command in commands] == [0] * len(commands)


def test_advice_about_near_copies(say, site):
    """The command that counts near hits has the same URL."""
    site.cache.set("k", 1, 60)

    said = say("get", "k", "--url", f"{site.url}&near=true")

    assert f"fleetcache stats --url '{site.url}&near=true'`" in said.out


def test_a_key_that_looks_like_an_option():
    """It stands behind ``--``."""
    assert Commands(url="redis://x")("get", "-k", options=["--name"]) == "fleetcache get --name --url redis://x -- -k"


@pytest.mark.parametrize(
    ("started", "in_django", "program"),
    [
        ("/bin/fleetcache", False, "fleetcache"),
        ("/lib/fleetcache/__main__.py", False, "python -m fleetcache"),
        ("manage.py", True, "python manage.py fleetcache"),
        ("/bin/django-admin", True, "django-admin fleetcache"),
        ("/lib/django/__main__.py", True, "python -m django fleetcache"),
        ("/lib/pytest/__main__.py", True, "python manage.py fleetcache"),
    ],
)
def test_the_program_is_the_one_that_runs(monkeypatch, started, in_django, program):
    """Advice names the program as it was called."""
    from fleetcache.cli import places

    monkeypatch.setattr(sys, "argv", [started])
    monkeypatch.setattr(sys, "executable", "/usr/bin/python")

    assert places._program(in_django=in_django) == program


# --- functions of the site ------------------------------------------------------------------------


def raising(key, prefix, version):
    """Raise, as a KEY_FUNCTION without a tenant does."""
    raise LookupError("no tenant")


class Broken:
    """A serializer that cannot be made."""

    def __init__(self, options):
        raise RuntimeError("no schema")


@pytest.fixture
def module(valkey, monkeypatch) -> dict:
    """The CACHES of a module ``broken_site``."""
    module = ModuleType("broken_site")
    backend = {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": f"{valkey.tcp_url(12)}"}
    module.CACHES = {"default": {**backend, "KEY_FUNCTION": raising}}
    monkeypatch.setitem(sys.modules, "broken_site", module)
    return module.CACHES


@pytest.mark.parametrize(
    "command", ["get k", "ttl k", "delete k", "delete --pattern k", "keys", "keys --long", "tags list", "tags show t"]
)
def test_whose_function_raised(say, module, command):
    """The message names the setting, the function, the error and the line; there is no traceback."""
    said = say(*command.split(), "--settings", "broken_site")

    assert (said.code, said.out) == (2, "")
    assert f"KEY_FUNCTION {__name__}.raising(), a function of the site, raised LookupError: no tenant" in said.err
    assert re.search(r"test_messages\.py, line \d+\)\n$", said.err)


def test_whose_function_raised_in_json(say, module):
    """The same in one document."""
    document = say("get", "k", "--settings", "broken_site", "--json").document

    assert document["kind"] == "LookupError"
    assert "KEY_FUNCTION" in document["error"]


def test_doctor_names_the_function(say, module):
    """A cache whose function raises is a finding, once, and the others are examined."""
    module["broken"] = {**module["default"], "OPTIONS": {"SERIALIZER": Broken}}
    module["fine"] = {**module["default"], "KEY_PREFIX": own_prefix()}
    del module["fine"]["KEY_FUNCTION"]

    said = say("doctor", "--settings", "broken_site", "--no-probe", "--json")
    found = [(each["alias"], each["found"]) for each in said.document["findings"] if each["id"] == "settings-refused"]

    assert [alias for alias, _ in found] == ["default", "broken"]
    assert "raising(), a function of the site, raised LookupError" in found[0][1]
    assert "Broken.__init__(), a function of the site, raised RuntimeError: no schema" in found[1][1]
    assert "This is an error of fleetcache" not in said.out
    assert "CACHES['fine']" in say("doctor", "--settings", "broken_site", "--no-probe").out


def one_way(key, prefix, version):
    """Name an entry."""
    return f"{prefix}/{version}/{key}"


def backwards(name):
    """Raise, as a REVERSE_KEY_FUNCTION does that another one has replaced."""
    raise LookupError("no way back")


def unreachable(connection):
    """Raise, as a ``redis_connect_func`` without its secrets does."""
    raise LookupError("no vault")


BACKWARDS = f"REVERSE_KEY_FUNCTION {__name__}.backwards(), a function of the site, raised LookupError: no way back"


def test_keys_without_a_way_back(say, module):
    """Where only REVERSE_KEY_FUNCTION raises, whole names are listed, and the message says why."""
    entry = module["default"]
    entry |= {"KEY_FUNCTION": one_way, "REVERSE_KEY_FUNCTION": backwards, "KEY_PREFIX": own_prefix()}
    cache = CacheHandler(module)["default"]
    cache.set("k", 1, tags=["t"])
    name = f"{entry['KEY_PREFIX']}/1/k"

    for long in [], ["--long"]:
        said = say("keys", "--show-keys", *long, "--settings", "broken_site")
        assert (said.code, said.out.split()[-1]) == (0, name)
        assert said.err.startswith(f"fleetcache: whole names stand for keys: {BACKWARDS} (")
    document = say("keys", "--settings", "broken_site", "--json").document
    assert document["count"] == 1
    assert BACKWARDS in document["problem"]
    assert BACKWARDS in say("get", "k", "--settings", "broken_site").out
    assert say("tags", "list", "--show-keys", "--settings", "broken_site").out.split()[-1] == "t"
    assert BACKWARDS in say("doctor", "--no-probe", "--settings", "broken_site").out


def test_doctor_goes_on_without_a_connection(say, module):
    """A function of the site that raises when a server is greeted is a finding."""
    module["broken"] = {**module["default"], "OPTIONS": {"redis_connect_func": unreachable}}
    module["fine"] = {**module["default"], "KEY_PREFIX": own_prefix()}
    for alias in "broken", "fine":
        del module[alias]["KEY_FUNCTION"]

    findings = say("doctor", "--settings", "broken_site", "--no-probe", "--json").document["findings"]

    found = [each["found"] for each in findings if each["alias"] == "broken"]
    assert any("unreachable(), a function of the site, raised LookupError: no vault" in each for each in found)
    assert "CACHES['fine']" in say("doctor", "--settings", "broken_site", "--no-probe").out


def test_another_broken_cache_does_no_harm(say, module):
    """A search in the other caches of the settings passes over those that raise."""
    module["fine"] = {**module["default"], "KEY_PREFIX": own_prefix()}
    del module["fine"]["KEY_FUNCTION"]
    module["broken"] = {**module["default"], "OPTIONS": {"SERIALIZER": Broken}}

    said = say("get", "k", "--settings", "broken_site", "--alias", "fine")

    assert said.code == 1
    assert "there is no entry" in said.out


def test_errors_of_the_library_keep_their_traceback(say, site, monkeypatch):
    """Only what a function of the site raises is put into words."""
    monkeypatch.setattr("fleetcache.cli.get.describe", lambda *args, **kwargs: {}["nothing"])
    monkeypatch.setitem(globals(), "__name__", "fleetcache.pretended")

    with pytest.raises(KeyError):
        say(*site.run("get", "k"))


# --- rights ---------------------------------------------------------------------------------------


@pytest.fixture
def poor(valkey):
    """The URL of a user who may only GET, under a prefix."""
    prefix, user = own_prefix(), own_prefix()
    with redis.Redis.from_url(valkey.tcp_url(12)) as raw:
        raw.acl_setuser(user, enabled=True, passwords=["+pw"], commands=["+get", "+select"], keys=["*"])
        yield f"{valkey.tcp_url(12).replace('://', f'://{user}:pw@')}?key_prefix={prefix}", user
        raw.acl_deluser(user)


@pytest.mark.parametrize(
    ("command", "right"),
    [
        ("get k", "+type"),
        ("keys", "+scan"),
        ("ttl k 5", "+pexpire"),
        ("delete k", "+exists"),
        ("tags show t", "+pttl"),
        ("stats", "+zrevrange"),
    ],
)
def test_a_right_that_lacks(say, poor, command, right):
    """The message says which right is lacking, whose, and where the rights are listed."""
    url, user = poor

    said = say(*command.split(), "--url", url)

    assert said.code == 2
    assert f"ACL SETUSER {user} {right};" in said.err
    assert "`fleetcache docs managed#rights`" in said.err
    assert "pw" not in said.err.replace(user, "")


def test_a_right_that_lacks_in_json(say, poor):
    """The document has the advice apart."""
    url, user = poor

    document = say("get", "k", "--url", url, "--json").document

    assert f"ACL SETUSER {user} +type" in document["advice"]
    assert document["error"].startswith("NOPERM")


def test_names_that_may_not_be_used():
    """The rule for the names of the cache, and for those of the library."""
    said = "NOPERM No permissions to access a key"

    assert "ACL SETUSER ann ~shop:* ~fleetcache:*;" in right_lacking(said, "shop", "ann")
    assert "ACL SETUSER default ~*;" in right_lacking(said, "")
    assert right_lacking("ERR unknown command", "shop") == ""
