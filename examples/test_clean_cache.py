"""Tests of a site without a server: each begins with an empty cache, and may turn the clock."""

import time

import pytest

from fleetcache import Cache
from fleetcache.testing import empty_memory

# In Django: CACHES["default"]["LOCATION"] = "memory://tests", in the tests' settings.
cache = Cache("memory://tests")


@pytest.fixture(autouse=True)
def _clean_cache():
    """Empty every ``memory://`` of the process; in Django it stands in conftest.py."""
    empty_memory()


def visits() -> int:
    """Count a visit; the count is forgotten after an hour."""
    return cache.incr("visits", default=0, timeout=3600)


def test_visits_are_counted():
    assert [visits(), visits()] == [1, 2]


def test_each_test_begins_with_an_empty_cache():
    assert visits() == 1


def test_an_hour_later(monkeypatch):
    """Entries of ``memory://`` expire by `time.time`; freezegun and time-machine turn it as well."""
    visits()
    later = time.time() + 3601

    monkeypatch.setattr(time, "time", lambda: later)

    assert visits() == 1
