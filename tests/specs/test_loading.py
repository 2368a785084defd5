"""A spec is read whole or refused whole: every problem at once, each with what to write instead."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from margincast.core.errors import InputError, SpecError
from margincast.specs.features import FeatureSet
from margincast.specs.loading import find_workspace, load_spec, read_toml, validate_spec
from margincast.specs.training import TrainingJob

WORKSPACE = Path(__file__).resolve().parents[2]
JOBS = sorted((WORKSPACE / "training").glob("*.toml"))
FEATURE_SETS = sorted((WORKSPACE / "features").glob("*.toml"))
JOB = WORKSPACE / "training" / "perp-8h.toml"


def edited(tmp_path: Path, *replacements: tuple[str, str]) -> Path:
    text = JOB.read_text(encoding="utf-8")
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new, 1)
    path = tmp_path / "job.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        load_spec(path, TrainingJob, overrides)
    return caught.value.problems


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_every_training_job_loads_and_names_an_existing_feature_set(path):
    job = load_spec(path, TrainingJob)
    assert job.name == path.stem
    features = load_spec(WORKSPACE / job.features.set, FeatureSet)
    assert {each % features.grid.interval for each in job.target.horizons} == {timedelta(0)}


@pytest.mark.parametrize("path", FEATURE_SETS, ids=lambda path: path.stem)
def test_every_feature_set_loads(path):
    assert load_spec(path, FeatureSet).name == path.stem


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_spec_survives_being_written_as_json(path):
    job = load_spec(path, TrainingJob)
    again = validate_spec(job.model_dump(mode="json"), TrainingJob, "json")
    assert again == job
    assert again.digest() == job.digest()
    changed = load_spec(path, TrainingJob, ["model.head.seed=12345"])
    assert changed.digest() != job.digest()


def test_misspelt_keys_are_reported_all_at_once_each_with_the_nearest_known_one(tmp_path):
    path = edited(
        tmp_path,
        ('horizons = ["8h"]', 'horizns = ["8h"]'),
        ("num_leaves = 4", "num_leafs = 4"),
        ("[backtest]", "[backtests]"),
        ("[tuning.space.rounds]\nlow = 60", "[tuning.space.rounds]\nlo = 60"),
    )
    found = "\n".join(problems(path))
    assert "target.horizns: unknown key (did you mean 'horizons'?)" in found
    assert "model.head.num_leafs: unknown key (did you mean 'num_leaves'?)" in found
    assert "backtests: unknown key (did you mean 'backtest'?)" in found
    assert "tuning.space.rounds.lo: unknown key (did you mean 'low'?)" in found
    for missing in (
        "target.horizons",
        "model.head.num_leaves",
        "backtest",
        "tuning.space.rounds.low",
    ):
        assert f"{missing}: missing" in found
    assert len(problems(path)) == 8


def test_a_key_without_a_near_one_is_answered_with_all_known_ones(tmp_path):
    path = edited(tmp_path, ("[features]", "[features]\nzzz = 1"))
    assert problems(path) == ("features.zzz: unknown key (known: set)",)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("target.levels=[99.0]", "did you mean 0.99?"),
        ("target.levels=[0.99, 0.95]", "must be strictly increasing"),
        ("target.levels=[]", "at least 1 item"),
        ("target.horizons=8", "8 is not a duration; write text such as '8h'"),
        ("target.horizons=8hours", "write a positive whole number and a unit"),
        ("target.horizons=[8h, 1h]", "must be strictly increasing, found 8h, 1h"),
        ("target.horizons=[1h, 60m]", "must be strictly increasing, found 1h, 1h"),
        ("target.horizons=90s", "must be whole minutes, found 90s"),
        ("target.horizons=[]", "at least 1 item"),
        ("target.sides=up", "Input should be 'long' or 'short'"),
        ("target.stride=0", "greater than 0"),
        ("model.head.num_leaves=4.5", "integer"),
        ('model.head.num_leaves="4"', "integer"),
        ("model.head.min_data_factor=1.0", "greater than or equal to 10"),
        ("model.window=6", "string"),
        ("model.window=5000y", "write a shorter step"),
        ("model.tail.threshold_level=0.9995", "threshold_level must lie below from_level"),
        ("model.calibration.folds=1", "greater than or equal to 2"),
        ("backtest.refit_every=quarterly", "or a calendar step such as '1mo'"),
        ("backtest.start=2030-01-01", "start 2030-01-01 is not before end"),
        ("backtest.start=tomorrow", "write ISO 8601"),
        ("data.bars=[]", "name bars or a book to read"),
        ("data.book=book.parquet", "data.book needs data.book_known_after"),
        ("tuning.space={depth={low=1, high=2, log=false, integer=true}}", "space names depth"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_with_what_is(override, message):
    found = problems(JOB, override)
    assert len(found) == 1
    assert message in found[0]
    section = override.split(".")[0]
    assert found[0].startswith(section)


@pytest.mark.parametrize("missing", ["[model.tail]", "[backtest]", "[tracking]"])
def test_a_missing_section_is_named_even_where_code_could_have_guessed(tmp_path, missing):
    text = JOB.read_text(encoding="utf-8")
    start = text.index(missing)
    end = text.find("\n[", start + 1)
    path = tmp_path / "job.toml"
    path.write_text(text[:start] + (text[end + 1 :] if end > 0 else ""), encoding="utf-8")
    key = missing.strip("[]")
    assert problems(path) == (f"{key}: missing; every value of a spec is written in its file",)


def test_overrides_read_numbers_dates_lists_durations_and_bare_words():
    job = load_spec(
        JOB,
        TrainingJob,
        [
            "model.head.learning_rate=0.1",
            "model.head.rounds = 7",
            "target.levels=[0.98, 0.99]",
            "target.horizons=[4h, 1d]",
            "target.sides=short",
            "data.symbols=[BTCUSDT, ETHUSDT]",
            "data.book=standx.parquet",
            "data.book_known_after=1s",
            'data.bars=["a", "b"]',
            "features.set=features/other.toml",
            "backtest.start=2022-06-01",
            "backtest.end=2022-06-30",
            "backtest.refit_every=1mo",
            "tracking.uri=sqlite:///elsewhere=x.db",
        ],
    )
    assert job.model.head.learning_rate == 0.1
    assert job.model.head.rounds == 7
    assert job.target.levels == (0.98, 0.99)
    assert job.target.horizons == (timedelta(hours=4), timedelta(hours=24))
    assert job.target.sides == ("short",)
    assert job.data.symbols == ("BTCUSDT", "ETHUSDT")
    assert job.data.book == ("standx.parquet",)
    assert job.data.bars == ("a", "b")
    assert job.features.set == "features/other.toml"
    assert job.backtest.start == datetime(2022, 6, 1, tzinfo=UTC)
    assert job.backtest.refit_every == "1mo"
    assert job.tracking.uri == "sqlite:///elsewhere=x.db"


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("2022-06-30", datetime(2022, 7, 1, tzinfo=UTC)),
        ('"2022-06-30"', datetime(2022, 7, 1, tzinfo=UTC)),
        ("2022-06-30T12:00", datetime(2022, 6, 30, 12, tzinfo=UTC)),
        ("2022-06-30T00:00:00Z", datetime(2022, 6, 30, tzinfo=UTC)),
    ],
)
def test_a_bare_date_as_an_end_includes_that_day(text, end):
    job = load_spec(JOB, TrainingJob, ["backtest.start=2022-01-01", f"backtest.end={text}"])
    assert job.backtest.end == end


def test_an_override_of_an_unknown_key_is_refused_like_one_in_the_file():
    assert problems(JOB, "target.horzons=4h", "modle.stride=2") == (
        "target.horzons: unknown key (did you mean 'horizons'?)",
        "modle: unknown key (did you mean 'model'?)",
    )


@pytest.mark.parametrize("override", ["target.horizons", "=4h", "target.=4h", ".horizons=4h"])
def test_an_override_without_key_or_value_is_shown_how_to_write(override):
    with pytest.raises(InputError, match=r"write section\.key=value"):
        load_spec(JOB, TrainingJob, [override])


def test_an_override_below_a_value_is_refused():
    with pytest.raises(InputError, match="'horizons' is a value, not a section"):
        load_spec(JOB, TrainingJob, ["target.horizons.minutes=4"])


def test_a_missing_file_is_answered_with_the_nearest_name(tmp_path):
    edited(tmp_path)
    with pytest.raises(InputError, match=r"does not exist \(did you mean 'job\.toml'\?\)"):
        read_toml(tmp_path / "jobs.toml")
    with pytest.raises(InputError, match=r"holds: job\.toml"):
        read_toml(tmp_path / "zzzzzz")
    with pytest.raises(InputError, match="does not exist"):
        read_toml(tmp_path / "nowhere" / "job.toml")


def test_a_folder_or_a_file_that_is_not_toml_is_refused(tmp_path):
    with pytest.raises(InputError, match="is a folder; a spec is one TOML file"):
        read_toml(tmp_path)
    path = tmp_path / "job.toml"
    path.write_text("horizon = \n", encoding="utf-8")
    with pytest.raises(InputError, match=r"is not a TOML file: .*line 1"):
        read_toml(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not a TOML file"):
        read_toml(path)


def test_the_workspace_is_the_nearest_folder_with_the_three_spec_folders(tmp_path, monkeypatch):
    assert find_workspace(JOB) == WORKSPACE
    monkeypatch.chdir(tmp_path)
    assert find_workspace(tmp_path / "lone.toml") == tmp_path
