"""A page in a real browser, and everything that goes wrong on it.

Screenshots of what was seen are kept in ``out/screenshots`` of the checkout.
"""

import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("Chromium is not installed (.ci/test-packages does)", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

SCREENSHOTS = Path(__file__).resolve().parents[2] / "out" / "screenshots"
PATIENCE_SECONDS = 120.0


@dataclass
class Watched:
    """A browser page, and what went wrong on it."""

    page: "sync_api.Page"
    address: str
    problems: list[str] = field(default_factory=list)

    def open(self, link: str) -> None:
        self.page.goto(f"{self.address}/{link}")

    def see(self, what: "sync_api.Locator") -> None:
        sync_api.expect(what.first).to_be_visible()

    def keep(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=path)
        print(f"screenshot: {path}")  # noqa: T201  # pytest -s shows where they are

    @property
    def rows(self) -> list[str]:
        """Names of the runs in MLflow's table, from above."""
        found = self.page.locator(".ag-row").evaluate_all(
            "rows => rows.map(row => [Number(row.getAttribute('row-index')),"
            " row.querySelector('a')?.innerText])"
        )
        return [
            name for _, name in sorted((row for row in found if row[1]), key=lambda row: row[0])
        ]


@contextmanager
def open_browser() -> Iterator["sync_api.Browser"]:
    """Start Chromium."""
    with sync_api.sync_playwright() as playwright:
        sync_api.expect.set_options(timeout=1000 * PATIENCE_SECONDS)
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@contextmanager
def watched(
    browser: "sync_api.Browser",
    address: str,
    *,
    expected: Collection[str] = (),
    harmless: Mapping[str, str] | None = None,
    script: str = "",
    dark: bool = False,
) -> Iterator[Watched]:
    """Give a page; what it complains of, asks of other hosts or is refused fails the test.

    Args:
        browser: that shows it.
        address: of the server it may ask.
        expected: addresses that may refuse.
        harmless: texts in messages that mean nothing, each with the reason.
        script: that runs before the page's own.
        dark: whether the person prefers a dark page.
    """
    context = browser.new_context(
        viewport={"width": 1500, "height": 900}, color_scheme="dark" if dark else "light"
    )
    context.set_default_timeout(1000 * PATIENCE_SECONDS)
    if script:
        context.add_init_script(script)
    page = context.new_page()
    seen = Watched(page, address)

    def on_console(message: "sync_api.ConsoleMessage") -> None:
        known = any(text in message.text for text in harmless or {})
        if message.type == "error" and not known and message.location["url"] not in expected:
            seen.problems.append(f"console: {message.text} ({message.location['url']})")

    def on_request(request: "sync_api.Request") -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            seen.problems.append(f"another host: {request.url}")

    def on_response(response: "sync_api.Response") -> None:
        if response.status >= 400 and response.url not in expected:
            seen.problems.append(f"{response.status}: {response.url}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: seen.problems.append(f"script: {error}"))
    page.on("request", on_request)
    page.on("response", on_response)
    yield seen
    context.close()
    assert seen.problems == [], seen.problems
