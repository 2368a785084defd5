"""A table of margin levels made by the real policy arithmetic, for whoever serves or reads one."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from margincast.margin.background import Background
from margincast.margin.levels import margin_levels
from margincast.margin.tier_rows import tier_rows
from margincast.serving.scored import policy_hash
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

CHECKOUT = Path(__file__).resolve().parents[2]
AT = datetime(2026, 1, 10, tzinfo=UTC)
SYMBOLS = ("SIM-ALT", "SIM-BTC", "SIM-ETH")
FORECASTS = (0.012, 0.0041, 0.0054)
POLICY = load_spec(CHECKOUT / "serving" / "demo.toml", MarginPolicy)
SCHEDULE = load_spec(CHECKOUT / POLICY.schedule.file, BaseSchedule)


def levels_of(
    forecasts: tuple[float, ...] = FORECASTS,
    symbols: tuple[str, ...] = SYMBOLS,
    at: datetime = AT,
) -> pd.DataFrame:
    """Margin levels of some contracts; a forecast of NaN leads to a fallback."""
    rows = tier_rows(symbols, SCHEDULE, POLICY)
    long = np.array(forecasts)
    moment = np.datetime64(at.replace(tzinfo=None), "us")
    levels = margin_levels(
        rows,
        {"long": long, "short": 0.9 * long},
        POLICY,
        data_age=np.full(len(symbols), np.timedelta64(60, "s")),
        background=Background.none(len(rows), moment),
    )
    as_of = pd.Series(pd.Timestamp(at - timedelta(minutes=1)), levels.index).dt.as_unit("us")
    return levels.assign(
        data_as_of=as_of.where(levels["forecast"].notna()),
        model_version="demo/1",
        feature_set_hash="2" * 64,
        policy_hash=policy_hash(POLICY, SCHEDULE),
    )
