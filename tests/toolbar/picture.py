"""Makes the picture of the panel: ``python -m tests.toolbar.picture``."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from tests.admin import browser
from tests.toolbar.site import site
from tests.waiting import until

from fleetcache.testing import valkey_server

PICTURE = Path(__file__).resolve().parents[2] / "docs/pictures/toolbar.png"
NAV = "#djdt-FleetcachePanel a"
SWITCH = "#FleetcachePanel .djToggleSwitch"


@contextmanager
def served(location: str, **options: Any) -> Iterator[str]:
    """Serve the site with the toolbar, and yield its address."""
    with site(location, config={"USE_SHADOW_DOM": False}, options=options):
        from django.contrib.staticfiles.handlers import StaticFilesHandler
        from django.core.handlers.wsgi import WSGIHandler

        class Silent(WSGIRequestHandler):
            def log_message(self, *args: Any) -> None:
                """Write nothing."""

        with make_server("127.0.0.1", 0, StaticFilesHandler(WSGIHandler()), handler_class=Silent) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}"
            finally:
                server.shutdown()
                thread.join()


def opened(driver: Any, address: str) -> Any:
    """Open the page of the shop with the panel; return a function that finds elements."""
    from selenium.webdriver.common.by import By

    def find(css: str) -> list[Any]:
        found: list[Any] = driver.find_elements(By.CSS_SELECTOR, css)
        return found

    for _ in range(3):
        driver.get(f"{address}/shop")
    until(lambda: find(NAV) and find(NAV)[0].is_displayed())
    find(NAV)[0].click()
    until(lambda: find(SWITCH) and find(SWITCH)[0].is_displayed())
    return find


def main() -> None:
    """Write the picture."""
    with valkey_server() as server, served(server.tcp_url(), NEAR={"DOORKEEPER": False}) as address:
        with browser.chromium((1280, 820)) as driver:
            opened(driver, address)
            browser.picture(driver, PICTURE)


if __name__ == "__main__":
    main()
