from datetime import timedelta
from pathlib import Path

import pytest

from margincast.core.errors import SpecError
from margincast.specs.loading import load_spec, validate_spec
from margincast.specs.mapping import MappingSpec

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "mapping-quotes.toml"
TRADES = {"table": "trades", "venue": "desk", "columns": {"ts": "time", "price": "px"}}


def problems(**changes):
    with pytest.raises(SpecError) as caught:
        validate_spec({**TRADES, **changes}, MappingSpec, "mapping.toml")
    return str(caught.value)


def test_a_column_is_a_name_or_a_table(tmp_path):
    path = tmp_path / "mapping.toml"
    path.write_text(
        """
        table = "trades"
        venue = "desk"
        [columns]
        ts = "time"
        size = { column = "qty", times = 0.001 }
        side = { column = "maker", values = { "true" = "sell", "false" = "buy" } }
        """
    )
    spec = load_spec(path, MappingSpec)
    assert spec.columns["ts"].column == "time"
    assert spec.columns["size"].times == 0.001
    assert spec.columns["side"].values == {"true": "sell", "false": "buy"}
    assert spec.symbol is spec.interval is spec.header is spec.delimiter is None


def test_the_example_loads():
    spec = load_spec(EXAMPLE, MappingSpec)
    assert spec.header == ("time", "bid", "ask", "volume")
    assert spec.columns["bid_size_0"].column == spec.columns["ask_size_0"].column == "volume"


def test_an_interval_is_a_duration():
    spec = validate_spec({**TRADES, "interval": "1h"}, MappingSpec, "mapping.toml")
    assert spec.interval == timedelta(hours=1)
    assert "is not a duration" in problems(interval="hourly")


def test_every_problem_is_told_at_once():
    told = problems(
        venue="",
        delimiter="::",
        zone="UTC",
        columns={"ts": {"column": "t", "factor": 2}, "price": 3},
    )
    for words in (
        "venue",
        "delimiter",
        "zone: unknown key",
        "factor: unknown key",
        "columns.price",
    ):
        assert words in told
    assert "columns: missing" in validate_without_columns()


def validate_without_columns():
    with pytest.raises(SpecError) as caught:
        validate_spec({"table": "trades", "venue": "desk"}, MappingSpec, "mapping.toml")
    return str(caught.value)
