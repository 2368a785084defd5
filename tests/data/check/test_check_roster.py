"""Contracts side by side: early ends, one symbol at several venues, one line a contract, order."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from margincast.data.check._plots import broken_line
from margincast.data.check.finding import CheckFinding
from margincast.data.check.holes import seconds_text
from margincast.data.check.summary import share_text, summaries
from margincast.data.check.survey import ranked, survey_store
from margincast.data.check.time_zones import HourlyCloses
from margincast.data.schemas import TIMESTAMP
from margincast.jobs.check import grouped


def found(store, word):
    return [one for one in survey_store(store).findings if word in one.what]


def test_a_contract_that_ends_early_is_told_with_its_days(write_store, make_bars, start):
    store = write_store(
        ("bars_1h", "v", make_bars(1000)),
        ("bars_1h", "v", make_bars(1000 - 24 * 20, symbol="EARLY")),
        # less than a day, and the only one of its venue
        ("bars_1h", "v", make_bars(980, symbol="LATE")),
        ("bars_1h", "w", make_bars(100, symbol="OTHER")),
    )
    (finding,) = found(store, "ends")
    assert finding.symbol == "EARLY"
    assert "ends 20 d before the others of its table and venue" in finding.what
    assert (finding.count, finding.total, finding.severity) == (480, 1000, "warning")
    assert finding.first == start + timedelta(hours=519)


@pytest.mark.parametrize(("quiet_days", "early"), [(2, 0), (90, 1)])
def test_events_that_are_rare_do_not_end_early(write_store, start, quiet_days, early):
    def events(symbol, hours):
        return pl.DataFrame(
            {
                "symbol": symbol,
                "ts": [start + timedelta(hours=hour) for hour in hours],
                "price": 100.0,
                "size": 1.0,
                "side": "buy",
            },
            schema_overrides={"ts": TIMESTAMP},
        )

    store = write_store(
        ("liquidations", "v", events("OFTEN", range(100 * 24))),
        ("liquidations", "v", events("SELDOM", range(0, (100 - quiet_days) * 24, 5))),
    )
    assert len(found(store, "ends")) == early


def test_one_symbol_at_several_venues_is_listed_once(write_store, make_bars):
    store = write_store(
        ("bars_1h", "one", make_bars(50, symbol="BTCUSDT")),
        ("bars_1h", "two", make_bars(50, symbol="BTC-USDT")),
        ("bars_5m", "three", make_bars(50, symbol="BTCUSDT", interval="5m")),
    )
    (finding,) = found(store, "venues")
    assert finding.what == "the same symbol at 2 venues: one, two"
    assert (finding.count, finding.severity, finding.table) == (100, "info", "bars_1h")


def test_a_line_sums_up_each_contract(write_store, make_bars, start):
    number = pl.int_range(pl.len())
    bars = make_bars(500).filter(~number.is_between(100, 119))
    still = pl.int_range(pl.len()) >= 400
    dead = bars.with_columns(
        pl.when(still).then(100.0).otherwise(name).alias(name)
        for name in ("open", "high", "low", "close")
    ).with_columns(pl.when(still).then(0.0).otherwise("volume").alias("volume"))
    newer = make_bars(524, symbol="NEW")
    lines = summaries(survey_store(write_store(("bars_1h", "v", dead), ("bars_1h", "v", newer))))
    old, new = lines
    assert (old.symbol, old.rows, old.gaps) == ("ABC", 480, 1)
    assert old.present_share == pytest.approx(480 / 500)
    assert old.longest_gap == timedelta(hours=21)
    assert old.newest == start + timedelta(hours=499)
    assert old.behind == timedelta(hours=24)
    assert old.stale_since == start + timedelta(hours=420)
    assert (new.behind, new.stale_since, new.locked_share) == (timedelta(0), None, None)


def finding_of(severity, count, **others):
    return CheckFinding(
        "t", others.pop("symbol", "A"), "what", count, 100, "act", severity=severity, **others
    )


def test_faults_come_first_then_the_worst_moves_then_the_shares():
    wick = finding_of("warning", 1, worst_move=-0.999)
    spike = finding_of("warning", 9, worst_move=0.4)
    locked, few = finding_of("warning", 90), finding_of("warning", 2)
    fault, info = finding_of("fault", 1), finding_of("info", 100)
    nothing = finding_of("fault", 0)
    assert ranked([info, few, locked, spike, nothing, wick, fault]) == [
        fault,
        wick,
        spike,
        locked,
        few,
        info,
    ]


def test_findings_of_one_kind_share_a_line_whatever_their_figures():
    one, two = finding_of("warning", 2, kind="k"), finding_of("warning", 1, kind="k", symbol="B")
    other = finding_of("info", 2, kind="k")
    assert grouped([one, other, two]) == [[one, two], [other]]


def test_worst_wick_stands_in_the_text_with_its_time(write_store, make_bars, start):
    bars = make_bars(200).with_columns(
        pl.when(pl.int_range(pl.len()) == 77).then(0.1)
        .when(pl.int_range(pl.len()) == 33).then(pl.col("low") / 2)
        .otherwise("low").alias("low")
    )  # fmt: skip  # one case a line
    (finding,) = found(write_store(("bars_1h", "v", bars)), "wicks")
    assert finding.count == 2
    assert "worst: low 0.1 at open" in finding.what
    assert "on 2024-01-04 05:00 (-99.9 %)" in finding.what
    assert finding.worst_move == pytest.approx(-0.999, abs=1e-3)


def test_the_low_of_the_hour_is_drawn_and_the_line_breaks_over_missing_hours(make_bars):
    bars = make_bars(300).filter(~pl.int_range(pl.len()).is_between(100, 149))
    closes = HourlyCloses(pl.col("close"), pl.col("low"), pl.col("high"))
    for block in (bars[:120], bars[120:]):
        closes.add(block)
    prices = closes.prices()
    assert prices.lows.tolist() == bars["low"].to_list()
    assert prices.highs.tolist() == bars["high"].to_list()
    hours, values = broken_line(prices)
    assert len(values) == len(bars) + 1
    (gap,) = np.flatnonzero(np.isnan(values)).tolist()
    assert hours[gap + 1] - hours[gap - 1] == 51


def test_spans_and_shares_are_written_as_a_person_reads_them():
    spans = {0: "0 s", 0.25: "250 ms", 7: "7 s", 108: "108 s", 3600: "1 h", 18_000: "5 h"}
    assert {second: seconds_text(timedelta(seconds=second)) for second in spans} == spans
    assert seconds_text(timedelta(days=1620)) == "1,620 d"
    assert seconds_text(timedelta(seconds=-1.3)) == "-1.3 s"
    shares = {None: "", 0.0: "0 %", 1.0: "100 %", 0.463: "46.3 %", 0.999956: "99.9956 %"}
    assert {share: share_text(share) for share in shares} == shares
    assert share_text(1e-9) == "< 0.0001 %"
    assert share_text(1 - 1e-9) == "> 99.9999 %"
