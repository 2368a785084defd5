"""Bad input gets one message that says what to do, exit code 2, and leaves nothing behind."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

START = datetime(2024, 1, 1, tzinfo=UTC)
HOURS = 24 * 40
PRICES = ("open", "high", "low", "close")


def hourly_bars(seed: int, hours: int = HOURS) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    path = 100 * np.exp(np.cumsum(rng.normal(0, 0.002, (hours, 6)).ravel())).reshape(hours, 6)
    return pl.DataFrame(
        {
            "ts": pl.datetime_range(
                START, START + timedelta(hours=hours - 1), "1h", time_unit="us", eager=True
            ),
            "open": path[:, 0],
            "high": path.max(axis=1),
            "low": path.min(axis=1),
            "close": path[:, -1],
            "volume": rng.uniform(1, 9, hours),
        }
    )


@pytest.fixture
def data(tmp_path) -> Path:
    """Forty days of hourly bars of two contracts, as good as bars can be."""
    folder = tmp_path / "data" / "bars"
    folder.mkdir(parents=True)
    for seed, symbol in enumerate(("BTCUSDT", "ETHUSDT")):
        hourly_bars(seed).write_parquet(folder / f"{symbol}.parquet")
    return tmp_path / "data"


@pytest.fixture
def backtest(command, workspace, data, tmp_path):
    """Backtest perp-8h on these bars, with more ``--set`` texts."""

    def run(*overrides: str, spec: str = "perp-8h.toml", root: Path = data):
        texts = ("data.bars=bars", "backtest.start=2024-02-01", "backtest.end=2024-02-05")
        return command(
            "backtest", workspace / "training" / spec, "--data", root, "--out", tmp_path / "out",
            *(part for text in (*texts, *overrides) for part in ("--set", text)),
        )  # fmt: skip

    return run


@pytest.fixture
def refused(backtest, tmp_path):
    """Run the backtest, see it refused as bad input should be, and return the message."""

    def check(*overrides: str, **options) -> str:
        ending = backtest(*overrides, **options)
        assert_refused(ending, tmp_path / "out")
        return ending.errors[ending.errors.index("error: ") :]

    return check


def assert_refused(ending, out: Path) -> None:
    assert ending.code == 2, ending.errors
    starts = [line for line in ending.errors.splitlines() if line.startswith("error:")]
    assert len(starts) == 1
    assert "Traceback" not in ending.errors
    assert ending.output == ""
    assert not out.exists()


def change(data: Path, edit: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    path = data / "bars" / "ETHUSDT.parquet"
    edit(pl.read_parquet(path)).write_parquet(path)


def with_value(column: str, row: int, value: object) -> Callable[[pl.DataFrame], pl.DataFrame]:
    def edit(frame: pl.DataFrame) -> pl.DataFrame:
        values = frame[column].to_list()
        values[row] = value
        return frame.with_columns(pl.Series(column, values))

    return edit


def test_a_missing_spec_is_answered_with_the_nearest(refused):
    message = refused(spec="perp8h.toml")
    assert "perp8h.toml does not exist (did you mean 'perp-8h.toml'?)" in message


def test_all_misspelt_keys_are_named_at_once_with_suggestions(refused):
    message = refused("target.horizns=8h", "model.head.round=3", "backtst.start=2024-01-01")
    assert "3 problems" in message
    assert "target.horizns: unknown key (did you mean 'horizons'?)" in message
    assert "model.head.round: unknown key (did you mean 'rounds'?)" in message
    assert "backtst: unknown key (did you mean 'backtest'?)" in message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("nonsense", "write section.key=value"),
        ("=3", "write section.key=value"),
        ("target..levels=3", "write section.key=value"),
        ("name.first=3", "'name' is a value, not a section"),
        ("target.horizons=soon", "target.horizons.0: 'soon' is not a duration"),
        ("target.levels=99", "target.levels"),
        ("target.levels=[99.0]", "did you mean 0.99?"),
        ("target.levels=[0.99, 0.9]", "target.levels: must be strictly increasing"),
        ("target.sides=both", "target.sides"),
        ("target.stride=0", "target.stride"),
        ("backtest.start=yesterday", "backtest.start: 'yesterday' is not a date or time"),
        ("backtest.start=2024-03-01", "is not before end"),
        ("backtest.refit_every=0d", "backtest.refit_every"),
        ("target.horizons=90m", "is not a whole number of 1h bars"),
        ("features.set=features/bars-1.toml", "(did you mean 'bars-1h.toml'?)"),
        (
            "model.scale.columns=parkinson_volatility_1hr",
            "(did you mean 'parkinson_volatility_1h'?)",
        ),
    ],
)
def test_an_override_that_makes_no_sense_is_refused_by_its_key(refused, override, expected):
    assert expected in refused(override)


def test_a_spec_that_is_not_toml_says_in_which_line(refused, workspace):
    spec = workspace / "training" / "broken.toml"
    spec.write_text('name = "a"\nname = \n')
    try:
        assert "line 2" in refused(spec="broken.toml")
    finally:
        spec.unlink()


def test_an_unknown_peer_is_answered_with_the_nearest(refused):
    message = refused('backtest.peers=["ewma_fhs", "har_fsh"]')
    assert "backtest.peers.1" in message
    assert "'har_fhs'" in message


@pytest.mark.parametrize("peers", ['["ewma_fhs", "ewma_fhs"]', '["ewma_fhs", "margincast"]'])
def test_a_model_named_twice_is_refused(refused, peers):
    assert "backtest.peers" in refused(f"backtest.peers={peers}")


def test_a_gate_against_a_model_that_is_not_run_is_refused(refused):
    assert "gate.reference" in refused("gate.reference=static", 'backtest.peers=["ewma_fhs"]')


def test_a_missing_data_folder_is_named(refused, tmp_path):
    message = refused(root=tmp_path / "nowhere")
    assert f"data folder {tmp_path / 'nowhere'} does not exist" in message


def test_a_missing_folder_of_bars_is_named_with_both_ways_out(refused, data):
    message = refused("data.bars=bras")
    assert f"{data / 'bras'} does not exist" in message
    assert "--data" in message
    assert "--set data.bars" in message


def test_an_empty_folder_is_named(refused, data):
    (data / "empty").mkdir()
    assert f"folder {data / 'empty'} holds no .parquet file" in refused("data.bars=empty")


def test_an_unknown_symbol_is_answered_with_the_nearest(refused):
    assert "ETHUSD (did you mean 'ETHUSDT'?)" in refused("data.symbols=ETHUSD")


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda frame: frame.rename({"close": "clos"}), "'close' (did you mean 'clos'?)"),
        (lambda frame: frame.head(0), "the table has no rows"),
        (lambda frame: frame.reverse(), "'ts' runs backwards in 959 row(s), first at row 1"),
        (lambda frame: pl.concat([frame.head(5), frame[4:]]), "'ts' repeats in 1 row(s)"),
        (with_value("close", 7, 0.0), "column 'close' holds 0.0 at row 7"),
        (with_value("low", 8, -3.0), "column 'low' holds -3.0 at row 8"),
        (with_value("open", 9, float("nan")), "column 'open' holds nan at row 9"),
        (with_value("volume", 3, float("inf")), "column 'volume' holds inf at row 3"),
        (with_value("high", 2, None), "column 'high' holds None at row 2"),
        (with_value("high", 6, 1e-9), "allowed is high >= open, close, low"),
        (lambda frame: frame.cast({"close": pl.String}), "column 'close' is String, not a number"),
        (lambda frame: frame.with_columns(pl.col("ts").to_physical()), "not a timestamp"),
        (lambda frame: frame.gather_every(4), "bars are 4h apart"),
        (
            lambda frame: frame.with_columns(pl.col("ts") + timedelta(minutes=5)),
            "open off the 1h grid",
        ),
    ],
)
def test_a_table_that_breaks_a_rule_is_refused_with_place_and_rule(refused, data, edit, expected):
    change(data, edit)
    message = refused()
    assert expected in message
    assert "ETHUSDT" in message


def test_contracts_that_are_all_stale_leave_nothing_to_do(refused, data):
    for path in (data / "bars").iterdir():
        still = [pl.lit(5.0).alias(name) for name in PRICES]
        pl.read_parquet(path).with_columns(*still, pl.lit(0.0).alias("volume")).write_parquet(path)
    assert "every contract (BTCUSDT, ETHUSDT) is stale" in refused()


def test_a_file_that_is_not_parquet_is_named(refused, data):
    (data / "bars" / "ETHUSDT.parquet").write_bytes(b"symbol,ts\n" * 50)
    assert "ETHUSDT.parquet cannot be read as Parquet" in refused()


def test_a_parquet_file_with_damaged_pages_is_named(refused, data):
    path = data / "bars" / "ETHUSDT.parquet"
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)
    path.write_bytes(content)
    assert pl.scan_parquet(path).collect_schema().names()
    assert "ETHUSDT.parquet cannot be read as Parquet" in refused()


def test_a_test_period_without_data_says_what_the_data_holds(refused):
    message = refused("backtest.start=2025-01-01", "backtest.end=2025-02-01")
    assert "no decision lies in the test period 2025-01-01 00:00 to 2025-02-02 00:00" in message
    assert "2024-01-08T00:00:00" in message


def test_too_little_history_says_how_much_is_needed(refused):
    message = refused("model.tail.threshold_level=0.995", "model.tail.from_level=0.999")
    assert "refit of 2024-02-01" in message
    # trees trained up to 0.995 need ten expected exceedances before the last block: 2,000 decisions
    found = re.search(r"level 0.995 needs at least ([\d,]+) training decisions", message)
    assert found
    assert int(found[1].replace(",", "")) >= 2000


def test_history_without_an_outcome_before_the_test_is_too_little_too(refused):
    message = refused("backtest.start=2024-01-01")
    assert "found 0" in message


@pytest.mark.parametrize("at", ["taken", "below"])
def test_an_output_that_cannot_be_a_folder_is_refused(command, workspace, data, tmp_path, at):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    out = taken if at == "taken" else taken / "below"
    ending = command(
        "features", "build", workspace / "features" / "bars-1h.toml", "--data", data, "--out", out
    )
    assert ending.code == 2
    assert ending.errors.startswith("error: ")
    assert "Traceback" not in ending.errors
    assert taken.read_text() == "mine"


def test_a_time_to_score_at_that_is_no_time_is_refused(command, workspace, data, tmp_path):
    ending = command(
        "score", workspace / "serving" / "perp-8h.toml", "--data", data, "--out", tmp_path / "out",
        "--at", "noon",
    )  # fmt: skip
    assert_refused(ending, tmp_path / "out")
    assert "--at: 'noon' is not a date or time" in ending.errors


def test_a_policy_whose_schedule_is_missing_is_refused(command, workspace, data, tmp_path):
    ending = command(
        "score", workspace / "serving" / "perp-8h.toml", "--data", data, "--out", tmp_path / "out",
        "--set", "schedule.file=serving/schedules/perpetual.toml",
    )  # fmt: skip
    assert_refused(ending, tmp_path / "out")
    assert "(did you mean 'perpetuals.toml'?)" in ending.errors


def test_nothing_is_trained_or_registered_on_bad_input(command, workspace, data, tmp_path):
    change(data, with_value("close", 7, 0.0))
    ending = command(
        "train", workspace / "training" / "perp-8h.toml", "--data", data,
        "--out", tmp_path / "out", "--set", "data.bars=bars",
        "--set", f"tracking.uri=sqlite:///{tmp_path / 'mlflow.db'}",
    )  # fmt: skip
    assert_refused(ending, tmp_path / "out")
    assert "column 'close' holds 0.0 at row 7" in ending.errors
    assert not (tmp_path / "mlflow.db").exists()


def test_a_delisted_contract_is_counted_and_excluded(command, workspace, data, tmp_path):
    delisted = 500
    change(
        data,
        lambda frame: frame.with_columns(
            *(
                pl.when(pl.int_range(pl.len()) < delisted).then(name).otherwise(77.0).alias(name)
                for name in PRICES
            ),
            pl.when(pl.int_range(pl.len()) < delisted).then("volume").otherwise(0.0),
        ),
    )
    out = tmp_path / "out"
    ending = command(
        "features", "build", workspace / "features" / "bars-1h.toml", "--data", data, "--out", out
    )
    assert ending.code == 0, ending.errors
    assert '"stale bars (zero volume, no change)"' in (out / "features.json").read_text()
    assert f'"count": {HOURS - delisted},' in (out / "features.json").read_text()
    features = pl.read_parquet(out / "features.parquet")
    last = features.group_by("symbol").agg(pl.col("ts").max()).sort("symbol")["ts"].to_list()
    assert last == [START + timedelta(hours=HOURS), START + timedelta(hours=delisted)]


def test_what_is_asked_of_the_command_line_wrongly_is_bad_usage(command, workspace):
    for arguments in (["trian"], ["train"], ["backtest", "--wrong"], ["score", "a", "b"]):
        ending = command(*arguments)
        assert ending.code == 2
        assert "Traceback" not in ending.errors


def test_init_never_overwrites(command, workspace):
    before = {path: path.read_bytes() for path in workspace.rglob("*.toml")}
    (workspace / "training" / "perp-1h.toml").write_text("# mine\n")
    try:
        ending = command("init", workspace)
        assert ending.code == 2
        assert ending.errors.startswith("error: ")
        assert (workspace / "training" / "perp-1h.toml").read_text() == "# mine\n"
    finally:
        for path, content in before.items():
            path.write_bytes(content)


def test_the_interface_without_a_store_says_what_to_run_first(command, tmp_path):
    ending = command("ui", "--workspace", tmp_path)
    assert ending.code == 2
    assert ending.errors.startswith("error: there is no MLflow store")


def test_help_loads_nothing_heavy():
    heavy = "mlflow optuna lightgbm pandas polars numpy scipy matplotlib fastapi sklearn pydantic"
    program = (
        "import sys; sys.argv = ['margincast', '--help']\n"
        "from margincast.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as ending:\n"
        f"    loaded = [name for name in {heavy.split()} if name in sys.modules]\n"
        "    print('loaded:', *loaded)\n"
        "    sys.exit(ending.code)\n"
    )
    done = subprocess.run(  # noqa: S603  # this interpreter, and a program written here
        [sys.executable, "-c", program], capture_output=True, text=True, check=False,
        env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded:"
    for name in ("demo", "features", "train", "backtest", "score", "ui", "init"):
        assert name in done.stdout
