"""Model confidence set: simulations with a known best model, ties, and refusals."""

import numpy as np
import pandas as pd
import pytest

from margincast.backtest.confidence_set import model_confidence_set
from margincast.core.errors import InputError

FEW = {"block_length": 5, "replications": 200}


def losses_of(extra, days=400, seed=1):
    """Losses of models that share a common day and lose ``extra`` more than the best on average."""
    generator = np.random.default_rng(seed)
    common = generator.gamma(2.0, size=days)
    own = generator.normal(scale=0.3, size=(days, len(extra)))
    table = common[:, None] + own + np.array(list(extra.values()))
    return pd.DataFrame(table, columns=list(extra))


def test_a_dominated_model_leaves_and_the_rest_stay():
    found = model_confidence_set(losses_of({"best": 0.0, "bad": 0.3, "worse": 0.5}), **FEW)
    assert found.members == ("best",)
    assert found.p_values["best"] == 1.0
    assert found.p_values["worse"] <= found.p_values["bad"] < 0.1


def test_the_best_model_is_in_nine_sets_of_ten():
    """Three models equally good: the set must hold any given one in at least nine of ten draws."""
    trials = 60
    held = sum(
        "b" in model_confidence_set(losses_of(dict.fromkeys("abc", 0.0), 150, seed), **FEW).members
        for seed in range(trials)
    )
    assert held / trials >= 0.9 - 2 * np.sqrt(0.09 / trials)


def test_scale_and_a_common_loss_change_nothing():
    losses = losses_of({"a": 0.0, "b": 0.02, "c": 0.05})
    whole = model_confidence_set(losses, **FEW).p_values
    assert model_confidence_set(1e-4 * losses, **FEW).p_values == pytest.approx(whole)
    shifted = losses.add(np.arange(len(losses)) % 7, axis=0)
    assert model_confidence_set(shifted, **FEW).p_values == pytest.approx(whole)


def test_twins_share_their_p_value_and_do_not_disturb_the_rest():
    losses = losses_of({"a": 0.0, "b": 0.02, "c": 0.3})
    alone = model_confidence_set(losses, **FEW)
    with_twin = model_confidence_set(losses.assign(twin=losses["b"]), **FEW)
    assert with_twin.p_values == alone.p_values | {"twin": alone.p_values["b"]}
    rounded = model_confidence_set(losses.assign(twin=losses["b"] * (1 + 1e-15)), **FEW)
    assert rounded.p_values == with_twin.p_values
    same = model_confidence_set(losses[["a"]].assign(other=losses["a"]), **FEW)
    assert same.p_values == {"a": 1.0, "other": 1.0}
    assert model_confidence_set(losses[["c"]], **FEW).members == ("c",)


def test_a_model_worse_by_the_same_amount_every_day_is_out():
    losses = pd.DataFrame({"a": np.tile([1.0, 3.0], 50)})
    found = model_confidence_set(losses.assign(b=losses["a"] + 0.5), **FEW)
    assert found.p_values == {"a": 1.0, "b": 0.0}


def test_losses_in_proportion_leave_one_after_another():
    """Their differences have one t-statistic for all pairs; only one of a pair is the worse."""
    for seed in range(10):
        best = np.random.default_rng(seed).gamma(2.0, size=100)
        losses = pd.DataFrame({str(i): (1.0 + 0.1 * i) * best for i in range(16)})
        found = model_confidence_set(losses, block_length=5, replications=50)
        assert found.p_values == {str(i): float(i == 0) for i in range(16)}


def test_same_seed_same_set():
    losses = losses_of({"a": 0.0, "b": 0.02, "c": 0.03})
    first, again = (model_confidence_set(losses, seed=5, **FEW) for _ in range(2))
    assert first == again


@pytest.mark.parametrize(
    ("losses", "changes", "found"),
    [
        (pd.DataFrame({"a": [1.0, np.nan, 2.0]}), {}, "1 NaN"),
        (pd.DataFrame({"a": [1.0]}), {}, "at least 2"),
        (pd.DataFrame({"a": [1.0, 2.0]}), {"block_length": 3}, "block_length must lie in 1..2"),
        (pd.DataFrame({"a": [1.0, 2.0]}), {"size": 10.0}, "size must lie"),
        (pd.DataFrame(), {}, "empty"),
    ],
)
def test_unusable_losses_are_refused(losses, changes, found):
    with pytest.raises(InputError, match=found):
        model_confidence_set(losses, **({"block_length": 1} | changes))
