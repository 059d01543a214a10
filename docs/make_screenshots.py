"""Takes the pictures of the admin page: ``make screenshots``. A real server, a small load, headless Chromium."""

from __future__ import annotations

import base64
import shutil
import sys
import tempfile
import time
from pathlib import Path

from selenium import webdriver

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.browser import browsing, look_through  # noqa: E402
from tests.server.admin_client import ADMIN, AdminClient  # noqa: E402
from tests.server.running import running  # noqa: E402
from tests.server.small_load import small_load  # noqa: E402

FOLDER = ROOT / "docs" / "images"
_SECONDS = 62  # of load, so that a minute of each plot is full
_APPLICATION = """
import random, time
from fastsmtp import Handler, Reply

class Example(Handler):
    def rcpt(self, session, recipient):
        if random.random() < 0.03:
            return Reply(550, "5.7.1", "relaying denied")

    def data(self, session, message):
        time.sleep(random.expovariate(250))
"""


def _take(browser: webdriver.Chrome, name: str, width: int, height: int, scale: float, phone: bool = False) -> None:
    """So much of the page, in CSS pixels; no height: all of it."""
    browser.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
    look_through(browser, width, height or 4000, scale, phone)
    height = height or int(browser.execute_script("return document.body.getBoundingClientRect().bottom"))
    look_through(browser, width, height, scale, phone)
    time.sleep(1.5)  # one more second of data at the new size
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    (FOLDER / name).write_bytes(base64.b64decode(shot["data"]))
    print(FOLDER / name)


def main() -> None:
    """Both pictures."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        sys.exit("chromium and chromedriver are not installed (make system-deps)")
    chromium, driver = map(str, programs)
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        (directory / "example.py").write_text(_APPLICATION)
        environ = {"PYTHONPATH": f"{directory}:{ROOT}"}
        arguments = ("example:Example", "--store=maildir:./mail", "--hostname=mx.example", *ADMIN)
        with (
            running(directory, *arguments, workers=2, environ=environ) as server,
            small_load(server, clients=12, pause=0.3),
            browsing(chromium, driver, directory / "profile") as browser,
        ):
            admin = AdminClient.of(server)
            look_through(browser, 1280, 860)
            browser.get(f"http://{admin.host_and_port}/")
            time.sleep(_SECONDS / 2)
            admin.post("/reload")
            time.sleep(_SECONDS / 2)
            _take(browser, "page-desktop.png", 1280, 0, 1)
            _take(browser, "page-phone.png", 390, 844, 2, phone=True)


if __name__ == "__main__":
    main()
