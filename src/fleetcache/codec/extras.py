"""Libraries that only some serializers and compressors need: the extras of fleetcache's distribution."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fleetcache.errors import SettingsError


def library(module: str, *, extra: str) -> Any:
    """Import an optional *module*, or say which extra brings it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise SettingsError(
            f"{module} is not installed. Fleetcache's extra {extra!r} brings it: pip install '.[{extra}]' in a checkout"
        ) from error
