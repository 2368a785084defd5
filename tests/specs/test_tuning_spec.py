"""A study that could not mean anything is refused before any work."""

import pytest
from tests.training.tuning.study_cases import job

from margincast.core.errors import SpecError


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "tuning.space.max_bin={low=15, high=63, log=true, integer=true}",
            "max_bin, which no trial may vary: the bins are built once",
        ),
        (
            "tuning.space.seed={low=1, high=63, log=true, integer=true}",
            "a lucky seed is not a better model",
        ),
        (
            "tuning.space.leaves={low=1, high=63, log=true, integer=true}",
            "space names leaves, which model.head does not have; trials may vary bagging_fraction",
        ),
        (
            "tuning.space.min_data_factor={low=5.0, high=63.0, log=true, integer=false}",
            "tuning.space.min_data_factor: 5 is not allowed",
        ),
        ("tuning.objectives=[loss, mean_margin]", "write pruner = 'none'"),
        ("tuning.objectives=[loss, loss]", "names loss more than once"),
        ("tuning.objectives=[profit]", "tuning.objectives"),
        ("tuning.objectives=[]", "at least 1"),
        ("tuning.held_out_share=0.5", "less than 0.5"),
        ("tuning.exceedance_ratio_min=200", "lies above exceedance_ratio_max 100"),
        ("tuning.workers=0", "tuning.workers"),
    ],
)
def test_what_is_refused_and_why(override, message):
    if "objectives" in override:
        override = override.replace("[", '["').replace("]", '"]').replace(", ", '", "')
        override = override.replace('[""]', "[]")
    with pytest.raises(SpecError) as caught:
        job(override)
    assert message in str(caught.value)


def test_several_objectives_without_a_pruner_are_fine():
    spec = job('tuning.objectives=["loss", "mean_margin"]', "tuning.pruner=none")
    assert spec.tuning.objectives == ("loss", "mean_margin")
