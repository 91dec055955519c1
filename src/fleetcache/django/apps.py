"""``INSTALLED_APPS = ["fleetcache.django"]``: optional; it adds the system checks, and pages to the admin."""

from __future__ import annotations

from django.apps import AppConfig, apps
from django.core.checks import Tags, register


class FleetcacheConfig(AppConfig):
    """Registers the checks, and the pages of the admin."""

    name = "fleetcache.django"
    label = "fleetcache"
    verbose_name = "fleetcache"

    def import_models(self) -> None:
        super().import_models()
        self.models_module.permitted()

    def ready(self) -> None:
        from fleetcache.django.checks import check_caches
        from fleetcache.fleet.publishing import PUBLISHING

        PUBLISHING.usually(10.0)
        register(check_caches, Tags.caches)
        from django.contrib.admin.apps import AdminConfig  # above, Django would take it for the config of this app

        if isinstance(apps.app_configs.get("admin"), AdminConfig):  # a SimpleAdminConfig finds nothing by itself
            from django.contrib.admin import site

            from fleetcache.django import admin

            admin.register(site)
