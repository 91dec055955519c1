"""The panel in a browser: it opens, shows the calls, and unfolds their places."""

from __future__ import annotations

import pytest
from tests.admin import browser
from tests.toolbar.picture import SWITCH, opened, served
from tests.waiting import until

pytestmark = pytest.mark.newest


def test_panel_in_a_browser(valkey):
    """A click opens the panel; another shows where a call was made."""
    with served(valkey.tcp_url()) as address, browser.chromium() as driver:
        find = opened(driver, address)

        assert "Groups" in find("#FleetcachePanel")[0].text
        assert "await get_many" in find("#FleetcachePanel")[0].text
        assert "products:…" in find("#FleetcachePanel")[0].text
        assert "site.py" not in find("#FleetcachePanel")[0].text

        find(SWITCH)[0].click()

        until(lambda: "site.py" in find("#FleetcachePanel")[0].text)
