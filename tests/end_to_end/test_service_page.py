"""The service's page in a real browser: calm, in fallback, light and dark, by keyboard alone."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from tests.end_to_end.browsing import open_browser, sync_api, watched
from tests.end_to_end.served import serving
from tests.serving.published_case import publish, service_workspace

from margincast.jobs.serve import create_key

pytestmark = pytest.mark.slow

CALM = tuple((0.011 + 0.0003 * day, 0.0041 + 0.0005 * (day % 3), 0.0054) for day in range(8))
FALLEN = (0.012, float("nan"), 0.0054)
REPORT = {
    "format": "margincast-monitor-report 1", "monitor": "demo", "at": "2026-01-10T00:00:00+00:00",
    "alarm": False, "checks": [], "standing_out": [], "drift": None, "shadow": None,
    "policy": "demo", "model": "demo/1", "notes": [], "decision": None,
    "watched": {
        "margins": {
            "subject": "demo", "lost": 0, "left_out": {}, "evidence": [],
            "coverage": [
                {
                    "symbol": "SIM-BTC", "side": "long", "level": 0.99, "known": 700, "exceeded": 8,
                    "exceedance_ratio": 1.14, "shortfall_bps": 0.2,
                }
            ],
        }
    },
}  # fmt: skip
"""What the page reads of a monitor's report; the monitor's own tests say how it comes about."""


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    newest = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
    folder = tmp_path_factory.mktemp("page") / "workspace"
    service_workspace(folder, newest=newest, forecasts=CALM)
    report = folder / "out" / "monitor" / "monitor.json"
    report.parent.mkdir(parents=True)
    report.write_text(json.dumps(REPORT), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def key(workspace):
    return create_key(workspace, "browser", ["read"], expires=None, who="a test")


@pytest.fixture(scope="module")
def address(workspace, key):
    with serving(workspace, "address.workers=1") as served:
        yield served.address


@pytest.fixture
def opened(browser, address, key):
    """Open the page as a person does: with a key typed in."""
    stack = []

    def open_page(*, dark=False):
        # asked once without a key, which is refused
        manager = watched(browser, address, expected={f"{address}/v1/status"}, dark=dark)
        seen = manager.__enter__()
        stack.append(manager)
        seen.open("")
        page = seen.page
        sync_api.expect(page.get_by_label("API key with the scope read")).to_be_focused()
        page.keyboard.type(key)
        page.keyboard.press("Enter")
        seen.see(page.get_by_role("button", name="SIM-BTC long"))
        return seen

    yield open_page
    for manager in stack:
        manager.__exit__(None, None, None)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_person_sees_what_is_in_force_and_what_it_was(opened, dark):
    seen = opened(dark=dark)
    page = seen.page
    seen.see(page.get_by_text(re.compile(r"^publication 8, .* UTC, by nightly: the nightly one$")))
    sync_api.expect(page.locator("#banner")).to_be_hidden()
    row = page.get_by_role("row", name=re.compile("SIM-BTC.*long"))
    for text in ("ok", "2.90 %", "5.80x", "0.46 %"):
        sync_api.expect(row).to_contain_text(text)
    page.get_by_role("button", name="SIM-BTC long").click()
    seen.see(page.get_by_role("heading", name="SIM-BTC"))
    seen.see(page.get_by_role("img", name="MMR (line) and forecast (dashed) of SIM-BTC"))
    seen.see(page.get_by_role("img", name="Multiplier of SIM-BTC"))
    sync_api.expect(page.locator("#mmr-chart circle")).to_have_count(4 * len(CALM))
    sync_api.expect(page.locator("#tiers tbody tr")).to_have_count(8)
    sync_api.expect(page.locator("#exceedances tbody tr")).to_contain_text("1.14x")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")
    page.evaluate("window.scrollTo(0, 0)")
    seen.keep(f"margins-{'dark' if dark else 'light'}")


def test_a_keyboard_is_enough(opened):
    seen = opened()
    page = seen.page
    page.keyboard.press("/")
    search = page.get_by_role("searchbox", name="Search by name")
    sync_api.expect(search).to_be_focused()
    page.keyboard.type("eth")
    sync_api.expect(page.locator("#found")).to_have_text("2 of 6 rows")
    page.keyboard.press("Tab")  # the check box
    page.keyboard.press("Tab")  # the table scrolls with the arrow keys
    sync_api.expect(page.get_by_role("region", name="Table of contracts")).to_be_focused()
    page.keyboard.press("Tab")
    sync_api.expect(page.get_by_role("button", name="SIM-ETH long")).to_be_focused()
    page.keyboard.press("Enter")
    seen.see(page.get_by_role("heading", name="SIM-ETH"))
    sync_api.expect(page.locator("#contract")).to_be_focused()


def test_everything_that_can_be_used_has_a_name(opened):
    page = opened().page
    page.get_by_role("button", name="SIM-ALT long").click()
    page.wait_for_selector("#tiers tbody tr")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, [tabindex='0'], svg[role=img]")]
            .filter((one) => !(one.getAttribute("aria-label") || one.textContent.trim()
                || one.labels?.length))
            .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    assert page.evaluate("document.documentElement.lang") == "en"
    levels = page.evaluate("[...document.querySelectorAll('h1, h2')].map((one) => one.tagName)")
    assert levels[0] == "H1"
    assert levels.count("H1") == 1


def test_a_fallback_comes_up_by_itself_with_its_reason(opened, workspace):
    seen = opened()
    page = seen.page
    publish(workspace, FALLEN, at=datetime.now(UTC).replace(microsecond=0))
    seen.see(page.get_by_role("heading", name="Fallback"))
    sync_api.expect(page.get_by_role("status").first).to_contain_text(
        "SIM-BTC long: last margin kept: no trade for an hour"
    )
    seen.see(page.get_by_text(re.compile("^publication 9, ")))
    page.get_by_label("only fallbacks").check()
    sync_api.expect(page.locator("#found")).to_have_text("2 of 6 rows")
    page.get_by_role("button", name="SIM-BTC long").click()
    sync_api.expect(page.locator("#mmr-chart circle.fell")).to_have_count(2)
    page.evaluate("window.scrollTo(0, 0)")
    seen.keep("margins-fallback")


def test_a_wrong_key_is_told_and_not_kept(browser, address):
    with watched(browser, address, expected={f"{address}/v1/status"}) as seen:
        seen.open("")
        page = seen.page
        page.get_by_label("API key with the scope read").fill("mc_wrong")
        page.get_by_role("button", name="Show margins").click()
        sync_api.expect(page.get_by_role("alert")).to_contain_text("the key is not valid")
        assert page.evaluate("sessionStorage.length") == 0
        sync_api.expect(page.locator("#content")).to_be_hidden()
