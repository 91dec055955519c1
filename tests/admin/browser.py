"""A Chromium without a window, and a Django site that it can reach."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.admin.site import site, user
from tests.waiting import until

from fleetcache.errors import ServerNotFound

CHROMEDRIVER = Path("/usr/bin/chromedriver")
CHROMIUM = Path("/usr/bin/chromium")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-device-scale-factor=1",
)

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'"
"""A strict Content-Security-Policy, as Django 6 makes it easy to have."""


@contextmanager
def chromium(size: tuple[int, int] = (1280, 900)) -> Iterator[Any]:
    """Start a Chromium with a profile of its own; raise ServerNotFound if there is none on this machine."""
    try:
        from selenium import webdriver
    except ImportError as error:
        raise ServerNotFound("selenium is not installed") from error
    if not (CHROMEDRIVER.exists() and CHROMIUM.exists()):
        raise ServerNotFound(f"there is no {CHROMEDRIVER}, or no {CHROMIUM}")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"):
            options.add_argument(flag)
        service = webdriver.ChromeService(str(CHROMEDRIVER), log_output=os.devnull)
        driver = webdriver.Chrome(options=options, service=service)
        try:
            yield driver
        finally:
            driver.quit()


def strictly(get_response: Any) -> Any:
    """Middleware that forbids all but the site's own files."""

    def respond(request: Any) -> Any:
        response = get_response(request)
        response.headers["Content-Security-Policy"] = POLICY
        return response

    return respond


@contextmanager
def served(caches: dict[str, Any]) -> Iterator[str]:
    """Serve a site with these *caches*, and yield its address; it has the user ``admin`` with the password ``admin``."""
    from tests.admin.site import SETTINGS

    middleware = ["tests.admin.browser.strictly", *SETTINGS["MIDDLEWARE"]]
    with site(caches, MIDDLEWARE=middleware):
        from django.contrib.staticfiles.handlers import StaticFilesHandler
        from django.db import connections
        from django.test.testcases import LiveServerThread

        admin = user(superuser=True)
        type(admin).objects.filter(username="admin").delete()
        admin.username = "admin"
        admin.set_password("admin")
        admin.save()
        connection = connections["default"]
        connection.inc_thread_sharing()
        thread = LiveServerThread("127.0.0.1", StaticFilesHandler, connections_override={"default": connection})
        thread.daemon = True
        thread.start()
        thread.is_ready.wait()
        try:
            if thread.error:
                raise thread.error
            yield f"http://127.0.0.1:{thread.port}"
        finally:
            thread.terminate()
            connection.dec_thread_sharing()


def log_in(driver: Any, address: str) -> None:
    """Log in by the form, with the keyboard, and wait for the page after it: it would come in place of a later one."""
    from selenium.webdriver.common.keys import Keys

    driver.get(f"{address}/admin/")
    name = driver.switch_to.active_element
    name.send_keys("admin", Keys.TAB)
    driver.switch_to.active_element.send_keys("admin", Keys.ENTER)
    until(lambda: driver.title.startswith("Site administration"))


def dark(driver: Any, on: bool = True) -> None:
    """Let the browser prefer dark pages, or light ones."""
    wanted = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [wanted]})


def picture(driver: Any, path: Path) -> None:
    """Write what the window shows as a PNG."""
    from selenium.common.exceptions import TimeoutException

    for patience in (2, 1, 0):
        try:
            driver.save_screenshot(str(path))
        except TimeoutException:  # Chromium sometimes takes the page that has just been loaded for one that is left
            if not patience:
                raise
        else:
            return


def said(driver: Any) -> list[str]:
    """Return what the console says since it was asked last: errors and warnings, such as refusals of the policy."""
    return [each["message"] for each in driver.get_log("browser") if each["level"] in {"SEVERE", "WARNING"}]


def requested(driver: Any) -> list[str]:
    """Return the addresses that the pages have asked for since they were asked for last."""
    messages = [json.loads(each["message"])["message"] for each in driver.get_log("performance")]
    return [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
