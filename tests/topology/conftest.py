"""Caches on several servers, in both faces."""

from __future__ import annotations

from typing import Any

import pytest
from tests.faces import Face


@pytest.fixture
def fresh(whole: Any, face: str) -> Any:
    """Make a cache that knows nothing of the servers yet, and shows this face."""
    return lambda *args, **options: Face(whole(*args, **options), face)
