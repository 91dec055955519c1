"""Makes the pictures of the admin's pages, ``python -m docs.screenshots``, and that of the demo's report: ``… demo``.

For the admin it runs a site on a Valkey of its own, with a fleet of 60 workers that is not there, and a Chromium that
looks at it.  The demo's picture shows the report of the last ``make demo``.
"""

from __future__ import annotations

import sys
import threading  # noqa: TID251 - a loader that takes long, in a thread of its own
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.admin import browser
from tests.admin.fleet import publish, tell_history
from tests.admin.test_pages import of
from tests.waiting import until

from fleetcache.testing import valkey_server

PICTURES = Path(__file__).parent / "pictures"

LARGEST = 120_000
"""The most bytes of a picture."""

SHOTS: dict[str, tuple[str, bool, int]] = {
    # The picture: the page, whether it is dark, and the height of the window.  "{prefix}" is that of the cache.
    "admin-caches": ("overview/", False, 960),
    "admin-caches-dark": ("overview/", True, 960),
    "admin-workers": ("workers/?host=web-1", False, 760),
    "admin-groups": ("groups/", False, 900),
    "admin-worker": ("workers/one/?cache=default&host=web-1&pid=1000", False, 1100),
    "admin-keys": ("keys/?pattern=products:*", False, 700),
    "admin-key": ("keys/entry/?name={prefix}:1:products:7", True, 1040),
    "admin-keys-erase": ("keys/erase/?pattern=basket:*", False, 860),
    "admin-tags": ("tags/", False, 760),
    "admin-held": ("held/", False, 800),
    "admin-slowlog": ("slowlog/", True, 760),
    "admin-doctor": ("doctor/", False, 860),
}

PRESSED = {"admin-keys-erase": "button.button:not([name])"}
"""The button that is pressed before the picture is taken."""


REPORT = Path(__file__).parent.parent / "build" / "demo" / "report.html"
"""What ``make demo`` leaves."""
LARGEST_REPORT = 400_000
"""The most bytes of its picture."""


def demo() -> None:
    """Write the picture of the demo's report, as tall as the report is."""
    if not REPORT.exists():
        raise SystemExit(f"{REPORT} is not there; run `make demo` first")
    path = PICTURES / "demo.png"
    with browser.chromium((1120, 1000)) as driver:
        browser.dark(driver, False)
        driver.get(REPORT.as_uri())
        tall = driver.execute_script("return Math.ceil(document.querySelector('main').getBoundingClientRect().bottom)")
        driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        shape = {"width": 1120, "height": tall, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)
        browser.picture(driver, path)
    written(path, LARGEST_REPORT)


def written(path: Path, largest: int) -> None:
    """Say how many bytes a picture has; end if they are too many."""
    size = path.stat().st_size
    print(f"{path.name}: {size:,} bytes")  # noqa: T201
    if size > largest:
        raise SystemExit(f"{path.name} has more than {largest} bytes")


def main() -> None:
    """Write all pictures of the admin."""
    with ExitStack() as stack:
        server = stack.enter_context(valkey_server())
        caches = {"default": of(server.tcp_url(0), NEAR=True), "sessions": of(server.tcp_url(1))}
        address = stack.enter_context(browser.served(caches))
        fill()
        for name, (page, dark, height) in SHOTS.items():
            with browser.chromium((1280, height)) as driver:
                browser.dark(driver, dark)
                browser.log_in(driver, address)
                page = page.replace("{prefix}", caches["default"]["KEY_PREFIX"])  # noqa: PLW2901 - the same page
                driver.get(f"{address}/admin/fleetcache/{page}")
                if name in PRESSED:
                    driver.find_element("css selector", f"#content-main {PRESSED[name]}").click()
                    until(lambda driver=driver: driver.find_elements("id", "result"))
                path = PICTURES / f"{name}.png"
                browser.picture(driver, path)
                written(path, LARGEST)


def fill() -> None:
    """Put into the caches what the pages show."""
    from django.core.cache import caches

    cache: Any = caches["default"]
    publish(cache, 60)
    tell_history(cache)
    publish(caches["sessions"], 60, seed=2)
    tell_history(caches["sessions"], seed=2)
    for number in range(40):
        cache.set(f"products:{number}", {"name": "shoe"}, timeout=3600, tags=["catalogue", f"shop:{number % 4}"])
    description = {"name": "Blue shoes", "price": 49.5, "sizes": [38, 39, 40, 41], "in stock": True}
    cache.delete("products:7")
    cache.get_or_set(
        "products:7",
        lambda: time.sleep(0.18) or description,  # noqa: TID251 - it waits
        timeout=900,
        stale_while_revalidate=300,
        early=1.0,
        tags=["catalogue", "shop:3"],
    )
    cache.hset("products:sold", "blue shoes", 12)
    cache.zadd("products:popular", {"blue shoes": 12.0})
    cache.set_many({f"basket:{number}": [number] for number in range(4000)}, timeout=1800)
    for name in ("import:prices", "mail:newsletter"):
        cache.lock(f"lock:{name}", timeout=90).acquire()
    threading.Thread(target=_load, args=(cache,), daemon=True).start()
    raw = cache.get_client()
    raw.config_set("slowlog-log-slower-than", 2000)
    for rounds in (1_000_000, 400_000):
        raw.eval(
            f"local sum = 0 for i = 1, {rounds} do sum = sum + i end return redis.call('GET', KEYS[1])", 1, "report"
        )


def _load(cache: Any) -> None:
    cache.get_or_set("search:blue-shoes", lambda: time.sleep(600), lease=120)  # noqa: TID251 - it waits


if __name__ == "__main__":
    (demo if sys.argv[1:] == ["demo"] else main)()
