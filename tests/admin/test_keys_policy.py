"""Deletion by pattern under a policy that lets no script ask anything; a site of its own, since it logs everybody out."""

from __future__ import annotations

import pytest
from tests.admin import browser
from tests.admin.test_browser import press_enter, tab_to, text
from tests.waiting import until

pytestmark = pytest.mark.newest


def test_a_strict_policy_only_costs_the_smoothness(valkey):
    """Where a policy forbids the script to ask, the page itself goes on."""
    entry = {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": valkey.tcp_url(9), "KEY_PREFIX": "strict"}
    with browser.served({"default": entry}) as address, browser.chromium() as driver:
        from django.core.cache import caches

        for start in range(0, 20_000, 10_000):
            caches["default"].set_many({f"users:{number}": number for number in range(start, start + 10_000)})
        browser.log_in(driver, address)
        driver.get(f"{address}/admin/fleetcache/keys/erase/?pattern=users:*")
        tab_to(driver, "Count them")
        press_enter(driver)
        until(lambda: text(driver, "#result") == "20,000 keys match.")
        tab_to(driver, "Delete them")
        press_enter(driver)
        until(lambda: text(driver, "#result") == "20,000 keys were deleted.")
