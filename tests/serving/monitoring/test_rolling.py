"""Rolling coverage beside a loop over decisions."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from tests.serving.monitoring.monitoring_cases import after, record_case

from margincast.serving.monitoring.rolling import ALL, rolling_coverage

WINDOW = timedelta(hours=48)


def test_every_figure_is_that_of_a_loop():
    record = record_case(hours=120, ratio=2.0)
    generator = np.random.default_rng(1)
    outcomes = record.outcomes.copy()
    outcomes[generator.random(outcomes.shape) < 0.1] = np.nan
    promised = record.promised.copy()
    promised[generator.random(len(record)) < 0.1] = np.nan
    record = replace(record, outcomes=outcomes, promised=promised)
    at = after(100)
    table = rolling_coverage(record, at, WINDOW).set_index(["symbol", "side", "level"])
    assert len(table) == 4 * 2 * 2
    moment = np.datetime64(at.replace(tzinfo=None), "us")
    for (symbol, side, level), row in table.iterrows():
        s, m = record.sides.index(side), record.levels.index(level)
        decisions = known = exceeded = 0
        beyond = 0.0
        for number in range(len(record)):
            end = record.decided[number] + np.timedelta64(8, "h")
            if not moment - np.timedelta64(48, "h") < end <= moment:
                continue
            if symbol not in (ALL, record.symbols[record.contract[number]]):
                continue
            decisions += 1
            outcome, promise = outcomes[number, s], promised[number, s, m]
            if np.isnan(outcome) or np.isnan(promise):
                continue
            known += 1
            exceeded += outcome > promise
            beyond += max(0.0, outcome - promise)
        assert (row["decisions"], row["known"], row["exceeded"]) == (decisions, known, exceeded)
        assert row["exceedance_ratio"] == pytest.approx(exceeded / known / (1 - level))
        assert row["coverage"] == pytest.approx(1 - exceeded / known)
        assert row["shortfall_bps"] == pytest.approx(beyond / known * 1e4)


def test_where_nothing_is_known_nothing_is_said():
    table = rolling_coverage(record_case(), after(7), WINDOW)
    assert table["decisions"].sum() == 0
    assert table["exceedance_ratio"].isna().all()
    nobody = record_case().rows(np.zeros(720, dtype=bool))
    table = rolling_coverage(nobody, after(100), WINDOW)
    assert table["known"].sum() == 0
