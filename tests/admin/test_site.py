"""The admin of a project: what it takes to have the pages, and in which projects they work."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.test import AsyncClient
from tests.admin.fleet import tell_history
from tests.admin.site import client, site, user
from tests.admin.test_pages import PAGES, of, see

from fleetcache.django.models import PERMISSIONS

OTHER = {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}


@pytest.fixture(autouse=True)
def _site() -> Iterator[None]:
    with site({"default": of("memory://site"), "other": OTHER}):
        yield


def test_migrate_makes_the_permissions_and_no_table() -> None:
    """The permissions are there after ``migrate``, though there is neither a migration nor a table."""
    from django.contrib.auth.models import Permission
    from django.db import connection

    made = Permission.objects.filter(content_type__app_label="fleetcache")

    assert {each.codename: each.name for each in made} == PERMISSIONS
    assert not [table for table in connection.introspection.table_names() if "fleetcache" in table]


def test_commands_do_not_miss_the_table() -> None:
    """Whatever goes through all models finds no row of this one: it has no table."""
    written, said = io.StringIO(), io.StringIO()

    call_command("dumpdata", stdout=written)
    call_command("dumpdata", "fleetcache", use_base_manager=True, stdout=said)
    call_command("makemigrations", check_changes=True, dry_run=True, stdout=said)
    call_command("check", stdout=said)
    call_command("remove_stale_contenttypes", interactive=False, stdout=said)

    assert {"auth.permission", "contenttypes.contenttype"} <= {each["model"] for each in json.loads(written.getvalue())}
    assert said.getvalue().startswith("[]")
    assert "No changes detected" in said.getvalue()
    assert client("view_cache").get("/admin/fleetcache/overview/").status_code == 200


def test_index_lists_the_pages() -> None:
    """The index of the admin, and that of the app, have a link to each page."""
    browser = client("view_cache", "view_keys")

    for address in ("/admin/", "/admin/fleetcache/"):
        answer = browser.get(address)
        for page in PAGES:
            assert f'href="/admin/fleetcache/{page}/"'.encode() in answer.content


def test_other_caches_are_named() -> None:
    """The first page says which caches are not fleetcache's."""
    assert "Not fleetcache: other ." in see(client("view_cache"), "overview")


def test_an_admin_of_its_own() -> None:
    """Another ``AdminSite`` has the pages too, and its links stay within it."""
    answer = client("view_cache").get("/staff/fleetcache/workers/")

    assert answer.status_code == 200
    assert b'href="/staff/fleetcache/groups/?cache=default"' in answer.content
    assert b"/admin/" not in answer.content.replace(b"/static/admin/", b"").replace(b"fleetcache/admin.css", b"")


def test_simple_admins_are_left_alone() -> None:
    """A project that does not want its admin to find pages by itself has none until it asks for them."""
    from django.contrib import admin

    from fleetcache.django.admin import register
    from fleetcache.django.admin.site import Page

    kept = dict(admin.site._registry)
    admin.site._registry.clear()
    try:
        apps = ["django.contrib.admin.apps.SimpleAdminConfig", *_apps()[1:]]
        with site({"default": of("memory://site")}, INSTALLED_APPS=apps):
            assert not any(isinstance(page, Page) for page in admin.site._registry.values())
            register(admin.site)
            register(admin.site)
            assert sum(isinstance(page, Page) for page in admin.site._registry.values()) >= len(PAGES)
    finally:
        admin.site._registry.clear()
        admin.site._registry.update(kept)


def _apps() -> list[str]:
    from django.conf import settings

    return list(settings.INSTALLED_APPS)


@pytest.mark.parametrize("settings", [
    {"USE_I18N": False},
    {"LANGUAGE_CODE": "de", "USE_THOUSAND_SEPARATOR": True},
    {"LANGUAGE_CODE": "ar", "USE_THOUSAND_SEPARATOR": True},
    {"USE_TZ": False},
])  # fmt: skip
@pytest.mark.parametrize("page", PAGES)
def test_languages_do_not_bend_pictures(settings: dict[str, Any], page: str) -> None:
    """In no language, and without any, the numbers in pictures have other signs than browsers read."""
    with site({"default": of("memory://site")}, **settings):
        from django.core.cache import caches

        tell_history(caches["default"], 6)
        content = client(superuser=True).get(f"/admin/fleetcache/{page}/").content.decode()
    content = content[content.index('id="content-main"') : content.index('id="footer"')]

    for name in ("width", "height", "x", "y"):
        for part in content.split(f' {name}="')[1:]:
            assert float(part.split('"')[0]) >= 0
    assert page != "overview" or content.count("<rect") > 100


@pytest.mark.parametrize("page", PAGES)
async def test_pages_under_asgi(page: str) -> None:
    """The pages work in an asynchronous deployment."""
    from asgiref.sync import sync_to_async

    browser = AsyncClient()
    await sync_to_async(call_command)("migrate", verbosity=0)  # a thread has a database of its own
    await browser.aforce_login(await sync_to_async(user)("view_cache", "view_keys"))

    try:
        answer = await browser.get(f"/admin/fleetcache/{page}/")
    finally:
        await sync_to_async(_close)()

    assert answer.status_code == 200


def _close() -> None:
    """Close the database of this thread, which Django keeps open since it is in memory."""
    from django.db import connection

    connection.connection.close()
    connection.connection = None


def test_settings_that_are_wrong() -> None:
    """A cache whose settings are refused has a sentence, and the others their figures."""
    broken = of("memory://site", COMPRESSOR="none there")
    with site({"broken": broken, "default": of("memory://site")}):
        text = see(client("view_cache"), "overview")
        assert "The settings of this cache are wrong" in text
        assert "0 reads since" in text
        for page in PAGES:
            assert "wrong" in see(client(superuser=True), page, cache="broken") or page == "overview"


def test_the_model_can_be_imported_by_its_name() -> None:
    """``manage.py shell`` imports every model by its name, and names those that it cannot import."""
    with site({"default": of("memory://site")}):
        from django.apps import apps
        from django.utils.module_loading import import_string

        model = apps.get_model("fleetcache", "Cache")
        assert import_string(f"{model.__module__}.{model.__name__}") is model
        with pytest.raises(ImportError):
            import_string(f"{model.__module__}.Nothing")


def test_statistics_that_are_off() -> None:
    """Without STATS there are no figures, and the pages say so."""
    with site({"default": of("memory://site", STATS=False)}):
        for page in ("overview", "groups", "workers"):
            assert "OPTIONS['STATS'] is off" in see(client("view_cache"), page)
        for page in PAGES:
            see(client(superuser=True), page)


def test_a_project_without_fleetcache() -> None:
    """With no cache of fleetcache in CACHES, each page says that."""
    with site({"default": OTHER}):
        for page in PAGES:
            assert "No cache in CACHES" in see(client(superuser=True), page)
