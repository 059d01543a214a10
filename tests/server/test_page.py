"""The page of the admin process: its files, and what it shows in a real browser of a real server."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By

from fastsmtp.interval import quantile
from fastsmtp.server import page_files
from tests.browser import browsing, complaints, look_through
from tests.server.admin_client import ADMIN, AdminClient
from tests.server.gates import open_gate
from tests.server.running import running
from tests.server.small_load import small_load
from tests.server.waiting import until

FOLDER = Path(page_files.__file__).with_name("page")
FILES = sorted(path.name for path in FOLDER.iterdir())
PLAIN = ("--store=discard:", *ADMIN)
DESKTOP, PHONE = (1280, 900), (390, 844)


# -- files -----------------------------------------------------------------------------------------------------------


def test_files(tmp_path: Path) -> None:
    types = {
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
    }
    with running(tmp_path, *PLAIN) as server:
        admin = AdminClient.of(server)
        for name in FILES:
            path = "/" if name == "index.html" else f"/{name}"
            answer = admin.get(path)
            assert (answer.status, answer.body) == (200, (FOLDER / name).read_text())
            assert answer.fields["content-type"] == types[Path(name).suffix]
            assert answer.fields["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in answer.fields["content-security-policy"]
            tag = answer.fields["etag"]
            for known in (tag, f'"other", W/{tag}', "*"):
                again = admin.get(path, If_None_Match=known)
                assert (again.status, again.body, again.fields["etag"]) == (304, "", tag)
            assert admin.get(path, If_None_Match='"other"').status == 200
            assert admin.ask("HEAD", path).body == ""
            assert admin.ask("POST", path).status == 405


@pytest.mark.parametrize("name", FILES)
def test_files_need_nothing_from_elsewhere(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert set(re.findall(r"\w+://[^\s\"'`)]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\bstyle=|\bon[a-z]+=|eval\(|innerHTML", text)  # the policy would stop them
    for other in re.findall(r'(?:href|src)="([^"]+)"|from "\./([^"]+)"', text):
        assert next(filter(None, other)) in {*FILES, "status", "metrics"}


# -- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(
    require_program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[webdriver.Chrome]:
    programs = require_program("chromium"), require_program("chromedriver")
    with browsing(*programs, tmp_path_factory.mktemp("chromium")) as made:
        yield made


def opened(browser: webdriver.Chrome, admin: AdminClient, size: tuple[int, int] = DESKTOP) -> None:
    """Show the page, of so many CSS pixels, until it has the first answer of the server."""
    browser.get("about:blank")  # a page that was there before asks a server that is gone
    complaints(browser)
    look_through(browser, *size, phone=size is PHONE)
    browser.get(f"http://{admin.host_and_port}/")
    until(lambda: read(browser, "state") != "connecting", "a first answer")


def read(browser: webdriver.Chrome, id: str) -> str:
    return browser.find_element(By.ID, id).text


def value(browser: webdriver.Chrome, selector: str) -> float:
    """The number that a piece of the page stands for."""
    script = "return document.querySelector(arguments[0])?.value || 'nan'"
    return float(browser.execute_script(script, selector))


def run(browser: webdriver.Chrome, script: str, *arguments: object) -> Any:
    return browser.execute_script(script, *arguments)


def rows(browser: webdriver.Chrome) -> dict[int, str]:
    """What the table says of each process."""
    try:
        found = browser.find_elements(By.CSS_SELECTOR, "#workers tr")
        return {int(row.get_attribute("data-pid") or 0): row.text for row in found}
    except StaleElementReferenceException:  # a second has passed
        return {}


def test_values_move_and_agree_with_status(tmp_path: Path, browser: webdriver.Chrome) -> None:
    with running(tmp_path, "tests.server.apps:ThreadGate", *PLAIN, workers=2) as server:
        for name in ("mail", "rcpt", "data"):
            open_gate(tmp_path, name)
        admin = AdminClient.of(server)
        opened(browser, admin)
        with small_load(server):
            until(lambda: value(browser, "#plot-messages data") > 1, "messages flow")
            until(lambda: value(browser, "#plot-latency dd data") > 0, "they take time")
            lines = "return document.querySelector(arguments[0] + ' .curve')?.getAttribute('d') ?? ''"
            seen = run(browser, lines, "#plot-octets")
            until(lambda: run(browser, lines, "#plot-octets") not in ("", seen), "the line grows")
            until(lambda: value(browser, "#plot-sessions data") > 0, "sessions are open")
            seen_label = run(browser, "return document.querySelector('#plot-messages svg').ariaLabel")
            assert re.match(r"Messages per second: accepted \d[\d.,]*, refused 0", seen_label)
        totals = until(partial(settled, admin), "the load is over")
        for name, expected in {
            "messages-accepted": totals["messages"]["accepted"],
            "messages-refused": totals["messages"]["refused"],
            "recipients-accepted": totals["recipients"]["accepted"],
            "connections": totals["connections"],
        }.items():
            until(lambda name=name, expected=expected: value(browser, f"#total-{name}") == expected, name)  # type: ignore[misc] # mypy sees no types of defaults
        refusals = run(
            browser,
            "return Object.fromEntries([...document.querySelectorAll('#refusals li')]"
            ".map((li) => [li.querySelector('.what').textContent, Number(li.querySelector('.total').value)]))",
        )
        assert refusals == totals["refusals"]
        assert set(rows(browser)) == set(admin.pids())
        until(lambda: value(browser, "#plot-sessions data") == 0, "nobody is there")
        assert read(browser, "state") == "ready"
        assert complaints(browser) == []


def settled(admin: AdminClient) -> dict[str, Any]:
    """What was counted, if nobody is connected any more."""
    status = admin.status()
    still = sum(process["open_connections"] for worker in status["workers"] for process in worker["processes"])
    totals: dict[str, Any] = status["totals"]
    return {} if still else totals


def test_what_happens_to_workers_is_told(tmp_path: Path, browser: webdriver.Chrome) -> None:
    with running(tmp_path, *PLAIN, "--drain-timeout=60", "--drain-idle=60", workers=2) as server:
        admin = AdminClient.of(server)
        opened(browser, admin)
        before = admin.pids()
        clients = [server.greeted() for _ in range(16)]  # so that the old workers stay for a while
        admin.post("/reload")
        until(lambda: "Reload done" in read(browser, "events"), "the reload")
        new = [pid for pid in admin.pids() if pid not in before]
        until(lambda: all(f"pid {pid} serves" in read(browser, "events") for pid in new), "they serve")

        def draining_ones() -> list[int]:
            return [each["pid"] for slot in (0, 1) for each in admin.processes(slot) if each["state"] == "draining"]

        draining = until(draining_ones, "those with clients drain")
        until(  # two in one slot
            lambda: all("draining" in rows(browser).get(pid, "") for pid in draining), "the table shows them"
        )
        for client in clients:
            client.quit()
        until(lambda: all(f"pid {pid} has left" in read(browser, "events") for pid in draining), "they leave")
        os.kill(new[0], signal.SIGKILL)
        until(lambda: f"pid {new[0]} has ended while ready" in read(browser, "events"), "a death")
        until(lambda: value(browser, "#total-worker-deaths") == 1, "it is counted")
        os.kill(new[1], signal.SIGSTOP)
        until(lambda: f"(pid {new[1]}) hangs" in read(browser, "conditions"), "it hangs")
        os.kill(new[1], signal.SIGCONT)
        until(lambda: read(browser, "conditions") == "", "it turns again")
        assert f"(pid {new[1]}) turns again" in read(browser, "events")
        assert complaints(browser) == []


def test_an_empty_slot_and_the_end_of_the_server_are_told(tmp_path: Path, browser: webdriver.Chrome) -> None:
    open_gate(tmp_path, "hold")
    open_gate(tmp_path, "lifespan")
    with running(tmp_path, "tests.server.apps:Lifespan", *PLAIN) as server:
        admin = AdminClient.of(server)
        opened(browser, admin)
        (tmp_path / "gate-lifespan").unlink(missing_ok=True)
        os.kill(admin.pids()[0], signal.SIGKILL)
        until(lambda: "Worker 0 does not serve" in read(browser, "conditions"), "the slot is empty")
        assert read(browser, "state") == "0 of 1 workers ready"
        open_gate(tmp_path, "lifespan")
        until(lambda: read(browser, "state") == "ready", "the successor serves")
        with server.greeted() as client:
            client.begin_data()
            server.send_signal(signal.SIGTERM)
            until(lambda: "The server is stopping" in read(browser, "conditions"), "it drains")
            assert read(browser, "state") == "draining"
            assert complaints(browser) == []
            client.send(b".\r\n")
            client.expect("250")
        server.wait()
        until(lambda: read(browser, "state") == "no answer", "it is gone")
        assert "does not answer since" in read(browser, "conditions")


def test_a_phone_shows_all_of_it(tmp_path: Path, browser: webdriver.Chrome) -> None:
    with running(tmp_path, *PLAIN, workers=2) as server:
        opened(browser, AdminClient.of(server), PHONE)
        until(lambda: len(rows(browser)) == 2, "the workers")
        assert run(browser, "return document.documentElement.scrollWidth") == PHONE[0]
        outside = (
            "return [...document.querySelectorAll('main :not(thead, thead *)')]"
            ".filter((each) => each.getClientRects().length > 0)"
            ".filter((each) => each.getBoundingClientRect().right > innerWidth + 1).map((each) => each.outerHTML)"
        )
        assert run(browser, outside) == []
        assert complaints(browser) == []


def test_a_queue_is_shown_if_there_is_one(tmp_path: Path, browser: webdriver.Chrome) -> None:
    with running(tmp_path, *PLAIN) as server:
        opened(browser, AdminClient.of(server))
        assert not browser.find_element(By.ID, "queue-card").is_displayed()
        run(
            browser,
            "const real = window.fetch; window.fetch = async (...asked) => {"
            " const status = await (await real(...asked)).json();"
            " return new Response(JSON.stringify({...status, queue: {items: {due: 3, deferred: 1500}}})); };",
        )
        until(lambda: browser.find_element(By.ID, "queue-card").is_displayed(), "the queue")
        assert read(browser, "queue").split() == ["due", "3", "deferred", "1,500"]


@pytest.fixture(scope="module")
def page(browser: webdriver.Chrome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with running(tmp_path_factory.mktemp("server"), *PLAIN) as server:
        opened(browser, AdminClient.of(server))
        yield browser


def test_overload_and_scaling_are_told(page: webdriver.Chrome) -> None:
    """What a status says that has been through it."""
    ask = (
        "const [after, before, done] = arguments; import('/changes.js').then((found) =>"
        " done([[...found.changes(after, before)], found.conditions(after).map((each) => each.text)]));"
    )
    process = {"pid": 7, "state": "ready", "open_connections": 1, "stamp_age_seconds": 0.5, "mail_refused": 0}
    totals = {"reloads": {"done": 0, "given_up": 0}}

    def status(wanted: int, **gauges: int) -> dict[str, Any]:
        workers = [
            {"worker": number, "ready": True, "processes": [{**process, "pid": 7 + number, **gauges}]}
            for number in range(wanted)
        ]
        return {"state": "ready", "workers_wanted": wanted, "workers": workers, "totals": totals}

    calm, overloaded, smaller = status(2), status(2, overload=2), status(1)
    events, texts = page.execute_async_script(ask, overloaded, calm)
    assert texts == [f"Worker {each} (pid {7 + each}) is overloaded: new clients get 421." for each in (0, 1)]
    assert [text for _, text in events] == texts
    events, texts = page.execute_async_script(ask, calm, overloaded)
    assert ([kind for kind, _ in events], texts) == (["good", "good"], [])
    events, texts = page.execute_async_script(ask, smaller, calm)
    assert [text for _, text in events] == ["Worker 1: pid 8 has ended while ready", "There are to be 1 workers"]
    leaving = status(1)
    leaving["workers"].append({"worker": 1, "ready": False, "processes": [{**process, "pid": 8, "state": "draining"}]})
    events, texts = page.execute_async_script(ask, leaving, calm)
    assert texts == []  # it is not missed
    assert "Worker 1: pid 8 drains, with 1 session" in [text for _, text in events]


def test_quantiles_are_those_of_top(page: webdriver.Chrome) -> None:
    """One formula in two languages."""
    ask = (
        "const [bounds, buckets, share, done] = arguments;"
        "import('/samples.js').then((samples) => done(samples.quantile(bounds, buckets, share)));"
    )

    @given(st.lists(st.integers(0, 1000), min_size=5, max_size=5), st.sampled_from([0.5, 0.95, 0.99]))
    def check(buckets: list[int], share: float) -> None:
        bounds = [0.001, 0.01, 0.25, 5.0]
        found = page.execute_async_script(ask, bounds, buckets, share)
        assert found == pytest.approx(quantile(bounds, buckets, share)) if any(buckets) else found is None

    check()
