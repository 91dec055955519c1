"""The pages of the admin: who may see them, and that each is there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.admin.site import client, site

from fleetcache.django.models import PERMISSIONS

CACHES = {
    "default": {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": "memory://admin"},
    "other": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
}


@pytest.fixture(autouse=True)
def _site() -> Iterator[None]:
    with site(CACHES):
        yield


def test_migrate_makes_the_permissions_and_no_table() -> None:
    """The permissions are there after ``migrate``, though there is neither a migration nor a table."""
    from django.contrib.auth.models import Permission
    from django.db import connection

    made = Permission.objects.filter(content_type__app_label="fleetcache")

    assert {each.codename: each.name for each in made} == PERMISSIONS
    assert not [table for table in connection.introspection.table_names() if "fleetcache" in table]


def test_index_lists_the_pages() -> None:
    """The index of the admin has a link to each page."""
    answer = client("view_cache").get("/admin/")

    assert b'href="/admin/fleetcache/overview/"' in answer.content


def test_overview() -> None:
    """The caches of fleetcache have rows, others are named."""
    answer = client("view_cache").get("/admin/fleetcache/overview/")

    assert answer.status_code == 200
    assert b"Not fleetcache: <code>other</code>" in answer.content
