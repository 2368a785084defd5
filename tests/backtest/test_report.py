"""The report: one page that needs nothing else, says what the evaluation says, verdict first."""

import base64
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.backtest import _drawing, _plots_of_models, _plots_over_time
from margincast.backtest.evaluation import evaluate
from margincast.backtest.replay import Replay
from margincast.backtest.report import (
    UNKNOWN,
    ReportFacts,
    headline,
    render_report,
    write_report,
)
from margincast.core.errors import InputError
from margincast.data.quality import Finding
from margincast.models.protocol import Panel, TailForecast

SIDES = ("long", "short")
LEVELS = (0.95, 0.99)
HOUR = timedelta(hours=1)
HOSTILE = "<script>alert('$x$')</script>&USDT"
VOID = {"meta", "img", "br", "link", "input"}


def simulate(days, symbols):
    """A replay of three models, of which ours forecasts the true quantile."""
    generator = np.random.default_rng(2)
    times = pd.date_range("2024-01-01", periods=24 * days, freq="h", tz="UTC").as_unit("us")
    volatility = 0.01 * generator.lognormal(0.0, 0.5, len(times) * len(symbols))
    frame = pd.DataFrame(
        {"symbol": np.tile(symbols, len(times)), "ts": np.repeat(times, len(symbols))}
    )
    panel = Panel(
        frame,
        {},
        {side: volatility * generator.exponential(size=len(frame)) for side in SIDES},
        volatility,
        (frame["ts"] + HOUR).dt.tz_localize(None).to_numpy("datetime64[us]"),
    )
    panel.outcomes["long"][:5] = np.nan
    shape = np.repeat(-np.log1p(-np.array([[LEVELS]])), len(SIDES), axis=1)
    scales = {
        "static": np.full(len(frame), volatility.mean()),
        "margincast": volatility,
        "thin": 0.4 * volatility,
    }
    forecasts = {
        name: TailForecast(SIDES, LEVELS, scale[:, None, None] * shape)
        for name, scale in scales.items()
    }
    made = Replay(panel, (), np.zeros(len(panel), dtype=np.intp), forecasts)
    return judge(made), made


def judge(made):
    """Evaluate against ``static``; the last contract by name was listed when the test began."""
    symbols = sorted(set(made.panel.frame["symbol"]))
    first = dict.fromkeys(symbols, np.datetime64("2020-01-01"))
    first[symbols[-1]] = made.panel.decided[0]
    return evaluate(made, "static", horizon=HOUR, spacing=HOUR, first_decisions=first)


def check(name, *, passed, observed=1.0):
    answer = "is" if passed else "is not"
    return {
        "name": name,
        "observed": observed,
        "allowed": "0.8 to 1.25",
        "passed": passed,
        "reason": f"{name} {answer} within the band",
    }


FACTS = ReportFacts(
    job="perp-1h",
    description="a description with <b>markup</b> & more",
    horizon_minutes=480.0,
    test_period=(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 5, 1, tzinfo=UTC)),
    passed=True,
    checks=[check("exceedance ratio", passed=True)],
    findings=(
        Finding(
            "bars", "LUNA", "stale rows", 120, 1000, "excluded", datetime(2022, 5, 13, tzinfo=UTC)
        ),
        Finding(
            "bars", "FTT", "stale rows", 30, 1000, "excluded", datetime(2022, 11, 9, tzinfo=UTC)
        ),
        Finding("bars", "BTC", "duplicated timestamps", 0, 1000, "first kept"),
    ),
    digests={"spec": "5a" * 32, "versions": "lightgbm 4.7"},
    notes=("Two days cannot show 0.999.",),
)


@pytest.fixture(scope="module")
def backtest():
    return simulate(120, ["BTCUSDT", HOSTILE])


@pytest.fixture(scope="module")
def page(backtest):
    return render_report(*backtest, FACTS)


class Outline(HTMLParser):
    """Elements, attributes and visible text in order; complains about tags that do not close."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements, self.words = [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), list(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes, _ in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def table_after(page, heading):
    """Rows of the first table after a heading, as lists of cell texts."""
    table = page[page.index(f">{heading}<") :].split("<table", 1)[1].split("</table>")[0]
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", table, re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [
        [" ".join(unescape(re.sub(r"<[^>]+>", " ", cell)).split()) for cell in row] for row in cells
    ]


def svgs(page):
    found = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    return [base64.b64decode(text).decode() for text in found]


def test_the_page_is_complete_and_needs_nothing_else(page):
    outline = Outline(page)
    assert not outline.all("script")
    assert not outline.all("link")
    assert all(
        image["src"].startswith("data:image/svg+xml;base64,") for image in outline.all("img")
    )
    assert "://" not in page
    for svg in svgs(page):
        assert "<script" not in svg
        references = re.findall(r'(?:href|src)="([^"]*)"|url\(([^)]*)\)', svg)
        assert all("".join(target).startswith("#") for target in references)
    assert len(page) < 2_000_000


def test_the_page_can_be_read_without_seeing_it(page):
    outline = Outline(page)
    assert outline.all("html")[0]["lang"] == "en"
    assert len(outline.all("h1")) == 1
    headings = [int(tag[1]) for tag, _, _ in outline.elements if re.fullmatch(r"h[1-6]", tag)]
    assert headings[0] == 1
    assert max(np.diff(headings)) <= 1
    images = outline.all("img")
    assert len(images) == 6
    assert all(len(image["alt"]) > 40 for image in images)
    assert len(outline.all("caption")) == len(outline.all("table")) > 5
    assert all(cell.get("scope") for cell in outline.all("th"))


def test_figures_are_drawings_that_follow_light_and_dark(page):
    for svg in svgs(page):
        ET.fromstring(svg)  # noqa: S314 (our own text)
        assert "prefers-color-scheme:dark" in svg
        drawn = svg.split("</style>", 1)[1]
        assert _drawing.INK not in drawn
        assert "var(--c0)" in drawn


def test_everything_is_escaped(page):
    assert "alert(" in page
    assert "<script" not in page
    assert "a description with &lt;b&gt;markup&lt;/b&gt; &amp; more" in page
    assert HOSTILE in Outline(page).text
    assert any("alert('$x$')" in svg for svg in svgs(page))


def test_the_verdict_stands_first(backtest, page):
    text = Outline(page).text
    assert text.index("Passed : the gate allows") < text.index(headline(backtest[0]))
    assert text.index(headline(backtest[0])) < text.index("Models")
    failed = replace(
        FACTS,
        passed=False,
        checks=[
            check("exceedance ratio", passed=True),
            check("crossings", passed=False, observed=None),
        ],
    )
    text = Outline(render_report(*backtest, failed)).text
    assert "Failed : the gate does not allow this model" in text
    first, _ = text.split("Models", 1)
    assert "What failed: crossings is not within the band" in first
    assert "exceedance ratio is within the band" not in first
    assert f"crossings {UNKNOWN} 0.8 to 1.25 ✗ failed" in first
    text = Outline(render_report(*backtest, replace(FACTS, passed=None, checks=()))).text
    assert "No gate was asked" in text
    assert "the gate allows" not in text


def test_the_headline_says_what_the_cell_says(backtest):
    evaluation, _ = backtest
    cell = evaluation.cell("margincast", "both", 0.95)
    sentence = headline(evaluation)
    assert f"{cell.exceedance_ratio:.2f} times as often as promised" in sentence
    assert f"interval {cell.exceedance_ratio_low:.2f} to" in sentence
    assert "which contains 1" in sentence
    assert "below that of static, number 1 of 3 models" in sentence


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (1.1, 1.4, "too low"),
        (0.5, 0.9, "higher than the level asks"),
        (float("nan"), float("nan"), "too short for an interval"),
    ],
)
def test_the_headline_judges_by_the_interval(backtest, low, high, words):
    evaluation, _ = backtest
    cells = tuple(
        replace(cell, exceedance_ratio_low=low, exceedance_ratio_high=high)
        for cell in evaluation.cells
    )
    assert words in headline(replace(evaluation, cells=cells))


def test_models_are_ranked_and_ours_is_marked(backtest, page):
    evaluation, _ = backtest
    rows = table_after(page, "Models")[2:]
    names = [row[0].split()[0] for row in rows]
    by_loss = sorted(evaluation.models, key=lambda model: model.pinball_ratio)
    assert names == [model.model for model in by_loss]
    assert names[0] == "margincast"
    marked = re.findall(r'<tr class="ours"><th scope="row">(\w+)', page)
    assert set(marked) == {"margincast"}
    assert "static (reference)" in [row[0] for row in rows]


def test_the_table_of_models_shows_the_figures_of_the_evaluation(backtest, page):
    evaluation, _ = backtest
    row = table_after(page, "Models")[2]
    low, high = (evaluation.cell("margincast", "both", level) for level in LEVELS)
    summary = next(model for model in evaluation.models if model.model == "margincast")
    assert row[1] == f"{summary.pinball_ratio:.3f} ± {summary.pinball_ratio_error:.3f}"
    assert row[2:4] == ["✓ 1.000", "✓ 1.000"]
    for shown, cell in ((row[4], low), (row[5], high)):
        interval = f"[{cell.exceedance_ratio_low:.2f}, {cell.exceedance_ratio_high:.2f}]"
        assert shown == f"{cell.exceedance_ratio:.2f} {interval}"
    assert row[6] == f"{100 * low.mean_forecast:.2f} %"
    assert row[7] == f"{low.mean_forecast_ratio:.3f}"
    assert row[8] == f"{100 * summary.contracts_within:.0f} %"
    assert row[9] == f"{100 * summary.largest_one_day_rise:.0f} %"
    assert row[10] == f"{summary.peak_to_trough:.1f}"
    assert row[11:] == ["< 0.001", "0"]


def test_tables_by_side_and_contract_hold_every_exceedance(backtest, page):
    evaluation, _ = backtest
    rows = table_after(page, "By side and level")
    thin = [row for row in rows if row[0] == "thin"]
    cells = [evaluation.cell("thin", side, 0.95) for side in ("both", *SIDES)]
    assert [int(row[3].replace(",", "")) for row in thin] == [cell.exceedances for cell in cells]
    for row, cell in zip(thin, cells, strict=True):
        assert row[2] == "✗ < 0.001"
        assert row[5] == f"{100 * (1 - cell.kupiec_failed):.0f} %"
        assert row[9] == f"{10_000 * cell.shortfall_per_exceedance:.1f}"
        worst = cell.worst_day
        assert row[10].startswith(f"{worst.day} {worst.exceedances} of {worst.decisions}, ")
        assert row[11] == UNKNOWN  # these models forecast no expected shortfall
    rows = table_after(page[page.index(">Contracts<") :], "Level 0.95")[2:]
    assert [len(row) for row in rows] == [11, 11]
    for column, side in ((3, "long"), (7, "short")):
        shown = sum(int(row[column].replace(",", "")) for row in rows)
        assert shown == evaluation.cell("margincast", side, 0.95).exceedances


def test_years_and_new_listings_stand_apart(backtest, page):
    evaluation, _ = backtest
    for heading, names in (
        ("By calendar year", ["2024"]),
        ("New listings", ["established", "new listings"]),
    ):
        rows = table_after(page, heading)
        assert [
            cell.split(" 1 contract")[0].split(" 2 contract")[0] for cell in rows[0][1:]
        ] == names
        at = next(number for number, row in enumerate(rows) if row == ["Level 0.99"])
        row = next(row for row in rows[at:] if row[0] == "thin")
        for column, name in enumerate(names):
            figures = evaluation.group("thin", name, 0.99)
            ratio = f"{figures.pinball_ratio:.3f} ± {figures.pinball_ratio_error:.3f}"
            interval = f"[{figures.exceedance_ratio_low:.2f}, {figures.exceedance_ratio_high:.2f}]"
            assert row[1 + 2 * column] == f"{figures.exceedance_ratio:.2f} {interval}"
            assert row[2 + 2 * column] == ratio


def test_contracts_outside_the_band_are_named(backtest, page):
    evaluation, replay = backtest
    assert "At 0.95 no contract lies outside." in Outline(page).text
    rows = table_after(page, "Contracts")[2:]
    assert [row[1:] for row in rows if row[0] == "thin"] == [["0 %"] * 4]
    off = replace(evaluation.coverage_of("margincast", 0.95), outside={"BTCUSDT": 1.512})
    coverage = tuple(
        off if (c.model, c.level) == ("margincast", 0.95) else c for c in evaluation.coverage
    )
    changed = render_report(replace(evaluation, coverage=coverage), replay, FACTS)
    assert "Outside at 0.95: BTCUSDT (1.51)." in Outline(changed).text


def test_the_reliability_figure_shows_observed_against_promised(backtest):
    evaluation, _ = backtest
    figure = _plots_of_models.draw_reliability(evaluation, "margincast")
    assert [panel.get_title() for panel in figure.axes] == ["long", "short"]
    exact, *models = figure.axes[1].get_lines()
    assert (exact.get_xdata() == exact.get_ydata()).all()
    *_, ours = models
    assert len(models) == 3
    assert ours.get_label() == "margincast"
    np.testing.assert_allclose(ours.get_xdata(), [0.05, 0.01])
    cells = [evaluation.cell("margincast", "short", level) for level in LEVELS]
    np.testing.assert_allclose(ours.get_ydata(), [c.exceedances / c.decisions for c in cells])


def test_findings_of_a_kind_are_joined_and_counted(page):
    rows = table_after(page, "Data quality")[1:]
    counts = ["150", "2,000", "7.50 %", "2"]
    assert rows == [["bars", "stale rows", *counts, "LUNA (120)", "2022-05-13 00:00", "excluded"]]
    assert "1 further check found nothing" in page


def test_what_was_left_out_and_what_it_rests_on_is_said(backtest, page):
    text = Outline(page).text
    assert f"{backtest[0].scored:,} decisions of 2 contracts" in text
    assert "5 (no outcome), 0 (a model has no forecast)" in text
    assert "Liquidation horizon 8 h" in text
    assert "2024-01-01 00:00 to 2024-05-01 00:00 UTC" in text
    assert "Two days cannot show 0.999." in text
    assert "5a" * 32 in text


def test_nothing_unknown_shows_as_nan():
    evaluation, replay = simulate(1, ["BTCUSDT"])
    keep = np.arange(24) < 14
    forecasts = {
        name: TailForecast(SIDES, LEVELS, f.quantiles[keep]) for name, f in replay.forecasts.items()
    }
    short = Replay(replay.panel.rows(keep), (), np.zeros(14, dtype=np.intp), forecasts)
    evaluation = judge(short)
    assert np.isnan(evaluation.cell("margincast", "both", 0.95).exceedance_ratio_low)
    text = Outline(render_report(evaluation, short, replace(FACTS, findings=(), digests=None))).text
    assert not re.search(r"\b(nan|None|inf)\b", text)
    assert "too short for an interval" in text
    assert "No irregularity was found" in text


def test_the_same_backtest_gives_the_same_bytes(backtest, page):
    assert render_report(*backtest, FACTS) == page


def test_the_file_is_written_whole_or_not_at_all(backtest, page, tmp_path):
    evaluation, replay = backtest
    path = tmp_path / "new" / "report.html"
    write_report(path, evaluation, replay, FACTS)
    assert path.read_text(encoding="utf-8") == page
    with pytest.raises(InputError, match="give the replay that was evaluated"):
        write_report(path, replace(evaluation, scored=3), replay, FACTS)
    assert path.read_text(encoding="utf-8") == page
    assert list(path.parent.iterdir()) == [path]


def test_a_replay_without_our_model_is_refused(backtest):
    evaluation, replay = backtest
    peers = {name: f for name, f in replay.forecasts.items() if name != "margincast"}
    with pytest.raises(InputError, match="no forecasts of margincast"):
        render_report(evaluation, replace(replay, forecasts=peers), FACTS)


@given(
    st.integers(1, 3000),
    st.sampled_from(["1min", "7min", "1h", "8h", "1D"]),
    st.integers(0, 2**32 - 1),
)
def test_thinning_for_drawing_loses_no_peak(count, spacing, seed):
    decided = pd.date_range("2023-03-05", periods=count, freq=spacing).to_numpy("datetime64[us]")
    values = np.random.default_rng(seed).exponential(size=count)
    unit, thinned = _plots_over_time.largest_per_bin(decided, {"outcome": values})
    assert thinned["outcome"].max() == values.max()
    assert len(thinned) <= _plots_over_time.MOST_POINTS + 2
    assert set(thinned["outcome"].dropna()) <= set(values)
    assert unit in _plots_over_time._BIN_NAMES.values()


@pytest.mark.parametrize(("days", "unit"), [(2, "hour"), (30, "day"), (400, "month")])
def test_the_calendar_counts_every_exceedance_once(days, unit):
    generator = np.random.default_rng(3)
    start = np.datetime64("2023-01-31T23:00", "us")
    decided = start + generator.integers(0, days * 86_400, 5000).astype("timedelta64[s]")
    hits = generator.random((5000, 2)) < 0.03
    calendar = _plots_over_time.count_by_calendar(decided, {"margincast": hits}, 0.95)
    assert calendar.unit == unit
    assert calendar.counts["margincast"].sum() == hits.sum()
    assert calendar.nominal.sum() == pytest.approx(0.05 * hits.size)
    second = calendar.starts[1]
    assert calendar.counts["margincast"][0] == hits[decided < second].sum()
