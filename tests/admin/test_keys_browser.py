"""Keys in a real browser: found, looked at, changed, deleted, and deleted by pattern."""

from __future__ import annotations

import pytest
from tests.admin import browser
from tests.admin.test_browser import CONTRASTS, press_enter, tab_to, text
from tests.waiting import until

from fleetcache.django.admin import erasing

pytestmark = pytest.mark.newest

COUNT = 30_000

MANY = 90.0
"""How many seconds the server, the site and the browser may take for so many keys on a busy machine."""


@pytest.fixture(scope="module")
def address(valkey):
    """A site with many keys, whose policy lets the site's own scripts ask it."""
    entry = {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": valkey.tcp_url(10), "KEY_PREFIX": "shop"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(browser, "POLICY", f"{browser.POLICY}; connect-src 'self'")
        with browser.served({"default": entry}) as address:
            yield address


@pytest.fixture
def cache(address):
    from django.core.cache import caches

    cache = caches["default"]
    cache.clear()
    yield cache
    cache.clear()


@pytest.fixture(scope="module")
def driver(address):
    with browser.chromium() as driver:
        browser.log_in(driver, address)
        yield driver


def fill(cache, count=COUNT):
    for start in range(0, count, 10_000):
        cache.set_many({f"users:{number}": number for number in range(start, start + 10_000)})


def test_a_key_is_found_changed_and_deleted_by_keyboard(address, driver, cache):
    """From the list to the entry, its lifetime, and its end; the console says nothing."""
    cache.set_many({f"users:{number}": {"number": number} for number in range(250)}, timeout=60)
    browser.said(driver), browser.requested(driver)

    driver.get(f"{address}/admin/fleetcache/keys/")
    assert len(driver.find_elements("css selector", ".fc-table tbody tr")) >= 100
    tab_to(driver, "Next page")
    press_enter(driver)
    until(lambda: "cursor=" in driver.current_url)
    driver.get(f"{address}/admin/fleetcache/keys/?pattern=users:77")
    tab_to(driver, "users:77")
    press_enter(driver)
    until(lambda: "A pickle of protocol 4, of type dict." in text(driver, ".fc-value"))

    field = driver.find_element("id", "seconds")
    field.clear()
    field.send_keys("7200")
    press_enter(driver)
    until(lambda: "From now on it is fresh for: 2 h." in text(driver, ".messagelist"))
    assert 7100 < cache.ttl("users:77") <= 7200

    tab_to(driver, "Delete it…")
    press_enter(driver)
    tab_to(driver, "Delete this entry")
    press_enter(driver)
    until(lambda: "Deleted users:77." in text(driver, ".messagelist"))
    assert cache.get("users:77") is None
    assert browser.said(driver) == []
    assert [url for url in browser.requested(driver) if not url.startswith(address)] == []


def test_keys_are_deleted_by_pattern(address, driver, cache, monkeypatch):
    """Counted, confirmed, and deleted in steps that the page asks for by itself; a reload goes on."""
    fill(cache)
    cache.set("other", 1)
    driver.get(f"{address}/admin/fleetcache/keys/?pattern=users:*")
    tab_to(driver, "Delete by pattern…")
    press_enter(driver)
    until(lambda: driver.find_elements("id", "pattern") and "erase" in driver.current_url)
    assert driver.find_element("id", "pattern").get_attribute("value") == "users:*"

    tab_to(driver, "Count them")
    press_enter(driver)
    until(lambda: text(driver, "#result") == f"{COUNT:,} keys match.", MANY)
    assert cache.get("users:1") == 1
    monkeypatch.setattr(erasing, "BUDGET", 0.05)  # so many steps that the test meets one of them
    tab_to(driver, "Delete them")
    press_enter(driver)
    until(lambda: driver.find_elements("css selector", "#step"))
    driver.refresh()
    until(lambda: "keys were deleted." in text(driver, "#result"), MANY)

    assert cache.get("other") == 1
    assert cache.get_many([f"users:{number}" for number in range(COUNT)]) == {}


def test_a_deletion_is_stopped(address, driver, cache, monkeypatch):
    """What was not reached stays, and the message says how many were deleted."""
    fill(cache, 60_000)
    driver.get(f"{address}/admin/fleetcache/keys/erase/?pattern=users:*")
    tab_to(driver, "Count them")
    press_enter(driver)
    until(lambda: text(driver, "#result") == "60,000 keys match.", MANY)
    monkeypatch.setattr(erasing, "BUDGET", 0.01)  # the browser is slower than the server
    tab_to(driver, "Delete them")
    press_enter(driver)
    until(lambda: driver.find_elements("css selector", "#step"))

    driver.execute_script("document.querySelector('#step button[value=stop]').click()")

    until(lambda: text(driver, ".messagelist").startswith("Stopped."))
    left = len(cache.keys("users:*"))
    assert left > 0
    assert text(driver, ".messagelist") == f"Stopped. {60_000 - left:,} keys were deleted."


def test_text_stands_out(address, driver, cache):
    """In light pages and dark ones, on each of the pages of keys."""
    cache.set("a", {"b": 1}, tags=["blue"], timeout=60)
    cache.hset("hash", "field", 1)
    pages = ("", "?pattern=nothing", "entry/?name=shop:1:a", "entry/?name=shop:1:hash", "erase/")

    for page in pages:
        for dark in (True, False):
            browser.dark(driver, dark)
            driver.get(f"{address}/admin/fleetcache/keys/{page}")
            contrasts = driver.execute_script(CONTRASTS)
            assert len(contrasts) > 5
            assert [each for each in contrasts if each[0] < 4.5] == [], page
            assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
