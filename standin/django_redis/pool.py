from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings

from fleetcache.kinds import imported
from fleetcache.pool import ConnectionFactory, SentinelConnectionFactory

__all__ = ["ConnectionFactory", "SentinelConnectionFactory", "get_connection_factory"]


def get_connection_factory(options: Mapping[str, Any]) -> ConnectionFactory:
    """Return the factory that *options* name, or the project's settings."""
    named = options.get("CONNECTION_FACTORY") or getattr(settings, "DJANGO_REDIS_CONNECTION_FACTORY", None)
    factory: ConnectionFactory = imported(named or ConnectionFactory)(options)
    return factory
