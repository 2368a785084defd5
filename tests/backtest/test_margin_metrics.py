"""Margin metrics: sums that must add up over groups, and figures made by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.backtest.margin_metrics import (
    GROUPINGS,
    MarginSample,
    margin_figures,
    volatility_regimes,
)
from margincast.core.errors import InputError


def drawn_sample(seed: int, count: int = 200, *, weighted: bool = True) -> MarginSample:
    generator = np.random.default_rng(seed)
    contract = generator.choice(["BTC", "ETH", "XRP"], size=count)
    volatility = np.where(generator.random(count) < 0.1, np.nan, generator.random(count))
    return MarginSample(
        outcome=0.02 * generator.exponential(size=count),
        margin=generator.uniform(0.01, 0.08, size=count),
        contract=contract,
        side=generator.choice(["long", "short"], size=count),
        tier=generator.choice(["1", "2"], size=count),
        regime=volatility_regimes(volatility, contract),
        open_interest_usd=1e6 * generator.random(count) if weighted else None,
    )


@given(
    st.integers(0, 10**6),
    st.lists(st.sampled_from(GROUPINGS), unique=True, max_size=4),
    st.booleans(),
)
def test_groups_add_up_and_are_the_figures_of_their_rows(seed, by, weighted):
    sample = drawn_sample(seed, weighted=weighted)
    found, (total,) = margin_figures(sample, by), margin_figures(sample)
    assert len({tuple(each.group.items()) for each in found}) == len(found)
    for name in ("decisions", "exceedances", "fund_draw"):
        assert sum(getattr(each, name) for each in found) == pytest.approx(getattr(total, name))
    if total.fund_draw > 0.0:
        assert sum(each.share_of_draw for each in found) == pytest.approx(1.0)
    for each in found:
        rows = np.full(len(sample.outcome), fill_value=True)
        for name, label in each.group.items():
            rows &= getattr(sample, name) == label
        beyond = np.maximum(sample.outcome - sample.margin, 0.0)[rows]
        weights = sample.open_interest_usd
        interest = np.ones(rows.sum()) if weights is None else weights[rows]
        assert each.decisions == rows.sum() > 0
        assert each.exceedances == (beyond > 0.0).sum()
        assert each.exceedance_share == pytest.approx((beyond > 0.0).mean())
        assert each.mean_margin == pytest.approx(sample.margin[rows].mean())
        assert each.mean_shortfall == pytest.approx(beyond.mean())
        assert each.worst_shortfall == beyond.max()
        assert each.fund_draw == pytest.approx((beyond * interest).sum())
        expected = (beyond * interest).mean() / interest.mean()
        assert each.fund_draw_per_open_interest == pytest.approx(expected)
        if each.exceedances:
            expected = beyond[beyond > 0.0].mean()
            assert each.shortfall_per_exceedance == pytest.approx(expected)
        else:
            assert np.isnan(each.shortfall_per_exceedance)


def test_by_hand():
    sample = MarginSample(
        outcome=np.array([0.05, 0.02, 0.09, 0.01]),
        margin=np.array([0.03, 0.03, 0.03, 0.01]),
        contract=np.array(["A", "A", "B", "B"]),
        side=np.array(["long"] * 4),
        open_interest_usd=np.array([100.0, 300.0, 50.0, 150.0]),
    )
    first, second = margin_figures(sample, ["contract"])
    assert (first.group, second.group) == ({"contract": "A"}, {"contract": "B"})
    assert (first.exceedances, second.exceedances) == (1, 1)  # 0.01 equal to its margin held
    assert first.fund_draw == pytest.approx(2.0)
    assert second.fund_draw == pytest.approx(3.0)
    assert first.share_of_draw == pytest.approx(0.4)
    assert first.fund_draw_per_open_interest == pytest.approx(2.0 / 400.0)


def test_a_margin_that_holds_draws_nothing_and_shares_nothing():
    sample = MarginSample(
        np.array([0.01, 0.02]), np.array([0.05, 0.05]), np.array(["A", "B"]), np.array(["long"] * 2)
    )
    found = margin_figures(sample, ["contract"])
    assert [each.fund_draw for each in found] == [0.0, 0.0]
    assert all(np.isnan(each.share_of_draw) for each in found)


@given(st.integers(0, 10**6), st.sampled_from([1e-3, 1.0, 1e4]))
def test_regimes_are_thirds_of_each_contract_whatever_its_unit(seed, scale):
    generator = np.random.default_rng(seed)
    contract = np.repeat(["A", "B"], 90)
    volatility = generator.random(180)
    volatility[90:] *= scale
    regimes = volatility_regimes(volatility, contract)
    for name in ("A", "B"):
        labels, counts = np.unique(regimes[contract == name], return_counts=True)
        assert dict(zip(labels, counts, strict=True)) == dict.fromkeys(
            ("calm", "normal", "turbulent"), 30
        )
        own = volatility[contract == name]
        of = {label: own[regimes[contract == name] == label] for label in labels}
        assert of["calm"].max() < of["normal"].min() < of["normal"].max() < of["turbulent"].min()


def test_unknown_volatility_is_a_regime_of_its_own():
    found = volatility_regimes(np.array([np.nan, 1.0, 2.0, 3.0, np.nan]), np.array(list("AAAAB")))
    assert found.tolist() == ["unknown", "calm", "normal", "turbulent", "unknown"]


def test_what_does_not_fit_is_refused():
    rates, labels = np.array([0.01, 0.02]), np.array(["A", "B"])
    with pytest.raises(InputError, match="side has shape"):
        MarginSample(rates, rates, labels, labels[:1])
    with pytest.raises(InputError, match="NaN or infinite"):
        MarginSample(np.array([0.01, np.nan]), rates, labels, labels)
    with pytest.raises(InputError, match="open_interest_usd must be zero or more"):
        MarginSample(rates, rates, labels, labels, open_interest_usd=np.array([1.0, -1.0]))
    sample = MarginSample(rates, rates, labels, labels)
    with pytest.raises(InputError, match="no labels of tier"):
        margin_figures(sample, ["tier"])
    with pytest.raises(InputError, match="group by different ones"):
        margin_figures(sample, ["side", "side"])
    with pytest.raises(InputError, match="pair one to one"):
        volatility_regimes(rates, labels[:1])
    with pytest.raises(InputError, match="infinite"):
        volatility_regimes(np.array([1.0, np.inf]), labels)
