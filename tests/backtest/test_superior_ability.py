"""Superior ability: who beats the benchmark, twins, names, and the price of having looked a lot."""

import numpy as np
import pandas as pd
import pytest

from margincast.backtest.superior_ability import superior_ability
from margincast.core.errors import InputError


def losses_of(means, seed=1, size=400):
    generator = np.random.default_rng(seed)
    common = generator.exponential(1.0, size)
    names = [f"model_{position}" for position in range(len(means))]
    columns = [mean + common + generator.normal(0.0, 0.3, size) for mean in means]
    return pd.DataFrame(dict(zip(names, columns, strict=True)))


def ability_of(losses, benchmark="model_0", **options):
    return superior_ability(losses, benchmark, block_length=5, replications=200, **options)


def test_names_the_better_ones_only():
    found = ability_of(losses_of([0.0, -0.2, 0.3, -0.15, 0.0]))
    assert found.p_value < 0.01
    assert found.superior == ("model_1", "model_3")
    assert found.lower <= found.p_value <= found.upper


def test_the_best_is_not_beaten():
    found = ability_of(losses_of([0.0, 0.2, 0.3]))
    assert found.superior == ()
    assert found.p_value > 0.4


def test_all_may_be_better():
    found = ability_of(losses_of([0.0, -0.2, -0.3]))
    assert found.superior == ("model_1", "model_2")
    assert ability_of(losses_of([0.0, -0.2])).superior == ("model_1",)


def test_a_hopeless_model_hides_nobody():
    # a bad and noisy model raises the bar of the reality check (upper), not of the consistent one
    losses = losses_of([0.0, -0.05, 0.05], seed=3)
    bad = losses.assign(bad=5.0 + 20.0 * np.random.default_rng(1).exponential(1.0, len(losses)))
    assert ability_of(bad).p_value <= ability_of(losses).p_value + 0.03


def test_size_over_many_equal_models():
    rejected = sum(ability_of(losses_of([0.0] * 8, seed=s)).p_value < 0.1 for s in range(40))
    assert rejected <= 10


def test_twins_of_the_benchmark_are_left_out():
    losses = losses_of([0.0, 0.2])
    twin = losses.assign(twin=losses["model_0"] * (1.0 + 1e-13))
    assert ability_of(twin).alike == ("twin",)
    assert ability_of(twin).p_value == ability_of(losses).p_value
    alone = ability_of(twin[["model_0", "twin"]])
    assert (alone.p_value, alone.superior) == (1.0, ())


def test_a_fixed_difference_is_certain():
    losses = losses_of([0.0, 0.2])
    worse = losses.assign(worse=losses["model_0"] + 0.5)
    assert ability_of(worse) == ability_of(losses)
    better = losses.assign(better=losses["model_0"] - 0.5)
    found = ability_of(better)
    assert (found.p_value, found.superior) == (0.0, ("better",))


def test_units_do_not_matter_and_seeds_decide():
    losses = losses_of([0.0, -0.02, 0.1])
    assert ability_of(losses) == ability_of(losses)
    assert ability_of(1e-4 * losses).p_value == pytest.approx(ability_of(losses).p_value, abs=1e-9)


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (lambda: ability_of(losses_of([0.0, 0.1]), "model_o"), "did you mean"),
        (lambda: ability_of(losses_of([0.0])), "at least 2"),
        (lambda: ability_of(losses_of([0.0, 0.1], size=4)), "block_length"),
        (lambda: ability_of(losses_of([0.0, 0.1]), size=1.0), "size"),
        (lambda: ability_of(losses_of([0.0, np.nan])), "NaN"),
    ],
)
def test_unusable_input_is_refused(call, found):
    with pytest.raises(InputError, match=found):
        call()
