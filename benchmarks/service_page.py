"""Screenshots of the service's page on the publications of a workspace, for the documentation.

The workspace is copied and served as it is (``calm``), then with a publication that is older than
allowed (``fallback``), and once without any (``empty``); each in light and dark, ``calm`` in a
narrow window too, and the form that asks for a key. Needs Chromium and Playwright.

Run: ``python -m benchmarks.service_page WORKSPACE --out DIR --contract BTCUSDT``
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from benchmarks.service_case import serving

from margincast.jobs.serve import create_key

WIDE, NARROW = 1500, 420


def main() -> None:
    """Serve, look, and write one PNG a state and colour scheme."""
    parser = argparse.ArgumentParser(description="screenshots of the page")
    parser.add_argument("workspace", type=Path, help="with publications of its service's policy")
    parser.add_argument("--out", type=Path, default=Path("out") / "service_page")
    parser.add_argument("--contract", default="BTCUSDT", help="whose past is shown")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        copied = Path(temporary) / "workspace"
        shutil.copytree(arguments.workspace, copied, ignore=shutil.ignore_patterns("mlruns"))
        (copied / "mlruns").mkdir()
        key = create_key(copied, "screenshots", ["read"], expires=None, who="benchmark")
        states = {
            "calm": ["publications.max_age=36500d"],
            "fallback": ["publications.max_age=1s"],
            "empty": ["publications.folder=publications/none"],
        }
        for state, options in states.items():
            with serving(copied, 1, *options, ready=state == "calm") as (port, _, _):
                look(port, key, state, arguments.contract, arguments.out)


def look(port: int, key: str, state: str, contract: str, out: Path) -> None:
    """Open the page in one state, and keep what is seen."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  # only here

    windows = [("light", WIDE), ("dark", WIDE)] + [("light", NARROW)] * (state == "calm")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for scheme, width in windows:
            context = browser.new_context(
                viewport={"width": width, "height": 900},
                color_scheme="dark" if scheme == "dark" else "light",
            )
            page = context.new_page()
            page.goto(f"http://127.0.0.1:{port}/")
            page.locator("#key").wait_for(state="visible")
            if (state, scheme, width) == ("calm", "light", WIDE):
                page.screenshot(path=out / "key.png")
            page.keyboard.type(key)
            page.keyboard.press("Enter")
            page.locator("#content").wait_for(state="visible")
            if state != "empty":
                page.get_by_role("button", name=f"{contract} long").click()
                page.locator("#mmr-chart svg").wait_for()
            name = f"{state}-{'narrow' if width == NARROW else scheme}.png"
            page.screenshot(path=out / name, full_page=True)
            print(out / name)
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
