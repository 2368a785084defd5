"""The page over several horizons states the verdict, every model's figures and where to read on."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from margincast.backtest.evaluation import Evaluation, evaluate
from margincast.backtest.overview import OverviewFacts, write_overview
from margincast.backtest.replay import Replay
from margincast.models.protocol import Panel, TailForecast

SIDES = ("long", "short")
LEVELS = (0.9, 0.95)
HOUR = timedelta(hours=1)
FACTS = OverviewFacts(
    job="perp",
    description="a description with <b>markup</b>",
    test_period=(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)),
    passed=False,
    checks=[
        {"name": "1h: ratio", "observed": 1.0, "allowed": "0.8 to 1.25", "passed": True,
         "reason": "1h: ratio is within"},
        {"name": "8h: ratio", "observed": None, "allowed": "0.8 to 1.25", "passed": False,
         "reason": "8h: cannot tell"},
    ],
    monotone=True,
    crossings={"margincast": 0, "static": 1234},
    pages={60: "report-60m.html", 480: "report-480m.html"},
)  # fmt: skip


def evaluated(hours: int) -> Evaluation:
    """One contract, exponential excursions that grow with the horizon; ``static`` is higher."""
    rng = np.random.default_rng(hours)
    times = pd.date_range("2024-01-01", periods=24 * 30, freq="h", tz="UTC").as_unit("us")
    width = 0.01 * np.sqrt(hours)
    panel = Panel(
        pd.DataFrame({"symbol": "BTCUSDT", "ts": times}),
        {},
        {side: width * rng.exponential(size=len(times)) for side in SIDES},
        np.full(len(times), width),
        (times + hours * HOUR).tz_localize(None).to_numpy("datetime64[us]"),
    )
    shape = np.tile(-np.log1p(-np.array(LEVELS)), (len(times), len(SIDES), 1))
    forecasts = {
        name: TailForecast(SIDES, LEVELS, factor * width * shape)
        for name, factor in (("static", 1.2), ("margincast", 1.0))
    }
    made = Replay(panel, (), np.zeros(len(panel), dtype=np.intp), forecasts)
    return evaluate(
        made, "static", horizon=hours * HOUR, spacing=HOUR,
        first_decisions={"BTCUSDT": np.datetime64("2020-01-01")},
    )  # fmt: skip


@pytest.fixture(scope="module")
def evaluations() -> dict[int, Evaluation]:
    return {60 * hours: evaluated(hours) for hours in (1, 8)}


def written(path, evaluations, facts=FACTS) -> str:
    write_overview(path, evaluations, facts)
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    return path.read_text(encoding="utf-8")


def test_the_verdict_the_horizons_and_the_models_are_stated(evaluations, tmp_path):
    page = written(tmp_path / "report.html", evaluations)
    assert "does not allow this model" in page
    assert "<li>8h: cannot tell</li>" in page
    assert "<b>markup" not in page
    for minutes, duration in ((60, "1 h"), (480, "8 h")):
        assert f'<a href="report-{minutes}m.html">{duration}</a>' in page
        for name in ("margincast", "static"):
            cell = evaluations[minutes].cell(name, "both", 0.9)
            assert f"<td>{cell.exceedance_ratio:.2f}</td>" in page
            assert f"<td>{cell.mean_forecast:.2%}".replace("%", " %") in page
    assert "<td>1,234</td>" in page
    # the better model stands first
    assert page.index('<th scope="row">margincast') < page.index('<th scope="row">static')


def test_crossings_are_not_counted_where_horizons_have_no_order(evaluations, tmp_path):
    facts = replace(FACTS, monotone=False, passed=True, checks=[])
    page = written(tmp_path / "report.html", evaluations, facts)
    assert "allows this model at every horizon" in page
    assert "rossings" not in page


def test_the_page_is_the_same_text_for_the_same_figures(evaluations, tmp_path):
    first = written(tmp_path / "a" / "report.html", evaluations)
    assert written(tmp_path / "b" / "report.html", evaluations) == first
