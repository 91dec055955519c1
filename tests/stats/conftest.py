"""Caches in memory, on a Valkey, and on a Valkey with copies near, and their figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.caches import own_prefix, params
from tests.faces import Face
from tests.near.conftest import Copies

from fleetcache import Cache
from fleetcache.testing import empty_memory

WHERE = ("memory", "valkey", "near")

TIMES = {"load_seconds", "saved"}

Make = Callable[..., Face]


@pytest.fixture(params=WHERE)
def where(request: pytest.FixtureRequest) -> str:
    """Where entries are: in memory, on a server, or on a server with copies near."""
    found: str = request.param
    return found


@pytest.fixture
def copies(valkey: Any, face: str) -> Iterator[Copies]:
    """Make caches with copies near, in both faces, that are live."""
    copies = Copies(valkey, face)
    yield copies
    copies.close()


@pytest.fixture
def make(where: str, face: str, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Make caches there, which show this face."""
    if where == "near":
        copies = Copies(request.getfixturevalue("valkey"), face)
        yield copies
        copies.close()
        return
    url = "memory://stats" if where == "memory" else request.getfixturevalue("valkey").url(9)

    def make(kind: Any = Cache, **options: Any) -> Face:
        return Face(kind(url, params({"KEY_PREFIX": own_prefix(), **options})), face)

    yield make
    empty_memory()


@pytest.fixture
def cache(make: Make) -> Face:
    """A cache of whose keys none has been used."""
    return make()


def figures(cache: Any, group: str = "a") -> dict[str, int]:
    """Return the counts of *group* that are not 0, without the bytes and the times."""
    found = cache.snapshot()["groups"].get(group, {})
    return {name: count for name, count in found.items() if count and name not in TIMES and "bytes" not in name}


def calls(cache: Any) -> dict[str, int]:
    """Return how often each command was called."""
    return {name: each["calls"] for name, each in cache.snapshot()["commands"].items()}
