"""A study killed and continued tries what an uninterrupted one tries, wherever it is kept."""

import os
import signal
import subprocess
import sys
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import optuna
import pytest
from tests.training.tuning.study_cases import LEVELS, job, simulated_panel

from margincast.training.tuning.storage import open_storage
from margincast.training.tuning.trials import counted
from margincast.training.tuning.tune import tune_head
from margincast.training.tuning.workers import LocalProcesses, OneThread

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
INPUTS = {"data": "the same"}
# the sampler learns from the eleventh trial on: then it matters what it remembers
SPEC = ("tuning.trials=14", "tuning.folds=2")


@pytest.fixture(scope="module")
def panel():
    return simulated_panel(0, 700)


@pytest.fixture(scope="module")
def uninterrupted(panel):
    return tried(tune_head(job(*SPEC), [panel], LEVELS, 1, inputs=INPUTS).study)


def tried(study):
    """What the trials that count tried and found, in order."""
    return [(t.params, t.values, t.state, t.intermediate_values) for t in counted(study)]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_job_killed_in_the_midst_is_continued_by_the_same_command(
    kind, tmp_path, panel, uninterrupted, request
):
    address = "sqlite:///a/studies.db"
    if kind == "postgres":
        address = request.getfixturevalue("postgres").database("studies")
    job_process = subprocess.Popen(  # noqa: S603  # this very interpreter
        [sys.executable, "-m", "tests.training.tuning.tune_until_killed", address, tmp_path, *SPEC],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": "src"}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for line in job_process.stdout:
            if line.strip() == "11":
                break
        job_process.send_signal(signal.SIGKILL)
    finally:
        job_process.kill()
        job_process.communicate()
    remarks: list[str] = []
    there: list[int] = []
    storage = open_storage(address, tmp_path)
    tuned = tune_head(
        job(*SPEC), [panel], LEVELS, 1,
        storage=storage, inputs=INPUTS, on_remark=remarks.append, on_begin=there.append,
    )  # fmt: skip
    assert tried(tuned.study) == uninterrupted
    assert remarks[0].split(": ")[1].startswith(f"{there[0]} of 14 trials are there")
    assert 12 <= there[0] < 14
    # a third time there is nothing left to do
    again = tune_head(job(*SPEC), [panel], LEVELS, 1, storage=storage, inputs=INPUTS)
    assert len(again.study.trials) == len(tuned.study.trials)
    assert again.model == tuned.model


@pytest.fixture
def heard():
    """Ctrl-C is heard, also where the tests run in the background of a shell that ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_from_the_keyboard_leaves_a_study_that_goes_on(
    panel, uninterrupted, tmp_path, heard
):
    storage = open_storage("journal:///studies.log", tmp_path)

    class Impatient(OneThread):
        """Someone presses Ctrl-C while the second step of the sixth trial is scored."""

        asked = 0

        def submit(self, head, step):
            self.asked += 1
            if self.asked == 12:
                signal.raise_signal(signal.SIGINT)
            return super().submit(head, step)

    with pytest.raises(KeyboardInterrupt):
        tune_head(
            job(*SPEC), [panel], LEVELS, 1, storage=storage, inputs=INPUTS,
            make_workers=lambda folds, _, threads: Impatient(folds, threads),
        )  # fmt: skip
    storage = open_storage("journal:///studies.log", tmp_path)
    tuned = tune_head(job(*SPEC), [panel], LEVELS, 1, storage=storage, inputs=INPUTS)
    assert tried(tuned.study) == uninterrupted
    assert [t.number for t in tuned.study.trials if "retry_of" in t.user_attrs]


def test_processes_find_what_one_thread_finds_and_lose_nothing_when_one_is_killed(panel):
    # at random and to the end, what is tried does not hang on what was found before
    spec = job("tuning.trials=6", "tuning.sampler=random", "tuning.pruner=none", "tuning.workers=2")
    made: list[LocalProcesses] = []
    killed: list[int] = []

    def processes(folds, workers, threads):
        made.append(LocalProcesses(folds, workers, threads))
        return made[0]

    def kill_one(_):
        if not killed:
            killed.extend(made[0].process_ids())
            os.kill(killed[0], signal.SIGKILL)

    alone = tune_head(spec, [panel], LEVELS, 1, inputs=INPUTS)
    shared = tune_head(spec, [panel], LEVELS, 1, kill_one, inputs=INPUTS, make_workers=processes)
    assert tried(shared.study) == tried(alone.study)
    assert shared.model == alone.model
    assert [c.held_out.loss for c in shared.candidates] == [
        c.held_out.loss for c in alone.candidates
    ]
    assert len(killed) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in killed)


def test_a_trial_that_kills_every_worker_is_failed_with_a_guess_at_the_cause(panel):
    class Dying(OneThread):
        def submit(self, head, step):
            if head.rounds <= 10:
                return super().submit(head, step)
            dead = Future()
            dead.set_exception(BrokenProcessPool("a worker ended"))
            return dead

    study = tune_head(
        job("tuning.trials=4"), [panel], LEVELS, 1,
        make_workers=lambda folds, _, threads: Dying(folds, threads),
    ).study  # fmt: skip
    failed = [trial for trial in study.trials if trial.state.name == "FAIL"]
    assert failed
    assert all("out of memory" in trial.user_attrs["error"] for trial in failed)


def test_other_inputs_begin_another_study_and_more_trials_do_not(panel):
    storage = optuna.storages.InMemoryStorage()

    def remarks_of(*overrides, inputs=INPUTS):
        said = []
        tuned = tune_head(
            job("tuning.trials=2", *overrides), [panel], LEVELS, 1,
            storage=storage, inputs=inputs, on_remark=said.append,
        )  # fmt: skip
        return tuned.study, said

    first, said = remarks_of()
    assert said == [f"study {first.study_name} begins"]
    longer, said = remarks_of("tuning.trials=3", "tuning.patience_trials=7")
    assert longer.study_name == first.study_name
    assert len(longer.trials) == 3
    for overrides, inputs, changed in [
        ((), {"data": "newer"}, "data changed"),
        (("tuning.seed=2",), {"data": "newer"}, "spec changed"),
        (("tuning.seed=3",), {"data": "newest"}, "spec, data changed"),
    ]:
        other, said = remarks_of(*overrides, inputs=inputs)
        assert other.study_name != first.study_name
        assert changed in said[0]
        assert len(other.trials) == 2


def test_a_warm_start_tries_the_best_of_the_last_study_after_the_spec(panel):
    storage = optuna.storages.InMemoryStorage()

    def run(*overrides, inputs):
        said = []
        tuned = tune_head(
            job("tuning.candidates=3", *overrides), [panel], LEVELS, 1,
            storage=storage, inputs=inputs, on_remark=said.append,
        )  # fmt: skip
        return tuned, said

    old, _ = run(inputs={"data": "old"})
    warm = 'tuning.warm_start=["perp-8h", "perp-1h"]'
    new, said = run(warm, "tuning.trials=4", inputs={"data": "new"})
    assert said[1:] == ["warm start: 3 trials of perp-8h", "warm start: 0 trials of perp-1h"]
    best = sorted(
        (t for t in old.study.trials if t.state.name == "COMPLETE"), key=lambda t: t.value
    )[:3]
    spec_first, *lent = new.study.trials
    assert spec_first.user_attrs["source"] == "spec"
    expected = [t.params for t in best if t.params != spec_first.params]
    assert [t.params for t in lent][: len(expected)] == expected
    assert lent[0].user_attrs["source"].startswith(f"{old.study.study_name} trial")
    narrow = "tuning.space.rounds={low=2, high=3, log=true, integer=true}"
    _, said = run(warm, narrow, "tuning.trials=1", inputs={"data": "newest"})
    assert "lie outside tuning.space" in said[1]
