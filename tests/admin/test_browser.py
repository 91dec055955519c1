"""The pages in a real browser: under a strict policy, light and dark, with nothing but a keyboard."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from tests.admin import browser
from tests.admin.fleet import publish, tell_history
from tests.admin.test_pages import PAGES, of
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.newest


@pytest.fixture(scope="module")
def address(valkey: Any) -> Iterator[str]:
    """The address of a site with a fleet."""
    with browser.served({"default": of(valkey.url(0)), "other": of("memory://browser")}) as address:
        from django.core.cache import caches

        publish(caches["default"], 60)
        tell_history(caches["default"], 6)
        caches["default"].set("a", 1, tags=["red"])
        yield address


@pytest.fixture(scope="module")
def driver(address: str) -> Iterator[Any]:
    """A browser that has logged in."""
    with browser.chromium() as driver:
        browser.log_in(driver, address)
        assert driver.title.startswith("Site administration")
        yield driver


@pytest.mark.parametrize("page", PAGES)
def test_page_renders(address: str, driver: Any, page: str) -> None:
    """Each page has its styles, asks nobody else for anything, and the console says nothing."""
    browser.said(driver), browser.requested(driver)

    driver.get(f"{address}/admin/fleetcache/{page}/")

    current = driver.find_element("css selector", '.fc-nav [aria-current="page"]')
    assert current.value_of_css_property("border-bottom-style") == "solid"  # the style sheet was accepted
    assert browser.said(driver) == []
    assert [url for url in browser.requested(driver) if not url.startswith(address)] == []
    assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


def test_wide_tables_fit_or_scroll(address: str, driver: Any) -> None:
    """In a window of 1200 pixels the table of groups is as wide as the page; what is wider scrolls by itself."""
    from django.core.cache import caches

    for number in range(3):
        caches["other"].get_or_set(f"products:{number % 2}", lambda: "a" * 2000)
    driver.get(f"{address}/admin/fleetcache/groups/?cache=other")
    usual = driver.execute_script(ROOM)
    assert usual["wide"] <= usual["room"], usual

    driver.get(f"{address}/admin/fleetcache/groups/?cache=default")
    driver.execute_script("document.querySelector('.fc-scroll td').textContent = 'g'.repeat(300)")
    large = driver.execute_script(ROOM)
    assert large["wide"] > large["room"]
    assert large["moved"] == large["wide"] - large["room"]


ROOM = """
const box = document.querySelector(".fc-scroll");
box.style.width = "806px";  // what the sidebar leaves of 1200
box.scrollLeft = 1e6;
return {wide: box.scrollWidth, room: box.clientWidth, moved: box.scrollLeft};
"""


@pytest.mark.parametrize(("width", "page"), [(1300, "workers"), (400, "overview")])
def test_tables_fit_where_they_should(address: str, width: int, page: str) -> None:
    """A window of 1300 pixels has room for each column of workers, and one of 400 for the commands of a cache's card."""
    with browser.chromium() as driver:
        shape = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)
        browser.log_in(driver, address)
        driver.get(f"{address}/admin/fleetcache/{page}/")
        boxes = until(lambda: driver.execute_script(BOXES))

        assert [box for box in boxes if box["wide"] > box["room"]] == []
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width


BOXES = """
return [...document.querySelectorAll(".fc-scroll")].map((box) => ({wide: box.scrollWidth, room: box.clientWidth}));
"""


@pytest.mark.parametrize("page", PAGES)
def test_page_is_dark(address: str, driver: Any, page: str) -> None:
    """Where the browser prefers dark pages, all text stands out from what is behind it, and so it does in light ones."""
    for dark in (True, False):
        browser.dark(driver, dark)
        driver.get(f"{address}/admin/fleetcache/{page}/")

        contrasts = driver.execute_script(CONTRASTS)

        assert (driver.execute_script("return luminance(document.body)") < 0.1) is dark
        assert len(contrasts) > 10
        assert [each for each in contrasts if each[0] < 4.5] == []


CONTRASTS = """
const channels = (color) => color.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const found = channels(getComputedStyle(node).backgroundColor);
    if (found.length < 4 || found[3] > 0) return found;
  }
  return [255, 255, 255];
};
window.luminance = (node) => light(behind(node));
const found = [];
for (const node of document.querySelectorAll('#content-main *')) {
  const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  if (!own || node.closest('svg') || !node.offsetParent) continue;
  const [a, b] = [light(channels(getComputedStyle(node).color)), light(behind(node))];
  found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.tagName, node.textContent.trim().slice(0, 40)]);
}
return found;
"""
"""Returns the contrast of each text with its background (WCAG 2.2: 4.5 at least), what it is and what it says."""


IS_WITHIN = "return !!arguments[0].closest('#content-main')"
"""Whether an element is in the page, not in the admin's frame, which has links of the same names."""


def tab_to(driver: Any, wanted: str) -> Any:
    """Press the tab key until the element of the page with this name has the focus, and return it.

    The page before may still be shown, for as long as a busy machine takes to load this one.
    """
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    presses, deadline = 0, time.monotonic() + PATIENCE
    while presses < 120 or time.monotonic() < deadline:
        presses += 1
        ActionChains(driver).send_keys(Keys.TAB).perform()
        with suppress(StaleElementReferenceException):
            focused = driver.switch_to.active_element
            name = focused.get_attribute("aria-label") or focused.text
            if name.strip().lower() == wanted.lower() and driver.execute_script(IS_WITHIN, focused):
                return focused
    raise AssertionError(f"the tab key does not reach {wanted!r}")


def text(driver: Any, selector: str) -> str:
    """Return the text of the first element that *selector* finds, "" if there is none, as while a page is loaded."""
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

    try:
        found: str = driver.find_element("css selector", selector).text
    except (NoSuchElementException, StaleElementReferenceException):
        return ""
    return found


def press_enter(driver: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    ActionChains(driver).send_keys(Keys.ENTER).perform()


def test_pages_are_reached_by_keyboard(address: str, driver: Any) -> None:
    """The tab key goes through the pages in their order, shows where it is, and enter opens one and sorts a table."""
    driver.get(f"{address}/admin/fleetcache/overview/")

    order = [link.text for link in driver.find_elements("css selector", ".fc-nav a")]
    link = tab_to(driver, order[0])
    reached = [link.text]
    for name in order[1:]:
        focused = tab_to(driver, name)
        reached.append(focused.text)
        assert focused.value_of_css_property("outline-style") == "solid"
    assert reached == order

    driver.get(f"{address}/admin/fleetcache/overview/")
    tab_to(driver, "Workers")
    press_enter(driver)
    until(lambda: driver.current_url.startswith(f"{address}/admin/fleetcache/workers/"))
    tab_to(driver, "Memory")
    press_enter(driver)
    until(lambda: text(driver, "th[aria-sort]").lower() == "memory ▼")
    tab_to(driver, "Next")
    press_enter(driver)
    until(lambda: "Page 2 of 2" in text(driver, ".fc-pages"))


def test_a_tag_is_invalidated_by_keyboard(address: str, driver: Any) -> None:
    """A button asks first, and its answer has the focus."""
    from django.core.cache import caches

    caches["default"].set("shirt", 1, tags=["blue"])
    driver.get(f"{address}/admin/fleetcache/tags/")

    tab_to(driver, "Invalidate blue")
    press_enter(driver)
    until(lambda: text(driver, ".fc-danger") == "Invalidate")
    until(lambda: driver.switch_to.active_element.text == "Invalidate")
    assert caches["default"].get("shirt") == 1
    press_enter(driver)

    until(lambda: "The tag blue was invalidated." in text(driver, ".messagelist"))
    assert caches["default"].get("shirt") is None
