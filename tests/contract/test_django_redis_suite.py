"""django-redis' own tests pass on fleetcache, with all of its settings, on a Valkey and under a Sentinel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fleetcache.testing import valkey_server
from fleetcache.testing.clusters import Sentinel

from .sdist import unpacked

pytestmark = [pytest.mark.newest, pytest.mark.timeout(600)]

HOME = Path(__file__).parents[2]
PLUGIN = Path(__file__).parent / "django_redis_suite"
BACKEND = "fleetcache.django.RedisCache"
SERVICES = ("127.0.0.1", "default_service")
"""The names by which the settings of the suite know a primary to Sentinels."""

FIRST = ["", "sqlite"]
OTHERS = [f"sqlite_{name}" for name in ("gzip", "herd", "json", "lz4", "msgpack", "usock", "zlib", "zstd")]
OTHERS += ["sqlite_sentinel", "sqlite_sentinel_opts", "sqlite_sharding"]

TESTS, WITHOUT_CACHE = 165, 30
"""The number of tests with each of the settings, and of those without a cache; excluded and skipped ones count."""

SKIPPING = {"sqlite_sharding", "sqlite_herd", "sqlite_gzip", "sqlite_lz4", "sqlite_zlib", "sqlite_zstd"}
"""The settings with which some tests skip themselves, on django-redis too."""

# Most of their time they sleep.
AT_ONCE = 5


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Any]]:
    """Return where a server is, of which each of the settings has a database of its own, and a Sentinel that knows it."""
    with valkey_server() as server:
        lines = [f"monitor {service} 127.0.0.1 {server.port} 1" for service in SERVICES]
        with Sentinel(lines) as sentinel:
            yield {"port": server.port, "socket": str(server.socket), "sentinel": sentinel.port}


def outcome_of(settings: str, servers: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run the suite with *settings* in a process of its own; return the report of the plugin."""
    suite = unpacked("django-redis")
    report = folder / f"{settings or 'none'}.json"
    asked = {**servers, "settings": settings, "backend": BACKEND, "report": str(report)}
    # Its package of tests is called like ours, which may not be on the path.
    path = [suite / "tests", PLUGIN, HOME / "standin", HOME / "src"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
    environment |= {"PYTHONPATH": os.pathsep.join(map(str, path)), "FLEETCACHE_SUITE": json.dumps(asked)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "on_fleetcache", "-p", "no:cacheprovider"]
    command += ["-c", os.devnull, "--rootdir", str(suite), str(suite / "tests")]
    done = subprocess.run(command, cwd=suite, env=environment, capture_output=True, text=True, check=False)
    if not report.exists():
        pytest.fail(f"{' '.join(command)} ended early:\n{done.stdout}{done.stderr}")
    found: dict[str, Any] = json.loads(report.read_text())
    return found


@pytest.mark.few(1)
@pytest.mark.parametrize("chosen", [FIRST, OTHERS], ids=["first", "others"])
def test_django_redis_suite(chosen, servers, tmp_path):
    """No test fails that reads only public attributes; the tests that skip themselves do so on django-redis too."""
    unpacked("django-redis")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = dict(zip(chosen, pool.map(lambda name: outcome_of(name, servers, tmp_path), chosen), strict=True))

    for name, found in outcomes.items():
        counts = {
            kind: found[kind] if kind == "passed" else len(found[kind])
            for kind in ("passed", "failed", "skipped", "excluded")
        }
        print(name or "no cache", counts)
    failed = {test: text for found in outcomes.values() for test, text in found["failed"].items()}
    if failed:
        pytest.fail("\n\n".join(["\n".join(failed), *failed.values()]), pytrace=False)
    for name, found in outcomes.items():
        count = found["passed"] + len(found["skipped"]) + len(found["excluded"])
        assert count == (TESTS if name else WITHOUT_CACHE)
        assert bool(found["skipped"]) is (name in SKIPPING)
