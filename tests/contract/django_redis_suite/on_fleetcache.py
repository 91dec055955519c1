"""A plugin of pytest that runs django-redis' own tests on fleetcache, with one of their modules of settings.

django-redis' package is fleetcache's stand-in of that name, so ``isinstance`` holds.  The environment says the rest:
``FLEETCACHE_SUITE`` is a JSON object with the ``settings`` (the name of the module; "" for the tests without a
cache), the ``backend``, where the servers are (``port``, ``sentinel``, ``socket``), and the ``report`` to write.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

ASKED = json.loads(os.environ["FLEETCACHE_SUITE"])
MODULE = f"settings.{ASKED['settings'] or 'sqlite'}"

NO_CLIENT_BENEATH = "replaces the client that a RedisCache of django-redis passes its calls on to"
NO_FACTORY = "reads cache.client.connection_factory, which is not there (docs/migration.md)"
HALF_MADE = "makes a client without its __init__, and sets private attributes"
OF_DJANGO = "SettingsError becomes ImproperlyConfigured only where Django makes the cache"

EXCLUDED = {
    "test_backend.py::TestDjangoRedisCache": {
        "test_delete_pattern_with_custom_count": NO_CLIENT_BENEATH,
        "test_delete_pattern_with_settings_default_scan_count": NO_CLIENT_BENEATH,
        "test_close_client": NO_CLIENT_BENEATH,
        "test_close_uninitialized_client": NO_CLIENT_BENEATH,
        "test_close_with_signal_parameter": NO_CLIENT_BENEATH,
        "test_intenum[sqlite_msgpack]": "fails on django-redis itself: MessagePack reads an integer back",
        "test_set_call_empty_pipeline": "replaces the method of redis-py's pipeline that django-redis calls",
        "test_primary_replica_switching": "sets cache.client._clients",
        "test_primary_replica_switching_with_index": "sets cache.client._clients",
    },
    "test_client.py::TestClientClose": {
        "test_close_client_disconnect_default": NO_FACTORY,
        "test_close_disconnect_settings": NO_FACTORY,
        "test_close_disconnect_settings_cache": NO_FACTORY,
        "test_close_disconnect_client_options": NO_FACTORY,
    },
    "test_client.py::TestDefaultClient": {
        "test_delete_pattern_calls_get_client_given_no_client": HALF_MADE,
        "test_delete_pattern_calls_make_pattern": HALF_MADE,
        "test_delete_pattern_calls_pipeline_delete_and_execute": HALF_MADE,
        "test_delete_pattern_calls_scan_iter_with_count_if_itersize_given": HALF_MADE,
    },
    "test_client.py::TestShardClient": {
        "test_delete_pattern_calls_delete_for_given_keys": HALF_MADE,
        "test_delete_pattern_calls_scan_iter": HALF_MADE,
        "test_delete_pattern_calls_scan_iter_with_count_if_itersize_given": HALF_MADE,
    },
    "test_connection_factory.py": {"test_sentinel_connection_factory_requires_sentinels": OF_DJANGO},
    "test_serializers.py::TestPickleSerializer": {
        "test_invalid_pickle_version_provided": OF_DJANGO,
        "test_setup_pickle_version_too_high": OF_DJANGO,
        "test_setup_pickle_version_not_explicitly_specified": "reads PickleSerializer._pickle_version",
    },
}
"""Tests that are left out, because they read attributes that are private to django-redis: place -> name -> reason."""

NO_MODULE = {"test_hashring.py": "django_redis.hash_ring is not there (docs/migration.md)"}
"""Files that are left out: name -> reason."""

REPORT: dict[str, Any] = {"passed": 0, "failed": {}, "skipped": {}, "excluded": {}}


def in_place(setting: Any) -> Any:
    """Return a value of the setting ``CACHES`` with the addresses of the servers that run."""
    if isinstance(setting, dict):
        return {name: in_place(value) for name, value in setting.items()}
    if isinstance(setting, list):
        return [in_place(value) for value in setting]
    if setting == ("127.0.0.1", 26379):
        return ("127.0.0.1", ASKED["sentinel"])
    if isinstance(setting, str):
        # One setting has the old notation host:port:db, with which django-redis 7 cannot connect either.
        setting = setting.replace(":6379:1", ":6379?db=1").replace("/tmp/redis.sock", ASKED["socket"])
        return setting.replace("127.0.0.1:6379", f"127.0.0.1:{ASKED['port']}")
    return setting


def pytest_configure() -> None:
    """Set Django up with the settings in question."""
    os.environ["DJANGO_SETTINGS_MODULE"] = MODULE
    module = importlib.import_module(MODULE)
    module.CACHES = in_place(module.CACHES)
    for cache in module.CACHES.values():
        cache["BACKEND"] = ASKED["backend"]
    importlib.import_module("django").setup()
    # The tests read these to know what they must skip.
    from fleetcache.cache import Cache

    Cache._serializer = property(lambda cache: cache.codec.serializer)
    Cache._has_compression_enabled = lambda cache: bool(cache.settings.options.given.get("COMPRESSOR"))
    REPORT["caches"] = module.CACHES


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out files that import what is not there."""
    return collection_path.name in NO_MODULE or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of other settings, and those that are excluded."""
    chosen, others = [], []
    for item in items:
        place, _, name = item.nodeid.removeprefix("tests/").rpartition("::")
        wanted = getattr(item, "callspec", SimpleNamespace(params={})).params.get("cache_settings", "")
        reasons = EXCLUDED.get(place, {})
        reason = reasons.get(name) or reasons.get(name.partition("[")[0])
        if wanted == ASKED["settings"] and reason:
            REPORT["excluded"][f"{place}::{name}"] = reason
        (chosen if wanted == ASKED["settings"] and not reason else others).append(item)
    items[:] = chosen
    config.hook.pytest_deselected(items=others)


def pytest_runtest_setup() -> None:
    """Give each test the settings and a cache of its own: some of them change what others read."""
    from asgiref.local import Local
    from django.conf import settings
    from django.core.cache import caches, close_caches

    close_caches()
    settings.CACHES = copy.deepcopy(REPORT["caches"])
    caches._settings = caches.settings = caches.configure_settings(None)
    caches._connections = Local(caches.thread_critical)
    caches["default"]  # noqa: B018 - some tests delete it


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what became of a test."""
    if report.failed:
        REPORT["failed"][report.nodeid] = report.longreprtext
    elif report.skipped:
        REPORT["skipped"][report.nodeid] = report.longrepr[2]
    else:
        REPORT["passed"] += report.when == "call"


def pytest_sessionfinish() -> None:
    """Write the report."""
    Path(ASKED["report"]).write_text(json.dumps(REPORT))


@pytest.fixture
def mocker() -> Iterator[SimpleNamespace]:
    """What the tests use of pytest-mock."""
    with ExitStack() as stack:
        patch = SimpleNamespace(object=lambda target, name: stack.enter_context(mock.patch.object(target, name)))
        yield SimpleNamespace(patch=patch)
