"""``fleetcache doctor`` examines one cache, or all of a site, and exits with what it found."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from time import monotonic

import pytest
from django.core.management import call_command
from django.test import override_settings
from tests import django_settings
from tests.caches import own_prefix

from fleetcache import cli

django_settings.configure()

BACKEND = "fleetcache.django.RedisCache"


@pytest.fixture
def told(capsys, monkeypatch):
    """Run the command; return its exit code and its output."""
    for name in ("FLEETCACHE_URL", "DJANGO_SETTINGS_MODULE"):
        monkeypatch.delenv(name, raising=False)

    def told(*arguments: str) -> tuple[int, str]:
        code = cli.main(["doctor", *arguments])
        written = capsys.readouterr()
        return code, written.out or written.err

    return told


def test_nothing_found(empty, told):
    """Without errors and warnings the exit code is 0; notes are shown all the same."""
    code, text = told(f"{empty}?key_prefix=shop")
    assert code == 0
    assert "note near-possible" in text

    assert told(f"{empty}?key_prefix=shop", "--no-probe") == (0, "Nothing was found.\n")


def test_something_found(valkey, told):
    """A finding says what was found, why it matters, what to do, and where that is explained."""
    code, text = told(valkey.tcp_url(), "--no-probe")

    assert code == 1
    assert "warning memory-unlimited: 127.0.0.1" in text
    assert "maxmemory is not set." in text
    assert "the system stops the server" in text
    assert "Set maxmemory" in text
    assert "See `fleetcache docs doctor#memory-unlimited`" in text


def test_nobody_answers(told):
    """If no server answers, the exit code is 2."""
    code, text = told("redis://127.0.0.1:1/0")

    assert code == 2
    assert "server-away" in text


def test_ignored_findings(valkey, told):
    """Findings may be left out by their ids; an unknown id is wrong use."""
    _, text = told(valkey.tcp_url(), "--no-probe", "--ignore", "memory-unlimited")
    assert "memory-unlimited" not in text

    code, text = told(valkey.tcp_url(), "--ignore", "memory")
    assert code == 2
    assert "there is no finding 'memory'" in text


def test_json(valkey, told):
    """--json prints every finding with its alias, and how many there are."""
    _, text = told(valkey.tcp_url(), "--no-probe", "--json")

    found = json.loads(text)
    (one,) = [each for each in found["findings"] if each["id"] == "memory-unlimited"]
    assert one["alias"] == "default"
    assert found["counts"]["warning"] >= 1


def test_environment(empty, told, monkeypatch):
    """FLEETCACHE_URL names a cache."""
    monkeypatch.setenv("FLEETCACHE_URL", f"{empty}?key_prefix=shop")

    assert told("--no-probe")[0] == 0


def test_all_caches_of_a_module(empty, told, monkeypatch, tmp_path):
    """All caches of a module are examined, also with each other; one whose settings are wrong is a finding."""
    own = own_prefix()
    (tmp_path / "site_of_doctor.py").write_text(
        "CACHES = {"
        f"'outer': {{'LOCATION': '{empty}', 'KEY_PREFIX': '{own}'}},"
        f"'inner': {{'LOCATION': '{empty}', 'KEY_PREFIX': '{own}:1'}},"
        f"'wrong': {{'LOCATION': '{empty}', 'OPTIONS': {{'NEER': True}}}}"
        "}"
    )
    monkeypatch.syspath_prepend(tmp_path)

    code, text = told("--settings", "site_of_doctor", "--no-probe")
    assert code == 1
    assert "prefixes-nested: CACHES['outer']" in text
    assert "settings-refused: CACHES['wrong']" in text

    _, text = told("--settings", "site_of_doctor", "--no-probe", "--alias", "inner")
    assert "prefixes-nested" not in text
    assert told("--settings", "site_of_doctor", "--alias", "none")[0] == 2


def test_manage_py(empty):
    """`manage.py fleetcache doctor` examines the caches of the project that are fleetcache's."""
    entries = {
        "default": {"BACKEND": BACKEND, "LOCATION": empty, "OPTIONS": {"OUTAGE_TTL": 5}, "KEY_PREFIX": own_prefix()},
        "local": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    }
    with override_settings(CACHES=entries, INSTALLED_APPS=["fleetcache.django"]):
        out = StringIO()
        with pytest.raises(SystemExit) as ended:
            call_command("fleetcache", "doctor", "--no-probe", stdout=out)

    assert ended.value.code == 1
    assert "CACHES['default']: OPTIONS['OUTAGE_TTL']" in out.getvalue()
    assert "local" not in out.getvalue()


def test_fleet(empty, told):
    """The processes that publish their figures are taken into account; the doctor itself publishes none."""
    url = f"{empty}?key_prefix=shop"
    code = (
        "import sys; from fleetcache import Cache; from fleetcache.fleet import publishing;"
        "publishing.installed = lambda: sys.argv[2];"
        "cache = Cache(sys.argv[1], {'KEY_PREFIX': 'shop', 'OPTIONS': {'STATS': {'PUBLISH': 60}}}); cache.set('a', 1);"
        "publishing.PUBLISHING.of(cache._common).publish()"
    )
    for version in ("1.0", "2.0"):
        subprocess.run([sys.executable, "-c", code, empty, version], check=True)

    exit_code, text = told(url, "--no-probe", "--json")

    found = {each["id"]: each for each in json.loads(text)["findings"]}
    assert exit_code == 1
    assert "1.0 (1), 2.0 (1)" in found["versions-mixed"]["found"]
    assert "settings-mixed" not in found


def test_server_that_hangs(own, told, monkeypatch):
    """The time is bounded, also for a cache that sets no limit."""
    monkeypatch.setattr("fleetcache.inspection.doctor.asking.PATIENCE", 0.3)
    own.pause()
    began = monotonic()

    code, text = told(f"{own.tcp_url()}?socket_timeout=None&socket_connect_timeout=None")

    assert code == 2
    assert "server-away" in text
    assert "timeout-absent" in text
    assert monotonic() - began < 5


def test_a_server_of_several_caches_is_judged_once(valkey, told, monkeypatch):
    """Its memory is no finding of each of its databases; what is about a database stays with its cache."""
    monkeypatch.setenv("FLEETCACHE_URL", f"{valkey.tcp_url(1)}?outage_ttl=5")
    monkeypatch.setenv("FLEETCACHE_URL_OTHER", f"{valkey.tcp_url(2)}?outage_ttl=5")

    found = json.loads(told("--no-probe", "--json")[1])

    by_id = {}
    for each in found["findings"]:
        by_id.setdefault(each["id"], []).append(each["alias"])
    assert len(by_id["memory-unlimited"]) == 1
    assert sorted(by_id["option-without-effect"]) == ["default", "other"]
    assert found["counts"]["warning"] == sum(each["severity"] == "warning" for each in found["findings"])
