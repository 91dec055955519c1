"""The permissions of the admin pages, on a model without a table.

Django creates permissions only for models.  So there is one, which is unmanaged: no migration makes a table for it, and
its manager finds no rows, since ``dumpdata`` asks unmanaged models for theirs.

It is made when Django asks for the models of this app: a module with a model could not be imported without a project.
"""

from __future__ import annotations

from functools import cache as memoized
from typing import Any

from django.db import models

PERMISSIONS = {
    "view_cache": "Can view the pages of caches",
    "view_keys": "Can see keys in full, values, and arguments of commands",
    "unpickle_value": "Can see values that have to be unpickled",
    "change_key": "Can change the lifetime of keys",
    "delete_key": "Can delete keys, and invalidate tags",
    "clear_cache": "Can clear a cache, and delete keys by pattern",
}
"""The permissions by their codenames."""


class NoRows(models.Manager):
    """A manager that asks no database, and finds nothing."""

    def get_queryset(self) -> Any:
        """Return no rows."""
        return super().get_queryset().none()


def __getattr__(name: str) -> Any:
    """Return the model by its name: ``manage.py shell`` imports every model, and complains if one is not there."""
    if name == "Cache":
        return permitted()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@memoized
def permitted() -> Any:
    """Return the model that the permissions are about; the first call, by this app's config, tells Django of it."""

    class Cache(models.Model):
        """A cache; no row of it is stored."""

        alias = models.CharField(max_length=100, primary_key=True)

        objects = NoRows()

        class Meta:
            """Without a table."""

            app_label = "fleetcache"
            managed = False
            base_manager_name = "objects"
            default_permissions = ()
            permissions = tuple(PERMISSIONS.items())

        def __str__(self) -> str:
            return str(self.alias)

    return Cache
