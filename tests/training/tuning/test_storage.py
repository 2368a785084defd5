"""A storage of studies that cannot be used says where it lies and what to do."""

import resource
import sqlite3
import threading
import time

import optuna
import pytest
from tests.training.tuning.study_cases import LEVELS, job, simulated_panel

from margincast.core.errors import InputError
from margincast.training.tuning.storage import (
    StudyStorageError,
    open_storage,
    place_of,
    storage_errors,
)
from margincast.training.tuning.tune import tune_head

ADDRESSES = {"sqlite": "sqlite:///studies", "journal": "journal:///studies"}


@pytest.fixture(params=ADDRESSES)
def address(request):
    return ADDRESSES[request.param]


def begun(address, folder):
    storage = open_storage(address, folder)
    study = optuna.create_study(storage=storage, study_name="a")
    for _ in range(3):
        study.tell(study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}), 0.5)
    if address.startswith("sqlite"):
        storage.engine.dispose()
    return folder / "studies"


def test_what_was_written_is_there_when_it_is_opened_again(address, tmp_path):
    begun(address, tmp_path)
    study = optuna.load_study(study_name="a", storage=open_storage(address, tmp_path))
    assert [trial.value for trial in study.trials] == [0.5] * 3


def test_a_file_of_something_else_is_left_alone_and_named(address, tmp_path):
    path = tmp_path / "studies"
    path.write_text("minutes of a meeting\n" * 400)
    with pytest.raises(StudyStorageError, match="move") as caught:
        open_storage(address, tmp_path)
    assert str(path) in str(caught.value)
    assert path.read_text().startswith("minutes")


def test_a_file_damaged_in_the_midst_is_noticed_before_any_trial(address, tmp_path):
    path = begun(address, tmp_path)
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[half : half + 600] = b"\x07" * 600
    path.write_bytes(content)
    with pytest.raises(StudyStorageError, match="move") as caught:
        open_storage(address, tmp_path)
    assert str(path) in str(caught.value)


def test_an_address_of_no_known_kind_shows_what_may_be_written(tmp_path):
    with pytest.raises(InputError, match=r"sqlite:///mlruns/studies\.db"):
        open_storage("redis://somewhere", tmp_path)


def test_a_database_server_that_is_down_is_named_without_its_password(tmp_path):
    address = "postgresql+psycopg2://user:secret@127.0.0.1:1/studies"
    with pytest.raises(StudyStorageError, match=r"127\.0\.0\.1:1/studies cannot be used") as caught:
        open_storage(address, tmp_path)
    assert "secret" not in str(caught.value)
    assert "secret" not in place_of(address, tmp_path)


def test_a_study_that_another_process_is_writing_to_is_waited_for(tmp_path):
    path = begun(ADDRESSES["sqlite"], tmp_path)
    held = sqlite3.connect(path, check_same_thread=False)
    held.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.5, held.rollback)
    release.start()
    started = time.monotonic()
    study = optuna.load_study(study_name="a", storage=open_storage(ADDRESSES["sqlite"], tmp_path))
    study.tell(study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}), 0.25)
    assert time.monotonic() - started > 0.3
    assert study.best_value == 0.25
    release.join()
    held.close()


def test_a_full_disk_ends_the_study_with_a_message_and_keeps_what_it_took(address, tmp_path):
    spec, panel = job("tuning.trials=20", "model.head.rounds=2"), simulated_panel(0, 300)
    storage = open_storage(address, tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    taken = []

    def fill_the_disk(trial):
        taken.append(trial.number)
        if trial.number == 2:
            largest = max(path.stat().st_size for path in tmp_path.iterdir())
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 2000, limits[1]))

    try:
        with pytest.raises(StudyStorageError, match="space on the disk"):
            tune_head(
                spec, [panel], LEVELS, 1, fill_the_disk,
                storage=storage, place=str(tmp_path / "studies"),
            )  # fmt: skip
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert taken[:3] == [0, 1, 2]
    shorter = spec.model_copy(
        update={"tuning": spec.tuning.model_copy(update={"trials": len(taken) + 1})}
    )
    tuned = tune_head(shorter, [panel], LEVELS, 1, storage=storage)
    finished = [trial for trial in tuned.study.trials if trial.state.name == "COMPLETE"]
    assert len(finished) >= 3


@pytest.mark.parametrize("left", [0.05, 0.5, 0.95])
def test_a_line_cut_short_by_a_kill_costs_nothing_but_itself(left, tmp_path):
    address, path = ADDRESSES["journal"], tmp_path / "studies"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    asked = {"x": optuna.distributions.FloatDistribution(0, 1)}
    study = optuna.create_study(study_name="a", storage=open_storage(address, tmp_path))
    study.tell(study.ask(asked), 0.25)
    study.tell(study.ask(asked), 0.5)
    *whole, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole) + last[: round(left * len(last))])
    for number in (2, 3):
        again = optuna.load_study(study_name="a", storage=open_storage(address, tmp_path))
        assert [trial.value for trial in again.trials][:2] == [0.25, None]
        assert again.ask(asked).number == number
    assert path.read_bytes().startswith(b"".join(whole) + b"{")


def test_errors_that_are_not_of_the_storage_pass_through():
    with pytest.raises(ZeroDivisionError), storage_errors("somewhere"):
        _ = 1 / 0
