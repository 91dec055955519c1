"""Caches on several servers, in both faces."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.faces import Face

from fleetcache.topology import cluster, replicas


@pytest.fixture
def fresh(whole: Any, face: str) -> Any:
    """Make a cache that knows nothing of the servers yet, and shows this face."""
    return lambda *args, **options: Face(whole(*args, **options), face)


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Put the clock of the topologies forward by some seconds, in place of sleeping."""
    ahead = 0.0

    def pass_time(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds

    for module in (cluster, replicas):
        monkeypatch.setattr(module, "monotonic", lambda: time.monotonic() + ahead)
    return pass_time
