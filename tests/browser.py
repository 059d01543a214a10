"""A headless Chromium for tests and screenshots of the admin page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",  # containers have little of it
)


@contextmanager
def browsing(chromium: str, driver: str, profile: Path, dark: bool = False) -> Iterator[webdriver.Chrome]:
    """A browser with a profile of its own; it ends with the context.

    Args:
        chromium: the path of the browser.
        driver: that of its driver.
        profile: a new directory.
        dark: whether it prefers dark pages.
    """
    options = Options()
    options.binary_location = chromium
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, Service(driver))
    try:
        browser.set_page_load_timeout(30)
        if dark:
            features = [{"name": "prefers-color-scheme", "value": "dark"}]
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        yield browser
    finally:
        browser.quit()


def look_through(browser: webdriver.Chrome, width: int, height: int, scale: float = 1, phone: bool = False) -> None:
    """Make the page so large: CSS pixels; a phone has a touch screen and no scroll bars."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def complaints(browser: webdriver.Chrome) -> list[str]:
    """What the console says since it was asked last: errors, violations of the policy, files that are not there."""
    return [str(entry["message"]) for entry in browser.get_log("browser")]  # type: ignore[no-untyped-call] # not annotated there
