"""What is refused to whom, when it is tried from outside: by any method, with and without the token of a form."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import CacheKeyWarning
from django.test import Client
from tests.admin.site import client, site, user
from tests.admin.test_pages import of, see

SECRET = "hidden:customer-4711"
METHODS = ("get", "head", "post", "put", "patch", "delete", "options", "trace")


@pytest.fixture(autouse=True)
def cache() -> Iterator[Any]:
    """The cache of a site, with an entry whose key and tag nobody shall see."""
    from django.core.cache import caches

    with site({"default": of("memory://permissions")}):
        cache = caches["default"]
        cache.set(SECRET, "value", tags=[SECRET])
        cache.get(SECRET)
        cache.lock(f"{SECRET}:lock", timeout=60).acquire()
        yield cache


def addresses() -> list[str]:
    """Return the address of every view of every page that the admin has, those with parts too."""
    from django.contrib import admin

    from fleetcache.django.admin.site import Page

    found = []
    for page in admin.site._registry.values():
        if isinstance(page, Page):
            for pattern in page.urls:
                parts = dict.fromkeys(pattern.pattern.converters, "1")
                route = str(pattern.pattern)
                for part in parts:
                    route = "/".join(
                        "1" if part in word and word.startswith("<") else word for word in route.split("/")
                    )
                found.append(f"/admin/fleetcache/{page.slug}/{route}")
    return found


def shows(answer: Any) -> bool:
    """Whether *answer* has what nobody shall see."""
    content = b"".join(answer.streaming_content) if answer.streaming else answer.content
    return b"customer-4711" in content


def test_every_page_is_among_the_addresses() -> None:
    """The tests below try them all."""
    assert len(addresses()) >= 8
    for address in addresses():
        assert client("view_cache").get(address).status_code in {200, 302, 400, 403, 404, 405}, address


@pytest.mark.parametrize("method", METHODS)
def test_strangers_are_sent_to_log_in(method: str) -> None:
    """Anonymous users, users who are no staff, and staff who have left, get no page by any method."""
    gone = user(superuser=True)
    strangers = [Client(), client(superuser=True, staff=False), Client()]
    strangers[2].force_login(gone)
    type(gone).objects.filter(pk=gone.pk).update(is_active=False)

    for address in addresses():
        for stranger in strangers:
            answer = getattr(stranger, method)(address)

            assert answer.status_code == 302, (address, answer)
            assert answer["Location"].startswith("/admin/login/?next=")
            assert not shows(answer)


@pytest.mark.parametrize("method", METHODS)
def test_staff_without_the_permission_is_refused(method: str) -> None:
    """Other permissions, of Django or of fleetcache, do not open a page."""
    plain = client()
    others = client("view_keys", "change_key", "delete_key", "clear_cache", "unpickle_value")

    for address in addresses():
        for browser in (plain, others):
            answer = getattr(browser, method)(address, {"cache": "default"} if method in {"get", "post"} else None)

            assert answer.status_code == 403, (address, answer)
            assert not shows(answer)
    assert b"fleetcache" not in plain.get("/admin/").content.replace(b"fleetcache.django", b"")


def test_viewers_see_no_keys() -> None:
    """With the permission to view pages alone, no page shows a key, a tag or an argument."""
    viewer, seer = client("view_cache"), client("view_cache", "view_keys")

    for address in addresses():
        assert not shows(viewer.get(address, {"cache": "default"})), address
    for page in ("groups", "tags", "held"):
        assert "customer-4711" in see(seer, page), page


def test_viewers_cannot_guess_keys_by_searching(cache: Any) -> None:
    """Where keys are masked, what is found is the same for any search."""
    viewer, seer = client("view_cache"), client("view_cache", "view_keys")

    for page, right, wrong in (("tags", "customer-4", "customer-5"), ("held", "hidden:c*", "hidden:d*")):
        assert not found_none(viewer, page, q=right) and not found_none(viewer, page, q=wrong), page
        assert not found_none(seer, page, q=right) and found_none(seer, page, q=wrong), page


def found_none(who: Client, page: str, **query: Any) -> bool:
    """Whether *page* has no row."""
    return bool(re.search("No tag was found|No lock is held", see(who, page, **query)))


def test_the_log_holds_no_control_characters(cache: Any) -> None:
    """PostgreSQL refuses a text with a zero byte, so the log has an escape."""
    from django.contrib.admin.models import LogEntry

    form = {"cache": "default", "act": "invalidate", "tag": "a\x00b", "confirmed": "yes"}
    warnings.simplefilter("ignore", CacheKeyWarning)

    assert client("view_cache", "delete_key").post("/admin/fleetcache/tags/", form).status_code == 302
    assert LogEntry.objects.latest("pk").change_message == "Invalidated the tag a\\x00b"


def test_viewers_change_nothing(cache: Any) -> None:
    """An act is refused without its own permission, whatever the form said, and confirmed or not."""
    viewer = client("view_cache", "view_keys", "change_key", "clear_cache")
    form = {"cache": "default", "act": "invalidate", "tag": SECRET}

    for more in ({}, {"confirmed": "yes"}):
        assert viewer.post("/admin/fleetcache/tags/", {**form, **more}).status_code == 403
    assert cache.get(SECRET) == "value"
    assert "Invalidate" not in see(viewer, "tags")


def test_an_act_needs_the_token_of_its_form(cache: Any) -> None:
    """Another site cannot send the form of a user who has logged in, be he a superuser."""
    form = {"cache": "default", "act": "invalidate", "tag": SECRET, "confirmed": "yes"}
    boss = client(superuser=True, csrf=True)

    assert boss.post("/admin/fleetcache/tags/", form).status_code == 403
    assert boss.post("/admin/fleetcache/doctor/", {"cache": "default", "act": "probe"}).status_code == 403
    assert cache.get(SECRET) == "value"


def test_nothing_is_changed_by_a_link(cache: Any) -> None:
    """A GET that looks like an act is a GET."""
    boss = client(superuser=True)
    form = {"cache": "default", "act": "invalidate", "tag": SECRET, "confirmed": "yes"}

    assert boss.get("/admin/fleetcache/tags/", form).status_code == 200
    assert cache.get(SECRET) == "value"


def test_an_act_asks_first_and_is_logged(cache: Any) -> None:
    """A tag is invalidated after a confirmation, by a user with the permission; the admin's log has it."""
    from django.contrib.admin.models import LogEntry

    deleter = client("view_cache", "delete_key")
    form = {"cache": "default", "act": "invalidate", "tag": SECRET, "version": "1"}

    asked = deleter.post("/admin/fleetcache/tags/", form)
    assert asked.status_code == 200
    assert b'name="confirmed" value="yes"' in asked.content
    assert cache.get(SECRET) == "value"
    done = deleter.post("/admin/fleetcache/tags/", {**form, "confirmed": "yes"})

    assert (done.status_code, done["Location"]) == (302, "/admin/fleetcache/tags/?cache=default")
    assert cache.get(SECRET) is None
    noted = LogEntry.objects.latest("pk")
    assert (noted.object_id, noted.content_type.model) == ("default", "cache")
    assert SECRET in noted.change_message
    assert deleter.get("/admin/").status_code == 200  # which shows the log


@pytest.mark.parametrize("page", ["tags", "doctor"])
def test_unknown_acts_and_caches(page: str) -> None:
    """What is not there is 404, and a method that a page does not have 405."""
    boss = client(superuser=True)

    assert boss.post(f"/admin/fleetcache/{page}/", {"cache": "default", "act": "__init__"}).status_code == 404
    assert boss.post(f"/admin/fleetcache/{page}/", {"cache": "default"}).status_code == 404
    assert boss.post(f"/admin/fleetcache/{page}/", {"cache": "no", "act": "probe"}).status_code == 404
    assert boss.get(f"/admin/fleetcache/{page}/", {"cache": "no"}).status_code == 404
    assert boss.put(f"/admin/fleetcache/{page}/").status_code == 405
    assert boss.post("/admin/fleetcache/groups/").status_code == 405


@pytest.mark.few(4)
@pytest.mark.parametrize("text", ["\x00", "<script>", "%", "9" * 30, "a" * 5000, "*" * 300, "ÿ", "\\", "[", "-1"])
def test_any_parameter_is_answered(text: str) -> None:
    """Nothing that stands in an address breaks a page, or comes back unquoted."""
    boss = client(superuser=True)

    for address in addresses():
        for name in ("q", "cursor", "sort", "p", "hours", "host", "pid", "name", "leases", "locks"):
            answer = boss.get(address, {name: text})
            assert answer.status_code in {200, 302, 400, 404, 405}, (address, name, answer)
            assert b"<script>" not in answer.content
