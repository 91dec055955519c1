"""``INSTALLED_APPS = ["fleetcache.django"]``: optional; it adds the system checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import Tags, register


class FleetcacheConfig(AppConfig):
    """Registers the checks."""

    name = "fleetcache.django"
    label = "fleetcache"
    verbose_name = "fleetcache"

    def ready(self) -> None:
        from fleetcache.django.checks import check_caches

        register(check_caches, Tags.caches)
