"""For serializers and compressors: reading their options, and importing libraries that may not be installed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from fleetcache.errors import SettingsError


def whole(options: Mapping[str, Any], name: str, default: int, *, least: int | None = None) -> int:
    """Return option *name*, a whole number of at least *least*; *default* if the option is None or left out."""
    found = options.get(name)
    try:
        number = default if found is None else int(found)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise SettingsError(f"{name} has to be a whole number, not {found!r}") from error
    if least is not None and number < least:
        raise SettingsError(f"{name} has to be at least {least}, not {found!r}")
    return number


def library(module: str, *, extra: str) -> Any:
    """Import an optional *module*, or raise an error that names the extra to install."""
    try:
        return import_module(module)
    except ImportError as error:
        raise SettingsError(
            f"{module} is not installed. Fleetcache's extra {extra!r} brings it: pip install '.[{extra}]' in a checkout"
        ) from error
