"""MLflow's pages in a real browser, as somebody sees them who comes to compare models."""

import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from tests.end_to_end.browsing import PATIENCE_SECONDS, open_browser, sync_api, watched

from margincast.jobs.run_pages import ALL_MODELS, JOBS, LATEST, OVER_TIME
from margincast.jobs.run_pages import views as experiment_views
from margincast.training.tracking.pages import experiment_page, view_page

pytestmark = pytest.mark.slow

EXPECTED = {
    "/ajax-api/2.0/mlflow/users/current": "who is logged in: nobody, this server asks for no login",
}
"""Requests that MLflow's pages make and its server refuses, with the reason; no other may fail."""
HARMLESS = {
    "ResizeObserver loop completed": "the browser put off a notice of a size by one frame",
}
"""Messages that mean nothing, with the reason."""
NO_ASSISTANT = """
    // MLflow opens a chat over the page once; the report's frame may not have storage, nor needs it
    if (window.top === window) {
        localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
    }
"""


@pytest.fixture(scope="module")
def address(workspace, trained):
    """``margincast ui`` on the trained workspace; Ctrl-C ends it, and leaves nothing behind."""
    assert trained.ending.code == 0, trained.ending.errors
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-c", "from margincast.cli import main; main()",
        "ui", "--workspace", str(workspace), "--port", str(port),
    ]  # fmt: skip
    log = workspace / "ui.log"
    with log.open("wb") as stream:
        # a group of its own, so that the interrupt goes where a terminal would send it
        server = subprocess.Popen(  # noqa: S603  # our own command
            command, stdout=stream, stderr=stream, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _answers(f"{address}/health"):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield address
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=PATIENCE_SECONDS) == 0
        assert f"MLflow UI on {address}/#/experiments?" in log.read_text()
        assert "Traceback" not in log.read_text()
        assert not _answers(f"{address}/health")
    finally:
        if server.poll() is None:
            server.kill()


def _answers(url):
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
        return answer.status == 200
    return False


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture
def seen(browser, address):
    """A page of MLflow; what it complains of, asks of other hosts or is refused fails the test."""
    expected = {address + path for path in EXPECTED}
    with watched(
        browser, address, expected=expected, harmless=HARMLESS, script=NO_ASSISTANT
    ) as seen:
        yield seen


@pytest.fixture
def other(browser, address):
    """A second one, that knows nothing of the first."""
    expected = {address + path for path in EXPECTED}
    with watched(
        browser, address, expected=expected, harmless=HARMLESS, script=NO_ASSISTANT
    ) as seen:
        yield seen


@pytest.fixture(scope="session")
def views(small_job):
    return {view.key: view for view in experiment_views(small_job, "")}


@pytest.fixture(scope="module")
def experiment(workspace, trained):
    """The experiment's number in addresses."""
    from mlflow import MlflowClient  # noqa: PLC0415  # skipped tests need not import it

    client = MlflowClient(f"sqlite:///{workspace / 'mlruns' / 'mlflow.db'}")
    return client.get_experiment_by_name("demo").experiment_id


def open_view(seen, experiment, view, runs=None):
    """Open a view, and wait until its runs are there."""
    seen.open(view_page(experiment, view.key))
    seen.see(seen.page.get_by_role("button", name=view.name))
    seen.see(seen.page.get_by_text(re.compile(rf"^{runs or '[0-9]+'} matching run")))
    seen.see(seen.page.locator(".ag-row").get_by_role("link"))


def test_the_latest_job_shows_its_models_by_loss(seen, experiment, views):
    open_view(seen, experiment, views[LATEST], runs=3)
    page = seen.page
    seen.see(page.get_by_role("link", name=re.compile("static · demo")))
    seen.keep("latest-job")
    models = [name.split(" · ")[0] for name in seen.rows]
    assert sorted(models) == ["ewma_fhs", "margincast", "static"]
    losses = page.locator(".ag-row [col-id='metrics.`pinball_ratio`']").all_inner_texts()
    assert len(losses) == 3
    assert list(map(float, losses)) == sorted(map(float, losses))
    headers = page.locator(".ag-header-cell").all_inner_texts()
    # in this order from the left; what the screen has no room for is one scroll away
    ordered = sorted(
        (page.locator(f".ag-header-cell[col-id='{key}']").bounding_box()["x"], key)
        for key in (
            "tags.`margincast.model`",
            "metrics.`pinball_ratio`",
            "metrics.`pinball_ratio_error/10m`",
        )
    )
    assert [key.partition("`")[2][:-1] for _, key in ordered] == [
        "margincast.model", "pinball_ratio", "pinball_ratio_error/10m"
    ], headers  # fmt: skip


def test_the_first_line_of_the_description_leads_to_the_views(seen, other, experiment):
    seen.open(experiment_page(experiment))
    link = seen.page.get_by_role("link", name="latest job", exact=True)
    seen.see(link)
    href = link.get_attribute("href")
    # on a page that still loads its own filters would come over those of the address
    other.open(href)
    other.see(other.page.get_by_text(re.compile("^3 matching runs")))
    other.see(other.page.get_by_role("button", name="Latest job"))


def test_a_click_on_pinball_turns_the_order_round(seen, experiment, views):
    open_view(seen, experiment, views[ALL_MODELS])
    page = seen.page
    seen.see(page.get_by_role("link", name=re.compile("static · demo")))
    best_first = seen.rows
    header = page.locator(".ag-header-cell[col-id='metrics.`pinball_ratio`']")
    header.get_by_text("pinball_ratio").click()
    page.wait_for_url(re.compile("orderByAsc=false"))
    seen.see(page.locator(".ag-row[row-index='0']").get_by_role("link", name=best_first[-1]))
    seen.keep("sorted-by-pinball")


def test_charts_tell_loss_coverage_cost_and_stability_in_this_order(seen, experiment):
    seen.open(f"{view_page(experiment, LATEST)}&compareRunsMode=CHART")
    heights = []
    for title in ("Loss relative", "Exceedances", "What it costs", "Accurate is not stable"):
        heading = seen.page.get_by_text(re.compile(rf"^{title}")).first
        seen.see(heading)
        heights.append(heading.bounding_box()["y"])
    assert heights == sorted(heights)
    seen.see(seen.page.locator(".js-plotly-plot"))
    seen.keep("charts")


def test_ticked_runs_are_compared(seen, experiment, views):
    open_view(seen, experiment, views[LATEST], runs=3)
    page = seen.page
    compared = seen.rows[:2]
    for number in range(2):
        row = page.locator(f".ag-row[row-index='{number}']")
        row.locator(".ag-selection-checkbox input").first.check()
    page.get_by_test_id("runs-compare-button").click()
    seen.see(page.get_by_text("Comparing 2 Runs from 1 Experiment"))
    for name in compared:
        seen.see(page.get_by_text(name, exact=True))
    sync_api.expect(page.get_by_text("exceedance_ratio/30m/0.95", exact=True).last).to_be_attached()
    page.get_by_text("Run details").scroll_into_view_if_needed()
    seen.keep("compare")


def test_a_job_shows_its_verdict_and_its_report(seen, experiment, views):
    open_view(seen, experiment, views[JOBS])
    page = seen.page
    page.get_by_role("link", name=re.compile(r"^demo · 20")).last.click()
    seen.see(page.get_by_text("Gate passed"))
    seen.keep("job")
    page.goto(f"{page.url.partition('?')[0]}/artifacts/report-30m.html")
    report = page.frame_locator("iframe")
    seen.see(report.get_by_role("heading", name=re.compile("demo, 30m")))
    seen.see(report.get_by_role("table"))
    # the frame is of no origin: figures show there only because they are part of the file
    figure = report.locator("figure img").first
    figure.scroll_into_view_if_needed()
    assert figure.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    seen.keep("report")


def test_a_run_of_our_model_shows_its_place_and_the_version_made_of_it(seen, experiment, views):
    open_view(seen, experiment, views[OVER_TIME])
    page = seen.page
    page.get_by_role("link", name=re.compile(r"^margincast · demo")).last.click()
    seen.see(page.get_by_text(re.compile(r"place \d of 3 by pinball loss")))
    registered = page.get_by_text("Registered models").locator("xpath=../..")
    seen.see(registered.get_by_text(re.compile(r"^v\d+$")))
    seen.keep("model")


def test_a_port_that_is_taken_is_an_error_that_names_another(command, address, workspace):
    port = int(address.rpartition(":")[2])
    ending = command("ui", "--workspace", workspace, "--port", port)
    assert ending.code == 2
    assert f"--port {port + 1}" in ending.errors


def test_the_pages_of_a_server_are_its_own(command, address, workspace):
    ending = command("ui", "--workspace", workspace, "--uri", address)
    assert ending.code == 2
    assert f"open it in a browser, {address}/#/experiments" in ending.errors
