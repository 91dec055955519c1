"""Run one suite of Django's tests on a backend, in a process of its own.

    python -m tests.contract.run SUITE LOCATION...

The backend is ``FLEETCACHE_CONTRACT_BACKEND``, or fleetcache's.  Each location is a store that may
be emptied; ``suites.py`` says how many a suite needs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
import unittest
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from tests.nearby import EVERYWHERE, hits

from .sdist import django_tests
from .suites import SUITES, Suite

OURS = "tests.nearby.NearRedisCache" if EVERYWHERE else "fleetcache.django.RedisCache"
BACKEND = os.environ.get("FLEETCACHE_CONTRACT_BACKEND", OURS)
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
REDIS = "django.core.cache.backends.redis.RedisCache"

Caches = dict[str, dict[str, Any]]


@dataclass
class Outcome:
    """What came of a suite: names of tests, with tracebacks or reasons."""

    backend: str
    run: int
    failed: dict[str, str]
    skipped: dict[str, str]
    excluded: dict[str, str]
    loops: int
    """In how many event loops a suite of a-methods awaited them."""
    hits: int
    """How many reads were answered from a near cache."""

    def __str__(self) -> str:
        lines = [f"{self.backend}: {self.run} run, {self.hits} near hits"]
        for kind in ("failed", "skipped", "excluded"):
            tests: dict[str, str] = getattr(self, kind)
            lines[0] += f", {len(tests)} {kind}"
            lines += (f"  {kind} {name}: {why.strip().splitlines()[-1]}" for name, why in tests.items())
        return "\n".join(lines)

    def details(self) -> str:
        """Return the names of the tests that failed, and then their tracebacks."""
        tracebacks = (f"{test}\n{text}" for test, text in self.failed.items())
        return "\n\n".join((f"{self.backend} failed", "\n".join(self.failed), *tracebacks))


@dataclass
class Substitution:
    """Puts a backend where Django's tests ask for LocMemCache or RedisCache.

    As LocMemCache does, caches share a store if and only if they have the same ``LOCATION``.
    """

    backend: str
    locations: Iterator[str]
    stores: dict[str, str] = field(default_factory=dict)

    def in_caches(self, caches: Caches) -> Caches:
        """Return the setting ``CACHES`` with the backend substituted."""
        return {alias: self._in_one(params) for alias, params in caches.items()}

    def _in_one(self, params: dict[str, Any]) -> dict[str, Any]:
        name = params.get("LOCATION", "")
        # A decorator of a method is entered again whenever the method is called.
        if params.get("BACKEND") not in (LOCMEM, REDIS) or name in self.stores.values():
            return params
        if name not in self.stores:
            self.stores[name] = next(self.locations)
        return {**params, "BACKEND": self.backend, "LOCATION": self.stores[name]}

    def in_overrides(self) -> mock._patch[Any]:
        """Return a patch that substitutes in whatever ``override_settings`` applies."""
        from django.test.utils import override_settings

        original = override_settings.enable

        def substituting(override: override_settings) -> None:
            if "CACHES" in override.options:
                caches = self.in_caches(override.options["CACHES"])
                override.options = {**override.options, "CACHES": caches}
            original(override)

        return mock.patch.object(override_settings, "enable", substituting)


def configure(tests: Path) -> None:
    """Set up Django as its ``runtests.py`` does, with only the applications needed here."""
    sys.path.insert(0, str(tests))
    import django
    import test_sqlite
    from django.conf import settings

    given = {name: value for name, value in vars(test_sqlite).items() if name.isupper()}
    settings.configure(
        **given,
        # cache.tests looks for this when it is imported.
        CACHES={"default": {"BACKEND": REDIS}},
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.sessions",
            "async",
            "cache",
            "sessions_tests",
        ],
        MIGRATION_MODULES={"auth": None, "contenttypes": None, "sessions": None},
        ROOT_URLCONF="urls",
        LANGUAGE_CODE="en",
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    )
    django.setup()

    from django.test.utils import setup_test_environment

    setup_test_environment()


def cases(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """Yield the test cases of a suite, however deep."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from cases(test)
        else:
            yield test


def named(tests: Iterable[tuple[unittest.TestCase, str]]) -> dict[str, str]:
    """Return name -> text of what a test result lists."""
    return {test.id(): text for test, text in tests}


def work(tests: Iterable[unittest.TestCase]) -> unittest.TestResult:
    """Run tests on databases made for them, in this thread, as SQLite wants it."""
    from django.test.runner import DiscoverRunner

    runner = DiscoverRunner(verbosity=0, interactive=False)
    databases = runner.setup_databases()
    try:
        result: unittest.TestResult = runner.run_suite(unittest.TestSuite(tests))
    finally:
        runner.teardown_databases(databases)
    return result


def oversleeping() -> mock._patch[Any]:
    """Return a patch that lengthens sleeps of a second or more a little.

    Tests store something for a second, sleep for a second, and want it gone.  The server counts
    whole milliseconds, and still has it if less than one passed on the way.
    """
    exactly = time.sleep

    def longer(seconds: float) -> None:
        exactly(seconds + 0.02 if seconds >= 1 else seconds)

    return mock.patch("time.sleep", longer)


def run(suite: Suite, locations: Iterable[str]) -> Outcome:
    """Run a suite on ``BACKEND``, in this process, which can then run no other."""
    configure(django_tests())
    from asgiref.sync import sync_to_async
    from cache import tests as cache_tests
    from django.conf import settings
    from redis import ResponseError

    from .awaited import AwaitedCache, AwaitedCaches

    substitution = Substitution(BACKEND, iter(locations))
    settings.CACHES = substitution.in_caches(settings.CACHES)
    # BaseCacheTests wants a TypeError, RedisCacheTests this; users of either have to be served.
    cache_tests.RedisCacheTests.incr_decr_type_error = (TypeError, ResponseError)
    if suite.awaited:
        cache_tests.cache, cache_tests.caches = AwaitedCache("default"), AwaitedCaches()

    loaded = list(cases(unittest.defaultTestLoader.loadTestsFromNames(suite.tests)))
    left_out = {test.id() for test in loaded} & suite.excluded.keys()
    selected = [test for test in loaded if test.id() not in left_out]
    with substitution.in_overrides(), oversleeping():
        result = asyncio.run(sync_to_async(work)(selected)) if suite.under_loop else work(selected)

    return Outcome(
        backend=BACKEND,
        run=result.testsRun,
        failed=named(result.failures + result.errors),
        skipped=named(result.skipped),
        excluded={name: suite.excluded[name] for name in sorted(left_out)},
        loops=len(AwaitedCache.loops),
        hits=hits(),
    )


def main() -> None:
    """Run the suite named on the command line, and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.contract.run", description=__doc__)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("location", nargs="+")
    parser.add_argument("--json", type=Path, help="write the outcome to this file as well")
    options = parser.parse_args()
    suite = SUITES[options.suite]
    if len(options.location) < suite.stores:
        parser.error(f"{options.suite} needs {suite.stores} locations")
    outcome = run(suite, options.location)
    print(outcome)
    if options.json:
        options.json.write_text(json.dumps(asdict(outcome)))
    sys.exit(bool(outcome.failed))


if __name__ == "__main__":
    main()
