"""Trials on a Dask cluster find what they find here, also when a worker leaves in the midst."""

import pytest
from tests.training.tuning.study_cases import LEVELS, job, simulated_panel

from margincast.training.tuning.tune import tune_head
from margincast.training.tuning.workers import workers_on

distributed = pytest.importorskip("distributed")


@pytest.fixture
def cluster():
    # threads of this process: what is tested is who is asked and who answers
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        dashboard_address=None,
        worker_dashboard_address=None,
    ) as cluster:
        yield cluster


@pytest.mark.filterwarnings("ignore::UserWarning:distributed", "ignore::DeprecationWarning")
def test_a_study_on_a_cluster_is_the_study_here_and_outlives_a_worker(cluster):
    from margincast.training.execution.cluster import ClusterExecution  # noqa: PLC0415  # an extra

    spec = job("tuning.trials=6", "tuning.sampler=random", "tuning.pruner=none", "tuning.workers=2")
    panel = simulated_panel(0, 500)
    gone = []

    def one_leaves(_):
        if not gone:
            gone.append(cluster.scale(1))

    with distributed.Client(cluster) as client:
        there = tune_head(
            spec, [panel], LEVELS, 1, one_leaves,
            make_workers=workers_on(ClusterExecution(client, "here")),
        )  # fmt: skip
    here = tune_head(spec, [panel], LEVELS, 1)
    assert gone
    assert sorted((t.number, t.value) for t in there.study.trials) == [
        (t.number, t.value) for t in here.study.trials
    ]
    assert there.model == here.model
    assert [c.held_out.loss for c in there.candidates] == [c.held_out.loss for c in here.candidates]
